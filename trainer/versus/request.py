"""What a comparison was asked for: its groups, which keys are tuned over which values, and how many seeds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer import files
from trainer.cli import batches, command_line, trust
from trainer.cli.command_line import COMPARISON as NAME
from trainer.cli.command_line import CommandLine, quoted
from trainer.cli.config_files import parse
from trainer.config import ConfigError, nearest
from trainer.config.knob import flatten
from trainer.language import localised
from trainer.text import key_of, version
from trainer.versus import search

OWN = {"tune": "optimizer.lr", "rates": "15", "seeds": "10"}  # the keys that only this command has
MOST_RATES = 100
SWEEP = "python -m trainer -m"


@dataclass(frozen=True)
class Request:
    """What was typed."""

    line: CommandLine  # without this command's own keys
    own: Mapping[str, str]  # those: OWN, with what was typed
    options: argparse.Namespace
    compared: list[str] = field(default_factory=list)  # the keys whose values make the groups
    grids: dict[str, list[str]] = field(default_factory=dict)  # tuned key -> its values
    groups: list[list[str]] = field(default_factory=list)  # overrides of each, but for the tuned keys and the seed
    notes: list[str] = field(default_factory=list)  # of what was left out of them

    @property
    def seeds(self) -> range:
        """The seeds that decide: none of them was used for tuning."""
        return range(int(self.own["seeds"]))

    @property
    def measure(self) -> str:
        """What is chosen by: a key of search.MEASURES."""
        different = any(key.lstrip("+").split(".")[0] == "loss" for key in self.compared)  # losses on different scales
        return "val_accuracy" if different else "val_loss"

    @property
    def command(self) -> list[str]:
        """What resume=DIR repeats."""
        return [*self.line.repeatable, *(f"{key}={value}" for key, value in self.own.items())]

    @property
    def candidates(self) -> int:
        """How many settings each group begins with: the same for all."""
        return math.prod(map(len, self.grids.values()))

    def name(self, group: Sequence[str]) -> str:
        """Name a group by what is compared."""
        return " ".join(self.levels(group).values())

    def levels(self, group: Sequence[str]) -> dict[str, str]:
        """Return a group's overrides of the compared keys, by key."""
        return {key: text for text in group if (key := text.partition("=")[0]) in self.compared}


def read(arguments: Sequence[str]) -> Request:
    """Read a command line. Raises ConfigError with what is wrong with it; SystemExit for --help."""
    options, rest = _parser().parse_known_args(list(arguments))
    targets = ((options.json, "versus.json"), (options.html, "report.html"))
    problems = [line for target in targets for line in files.target_problems(*target)]
    to_terminal = [f"--{name}" for name in ("json", "html") if getattr(options, name) == "-"]
    problems += [f"{flag}: found -, expected the name of a file" for flag in to_terminal]
    flags, overrides = command_line.split(rest)
    lists = [flag for flag in flags if flag in ("-m", "--multirun")]
    problems += [
        f"{flag}: leave it out; every list of values is compared, or is the grid of a tuned key" for flag in lists
    ]
    others = [flag for flag in flags if flag not in lists]
    problems += command_line.unknown_flags(others, ["--dry-run", "--html", "--json"])
    if problems:
        raise ConfigError(problems)
    resumed = [text.partition("=")[2] for text in overrides if text.startswith("resume=")]
    typed = [text for text in overrides if not text.startswith("resume=")]
    overrides = typed
    if resumed:
        flags, overrides = _resumed(Path(resumed[-1]), flags, typed)
    own = {**OWN, **{key: text.partition("=")[2] for text in overrides if (key := text.partition("=")[0]) in OWN}}
    line = command_line.read([*flags, *(text for text in overrides if text.partition("=")[0] not in OWN)])
    if resumed:
        line = replace(line, resumed=Path(resumed[-1]), typed=tuple(typed))
    request = Request(line, own, options)
    if problems := _problems(request):
        raise ConfigError(problems)
    return _with_groups(request)


