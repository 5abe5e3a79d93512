"""Helpers of many tests: configurations out of conf/, composed once a choice of groups, and small data sets."""

import copy
import csv
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread costs more than it brings

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from trainer import config as cfg
from trainer.cli.app import CONF
from trainer.config import Config
from trainer.core import data
from trainer.core.data import Dataset
from trainer.core.loop import Stack, train
from trainer.engine.progress import Reporter
from trainer.record.recorder import Recorder
from trainer.record.tensorboard import Scalars, read_scalars


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


class Log:
    """An observer that keeps everything of every member, by its place in the stack at the start."""

    def __init__(self, stack: Stack, every: int) -> None:
        members = range(len(stack.members))
        self.every = every
        self.tags = stack.step_tags
        self.steps: list[list[dict[str, float]]] = [[] for _ in members]  # measured, with "step" and "lr"
        self.rows: list[list[dict[str, float]]] = [[] for _ in members]
        self.reasons = [""] * len(members)
        self.states: list[dict[str, Tensor]] = [{} for _ in members]
        self.best: list[int | None] = [None for _ in members]
        self.starts: list[dict[str, float]] = [{} for _ in members]
        self.pending: list[tuple[int, Tensor, list[float]]] = []

    def wants(self, step: int, *, first: bool, last: bool) -> bool:
        return self.every > 0 and (first or last or step % self.every == 0)

    def step(self, step: int, measured_MK: Tensor, learning_rates: list[float]) -> None:
        self.pending.append((step, measured_MK, learning_rates))

    def _flush(self, stack: Stack) -> None:
        for step, measured_MK, rates in self.pending:
            assert measured_MK.shape == (len(self.tags), len(stack.members))
            for values, rate, member in zip(measured_MK.t().tolist(), rates, stack.members, strict=True):
                named = {"step": step, "lr": rate, **dict(zip(self.tags, values, strict=True))}
                self.steps[member.index].append(named)
        self.pending.clear()

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        self._flush(stack)
        for member, row in zip(stack.members, rows, strict=True):
            self.rows[member.index].append(row)

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        self._flush(stack)
        for k, reason in leaving.items():
            index = stack.members[k].index
            best = stack.members[k].best
            assert not self.reasons[index], "left twice"
            self.reasons[index], self.states[index] = reason, stack.model.member_state(k)
            self.best[index] = best.epoch if best else None
            self.starts[index] = stack.members[k].start


def run(configs: Sequence[Config], dataset: Dataset, every: int = 1, stop: Callable[[], bool] = lambda: False) -> Log:
    """Train a stack to its end in memory."""
    stack = Stack(configs, dataset)
    log = Log(stack, every)
    train(stack, log, stop)
    assert all(log.reasons)
    return log


def record(
    configs: Sequence[Config],
    directory: Path,
    dataset: Dataset | None = None,
    stop: Callable[[], bool] = lambda: False,
    idle: int = 0,
) -> list[Path]:
    """Train a stack and record it; the run directories, <directory>/<number>. In 32 bits, as users do.

    idle: processes that help where members end.
    """
    stack = Stack(configs, dataset or small_data("digits", torch.float32))
    runs = [directory / str(k) for k in range(len(configs))]
    train(stack, Recorder(stack, runs, Reporter(0, lambda news: None, lambda: idle)), stop)
    return runs


Cli = Callable[..., tuple[int, str, str]]


ROOT = Path(__file__).parents[1]
HEAD = "nothing was run (python -m trainer --help lists every key)"  # of a refusal


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": ""}


def scalars(directory: Path) -> dict[str, Scalars]:
    (file,) = directory.glob("events.out.tfevents.*")
    found, problems = read_scalars(file)
    assert not problems
    return found


def rows(directory: Path) -> list[dict[str, float]]:
    with open(directory / "metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def summary(directory: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((directory / "summary.json").read_text(), parse_constant=refuse)
