"""Judge one run from its curves: overfit, healthy, underfit, diverged or too short, with every number that led to it.

The rule, its reasons and sources stand in docs/overfitting.md; `scripts/calibrate.py` measures how often it is right.
Every quantity is a difference of losses divided by what was learned, so neither the scale of the loss nor a constant
added to both curves matters. What the verdict `overfit` rests on is, for the validation curve, its course up to its
minimum, which later epochs cannot change, and quantiles of its course after it. So a tail that is worse at every epoch
can only strengthen the verdict (monotonicity).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainer.judge.tidy import Curve, Floats, align, in_order, without_repeats

__all__ = ["Verdict", "align", "judge"]

Evidence = dict[str, float | int | None]

MIN_EPOCHS = 5  # fewer different epochs are not judged
# Shares of what was learned:
RISE = 0.12  # a lasting rise of the validation loss above its minimum: overfitting on its own
GAP = 0.28  # a gap that opened since validation stopped improving: overfitting on its own
STALL = 0.05  # validation no longer improves from where it is this close to its minimum
LOST = 0.5  # training loss that was learned and lost again: diverged
STILL_FALLING = 0.05  # fall of both losses from the fifth sixth of the run to the last: underfit
# Shares of the run:
LATE = 1 / 3  # the last part, whose gap counts
TAILS = (0.1, 0.2, 1 / 3, 0.5)  # tails whose median is held against the minimum, once the noise is known
LONG_TAILS = (1 / 3, 0.5)  # tails whose low quantile is held against the minimum, noise known or not
LOW_QUANTILE = 0.15
# Counts and factors:
PROGRESS = 3.0  # what validation still gains in the last part is taken off the gap so many times
NOISE_EPOCHS = 10  # epochs up to the minimum that it takes to know the noise of the validation curve
INFINITE = 1e150  # a loss beyond this is taken as infinite: its square is
FIRST_EPOCH = 3.0  # the first epoch counts for at most this many times the range of all others
NOTHING_LEARNED = 3.0  # a fall of the training loss within this many of its own noise
GUESSED = 0.99  # share of what guessing costs above which a training loss has learned nothing


@dataclass(frozen=True)
class Verdict:
    """What the curves of a run say; `best_epoch` and `onset` are values of `epochs`, None where there is none."""

    verdict: str  # overfit, healthy, underfit, diverged or too_short
    best_epoch: float | None  # where the validation loss was lowest
    onset: float | None  # where overfitting set in
    sentence: str
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict for strict JSON: a number that is not finite is written as a string ("inf")."""
        plain = asdict(self)
        plain["evidence"] = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in self.evidence.items()
        }
        return plain


def judge(
    train_loss: Curve,
    val_loss: Curve | None,
    train_accuracy: Curve | None = None,
    val_accuracy: Curve | None = None,
    epochs: Curve | None = None,
    guessing: float | None = None,
) -> Verdict:
    """Judge a run, finished or still going, from one value an epoch of each curve.

    `epochs` are the values' x (default 1..n), in any order; of a repeated x the last value counts (a resumed run).
    `guessing`, where it is known, is the training loss of the best prediction that does not look at the input.
    Losses may be negative and hold nan and inf. Two losses of different lengths are taken to span the same run; curves
    with x of their own go through `align` first. Raises ValueError where lengths do not fit together.
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
    accuracies = [
        np.full(len(train), np.nan) if row is None or len(row) == 0 else np.asarray(row, np.float64)
        for row in (train_accuracy, val_accuracy)
    ]
    has_val = len(val) > 0
    table = in_order(np.stack([x, train, val if has_val else train, *accuracies]))
    losses = table[1:3]
    losses[np.abs(losses) > INFINITE] *= np.inf
    if (diverged := _non_finite_from(table, has_val)) is not None:
        return diverged
    table = without_repeats(table[:, np.isfinite(table[1]) & (table[2] > -np.inf)])  # nan > -inf is False
    return _judge_tidy(table, has_val, guessing)


def _non_finite_from(table: Floats, has_val: bool) -> Verdict | None:
    """The verdict diverged where a loss ends in values that are not finite, else None.

    A trailing stretch of nan counts only if it is longer than any stretch of nan before it: a validation loss that is
    measured every few epochs has such gaps all along. inf always counts.
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


