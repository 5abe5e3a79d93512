"""Test many differences at once, with the power that the design gives and one error budget for all.

The model of a measure: y(c, s) = mean of contender c + effect of seed s + noise. Its residuals, pooled over all
contenders, give the noise that a difference is measured by: a randomised block design (Fisher 1935), seeds the blocks.
With (C - 1)(S - 1) degrees of freedom instead of the S - 1 of a pair's own t test, three seeds of four groups can tell.

Where a contender is noisier than the others (noise.py), its differences are measured by its own noise, with the degrees
of freedom of that, and corrected by Bonferroni: the joint distribution is that of one noise for all. The others'
differences are then measured by their own noise too, the paired t test, from four seeds on and where that promises the
shorter interval: its few degrees of freedom cost more than a little of the noisy one's noise. Where a knob's effect
itself changes from seed to seed, that is the noise of its effect (its interaction with the seeds; pooled only where the
two are alike, Bozivich, Bancroft and Hartley 1956; all measures of the runs are asked together).

Where each setting was run once there is no such noise. A knob's effect is then tested over the settings of the others,
as the differences there: by signed ranks (Wilcoxon 1945), exact whatever the spread at each where it does nothing.

How p values are corrected for one another: budget.py.
"""

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, ndtr, stdtr, stdtrit

from trainer.compare import budget
from trainer.compare import noise as noises
from trainer.compare.noise import Noise, Spread
from trainer.compare.statistics import CONFIDENCE, Floats, SignedRanks, grid_step, mean_of, seeds_needed, signed_ranks

ALIKE = 0.1  # p below which a knob's interaction with the seeds is not pooled with the rest
PAIRED = 4  # seeds from which a difference may have a noise of its own where some other contender is noisier


@dataclass(frozen=True, eq=False)
class Question:
    """One question put to the data: is a weighted sum of C contenders' values, seed by seed, different from 0?"""

    family: str
    measure: str
    weight: float  # its part of the error budget, relative to the others'
    sums_S: Floats  # the sum at each seed, nan where a value is missing
    squares_S: Floats  # of its weights at each seed
    weights_C: Floats  # its weights, averaged over seeds
    knob: int | None = None  # where it is a knob's effect, averaged over others: its interaction with seeds is noise
    inflation: float = 1.0  # of the variance: values of other choices at other seeds are not independent
    one_sided: bool = False  # whether only "higher" is asked
    by_setting: bool = False  # whether S are the settings of the other knobs, run once each: infinite where one failed
    subject: Hashable = None  # what it asks about, whatever the measure: see budget.py; None for itself alone


@dataclass(frozen=True)
class Answers:
    """What came of T questions: arrays of length T, nan where nothing could be tested."""

    difference: Floats
    low: Floats  # 95 % interval of each difference on its own
    high: Floats
    sd: Floats  # of the difference at one seed
    n: NDArray[np.int64]  # seeds, or the runs of the smaller side
    paired: NDArray[np.bool_]
    p: Floats
    p_adjusted: Floats
    needed: Floats  # seeds that would show a difference of the size seen, shrunk by what noise adds to it


@dataclass(frozen=True)
class Interaction:
    """How far a knob's effect on one measure changes from seed to seed, beside the rest of the noise: mean squares."""

    square: float
    df: int
    rest: float
    rest_df: float


@dataclass(frozen=True)
class Model:
    """A measure's values of C contenders at S seeds (nan where missing), and what is noise in them."""

    values_CS: Floats
    blocked: Noise
    within: Noise
    failed_CS: NDArray[np.bool_]
    worse: float  # +1 where higher values are worse, else -1
    floor: float  # the least variance that a value is granted: of rounding to a grid
    by_knob: Mapping[int, Interaction] = field(default_factory=dict)

    @cached_property
    def rows(self) -> int:
        """Return how many contenders have values."""
        return int(np.isfinite(self.values_CS).any(1).sum())


