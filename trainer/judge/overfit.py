"""Judge one run from its curves: overfit, healthy, underfit, diverged or not to be judged, with all numbers.

docs/overfitting.md gives the rule, its reasons and sources; `scripts/calibrate.py` measures how often it is right.
Every quantity is a difference of losses divided by what was learned, so neither the scale of the loss nor a constant
added to both curves matters. The verdict `overfit` rests on the validation curve up to its minimum, which later epochs
cannot change, and on quantiles of the curve after it. So a tail that is worse at every epoch can only strengthen the
verdict (monotonicity).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Curve = Sequence[float] | Floats
Label = Literal["overfit", "diverged", "underfit", "too_short", "no_validation", "healthy"]  # worst first, as in tables
Kind = Literal["rise", "gap", "loss_only"]  # of overfitting; see docs/overfitting.md
Evidence = dict[str, float | int | None]

INFINITE = 1e150  # a loss beyond this counts as infinite: its square overflows


@dataclass(frozen=True)
class Verdict:
    """What the curves of a run say; `best_epoch` and `onset` are values of `epochs`, None where there is none."""

    verdict: Label
    best_epoch: float | None  # where the validation loss was lowest
    onset: float | None  # where overfitting set in
    sentence: str
    evidence: Evidence  # every number that led to the verdict
    kind: Kind | None = None  # of a run that is called overfit
    probability: float | None = None  # of being overfit; None where the score does not decide

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary; its numbers may be nan or infinite."""
        return asdict(self)


def judge(
    train_loss: Curve,
    val_loss: Curve | None,
    train_accuracy: Curve | None = None,
    val_accuracy: Curve | None = None,
    epochs: Curve | None = None,
    chance_loss: float | None = None,
) -> Verdict:
    """Judge a run, finished or still training, from one value per epoch of each curve.

    `epochs` are the values' x (default 1..n), in any order; of a repeated x the last value counts (a resumed run).
    `chance_loss`, where it is known, is the training loss of the best prediction that ignores the input. Losses may be
    negative and may contain nan and inf. Two losses of different lengths are taken to span the same run; curves with x
    of their own go through `align` first. Raises ValueError where lengths do not match.
    """
    train = np.asarray(train_loss, np.float64).ravel()
    val = np.full(0, np.nan) if val_loss is None else np.asarray(val_loss, np.float64).ravel()
    if len(val) not in (0, len(train)):
        span, train, val = align(np.linspace(0, 1, len(train)), train, np.linspace(0, 1, len(val)), val)
        epochs = epochs if epochs is not None and len(epochs) == len(span) else 1 + span * (len(span) - 1)
    rows = {"epochs": epochs, "val_loss": val, "train_accuracy": train_accuracy, "val_accuracy": val_accuracy}
    for name, row in rows.items():
        if row is not None and len(row) not in (0, len(train)):
            raise ValueError(f"{name}: {len(row)} values for {len(train)} training losses; give one for each")
    x = np.arange(1.0, len(train) + 1) if epochs is None else np.asarray(epochs, np.float64)
    missing = val_accuracy is None or len(val_accuracy) == 0
    accuracy = np.full(len(train), np.nan) if missing else np.asarray(val_accuracy, np.float64)
    has_val = len(val) > 0
    table = _in_order(np.stack([x, train, val if has_val else train, accuracy]))
    losses = table[1:3]
    losses[np.abs(losses) > INFINITE] *= np.inf
    if (diverged := _non_finite_from(table, has_val)) is not None:
        return diverged
    table = _without_repeats(table[:, np.isfinite(table[1]) & (table[2] > -np.inf)])  # nan > -inf is False
    return _judge_finite(table, has_val, chance_loss)


