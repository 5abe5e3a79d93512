"""Compare runs: groups, effects of knobs, differences paired by seed, interactions, warnings, what to use.

`compare(runs)` is a pure function; results.py defines what it returns. Runs are grouped by everything in their config
but the seed. *Knobs* are the config keys that differ between groups; keys that follow from another knob (an optimizer's
own betas) are not knobs of their own but listed under its `keys`. Diverged and unfinished runs count in a group's
verdicts, not in its means.

Three questions are tested: the knobs' effects, their interactions, and groups that differ in one knob; each on the gap
and on the score (SCORES: the first that the runs have). All tests of a comparison share one error budget: `p_adjusted`
is Holm's over all of them, weighted by question (WEIGHTS), and `claimed` means p_adjusted <= 0.05. So where nothing
differs, at most 5 in 100 sweeps claim anything at all. docs/comparing.md has the equations and their reasons.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainer.compare import fairness
from trainer.compare.groups import Knob, Layout, Run, label, layout, summaries
from trainer.compare.results import (
    Comparison,
    Contrast,
    Difference,
    Effect,
    GroupSummary,
    Interaction,
    Level,
    Recommendation,
)
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
MAX_SEEDS = 50  # more seeds than this are no plan
MAX_NAMES = 6  # interactions of a knob with more names than this are not tested
MAX_PAIRS = 2000  # more pairs of levels, groups or knobs than this are not tested: nobody reads them


@dataclass(frozen=True, eq=False)
class _Question:
    """One question put to the data, of rows of seeds: is `subject` higher or lower `than`?"""

    family: str  # a key of WEIGHTS
    measure: str
    a_S: Floats
    b_S: Floats
    floor: float  # smallest variance granted to a pair's difference
    subject: str
    than: str
    shown: dict[str, Any]  # what is compared, as the answer names it: a, b, knob or knobs


RECORDS: dict[str, type[Contrast]] = {"differences": Difference, "interactions": Interaction}


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs, one or thousands, in any order. Cost: under a second for 1,000 runs."""
    if not runs:
        return Comparison([], [], [], [], [], Recommendation("no recommendation: no runs"), None, 0)
    plan = layout(runs)
    measures = sorted({measure for run in runs for measure in run.measures})
    values = {measure: plan.values_GS(measure) for measure in measures}
    present = {measure for measure in measures if np.isfinite(values[measure]).any()}
    score = next((measure for measure in SCORES if measure in present), None)
    criterion = next((measure for measure in CRITERIA if measure in present), None)
    tested = [measure for measure in ("gap", score) if measure in present]
    by_knob: list[tuple[Knob, str, Floats, list[_Question]]] = []
    questions: list[_Question] = []
    for measure in tested:
        padded = np.vstack([values[measure], np.full(len(plan.seeds), np.nan)])  # group -1 is the missing one
        step2 = grid_step(values[measure]) ** 2
        for k, knob in enumerate(plan.knobs):
            values_LRS = padded[plan.cells(k)]
            by_knob.append((knob, measure, values_LRS, _between_levels(knob, measure, values_LRS, step2)))
            questions += by_knob[-1][-1]
        if len(plan.knobs) > 1:
            questions += _between_groups(plan, measure, padded, step2)
        questions += _interactions(plan, measure, padded, step2)
    best = _best(values[criterion], criterion) if criterion else None
    if criterion and best is not None:
        questions += _against(plan, best, criterion, values[criterion])
    answers = _answer(questions, len(plan.groups))
    effects = [
        _effect(knob, measure, _levels(knob, values_LRS), [answers[question] for question in asked])
        for knob, measure, values_LRS, asked in by_knob
    ]
    between = [answer for answer in answers.values() if isinstance(answer, Difference)]
    if len(plan.knobs) == 1:  # groups differ as the levels of the one knob do: tested once, shown in both places
        between = [_of_groups(plan, contrast) for effect in effects for contrast in effect.contrasts]
    effects.sort(key=lambda effect: (tested.index(effect.measure), -(effect.size or 0.0)))
    groups = summaries(plan, values)
    rivals = [answer for question, answer in answers.items() if question.family == "recommendation"]
    return Comparison(
        groups=groups,
        effects=effects,
        differences=between,
        interactions=[answer for answer in answers.values() if isinstance(answer, Interaction)],
        warnings=fairness.warnings(plan) + ([] if best is None else fairness.edges(plan, best)),
        recommendation=_recommendation(groups, best, criterion, rivals),
        score=score,
        tests=sum(q.family != "recommendation" and answer.p is not None for q, answer in answers.items()),
    )


