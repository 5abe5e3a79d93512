"""Where a stack in training keeps what it needs to go on after a kill: its newest checkpoint, and the one before.

A checkpoint is one file for all members: the checksum of all that follows, how far the stack has come in a line of
JSON, then torch.save's bytes. The records of its runs are flushed before; their lengths and checksums stand in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from trainer import files
from trainer.config import Checkpoint
from trainer.core.loop import Stack
from trainer.engine.resume import checkpoint
from trainer.files import Damaged
from trainer.record.recorder import Recorder

LARGEST_SHARE = 0.02  # of the time, that checkpoints by the minute may cost
GUESSED_SPEED = 1e8  # bytes a second


@dataclass(frozen=True)
class Store:
    """The files of one stack below a folder; without a folder nothing is kept."""

    folder: Path | None = None
    name: str = "0"

    @property
    def paths(self) -> list[Path]:
        """The newest checkpoint and the one before."""
        stem = f"stack-{self.name}"
        return [] if self.folder is None else [self.folder / f"{stem}.pt", self.folder / f"{stem}-before.pt"]

    @property
    def has_checkpoint(self) -> bool:
        """Whether the stack has come to its first checkpoint."""
        return any(path.exists() for path in self.paths)

    def save(self, payload: dict[str, Any]) -> None:
        """Write a checkpoint; the newest becomes the one before. Raises OSError; a good one is there all the time."""
        if self.folder is None:
            return
        newest, before = self.paths
        if newest.exists():
            os.replace(newest, before)
        content = checkpoint.to_bytes(payload)
        head = json.dumps({"epoch": payload["epoch"], "step": payload["step"]}).encode() + b"\n"
        crc = google_crc32c.extend(google_crc32c.value(head), content)
        files.write(newest, b"%08x " % crc, head, content)

    def load(self) -> Iterator[dict[str, Any]]:
        """The checkpoints that are whole, newest first; others are removed."""
        for path in self.paths:
            try:
                yield checkpoint.from_bytes(_read(path)[1])
            except FileNotFoundError:
                continue
            except Damaged:
                path.unlink()

    def place(self) -> tuple[int, int] | None:
        """(epochs, steps) finished at the newest whole checkpoint."""
        for path in self.paths:
            try:
                head = _read(path)[0]
                return head["epoch"], head["step"]
            except (FileNotFoundError, Damaged):
                continue
        return None

    def damages(self) -> list[str]:
        """A sentence for each checkpoint that is not whole."""
        out = []
        for path in self.paths:
            try:
                _read(path)
            except FileNotFoundError:
                continue
            except Damaged as damage:
                out.append(str(damage))
        return out

    @property
    def is_halved(self) -> bool:
        """Whether this stack had to be halved: nobody trains it, its halves train."""
        return self.folder is not None and self._mark.exists()

    @property
    def _mark(self) -> Path:
        assert self.folder is not None
        return self.folder / f"stack-{self.name}.halved"

    def halves(self) -> tuple[Store, Store]:
        """Where the halves are kept."""
        return Store(self.folder, f"{self.name}.0"), Store(self.folder, f"{self.name}.1")

    def halve(self) -> None:
        """Remember that this stack was halved."""
        if self.folder is not None:
            self.close()
            files.write(self._mark, "")

    def close(self) -> None:
        """Remove the stack's files: its runs are finished."""
        for path in [*self.paths, *([self._mark] if self.folder else [])]:
            path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """(how far, torch.save's bytes) of a checkpoint. Raises Damaged where it is not whole."""
    crc, _, rest = path.read_bytes().partition(b" ")
    if crc != b"%08x" % google_crc32c.value(rest):
        raise Damaged(f"{path}: damaged; its checksum is of other bytes")
    head, _, content = rest.partition(b"\n")
    return json.loads(head), content


class Keeper:
    """Saves a stack in training now and then: every so many minutes or epochs, as configured.

    By the minute it saves less often where a checkpoint takes more than LARGEST_SHARE of the time between two.
    """

    def __init__(self, store: Store, knobs: Checkpoint, runs: Sequence[str], stack: Stack, recorder: Recorder) -> None:
        """runs: what the checkpoint is recognised by, the hash of every member's configuration."""
        self.store, self.knobs, self.runs = store, knobs, list(runs)
        self.stack, self.recorder = stack, recorder
        self.saved = time.perf_counter()
        self.epoch = stack.epoch  # at the last checkpoint
        weights = sum(parameter.nbytes for parameter in stack.parameters.values())
        self.cost_s = 4 * weights / GUESSED_SPEED  # of the last one; before there is one: weights, two moments, best

    def tick(self) -> None:
        """Called between two steps."""
        minutes, epochs = self.knobs.minutes, self.knobs.epochs
        due = epochs is not None and self.stack.epoch >= self.epoch + epochs
        if minutes is not None and not due:
            due = time.perf_counter() - self.saved > max(60 * minutes, self.cost_s / LARGEST_SHARE)
        if due:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the stack between two steps."""
        if self.store.folder is None:
            return
        began = time.perf_counter()
        stack = self.stack
        payload = {"records": self.recorder.state(stack), "data_hash": stack.dataset.hash, "runs": self.runs}
        self.store.save(checkpoint.stack_state(stack) | payload)
        self.saved, self.epoch = time.perf_counter(), stack.epoch
        self.cost_s = self.saved - began
        self.recorder.checkpoint_s += self.cost_s
