"""Judge one run from its curves: overfit, healthy, underfit, diverged or too short, with every number that led to it.

The rule, its reasons and sources stand in docs/overfitting.md; `scripts/calibrate.py` measures how often it is right.
Every quantity is a difference of losses divided by what was learned, so neither the scale of the loss nor a constant
added to both curves matters. What the verdict `overfit` rests on is, for the validation curve, its course up to its
minimum, which later epochs cannot change, and quantiles of its course after it. So a tail that is worse at every epoch
can only strengthen the verdict (monotonicity).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Curve = Sequence[float] | Floats
Evidence = dict[str, float | int | None]

MIN_EPOCHS = 5  # fewer different epochs are not judged
# Shares of what was learned:
RISE = 0.10  # a lasting rise of the validation loss above its minimum: overfitting on its own
GAP = 0.33  # a gap that opened since validation stopped improving: overfitting on its own
STALL = 0.05  # validation no longer improves from where it is this close to its minimum
LOST = 0.5  # training loss that was learned and lost again: diverged
STILL_FALLING = 0.10  # fall of both losses from the third quarter of the run to the last: underfit
# Shares of the run:
STALL_TIME = 1 / 3  # what must lie behind the stall before the gap counts
TAILS = (0.1, 0.2, 1 / 3, 0.5)  # tails whose median is held against the minimum, once the noise is known
LONG_TAILS = (1 / 3, 0.5)  # tails whose low quantile is held against the minimum, noise known or not
LOW_QUANTILE = 0.15
# Counts:
NOISE_EPOCHS = 8  # epochs up to the minimum that it takes to know the noise of the validation curve
FIRST_EPOCH = 10.0  # the first epoch counts for at most this many times the range of all others
NOTHING_LEARNED = 3.0  # a fall of the training loss within this many of its own noise


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
) -> Verdict:
    """Judge a run, finished or still going, from one value an epoch of each curve.

    `epochs` are the values' x (default 1..n), in any order; of a repeated x the last value counts (a resumed run).
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
    table = _in_order(np.stack([x, train, val if has_val else train, *accuracies]))
    if (diverged := _non_finite_from(table, has_val)) is not None:
        return diverged
    table = _without_repeats(table[:, np.isfinite(table[1]) & (table[2] > -np.inf)])  # nan > -inf is False
    return _judge_tidy(table, has_val)


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
    step = vx[1] - vx[0] if len(vx) > 1 else np.inf
    edges = np.concatenate([[vx[0] - step], vx])
    ends = np.searchsorted(tx, edges, side="right")
    counts = np.diff(ends)
    sums = np.array([ty[start:end].sum() for start, end in itertools.pairwise(ends.tolist())])
    train = np.where(counts > 0, sums / np.maximum(counts, 1), np.interp(vx, tx, ty))
    return vx, train, vy


def _sorted(x: Curve, y: Curve) -> tuple[Floats, Floats]:
    """Both as arrays in order of x, the last value of a repeated x kept, points without an x dropped."""
    table = _in_order(np.stack([np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()]))
    return table[0], table[1]


def _in_order(table: Floats) -> Floats:
    """Columns in order of their first row; of equal first rows the last column, and none whose first row is nan."""
    table = table[:, ~np.isnan(table[0])]
    if np.all(np.diff(table[0]) > 0):
        return table
    table = table[:, np.argsort(table[0], kind="stable")]
    return table[:, np.append(np.diff(table[0]) > 0, True)[: table.shape[1]]]


def _without_repeats(table: Floats) -> Floats:
    """Columns with the common factor of repeated epochs taken out: a a b b c c c c becomes a b c c."""
    n = table.shape[1]
    if n < 2:
        return table
    starts = np.flatnonzero(np.append(True, np.any(np.diff(table[1:3], axis=1) != 0, axis=0)))
    factor = int(np.gcd.reduce(np.diff(np.append(starts, n))))
    return table if factor in (1, n) else table[:, ::factor]


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


