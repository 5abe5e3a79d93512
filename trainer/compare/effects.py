"""Say what the answers mean: the effect of each knob, differences of groups, and interactions."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainer.compare import why, words
from trainer.compare.answered import Answered, is_loss
from trainer.compare.keys import label
from trainer.compare.knobs import Knob
from trainer.compare.questions import About
from trainer.compare.results import (
    Contrast,
    Difference,
    Effect,
    Interaction,
    Level,
    SimpleEffects,
)
from trainer.compare.statistics import mean_interval, mean_of, number


def effects(answered: Answered) -> list[Effect]:
    found = []
    for name in answered.tested:
        of_measure = []
        for k, knob in enumerate(answered.plan.knobs):
            contrasts = [
                _with_loss(answered, about, one)
                for about, one in answered.by_about.items()
                if about.family == "effects" and about.measure == name and about.knobs == (k,)
            ]
            if contrasts:
                of_measure.append(_effect(answered, k, knob, name, contrasts))
        found += sorted(of_measure, key=lambda effect: (not effect.claimed, -(effect.size or 0.0)))
    return found


def _effect(answered: Answered, k: int, knob: Knob, name: str, contrasts: list[Contrast]) -> Effect:
    """Sum up a knob's contrasts: its shape, and the one that stands for them (words.head), give the sentence."""
    claimed = any(one.claimed for one in contrasts)
    decides = name == (answered.criterion or answered.score)
    levels = _levels(answered, k, knob, name)
    rows = [row for level in answered.plan.across(k) for row in level if row >= 0]
    shape = None  # of survivors there is none to show
    if not answered.failed_CS[rows].any():
        shape = words.shape(knob, name, levels, contrasts, answered.sign(name) > 0)
    nothing = f"{knob.name}: no two of its values were run at equal values of the other knobs"
    head = words.head(contrasts, shape)
    sentence = head.sentence if head else nothing
    if shape and shape.kind != "no shape shown":
        sentence = f"{shape.sentence}; {sentence}"
    return Effect(
        knob=knob.name,
        keys=list(knob.keys),
        together=list(knob.together),
        measure=name,
        levels=levels,
        contrasts=contrasts,
        size=max((abs(one.difference) for one in contrasts if one.difference is not None), default=None),
        claimed=claimed,
        sentence=sentence,
        shape=shape,
        simple=_simple(answered, k, name),
        why=why.beside(answered.plan, answered.recorded, k, contrasts) if claimed and decides else [],
    )


def _levels(answered: Answered, k: int, knob: Knob, name: str) -> list[Level]:
    """Average each level over the combinations and seeds that have every level, else over all."""
    values_LRS = answered.at(name, answered.plan.across(k))
    complete = np.isfinite(values_LRS).all(0)  # combinations and seeds that have every level
    if complete.any():
        values_LRS = np.where(complete, values_LRS, np.nan)
    mean, _, low, high, n = mean_interval(mean_of(values_LRS, 1))
    return [
        Level(number(mean[i]), number(low[i]), number(high[i]), int(n[i]), value) for i, value in enumerate(knob.levels)
    ]


def _with_loss(answered: Answered, about: About, one: Contrast) -> Contrast:
    """Add to a claim on the gap what the loss did: a smaller gap is no gain where the loss is higher."""
    decides = answered.criterion if answered.criterion and is_loss(answered.criterion) else None
    if about.measure != "gap" or not one.claimed or decides is None:
        return one
    loss = answered.by_about.get(replace(about, measure=decides))
    if loss is None or loss.difference is None:
        return one
    seen = f"{words.amount(loss.difference, loss.measure)} there"
    seen += f" ({words.corrected(loss.p_adjusted)})" if loss.claimed else ", which is not shown to be a difference"
    return replace(one, sentence=f"{one.sentence}; the {words.measure(decides)} is {seen}")


