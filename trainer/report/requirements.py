"""What is required of an evaluation, in CI: verdicts, bounds on measures, no group worse than in a baseline.

Each function returns `Requirement`s, the entries of `requirements` in the JSON.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.compare.groups import UNFINISHED
from trainer.compare.statistics import Floats, differences, grid_step, holm
from trainer.report.vocabulary import called, difference, number, spelled
from trainer.text import plural

ALPHA = 0.05
ALIASES = {
    "val_loss": "best_val_loss",
    "val_accuracy": "best_val_accuracy",
    "train_loss": "final_train_loss",
    "train_accuracy": "final_train_accuracy",
}
DECIDING = ("test_accuracy", "best_val_loss")  # what groups are compared with a baseline by: the first that both have
_MOST_NAMES = 5


@dataclass(frozen=True)
class Requirement:
    """Something that must hold, and whether it does."""

    name: str
    passed: bool
    sentence: str
    broken: dict[str, str] = field(default_factory=dict)  # path of a run -> why it breaks the requirement
    test: dict[str, Any] | None = None  # of a comparison with a baseline: the numbers behind the sentence


def without_verdict(runs: Sequence[Mapping[str, Any]], verdict: str) -> Requirement:
    """Require that no run is judged so. verdict: one of VERDICTS, or with a kind, overfit:rise."""
    label, _, kind = verdict.partition(":")
    judged = (run for run in runs if run["verdict"] == label and (not kind or run.get("kind") == kind))
    broken = {run["path"]: run["sentence"] for run in judged}
    return _of_runs(f"no run {spelled(label)}" + (f" ({spelled(kind)})" if kind else ""), runs, broken)


def within(runs: Sequence[Mapping[str, Any]], measure: str, limit: float, at_least: bool) -> Requirement:
    """Require that a measure of every run is at least, or at most, `limit`; a run without it breaks that.

    Raises ValueError where no run has the measure, naming those that there are.
    """
    key = ALIASES.get(measure, measure)
    if not any(key in run["measures"] for run in runs):
        known = sorted({name for run in runs for name in run["measures"]} | set(ALIASES))
        raise ValueError(f"{measure}: no run has this measure; expected one of {', '.join(known)}")
    broken = {}
    for run in runs:
        value = float(run["measures"].get(key, "nan"))  # what is not finite is text in an evaluation
        if not (value >= limit if at_least else value <= limit):
            shown = f"{value:.4g}" if key in run["measures"] and not math.isfinite(value) else number(value, key)
            broken[run["path"]] = shown if key in run["measures"] else "not measured"
    return _of_runs(f"{called(key).full} at {'least' if at_least else 'most'} {number(limit, key)}", runs, broken)


def _of_runs(name: str, runs: Sequence[Mapping[str, Any]], broken: dict[str, str]) -> Requirement:
    if not broken:
        return Requirement(name, True, f"{name}: holds for {plural(len(runs), 'run')}")
    names = {run["path"]: run["name"] for run in runs}
    brief = all(len(why) < 20 for why in broken.values())
    shown = [f"{names[path]} ({why})" if brief else names[path] for path, why in list(broken.items())[:_MOST_NAMES]]
    more = ", ..." * (len(broken) > _MOST_NAMES)
    return Requirement(
        name, False, f"{name}: broken by {len(broken)} of {plural(len(runs), 'run')}: {', '.join(shown)}{more}", broken
    )


# ------------------------------------------------------------------ a baseline


def against_baseline(evaluation: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[Requirement]:
    """Require of each group that it is not shown to be worse than the group of the same config, or name, in a baseline.

    Groups are compared by the first of DECIDING that both sides have: paired by seed where two seeds are common, else
    by Welch's test, one-sided in the bad direction, Holm's correction over the groups, at 5 %. Diverged and unfinished
    runs have no value; a group that has none left, where the baseline has, is worse. Raises ValueError where nothing
    can be compared.
    """
    sides = evaluation, baseline
    measure = next(
        (one for one in DECIDING if all(any(one in run["measures"] for run in s["runs"]) for s in sides)), ""
    )
    if not measure:
        raise ValueError(f"both evaluations need runs with one of {', '.join(DECIDING)}; there is none that both have")
    pairs = [(group, _same(group, baseline["groups"])) for group in evaluation["groups"]]
    found = [(group, other) for group, other in pairs if other is not None]
    if not found:
        ours, theirs = (", ".join(group["name"] for group in side["groups"][:3]) for side in sides)
        raise ValueError(f"no group has the config or the name of one here: found {theirs}; expected {ours}")
    new, old = _by_seed(evaluation, measure), _by_seed(baseline, measure)
    rows = [_rows([new[path] for path in g["runs"]], [old[path] for path in b["runs"]]) for g, b in found]
    tests = _tests(rows, worse=-1 if measure.endswith("accuracy") else 1)
    compared = [_compared(g, b, measure, row, test) for (g, b), row, test in zip(found, rows, tests, strict=True)]
    absent = [group["name"] for group, other in pairs if other is None]
    missing = [Requirement(_name(name), True, f"{name}: the baseline has no such group") for name in absent]
    return [*compared, *missing]


def _name(group: str) -> str:
    return f"{group} not worse than in the baseline"


def _same(group: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Find the group of the same config, seeds aside; else the one of the same name."""

    def config(one: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in one["config"].items() if key != "seed"}

    others = list(others)
    by_config = [other for other in others if config(group) and config(other) == config(group)]
    return next(iter([*by_config, *(other for other in others if other["name"] == group["name"])]), None)