def model(
    values_CS: Floats,
    failed_CS: NDArray[np.bool_],
    worse: float,
    tables: Mapping[int, NDArray[np.int64]],
    idle_C: NDArray[np.bool_] | None = None,
) -> Model:
    """Fit the noise of one measure. tables: of each knob, its levels x other combinations -> contender, or -1.

    idle_C: contenders that have learned nothing. No seed moves these as it moves the others.
    """
    floor = grid_step(values_CS) ** 2 / 12  # the variance of rounding to a grid
    within, blocked = (noises.measure(values_CS, floor, is_blocked, idle_C) for is_blocked in (False, True))
    by_knob = {k: found for k, table in tables.items() if (found := _interaction(values_CS, table, blocked))}
    return Model(values_CS, blocked, within, failed_CS, worse, floor, by_knob)


def _interaction(values_CS: Floats, table: NDArray[np.int64], noise: Noise) -> Interaction | None:
    """Return a knob's interaction with the seeds, over combinations with every level; None where it is all noise."""
    rests = table[:, (table >= 0).all(0)]
    values_LRS = values_CS[rests]
    seeds = np.isfinite(values_LRS).all((0, 1))
    values_LRS = values_LRS[:, :, seeds]
    levels, combinations, count = values_LRS.shape
    df = (levels - 1) * (count - 1)
    if combinations < 2 or df < 1:
        return None
    total, total_df = noise.square * noise.df, noise.df
    if noise.wild_C[rests].any():  # these have no part in that noise, but in the interaction
        rows_RS = values_LRS.reshape(levels * combinations, count)
        residuals_RS = rows_RS - rows_RS.mean(0) - rows_RS.mean(1)[:, None] + rows_RS.mean()
        total, total_df = float((residuals_RS**2).sum()), (levels * combinations - 1.0) * (count - 1)
    rest_df = total_df - df
    if rest_df < 1:
        return None
    means = values_LRS.mean(1)
    residuals = means - means.mean(0) - means.mean(1)[:, None] + means.mean()
    sum_of_squares = combinations * float((residuals**2).sum())
    return Interaction(sum_of_squares / df, df, max((total - sum_of_squares) / rest_df, 1e-300), rest_df)


def _changing(models: Mapping[str, Model]) -> set[int]:
    """Return the knobs whose effects change from seed to seed by more than noise would make them.

    The ratio of mean squares is averaged over measures; as in noise.spreads they count as many as are independent.
    """
    size = noises.independent([one.blocked for one in models.values()])
    found: set[int] = set()
    for knob in {knob for one in models.values() for knob in one.by_knob}:
        known = [one.by_knob[knob] for one in models.values() if knob in one.by_knob]
        ratios = [one.square / one.rest for one in known]
        excess = float(np.mean([one for one in ratios if one < noises.MOST] or noises.MOST))  # of some noise at all
        if fdtrc(known[0].df * size, known[0].rest_df, excess) < ALIKE:
            found.add(knob)
    return found


@dataclass(frozen=True)
class _Test:
    """One question tested: the t test that is corrected, and what else must hold."""

    difference: float
    se: float
    df: float
    p: float
    n: int
    paired: bool
    sd: float  # of the difference at one seed
    floor: float = 0.0  # the adjusted p is at least this
    interval: tuple[float, float] | None = None  # where it is not that of the t test
    pooled: bool = True  # whether the joint distribution, which is drawn with one noise for all, is that of its p


