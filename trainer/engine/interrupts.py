"""Ctrl-C and SIGTERM: the first asks training to end cleanly after the step it is in, the second ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # by which training may be asked to end


class Impatient(KeyboardInterrupt):
    """A second Ctrl-C; a class of its own, since a module of the user's own may raise KeyboardInterrupt itself."""


class Ended(KeyboardInterrupt):
    """Training ended cleanly because of a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def caught() -> Iterator[list[int]]:
    """A list that gets the number of the first signal. After the block, raises Ended if there was one."""
    numbers: list[int] = []

    def first(number: int, frame: object) -> None:
        numbers.append(number)
        signal.signal(number, second if number == signal.SIGINT else signal.SIG_DFL)

    def second(number: int, frame: object) -> None:
        raise Impatient

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if numbers:
        raise Ended(numbers[0])
