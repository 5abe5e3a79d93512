"""`python -m trainer.evaluate PATH...`: which runs overfit, since when, how sure; which knob drives it; what to use.

The way: find_runs -> judge each -> compare all -> tables; evaluation.json and report.html where they are asked for.
"""

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.compare import comparison as compare
from trainer.judge import overfit
from trainer.read.find_runs import Curves, find_runs

VERDICTS = ("overfit", "healthy", "underfit", "diverged", "too_short")


def evaluate(
    paths: Iterable[str | os.PathLike[str]], train_tag: str | None = None, val_tag: str | None = None
) -> tuple[dict[str, Any], list[Curves]]:
    """The evaluation of all runs below `paths` as docs/evaluate.md describes its JSON, and their curves in that order.

    Raises ValueError, with what to type instead, where a path does not exist or holds no run.
    """
    paths = list(paths)
    runs, problems = find_runs(paths, train_tag, val_tag)
    verdicts = [_verdict(run) for run in runs]
    compared = [_as_compared(run, verdict) for run, verdict in zip(runs, verdicts, strict=True)]
    comparison = compare.compare(compared).to_json()
    judged = [_judged(run, one) for run, one in zip(runs, compared, strict=True)]
    found = {"paths": [os.fspath(path) for path in paths], "runs": judged, **comparison, "problems": problems}
    return plain(found), runs


def _verdict(run: Curves) -> overfit.Verdict:
    guessing = _number(_section(run.summary, "start").get("guessing_loss"))  # what ours knows of its targets
    return overfit.judge(run.train_loss, run.val_loss, run.train_accuracy, run.val_accuracy, run.epochs, guessing)


def _as_compared(run: Curves, verdict: overfit.Verdict) -> compare.Run:
    measures: dict[str, Any] = {key: verdict.evidence.get(key) for key in ("gap", "best_val_loss", "final_val_loss")}
    if run.val_accuracy is not None and np.isfinite(run.val_accuracy).any():
        measures["best_val_accuracy"] = np.nanmax(run.val_accuracy)
    tested = _section(run.summary, "test", "best")  # of the weights that the validation split chose
    measures |= {f"test_{key}": tested.get(key) for key in ("loss", "accuracy")}
    provenance = _section(run.summary, "provenance")
    epochs = run.summary.get("epochs")
    return compare.Run(
        path=run.path,
        name=run.name,
        config=run.config,
        verdict=verdict,
        measures={key: number for key, value in measures.items() if (number := _number(value)) is not None},
        status=run.summary.get("status"),
        epochs=epochs if isinstance(epochs, int) else None,
        hashes={key: str(value) for key, value in provenance.items() if key.endswith("_hash") and value is not None},
    )


def _section(summary: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A part of summary.json; empty where the file does not have it."""
    found: Any = summary
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    """A number of summary.json, where "nan" and "inf" are text; None for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _judged(run: Curves, compared: compare.Run) -> dict[str, Any]:
    """One run's entry in `runs`."""
    return {
        "path": run.path,
        "name": run.name,
        "source": run.source,
        "status": compared.status,
        **vars(compared.verdict),
        "measures": compared.measures,
        "health": health if isinstance(health := run.summary.get("health"), list) else [],
        "config": run.config,
        "notes": list(run.notes),
    }


def plain(value: Any) -> Any:
    """For strict JSON: numbers that are not finite as the strings "nan", "inf" and "-inf", numpy's as Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, str | bool | int):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 1 where a run has a verdict given to --fail-on, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        for target in (options.json, options.html):
            _check_target(target)
        evaluation, runs = evaluate(options.paths, options.train_tag, options.val_tag)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    from trainer.report import html, terminal  # rich, which bad input need not wait for

    said = sys.stderr if options.json == "-" else sys.stdout
    terminal.print_tables(evaluation, said)
    if options.json == "-":
        json.dump(evaluation, sys.stdout, allow_nan=False)
        print()
    elif options.json:
        write_whole(Path(options.json), json.dumps(evaluation, allow_nan=False))
    if options.html:
        target = Path(options.html)
        command = shlex.join(["python", "-m", "trainer.evaluate", *(sys.argv[1:] if arguments is None else arguments)])
        write_whole(target, html.page(evaluation, runs, target.parent, command))
        print(f"report: {target.resolve().as_uri()}", file=said)
    return int(any(run["verdict"] in options.fail_on for run in evaluation["runs"]))


def write_whole(path: Path, text: str) -> None:
    """Write beside, then rename: nobody reads half a file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _check_target(target: str | None) -> None:
    """Raises ValueError where a file cannot be written, before any work is done."""
    if target in (None, "-"):
        return
    path = Path(target)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the file's name, such as {path / 'evaluation.json'}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it first: mkdir -p {path.parent}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluate",
        description="Which runs overfit, since when, how sure; which knob drives it; what to use instead.",
        epilog="Nothing is written unless --json or --html says where; the tables always appear on the terminal "
        "(on the error stream with --json -). Exit code: 0, or 1 where --fail-on holds, or 2 for bad input.",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="a run, a sweep, any folder above them, an event file or a CSV file")
    add("--json", metavar="FILE", help="write the evaluation as JSON; - prints it on the standard output")
    add("--html", metavar="FILE", help="write the report as one page that needs no network")
    add("--train-tag", metavar="TAG", help="training loss of other tools' runs, where its name is not a common one")
    add("--val-tag", metavar="TAG", help="validation loss of other tools' runs")
    add(
        "--fail-on",
        action="append",
        default=[],
        choices=VERDICTS,
        metavar="VERDICT",
        help=f"exit with 1 where a run is so judged; may be repeated; one of {', '.join(VERDICTS)}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
