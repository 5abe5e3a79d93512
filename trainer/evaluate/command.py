"""The command: options, evaluation, what is required of it, files, then the tables."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from trainer import files
from trainer.evaluate.evaluation import evaluate
from trainer.evaluate.options import TEXTS, parser, target_problems
from trainer.language import translated
from trainer.read.curves import Curves
from trainer.read.find_runs import Problems
from trainer.text import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 where a requirement does not hold, or 2 for bad input or output."""
    options = parser().parse_args(arguments)
    try:
        if problems := target_problems(options):
            raise Problems(problems)
        if not options.paths:
            raise Problems(
                ["found no PATH, expected a run, a sweep or a folder above them: python -m trainer.evaluate outputs"]
            )
        evaluation, runs = evaluate(options.paths, options.train_tag, options.val_tag, options.tune)
        evaluation |= _required(evaluation, options)
        command = shlex.join(["python", "-m", "trainer.evaluate", *(sys.argv[1:] if arguments is None else arguments)])
        _report(evaluation, runs, options, command)
        if options.tensorboard == "":
            _show_curves(evaluation)
    except Problems as problems:
        _complain(problems.lines)
        return 2
    except OSError as error:
        _complain([str(error)])
        return 2
    return int(not all(one["passed"] for one in evaluation.get("requirements", [])))


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


def _show_curves(evaluation: dict[str, Any]) -> None:
    """Show the runs in TensorBoard, named by what was swept, until a signal. Raises OSError where no port is free."""
    from tensorboard import program

    from trainer.report import links

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a background shell's command ignores the first
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="curves-") as folder, suppress(KeyboardInterrupt):
        links.link(evaluation, Path(folder))
        board = program.TensorBoard()
        board.configure(argv=["", "--logdir", folder])
        try:
            print(f"{translated('curves, until Ctrl-C:')} {links.address(board.launch())}", flush=True)
        except program.TensorBoardServerException as error:
            raise OSError(f"TensorBoard: {error.msg}") from error
        threading.Event().wait()


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
