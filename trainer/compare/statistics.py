"""The few statistics that comparing runs takes: intervals, paired differences, correction for many tests, seeds needed.

Everything is vectorised over a leading axis T of tests; S is the axis of seeds, nan where a seed is missing.
`scipy.special` gives the distributions: `scipy.stats` costs ten times the import and is the oracle of the tests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.8  # the chance of settling a comparison that `seeds_needed` plans for


@dataclass(frozen=True)
class Tests:
    """Two-sided t tests of T differences: all arrays have length T; nan where there are too few seeds."""

    difference: Floats
    low: Floats  # 95 % interval of each difference on its own
    high: Floats
    sd: Floats  # of the paired differences, or of one run around its group's mean (unpaired, pooled)
    n: NDArray[np.int64]  # pairs, or the smaller group (unpaired)
    p: Floats
    paired: NDArray[np.bool_]


def mean_interval(values_TS: Floats) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.int64]]:
    """Mean, sd, and Student's t interval of each row, with the number of its values.

    Exact for normal values at any n >= 2, which is what few seeds need: a bootstrap of five values covers about 84 %,
    not 95. One value has a mean but no interval (nan).
    """
    n = np.sum(np.isfinite(values_TS), axis=1)
    total = np.where(np.isfinite(values_TS), values_TS, 0.0).sum(1)
    mean = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    squares = np.where(np.isfinite(values_TS), (values_TS - mean[:, None]) ** 2, 0.0).sum(1)
    sd = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    half = stdtrit(np.maximum(n - 1, 1), 0.5 + CONFIDENCE / 2) * sd / np.sqrt(np.maximum(n, 1))
    return mean, sd, mean - half, mean + half, n


def mean_of(values: Floats, axis: int) -> Floats:
    """Mean of the values that are there, nan where none is."""
    there = np.isfinite(values)
    return np.where(there.any(axis), np.where(there, values, 0.0).sum(axis) / np.maximum(there.sum(axis), 1), np.nan)


def number(value: float) -> float | None:
    """A number for JSON, None for what is none."""
    return float(value) if np.isfinite(value) else None


def share_interval(hits: float, n: int) -> tuple[float, float]:
    """Wilson's interval (1927) for a share: covers near 95 % on average at small n, and never leaves [0, 1].

    Brown, Cai and DasGupta 2001 recommend it for n <= 40; 0 of 5 gives [0, 0.43], where the usual one says [0, 0].
    """
    z = float(ndtri(0.5 + CONFIDENCE / 2))
    centre = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def grid_step(values: Floats) -> float:
    """The step of the grid that values lie on (accuracy of 180 examples: 1/180), 0 for values on none.

    Few seeds can give equal differences of such values by chance; their spread is then unknown below the step, not 0.
    """
    levels = np.unique(values[np.isfinite(values)])
    gaps = np.diff(levels)
    gaps = gaps[gaps > 1e-9 * max(1e-300, float(np.abs(levels).max(initial=0.0)))]
    if len(gaps) < 1:
        return 0.0
    step = float(gaps.min())
    steps = (levels - levels[0]) / step
    return step if np.all(np.abs(steps - np.round(steps)) < 1e-3) else 0.0


def differences(a_TS: Floats, b_TS: Floats, floor: float | Floats = 0.0) -> Tests:
    """Test a - b in each row: paired where at least two seeds are common, else Welch's test where both have two.

    `floor` is the smallest variance that one pair's difference is granted (values on a grid: step^2 / 6, the variance
    of the difference of two rounding errors).
    """
    mean, sd, _, _, n = mean_interval(a_TS - b_TS)
    se = np.sqrt(np.maximum(sd**2, floor) / np.maximum(n, 1))
    df = np.maximum(n - 1, 1).astype(np.float64)
    paired = n >= 2
    if not paired.all():
        (mean_a, sd_a, _, _, n_a), (mean_b, sd_b, _, _, n_b) = mean_interval(a_TS), mean_interval(b_TS)
        var_a, var_b = (np.maximum(s**2, floor / 2) / np.maximum(m, 1) for s, m in ((sd_a, n_a), (sd_b, n_b)))
        with np.errstate(invalid="ignore", divide="ignore"):  # nan where a group has fewer than two runs
            welch = (var_a + var_b) ** 2 / (var_a**2 / np.maximum(n_a - 1, 1) + var_b**2 / np.maximum(n_b - 1, 1))
        mean = np.where(paired, mean, mean_a - mean_b)
        se = np.where(paired, se, np.sqrt(var_a + var_b))
        df = np.where(paired, df, np.where(np.isfinite(welch), welch, 1.0))
        n = np.where(paired, n, np.minimum(n_a, n_b))
        sd = np.where(paired, sd, np.sqrt((sd_a**2 + sd_b**2) / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / se)
    p = np.where(np.isfinite(se), 2 * stdtr(df, -t), np.nan)
    half = stdtrit(df, 0.5 + CONFIDENCE / 2) * se
    return Tests(mean, mean - half, mean + half, np.sqrt(np.maximum(sd**2, floor)), n, p, paired)


@dataclass(frozen=True)
class SignedRanks:
    """What the ranks of n differences and their signs tell: Wilcoxon's test (1945), Hodges and Lehmann's (1963) median.

    The median is of all means of two differences (Walsh averages), its interval what the test would not reject.
    """

    p: float  # two-sided, exact with ties up to 200 differences
    median: float
    low: float  # 95 % interval; infinite below 6 differences
    high: float


def signed_ranks(differences: Floats) -> SignedRanks:
    """Test differences (n,), which may be infinite, against 0. Zeros tell nothing of p and are left out there."""
    values = differences[differences != 0]
    _, place, count = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ranks = (2 * np.cumsum(count) - count + 1)[place]  # twice the mean rank, a whole number
    above = int(ranks[values > 0].sum())
    below_B = _rank_sums(ranks)
    p = min(1.0, 2 * float(below_B[min(above, int(ranks.sum()) - above)]))
    with np.errstate(invalid="ignore"):
        walsh = np.add.outer(differences, differences)[np.triu_indices(len(differences))] / 2
    walsh = np.sort(np.where(np.isnan(walsh), 0.0, walsh))  # two infinite ones of opposite sign
    out = int(np.searchsorted(_rank_sums(2 * np.arange(1, len(differences) + 1))[::2], (1 - CONFIDENCE) / 2, "right"))
    low, high = (walsh[out - 1], walsh[-out]) if out else (-np.inf, np.inf)
    return SignedRanks(p, float(np.median(walsh)), float(low), float(high))


def _rank_sums(ranks: NDArray[np.int64]) -> Floats:
    """Return the chance that the ranks whose signs are + sum up to at most 0, 1, 2 ... where each sign is a coin's."""
    total = int(ranks.sum())
    if len(ranks) > 200:
        return ndtr((np.arange(total + 1) + 1 - total / 2) / np.sqrt((ranks.astype(float) ** 2).sum() / 4))
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for rank in ranks.tolist():
        chance[rank:] += chance[: len(chance) - rank].copy()
        chance /= 2
    return np.cumsum(chance)


