"""Work in forked children: results and errors come back, in order; nothing is left running."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from trainer.engine import background

pytestmark = pytest.mark.skipif(not background.CAN_FORK, reason="for systems that fork")


class Awkward(Exception):
    """An error that cannot be made again from its arguments."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{number} {what}")


def test_a_result_comes_from_another_process() -> None:
    process, value = background.start(lambda: (os.getpid(), {"a": [1, 2]}))()
    assert value == {"a": [1, 2]}
    assert process != os.getpid()
    with pytest.raises(ChildProcessError):  # it has ended, and is no zombie
        os.waitpid(process, os.WNOHANG)


def test_an_error_comes_back_as_itself() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device", "here")

    with pytest.raises(OSError, match="No space left on device: 'here'"):
        background.start(fail)()


@pytest.mark.parametrize("value", [lambda: None, Awkward(3, "things")], ids=["result", "error"])
def test_what_cannot_be_sent_is_described(value: object) -> None:
    def work() -> object:
        if isinstance(value, Exception):
            raise value
        return value

    with pytest.raises(Exception, match=r"Awkward: 3 things|pickle"):
        background.start(work)()


def test_a_killed_child_is_an_error() -> None:
    with pytest.raises(MemoryError):
        background.start(lambda: os.kill(os.getpid(), signal.SIGKILL))()


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_shares_come_back_in_order(processes: int) -> None:
    found = background.shared(lambda item: (item * item, os.getpid()), list(range(7)), processes)
    assert [square for square, _ in found] == [n * n for n in range(7)]
    assert len({process for _, process in found}) == min(processes, 7)


@pytest.mark.parametrize("bad", [0, 6])
def test_an_error_in_a_share_waits_for_the_others(bad: int, tmp_path: Path) -> None:
    def work(item: int) -> None:
        if item == bad:
            raise ValueError(f"{item}")
        (tmp_path / str(item)).touch()

    with pytest.raises(ValueError, match=str(bad)):
        background.shared(work, list(range(7)), 7)
    assert len(list(tmp_path.iterdir())) == 6


def test_where_nothing_can_be_forked_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    handles = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    assert background.shared(lambda item: (item, os.getpid()), [1, 2, 3], 3) == [(n, os.getpid()) for n in (1, 2, 3)]
    assert len(os.listdir("/proc/self/fd")) == handles


def test_children_that_nobody_has_to_wait_for() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert background.start(lambda: 3)() == 3
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """It might write into a directory that another command has taken over."""

    def lives_long() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    parent = os.fork()
    if parent == 0:
        background.start(lives_long)
        time.sleep(60)
        os._exit(0)
    deadline = time.monotonic() + 30
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    child = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
