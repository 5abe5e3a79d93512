"""The command line: compose a configuration with Hydra, check it, train, say what happened."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer import config as cfg
from trainer import diagnose, launcher, signals
from trainer.config import Config, ConfigError
from trainer.diagnose import CONF

if TYPE_CHECKING:
    from trainer.stack import Job


_refused: list[Exception] = []  # why the run of this command line was refused


def run(arguments: list[str]) -> int:
    """Run a command line; the exit code: 0, 1 where a run of a sweep failed, 2 for a user's mistake, 128 + signal."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise, so that we say it in our words
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic=true wants on a GPU
    sys.path.insert(0, os.getcwd())  # for model._target_ of the user's own, also from the console script
    launcher.register()
    launcher.finished.clear()
    overrides: list[str] = []
    if not {"--shell-completion", "-sc"} & set(arguments):
        flags, overrides = diagnose.split(arguments)
        if problems := diagnose.flag_problems(flags):
            return report(problems)
        arguments = [*overrides, *flags]  # Hydra wants them apart
    sys.argv[1:] = arguments
    code = 0
    try:
        if {"--help", "-h"} & set(arguments):
            print(diagnose.help_text(CONF, overrides))
            return 0
        if not {"--cfg", "-c", "--info", "-i"} & set(arguments):
            _refuse_taken(diagnose.run_directory(arguments))
        main()
        if _refused:
            return _report_error(_refused.pop(), overrides)
    except signals.Ended as ended:
        code = ended.exit_code
    except Exception as error:
        if not any(job.error is error for job in launcher.finished):  # else the sweep's table says it
            return _report_error(error, overrides)
    return _close_sweep(launcher.finished, code) if launcher.finished else code


def _report_error(error: Exception, overrides: list[str]) -> int:
    """Say what the user can do about an error; raises it where it is ours."""
    if isinstance(error, ConfigError):
        problems = error.problems
    elif diagnose.is_hydras(error):
        problems = diagnose.problems(CONF, overrides, error)
    elif isinstance(error, OSError):
        directory = getattr(error, "left_in", None) or diagnose.run_directory(overrides)
        problems = [_os_problem(error, directory)]
        if directory is not None:
            _remove_if_bare(directory.absolute())
    else:
        raise error
    return report(problems, left_in=getattr(error, "left_in", None))


def report(problems: list[str], left_in: Path | None = None) -> int:
    """Print every problem to stderr; exit code 2. left_in: the directory of a run that had begun."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    said = f"the run stopped; what it had recorded is in {left_in}" if left_in else "nothing was run"
    lines = [f"trainer: {count}; {said} (python -m trainer --help lists every key)", *problems]
    print("\n  ".join(lines), file=sys.stderr)
    return 2


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(composed: DictConfig) -> float:
    """Train one run in the directory Hydra made; its best monitored value, for sweepers that optimise."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    fresh = _is_bare(directory)
    try:
        with signals.caught() as ended_by:
            return train_one(check(composed), directory, lambda: bool(ended_by))
    except (ConfigError, OSError) as error:
        _remove_if_bare(directory)
        if HydraConfig.get().mode is RunMode.MULTIRUN:  # a job of another launcher than ours, which wants to know
            raise
        error.left_in = directory if fresh and directory.exists() else None  # type: ignore[union-attr]
        _refused.append(error)  # not raised: Hydra would say a line of its own first
        return float("nan")


def configure(overrides: Sequence[str]) -> Config:
    """The checked configuration of a command line, for scripts and notebooks. Raises what a bad override raises."""
    return cfg.from_dict(diagnose.compose_config(CONF, overrides))


def check(composed: DictConfig) -> Config:
    """The checked configuration. Raises ConfigError with every problem."""
    return cfg.from_dict(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]


def train_one(config: Config, directory: Path, stop: Callable[[], bool]) -> float:
    """Train one run into a directory; its best monitored value. Raises what its training raised."""
    _refuse_taken(directory)
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


def _refuse_taken(directory: Path | None) -> None:
    """Raises ConfigError where a directory holds a run. Asked before Hydra too, which would write over its .hydra."""
    if directory is not None and (directory / "metrics.csv").exists():
        raise ConfigError([f"{directory}: already holds a run; choose another directory, hydra.run.dir=DIR"])


def _os_problem(error: OSError, directory: Path | None) -> str:
    where = error.filename or directory
    said = f"{where}: {error.strerror or error}" if where else f"{error.strerror or error}"
    return f"{said}; make room or choose another folder with hydra.run.dir=DIR"


def _is_bare(directory: Path) -> bool:
    """Whether a directory holds nothing but what Hydra writes before a run begins."""
    return directory.is_dir() and {path.name for path in directory.iterdir()} <= {".hydra", "summary.json"}


def _remove_if_bare(directory: Path) -> None:
    """Remove the directory of a run that was refused, and the folders of outputs/ that are empty without it."""
    if not _is_bare(directory):
        return
    shutil.rmtree(directory)
    outputs = Path.cwd() / "outputs"
    with suppress(OSError):  # not empty
        for folder in directory.parents:
            if outputs in (folder, *folder.parents):
                folder.rmdir()
