"""Judge one run from its curves: overfit, healthy, underfit, diverged or not to be judged, with all numbers.

docs/overfitting.md gives the rule, its reasons and sources; `scripts.calibrate` measures how often it is right.
Every quantity is a difference of losses divided by what was learned, so neither the scale of the loss nor a constant
added to both curves matters. The verdict `overfit` rests on the validation curve up to its minimum, which later epochs
cannot change, and on quantiles of the curve after it. So a tail that is worse at every epoch can only strengthen the
verdict (monotonicity).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from trainer.judge.curves import INFINITE, Curve, Floats, align, in_order, without_repeats
from trainer.judge.evidence import (
    Evidence,
    TrainEvidence,
    ValEvidence,
    level_around,
    of_accuracy,
    of_training,
    of_validation,
)

Label = Literal["overfit", "diverged", "underfit", "too_short", "no_validation", "healthy"]  # worst first, as in tables
Kind = Literal["rise", "gap", "loss_only"]  # of overfitting; see docs/overfitting.md


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
    unit: str = "epoch",
) -> Verdict:
    """Judge a run, finished or still training, from one value per epoch of each curve.

    `epochs` are the values' x (default 1..n), in any order; of a repeated x the last value counts (a resumed run).
    `unit` is what x counts, for the sentence. `chance_loss`, where it is known, is the training loss of the best
    prediction that ignores the input. Losses may be
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
    table = in_order(np.stack([x, train, val if has_val else train, accuracy]))
    losses = table[1:3]
    losses[np.abs(losses) > INFINITE] *= np.inf
    if (diverged := _non_finite_from(table, has_val, unit)) is not None:
        return diverged
    table = without_repeats(table[:, np.isfinite(table[1]) & (table[2] > -np.inf)])  # nan > -inf is False
    return _judge_finite(table, has_val, chance_loss, unit)


def _non_finite_from(table: Floats, has_val: bool, unit: str) -> Verdict | None:
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
            sentence = f"the {name} is not finite from {unit} {x[last[0]]:g} to the end"
            finite = int(np.sum(np.isfinite(loss)))
            evidence: Evidence = {"epochs": len(x), "finite_epochs": finite, "not_finite_from": float(x[last[0]])}
            val = np.where(np.isfinite(table[2]), table[2], np.inf)
            best = float(x[np.argmin(val)]) if has_val and np.isfinite(val).any() else None
            return Verdict("diverged", best, None, sentence, evidence)
    return None


MIN_EPOCHS = 5  # fewer different epochs are not judged


def _judge_finite(table: Floats, has_val: bool, chance_loss: float | None, unit: str) -> Verdict:
    """Judge curves in order of x, finite but for +inf in the validation loss, without repeats."""
    x, train, val, val_accuracy = table
    n, counted = len(x), "epoch" if unit == "epoch" else "point"
    if n < MIN_EPOCHS and not (n > 1 and np.ptp(train) == 0 and np.all(val == val[0])):
        sentence = f"{n} {counted}{'s' * (n != 1)} with finite losses: a verdict takes at least {MIN_EPOCHS}"
        return Verdict("too_short", None, None, sentence, {"epochs": n})
    of_train = of_training(train, chance_loss)
    decided = _judge_training(of_train)
    if not has_val:
        unseen = f"no validation loss: whether the {n:g} {counted}s overfit cannot be seen"
        label, sentence = decided or ("no_validation", unseen)
        return Verdict(label, None, None, sentence, dict(vars(of_train)))
    best = int(np.argmin(val))
    of_val = of_validation(train, val, best)
    accuracies = of_accuracy(val_accuracy, best)
    evidence: Evidence = vars(of_train) | vars(of_val) | accuracies
    if decided is not None:
        return Verdict(decided[0], float(x[best]), None, decided[1], evidence)
    probability, place = _probability(of_val), f"{unit} {x[best]:g}"
    if (of_val.score or 0.0) < 1:
        label, sentence = _judge_validation(of_train, of_val, place)
        sentence += _doubts(of_val, probability)
        return Verdict(label, float(x[best]), None, sentence, evidence, None, probability)
    onset, kind = _onset(val, of_val), _kind(of_val, accuracies)
    evidence["epochs_since_onset"] = n - 1 - onset
    since = onset if kind == "gap" else best
    fell = level_around(train, since) - of_train.train_end
    sentence = _overfit_sentence(of_val, kind, place, f"{unit} {x[onset]:g}") + _meanwhile(fell, of_train.train_noise)
    if of_val.gap_share is not None and of_val.gap_share > 0:
        sentence += f"; the gap has opened by {_learned_share(of_val.gap_share)}"
    sentence += _of_accuracy(accuracies, kind) + _doubts(of_val, probability)
    return Verdict("overfit", float(x[best]), float(x[onset]), sentence, evidence, kind, probability)


