"""Trains one stack of jobs so that one bad run harms no other: on an error, each half again on its own."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import files
from trainer.config import Cnn, Config, ConfigError, CustomData, CustomModel, Data, Mlp
from trainer.core import state
from trainer.core.data import Dataset
from trainer.core.loop import train
from trainer.core.native import choice
from trainer.core.stack import Member, Stack, Step
from trainer.engine import checks, runtime, shared_data
from trainer.engine.jobs import Job, StackJob, ranges
from trainer.engine.progress import Reporter
from trainer.engine.resume.checkpoint import Checkpointer
from trainer.judge import health
from trainer.language import print_line
from trainer.record import own_module, provenance
from trainer.record.recorder import Recorder
from trainer.record.run_files import read_rows
from trainer.record.summary import verdict

MEMORY_SHARE = 0.5  # of what is free, for all stacks in training
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}  # what is wrong with all files, not with one


class Refused(ConfigError):
    """A stack cannot go on, whichever of its members train."""


class Observers:
    """What watches the loop: the recorder, the checkpoints, the progress; and who is told that a run is hopeless."""

    def __init__(self, recorder: Recorder, checkpointer: Checkpointer, reporter: Reporter, jobs: Sequence[Job]) -> None:
        self.recorder, self.checkpointer, self.reporter, self.jobs = recorder, checkpointer, reporter, jobs

    def checkpoint(self, stack: Stack) -> None:
        self.reporter.tick(stack)
        self.checkpointer.tick(stack)

    def wants(self, step: Step) -> bool:
        return self.recorder.wants(step)

    def burst(self, numbers: list[int], measured_SMK: Tensor, rates_SK: list[list[float]]) -> None:
        self.recorder.burst(numbers, measured_SMK, rates_SK)

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Record an epoch, and report it."""
        self.recorder.epoch(stack, rows)
        self.reporter.epoch(stack, rows)
        if stack.epoch == 1:
            for said in own_module.shared(stack):
                _note(said)
        if stack.epoch == health.HOPELESS_EPOCHS:
            self._say_who_is_hopeless(stack)

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Complete the records of members that end; where that is by a signal, save a checkpoint first."""
        if "interrupt" in leaving.values() and self.recorder.is_needed(stack):
            self.checkpointer.save(stack)
        self.recorder.leave(stack, leaving)

    def _say_who_is_hopeless(self, stack: Stack) -> None:
        """Say once, after the first epochs of many, which runs have learned nothing, of a cause that does not pass."""
        numbers, causes = list[int](), dict[str, None]()
        for member in stack.members:
            config = member.config
            goes_on = stack.total_steps(config) >= 2 * stack.step and config.early_stopping.monitor != "health"
            is_watched = config.record.every > 0  # unlike a trial of cures, whose sick runs are known
            if goes_on and is_watched and (names := health.hopeless(member.rows, member.start, config.flat())):
                numbers.append(self.jobs[member.index].number)
                causes |= dict.fromkeys(names)
        if numbers:
            who = f"{len(numbers)} of {len(self.jobs)} runs ({ranges(numbers)})" if len(self.jobs) > 1 else "the run"
            why = ", ".join(health.name({"finding": name}) for name in causes)
            said = f"in {stack.epoch} epochs {who} learned nothing, and waiting will not help: {why}"
            _note(f"{said}; early_stopping.monitor=health ends such runs")


def train_stack(
    item: StackJob,
    reporter: Reporter,
    stop: Callable[[], bool],
    done: Callable[[Sequence[Job]], object],
    shared: Path | None = None,
) -> None:
    """Train jobs of one stack key; each ends completed, interrupted (`stop` said so) or failed with its own error.

    An error of the disk is nobody's: all jobs fail with it, and go on from their checkpoint when there is room. shared:
    folder of data that were read for all workers.
    """
    if stop():
        return
    if not gc.isenabled():  # a command starts without
        gc.freeze()  # what is imported by now is not garbage: each full search would look through a million objects
        gc.enable()
    for half in _train_or_halve(item, reporter, stop, done, shared):  # the whole's memory is free by now
        if half.waiting:
            train_stack(half, reporter, stop, done, shared)


def _train_or_halve(
    item: StackJob,
    reporter: Reporter,
    stop: Callable[[], bool],
    done: Callable[[Sequence[Job]], object],
    shared: Path | None,
) -> list[StackJob]:
    """Train jobs to their ends, as `train_stack` says; return the halves that are to train instead, if any."""
    stack = recorder = None
    try:
        stack, findings = _build(item, shared)
        recorder, ending = _begin(stack, item, findings)
        checkpointer = Checkpointer(item.checkpoints, item.configs[0].checkpoint, item.hashes, stack, recorder)
        observers = Observers(recorder, checkpointer, reporter, item.jobs)
        if ending:  # they had their reason to end before they were resumed
            observers.leave(stack, ending)
            stack.select([])
        if stack.members:
            reporter.start(stack)
        train(
            stack,
            observers,
            lambda: stop() or not recorder.is_needed(stack),
            _is_lost,
        )
        reporter.end()
    except ConnectionError:  # nobody is left to work for; what is written stays as it is
        raise
    except Exception as error:
        if len(item.jobs) == 1 or isinstance(error, Refused) or (isinstance(error, OSError) and error.errno in DISK):
            epochs, steps = (stack.epoch, stack.step) if stack is not None else (0, 0)
            if recorder is not None and stack is not None and epochs:  # what it had recorded stays
                with contextlib.suppress(OSError):  # which may be what failed
                    recorder.flush(stack)
            for job in item.waiting:
                job.fail(error, epochs, steps)
            done(item.jobs)
            return []
        if recorder is not None:
            recorder.discard()
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            numbers = ranges([job.number for job in item.waiting])
            said = f"runs {numbers} do not fit into memory together; they train in halves"
            print_line(f"note: {said}", sys.stderr)
        item.checkpoints.halve()
        return item.halves()
    for job, summary in zip(item.jobs, recorder.summaries, strict=True):
        assert summary is not None
        if job.status == "waiting":
            job.finish(summary)
    if all(job.status == "completed" for job in item.jobs):
        item.checkpoints.close()
    done(item.jobs)
    return []


def _is_lost(member: Member) -> bool:
    """Whether a member that monitors the verdict is overfit by now, or one that monitors health is hopeless."""
    if member.config.early_stopping.monitor == "health":
        return bool(health.hopeless(member.rows, member.start, member.config.flat()))
    return verdict(member).verdict == "overfit"


def _build(item: StackJob, shared: Path | None) -> tuple[Stack, list[list[Any]]]:
    """Return the stack, and what checks before training found of each member.

    Raises ConfigError for a mistake in a configuration, MemoryError where the members would not fit.
    """
    configs, workers = item.configs, item.side_by_side
    device = runtime.set_up(configs[0])
    dataset = _dataset(configs[0].data, device, shared)
    fitting = _members_in_memory(configs[0], dataset) // workers
    fitted_before = any(path.exists() for path in item.checkpoints.paths)
    if len(item.jobs) > max(1, fitting) and not fitted_before:
        raise MemoryError
    _agree(item, dataset)
    stack = Stack(configs, dataset)
    findings = checks.check(stack)
    for said in own_module.structure(stack):
        _note(said)
    runtime.set_threads(stack, item.threads)
    return stack, findings


@functools.cache
def _note(said: str) -> None:
    """Say it once, however many runs it holds for."""
    print_line(f"note: {said}", sys.stderr)


def _begin(stack: Stack, item: StackJob, findings: list[list[Any]]) -> tuple[Recorder, dict[int, str]]:
    """Return the recorder of a new stack, and the members that end at once, each with its reason.

    The stack is put where its checkpoint was taken, if there is one. Raises Refused where that was with other data.
    """
    destinations = [job.destination for job in item.jobs]
    finished = {i: job.summary for i, job in enumerate(item.jobs) if job.status == "completed" and job.summary}
    saved, _ = item.checkpoints.load([destination.folder for destination in destinations])
    item.checkpoints.remove_damaged()
    if saved is not None:
        training = {member["index"] for member in saved["members"]}
        everybody = set(range(len(item.jobs))) == training | finished.keys()
        if saved["runs"] == item.hashes and everybody:
            if saved["data_hash"] != stack.dataset.hash:
                was = f"data was {saved['data_hash']}, is {stack.dataset.hash}"
                where = item.checkpoints.folder
                raise Refused([f"{where}: the runs began with other data: {was}; choose another directory"])
            served = saved.get("served") if stack.device.type == "cpu" else None
            if served == "native" and (why := choice.not_here()):
                raise Refused([f"{item.checkpoints.folder}: the runs began with the native step: {why}"])
            recorder = Recorder(stack, destinations, finished, saved["records"], findings)
            rows = [read_rows(destinations[member["index"]].folder / "metrics.csv") for member in saved["members"]]
            state.restore(stack, saved, [r[: saved["epoch"]] for r in rows])
            recorder.log_resumed(stack)
            stopped = saved.get("stopped", {})
            return recorder, {k: stopped[m.index] for k, m in enumerate(stack.members) if m.index in stopped}
    return Recorder(stack, destinations, finished, findings=findings), {}


def data_hash(config: Config) -> str:
    """Return the hash of a run's data. Raises ConfigError where it cannot be read."""
    return _hash(_common(config.data))


