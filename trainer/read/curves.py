"""What is read of a run, and a search for runs, which goes on after what cannot be read and keeps the reason."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainer.files import Damaged
from trainer.read.bounded import Unreadable


class Series(NamedTuple):
    """A tag's points, each (N,): steps and values."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Curves:
    """One run: its curves, each (N,) or None, over `epochs` (N,); and what its files say about it."""

    path: str
    name: str  # the path below what was given
    source: str  # trainer, events, csv, json, log or mlflow
    epochs: np.ndarray  # epochs from 1 in our runs, in others what `unit` says, as it was logged
    train_loss: np.ndarray
    val_loss: np.ndarray | None
    train_accuracy: np.ndarray | None = None
    val_accuracy: np.ndarray | None = None
    metrics: dict[str, np.ndarray] = field(default_factory=dict)  # others of our runs: "train_f1", "val_f1"
    config: dict[str, Any] = field(default_factory=dict)  # flat: {"optimizer.lr": 0.1}
    summary: dict[str, Any] = field(default_factory=dict)  # our summary.json
    overrides: tuple[str, ...] | None = None  # as typed; None where nobody knows
    notes: tuple[str, ...] = ()  # what was unusual about its files, a sentence each
    remarks: tuple[str, ...] = ()  # what was chosen in reading them, to be said to whoever reads the verdict
    unit: str = "epoch"  # of `epochs`
    accuracy_tag: str | None = None  # of another tool's run: what it calls its validation accuracy

    def recorded(self, *keys: str) -> Any:
        """Return an entry of summary.json; None where the file does not have it."""
        found: Any = self.summary
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found


@dataclass
class Search:
    """What was asked for, and what was found."""

    train_tag: str | None
    val_tag: str | None
    base: Path  # names are given below it
    runs: list[Curves] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unused: dict[Path, str] = field(default_factory=dict)  # tables that are no run's, and what is said of each
    hparams: dict[Path, dict[str, Any]] = field(default_factory=dict)  # by the folder of the event file
    without: dict[Path, str] = field(default_factory=dict)  # folders of event files without losses, and what is said
    logs: dict[Path, list[str]] = field(default_factory=dict)  # by folder, files that may hold what a loop printed
    files: int = 0

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Go on after what cannot be read, and keep the sentence that says why."""
        try:
            yield
        except Unreadable as error:
            self.problems.append(str(error))
        except Damaged as damage:
            self.problems.append(f"{damage}; python -m trainer resume=DIR trains the run again")

    def name(self, path: Path) -> str:
        """Return a run's name: its path below what was given."""
        name = os.path.relpath(path, self.base)
        return path.resolve().name if name == "." else name
