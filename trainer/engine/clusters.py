"""Engines that run jobs on other machines, each behind the same few calls: submitit for Slurm, Dask, Ray.

They schedule, queue and start; what a job is, and what becomes of one that is lost, `remote` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib
import io
import logging
import math
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import ConfigError
from trainer.engine import interrupts, runtime
from trainer.engine.remote import JOBS, Engine, Future
from trainer.engine.resume.plan_file import FOLDER
from trainer.engine.task import Task

QUEUE_S = 1.0  # between two questions for Slurm's queue
SOON_S = 0.2  # where a job has left its result
ANSWER_S = 10  # that a scheduler has to answer


def connect(name: str, folder: Path, jobs: int | None, detach: bool, parameters: dict[str, Any]) -> Engine:
    """Return an engine that is ready for tasks. folder: of the sweep. Raises ConfigError where it is not."""
    if jobs is not None and jobs < 1:
        raise ConfigError([f"hydra.launcher.jobs: found {jobs}, expected a whole number of jobs >= 1"])
    if name == "slurm":
        slurm = Slurm(folder / FOLDER / JOBS / "slurm", **parameters)
        slurm.look_from_a_node()
        return slurm
    if detach and (name == "ray" or parameters["address"] is None):
        why = "Ray ends the tasks of a command that ends" if name == "ray" else "the workers end with this command"
        raise ConfigError([f"hydra.launcher.detach: {why}; leave it out, or give the address of a Dask scheduler"])
    return Ray(**parameters) if name == "ray" else Dask(jobs=jobs, **parameters)


@dataclass
class SlurmJob:
    """A job of submitit's; whether Slurm knows it is asked of its queue, which needs no accounting."""

    job: Any
    engine: Slurm
    log: Path | None

    @property
    def name(self) -> str:
        return str(self.job.job_id)

    def done(self) -> bool:
        """Whether it neither waits nor runs; one that asked for more time may have left a result, and wait again."""
        if self.engine.is_local:
            return self.job.done()
        return self.name not in self.engine.queue(SOON_S if self.job.paths.result_pickle.exists() else QUEUE_S)

    def exception(self) -> BaseException | None:
        """Nothing: the log says why."""
        return None


class Slurm:
    """Slurm, or with cluster=local processes of this machine, by submitit's AutoExecutor."""

    name = "slurm"
    jobs = 4

    def __init__(self, folder: Path, cluster: str, max_num_timeout: int, **parameters: Any) -> None:
        """parameters: submitit's, those of Slurm's own without its prefix. Raises ConfigError."""
        self.submitit = _package("submitit", self.name)
        self.is_local, self.folder, self.max_num_timeout = cluster == "local", folder.absolute(), max_num_timeout
        if not self.is_local and shutil.which("sbatch") is None:
            said = "found no sbatch here; log in where the cluster takes jobs, or try hydra.launcher.cluster=local"
            raise ConfigError([f"hydra/launcher=slurm: {said}"])
        named = {"timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node"}
        given = {"name": "trainer", **parameters}
        self.parameters = {k if k in {*named, "name"} else f"slurm_{k}": v for k, v in given.items()}
        self.known: set[str] = set()
        self.asked = -math.inf

    def look_from_a_node(self) -> None:
        """Raise ConfigError where a node that is free now does not see this folder; where none is, its job will say."""
        if self.is_local:
            return
        partition = self.parameters.get("slurm_partition")
        options = ["--immediate=1", "--ntasks=1", "--mem=16", "--chdir=/"]
        options += [f"--partition={partition}"] if partition else []
        call = ["srun", *options, "sh", "-c", 'test -d "$0" || hostname', str(Path.cwd())]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(call, capture_output=True, text=True, check=True, timeout=ANSWER_S).stdout
            if said.strip():
                raise _not_shared(f"the node {said.strip()}")

    def submit(self, tasks: Sequence[Task]) -> list[SlurmJob]:
        """Submit tasks as one array. Raises ConfigError with what sbatch says."""
        cluster = "local" if self.is_local else "slurm"
        with _said("hydra/launcher=slurm"), contextlib.redirect_stderr(io.StringIO()):  # sbatch's own words, we say
            executor = self.submitit.AutoExecutor(self.folder, cluster, slurm_max_num_timeout=self.max_num_timeout)
            executor.update_parameters(**{key: value for key, value in self.parameters.items() if value is not None})
            deaf = [signal.SIGINT] if self.is_local else []  # what trains answers a Ctrl-C, what watches it need not
            with interrupts.handled(deaf, signal.SIG_IGN):
                jobs = executor.submit_array(tasks)
        self.known |= {str(job.job_id) for job in jobs}
        return [SlurmJob(job, self, job.paths.stderr) for job in jobs]

    def attach(self, name: str) -> SlurmJob | None:
        """Return a job of an earlier command that waits or runs."""
        if self.is_local:
            return None
        with _said("hydra/launcher=slurm"):  # a queue that is not known is not taken for empty
            self.known = self._squeue()
        if name not in self.known:
            return None
        return SlurmJob(self.submitit.SlurmJob(self.folder, name), self, None)

    def queue(self, age_s: float) -> set[str]:
        """Return the numbers of all jobs of this user that wait or run, as of so many seconds ago at most."""
        if time.monotonic() - self.asked > age_s:
            with contextlib.suppress(OSError, subprocess.SubprocessError):  # it is busy: what was known still holds
                self.known = self._squeue()
            self.asked = time.monotonic()
        return self.known

    def _squeue(self) -> set[str]:
        """Ask Slurm. Raises OSError, SubprocessError."""
        call = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
        return set(subprocess.run(call, capture_output=True, text=True, check=True, timeout=ANSWER_S).stdout.split())

    def cancel(self, futures: Sequence[Future]) -> None:
        for future in futures:
            if isinstance(future, SlurmJob) and not future.done():
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    future.job.cancel(check=False)

    def close(self) -> None:
        """Leave Slurm as it is."""


