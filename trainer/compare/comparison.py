"""What holds across runs: groups, effects of knobs, differences paired by seed, interactions, warnings, what to use.

`compare(runs)` is a pure function; its `Comparison` holds lists and dicts that `json.dumps` takes (no number there is
nan or inf: what cannot be computed is None). Runs are grouped by everything in their config but the seed. *Knobs* are
the config keys that differ between groups; keys that follow from another knob (an optimizer's own betas) are not knobs
of their own, they are listed under `keys`. Diverged and unfinished runs count in a group's verdicts, not in its means.

Three questions are tested: the knobs' effects, their interactions, and groups that differ in one knob; each on the gap
and on the score (SCORES: the first that the runs have). All tests of a comparison share one error budget: `p_adjusted`
is Holm's over all of them, weighted by question (WEIGHTS), and `claimed` means p_adjusted <= 0.05. So where nothing
differs, at most 5 in 100 sweeps claim anything at all. docs/comparing.md has the equations and their reasons.

A *test* in the JSON is these keys: `measure`; `difference` (a - b), `low`, `high` (its 95 % t interval, on its own);
`sd` (of the pairs' differences); `n` (seeds); `paired` (by seed; else Welch's test); `p`; `p_adjusted`; `claimed`;
`answer`: "differs", "not enough seeds" or "no difference seen"; `seeds_needed`: the seeds that would settle it with
a chance of 80 % if the true difference is the one seen (None if claimed, or unknowable, or more than MAX_SEEDS);
`sentence`.

`groups`, sorted by their knobs' values:
    name            "optimizer=Adam model.dropout=0.5" (the knobs only; "all runs" if nothing differs)
    knobs           {knob: value}
    config          {key: value}: everything its runs have in common
    runs            paths, in order of seed
    seeds           as many
    n               number of runs
    verdicts        {"overfit": 3, "healthy": 2}
    overfit_share   {"mean", "low", "high", "n"}: Wilson's 95 % interval
    measures        {measure: {"mean", "sd", "low", "high", "n"}}: Student's t 95 % interval, None where n < 2
`effects`, a dict for each knob and tested measure, the largest first within a measure:
    knob, keys      the knob's name, and the config keys that change with it
    measure
    levels          [{"value", "mean", "low", "high", "n"}]: averaged over the other knobs, t interval over the seeds
    contrasts       [{"a", "b", and the keys of a test}]: every pair of levels, at equal values of the other knobs
    size            the largest |difference| of the contrasts (None where there is none)
    claimed         whether any contrast is
    sentence
`differences`, groups that differ in exactly one knob: `a`, `b` (names of groups), `knob`, and the keys of a test.
`interactions`: `knobs` [A, B], `a` [a1, a2], `b` [b1, b2] (values), and the keys of a test whose `difference` is
    (y[a2, b2] - y[a1, b2]) - (y[a2, b1] - y[a1, b1]): how much more A's change does at b2 than at b1. Numeric knobs are
    compared at their ends.
`warnings`: {"kind", "text"}; kinds: data, split, order, budget, edge, learning_rate, selection, seeds, diverged,
    unfinished, duplicates, unbalanced.
`recommendation`: `group` (name, None if there is none), `knobs`, `criterion` (a measure), `mean`, `low`, `high`, `n`,
    `overfit_share`, `ties` (names of groups that are not shown to be worse), `sentence`.
`tests`: how many tests shared the budget. `score`: the measure taken as the score (None if there is none).
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from trainer.compare import fairness
from trainer.compare.groups import Knob, Layout, Run, label, layout, summaries
from trainer.compare.statistics import (
    Floats,
    differences,
    grid_step,
    holm,
    mean_interval,
    mean_of,
    number,
    seeds_needed,
)

__all__ = ["Comparison", "Run", "compare"]

ALPHA = 0.05
SCORES = ("test_accuracy", "test_loss", "best_val_accuracy", "best_val_loss")
CRITERIA = ("best_val_loss", "best_val_accuracy")  # what the recommendation selects on: never the test split
HIGHER_IS_BETTER = {"test_accuracy", "best_val_accuracy"}
WEIGHTS = {"effects": 1.0, "interactions": 0.3, "differences": 0.3, "recommendation": 0.02}  # parts of the error budget
NO_DIFFERENCE = "no difference seen"
MAX_SEEDS = 50  # more seeds than this are no plan
MAX_NAMES = 6  # interactions of a knob with more names than this are not tested
MAX_PAIRS = 2000  # more pairs of levels or groups than this are not tested: nobody reads them


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; the keys are defined at the top of this module."""

    groups: list[dict[str, Any]]
    effects: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    interactions: list[dict[str, Any]]
    warnings: list[dict[str, str]]
    recommendation: dict[str, Any]
    score: str | None
    tests: int

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict for strict JSON."""
        return asdict(self)


@dataclass
class _Test:
    """One question put to the data: rows of seeds to subtract, who asks, and where the answer goes."""

    family: str
    measure: str
    a_S: Floats
    b_S: Floats
    floor: float  # smallest variance granted to a pair's difference
    answer: dict[str, Any]  # filled in place: the keys of a test
    knob: str | None = None  # whose levels are compared


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs, one or thousands, in any order. Cost: under a second for 1,000 runs."""
    if not runs:
        return Comparison([], [], [], [], [], _no_recommendation("no runs"), None, 0)
    plan = layout(runs)
    measures = sorted({measure for run in runs for measure in run.measures})
    values = {measure: plan.values_GS(measure) for measure in measures}
    present = {measure for measure in measures if np.isfinite(values[measure]).any()}
    score = next((measure for measure in SCORES if measure in present), None)
    criterion = next((measure for measure in CRITERIA if measure in present), None)
    warnings = fairness.warnings(plan)
    tested = [measure for measure in ("gap", score) if measure in present]
    effects, between, interactions = [], [], []
    tests: list[_Test] = []
    for measure in tested:
        padded = np.vstack([values[measure], np.full(len(plan.seeds), np.nan)])  # group -1 is the missing one
        step2 = grid_step(values[measure]) ** 2
        effects += _effects(plan, measure, padded, step2, tests)
        if len(plan.knobs) > 1:
            between += _differences(plan, measure, padded, step2, tests)
        interactions += _interactions(plan, measure, padded, step2, tests)
    groups = summaries(plan, values)
    best = _best(values[criterion], criterion) if criterion else None
    rivals = _rivals(plan, values[criterion], criterion, best, tests) if criterion and best is not None else []
    _answer(tests, len(plan.groups))
    if len(plan.knobs) == 1:  # groups differ as the levels of the one knob do: tested once, shown in both places
        between = [_between_groups(plan, effect["knob"], test) for effect in effects for test in effect["contrasts"]]
    for effect in effects:
        effect |= _summary(effect)
    effects.sort(key=lambda effect: (tested.index(effect["measure"]), -(effect["size"] or 0.0)))
    if best is not None:
        warnings += fairness.edges(plan, best)
    recommendation = _recommendation(groups, best, criterion, rivals)
    count = sum(test.family != "recommendation" and test.answer["p"] is not None for test in tests)
    return Comparison(groups, effects, between, interactions, warnings, recommendation, score, count)


