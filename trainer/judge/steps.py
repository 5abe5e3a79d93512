"""What is wrong with the steps: rate, momentum, decay, dropout, schedule; rules for health.judge.

Shapes: E epoch, W weight matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainer.judge.causes import FLAT
from trainer.judge.records import LEARNED, LEARNED_ALL, MOVED, Finding, Found, Rule, Run
from trainer.judge.remedies import is_odd_rate

GIANT_STEP = (1.0, 3.0, 1e3)  # length of the first step over that of the weights: too long where something is left to
# learn; too long in any case; and no longer a sign of anything, as the weights were all but zero


def _giant_step(run: Run, found: Found) -> Iterator[Finding]:
    """A first step as long as the weights: the initialisation is lost."""
    giant = float(np.median(run.first_step))
    low, certain, high = GIANT_STEP
    if len(run.weights) > 1 and (low if run.kept < LEARNED_ALL else certain) < giant < high:
        said = f"the very first step overwrote the weights: it was {giant:.2g} times as long as they are"
        yield Finding("learning_rate_too_high", "", 1, said, {"first_step": giant, "lr": run.rows[0]["lr"]})


DECOUPLED = {"torch.optim.AdamW", "torch.optim.Adafactor", "torch.optim.Muon"}
WHOLE_DECAY = 0.5  # learning rate times weight decay, the share of itself that a step takes off a weight
MOST_DECAY = 1.0  # an optimizer is given: where the product is large with less, it is the rate that is too high
DECAY_SHARE = 0.4  # of weight decay in what moves the weights


def _flat_at_start(found: Found) -> bool:
    return any(found.get(name) == 0 for name in FLAT)


_NO_DECAY = {"not_finite", "vanishing_gradients", "learning_rate_too_high", "inputs_not_normalised"}


def _decay(run: Run, found: Found) -> Iterator[Finding]:
    """Weight decay moves the weights more than the gradient does, they shrink, and the run does not learn."""
    decay = run.config.get("optimizer.weight_decay") or 0.0
    target = str(run.config.get("optimizer._target_"))
    decoupled = target in DECOUPLED or run.config.get("optimizer.decoupled_weight_decay") is True
    a_step = decay * run.top_rate
    is_certain = a_step >= WHOLE_DECAY and decay >= MOST_DECAY
    if is_certain and (decoupled or target == "torch.optim.SGD"):
        said = f"each step takes {a_step:.3g} times a weight off itself: nothing that is learned stays"
        yield Finding("weight_decay_dominates", "", 1, said, {"share_a_step": a_step})
        return
    if not decay or run.kept > 0.7 or found.keys() & _NO_DECAY:
        return
    if _flat_at_start(found):
        return
    norms = run.table("weight_norm", run.weights)
    with np.errstate(all="ignore"):
        by_rate = run.column("lr")[:, None] * decay / run.updates  # lr * decay of the weight per step
        penalty = decay * norms / run.table("grad_norm", run.weights)
        share = by_rate if decoupled else penalty
        if not target.startswith("torch.optim."):  # nobody knows what a class of the user's own does
            share = np.fmin(by_rate, penalty)
        unknown = np.isnan(share).all(axis=0)  # no gradient and no weight left, at every epoch
        share_W = np.nanmedian(np.where(unknown, math.inf, share), axis=0)
        shrunk_W = norms[-1] / [run.start[f"weight_norm/{name}"] for name in run.weights]
    slightly, far, all_but = ((shrunk_W < x) for x in (0.97, 0.8, 0.2))
    ruled = (slightly & (share_W > 5 * DECAY_SHARE)) | (far & (share_W > DECAY_SHARE)) | all_but
    if ruled.mean() > 0.5:
        worst = int(np.argmin(shrunk_W))
        pull = f"weight decay pulls {min(share_W[worst], 1e6):.2g} times as hard as the gradient"
        said = (
            f"weights are pulled to nothing: {run.weights[worst]} shrank to {shrunk_W[worst]:.1g} of its length; {pull}"
        )
        evidence = {"share": share_W.tolist(), "shrunk": shrunk_W.tolist()}
        yield Finding("weight_decay_dominates", run.weights[worst], int(run.steps[0]), said, evidence)


MUCH_DROPOUT = 0.5  # of the units of a layer, or of the inputs
DROPOUT_NOISE = 18.0  # variance that dropout adds to a signal, over its square
NOISY = {"exploding_gradients", "not_finite", *FLAT}  # what comes of that noise, if not before the first step


def _dropout(run: Run, found: Found) -> Iterator[Finding]:
    """Dropout drowns the signal: a unit kept with probability q and scaled by 1/q has a mean square of 1/q of it.

    So noise gathers over layers as the product of 1/q - 1 with the signal itself (Srivastava et al. 2014, section 10).
    """
    p, p_in = (run.config.get(f"model.{name}") or 0.0 for name in ("dropout", "input_dropout"))
    noise = (1 - p) ** -(run.config.get("model.depth") or 0) / (1 - p_in) - 1 if max(p, p_in) >= MUCH_DROPOUT else 0.0
    noise = run.start.get("dropout_noise", noise)  # of a module of the user's own
    if noise <= DROPOUT_NOISE or found.keys() - NOISY or _flat_at_start(found):
        return
    if any(is_odd_rate(run.config)) and float(np.median(run.first_step)) > GIANT_STEP[0]:
        return
    had_time = (run.tried or "not_finite" in found) and run.longest_step > SMALL_STEP
    if run.kept < LEARNED and had_time:
        said = f"so many units are switched off at random that the noise is {noise:.3g} times as strong as the signal"
        yield Finding("dropout_too_high", "", 1, said, {"noise": noise})


EARLY_END = (0.01, 0.1)  # the rate falls below this share of its peak, before this share of the epochs


def _schedule(run: Run, found: Found) -> Iterator[Finding]:
    """The schedule has shrunk the learning rate to nothing when training has hardly begun."""
    if run.config.get("schedule.name") == "plateau" or len(run.rows) < 3 or run.kept > LEARNED_ALL:
        return
    rate = run.column("lr")
    peak = max(float(np.nanmax(rate)), run.config.get("optimizer.lr") or 0.0)
    share, early = EARLY_END
    alive = rate >= share * peak
    if peak > 0 and alive.mean() <= early and not alive[-1]:
        e = int(np.flatnonzero(alive)[-1]) + 1 if alive.any() else 0
        said = (
            f"steps shrink to nothing when training has hardly begun: to {rate[e]:.2g} of {peak:.2g} in epoch {e + 1}"
        )
        evidence = {"peak": peak, "last": float(rate[-1]), "epochs": int(alive.sum())}
        yield Finding("schedule_ends_early", "", int(run.steps[e]), said, evidence)


BIG_STEP = 0.02  # length of a step over that of the weight
SOUND_STEP = 0.1  # of the first step, without momentum's help
MOMENTUM = 0.98  # the last 50 steps count as one
FEW_EXAMPLES = 2  # a step


_EXPLAIN = {"learning_rate_too_high", "no_gradient", "weight_decay_dominates", "dropout_too_high", "bottleneck"}
_EXPLAIN |= {"not_finite_at_start", "targets_not_normalised"}


def _rate_high(run: Run, found: Found) -> Iterator[Finding]:
    """From a sound start the loss is not finite, stays above chance level, or jumps; or a step kills a layer."""
    unsound = {"inputs_not_normalised", "exploding_gradients", *FLAT}
    if any(found.get(name, math.inf) <= 1 for name in unsound):
        return
    if found.keys() & _EXPLAIN or not run.top_rate:
        return
    loss = np.where(np.isfinite(run.loss), run.loss, math.inf)
    base = max(run.start["loss"], run.chance_loss)
    is_worse = np.median(loss[len(loss) // 2 :]) > 1.2 * base or (loss.max() > 3 * base and run.kept < LEARNED / 2)
    broke = "not_finite" in found and run.longest_step > BIG_STEP
    died = min((step for name, step in found.items() if name in FLAT), default=0)
    few = run.config.get("data.batch_size", 64) * run.config.get("accumulate", 1) <= FEW_EXAMPLES
    is_high = is_odd_rate(run.config)[1]
    e = int(loss.argmax())
    if died and (run.kept < LEARNED or is_high) and found.keys() <= FLAT:
        e = int(np.flatnonzero(run.steps == died)[0])
        said = f"by step {died} most units of a layer that was sound had become flat"
    elif broke or (is_worse and run.updates.max() > BIG_STEP):
        said = f"training was thrown off: the loss rose to {loss[e]:.3g}; guessing costs {run.chance_loss:.3g}"
    elif (few or is_high) and not found and run.tried and run.kept < LEARNED and run.longest_step > BIG_STEP:
        said = f"steps undo each other: the loss ended at {loss[-1]:.3g}; guessing costs {run.chance_loss:.3g}"
    else:
        return
    evidence = {"largest_loss": float(loss[e]), "largest_step": float(run.updates.max()), "lr": run.rows[e]["lr"]}
    kind = "batch_too_small" if few else "learning_rate_too_high"
    momentum = run.config.get("optimizer.momentum") or 0.0
    if momentum >= MOMENTUM and float(np.median(run.first_step)) < SOUND_STEP:  # the rate alone would do
        kind = "momentum_too_high"
    yield Finding(kind, "", found.get("not_finite", int(run.steps[e])), said, evidence)


SMALL_STEP = 5e-4  # about 1e-3 is usual


def _rate_low(run: Run, found: Found) -> Iterator[Finding]:
    """Steps are small, no weight moves by more than a small share of its length, and the run does not learn."""
    distance = float(run.distances.max())
    lowest, first = float(np.nan_to_num(run.loss, nan=math.inf).min()), run.start["loss"]
    learned = min(run.learned, 1 - lowest / first if first else 0.0)
    slow = (distance < MOVED and learned < LEARNED) or (distance < 4 * MOVED and learned < 0.4 * LEARNED)
    if slow and not found and (run.longest_step < SMALL_STEP or is_odd_rate(run.config)[0]):
        rate = float(run.column("lr").max())
        said = (
            f"the network stays about as it was: in {run.steps[-1]} steps no weight moved by more than "
            f"{distance:.1g} of its length"
        )
        if rate == 0:
            said = "the learning rate is 0"
        yield Finding("learning_rate_too_low", "", 1, said, {"way": distance, "lr": rate, "learned": learned})


def hardly_moved(run: Run) -> Iterator[Finding]:
    """Yield a finding where a point on a function stays where it began, though it lies on a slope."""
    names = run.parameters
    if not names or run.not_finite:
        return
    slope = np.array([run.start[f"grad_norm/{name}"] for name in names])
    last = run.table("grad_norm", names)[-1]
    if run.distances.max() < MOVED and (last > slope / 2).all() and (slope > 0).any():
        way = float(run.distances.max())
        said = f"the point has hardly moved: in {run.steps[-1]} steps by at most {way:.1g} of its length"
        yield Finding("learning_rate_too_low", "", 1, said, {"way": way, "lr": run.top_rate})


STEPS: list[Rule] = [_schedule, _decay, _dropout, _giant_step, _rate_high, _rate_low]
