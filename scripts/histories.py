"""Synthetic training histories of known truth, for `scripts.calibrate`.

A clean history is drawn first, in units of what is learned: the training loss falls from 1 to 0. The truth is read off
the clean curves; only then noise, scale and offset are added. What lies between clear cases is drawn again, but for the
ways of recording: a rise of 3 to 15 % or a gap of 20 to 45 % of what was learned is called either way by reasonable
people.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rng = np.random.Generator
Clean = tuple[Floats, Floats]  # training and validation loss

LABELS = {"healthy": 0.45, "overfit": 0.4, "underfit": 0.1, "diverged": 0.05}
NOISES = (0.0, 0.003, 0.01, 0.02, 0.04, 0.08)  # standard deviation of the validation loss, in units of what is learned


@dataclass(frozen=True)
class History:
    """One history with its truth; `onset` is an index, None where nothing overfits."""

    label: str
    kind: str
    noise: float
    train: Floats
    val: Floats
    onset: int | None


SHORTEST = {"late_drop": 40, "hump": 40}  # epochs: of fewer, what they are named after has one or two


def history(rng: Rng, label: str | None = None) -> History:
    """Draw a history: 10 to 2,000 epochs, scale 1e-3 to 1e3, six levels of noise."""
    label = label or str(rng.choice(list(LABELS), p=list(LABELS.values())))
    kind, train, val = clean(rng, label, list(KINDS[label]))
    n, onset = len(val), None
    if label == "overfit":
        onset = n - 1 - int(np.argmin(val[::-1]))  # the last minimum: from there on, it only rises
        if kind == "stall":
            onset = int(np.argmin(val))
    noise = float(rng.choice(NOISES))
    train, val, _ = noisy(rng, train, val, noise * loudness(kind, val))
    scale, offset = 10 ** rng.uniform(-3, 3), rng.uniform(-0.2, 1)
    train, val = recorded(rng, kind, scale * (train + offset), scale * (val + offset))
    return History(label, kind, noise, train, val, onset)


def clean(rng: Rng, label: str, kinds: list[str], n: int | None = None) -> tuple[str, Floats, Floats]:
    """Draw the kind and the clean curves of a history, of n epochs or as many as come."""
    while True:
        kind = str(rng.choice(kinds))
        length = n or round(10 ** rng.uniform(np.log10(SHORTEST.get(kind, 10)), np.log10(2000)))
        train, val = KINDS[label][kind](np.arange(length) / length, rng)
        if kind in ("creeping", *RECORDED) or is_clear(label, train, val):
            return kind, train, val


def loudness(kind: str, val: Floats) -> Floats:
    """How loud the noise is in each epoch: a fifth after a late drop of the learning rate."""
    return np.where((np.arange(len(val)) < np.argmin(val)) | (kind != "late_drop"), 1.0, 0.2)


def noisy(rng: Rng, train: Floats, val: Floats, noise: Floats) -> tuple[Floats, Floats, tuple[str, float]]:
    """Add noise; return its shape, and its share in the training loss, beside the curves."""
    shape = str(rng.choice(["white", "heavy", "correlated"], p=[0.6, 0.2, 0.2]))
    val = val + noise * _noise(len(val), shape, rng)
    of_train = rng.uniform(0.1, 1)
    return train + noise * of_train * _noise(len(val), shape, rng), val, (shape, of_train)


def recorded(rng: Rng, kind: str, train: Floats, val: Floats) -> Clean:
    """Record the losses of a history in the way of its kind."""
    return RECORDED[kind](train, val, rng) if kind in RECORDED else (train, val)


def is_clear(label: str, train: Floats, val: Floats) -> bool:
    """Whether the clean curves are clearly healthy or overfit; the other labels hold by construction."""
    if label not in ("healthy", "overfit"):
        return True
    end = max(1, len(val) // 10)
    rise = float(val[-end:].mean() - val.min())
    gap = float((val - train)[-end:].mean() - max(0.0, val[0] - train[0]))
    return (rise <= 0.03 and gap <= 0.2) if label == "healthy" else (rise >= 0.15 or gap >= 0.45)


def _noise(n: int, shape: str, rng: Rng) -> Floats:
    """Unit noise: white, heavy-tailed (t, 3 degrees of freedom), or correlated from epoch to epoch (AR(1), 0.6)."""
    if shape == "heavy":
        return rng.standard_t(3, n) / np.sqrt(3)
    white = rng.normal(size=n)
    if shape == "correlated":
        for i in range(1, n):
            white[i] = 0.6 * white[i - 1] + 0.8 * white[i]
    return white


def _fall(u: Floats, rng: Rng) -> Floats:
    """A fall from 1 to 0 over u in [0, 1): exponential, power law, after a plateau, or with learning-rate drops."""
    shape = rng.choice(["exponential", "power", "plateau", "drops"], p=[0.4, 0.25, 0.15, 0.2])
    if shape == "exponential":
        f = np.exp(-rng.uniform(6, 25) * u)
    elif shape == "power":
        f = 1 / (1 + rng.uniform(20, 200) * u)
    elif shape == "plateau":
        f = 1 / (1 + np.exp((u - rng.uniform(0.1, 0.3)) * rng.uniform(30, 60)))
    else:
        first, second = rng.uniform(0.25, 0.45), rng.uniform(0.5, 0.65)
        steps = rng.uniform(0.1, 0.3) * (u < first) + rng.uniform(0.02, 0.1) * (u < second)
        f = (1 - steps[0]) * np.exp(-rng.uniform(10, 25) * u) + steps
    return (f - f[-1]) / (f[0] - f[-1])


def _generalise(train: Floats, rng: Rng, most: float = 0.18) -> Floats:
    """A validation loss that follows the training loss down, short of a part of what was learned."""
    return 1 - (1 - rng.uniform(0, most)) * (1 - train)


def _converged(u: Floats, rng: Rng) -> Clean:
    train = _fall(u, rng)
    return train, _generalise(train, rng)


def _below(u: Floats, rng: Rng) -> Clean:
    """Dropout or augmentation: the validation loss is below the training loss."""
    train = _fall(u, rng)
    return train, _generalise(train, rng) - rng.uniform(0.05, 0.3) * np.minimum(1, 10 * u)


def _shifted(u: Floats, rng: Rng) -> Clean:
    """Another distribution in validation: a gap from the first epoch on that does not grow."""
    train = _fall(u, rng)
    return train, _generalise(train, rng) + rng.uniform(0.2, 0.6)


def _recovered(u: Floats, rng: Rng) -> Clean:
    """Double descent: a hump in the middle, and a new minimum at the end."""
    train = _fall(u, rng)
    centre, width = rng.uniform(0.3, 0.5), rng.uniform(0.05, 0.1)
    hump = rng.uniform(0.1, 0.8) * np.exp(-0.5 * ((u - centre) / width) ** 2)
    return train, _generalise(train, rng) + hump - 0.1 * np.clip((u - centre) / (0.85 - centre), 0, 1)


def _grokked(u: Floats, rng: Rng) -> Clean:
    """Training is learned early, validation late and suddenly."""
    late = 1 / (1 + np.exp((u - rng.uniform(0.4, 0.7)) * 50))
    return np.exp(-rng.uniform(15, 30) * u), 1 - rng.uniform(0.85, 1) * (1 - late)


def _fast(u: Floats, rng: Rng) -> Clean:
    """Nearly everything is learned in the first epoch."""
    train = rng.uniform(0.05, 0.2) * _fall(u, rng)
    train[0] = 1
    return train, _generalise(train, rng, 0.05)


def _slight(u: Floats, rng: Rng) -> Clean:
    """A rise too small to be called overfitting."""
    train, val = _converged(u, rng)
    return train, val + rng.uniform(0.005, 0.03) * _ramp(u, rng.uniform(0.2, 0.6))


def _ramp(u: Floats, start: float) -> Floats:
    return np.clip((u - start) / (u[-1] - start), 0, 1)


def _rising(u: Floats, rng: Rng) -> Clean:
    train, val = _converged(u, rng)
    return train, val + 10 ** rng.uniform(-0.8, 0.5) * _ramp(u, rng.uniform(0.05, 0.7)) ** rng.uniform(0.7, 1.3)


def _saturating(u: Floats, rng: Rng) -> Clean:
    train, val = _converged(u, rng)
    return train, val + 10 ** rng.uniform(-0.8, 0.3) * (1 - np.exp(-4 * _ramp(u, rng.uniform(0.05, 0.6))))


def _first_best(u: Floats, rng: Rng) -> Clean:
    rise = rng.uniform(0.15, 2)
    return _fall(u, rng), 1 + rise * (u if rng.random() < 0.5 else 1 - np.exp(-4 * u))


def _after_drop(u: Floats, rng: Rng) -> Clean:
    """Robust overfitting (Rice et al. 2020): a learning-rate drop brings the minimum and starts the rise."""
    start, height = rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.4)
    before = height * (u < start)
    train = (1 - height) * np.exp(-rng.uniform(10, 25) * u) + before
    return train, _generalise(train, rng) + rng.uniform(0.15, 1) * _ramp(u, start)


def _stall(u: Floats, rng: Rng) -> Clean:
    """Validation stops improving, while the training loss still falls by half of all it learns, or more."""
    train = np.exp(-rng.uniform(2, 4) * u)
    train = (train - train[-1]) / (1 - train[-1])
    return train, np.maximum(train, train[int(rng.uniform(0.1, 0.3) * len(u))])


def _tall(u: Floats, rng: Rng) -> Clean:
    """Overfitting in the shadow of a first epoch many times as high as all others."""
    train, val = _converged(u, rng)
    first = rng.uniform(2, 20) * (u == 0)
    return train + first, val + 10 ** rng.uniform(-0.4, 0.5) * _ramp(u, rng.uniform(0.05, 0.7)) + first


def _late_drop(u: Floats, rng: Rng) -> Clean:
    """A drop of the learning rate late in the run, then a rise; the noise is much smaller after the drop."""
    start, height = rng.uniform(0.7, 0.85), rng.uniform(0.1, 0.4)
    train = (1 - height) * np.exp(-rng.uniform(10, 25) * u) + height * (u < start)
    val = _generalise(train, rng) + rng.uniform(0.15, 0.35) * _ramp(u, start)
    return train, val


def _hump(u: Floats, rng: Rng) -> Clean:
    """A hump of the validation loss in the first epochs, as batch norm's averages make; then a rise."""
    train, val = _converged(u, rng)
    centre = rng.uniform(0.02, 0.08)
    hump = rng.uniform(0.5, 4) * np.exp(-0.5 * ((u - centre) / (0.4 * centre)) ** 2)
    return train, val + hump + rng.uniform(0.25, 1) * _ramp(u, rng.uniform(0.25, 0.6))