def _effects(plan: Layout, measure: str, padded: Floats, step2: float, tests: list[_Test]) -> list[dict[str, Any]]:
    """Each knob's levels, and a test for each pair of them at equal values of all other knobs."""
    effects = []
    for k, knob in enumerate(plan.knobs):
        values_LRS = padded[plan.cells(k)]
        complete = np.isfinite(values_LRS).any(2).all(0)  # combinations of the other knobs that have every level
        mean, _, low, high, n = mean_interval(mean_of(values_LRS[:, complete] if complete.any() else values_LRS, 1))
        levels = [
            {"value": value, "mean": number(mean[i]), "low": number(low[i]), "high": number(high[i]), "n": int(n[i])}
            for i, value in enumerate(knob.levels)
        ]
        contrasts = []
        for i, j in _pairs(len(knob.levels)):
            contrasts.append({"a": knob.levels[i], "b": knob.levels[j]})
            test = _matched("effects", measure, values_LRS[i], values_LRS[j], step2 / 6, contrasts[-1])
            tests.append(replace(test, knob=knob.name))
        effect = {"knob": knob.name, "keys": list(knob.keys), "measure": measure, "levels": levels}
        effects.append({**effect, "contrasts": contrasts})
    return effects


def _differences(plan: Layout, measure: str, padded: Floats, step2: float, tests: list[_Test]) -> list[dict[str, Any]]:
    """Pairs of groups that differ in one knob."""
    found = []
    for k, knob in enumerate(plan.knobs):
        for row in plan.cells(k).T:
            for i, j in _pairs(len(knob.levels)):
                if row[i] >= 0 and row[j] >= 0:
                    found.append((int(row[i]), int(row[j]), knob))
    if len(found) > MAX_PAIRS:
        return []
    answers = []
    for a, b, knob in sorted(found, key=lambda pair: pair[:2]):
        answer = {"a": plan.groups[a].name, "b": plan.groups[b].name, "knob": knob.name}
        tests.append(_Test("differences", measure, padded[a], padded[b], step2 / 6, answer))
        answers.append(answer)
    return answers


