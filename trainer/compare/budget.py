"""One error budget for all tests: the chance of any false claim among them is at most ALPHA.

The correction is the joint distribution of all test statistics where nothing differs, drawn from the model (max-T, here
min-P with weights: Westfall and Young 1993; for all pairs of one knob it is Tukey's test). Tests of one measure share
their rows, and measures of one run go together, so it asks for less than Bonferroni's or Holm's correction.

It steps down: what is shown is no longer asked, and its part of the budget goes to the next measure of the same
difference (the fallback procedure of Wiens and Dmitrienko 2005), or, where all of these are shown, to all that is left
(Holm 1979). So the accuracy is asked with the whole part of a difference whose loss is shown. A question's part never
shrinks as others are shown, which is what makes this a shortcut of a closed test (Bretz et al. 2009).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from trainer.compare.statistics import Floats

ALPHA = 0.05
STAGES = (1e-4, 1e-3, 0.01, ALPHA)  # what is as sure as this is taken as shown together
DRAWS = 2000, 10_000  # of the joint distribution: of many tests, and of few
MOST_JOINT = 1500  # more tests than this are corrected by Bonferroni, which takes no memory
MOST_DF = 20  # degrees of freedom above this are taken for this many: a little too cautious, and cheap


@dataclass(frozen=True)
class Corrected:
    """Corrected p values of T tests, and the p that each would have had to fall below: nan where nothing is tested."""

    p: Floats
    level: Floats


class Joint:
    """The sizes of T test statistics where nothing differs, B times drawn together.

    A one-sided test is that of the best contender, which data choose: any pair of contenders may be the one tested, so
    its statistic is the largest of all pairs.
    """

    def __init__(
        self,
        weights_TC: Floats,
        measure_T: NDArray[np.int64],
        one_sided_T: NDArray[np.bool_],
        correlation_MM: Floats,
        df_M: Sequence[float],
    ) -> None:
        """weights_TC: of contenders in each test's sum; correlation_MM and df_M: of the noise of the measures."""
        rng = np.random.default_rng(0)  # the same runs give the same answer
        (tests, count), measures = weights_TC.shape, len(df_M)
        mixed = np.linalg.cholesky(correlation_MM)
        draws = int(np.clip(500_000 / max(tests, count * measures), *DRAWS))
        means_BCM = rng.standard_normal((draws, count, measures)) @ mixed.T
        most = int(min(MOST_DF, max(1.0, *df_M)))
        noise_BDM = rng.standard_normal((draws, most, measures)) @ mixed.T
        self.kinds: list[tuple[int, bool]] = list(zip(measure_T.tolist(), one_sided_T.tolist(), strict=True))
        self.df_M = [int(min(most, max(1.0, df))) for df in df_M]
        self.size_BT = np.empty((draws, tests))
        for m, df in enumerate(self.df_M):
            sd_B = np.sqrt((noise_BDM[:, :df, m] ** 2).mean(1))
            of_it = measure_T == m
            unit_TC = weights_TC[of_it] / np.linalg.norm(weights_TC[of_it], axis=1, keepdims=True)
            self.size_BT[:, of_it] = np.abs(means_BCM[:, :, m] @ unit_TC.T) / sd_B[:, None]
            widest_B = (means_BCM[:, :, m].max(1) - means_BCM[:, :, m].min(1)) / np.sqrt(2) / sd_B
            self.size_BT[:, of_it & one_sided_T] = widest_B[:, None]

    def lowest(self, weights: Floats, asked: NDArray[np.bool_]) -> Floats:
        """Return the lowest weighted p among the tests that are asked, of each draw, sorted (B,)."""
        lowest_B = np.full(len(self.size_BT), np.inf)
        alike: dict[tuple[int, bool, float], list[int]] = {}
        for t in np.flatnonzero(asked).tolist():
            alike.setdefault((*self.kinds[t], float(weights[t])), []).append(t)
        for (m, one_sided, weight), tests in alike.items():  # of equal weight the largest statistic has the lowest p
            most_B = self.size_BT[:, tests].max(1)
            lowest_B = np.minimum(lowest_B, stdtr(self.df_M[m], -most_B) * (1 if one_sided else 2) / weight)
        return np.sort(lowest_B)


def correct(
    p: Floats,
    weights: Floats,
    subjects: Sequence[Hashable],
    floor: Floats,
    joint: Joint | None,
    joins: NDArray[np.bool_],
    reserve: float = 0.0,
) -> Corrected:
    """Correct p values (T,) for one another; nan where nothing could be tested.

    weights: parts of the budget. subjects: tests of equal subject are measures of one difference, in the order in which
    they inherit. floor: the least that a corrected p can be. joint: None where the tests are too many to draw; joins:
    of which tests that is the distribution. reserve: weight of what is not among the tests, and may have been.
    """
    open_T, reached = np.isfinite(p), 0.0
    corrected, level = np.full(len(p), np.nan), np.full(len(p), np.nan)
    for stage in STAGES:
        while open_T.any():
            part = inherited(weights, subjects, open_T)
            weighted, total = p[open_T] / part[open_T], part.sum() + reserve
            now = np.minimum(1.0, weighted * total)
            bound = np.full(len(now), ALPHA / total)
            if joint is not None:
                lowest_B = joint.lowest(part, open_T)
                count = np.searchsorted(lowest_B, weighted, side="right")
                drawn = (count + 1) / (len(lowest_B) + 1)
                drawn = np.where(count < 5, np.minimum(drawn, now), drawn)
                now = np.where(joins[open_T], drawn, now)
                bound = np.where(joins[open_T], np.quantile(lowest_B, ALPHA), bound)
            now = np.minimum(1.0, np.maximum(now, np.maximum(floor[open_T], reached)))
            corrected[open_T], level[open_T] = now, bound * part[open_T]
            if now.min() > stage:
                break
            reached = float(now[now <= stage].max())  # what is asked after it is no surer
            open_T[np.flatnonzero(open_T)[now <= stage]] = False
    return Corrected(corrected, level)


def inherited(weights: Floats, subjects: Sequence[Hashable], open_T: NDArray[np.bool_]) -> Floats:
    """Return the part of each open test: its own, and those of closed ones of its subject before it, in a circle."""
    part = np.where(open_T, weights, 0.0)
    of_subject: dict[Hashable, list[int]] = {}
    for t, subject in enumerate(subjects):
        of_subject.setdefault(subject, []).append(t)
    for tests in of_subject.values():
        heirs = [t for t in tests if open_T[t]]
        for place, t in enumerate(tests):
            if heirs and not open_T[t]:
                part[next((one for one in tests[place:] if open_T[one]), heirs[0])] += weights[t]
    return part
