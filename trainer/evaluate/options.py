"""What `python -m trainer.evaluate` is told: its options, and what is wrong with them."""

from __future__ import annotations

import argparse
import math
import os
from typing import NoReturn

from trainer import files
from trainer.language import localised
from trainer.read.numbers import number
from trainer.report.vocabulary import KINDS, VERDICTS
from trainer.text import printable, version

EXAMPLES = {  # option that names a file -> a name for it
    "json": "evaluation.json",
    "markdown": "evaluation.md",
    "latex": "evaluation.tex",
    "csv": "groups.csv",
    "junit": "junit.xml",
    "html": "report.html",
}
TEXTS = ("json", "markdown", "latex", "csv", "junit")  # of these, one may go to the standard output


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse the options; a name that a shell filled in may be among them."""
        super().error(printable(message))


def _keys(text: str) -> list[str]:
    return [] if text == "none" else [key.strip() for key in text.split(",") if key.strip()]


def _bound(text: str) -> tuple[str, float]:
    """Read MEASURE=NUMBER."""
    measure, _, limit = text.partition("=")
    found = number(limit)
    if not measure or found is None or not math.isfinite(found):
        message = f"expected a measure and a number, such as val_accuracy=0.9 or val_loss=0.5; found {text}"
        raise argparse.ArgumentTypeError(message)
    return measure, found


def _gap(text: str) -> float:
    """Read a number."""
    found = number(text)
    if found is None or not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"expected a number, such as 0.1; found {text}")
    return found


def parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m trainer.evaluate",
        description="Which runs overfit, since when, how sure; which knob drives it; what to use instead.",
        epilog="Nothing is written unless an option says where; the tables always appear on the terminal (on the error "
        "stream where a FILE is -, which is the standard output). Exit code: 0, or 1 where a requirement does not "
        "hold, or 2 for bad input, or where an output takes nothing.",
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="a run, a sweep, any folder above them, an event file or a CSV file")
    add("--train-tag", metavar="TAG", help="training loss of other tools' runs, where its name is not a common one")
    add("--val-tag", metavar="TAG", help="validation loss of other tools' runs")
    add(
        "--tune",
        metavar="KEYS",
        type=_keys,
        help="keys that are tuned, not compared: every group stands at its own best, chosen by the validation split; "
        "none tunes nothing (default: the learning rate, where optimizers, schedules or batch sizes are compared)",
    )
    add("--version", action="version", version=version(), help="say which versions run")
    write = parser.add_argument_group("outputs, written whole or not at all").add_argument
    write("--json", metavar="FILE", help="the evaluation as JSON")
    write("--html", metavar="FILE", help="the report, as one page that needs no network")
    write("--markdown", metavar="FILE", help="the answer, and the table of groups, in Markdown")
    write("--latex", metavar="FILE", help="the same in LaTeX, to be read by \\input; the table needs booktabs")
    write(
        "--csv", metavar="FILE", help="a row for each group: knobs, runs, share that overfit, each measure's statistics"
    )
    write("--figures", metavar="DIR", help="learning curves by group and the effect of each knob, as PNG and SVG")
    write(
        "--tensorboard",
        metavar="DIR",
        nargs="?",
        const="",
        help="links to the runs, named by what was swept, for tensorboard --logdir DIR; without DIR, show them now",
    )
    write("--junit", metavar="FILE", help="a test case for each run and each requirement, in JUnit's XML")
    require = parser.add_argument_group("requirements: exit with 1 where one does not hold").add_argument
    require(
        "--fail-on",
        action="append",
        default=[],
        choices=[*VERDICTS, *(f"overfit:{kind}" for kind in KINDS)],
        metavar="VERDICT",
        help=f"no run has this verdict; may be repeated; one of {', '.join(VERDICTS)}; "
        f"or of one kind only, overfit:{', overfit:'.join(KINDS)}",
    )
    require("--max-gap", type=_gap, metavar="GAP", help="no run's gap is larger: --max-gap 0.1")
    for name, side, example in (("min", "least", "val_accuracy=0.9"), ("max", "most", "val_loss=0.5")):
        require(
            f"--{name}",
            type=_bound,
            action="append",
            default=[],
            metavar="MEASURE=NUMBER",
            help=f"a measure of every run is at {side} this; may be repeated: --{name} {example}",
        )
    require("--baseline", metavar="DIR", help="no group is shown to be worse than the same one among the runs in DIR")
    return localised(parser)


def target_problems(options: argparse.Namespace) -> list[str]:
    """Say what keeps the outputs from being written, before anything is read."""
    targets = {name: value for name in (*TEXTS, "html") if (value := getattr(options, name))}
    problems = [line for name, value in targets.items() for line in files.target_problems(value, EXAMPLES[name])]
    problems += [line for folder in (options.figures, options.tensorboard) for line in files.folder_problems(folder)]
    named: dict[str, str] = {}
    for name, value in targets.items():
        first = named.setdefault("-" if value == "-" else os.path.realpath(value), name)
        if first != name:
            place = "the standard output" if value == "-" else value
            problems.append(f"--{first} and --{name} both name {place}; give each a place of its own")
    return problems
