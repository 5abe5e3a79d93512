"""Print an evaluation on a terminal: the runs, the groups, what each knob does, what to use."""

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from trainer.compare.groups import label
from trainer.report import vocabulary
from trainer.report.vocabulary import INTERVAL, MEASURES, NO_KNOB, STYLES, VERDICTS, mean_cell, number, plural
from trainer.text import printable

_MOST_ROWS = 30  # of a table: what is interesting first, the rest in the report
_MOST_PROBLEMS = 10
_FEW = 5  # up to this many runs are described in sentences too
_SHOWN = ("best_val_loss", "final_val_loss", "gap", "test_loss", "test_accuracy")  # the columns, where there is room
_SPARED = ("final_val_loss", "best_val_loss", "test_loss", "test_accuracy")  # left out in this order, the gap never


def print_tables(evaluation: dict[str, Any], file: TextIO) -> None:
    """Print runs, groups, effects and warnings; the recommendation last, where the eye is when the command ends."""
    console = _Screen(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width to fit
    say = console.print
    knobs, runs, groups = vocabulary.knob_names(evaluation), evaluation["runs"], evaluation["groups"]
    levels = {path: group["knobs"] for group in groups for path in group["runs"]}
    console.print(_fitting(console, runs, lambda measures: _runs(runs, levels, knobs, measures)))
    counts = vocabulary.counted(run["verdict"] for run in runs)
    hidden = f"; the other {len(runs) - _MOST_ROWS} are in --html and --json" if len(runs) > _MOST_ROWS else ""
    say(f"{plural(len(runs), 'run')}: {counts}{hidden}", style="bold")
    console.print()
    if len(runs) <= _FEW:
        for run in runs:
            say(f"{run['name']}: {run['sentence']}", style=STYLES[run["verdict"]].terminal)
    for line in _findings(runs):
        say(line, style="red")
    if 1 < len(groups) < len(runs):
        console.print(_fitting(console, groups, lambda measures: _groups(groups, measures)))
        console.print()
    for effect in evaluation["effects"]:
        if effect["knob"] != NO_KNOB:
            say(effect["sentence"], style="bold" if effect["claimed"] else "dim")
    for interaction in evaluation["interactions"]:
        if interaction["claimed"]:
            say(interaction["sentence"], style="bold")
    recommendation, warnings = vocabulary.advice(evaluation)
    problems = evaluation["problems"]
    for line in [
        *(f"warning: {text}" for text in warnings),
        *(f"left out: {text}" for text in problems[:_MOST_PROBLEMS]),
    ]:
        say(line, style="yellow")
    if len(problems) > _MOST_PROBLEMS:
        say(f"and {len(problems) - _MOST_PROBLEMS} more like these", style="yellow")
    if recommendation:
        say(recommendation, style="bold")


class _Screen(Console):
    """A console that takes words for words: names from files can neither command the terminal nor begin a line."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Turn a string that is printed, or stands in a table, into text."""
        return super().render_str(printable(text), **how)

    def on_broken_pipe(self) -> None:
        """Let the error through, as of any other output that takes no more; rich would leave with exit code 1."""
        raise


def _findings(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Say what is wrong with gradients and activations: in full for a few runs, else which runs have which finding."""
    if len(runs) > _FEW:
        return vocabulary.findings_by_kind(runs)
    return [f"{run['name']}: {vocabulary.finding(item)}" for run in runs for item in run["health"]]


def _fitting(console: Console, items: Sequence[dict[str, Any]], build: Callable[[list[str]], Table]) -> Table:
    """Build the table with as many of the items' measures as the terminal has room for."""
    measures = [name for name in _SHOWN if any(name in item["measures"] for item in items)]
    if "test_accuracy" in measures and "test_loss" in measures:
        measures.remove("test_loss")
    wide = console.options.update(width=10_000)
    for spared in _SPARED:
        if Measurement.get(console, wide, build(measures)).maximum <= console.width:
            break
        measures = [name for name in measures if name != spared]
    return build(measures)


def _table(columns: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(title, overflow="ellipsis", no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _runs(
    runs: Sequence[dict[str, Any]], levels: dict[str, dict[str, Any]], knobs: Sequence[str], measures: Sequence[str]
) -> Table:
    odd = any(run["status"] not in (None, "completed") for run in runs)
    columns = ["run", *vocabulary.short_names(knobs), *(["status"] if odd else []), "verdict"]
    table = _table(columns, ["best", "onset", *(MEASURES[name].short for name in measures)])
    for run in sorted(runs, key=_rank)[:_MOST_ROWS]:
        own = {"seed": run["config"].get("seed")} | levels.get(run["path"], {})
        verdict = run["verdict"]
        table.add_row(
            _text(run["name"]),
            *(_text(own.get(knob)) for knob in knobs),
            *([_text(run["status"])] if odd else []),
            Text(vocabulary.spelled(verdict), STYLES[verdict].terminal),
            _text(run["best_epoch"]),
            _text(run["onset"]),
            *(number(run["measures"].get(name), name) for name in measures),
        )
    return table


def _groups(groups: Sequence[dict[str, Any]], measures: Sequence[str]) -> Table:
    knobs = list(groups[0]["knobs"])
    table = _table(vocabulary.short_names(knobs), ["n", "overfit", *(MEASURES[name].short for name in measures)])
    ranked = sorted(groups, key=lambda group: -((group["measures"].get("gap") or {}).get("mean") or 0.0))
    for group in ranked[:_MOST_ROWS]:
        table.add_row(
            *(_text(group["knobs"][knob]) for knob in knobs),
            str(group["n"]),
            f"{group['verdicts'].get('overfit', 0)} of {group['n']}",
            *(_mean(group["measures"].get(name), name) for name in measures),
        )
    table.caption = INTERVAL
    table.caption_justify = "left"
    return table


def _mean(estimate: dict[str, Any] | None, name: str) -> str:
    if not estimate:
        return ""
    low, high = estimate["low"], estimate["high"]
    half = (high - low) / 2 if isinstance(low, float) and isinstance(high, float) else None
    return mean_cell(estimate["mean"], half, name)


def _rank(run: dict[str, Any]) -> tuple[int, float]:
    gap = run["measures"].get("gap")
    return VERDICTS.index(run["verdict"]), -float(gap) if gap is not None else 0.0


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1000000, not 1e+06: other tools count steps
    return "" if value is None else label(value)