def _judge_tidy(table: Floats, has_val: bool, guessing: float | None) -> Verdict:
    """Judge curves in order of x, finite but for +inf in the validation loss, without repeats."""
    x, train, val, _, val_accuracy = table
    n = len(x)
    if n < MIN_EPOCHS and not (n > 1 and np.ptp(train) == 0 and np.all(val == val[0])):
        sentence = f"{n} epoch{'' if n == 1 else 's'} with finite losses: a verdict takes at least {MIN_EPOCHS}"
        return Verdict("too_short", None, None, sentence, {"epochs": n})
    evidence: Evidence = {"epochs": n, "guessing_loss": guessing, **_train_evidence(train)}
    if not has_val:
        label = _train_label(evidence) or "too_short"
        return Verdict(label, None, None, _sentence(label, None, None, evidence), evidence)
    best = int(np.argmin(val))
    evidence |= _val_evidence(train, val, best)
    label = _train_label(evidence) or _label(evidence)
    onset = _onset(val, evidence) if label == "overfit" else None
    if onset is not None:
        evidence["epochs_since_onset"] = n - 1 - onset
    evidence |= _accuracy_evidence(val_accuracy, best)
    best_x, onset_x = float(x[best]), None if onset is None else float(x[onset])
    return Verdict(label, best_x, onset_x, _sentence(label, best_x, onset_x, evidence), evidence)


def _noise(curve: Floats) -> float:
    """Standard deviation of a curve's noise from its second differences: a trend leaves them, white noise does not.

    The median makes steps and spikes of less than a quarter of the epochs harmless (0.6745: median of |N(0, 1)|; a
    second difference of white noise has 1 + 4 + 1 times its variance).
    """
    if len(curve) < 3:
        return 0.0
    return _quantile(np.abs(np.diff(curve, 2)), 0.5) / (0.6745 * math.sqrt(6))


def _quantile(values: Floats, q: float) -> float:
    """The order statistic at rank floor(q (k - 1)) of k values: monotone in every value, and inf stays inf."""
    rank = int(q * (len(values) - 1))
    return float(np.partition(values, rank)[rank])


def _fall(curve: Floats) -> tuple[float, bool]:
    """How far a curve fell from its start to its minimum, and whether the first epoch had to be cut down for it."""
    fall = float(curve[0] - curve.min())
    rest = float(np.ptp(curve[1:])) if len(curve) > 2 else 0.0
    return (FIRST_EPOCH * rest, True) if 0 < FIRST_EPOCH * rest < fall else (fall, False)


