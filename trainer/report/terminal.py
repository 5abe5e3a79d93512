"""The evaluation on a terminal: what to use, what each knob does, the groups, the runs."""

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from trainer.judge import health
from trainer.report import html
from trainer.report.html import NO_KNOB, VERDICTS, advice, knob_names, short_names

_MOST_ROWS = 30  # of a table: what is interesting first, the rest in the report
_FEW = 5  # so few runs are told in sentences too
_COLOURS = {"overfit": "red", "diverged": "magenta", "underfit": "yellow", "too_short": "dim", "healthy": "green"}
_MEASURES = {"best_val_loss": "best val", "final_val_loss": "last val", "gap": "gap", "test_loss": "test loss"}
_MEASURES |= {"test_accuracy": "test acc."}  # where there is one, the test loss is left to the report


def print_tables(evaluation: dict[str, Any], file: TextIO) -> None:
    """Runs, groups, effects, warnings and the recommendation last, where the eye is when the command ends."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width to keep to
    knobs, runs, groups = knob_names(evaluation), evaluation["runs"], evaluation["groups"]
    levels = {path: group["knobs"] for group in groups for path in group["runs"]}
    measures = _measures([run["measures"] for run in runs])
    console.print(_fitting(console, lambda kept: _runs(runs, levels, knobs, kept), measures))
    counts = ", ".join(f"{n} {v}" for v in VERDICTS if (n := sum(run["verdict"] == v for run in runs)))
    hidden = f"; the other {len(runs) - _MOST_ROWS} are in --html and --json" if len(runs) > _MOST_ROWS else ""
    console.print(f"{len(runs)} run{'s' * (len(runs) != 1)}: {counts}{hidden}\n", style="bold")
    if len(runs) <= _FEW:
        for run in runs:
            console.print(_sentence(f"{run['name']}: {run['sentence']}", _COLOURS[run["verdict"]]))
    for said in _findings(runs):
        console.print(_sentence(said, "red"))
    if 1 < len(groups) < len(runs):
        measures = _measures([group["measures"] for group in groups])
        console.print(_fitting(console, lambda kept: _groups(groups, kept), measures))
        console.print()
    for item in evaluation["effects"]:
        if item["knob"] != NO_KNOB:
            console.print(_sentence(item["sentence"], "bold" if item["claimed"] else "dim"))
    for item in evaluation["interactions"]:
        if item["claimed"]:
            console.print(_sentence(item["sentence"], "bold"))
    recommendation, warnings = advice(evaluation)
    for warning in warnings:
        console.print(_sentence(f"warning: {warning}", "yellow"))
    for problem in evaluation["problems"][:10]:
        console.print(_sentence(f"left out: {problem}", "yellow"))
    if len(evaluation["problems"]) > 10:
        console.print(f"and {len(evaluation['problems']) - 10} more like these", style="yellow")
    if recommendation:
        console.print(_sentence(recommendation, "bold green"))


def _findings(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with gradients and activations: in full for a few runs, else how many runs have each finding."""
    if len(runs) > _FEW:
        return health.in_runs(runs)
    return [f"{run['name']}: {html.health_sentence(finding)}" for run in runs for finding in run["health"]]


def _table(columns: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(title, overflow="ellipsis", no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _fitting(console: Console, build: Callable[[list[str]], Table], measures: list[str]) -> Table:
    """The table with as many measures as the terminal has room for; the gap goes last."""
    spare = [key for key in ("final_val_loss", "best_val_loss", "test_loss", "test_accuracy") if key in measures]
    wide = console.options.update(width=10_000)
    while spare and Measurement.get(console, wide, build(measures)).maximum > console.width:
        measures = [key for key in measures if key != spare[0]]
        spare = spare[1:]
    return build(measures)


def _runs(
    runs: Sequence[dict[str, Any]], levels: dict[str, dict[str, Any]], knobs: Sequence[str], measures: Sequence[str]
) -> Table:
    odd = any(run["status"] not in (None, "completed") for run in runs)
    columns = ["run", *short_names(knobs), *(["status"] if odd else []), "verdict"]
    table = _table(columns, ["best", "onset", *(_MEASURES[key] for key in measures)])
    for run in sorted(runs, key=_rank)[:_MOST_ROWS]:
        own = {"seed": run["config"].get("seed")} | levels.get(run["path"], {})
        table.add_row(
            _text(run["name"]),
            *(_level(own.get(knob)) for knob in knobs),
            *([_text(run["status"])] if odd else []),
            Text(run["verdict"].replace("_", " "), _COLOURS[run["verdict"]]),
            _text(run["best_epoch"]),
            _text(run["onset"]),
            *(_text(run["measures"].get(key)) for key in measures),
        )
    return table


def _groups(groups: Sequence[dict[str, Any]], measures: Sequence[str]) -> Table:
    knobs = list(groups[0]["knobs"])
    table = _table(short_names(knobs), ["n", "overfit", *(_MEASURES[key] for key in measures)])
    ranked = sorted(groups, key=lambda group: -((group["measures"].get("gap") or {}).get("mean") or 0.0))
    for group in ranked[:_MOST_ROWS]:
        table.add_row(
            *(_level(group["knobs"][knob]) for knob in knobs),
            str(group["n"]),
            f"{group['verdicts'].get('overfit', 0)} of {group['n']}",
            *(_interval(group["measures"].get(key)) for key in measures),
        )
    table.caption = "mean over seeds ± half of the 95 % t interval"
    table.caption_justify = "left"
    return table


def _measures(found: Sequence[dict[str, Any]]) -> list[str]:
    there = [key for key in _MEASURES if any(key in measures for measures in found)]
    return [key for key in there if key != "test_loss" or "test_accuracy" not in there]


def _interval(cell: dict[str, Any] | None) -> str:
    if not cell or cell["mean"] is None:
        return ""
    if cell["low"] is None or not isinstance(cell["high"], float):
        return f"{cell['mean']:.3g}"
    return f"{cell['mean']:.3g} ±{(cell['high'] - cell['low']) / 2:.2g}"


def _rank(run: dict[str, Any]) -> tuple[int, float]:
    gap = run["measures"].get("gap")
    return VERDICTS.index(run["verdict"]), -float(gap) if gap is not None else 0.0


def _level(value: Any) -> Text:
    return _text(f"{value:g}" if isinstance(value, float) else value)


def _sentence(text: str, style: str) -> Text:
    return Text(_printable(text), style)


def _text(value: Any) -> Text:
    if isinstance(value, float):
        value = int(value) if value.is_integer() else f"{value:#.4g}"
    return Text(_printable("" if value is None else str(value)))


def _printable(text: str) -> str:
    """Without control characters: a file's name could hold commands for the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