def holm(p: Floats, weights: Floats | None = None, unspent: float = 0.0) -> Floats:
    """Adjusted p values of weighted Holm: rejecting those <= alpha errs anywhere with probability <= alpha.

    Holm 1979, section 4: a hypothesis of weight w is tested at alpha * w / (sum of the weights still standing), so that
    a family can be given a larger part of the error than another. `unspent` is weight of hypotheses that stand in the
    family and are not looked at. nan (no test possible) is adjusted to nan and costs nothing.
    """
    weights = np.ones(len(p)) if weights is None else weights
    valid = np.flatnonzero(np.isfinite(p))
    order = valid[np.argsort(p[valid] / weights[valid], kind="stable")]
    standing = unspent + np.cumsum(weights[order][::-1])[::-1]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] / weights[order] * standing))
    return adjusted


def seeds_needed(effect: Floats, alpha: Floats) -> Floats:
    """Pairs that give a paired t test at level alpha a power of 0.8 against an effect in sd of the pair differences.

    n = ((t_{1 - alpha/2, n-1} + z_power) / effect)^2, iterated: within one of the noncentral t's answer (tested). inf
    for no effect, nan for no number.
    """
    z = ndtri(POWER)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = ((ndtri(1 - alpha / 2) + z) / np.abs(effect)) ** 2
        for _ in range(30):  # a contraction for n >= 3; averaged to keep it from swinging
            df = np.clip(n - 1, 2.0, 1e6)
            n = (n + ((stdtrit(df, 1 - alpha / 2) + z) / np.abs(effect)) ** 2) / 2
    return np.maximum(np.ceil(n), 3.0)
