"""Trains stacks side by side, each in a worker process: in threads of one process they would wait for Python's lock.

Workers are forked by a server that has imported what they need and computed nothing. The command's own process is never
forked: a team of OpenMP threads, which any library call may have started, does not survive it, and a child that waits
for such a thread waits for ever. A process that dies takes no other stack with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from trainer import stdio
from trainer.engine import fork_server, interrupts
from trainer.engine.jobs import Job, StackJob
from trainer.engine.progress import News, Reporter
from trainer.language import print_line

SERVER_DIED = 255  # multiprocessing's exit code of a worker whose server was killed
WAIT_S = 0.1  # between two looks at `stop`


class Display(Protocol):
    """Who is told as it happens."""

    def tell(self, news: News) -> None: ...

    def done(self, jobs: Sequence[Job]) -> None: ...


@dataclass
class Worker:
    """A process that trains one stack after the other."""

    process: Any
    connection: Connection
    item: StackJob | None = None  # the stack it trains; None: idle
    number: int = -1

    def end(self) -> None:
        """Kill the process; nothing of a stack it trains is lost but the time since its checkpoint."""
        self.kill()
        self.process.join()

    def kill(self) -> None:
        """Begin to end the process."""
        self.connection.close()
        self.process.kill()


def train_stacks(
    stacks: Sequence[StackJob], workers: int, display: Display, stop: Callable[[], bool], lock: int | None = None
) -> None:
    """Train every stack, at most `workers` of them at once, each in a process of its own; with 0 workers in this one.

    What comes of a job is put into it. A stack whose process was killed goes on from its checkpoint; if that is killed
    too (out of memory, most likely) it begins again in halves, and a job that was alone fails. lock: an open file that
    workers hold on to, so that nobody takes over what they still write.
    """
    waiting = list(enumerate(stacks))
    if workers and waiting:
        _train_in_workers(waiting, workers, display, stop, lock)
    if waiting and not stop():
        from trainer.engine.worker import train_stack

        for number, item in waiting:
            train_stack(item, Reporter(number, display.tell), stop, display.done)
    for job in (job for item in stacks for job in item.waiting):
        job.interrupt()


def _train_in_workers(
    waiting: list[tuple[int, StackJob]],
    workers: int,
    display: Display,
    stop: Callable[[], bool],
    lock: int | None,
) -> None:
    """Train numbered stacks in worker processes; those that no process could be started for stay in `waiting`."""
    fork_server.warm_up()  # where the command has not: without it each worker would import torch for itself
    context: Any = multiprocessing.get_context(fork_server.START_METHOD)
    stopping = context.RawValue(ctypes.c_bool)
    pool: list[Worker] = []
    shared = _folder_for_data() if workers > 1 else None
    missing = min(workers, len(waiting))
    try:
        while True:
            while missing and waiting and not stopping.value:
                if (started := _start(context, stopping, lock, shared)) is None:
                    break
                pool.append(started)
                missing -= 1
            for worker in pool:
                if worker.item is None and waiting and not stopping.value:
                    worker.number, worker.item = waiting.pop(0)
                    worker.connection.send((worker.number, worker.item))
            busy = {worker.connection: worker for worker in pool if worker.item is not None}
            if not busy:
                return
            for connection in wait(list(busy), WAIT_S):
                worker = busy[connection]  # type: ignore[index]
                assert worker.item is not None
                try:
                    news = worker.connection.recv()
                except (EOFError, OSError):
                    waiting[:0] = [(worker.number, item) for item in _after_death(worker, worker.item, display.done)]
                    pool.remove(worker)
                    missing += 1
                    continue
                if isinstance(news, News):
                    display.tell(news)
                elif news is not None:
                    display.done(_take(worker.item.jobs, news))
                elif worker.item.runs_user_code:  # what that may have left in the process harms no other
                    worker.end()
                    pool.remove(worker)
                    missing += 1
                else:
                    worker.item = None
            stopping.value = stop()
    finally:
        for worker in pool:
            worker.kill()  # all at once: each takes some time to give back its memory
        for worker in pool:
            worker.process.join()
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)


def _folder_for_data() -> str | None:
    """Return a new folder in multiprocessing's own, which is removed after a SIGKILL too; None where there is none."""
    if fork_server.START_METHOD == "forkserver":
        with contextlib.suppress(OSError):
            return tempfile.mkdtemp(dir=util.get_temp_dir())
    return None


