"""The command line: compose a configuration with Hydra, check it, train, say what happened."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import config as cfg
from trainer import diagnose, launcher, signals
from trainer.config import Config, ConfigError

if TYPE_CHECKING:
    from trainer.stack import Job


def run(arguments: list[str]) -> int:
    """Run a command line; the exit code: 0, 1 where a run of a sweep failed, 2 for a user's mistake, 128 + signal."""
    sys.argv[1:] = arguments  # what hydra.main reads
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise, so that we say it in our words
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic=true wants on a GPU
    sys.path.insert(0, os.getcwd())  # for model._target_ of the user's own, also from the console script
    if {"--help", "-h"} & set(arguments):
        print(diagnose.help_text(arguments))
        return 0
    launcher.register()
    code = 0
    try:
        main()
    except signals.Ended as ended:
        code = ended.exit_code
    except Exception as error:
        if not launcher.finished:  # else it is that of a sweep's job, and the table says so
            problems = _problems(error, arguments)
            if problems is None:
                raise
            return report(problems)
    return _close_sweep(launcher.finished, code) if launcher.finished else code


def _problems(error: Exception, arguments: list[str]) -> list[str] | None:
    """What the user can do something about; None for an error that is ours."""
    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, HydraException | OmegaConfBaseException):
        return diagnose.problems(arguments, error)
    if isinstance(error, OSError):
        return [_os_problem(error)]
    return None


def report(problems: list[str]) -> int:
    """Print every problem to stderr; exit code 2."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"trainer: {count}; nothing was run (python -m trainer --help lists every key)", *problems]
    print("\n  ".join(lines), file=sys.stderr)
    return 2


@hydra.main(version_base="1.3", config_path=str(diagnose.CONF), config_name="config")
def main(composed: DictConfig) -> float:
    """Train one run in the directory Hydra made; its best monitored value, for sweepers that optimise."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        with signals.caught() as ended_by:
            return train_one(check(composed), directory, lambda: bool(ended_by))
    except (ConfigError, OSError):
        _remove_if_bare(directory)
        raise


def check(composed: DictConfig) -> Config:
    """The checked configuration. Raises ConfigError with every problem."""
    return cfg.from_dict(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]


def train_one(config: Config, directory: Path, stop: Callable[[], bool]) -> float:
    """Train one run into a directory; its best monitored value. Raises what its training raised."""
    if (directory / "metrics.csv").exists():
        raise ConfigError([f"{directory}: already holds a run; choose another directory, hydra.run.dir=DIR"])
    from trainer import stack, terminal  # torch comes with these: --help and --cfg start without it

    job = stack.Job(0, directory, config=config)
    with terminal.Display() as display:
        stack.train_jobs([job], 1, display, stop)
    if job.error is not None:
        raise job.error
    return job.objective


def _close_sweep(jobs: list[Job], code: int) -> int:
    """Print the table of a sweep and write sweep.csv and sweep.json; 1 where a run failed, 2 where all were refused."""
    from trainer import sweep

    failed = [job for job in jobs if job.status == "failed"]
    if failed and len(failed) == len(jobs) and all(isinstance(job.error, ConfigError) for job in failed):
        problems = dict.fromkeys(line for job in failed for line in cast(ConfigError, job.error).problems)
        for job in failed:
            _remove_if_bare(job.directory)
        return report(list(problems))
    sweep.close(jobs)
    return code or (1 if failed else 0)


def _os_problem(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; make room or choose another folder with hydra.run.dir=DIR"


def _remove_if_bare(directory: Path) -> None:
    """Remove a run directory that holds nothing but what Hydra wrote before the run was refused."""
    if directory.is_dir() and {path.name for path in directory.iterdir()} <= {".hydra", "summary.json"}:
        shutil.rmtree(directory)
