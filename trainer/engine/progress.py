"""What a stack in training tells the terminal, as plain values: it may train in another process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.core.stack import Stack

TICK_S = 0.1


@dataclass(frozen=True)
class News:
    """How far a stack has come; after an epoch with the `row` of its best member and the `loss` by which it is that."""

    stack: int  # its number in the plan
    members: int  # still in training
    runs: float  # trained so far, parts of runs included; 0 once they are counted as ended
    step: int
    steps: int  # the first member's budget
    epoch: int
    epochs: int
    monitor: str = ""  # the tag that `loss` is taken from
    loss: float = math.inf  # lower is better
    row: dict[str, float] | None = None


class Reporter:
    """Tells of one stack while it trains: after every epoch, and between them ten times a second."""

    def __init__(self, number: int, tell: Callable[[News], object]) -> None:
        self.number, self.tell = number, tell
        self.size, self.told = 0, 0.0
        self.last: News | None = None

    def start(self, stack: Stack) -> None:
        """Tell that training begins; after an error with fewer members."""
        self.size = len(stack.members)
        self._tell(stack)

    def tick(self, stack: Stack) -> None:
        """Tell between two steps, now and then."""
        if time.perf_counter() - self.told > TICK_S:
            self._tell(stack)

    def epoch(self, stack: Stack, rows: Sequence[dict[str, float]]) -> None:
        """Tell of an epoch; without a validation split, of the training loss."""
        best, tag = math.inf, ""
        best_row = rows[0]
        for member, row in zip(stack.members, rows, strict=True):
            loss = member.config.early_stopping.loss(row)
            monitor = "eval/train_loss" if loss is None else member.config.early_stopping.tag
            loss = row[monitor] if loss is None else loss
            if not tag or loss < best:
                best, tag, best_row = loss, monitor, row
        self._tell(stack, tag, best, best_row)

    def end(self) -> None:
        """Tell that training has ended, if it began."""
        if self.last is not None:
            self.tell(replace(self.last, runs=0.0, row=None))

    def _tell(
        self, stack: Stack, monitor: str = "", loss: float = math.inf, row: dict[str, float] | None = None
    ) -> None:
        self.told = time.perf_counter()
        members = len(stack.members)
        steps = stack.total_steps(stack.members[0].config)
        epochs = -(-steps // stack.steps_per_epoch)
        runs = self.size - members + members * stack.step / steps
        self.last = News(self.number, members, runs, stack.step, steps, stack.epoch, epochs, monitor, loss, row)
        self.tell(self.last)
