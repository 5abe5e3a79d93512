"""What is asked: of each knob, at equal values of all others; of two crossed knobs; of pairs of groups; of the best.

`ask` returns sums over contenders to test (inference.Question), each beside what it is about.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.compare.groups import Layout
from trainer.compare.inference import Question
from trainer.compare.knobs import Knob
from trainer.compare.statistics import Floats, mean_of

Family = Literal["effects", "simple", "interactions", "differences", "recommendation"]
# Parts of the error budget: what is asked first gets most. A family's part is shared by its questions.
WEIGHTS: dict[Family, float] = {
    "effects": 1.0, "simple": 0.3, "interactions": 0.2, "differences": 0.1, "recommendation": 0.1,
}  # fmt: skip
PARTS = 1.0, 0.1, 0.03  # of the measure that decides, of the score, of every other: these inherit what is shown
MAX_NAMES = 6  # interactions of a knob with more levels than this are asked at its ends, or of names not at all
MAX_PAIRS = 400  # more pairs of levels or groups than this are not asked: nobody reads them
MOST_SIMPLE = 30  # the same at the levels of one other knob


@dataclass(frozen=True)
class About:
    """What a question is about: knobs and levels by index; of two contenders, their indices."""

    family: Family
    measure: str
    knobs: tuple[int, ...] = ()
    a: tuple[int, ...] = ()  # of an effect (level,); of an interaction both levels of the first knob
    b: tuple[int, ...] = ()
    at: int | None = None  # of a simple effect: the level of the second knob
    pair: tuple[int, int] | None = None  # of two contenders


Asked = list[tuple[About, Question]]


def ask(plan: Layout, values: dict[str, Floats], failed_CS: NDArray[np.bool_], inflation_C: Floats) -> Asked:
    """Ask about every measure in `values` (C, S), the one that decides first; each inherits from those before it.

    failed_CS: where a run came to nothing. inflation_C: see tuning.Choice.
    """
    asked: Asked = []
    for number, (measure, values_CS) in enumerate(values.items()):
        part = PARTS[min(number, len(PARTS) - 1)]
        one = _Measure(plan, measure, values_CS, failed_CS)
        found: dict[Family, Asked] = {
            "effects": one.effects(),
            "simple": one.simple(),
            "interactions": one.interactions(),
            "differences": one.differences(),
        }
        for family, questions in found.items():
            questions = [(about, question) for about, question in questions if question.weights_C.any()]
            weight = WEIGHTS[family] * part / max(1, len(questions))
            for about, question in questions:
                subject = replace(about, measure="")
                asked.append((about, replace(_weighed(question, weight, inflation_C), subject=subject)))
    return asked


def against(plan: Layout, best: int, criterion: str, costs_CS: Floats, inflation_C: Floats) -> Asked:
    """Ask of every other contender whether it costs more than the best one."""
    found: Asked = []
    count = len(plan.contenders)
    weight = weight_of_pairs(plan) / max(1, count * (count - 1) // 2)
    for index in range(count):
        if index != best and np.isfinite(costs_CS[index]).any():
            about = About("recommendation", criterion, pair=(index, best))
            question = _of_two("recommendation", criterion, costs_CS, (index, best), one_sided=True)
            found.append((about, replace(_weighed(question, weight, inflation_C), subject=about)))
    return found


def weight_of_pairs(plan: Layout) -> float:
    """Return the budget of choosing the best: data choose it, so that any pair of contenders may be the one tested."""
    return WEIGHTS["recommendation"] if len(plan.contenders) > 1 else 0.0


def _weighed(question: Question, weight: float, inflation_C: Floats) -> Question:
    inflation = 1 + float(np.average(inflation_C, weights=question.weights_C**2))
    return replace(question, weight=weight, inflation=inflation)


@dataclass(frozen=True)
class _Measure:
    """Asks everything about one measure."""

    plan: Layout
    name: str
    values_CS: Floats
    failed_CS: NDArray[np.bool_]

    def effects(self) -> Asked:
        """Ask for each pair of a knob's levels, at equal values of all others, or balanced ones."""
        found: Asked = []
        for k, knob in enumerate(self.plan.knobs):
            if k in self.plan.fractions and not np.isfinite(self.values_CS).all():
                continue  # what is missing would leave it unbalanced
            table = self.plan.across(k)
            for i, j in pairs(len(knob.levels)):
                about = About("effects", self.name, (k,), (i,), (j,))
                if k in self.plan.by_setting:
                    found.append((about, self._by_setting(table[i], table[j])))
                else:
                    found.append((about, self._matched("effects", [(table[i], 1), (table[j], -1)], k)))
        return found

    def _by_setting(self, a_R: NDArray[np.int64], b_R: NDArray[np.int64]) -> Question:
        """Ask for the difference of two levels at each of R settings of the other knobs, infinite where one failed."""
        worst = np.inf if not self.plan.is_higher_better(self.name) else -np.inf
        values_C = np.append(np.where(self.failed_CS.any(1), worst, mean_of(self.values_CS, 1)), np.nan)
        there_R = (a_R >= 0) & (b_R >= 0)
        weights_C = np.zeros(len(self.values_CS))
        weights_C[a_R[there_R]], weights_C[b_R[there_R]] = (sign / max(1, there_R.sum()) for sign in (1, -1))
        with np.errstate(invalid="ignore"):  # of two that failed
            sums_R = values_C[a_R] - values_C[b_R]
        return Question("effects", self.name, 0.0, sums_R, np.full(len(sums_R), 2.0), weights_C, by_setting=True)

    def simple(self) -> Asked:
        """Ask the same at each level of one other knob; nothing where knobs are compared over settings."""
        if self.plan.by_setting:
            return []
        found: Asked = []
        for (k, knob), (l, other) in itertools.permutations(enumerate(self.plan.knobs), 2):
            table = self.plan.cells(k, l)
            if len(pairs(len(knob.levels))) * len(other.levels) > MOST_SIMPLE or len(self.plan.knobs) > 4:
                continue
            for m, (i, j) in itertools.product(range(len(other.levels)), pairs(len(knob.levels))):
                about = About("simple", self.name, (k, l), (i,), (j,), at=m)
                found.append((about, self._matched("simple", [(table[i, m], 1), (table[j, m], -1)])))
        return found

    def interactions(self) -> Asked:
        """Ask for each pair of knobs whether the change of one depends on the other."""
        found: Asked = []
        for (k, first), (l, second) in itertools.combinations(enumerate(self.plan.knobs), 2):
            table = self.plan.cells(k, l)
            for (i, j), (m, n) in itertools.product(_ends(first), _ends(second)):
                parts = [(table[j, n], 1), (table[i, n], -1), (table[j, m], -1), (table[i, m], 1)]
                question = self._matched("interactions", parts)
                if np.isfinite(question.sums_S).any():
                    found.append((About("interactions", self.name, (k, l), (i, j), (m, n)), question))
        return found

    def differences(self) -> Asked:
        """Ask for each pair of contenders that differ in one knob; with one or two knobs that is asked already."""
        if len(self.plan.knobs) < 3:
            return []
        asked = [
            About("differences", self.name, (k,), (i,), (j,), pair=(int(row[i]), int(row[j])))
            for k, knob in enumerate(self.plan.knobs)
            for row in self.plan.cells(k).T
            for i, j in pairs(len(knob.levels))
            if row[i] >= 0 and row[j] >= 0
        ]
        if len(asked) > MAX_PAIRS:
            return []
        return [(one, _of_two("differences", self.name, self.values_CS, one.pair)) for one in asked if one.pair]

    def _matched(
        self, family: Family, parts: Sequence[tuple[NDArray[np.int64], int]], knob: int | None = None
    ) -> Question:
        """Ask for the signed sum of parts (R,), averaged over R combinations, each and each seed with itself."""
        padded = np.vstack(
            [self.values_CS, np.full(self.values_CS.shape[1], np.nan)]
        )  # contender -1 is the missing one
        there_RS = np.all([np.isfinite(padded[rows]) for rows, _ in parts], axis=0)
        there_S, n_R = there_RS.any(0), there_RS.sum(1)
        whole_R = n_R > 0
        if there_S.sum() < 2:  # too few common seeds: at least the same combinations
            whole_R = np.all([np.isfinite(padded[rows]).any(1) for rows, _ in parts], axis=0)
        share_R = whole_R / max(1, whole_R.sum())
        # each combination counts alike, however many of its seeds ended: else the average leans on those that did
        part_RS = there_RS * (share_R * there_S.sum() / np.maximum(n_R, 1))[:, None]
        sums_RS = sum(sign * np.where(there_RS, padded[rows], 0.0) for rows, sign in parts)
        weights_C = np.zeros(len(padded))
        for rows, sign in parts:
            np.add.at(weights_C, rows, sign * share_R)
        sums_S = np.where(there_S, (part_RS * sums_RS).sum(0), np.nan)
        squares_S = np.where(there_S, len(parts) * (part_RS**2).sum(0), np.nan)
        return Question(family, self.name, 0.0, sums_S, squares_S, weights_C[:-1], knob=knob)


def _of_two(
    family: Family, measure: str, values_CS: Floats, pair: tuple[int, int], one_sided: bool = False
) -> Question:
    weights_C = np.zeros(len(values_CS))
    weights_C[list(pair)] = 1.0, -1.0
    sums_S = values_CS[pair[0]] - values_CS[pair[1]]
    return Question(family, measure, 0.0, sums_S, np.full(len(sums_S), 2.0), weights_C, one_sided=one_sided)


def pairs(count: int) -> list[tuple[int, int]]:
    """Return all pairs i < j below `count`; none where they would be too many to read."""
    return [] if count * (count - 1) // 2 > MAX_PAIRS else list(itertools.combinations(range(count), 2))


def _ends(knob: Knob) -> list[tuple[int, int]]:
    """Return the pairs of levels whose interactions are asked: all of a few, else a numeric knob's ends."""
    if len(knob.levels) <= MAX_NAMES:
        return pairs(len(knob.levels))
    return [(0, len(knob.levels) - 1)] if knob.is_numeric else []
