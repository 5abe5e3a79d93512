"""Runs as work items: which of them train together, and training them so that one bad run harms no other.

A job is a configuration and a directory; a stack of jobs shares nothing with others but files, so that any process
can train it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from trainer import files
from trainer.config import Config, ConfigError, CustomModel, Data, Mlp
from trainer.core import data as datasets
from trainer.core import mlp
from trainer.core.data import Dataset
from trainer.core.loop import Stack, train
from trainer.engine import checks, pool, runtime
from trainer.engine.progress import News, Reporter
from trainer.engine.resume import checkpoint
from trainer.engine.resume.store import Keeper, Store
from trainer.files import Damaged
from trainer.record import provenance
from trainer.record.recorder import Recorder, objective, read_rows

MEMORY_SHARE = 0.5  # of what is free, for all stacks in training
SMALLEST_SHARE = 8  # members of a stack that was cut for another worker; two of these beat one of 16 on one core
MOST_PARTS = 3  # stacks of one size that a worker trains one after the other
EVEN_ENOUGH = 1.2  # load of the busiest worker, relative to the mean
FEATURES = 64  # of inputs and outputs, for comparing costs: what they are only the data know
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}  # what is wrong with all files, not with one


@dataclass(eq=False)
class Job:
    """One run asked for, and what came of it."""

    number: int
    directory: Path
    overrides: list[str] = field(default_factory=list)
    config: Config | None = None
    status: str = "waiting"  # then completed, interrupted or failed
    error: Exception | None = None
    summary: dict[str, Any] | None = None
    objective: float = float("nan")  # best monitored value, lower is better
    before: bool = False  # completed by an earlier command

    def finish(self, summary: dict[str, Any]) -> None:
        """Take what its training came to."""
        assert self.config is not None
        self.status, self.summary, self.objective = summary["status"], summary, objective(self.config, summary)

    def fail(self, error: Exception) -> None:
        """Record why there is no result."""
        self.error = error
        self._end("failed", "error", describe(error))

    def interrupt(self) -> None:
        """Record that its training never began."""
        self._end("interrupted", "interrupt", None)

    def _end(self, status: str, reason: str, error: str | None) -> None:
        """A summary without numbers; where the run has a directory, there too."""
        self.status = status
        self.summary = {"status": status, "stopped_by": reason, "error": error, "epochs": 0, "steps": 0}
        if (self.directory / ".hydra").is_dir():
            with contextlib.suppress(OSError):  # it may be what failed
                files.write_sealed(self.directory / "summary.json", self.summary)


@dataclass
class Part:
    """A stack of a plan: jobs that train together, those among them that are done keep their places."""

    jobs: list[Job]
    store: Store = field(default_factory=Store)
    workers: int = 1  # stacks that train side by side

    def halves(self) -> list[Part]:
        """Both halves, as parts of their own."""
        middle = len(self.jobs) // 2
        members = (self.jobs[:middle], self.jobs[middle:])
        return [Part(jobs, store, self.workers) for jobs, store in zip(members, self.store.halves(), strict=True)]

    @property
    def waiting(self) -> list[Job]:
        """The jobs that are not done."""
        return [job for job in self.jobs if job.status == "waiting"]


class Refused(ConfigError):
    """A stack cannot go on, whichever of its members train."""


class Display(Protocol):
    """Who is told as it happens."""

    def tell(self, news: News) -> None: ...

    def done(self, jobs: Sequence[Job]) -> None: ...


def train_jobs(
    jobs: Sequence[Job],
    max_members: int,
    display: Display,
    stop: Callable[[], bool],
    parts: Sequence[Part] | None = None,
) -> None:
    """Train every job that has a configuration, in stacks as large as their shapes, max_members and the memory allow.

    Several stacks train at once, each in a process of its own with one thread: cores that share a stack wait for each
    other at every operation, cores with a stack each do not. Each job ends completed, interrupted (`stop` said so) or
    failed with its own error; none harms another. parts: the stacks, where they are known already.
    """
    if not gc.isenabled():  # a command starts without
        gc.freeze()  # what is imported by now is not garbage: each full search would look through a million objects
        gc.enable()
    if parts is None:
        stacks, side_by_side = plan_side_by_side([job for job in jobs if job.status == "waiting"], max_members)
        parts = [Part(members, workers=side_by_side) for members in stacks]
    workers = min(
        len(parts), runtime.workers([job.config for part in parts for job in part.jobs if job.config is not None])
    )
    if workers > 1:
        pool.train_stacks(parts, workers, train_stack, display.tell, display.done, stop)
    else:
        for number, part in enumerate(parts):
            train_stack(part, Reporter(number, display.tell), stop, display.done)
    for job in jobs:
        if job.status == "waiting":
            job.interrupt()


def plan_side_by_side(jobs: Sequence[Job], max_members: int) -> tuple[list[list[Job]], int]:
    """(the stacks of all jobs that have a configuration, how many of them train at once)."""
    ready = [job for job in jobs if job.config is not None]
    workers = runtime.workers([job.config for job in ready if job.config is not None])
    stacks = plan(ready, max_members, workers)
    return stacks, max(1, min(workers, len(stacks)))


def plan(jobs: Sequence[Job], max_members: int, workers: int = 1) -> list[list[Job]]:
    """The stacks, costliest first: jobs with equal `stack_key`, at most max_members each.

    Cut further, while that leaves SMALLEST_SHARE members, until `workers` can share them out evenly. Inside a stack
    members with equal optimizer and schedule stand together: each such span is one param group.
    """
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        assert job.config is not None
        groups.setdefault(stack_key(job.config) or job.number, []).append(job)
    for group in groups.values():
        group.sort(key=_span_key)
    stacks: list[list[Job]] = []
    even = EVEN_ENOUGH * _cost(jobs) / workers
    for parts in range(1, MOST_PARTS + 1):
        stacks = [piece for group in groups.values() for piece in _cut(group, even / parts, max_members)]
        stacks.sort(key=_cost, reverse=True)
        if _longest(stacks, workers) <= even:
            break
    return stacks


def _cut(jobs: list[Job], wanted: float, max_members: int) -> list[list[Job]]:
    """Jobs in equal pieces of the cost wanted, or of SMALLEST_SHARE where that is more; never above max_members."""
    enough = min(math.ceil(_cost(jobs) / wanted), len(jobs) // SMALLEST_SHARE)
    pieces = max(enough, math.ceil(len(jobs) / max_members))
    edges = [len(jobs) * i // pieces for i in range(pieces + 1)]
    return [jobs[start:stop] for start, stop in itertools.pairwise(edges)]


def _longest(stacks: Sequence[Sequence[Job]], workers: int) -> float:
    """Cost of what the busiest worker trains, where each takes the next stack when it has nothing to do."""
    loads = [0.0] * workers
    for stack in stacks:
        loads[loads.index(min(loads))] += _cost(stack)
    return max(loads)


def _cost(jobs: Sequence[Job]) -> float:
    """About how long jobs train in a stack, relative to others of the same data, in products with a weight."""
    return sum(_cost_of(job.config) for job in jobs if job.config is not None)


def _cost_of(config: Config) -> float:
    network = config.model
    if not isinstance(network, Mlp):
        return 1.0
    sizes = [FEATURES, *network.widths, FEATURES]
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    per_unit = 15 + 50 * network.batchnorm + 40 * (network.dropout > 0)  # activations are moved, not multiplied
    return (config.steps or config.epochs) * (weights + per_unit * sum(network.widths))


def stack_key(config: Config) -> tuple[object, ...] | None:
    """What two runs must share to train in one stack; None for a run that trains alone.

    Everything else may differ: optimizer, schedule, dropout rates, clipping, label noise, init, seed, early stopping,
    epochs.
    """
    network = config.model
    if isinstance(network, CustomModel):
        return None
    shared = (config.steps, config.accumulate, config.device, config.threads, config.deterministic)
    data = replace(config.data, label_noise=0.0, shuffle=True)
    return mlp.shape_key(network), data, config.loss, config.record.every, shared


def _span_key(job: Job) -> str:
    assert job.config is not None
    return f"{job.config.optimizer} {job.config.schedule}"


def train_stack(
    part: Part, reporter: Reporter, stop: Callable[[], bool], done: Callable[[Sequence[Job]], object]
) -> None:
    """Train jobs of one stack key; on an error each half again on its own, so that it stays with the job it is of.

    An error of the disk is nobody's: all jobs fail with it, and go on from their checkpoint when there is room.
    """
    if stop():
        return
    jobs, workers = part.jobs, part.workers
    configs = [job.config for job in jobs if job.config is not None]
    recorder = None
    try:
        device = runtime.set_up(configs[0])
        dataset = _dataset(configs[0].data, device)
        fitting = _members_in_memory(configs[0], dataset)
        if len(jobs) > max(1, fitting // workers) and not part.store.has_checkpoint:  # with one, it has fitted before
            raise MemoryError
        stack = Stack(configs, dataset)
        checks.check(stack)
        runtime.set_threads(stack, workers)
        recorder = _begin(stack, part, reporter)
        keeper = Keeper(part.store, configs[0].checkpoint, hashes(jobs), stack, recorder)
        if stack.members:
            reporter.start(stack)

        def poll() -> bool:
            reporter.tick(stack)
            if not recorder.is_needed(stack):  # those that are left were done before
                return True
            if stop():
                keeper.save()
                return True
            keeper.tick()
            return False

        train(stack, recorder, poll)
        reporter.end()
    except BrokenPipeError:  # nobody is left to work for; what is written stays as it is
        raise
    except Exception as error:
        if len(jobs) == 1 or isinstance(error, Refused) or (isinstance(error, OSError) and error.errno in DISK):
            for job in part.waiting:  # what it had recorded stays
                job.fail(error)
            done(jobs)
            return
        if recorder is not None:
            recorder.discard()
            del recorder
        part.store.halve()
        for half in part.halves():
            if half.waiting:
                train_stack(half, reporter, stop, done)
        return
    for job, summary in zip(jobs, recorder.summaries, strict=True):
        assert summary is not None
        if job.status == "waiting":
            job.finish(summary)
    if all(job.status == "completed" for job in jobs):
        part.store.close()
    done(jobs)


def _begin(stack: Stack, part: Part, reporter: Reporter) -> Recorder:
    """The recorder of a new stack, and the stack put where its checkpoint was taken, if there is one.

    Raises Refused where that was with other data.
    """
    directories = [job.directory for job in part.jobs]
    finished = {i: job.summary for i, job in enumerate(part.jobs) if job.status == "completed" and job.summary}
    for saved in part.store.load():
        training = {state["index"] for state in saved["members"]}
        everybody = set(range(len(part.jobs))) == training | finished.keys()
        if saved["runs"] != hashes(part.jobs) or not everybody:
            continue
        if saved["data_hash"] != stack.dataset.hash:
            was = f"data was {saved['data_hash']}, is {stack.dataset.hash}"
            raise Refused([f"{part.store.folder}: the runs began with other data: {was}; choose another directory"])
        try:
            recorder = Recorder(stack, directories, reporter, finished, saved["records"])
        except Damaged:
            continue
        rows = [read_rows(directories[state["index"]] / "metrics.csv") for state in saved["members"]]
        checkpoint.restore(stack, saved, [r[: saved["epoch"]] for r in rows])
        recorder.go_on(stack, saved.get("stopped", {}))
        return recorder
    return Recorder(stack, directories, reporter, finished)


def hashes(jobs: Sequence[Job]) -> list[str]:
    """What each job's results follow from, for recognising a stack."""
    return [provenance.config_hash(job.config) for job in jobs if job.config is not None]


