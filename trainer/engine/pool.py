"""Stacks in processes of their own, one a core: in threads of one process they would wait for Python's lock.

A stack is a work item: configurations in, run directories out. A process that dies takes no other stack with it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from trainer.engine import background, runtime
from trainer.engine.progress import News, Reporter
from trainer.record import recorder

if TYPE_CHECKING:
    from trainer.engine.worker import Job, Part

TrainStack = Callable[..., None]  # (part, reporter, stop, done)
WAIT_S = 0.1  # between two looks at `stop`


class Shared(ctypes.Structure):
    """What all processes see."""

    _fields_ = [("stopping", ctypes.c_bool), ("idle", ctypes.c_int)]  # idle: workers without a stack that may help


@dataclass
class Worker:
    """A process that trains one stack after the other."""

    process: Any
    connection: Connection
    part: Part | None = None  # the stack it trains; None: idle
    number: int = -1


def train_stacks(
    parts: Sequence[Part],
    workers: int,
    train_stack: TrainStack,
    tell: Callable[[News], object],
    done: Callable[[Sequence[Job]], object],
    stop: Callable[[], bool],
) -> None:
    """Train every stack, in as many processes as workers; what comes of a job is put into it.

    A stack whose process died (out of memory, most likely) begins again in halves; a job that was alone fails.
    """
    method = _start_method(parts)
    context: Any = multiprocessing.get_context(method)
    shared = context.RawValue(Shared)
    waiting = list(enumerate(parts))
    pool = [_start(context, train_stack, shared) for _ in range(min(workers, len(parts)))]
    try:
        while True:
            for worker in pool:
                if worker.part is None and waiting and not shared.stopping:
                    worker.number, worker.part = waiting.pop(0)
                    worker.connection.send((worker.number, worker.part))
            busy = {worker.connection: worker for worker in pool if worker.part is not None}
            shared.idle = len(pool) - len(busy) if method == "fork" else 0
            if not busy:
                return
            for connection in wait(list(busy), WAIT_S):
                worker = busy[connection]  # type: ignore[index]
                assert worker.part is not None
                try:
                    news = worker.connection.recv()
                except (EOFError, OSError):
                    waiting[:0] = [(worker.number, half) for half in _halves(worker, worker.part, done)]
                    pool[pool.index(worker)] = _start(context, train_stack, shared)
                    continue
                if isinstance(news, News):
                    tell(news)
                elif news is None:
                    worker.part = None
                else:
                    done(_take(worker.part.jobs, news))
            shared.stopping = stop()
    finally:
        for worker in pool:
            worker.connection.close()
            worker.process.kill()
        for worker in pool:
            worker.process.join()


def _start_method(parts: Sequence[Part]) -> str:
    """fork: nothing is imported anew. Not where a child opens a team of OpenMP threads, nor outside of Linux.

    A stack that was planned alone may have a team, and keeps it: the number of threads is part of its bits.
    """
    threads = [
        job.config.threads or (1 if part.workers > 1 else runtime.PYTORCH_THREADS)
        for part in parts
        for job in part.jobs
        if job.config is not None
    ]
    teams = max(threads, default=1) > 1
    return "fork" if background.CAN_FORK and not teams else "spawn"


def _start(context: Any, train_stack: TrainStack, shared: Any) -> Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, train_stack, shared, os.getpid()), daemon=True)
    process.start()
    theirs.close()  # so that we see the end of the pipe when the process dies
    return Worker(process, ours)


def _serve(connection: Connection, train_stack: TrainStack, shared: Any, parent: int) -> None:
    """A worker's life: stacks come, news and ends of jobs go. parent: asked here, it might be another already."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach all processes; the first one decides
        signal.signal(number, signal.SIG_IGN)

    def stop() -> bool:
        if os.getppid() != parent:  # killed: nobody is left to work for
            os._exit(1)
        return shared.stopping

    def receive() -> tuple[int, Part]:
        while not connection.poll(WAIT_S):  # the pipe of a killed parent has no end where siblings hold it open
            stop()
        return connection.recv()

    def done(jobs: Sequence[Job]) -> None:
        ends = [(job.number, job.status, job.summary, job.objective, background.portable(job.error)) for job in jobs]
        connection.send(ends)

    try:
        while True:
            number, part = receive()
            train_stack(part, Reporter(number, connection.send, lambda: shared.idle), stop, done)
            connection.send(None)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # not by way of the buffers and handlers that came with the fork


def _take(jobs: Sequence[Job], ends: Sequence[tuple[Any, ...]]) -> list[Job]:
    """Put what came of some jobs into ours."""
    by_number = {job.number: job for job in jobs}
    taken = []
    for number, status, summary, objective, error in ends:
        job = by_number[number]
        job.status, job.summary, job.objective, job.error = status, summary, objective, error
        taken.append(job)
    return taken


def _halves(worker: Worker, part: Part, done: Callable[[Sequence[Job]], object]) -> list[Part]:
    """What a dead process has left to do; a job it trained alone fails."""
    worker.process.join()
    code = worker.process.exitcode
    left = part.waiting
    if len(part.jobs) == 1:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        left[0].fail(RuntimeError(f"the process that trained it {how}{'; out of memory?' if code == -9 else ''}"))
        done(left)
        return []
    for job in left:
        recorder.discard(job.directory)
    part.store.halve()
    return [half for half in part.halves() if half.waiting]
