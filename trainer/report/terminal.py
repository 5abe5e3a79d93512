"""Print an evaluation on a terminal: the answer, warnings, the runs, the groups, what each knob does."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.compare.keys import NO_KNOB
from trainer.language import translated
from trainer.report import tables, vocabulary
from trainer.report.screen import fits, fitting, screen
from trainer.report.tables import cell
from trainer.report.vocabulary import STYLES, VERDICTS, number
from trainer.text import cut, plural

_MOST_ROWS = 30  # of a table: what is interesting first, the rest in the report
_MOST_PROBLEMS = 10
_LONGEST = 24  # name in the table of effects
_FEW = 5  # up to this many runs are described in sentences too
_LAST = ("final_test_loss", "final_test_accuracy", "final_train_accuracy")
_SHOWN = ("best_val_loss", "final_val_loss", "gap", "test_loss", "test_accuracy", *_LAST)  # where there is room
_SPARED = (*_LAST[::-1], "final_val_loss", "best_val_loss")  # in this order, then metrics, test loss and accuracy


def print_tables(evaluation: Mapping[str, Any], file: TextIO) -> None:
    """Print the answer, then what speaks against it, then the tables; of several sweeps, each under its name.

    Last, where the eye is when a command fails, what was required.
    """
    console = screen(file)
    _print_answer(console, vocabulary.overview(evaluation), evaluation["problems"], evaluation.get("remarks", []))
    for part in vocabulary.parts(evaluation):
        if part is not evaluation:
            console.print(translated(part["name"]), style="bold underline")
            _print_answer(console, vocabulary.advice(part))
        _print_part(console, part)
    for one in evaluation.get("requirements", []):
        console.print(translated(f"required: {one['sentence']}"), style="green" if one["passed"] else "bold red")


def _print_answer(
    console: Console, advice: vocabulary.Advice, problems: Sequence[str] = (), remarks: Sequence[str] = ()
) -> None:
    """Print what can be quoted, the command to run next, the reasons to doubt it, and how what was read was taken."""
    text, command, warnings, lines = advice
    for line in lines:
        console.print(translated(line), style="bold")
    if command:
        console.print(f"{translated('next:')} {command}", soft_wrap=True)  # to be copied whole
    for line in [
        *(f"warning: {warning}" for warning in warnings),
        *(f"left out: {problem}" for problem in problems[:_MOST_PROBLEMS]),
    ]:
        console.print(translated(line), style="yellow")
    if len(problems) > _MOST_PROBLEMS:
        console.print(translated(f"and {len(problems) - _MOST_PROBLEMS} more like these"), style="yellow")
    for line in remarks[:_MOST_PROBLEMS]:
        console.print(translated(f"read: {line}"), style="cyan")
    if len(remarks) > _MOST_PROBLEMS:
        console.print(translated(f"and {len(remarks) - _MOST_PROBLEMS} more like these, in --json"), style="cyan")
    if text or command or warnings or problems or remarks:
        console.print()


def _print_part(console: Console, part: Mapping[str, Any]) -> None:
    """Print the runs with what is wrong with them, the groups, and what each knob does."""
    say = console.print
    knobs, runs, groups = vocabulary.knob_names(part), part["runs"], part["groups"]
    levels = {path: group["knobs"] for group in groups for path in group["runs"]}
    say(fitting(console, _runs(runs, levels, knobs), _spared(runs, vocabulary.short_names(knobs))))
    counts = vocabulary.counted(run["verdict"] for run in runs)
    hidden = f"; the other {len(runs) - _MOST_ROWS} are in --html and --json" if len(runs) > _MOST_ROWS else ""
    say(translated(f"{plural(len(runs), 'run')}: {counts}{hidden}"), style="bold")
    if len(runs) <= _FEW:
        for run in runs:
            say(f"{run['name']}: {vocabulary.reason(run)}", style=STYLES[run["verdict"]].terminal)
    for line in _findings(runs):
        say(translated(line), style="red")
    say()
    compared = tables.compared(part)
    if 0 < len(compared) < len(runs):
        say(fitting(console, _groups(part, compared), _spared(compared, ["overfit", "failed"])))
        say(translated(tables.caption(part)), style="dim")
        say()
    effects = [effect for effect in part["effects"] if effect["knob"] != NO_KNOB]
    if any(vocabulary.largest(effect) for effect in effects):
        say(_fitting_effects(console, effects))
        if len(_contrasts(effects)) > _MOST_ROWS:
            say(translated("more in --html and --json"), style="dim")
        say()
    said = (vocabulary.advice(part).text or "").lower()
    shapes = [shape["sentence"] for effect in effects if (shape := effect.get("shape"))]
    for sentence in [*shapes, *(one["sentence"] for one in part["interactions"] if one["claimed"])]:
        if sentence and sentence.lower() not in said:
            say(translated(sentence), style="bold")
    for effect in effects:
        if beside := effect.get("why"):
            say(translated(vocabulary.beside(effect)), style="bold")
            for one in beside:
                say(f"- {translated(one['sentence'])}")


def _findings(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what is wrong with gradients and activations: in full for a few runs, else which runs have which finding."""
    if len(runs) > _FEW:
        return vocabulary.findings_by_kind(runs)
    return [f"{run['name']}: {vocabulary.finding(item)}" for run in runs for item in run["health"]]