# ------------------------------------------------------------------ the verdict


LOST = 0.5  # this share of what the training loss had learned is lost again: diverged
NOTHING_LEARNED = 4.0  # a fall of the training loss within this many of its own noise; and
TREND = 5.0  # within so many standard errors from the first third to the last, as it may be a zigzag
CHANCE = 0.99  # a training loss never below this share of the chance-level loss has learned nothing
HARDLY = 0.95  # nor has one never below this share that ends at the chance-level loss
MUCH = 0.5  # one that ends below this share has learned, be it all in the first epoch


def _judge_training(e: TrainEvidence) -> tuple[Label, str] | None:
    """Return the verdict and sentence where the training loss alone decides."""
    start, low, end, chance = e.train_start, e.train_low, e.train_end, e.guessing_loss or 0.0
    is_at_chance = low > HARDLY * chance > 0 and end < (2 - CHANCE) * chance
    if e.train_rise > max(LOST * (start - low), 6 * e.train_noise) and not is_at_chance:
        return "diverged", f"training loss has come back up from {low:.4g} to {low + e.train_rise:.4g} and stays there"
    if chance > 0 and low > (HARDLY if end > CHANCE * chance else CHANCE) * chance:
        predictions = f"predictions that do not look at the input cost {chance:.4g}"
        return "underfit", f"nothing was learned: training loss was never below {low:.4g}, and {predictions}"
    has_learned = chance > 0 and end < MUCH * chance
    if start - end <= NOTHING_LEARNED * e.train_noise and e.train_trend <= TREND and not has_learned:
        went = f"training loss went from {start:.4g} to {end:.4g}"
        if start - end > e.train_noise:
            noises = (start - end) / e.train_noise
            return "underfit", f"little was learned, if anything: {went}, {noises:.1f} times its noise"
        return "underfit", f"nothing was learned: {went}"
    return None


STILL_FALLING = 0.07  # each of the last fifths of the run brings both losses down by this share: underfit
BACKWARD = 0.25  # both losses end this share of what was learned above their lowest
ROSE = 0.04  # a verdict rests on the rise from this share of what was learned on
ENDS_HIGH = 0.15  # validation ends this share of what was learned above its lowest, and
BEYOND_NOISE = 3.0  # so many times its noise, or more: that is no small rise, lasting or not


def _judge_validation(of_train: TrainEvidence, e: ValEvidence, place: str) -> tuple[Label, str]:
    """Tell underfit from healthy, where neither the training loss nor the score has decided."""
    still_falling = e.still_falling_share or 0.0
    if still_falling >= STILL_FALLING:
        return "underfit", (
            f"both losses are still falling: each fifth of the run still brings {still_falling:.0%} of what was "
            "learned; train longer or faster"
        )
    backward = of_train.train_rise, e.rise
    noises = 6 * of_train.train_noise, BEYOND_NOISE * e.noise
    if all(rise > max(BACKWARD * e.learned, noise) for rise, noise in zip(backward, noises, strict=True)):
        return "healthy", (
            f"training has gone backward: since validation loss was lowest, {e.best_val_loss:.4g} at {place}, "
            f"it has risen by {e.rise:.3g}, and training loss by {backward[0]:.3g} from its own lowest: no "
            "overfitting; a lower learning rate may hold what was learned"
        )
    risen = "shows no lasting rise" if (e.rise_share or 0.0) < ROSE else "rose little since"
    if ends_high(e):
        risen = f"ends {e.rise:.3g} above that, too briefly or too unsteadily for a lasting rise"
    return "healthy", (
        f"validation loss fell to {e.best_val_loss:.4g} at {place} and {risen}; "
        f"it ends {abs(e.gap):.3g} {'above' if e.gap > 0 else 'below'} the training loss"
    )


def ends_high(e: ValEvidence) -> bool:
    """Whether the validation loss ends well above its minimum, be it for a short time."""
    return e.rise > max(ENDS_HIGH * e.learned, BEYOND_NOISE * e.noise)


def has_risen(e: ValEvidence) -> bool:
    """Whether the validation loss rose, rather than stopped improving."""
    return (e.rise_share or 0.0) >= ROSE or ends_high(e)


