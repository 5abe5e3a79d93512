"""Put all questions of a comparison to its runs at once, and keep each answer as a contrast."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.compare import keys, tuning, why, words
from trainer.compare.budget import ALPHA
from trainer.compare.groups import Layout, share
from trainer.compare.inference import Answers, Model, answer, model
from trainer.compare.knobs import Knob
from trainer.compare.questions import About, Asked, against, ask, weight_of_pairs
from trainer.compare.results import Contrast
from trainer.compare.statistics import Floats, mean_of, number

SCORES = ("test_accuracy", "test_loss", "best_val_accuracy", "best_val_loss")
TESTED = ("best_val_loss", "test_accuracy", "gap", "test_loss")
MAX_SEEDS = 50  # more seeds than this are no plan


def defines_loss(knob: Knob) -> bool:
    """Whether losses at different levels of a knob are different quantities."""
    return any(map(keys.defines_loss, knob.keys))


def is_loss(measure: str) -> bool:
    """Whether a measure is in units of the loss."""
    return tuning.is_loss(measure) or measure == "gap"


def losses_differ(plan: Layout) -> bool:
    """Whether the groups' losses are different quantities, no mean of which tells anything."""
    return any(map(defines_loss, (*plan.knobs, *plan.tuned)))


def known(values: Mapping[str, Floats], names: Iterable[str]) -> list[str]:
    """Return the measures among names that have a value anywhere."""
    return [name for name in names if name in values and np.isfinite(values[name]).any()]


