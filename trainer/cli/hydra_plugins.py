"""Hydra's side of a sweep: a launcher that trains the jobs of a batch as stacks, and a sweeper that allows it."""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from trainer import files
from trainer.cli import choices
from trainer.cli.command import Command
from trainer.cli.command_line import quoted
from trainer.cli.compose import Composed, Composer, write_hydra
from trainer.config import ConfigError
from trainer.engine import interrupts, lock
from trainer.engine.resume import foreign
from trainer.language import print_line

Plugins.instance()  # executes the core plugins' modules anew, so a class of theirs can be derived from only after it
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

if TYPE_CHECKING:
    from trainer.cli.display import SweepDisplay
    from trainer.engine.jobs import Job
    from trainer.engine.resume import run_plan

MODULE = "hydra_plugins.trainer_launcher"  # Hydra takes plugins from this namespace alone


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, but jobs are composed once: by the launcher, which checks each."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over; its task function is our command."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.command = _command(task_function)
        if not isinstance(self.launcher, StackLauncher):
            assert self.launcher is not None
            self.launcher = OtherLauncher(self.launcher)
            self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def validate_batch_is_legal(self, batch: Any) -> None:
        """Accept every batch: the launcher reports a job that cannot be composed, and trains the others."""

    def sweep(self, arguments: list[str]) -> Any:
        """Sweep as Hydra does, but leave multirun.yaml to the launcher, which knows whether anything is to be run.

        Raises ConfigError where there is nothing to sweep.
        """
        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (jobs,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        if not jobs:
            raise ConfigError([f"{' '.join(arguments)}: an empty sweep; give every key at least one value"])
        jobs, notes = choices.settle(self.command.line.sources, jobs)
        for note in notes:
            print_line(f"note: {note}")
        size = self.max_batch_size or len(jobs)
        return [self.launcher.launch(jobs[i : i + size], initial_job_idx=i) for i in range(0, len(jobs), size)]


class StackLauncher(Launcher):
    """Trains the jobs of a batch together, as stacks on this machine."""

    engine_name: str | None = None  # what stacks are sent to

    def __init__(self, max_members: int | None, workers: int | None = None) -> None:
        self.max_members, self.workers = max_members, workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra's sweepers hand over; the task function is our command."""
        self.hydra_context, self.config, self.command = hydra_context, config, _command(task_function)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose, check and train a batch of jobs, or what of it is not done; one JobReturn each, in order.

        Raises ConfigError where the sweep's directory is in use, or holds other runs than these.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder, line = Path(str(self.config.hydra.sweep.dir)), self.command.line
        composer = Composer(self.hydra_context, self.config, line.sources)
        numbered = list(enumerate(map(list, job_overrides), initial_job_idx))
        attempts = [composer.attempt(*job) for job in numbered]
        composed = [None if isinstance(attempt, ConfigError) else attempt for attempt in attempts]
        jobs = [_job(number, folder, o, attempt) for (number, o), attempt in zip(numbered, attempts, strict=True)]
        line.check_code(job.config for job in jobs if job.config is not None)
        with contextlib.ExitStack() as stack:
            self._open(folder, stack)
            return self._launch(folder, jobs, composed)

    def _open(self, folder: Path, stack: contextlib.ExitStack) -> None:
        """Make ready what trains; it is closed with the stack. Raises ConfigError."""

    def _launch(self, folder: Path, jobs: list[Job], composed: Sequence[Composed | None]) -> Sequence[JobReturn]:
        from trainer.engine import remote
        from trainer.engine.resume import run_plan

        line = self.command.line
        if line.dry_run:
            self._place(run_plan.Session(folder, line.repeatable), jobs, composed).say(jobs)
            return []
        self.command.jobs.extend(jobs)
        self.command.folder = folder
        if all(job.status == "failed" for job in jobs):
            return [_job_return(job) for job in jobs]
        foreign.refuse(folder)
        with lock.held(folder) as handle:
            if problems := remote.sent_elsewhere(folder, self.engine_name):
                raise ConfigError(problems)
            session = self._place(run_plan.Session(folder, line.repeatable), jobs, composed)
            session.commit(OmegaConf.to_yaml(self.config) if line.is_sweep else None)  # else no one product of values
            for job, parts in zip(jobs, composed, strict=True):
                if job.status == "waiting" and parts is not None:
                    write_hydra(job.destination.folder, parts.raw, parts.overrides)
            for note in session.notes:
                print_line(f"note: {note}")
            with env_override(self.config.hydra.job.env_set), interrupts.caught() as ended_by:
                self._call("on_job_start", composed)
                with self._show([job for job in jobs if not job.finished_earlier]) as display:
                    try:
                        left = self._train(session, jobs, display, lambda: bool(ended_by), handle)
                    except ConfigError:
                        session.retract(jobs)
                        raise
            if left:
                self.command.jobs.clear()  # no table yet
                print_line(f"sent      {self.engine_name} job{'s' * (len(left) > 1)} {', '.join(left)}")
                print_line(f"continue  {line.continuing(folder, 'hydra.launcher.detach=false')}")
                return [_job_return(job) for job in jobs]
            if all(job.was_refused for job in jobs):
                session.retract(jobs)
            returns = [_job_return(job) for job in jobs]
            self._call("on_job_end", composed, returns)
        return returns

    def _place(
        self, session: run_plan.Session, jobs: list[Job], composed: Sequence[Composed | None]
    ) -> run_plan.Session:
        """Give every job its directory, which may be another's number where a sweep has grown, and plan the stacks."""
        from trainer.engine import runtime
        from trainer.engine.jobs import fill_rows

        names = [_name(parts, session.directory) if parts else "" for parts in composed]
        places = session.places([job.config for job in jobs], names)
        for job, place, parts in zip(jobs, places, composed, strict=True):
            if job.config is None or parts is None:
                continue  # it has no directory: nothing is written
            job.directory = session.directory / place
            job.number = int(place) if place.isdecimal() else job.number
            parts.number, parts.directory = job.number, str(job.directory)
        fill_rows(jobs)
        most = self.max_members or runtime.most_members([job.config for job in jobs if job.config is not None])
        session.plan(jobs, most, *self._shares())
        return session

    def _show(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[SweepDisplay]:
        """Return who is told of the progress of jobs."""
        from trainer.cli.display import SweepDisplay

        return (self.command.display or SweepDisplay)(jobs)

    def _shares(self) -> tuple[int | None, int | None]:
        """Return how many stacks train side by side, and the threads of each, where this machine does not say."""
        return None if self.workers is None else max(1, self.workers), None

    def _train(
        self,
        session: run_plan.Session,
        jobs: Sequence[Job],
        display: SweepDisplay,
        stop: Callable[[], bool],
        handle: int | None,
    ) -> list[str]:
        """Train all stacks; return the names of jobs that go on without this command."""
        from trainer.cli import sweep_table  # noqa: F401  SciPy, wanted at the end: workers are not ready yet
        from trainer.engine import pool, runtime

        workers = self.workers
        if workers is None:
            workers = runtime.workers([job.config for job in jobs if job.config is not None])
        pool.train_stacks(session.stacks, workers, display, stop, handle)
        return []

    def _call(self, hook: str, composed: Sequence[Composed | None], returns: Any = None) -> None:
        """Call Hydra's callbacks for every job, with HydraConfig set to that job."""
        if not self.config.hydra.callbacks:
            return
        before = HydraConfig.instance().cfg
        for i, parts in enumerate(composed):
            if parts is not None:
                whole = parts.whole()
                HydraConfig.instance().set_config(whole)
                extra = {"task_function": self.command} if returns is None else {"job_return": returns[i]}
                getattr(self.hydra_context.callbacks, hook)(config=whole, **extra)
        HydraConfig.instance().cfg = before


class EngineLauncher(StackLauncher):
    """Sends the stacks to an engine that runs them elsewhere, and watches them."""

    def __init__(
        self, engine: str, max_members: int, jobs: int | None, threads: int, detach: bool = False, **parameters: Any
    ) -> None:
        super().__init__(max_members)
        self.engine_name, self.jobs, self.threads, self.detach = engine, jobs, threads, detach
        self.parameters = parameters

    def _open(self, folder: Path, stack: contextlib.ExitStack) -> None:
        from trainer.engine import clusters

        self.engine = clusters.connect(str(self.engine_name), folder, self.jobs, self.detach, self.parameters)
        stack.callback(self.engine.close)

    def _shares(self) -> tuple[int | None, int | None]:
        return self.jobs or self.engine.jobs, self.threads

    def _train(
        self,
        session: run_plan.Session,
        jobs: Sequence[Job],
        display: SweepDisplay,
        stop: Callable[[], bool],
        handle: int | None,
    ) -> list[str]:
        from trainer.engine import remote

        environment = {str(key): str(value) for key, value in self.config.hydra.job.env_set.items()}
        side_by_side, _ = self._shares()
        assert side_by_side is not None
        return remote.train_stacks(
            session.stacks, self.engine, side_by_side, session.folder, display, stop, environment, self.detach
        )


class OtherLauncher(StackLauncher):
    """Hands what is left of a batch to a launcher of Hydra's or somebody else's, each run a job of its own."""

    def __init__(self, launcher: Launcher) -> None:
        super().__init__(max_members=1)
        self.launcher = launcher

    def _show(self, jobs: Sequence[Job]) -> contextlib.AbstractContextManager[Any]:
        """Nobody: a launcher does not say how far it is, and each run shows itself where it is trained."""
        return self.command.display(jobs) if self.command.display else contextlib.nullcontext()

    def _shares(self) -> tuple[int | None, int | None]:
        return 1, None

    def _train(
        self,
        session: run_plan.Session,
        jobs: Sequence[Job],
        display: SweepDisplay | None,
        stop: Callable[[], bool],
        handle: int | None,
    ) -> list[str]:
        from trainer.cli import other_launchers

        left = [item.jobs[0] for item in session.stacks]
        typed = [self.command.line.sources.with_pluses(job.overrides) for job in left]
        folders = [f"hydra.sweep.subdir={quoted(session.name(job))}" for job in left]
        lines = [[*texts, folder] for texts, folder in zip(typed, folders, strict=True)]
        try:
            if lines:
                other_launchers.train_each(self.launcher, self.hydra_context, self.config, session.stacks, lines)
        except KeyboardInterrupt:
            for job in (job for job in left if job.status == "waiting"):
                job.status, job.summary = "interrupted", {}  # its job may go on somewhere: nothing is written
            raise
        if display is not None:
            display.done(left)
        return []

    def _call(self, hook: str, composed: Sequence[Composed | None], returns: Any = None) -> None:
        """Nothing: the launcher's jobs call them."""


class QuietJobReturn(JobReturn):
    """A JobReturn that raises its job's error without printing a line: the sweep's table reports it."""

    @property
    def return_value(self) -> Any:
        """The job's objective. Raises what the job raised."""
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _job(number: int, folder: Path, overrides: list[str], attempt: Composed | ConfigError) -> Job:
    """Make a job of its checked configuration, or a failed one where it has none."""
    from trainer.engine.jobs import Job

    job = Job(number, folder, list(filter_overrides(overrides)))
    config = attempt.config if isinstance(attempt, Composed) else attempt
    if isinstance(config, ConfigError):
        job.fail(config)
    else:
        job.config = config
    return job


def _job_return(job: Job) -> JobReturn:
    out = QuietJobReturn(overrides=job.overrides, working_dir=str(job.directory), task_name="trainer")
    if job.error is not None:
        out.status, out.return_value = JobStatus.FAILED, job.error
    else:
        out.status, out.return_value = JobStatus.COMPLETED, job.objective
    return out


def _command(task_function: TaskFunction) -> Command:
    assert isinstance(task_function, Command), "these plugins serve this package's command line"
    return task_function


def _name(composed: Composed, folder: Path) -> str:
    """Return a job's directory relative to the sweep's. Raises ConfigError."""
    name = os.path.relpath(composed.directory, folder)
    try:
        files.inside(folder, name)
    except files.Damaged as error:
        raise ConfigError(
            [
                f"hydra.sweep.subdir: {composed.directory} does not lie below hydra.sweep.dir={folder}; a sweep has "
                "one directory: name its runs by their values in hydra.sweep.subdir"
            ]
        ) from error
    return name


def register() -> None:
    """Make the classes of conf/hydra/ known to Hydra, without a folder hydra_plugins of ours."""
    namespace = sys.modules.setdefault("hydra_plugins", types.ModuleType("hydra_plugins"))
    if not hasattr(namespace, "__path__"):
        namespace.__path__ = []
    sys.modules[MODULE] = sys.modules[__name__]
    namespace.trainer_launcher = sys.modules[__name__]  # type: ignore[attr-defined]
    for plugin in (StackLauncher, EngineLauncher, GridSweeper):
        plugin.__module__ = MODULE
        Plugins.instance().register(plugin)