@dataclass
class Sent:
    """A task of Dask's or Ray's, whose futures are alike."""

    handle: Any  # by which it is cancelled
    future: Any
    name: str | None = None
    log: Path | None = None

    def done(self) -> bool:
        """Whether it has ended, or the scheduler has forgotten it."""
        return self.future.done()

    def exception(self) -> BaseException | None:
        with contextlib.suppress(CancelledError, asyncio.CancelledError, TimeoutError):
            return self.future.exception(timeout=ANSWER_S)
        return None


@dataclass
class Earlier:
    """A task that another client of Dask's has sent: the scheduler does not tell us when it ends."""

    client: Any
    name: str

    def done(self) -> bool:
        """Whether it neither waits nor runs."""
        return self.client.run_on_scheduler(_state, self.name) not in ("waiting", "processing", "queued")

    def exception(self, timeout: float) -> BaseException | None:
        """Nothing: the log says why."""
        return None


class Dask:
    """A Dask cluster, or without an address the cores of this machine."""

    name = "dask"

    def __init__(self, address: str | None, jobs: int | None) -> None:
        """Raises ConfigError where nobody answers, or a worker does not see the folder."""
        distributed = _package("distributed", self.name)
        self.fire_and_forget, self.future = distributed.fire_and_forget, distributed.Future
        self.is_ours = address is None
        if self.is_ours:
            logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what a task raises we say ourselves
        with _said(f"hydra.launcher.address={address}" if address else "hydra/launcher=dask"):
            if address:
                _knock(address)
                self.client = distributed.Client(address, timeout=ANSWER_S)
            else:
                threads = jobs or runtime.cores()
                self.client = distributed.Client(
                    processes=False, n_workers=1, threads_per_worker=threads, dashboard_address=None
                )
            seen = self.client.run(_sees, str(Path.cwd()))
        if blind := [worker for worker, sees in seen.items() if not sees]:
            self.close()
            raise _not_shared(f"the worker {blind[0]}")
        self.jobs = max(1, sum(self.client.nthreads().values()))

    def submit(self, tasks: Sequence[Task]) -> list[Sent]:
        """Submit each task under its token."""
        out = []
        for task in tasks:
            future = self.client.submit(task, key=f"trainer-{task.token}", pure=False)
            if not self.is_ours:
                self.fire_and_forget(future)  # else it would end with this command
            out.append(Sent(future, future, None if self.is_ours else future.key))
        return out

    def attach(self, name: str) -> Sent | None:
        earlier = Earlier(self.client, name)
        return None if earlier.done() else Sent(self.future(name, self.client), earlier, name)

    def cancel(self, futures: Sequence[Future]) -> None:
        """Cancel tasks that wait; those that run end without their ticket."""
        self.client.cancel([future.handle for future in futures if isinstance(future, Sent)], force=True)

    def close(self) -> None:
        self.client.close()


def _not_shared(who: str) -> ConfigError:
    return ConfigError([f"{Path.cwd()}: {who} does not see it; use a shared folder"])


def _sees(folder: str) -> bool:
    return Path(folder).is_dir()


def _state(name: str, dask_scheduler: Any) -> str | None:
    task = dask_scheduler.tasks.get(name)
    return None if task is None else task.state


class Ray:
    """A Ray cluster, or without an address one of this machine for the time of the command."""

    name = "ray"

    def __init__(self, address: str | None, num_cpus: float, num_gpus: float) -> None:
        """num_cpus, num_gpus: of a stack. Raises ConfigError where nobody answers."""
        ray = self.ray = _package("ray", self.name)
        here = {} if address else {"num_cpus": max(runtime.cores(), int(num_cpus)), "include_dashboard": False}
        with _said(f"hydra.launcher.address={address}" if address else "hydra/launcher=ray"):
            if address:
                _knock(address)
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **here)
        self.asked = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": 0}
        all_cpus = ray.cluster_resources().get("CPU", 1)
        self.jobs = max(1, int(all_cpus // num_cpus)) if num_cpus else 1

    def submit(self, tasks: Sequence[Task]) -> list[Sent]:
        train = self.ray.remote(**self.asked)(Task.__call__)
        references = [train.remote(task) for task in tasks]
        return [Sent(reference, reference.future()) for reference in references]

    def attach(self, name: str) -> Sent | None:
        """Nothing: Ray ends the tasks of a command that has ended."""
        return None

    def cancel(self, futures: Sequence[Future]) -> None:
        for future in futures:
            if isinstance(future, Sent):
                self.ray.cancel(future.handle, force=True)

    def close(self) -> None:
        self.ray.shutdown()


def _package(name: str, extra: str) -> Any:
    """Import an engine's package. Raises ConfigError where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        said = f"hydra/launcher={extra}: {name} is not installed; pip install 'trainer[{extra}]'"
        raise ConfigError([said]) from error


def _knock(address: str) -> None:
    """See that somebody answers at host:port, which Ray would ask for minutes. Raises OSError, ValueError."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        except OSError as error:
            hint = "start a scheduler, or leave the address out"
            raise OSError(f"nobody answers there ({error.strerror or error}); {hint}") from error


@contextlib.contextmanager
def _said(where: str) -> Iterator[None]:
    """Take what an engine refuses, in its own words, for a user's mistake. Raises ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if "error:" in line), lines[0] if lines else type(error).__name__)
        raise ConfigError([f"{where}: {said}"]) from error