def _interactions(plan: Layout, measure: str, padded: Floats, step2: float, tests: list[_Test]) -> list[dict[str, Any]]:
    """For each pair of knobs, whether the change of one depends on the other."""
    answers = []
    for (k, first), (l, second) in itertools.combinations(enumerate(plan.knobs), 2):
        values_ABRS = padded[plan.cells(k, l)]
        for (i, j), (m, n) in itertools.product(_ends(first), _ends(second)):
            change_at_n = values_ABRS[j, n] - values_ABRS[i, n]
            change_at_m = values_ABRS[j, m] - values_ABRS[i, m]
            answer = {
                "knobs": [first.name, second.name],
                "a": [first.levels[i], first.levels[j]],
                "b": [second.levels[m], second.levels[n]],
            }
            test = _matched("interactions", measure, change_at_n, change_at_m, step2 / 3, answer)
            if np.isfinite(test.a_S - test.b_S).any():
                tests.append(test)
                answers.append(answer)
    return answers


def _rivals(
    plan: Layout, values_GS: Floats, criterion: str, best: int, tests: list[_Test]
) -> list[tuple[str, dict[str, Any]]]:
    """Every other group against the best one: name and test."""
    rivals = []
    floor = grid_step(values_GS) ** 2 / 6
    for index, group in enumerate(plan.groups):
        if index != best:
            rivals.append((group.name, {"a": group.name, "b": plan.groups[best].name}))
            tests.append(_Test("recommendation", criterion, values_GS[index], values_GS[best], floor, rivals[-1][1]))
    return rivals


def _matched(family: str, measure: str, a_RS: Floats, b_RS: Floats, floor: float, answer: dict[str, Any]) -> _Test:
    """A test of a - b averaged over R combinations of the other knobs, each with itself and each seed with itself."""
    both_RS = np.isfinite(a_RS) & np.isfinite(b_RS)
    if np.sum(both_RS.any(0)) >= 2:
        a_RS, b_RS = np.where(both_RS, a_RS, np.nan), np.where(both_RS, b_RS, np.nan)
    else:  # too few common seeds: at least the same combinations
        rows = np.isfinite(a_RS).any(1) & np.isfinite(b_RS).any(1)
        a_RS, b_RS = a_RS[rows], b_RS[rows]
    averaged = max(1.0, float(both_RS.sum()) / max(1, int(both_RS.any(0).sum())))
    return _Test(family, measure, mean_of(a_RS, 0), mean_of(b_RS, 0), floor / averaged, answer)