def data_hash(config: Config) -> str:
    """The hash of a run's data. Raises ConfigError where it cannot be read."""
    return _dataset(config.data, torch.device("cpu")).hash


@functools.lru_cache(maxsize=2)
def _cached_dataset(data: Data, device: torch.device) -> Dataset:
    return datasets.load(data, device)


def _dataset(data: Data, device: torch.device) -> Dataset:
    """The data set that runs share whatever they do with it: split, batch size and noise are not part of it."""
    common = replace(
        data, train_size=None, label_noise=0.0, val_fraction=0.0, batch_size=1, drop_last=False, shuffle=True
    )
    return _cached_dataset(common, device)


def _members_in_memory(config: Config, dataset: Dataset) -> int:
    """How many members of this shape fit into MEMORY_SHARE of the free memory; at least one.

    A member holds its weights eight times at most (itself, gradient, two moments, copy before the step, best, last,
    being saved), its activations and their gradients, and its row numbers.
    """
    if isinstance(config.model, CustomModel):
        return 1
    hidden = config.model.widths if isinstance(config.model, Mlp) else []
    sizes = [dataset.in_features, *hidden, dataset.out_features]
    weights = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    activations = config.data.batch_size * sum(sizes) * 4
    need = 4 * (8 * weights + activations) + 8 * 3 * len(dataset.x)
    return max(1, int(MEMORY_SHARE * runtime.free_memory(dataset.x.device)) // need)


def describe(error: BaseException) -> str:
    """An error in one line: a user's mistake as it is, anything else with its type."""
    if isinstance(error, ConfigError):
        return "; ".join(error.problems)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
