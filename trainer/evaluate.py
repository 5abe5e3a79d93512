"""`python -m trainer.evaluate PATH...`: which runs overfit, since when, how sure; which knob drives it; what to use.

The steps: options, find and read the runs, judge each, compare all, report.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer import files
from trainer.compare.comparison import Run, compare
from trainer.judge.overfit import Verdict, judge
from trainer.read.find_runs import Curves, find_runs
from trainer.read.other_tools import number
from trainer.report.vocabulary import VERDICTS

HASHES = ("data_hash", "split_hash", "order_hash")  # of a run's provenance: what shows that a comparison is fair


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 where a run has a verdict given to --fail-on, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    targets = ((options.json, "evaluation.json"), (options.html, "report.html"))
    try:
        if problems := [line for target in targets for line in files.target_problems(*target)]:
            raise ValueError("\n".join(problems))
        evaluation, runs = evaluate(options.paths, options.train_tag, options.val_tag)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    command = shlex.join(["python", "-m", "trainer.evaluate", *(sys.argv[1:] if arguments is None else arguments)])
    _report(evaluation, runs, options.json, options.html, command)
    return int(any(run["verdict"] in options.fail_on for run in evaluation["runs"]))


def evaluate(
    paths: Iterable[str | os.PathLike[str]], train_tag: str | None = None, val_tag: str | None = None
) -> tuple[dict[str, Any], list[Curves]]:
    """Return the evaluation of all runs below `paths`, as docs/evaluate.md describes its JSON, and their curves.

    Raises ValueError, with what to type instead, where a path does not exist or holds no run.
    """
    paths = list(paths)
    runs, problems = find_runs(paths, train_tag, val_tag)
    judged = [_compared(run, _judged(run)) for run in runs]
    evaluation = {
        "paths": [os.fspath(path) for path in paths],
        "runs": [_entry(run, one) for run, one in zip(runs, judged, strict=True)],
        **compare(judged).to_json(),
        "problems": problems,
    }
    return files.strict(evaluation), runs


def _judged(run: Curves) -> Verdict:
    chance_loss = number(run.recorded("start", "guessing_loss"))  # our runs know their targets
    return judge(run.train_loss, run.val_loss, run.train_accuracy, run.val_accuracy, run.epochs, chance_loss)


def _compared(run: Curves, verdict: Verdict) -> Run:
    """Gather what compare takes from a run's verdict, curves and summary."""
    measures: dict[str, Any] = {key: verdict.evidence.get(key) for key in ("gap", "best_val_loss", "final_val_loss")}
    if run.val_accuracy is not None and np.isfinite(run.val_accuracy).any():
        measures["best_val_accuracy"] = np.nanmax(run.val_accuracy)
    for key in ("loss", "accuracy"):  # of the weights that the validation split chose
        measures[f"test_{key}"] = run.recorded("test", "best", key)
    hashes = {key: run.recorded("provenance", key) for key in HASHES}
    epochs = run.recorded("epochs")
    return Run(
        path=run.path,
        name=run.name,
        config=run.config,
        verdict=verdict,
        measures={key: found for key, value in measures.items() if (found := number(value)) is not None},
        status=run.recorded("status"),
        epochs=epochs if isinstance(epochs, int) else None,
        hashes={key: str(value) for key, value in hashes.items() if value is not None},
    )


def _entry(run: Curves, compared: Run) -> dict[str, Any]:
    """Return one run's entry in `runs`."""
    health = run.recorded("health")
    return {
        "path": run.path,
        "name": run.name,
        "source": run.source,
        "status": compared.status,
        **vars(compared.verdict),
        "measures": compared.measures,
        "health": health if isinstance(health, list) else [],
        "config": run.config,
        "notes": list(run.notes),
    }


def _report(
    evaluation: dict[str, Any], runs: Sequence[Curves], to_json: str | None, to_html: str | None, command: str
) -> None:
    """Print the tables, and write the files that were asked for."""
    from trainer.report import html, terminal  # rich, which bad input need not wait for

    tables = sys.stderr if to_json == "-" else sys.stdout
    terminal.print_tables(evaluation, tables)
    text = json.dumps(evaluation, allow_nan=False)
    if to_json == "-":
        print(text)
    elif to_json:
        files.write(Path(to_json), text)
    if to_html:
        target = Path(to_html)
        files.write(target, html.page(evaluation, runs, target.parent, command))
        print(f"report: {target.resolve().as_uri()}", file=tables)


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
        help=f"exit with 1 where a run has this verdict; may be repeated; one of {', '.join(VERDICTS)}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
