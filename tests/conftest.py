"""Helpers of many tests: configurations out of conf/, composed once a choice of groups, and small data sets."""

import copy
import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread costs more than it brings

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import Tensor

from trainer import app, data
from trainer import config as cfg
from trainer.app import CONF
from trainer.config import Config
from trainer.data import Dataset
from trainer.progress import Reporter
from trainer.record import Recorder
from trainer.train import Stack, train


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


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command line of `trainer` in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()

    def run(line: str = "") -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        arguments = shlex.split(line)
        monkeypatch.setattr(sys, "argv", ["trainer", *arguments])
        capsys.readouterr()
        code = app.run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    yield run
    torch.set_num_threads(threads)
    GlobalHydra.instance().clear()
    sys.modules.pop("my_models", None)
