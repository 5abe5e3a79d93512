"""Test many differences at once, with the power that the design gives and one error budget for all.

The model of a measure: y(c, s) = mean of contender c + effect of seed s + noise. Its residuals, pooled over all
contenders, give the noise that a difference is measured by: a randomised block design (Fisher 1935), seeds the blocks.
With (C - 1)(S - 1) degrees of freedom instead of the S - 1 of a pair's own t test, three seeds of four groups can tell.

Pooling is honest only where the noise is alike. Three guards, each measured by `scripts.calibrate null`:

- A difference must show even if any one of its rows has a noise of its own (Satterthwaite), at OWN.
- Where Bartlett's test sees unequal spreads, even weakly (EQUAL), it must do so after the correction for all tests;
  where it sees them clearly (UNEQUAL) nothing is pooled, and each pair has its own t test.
- Where a knob's effect itself changes from seed to seed, that is the noise of its effect (its interaction with the
  seeds; pooled only where the two are alike, Bozivich, Bancroft and Hartley 1956).

The correction is the joint distribution of all test statistics where nothing differs, drawn from the model (max-T, here
min-P with weights: Westfall and Young 1993; for all pairs of one knob it is Tukey's test). Tests of one measure share
their rows, and measures of one run go together, so it asks for less than Bonferroni's or Holm's correction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc, ndtr, stdtr, stdtrit

from trainer.compare.statistics import CONFIDENCE, Floats, grid_step, mean_of, seeds_needed

ALPHA = 0.05
OWN = 0.02, 0.012  # what a difference must reach by the noise of its own rows: of up to FEW rows, of more
EQUAL = 0.3, 0.4  # p of Bartlett's test below which spreads are not taken for equal without a second look
FEW = 5
UNEQUAL = 0.05  # p below which they are unequal: nothing is pooled
ALIKE = 0.2  # p below which a knob's interaction with the seeds is not pooled with the rest
DRAWS = 2000, 10_000  # of the joint distribution: of many tests, and of few
MOST_DF = 20  # degrees of freedom above this are taken for this many: a little too cautious, and cheap
MOST_JOINT = 1500  # more tests than this are corrected by Bonferroni, which takes no memory


@dataclass(frozen=True, eq=False)
class Question:
    """One question put to the data: is a weighted sum of C contenders' values, seed by seed, different from 0?"""

    family: str
    measure: str
    weight: float  # its part of the error budget, relative to the others'
    sums_S: Floats  # the sum at each seed, nan where a value is missing
    squares_S: Floats  # of its weights at each seed
    weights_C: Floats  # its weights, averaged over seeds
    strict: float = 1.0  # OWN is divided by this: many measures, and many sides, are many chances
    knob: int | None = None  # where it is a knob's effect, averaged over others: its interaction with seeds is noise
    inflation: float = 1.0  # of the variance: values of other choices at other seeds are not independent
    one_sided: bool = False  # whether only "higher" is asked


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
class Noise:
    """The noise of one measure, by row and pooled: with seeds as blocks, or without."""

    residuals_CS: Floats
    square: float  # mean square
    df: float
    squares_C: Floats  # mean square of each row
    df_C: Floats
    equal: float  # p of Bartlett's test of equal spreads


@dataclass(frozen=True)
class Model:
    """A measure's values of C contenders at S seeds (nan where missing), and what is noise in them."""

    values_CS: Floats
    blocked: Noise
    within: Noise
    failed_CS: NDArray[np.bool_]
    worse: float  # +1 where higher values are worse, else -1
    floor: float  # the least variance that a value is granted: of rounding to a grid
    by_knob: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)  # see `of_knob`

    @cached_property
    def rows(self) -> int:
        """Return how many contenders have values."""
        return int(np.isfinite(self.values_CS).any(1).sum())


def model(
    values_CS: Floats, failed_CS: NDArray[np.bool_], worse: float, tables: Mapping[int, NDArray[np.int64]]
) -> Model:
    """Fit the noise of one measure. tables: of each knob, its levels x other combinations -> contender, or -1."""
    floor = grid_step(values_CS) ** 2 / 12  # the variance of rounding to a grid
    there = np.isfinite(values_CS)
    rows, columns = there.any(1), there.any(0)
    means_C = mean_of(values_CS, 1)
    within = _noise(values_CS - means_C[:, None], int(there.sum() - rows.sum()), floor)
    residuals = np.where(there, values_CS - means_C[:, None], np.nan)
    for _ in range(1 if there.all() else 30):  # alternating means: exact at once where nothing is missing
        residuals = residuals - mean_of(residuals, 0)[None, :]
        residuals = residuals - mean_of(residuals, 1)[:, None]
    blocks = int(columns.sum()) - _pieces(there) if rows.any() else 0
    blocked = _noise(residuals, int(there.sum() - rows.sum()) - blocks, floor)
    by_knob = {k: noise for k, table in tables.items() if (noise := _of_knob(values_CS, table, blocked))}
    return Model(values_CS, blocked, within, failed_CS, worse, floor, by_knob)


