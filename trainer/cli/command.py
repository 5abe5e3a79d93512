"""A command under way: what Hydra calls with a composed configuration, and the runs that came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer import config as cfg
from trainer import stdio
from trainer.cli import compose
from trainer.cli.command_line import CommandLine
from trainer.config import Config
from trainer.engine import interrupts, lock
from trainer.engine.resume import foreign
from trainer.language import print_line
from trainer.text import shown

if TYPE_CHECKING:
    from trainer.cli.display import SweepDisplay
    from trainer.engine.jobs import Job
    from trainer.engine.resume import run_plan


class Command:
    """Hydra's task function: one run. Our launcher finds here what else was typed, and leaves a sweep's jobs."""

    def __init__(self, line: CommandLine, display: Callable[[Sequence[Job]], SweepDisplay] | None = None) -> None:
        """display: who shows the progress of jobs, instead of the terminal."""
        self.line, self.display = line, display
        self.jobs: list[Job] = []  # of a sweep that our launcher trained
        self.folder: Path | None = None  # of that sweep
        self.error: Exception | None = None  # why a single run has no result
        self.directory: Path | None = line.directory
        self.here = Path.cwd()  # a run may be in another: hydra.job.chdir
        self.found_there = self.directory is not None and self.directory.exists()
        self.began = False  # whether a single run was trained, or part of it
        self.kept: Path | None = None  # where runs lie that another sweeper and launcher had trained in this process

    def __call__(self, composed: DictConfig) -> float:
        """Train one run, or what is left of it, in the directory Hydra made; return its best monitored value.

        Errors are kept in `error`, since Hydra would print a line of its own first. In a job of a sweeper and launcher
        other than ours they are raised.
        """
        self.directory = Path(HydraConfig.get().runtime.output_dir)
        is_job = HydraConfig.get().mode is RunMode.MULTIRUN
        typed = list(HydraConfig.get().overrides.task) if is_job else self.line.repeatable
        try:
            objective = self._train(composed, self.directory, typed)
            self.kept = Path(HydraConfig.get().sweep.dir) if is_job else None
            return objective
        except Exception as error:
            if not self.found_there:
                remove_if_empty(self.directory)
            if is_job:
                raise
            self.error = error
            return float("nan")

    def _train(self, composed: DictConfig, directory: Path, typed: list[str]) -> float:
        """Train a run; return its best monitored value. Raises what training raised."""
        raw = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=False))
        config = cfg.from_dict(cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True)))
        self.line.check_code([config])
        foreign.refuse(directory)
        stdio.say_briefly("loading PyTorch")
        with interrupts.caught() as ended_by, lock.held(directory):
            from trainer.cli.display import Display  # torch comes with these: --help and --cfg start without it
            from trainer.engine import pool

            session, job = plan(config, directory, typed)
            stdio.say_briefly("reading the data, making the network")
            with self.display([job]) if self.display else Display(self.here) as display:
                for note in session.notes:
                    print_line(f"note: {note}")
                if job.finished_earlier:
                    session.publish()
                    print_line(f"{shown(directory, self.here)}: done before; nothing is trained")
                    display.done([job])
                    return job.objective
                session.commit()
                compose.write_hydra(job.destination.folder, raw, HydraConfig.get().overrides.task)
                pool.train_stacks(session.stacks, 0, display, lambda: bool(ended_by))
            if job.error is not None and not (directory / "metrics.csv").exists():
                session.retract([job])
            self.began = directory.exists() and any(path.name != lock.NAME for path in directory.iterdir())
        if job.error is not None:
            raise job.error
        return job.objective


def plan(config: Config, directory: Path, typed: list[str]) -> tuple[run_plan.Session, Job]:
    """Plan a single run, or what is left of it. Raises ConfigError where its directory holds another run."""
    from trainer.engine import jobs
    from trainer.engine.resume import run_plan

    session = run_plan.Session(directory, typed)
    session.places([config], ["."])
    job = jobs.Job(0, directory, config=config)
    session.plan([job], 1)
    return session, job


def remove_if_empty(directory: Path) -> None:
    """Remove the directory of a refused command, and the folders of outputs/ that are empty without it."""
    here = Path.cwd()
    outputs = here / "outputs"
    with suppress(OSError):  # not empty
        if not here.is_relative_to(directory.resolve()):
            directory.rmdir()
        for folder in directory.absolute().parents:
            if outputs in (folder, *folder.parents):
                folder.rmdir()
