"""Curves in order and on common x, and what they have in them: noise, quantiles."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Curve = Sequence[float] | Floats

INFINITE = 1e150  # a loss beyond this counts as infinite: its square overflows


def noise_of(curve: Floats, lag: int = 1) -> float:
    """Return the standard deviation of a curve's noise from its second differences, in which a trend vanishes.

    The differences are of epochs `lag` apart: swings are seen that take twice as many. The median makes steps and
    spikes of less than a quarter of the epochs harmless (0.6745: median of |N(0, 1)|; a second difference of white
    noise has 1 + 4 + 1 times its variance).
    """
    if len(curve) <= 2 * lag:
        return 0.0
    differences = curve[2 * lag :] - 2 * curve[lag:-lag] + curve[: -2 * lag]
    return quantile(np.abs(differences), 0.5) / (0.6745 * math.sqrt(6))


def swings_of(curve: Floats) -> list[float]:
    """Return the noise of a curve from epoch to epoch, then of ever slower swings, while three of them fit in."""
    lags = [1]
    while 6 * (longer := math.ceil(1.4 * lags[-1])) <= len(curve):
        lags.append(longer)
    return [noise_of(curve, lag=lag) for lag in lags]


def quantile(values: Floats, q: float) -> float:
    """Return the order statistic at rank floor(q (k - 1)) of k values: monotone in every value, and inf stays inf."""
    rank = int(q * (len(values) - 1))
    parted = values.copy()
    parted.partition(rank)
    return float(parted[rank])


def only_finite(curve: Floats) -> Floats:
    return curve[np.isfinite(curve)]


# ------------------------------------------------------------------ curves on common x, in order, each epoch once


def align(train_x: Curve, train_y: Curve, val_x: Curve, val_y: Curve) -> tuple[Floats, Floats, Floats]:
    """Return x, training and validation loss at the validation curve's x, from curves that have x of their own.

    The training loss at a validation point is the mean of what was logged since the previous validation point (a loss
    of every step next to one of every epoch), or, where nothing was, interpolated between its neighbours. Values that
    are not finite enter such a mean, so that a run gone to nan stays visible. Before the first validation point, as
    much training counts as lies between the first and the second. Empty where either curve is.
    """
    (tx, ty), (vx, vy) = (
        in_order(np.stack([np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()]))
        for x, y in ((train_x, train_y), (val_x, val_y))
    )
    if len(tx) == 0 or len(vx) == 0:
        return np.empty(0), np.empty(0), np.empty(0)
    if len(tx) < len(vx):  # the sparser curve gives the points, else interpolation would invent training losses
        x, val, train = align(vx, vy, tx, ty)
        return x, train, val
    if np.array_equal(tx, vx):
        return vx, ty, vy
    step = vx[1] - vx[0] if len(vx) > 1 else np.inf
    ends = np.searchsorted(tx, np.append(vx[0] - step, vx), side="right")
    counts = np.diff(ends)
    logged = counts > 0
    train = np.interp(vx, tx, ty)
    if logged.any():
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is nan, as it should be
            train[logged] = np.add.reduceat(ty[: ends[-1]], ends[:-1][logged]) / counts[logged]
    return vx, train, vy


def in_order(table: Floats) -> Floats:
    """Sort columns by their first row; of equal first rows keep the last, drop those that are not finite."""
    table = table[:, np.isfinite(table[0])]
    if np.all(np.diff(table[0]) > 0):
        return table
    table = table[:, np.argsort(table[0], kind="stable")]
    return table[:, np.append(np.diff(table[0]) > 0, True)[: table.shape[1]]]


def without_repeats(table: Floats) -> Floats:
    """Take out the common factor of repeated epochs: a a b b c c c c becomes a b c c.

    The factor comes from the training loss and the validation loss up to its minimum, so that a worse tail does not
    change it; of the tail's validation losses in a block, the lowest stands for all.
    """
    train, val = table[1], table[2]
    n = len(train)
    if n < 2:
        return table
    known = int(np.argmin(val)) + 1 if np.ptp(train) > 0 else n
    starts = np.append(np.flatnonzero(train[1:] != train[:-1]), np.flatnonzero(val[1:known] != val[: known - 1])) + 1
    factor = int(np.gcd.reduce(np.append(starts, n)))
    if factor in (1, n):
        return table
    kept = table[:, ::factor].copy()
    kept[2] = val.reshape(-1, factor).min(1)
    return kept
