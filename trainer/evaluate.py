"""`python -m trainer.evaluate PATH...`: which runs overfit, since when, how sure; which knob drives it; what to use.

The steps: options, find and read the runs, judge each, compare all, report.
"""

import argparse
import io
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from trainer import files
from trainer.compare.comparison import Run, compare
from trainer.judge.overfit import Verdict, judge
from trainer.read.curves import Curves
from trainer.read.find_runs import Problems, find_runs
from trainer.read.other_tools import number
from trainer.report.vocabulary import VERDICTS
from trainer.text import printable

HASHES = ("data_hash", "split_hash", "order_hash")  # of a run's provenance: what shows that a comparison is fair


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 where a run has a verdict given to --fail-on, or 2 for bad input or output."""
    options = _parser().parse_args(arguments)
    targets = ((options.json, "evaluation.json"), (options.html, "report.html"))
    try:
        if problems := [line for target in targets for line in files.target_problems(*target)]:
            raise Problems(problems)
        evaluation, runs = evaluate(options.paths, options.train_tag, options.val_tag)
        command = shlex.join(["python", "-m", "trainer.evaluate", *(sys.argv[1:] if arguments is None else arguments)])
        _report(evaluation, runs, options.json, options.html, command)
    except Problems as problems:
        _complain(problems.lines)
        return 2
    except OSError as error:
        _complain([str(error)])
        return 2
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
    for key in ("train_loss", "train_accuracy", "val_accuracy"):
        measures[f"final_{key}"] = _end(getattr(run, key))
    for key in ("loss", "accuracy"):
        measures[f"test_{key}"] = run.recorded("test", "best", key)  # of the weights that the validation split chose
        measures[f"final_test_{key}"] = run.recorded("test", "last", key)
    hashes = {key: run.recorded("provenance", key) for key in HASHES}
    epochs = run.recorded("epochs")
    return Run(
        path=run.path,
        name=run.name,
        config=run.config,
        verdict=verdict,
        measures={key: found for key, value in measures.items() if (found := number(value)) is not None},
        status=status if isinstance(status := run.recorded("status"), str) else None,
        epochs=epochs if isinstance(epochs, int) else None,
        hashes={key: str(value) for key, value in hashes.items() if value is not None},
    )


def _end(curve: np.ndarray | None) -> float | None:
    """Return the mean of the last tenth of a curve, at least one epoch: what `final_val_loss` is of its own."""
    if curve is None or not len(curve):
        return None
    with np.errstate(all="ignore"):  # infinite and huge values are recorded too
        return float(curve[-max(1, len(curve) // 10) :].mean())


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
    """Write the files that were asked for, then print the tables: whatever becomes of these, the files are there."""
    from trainer.report import html, terminal  # rich, which bad input need not wait for

    text = json.dumps(evaluation, allow_nan=False) if to_json else ""
    if to_json and to_json != "-":
        _write(Path(os.path.realpath(to_json)), text)
    page = Path(os.path.realpath(to_html)) if to_html else None
    if page:
        _write(page, html.page(evaluation, runs, page.parent, command))
    if to_json == "-":
        with _output(sys.stdout) as out:
            print(text, file=out)
    with _output(sys.stderr if to_json == "-" else sys.stdout) as tables:
        terminal.print_tables(evaluation, tables)
        if page:
            print(f"report: {page.as_uri()}", file=tables)


def _write(path: Path, text: str) -> None:
    """Write a file whole, or not at all. Raises Problems."""
    try:
        files.write(path, text)
    except OSError as error:
        raise Problems([f"{path}: cannot be written: {error.strerror}"]) from error


@contextmanager
def _output(stream: TextIO | None) -> Iterator[TextIO]:
    """Print to a stream, all of it. Raises Problems where it is closed, or what it leads to is full."""
    name = "standard output" if stream is sys.stdout else "error stream"
    if stream is None:
        raise Problems([f"the {name} is closed: nothing is printed there"])
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal without ± shows ?
    try:
        yield stream
        stream.flush()
    except OSError as error:
        with suppress(OSError), open(os.devnull, "wb") as nowhere:  # else the interpreter tries again when it ends
            os.dup2(nowhere.fileno(), stream.fileno())
        raise Problems([f"the {name} takes no more: {error.strerror}"]) from error


def _complain(lines: Iterable[str]) -> None:
    """Print problems on the error stream, one a line, where there is one to print on."""
    with suppress(Problems), _output(sys.stderr) as errors:
        for line in lines:
            print(printable(line), file=errors)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse the options; a name that a shell filled in may be among them."""
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m trainer.evaluate",
        description="Which runs overfit, since when, how sure; which knob drives it; what to use instead.",
        epilog="Nothing is written unless --json or --html says where; the tables always appear on the terminal "
        "(on the error stream with --json -). Exit code: 0, or 1 where --fail-on holds, or 2 for bad "
        "input, or where an output takes nothing.",
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
