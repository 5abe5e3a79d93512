"""The command line: configure, run, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_app, _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra

from trainer import config as cfg
from trainer.cli import choices, command_line, file_errors, help, hints, hydra_plugins, process
from trainer.cli.command import Command, plan, remove_if_empty
from trainer.cli.command_line import CommandLine
from trainer.cli.config_files import Sources, VisibleOptions
from trainer.config import Config, ConfigError
from trainer.engine import interrupts
from trainer.engine.resume.plan_file import path_of
from trainer.language import print_line, translated
from trainer.text import printable, version

WRITE_NOTHING = (
    "hydra.output_subdir=null"  # Hydra would write over the .hydra/ of another run; we write a run's at its start
)


class Request(Protocol):
    """What was asked of a command that trains sweeps of its own."""

    @property
    def line(self) -> CommandLine:
        """What to repeat."""
        ...


R = TypeVar("R", bound=Request)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit code: 0, 1 where a run of a sweep failed, 2 for a user's mistake, 128 + signal."""
    if "--version" in arguments:
        print(version())
        return 0
    prepare(process.wants_workers(arguments))
    try:
        line = command_line.read(arguments)
    except ConfigError as error:
        return say(error.problems)
    command = Command(line)
    code = execute(command)
    failed = report(command)
    if code:  # ended by a signal
        _say_how_to_continue(command)
    return failed or code


def attempt(
    read: Callable[[], R], run: Callable[[R, Command], int], stopped: Callable[[Command | None, int], int]
) -> int:
    """Run a command that trains sweeps of its own; the exit code.

    stopped: says how to go on, and returns the exit code, where a signal ended it.
    """
    command: Command | None = None
    try:
        request = read()
        command = Command(request.line)
        return run(request, command)
    except interrupts.Ended as ended:
        return stopped(command, ended.exit_code)
    except KeyboardInterrupt:
        return stopped(command, 130)
    except Exception as error:
        if command is not None:
            command.error = error
            return report(command)
        if isinstance(error, ConfigError):
            return say(error.problems)
        raise


def execute(command: Command) -> int:
    """Do what a command asks for; what ended it is kept in its `error`. Return 128 + the signal that ended it, or 0."""
    try:
        _run(command)
    except interrupts.Ended as ended:
        return ended.exit_code
    except Exception as error:
        if not any(job.error is error for job in command.jobs):  # else the sweep's table tells it
            command.error = error
    return 0


def _say_how_to_continue(command: Command) -> None:
    """Print the command that goes on with what a signal has ended, if anything of it is kept."""
    directory = command.folder or command.directory
    if directory is not None and path_of(directory).exists():
        print_line(f"continue  {command.line.continuing(directory)}")


def configure(overrides: Sequence[str]) -> Config:
    """Compose and check a configuration, for scripts and notebooks. Raises what a bad override raises."""
    return cfg.from_dict(Sources().compose(overrides))