# ------------------------------------------------------------------ questions


def _between_levels(knob: Knob, measure: str, values_LRS: Floats, step2: float) -> list[_Question]:
    """Ask for each pair of a knob's levels, at equal values of all other knobs."""
    return [
        _matched(
            "effects",
            measure,
            (values_LRS[i], values_LRS[j]),
            step2 / 6,
            (_words(measure), f"at {knob.name}={label(knob.levels[i])} than at {label(knob.levels[j])}"),
            {"a": knob.levels[i], "b": knob.levels[j]},
        )
        for i, j in _pairs(len(knob.levels))
    ]


def _between_groups(plan: Layout, measure: str, padded: Floats, step2: float) -> list[_Question]:
    """Ask for each pair of groups that differ in one knob."""
    found = []
    for k, knob in enumerate(plan.knobs):
        for row in plan.cells(k).T:
            for i, j in _pairs(len(knob.levels)):
                if row[i] >= 0 and row[j] >= 0:
                    found.append((int(row[i]), int(row[j]), knob.name))
    if len(found) > MAX_PAIRS:
        return []
    return [
        _of_two(plan, "differences", measure, padded, (a, b), step2 / 6, {"knob": knob})
        for a, b, knob in sorted(found, key=lambda pair: pair[:2])
    ]


def _interactions(plan: Layout, measure: str, padded: Floats, step2: float) -> list[_Question]:
    """Ask for each pair of knobs whether the change of one depends on the other."""
    questions = []
    for k, l in _pairs(len(plan.knobs)):
        first, second = plan.knobs[k], plan.knobs[l]
        values_ABRS = padded[plan.cells(k, l)]
        for (i, j), (m, n) in itertools.product(_ends(first), _ends(second)):
            changes = values_ABRS[j, n] - values_ABRS[i, n], values_ABRS[j, m] - values_ABRS[i, m]
            a, b = [first.levels[i], first.levels[j]], [second.levels[m], second.levels[n]]
            subject = f"the change of {_words(measure)} from {first.name}={label(a[0])} to {label(a[1])}"
            than = f"at {second.name}={label(b[1])} than at {label(b[0])}"
            shown = {"a": a, "b": b, "knobs": [first.name, second.name]}
            question = _matched("interactions", measure, changes, step2 / 3, (subject, than), shown)
            if np.isfinite(question.a_S - question.b_S).any():
                questions.append(question)
    return questions


def _against(plan: Layout, best: int, criterion: str, values_GS: Floats) -> list[_Question]:
    """Ask for every other group whether it differs from the best one."""
    floor = grid_step(values_GS) ** 2 / 6
    others = [index for index in range(len(plan.groups)) if index != best]
    return [_of_two(plan, "recommendation", criterion, values_GS, (index, best), floor, {}) for index in others]


def _of_two(
    plan: Layout,
    family: str,
    measure: str,
    values_GS: Floats,
    groups: tuple[int, int],
    floor: float,
    shown: dict[str, Any],
) -> _Question:
    a, b = groups
    names = {"a": plan.groups[a].name, "b": plan.groups[b].name}
    words = f"{_words(measure)} of {names['a']}", f"than that of {names['b']}"
    return _Question(family, measure, values_GS[a], values_GS[b], floor, *words, names | shown)


