"""Stacks in worker processes: what crosses, what happens when one dies, and when the command does."""

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers import Listener, environment, jobs_of, make_config, train_jobs
from trainer.config import ConfigError
from trainer.engine import fork_server
from trainer.engine.jobs import Job
from trainer.engine.progress import News

SMALL = {"epochs": 2, "data.train_size": 200, "model.width": 8, "record.pictures": False}
SHAPES = ({"seed": 0}, {"seed": 1}, {"seed": 2, "model.depth": 1}, {"seed": 3, "model.depth": 1})


def some_jobs(folder: Path, **more: object) -> list[Job]:
    """Four runs of two shapes."""
    return jobs_of([make_config(**(SMALL | shape | more)) for shape in SHAPES], folder)


def losses(job: Job) -> list[list[str]]:
    with open(job.directory / "metrics.csv") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("method", [fork_server.START_METHOD, pytest.param("spawn", marks=pytest.mark.slow)])
def test_here_or_in_workers_the_same(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = some_jobs(tmp_path / "here"), some_jobs(tmp_path / "there")
    train_jobs(here)
    monkeypatch.setattr(fork_server, "START_METHOD", method)
    display = train_jobs(there, workers=2)
    assert sorted(display.ended) == [0, 1, 2, 3]
    assert {news.stack for news in display.news} == {0, 1}
    assert min(news.loss for news in display.news if news.row) == min(job.objective for job in there)
    for a, b in zip(here, there, strict=True):
        assert a.status == b.status == "completed"
        assert losses(a) == losses(b)
        assert a.summary is not None
        assert b.summary is not None
        assert a.summary["test"] == b.summary["test"]


class Killer(Listener):
    """Kills all workers when a stack of more than one has ended its third epoch, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def tell(self, news: News) -> None:
        super().tell(news)
        alive = multiprocessing.active_children()  # none: news of a process that is killed already
        if self.times and alive and news.epoch >= 3 and news.members > 1:
            self.times -= 1
            for process in alive:
                process.kill()
                process.join()


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Nothing of the three epochs is lost, and the bits are those of a stack that was never killed."""
    more = {"epochs": 400, "checkpoint.epochs": 1, "data.train_size": 64}
    whole = some_jobs(tmp_path / "whole", **more)[:2]
    train_jobs(whole)
    killed = some_jobs(tmp_path / "killed", **more)[:2]
    train_jobs(killed, workers=1, display=Killer(1), checkpoints=tmp_path / "checkpoints")
    for a, b in zip(whole, killed, strict=True):
        assert losses(a) == losses(b)
        assert "goes on after epoch" in (b.directory / "trainer.log").read_text()
    assert not list((tmp_path / "checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_halves(tmp_path: Path) -> None:
    """As the kernel does it where memory is short."""
    jobs = some_jobs(tmp_path, epochs=1500, **{"data.train_size": 64})[:2]
    display = train_jobs(jobs, workers=1, display=Killer(2))
    assert display.sizes == [2, 2, 1, 1]
    assert [job.status for job in jobs] == ["completed", "completed"]
    for job in jobs:
        assert len(losses(job)) == 1501
        assert len(list(job.directory.glob("events.out.tfevents.*"))) == 1


HARMFUL = """
import ctypes, os, signal, torch
from torch import nn


class Odd(Exception):
    def __init__(self, a, b):  # cannot be made from its arguments, so it cannot be unpickled
        super().__init__(f"{a} and {b}")


class Net(nn.Module):
    def __init__(self, in_features, out_features, harm):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.harm, self.calls = harm, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 5:
            if self.harm == "raise":
                raise Odd("this", "that")
            if self.harm == "exit":
                raise SystemExit(7)
            if self.harm == "end":
                ctypes.CDLL(None)._exit(3)
            if self.harm == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.harm == "leave":
                os.chdir("/"); torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)
        return self.layer(x.flatten(1))
"""
REASONS = {
    "raise": "Net fails on inputs of shape (8, 1, 8, 8): Odd: this and that",
    "exit": "Net fails on inputs of shape (8, 1, 8, 8): SystemExit: 7",
    "end": "the process that trained it ended with exit code 3",
    "crash": "the process that trained it was killed by SIGSEGV",
}


def test_what_ones_own_module_does_harms_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful.py").write_text(HARMFUL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    harms = [*REASONS, "leave", "none"]
    own = {"model._target_": "harmful.Net", "data.train_size": 200, "record.pictures": False}
    configs = [make_config("model=custom", epochs=2, **own, **{"model.harm": harm}) for harm in harms]
    jobs = jobs_of([*configs, make_config(**SMALL)], Path("runs"))
    train_jobs(jobs, workers=1)
    for job, reason in zip(jobs, REASONS.values(), strict=False):
        assert job.status == "failed"
        assert reason in str(job.error)
    assert [job.status for job in jobs[-2:]] == ["completed"] * 2
    assert losses(jobs[-1]) == losses(train_here(make_config(**SMALL), tmp_path))


def train_here(config, folder: Path) -> Job:
    (job,) = jobs_of([config], folder / "here")
    train_jobs([job])
    return job


def test_a_refused_configuration_crosses(tmp_path: Path) -> None:
    jobs = jobs_of([make_config("optimizer=sgd", **(SMALL | {"optimizer.nesterov": True}))], tmp_path)
    train_jobs(jobs, workers=1)
    assert isinstance(jobs[0].error, ConfigError)
    assert len(jobs[0].error.problems) == 1


def test_stopping_reaches_every_worker(tmp_path: Path) -> None:
    long = [make_config(**(SMALL | {"epochs": 10**6, "seed": seed, "model.depth": seed})) for seed in (1, 2, 3)]
    jobs = jobs_of(long, tmp_path)
    display = train_jobs(jobs, workers=2, stop=lambda: len(list(tmp_path.glob("*/metrics.csv"))) == 2)
    assert len(display.ended) == 2
    assert [job.status for job in jobs] == ["interrupted"] * 3
    assert sorted(job.summary["epochs"] > 0 for job in jobs if job.summary) == [False, True, True]


def test_where_no_process_can_be_started_stacks_train_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    context = multiprocessing.get_context(fork_server.START_METHOD)
    monkeypatch.setattr(context.Process, "start", refuse)  # as with `ulimit -u`
    jobs = some_jobs(tmp_path)
    train_jobs(jobs, workers=2)
    assert [job.status for job in jobs] == ["completed"] * 4
    assert "no worker process could be started (Resource temporarily unavailable)" in capsys.readouterr().err


def test_stacks_train_where_a_team_of_threads_exists(tmp_path: Path) -> None:
    """OpenMP hangs in a forked child that opens a team of threads after its parent did: no worker is such a child."""
    torch.set_num_threads(2)
    torch.rand(2000, 2000).sum()
    jobs = jobs_of([make_config(threads=2, **(SMALL | {"model.width": 600, "seed": s})) for s in (1, 2)], tmp_path)
    train_jobs(jobs, max_members=1, workers=2)
    assert [job.status for job in jobs] == ["completed"] * 2


def test_the_command_of_a_sweep_is_never_forked_and_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import os, sys\nos.register_at_fork(before=lambda: os._exit(99))\n"
        "from trainer.cli import app\ncode = app.run(sys.argv[1:])\n"
        "sys.exit(code or (98 if 'torch' in sys.modules else 0))"
    )
    line = ["-m", "epochs=1", "model.depth=1,2", "data.train_size=100", "record.pictures=false"]
    done = subprocess.run(
        [sys.executable, "-c", code, *line, "hydra.sweep.dir=sweep"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_leaves_no_socket_behind(
    ending: signal.Signals | None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Not even killed: the server ends after the command, and tidies up."""
    sockets = tmp_path_factory.mktemp("t")  # whose paths are at most 107 characters long
    line = [f"epochs={10**6 if ending else 1}", "model.depth=1,2", "record.pictures=false", "hydra.sweep.dir=sweep"]
    command = [sys.executable, "-m", "trainer", "-m", *line]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment() | {"TMPDIR": str(sockets)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if ending and any(tmp_path.glob("sweep/*/metrics.csv")):
            assert any(sockets.glob("pymp-*"))
            process.send_signal(ending)
            process.wait(60)
        time.sleep(0.05)
    assert process.poll() is not None
    while _group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(sockets.iterdir()) == []


@pytest.mark.slow
def test_nobody_works_on_for_a_sweep_that_was_killed(tmp_path: Path) -> None:
    line = ["-m", "epochs=1000000", "model.depth=1,2,3", f"hydra.sweep.dir={tmp_path}"]
    command = [sys.executable, "-m", "trainer", *line]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
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
