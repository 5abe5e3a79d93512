"""Where the CPU time of a run goes, from its first step to its last file: by part of the program."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from scripts.benchmark import MNIST
from trainer.cli import app
from trainer.config import Config, ConfigError
from trainer.core import data, loop
from trainer.core.data import Dataset
from trainer.core.stack import Member, Stack
from trainer.engine import runtime
from trainer.judge import health
from trainer.record import pictures, recorder, weights
from trainer.record.destination import Destination
from trainer.record.recorder import Recorder

PARTS: dict[str, list[tuple[Any, str]]] = {  # what is called for each; a call inside another's counts once, as its own
    "steps": [(loop, "train_steps")],
    "order of an epoch": [(Stack, "next_order")],
    "evaluation and its look": [(loop, "evaluate")],
    "norms, rows of metrics": [(loop, "evaluate_epoch"), (loop, "measure_start")],
    "best weights, stopping": [(Member, "observe")],
    "records": [(Recorder, "burst"), (Recorder, "epoch"), (Recorder, "flush")],
    "test split": [(recorder, "evaluate_test")],
    "pictures": [(pictures, "confusion"), (pictures, "wrong"), (pictures, "first_layer")],
    "verdict, summary": [(recorder, "summarise"), (health, "judge")],
    "weights to disk": [(weights, "save")],
    "other files of the end": [(Recorder, "leave")],
}
REST = "the loop itself"


def measure() -> None:
    """Print CPU time by part: 30 epochs of digits, 64-64-64-10, one of MNIST, 784-256-10; batch 64, Adam, pictures."""
    columns = {}
    for name, overrides, sizes in (("K =", [], (1, 16, 45, 128)), ("MNIST K =", MNIST, (1, 15))):
        try:
            dataset = data.load(app.configure(overrides).data)
        except ConfigError as error:
            print(f"MNIST figures skipped: {error}")
            continue
        for K in sizes:
            configs = [app.configure([*overrides, f"seed={k}"]) for k in range(K)]
            _spent_us(configs[:1], dataset)
            columns[f"{name} {K}"] = _spent_us(configs, dataset)
    print("CPU us a member and step, one thread, and share of all:")
    print(*_table(columns), sep="\n")


class _Alone(Recorder):
    """A recorder that observes alone."""

    def checkpoint(self, stack: Stack) -> None: ...


@contextlib.contextmanager
def _clocks(spent: dict[str, float]) -> Iterator[None]:
    """Add to `spent` the CPU seconds of every part while the block runs."""
    inner = [0.0]  # of parts inside the one that runs

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def clocked(*arguments: Any, **keywords: Any) -> Any:
            inner.append(0.0)
            began = time.process_time()
            try:
                return call(*arguments, **keywords)
            finally:
                taken = time.process_time() - began
                spent[part] += taken - inner.pop()
                inner[-1] += taken

        return clocked

    with contextlib.ExitStack() as patches:
        for part, calls in PARTS.items():
            for owner, name in calls:
                patches.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield


def _spent_us(configs: Sequence[Config], dataset: Dataset) -> dict[str, float]:
    """CPU us a member and step that a stack's training takes, by part, on one thread; warm it up with another first."""
    with tempfile.TemporaryDirectory() as folder:
        runtime.set_up(configs[0])
        stack = Stack(configs, dataset)
        torch.set_num_threads(1)
        observer = _Alone(stack, [Destination(Path(folder, str(k))) for k in range(len(configs))])
        spent = dict.fromkeys(PARTS, 0.0)
        began = time.process_time()
        with _clocks(spent):
            loop.train(stack, observer)
        spent[REST] = time.process_time() - began - sum(spent.values())
    return {part: 1e6 * seconds / stack.step / len(configs) for part, seconds in spent.items()}


def _table(columns: dict[str, dict[str, float]]) -> Iterator[str]:
    """Lines with a column for each stack: us a member and step, and of what share of all."""
    yield " " * 26 + "".join(f"{name:>17}" for name in columns)
    for part in [*PARTS, REST]:
        cells = ((us := column[part], us / sum(column.values())) for column in columns.values())
        yield f"{part:<26}" + "".join(f"{us:10.2f} {share:6.1%}" for us, share in cells)
    yield f"{'all':<26}" + "".join(f"{sum(column.values()):10.2f} {'':6}" for column in columns.values())
