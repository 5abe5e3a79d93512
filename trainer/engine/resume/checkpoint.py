"""Where a stack in training keeps what it needs to go on after a kill: its newest checkpoint, and the one before.

A checkpoint is one file for all members: the checksum of all that follows, how far the stack has come in a line of
JSON, then torch.save's bytes. The records of its runs are flushed first; their lengths and checksums stand in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c

from trainer import files
from trainer.config import Checkpoint
from trainer.files import Damaged

if TYPE_CHECKING:
    from trainer.core.stack import Stack
    from trainer.record.recorder import Recorder

LARGEST_SHARE = 0.02  # of the time that checkpoints by the minute may cost
GUESSED_SPEED = 1e8  # bytes per second


class Place(NamedTuple):
    epoch: int
    step: int


@dataclass(frozen=True)
class Checkpoints:
    """The files of one stack below a folder; without a folder nothing is kept."""

    folder: Path | None = None
    name: str = "0"

    @property
    def paths(self) -> list[Path]:
        """The newest checkpoint and the one before."""
        stem = f"stack-{self.name}"
        return [] if self.folder is None else [self.folder / f"{stem}.pt", self.folder / f"{stem}-before.pt"]

    def save(self, payload: dict[str, Any]) -> None:
        """Write a checkpoint; the newest becomes the one before. Raises OSError; a good one is there all the time."""
        from trainer.core import state

        if self.folder is None:
            return
        newest, before = self.paths
        if newest.exists():
            os.replace(newest, before)
        content = state.to_bytes(payload)
        head = json.dumps({"epoch": payload["epoch"], "step": payload["step"]}).encode() + b"\n"
        crc = google_crc32c.extend(google_crc32c.value(head), content)
        files.write(newest, b"%08x " % crc, head, content)

    def load(self, directories: Sequence[Path]) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest checkpoint that is whole and whose records are, and what is wrong with newer ones.

        directories: of the stack's runs, in order.
        """
        problems: list[str] = []
        for path, content in self._contents():
            if isinstance(content, Damaged):
                problems.append(str(content))
                continue
            from trainer.core import state

            payload = state.from_bytes(content)
            try:
                for index, written in payload["records"]["runs"].items():
                    for record in written.values():
                        if record["size"]:
                            files.check(files.inside(directories[index], record["name"]), record)
            except Damaged as damage:
                problems.append(f"{damage}; {path} cannot be continued without it")
                continue
            return payload, problems
        return None, problems

    def _contents(self) -> Iterator[tuple[Path, bytes | Damaged]]:
        """Yield the checkpoints that are there, newest first, as torch.save's bytes, or what is wrong with them."""
        for path in self.paths:
            with suppress(FileNotFoundError):
                crc, _, rest = path.read_bytes().partition(b" ")
                is_whole = crc == b"%08x" % google_crc32c.value(rest)
                damage = Damaged(f"{path}: damaged; its checksum is of other bytes")
                yield path, rest.partition(b"\n")[2] if is_whole else damage

    def remove_damaged(self) -> None:
        """Remove checkpoints that are not whole, so that none ever takes a good one's place."""
        for path, content in self._contents():
            if isinstance(content, Damaged):
                path.unlink()

    @property
    def is_halved(self) -> bool:
        """Whether this stack had to be halved: its halves train in its place."""
        return self.folder is not None and self._mark.exists()

    @property
    def _mark(self) -> Path:
        assert self.folder is not None
        return self.folder / f"stack-{self.name}.halved"

    def halves(self) -> tuple[Checkpoints, Checkpoints]:
        """Return where the halves are kept."""
        return Checkpoints(self.folder, f"{self.name}.0"), Checkpoints(self.folder, f"{self.name}.1")

    def halve(self) -> None:
        """Remember that this stack was halved."""
        if self.folder is not None:
            self.close()
            files.write(self._mark, "")

    def close(self) -> None:
        """Remove the stack's files: its runs are finished."""
        for path in [*self.paths, *([self._mark] if self.folder else [])]:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the stack's files and those of its halves: none of its runs could start."""
        for half in self.halves() if self.is_halved else ():
            half.remove()
        self.close()


class Checkpointer:
    """Saves a stack in training now and then: every so many minutes or epochs, as configured.

    By the minute it saves less often where a checkpoint takes more than LARGEST_SHARE of the time between two.
    """

    def __init__(
        self, checkpoints: Checkpoints, knobs: Checkpoint, hashes: Sequence[str], stack: Stack, recorder: Recorder
    ) -> None:
        """hashes: what the checkpoint is recognised by, one for each member's configuration."""
        self.checkpoints, self.knobs, self.hashes = checkpoints, knobs, list(hashes)
        self.recorder = recorder
        self.saved = time.perf_counter()
        self.epoch = stack.epoch  # at the last checkpoint
        weights = sum(parameter.nbytes for parameter in stack.parameters.values())
        self.cost_s = 4 * weights / GUESSED_SPEED  # of the last one; before there is one: weights, two moments, best

    def tick(self, stack: Stack) -> None:
        """Save, if a checkpoint is due. Called between two steps."""
        minutes, epochs = self.knobs.minutes, self.knobs.epochs
        due = epochs is not None and stack.epoch >= self.epoch + epochs
        if minutes is not None and not due:
            due = time.perf_counter() - self.saved > max(60 * minutes, self.cost_s / LARGEST_SHARE)
        if due:
            self.save(stack)

    def save(self, stack: Stack) -> None:
        """Write a checkpoint of the stack between two steps."""
        from trainer.core import state

        if self.checkpoints.folder is None:
            return
        began = time.perf_counter()
        payload = {"records": self.recorder.state(stack), "data_hash": stack.dataset.hash, "runs": self.hashes}
        self.checkpoints.save(state.stack_state(stack) | payload)
        self.saved, self.epoch = time.perf_counter(), stack.epoch
        self.cost_s = self.saved - began
        self.recorder.checkpoint_s += self.cost_s
