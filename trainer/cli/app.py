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
from trainer import files
from trainer.cli import hydra_plugins
from trainer.cli import overrides as diagnose
from trainer.cli.overrides import CONF
from trainer.config import Config, ConfigError
from trainer.engine import interrupts, lock

if TYPE_CHECKING:
    from trainer.engine.jobs import Job
    from trainer.engine.resume import run_plan


# Rounds that a thread of OpenMP (libgomp) waits for the others before it sleeps. With its own 300,000, two runs at once
# on one machine wait for each other ten times as long as they compute (`benchmark.py sweep --only s`).
SPINS = "1000"
_refused: list[Exception] = []  # why the run of this command line was refused


def run(arguments: list[str]) -> int:
    """Run a command line; the exit code: 0, 1 where a run of a sweep failed, 2 for a user's mistake, 128 + signal."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise, so that we say it in our words
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic=true wants on a GPU
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    sys.path.insert(0, os.getcwd())  # for model._target_ of the user's own, also from the console script
    hydra_plugins.register()
    hydra_plugins.finished.clear()
    overrides: list[str] = []
    code = 0
    try:
        if not {"--shell-completion", "-sc"} & set(arguments):
            flags, overrides = diagnose.split(arguments)
            flags, overrides = _resumed(flags, overrides)
            hydra_plugins.asked = hydra_plugins.Asked(_without_directory(overrides), "--dry-run" in flags)
            flags = [flag for flag in flags if flag != "--dry-run"]
            foreign = [text for text in overrides if text.startswith(("hydra/launcher=", "hydra/sweeper="))]
            foreign = [text for text in foreign if text not in ("hydra/launcher=stack", "hydra/sweeper=grid")]
            if hydra_plugins.asked.dry_run and foreign:  # they would run
                return report([f"--dry-run: nobody knows beforehand what {' '.join(foreign)} will do; leave one out"])
            if problems := diagnose.flag_problems(flags):
                return report(problems)
            arguments = [*overrides, *flags, *_protect(flags, overrides)]  # Hydra wants them apart
        sys.argv[1:] = arguments
        if {"--help", "-h"} & set(arguments):
            print(diagnose.help_text(CONF, overrides))
            return 0
        if hydra_plugins.asked.dry_run and not {"-m", "--multirun"} & set(arguments):
            return _dry_run(overrides)
        main()
        if _refused:
            return _report_error(_refused.pop(), overrides)
    except interrupts.Ended as ended:
        code = ended.exit_code
    except Exception as error:
        if not any(job.error is error for job in hydra_plugins.finished):  # else the sweep's table says it
            return _report_error(error, overrides)
    return _close_sweep(hydra_plugins.finished, code) if hydra_plugins.finished else code


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
            _remove_if_bare(directory)
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
        with interrupts.caught() as ended_by, lock.held(directory):
            return train_one(check(composed), directory, lambda: bool(ended_by), lambda: _write_hydra(composed))
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


def train_one(
    config: Config, directory: Path, stop: Callable[[], bool], prepare: Callable[[], None] = lambda: None
) -> float:
    """Train one run into a directory, or what of it is not done; its best monitored value.

    prepare: called where there is something to train, before. Raises what its training raised.
    """
    from trainer.cli import display as terminal
    from trainer.engine import pool  # torch comes with these: --help and --cfg start without it

    session, job = _session(config, directory)
    with terminal.Display() as display:
        for note in session.notes:
            print(f"note: {note}")
        if job.finished_earlier:
            assert job.summary is not None
            print(f"{directory}: done before; nothing is trained")
            display.summary(job.summary, directory)
            return job.objective
        session.commit()
        prepare()
        pool.train_stacks(session.stacks, 0, display, stop)
    if job.error is not None:
        raise job.error
    return job.objective


def _session(config: Config, directory: Path) -> tuple[run_plan.Session, Job]:
    """A single run and what is there of it. Raises ConfigError where that is something else."""
    from trainer.engine import jobs
    from trainer.engine.resume import run_plan

    session = run_plan.Session(directory, hydra_plugins.asked.overrides)
    session.places([config], ["."])
    job = jobs.Job(0, directory, config=config)
    session.plan([job], 1)
    return session, job


def _dry_run(overrides: list[str]) -> int:
    """Say what a single run would do."""
    directory = diagnose.run_directory(overrides)
    config = configure([text for text in overrides if not text.startswith("hydra")])
    session, job = _session(config, directory or Path("outputs"))
    session.say([job])
    return 0


def _resumed(flags: list[str], overrides: list[str]) -> tuple[list[str], list[str]]:
    """The flags and overrides that resume=DIR stands for: those of the command that began there, and what is added."""
    named = [text for text in overrides if text.startswith("resume=")]
    if not named:
        return flags, overrides
    directory = Path(named[-1].partition("=")[2])
    command, is_sweep = _command_of(directory)
    added = [text for text in overrides if text not in named]
    keys = {text.partition("=")[0] for text in added}
    kept = [text for text in command if text.partition("=")[0] not in keys]
    kind = "sweep" if is_sweep else "run"
    flags = [*flags, "-m"] if is_sweep and not {"-m", "--multirun"} & set(flags) else flags
    return flags, [*kept, *added, f"hydra.{kind}.dir={diagnose.quoted(str(directory))}"]


def _command_of(directory: Path) -> tuple[list[str], bool]:
    """(the overrides that began what a directory holds, whether they are a sweep's). Raises ConfigError."""
    from trainer.engine.resume import run_plan

    if not directory.is_dir():
        raise ConfigError([f"resume={directory}: no such directory; expected a run's or a sweep's"])
    try:
        plan = run_plan.read_plan(directory)
    except files.Damaged as damage:
        hint = "repeat the command itself with hydra.run.dir or hydra.sweep.dir, finished runs are recognised"
        raise ConfigError([f"resume={directory}: {damage}; {hint}"]) from damage
    if not plan["runs"]:
        above = directory.parent
        if directory.name in run_plan.read_plan(above)["runs"]:
            raise ConfigError([f"resume={directory}: is a run of a sweep; resume all of it, resume={above}"])
        raise ConfigError([f"resume={directory}: holds no run to resume; expected a run's or a sweep's directory"])
    return plan["command"], list(plan["runs"]) != ["."]


def _without_directory(overrides: list[str]) -> list[str]:
    return [text for text in overrides if not text.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]


def _protect(flags: list[str], overrides: list[str]) -> list[str]:
    """What keeps Hydra from writing over the .hydra of a run that is there; main does it where it has to."""
    kind = "sweep" if {"-m", "--multirun"} & set(flags) else "run"
    directory = diagnose.run_directory(overrides, kind)
    others = kind == "run" or any(text.startswith("hydra/launcher=") for text in overrides)
    taken = directory is not None and directory.is_dir() and any(directory.iterdir())
    return ["hydra.output_subdir=null"] if others and taken else []


def _write_hydra(composed: DictConfig) -> None:
    """The files that Hydra writes into .hydra, where it was kept from it."""
    whole = HydraConfig.get()
    if whole.output_subdir is not None:
        return
    folder = Path(whole.runtime.output_dir) / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    for name, node in (("config", composed), ("overrides", whole.overrides.task), ("hydra", {"hydra": whole})):
        files.write(folder / f"{name}.yaml", OmegaConf.to_yaml(node))


def _close_sweep(jobs: list[Job], code: int) -> int:
    """Print the table of a sweep and write sweep.csv and sweep.json; 1 where a run failed, 2 where all were refused."""
    from trainer.cli import sweep_table

    failed = [job for job in jobs if job.status == "failed"]
    if failed and len(failed) == len(jobs) and all(isinstance(job.error, ConfigError) for job in failed):
        problems = dict.fromkeys(line for job in failed for line in cast(ConfigError, job.error).problems)
        for job in failed:
            _remove_if_bare(job.directory)
        return report(list(problems))
    try:
        sweep_table.close(jobs)
    except OSError as error:
        return report([_os_problem(error, None)], left_in=sweep_table.common_folder(jobs))
    return code or (1 if failed else 0)


def _os_problem(error: OSError, directory: Path | None) -> str:
    if isinstance(error, BrokenPipeError):
        return "nobody reads the output any more; write it to a file, and repeat the command to go on"
    where = error.filename or directory
    said = f"{where}: {error.strerror or error}" if where else f"{error.strerror or error}"
    return f"{said}; make room or choose another folder with hydra.run.dir=DIR"


def _is_bare(directory: Path) -> bool:
    """Whether a directory holds nothing but what Hydra writes before a run begins."""
    bare = {".hydra", ".resume", "summary.json", "multirun.yaml"}  # no lock: it is nobody's
    return directory.is_dir() and {path.name for path in directory.iterdir()} <= bare


def _remove_if_bare(directory: Path) -> None:
    """Remove a run that was refused with its directory, and the folders of outputs/ that are empty without it."""
    if not _is_bare(directory):
        return
    here = Path.cwd()
    for path in list(directory.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    outputs = here / "outputs"
    with suppress(OSError):  # a link, or not empty
        if not here.is_relative_to(directory.resolve()):
            directory.rmdir()
        for folder in directory.absolute().parents:
            if outputs in (folder, *folder.parents):
                folder.rmdir()
