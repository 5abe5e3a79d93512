"""A command line: what was typed as flags and overrides; resume=DIR becomes the command it stands for."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from hydra._internal.utils import get_args_parser

from trainer import files
from trainer.cli import launchers, trust
from trainer.cli.config_files import CONF, FOLLOWING, GROUPS, OWN_CONF, SINGLE_KEYS, Found, Sources, find_own, parse
from trainer.cli.trust import ENGINES, OUR_PLUGINS
from trainer.config import Config, ConfigError, homes, nearest
from trainer.engine.resume.plan_file import read_plan
from trainer.language import print_line
from trainer.text import key_of, shown

SWITCHES = {  # flags without a value
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--dry-run")
}
COMMANDS = ("--run", "--multirun", "--cfg", "--info", "--shell-completion")  # what Hydra can be asked to do


COMPARISON = "versus.json"  # in a directory whose sweeps are those of one comparison


@dataclass(frozen=True)
class CommandLine:
    """What was typed."""

    flags: argparse.Namespace  # as Hydra's own parser reads them
    overrides: list[str]
    dry_run: bool = False
    resumed: Path | None = None  # resume=DIR
    typed: tuple[str, ...] = ()  # the overrides beside it
    found: Found | None = None  # the user's own conf/, where no flag says where files lie

    @property
    def is_sweep(self) -> bool:
        """Whether it asks for several runs."""
        return self.flags.multirun

    def check_code(self, configs: Iterable[Config]) -> None:
        """See that resume=DIR calls only what may be called from there, unless it was typed. Raises ConfigError."""
        if self.resumed is not None:
            trust.check_code(self.resumed, configs, self.typed)

    def say_what_was_found(self, file: TextIO | None = None) -> None:
        """Print a line about the user's own conf/, if there is one."""
        if self.found is not None:
            print_line(self.found.said, file)

    @property
    def foreign_plugins(self) -> list[str]:
        """The overrides that hand the sweep to another launcher or sweeper than ours."""
        chosen = [text for text in self.overrides if text.startswith(("hydra/launcher=", "hydra/sweeper="))]
        return [text for text in chosen if text not in OUR_PLUGINS]

    @functools.cached_property
    def sources(self) -> Sources:
        """Where configuration files are looked for."""
        folder = self.flags.config_dir
        others = [] if folder is None else [f"file://{Path(folder).absolute()}"]
        for text in self.overrides:
            if text.startswith("hydra.searchpath=") and (override := parse(text)) is not None:
                value = override.value()
                others += map(str, value) if isinstance(value, list) else []
        conf = Path(self.flags.config_path) if self.flags.config_path else CONF
        return Sources(conf.absolute(), self.flags.config_name or "config", tuple(others), self.found is not None)

    @property
    def repeatable(self) -> list[str]:
        """What resume=DIR repeats: the overrides without the directory, and where configuration files lie."""
        needed = self.found is None or self.flags.config_name or self.found.is_chosen(self.overrides)
        named = {"--config-dir": needed and self.flags.config_dir, "--config-path": self.flags.config_path}
        flags = [f"{flag}={Path(value).absolute()}" for flag, value in named.items() if value]
        flags += [f"--config-name={self.flags.config_name}"] if self.flags.config_name else []
        overrides = [text for text in self.overrides if not text.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
        return [*flags, *overrides]

    def continuing(self, directory: Path, *added: str) -> str:
        """Return the command that goes on in a directory, with all that it does not take from there."""
        again = [*trust.to_be_typed_again(directory, *split(self.repeatable)), *added]
        return f"python -m trainer resume={shown(directory)} {shlex.join(again)}".rstrip()

    @property
    def directory(self) -> Path | None:
        """The directory of its run or sweep, if it is named without interpolations."""
        key = f"hydra.{'sweep' if self.is_sweep else 'run'}.dir="
        texts = [text for text in self.overrides if text.startswith(key)]
        if not texts or "$" in texts[-1] or (override := parse(texts[-1])) is None:
            return None
        return Path(str(override.value()))


def read(arguments: Sequence[str]) -> CommandLine:
    """Read a command line; resume=DIR is replaced by the command it stands for. Raises ConfigError."""
    arguments = list(itertools.takewhile(lambda word: word != "#", arguments))  # zsh hands over a comment
    if arguments[:1] == ["resume"]:  # as a subcommand: `trainer resume DIR`
        arguments = [f"resume={''.join(arguments[1:2])}", *arguments[2:]]
    flags, overrides = split(arguments)
    named = [text for text in overrides if text.startswith("resume=")]
    typed = [text for text in overrides if text not in named]
    directory = Path(named[-1].partition("=")[2]) if named else None
    if "resume=" in named:
        raise ConfigError(["resume: expected the directory of a run or a sweep, resume=DIR"])
    if directory is not None:
        flags, overrides = _resumed(directory, flags, typed)
    dry_run = "--dry-run" in flags
    parsed = _parse_flags([flag for flag in flags if flag != "--dry-run"])
    is_resumed = directory is not None and OWN_CONF.resolve().is_relative_to(directory.resolve())  # as its plan says
    found = None if parsed.config_dir or parsed.config_path or is_resumed else find_own(parsed.config_name)
    if found is not None and found.is_read:
        parsed.config_dir = str(OWN_CONF)
    line = CommandLine(parsed, overrides, dry_run, directory, tuple(typed), found)
    problems = [_following(text) for text in overrides if (o := parse(text)) and o.key_or_group in FOLLOWING]
    if dry_run and line.foreign_plugins:  # they would run
        problems.append(f"--dry-run: cannot foresee what {' '.join(line.foreign_plugins)} would do; leave one out")
    named = [text for text in overrides if text.removeprefix("hydra/launcher=") in ENGINES]
    if named and not (line.is_sweep or parsed.cfg or parsed.info or parsed.help):
        problems.append(f"{named[0]}: sends the runs of a sweep; type -m too, or leave it out")
    problems += launchers.problems(overrides)
    if problems:
        raise ConfigError(problems)
    return line


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into (flags with their values, overrides), in whatever order they were typed.

    An override holds '=' or begins with '~'; a word without either, right after a flag, is that flag's value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    after_flag = False
    for argument in arguments:
        is_flag = argument.startswith("-")
        is_value = after_flag and "=" not in argument and not argument.startswith("~")
        (flags if is_flag or is_value else overrides).append(argument)
        after_flag = is_flag and "=" not in argument and argument not in SWITCHES
    return flags, overrides


class Options(argparse.ArgumentParser):
    """Options of a command beside the keys: what is wrong with them is refused as every other mistake is."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError([message])


FILE_FLAGS = ("--config-dir", "--config-path", "--config-name")  # of python -m trainer, which other commands take too


def unknown_flags(flags: Iterable[str], own: Sequence[str]) -> list[str]:
    """List what is wrong with flags that are neither a command's own nor FILE_FLAGS."""
    wrong = [flag for flag in flags if flag.startswith("-") and not flag.startswith(FILE_FLAGS)]
    return [f"{flag}: no such flag; {nearest(flag, [*own, '--help', *FILE_FLAGS])}" for flag in wrong]


def quoted(value: str) -> str:
    """Quote a value so that Hydra reads it back, whatever letters, quotes and commas it holds; but not ${...}."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"


def _parse_flags(flags: Sequence[str]) -> argparse.Namespace:
    """Read Hydra's flags. Raises ConfigError with everything that is wrong with them."""
    parser, said = get_args_parser(), io.StringIO()
    known = ["--dry-run", *re.findall(r"(?<![\w-])--[a-z-]+", parser.format_usage())]
    problems, flags = _keys_as_flags(flags, known)
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = parser.parse_known_args(flags)
    except SystemExit as end:
        raise ConfigError([*problems, said.getvalue().strip().rpartition("error: ")[2]]) from end
    wrong = [flag for flag in unknown if flag.startswith("-")]  # the others are their values
    problems += [f"{flag}: no such flag; {nearest(flag, known)}" for flag in wrong or unknown]
    asked = [flag for flag in COMMANDS if getattr(parsed, flag.strip("-").replace("-", "_"))]
    if len(asked) > 1:
        problems.append(f"{' '.join(asked)}: only one of these at a time; resume=DIR of a sweep implies --multirun")
    if parsed.resolve and not (parsed.cfg or parsed.help):
        problems.append("--resolve: says how --cfg prints; type --cfg job --resolve")
    if parsed.experimental_rerun is not None:
        problems.append("--experimental-rerun: nothing is unpickled here; repeat the command, or type resume=DIR")
    if parsed.config_dir is not None and not Path(parsed.config_dir).is_dir():
        problems.append(f"--config-dir: {parsed.config_dir}: no such directory")
    if problems:
        raise ConfigError(problems)
    return parsed


def _keys_as_flags(flags: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (what is wrong with flags that are keys, or have one dash for two; the flags without them)."""
    problems, kept = list[str](), list[str]()
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        name, is_given, value = flag.partition("=")
        key = name.lstrip("-").replace("-", "_")
        first, _, last = key.rpartition(".")
        places = [key] if key in {*GROUPS, *SINGLE_KEYS, "resume"} or first in {*GROUPS, *SINGLE_KEYS} else homes(last)
        if name.startswith("--") and name not in known and places:
            after = rest.pop(0) if rest and not is_given and not rest[0].startswith("-") else ""
            typed = " or ".join(f"{place}={value or after or 'VALUE'}" for place in places)
            problems.append(f"{flag}{' ' if after else ''}{after}: keys are typed without dashes, {typed}")
        elif re.fullmatch(r"-[a-z][a-z-]{2,}", name):
            problems.append(f"{flag}: no such flag; {nearest(name, known)}")
        else:
            kept.append(flag)
    return problems, kept


def _following(text: str) -> str:
    key = key_of(text).partition("@")[0]
    return f"{text}: {key} follows from other choices; set its keys themselves, e.g. optimizer.lr=0.1"


def _resumed(directory: Path, flags: list[str], added: list[str]) -> tuple[list[str], list[str]]:
    """Return the flags and overrides of the command that began in a directory, with those added or changed.

    Raises ConfigError where the directory holds no run, or its command asks for what must be typed again.
    """
    command, is_sweep = _command_of(directory)
    first_flags, first_overrides = split(command)
    keys = {text.partition("=")[0] for text in [*flags, *added]}
    kept_flags, kept = (
        [t for t in texts if t.partition("=")[0] not in keys] for texts in (first_flags, first_overrides)
    )
    if "hydra/launcher" in keys:  # whose keys are other ones
        kept = [text for text in kept if not text.startswith("hydra.launcher.")]
    if problems := trust.command_problems(directory, kept_flags, kept):
        raise ConfigError(problems)
    kind = "sweep" if is_sweep else "run"
    multirun = ["-m"] if is_sweep and not {"-m", "--multirun"} & set(flags) else []
    return [*kept_flags, *flags, *multirun], [*kept, *added, f"hydra.{kind}.dir={quoted(str(directory))}"]


def _command_of(directory: Path) -> tuple[list[str], bool]:
    """Return (the command that began in a directory, whether it was a sweep). Raises ConfigError."""
    if not directory.is_dir():
        raise ConfigError([f"resume={directory}: no such directory; expected a run's or a sweep's"])
    above = directory.parent if directory.name else directory.absolute().parent
    if (above / COMPARISON).exists():
        whole = f"python -m trainer.versus resume={above}"
        raise ConfigError([f"resume={directory}: is part of a comparison; resume all of it, {whole}"])
    try:
        plan = read_plan(directory)
        is_of_sweep = not plan["runs"] and directory.absolute().name in read_plan(above)["runs"]
    except files.Damaged as damage:
        hint = "repeat the command itself with hydra.run.dir or hydra.sweep.dir, finished runs are recognised"
        raise ConfigError([f"resume={directory}: {damage}; {hint}"]) from damage
    if is_of_sweep:
        raise ConfigError([f"resume={directory}: is a run of a sweep; resume all of it, resume={above}"])
    if not plan["runs"]:
        raise ConfigError([f"resume={directory}: holds no run to resume; expected a run's or a sweep's directory"])
    return plan["command"], list(plan["runs"]) != ["."]