def _matched(
    family: str,
    measure: str,
    both: tuple[Floats, Floats],
    floor: float,
    words: tuple[str, str],
    shown: dict[str, Any],
) -> _Question:
    """Ask for a - b averaged over R combinations of the other knobs, each with itself and each seed with itself."""
    a_RS, b_RS = both
    both_RS = np.isfinite(a_RS) & np.isfinite(b_RS)
    if np.sum(both_RS.any(0)) >= 2:
        a_RS, b_RS = np.where(both_RS, a_RS, np.nan), np.where(both_RS, b_RS, np.nan)
    else:  # too few common seeds: at least the same combinations
        rows = np.isfinite(a_RS).any(1) & np.isfinite(b_RS).any(1)
        a_RS, b_RS = a_RS[rows], b_RS[rows]
    averaged = max(1.0, float(both_RS.sum()) / max(1, int(both_RS.any(0).sum())))
    return _Question(family, measure, mean_of(a_RS, 0), mean_of(b_RS, 0), floor / averaged, *words, shown)


def _words(measure: str) -> str:
    return measure.replace("_", " ")


def _pairs(count: int) -> list[tuple[int, int]]:
    """Return all pairs i < j below `count`; none where they would be too many to read."""
    return [] if count * (count - 1) // 2 > MAX_PAIRS else list(itertools.combinations(range(count), 2))


def _ends(knob: Knob) -> list[tuple[int, int]]:
    """Return the pairs of levels whose interactions are tested: a numeric knob's ends, all pairs of a few names."""
    if all(isinstance(value, (int, float)) for value in knob.levels):
        return [(0, len(knob.levels) - 1)]
    return _pairs(len(knob.levels)) if len(knob.levels) <= MAX_NAMES else []


# ------------------------------------------------------------------ answers