def _simple(answered: Answered, k: int, name: str) -> list[SimpleEffects]:
    found: dict[tuple[int, int], list[Contrast]] = {}
    for about, one in answered.by_about.items():
        if about.family == "simple" and about.measure == name and about.knobs[0] == k and about.at is not None:
            found.setdefault((about.knobs[1], about.at), []).append(_with_loss(answered, about, one))
    made = []
    for (other, level), contrasts in found.items():
        if most := words.largest(contrasts):
            knob, claimed = answered.plan.knobs[other], any(one.claimed for one in contrasts)
            made.append(SimpleEffects(knob.plain(level), contrasts, claimed, most.sentence, knob.name))
    return made


def differences(answered: Answered) -> list[Difference]:
    """Return the differences of contenders that differ in one knob, by the names of their groups."""
    found = []
    for about, one in answered.by_about.items():
        pair = answered.contenders(about)
        if pair is None:
            continue
        a, b = (answered.group_name(index) for index in pair)
        subject, than = f"{words.measure(one.measure)} of {a}", f"than that of {b}"
        text = words.sentence(one, subject, than, answered.plan.unit)
        knob = answered.plan.knobs[about.knobs[0]].name
        found.append(Difference(**{**vars(one), "a": a, "b": b, "knob": knob, "sentence": text}))
    return found


def interactions(answered: Answered) -> list[Interaction]:
    found = []
    for about, one in answered.by_about.items():
        if about.family != "interactions":
            continue
        first, second = (answered.plan.knobs[k] for k in about.knobs)
        a, b = [first.levels[i] for i in about.a], [second.levels[i] for i in about.b]
        table = answered.plan.cells(*about.knobs)
        low, high = _changes(answered, about, table)
        subject = (
            f"{words.does(first.name, first.together)} to the {words.measure(one.measure)} depends on {second.name}"
        )
        places = [second.plain(i) for i in about.b]
        changes = f"from {first.text(about.a[0])} to {first.text(about.a[1])} it changes by "
        changes += (
            f"{words.change(low, one.measure)} at {places[0]}, by {words.change(high, one.measure)} at {places[1]}"
        )
        if not one.claimed:
            subject = f"not shown that {subject}"
        text = f"{subject}: {changes}"
        if one.p_adjusted is not None and one.difference is not None:
            text += f" (difference {words.change(one.difference, one.measure)}, {words.interval(one)}, "
            text += f"{one.n} {answered.plan.unit}s, {words.corrected(one.p_adjusted)})"
        if one.claimed and about.measure == answered.criterion:
            text += _moved(answered, about, table)
        names = [first.name, second.name]
        found.append(Interaction(**{**vars(one), "a": a, "b": b, "knobs": names, "sentence": text}))
    return found


def _changes(answered: Answered, about: About, table: NDArray[np.int64]) -> list[float]:
    """Return the change of the first knob at both levels of the second, where a seed has all four."""
    ends = answered.at(about.measure, table[list(about.a)])  # (2, levels of the second knob, R, S)
    changes = [ends[1, at] - ends[0, at] for at in about.b]
    there = np.isfinite(changes[0]) & np.isfinite(changes[1])
    return [float(mean_of(mean_of(np.where(there, one, np.nan), 0), 0)) for one in changes]


def _moved(answered: Answered, about: About, table: NDArray[np.int64]) -> str:
    """Say where the best level of one knob lies at both levels of the other, if it moves."""
    for knob, other, ends, cells in ((0, 1, about.b, table), (1, 0, about.a, np.swapaxes(table, 0, 1))):
        pair = about.knobs[knob], about.knobs[other]
        one, two, best = answered.plan.knobs[about.knobs[knob]], answered.plan.knobs[about.knobs[other]], []
        for at in ends:
            means_LR = mean_of(answered.at(about.measure, cells[:, at]), 2)
            costs = answered.sign(about.measure) * mean_of(means_LR, 1)
            best.append(int(np.nanargmin(costs)) if np.isfinite(costs).any() else -1)
        ends_of = {replace(about, family="simple", knobs=pair, a=(min(best),), b=(max(best),), at=at) for at in ends}
        shown = any(each.claimed for asked, each in answered.by_about.items() if asked in ends_of)
        if shown and best[0] != best[1] and min(best) >= 0 and len(one.levels) > 2:
            where = (f"{label(one.levels[i])} at {two.plain(at)}" for i, at in zip(best, ends, strict=True))
            return f"; the best mean is that of {one.name}={', of '.join(where)}"
    return ""
