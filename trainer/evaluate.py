"""`python -m trainer.evaluate PATH...`: which runs overfit, since when, how sure; which knob drives it; what to use.

The steps: options, find and read the runs, judge each, compare all, check what is required, report.
"""

import argparse
import difflib
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from trainer import files
from trainer.compare.comparison import Run, compare
from trainer.compare.knobs import typed
from trainer.compare.results import Recommendation
from trainer.compare.sections import Section, compare_sections
from trainer.compare.why import signals
from trainer.judge.overfit import Verdict, judge
from trainer.language import translated
from trainer.read.configs import tuned_keys
from trainer.read.curves import Curves
from trainer.read.find_runs import Problems, find_runs
from trainer.read.numbers import number
from trainer.report.vocabulary import KINDS, PER_CLASS, VERDICTS
from trainer.text import printable, version

LISTS = ("groups", "effects", "differences", "interactions", "warnings")  # of a comparison
EXAMPLES = {  # option that names a file -> a name for it
    "json": "evaluation.json",
    "markdown": "evaluation.md",
    "latex": "evaluation.tex",
    "csv": "groups.csv",
    "junit": "junit.xml",
    "html": "report.html",
}
TEXTS = ("json", "markdown", "latex", "csv", "junit")  # of these, one may go to the standard output
HASHES = ("data_hash", "split_hash", "order_hash")  # of a run's provenance: what shows that a comparison is fair


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 where a requirement does not hold, or 2 for bad input or output."""
    options = _parser().parse_args(arguments)
    try:
        if problems := _target_problems(options):
            raise Problems(problems)
        if not options.paths:
            raise Problems(
                ["found no PATH, expected a run, a sweep or a folder above them: python -m trainer.evaluate outputs"]
            )
        evaluation, runs = evaluate(options.paths, options.train_tag, options.val_tag, options.tune)
        evaluation |= _required(evaluation, options)
        command = shlex.join(["python", "-m", "trainer.evaluate", *(sys.argv[1:] if arguments is None else arguments)])
        _report(evaluation, runs, options, command)
    except Problems as problems:
        _complain(problems.lines)
        return 2
    except OSError as error:
        _complain([str(error)])
        return 2
    return int(not all(one["passed"] for one in evaluation.get("requirements", [])))


def evaluate(
    paths: Iterable[str | os.PathLike[str]],
    train_tag: str | None = None,
    val_tag: str | None = None,
    tune: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[Curves]]:
    """Return the evaluation of all runs below `paths`, as docs/evaluate.md describes its JSON, and their curves.

    Raises ValueError, with what to type instead, where a path does not exist or holds no run.
    """
    paths = list(paths)
    runs, problems = find_runs(paths, train_tag, val_tag)
    if problems_of_keys := _unknown(tune or (), runs):
        raise Problems(problems_of_keys)
    sweeps = {folder: _sweep(folder) for folder in {Path(run.path).parent for run in runs}}
    tuned = {sweep: tuned_keys(Path(sweep)) for sweep in set(sweeps.values()) if sweep}
    judged = []
    for run in runs:
        sweep = sweeps[Path(run.path).parent]
        judged.append(_compared(run, _judged(run), sweep, tuned.get(sweep, ())))
    sections, apart = compare_sections(judged, tune)
    evaluation = {
        "paths": [os.fspath(path) for path in paths],
        "runs": [_entry(run, one) for run, one in zip(runs, judged, strict=True)],
        **_all(sections, apart),
        "problems": problems,
        "remarks": _remarks(runs),
    }
    return files.strict(evaluation), runs


def _all(sections: Sequence[Section], apart: Sequence[str]) -> dict[str, Any]:
    """Return the comparison of the only section; of several, everything that each says, and each on its own."""
    each = [section.found.to_json() for section in sections]
    sweeps: list[dict[str, Any]] = [{"name": one.name, "runs": [run.path for run in one.runs]} for one in sections]
    if len(each) == 1:
        return {**each[0], "sweeps": sweeps, "not_compared": list(apart)}
    sweeps = [{**sweep, **found} for sweep, found in zip(sweeps, each, strict=True)]
    whole = {key: [item for found in each for item in found[key]] for key in LISTS}
    text = " ".join(f"{section.name}: {section.found.answer.text}" for section in sections)
    sentence = f"no one recommendation: {len(each)} sweeps, each with its own"
    return {
        **compare([]).to_json(),
        **whole,
        "tests": sum(found["tests"] for found in each),
        "recommendation": vars(Recommendation(sentence)),
        "answer": {"text": text, "next": None},
        "sweeps": sweeps,
        "not_compared": list(apart),
    }


def _remarks(runs: Sequence[Curves]) -> list[str]:
    """Return what was chosen in reading the runs, each sentence once, with the runs that it is said of."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for remark in run.remarks:
            names.setdefault(remark, []).append(run.name)
    return [
        f"{', '.join(of[:3])}{f' and {len(of) - 3} more runs' if len(of) > 3 else ''}: {remark}"
        for remark, of in names.items()
    ]