def _train_evidence(train: Floats) -> Evidence:
    """What the training loss did, from it alone."""
    return {
        "train_start": float(train[0]),
        "train_low": _quantile(train, 0.05),
        "train_end": _quantile(train[-max(3, len(train) // 10) :], 0.5),
        "train_noise": _noise(train),
    }


def _val_evidence(train: Floats, val: Floats, best: int) -> Evidence:
    """What the validation loss did, and what the training loss did meanwhile; `best` is the index of the minimum."""
    n = len(val)
    before = val[: best + 1][np.isfinite(val[: best + 1])]
    noise = _noise_before(before)
    low = _level_before(before, noise, max(1, min(n // 20, len(before) // 4)))
    learned, tall = _fall(train)
    learned = max(learned, min(_fall(before)[0], 2 * learned))
    start_gap = max(0.0, float(val[0] - train[0]))
    if tall and best >= 1:
        start_gap = max(start_gap, float(val[1] - train[1]))
    stall = int(np.argmax(val <= low + STALL * learned))
    near_best = slice(max(0, best - n // 20), best + n // 20 + 1)
    train_best = _quantile(train[near_best], 0.5)
    rises = [0.0]
    for part in TAILS:
        k = max(3, round(part * n))
        if n - k <= best:
            continue
        train_rise = max(0.0, _quantile(train[-k:], 0.5) - train_best)
        if best + 1 >= NOISE_EPOCHS:
            rises.append(_quantile(val[-k:], 0.5) - low - 2.5 * noise / math.sqrt(k) - train_rise)
        if part in LONG_TAILS:
            rises.append(_quantile(val[-k:], LOW_QUANTILE) - low - train_rise)
    k = max(3, round(n * LATE))
    late, train_late = _quantile(val[-k:], 0.5), _quantile(train[-k:], 0.5)
    progress = max(0.0, float(val[: max(1, n - k + 1)].min()) - low)
    gap = max(0.0, late - train_late - start_gap - PROGRESS * progress)
    end, train_end = float(val[-max(1, n // 10) :].mean()), float(train[-max(1, n // 10) :].mean())
    finite = np.where(np.isfinite(val), val, val[np.isfinite(val)].max())

    def share(loss: float) -> float | None:
        return loss / learned if learned > 0 else None  # nothing learned: the training loss decides

    return {
        "best_index": best,
        "stall_index": stall,
        "best_val_loss": float(val[best]),
        "final_val_loss": end,
        "final_train_loss": train_end,
        "late_val_loss": late,
        "late_train_loss": train_late,
        "learned": learned,
        "noise": _noise(finite),
        "noise_before_best": noise,
        "rise": end - float(val[best]),
        "rise_share": share(max(rises)),
        "gap": end - train_end,
        "late_progress_share": share(progress),
        "gap_share": share(gap),
        "score": share(max(rises) / RISE + gap / GAP),
        "train_fall_since_best": train_best - train_late,
        "still_falling_share": share(_still_falling(train, finite)),
    }


def _still_falling(train: Floats, val: Floats) -> float:
    """Fall of the mean from the fifth sixth of the run to the last, beyond its noise: the smaller of both losses."""
    falls = []
    for curve in (train, val):
        parts = np.array_split(curve, min(6, len(curve)))
        falls.append(float(parts[-2].mean() - parts[-1].mean()) - 2 * _noise(curve) * math.sqrt(12 / len(curve)))
    return min(falls)


def _level_before(val: Floats, noise: float, widest: int) -> float:
    """The level that a falling loss came down to: its lowest mean over some epochs in a row.

    Each mean has added to it what the luck of being the lowest of so many takes off it: sqrt(2 log m) standard errors
    for m stretches (twice that for single epochs, among which heavy-tailed noise has outliers). Of all lengths up to
    `widest`, in steps of a factor 3, the lowest result counts: a long stretch averages noise, a short one fits into a
    narrow minimum.
    """
    sums = np.cumsum(np.append(0.0, val))
    level = float(val.min()) + 2 * noise * math.sqrt(2 * math.log(max(len(val), 1)))
    for width in (3**power for power in range(1, 20) if 3**power <= widest):
        lowest = float((sums[width:] - sums[:-width]).min()) / width
        level = min(level, lowest + noise * math.sqrt(2 * math.log(len(val) / width) / width))
    return level


def _noise_before(val: Floats) -> float:
    """Standard deviation of what a falling curve does not explain: residuals of the antitonic fit (pool adjacent)."""
    if len(val) < 3:
        return 0.0
    sums, counts = [], []
    for value in val.tolist():
        total, count = value, 1
        while sums and sums[-1] * count <= total * counts[-1]:  # the block before is not higher: pool the two
            total, count = total + sums.pop(), count + counts.pop()
        sums.append(total)
        counts.append(count)
    fit = np.repeat(np.array(sums) / counts, counts)
    return float(np.sqrt(np.mean((val - fit) ** 2)))


def _train_label(evidence: Evidence) -> str | None:
    """The verdicts that the training loss alone decides."""
    start, end, low, noise = (float(evidence[f"train_{key}"] or 0.0) for key in ("start", "end", "low", "noise"))
    if end - low > max(LOST * (start - low), 6 * noise):
        return "diverged"
    return "underfit" if start - end <= NOTHING_LEARNED * noise or _only_guesses(evidence) else None


def _only_guesses(evidence: Evidence) -> bool:
    """Whether the training loss never fell below what predictions cost that do not look at the input."""
    guessing = float(evidence["guessing_loss"] or 0.0)
    return guessing > 0 and float(evidence["train_low"] or 0.0) > GUESSED * guessing


def _label(evidence: Evidence) -> str:
    """Overfit, underfit or healthy, from the shares."""
    if float(evidence["score"] or 0.0) >= 1:
        return "overfit"
    return "underfit" if float(evidence["still_falling_share"] or 0.0) >= STILL_FALLING else "healthy"


def _onset(val: Floats, evidence: Evidence) -> int:
    """Index where overfitting set in: where the loss left its minimum for good, or where it stopped improving."""
    if float(evidence["rise_share"] or 0.0) < RISE / 3:
        return int(evidence["stall_index"] or 0)
    n = len(val)
    width = max(1, n // 20)
    padded = np.pad(np.minimum(val, np.max(val[np.isfinite(val)])), (width // 2, width - 1 - width // 2), mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), "valid")
    low = float(smooth.min())
    return int(np.flatnonzero(smooth <= low + 0.05 * max(0.0, float(evidence["late_val_loss"] or 0.0) - low))[-1])


def _accuracy_evidence(val_accuracy: Floats, best: int) -> Evidence:
    """What the validation accuracy did while the loss rose; nothing where there is no accuracy."""
    tail = val_accuracy[-max(3, len(val_accuracy) // 10) :]
    tail = tail[np.isfinite(tail)]
    if len(tail) == 0 or not np.isfinite(val_accuracy[best]):
        return {}
    return {"accuracy_at_best": float(val_accuracy[best]), "accuracy_end": float(np.median(tail))}


def _sentence(label: str, best: float | None, onset: float | None, evidence: Evidence) -> str:
    """The verdict in words, with the numbers that decided it."""
    e = {key: math.nan if value is None else float(value) for key, value in evidence.items()}
    if label == "too_short":
        return f"no validation loss: whether the {e['epochs']:g} epochs overfit cannot be seen"
    if label == "diverged":
        return f"training loss has come back up from {e['train_low']:.4g} to {e['train_end']:.4g} and stays there"
    if label == "underfit" and _only_guesses(evidence):
        return (
            f"nothing was learned: training loss fell to {e['train_low']:.4g}, and predictions that do not look at the "
            f"input cost {e['guessing_loss']:.4g}"
        )
    if label == "underfit" and e["train_start"] - e["train_end"] <= NOTHING_LEARNED * e["train_noise"]:
        return f"nothing was learned: training loss went from {e['train_start']:.4g} to {e['train_end']:.4g}"
    if label == "underfit":
        return (
            f"both losses are still falling: the last sixth of the run brought another "
            f"{e['still_falling_share']:.0%} of what was learned; train longer or faster"
        )
    if label == "healthy":
        return (
            f"validation loss fell to {e['best_val_loss']:.4g} at epoch {best:g} and shows no lasting rise; "
            f"it ends {abs(e['gap']):.3g} {'above' if e['gap'] > 0 else 'below'} the training loss"
        )
    rise = e["rise"]
    if e["rise_share"] >= RISE / 3:
        percent = f" ({rise / e['best_val_loss']:+.0%})" if e["best_val_loss"] > 0 else ""
        noise = f"{rise / e['noise']:.0f} times its own noise and " if 0 < rise < 100 * e["noise"] else ""
        text = f"validation loss has risen by {rise:.3g}{percent} above its minimum at epoch {best:g}, {noise}"
        text += f"{rise / e['learned']:.0%} of what was learned,"
    else:
        text = f"validation loss has not improved since epoch {onset:g}"
    text += f" while training loss {'kept falling' if e['train_fall_since_best'] > 0 else 'did not rise as much'}"
    if e["gap_share"] > 0:
        text += f"; the gap has opened by {e['gap_share']:.0%} of what was learned"
    if e.get("accuracy_end", -math.inf) > e.get("accuracy_at_best", math.inf):
        text += (
            f"; validation accuracy still improved, from {e['accuracy_at_best']:.2%} to {e['accuracy_end']:.2%}: "
            "the loss can rise so where wrong answers grow more confident"
        )
    return text
