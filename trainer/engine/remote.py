"""Stacks as jobs of an engine that schedules (Slurm, Dask, Ray): a job and the command share nothing but files.

A job has a folder below .resume/jobs: a ticket, which says whose it is; for each stack how far it has come (`.news`,
once a second) and what came of its runs (`.ends`); its log. A job without its ticket ends by itself, with a checkpoint:
so a stack is never trained twice at once, and what was called off ends wherever it runs. Results come back as files
too: nothing that lies in a folder is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from trainer import files
from trainer.config import ConfigError
from trainer.engine import planning, pool
from trainer.engine.jobs import StackJob
from trainer.engine.pool import Display
from trainer.engine.progress import News
from trainer.engine.resume.plan_file import FOLDER
from trainer.engine.task import ENDS, LOG, TICKET, Task, kinds, read_ticket, sealed
from trainer.record import provenance

JOBS = "jobs"  # below .resume
POLL_S = 0.2  # between two looks at the files of jobs
ENDING_S = 60.0  # that a job which was called off may take to end by itself
MOST_LAUNCHES = 20  # of a job that is ended again and again by a signal, as one that is preempted


class Future(Protocol):
    """A submitted job, as the engine sees it."""

    @property
    def name(self) -> str | None:
        """By which another command finds it; None: it ends with the command that submitted it."""
        ...

    @property
    def log(self) -> Path | None:
        """What the engine itself keeps of it."""
        ...

    def done(self) -> bool: ...

    def exception(self) -> BaseException | None: ...


class Engine(Protocol):
    """What schedules jobs, on whatever machines."""

    @property
    def name(self) -> str: ...

    @property
    def jobs(self) -> int:
        """Jobs that run side by side, where the user does not say."""
        ...

    def submit(self, tasks: Sequence[Task]) -> Sequence[Future]: ...

    def attach(self, name: str) -> Future | None:
        """Return a job that still waits or runs."""
        ...

    def cancel(self, futures: Sequence[Future]) -> None: ...

    def close(self) -> None: ...


@dataclass
class _Flight:
    """A job under way, as its command sees it."""

    items: list[tuple[int, StackJob]]
    folder: Path
    future: Future
    launches: int = 1
    false_starts: int = 0  # in a row: it ended before it trained
    read: dict[Path, float] = field(default_factory=dict)  # file -> when it was written last
    news: dict[int, News] = field(default_factory=dict)  # stack -> its last

    def fresh(self, path: Path) -> bool:
        """Whether a file is there and was written since it was asked for last."""
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            return False
        return self.read.get(path) != written and not self.read.update({path: written})


def train_stacks(
    stacks: Sequence[StackJob],
    engine: Engine,
    jobs: int,
    folder: Path,
    display: Display,
    stop: Callable[[], bool],
    environment: dict[str, str] | None = None,
    detach: bool = False,
) -> list[str]:
    """Train every stack in one of `jobs` jobs of an engine, or watch the jobs that train it already.

    folder: where the sweep's plan lies. What comes of a run is put into its job. A job that is lost begins again with
    what is left; a stack that was lost in it for the second time in halves; a run that was alone fails. detach: do not
    wait. Returns the names of the jobs that were left to run. Raises ConfigError where the engine takes no jobs.
    """
    control = _Control(engine, folder.absolute() / JOBS, display, environment or {})
    numbered = list(enumerate(stacks))
    try:
        control.attach(numbered)
        watched = {number for flight in control.flights for number, _ in flight.items}
        control.launch(planning.share_out([one for one in numbered if one[0] not in watched], jobs))
        if detach:
            left, control.flights = control.flights, []
            return [str(flight.future.name) for flight in left]
        while control.flights and not stop():
            control.look()
            time.sleep(POLL_S)
        control.call_off()
    finally:
        engine.cancel([flight.future for flight in control.flights])
    for job in (job for item in stacks for job in item.waiting):
        job.interrupt()
    if all(job.status == "completed" or job.was_refused for item in stacks for job in item.jobs):
        shutil.rmtree(control.folder, ignore_errors=True)
    return []


class _Control:
    """The jobs of a command."""

    def __init__(self, engine: Engine, folder: Path, display: Display, environment: dict[str, str]) -> None:
        self.engine, self.folder, self.display, self.environment = engine, folder, display, environment
        self.flights: list[_Flight] = []
        self.codes: dict[str, dict[str, Any]] = {}

    def attach(self, numbered: Sequence[tuple[int, StackJob]]) -> None:
        """Find the jobs of an earlier command that wait or run; call off those that train other stacks than these."""
        by_name = {item.checkpoints.name: (number, item) for number, item in numbered}
        foreign = []
        for path in sorted(self.folder.glob(f"*/{TICKET}")):
            ticket = read_ticket(path.parent)
            future = self.engine.attach(ticket["job"]) if ticket.get("job") else None
            if future is None:
                path.unlink(missing_ok=True)
                continue
            items = [by_name[stack] for stack in ticket["stacks"] if stack in by_name]
            flight = _Flight(items, path.parent, future)
            (self.flights if items else foreign).append(flight)
        if foreign:
            ours, self.flights = self.flights, foreign
            self.call_off()
            self.flights = ours

    def launch(self, groups: Sequence[list[tuple[int, StackJob]]], before: _Flight | None = None) -> None:
        """Submit each group of stacks as a job."""
        groups = [items for items in groups if items]
        tasks = [self._task(items) for items in groups]
        try:
            futures = self.engine.submit(tasks) if tasks else []
        except ConfigError:
            for task in tasks:
                shutil.rmtree(task.folder, ignore_errors=True)
            if not self.flights:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        for items, task, future in zip(groups, tasks, futures, strict=True):
            names = [item.checkpoints.name for _, item in items]
            ticket = {"token": task.token, "engine": self.engine.name, "job": future.name, "stacks": names}
            files.write_sealed(task.folder / TICKET, ticket)
            flight = _Flight(items, task.folder, future)
            if before is not None:
                flight.launches, flight.false_starts = before.launches + 1, before.false_starts
            self.flights.append(flight)

    def _task(self, items: list[tuple[int, StackJob]]) -> Task:
        """Make a job's folder, with the ticket that a job which starts at once finds there."""
        folder = self.folder / items[0][1].checkpoints.name
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / ENDS, *folder.glob("*.news")):
            path.unlink(missing_ok=True)
        task = Task([(number, item.absolute()) for number, item in items], folder, uuid.uuid4().hex)
        threads = max(item.threads or 1 for _, item in items)
        task.environment = self.environment | {"OMP_NUM_THREADS": str(threads)}
        for config in kinds(items):
            kind = repr(config.targets())
            task.code[kind] = self.codes[kind] = self.codes.get(kind) or provenance.code(config)
        files.write_sealed(folder / TICKET, {"token": task.token})
        return task

    def look(self) -> None:
        """Take in what has happened since; submit again what was lost."""
        for flight in list(self.flights):
            done = flight.future.done()  # asked first: what it wrote before it ended is there
            self._take(flight)
            if done:
                self.flights.remove(flight)
                self._settle(flight)

    def _take(self, flight: _Flight, interrupted: bool = False) -> None:
        """Read a job's news and ends. interrupted: whether runs that a signal ended are not to go on."""
        for number, _ in flight.items:
            if flight.fresh(path := flight.folder / f"{number}.news"):
                with contextlib.suppress(OSError, ValueError, TypeError):
                    flight.news[number] = News(**json.loads(path.read_bytes()))
                    self.display.tell(flight.news[number])
        if not flight.fresh(flight.folder / ENDS) and not interrupted:
            return
        waiting = {job.number: job for _, item in flight.items for job in item.waiting}
        ended = []
        for number, end in sealed(flight.folder / ENDS).get("ends", {}).items():
            job = waiting.get(int(number))
            if job is None or (end["status"] == "interrupted" and not interrupted):
                continue
            if end["status"] == "failed":
                job.status, job.summary, job.error = "failed", end["summary"], _error(end)
            else:
                job.finish(end["summary"])
            ended.append(job)
        for number, item in flight.items:
            if any(job in ended for job in item.jobs) and not item.waiting and (last := flight.news.get(number)):
                self.display.tell(replace(last, runs=0.0, row=None))  # it counts as ended from here on
        if ended:
            self.display.done(ended)

    def _settle(self, flight: _Flight) -> None:
        """Submit what is left of a job that has ended, if anything is."""
        left = [(number, item) for number, item in flight.items if item.waiting]
        if not left:
            (flight.folder / TICKET).unlink(missing_ok=True)
            return
        begun = [number for number, _ in left if (flight.folder / f"{number}.news").exists()]
        number = sealed(flight.folder / ENDS).get("signal")
        flight.false_starts = 0 if begun or number else flight.false_starts + 1
        why = flight.future.exception()
        said = f"{self.engine.name} job {flight.future.name or ''}".strip()
        lines = str(why or "").strip().splitlines()
        log = _log(flight)
        hint = f"its log is {log}" if log.exists() else f"it has left no log: does its machine see {flight.folder}?"
        how = f"{said} ended{f' ({lines[-1]})' if lines else ''}; {hint}"
        timed_out = number in (signal.SIGUSR1, signal.SIGUSR2)
        if timed_out or flight.false_starts > 1 or flight.launches >= MOST_LAUNCHES:
            if timed_out:
                how = f"{said} came to its time limit; resume= goes on from its checkpoint, or raise max_num_timeout"
            for job in (job for _, item in left for job in item.waiting):
                job.fail(RuntimeError(how))
            self.display.done([job for _, item in left for job in item.jobs])
            return
        items: list[tuple[int, StackJob]] = []
        for at, item in left:
            lost = at in begun and number is None
            rest = pool.after_loss(item, True, how, self.display.done) if lost else [item]
            items += [(at, one) for one in rest]
        self.launch([items], flight)

    def call_off(self) -> None:
        """End all jobs: those that wait are cancelled, those that train write a checkpoint and end by themselves."""
        for flight in self.flights:
            (flight.folder / TICKET).unlink(missing_ok=True)
        idle = [one for one in self.flights if not (one.folder / LOG).exists()]
        self.engine.cancel([flight.future for flight in idle])
        patience = time.monotonic() + ENDING_S
        while any(not one.future.done() for one in self.flights) and time.monotonic() < patience:
            time.sleep(POLL_S)
        for flight in self.flights:
            self._take(flight, interrupted=True)


def sent_elsewhere(folder: Path, engine: str | None = None) -> list[str]:
    """Return what keeps a command from training where jobs of another engine may: one line each. engine: its own."""
    problems = []
    for path in sorted((folder / FOLDER / JOBS).glob(f"*/{TICKET}")):
        ticket = read_ticket(path.parent)
        if ticket.get("job") and ticket["engine"] != engine:
            name = ticket["engine"]
            said = f"{folder}: its stacks {', '.join(ticket['stacks'])} were sent to {name} as job {ticket['job']}"
            hint = f"hydra/launcher={name} attaches to it; else cancel it, and remove {path}"
            problems.append(f"{said}; {hint}")
    return problems


def _error(end: dict[str, Any]) -> Exception:
    """Make an error that is described as the one in the job was."""
    if end["problems"] is not None:
        return ConfigError(end["problems"])
    kind, text = end["error"]
    return type(kind, (RuntimeError,), {})(text)


def _log(flight: _Flight) -> Path:
    """The log that says most: the job's own, or the engine's where the job never began."""
    own = flight.folder / LOG
    has_own = own.exists() and own.stat().st_size
    return own if has_own or flight.future.log is None else flight.future.log
