"""Runs and stacks as work items: what is asked for, and what came of it. Stacks share nothing but files."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from trainer import files
from trainer.config import Config, ConfigError
from trainer.engine.resume.checkpoint import Checkpoints
from trainer.record import hparams, provenance
from trainer.record.destination import Destination, event_file_name
from trainer.text import key_of

KEPT = ("status", "stopped_by", "error", "epochs", "steps", "metrics", "recovered")
Status = Literal["waiting", "completed", "interrupted", "failed"]


@dataclass(eq=False)
class Job:
    """One run asked for, and what came of it."""

    number: int
    directory: Path
    overrides: list[str] = field(default_factory=list)
    config: Config | None = None
    status: Status = "waiting"
    error: Exception | None = None
    summary: dict[str, Any] | None = None  # what is `kept` of it
    objective: float = float("nan")  # best monitored value, lower is better
    finished_earlier: bool = False  # completed by an earlier command
    events: str = field(default_factory=event_file_name)  # name of its event file
    staging: Path | None = None  # where an extension is written, until it can replace the result
    row: hparams.Row | None = None  # in TensorBoard's table, of a run of a sweep

    @property
    def destination(self) -> Destination:
        return Destination(self.directory, self.events, self.staging, self.row)

    def finish(self, summary: dict[str, Any]) -> None:
        """Take what its training came to."""
        assert self.config is not None
        self.status, self.summary = summary["status"], kept(summary)
        self.objective = objective(self.config, summary)

    def recorded(self) -> dict[str, Any]:
        """Read the whole summary from the run's folder. Raises OSError, Damaged."""
        own = self.destination.folder / "summary.json"  # of an extension until it is in its place
        found = files.read_sealed(own if own.exists() else self.directory / "summary.json")
        rows = [key for key in ("best", "final", "test", "recovered") if key in found]
        return found | {key: _with_numbers(found[key]) for key in rows}

    def fail(self, error: Exception, epochs: int = 0, steps: int = 0) -> None:
        """Record why there is no result, after so many epochs and steps."""
        self.error = error
        self._end("failed", "error", describe(error), epochs, steps)

    @property
    def was_refused(self) -> bool:
        """Whether its configuration, or the code that it names, cannot be trained: there is no epoch of it."""
        return isinstance(self.error, ConfigError) and not (self.summary or {}).get("epochs")

    def interrupt(self) -> None:
        """Record that its training never began."""
        self._end("interrupted", "interrupt", None)

    def _end(self, status: Status, reason: str, error: str | None, epochs: int = 0, steps: int = 0) -> None:
        """Write a summary without numbers, if the run has a directory."""
        self.status = status
        self.summary = {"status": status, "stopped_by": reason, "error": error, "epochs": epochs, "steps": steps}
        folder = self.destination.folder
        if (folder / ".hydra").is_dir():
            with contextlib.suppress(OSError):  # it may be what failed
                files.write_sealed(folder / "summary.json", self.summary)


@dataclass
class StackJob:
    """The jobs that train together as one stack; those among them that are done keep their places."""

    jobs: list[Job]
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    side_by_side: int = 1  # stacks that share the memory of its machine
    threads: int | None = None  # of PyTorch's, where its runs do not say; None: its own choice
    deaths: int = 0  # of processes that trained it

    def halves(self) -> list[StackJob]:
        middle = len(self.jobs) // 2
        members = (self.jobs[:middle], self.jobs[middle:])
        halves = zip(members, self.checkpoints.halves(), strict=True)
        return [replace(self, jobs=jobs, checkpoints=checkpoints, deaths=0) for jobs, checkpoints in halves]

    def absolute(self) -> StackJob:
        """Return it as it can be trained from any folder."""
        jobs = [
            replace(job, directory=job.directory.absolute(), staging=job.staging and job.staging.absolute())
            for job in self.jobs
        ]
        folder = self.checkpoints.folder
        return replace(self, jobs=jobs, checkpoints=replace(self.checkpoints, folder=folder and folder.absolute()))

    @property
    def configs(self) -> list[Config]:
        return [job.config for job in self.jobs if job.config is not None]

    @property
    def runs_user_code(self) -> bool:
        """Whether code of the user's own takes part."""
        return any(config.targets() for config in self.configs)

    @property
    def waiting(self) -> list[Job]:
        """The jobs that are not done."""
        return [job for job in self.jobs if job.status == "waiting"]

    @property
    def hashes(self) -> list[str]:
        """What each job's results follow from, for recognising a stack."""
        return [provenance.config_hash(config) for config in self.configs]


def swept(jobs: Sequence[Job]) -> list[str]:
    """Return the override keys that take more than one value over the jobs."""
    seen: dict[str, set[str]] = {}
    for job in jobs:
        for override in job.overrides:
            seen.setdefault(key_of(override), set()).add(override.partition("=")[2])
    return [key for key, values in seen.items() if len(values) > 1]


def values(job: Job) -> dict[str, str]:
    """Return what a job was given: key -> value, as typed."""
    return {key_of(override): override.partition("=")[2] for override in job.overrides if "=" in override}


def name(job: Job, keys: Sequence[str]) -> str:
    """Name a run by these of its overrides: 'sgd lr=0.1'; without any, by its optimizer."""
    typed = values(job)
    parts = [typed[k] if k == "optimizer" else f"{k.split('.')[-1]}={typed[k]}" for k in keys if k in typed]
    assert job.config is not None
    return " ".join(parts) or job.config.optimizer.name


def fill_rows(jobs: Sequence[Job]) -> None:
    """Give the jobs of a sweep their rows in TensorBoard's table, named by what was swept and, to be told apart, place.

    Several sweeps may lie below one --logdir; rows of one name would become one.
    """
    ready = [(job, job.config) for job in jobs if job.config is not None]
    keys = swept(jobs)
    names = [f"{name(job, keys)} ({'/'.join(job.directory.absolute().parts[-3:])})" for job, _ in ready]
    for (job, _), row in zip(ready, hparams.rows([config for _, config in ready], names), strict=True):
        job.row = row


def objective(config: Config, summary: dict[str, Any]) -> float:
    """Return the best monitored value of a run, lower is better; NaN without a validation split."""
    loss = config.early_stopping.loss({key: float(value) for key, value in summary["best"].items()})
    return math.nan if loss is None else loss if math.isfinite(loss) else math.inf


def _with_numbers(value: Any) -> Any:
    """Undo what makes a value fit JSON, where numbers that are not finite are texts."""
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    return float(value) if value in ("nan", "inf", "-inf") else value


def kept(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a summary what runs are compared by, a twentieth of it: a command may hold those of 10,000."""

    def part(key: str, *starts: str) -> dict[str, Any]:
        found = (summary.get(key) or {}).items()
        return {sys.intern(name): value for name, value in found if name.startswith(starts)}

    best = (summary.get("test") or {}).get("best") or {}
    return {
        **{key: summary[key] for key in KEPT if key in summary},
        "best": part("best", "val/", "eval/"),
        "final": part("final", "val/", "eval/"),
        "start": part("start", "loss", "guessing_loss"),
        "test": {"best": {sys.intern(name): value for name, value in best.items() if isinstance(value, float)}},
        "verdict": part("verdict", "verdict", "best_epoch"),
        "health": [{"finding": sys.intern(found["finding"])} for found in summary.get("health") or []],
        "config": part("config", "model.function"),
    }


def describe(error: BaseException) -> str:
    """Return an error in one line: a user's mistake as it is, anything else with its type."""
    if isinstance(error, ConfigError):
        return "; ".join(error.problems)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 -> '0-2, 5'."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