def _start(context: Any, stopping: Any, lock: int | None, shared: str | None) -> Worker | None:
    """Return a new worker; None, and a note, where no process can be started (a limit on their number, say)."""
    ours, theirs = context.Pipe()
    kept = None if lock is None else Connection(os.dup(lock), writable=False)  # which is how an open file is sent
    process = context.Process(target=_serve, args=(theirs, stopping, dict(os.environ), kept, shared), daemon=True)
    try:
        with fork_server.without_main():
            process.start()
    except (OSError, EOFError) as error:
        ours.close()
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # what is refused a process is refused a thread too
        why = error.strerror if isinstance(error, OSError) else "the server that forks them has ended"
        print_line(f"note: no worker process could be started ({why}); fewer stacks train side by side", sys.stderr)
        return None
    finally:
        theirs.close()  # so that we see the end of the pipe when the process dies
        if kept is not None:
            kept.close()
    return Worker(process, ours)


def _serve(
    connection: Connection, stopping: Any, environment: dict[str, str], lock: Connection | None, shared: str | None
) -> None:
    """Live as a worker: stacks come, news and ends of jobs go. shared: folder of the data that all workers read."""
    from trainer.engine.worker import train_stack

    stdio.prepare()
    for number in interrupts.SIGNALS:  # they may reach all processes; the first one decides
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)  # the server's is that of the command's first moment
    parent = os.getppid()

    def stop() -> bool:
        if os.getppid() != parent:  # the server ends with the command: nobody is left to work for
            os._exit(1)
        return stopping.value

    def receive() -> tuple[int, StackJob]:
        while not connection.poll(WAIT_S):
            stop()
        return connection.recv()

    def done(jobs: Sequence[Job]) -> None:
        connection.send([(job.number, job.status, job.summary, job.objective, portable(job.error)) for job in jobs])

    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            number, item = receive()
            train_stack(item, Reporter(number, connection.send), stop, done, Path(shared) if shared else None)
            stdio.flush()  # what a module of the user's own printed is out before this process is killed
            connection.send(None)


def _take(jobs: Sequence[Job], ends: Sequence[tuple[Any, ...]]) -> list[Job]:
    """Put what came of some jobs into ours."""
    by_number = {job.number: job for job in jobs}
    taken = []
    for number, status, summary, objective, error in ends:
        job = by_number[number]
        job.status, job.summary, job.objective, job.error = status, summary, objective, error
        taken.append(job)
    return taken


def _after_death(worker: Worker, item: StackJob, done: Callable[[Sequence[Job]], object]) -> list[StackJob]:
    """Return what is left to train of a stack whose process died; a job that was alone fails."""
    worker.process.join()
    code = worker.process.exitcode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = "; out of memory?" if code == -signal.SIGKILL else ""
    was_killed = code in (-signal.SIGKILL, SERVER_DIED)
    return after_loss(item, was_killed, f"the process that trained it {how}{hint}", done)


def after_loss(item: StackJob, was_killed: bool, how: str, done: Callable[[Sequence[Job]], object]) -> list[StackJob]:
    """Return what is left to train of a stack that was lost; a job that was alone fails, and is told `how` it was.

    A process that was killed may have been in somebody's way, or was one too many for the memory: the stack goes on
    from its checkpoint once, then in halves.
    """
    item.deaths += 1
    if was_killed and item.deaths == 1:
        return [item]
    left = item.waiting
    if len(item.jobs) == 1:
        left[0].fail(RuntimeError(how))
        done(left)
        return []
    for job in left:
        job.destination.discard()
    item.checkpoints.halve()
    return [half for half in item.halves() if half.waiting]


def portable(error: Exception | None) -> Exception | None:
    """Return an error that survives the way to another process: some cannot be made again from their arguments."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
