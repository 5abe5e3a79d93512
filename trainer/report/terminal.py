"""Print an evaluation on a terminal: the answer, warnings, the runs, the groups, what each knob does."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.compare.keys import NO_KNOB
from trainer.compare.words import span
from trainer.language import translated
from trainer.report import tables, vocabulary
from trainer.report.screen import fits, fitting, screen
from trainer.report.tables import cell
from trainer.report.vocabulary import STYLES, VERDICTS, number
from trainer.text import cut, few, merged, plural

_MOST_ROWS = 30  # of a table: what is interesting first, the rest in the report
_MOST_PROBLEMS = 10
_LONGEST = 26  # name in the table of effects
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
    text, command, warnings = advice.text, advice.command, advice.warnings
    for line in advice.lines:
        console.print(translated(line), style="bold")
    if command:
        console.print(f"{translated(advice.next)} {command}", soft_wrap=True)  # to be copied whole
    problems = merged(problems)
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
    knobs, runs, groups = vocabulary.knob_names(part), tables.by_group(part), part["groups"]
    answer = vocabulary.advice(part).text or ""
    levels = {path: group["knobs"] for group in groups for path in group["runs"]}
    deciding = (part.get("recommendation") or {}).get("criterion")
    spared = [*_spared(runs), "onset", vocabulary.best_at(runs), *vocabulary.short_names(knobs)[::-1]]
    say(fitting(console, _runs(runs, levels, knobs, _measures(runs, deciding)), spared))
    called = [vocabulary.called_verdict(run) for run in runs]
    counts = vocabulary.counted(called)
    if vocabulary.DOUBTFUL in called:
        counts += f" ({translated('healthy curves, but of a run with findings or that has learned little')})"
    hidden = ""
    if len(runs) > _MOST_ROWS:
        hidden = "; above are those with the worst verdicts" * (len({*called}) > 1)
        hidden += f"; the other {len(runs) - _MOST_ROWS} are in --html and --json"
    say(translated(f"{plural(len(runs), 'run')}: {counts}{hidden}"), style="bold")
    if len(runs) <= _FEW:
        reasons = {vocabulary.reason(run): run["verdict"] for run in runs if run["sentence"] not in answer}
        for reason, verdict in reasons.items():
            names = few(run["name"] for run in runs if vocabulary.reason(run) == reason)
            say(f"{names}: {reason}", style=STYLES[verdict].terminal)
    if any((run["evidence"].get("epochs") or 0) >= 20 for run in runs):
        say(translated("last val and gap are means of the last tenth of the epochs"), style="dim")
    for line in _findings(runs):
        say(translated(line), style="red")
    say()
    compared = tables.compared(part)
    if 0 < len(compared) < len(runs):
        say(
            fitting(
                console,
                _groups(part, compared, _measures(compared, deciding)),
                [*_spared(compared), "failed", "overfit"],
            )
        )
        say(translated(tables.caption(part)), style="dim")
        say()
    effects = [
        effect
        | {"crossed": _crossed(effect, part["interactions"]), "depends": vocabulary.depends(part, effect)}
        | {"told": vocabulary.told(effect, effect["measure"] == deciding)}
        for effect in part["effects"]
        if effect["knob"] != NO_KNOB
    ]
    if any(vocabulary.largest(effect) for effect in effects):
        say(_fitting_effects(console, effects))
        if len(_contrasts(effects)) > _MOST_ROWS:
            say(translated("more in --html and --json"), style="dim")
        if note := tables.noise(part):
            say(translated(note), style="dim")
        say()
    shapes = [shape["sentence"] for effect in effects if (shape := effect.get("shape"))]
    for sentence in [*shapes, *(one["sentence"] for one in part["interactions"] if one["claimed"])]:
        if sentence and sentence.lower() not in answer.lower():
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
    return merged(f"{run['name']}: {vocabulary.finding(item)}" for run in runs for item in run["health"])


def _measures(items: Sequence[Mapping[str, Any]], deciding: str | None) -> list[str]:
    """List the measures of some runs or groups that are shown where there is room, the one that decides among them."""
    shown = _SHOWN if deciding is None or deciding in _SHOWN else (deciding, *_SHOWN)
    measures = [name for name in shown if any(name in item["measures"] for item in items)]
    measures += tables.metrics(items)
    if "test_accuracy" in measures:
        return [name for name in measures if not name.endswith("test_loss")]
    return measures


def _spared(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the titles of measures that a narrow terminal goes without, the first to go first; the gap never goes."""
    spared = (*_SPARED, *tables.metrics(items)[::-1], "test_loss", "test_accuracy")
    return [vocabulary.called(name).short for name in spared]


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
    measures: Sequence[str],
) -> Table:
    """Lay out runs in the order given; of many those with the worst verdicts."""
    odd = any(run["status"] not in (None, "completed") for run in runs)
    columns = ["run", *vocabulary.short_names(knobs), *(["status"] if odd else []), "verdict"]
    onset = ["onset"] if any(run["onset"] is not None for run in runs) else []
    table = _table(columns, [vocabulary.best_at(runs), *onset, *(vocabulary.called(name).short for name in measures)])
    worst = {run["path"] for run in sorted(runs, key=_rank)[:_MOST_ROWS]}
    for run in (run for run in runs if run["path"] in worst):
        own = {"seed": run["config"].get("seed")} | levels.get(run["path"], {})
        verdict = run["verdict"]
        table.add_row(
            cell(run["name"]),
            *(tables.level(own, knob) for knob in knobs),
            *([translated(cell(run["status"]))] if odd else []),
            Text(vocabulary.judged(run), STYLES[verdict].terminal),
            cell(run["best_epoch"]),
            *(cell(run[name]) for name in onset),
            *(number(run["measures"].get(name), name) for name in measures),
        )
    return table


