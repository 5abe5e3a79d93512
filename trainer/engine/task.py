"""A job of an engine: some stacks, trained by a process of its own that answers signals and keeps the job's folder.

Nothing is unpickled but what comes through a pipe from the engine's own worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer import files
from trainer.config import Config, ConfigError
from trainer.engine import fork_server, interrupts, lock, pool
from trainer.engine.jobs import Job, StackJob
from trainer.engine.progress import News
from trainer.record import provenance

TICKET, ENDS, LOG = "ticket.json", "ends.json", "log.txt"  # in a job's folder, with a file of news for each stack
NEWS_S = 1.0  # between two writes of a file of news


@dataclass
class Task:
    """What is sent: some stacks to be trained one after the other, and what their process needs to know."""

    items: list[tuple[int, StackJob]]  # numbered as in the plan
    folder: Path  # the job's own
    token: str  # that stands on its ticket
    directory: Path = field(default_factory=Path.cwd)
    environment: dict[str, str] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)  # what must compute there, see provenance.code
    process: Any = None  # that trains, while it does

    def __call__(self) -> None:
        """Train in a process of its own, whose main thread takes signals: an engine's workers may be threads.

        Raises RuntimeError where that does not end well, OSError where this machine does not see the folder.
        """
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the process takes it
        sent = pickle.dumps(replace(self, process=None))
        line = [sys.executable, "-c", "import sys; from trainer.engine import task; sys.exit(task.main())"]
        with open(self.folder / LOG, "ab") as log:
            environment = os.environ | self.environment
            self.process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.directory, env=environment
            )
            self.process.communicate(sent)
        if self.process.returncode and self.process.returncode <= 128:  # above: ended by a signal, with a checkpoint
            raise RuntimeError(f"its process ended with exit code {self.process.returncode}")

    def checkpoint(self) -> Any:
        """Let the process write a checkpoint and end; return the same task, which submitit queues again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.process.pid, signal.SIGUSR2)
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # Popen.wait holds a lock, below us
        return DelayedSubmission(replace(self, process=None))


class _Notes:
    """The display of a job: writes news and ends into its folder."""

    def __init__(self, task: Task) -> None:
        self.task, self.told = task, 0.0
        self.stack = -1  # number of the one in training
        self.ends: dict[str, dict[str, Any]] = {}  # by number of the run
        self.signal: int | None = None  # that ends the job

    def tell(self, news: News) -> None:
        if news.row is None and time.monotonic() - self.told < NEWS_S:
            return
        if time.monotonic() - self.told > NEWS_S / 2:
            self.told = time.monotonic()
            files.write(self.task.folder / f"{self.stack}.news", json.dumps(asdict(news) | {"stack": self.stack}))

    def done(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            problems = job.error.problems if isinstance(job.error, ConfigError) else None
            error = None if job.error is None else [type(job.error).__name__, str(job.error)]
            end = {"status": job.status, "summary": job.summary, "error": error, "problems": problems}
            self.ends[str(job.number)] = end
        self.write()

    def write(self) -> None:
        """Write what is known."""
        files.write_sealed(self.task.folder / ENDS, {"ends": self.ends, "signal": self.signal})


def train_here(task: Task) -> int:
    """Train the stacks of a task, or what is left of them; return the exit code."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # so do the processes that are started now
    fork_server.warm_up()
    notes, parent, looked = _Notes(task), os.getppid(), time.monotonic()

    def take(number: int, frame: object) -> None:
        notes.signal = number

    for number in interrupts.SIGNALS:
        signal.signal(number, take)
    called_off = False

    def stop() -> bool:
        nonlocal looked, called_off
        if time.monotonic() - looked > NEWS_S:
            looked = time.monotonic()
            called_off = called_off or read_ticket(task.folder).get("token") != task.token
        return called_off or notes.signal is not None or os.getppid() != parent

    if read_ticket(task.folder).get("token") != task.token:
        return 0
    with lock.held(task.folder):
        items = [(number, item) for number, item in task.items if _left(item, notes)]
        differences = [text for config in kinds(task.items) for text in _differences(task, config)]
        if differences:
            for _, item in items:
                for job in item.waiting:
                    job.fail(ConfigError(list(dict.fromkeys(differences))))
                notes.done(item.jobs)
            return 0
        for number, item in items:  # one after the other: what a job that is lost has begun can be told from the rest
            if not stop():
                notes.stack = number
                pool.train_stacks([item], 1, notes, stop)
        notes.write()
    return 128 + notes.signal if notes.signal is not None else 0


def _left(item: StackJob, notes: _Notes) -> bool:
    """Whether something of a stack is left to train."""
    take_finished(item)
    notes.done([job for job in item.jobs if job.status != "waiting"])
    return bool(item.waiting)


def take_finished(item: StackJob) -> None:
    """Complete the runs of a stack that are finished. A job may run again: what it did the first time counts."""
    from trainer.engine.resume.finished import read_summary

    for job in item.waiting:
        assert job.config is not None
        summary, _ = read_summary(job.destination.folder, provenance.result_keys(job.config))
        if summary is None and job.staging is not None:
            summary, _ = read_summary(job.directory, provenance.result_keys(job.config))
        if summary is not None:
            job.finish(summary)


def kinds(items: Sequence[tuple[int, StackJob]]) -> Iterator[Config]:
    """Yield a configuration for each set of classes of the user's own."""
    yield from {repr(config.targets()): config for _, item in items for config in item.configs}.values()


def _differences(task: Task, config: Config) -> list[str]:
    here, there = provenance.code(config), task.code[repr(config.targets())]
    where = os.uname().nodename
    return [f"{where}: has other code than the command, {text}" for text in provenance.differences(there, here)]


def main() -> int:
    """Train the task that comes on standard input."""
    return train_here(pickle.load(sys.stdin.buffer))


def read_ticket(folder: Path) -> dict[str, Any]:
    """Return the ticket in a job's folder, empty where there is none that is whole."""
    return sealed(folder / TICKET)


def sealed(path: Path) -> dict[str, Any]:
    """Return what a file holds, nothing where it is not there or not whole."""
    try:
        return files.read_sealed(path)
    except (OSError, files.Damaged):
        return {}
