"""The noise of a measure: pooled over all rows of values, or of a row that is noisier than the others on its own.

Pooling is honest only where the noise is alike. A row is *odd* where its values spread more than the others' (F test,
ODD), or where the spreads of all are unequal (Bartlett's test, UNEQUAL). Three values hardly show their spread, so the
measures of the same runs are asked together: a run that is unstable is so in all. `scripts.calibrate null` shows what
that prevents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri, fdtrc

from trainer.compare.statistics import Floats, mean_of

ODD = 0.03, 0.15  # p below which a row spreads more than the others: in the measure that decides, in others
WILD = 100.0, 0.001  # times as noisy as the others, and p, from which one has no part in the noise that those share
UNEQUAL = 0.05  # p of Bartlett's test below which all are odd
USUAL = 0.25  # a row's own noise is at least this quantile of all rows' noises
MOST = 1e6  # times as noisy as the others: where those have no noise at all


@dataclass(frozen=True)
class Noise:
    """The noise of one measure, by row and pooled: with seeds as blocks, or without. Wild rows are in no pool."""

    residuals_CS: Floats
    square: float  # mean square
    df: float
    squares_C: Floats  # of each row on its own, with its degrees of freedom
    df_C: Floats
    rest_C: Floats  # of all rows but that one, with theirs
    rest_df_C: Floats
    equal: float  # p of Bartlett's test of equal spreads
    wild_C: NDArray[np.bool_]

    @property
    def excess_C(self) -> Floats:
        """How many times as noisy as the others each row is; nan where that is not known, or nothing is noisy."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.squares_C / self.rest_C


def measure(values_CS: Floats, floor: float, is_blocked: bool, apart_C: NDArray[np.bool_] | None = None) -> Noise:
    """Fit the means of rows, and of seeds where these are blocks, without the rows that are far noisier than others.

    apart_C: rows that are to have no part in it either, where two others are left.
    """
    wild_C, there_C = np.zeros(len(values_CS), bool), np.isfinite(values_CS).any(1)
    if apart_C is not None and (there_C & ~apart_C).sum() >= 2:
        wild_C = apart_C
    while True:
        found = _fit(values_CS, wild_C, floor, is_blocked)
        p_C = fdtrc(found.df_C, found.rest_df_C, found.excess_C)
        more = wild_C | ((found.excess_C > WILD[0]) & (p_C < WILD[1]))
        if more.sum() == wild_C.sum() or (there_C & ~more).sum() < 2:
            return _with_medians(values_CS, found, floor) if is_blocked and found.equal < UNEQUAL else found
        wild_C = more


def _with_medians(values_CS: Floats, noise: Noise, floor: float) -> Noise:
    """Measure each row's own noise from the medians of the seeds, which a few noisy rows do not move."""
    residuals = values_CS - mean_of(values_CS, 1)[:, None]
    some_S = np.isfinite(residuals).any(0)
    residuals[:, some_S] -= np.nanmedian(residuals[:, some_S], 0)
    residuals = residuals - mean_of(residuals, 1)[:, None]
    sums_C = np.where(np.isfinite(residuals), residuals**2, 0.0).sum(1)
    return replace(noise, squares_C=np.maximum(sums_C / noise.df_C, floor))


