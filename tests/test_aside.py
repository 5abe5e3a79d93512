"""Work in forked children: results and errors come back, in order; nothing is left running."""

from __future__ import annotations

import os
import signal

import pytest

from trainer import aside

pytestmark = pytest.mark.skipif(not aside.CAN_FORK, reason="for systems that fork")


class Awkward(Exception):
    """An error that cannot be made again from its arguments."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{number} {what}")


def test_a_result_comes_from_another_process() -> None:
    process, value = aside.start(lambda: (os.getpid(), {"a": [1, 2]}))()
    assert value == {"a": [1, 2]}
    assert process != os.getpid()
    with pytest.raises(ChildProcessError):  # it has ended, and is no zombie
        os.waitpid(process, os.WNOHANG)


def test_an_error_comes_back_as_itself() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device", "here")

    with pytest.raises(OSError, match="No space left on device: 'here'"):
        aside.start(fail)()


@pytest.mark.parametrize("value", [lambda: None, Awkward(3, "things")], ids=["result", "error"])
def test_what_cannot_be_sent_is_described(value: object) -> None:
    def work() -> object:
        if isinstance(value, Exception):
            raise value
        return value

    with pytest.raises(Exception, match=r"Awkward: 3 things|pickle"):
        aside.start(work)()


def test_a_killed_child_is_an_error() -> None:
    with pytest.raises(MemoryError):
        aside.start(lambda: os.kill(os.getpid(), signal.SIGKILL))()


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_shares_come_back_in_order(processes: int) -> None:
    found = aside.shared(lambda item: (item * item, os.getpid()), list(range(7)), processes)
    assert [square for square, _ in found] == [n * n for n in range(7)]
    assert len({process for _, process in found}) == min(processes, 7)


@pytest.mark.parametrize("bad", [0, 6])
def test_an_error_in_a_share_waits_for_the_others(bad: int, tmp_path) -> None:
    def work(item: int) -> None:
        if item == bad:
            raise ValueError(f"{item}")
        (tmp_path / str(item)).touch()

    with pytest.raises(ValueError, match=str(bad)):
        aside.shared(work, list(range(7)), 7)
    assert len(list(tmp_path.iterdir())) == 6