def _pieces(there: NDArray[np.bool_]) -> int:
    """Count the parts of rows and seeds that share nothing: each has a mean of its own."""
    seeds: list[set[int]] = [set(np.flatnonzero(row).tolist()) for row in there if row.any()]
    parts: list[set[int]] = []
    for row in seeds:
        near = [part for part in parts if part & row]
        parts = [part for part in parts if part not in near] + [row.union(*near)]
    return len(parts)


def _noise(residuals_CS: Floats, df: int, floor: float) -> Noise:
    there = np.isfinite(residuals_CS)
    n_C, total = there.sum(1), int(there.sum())
    squares = np.where(there, residuals_CS, 0.0) ** 2
    if df < 1:
        nothing = np.full(len(n_C), np.nan)
        return Noise(residuals_CS, np.nan, 0.0, nothing, nothing, np.nan)
    df_C = np.where(n_C > 1, n_C * df / total, np.nan)  # what the blocks take is taken from all rows alike
    with np.errstate(invalid="ignore", divide="ignore"):
        squares_C = np.maximum(squares.sum(1) / df_C, floor)
    square = max(float(squares.sum()) / df, floor)
    return Noise(residuals_CS, square, float(df), squares_C, df_C, _bartlett(squares_C, df_C))


def _bartlett(squares: Floats, df: Floats) -> float:
    """p of Bartlett's test (1937) of equal variances, with degrees of freedom that need not be whole."""
    use = np.isfinite(squares) & (df > 0)
    squares, df = squares[use], df[use]
    if len(squares) < 3 or not (squares > 0).all():
        return 1.0 if len(squares) < 3 or not (squares > 0).any() else 0.0
    pooled = float((df * squares).sum() / df.sum())
    statistic = df.sum() * np.log(pooled) - (df * np.log(squares)).sum()
    correction = 1 + ((1 / df).sum() - 1 / df.sum()) / (3 * (len(df) - 1))
    return float(chdtrc(len(df) - 1, statistic / correction))


def _of_knob(values_CS: Floats, table: NDArray[np.int64], noise: Noise) -> tuple[float, float, float] | None:
    """Return (mean square, degrees of freedom, p) of a knob's interaction with the seeds.

    Over combinations that have every level; p: that it is no more than the rest of the noise. None where it is all.
    """
    rests = table[:, (table >= 0).all(0)]
    values_LRS = values_CS[rests]
    seeds = np.isfinite(values_LRS).all((0, 1))
    values_LRS = values_LRS[:, :, seeds]
    levels, combinations, count = values_LRS.shape
    df = (levels - 1) * (count - 1)
    if combinations < 2 or df < 1 or noise.df - df < 1:
        return None
    means = values_LRS.mean(1)
    rest = means - means.mean(0) - means.mean(1)[:, None] + means.mean()
    sum_of_squares = combinations * float((rest**2).sum())
    others = max((noise.square * noise.df - sum_of_squares) / (noise.df - df), 1e-300)
    return sum_of_squares / df, df, float(fdtrc(df, noise.df - df, sum_of_squares / df / others))


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
    own: float = 0.0  # p by the noise of its own rows, to be corrected too; 0 where p itself is that
    floor: float = 0.0  # the adjusted p is at least this
    pooled: bool = True  # whether the joint distribution, which is drawn with one noise for all, is that of its p


