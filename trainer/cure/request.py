"""Which run is to be cured: what was typed for it, and what was found wrong with it."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer import files
from trainer.cli import batches, command_line, trust
from trainer.cli.command_line import FILE_FLAGS, CommandLine
from trainer.config import ConfigError
from trainer.engine.resume.plan_file import read_plan
from trainer.files import Damaged
from trainer.judge import advice, health
from trainer.judge.remedies import Settings
from trainer.language import localised
from trainer.read.curves import Curves
from trainer.read.find_runs import Problems, find_runs
from trainer.text import key_of, plural, version

SEEDS = 3  # the run's own and the next ones
MOST_STEPS = 1000  # that a run of the trial takes, however long the run was
QUIET = ("record.every=0", "record.pictures=false", "check.one_batch=false", "check.gradients=false")


@dataclass(frozen=True)
class Request:
    """A sick run."""

    run: Path
    line: CommandLine  # its command, with what was typed here, without the seed
    seed: int
    findings: list[dict[str, Any]]
    budget: str  # the override that makes its runs short
    options: argparse.Namespace

    @property
    def overrides(self) -> list[str]:
        """What was typed for the run, its seed apart."""
        return [text for text in self.line.overrides if not text.startswith("hydra")]

    @property
    def names(self) -> list[str]:
        """What was found, the worst first."""
        return [*map(_name, self.findings)]


def read(arguments: Sequence[str]) -> Request:
    """Read a command line. Raises ConfigError with what is wrong with it; SystemExit for --help."""
    options, rest = _parser().parse_known_args(list(arguments))
    flags, words = command_line.split(rest)
    paths = [word for word in words if "=" not in word and not word.startswith("~")]
    typed = [word for word in words if word not in paths]
    problems = files.target_problems(options.json, "cures.json")
    problems += ["--json: found -, expected the name of a file"] if options.json == "-" else []
    problems += command_line.unknown_flags(flags, ["--json"])
    problems += [f"{word}: found several values, expected one" for word in typed if batches.is_swept(word)]
    problems += [f"{word}: the seeds are the run's own and the next two" for word in typed if word.startswith("seed=")]
    if len(paths) != 1:
        found = " ".join(paths) or "none"
        problems.append(f"found {found}, expected the directory of one run: python -m trainer.cure outputs/runs/...")
    if problems:
        raise ConfigError(problems)
    return _of_run(Path(paths[0]), flags, typed, options)


def _of_run(run: Path, flags: Sequence[str], typed: Sequence[str], options: argparse.Namespace) -> Request:
    """Read what a run's directory says. Raises ConfigError where it is no sick run that can be trained again."""
    try:
        found, notes = find_runs([run])
    except Problems as problems:
        raise ConfigError(problems.lines[:1]) from problems
    if len(found) > 1 or Path(found[0].path).resolve() != run.resolve():
        raise ConfigError([f"{run}: holds {_several(found)}"])
    (one,) = found
    typed_for_it = one.overrides
    if one.source != "trainer" or typed_for_it is None:
        raise ConfigError([f"{run}: is no run of this trainer's; what was typed for it is not known"])
    if not isinstance(one.recorded("health"), list):
        why = f": {notes[0]}" if notes else ""
        raise ConfigError([f"{run}: has not ended, so nothing is known to be wrong with it{why}"])
    if "model.function" in one.config:
        raise ConfigError([f"{run}: minimises a function, which no cure is known for; expected a run of a network"])
    findings = _findings(one)
    if not findings:
        raise ConfigError([f"{run}: nothing was found wrong with it, so there is nothing to cure"])
    names = [*map(_name, findings)]
    if not advice.can_be_tried(names, one.config):
        said = "; ".join(f"{health.name(f)}: {health.ADVICE[str(f['finding'])].words}" for f in findings)
        raise ConfigError([f"{run}: nothing that can be typed is known to cure it ({said})"])
    line = _line(run, typed_for_it, flags, typed)
    steps, epochs = one.recorded("steps") or 1, one.recorded("epochs") or 1
    return Request(run, line, int(one.config.get("seed", 0)), findings, _budget(one.config, steps / epochs), options)


def _several(found: Sequence[Curves]) -> str:
    """Say how many runs a folder holds, and which to choose: the last one that something can be tried on."""
    sick = [one.path for one in found if advice.can_be_tried(map(_name, _findings(one)), one.config)]
    held = plural(len(found), "run")
    if not sick:
        return f"{held}, none of which has a finding that a cure is known for"
    return f"{held}, {len(sick)} of them sick; choose one, e.g. python -m trainer.cure {shlex.quote(sick[-1])}"


def _findings(run: Curves) -> list[dict[str, Any]]:
    """Return what was found wrong with a run, as far as it is known here."""
    found = run.recorded("health")
    known = found if isinstance(found, list) else []
    return [one for one in known if isinstance(one, dict) and one.get("finding") in health.ADVICE]


def _name(finding: dict[str, Any]) -> str:
    return str(finding["finding"])


def _budget(config: Settings, steps_per_epoch: float) -> str:
    if config.get("steps") is not None:
        return f"steps={min(config['steps'], MOST_STEPS)}"
    return f"epochs={min(config['epochs'], math.ceil(MOST_STEPS / steps_per_epoch))}"


def _line(run: Path, recorded: Sequence[str], flags: Sequence[str], typed: Sequence[str]) -> CommandLine:
    """Return the run's command, with what was typed beside it; it is trusted as far as resume=RUN would be.

    Raises ConfigError.
    """
    changed = {*map(key_of, [*flags, *typed]), "seed", "hydra.sweep.dir"}
    kept_flags = [flag for flag in command_line.split(_command(run))[0] if flag.partition("=")[0] not in changed]
    kept_flags = [flag for flag in kept_flags if flag.startswith(FILE_FLAGS)]
    kept = [text for text in recorded if key_of(text) not in changed]
    if problems := trust.command_problems(run, kept_flags, kept):
        raise ConfigError(problems)
    line = command_line.read([*kept_flags, *flags, *kept, *typed])
    return replace(line, resumed=run, typed=tuple(typed))


def _command(run: Path) -> list[str]:
    """Return the command that a run is of: where its configuration files lie stands there. Nothing if it is lost."""
    for folder in (run, *run.absolute().parents):
        try:
            plan = read_plan(folder)
        except (Damaged, OSError):
            continue
        if plan["runs"]:
            return plan["command"]
        if (folder / ".git").exists():
            break
    return []


def _parser() -> argparse.ArgumentParser:
    parser = command_line.Options(
        prog="python -m trainer.cure",
        usage="%(prog)s RUN [KEY=VALUE ...] [--json FILE]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Try what is suggested against the findings of a run: every cure, and pairs of the first ones,\n"
        f"beside the run itself, each for {MOST_STEPS} steps at most with the run's own seed and two more.\n\n"
        "  RUN            the directory of a run that has findings\n"
        "  KEY=VALUE      changes all runs of the trial, e.g. device=cpu\n"
        "  hydra.sweep.dir=DIR   where they are written (default outputs/cures/<date>/<time>)",
        epilog="Exit code: 0; 2 for bad input. What each finding means, and what cures it: docs/health.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=version(), help="say which versions run")
    parser.add_argument("--json", metavar="FILE", help="write what was tried, with every run's loss, as JSON")
    return localised(parser)
