"""The table of groups, in words: the same cells on the terminal, on the page, in Markdown and in LaTeX."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.compare.groups import UNFINISHED
from trainer.compare.keys import NO_KNOB, label
from trainer.compare.statistics import mean_interval
from trainer.compare.words import span
from trainer.report import vocabulary
from trainer.report.vocabulary import INTERVAL, mean_cell

TUNED = "each at its own best {knobs}, chosen by the validation split"
_MOST_CELLS = 5_000  # of a table of classes: nobody reads more
CLASSIFIED = ("final_train_accuracy", "best_val_loss", "gap", "test_accuracy", "final_test_accuracy")
FITTED = ("final_train_loss", "best_val_loss", "gap", "test_loss", "final_test_loss")


@dataclass(frozen=True)
class GroupTable:
    """Titles and rows of cells: what tells the groups apart, then numbers, which stand at the right."""

    names: list[str]
    numbers: list[str]
    rows: list[list[str]]


def compared(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the groups to show: where something was tuned, each at its own best, else all of them."""
    chosen = set((part.get("chosen") or {}).values())
    return [group for group in part["groups"] if not chosen or group["name"] in chosen]


def by_group(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the runs of a comparison group by group, these in the order of their knobs' values, and by seed."""
    place = {path: number for number, path in enumerate(path for group in part["groups"] for path in group["runs"])}
    return sorted(part["runs"], key=lambda run: place.get(run["path"], len(place)))


def captions(part: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Say what the numbers are, and what was tuned: texts, with the values of their places."""
    tuned = ", ".join(part.get("tuned") or []) if part.get("chosen") else ""
    return [(INTERVAL, {}), *([(TUNED, {"knobs": tuned})] if tuned else [])]


def caption(part: Mapping[str, Any]) -> str:
    """Return the captions of a table as one line."""
    return "; ".join(text.format(**values) for text, values in captions(part))


def noise(part: Mapping[str, Any]) -> str:
    """Say what intervals and p of a comparison's differences go by, and what p is corrected for; "" for no p."""
    tested = [effect["measure"] for effect in part["effects"] for one in effect["contrasts"] if one["p"] is not None]
    known = part.get("noise_df") or {}
    df = [known[name] for name in tested if known.get(name)]
    if not df:
        return ""
    how_many = span(f"{min(df):g}", f"{max(df):g}")
    pooled = f"intervals and p go by the noise that groups share ({how_many} degrees of freedom)"
    own = "each by its own where a group or an effect is clearly noisier"
    return f"{pooled}, {own}; corrected p: for all {part['tests']} questions, what decides counting most"


def measures(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the measures that a group has a mean of, in the order of MEASURES, then metrics."""
    return vocabulary.known(name for group in groups for name in group["measures"] if mean(group, name) is not None)


def metrics(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the test metrics of the user's choice that runs or groups have: measures such as test_f1."""
    found = dict.fromkeys(name for item in items for name in item["measures"] if name.startswith("test_"))
    return [name for name in found if name not in vocabulary.MEASURES]


def printed_measures(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the measures that a table in print has room for: accuracies where there are classes, else losses.

    Metrics on the test split were asked for, and stand there too.
    """
    there = measures(groups)
    chosen = [name for name in (CLASSIFIED if "test_accuracy" in there else FITTED) if name in there]
    if not any(name.startswith("test") for name in chosen):  # another tool's
        chosen = [name for name in ("best_val_loss", "final_val_loss", "gap", "best_val_accuracy") if name in there]
    return [*chosen, *(name for name in metrics(groups) if name in there)]


def ordered(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return all measures, those of a table in print first."""
    return list(dict.fromkeys([*printed_measures(groups), *measures(groups)]))


def mean(group: Mapping[str, Any], measure: str) -> float | None:
    """Return a group's mean of a measure, None where there is none."""
    return (group["measures"].get(measure) or {}).get("mean")


def ranked(part: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort groups by what decides between them, the best first; by their gap where nothing does, the largest first."""
    measure = (part.get("recommendation") or {}).get("criterion") or "gap"
    sign = vocabulary.cost_sign(measure)

    def rank(group: Mapping[str, Any]) -> float:
        found = mean(group, measure)
        return math.inf if found is None else sign * found

    return sorted(groups, key=rank)


def table(groups: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> GroupTable:
    """Lay groups out in the order given: knobs, what was chosen for each, n, how many overfit and failed, measures."""
    knobs = list(dict.fromkeys(knob for group in groups for knob in group["knobs"]))
    tuned = list(dict.fromkeys(key for group in groups for key in group.get("tuned") or {}))
    failed = failures(groups)
    names = vocabulary.short_names([*knobs, *tuned])
    names = [*names[: len(knobs)], *(f"{name} (chosen)" for name in names[len(knobs) :])]
    titles = [vocabulary.called(name).short for name in shown]
    return GroupTable(
        names=names or ["group"],
        numbers=["n", "overfit", *(["failed"] if any(failed) else []), *titles],
        rows=[
            [
                *(level(group["knobs"], knob) for knob in knobs),
                *(cell((group.get("tuned") or {}).get(key)) for key in tuned),
                *([] if names else [group["name"].removeprefix(f"{NO_KNOB}=")]),
                str(group["n"]),
                f"{group['verdicts'].get('overfit', 0)} of {group['n']}",
                *([f"{count} of {group['n']}"] if any(failed) else []),
                *(estimate(group["measures"].get(name), name) for name in shown),
            ]
            for group, count in zip(groups, failed, strict=True)
        ],
    )


def class_table(groups: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], number: str) -> GroupTable:
    """Lay out a number of PER_CLASS in percent: a row for each group that has it, a column for each class.

    Means over the group's runs ± half of their interval.
    Diverged and unfinished runs do not count.
    """
    values = {run["path"]: run["per_class"][number] for run in runs if "per_class" in run and counts(run)}
    there = [group for group in groups if any(path in values for path in group["runs"])]
    classes = max((len(row) for row in values.values()), default=0)
    named = table(there[: _MOST_CELLS // max(classes, 1)], [])
    rows = []
    for group, cells in zip(there, named.rows, strict=False):
        own = [values[path] for path in group["runs"] if path in values]
        found_CR = np.full((classes, len(own)), np.nan)
        for r, row in enumerate(own):
            found_CR[: len(row), r] = np.array(row, float)  # None is nan
        mean_C, _, low_C, _, _ = mean_interval(found_CR)
        shown = zip(mean_C.tolist(), (mean_C - low_C).tolist(), strict=True)
        means = [_percent(middle, half) for middle, half in shown]
        rows.append([*cells[: len(named.names)], str(len(own)), *means])
    return GroupTable(named.names, ["n", *_class_names(runs, classes)], rows)


def _class_names(runs: Sequence[Mapping[str, Any]], classes: int) -> list[str]:
    """Name the classes as the data do, where all runs with classes agree; else by their numbers."""
    known = {tuple(run["class_names"]) for run in runs if "class_names" in run}
    numbers = [f"class {c}" for c in range(classes)]
    named = next(iter(known)) if len(known) == 1 else ()
    is_named = len(named) == classes and named != tuple(map(str, range(classes)))
    return list(named) if is_named else numbers


def _percent(mean: float, half: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{100 * mean:.1f}" if math.isnan(half) else f"{100 * mean:.1f} ± {100 * half:.1f}"


def counts(run: Mapping[str, Any]) -> bool:
    """Whether a run enters means, as in comparing: it ended, and did not diverge."""
    return run["status"] not in UNFINISHED and run["verdict"] != "diverged"


def failures(groups: Sequence[Mapping[str, Any]]) -> list[int]:
    """Count the runs of each group that failed or diverged: those that no mean has."""
    return [round(group["failed_share"]["mean"] * group["failed_share"]["n"]) for group in groups]


def estimate(found: Mapping[str, Any] | None, measure: str) -> str:
    """Write a measure's mean over seeds ± half of its interval."""
    if not found:
        return ""
    low, high = found["low"], found["high"]
    half = (high - low) / 2 if isinstance(low, float) and isinstance(high, float) else None
    return mean_cell(found["mean"], half, measure)


def level(levels: Mapping[str, Any], knob: str) -> str:
    """Write a knob's level: null where it is that, nothing where there is none."""
    return "null" if knob in levels and levels[knob] is None else cell(levels.get(knob))


def cell(value: Any) -> str:
    """Write a level of a knob, or a number of an epoch."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)  # 1000000, not 1e+06: other tools count steps
    return "" if value is None else label(value)