def _answer(tests: list[_Test], num_groups: int) -> None:
    """Run all tests, share the error budget among them, and write each answer where it belongs.

    The groups that the data themselves single out as best are tested against all others: for the budget, that is all
    pairs of groups, most of them not looked at.
    """
    if not tests:
        return
    a_TS, b_TS = np.stack([test.a_S for test in tests]), np.stack([test.b_S for test in tests])
    found = differences(a_TS, b_TS, np.array([test.floor for test in tests]))
    possible = np.isfinite(found.p)
    families = Counter(test.family for test, counts in zip(tests, possible, strict=True) if counts)
    looked_at = families["recommendation"]
    families["recommendation"] = max(1, num_groups * (num_groups - 1) // 2)
    weights = np.array([WEIGHTS[test.family] / max(1, families[test.family]) for test in tests])
    unspent = WEIGHTS["recommendation"] * (1 - looked_at / families["recommendation"])
    adjusted = holm(found.p, weights, unspent)
    shares = ALPHA * weights / (weights[possible].sum() + unspent)
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = seeds_needed(found.difference / found.sd, shares)
    for index, test in enumerate(tests):
        claimed = bool(adjusted[index] <= ALPHA)
        settles = bool(not claimed and possible[index] and needed[index] <= MAX_SEEDS)
        seeds = max(int(needed[index]), int(found.n[index]) + 1) if settles else None
        test.answer |= {
            "measure": test.measure,
            "difference": number(found.difference[index]),
            "low": number(found.low[index]),
            "high": number(found.high[index]),
            "sd": number(found.sd[index]),
            "n": int(found.n[index]),
            "paired": bool(found.paired[index]),
            "p": number(found.p[index]),
            "p_adjusted": number(adjusted[index]),
            "claimed": claimed,
            "answer": "differs" if claimed else "not enough seeds" if settles or not possible[index] else NO_DIFFERENCE,
            "seeds_needed": seeds,
        }
        test.answer["sentence"] = _sentence(test.answer, test.knob)


def _sentence(test: dict[str, Any], knob: str | None) -> str:
    """A test's answer in words; `knob` where it compares two levels of one."""
    of = test["measure"].replace("_", " ")
    if test["p"] is None:
        return f"{of}: {test['n']} seed{'s' * (test['n'] != 1)} a side: not enough; two seeds test, five or more tell"
    size, more = f"{abs(test['difference']):.3g}", test["difference"] > 0
    if "knobs" in test:
        (first, second), (a1, a2), (b1, b2) = test["knobs"], map(label, test["a"]), map(label, test["b"])
        change = f"the change of {of} from {first}={a1} to {a2} is {size} {'higher' if more else 'lower'}"
        seen = f"{change} at {second}={b2} than at {b1}"
    elif knob:
        at = f"{knob}={label(test['a'])} than at {label(test['b'])}"
        seen = f"{of} is {size} {'higher' if more else 'lower'} at {at}"
    else:
        seen = f"{of} of {test['a']} is {size} {'higher' if more else 'lower'} than that of {test['b']}"
    seen += f" (95 % interval of the difference {test['low']:.3g} to {test['high']:.3g}, {test['n']} seeds, "
    seen += f"p = {test['p_adjusted']:.2g} after correction)"
    if test["claimed"]:
        return seen
    if test["seeds_needed"] is not None:
        missing = test["seeds_needed"] - test["n"]
        return f"not enough seeds: {missing} more would settle it if the difference is as large as seen; {seen}"
    return f"no difference seen; {seen}"


def _between_groups(plan: Layout, knob: str, contrast: dict[str, Any]) -> dict[str, Any]:
    """A contrast of the only knob's levels as a difference of groups."""
    names = {group.levels[0]: group.name for group in plan.groups}
    levels = plan.knobs[0].levels
    a, b = names[levels.index(contrast["a"])], names[levels.index(contrast["b"])]
    found = {**contrast, "a": a, "b": b, "knob": knob}
    return found | {"sentence": _sentence(found, None)}


def _summary(effect: dict[str, Any]) -> dict[str, Any]:
    """An effect's size, and its largest claimed contrast, or else its largest, in words."""
    tested = [contrast for contrast in effect["contrasts"] if contrast["difference"] is not None]
    size = max((abs(contrast["difference"]) for contrast in tested), default=None)
    claimed = any(contrast["claimed"] for contrast in tested)
    if not tested:
        sentence = f"{effect['knob']}: no two of its values were run at equal values of the other knobs"
    else:
        largest = max(tested, key=lambda contrast: (contrast["claimed"], abs(contrast["difference"])))
        sentence = largest["sentence"]
    return {"size": size, "claimed": claimed, "sentence": sentence}


def _best(values_GS: Floats, criterion: str) -> int | None:
    """The group with the best mean, None if no run has the criterion."""
    mean = mean_interval(values_GS)[0] * (-1 if criterion in HIGHER_IS_BETTER else 1)
    return None if np.isnan(mean).all() else int(np.nanargmin(mean))


def _recommendation(
    groups: list[dict[str, Any]], best: int | None, criterion: str | None, rivals: list[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """The group to use, and why."""
    if best is None or criterion is None:
        return _no_recommendation(
            "no run has a validation loss or accuracy; choosing by the test split would flatter it"
        )
    group = groups[best]
    found = group["measures"][criterion]
    known = {other["name"] for other in groups if other["measures"][criterion]["n"]}  # not those that all diverged
    ties = [name for name, test in rivals if not test["claimed"] and name in known]
    of = criterion.replace("_", " ")
    interval = "" if found["low"] is None else f", 95 % interval {found['low']:.4g} to {found['high']:.4g}"
    sentence = f"use {group['name']}: the best mean {of}, {found['mean']:.4g} (n = {found['n']}{interval})"
    if not rivals:
        sentence = f"only one group: mean {of} {found['mean']:.4g} (n = {found['n']}{interval})"
    elif ties:
        shown = ", ".join(ties[:3]) + (f" and {len(ties) - 3} more" if len(ties) > 3 else "")
        sentence += f"; not shown to be worse: {shown}"
    else:
        sentence += "; every other group is shown to be worse"
    overfit = group["overfit_share"]
    if overfit["mean"] > 0:
        sentence += f"; {overfit['mean']:.0%} of its runs overfit: stop them at their best epoch"
    return {
        "group": group["name"],
        "knobs": group["knobs"],
        "criterion": criterion,
        **found,
        "overfit_share": overfit,
        "ties": ties,
        "sentence": sentence,
    }


def _no_recommendation(why: str) -> dict[str, Any]:
    empty = dict.fromkeys(("group", "knobs", "criterion", "mean", "sd", "low", "high", "n", "overfit_share"))
    return {**empty, "ties": [], "sentence": f"no recommendation: {why}"}


def _pairs(count: int) -> list[tuple[int, int]]:
    """All pairs i < j below `count`; none where they would be too many to read."""
    return [] if count * (count - 1) // 2 > MAX_PAIRS else list(itertools.combinations(range(count), 2))


def _ends(knob: Knob) -> list[tuple[int, int]]:
    """The pairs of levels whose interactions are tested: the ends of a numeric knob, all pairs of a few names."""
    if all(isinstance(value, (int, float)) for value in knob.levels):
        return [(0, len(knob.levels) - 1)]
    return _pairs(len(knob.levels)) if len(knob.levels) <= MAX_NAMES else []
