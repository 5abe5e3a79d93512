"""Symptoms of a training run that goes wrong where no cause was found: rules for health.judge."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainer.judge.records import LEARNED, LEARNED_ALL, TRIED, Finding, Found, Rule, Run, late

STILL = 0.05  # below this share of the chance-level loss a run has learned nothing
BY_HEART = (0.02, 0.45, 0.1)  # validation gains at most this where labels are learned by heart: luck; or this share of
# what training has learned; but no more than the last
PASSES = 3  # over the examples at least, to learn them by heart


def _labels_unrelated(run: Run, found: Found) -> Iterator[Finding]:
    """Training labels are learned by heart, at least in part, and next to nothing of it generalises."""
    val = run.column("val/loss")
    if found or not run.tried or len(run.rows) < PASSES or run.learned < STILL or not np.isfinite(val).any():
        return
    lowest = float(np.nanmin(val))
    luck, share, most = BY_HEART
    if run.taken_off(lowest) < min(max(luck, share * run.learned), most):
        said = (
            f"what is learned by heart is no help with other examples: the training loss came down to "
            f"{np.nanmin(run.loss):.3g}, the validation loss never below {lowest:.3g}; "
            f"guessing costs {run.chance_loss:.3g}"
        )
        yield Finding("labels_unrelated", "labels", 0, said, {"lowest_val_loss": lowest, "guessing": run.chance_loss})


SWING = 2.0  # a climb of the training loss by this factor
SWING_LEVEL = 0.2  # to at least this share of the chance-level loss: near its floor a loss may flicker
SWINGS = 3


def _oscillation(run: Run, found: Found) -> Iterator[Finding]:
    """The training loss doubles again and again, to a good part of the chance-level loss, or of the first."""
    base = min(run.chance_loss, run.start["loss"])
    settled = late(run.loss) < (1 - LEARNED_ALL) * base
    if settled or found.keys() - {"learning_rate_too_high", "momentum_too_high"}:
        return
    if run.batchnorm and run.learned > LEARNED:  # running statistics lag behind, so the loss in evaluation mode jumps
        return
    climbs, trough, peak, rising = [], math.inf, -math.inf, False
    for step, loss in zip(run.steps.tolist(), (run.loss + 1e-9 * run.chance_loss).tolist(), strict=True):
        if rising and loss < peak / SWING:
            climbs[-1] = (climbs[-1][0], peak / trough)
            trough, rising = loss, False
        elif not rising and loss > trough * SWING and loss > SWING_LEVEL * base:
            climbs.append((step, loss / trough))
            peak, rising = loss, True
        trough, peak = (trough, max(peak, loss)) if rising else (min(trough, loss), peak)
    if len(climbs) >= SWINGS:
        largest = max(climb for _, climb in climbs)
        said = (
            f"training goes back and forth: the loss doubled {len(climbs)} times and fell again, "
            f"once it grew by a factor of {largest:.2g}"
        )
        yield Finding("oscillation", "", climbs[0][0], said, {"climbs": len(climbs), "largest": largest})


ONE_CLASS = 0.95  # of the predictions
COMMON = 0.4  # of the labels are one class


def _one_class(run: Run, found: Found) -> Iterator[Finding]:
    top, most = run.column("eval/top_class"), run.start.get("target_top_class", 1.0)
    is_late = most < COMMON or run.steps[-1] >= TRIED[-1]  # a network learns first how often each class occurs
    if not found and run.tried and is_late and top[-1] >= ONE_CLASS and most < 0.8:
        since = int(np.flatnonzero(np.append(0, top) < ONE_CLASS)[-1])  # epochs
        said = f"{top[-1]:.0%} of the predictions are one class"
        yield Finding("one_class", "predictions", int(run.steps[since]), said, {"share": float(top[-1])})


def _still(run: Run, found: Found) -> Iterator[Finding]:
    accuracy = np.nan_to_num(run.column("eval/train_accuracy")).max()  # may rise where the loss cannot fall
    if accuracy > (run.start.get("target_top_class", 1.0) + 1) / 2:
        return
    if run.tried and run.learned < STILL and not found.keys() - {"one_class"} and found.get("one_class") != 0:
        lowest = float(np.nanmin(run.loss)) if np.isfinite(run.loss).any() else math.nan
        said = (
            f"nothing has been learned: in {run.steps[-1]} steps the training loss was never below {lowest:.3g}; "
            f"guessing costs {run.chance_loss:.3g}"
        )
        yield Finding("loss_does_not_move", "", int(run.steps[-1]), said, {"learned": run.learned})


FEW_STEPS = 3  # an epoch


def _few_steps(run: Run, found: Found) -> Iterator[Finding]:
    """Many epochs of one large batch or a few: too few steps to learn."""
    steps, epochs = int(run.steps[-1]), len(run.rows)
    if not found and epochs >= 5 and steps <= FEW_STEPS * epochs and steps <= TRIED[-1] and run.kept < LEARNED:
        examples = run.config.get("data.batch_size", 0) * run.config.get("accumulate", 1)
        said = f"in {epochs} epochs the weights were changed only {steps} times, once in up to {examples} examples"
        yield Finding("too_few_steps", "", steps, said, {"steps": steps, "epochs": epochs})


SYMPTOMS: list[Rule] = [_labels_unrelated, _oscillation, _one_class, _few_steps, _still]
