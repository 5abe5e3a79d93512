"""Hydra's other launchers (basic, joblib, submitit, ray): one run a job. What is planned, done or lost stays ours."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from trainer.config import ConfigError
from trainer.engine import interrupts, lock
from trainer.engine.jobs import Job, StackJob


@dataclass
class OneRun:
    """Hydra's task function in a job of another launcher, which may run on another machine."""

    stacks: dict[str, StackJob]  # of one run each, by the run's directory
    here: Path  # the folder that the command was typed in

    def __call__(self, composed: DictConfig) -> float:
        """Train the run of Hydra's directory, or what is left of it; return its best monitored value.

        Raises what training raised; ConfigError where another process trains it.
        """
        from trainer.cli.display import Display
        from trainer.engine import pool, task

        item = self.stacks[HydraConfig.get().runtime.output_dir]
        (job,) = item.jobs
        with interrupts.caught() as ended_by, lock.held(job.destination.folder), Display(self.here) as display:
            task.take_finished(item)  # a job may run again
            if item.waiting:
                pool.train_stacks([item], 0, display, lambda: bool(ended_by))
        if job.error is not None:
            raise job.error
        return job.objective


def train_each(
    launcher: Launcher,
    context: HydraContext,
    config: DictConfig,
    stacks: Sequence[StackJob],
    lines: Sequence[Sequence[str]],
) -> None:
    """Let a launcher train stacks of one run each, and take in what came of them.

    lines: the overrides of each. Raises Ended where a signal ends it.
    """
    from trainer.engine import task

    sent = {os.path.abspath(item.jobs[0].directory): item.absolute() for item in stacks}
    launcher.setup(hydra_context=context, task_function=OneRun(sent, Path.cwd()), config=config)
    jobs, results, problem = [item.jobs[0] for item in stacks], list[JobReturn](), Exception("its job ended early")
    try:
        with interrupts.handled(interrupts.ALWAYS, _end):
            results += launcher.launch(lines, initial_job_idx=0)
    except Exception as error:  # one of its processes was killed, or it takes no jobs
        problem = error
    finally:
        for item in stacks:
            task.take_finished(item)
    for job, result in itertools.zip_longest(jobs, results):
        if job.status == "waiting":
            _fail(job, result._return_value if result and result.status is JobStatus.FAILED else problem)


def _fail(job: Job, error: Exception) -> None:
    """Take in why a job has no result; what is in use by another process stays as it is."""
    from trainer.engine import task

    job.status, job.error, job.summary = "failed", error, task.sealed(job.destination.folder / "summary.json")
    if job.summary.get("status") != "failed" and not isinstance(error, ConfigError):
        job.fail(error)


def _end(number: int, frame: object) -> None:
    """Raise Ended at the first signal: a launcher that waits for its jobs would not ask."""
    raise interrupts.Ended(number)