def _judged(run: Curves) -> Verdict:
    chance_loss = number(run.recorded("start", "guessing_loss"))  # our runs know their targets
    curves = run.train_loss, run.val_loss, run.train_accuracy, run.val_accuracy, run.epochs
    return judge(*curves, chance_loss, run.unit)


def _compared(run: Curves, verdict: Verdict, sweep: str, tuned: tuple[str, ...]) -> Run:
    """Gather what compare takes from a run's verdict, curves and summary."""
    measures: dict[str, Any] = {key: verdict.evidence.get(key) for key in ("gap", "best_val_loss", "final_val_loss")}
    if run.val_accuracy is not None and np.isfinite(run.val_accuracy).any():
        measures["best_val_accuracy"] = np.nanmax(run.val_accuracy)
    for key in ("train_loss", "train_accuracy", "val_accuracy"):
        measures[f"final_{key}"] = _end(getattr(run, key))
    metrics = found if isinstance(found := run.recorded("metrics"), dict) else {}
    for key, curve in run.metrics.items():
        measures[f"final_{key}"] = _end(curve)
        if key.startswith("val_") and np.isfinite(curve).any():
            lower = metrics[key.removeprefix("val_")] == "lower"
            measures[f"best_{key}"] = np.nanmin(curve) if lower else np.nanmax(curve)
    for key in ("loss", "accuracy", *metrics):
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
        overrides=run.overrides,
        sweep=sweep,
        tuned=tuned,
        guessing_loss=number(run.recorded("start", "guessing_loss")),
        signals=signals(run.recorded("start"), run.recorded("final"), run.train_loss) if run.summary else {},
        val_loss=run.val_loss if run.summary else None,
        metrics={str(name): better != "lower" for name, better in metrics.items()},
    )


def _sweep(folder: Path) -> str:
    """Return the folder of the sweep that lies at a folder or up to two above it; "" where there is none."""
    marks = ("multirun.yaml", ".resume/plan.json")
    places = (folder, *folder.parents[:2])
    return next((str(place) for place in places if any((place / mark).exists() for mark in marks)), "")


