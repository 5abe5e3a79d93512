"""Name the group to use, and say why."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import stdtrit

from trainer.compare import keys, words
from trainer.compare.answered import Answered, is_loss, losses_differ
from trainer.compare.budget import ALPHA
from trainer.compare.groups import Group, listed
from trainer.compare.results import Contrast, GroupSummary, Interval, Recommendation
from trainer.compare.statistics import Floats, mean_interval, mean_of, number
from trainer.compare.tuning import has_ratios

MOST = 2  # groups of whose mean more is said, and sets of the same numbers


def recommendation(answered: Answered, groups: list[GroupSummary], has_ended: bool) -> Recommendation:
    """Name the group to use, and say why.

    has_ended: whether most runs were no longer improving, none was cut short, and validation was measured as
    often for all; else the best of now is named, and none is to be used.
    """
    criterion = answered.criterion
    if answered.best is None or criterion is None:
        why = "no run has a validation loss or accuracy; choosing by the test split would flatter it"
        if losses_differ(answered.plan):
            why = "losses of different definitions do not compare, and nothing else was measured in validation"
            why += " (metrics=[r2], say)"
        return Recommendation(f"no recommendation: {why}")
    group = groups[int(answered.choice.groups_C[answered.best])]
    asked = ((about.pair, one) for about, one in answered.by_about.items() if about.family == "recommendation")
    rivals = [(pair[0], one) for pair, one in asked if pair]
    apart = _apart(answered, criterion)  # by what is tested elsewhere
    also = {loser for winner, loser in apart if winner == answered.best}
    beaten = {loser for _, loser in apart}  # what is worse than any other is not the best
    worse = {index: one for index, one in rivals if one.claimed or index in beaten}
    costs_C = _costs(answered)
    tied = sorted((index for index, _ in rivals if index not in worse), key=lambda index: costs_C[index])
    same = _same(answered, [answered.best, *tied])
    like_it = {index for some in same if answered.best in some for index in some}
    ties = [answered.group_name(index) for index in tied]
    honest = _winners(answered, len(ties))
    of = f"mean {words.measure(criterion)}"
    first = "lowest" if answered.sign(criterion) > 0 else "highest"

    def told(value: float | None) -> str:
        return words.value(value or 0.0, criterion)

    chosen = ", wider for having been chosen" if len(groups) > 1 and (ties or answered.choice.inflation_C.any()) else ""
    ends = "" if honest.low is None else words.span(told(honest.low), told(honest.high))
    ends = f"up to {told(honest.high)}" if honest.low == 0 else ends  # a loss is never less
    interval = f", 95 % interval {ends}{chosen}" if ends else ""
    apart = " at seeds that had no say in the choice" if answered.choice.inflation_C[answered.best] else ""
    value = f"{told(honest.mean)}{apart} (n = {honest.n}{interval}){_own(group)}"
    mean = f"{group.name}: the {first} {of}, {value}"
    gone = [one.name for c, one in enumerate(answered.plan.contenders) if _all_failed(answered, c)]
    others = len(answered.plan.contenders) - 1
    if len(groups) == 1:
        sentence = f"only one group: {of} {told(honest.mean)} (n = {honest.n}{interval}){_own(group)}"
    elif worse or (gone and not rivals):
        counted = f"{len(worse)} of {others} others {words.verb('is', len(worse))}"
        if len(worse) == 1:
            counted = f"{answered.group_name(*worse)} is"
        if not ties and len(worse) + len(gone) == others:
            counted = "the other group is" if others == 1 else "every other group is"
        is_direct = all(one.claimed or index in also for index, one in worse.items())
        than = "" if is_direct else " than it or than another group"
        unlike, lowest = [index for index in tied if index not in like_it], f"{first} {of}: {group.name}, {value}"
        is_choice = not any(keys.is_condition(key) for knob in answered.plan.knobs for key in knob.keys)
        sentence = f"use {mean}" if is_choice and has_ended and not unlike else lowest
        if unlike:
            sentence += f"; not shown to be better than {listed(answered.plan, _groups(answered, unlike))}"
            sentence += _why_not(answered, min((costs_C[index] for index in worse), default=math.inf), unlike)
        sentence += f"; {counted} shown to be worse{than}" if worse else ""
        sentence += _ratio(answered, worse) if worse.keys() - beaten else ""
    elif rivals and all(one.p is None for _, one in rivals):
        alone = f"groups of one {answered.plan.unit} cannot be told apart"
        sentence = f"no group is shown to be better than another: {alone}; {mean}"
    else:
        sentence = f"no group is shown to be better than another; {mean}"
        bound = honest.high if answered.sign(criterion) > 0 else honest.low
        sentence += "" if bound is None else _why_not(answered, answered.sign(criterion) * bound, tied)
    for some in same[:MOST]:
        sentence += f"; {listed(answered.plan, _groups(answered, some))} gave exactly the same numbers"
    by_score = _apart(answered, answered.score) if answered.score and answered.score != criterion else []
    better = [answered.group_name(winner) for winner, loser in by_score if loser == answered.best]
    behind = [answered.group_name(loser) for winner, loser in by_score if winner == answered.best]
    if told_apart := better or ([] if worse else behind):
        are, how = words.verb("is", len(told_apart)), "better" if better else "worse"
        sentence += (
            f"; but by {words.measure(str(answered.score))}, {', '.join(told_apart[:3])} {are} shown to be {how}"
        )
    if gone:
        sentence += f"; every run of {', '.join(gone[:3])}{' and more' * (len(gone) > 3)} diverged or failed"
    return Recommendation(
        sentence=sentence,
        group=group.name,
        knobs=group.knobs,
        criterion=criterion,
        mean=honest.mean,
        low=honest.low,
        high=honest.high,
        n=honest.n,
        sd=group.measures[criterion].sd,
        overfit_share=group.overfit_share,
        ties=ties,
        command=group.command,
    )


def _own(group: GroupSummary) -> str:
    """Say how many runs of a group came to nothing, and how many overfit."""
    said = ""
    if group.failed_share.mean:
        failed = round(group.failed_share.mean * group.n)
        said += f"; {failed} of its {group.n} runs diverged or failed, counted as having learned nothing"
    if group.overfit_share.mean:
        overfit = round(group.overfit_share.mean * group.n)
        how_many = "it overfits" if group.n == 1 else f"{overfit} of its {group.n} runs overfit"
        said += f"; {how_many}: stop at the best epoch"
    return said


def _groups(answered: Answered, contenders: list[int]) -> list[Group]:
    return [answered.plan.groups[answered.choice.groups_C[c]] for c in contenders]


def _same(answered: Answered, contenders: list[int]) -> list[list[int]]:
    """Return the sets of contenders that have the same numbers, each of them at each seed."""
    found: dict[bytes, list[int]] = {}
    for index in contenders:
        numbers = b"".join(values_CS[index].tobytes() for values_CS in answered.tested.values())
        found.setdefault(numbers, []).append(index)
    return [some for some in found.values() if len(some) > 1]


def _ratio(answered: Answered, worse: Mapping[int, Contrast]) -> str:
    """Say how many times as high losses are that were compared as ratios: at each seed, and by the means in tables."""
    criterion, costs_C = str(answered.criterion), _costs(answered)
    if not has_ratios(criterion, answered.values[criterion]):
        return ""
    of_means = [costs_C[index] / costs_C[answered.best] for index in worse]
    least = min(*of_means, math.exp(min(700.0, *(one.difference or 0.0 for one in worse.values()))))
    if least < 1.01:
        return ""
    return f", tested as ratios: their losses are at least {math.floor(100 * least) / 100:.3g} times as high"


def _why_not(answered: Answered, shown: float, ties: list[int]) -> str:
    """Say why a group is not shown to be worse that lost runs, or whose mean costs more than what looks worse."""
    costs_C, criterion = _costs(answered), str(answered.criterion)
    told = []
    for index in reversed(ties):  # what surprises most first
        values, name = answered.tested[criterion][index], answered.group_name(index)
        failed, there = int(answered.failed_CS[index].sum()), values[np.isfinite(values)]
        mean, low, high = (words.value(float(of(there)), criterion) for of in (np.mean, np.min, np.max))
        if failed:
            lost = f"{failed} of {failed + len(there)} runs of {name} diverged or failed"
            told.append(f"{lost} (mean of the others {mean}): ranks have to show it too")
        elif costs_C[index] > shown:
            runs = f"{len(there)} {answered.plan.unit}s, from {low} to {high},"
            why = (
                f"its {runs} are too few to show that it is worse"
                if len(there) > 1
                else f"it has one {answered.plan.unit}"
            )
            told.append(f"{name} has a mean of {mean}, but {why}")
    return "".join(f"; {one}" for one in told[:MOST])


def _costs(answered: Answered) -> Floats:
    """Return the mean of what decides for each contender (C,), lower is better."""
    criterion = str(answered.criterion)
    return answered.sign(criterion) * mean_of(answered.tested[criterion], 1)


def _apart(answered: Answered, measure: str) -> list[tuple[int, int]]:
    """Return the pairs of contenders that a measure is shown to tell apart, the better one first."""
    found = []
    for about, one in answered.by_about.items():
        pair = answered.contenders(about)
        if pair and one.claimed and about.measure == measure and one.difference:
            is_worse = (one.difference > 0) == (answered.sign(measure) > 0)  # the first one
            found.append(pair[::-1] if is_worse else pair)
    return list(dict.fromkeys(found))


def _all_failed(answered: Answered, c: int) -> bool:
    """Whether a contender has no value because every run came to nothing."""
    members = list(answered.plan.contenders[c].members)
    return bool(
        answered.plan.failed_GS[members].any()
        and not np.isfinite(answered.values[str(answered.criterion)][members]).any()
    )


def _winners(answered: Answered, ties: int) -> Interval:
    """Return the mean of the best contender, with an interval for one that was chosen for its mean.

    Choosing flatters: among k that are not told apart, the best by the data is k times as likely to look better
    than it is. So the bound on that side is Bonferroni's for k (as the false coverage rate of Benjamini and
    Yekutieli 2005 asks for one chosen of k).
    """
    assert answered.best is not None
    criterion = str(answered.criterion)
    values_CS = answered.tested[criterion]
    mean, sd, low, high, n = (value[0] for value in mean_interval(values_CS[[answered.best]]))
    wider = np.sqrt(1 + answered.choice.inflation_C[answered.best])
    if not np.isfinite(sd):
        return Interval(number(mean), None, None, int(n))
    half = float(stdtrit(max(n - 1, 1), 1 - ALPHA / 2 / (ties + 1)) * sd / np.sqrt(max(n, 1)) * wider)
    low, high = mean - (mean - low) * wider, mean + (high - mean) * wider
    low, high = (mean - half, high) if answered.sign(criterion) < 0 else (low, mean + half)
    if is_loss(criterion) and np.nanmin(values_CS) >= 0:
        low = max(low, 0.0)
    if words.is_percent(criterion):
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(number(mean), number(low), number(high), int(n))