def _non_finite_from(table: Floats, has_val: bool) -> Verdict | None:
    """Return the verdict diverged where a loss ends in values that are not finite, else None.

    A trailing stretch of nan counts only if it is longer than any stretch of nan before it: a validation loss that is
    measured every few epochs has such gaps throughout. inf always counts.
    """
    x = table[0]
    for name, loss in (("training loss", table[1]), ("validation loss", table[2]))[: 1 + has_val]:
        bad = np.flatnonzero(~np.isfinite(loss))
        if len(bad) == 0 or bad[-1] != len(loss) - 1:
            continue
        runs = np.split(bad, np.flatnonzero(np.diff(bad) > 1) + 1)
        longest_before = max((len(run) for run in runs[:-1]), default=0)
        last = runs[-1]
        if len(last) > longest_before or not np.all(np.isnan(loss[last])):
            sentence = f"the {name} is not finite from epoch {x[last[0]]:g} to the end"
            finite = int(np.sum(np.isfinite(loss)))
            evidence: Evidence = {"epochs": len(x), "finite_epochs": finite, "not_finite_from": float(x[last[0]])}
            val = np.where(np.isfinite(table[2]), table[2], np.inf)
            best = float(x[np.argmin(val)]) if has_val and np.isfinite(val).any() else None
            return Verdict("diverged", best, None, sentence, evidence)
    return None


MIN_EPOCHS = 5  # fewer different epochs are not judged


def _judge_finite(table: Floats, has_val: bool, chance_loss: float | None) -> Verdict:
    """Judge curves in order of x, finite but for +inf in the validation loss, without repeats."""
    x, train, val, val_accuracy = table
    n = len(x)
    if n < MIN_EPOCHS and not (n > 1 and np.ptp(train) == 0 and np.all(val == val[0])):
        sentence = f"{n} epoch{'s' * (n != 1)} with finite losses: a verdict takes at least {MIN_EPOCHS}"
        return Verdict("too_short", None, None, sentence, {"epochs": n})
    of_train = _train_evidence(train, chance_loss)
    decided = _judge_training(of_train)
    if not has_val:
        unseen = f"no validation loss: whether the {n:g} epochs overfit cannot be seen"
        label, sentence = decided or ("no_validation", unseen)
        return Verdict(label, None, None, sentence, dict(vars(of_train)))
    best = int(np.argmin(val))
    of_val = _val_evidence(train, val, best)
    of_accuracy = _accuracy_evidence(val_accuracy, best)
    evidence: Evidence = vars(of_train) | vars(of_val) | of_accuracy
    probability = onset = kind = None
    if decided is None:
        probability = _probability(of_val)
        if (of_val.score or 0.0) >= 1:
            onset, kind = _onset(val, of_val), _kind(of_val, of_accuracy)
            evidence["epochs_since_onset"] = n - 1 - onset
            decided = "overfit", _overfit_sentence(of_val, of_accuracy, kind, float(x[best]), float(x[onset]))
    label, sentence = decided or _judge_validation(of_train, of_val, float(x[best]))
    if probability is not None:
        sentence += _doubts(of_val, probability)
    at = None if onset is None else float(x[onset])
    return Verdict(label, float(x[best]), at, sentence, evidence, kind, probability)


# ------------------------------------------------------------------ the training loss alone


@dataclass(frozen=True)
class TrainEvidence:
    """What the training loss did, from it alone."""

    epochs: int
    guessing_loss: float | None  # the chance-level loss, where it is known
    train_start: float
    train_low: float  # its 5 % quantile
    train_end: float  # median of its last tenth
    train_noise: float
    train_trend: float  # fall from the first third to the last, in standard errors