def _unknown(keys: Iterable[str], runs: Sequence[Curves]) -> list[str]:
    """List what is wrong with the keys of --tune."""
    there = {key for run in runs for key in (*run.config, *typed(run.overrides or ()))}
    problems = []
    for key in keys:
        if key not in there:
            near = difflib.get_close_matches(key, there, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(f"--tune: found {key}, expected a key of the runs' configuration{hint}")
    return problems


def _end(curve: np.ndarray | None) -> float | None:
    """Return the mean of the last tenth of a curve, at least one epoch: what `final_val_loss` is of its own."""
    if curve is None or not len(curve):
        return None
    with np.errstate(all="ignore"):  # infinite and huge values are recorded too
        return float(curve[-max(1, len(curve) // 10) :].mean())


def _entry(run: Curves, compared: Run) -> dict[str, Any]:
    """Return one run's entry in `runs`."""
    health = run.recorded("health")
    per_class = _per_class(run.recorded("test", "best", "per_class"))
    names = run.recorded("class_names")
    class_names = [str(name) for name in names] if per_class and isinstance(names, list) else []
    return {
        "path": run.path,
        "name": run.name,
        "source": run.source,
        "unit": run.unit,
        "status": compared.status,
        **vars(compared.verdict),
        "measures": compared.measures,
        "health": health if isinstance(health, list) else [],
        "config": run.config,
        "notes": list(run.notes),
        **({"per_class": per_class} if per_class else {}),
        **({"class_names": class_names} if class_names else {}),
    }


def _per_class(found: Any) -> dict[str, list[float | None]]:
    """Return recall, precision and F1 of each class, as trainer.record.classes has them; empty where they are not."""
    if not isinstance(found, dict):
        return {}
    rows = {key: row for key in PER_CLASS if isinstance(row := found.get(key), list)}
    if len(rows) < len(PER_CLASS) or len({len(row) for row in rows.values()}) > 1:
        return {}
    return {key: [number(one) for one in row] for key, row in rows.items()}


def _target_problems(options: argparse.Namespace) -> list[str]:
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


def _required(evaluation: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the entry `requirements`, where something is required. Raises Problems where it cannot be tested."""
    from trainer.report import requirements

    runs = evaluation["runs"]
    found = [requirements.without_verdict(runs, verdict) for verdict in dict.fromkeys(options.fail_on)]
    bounds = [("--min", key, limit, True) for key, limit in options.min]
    bounds += [("--max", key, limit, False) for key, limit in options.max]
    bounds += [("--max-gap", "gap", options.max_gap, False)] if options.max_gap is not None else []
    for option, key, limit, at_least in bounds:
        try:
            found.append(requirements.within(runs, key, limit, at_least))
        except ValueError as error:
            raise Problems([f"{option}: {error}"]) from error
    if options.baseline is not None:
        baseline, _ = evaluate([options.baseline], options.train_tag, options.val_tag)
        try:
            found += requirements.against_baseline(evaluation, baseline)
        except ValueError as error:
            raise Problems([f"--baseline {options.baseline}: {error}"]) from error
    return {"requirements": files.strict([vars(one) for one in found])} if found else {}


def _report(evaluation: dict[str, Any], runs: Sequence[Curves], options: argparse.Namespace, command: str) -> None:
    """Write the files that were asked for, then print the tables: whatever becomes of these, the files are there."""
    from trainer.report import documents, html, junit, links, terminal  # rich, which bad input need not wait for

    make: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(evaluation, allow_nan=False),
        "markdown": lambda: documents.markdown(evaluation),
        "latex": lambda: documents.latex(evaluation, command),
        "csv": lambda: documents.csv_table(evaluation),
        "junit": lambda: junit.xml(evaluation),
    }
    texts = {target: make[name]() for name in TEXTS if (target := getattr(options, name))}
    page = Path(os.path.realpath(options.html)) if options.html else None
    if page:
        texts[options.html] = html.page(evaluation, runs, page.parent, command)
    pictures: dict[str, bytes] = {}
    if options.figures:
        from trainer.report import figures  # matplotlib

        pictures = figures.figures(evaluation, runs)
    for target, text in texts.items():
        if target != "-" or target == options.html:
            _write(Path(os.path.realpath(target)), text)
    if options.figures:
        _write_figures(Path(options.figures), pictures)
    if options.tensorboard:
        links.link(evaluation, Path(options.tensorboard))
    if alone := any(getattr(options, name) == "-" for name in TEXTS):
        with _output(sys.stdout) as out:
            print(texts["-"].removesuffix("\n"), file=out)
    with _output(sys.stderr if alone else sys.stdout) as printed:
        terminal.print_tables(evaluation, printed)
        if page:
            print(f"{translated('report:')} {page.as_uri()}", file=printed)
        if options.tensorboard:
            print(f"curves: tensorboard --logdir {shlex.quote(options.tensorboard)}", file=printed)


def _write_figures(folder: Path, pictures: dict[str, bytes]) -> None:
    """Write figures into a folder, which is made. Raises Problems."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Problems([f"{folder}: cannot be made: {error.strerror}"]) from error
    for name, content in pictures.items():
        _write(folder / name, content)


def _write(path: Path, text: str | bytes) -> None:
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
            print(printable(translated(line)), file=errors)


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


def _parser() -> argparse.ArgumentParser:
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
    write("--tensorboard", metavar="DIR", help="links to the runs, named by what was swept: tensorboard --logdir DIR")
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
