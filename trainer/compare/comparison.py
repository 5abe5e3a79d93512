"""Compare runs: groups, effects of knobs, interactions, warnings, what to use, and the answer in a paragraph.

`compare(runs)` is a pure function; results.py defines what it returns. The steps, a module each: find the knobs
(knobs.py) and lay the runs out (groups.py); choose each contender's best setting where something is tuned (tuning.py);
ask (questions.py); test all questions with one error budget (inference.py); say it (words.py, answer.py).

Where nothing differs, at most 5 in 100 comparisons claim anything at all. docs/comparing.md has the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from trainer.compare import answer as answers_in_words
from trainer.compare import fairness, tuning, why, words
from trainer.compare.groups import Layout, Run, layout, summaries
from trainer.compare.inference import ALPHA, Answers, Model, answer, model
from trainer.compare.knobs import Knob, label
from trainer.compare.questions import About, Asked, against, ask, weight_of_pairs
from trainer.compare.results import (
    Comparison,
    Contrast,
    Difference,
    Effect,
    GroupSummary,
    Interaction,
    Interval,
    Level,
    Recommendation,
    Recorded,
    SimpleEffects,
)
from trainer.compare.statistics import Floats, mean_interval, mean_of, number, share_interval

__all__ = ["Comparison", "Run", "compare"]

SCORES = ("test_accuracy", "test_loss", "best_val_accuracy", "best_val_loss")
CRITERIA = ("best_val_loss", "best_val_accuracy")  # what the recommendation selects on: never the test split
TESTED = ("best_val_loss", "test_accuracy", "gap", "test_loss")
LOSS = {"loss", "criterion", "loss_fn", "loss_function", "label_smoothing", "objective"}  # keys that define the loss
MAX_SEEDS = 50  # more seeds than this are no plan


def compare(runs: Sequence[Run], tune: Sequence[str] | None = None) -> Comparison:
    """Compare runs, one or thousands, in any order.

    tune: the keys that are tuned, not compared; None guesses the learning rate where optimizers, schedules or batch
    sizes are compared; () tunes nothing.
    """
    if not runs:
        none = Recommendation("no recommendation: no runs")
        return Comparison([], [], [], [], [], none, None, None, [], {}, 0, answers_in_words.Answer("no runs", None))
    plan = layout(runs, tune)
    values = _values(plan)
    criterion = _criterion(plan, values)
    if plan.tuned and criterion is None:
        plan = layout(runs, ())
        values, criterion = _values(plan), None
    return _Comparing(plan, values, criterion).result()


def _values(plan: Layout) -> dict[str, Floats]:
    names = sorted({measure for group in plan.groups for run in group.runs for measure in run.measures})
    return {name: plan.values_GS(name) for name in names}


def _criterion(plan: Layout, values: Mapping[str, Floats]) -> str | None:
    """Return the measure that decides: of the validation split, and the same quantity for every group."""
    names = [*CRITERIA, *(f"best_val_{name}" for name in plan.metrics)]
    present = [name for name in names if name in values and np.isfinite(values[name]).any()]
    if any(defines_loss(knob) for knob in (*plan.knobs, *plan.tuned)):
        present = [name for name in present if not is_loss(name)]
    return present[0] if present else None


def defines_loss(knob: Knob) -> bool:
    """Whether losses at different levels of a knob are different quantities."""
    return any(LOSS & {*key.lower().split(".")} for key in knob.keys)


def is_loss(measure: str) -> bool:
    """Whether a measure is in units of the loss."""
    return tuning.is_loss(measure) or measure == "gap"


class _Comparing:
    """What the steps of one comparison share. G groups, C contenders, S seeds, T tests."""

    def __init__(self, plan: Layout, values: dict[str, Floats], criterion: str | None) -> None:
        self.plan, self.values, self.criterion = plan, values, criterion
        self.score = next((name for name in SCORES if name in values and np.isfinite(values[name]).any()), None)
        nothing = np.full((len(plan.groups), len(plan.seeds)), np.nan)
        self.costs_GS = tuning.cost(plan, criterion, values[criterion] if criterion else nothing)
        self.choice = tuning.choose(plan, self.costs_GS)
        self.failed_CS = self.choice.take(plan.failed_GS.astype(float)) == 1
        self.costs_CS = self.choice.take(self.costs_GS)
        ended_C = np.isfinite(self.choice.take(values[criterion] if criterion else nothing)).any(1, keepdims=True)
        self.best = tuning.best(np.where(ended_C, self.costs_CS, np.nan))
        first = [name for name in (criterion, self.score) if name]
        tested = [*TESTED, *(f"test_{name}" for name in plan.metrics)]
        names = dict.fromkeys(
            [*first, *(name for name in tested if name in values and np.isfinite(values[name]).any())]
        )
        self.tested: dict[str, Floats] = {name: self.choice.take(values[name]) for name in names}
        self.asked: Asked = []
        self.answers: Answers | None = None
        self.by_about: dict[About, Contrast] = {}

    def _sign(self, measure: str) -> float:
        return tuning.cost_sign(self.plan, measure)

    def result(self) -> Comparison:
        """Ask, test, and put the answers together."""
        self._test()
        groups = summaries(self.plan, self.values)
        edges = tuning.edges(self.plan, self.choice, self.best)
        loss_knobs = [knob for knob in self.plan.knobs if defines_loss(knob)]
        found = Comparison(
            groups=groups,
            effects=self._effects(),
            differences=self._differences(),
            interactions=self._interactions(),
            warnings=fairness.warnings(self.plan, self.choice, edges, loss_knobs),
            recommendation=self._recommendation(groups),
            score=self.score,
            criterion=self.criterion,
            tuned=[knob.name for knob in self.plan.tuned],
            chosen=self._chosen(),
            tests=sum(about.family != "recommendation" and one.p is not None for about, one in self.by_about.items()),
            answer=answers_in_words.Answer("", None),
        )
        return replace(found, answer=answers_in_words.compose(found, self.plan, edges))

    # -------------------------------------------------------------- tests

    def _test(self) -> None:
        fits = {name: [not (is_loss(name) and defines_loss(knob)) for knob in self.plan.knobs] for name in self.tested}
        self.asked = ask(self.plan, self.tested, fits, self.choice.inflation_C)
        tables = {k: self.plan.cells(k) for k in range(len(self.plan.knobs))}
        models: dict[str, Model] = {
            name: model(values, self.failed_CS, self._sign(name), tables) for name, values in self.tested.items()
        }
        if self.criterion and self.best is not None:
            costs_CS = self.choice.take(tuning.ranked(self.plan, self.criterion, self.values[self.criterion]))
            self.asked += against(self.plan, self.best, "cost", costs_CS, self.choice.inflation_C)
            models["cost"] = model(costs_CS, self.failed_CS, 1.0, {})
        if self.asked:
            questions = [question for _, question in self.asked]
            self.answers = answer(questions, models, weight_of_pairs(self.plan) if self.best is not None else 0.0)
            self.by_about = {about: self._contrast(t) for t, (about, _) in enumerate(self.asked)}

    def _contrast(self, t: int) -> Contrast:
        """Return the answer to question t; what it is about names a and b."""
        found, (about, question) = self.answers, self.asked[t]
        assert found is not None
        claimed = bool(found.p_adjusted[t] <= ALPHA)
        possible = bool(np.isfinite(found.p[t]))
        settles = possible and not claimed and found.needed[t] <= MAX_SEEDS
        signs = np.sign(question.sums_S[np.isfinite(question.sums_S)])
        higher = float((signs > 0).sum() + 0.5 * (signs == 0).sum())
        share = Interval(higher / len(signs), *share_interval(higher, len(signs)), len(signs)) if len(signs) else NONE
        one = Contrast(
            a=None,
            b=None,
            measure=about.measure if about.measure != "cost" else str(self.criterion),
            difference=number(found.difference[t]),
            low=number(found.low[t]),
            high=number(found.high[t]),
            sd=number(found.sd[t]),
            n=int(found.n[t]),
            paired=bool(found.paired[t]),
            p=number(found.p[t]),
            p_adjusted=number(found.p_adjusted[t]),
            claimed=claimed,
            answer="differs" if claimed else "not enough seeds" if settles or not possible else "no difference seen",
            seeds_needed=max(int(found.needed[t]), int(found.n[t]) + 1) if settles else None,
            higher_share=share,
            sentence="",
        )
        if about.family in ("effects", "simple"):
            return self._of_levels(about, one)
        return one

    def _of_levels(self, about: About, one: Contrast) -> Contrast:
        knob, (i,), (j,) = self.plan.knobs[about.knobs[0]], about.a, about.b
        first, second = words.levels(knob, i, j)
        subject, tail = words.measure(one.measure), ""
        if about.at is not None:
            subject = f"at {self.plan.knobs[about.knobs[1]].plain(about.at)}: {subject}"
        if self.plan.tuned:
            tail = f", each at its best {' and '.join(knob.name for knob in self.plan.tuned)}"
            tail += " by the other seeds" if any(len(one.members) > 1 for one in self.plan.contenders) else ""
        text = words.sentence(one, subject, f"at {first} than at {second}{tail}", self.plan.unit, self._means(about))
        text += words.failures(knob, self._failed(about), i, j)
        return replace(one, a=knob.levels[i], b=knob.levels[j], sentence=text)

    def _means(self, about: About) -> tuple[float, float] | None:
        """Return the means of both levels: at each seed over the combinations that have both, as the difference is."""
        table = self.plan.cells(*about.knobs)
        sides = [table[one[0]] if about.at is None else table[one[0], about.at] for one in (about.a, about.b)]
        rows = (sides[0] >= 0) & (sides[1] >= 0)
        values = [self.tested[about.measure][side[rows]] for side in sides]
        both = np.isfinite(values[0]) & np.isfinite(values[1])
        if both.any(0).sum() >= 2:
            values = [np.where(both, one, np.nan) for one in values]
        means = [float(mean_of(mean_of(one, 0), 0)) for one in values]
        return (means[0], means[1]) if np.isfinite(means).all() else None

    def _failed(self, about: About) -> list[tuple[int, int]]:
        """Return for each level of a knob how many runs came to nothing, and of how many."""
        there_CS = self.failed_CS | np.isfinite(self.tested[about.measure])
        table = self.plan.cells(*about.knobs)
        rows = [level[level >= 0] for level in (table if about.at is None else table[:, about.at])]
        return [(int(self.failed_CS[some].sum()), int(there_CS[some].sum())) for some in rows]

    # -------------------------------------------------------------- answers

    def _effects(self) -> list[Effect]:
        found = []
        for name in self.tested:
            of_measure = []
            for k, knob in enumerate(self.plan.knobs):
                contrasts = [
                    self._with_loss(about, one)
                    for about, one in self.by_about.items()
                    if about.family == "effects" and about.measure == name and about.knobs == (k,)
                ]
                if contrasts:
                    of_measure.append(self._effect(k, knob, name, contrasts))
            found += sorted(of_measure, key=lambda effect: (not effect.claimed, -(effect.size or 0.0)))
        return found

    def _effect(self, k: int, knob: Knob, name: str, contrasts: list[Contrast]) -> Effect:
        """Sum up a knob's contrasts: its shape, or else the largest claimed one, or the largest, gives the sentence."""
        tested = [(abs(one.difference), one) for one in contrasts if one.difference is not None]
        levels = self._levels(k, knob, name)
        rows = [row for level in self.plan.cells(k) for row in level if row >= 0]
        shape = None  # of survivors there is none to show
        if not self.failed_CS[rows].any():
            shape = words.shape(knob, name, levels, contrasts, self._sign(name) > 0)
        sentence = f"{knob.name}: no two of its values were run at equal values of the other knobs"
        if tested:
            sentence = max(tested, key=lambda pair: (pair[1].claimed, pair[0]))[1].sentence
        if shape and shape.kind != "no shape shown":
            sentence = f"{shape.sentence}; {sentence}"
        return Effect(
            knob=knob.name,
            keys=list(knob.keys),
            together=list(knob.together),
            measure=name,
            levels=levels,
            contrasts=contrasts,
            size=max((size for size, _ in tested), default=None),
            claimed=any(one.claimed for one in contrasts),
            sentence=sentence,
            shape=shape,
            simple=self._simple(k, name),
            why=self._why(k, name, contrasts),
        )

    def _why(self, k: int, name: str, contrasts: list[Contrast]) -> list[Recorded]:
        if name != (self.criterion or self.score) or not any(one.claimed for one in contrasts):
            return []
        return why.beside(self.plan, self._recorded, k, contrasts)

    @cached_property
    def _recorded(self) -> why.Measured:
        return why.measured(self.plan, self.choice.groups_C, is_loss(str(self.criterion)))

    def _levels(self, k: int, knob: Knob, name: str) -> list[Level]:
        """Average each level over the combinations and seeds that have every level, else over all."""
        padded = np.vstack([self.tested[name], np.full(len(self.plan.seeds), np.nan)])
        values_LRS = padded[self.plan.cells(k)]
        complete = np.isfinite(values_LRS).all(0)  # combinations and seeds that have every level
        if complete.any():
            values_LRS = np.where(complete, values_LRS, np.nan)
        mean, _, low, high, n = mean_interval(mean_of(values_LRS, 1))
        return [
            Level(number(mean[i]), number(low[i]), number(high[i]), int(n[i]), value)
            for i, value in enumerate(knob.levels)
        ]

    def _with_loss(self, about: About, one: Contrast) -> Contrast:
        """Add to a claim on the gap what the loss did: a smaller gap is no gain where the loss is higher."""
        decides = self.criterion if self.criterion and is_loss(self.criterion) else None
        if about.measure != "gap" or not one.claimed or decides is None:
            return one
        loss = self.by_about.get(replace(about, measure=decides))
        if loss is None or loss.difference is None:
            return one
        seen = f"{abs(loss.difference):.3g} {'higher' if loss.difference > 0 else 'lower'} there"
        seen += f" (p = {loss.p_adjusted:.2g})" if loss.claimed else ", which is not shown to be a difference"
        return replace(one, sentence=f"{one.sentence}; the {words.measure(decides)} is {seen}")

    def _simple(self, k: int, name: str) -> list[SimpleEffects]:
        found: dict[tuple[int, int], list[Contrast]] = {}
        for about, one in self.by_about.items():
            if about.family == "simple" and about.measure == name and about.knobs[0] == k and about.at is not None:
                found.setdefault((about.knobs[1], about.at), []).append(self._with_loss(about, one))
        made = []
        for (other, level), contrasts in found.items():
            tested = [one for one in contrasts if one.difference is not None]
            if tested:
                most = max(tested, key=lambda one: (one.claimed, abs(one.difference or 0.0)))
                at = self.plan.knobs[other].plain(level)
                made.append(SimpleEffects(at, contrasts, any(one.claimed for one in contrasts), most.sentence))
        return made

    def _differences(self) -> list[Difference]:
        """Return the differences of contenders that differ in one knob, by the names of their groups."""
        found = []
        for about, one in self.by_about.items():
            pair = self._contenders(about)
            if pair is None:
                continue
            a, b = (self._group_name(index) for index in pair)
            subject, than = f"{words.measure(one.measure)} of {a}", f"than that of {b}"
            text = words.sentence(one, subject, than, self.plan.unit)
            knob = self.plan.knobs[about.knobs[0]].name
            found.append(Difference(**{**vars(one), "a": a, "b": b, "knob": knob, "sentence": text}))
        return found

    def _group_name(self, contender: int) -> str:
        """Return the name of the group that stands for a contender."""
        group = self.choice.groups_C[contender]
        return self.plan.groups[group].name if group >= 0 else self.plan.contenders[contender].name

    def _interactions(self) -> list[Interaction]:
        found = []
        for about, one in self.by_about.items():
            if about.family != "interactions":
                continue
            first, second = (self.plan.knobs[k] for k in about.knobs)
            a, b = [first.levels[i] for i in about.a], [second.levels[i] for i in about.b]
            table = self.plan.cells(*about.knobs)
            low, high = self._changes(about, table)
            subject = f"what {first.name} does to the {words.measure(one.measure)} depends on {second.name}"
            places = [second.plain(i) for i in about.b]
            changes = (
                f"from {first.text(about.a[0])} to {first.text(about.a[1])} it changes by {low:+.3g} at {places[0]}"
            )
            changes += f", by {high:+.3g} at {places[1]}"
            if not one.claimed:
                subject = f"not shown that {subject}"
            text = f"{subject}: {changes}"
            if one.p_adjusted is not None and one.difference is not None:
                text += f" (difference {one.difference:+.3g}, 95 % interval {one.low:.3g} to {one.high:.3g}, "
                text += f"{one.n} {self.plan.unit}s, corrected p = {one.p_adjusted:.2g})"
            if one.claimed and about.measure == self.criterion:
                text += self._moved(about, table)
            names = [first.name, second.name]
            found.append(Interaction(**{**vars(one), "a": a, "b": b, "knobs": names, "sentence": text}))
        return found

    def _changes(self, about: About, table: NDArray[np.int64]) -> list[float]:
        """Return the change of the first knob at both levels of the second, where a seed has all four."""
        padded = np.vstack([self.tested[about.measure], np.full(len(self.plan.seeds), np.nan)])
        changes = [padded[table[about.a[1], at]] - padded[table[about.a[0], at]] for at in about.b]
        there = np.isfinite(changes[0]) & np.isfinite(changes[1])
        return [float(mean_of(mean_of(np.where(there, one, np.nan), 0), 0)) for one in changes]

    def _cell_means(self, name: str, rows: NDArray[np.int64]) -> Floats:
        padded = np.vstack([self.tested[name], np.full(len(self.plan.seeds), np.nan)])
        return mean_of(padded[rows], 1)

    def _moved(self, about: About, table: NDArray[np.int64]) -> str:
        """Say where the best level of one knob lies at both levels of the other, if it moves."""
        for knob, other, ends, cells in ((0, 1, about.b, table), (1, 0, about.a, np.swapaxes(table, 0, 1))):
            one, two, best = self.plan.knobs[about.knobs[knob]], self.plan.knobs[about.knobs[other]], []
            for at in ends:
                means = [mean_of(self._cell_means(about.measure, cells[i, at]), 0) for i in range(len(one.levels))]
                costs = self._sign(about.measure) * np.array(means, float)
                best.append(int(np.nanargmin(costs)) if np.isfinite(costs).any() else -1)
            if best[0] != best[1] and min(best) >= 0 and len(one.levels) > 2:
                where = (f"{label(one.levels[i])} at {two.plain(at)}" for i, at in zip(best, ends, strict=True))
                return f"; the best {one.name} is {', '.join(where)}"
        return ""

    def _chosen(self) -> dict[str, str]:
        if not self.plan.tuned:
            return {}
        return {
            one.name: self._group_name(c) for c, one in enumerate(self.plan.contenders) if self.choice.groups_C[c] >= 0
        }

    # -------------------------------------------------------------- what to use

    def _recommendation(self, groups: list[GroupSummary]) -> Recommendation:
        """Name the group to use, and say why."""
        if self.best is None or self.criterion is None:
            why = "no run has a validation loss or accuracy; choosing by the test split would flatter it"
            if any(defines_loss(knob) for knob in (*self.plan.knobs, *self.plan.tuned)):
                why = "losses of different definitions do not compare, and no run has a validation accuracy"
            return Recommendation(f"no recommendation: {why}")
        group = groups[int(self.choice.groups_C[self.best])]
        asked = ((about.pair, one) for about, one in self.by_about.items() if about.family == "recommendation")
        rivals = [(pair[0], one) for pair, one in asked if pair]
        also = self._shown_worse()
        ties = [self._group_name(index) for index, one in rivals if not one.claimed and index not in also]
        honest = self._winners(len(ties))
        of = f"mean {words.measure(self.criterion)}"
        first = "lowest" if self._sign(self.criterion) > 0 else "highest"
        interval = "" if honest.low is None else f", 95 % interval {honest.low:.4g} to {honest.high:.4g}"
        apart = " at seeds that had no say in the choice" if self.choice.inflation_C[self.best] else ""
        sentence = f"use {group.name}: the {first} {of}, {honest.mean:.4g}{apart} (n = {honest.n}{interval})"
        worse = [index for index, one in rivals if one.claimed or index in also]
        how = " by the logarithm of the loss" if is_loss(self.criterion) and set(worse) - also else ""
        gone = [one.name for c, one in enumerate(self.plan.contenders) if self._all_failed(c)]
        others = len(self.plan.contenders) - 1
        if len(groups) == 1:
            sentence = f"only one group: {of} {honest.mean:.4g} (n = {honest.n}{interval})"
        elif rivals and all(one.p is None for _, one in rivals) and not worse:
            sentence += f"; nothing is tested: groups of one {self.plan.unit} cannot be told apart"
        elif ties:
            shown = ", ".join(ties[:3]) + (f" and {len(ties) - 3} more" if len(ties) > 3 else "")
            counted = (
                f"; {len(worse)} of {others} others {'is' if len(worse) == 1 else 'are'} shown to be worse{how}"
                if worse
                else ""
            )
            sentence += f"{counted}; not shown to be worse: {shown}"
        elif worse and len(worse) + len(gone) == others:
            sentence += f"; {'the other group' if others == 1 else 'every other group'} is shown to be worse{how}"
        if gone:
            sentence += f"; every run of {', '.join(gone[:3])}{' and more' * (len(gone) > 3)} diverged or failed"
        if group.failed_share.mean:
            failed = round(group.failed_share.mean * group.n)
            sentence += f"; {failed} of its {group.n} runs diverged or failed, counted as having learned nothing"
        if group.overfit_share.mean:
            overfit = round(group.overfit_share.mean * group.n)
            sentence += f"; {overfit} of its {group.n} runs overfit: stop at the best epoch"
        return Recommendation(
            sentence=sentence,
            group=group.name,
            knobs=group.knobs,
            criterion=self.criterion,
            mean=honest.mean,
            low=honest.low,
            high=honest.high,
            n=honest.n,
            sd=group.measures[self.criterion].sd,
            overfit_share=group.overfit_share,
            ties=ties,
            command=group.command,
        )

    def _shown_worse(self) -> set[int]:
        """Return the contenders that a claimed difference from the best one, in what decides, shows to be worse."""
        found = set()
        for about, one in self.by_about.items():
            pair = self._contenders(about)
            if one.claimed and about.measure == self.criterion and pair and self.best in pair and one.difference:
                other = pair[1] if pair[0] == self.best else pair[0]
                is_higher = (one.difference > 0) == (pair[0] == other)
                if is_higher == (self._sign(about.measure) > 0):
                    found.add(other)
        return found

    def _contenders(self, about: About) -> tuple[int, int] | None:
        """Return the two contenders that a question compares; None where it averages over several."""
        pair = about.pair
        if len(self.plan.knobs) == 1 and about.family == "effects":
            rows = self.plan.cells(0)[:, 0]
            pair = int(rows[about.a[0]]), int(rows[about.b[0]])
        elif len(self.plan.knobs) == 2 and about.family == "simple":
            table = self.plan.cells(*about.knobs)[:, about.at, 0]
            pair = int(table[about.a[0]]), int(table[about.b[0]])
        return pair if pair and min(pair) >= 0 and about.family != "recommendation" else None

    def _all_failed(self, c: int) -> bool:
        """Whether a contender has no value because every run came to nothing."""
        members = list(self.plan.contenders[c].members)
        return bool(
            self.plan.failed_GS[members].any() and not np.isfinite(self.values[str(self.criterion)][members]).any()
        )

    def _winners(self, ties: int) -> Interval:
        """Return the mean of the best contender, with an interval for one that was chosen for its mean.

        Choosing flatters: among k that are not told apart, the best by the data is k times as likely to look better
        than it is. So the bound on that side is Bonferroni's for k (as the false coverage rate of Benjamini and
        Yekutieli 2005 asks for one chosen of k).
        """
        assert self.best is not None
        mean, sd, low, high, n = (value[0] for value in mean_interval(self.tested[str(self.criterion)][[self.best]]))
        wider = np.sqrt(1 + self.choice.inflation_C[self.best])
        if not np.isfinite(sd):
            return Interval(number(mean), None, None, int(n))
        half = float(stdtrit(max(n - 1, 1), 1 - ALPHA / 2 / (ties + 1)) * sd / np.sqrt(max(n, 1)) * wider)
        low, high = mean - (mean - low) * wider, mean + (high - mean) * wider
        low, high = (mean - half, high) if self._sign(str(self.criterion)) < 0 else (low, mean + half)
        if is_loss(str(self.criterion)) and np.nanmin(self.tested[str(self.criterion)]) >= 0:
            low = max(low, 0.0)
        return Interval(number(mean), number(low), number(high), int(n))


NONE = Interval(None, None, None, 0)