def _onset(val: Floats, e: ValEvidence) -> int:
    """Return the index where overfitting set in: the loss left its minimum for good, or stopped improving."""
    if not has_risen(e):
        return e.stall_index
    n = len(val)
    width = max(1, n // 20)
    padded = np.pad(np.minimum(val, np.max(val[np.isfinite(val)])), (width // 2, width - 1 - width // 2), mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), "valid")
    low = float(smooth.min())
    return int(np.flatnonzero(smooth <= low + 0.05 * max(0.0, e.late_val_loss - low))[-1])


ACCURACY_LOST = 0.005  # half a point: less is no loss of accuracy


def _kind(e: ValEvidence, accuracies: Evidence) -> Kind:
    """Tell what is claimed: something learned is lost again, in loss alone or not; or it never generalises."""
    if not has_risen(e):
        return "gap"
    lost, noise = accuracies.get("accuracy_lost"), accuracies.get("accuracy_noise")
    return "rise" if lost is None or lost > max(2 * (noise or 0.0), ACCURACY_LOST) else "loss_only"


# ------------------------------------------------------------------ how sure


STEEPNESS = 4.0  # of the probability over the logarithm of the score
SURE = 0.9  # a probability above it, or below one less it, is sure
SWINGS = 0.5  # swings of more than this share of what was learned, or lost again, leave no one sure


def _probability(e: ValEvidence) -> float | None:
    """Return how likely people are to call such a run overfit: score^4 / (1 + score^4), one half where the score is 1.

    It grows with the score alone, and so obeys the laws; `scripts.calibrate` prints how often it is right.
    """
    return None if e.score is None else 1 / (1 + e.score**-STEEPNESS)


def is_unsure(probability: float | None, evidence: Mapping[str, Any]) -> bool:
    """Whether a verdict may well be wrong: by its probability, or as validation swings too much."""
    if probability is None:
        return False
    return 1 - SURE < probability < SURE or (evidence.get("swing_share") or 0.0) > SWINGS


# ------------------------------------------------------------------ what the sentence says


def _doubts(e: ValEvidence, probability: float | None) -> str:
    """Return what makes a verdict unsure, to be said behind it."""
    out = ""
    if e.scales_differ:
        out += "; training and validation loss are on different scales, so only the rise of the latter is judged"
    if probability is not None and (swings := e.swing_share or 0.0) > SWINGS:
        out += f"; validation loss swings by {_learned_share(swings)} or lost, too much to judge it surely"
    elif is_unsure(probability, vars(e)):
        out += f"; not sure: overfit with a probability of {probability:.0%}"
    return out


MANY_TIMES = 10  # a share from here on is no percentage that anybody reads
VISIBLE = 0.005  # nor is one that is written 0 %


def _learned_share(share: float) -> str:
    """Write a share of what was learned."""
    return f"{share:.0%} of what was learned" if share < MANY_TIMES else f"{share:.2g} times what was learned"


def _overfit_sentence(e: ValEvidence, kind: Kind, best: str, onset: str) -> str:
    """Say what validation did; best and onset: the places of the minimum and of the onset, with their unit."""
    if kind == "gap":
        lowest = f" (its lowest is at {best})" if best != onset else ""
        return f"validation loss has hardly improved since {onset}{lowest}"
    share = e.rise / e.best_val_loss if e.best_val_loss > 0 else 0.0
    percent = f" ({share:+.0%})" if VISIBLE <= share < MANY_TIMES else ""
    noise = f"{e.rise / e.noise:.0f} times its own noise and " if 0 < e.rise < 100 * e.noise else ""
    above = f"validation loss has risen by {e.rise:.3g}{percent} above its minimum at {best}, {noise}"
    return f"{above}{_learned_share(e.rise / e.learned)},"


def _meanwhile(fell: float, noise: float) -> str:
    """Say what the training loss did since, in which it fell by `fell`."""
    did = "kept falling" if fell > noise else "stayed as it was" if fell >= -noise else "did not rise as much"
    return f" while training loss {did}"


def _of_accuracy(accuracies: Evidence, kind: Kind) -> str:
    """Say what validation accuracy did while the loss rose; nothing where it is not known."""
    at_best, end, lost = (accuracies.get(f"accuracy_{key}") for key in ("at_best", "end", "lost"))
    if at_best is None or end is None or lost is None:
        return ""
    if end > at_best:
        return (
            f"; validation accuracy still improved, from {at_best:.2%} to {end:.2%}: "
            "the loss can rise so where wrong answers grow more confident"
        )
    if kind == "loss_only":
        return f"; validation accuracy holds at {end:.2%}: confidence was lost, not right answers"
    return f"; validation accuracy has lost {lost:.2%}" if kind == "rise" else ""
