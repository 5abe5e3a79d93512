"""Curves made ready for judging: on common x, in order, each epoch once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Curve = Sequence[float] | Floats


def align(train_x: Curve, train_y: Curve, val_x: Curve, val_y: Curve) -> tuple[Floats, Floats, Floats]:
    """x, training and validation loss at the validation curve's x, from curves that have x of their own.

    The training loss at a validation point is the mean of what was logged since the validation point before (a loss of
    every step next to one of every epoch), or, where nothing was, interpolated between its neighbours. Values that are
    not finite enter such a mean, so that a run gone to nan stays visible. Training before the first validation point is
    looked at as far back as the distance to the second. Empty where either curve is.
    """
    (tx, ty), (vx, vy) = _sorted(train_x, train_y), _sorted(val_x, val_y)
    if len(tx) == 0 or len(vx) == 0:
        return np.empty(0), np.empty(0), np.empty(0)
    if len(tx) < len(vx):  # the rarer curve gives the points, else interpolation would invent training losses
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
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is nan, and means what it says
            train[logged] = np.add.reduceat(ty[: ends[-1]], ends[:-1][logged]) / counts[logged]
    return vx, train, vy


def _sorted(x: Curve, y: Curve) -> tuple[Floats, Floats]:
    """Both as arrays in order of x, the last value of a repeated x kept, points without an x dropped."""
    table = in_order(np.stack([np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()]))
    return table[0], table[1]


def in_order(table: Floats) -> Floats:
    """Columns in order of their first row; of equal first rows the last column; none where it is not finite."""
    table = table[:, np.isfinite(table[0])]
    if np.all(np.diff(table[0]) > 0):
        return table
    table = table[:, np.argsort(table[0], kind="stable")]
    return table[:, np.append(np.diff(table[0]) > 0, True)[: table.shape[1]]]


def without_repeats(table: Floats) -> Floats:
    """Columns with the common factor of repeated epochs taken out: a a b b c c c c becomes a b c c.

    The factor is read off the training loss and the validation loss up to its minimum, so that a worse tail does not
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