def _creeping(u: Floats, rng: Rng) -> Clean:
    """Validation follows the training loss by half, slowly and to the end: the gap widens, nothing is lost."""
    train = np.exp(-rng.uniform(2, 4) * u)
    train = (train - train[-1]) / (1 - train[-1])
    return train, 1 - rng.uniform(0.45, 0.6) * (1 - train)


def _late_step(u: Floats, rng: Rng) -> Clean:
    """Converged, then a late drop of the learning rate, and converged again."""
    start, height = rng.uniform(0.6, 0.9), rng.uniform(0.1, 0.3)
    train = (1 - height) * np.exp(-rng.uniform(25, 50) * u) + height / (1 + np.exp((u - start) * 300))
    return train, _generalise(train, rng)


def _steps(u: Floats, rng: Rng) -> Clean:
    """Drops of the learning rate at a half and three quarters of the run; only training goes on falling after them."""
    train = np.exp(-rng.uniform(15, 30) * u)
    val, heights = train.copy(), rng.uniform(0.1, 0.3, 2)
    for start, height in zip((rng.uniform(0.45, 0.55), rng.uniform(0.7, 0.8)), heights, strict=True):
        since, at_once = np.maximum(u - start, 0), np.where(u < start, 1.0, 1 - rng.uniform(0.4, 0.9))
        train = train + height * at_once * np.exp(-rng.uniform(5, 15) * since)
        val = val + height * at_once * np.exp(-rng.uniform(25, 50) * since)
    return train / (1 + heights.sum()), _generalise(val / (1 + heights.sum()), rng)