def _resumed(directory: Path, flags: Sequence[str], typed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the flags and overrides of the comparison in a directory, with those typed beside resume=DIR.

    Raises ConfigError where there is none, or its command asks for what must be typed again.
    """
    try:
        command = files.read_sealed(directory / NAME).get("command")
    except FileNotFoundError as error:
        raise ConfigError([f"resume={directory}: holds no {NAME}; expected the directory of a comparison"]) from error
    except (OSError, files.Damaged) as error:
        hint = f"repeat the command itself with hydra.sweep.dir={directory}, finished runs are recognised"
        raise ConfigError([f"resume={directory}: {error}; {hint}"]) from error
    if not isinstance(command, list) or not all(isinstance(text, str) for text in command):
        raise ConfigError([f"resume={directory}: {directory / NAME} is no file of this trainer's"])
    keys = {text.partition("=")[0] for text in [*flags, *typed]}
    kept = [text for text in command if text.partition("=")[0] not in keys]
    kept_flags, kept_overrides = command_line.split(kept)
    if problems := trust.command_problems(directory, kept_flags, kept_overrides):
        raise ConfigError(problems)
    return [*kept_flags, *flags], [*kept_overrides, *typed, f"hydra.sweep.dir={quoted(str(directory))}"]


def _problems(request: Request) -> list[str]:
    """List what is wrong with this command's own keys, and what it does not take of python -m trainer."""
    out = []
    for key, least, most in (("seeds", 2, search.FIRST_TUNING_SEED), ("rates", 2, MOST_RATES)):
        value = request.own[key]
        if not value.isdecimal() or not least <= int(value) <= most:
            out.append(f"{key}: found {value}, expected a whole number from {least} to {most}")
    if not all(request.own["tune"].split(",")):
        found = request.own["tune"] or "nothing"
        out.append(f"tune: found {found}, expected keys, e.g. tune=optimizer.lr,optimizer.weight_decay")
    for text in request.line.overrides:
        key = key_of(text)
        if key == "seed":
            out.append(f"{text}: the seeds are 0 to N - 1, and others for tuning; say how many with seeds=N")
        if key in request.own["tune"].split(",") and parse(text) is not None and not batches.is_swept(text):
            why = f"is tuned, so it takes its grid, {key}=A,B,C, or nothing"
            out.append(f"{text}: {why}; with fixed values it is a sweep: {SWEEP} ... 'seed=range(10)'")
        if key.startswith("hydra") and batches.is_swept(text):
            out.append(f"{text}: found several values, expected one; quote a comma: {key}='A,B'")
    if request.line.foreign_plugins:
        out.append(f"{' '.join(request.line.foreign_plugins)}: a comparison trains with its own sweeps; leave it out")
    return out


def _with_groups(request: Request) -> Request:
    """Find the groups and the grids. Raises ConfigError where there is nothing to compare, or a key has no grid."""
    tuned = list(dict.fromkeys(request.own["tune"].split(",")))
    grids = {}
    overrides = [text for text in request.line.overrides if not text.startswith("hydra")]
    for key in tuned:
        texts = [text for text in overrides if key_of(text) == key]
        overrides = [text for text in overrides if text not in texts]
        if texts:
            plus = "+" * texts[-1].startswith("+")
            values = [job[0].partition("=")[2] for job in batches.product(request.line.sources, texts[-1:])[0]]
            grids[plus + key] = _sorted(list(dict.fromkeys(values)))
        elif key == "optimizer.lr":
            grids[key] = search.rate_grid(int(request.own["rates"]))
        elif key == "optimizer.weight_decay":
            grids[key] = list(search.WEIGHT_DECAYS)
        else:
            grids[key] = []
    groups, notes = batches.product(request.line.sources, overrides)
    keys = dict.fromkeys(text.partition("=")[0] for group in groups for text in group)
    values = {key: {next((t for t in group if t.partition("=")[0] == key), "") for group in groups} for key in keys}
    compared = [key for key in keys if len(values[key]) > 1]
    if len(groups) < 2:
        lists = [text for text in request.line.overrides if text not in overrides and batches.is_swept(text)]
        but = f" ({', '.join(lists)}: the grid of a tuned key)" if lists else ""
        raise ConfigError([f"nothing to compare{but}; give a key several values, e.g. optimizer=sgd,adam"])
    return replace(request, compared=compared, grids=grids, groups=groups, notes=notes)


def check_grids(request: Request, raw: Mapping[str, Any]) -> None:
    """See that every tuned key has values to try. raw: a group's configuration. Raises ConfigError."""
    problems, known = [], dict(flatten(raw))
    for key, values in request.grids.items():
        if not values and key in known:
            problems.append(f"tune={key}: has no grid of its own; type its values too, {key}=A,B,C")
        elif not values:
            problems.append(f"tune={key}: no such key; {nearest(key, known)}")
        elif len(values) < 2:
            problems.append(f"{key}={values[0]}: found one value, expected a grid: {key}=A,B,C")
    if problems:
        raise ConfigError(problems)


def _sorted(values: list[str]) -> list[str]:
    """Sort values that are all numbers; leave others in the order they were typed in."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def _parser() -> argparse.ArgumentParser:
    parser = command_line.Options(
        prog="python -m trainer.versus",
        usage="%(prog)s KEY=A,B [KEY=VALUE ...] [tune=KEY,...] [rates=N] [seeds=N] [--dry-run] [--html FILE] "
        "[--json FILE]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare groups fairly: each at its own best learning rate, found with an equal budget on the\n"
        "validation split, then trained with fresh seeds and tested.\n\n"
        "  KEY=A,B        is compared; several such keys make every combination\n"
        "  KEY=VALUE      holds for all runs, as in python -m trainer (see its --help)\n"
        f"  tune=KEY,...   what is chosen for each group (default {OWN['tune']}); optimizer.weight_decay has a grid\n"
        "                 too, other keys need theirs: tune=optimizer.momentum optimizer.momentum=0,0.5,0.9\n"
        f"  rates=N        learning rates from {search.LEAST_RATE:g} to {search.MOST_RATE:g} (default {OWN['rates']}); "
        "or type them, optimizer.lr=A,B,C\n"
        f"  seeds=N        fresh seeds for each group's best (default {OWN['seeds']})\n"
        "  resume=DIR     go on with a comparison that was stopped, or with more seeds\n"
        "  hydra.sweep.dir=DIR   where it is written (default outputs/versus/<date>/<time>)",
        epilog="Exit code: 0; 1 where a run failed; 2 for bad input. How it decides: docs/versus.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=version(), help="say which versions run")
    add("--dry-run", action="store_true", help="show what would be trained; train nothing")
    add("--html", metavar="FILE", help="write the report on the final runs as one page that needs no network")
    add("--json", metavar="FILE", help="write the evaluation of the final runs as JSON, with how each was tuned")
    return localised(parser)
