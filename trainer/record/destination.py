"""Which files of a directory are a run's: named before they are written, so that nothing else is ever removed."""

from __future__ import annotations

import itertools
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trainer import files
from trainer.files import Damaged
from trainer.record.hparams import Row

WEIGHTS = ("checkpoints/best.pt", "checkpoints/last.pt")
HYDRA = (".hydra/config.yaml", ".hydra/overrides.yaml")
_event_files = itertools.count()


def event_file_name(created: float | None = None) -> str:
    """Return a name that TensorBoard takes for an event file and that no other process gives; dated, by default now."""
    date = int(time.time() if created is None else created)
    return f"events.out.tfevents.{date:010d}.{socket.gethostname()}.{os.getpid()}.{next(_event_files)}"


def is_event_file(name: object) -> bool:
    """Whether a name that stands in a file is an event file's own, without a folder."""
    return isinstance(name, str) and name.startswith("events.out.tfevents.") and "/" not in name and os.sep not in name


@dataclass(frozen=True)
class Destination:
    """Where a run's files go. With `staging` they are written there, and replace an earlier result once complete."""

    directory: Path
    events: str = field(default_factory=event_file_name)
    staging: Path | None = None
    row: Row | None = None  # in TensorBoard's HParams table; None for a run on its own

    @property
    def folder(self) -> Path:
        return self.staging or self.directory

    @property
    def names(self) -> tuple[str, ...]:
        """Every file that a run writes while it trains and at its end, the summary last."""
        return (*WEIGHTS, "metrics.csv", "trainer.log", self.events, "summary.json")

    def discard(self) -> None:
        """Remove what the run has written, so that it can start again."""
        for name in self.names:
            (self.folder / name).unlink(missing_ok=True)

    def publish(self) -> None:
        """Let a complete result take the earlier one's place. Killed in between, it can be done again."""
        if self.staging is None:
            return
        earlier = earlier_event_files(self.directory)
        for name in (*HYDRA, *self.names):
            if (self.staging / name).exists():
                (self.directory / name).parent.mkdir(exist_ok=True)
                os.replace(self.staging / name, self.directory / name)
        for name in earlier - {self.events}:
            (self.directory / name).unlink(missing_ok=True)
        remove_empty(self.staging / ".hydra", self.staging / "checkpoints", self.staging)


def earlier_event_files(directory: Path) -> set[str]:
    """Return the event files that the summary of a directory names as its own."""
    try:
        named = files.read_sealed(directory / "summary.json").get("files", {})
    except (OSError, Damaged):
        return set()
    return {name for name in named if is_event_file(name)}


def remove_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
