"""Ctrl-C, SIGTERM and their like: the first asks training to end cleanly after its step, the second ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# What asks a command to end: a person, a system that shuts down, a terminal that closes, a cluster's limit.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
]
ALWAYS = (signal.SIGINT, signal.SIGTERM)


class Impatient(KeyboardInterrupt):
    """A second Ctrl-C; a class of its own, since a module of the user's own may raise KeyboardInterrupt itself."""


class Ended(KeyboardInterrupt):
    """Training ended cleanly because of a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def handled(numbers: Iterable[int], handler: Any) -> Iterator[None]:
    """Let signals be handled so until the block ends: by a function, or signal.SIG_IGN."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def caught() -> Iterator[list[int]]:
    """A list that gets the number of the first signal. After the block, raises Ended if there was one."""
    numbers: list[int] = []

    def first(number: int, frame: object) -> None:
        numbers.append(number)
        signal.signal(number, second if number == signal.SIGINT else signal.SIG_DFL)

    def second(number: int, frame: object) -> None:
        raise Impatient

    ours = [n for n in SIGNALS if n in ALWAYS or signal.getsignal(n) == signal.SIG_DFL]  # nohup ignores SIGHUP, say
    with handled(ours, first):
        yield numbers
    if numbers:
        raise Ended(numbers[0])