def answer(questions: Sequence[Question], models: Mapping[str, Model], pairs_of_best: float = 0.0) -> Answers:
    """Test all questions. pairs_of_best: the weight of the choice of the best contender, which is any pair of them."""
    blocked, within = (
        noises.spreads([getattr(one, kind) for one in models.values()]) for kind in ("blocked", "within")
    )
    spreads = dict(zip(models, zip(blocked, within, strict=True), strict=True))
    changing = _changing(models)
    tests = [_test(one, models[one.measure], *spreads[one.measure], changing) for one in questions]
    difference, se, df, p, sd, floor, pooled = (
        np.array([getattr(test, name) for test in tests])
        for name in ("difference", "se", "df", "p", "sd", "floor", "pooled")
    )
    corrected = budget.correct(
        p,
        np.array([question.weight for question in questions]),
        [t if question.subject is None else question.subject for t, question in enumerate(questions)],
        floor,
        _joint(questions, models),
        pooled,
        pairs_of_best,
    )
    half = stdtrit(np.maximum(df, 1), 0.5 + CONFIDENCE / 2) * se
    low, high = difference - half, difference + half
    for t, test in enumerate(tests):
        if test.interval:
            low[t], high[t] = test.interval
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shrunk = np.abs(difference) * np.clip(1 - (se / difference) ** 2, 0, None)  # positive-part James-Stein
        needed = seeds_needed(shrunk / sd, np.minimum(corrected.level, budget.ALPHA))
    return Answers(
        difference=difference,
        low=low,
        high=high,
        sd=sd,
        n=np.array([test.n for test in tests]),
        paired=np.array([test.paired for test in tests]),
        p=p,
        p_adjusted=corrected.p,
        needed=needed,
    )


def _joint(questions: Sequence[Question], models: Mapping[str, Model]) -> budget.Joint | None:
    """Draw the statistics of all questions together where nothing differs; None where they are too many."""
    measures = list(dict.fromkeys(question.measure for question in questions))
    if not questions or len(questions) > budget.MOST_JOINT:
        return None
    asked = [models[measure] for measure in measures]
    return budget.Joint(
        np.stack([question.weights_C for question in questions]),
        np.array([measures.index(question.measure) for question in questions]),
        np.array([question.one_sided for question in questions]),
        noises.correlation([one.blocked.residuals_CS for one in asked]),
        [one.blocked.df if one.blocked.df >= 1 else one.within.df for one in asked],
    )


def _test(question: Question, one: Model, blocked: Spread, within: Spread, changing: Set[int]) -> _Test:
    """Test a question where two seeds, or two runs a side, make that possible."""
    if question.by_setting:
        return _over_settings(question.sums_S)
    rows = question.weights_C != 0
    weights = question.weights_C[rows]
    there = np.isfinite(question.sums_S)
    sums, squares = question.sums_S[there], question.squares_S[there]
    paired = len(sums) >= 2
    if paired:
        noise, spread, n, counts = one.blocked, blocked, len(sums), np.full(len(weights), float(len(sums)))
        difference, factor = float(sums.mean()), float(squares.mean()) / n * question.inflation
    else:
        counts = np.isfinite(one.values_CS[rows]).sum(1).astype(float)
        n = int(min(counts[weights > 0].sum(), counts[weights < 0].sum()))
        noise, spread = one.within, within
        difference = float((weights * mean_of(one.values_CS[rows], 1)).sum())
        if n < 2 or counts.min() < 1 or noise.df < 1:
            return _Test(difference, np.nan, np.nan, np.nan, n, False, np.nan)
        factor = float((weights**2 / counts).sum()) * question.inflation
    square, df = noise.square, noise.df
    knob = question.knob if paired and question.knob is not None else -1
    of_knob = one.by_knob.get(knob) if knob in changing else None
    if of_knob:
        square, df = max(of_knob.square, one.floor), of_knob.df
    is_one_noise = True
    odd = spread.odd_C[rows] | (one.rows == 2 and not paired)
    if paired and n >= PAIRED and not of_knob and spread.odd_C.any() and not odd.any():
        calm = float(np.nanmean(noise.squares_C[~spread.odd_C]))  # the noisier ones have their part in noise.square
        if _half(np.sqrt(square), df) > _half(np.sqrt(calm), n - 1):
            square, df, is_one_noise = max(float(sums.var(ddof=1) / squares.mean()), one.floor), n - 1.0, False
    se = float(np.sqrt(square * factor))
    if odd.any():
        parts = weights**2 / counts * question.inflation
        own_squares = np.where(odd, spread.squares_C[rows], noise.square)
        own = _satterthwaite(parts, own_squares, np.where(odd, noise.df_C[rows], noise.df))
        if not of_knob or _half(*own) > _half(se, df):
            se, df, is_one_noise = *own, one.rows == 2
    p = _p(difference, se, df, question.one_sided)
    test = _Test(difference, se, df, p, n, paired, se * np.sqrt(n), pooled=is_one_noise)
    if one.failed_CS[rows].any() and question.family != "interactions":  # which has no better side
        test = replace(test, floor=_rank_p(question, one, difference))
    return test


