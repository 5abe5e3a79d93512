"""What is tried against a run's findings, and what the trial shows. Pure: who trains hands in what runs came to.

Shapes: C candidate (the run itself is the first), S seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.compare.budget import ALPHA
from trainer.compare.inference import Question, answer, model
from trainer.compare.statistics import Floats
from trainer.judge import advice
from trainer.judge.remedies import Overrides, Settings
from trainer.text import key_of

SINGLE = 12  # cures that are tried by themselves
PAIRED = 4  # of them, the first are tried in pairs too
GROUPS = {"optimizer": 2, "schedule": 2}  # which change several keys, count as so many
ENOUGH = 0.9  # of what the best brings: who changes least among those that bring so much is named


def candidates(findings: Sequence[str], config: Settings) -> list[Overrides]:
    """Return what to try: the findings' cures in turn, the first of each first; then pairs of the first ones."""
    columns = itertools.zip_longest(*(advice.cures(name, config).values() for name in dict.fromkeys(findings)))
    single: list[Overrides] = []
    for one in itertools.chain.from_iterable(columns):
        if one and one not in single:
            single.append(one)
    single = single[:SINGLE]
    pairs = [a | b for a, b in itertools.combinations(single[:PAIRED], 2) if not _meet(a, b)]
    return [*single, *(pair for pair in pairs if pair not in single)]


def _meet(a: Overrides, b: Overrides) -> bool:
    """Whether two cures change the same keys, or one a group that the other changes a key of."""
    return any(x == y or x.startswith(f"{y}.") or y.startswith(f"{x}.") for x in a for y in b)


def applied(typed: Sequence[str], cure: Overrides) -> list[str]:
    """Return overrides with those of a cure in their place; a group that is chosen anew takes its keys along."""

    def stays(key: str) -> bool:
        return not any(key == changed or key.startswith(f"{changed}.") for changed in cure)

    kept = [text for text in typed if stays(key_of(text))]
    return [*kept, *(f"{key}={value}" for key, value in cure.items())]


def cost(best: Mapping[str, float], chance: float, diverged: bool) -> float:
    """Return what a run came to: the loss at its best epoch, on the validation split where there is one.

    A run that diverged, or is worse, counts as one that guesses: `chance`, the loss of the best prediction that ignores
    the input.
    """
    loss = best.get("val/loss", best.get("eval/train_loss", math.nan))
    return chance if diverged or not loss < chance else loss


@dataclass(frozen=True)
class Shown:
    """What a cure came to beside the run itself."""

    mean: float
    difference: float  # of the mean cost: negative where the cure helps
    low: float  # 95 % interval
    high: float
    p: float  # corrected for the number of cures

    @property
    def verdict(self) -> str:
        """Say what is shown: `helps`, `worse` or `not shown`."""
        return "not shown" if not self.p <= ALPHA else "helps" if self.difference < 0 else "worse"

    @property
    def words(self) -> str:
        """Say the same of a cure, and where its own interval lies apart from 0, though of many tried that is luck."""
        if self.verdict != "not shown":
            return {"helps": "helps", "worse": "makes it worse"}[self.verdict]
        return "may help" if self.high < 0 else "may harm" if self.low > 0 else "not shown"


def compare(costs_CS: Floats) -> list[Shown]:
    """Compare every cure with the run itself, the first row, seed by seed; all of them tested with one error budget."""
    count, seeds = costs_CS.shape
    weights = np.eye(count)[1:] - np.eye(count)[0]
    questions = [
        Question("differences", "loss", 1.0, costs_CS[c] - costs_CS[0], np.full(seeds, 2.0), weights[c - 1])
        for c in range(1, count)
    ]
    found = answer(questions, {"loss": model(costs_CS, np.zeros(costs_CS.shape, dtype=bool), 1.0, {})})
    means = costs_CS.mean(1)[1:]
    columns = (means, found.difference, found.low, found.high, found.p_adjusted)
    return [Shown(*map(float, row)) for row in zip(*columns, strict=True)]


def named(cures: Sequence[Overrides], costs_CS: Floats) -> int | None:
    """Return the place of the cure to recommend among `cures`; None where none brought the mean cost down.

    Of those that bring nearly as much as the best, it is the one that changes least; of equal ones the better.
    """
    means = costs_CS.mean(1)
    gains = means[0] - means[1:]
    if not (gains > 0).any():
        return None
    near = [c for c in range(len(cures)) if gains[c] >= ENOUGH * gains.max()]
    return min(near, key=lambda c: (sum(GROUPS.get(key, 1) for key in cures[c]), -gains[c]))