def forget_data() -> None:
    """Read data anew from here on."""
    _cached_dataset.cache_clear()
    _hash.cache_clear()


@functools.cache
def _hash(data: Data) -> str:
    """The hash of data that runs share: of many, where only two data sets are kept."""
    return _dataset(data, torch.device("cpu")).hash


@functools.lru_cache(maxsize=2)
def _cached_dataset(data: Data, device: torch.device, shared: Path | None) -> Dataset:
    return shared_data.load(data, device, shared)


def _dataset(data: Data, device: torch.device, shared: Path | None = None) -> Dataset:
    """Return the data set that runs share whatever they do with it: split, batch size and noise are not part of it."""
    try:
        return _cached_dataset(_common(data), device, shared)
    except ConfigError as error:  # whichever runs ask for it: no halves of a stack would do better
        raise Refused(error.problems) from error


def _common(data: Data) -> Data:
    """The part of a configuration that makes the data set."""
    return replace(
        data, train_size=None, label_noise=0.0, val_fraction=0.0, batch_size=1, drop_last=False, shuffle=True
    )


def _agree(item: StackJob, dataset: Dataset) -> None:
    """See that the user's own code gave all processes of this directory the same data: an empty file has their hash.

    Raises Refused where it did not.
    """
    data, folder = item.configs[0].data, item.checkpoints.folder
    if folder is None or not isinstance(data, CustomData):
        return
    asked = files.digest([repr(_common(data)), provenance.sources(data._target_)])
    ours = folder / f"data-{asked}-{dataset.hash}"
    ours.touch()
    if others := [path for path in folder.glob(f"data-{asked}-*") if path != ours]:
        ours.unlink(missing_ok=True)
        hashes = f"{others[0].name.rpartition('-')[2]} and {dataset.hash}"
        said = f"{dataset.name} gives other data each time it is called (hashes {hashes})"
        raise Refused([f"data._target_: {said}; seed what is random in it, e.g. numpy.random.default_rng(0)"])


def _members_in_memory(config: Config, dataset: Dataset) -> int:
    """Return how many members of this shape fit into MEMORY_SHARE of the free memory; at least one.

    A member holds its weights eight times at most (itself, gradient, two moments, copy before the step, best, last,
    being saved), its activations and their gradients, its row numbers, and for metrics its outputs of a split.
    """
    if isinstance(config.model, CustomModel | Cnn):
        return 1
    hidden = config.model.widths if isinstance(config.model, Mlp) else []
    sizes = [dataset.in_features, *hidden, dataset.out_features]
    weights = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    activations = config.data.batch_size * sum(sizes) * 4
    outputs = len(dataset.x) * dataset.out_features if config.metrics else 0
    need = 4 * (8 * weights + activations + outputs) + 8 * 3 * len(dataset.x)
    return max(1, int(MEMORY_SHARE * runtime.free_memory(dataset.x.device)) // need)
