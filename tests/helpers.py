"""Helpers of many tests: configurations out of conf/, composed once a choice of groups, and small data sets."""

import copy
import csv
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tensorboard.compat.proto import event_pb2, summary_pb2
from torch import Tensor

from trainer import config as cfg
from trainer.cli.config_files import CONF
from trainer.config import Config
from trainer.core import data
from trainer.core.data import Dataset
from trainer.core.loop import train
from trainer.core.stack import Member, Stack, Step
from trainer.engine import planning, pool, progress
from trainer.engine.jobs import Job, StackJob
from trainer.engine.progress import News
from trainer.engine.resume.checkpoint import Checkpoints
from trainer.read.event_files import Scalars, read_scalars
from trainer.record.destination import Destination
from trainer.record.recorder import Recorder
from trainer.record.summary import verdict


@functools.cache
def composed(*choices: str) -> dict[str, Any]:
    """Plain values of these choices of files and keys; they are kept, so leave them as they are."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        tree = OmegaConf.to_container(compose("config", list(choices)), resolve=True)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def make_config(*choices: str, **values: Any) -> Config:
    """What the command line would give: make_config("optimizer=sgd", epochs=3, **{"model.dropout": 0.5})."""
    tree = copy.deepcopy(composed(*choices))
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
    tree = copy.deepcopy(composed())
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

    def checkpoint(self, stack: Stack) -> None: ...

    def wants(self, step: Step) -> bool:
        return self.every > 0 and (step.first or step.last or step.number % self.every == 0)

    def burst(self, numbers: list[int], measured_SMK: Tensor, rates_SK: list[list[float]]) -> None:
        self.pending += zip(numbers, measured_SMK, rates_SK, strict=True)

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
    train(stack, log, stop, is_overfit)
    assert all(log.reasons)
    return log


class Quiet(Recorder):
    """A recorder that observes alone: nothing saves checkpoints."""

    def checkpoint(self, stack: Stack) -> None: ...


def is_overfit(member: Member) -> bool:
    """What early_stopping.monitor=verdict asks."""
    return verdict(member).verdict == "overfit"


def record(
    configs: Sequence[Config],
    directory: Path,
    dataset: Dataset | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Train a stack and record it; the run directories, <directory>/<number>. In 32 bits, as users do."""
    stack = Stack(configs, dataset or small_data("digits", torch.float32))
    runs = [directory / str(k) for k in range(len(configs))]
    train(stack, Quiet(stack, [Destination(run) for run in runs]), stop, is_overfit)
    return runs


class Listener:
    """A display that keeps what it hears."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.ended: list[int] = []

    def tell(self, news: News) -> None:
        self.news.append(news)

    def done(self, jobs: Sequence[Job]) -> None:
        self.ended += [job.number for job in jobs]

    @property
    def sizes(self) -> list[int]:
        """Members of every stack that began to train, in order; a slow first step is told of more than once."""
        told = [news for before, news in itertools.pairwise([None, *self.news]) if news != before and news is not None]
        return [news.members for news in told if (news.step, news.runs) == (0, 0.0) and news.row is None]


def jobs_of(configs: Sequence[Config], folder: Path) -> list[Job]:
    """A job for each configuration, in <folder>/<number>."""
    return [Job(number, folder / str(number), config=config) for number, config in enumerate(configs)]


def train_jobs(
    jobs: Sequence[Job],
    max_members: int = 128,
    workers: int = 0,
    display: Listener | None = None,
    stop: Callable[[], bool] = lambda: False,
    checkpoints: Path | None = None,
) -> Listener:
    """Plan stacks of the jobs and train them, in this process where workers is 0."""
    display = display or Listener()
    if checkpoints:
        checkpoints.mkdir(exist_ok=True)
    planned = planning.plan(jobs, max_members, max(1, workers))
    stacks = [StackJob(m, Checkpoints(checkpoints, str(n)), max(1, workers)) for n, m in enumerate(planned)]
    pool.train_stacks(stacks, workers, display, stop)
    return display


Cli = Callable[..., tuple[int, str, str]]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C once, before the step after this one."""
    tick = progress.Reporter.tick

    def ticking(self: progress.Reporter, stack: Stack) -> None:
        if stack.step == step - 1:
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)
        tick(self, stack)

    monkeypatch.setattr(progress.Reporter, "tick", ticking)


ROOT = Path(__file__).parents[1]
HEAD = "nothing was run (python -m trainer --help lists every key)"  # of a refusal


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": ""}


def trainer_in(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """What `python -m trainer` comes to in a folder, in a process of its own: no import of a test goes before it."""
    command = [sys.executable, "-m", "trainer", *line]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def bits(folder: Path) -> dict[str, bytes]:
    """What must be equal, bit for bit, of the runs in or below a folder: by path."""
    named = (path for name in ("metrics.csv", "best.pt", "last.pt") for path in folder.rglob(name))
    return {str(path.relative_to(folder)): path.read_bytes() for path in named if ".resume" not in path.parts}


def check_kill(folder: Path, *line: str) -> None:
    """Train a run, or with -m a sweep, into `whole`; and into `killed`, which is, and resumed: to the same bits.

    The user's own code sleeps for SLOW seconds a step, so that the kill comes between its first checkpoint and its end.
    """
    key = f"hydra.{'sweep' if '-m' in line else 'run'}.dir"
    whole = trainer_in(folder, *line, f"{key}=whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "trainer", *line, f"{key}=killed"]
    slow = environment() | {"SLOW": "0.3"}
    process = subprocess.Popen(command, cwd=folder, env=slow, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(folder.glob("killed/.resume/stack-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not list((folder / "killed").rglob("summary.json"))
    again = trainer_in(folder, "resume=killed")
    assert (again.returncode, again.stderr) == (0, "")
    assert any("goes on after epoch" in log.read_text() for log in (folder / "killed").rglob("trainer.log"))
    assert bits(folder / "whole") == bits(folder / "killed") != {}


def scalars(directory: Path) -> dict[str, Scalars]:
    (file,) = directory.glob("events.out.tfevents.*")
    found, problems = read_scalars(file)
    assert not problems
    return found


def rows(directory: Path) -> list[dict[str, float]]:
    with open(directory / "metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def strict(text: str) -> Any:
    """What JSON says; NaN and Infinity are no JSON."""
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def summary(directory: Path) -> dict[str, Any]:
    return strict((directory / "summary.json").read_text())


def value_event(wall_time: float, step: int, **value: Any) -> bytes:
    """An event with one summary value, as protobuf's own classes write it."""
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(**value)])
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary).SerializeToString()


def left_behind(folder: Path) -> list[str]:
    """Return all that lies below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