def _judge_tidy(table: Floats, has_val: bool) -> Verdict:
    """Judge curves in order of x, finite but for +inf in the validation loss, without repeats."""
    x, train, val, _, val_accuracy = table
    n = len(x)
    if n < MIN_EPOCHS and not (n > 1 and np.ptp(train) == 0 and np.all(val == val[0])):
        sentence = f"{n} epoch{'' if n == 1 else 's'} with finite losses: a verdict takes at least {MIN_EPOCHS}"
        return Verdict("too_short", None, None, sentence, {"epochs": n})
    evidence: Evidence = {"epochs": n, **_train_evidence(train)}
    if not has_val:
        label = _train_label(evidence) or "too_short"
        return Verdict(label, None, None, _sentence(label, None, None, evidence), evidence)
    best = int(np.argmin(val))
    evidence |= _val_evidence(train, val, best, evidence)
    label = _train_label(evidence) or _label(evidence)
    onset = _onset(train, val, best, evidence) if label == "overfit" else None
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
    return float(np.median(np.abs(np.diff(curve, 2)))) / (0.6745 * math.sqrt(6))


def _quantile(values: Floats, q: float) -> float:
    """The order statistic at rank floor(q (k - 1)) of k values: monotone in every value, and inf stays inf."""
    rank = int(q * (len(values) - 1))
    return float(np.partition(values, rank)[rank])


def _fall(curve: Floats, end: int) -> float:
    """How far a curve fell from its start to its minimum up to index `end`, a lone high first value cut down."""
    fall = float(curve[0] - curve[: end + 1].min())
    rest = curve[1 : end + 1]
    spread = float(rest.max() - rest.min()) if len(rest) > 1 else 0.0
    return min(fall, FIRST_EPOCH * spread) if spread > 0 else fall