def say(problems: Sequence[str], left_in: Path | None = None) -> int:
    """Print every problem to stderr; exit code 2. left_in: the directory of a run that had begun."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    said = f"the run stopped; what it had recorded is in {left_in}" if left_in else "nothing was run"
    lines = [f"trainer: {count}; {said} (python -m trainer --help lists every key)", *problems]
    print("\n  ".join(printable(translated(line)) for line in lines), file=sys.stderr)
    return 2


def prepare(workers: bool) -> None:
    """Make ready for a command. workers: whether it will train sweeps here."""
    process.prepare(workers)
    hydra_plugins.register()


def _run(command: Command) -> None:
    """Do what a command line asks for."""
    line = command.line
    if line.flags.help:
        print(help.text(line.sources, line.overrides))
    elif line.flags.shell_completion:
        loader = line.sources.loader(VisibleOptions)
        assert isinstance(loader, VisibleOptions)
        loader.hidden = loader.hidden | (set(loader.list_groups("")) - set(line.sources.groups) - {"hydra"})
        Hydra("trainer", loader).shell_completion(line.sources.name, line.overrides)
    elif line.dry_run and not line.is_sweep:
        line.say_what_was_found()
        _say_what_would_run(line)
    else:
        sources = line.sources
        if not (line.flags.cfg or line.flags.info):
            line.say_what_was_found()
        texts = line.overrides
        texts = choices.deferred(sources, texts) if line.is_sweep else sources.with_pluses(texts)
        _call(command, [WRITE_NOTHING, *texts])


def _call(command: Command, overrides: list[str]) -> None:
    """Let Hydra compose a command's configuration and call the command with it, or print what --cfg and --info ask."""
    flags, sources = command.line.flags, command.line.sources
    loader = sources.loader()  # sets the version of Hydra's rules
    GlobalHydra.instance().clear()
    prints = flags.cfg or flags.info or flags.hydra_help
    if prints or sources != Sources() or any("hydra.mode" in text for text in overrides):
        flags.overrides = overrides
        _run_hydra(flags, get_args_parser(), command, str(sources.conf), sources.name)
        return
    try:  # as _run_hydra, which composes everything once more to look for a hydra.mode
        GlobalHydra.instance().initialize(hydra := Hydra("trainer", loader))
        run_as = {"run": not flags.multirun, "multirun": flags.multirun, "mode": None}
        _run_app(**run_as, hydra=hydra, config_name=sources.name, task_function=command, overrides=overrides)
    finally:
        GlobalHydra.instance().clear()


def _say_what_would_run(line: CommandLine) -> None:
    config = cfg.from_dict(line.sources.compose(text for text in line.overrides if not text.startswith("hydra")))
    line.check_code([config])
    session, job = plan(config, line.directory or Path("outputs"), line.repeatable)
    session.say([job])


def report(command: Command) -> int:
    """Report what came of a command; return the exit code. Raises an error that is a bug of ours."""
    found, left_in = problems(command)
    if found:
        return say(found, left_in)
    return _close_sweep(command) if command.jobs else 0


def problems(command: Command) -> tuple[list[str], Path | None]:
    """Return why a command has no result, one line per problem, and the directory of a run that had begun.

    Nothing where it has one. Raises an error that is a bug of ours.
    """
    if command.error is not None:
        began = command.began and command.directory and command.directory.exists()
        return _problems(command.error, command), command.directory if began else command.kept
    refused = [job.error for job in command.jobs if job.was_refused and isinstance(job.error, ConfigError)]
    if not refused or len(refused) < len(command.jobs):
        return [], None
    if command.folder is not None and not command.found_there:
        remove_if_empty(command.folder)
    return list(dict.fromkeys(line for error in refused for line in error.problems)), None


def _problems(error: Exception, command: Command) -> list[str]:
    """List what the user can do about an error, one line per problem. Raises it where it is a bug of ours."""
    line = command.line
    if isinstance(error, ConfigError):
        if command.folder is not None and not command.found_there:
            remove_if_empty(command.folder)
        return _located(error.problems, line)
    if hints.is_of_composing(error):
        return hints.problems(line.sources, line.overrides, error, line.is_sweep)
    if isinstance(error, OSError):
        if files := file_errors.survey(line.sources, line.overrides).problems:
            return files
        if command.directory is not None and not command.found_there:
            remove_if_empty(command.directory)
        return [_os_problem(error, command.directory)]
    raise error


def _located(problems: Sequence[str], line: CommandLine) -> list[str]:
    """List what is wrong inside configuration files; else these problems, each with the file and line at fault."""
    files = file_errors.survey(line.sources, line.overrides)
    return files.problems or file_errors.located(problems, files, line.overrides)


def _os_problem(error: OSError, directory: Path | None) -> str:
    where = error.filename or directory
    said = f"{where}: {error.strerror or error}" if where else f"{error.strerror or error}"
    return f"{said}; make room or choose another folder with hydra.run.dir=DIR"


def _close_sweep(command: Command) -> int:
    """Print the table of a sweep and write sweep.csv and sweep.json; 1 where a run failed, 2 where the disk is full."""
    from trainer.cli import sweep_table

    assert command.folder is not None
    try:
        sweep_table.close(command.jobs, command.folder)
    except OSError as error:
        return say([_os_problem(error, None)], left_in=command.folder)
    return int(any(job.status == "failed" for job in command.jobs))