def _train_evidence(train: Floats, chance_loss: float | None) -> TrainEvidence:
    return TrainEvidence(
        epochs=len(train),
        guessing_loss=chance_loss,
        train_start=float(train[0]),
        train_low=_quantile(train, 0.05),
        train_end=_quantile(train[-max(3, len(train) // 10) :], 0.5),
        train_noise=_noise(train),
        train_trend=_trend(train),
    )


def _trend(curve: Floats) -> float:
    """Return how many standard errors the mean of the last third is below that of the first; 0 for a few values."""
    k = len(curve) // 3
    if k < 3:
        return 0.0
    first, last = curve[:k], curve[-k:]
    error = math.sqrt((first.var() + last.var()) / (k - 1))
    return float(first.mean() - last.mean()) / error if error > 0 else 0.0


LOST = 0.5  # this share of what the training loss had learned is lost again: diverged
NOTHING_LEARNED = 3.0  # a fall of the training loss within this many of its own noise; and
TREND = 4.0  # within so many standard errors from the first third to the last, as it may be a zigzag
CHANCE = 0.99  # a training loss that stays above this share of the chance-level loss has learned nothing


def _judge_training(e: TrainEvidence) -> tuple[Label, str] | None:
    """Return the verdict and sentence where the training loss alone decides."""
    start, low, end, chance = e.train_start, e.train_low, e.train_end, e.guessing_loss or 0.0
    if end - low > max(LOST * (start - low), 6 * e.train_noise):
        return "diverged", f"training loss has come back up from {low:.4g} to {end:.4g} and stays there"
    if chance > 0 and low > CHANCE * chance:
        predictions = f"predictions that do not look at the input cost {chance:.4g}"
        return "underfit", f"nothing was learned: training loss was never below {low:.4g}, and {predictions}"
    if start - end <= NOTHING_LEARNED * e.train_noise and e.train_trend <= TREND:
        return "underfit", f"nothing was learned: training loss went from {start:.4g} to {end:.4g}"
    return None


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
    scales_differ: int  # 1: the training loss is on another scale than the validation loss


RISE, RISE_NOISE = 0.1, 1.0  # a lasting rise counts as a share of RISE plus so many times the noise
GAP, GAP_NOISE = 0.45, 1.0  # a gap that opened since validation stopped improving, likewise
FLOOR = 0.36  # of the score: with no evidence at all
STEEPNESS = 4.0  # of the probability over the logarithm of the score
SURE = 0.9  # a probability above it, or below one less it, is sure
SWINGS = 0.5  # noise of more than this share of what was learned leaves no one sure
ROSE = 0.04  # a verdict rests on the rise from this share of what was learned on
STALL = 0.05  # validation no longer improves from where it is this close to its minimum
LATE = 1 / 3  # the last part of the run, whose gap counts
OF_TRAIN = 0.7  # the validation loss is noisier than this share of the training loss's noise: few epochs may hide it
GAINS = 0.03  # progress and noise of this share: validation may still gain at the end
PROGRESS = 3.0  # what validation still gains in the last part is subtracted from the gap this many times
TAILS = (0.1, 0.2, 1 / 3, 0.5)  # shares of the run whose median is held against the minimum, once the noise is known
NOISE_EPOCHS = 10  # epochs that the noise of the validation curve is measured on, where there are as many
KNOWN = 7  # epochs up to the minimum that it takes to know that noise
LONG_TAILS = (LATE, 0.5)  # shares of the run whose low quantile is held against the minimum, noise known or not
LOW_QUANTILE = 0.15


def _val_evidence(train: Floats, val: Floats, best: int) -> ValEvidence:
    """Measure the curves; `best` is the index of the lowest validation loss."""
    n = len(val)
    before = _finite(val[: best + 1])
    learned, tall, scales = _learned(train, val, best)
    drop = _last_drop(train, best)
    noise = _noise_before(_settled(before if drop is None else _finite(val[:drop])))
    since = before
    if drop is not None:  # of a learning rate: the noise falls with it, and only what comes after can be the minimum
        noise *= _noise_ratio(train, drop)
        since = _finite(val[drop : best + 1])
    if not scales:
        noise = max(noise, OF_TRAIN * _noise(train[n // 4 if drop is None else drop + 1 :], order=3))
    low = _level_before(since, noise, max(1, min(n // 20, len(since) // 4)))
    start_gap = max(0.0, float(val[0] - train[0]))
    if tall and best >= 1:
        start_gap = max(start_gap, float(val[1] - train[1]))
    near_best = slice(max(0, best - n // 20), best + n // 20 + 1)
    train_best = _quantile(train[near_best], 0.5)
    rises = [0.0]
    for part in TAILS:
        k = max(3, round(part * n))
        if n - k <= best:
            continue
        train_rise = max(0.0, _quantile(train[-k:], 0.5) - train_best)
        if best + 1 >= KNOWN:
            rises.append(_quantile(val[-k:], 0.5) - low - 2.5 * noise / math.sqrt(k) - train_rise)
        if part in LONG_TAILS:
            rises.append(_quantile(val[-k:], LOW_QUANTILE) - low - train_rise)
    k = max(3, round(n * LATE))
    late, train_late = _quantile(val[-k:], 0.5), _quantile(train[-k:], 0.5)
    progress = _late_progress(before, n)
    gap = max(0.0, late - train_late - start_gap - PROGRESS * progress)
    still_gains = best >= n - max(1, n // 10) and progress + noise > GAINS * learned  # or may, hidden in its noise
    if scales or still_gains:
        gap = 0.0
    end, train_end = float(val[-max(1, n // 10) :].mean()), float(train[-max(1, n // 10) :].mean())
    finite = np.where(np.isfinite(val), val, val[np.isfinite(val)].max())

    def share(loss: float) -> float | None:
        return loss / learned if learned > 0 else None

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
        noise=_noise(finite),
        noise_before_best=noise,
        rise=end - float(val[best]),
        rise_share=share(max(rises)),
        gap=end - train_end,
        late_progress_share=share(progress),
        gap_share=share(gap),
        score=FLOOR + max(rises) / rise_unit + gap / gap_unit if learned > 0 else None,
        train_fall_since_best=train_best - train_late,
        still_falling_share=share(_still_falling(train, finite)),
        scales_differ=int(scales),
    )


DROP = 0.03  # of the fall of the training loss, in one epoch; and
SUDDEN = 8.0  # times the median change from epoch to epoch


def _last_drop(train: Floats, best: int) -> int | None:
    """Return the last epoch up to the minimum at which the training loss fell suddenly, past the first quarter."""
    falls = -np.diff(train)
    first = max(len(train) // 4, NOISE_EPOCHS)
    wanted = max(DROP * float(np.ptp(train[1:])), SUDDEN * _quantile(np.abs(falls), 0.5))
    found = np.flatnonzero(falls[:best] >= wanted) + 1
    found = found[found >= first]
    return int(found[-1]) if len(found) else None


def _noise_ratio(train: Floats, drop: int) -> float:
    """Return how much less the training loss is noisy after a drop; at most 1."""
    before, after = _noise(train[drop // 2 : drop]), _noise(train[drop + 1 :])
    return min(1.0, max(after / before, 0.1)) if before > 0 else 1.0


def _settled(before: Floats) -> Floats:
    """Return the epochs up to the minimum that tell its noise: since the highest one, and of many the last half."""
    n = len(before)
    if n < NOISE_EPOCHS:
        return before
    start = max(int(np.argmax(before)), n // 2 if n >= 2 * NOISE_EPOCHS else 0)
    return before[min(start, n - NOISE_EPOCHS) :]


def _finite(curve: Floats) -> Floats:
    return curve[np.isfinite(curve)]


SCALE_GAP, SCALE_FALL = 2.0, 4.0  # apart by more than so many falls of the lower loss, of which the other fell more


def _learned(train: Floats, val: Floats, best: int) -> tuple[float, bool, bool]:
    """Return what was learned; whether the first epoch had to be cut down; whether the two losses differ in scale."""
    first = train.copy()
    first[0] = min(train[0], max(val[0], train[1]))
    learned, tall = _fall(first)
    of_val = _fall(_finite(val[: best + 1]))[0]
    of_train = float(first[0] - first[: best + 1].min())
    if best >= 1 and of_val > 0 and math.isfinite(val[1]):
        apart = float(train[1] - val[1])
        is_above = apart > SCALE_GAP * of_val and of_train > SCALE_FALL * of_val
        is_below = -apart > SCALE_GAP * of_train and of_val > SCALE_FALL * of_train
        if is_above or is_below:
            return of_val, tall, True
    return max(learned, min(of_val, 2 * learned)), tall, False


def _late_progress(before: Floats, n: int) -> float:
    """Return what validation still gained in the last third, up to its minimum: lower quartiles of the thirds."""
    middle, late = before[n // 3 : 2 * n // 3], before[2 * n // 3 :]
    if len(middle) == 0 or len(late) == 0:
        return 0.0
    return max(0.0, _quantile(middle, 0.25) - _quantile(late, 0.25))


def _still_falling(train: Floats, val: Floats) -> float:
    """Return how far both losses fall from the fifth sixth of the run to the last: on new ground, and to the very end.

    A step, a spike or a restart makes the medians of two sixths differ, but goes on neither inside the last sixth nor
    inside its second half.
    """
    falls = []
    for curve in (train, val):
        parts = np.array_split(curve, min(6, len(curve)))
        noise = _noise(curve) * math.sqrt(12 / len(curve))
        middles = [_quantile(part, 0.5) for part in parts]
        falls += [middles[-2] - middles[-1] - noise, (min(middles[:-1]) - middles[-1]) * 4 / 3 + noise]
        part, times = parts[-1], 2
        while len(part) >= 2 * times - 2 and times <= 4:
            first, part = np.array_split(part, 2)
            falls.append(times * (_quantile(first, 0.5) - _quantile(part, 0.5)) + times**2 * noise)
            times *= 2
    return min(falls)


STILL_FALLING = 0.05  # both losses fall by this share from the fifth sixth of the run to the last: underfit


def _judge_validation(of_train: TrainEvidence, e: ValEvidence, best: float) -> tuple[Label, str]:
    """Tell underfit from healthy, where neither the training loss nor the score has decided."""
    still_falling = e.still_falling_share or 0.0
    if still_falling >= STILL_FALLING:
        return "underfit", (
            f"both losses are still falling: the last sixth of the run brought another {still_falling:.0%} of what was "
            "learned; train longer or faster"
        )
    backward = of_train.train_end - of_train.train_low, e.final_val_loss - e.best_val_loss
    if min(backward) > max(BACKWARD * e.learned, 6 * of_train.train_noise, 3 * e.noise):
        return "healthy", (
            f"training has gone backward: since validation loss was lowest, {e.best_val_loss:.4g} at epoch {best:g}, "
            f"it has risen by {backward[1]:.3g}, and training loss by {backward[0]:.3g} from its own lowest: no "
            "overfitting; a lower learning rate may hold what was learned"
        )
    risen = "shows no lasting rise" if (e.rise_share or 0.0) < ROSE else "rose little since"
    return "healthy", (
        f"validation loss fell to {e.best_val_loss:.4g} at epoch {best:g} and {risen}; "
        f"it ends {abs(e.gap):.3g} {'above' if e.gap > 0 else 'below'} the training loss"
    )


def _probability(e: ValEvidence) -> float | None:
    """Return how likely people are to call such a run overfit: score^4 / (1 + score^4), one half where the score is 1.

    It grows with the score alone, and so obeys the laws; `scripts.calibrate` prints how often it is right.
    """
    return None if e.score is None else 1 / (1 + e.score**-STEEPNESS)


def is_unsure(probability: float | None, evidence: Mapping[str, Any]) -> bool:
    """Whether a verdict may well be wrong: by its probability, or as validation swings more than it learned."""
    if probability is None:
        return False
    return 1 - SURE < probability < SURE or evidence.get("noise", 0.0) > SWINGS * evidence.get("learned", math.inf)


def _doubts(e: ValEvidence, probability: float) -> str:
    """Return what makes a verdict unsure, to be said behind it."""
    out = ""
    if e.scales_differ:
        out += "; training and validation loss are on different scales, so only the rise of the latter is judged"
    if e.noise > SWINGS * e.learned:
        out += f"; validation loss swings by {e.noise / e.learned:.0%} of what was learned, too much to judge it surely"
    elif is_unsure(probability, vars(e)):
        out += f"; not sure: overfit with a probability of {probability:.0%}"
    return out


BACKWARD = 0.25  # both losses end this share of what was learned above their lowest


def _has_risen(e: ValEvidence) -> bool:
    """Whether the validation loss rose, rather than stopped improving."""
    return (e.rise_share or 0.0) >= ROSE


def _onset(val: Floats, e: ValEvidence) -> int:
    """Return the index where overfitting set in: the loss left its minimum for good, or stopped improving."""
    if not _has_risen(e):
        return e.stall_index
    n = len(val)
    width = max(1, n // 20)
    padded = np.pad(np.minimum(val, np.max(val[np.isfinite(val)])), (width // 2, width - 1 - width // 2), mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), "valid")
    low = float(smooth.min())
    return int(np.flatnonzero(smooth <= low + 0.05 * max(0.0, e.late_val_loss - low))[-1])


def _accuracy_evidence(val_accuracy: Floats, best: int) -> Evidence:
    """Return what the validation accuracy did while the loss rose; nothing where there is no accuracy.

    accuracy_lost: how far the median of the last tenth is below the highest median of as many epochs in a row.
    """
    known = val_accuracy[np.abs(val_accuracy) < INFINITE]
    if len(known) == 0 or not np.isfinite(val_accuracy[best]):
        return {}
    width = min(max(3, len(known) // 10), len(known))
    starts = range((len(known) - width) % max(1, width // 4), len(known) - width + 1, max(1, width // 4))
    levels = [_quantile(known[start : start + width], 0.5) for start in starts]
    return {
        "accuracy_at_best": float(val_accuracy[best]),
        "accuracy_end": levels[-1],
        "accuracy_lost": max(levels) - levels[-1],
        "accuracy_noise": _noise(known),
    }


def _kind(e: ValEvidence, accuracies: Evidence) -> Kind:
    """Tell what is claimed: something learned is lost again, in loss alone or not; or it never generalises."""
    if not _has_risen(e):
        return "gap"
    lost, noise = accuracies.get("accuracy_lost"), accuracies.get("accuracy_noise")
    return "rise" if lost is None or lost > max(2 * (noise or 0.0), ACCURACY_LOST) else "loss_only"


ACCURACY_LOST = 0.005  # half a point: less is no loss of accuracy


def _overfit_sentence(e: ValEvidence, accuracies: Evidence, kind: Kind, best: float, onset: float) -> str:
    if kind == "gap":
        lowest = f" (its lowest is at epoch {best:g})" if best != onset else ""
        text = f"validation loss has hardly improved since epoch {onset:g}{lowest}"
    else:
        percent = f" ({e.rise / e.best_val_loss:+.0%})" if e.best_val_loss > 0 else ""
        noise = f"{e.rise / e.noise:.0f} times its own noise and " if 0 < e.rise < 100 * e.noise else ""
        text = f"validation loss has risen by {e.rise:.3g}{percent} above its minimum at epoch {best:g}, {noise}"
        text += f"{e.rise / e.learned:.0%} of what was learned,"
    text += f" while training loss {'kept falling' if e.train_fall_since_best > 0 else 'did not rise as much'}"
    if (e.gap_share or 0.0) > 0:
        text += f"; the gap has opened by {e.gap_share:.0%} of what was learned"
    at_best, end, lost = (accuracies.get(f"accuracy_{key}") for key in ("at_best", "end", "lost"))
    if at_best is None or end is None or lost is None:
        return text
    if end > at_best:
        text += (
            f"; validation accuracy still improved, from {at_best:.2%} to {end:.2%}: "
            "the loss can rise so where wrong answers grow more confident"
        )
    elif kind == "loss_only":
        text += f"; validation accuracy holds at {end:.2%}: confidence was lost, not right answers"
    elif kind == "rise":
        text += f"; validation accuracy has lost {lost:.2%}"
    return text


# ------------------------------------------------------------------ what curves have in them


def _noise(curve: Floats, order: Literal[2, 3] = 2) -> float:
    """Return the standard deviation of a curve's noise from its second differences, in which a trend vanishes.

    The median makes steps and spikes of less than a quarter of the epochs harmless (0.6745: median of |N(0, 1)|; a
    second difference of white noise has 1 + 4 + 1 times its variance, a third one, in which a bend vanishes too,
    1 + 9 + 9 + 1 times).
    """
    if len(curve) <= order:
        return 0.0
    return _quantile(np.abs(np.diff(curve, order)), 0.5) / (0.6745 * math.sqrt(6 if order == 2 else 20))


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
    return float(np.sqrt(2 * np.mean(below**2)))


SINGLE = 4.0  # times the luck of a single epoch: among heavy-tailed noise there are outliers
REACH = 4.0  # an epoch within this many standard deviations of the lowest stretch might have been lowest by luck


def _level_before(val: Floats, noise: float, widest: int) -> float:
    """Return the level that a falling loss came down to: its lowest mean over consecutive epochs.

    The lowest of m means is low by luck: sqrt(2 log m) standard errors are added back, m counting only what is within
    reach of the lowest. The means are of medians of three epochs, so that no single one makes a level; it may by
    itself, with more luck added. Of all lengths up to `widest`, in steps of a factor 3, the lowest result counts: a
    long stretch averages noise, a short one fits into a narrow minimum.
    """
    level = float(val.min()) + SINGLE * noise * math.sqrt(2 * math.log(len(val)))
    if noise == 0 or len(val) < 3:
        return level
    a, b, c = val[:-2], val[1:-1], val[2:]
    middles = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))  # the median of the three
    sums = np.cumsum(np.append(0.0, middles))
    width = min(3, len(middles))
    rivals = int((middles <= (sums[width:] - sums[:-width]).min() / width + REACH * noise).sum())
    for width in (3**power for power in range(20) if 3**power <= min(widest, len(middles))):
        lowest = float((sums[width:] - sums[:-width]).min()) / width
        level = min(level, lowest + noise * math.sqrt(2 * math.log(max(rivals / width, 1)) / width))
    return level


FIRST_EPOCH = 3.0  # the first epoch counts for at most this many times the range of all others


def _fall(curve: Floats) -> tuple[float, bool]:
    """Return how far a curve fell from its start to its minimum, and whether the first epoch had to be cut down."""
    fall = float(curve[0] - curve.min())
    rest = float(np.ptp(curve[1:])) if len(curve) > 2 else 0.0
    return (FIRST_EPOCH * rest, True) if 0 < FIRST_EPOCH * rest < fall else (fall, False)


def _quantile(values: Floats, q: float) -> float:
    """Return the order statistic at rank floor(q (k - 1)) of k values: monotone in every value, and inf stays inf."""
    rank = int(q * (len(values) - 1))
    parted = values.copy()
    parted.partition(rank)
    return float(parted[rank])


# ------------------------------------------------------------------ curves on common x, in order, each epoch once


def align(train_x: Curve, train_y: Curve, val_x: Curve, val_y: Curve) -> tuple[Floats, Floats, Floats]:
    """Return x, training and validation loss at the validation curve's x, from curves that have x of their own.

    The training loss at a validation point is the mean of what was logged since the previous validation point (a loss
    of every step next to one of every epoch), or, where nothing was, interpolated between its neighbours. Values that
    are not finite enter such a mean, so that a run gone to nan stays visible. Before the first validation point, as
    much training counts as lies between the first and the second. Empty where either curve is.
    """
    (tx, ty), (vx, vy) = (
        _in_order(np.stack([np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()]))
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


def _in_order(table: Floats) -> Floats:
    """Sort columns by their first row; of equal first rows keep the last, drop those that are not finite."""
    table = table[:, np.isfinite(table[0])]
    if np.all(np.diff(table[0]) > 0):
        return table
    table = table[:, np.argsort(table[0], kind="stable")]
    return table[:, np.append(np.diff(table[0]) > 0, True)[: table.shape[1]]]


def _without_repeats(table: Floats) -> Floats:
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
