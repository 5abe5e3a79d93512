"""Stacks in processes of their own: what crosses, what happens when one dies, and when this one does."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers import make_config
from trainer.config import Config, ConfigError
from trainer.core import loop
from trainer.engine import pool, runtime, worker
from trainer.engine.progress import News
from trainer.engine.worker import Job

SMALL = {"epochs": 2, "data.train_size": 200, "model.width": 8, "record.pictures": False}


class Listener:
    """A display that keeps what it hears."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.ended: list[int] = []

    def tell(self, news: News) -> None:
        self.news.append(news)

    def done(self, jobs: Sequence[Job]) -> None:
        self.ended += [job.number for job in jobs]


def some_jobs(folder: Path, *more: Config) -> list[Job]:
    """Four runs of two shapes."""
    shapes = ({"seed": 0}, {"seed": 1}, {"seed": 2, "model.depth": 1}, {"seed": 3, "model.depth": 1})
    configs = [make_config(**(SMALL | shape)) for shape in shapes]
    return [Job(k, folder / str(k), config=config) for k, config in enumerate([*configs, *more])]


def train_all(jobs: list[Job], monkeypatch: pytest.MonkeyPatch, workers: int, stop=lambda: False) -> Listener:
    monkeypatch.setattr(runtime, "workers", lambda configs: workers)
    display = Listener()
    worker.train_jobs(jobs, 128, display, stop)
    return display


def losses(job: Job) -> list[list[str]]:
    with open(job.directory / "metrics.csv") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_here_or_in_processes_the_same(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = some_jobs(tmp_path / "here"), some_jobs(tmp_path / "there")
    train_all(here, monkeypatch, 1)
    monkeypatch.setattr(pool, "_start_method", lambda stacks: method)
    display = train_all(there, monkeypatch, 2)
    assert sorted(display.ended) == [0, 1, 2, 3]
    assert {news.stack for news in display.news} == {0, 1}
    best = min(news.row["val/loss"] for news in display.news if news.row)
    assert best == min(job.objective for job in there)
    for a, b in zip(here, there, strict=True):
        assert a.status == b.status == "completed"
        assert losses(a) == losses(b)
        assert a.summary is not None
        assert b.summary is not None
        assert a.summary["test"] == b.summary["test"]


def test_a_stack_whose_process_is_killed_begins_again_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does it when memory is short. Run 1 is killed alone too: it fails, no other does."""
    step = loop.train_step

    def killed(stack: loop.Stack, *arguments):
        if stack.epoch == 1 and any(member.config.seed == 1 for member in stack.members):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(stack, *arguments)

    monkeypatch.setattr(loop, "train_step", killed)
    jobs = some_jobs(tmp_path)
    display = train_all(jobs, monkeypatch, 2)
    assert sorted(display.ended) == [0, 1, 2, 3]
    assert [job.status for job in jobs] == ["completed", "failed", "completed", "completed"]
    assert str(jobs[1].error) == "the process that trained it was killed by SIGKILL; out of memory?"
    for job in (jobs[0], jobs[2], jobs[3]):
        assert len(losses(job)) == 3
        assert len(list(job.directory.glob("events.out.tfevents.*"))) == 1


class Odd(Exception):
    """Cannot be made from its arguments, so it cannot be unpickled."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} and {b}")


def test_errors_cross(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = loop.train_step

    def break_down(stack: loop.Stack, *arguments):
        if any(member.config.seed == 3 for member in stack.members):
            raise Odd("this", "that")
        return step(stack, *arguments)

    monkeypatch.setattr(loop, "train_step", break_down)
    bad = make_config("optimizer=sgd", **(SMALL | {"optimizer.nesterov": True}))
    jobs = some_jobs(tmp_path, bad)
    train_all(jobs, monkeypatch, 2)
    assert [job.status for job in jobs] == ["completed", "completed", "completed", "failed", "failed"]
    assert str(jobs[3].error) == "Odd: this and that"
    assert isinstance(jobs[4].error, ConfigError)
    assert len(jobs[4].error.problems) == 1


def test_stopping_reaches_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [make_config(**(SMALL | {"epochs": 10**6, "seed": seed, "model.depth": seed})) for seed in (1, 2, 3)]
    jobs = [Job(k, tmp_path / str(k), config=config) for k, config in enumerate(long)]
    display = train_all(jobs, monkeypatch, 2, stop=lambda: len(list(tmp_path.glob("*/metrics.csv"))) == 2)
    assert len(display.ended) == 2
    assert [job.status for job in jobs] == ["interrupted"] * 3
    assert sorted(job.summary["epochs"] > 0 for job in jobs if job.summary) == [False, True, True]


@pytest.mark.slow
def test_nobody_works_on_for_a_sweep_that_was_killed(tmp_path: Path) -> None:
    sweep = [
        sys.executable,
        "-m",
        "trainer",
        "-m",
        "epochs=1000000",
        "model.depth=1,2,3",
        f"hydra.sweep.dir={tmp_path}",
    ]
    process = subprocess.Popen(sweep, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob("*/metrics.csv")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None
        process.kill()
        process.wait()
        while _group(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _group(process.pid)
    finally:
        if _group(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def _group(number: int) -> bool:
    """Whether a process group has members."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("threads", "planned_for", "forked"), [(1, 2, True), (None, 2, True), (1, 1, True), (2, 2, False), (None, 1, False)]
)
def test_teams_of_threads_are_not_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None, planned_for: int, forked: bool
) -> None:
    """OpenMP hangs in a forked child that opens a team of threads after its parent did.

    A stack that was planned alone takes all cores, when others train beside it too.
    """
    monkeypatch.setattr(runtime, "PYTORCH_THREADS", 2)
    configs = make_config(threads=1), make_config(threads=threads)
    parts = [
        worker.Part([Job(0, tmp_path, config=c)], workers=w) for c, w in zip(configs, (2, planned_for), strict=True)
    ]
    assert pool._start_method(parts) == ("fork" if forked and sys.platform == "linux" else "spawn")