def _answer(questions: list[_Question], num_groups: int) -> dict[_Question, Contrast]:
    """Run all tests, and share the error budget among them.

    The group that the data themselves single out as best is tested against all others: for the budget, that is all
    pairs of groups, most of them not looked at.
    """
    if not questions:
        return {}
    a_TS, b_TS = np.stack([q.a_S for q in questions]), np.stack([q.b_S for q in questions])
    found = differences(a_TS, b_TS, np.array([q.floor for q in questions]))
    possible = np.isfinite(found.p)
    families = Counter(q.family for q, counts in zip(questions, possible, strict=True) if counts)
    looked_at = families["recommendation"]
    families["recommendation"] = max(1, num_groups * (num_groups - 1) // 2)
    weights = np.array([WEIGHTS[q.family] / max(1, families[q.family]) for q in questions])
    unspent = WEIGHTS["recommendation"] * (1 - looked_at / families["recommendation"])
    adjusted = holm(found.p, weights, unspent)
    shares = ALPHA * weights / (weights[possible].sum() + unspent)
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = seeds_needed(found.difference / found.sd, shares)
    answers: dict[_Question, Contrast] = {}
    for index, question in enumerate(questions):
        claimed = bool(adjusted[index] <= ALPHA)
        settles = bool(not claimed and possible[index] and needed[index] <= MAX_SEEDS)
        too_few = settles or not possible[index]
        answer = RECORDS.get(question.family, Contrast)(
            **question.shown,
            measure=question.measure,
            difference=number(found.difference[index]),
            low=number(found.low[index]),
            high=number(found.high[index]),
            sd=number(found.sd[index]),
            n=int(found.n[index]),
            paired=bool(found.paired[index]),
            p=number(found.p[index]),
            p_adjusted=number(adjusted[index]),
            claimed=claimed,
            answer="differs" if claimed else "not enough seeds" if too_few else "no difference seen",
            seeds_needed=max(int(needed[index]), int(found.n[index]) + 1) if settles else None,
            sentence="",
        )
        answers[question] = replace(answer, sentence=_sentence(answer, question.subject, question.than))
    return answers


def _sentence(test: Contrast, subject: str, than: str) -> str:
    """Put an answer in words."""
    if test.p is None or test.difference is None:
        seeds = f"{test.n} seed{'s' * (test.n != 1)} per side"
        return f"{_words(test.measure)}: {seeds}: not enough; two seeds test, five or more tell"
    seen = f"{subject} is {abs(test.difference):.3g} {'higher' if test.difference > 0 else 'lower'} {than}"
    seen += f" (95 % interval of the difference {test.low:.3g} to {test.high:.3g}, {test.n} seeds, "
    seen += f"p = {test.p_adjusted:.2g} after correction)"
    if test.claimed:
        return seen
    if test.seeds_needed is not None:
        missing = test.seeds_needed - test.n
        return f"not enough seeds: {missing} more would settle it if the difference is as large as seen; {seen}"
    return f"no difference seen; {seen}"


def _of_groups(plan: Layout, contrast: Contrast) -> Difference:
    """Turn a contrast of the only knob's levels into a difference of groups."""
    (knob,) = plan.knobs
    names = {knob.levels[group.levels[0]]: group.name for group in plan.groups}
    a, b = names[contrast.a], names[contrast.b]
    sentence = _sentence(contrast, f"{_words(contrast.measure)} of {a}", f"than that of {b}")
    return Difference(**{**vars(contrast), "a": a, "b": b, "knob": knob.name, "sentence": sentence})


def _levels(knob: Knob, values_LRS: Floats) -> list[Level]:
    """Average each level over the combinations of the other knobs that have every level, else over all."""
    complete = np.isfinite(values_LRS).any(2).all(0)
    mean, _, low, high, n = mean_interval(mean_of(values_LRS[:, complete] if complete.any() else values_LRS, 1))
    return [
        Level(number(mean[i]), number(low[i]), number(high[i]), int(n[i]), value) for i, value in enumerate(knob.levels)
    ]


def _effect(knob: Knob, measure: str, levels: list[Level], contrasts: list[Contrast]) -> Effect:
    """Sum up a knob's contrasts: the largest claimed one, or else the largest, gives the sentence."""
    tested = [(abs(contrast.difference), contrast) for contrast in contrasts if contrast.difference is not None]
    sentence = f"{knob.name}: no two of its values were run at equal values of the other knobs"
    if tested:
        sentence = max(tested, key=lambda pair: (pair[1].claimed, pair[0]))[1].sentence
    return Effect(
        knob=knob.name,
        keys=list(knob.keys),
        measure=measure,
        levels=levels,
        contrasts=contrasts,
        size=max((size for size, _ in tested), default=None),
        claimed=any(contrast.claimed for contrast in contrasts),
        sentence=sentence,
    )


# ------------------------------------------------------------------ what to use


def _best(values_GS: Floats, criterion: str) -> int | None:
    """Return the group with the best mean, None if no run has the criterion."""
    mean = mean_interval(values_GS)[0] * (-1 if criterion in HIGHER_IS_BETTER else 1)
    return None if np.isnan(mean).all() else int(np.nanargmin(mean))


def _recommendation(
    groups: list[GroupSummary], best: int | None, criterion: str | None, rivals: list[Contrast]
) -> Recommendation:
    """Name the group to use, and say why."""
    if best is None or criterion is None:
        why = "no run has a validation loss or accuracy; choosing by the test split would flatter it"
        return Recommendation(f"no recommendation: {why}")
    group = groups[best]
    found = group.measures[criterion]
    known = {other.name for other in groups if other.measures[criterion].n}  # not those that all diverged
    ties = [test.a for test in rivals if not test.claimed and test.a in known]
    of = f"mean {_words(criterion)}"
    interval = "" if found.low is None else f", 95 % interval {found.low:.4g} to {found.high:.4g}"
    sentence = f"use {group.name}: the best {of}, {found.mean:.4g} (n = {found.n}{interval})"
    if not rivals:
        sentence = f"only one group: {of} {found.mean:.4g} (n = {found.n}{interval})"
    elif ties:
        shown = ", ".join(ties[:3]) + (f" and {len(ties) - 3} more" if len(ties) > 3 else "")
        sentence += f"; not shown to be worse: {shown}"
    else:
        sentence += "; every other group is shown to be worse"
    share = group.overfit_share.mean
    if share:
        sentence += f"; {share:.0%} of its runs overfit: stop them at their best epoch"
    return Recommendation(
        sentence=sentence,
        group=group.name,
        knobs=group.knobs,
        criterion=criterion,
        **vars(found),
        overfit_share=group.overfit_share,
        ties=ties,
    )