def _train_evidence(train: Floats) -> Evidence:
    """What the training loss did, from it alone."""
    n = len(train)
    end = float(np.median(train[-max(3, n // 10) :]))
    return {
        "train_start": float(train[0]),
        "train_min": float(train.min()),
        "train_end": end,
        "train_noise": _noise(train),
        "train_learned": _fall(train, n - 1),
    }


def _val_evidence(train: Floats, val: Floats, best: int, of_train: Evidence) -> Evidence:
    """What the validation loss did, and what the training loss did meanwhile; `best` is the index of the minimum."""
    n = len(val)
    before = val[: best + 1][np.isfinite(val[: best + 1])]
    noise = _noise_before(before)
    luck = noise * math.sqrt(2 * math.log(max(best + 1, 2)))  # how far the lowest of so many lies below the curve
    learned = max(_fall(before, len(before) - 1), float(of_train["train_learned"] or 0.0))
    stall = int(np.argmax(val <= val[best] + STALL * learned + luck))
    width = max(1, n // 20)
    train_best = float(np.median(train[max(0, best - width) : best + width + 1]))
    train_stall = float(np.median(train[max(0, stall - width) : stall + width + 1]))
    rises = [-math.inf]
    for share in TAILS:
        k = max(3, round(share * n))
        if n - k <= best:
            continue
        tail = val[n - k :]
        train_rise = max(0.0, float(np.median(train[n - k :])) - train_best)
        if best + 1 >= NOISE_EPOCHS:
            rises.append(_quantile(tail, 0.5) - val[best] - luck - 2.5 * noise / math.sqrt(k) - train_rise)
        if share in LONG_TAILS:
            rises.append(_quantile(tail, LOW_QUANTILE) - val[best] - train_rise)
    k = max(3, round(n * STALL_TIME))
    end, train_end = _quantile(val[-k:], 0.5), float(np.median(train[-k:]))
    opened = end - train_end - max(0.0, float(val[best]) + luck - train_stall) if stall <= n - k else -math.inf
    rise = max(max(rises), 0.0)
    share_of = learned if learned > 0 else math.nan
    quarters = np.array_split(np.stack([train, val]), 4, axis=1)
    falling = float(np.min(quarters[2].mean(1) - quarters[3].mean(1))) if n >= 8 else -math.inf
    return {
        "best_index": best,
        "stall_index": stall,
        "best_val_loss": float(val[best]),
        "final_val_loss": end,
        "learned": learned,
        "noise": _noise(val[np.isfinite(val)]),
        "noise_before_best": noise,
        "rise": float(rise),
        "rise_share": float(rise / share_of),
        "gap": end - train_end,
        "gap_opened_share": opened / share_of,
        "train_fall_since_best": train_best - train_end,
        "still_falling_share": falling / share_of,
    }


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
    start, end, low, noise, learned = (
        float(evidence[f"train_{key}"] or 0.0) for key in ("start", "end", "min", "noise", "learned")
    )
    if end - low > LOST * learned and end - low > 6 * noise:
        return "diverged"
    if start - end <= NOTHING_LEARNED * noise:
        return "underfit"
    return None


def _label(evidence: Evidence) -> str:
    """Overfit, underfit or healthy, from the shares."""
    rise, gap, falling = (float(evidence[f"{key}_share"] or 0.0) for key in ("rise", "gap_opened", "still_falling"))
    if rise >= RISE or gap >= GAP:
        return "overfit"
    return "underfit" if falling >= STILL_FALLING else "healthy"


def _onset(train: Floats, val: Floats, best: int, evidence: Evidence) -> int:
    """Index where overfitting set in: the minimum if the loss rose, else where it stopped improving."""
    return best if float(evidence["rise_share"] or 0.0) >= RISE else int(evidence["stall_index"] or 0)


def _accuracy_evidence(val_accuracy: Floats, best: int) -> Evidence:
    """What the validation accuracy did while the loss rose; nothing where there is no accuracy."""
    if not np.isfinite(val_accuracy[best]):
        return {}
    tail = val_accuracy[-max(3, len(val_accuracy) // 10) :]
    return {"accuracy_at_best": float(val_accuracy[best]), "accuracy_end": float(np.nanmedian(tail))}


def _sentence(label: str, best: float | None, onset: float | None, evidence: Evidence) -> str:
    """The verdict in words, with the numbers that decided it."""
    e = {key: math.nan if value is None else float(value) for key, value in evidence.items()}
    if label == "too_short":
        return f"no validation loss: whether the {e['epochs']:g} epochs overfit cannot be seen"
    if label == "diverged":
        return f"training loss has come back up from {e['train_min']:.4g} to {e['train_end']:.4g} and stays there"
    if label == "underfit" and e["train_start"] - e["train_end"] <= NOTHING_LEARNED * e["train_noise"]:
        return f"nothing was learned: training loss went from {e['train_start']:.4g} to {e['train_end']:.4g}"
    if label == "underfit":
        return (
            f"both losses are still falling: the last quarter of the run brought another "
            f"{e['still_falling_share']:.0%} of what was learned; train longer or faster"
        )
    rise = e["final_val_loss"] - e["best_val_loss"]
    level = f"validation loss {e['final_val_loss']:.4g} after a minimum of {e['best_val_loss']:.4g} at epoch {best:g}"
    if label == "healthy":
        return f"{level}: no lasting rise, and a gap of {e['gap']:.3g} to the training loss"
    meanwhile = "kept falling" if e["train_fall_since_best"] > 0 else "did not rise as much"
    if e["rise_share"] >= RISE:
        percent = f" ({rise / e['best_val_loss']:+.0%})" if e["best_val_loss"] > 0 else ""
        noise = f"{rise / e['noise']:.0f} times its own noise" if e["noise"] > 0 else "without noise"
        text = (
            f"validation loss has risen by {rise:.3g}{percent} above its minimum at epoch {best:g}, {noise} and "
            f"{rise / e['learned']:.0%} of what was learned, while training loss {meanwhile}"
        )
    else:
        text = (
            f"validation loss has stopped improving since epoch {onset:g} while training loss {meanwhile}: the gap has "
            f"grown by {e['gap_opened_share']:.0%} of what was learned, to {e['gap']:.3g}"
        )
    if e.get("accuracy_end", -math.inf) > e.get("accuracy_at_best", math.inf):
        text += (
            f"; validation accuracy still improved, from {e['accuracy_at_best']:.2%} to {e['accuracy_end']:.2%}: "
            "the loss rises because the wrong answers grow more confident"
        )
    return text
