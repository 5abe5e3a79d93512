"""Work done in forked children while this process does something else; nothing of it comes back but its result.

For what two threads would not do faster, as they wait for Python's lock. Nobody may fork who computes on a GPU or with
a team of OpenMP threads: the child would wait for threads that it does not have.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CAN_FORK = sys.platform == "linux"  # elsewhere libraries of the system do not survive it
PR_SET_PDEATHSIG = 1  # prctl(2)


def start(work: Callable[[], T]) -> Callable[[], T]:
    """Begin some work in a child; what is returned waits for its result, or raises what the work raised.

    Raises MemoryError, when asked for the result, where the child was killed. Where no process can be forked the work
    is done when its result is asked for. A child does not outlive its parent.
    """
    if not CAN_FORK:
        return work
    parent = os.getpid()
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError:  # no room for a process
        os.close(reading)
        os.close(writing)
        return work
    if child == 0:
        _answer(work, reading, writing, parent)
    os.close(writing)

    def result() -> T:
        with open(reading, "rb") as pipe:
            answer = pipe.read()
        with suppress(ChildProcessError):  # where SIGCHLD is ignored nobody has to be waited for
            os.waitpid(child, 0)
        if not answer:
            raise MemoryError("a process that helped was killed")
        value, error = pickle.loads(answer)
        if error is not None:
            raise error
        return value

    return result


def _answer(work: Callable[[], object], reading: int, writing: int, parent: int) -> None:
    """A child's life. It ends without the buffers and handlers that came with the fork."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        os.close(reading)
        try:
            answer = pickle.dumps((work(), None), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            answer = pickle.dumps((None, portable(error)))
        with open(writing, "wb") as pipe:
            pipe.write(answer)
        code = 0
    finally:
        os._exit(code)


def shared(work: Callable[[T], R], items: Sequence[T], processes: int) -> list[R]:
    """work(item) of every item, in order, shared out among this process and children.

    Raises what one of them raised, after all of them have ended.
    """
    processes = max(1, min(processes, len(items)))
    edges = [len(items) * i // processes for i in range(processes + 1)]
    shares = [items[first:end] for first, end in itertools.pairwise(edges)]
    helpers = [start(lambda share=share: [work(item) for item in share]) for share in shares[1:]]
    done: list[R] = []
    errors: list[Exception] = []
    for part in (lambda: [work(item) for item in shares[0]], *helpers):
        try:
            done += part()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return done


def portable(error: Exception | None) -> Exception | None:
    """An error that survives the way to another process: some cannot be made again from their arguments."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
