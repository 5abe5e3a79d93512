"""What a stack in training tells the terminal, as plain values: it may train in another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainer.core.loop import Stack

TICK_S = 0.1


@dataclass(frozen=True)
class News:
    """How far a stack has come. `row` stands there after an epoch: its best member's, by the value it monitors."""

    stack: int  # its number in the plan
    members: int  # still in training
    runs: float  # trained so far, parts of runs included; 0 once they are counted as ended
    step: int
    steps: int  # the first member's budget
    epoch: int
    epochs: int
    monitor: str = ""
    row: dict[str, float] | None = None


class Reporter:
    """Tells of one stack while it trains: after every epoch, and between them ten times a second.

    idle: how many processes could help just now, as they have nothing to do.
    """

    def __init__(self, number: int, tell: Callable[[News], object], idle: Callable[[], int] = lambda: 0) -> None:
        self.number, self.tell, self.idle = number, tell, idle
        self.size, self.told = 0, 0.0
        self.last: News | None = None

    def start(self, stack: Stack) -> None:
        """Training begins; after an error with fewer members."""
        self.size = len(stack.members)
        self._tell(stack)

    def tick(self, stack: Stack) -> None:
        """Called every step."""
        if time.perf_counter() - self.told > TICK_S:
            self._tell(stack)

    def epoch(self, stack: Stack, rows: Sequence[dict[str, float]]) -> None:
        """Called every epoch."""
        tags = [member.config.early_stopping.tag for member in stack.members]
        values = [loss_of(row, tag) for row, tag in zip(rows, tags, strict=True)]
        best = values.index(min(values))
        self._tell(stack, tags[best], rows[best])

    def end(self) -> None:
        """Training has ended, if it began."""
        if self.last is not None:
            self.tell(replace(self.last, runs=0.0, row=None))

    def _tell(self, stack: Stack, monitor: str = "", row: dict[str, float] | None = None) -> None:
        self.told = time.perf_counter()
        members = len(stack.members)
        steps = stack.total_steps(stack.members[0].config)
        epochs = -(-steps // stack.steps_per_epoch)
        runs = self.size - members + members * stack.step / steps
        self.last = News(self.number, members, runs, stack.step, steps, stack.epoch, epochs, monitor, row)
        self.tell(self.last)


def loss_of(row: dict[str, float], tag: str) -> float:
    """The monitored value of an epoch, lower is better; without a validation split the training loss."""
    if tag not in row:
        return row["eval/train_loss"]
    return -row[tag] if tag.endswith("accuracy") else row[tag]
