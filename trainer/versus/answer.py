"""The answer of a comparison: each group at its best setting, as the final runs show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.table import Table

from trainer.language import translated
from trainer.report import tables, vocabulary
from trainer.report.screen import fitting, screen
from trainer.report.vocabulary import MEASURES
from trainer.text import plural, printable
from trainer.versus.comparison import Comparison


def show(comparison: Comparison, evaluation: Mapping[str, Any], file: TextIO) -> None:
    """Print a row for each group: what was chosen, from how many runs, and what fresh seeds came to."""
    console = screen(file)
    console.print(fitting(console, _table(comparison, evaluation), ["verdicts", "tuned by", "runs"]))
    console.print(translated(f"each group at its best setting; {vocabulary.INTERVAL}"), soft_wrap=True, style="dim")
    for line in _edges(comparison):
        console.print(translated(line), soft_wrap=True, style="yellow")


def _table(comparison: Comparison, evaluation: Mapping[str, Any]) -> Table:
    request = comparison.request
    groups = [_group(comparison, evaluation, index) for index in range(len(request.groups))]
    test = "test_accuracy" if any("test_accuracy" in group["measures"] for group in groups) else "test_loss"
    shown = ["best_val_loss", test]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in vocabulary.short_names(request.compared):
        table.add_column(printable(title), no_wrap=True)
    for title in (*vocabulary.short_names(list(request.grids)), "tuned by", "runs"):
        table.add_column(printable(translated(title)), justify="right", no_wrap=True)
    for name in shown:
        table.add_column(translated(MEASURES[name].short), justify="right", no_wrap=True)
    table.add_column(translated("verdicts"), no_wrap=True)
    for index, (overrides, group) in enumerate(zip(request.groups, groups, strict=True)):
        race = comparison.races[index]
        edges = {key for key, _ in race.edges(race.best.values)}
        levels = [request.levels(overrides).get(key, "").partition("=")[2] for key in request.compared]
        chosen = [f"{value}{' (edge)' * (key in edges)}" for key, value in race.best.values.items()]
        table.add_row(
            *map(printable, [*levels, *chosen]),
            translated(plural(race.runs, "run")),
            _counted(len(comparison.final[index]), [group["measures"].get(name) for name in shown]),
            *(tables.estimate(group["measures"].get(name), name) for name in shown),
            vocabulary.counted(group["verdicts"]),
        )
    return table


def _group(comparison: Comparison, evaluation: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Find the evaluation's group of some final runs, with the verdict of each run."""
    paths = {Path(job.directory).resolve() for job in comparison.final[index]}
    runs = [run for run in evaluation["runs"] if Path(run["path"]).resolve() in paths]
    measures: dict[str, Any] = {}
    for group in evaluation["groups"]:
        if any(Path(path).resolve() in paths for path in group["runs"]):
            measures = group["measures"]
    return {"measures": measures, "verdicts": [vocabulary.called_verdict(run) for run in runs]}


def _edges(comparison: Comparison) -> Sequence[str]:
    """Say where a best setting is at the edge of what was tried: a better one may lie beyond."""
    out = []
    for overrides, race in zip(comparison.request.groups, comparison.races, strict=True):
        for key, is_upper in race.edges(race.best.values):
            side = "largest" if is_upper else "smallest"
            beyond = "" if not race.widenings else f", also after {plural(len(race.widenings), 'widening')}"
            name = comparison.request.name(overrides)
            out.append(f"warning: {name}: its best {key}={race.best.values[key]} is the {side} that was tried{beyond}; "
                       "a better one may lie beyond")  # fmt: skip
    return out


def _counted(runs: int, estimates: Sequence[Mapping[str, Any] | None]) -> str:
    """Write how many final runs there are, and how many of them the means are of: not those that diverged or failed."""
    counted = min((estimate["n"] for estimate in estimates if estimate), default=0)
    return str(runs) if counted == runs else translated("{a} of {b}").format(a=counted, b=runs)