class Answered:
    """The questions of one comparison and their answers, each a contrast. G groups, C contenders, S seeds, T tests."""

    def __init__(self, plan: Layout, values: dict[str, Floats], criterion: str | None) -> None:
        self.plan, self.values, self.criterion = plan, values, criterion
        comparable = {name: each for name, each in values.items() if not (losses_differ(plan) and is_loss(name))}
        self.score = next(iter(known(comparable, SCORES)), None)
        deciding_GS = values[criterion] if criterion else np.full((len(plan.groups), len(plan.seeds)), np.nan)
        costs_GS = tuning.cost(plan, criterion, deciding_GS)
        self.choice = tuning.choose(plan, costs_GS)
        self.failed_CS = self.choice.take(plan.failed_GS.astype(float)) == 1
        ended_C = np.isfinite(self.choice.take(deciding_GS)).any(1, keepdims=True)
        self.best = tuning.best(np.where(ended_C, self.choice.take(costs_GS), np.nan))
        first = [name for name in (criterion, self.score) if name]
        names = dict.fromkeys([*first, *known(comparable, [*TESTED, *(f"test_{name}" for name in plan.metrics)])])
        self.tested: dict[str, Floats] = {name: self.choice.take(values[name]) for name in names}
        self.noise_df: dict[str, float] = {}
        self.asked: Asked = []
        self.answers: Answers | None = None
        self.by_about: dict[About, Contrast] = {}
        self._test()

    def sign(self, measure: str) -> float:
        """Return +1 where higher values of a measure are worse, else -1."""
        return tuning.cost_sign(self.plan, measure)

    def _test(self) -> None:
        self.asked = ask(self.plan, self.tested, self.failed_CS, self.choice.inflation_C)
        tables = {k: self.plan.across(k) for k in range(len(self.plan.knobs))}
        nothing = np.full((len(self.plan.groups), len(self.plan.seeds)), np.nan)
        idle_C = tuning.idle(self.plan, self.choice.take(self.values.get("best_val_loss", nothing)))
        models: dict[str, Model] = {
            name: model(values, self.failed_CS, self.sign(name), tables, idle_C) for name, values in self.tested.items()
        }
        self.noise_df = {name: one.blocked.df or one.within.df for name, one in models.items()}
        if self.criterion and self.best is not None:
            costs_CS = self.choice.take(tuning.ranked(self.plan, self.criterion, self.values[self.criterion]))
            self.asked += against(self.plan, self.best, "cost", costs_CS, self.choice.inflation_C)
            models["cost"] = model(costs_CS, self.failed_CS, 1.0, {}, idle_C)
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
        settles = possible and not claimed and found.needed[t] <= MAX_SEEDS and not question.by_setting
        is_open = settles or question.by_setting or not possible
        signs = np.sign(question.sums_S[np.isfinite(question.sums_S)])
        higher = float((signs > 0).sum() + 0.5 * (signs == 0).sum())
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
            answer="differs" if claimed else "not enough seeds" if is_open else "no difference seen",
            seeds_needed=max(int(found.needed[t]), int(found.n[t]) + 1) if settles else None,
            higher_share=share(higher, len(signs)),
            sentence="",
            over="settings" if question.by_setting else "seeds",
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
            tail += " by the other seeds" if self.plan.is_chosen else ""
        than = f"at {first} than at {second}{tail}"
        text = words.sentence(one, subject, than, self.plan.unit, self._means(about))
        text += self._restricted(about, one) + words.failures(knob, self._failed(about), i, j)
        return replace(one, a=knob.levels[i], b=knob.levels[j], sentence=text)

    def _table(self, about: About) -> NDArray[np.int64]:
        """Return the contenders at each level of a knob; of a simple effect, at one level of another."""
        return self.plan.across(about.knobs[0]) if about.at is None else self.plan.cells(*about.knobs)[:, about.at]

    def _sides(self, about: About) -> tuple[NDArray[np.int64], Floats]:
        """Return both levels' contenders (2, R) at R combinations of the other knobs, and their values (2, R, S)."""
        table = self._table(about)
        sides = np.stack([table[one[0]] for one in (about.a, about.b)])
        return sides, self.at(about.measure, sides)

    def _means(self, about: About) -> tuple[float, float] | None:
        """Return the means of both levels, over the combinations and seeds that have both, as the difference is."""
        if about.knobs[0] in self.plan.by_setting:
            return None  # the difference is a median
        sides, values = self._sides(about)
        values = values[:, (sides >= 0).all(0)]
        both = np.isfinite(values).all(0)
        if both.any(0).sum() >= 2:
            values = np.where(both, values, np.nan)
        means = [float(mean_of(mean_of(one, 1), 0)) for one in values]
        return (means[0], means[1]) if np.isfinite(means).all() else None

    def _restricted(self, about: About, one: Contrast) -> str:
        """Say that a difference is of some of the seeds only, or of some combinations of the other knobs."""
        if one.over == "settings":
            return ""  # which are counted
        sides, values = self._sides(about)
        there = np.isfinite(values)
        known, text = (there[0] & there[1]).any(1), ""
        if one.paired and one.n < there.any((0, 1)).sum() and not self.failed_CS[sides[sides >= 0]].any():
            text = f"; over the {self.plan.unit}s that both have"
        if not 0 < known.sum() < (sides >= 0).any(0).sum():
            return text
        if known.sum() > 1:
            return f"{text}; at {known.sum()} combinations of the other knobs, where both have numbers"
        levels = self.plan.contenders[sides[0, known][0]].levels
        others = (k for k in range(len(levels)) if k not in about.knobs)
        at = " ".join(self.plan.knobs[k].plain(levels[k]) for k in others)
        return f"{text}; at {at} alone, where both have numbers"

    def _failed(self, about: About) -> list[tuple[int, int]]:
        """Return for each level of a knob how many runs came to nothing, and of how many."""
        there_CS = self.failed_CS | np.isfinite(self.tested[about.measure])
        rows = [level[level >= 0] for level in self._table(about)]
        return [(int(self.failed_CS[some].sum()), int(there_CS[some].sum())) for some in rows]

    @cached_property
    def recorded(self) -> why.Measured:
        """Return what else was recorded of the groups that stand for the contenders."""
        return why.measured(self.plan, self.choice.groups_C, is_loss(str(self.criterion)))

    def at(self, measure: str, contenders: NDArray[np.int64]) -> Floats:
        """Return a measure of contenders, of any shape, at each seed (..., S); nan of -1, which is none."""
        return np.vstack([self.tested[measure], np.full(len(self.plan.seeds), np.nan)])[contenders]

    def group_name(self, contender: int) -> str:
        """Return the name of the group that stands for a contender."""
        group = self.choice.groups_C[contender]
        return self.plan.groups[group].name if group >= 0 else self.plan.contenders[contender].name

    def contenders(self, about: About) -> tuple[int, int] | None:
        """Return the two contenders that a question compares; None where it averages over several."""
        pair = about.pair
        if len(self.plan.knobs) == 1 and about.family == "effects":
            rows = self.plan.cells(0)[:, 0]
            pair = int(rows[about.a[0]]), int(rows[about.b[0]])
        elif len(self.plan.knobs) == 2 and about.family == "simple":
            table = self.plan.cells(*about.knobs)[:, about.at, 0]
            pair = int(table[about.a[0]]), int(table[about.b[0]])
        return pair if pair and min(pair) >= 0 and about.family != "recommendation" else None
