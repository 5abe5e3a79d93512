"""Measure what a run's curves did: every number that its verdict rests on, each a loss or a share of what was learned.

docs/overfitting.md gives each quantity and its reason. Those of the validation loss come from its curve up to its
minimum, which later epochs cannot change, and from quantiles of the curve after it.
"""

import math
from dataclasses import dataclass

import numpy as np

from trainer.judge.curves import INFINITE, Floats, noise_of, only_finite, quantile, swings_of

Evidence = dict[str, float | int | None]


# ------------------------------------------------------------------ the training loss alone


@dataclass(frozen=True)
class TrainEvidence:
    """What the training loss did, from it alone."""

    epochs: int
    guessing_loss: float | None  # the chance-level loss, where it is known
    train_start: float
    train_low: float  # its 5 % quantile
    train_end: float  # median of its last tenth
    train_rise: float  # that less its low, or so the median of what came since it was last there, if that is less
    train_noise: float
    train_trend: float  # fall from the first third to the last, in standard errors


NEAR = 0.1  # within this share of the fall a loss is at its low


def of_training(train: Floats, chance_loss: float | None) -> TrainEvidence:
    start, low, last = float(train[0]), quantile(train, 0.05), max(3, len(train) // 10)
    end, was_low = quantile(train[-last:], 0.5), np.flatnonzero(train <= low + NEAR * (start - low))[-1]
    return TrainEvidence(
        epochs=len(train),
        guessing_loss=chance_loss,
        train_start=start,
        train_low=low,
        train_end=end,
        train_rise=min(end, quantile(train[was_low:][-last:], 0.5)) - low,
        train_noise=noise_of(train),
        train_trend=_trend(train),
    )


def _trend(curve: Floats) -> float:
    """Return by how many standard errors a curve fell: from its first third to its last, or in its means of two epochs.

    In those a zigzag vanishes, which is no noise that hides a fall; the noise of their second differences is that of
    four epochs' sums, a third of the variance that white noise has in a mean of two. The larger counts.
    """
    k, pairs = len(curve) // 3, (curve[1:] + curve[:-1]) / 2
    falls = [(float(pairs[0]) - quantile(pairs[-max(3, len(pairs) // 10) :], 0.5), math.sqrt(3) * noise_of(pairs))]
    if k >= 3:
        first, last = curve[:k], curve[-k:]
        falls.append((float(first.mean() - last.mean()), math.sqrt((first.var() + last.var()) / (k - 1))))
    return max((fall / max(error, 1e-9 * fall) for fall, error in falls if fall > 0), default=0.0)


# ------------------------------------------------------------------ both losses


@dataclass(frozen=True)
class ValEvidence:
    """What the validation loss did, and what the training loss did meanwhile.

    A `_share` is a share of what was learned; None where nothing was, and then the training loss decides.
    """

    best_index: int
    stall_index: int  # where validation stopped improving
    best_val_loss: float
    final_val_loss: float  # means of the last tenth
    final_train_loss: float
    late_val_loss: float  # medians of the last third
    late_train_loss: float
    learned: float
    noise: float
    noise_before_best: float
    rise: float
    rise_share: float | None
    gap: float
    late_progress_share: float | None
    gap_share: float | None
    score: float | None  # 1 or more: overfit
    train_fall_since_best: float
    still_falling_share: float | None
    swing_share: float | None  # swings of the validation loss, of what was learned, or half of what was lost
    scales_differ: int  # 1: the training loss is on another scale than the validation loss


RISE, RISE_NOISE = 0.09, 1.0  # a lasting rise counts as a share of RISE plus so many times the noise
GAP, GAP_NOISE = 0.45, 1.0  # a gap that opened since validation stopped improving, likewise
FLOOR = 0.36  # of the score: with no evidence at all
STALL = 0.05  # validation no longer improves from where it is this close to its minimum
LATE = 1 / 3  # the last part of the run, whose gap counts
OF_TRAIN = 0.7  # the validation loss is noisier than this share of the training loss's noise: few epochs may hide it
GAINS = 0.03  # progress and noise of this share: validation may still gain at the end
PROGRESS = 3.0  # what validation still gains in the last part is subtracted from the gap this many times
TAILS = (0.1, 0.2, LATE)  # shares of the run that are held against the minimum, two epochs at least
BELOW = 0.7  # over the root of a tail's length: how far below its median lies the quantile that is held against it
NOISE_EPOCHS = 10  # epochs that the noise of the validation curve is measured on, where there are as many


def of_validation(train: Floats, val: Floats, best: int) -> ValEvidence:
    """Measure the curves; `best` is the index of the lowest validation loss."""
    n = len(val)
    learned, tall, scales = _learned(train, val, best)
    low, noise = _level(train, val, best, scales)
    train_best = level_around(train, best)
    rise = _lasting_rise(train, val, best, low, train_best)
    third, tenth = max(3, round(n * LATE)), max(1, n // 10)
    late, train_late = quantile(val[-third:], 0.5), quantile(train[-third:], 0.5)
    progress = _late_progress(val, best)
    at_start = val[: 1 + (tall and best >= 1)] - train[: 1 + (tall and best >= 1)]
    gap = max(0.0, late - train_late - max(0.0, float(at_start.max())) - PROGRESS * progress)
    if scales or _still_gains(val, best, noise, progress, third) > GAINS * learned:
        gap = 0.0
    end, train_end = float(val[-tenth:].mean()), float(train[-tenth:].mean())
    bounded = np.where(np.isfinite(val), val, val[np.isfinite(val)].max())

    def share(loss: float) -> float | None:
        return loss / learned if learned > 0 else None

    swings = swings_of(bounded)  # in what validation fell by are its swings: held against what training learned
    moved = max(learned if scales else min(learned, float(np.ptp(train))), rise / 2)
    rise_unit, gap_unit = RISE * learned + RISE_NOISE * noise, GAP * learned + GAP_NOISE * noise
    return ValEvidence(
        best_index=best,
        stall_index=int(np.argmax(val <= low + STALL * learned)),
        best_val_loss=float(val[best]),
        final_val_loss=end,
        final_train_loss=train_end,
        late_val_loss=late,
        late_train_loss=train_late,
        learned=learned,
        noise=swings[0],
        noise_before_best=noise,
        rise=min(end, float(val[max(best, n - tenth) :].mean())) - float(val[best]),  # 0 where it falls to the end
        rise_share=share(rise),
        gap=end - train_end,
        late_progress_share=share(progress),
        gap_share=share(gap),
        score=FLOOR + rise / rise_unit + gap / gap_unit if learned > 0 else None,
        train_fall_since_best=train_best - train_late,
        still_falling_share=share(_still_falling(train, bounded)),
        swing_share=max(swings) / moved if moved > 0 else None,
        scales_differ=int(scales),
    )


def _level(train: Floats, val: Floats, best: int, scales: bool) -> tuple[float, float]:
    """Return the level that validation reached, and its noise: both from the curve up to its minimum."""
    since, drop = only_finite(val[: best + 1]), _last_drop(train, best)
    noise = _noise_before(_settled(since if drop is None else only_finite(val[:drop])))
    if drop is not None:  # of a learning rate: the noise falls with it, and only what comes after can be the minimum
        noise *= _noise_ratio(train, drop, noise)
        since = only_finite(val[drop : best + 1])
    if not scales:
        settled = len(train) // 4 if drop is None else drop + 1
        noise = max(noise, OF_TRAIN * noise_of(train[settled:]))
    fell = float(train[best - 1] - train[best]) if best and not scales else 0.0
    return _level_before(since, noise, fell, max(1, min(len(val) // 20, len(since) // 4))), noise


def _lasting_rise(train: Floats, val: Floats, best: int, low: float, train_best: float) -> float:
    """Return how far tails of the validation loss lie above its level, less what the training loss rose; at least 0.

    A quantile of a tail says so: as far below its median as that may lie too high by luck, whatever the noise is.
    """
    n, rises = len(val), [0.0]
    for part in TAILS:
        k = max(2, round(part * n))
        if n - k > best:
            train_rise = max(0.0, quantile(train[-k:], 0.5) - train_best)
            rises.append(quantile(val[-k:], max(0.0, 0.5 - BELOW / math.sqrt(k))) - low - train_rise)
    return max(rises)


def _still_gains(val: Floats, best: int, noise: float, progress: float, third: int) -> float:
    """Return what validation may still gain at the end of the run; 0 where its minimum comes before the last tenth.

    If by luck alone it comes before, its progress counts; if not, that and what the uncertainty of quartiles hides.
    """
    ends = len(val) - max(1, len(val) // 10)
    if best >= ends:
        return progress + min(noise, 2 * noise / math.sqrt(third))
    return progress if np.any(val[ends:] <= val[best] + noise) else 0.0


def level_around(curve: Floats, index: int) -> float:
    """Return the median of a tenth of a curve around an epoch."""
    reach = len(curve) // 20
    return quantile(curve[max(0, index - reach) : index + reach + 1], 0.5)


DROP = 0.03  # of the fall of the training loss, in one epoch; and
SUDDEN = 3.0  # times the median change from epoch to epoch; and
STEEPER = 2.0  # times that of the epochs just before: in a steep smooth fall, each epoch is like those before it
AROUND = 5  # epochs at least, before and after, whose medians tell whether it lasts; of many a twentieth


def _last_drop(train: Floats, best: int) -> int | None:
    """Return the last epoch up to the minimum at which the training loss fell suddenly, past the first quarter.

    And lastingly: it holds between the medians before and after; the way back from a spike does not.
    """
    n, falls = len(train), -np.diff(train)
    width, first = max(AROUND, n // 20), max(n // 4, NOISE_EPOCHS)
    wanted = max(DROP * float(np.ptp(train[1:])), SUDDEN * quantile(np.abs(falls), 0.5))
    found = np.flatnonzero(falls[:best] >= wanted) + 1
    for epoch in found[found >= first][::-1].tolist():
        before, after = train[epoch - width : epoch], train[epoch : epoch + width]
        lasts = quantile(before, 0.5) - quantile(after, 0.5) >= wanted
        if lasts and falls[epoch - 1] >= STEEPER * quantile(np.abs(np.diff(before)), 0.5):
            return epoch
    return None


SMOOTH = 0.02  # of the noise of the validation loss: a training loss of no more tells nothing of how it changed


def _noise_ratio(train: Floats, drop: int, val_noise: float) -> float:
    """Return how much less the training loss is noisy after a drop, 1 where it has next to no noise; at most 1."""
    before, after = noise_of(train[drop // 2 : drop]), noise_of(train[drop + 1 :])
    least = SMOOTH * val_noise
    return min(1.0, (after + least) / (before + least)) if before + least > 0 else 1.0


def _settled(before: Floats) -> Floats:
    """Return the epochs up to the minimum that tell its noise: since the highest one, and at least the last ten."""
    return before[max(0, min(int(np.argmax(before)), len(before) - NOISE_EPOCHS)) :]


SCALE_NOISE = 6.0  # a fall of the validation loss by less than so many times its noise tells no scale
SCALE_GAP, SCALE_FALL = 2.0, 4.0  # apart by more than so many falls of the lower loss, of which the other fell more


def _learned(train: Floats, val: Floats, best: int) -> tuple[float, bool, bool]:
    """Return what was learned; whether the first epoch had to be cut down; whether the two losses differ in scale."""
    first = train.copy()
    first[0] = min(train[0], max(val[0], train[1]))
    learned, tall = _fall(first)
    before = only_finite(val[: best + 1])
    of_val = _fall(before)[0]
    of_train = float(first[0] - first[: best + 1].min())
    if best >= 1 and of_val > SCALE_NOISE * noise_of(before) and math.isfinite(val[1]):
        apart = float(train[1] - val[1])
        is_above = apart > SCALE_GAP * of_val and of_train > SCALE_FALL * of_val
        is_below = -apart > SCALE_GAP * of_train and of_val > SCALE_FALL * of_train
        if is_above or is_below:
            return of_val, tall, True
    return max(learned, min(of_val, 2 * learned)), tall, False


def _late_progress(val: Floats, best: int) -> float:
    """Return what validation still gained in the last third: the fall of its lower quartile, or median if that is less.

    Of the middle third only epochs up to the minimum count, so that a worse tail is no progress.
    """
    n = len(val)
    middle, last = only_finite(val[n // 3 : min(2 * n // 3, best + 1)]), val[2 * n // 3 :]
    return max(0.0, min(quantile(middle, q) - quantile(last, q) for q in (0.25, 0.5))) if len(middle) else 0.0


def _still_falling(train: Floats, val: Floats) -> float:
    """Return how far both losses still fall in a fifth of the run: from fifth to fifth, and to the very end.

    From fifth to fifth it is the mean of the smaller two of the last three falls: a step, a spike or a restart makes
    one of the three large, at times two. Two steps may make all three, but then the last fifth does not go on falling:
    its slope and the smallest of the three, give or take three standard errors, say no less.
    """
    falls, n = [], len(val)
    for curve in (train, val):
        parts, noise = np.array_split(curve, min(5, n)), noise_of(curve)
        small = np.sort(-np.diff([quantile(part, 0.5) for part in parts])[-3:])[:2]
        falls += [float(small.mean()), float(small[0]) + 3 * noise * math.sqrt(10 / n)]
        x = np.arange(len(parts[-1])) - (len(parts[-1]) - 1) / 2
        if (spread := float(x @ x)) > 0:
            falls.append((3 * noise / math.sqrt(spread) - float(x @ parts[-1]) / spread) * n / 5)
    return min(falls)


def of_accuracy(val_accuracy: Floats, best: int) -> Evidence:
    """Return what the validation accuracy did while the loss rose; nothing where there is no accuracy.

    accuracy_lost: how far the median of the last tenth is below the highest median of as many epochs in a row.
    """
    known = val_accuracy[np.abs(val_accuracy) < INFINITE]
    if len(known) == 0 or not np.isfinite(val_accuracy[best]):
        return {}
    width = min(max(3, len(known) // 10), len(known))
    starts = range((len(known) - width) % max(1, width // 4), len(known) - width + 1, max(1, width // 4))
    levels = [quantile(known[start : start + width], 0.5) for start in starts]
    return {
        "accuracy_at_best": float(val_accuracy[best]),
        "accuracy_end": levels[-1],
        "accuracy_lost": max(levels) - levels[-1],
        "accuracy_noise": noise_of(known),
    }


# ------------------------------------------------------------------ the level before the minimum, and its noise


def _noise_before(val: Floats) -> float:
    """Return the standard deviation around the best falling curve: residuals of the antitonic fit (pool adjacent)."""
    if len(val) < 3:
        return 0.0
    sums, counts = [], []
    for value in val.tolist():
        total, count = value, 1
        while sums and sums[-1] * count <= total * counts[-1]:  # the block before is not higher: pool the two
            total, count = total + sums.pop(), count + counts.pop()
        sums.append(total)
        counts.append(count)
    below = np.minimum(val - np.repeat(np.array(sums) / counts, counts), 0.0)
    return float(np.sqrt(2 * np.sum(below**2) / max(1, len(val) - len(counts))))


SINGLE = 3.0  # times the luck of a single epoch: among heavy-tailed noise there are outliers


def _level_before(val: Floats, noise: float, fell: float, widest: int) -> float:
    """Return the level that a falling loss came down to: its lowest mean over consecutive epochs.

    The lowest of m means is low by luck: sqrt(2 log m) standard errors are added back. The means are of medians of
    three epochs, so that no single one makes a level; it may by itself, with more luck added, and no further below
    those before than the loss fell in one of the last few epochs, or the training loss `fell` in the very last: a lone
    dip is an outlier. Of all lengths up to `widest`, in steps of a factor 3, the lowest result counts: a long stretch
    averages noise, a short one fits into a narrow minimum.
    """
    level = float(val.min()) + SINGLE * noise * math.sqrt(2 * math.log(len(val)))
    if noise == 0 or len(val) < 3:
        return level
    usual = max(0.0, fell, -float(np.diff(val[:-1])[-AROUND:].min()))
    level += max(0.0, float(val[:-1].min() - val[-1]) - usual)
    a, b, c = val[:-2], val[1:-1], val[2:]
    middles = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))  # the median of the three
    sums = np.cumsum(np.append(0.0, middles))
    for width in (3**power for power in range(20) if 3**power <= min(widest, len(middles))):
        lowest = float((sums[width:] - sums[:-width]).min()) / width
        level = min(level, lowest + noise * math.sqrt(2 * math.log(len(middles) / width) / width))
    return level


FIRST_EPOCH = 3.0  # the first epoch counts for at most this many times the range of all others


def _fall(curve: Floats) -> tuple[float, bool]:
    """Return how far a curve fell from its start to its minimum, and whether the first epoch had to be cut down."""
    fall = float(curve[0] - curve.min())
    rest = float(np.ptp(curve[1:])) if len(curve) > 2 else 0.0
    return (FIRST_EPOCH * rest, True) if 0 < FIRST_EPOCH * rest < fall else (fall, False)
