"""Helpers of many tests: configurations out of conf/, composed once a choice of groups, and small data sets."""

import copy
import functools
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread costs more than it brings

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from trainer import config as cfg
from trainer import data
from trainer.app import CONF
from trainer.config import Config
from trainer.data import Dataset


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in one order, so that values can be compared bit for bit."""
    torch.set_num_threads(1)


@functools.cache
def _composed(*choices: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        tree = OmegaConf.to_container(compose("config", list(choices)), resolve=True)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def make_config(*choices: str, **values: Any) -> Config:
    """What the command line would give: make_config("optimizer=sgd", epochs=3, **{"model.dropout": 0.5})."""
    tree = copy.deepcopy(_composed(*choices))
    for key, value in values.items():
        node = tree
        *groups, last = key.split(".")
        for group in groups:
            node = node[group]
        node[last] = value
    return cfg.from_dict(tree)


def make_optimizer(name: str, **values: Any) -> cfg.Optimizer:
    """A class of torch.optim with nothing but what is said here; lr 0.01."""
    knobs: dict[str, Any] = {
        "_target_": f"torch.optim.{name}",
        "lr": 0.01,
        "weight_decay": 0.0,
        "decay": "all",
    } | values
    tree = copy.deepcopy(_composed())
    tree["optimizer"] = knobs
    return cfg.from_dict(tree).optimizer


@functools.cache
def small_data(task: str = "digits", dtype: torch.dtype = torch.float64) -> Dataset:
    """The default data set of a task, normalised; float64, so that only mistakes are larger than rounding."""
    return data.load(make_config(f"data={task}").data, dtype=dtype)
