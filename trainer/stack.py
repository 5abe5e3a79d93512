"""Runs as work items: which of them train together, and training them so that one bad run harms no other.

A job is a configuration and a directory; a stack of jobs shares nothing with others but files, so that any process
can train it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from trainer import data as datasets
from trainer import files, model, pool, work
from trainer.config import Config, ConfigError, Data, Mlp
from trainer.data import Dataset
from trainer.progress import News, Reporter
from trainer.record import Recorder
from trainer.train import Stack, train

MEMORY_SHARE = 0.5  # of what is free, for all stacks in training
SMALLEST_SHARE = 16  # members that a stack halved for another worker keeps


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
                files.write(self.directory / "summary.json", files.to_json(self.summary))


class Display(Protocol):
    """Who is told as it happens."""

    def tell(self, news: News) -> None: ...

    def done(self, jobs: Sequence[Job]) -> None: ...


def train_jobs(jobs: Sequence[Job], max_members: int, display: Display, stop: Callable[[], bool]) -> None:
    """Train every job that has a configuration, in stacks as large as their shapes, max_members and the memory allow.

    Several stacks train at once, each in a process of its own with one thread: cores that share a stack wait for each
    other at every operation, cores with a stack each do not. Each job ends completed, interrupted (`stop` said so) or
    failed with its own error; none harms another.
    """
    ready = [job for job in jobs if job.config is not None and job.status == "waiting"]
    workers = work.workers([job.config for job in ready if job.config is not None])
    stacks = plan(ready, max_members, workers)
    workers = min(workers, len(stacks))
    train_stack = functools.partial(_train_stack, workers=workers)
    if workers > 1:
        pool.train_stacks(stacks, workers, train_stack, display.tell, display.done, stop)
    else:
        for number, stack in enumerate(stacks):
            train_stack(stack, Reporter(number, display.tell), stop, display.done)
    for job in jobs:
        if job.status == "waiting":
            job.interrupt()


def plan(jobs: Sequence[Job], max_members: int, workers: int = 1) -> list[list[Job]]:
    """The stacks, largest first: jobs with equal `stack_key`, at most max_members each.

    Fewer stacks than workers are halved while that leaves SMALLEST_SHARE members. Inside a stack members with equal
    optimizer and schedule stand together: each such span is one param group.
    """
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        assert job.config is not None
        groups.setdefault(stack_key(job.config) or job.number, []).append(job)
    stacks = []
    for group in groups.values():
        group.sort(key=_span_key)
        stacks += [group[start : start + max_members] for start in range(0, len(group), max_members)]
    stacks.sort(key=len, reverse=True)
    while 0 < len(stacks) < workers and len(stacks[0]) >= 2 * SMALLEST_SHARE:
        largest = stacks.pop(0)
        stacks += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
        stacks.sort(key=len, reverse=True)
    return stacks


def stack_key(config: Config) -> tuple[object, ...] | None:
    """What two runs must share to train in one stack; None for a run that trains alone.

    Everything else may differ: optimizer, schedule, dropout rates, clipping, label noise, init, seed, early stopping,
    epochs.
    """
    if not isinstance(config.model, Mlp):
        return None
    dropout = (config.model.dropout > 0, config.model.input_dropout > 0)  # who drops nothing need not draw masks
    shared = (config.steps, config.accumulate, config.device, config.threads, config.deterministic)
    data = replace(config.data, label_noise=0.0, shuffle=True)
    return model.shape_key(config.model), dropout, data, config.loss, config.record.every, shared


def _span_key(job: Job) -> str:
    assert job.config is not None
    return f"{job.config.optimizer} {job.config.schedule}"


def _train_stack(
    jobs: list[Job],
    reporter: Reporter,
    stop: Callable[[], bool],
    done: Callable[[Sequence[Job]], object],
    workers: int,
) -> None:
    """Train jobs of one stack key; on an error each half again on its own, so that it stays with the job it is of."""
    if stop():
        return
    configs = [job.config for job in jobs if job.config is not None]
    recorder = None
    try:
        device = work.set_up(configs[0])
        dataset = _dataset(configs[0].data, device)
        fitting = _members_in_memory(configs[0], dataset)
        if len(jobs) > max(1, fitting // workers):
            raise MemoryError
        stack = Stack(configs, dataset)
        work.set_threads(stack, workers)
        recorder = Recorder(stack, [job.directory for job in jobs], reporter)
        reporter.start(stack)

        def poll() -> bool:
            reporter.tick(stack)
            return stop()

        train(stack, recorder, poll)
    except Exception as error:
        if len(jobs) == 1:  # what it had recorded stays
            jobs[0].fail(error)
            done(jobs)
            return
        if recorder is not None:
            recorder.discard()
            del recorder
        for half in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            _train_stack(half, reporter, stop, done, workers)
        return
    reporter.end()
    for job, summary, objective in zip(jobs, recorder.summaries, recorder.objectives, strict=True):
        assert summary is not None
        job.status, job.summary, job.objective = summary["status"], summary, objective
    done(jobs)


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
    if not isinstance(config.model, Mlp):
        return 1
    sizes = [dataset.in_features, *config.model.widths, dataset.out_features]
    weights = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    activations = config.data.batch_size * sum(sizes) * 4
    need = 4 * (8 * weights + activations) + 8 * 3 * len(dataset.x)
    return max(1, int(MEMORY_SHARE * work.free_memory(dataset.x.device)) // need)


def describe(error: BaseException) -> str:
    """An error in one line: a user's mistake as it is, anything else with its type."""
    if isinstance(error, ConfigError):
        return "; ".join(error.problems)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