def _measures(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the measures of some runs or groups that are shown where there is room."""
    measures = [name for name in _SHOWN if any(name in item["measures"] for item in items)]
    measures += tables.metrics(items)
    if "test_accuracy" in measures:
        return [name for name in measures if not name.endswith("test_loss")]
    return measures


def _spared(items: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """List the titles of columns that a narrow terminal goes without, the first to go first; the gap never goes.

    names: of knobs, the last of which go first when no measure is left.
    """
    spared = (*_SPARED, *tables.metrics(items)[::-1], "test_loss", "test_accuracy")
    return [*(vocabulary.called(name).short for name in spared), "onset", "best", *names[::-1]]


def _table(columns: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(translated(title), overflow="fold")
    for title in numbers:
        table.add_column(translated(title), justify="right", no_wrap=True)
    return table


def _runs(
    runs: Sequence[Mapping[str, Any]],
    levels: Mapping[str, dict[str, Any]],
    knobs: Sequence[str],
) -> Table:
    measures = _measures(runs)
    odd = any(run["status"] not in (None, "completed") for run in runs)
    columns = ["run", *vocabulary.short_names(knobs), *(["status"] if odd else []), "verdict"]
    onset = ["onset"] if any(run["onset"] is not None for run in runs) else []
    table = _table(columns, ["best", *onset, *(vocabulary.called(name).short for name in measures)])
    for run in sorted(runs, key=_rank)[:_MOST_ROWS]:
        own = {"seed": run["config"].get("seed")} | levels.get(run["path"], {})
        verdict = run["verdict"]
        table.add_row(
            cell(run["name"]),
            *(cell(own.get(knob)) for knob in knobs),
            *([translated(cell(run["status"]))] if odd else []),
            Text(vocabulary.judged(run), STYLES[verdict].terminal),
            cell(run["best_epoch"]),
            *(cell(run[name]) for name in onset),
            *(number(run["measures"].get(name), name) for name in measures),
        )
    return table


def _groups(part: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> Table:
    laid = tables.table(tables.ranked(part, groups)[:_MOST_ROWS], _measures(groups))
    table = _table(laid.names, laid.numbers)
    for row in laid.rows:
        table.add_row(*map(_worded, row))
    return table


def _worded(text: str) -> str:
    """Write a cell in the reader's language, where it is a count such as 4 of 5."""
    found = re.fullmatch(r"(?P<a>\d+) of (?P<b>\d+)", text)
    return translated("{a} of {b}").format_map(found.groupdict()) if found else text


def _fitting_effects(console: Console, effects: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out what each knob does; over all alone, with short names, at last to one measure, as there is room."""
    spared = ["n", "95 % interval", "p"]
    table = fitting(console, _effects(effects), spared)
    if fits(console, table):
        return table
    knobs = list(dict.fromkeys(effect["knob"] for effect in effects))
    names = dict(zip(knobs, vocabulary.short_names(knobs), strict=True))
    alone = [{**effect, "knob": names[effect["knob"]], "simple": []} for effect in effects]
    table = fitting(console, _effects(alone), spared)
    if fits(console, table):
        return table
    first = alone[0]["measure"]
    table = fitting(console, _effects([one for one in alone if one["measure"] == first]), [*spared, "measure"])
    for column in table.columns:
        if column.header == translated("difference"):
            column.header = translated(vocabulary.called(first).short)
    return table


def _effects(effects: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out what each knob does: over all, then at each level of another; the claimed in bold."""
    table = _table(["measure", "knob", "", ""], ["difference", "95 % interval", "n", "p"])
    table.add_column("", no_wrap=True)
    for knob, at, one in _contrasts(effects)[:_MOST_ROWS]:
        measure = one["measure"]
        low, high = (vocabulary.difference(one[end], measure).removesuffix(" points") for end in ("low", "high"))
        table.add_row(
            translated(vocabulary.called(measure).short) if at is None else "",
            knob,
            f"{cut(cell(one['a']) or 'null', _LONGEST)} − {cut(cell(one['b']) or 'null', _LONGEST)}",
            "" if at is None else translated(f"at {cut(at, _LONGEST)}"),
            translated(vocabulary.difference(one["difference"], measure)),
            f"{low} {translated('to')} {high}" if low else "",
            str(one["n"]),
            "" if one["p_adjusted"] is None else f"{one['p_adjusted']:.2g}",
            translated(one["answer"]),
            style="bold" if one["claimed"] else "dim",
        )
    return table


def _contrasts(effects: Sequence[Mapping[str, Any]]) -> list[tuple[str, str | None, Mapping[str, Any]]]:
    """List (knob, level of another knob or None, its largest difference); the knob is named once."""
    return [
        (effect["knob"] if at is None else "", at, one)
        for effect in effects
        for at, found in [(None, effect), *((simple["at"], simple) for simple in effect.get("simple") or [])]
        if (one := vocabulary.largest(found))
    ]


def _rank(run: Mapping[str, Any]) -> tuple[int, float]:
    gap = run["measures"].get("gap")
    return VERDICTS.index(run["verdict"]), -float(gap) if gap is not None else 0.0