def _over_settings(sums_S: Floats) -> _Test:
    """Test differences at settings that were run once by their ranks: what changes from one to the next is the noise.

    Their sizes are rarely alike, so that the median tells more than the mean. What ended has to show it without what
    failed.
    """
    known, ended = sums_S[~np.isnan(sums_S)], sums_S[np.isfinite(sums_S)]
    n = len(ended)
    found = signed_ranks(ended) if n else SignedRanks(np.nan, np.nan, np.nan, np.nan)
    if not np.isfinite(found.low):
        return _Test(found.median, np.nan, np.nan, np.nan, n, False, np.nan)
    sd, whole = float(ended.std(ddof=1)), signed_ranks(known)
    p = whole.p if whole.median * found.median > 0 else 1.0
    interval = found.low, found.high
    return _Test(found.median, sd / np.sqrt(n), n - 1.0, p, n, True, sd, floor=found.p, interval=interval, pooled=False)


def _satterthwaite(parts: Floats, squares: Floats, df: Floats) -> tuple[float, float]:
    """Return standard error and degrees of freedom of a sum whose parts have noises of their own (Welch 1947)."""
    variances = parts * squares
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = variances.sum() ** 2 / (variances**2 / df).sum()
    return float(np.sqrt(variances.sum())), float(whole) if np.isfinite(whole) else float(df.min())


def _half(se: float, df: float) -> float:
    """Return half the width of an interval."""
    return float(stdtrit(max(df, 1.0), 0.5 + CONFIDENCE / 2) * se)


def _p(difference: float, se: float, df: float, one_sided: bool) -> float:
    """p of a t test; of no difference at all 1."""
    if not np.isfinite(se):
        return float("nan")
    t = 0.0 if difference == 0 else difference / se if se > 0 else np.sign(difference) * np.inf
    return float(stdtr(df, -t) if one_sided else 2 * stdtr(df, -abs(t)))


def _rank_p(question: Question, one: Model, difference: float) -> float:
    """p of the Mann-Whitney test with runs that came to nothing as the worst, normal with ties; 1 against the means.

    So survivors alone never show a difference: where more of a side failed, it ranks lower by as much.
    """
    scores = np.where(one.failed_CS, np.inf, one.worse * one.values_CS)
    above = scores[question.weights_C > 0].ravel()
    below = scores[question.weights_C < 0].ravel()
    above, below = above[~np.isnan(above)], below[~np.isnan(below)]
    m, k = len(above), len(below)
    if min(m, k) == 0:
        return 1.0
    u = (above[:, None] > below[None, :]).sum() + 0.5 * (above[:, None] == below[None, :]).sum() - m * k / 2
    ties = np.unique(np.concatenate([above, below]), return_counts=True)[1]
    variance = m * k / 12 * (m + k + 1 - (ties**3 - ties).sum() / max(1, (m + k) * (m + k - 1)))
    if variance <= 0 or u * difference * one.worse <= 0:
        return 1.0
    return float(2 * ndtr(-max(0.0, abs(u) - 0.5) / np.sqrt(variance)))