def _by_seed(evaluation: Mapping[str, Any], measure: str) -> dict[str, tuple[Any, float]]:
    """Path of each run -> its seed, and its value; nan where it does not count in means."""
    return {
        run["path"]: (
            run["config"].get("seed"),
            math.nan
            if run["status"] in UNFINISHED or run["verdict"] == "diverged"
            else float(run["measures"].get(measure, "nan")),
        )
        for run in evaluation["runs"]
    }


def _rows(new: Sequence[tuple[Any, float]], old: Sequence[tuple[Any, float]]) -> tuple[Floats, Floats]:
    """Values of both sides by seed, (S,) each; a seed that occurs twice counts once, runs without one are unpaired."""
    columns: dict[Any, tuple[list[float], list[float]]] = {}
    for side, runs in enumerate((new, old)):
        for i, (seed, value) in enumerate(runs):
            column = columns.setdefault((side, i) if seed is None else str(seed), ([], []))
            column[side].extend([value] if math.isfinite(value) else [])
    both = [[float(np.mean(values)) if values else math.nan for values in column] for column in columns.values()]
    a_S, b_S = np.array(both).T
    return a_S, b_S


def _tests(rows: Sequence[tuple[Floats, Floats]], worse: int) -> list[dict[str, Any]]:
    """Test for each pair of rows whether a - b has the sign of `worse`; p is one-sided."""
    width = max(len(a_S) for a_S, _ in rows)
    a_TS, b_TS = (
        np.stack([np.pad(row[side], (0, width - len(row[side])), constant_values=np.nan) for row in rows])
        for side in (0, 1)
    )
    floor = np.array([grid_step(np.concatenate(row)) ** 2 / 6 for row in rows])
    found = differences(a_TS, b_TS, floor)
    p = np.where(np.sign(found.difference) == worse, found.p / 2, 1 - found.p / 2)
    adjusted = holm(p)
    keys = ("difference", "low", "high")
    return [
        {
            **{key: _finite(getattr(found, key)[t]) for key in keys},
            "n": int(found.n[t]),
            "paired": bool(found.paired[t]),
            "p": _finite(p[t]),
            "p_adjusted": _finite(adjusted[t]),
        }
        for t in range(len(rows))
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _compared(
    group: Mapping[str, Any],
    other: Mapping[str, Any],
    measure: str,
    row: tuple[Floats, Floats],
    test: dict[str, Any],
) -> Requirement:
    """Put a group's comparison with its baseline in words."""
    name, spoken = group["name"], called(measure).full
    a, b = (side[np.isfinite(side)] for side in row)
    test = {"measure": measure, **test}
    if len(b) and not len(a):
        lost = f"{name}: worse than in the baseline: none of its {plural(group['n'], 'run')} ended with a {spoken}"
        return Requirement(_name(name), False, f"{lost}, {len(b)} of {other['n']} there did", test=test)
    if test["p"] is None:
        few = f"{name}: {spoken} cannot be tested against the baseline: {plural(len(a), 'seed')} here, {len(b)} there"
        return Requirement(_name(name), True, f"{few}; two of each are needed", test=test)
    worse = test["p_adjusted"] <= ALPHA
    by = f"paired by {plural(test['n'], 'seed')}" if test["paired"] else f"Welch's test, {len(a)} and {len(b)} runs"
    low, high, change = (difference(test[key], measure) for key in ("low", "high", "difference"))
    low = low.removesuffix(" points")
    judged = "worse" if worse else "not shown to be worse"
    sentence = (
        f"{name}: {spoken} is {judged} than in the baseline: {number(a.mean(), measure)} against "
        f"{number(b.mean(), measure)}; difference {change} (95 % interval {low} to {high}, {by}, one-sided "
        f"p = {test['p_adjusted']:.2g} after correction)"
    )
    return Requirement(_name(name), not worse, sentence, test=test)