def answer(questions: Sequence[Question], models: Mapping[str, Model], pairs_of_best: float = 0.0) -> Answers:
    """Test all questions. pairs_of_best: the weight of the choice of the best contender, which is any pair of them."""
    tests = [_test(question, models[question.measure]) for question in questions]
    difference, se, df, p, sd, own, floor, pooled = (
        np.array([getattr(test, name) for test in tests])
        for name in ("difference", "se", "df", "p", "sd", "own", "floor", "pooled")
    )
    lowest = _lowest_p(questions, models)
    weights = np.array([question.weight for question in questions])
    adjusted = np.where(pooled, _adjust(p, weights, lowest, pairs_of_best), _adjust(p, weights, None, pairs_of_best))
    adjusted = np.maximum(adjusted, _adjust(own, weights, lowest, pairs_of_best))
    adjusted = np.where(np.isfinite(p), np.minimum(1.0, np.maximum(adjusted, floor)), np.nan)
    half = stdtrit(np.maximum(df, 1), 0.5 + CONFIDENCE / 2) * se
    level = ALPHA / (weights.sum() + pairs_of_best) if lowest is None else np.quantile(lowest, ALPHA)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrunk = np.abs(difference) * np.clip(1 - (se / difference) ** 2, 0, None)  # positive-part James-Stein
        needed = seeds_needed(shrunk / sd, np.minimum(level * weights, ALPHA))
    return Answers(
        difference=difference,
        low=difference - half,
        high=difference + half,
        sd=sd,
        n=np.array([test.n for test in tests]),
        paired=np.array([test.paired for test in tests]),
        p=np.maximum(p, own),
        p_adjusted=adjusted,
        needed=needed,
    )


def _test(question: Question, one: Model) -> _Test:
    """Test a question where two seeds, or two runs a side, make that possible."""
    rows = question.weights_C != 0
    weights = question.weights_C[rows]
    there = np.isfinite(question.sums_S)
    sums, squares = question.sums_S[there], question.squares_S[there]
    paired = len(sums) >= 2
    if paired:
        noise, n, counts = one.blocked, len(sums), np.full(len(weights), float(len(sums)))
        difference, factor = float(sums.mean()), float(squares.mean()) / n * question.inflation
    else:
        counts = np.isfinite(one.values_CS[rows]).sum(1).astype(float)
        noise, n = one.within, int(counts.min())
        difference = float((weights * mean_of(one.values_CS[rows], 1)).sum())
        if n < 2:
            return _Test(difference, np.nan, np.nan, np.nan, n, False, np.nan)
        factor = float((weights**2 / counts).sum()) * question.inflation
    of_knob = None if question.knob is None or not paired else one.by_knob.get(question.knob)
    counts = counts / question.inflation
    if one.rows == 2 or (noise.equal < UNEQUAL and n > 3):  # nothing to pool: the test of these values alone
        own_se, own_df = _satterthwaite(weights, counts, noise, rows)
        if paired:
            variance = max(sums.var(ddof=1), one.floor * squares.mean()) * question.inflation
            own_se = float(np.sqrt(variance / n))
            own_df = n - 1.0
        p = _p(difference, own_se, own_df, question.one_sided)
        test = _Test(difference, own_se, own_df, p, n, paired, own_se * np.sqrt(n), pooled=one.rows == 2)
    else:
        own_se, own_df = _lone(weights, counts, noise, rows)
        square, df = of_knob[:2] if of_knob and of_knob[2] < ALIKE else (noise.square, noise.df)
        se = float(np.sqrt(square * factor))
        own = _p(difference, own_se, own_df, question.one_sided)
        p = _p(difference, se, df, question.one_sided)
        noisier = se > 0 and fdtrc(own_df, df, (own_se / se) ** 2) < ALPHA
        shown = (own_se, own_df) if noisier else (se, df)  # its interval is its own where the pool does not fit it
        many = one.rows > FEW
        corrected = own if noise.equal < EQUAL[many] else 0.0
        floor = own * ALPHA / OWN[many] * question.strict
        test = _Test(difference, *shown, p, n, paired, se * np.sqrt(n), corrected, floor)
    if one.failed_CS[rows].any() and question.family != "interactions":  # which has no better side
        test = replace(test, floor=max(test.floor, _rank_p(question, one, difference)))
    return test


def _lone(weights: Floats, counts: Floats, noise: Noise, rows: NDArray[np.bool_]) -> tuple[float, float]:
    """Return standard error and degrees of freedom if the row that makes most of it has a noise of its own.

    Each row in turn is taken by its own noise, all others by theirs together (Satterthwaite's degrees of freedom); the
    row with the largest 97.5 % bound counts.
    """
    squares, df = noise.squares_C[rows], noise.df_C[rows]
    rest_df = np.maximum(noise.df - df, 1e-9)
    rest = np.maximum(noise.square * noise.df - squares * df, 0.0) / rest_df
    parts = weights**2 / counts
    own, others = parts * squares, (parts.sum() - parts) * rest
    with np.errstate(invalid="ignore", divide="ignore"):
        df_R = (own + others) ** 2 / (own**2 / df + others**2 / rest_df)
    df_R = np.where(np.isfinite(df_R), df_R, noise.df)
    se_R = np.sqrt(own + others)
    worst = int(np.argmax(np.nan_to_num(se_R * stdtrit(np.maximum(df_R, 0.5), 0.5 + CONFIDENCE / 2))))
    return float(se_R[worst]), float(df_R[worst])