def _restarts(u: Floats, rng: Rng) -> Clean:
    """Warm restarts (Loshchilov and Hutter 2017), stopped anywhere in a cycle, long after the fall has ended."""
    cycles = rng.uniform(2.2, 6)
    bump = rng.uniform(0.05, 0.2) * (1 + np.cos(np.pi * np.mod(cycles * u, 1))) / 2 * (u * cycles >= 1)
    train = np.exp(-rng.uniform(15, 30) * u) + bump
    return train, _generalise(train, rng)


def _spiked(u: Floats, rng: Rng) -> Clean:
    """One spike in both losses, of a few epochs at most."""
    train, val = _converged(u, rng)
    start = rng.integers(len(u) // 2, len(u))
    at = (np.arange(len(u)) >= start) & (np.arange(len(u)) < start + max(1, len(u) // 50))
    spike = rng.uniform(0.3, 2) * at
    return train + spike, val + spike


def _cosine(u: Floats, rng: Rng) -> Clean:
    """Half a cosine: the last epochs bring little."""
    train = (1 - rng.uniform(0.1, 0.3)) * np.exp(-rng.uniform(8, 25) * u)
    train = train + (1 - train[0]) * (1 + np.cos(np.pi * u)) / 2
    return train, _generalise(train, rng)


def _stopped(u: Floats, rng: Rng) -> Clean:
    """Early stopping, one to three epochs after the minimum."""
    train, val = _converged(u, rng)
    late = min(int(rng.integers(1, 4)), max(1, len(u) // 10))
    rise = rng.uniform(0.01, 0.03) * np.clip(np.arange(len(u)) - (len(u) - 1 - late), 0, None) / late
    return train, val + rise


def _slow(u: Floats, rng: Rng) -> Clean:
    train = np.exp(-rng.uniform(0.2, 1.5) * u)
    train = (train - train[-1]) / (1 - train[-1])
    return train, train * rng.uniform(0.85, 1) + rng.uniform(0, 0.05)


def _nothing(u: Floats, rng: Rng) -> Clean:
    return np.zeros_like(u), np.full_like(u, rng.uniform(0, 0.3))


def _not_a_number(u: Floats, rng: Rng) -> Clean:
    train, val = _converged(u, rng)
    gone = u >= rng.uniform(0.3, 0.8)
    return np.where(gone, np.nan, train), np.where(gone, np.nan, val)


def _exploding(u: Floats, rng: Rng) -> Clean:
    train, val = _converged(u, rng)
    burst = rng.uniform(1.5, 20) * _ramp(u, rng.uniform(0.3, 0.8))
    return train + burst, val + burst


Recorded = Callable[[Floats, Floats, Rng], Clean]


def _epoch_means(train: Floats, val: Floats, rng: Rng) -> Clean:
    """The training loss of an epoch is its mean over the epoch, from a start that costs up to three times as much."""
    start = train[0] + rng.uniform(0.5, 2) * (train[0] - train.min())
    before = np.append(start, train[:-1])
    return (before + train) / 2, val


def _other_scale(train: Floats, val: Floats, rng: Rng) -> Clean:
    """The training loss is a sum, or another objective: ten times as large, or a tenth."""
    return train * rng.choice([0.1, 10.0]), val


def _every_few(train: Floats, val: Floats, rng: Rng) -> Clean:
    """Validation every few epochs: the others are not a number."""
    k = int(rng.integers(2, 6)) if len(val) >= 50 else 1
    return train, np.where(np.arange(len(val)) % k == k - 1, val, np.nan)


def _quantised(train: Floats, val: Floats, rng: Rng) -> Clean:
    """A validation loss with a hundred values."""
    step = np.ptp(val) / 100
    return train, np.round(val / step) * step


def _large_constant(train: Floats, val: Floats, rng: Rng) -> Clean:
    """A constant a thousand times as large as what is learned, in single precision."""
    constant = 1e3 * np.ptp(train)
    return (train + constant).astype(np.float32).astype(float), (val + constant).astype(np.float32).astype(float)


def _regularised(train: Floats, val: Floats, rng: Rng) -> Clean:
    """A penalty in the training loss alone, which grows a little."""
    return train + np.ptp(train) * (rng.uniform(0.2, 2) + rng.uniform(0, 0.05) * np.linspace(0, 1, len(train))), val


def _averaged(train: Floats, val: Floats, rng: Rng) -> Clean:
    """Validation with an exponential average of the weights: it lags, and is smooth."""
    decay = 1 - 1 / max(2.0, 0.03 * len(val))
    out = val.copy()
    for i in range(1, len(val)):
        out[i] = decay * out[i - 1] + (1 - decay) * val[i]
    return train, out


RECORDED: dict[str, Recorded] = {  # ways of recording; each of overfit and of healthy runs
    f"{way.__name__.strip('_')}_{base}": way
    for way in (_epoch_means, _other_scale, _every_few, _quantised, _large_constant, _regularised, _averaged)
    for base in ("rising", "converged")
}


KINDS: dict[str, dict[str, Callable[[Floats, Rng], Clean]]] = {
    "healthy": {
        "converged": _converged,
        "below": _below,
        "shifted": _shifted,
        "recovered": _recovered,
        "grokked": _grokked,
        "fast": _fast,
        "slight": _slight,
        "creeping": _creeping,
        "late_step": _late_step,
        "steps": _steps,
        "restarts": _restarts,
        "spiked": _spiked,
        "cosine": _cosine,
        "stopped": _stopped,
        **{kind: _converged for kind in RECORDED if kind.endswith("converged")},
    },
    "overfit": {
        "rising": _rising,
        "saturating": _saturating,
        "first_best": _first_best,
        "after_drop": _after_drop,
        "stall": _stall,
        "tall": _tall,
        "late_drop": _late_drop,
        "hump": _hump,
        **{kind: _rising for kind in RECORDED if kind.endswith("rising")},
    },
    "underfit": {"slow": _slow, "nothing": _nothing},
    "diverged": {"not_a_number": _not_a_number, "exploding": _exploding},
}