def _groups(part: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> Table:
    laid = tables.table(tables.ranked(part, groups)[:_MOST_ROWS], measures)
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
    spared = ["n", "p", "95 % interval", "corrected p"]
    table = fitting(console, _effects(effects), spared)
    if fits(console, table):
        return table
    knobs = list(dict.fromkeys(effect["knob"] for effect in effects))
    names = dict(zip(knobs, vocabulary.short_names(knobs), strict=True))
    alone = [{**effect, "knob": names[effect["knob"]], "simple": [], "crossed": []} for effect in effects]
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
    """Lay out what each knob does: over all, at each level of another, whether these differ; the claimed in bold."""
    table = _table(["measure", "knob", "", ""], ["difference", "95 % interval", "n", "p", "corrected p"])
    table.add_column("", no_wrap=True)
    for knob, levels, place, one in _contrasts(effects)[:_MOST_ROWS]:
        measure = one["measure"]
        low, high = (vocabulary.difference(one[end], measure).removesuffix(" points") for end in ("low", "high"))
        table.add_row(
            translated(vocabulary.called(measure).short) if knob else "",
            knob,
            " − ".join(cut(cell(level) or "null", _LONGEST) for level in levels),
            place,
            translated(vocabulary.difference(one["difference"], measure)),
            span(low, high, f" {translated('to')} "),
            str(one["n"]),
            vocabulary.small(one["p"]),
            vocabulary.small(one["p_adjusted"]),
            translated(one["answer"]),
            style="bold" if one["claimed"] else "dim",
        )
    return table


def _contrasts(effects: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any], str, Mapping[str, Any]]]:
    """List (knob, its two levels, level of another knob or interaction with it, the largest difference there).

    The knob is named once; where it is shown to depend on another, what it does over all is called an average. Of what
    decides, the best level stands beside every other.
    """
    return [
        (effect["knob"] if kind == "first" else "", one["a"] if kind == "×" else [one["a"], one["b"]], place, one)
        for effect in effects
        for kind, place, one in [
            *(
                ("all" if number else "first", translated("on average") if effect["depends"] else "", one)
                for number, one in enumerate(effect["told"])
            ),
            *(
                ("at", translated(f"at {_place(simple['at'])}"), vocabulary.largest(simple))
                for simple in effect.get("simple") or []
            ),
            *(("×", f"× {_place(one['knobs'][1])}", one) for one in effect.get("crossed") or []),
        ]
        if one
    ]


def _place(text: str) -> str:
    """Return a knob, or knob=value, by its short name; of a long one the end, which tells it from others."""
    knob, *value = text.split("=", 1)
    text = "=".join([*vocabulary.short_names([knob]), *value])
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _crossed(effect: Mapping[str, Any], interactions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the clearest interaction of an effect with each other knob, at the first of the two alone."""
    clearest: dict[str, Mapping[str, Any]] = {}
    of_measure = [one for one in interactions if one["measure"] == effect["measure"] and one["p_adjusted"] is not None]
    for one in sorted(of_measure, key=lambda one: one["p_adjusted"]):
        if one["knobs"][0] == effect["knob"]:
            clearest.setdefault(one["knobs"][1], one)
    return [*clearest.values()]


def _rank(run: Mapping[str, Any]) -> tuple[int, bool, float]:
    """Return what to sort runs by, the worst first: verdict, of healthy ones whether that is doubtful, gap."""
    gap = run["measures"].get("gap")
    return VERDICTS.index(run["verdict"]), not vocabulary.is_doubtful(run), -float(gap) if gap is not None else 0.0