def _fit(values_CS: Floats, wild_C: NDArray[np.bool_], floor: float, is_blocked: bool) -> Noise:
    residuals = values_CS - mean_of(values_CS, 1)[:, None]
    calm = np.where(wild_C[:, None], np.nan, residuals)
    there = np.isfinite(calm)
    n_C, rows = np.isfinite(values_CS).sum(1), int(there.any(1).sum())
    df = int(there.sum()) - rows
    if is_blocked and rows:
        df -= int(there.any(0).sum()) - _pieces(there)
        is_complete = bool(np.isfinite(calm[there.any(1)]).all())
        for _ in range(1 if is_complete else 30):  # alternating means: exact at once where nothing is missing
            residuals = residuals - mean_of(np.where(there, residuals, np.nan), 0)[None, :]
            residuals = residuals - mean_of(residuals, 1)[:, None]
    sums_C = (np.where(np.isfinite(residuals), residuals, 0.0) ** 2).sum(1)
    if df < 1:
        nothing = np.full(len(n_C), np.nan)
        return Noise(residuals, np.nan, 0.0, nothing, nothing, nothing, nothing, np.nan, wild_C)
    total = float(sums_C[~wild_C].sum())
    if is_blocked:  # a row's distance from the mean of the others is rows / (rows - 1) times that from the mean of all
        sums_C = np.where(wild_C, sums_C * rows / (rows + 1), sums_C * rows / max(1, rows - 1))
    df_C = np.where(n_C > 1, n_C - 1.0, np.nan)
    rest_df_C = np.where(wild_C, df, df - df_C)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares_C = np.maximum(sums_C / df_C, floor)
        rest_C = np.maximum((total - np.where(wild_C, 0.0, sums_C)) / rest_df_C, floor)
        shared_C = np.where(n_C > 1, n_C * df / there.sum(), np.nan)  # what blocks take is taken from all rows alike
    rest_C, rest_df_C = (np.where(rest_df_C >= 1, one, np.nan) for one in (rest_C, rest_df_C))
    equal = _bartlett(squares_C[~wild_C], shared_C[~wild_C])
    return Noise(residuals, max(total / df, floor), float(df), squares_C, df_C, rest_C, rest_df_C, equal, wild_C)


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


def _pieces(there: NDArray[np.bool_]) -> int:
    """Count the parts of rows and seeds that share nothing: each has a mean of its own."""
    seeds: list[set[int]] = [set(np.flatnonzero(row).tolist()) for row in there if row.any()]
    parts: list[set[int]] = []
    for row in seeds:
        near = [part for part in parts if part & row]
        parts = [part for part in parts if part not in near] + [row.union(*near)]
    return len(parts)


@dataclass(frozen=True)
class Spread:
    """Which rows are odd, and their noise: the largest of their own, of what the measures say together, and usual."""

    odd_C: NDArray[np.bool_]
    squares_C: Floats


def spreads(noises: Sequence[Noise]) -> list[Spread]:
    """Find the odd rows of each measure, the first of which decides; and how noisy they are.

    A row's noise relative to the others' is averaged over measures: F distributed, with the degrees of freedom of as
    many measures as would be independent.
    """
    known = [noise for noise in noises if np.isfinite(noise.excess_C).any()]
    nothing = np.full(len(noises[0].df_C), np.nan)
    excess_C, size = nothing, 1.0
    if known:
        excess_C = mean_of(np.where(np.isinf(one := np.stack([noise.excess_C for noise in known])), MOST, one), 0)
        size = independent(known)
    found = []
    for number, noise in enumerate(noises):
        p_C = fdtrc(noise.df_C * size, noise.rest_df_C * size, excess_C)
        odd_C = noise.wild_C | (p_C < ODD[number > 0]) | (noise.equal < UNEQUAL)
        usual = np.nanquantile(noise.squares_C, USUAL) if np.isfinite(noise.squares_C).any() else np.nan
        most_C = noise.squares_C * noise.df_C / chdtri(noise.df_C, 1 - UNEQUAL)  # what the values of a row allow for
        together_C = np.fmin(excess_C * noise.rest_C, most_C)
        squares_C = np.fmax(np.fmax(noise.squares_C, together_C), usual)
        found.append(Spread(odd_C & np.isfinite(noise.df_C), squares_C))
    return found


def independent(noises: Sequence[Noise]) -> float:
    """Return how many measures of independent noise would tell as much: n measures squared over their correlations'."""
    return len(noises) ** 2 / float((correlation([noise.residuals_CS for noise in noises]) ** 2).sum())


def correlation(residuals: Sequence[Floats]) -> Floats:
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