def _satterthwaite(weights: Floats, counts: Floats, noise: Noise, rows: NDArray[np.bool_]) -> tuple[float, float]:
    """Return standard error and degrees of freedom by the noise of each row (Welch 1947)."""
    parts = weights**2 * noise.squares_C[rows] / counts
    with np.errstate(invalid="ignore", divide="ignore"):
        df = parts.sum() ** 2 / (parts**2 / noise.df_C[rows]).sum()
    return float(np.sqrt(parts.sum())), float(df) if np.isfinite(df) else noise.df


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


# ------------------------------------------------------------------ one budget


def _lowest_p(questions: Sequence[Question], models: Mapping[str, Model]) -> Floats | None:
    """Draw the lowest weighted p among all questions where nothing differs, sorted; None where they are too many."""
    measures = list(dict.fromkeys(question.measure for question in questions))
    if not questions or len(questions) > MOST_JOINT:
        return None
    rng = np.random.default_rng(0)  # the same runs give the same answer
    mixed = np.linalg.cholesky(_correlation([models[measure].blocked.residuals_CS for measure in measures]))
    count = len(questions[0].weights_C)
    draws = int(np.clip(500_000 / max(len(questions), count * len(measures)), *DRAWS))
    means_BCM = rng.standard_normal((draws, count, len(measures))) @ mixed.T
    most = int(min(MOST_DF, max(1.0, *(models[name].blocked.df or models[name].within.df for name in measures))))
    noise_BDM = rng.standard_normal((draws, most, len(measures))) @ mixed.T
    lowest_B = np.full(draws, np.inf)
    for m, measure in enumerate(measures):
        one = models[measure]
        df = int(min(most, max(1.0, one.blocked.df if one.blocked.df >= 1 else one.within.df)))
        sd_B = np.sqrt((noise_BDM[:, :df, m] ** 2).mean(1))
        asked = [question for question in questions if question.measure == measure]
        weights_TC = np.stack([question.weights_C / np.linalg.norm(question.weights_C) for question in asked])
        t_BT = means_BCM[:, :, m] @ weights_TC.T / sd_B[:, None]
        kinds = [(question.weight, question.one_sided) for question in asked]
        for kind in set(kinds):  # of equal weight the largest statistic has the lowest p
            weight, one_sided = kind
            some_BT = t_BT[:, [other == kind for other in kinds]]
            if one_sided:  # that of the best: any pair of contenders may be the one tested
                most_B = (means_BCM[:, :, m].max(1) - means_BCM[:, :, m].min(1)) / np.sqrt(2) / sd_B
            else:
                most_B = np.abs(some_BT).max(1)
            lowest_B = np.minimum(lowest_B, stdtr(df, -most_B) * (1 if one_sided else 2) / weight)
    return np.sort(lowest_B)


def _correlation(residuals: Sequence[Floats]) -> Floats:
    """Return how the noise of measures goes together."""
    flat = np.stack([one.ravel() for one in residuals])
    flat = flat[:, np.isfinite(flat).all(0)]
    found = np.eye(len(flat))
    if flat.shape[1] > 2:
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.corrcoef(flat).reshape(len(flat), len(flat))
    found = np.where(np.isfinite(found), found, 0.0)
    np.fill_diagonal(found, 1.0)
    return 0.999 * found + 0.001 * np.eye(len(flat))


def _adjust(p: Floats, weights: Floats, lowest: Floats | None, pairs_of_best: float) -> Floats:
    """Correct p values for all tests: the chance that, where nothing differs, the lowest weighted p is as low."""
    with np.errstate(invalid="ignore"):
        weighted = p / weights
        bonferroni = np.minimum(1.0, weighted * (weights.sum() + pairs_of_best))
    if lowest is None:
        return bonferroni
    count = np.searchsorted(lowest, weighted, side="right")
    joint = (count + 1) / (len(lowest) + 1)
    return np.where(np.isfinite(p), np.where(count < 5, np.minimum(joint, bonferroni), joint), np.nan)
