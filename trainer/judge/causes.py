"""Causes of a training run that goes wrong: rules for health.judge, thresholds beside them.

Shapes: E epoch, L hidden layer, W weight matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainer.judge.records import LEARNED, LEARNED_ALL, MOST_LABELS, Finding, Found, NotFinite, Rule, Run


def broken(run: Run, found: Found) -> Iterator[Finding]:
    bad = run.not_finite
    if bad is None:
        broken = ~np.isfinite(run.table("weight_norm", run.parameters))
        if not broken.any():
            return
        e = int(broken.any(1).argmax())
        bad = NotFinite(int(run.steps[e]), run.parameters[int(broken[e].argmax())])
    said = f"{bad.tensor} is NaN or infinite from step {bad.step} on"
    yield Finding("not_finite", bad.tensor, bad.step, said, {"loss_at_start": run.start["loss"]})


def _labels(run: Run, found: Found) -> Iterator[Finding]:
    """One class fills the labels."""
    top = run.start.get("target_top_class", 0.0)
    if top > MOST_LABELS:
        yield Finding("one_class", "labels", 0, f"{top:.0%} of the training labels are one class", {"share": top})


INPUT_RMS = (0.05, 4.0)  # of what should be about 1
INPUT_OFFSET = 3.0  # mean over standard deviation
FEATURE_RATIO = 30.0  # largest standard deviation of a feature over the median one


def _inputs(run: Run, found: Found) -> Iterator[Finding]:
    rms, mean, ratio = (run.start[f"input_{name}"] for name in ("rms", "mean", "feature_ratio"))
    std = math.sqrt(max(rms**2 - mean**2, 0.0))
    low, high = INPUT_RMS
    if not low <= rms <= high:
        said = f"the inputs' root mean square is {rms:.3g}, not about 1"
    elif abs(mean) > INPUT_OFFSET * std and abs(mean) > 2:
        said = f"the inputs lie at {mean:.3g} with a standard deviation of only {std:.3g}"
    elif ratio > FEATURE_RATIO:
        said = f"one input feature varies {ratio:.3g} times as much as the median one"
    else:
        return
    yield Finding("inputs_not_normalised", "inputs", 0, said, {"rms": rms, "mean": mean, "feature_ratio": ratio})


DEAD = (0.65, 0.8)  # share of a layer's units, plus this over the root of their number
SATURATED = (0.1, 0.4)


def _flat(kind: str, word: str, limit: tuple[float, float]) -> Rule:
    """Make the rule for layers with too many flat units: before the first step, or at the end."""

    def rule(run: Run, found: Found) -> Iterator[Finding]:
        ill = []
        for layer, width in zip(run.layers(kind), run.widths(len(run.layers(kind))), strict=True):
            share = np.append(run.start[f"{kind}/{layer}"], run.table(kind, [layer]))
            if run.batchnorm:
                share[0] = 0.0  # before training there are no running statistics: evaluation mode shows another network
            over = share >= min(0.98, limit[0] + limit[1] / math.sqrt(width))
            if over[0] or over[-1]:
                ill.append((layer, share, int(over.argmax())))
        if ill:
            layer, share, e = min(ill, key=lambda one: (one[2], -one[1].max()))
            yield Finding(
                kind,
                ", ".join(name for name, _, _ in ill),
                int(run.steps[e - 1]) if e else 0,
                f"{share.max():.0%} of the units of {layer} are {word}",
                {"at_start": {name: float(s[0]) for name, s, _ in ill}, "at_end": {n: float(s[-1]) for n, s, _ in ill}},
            )

    return rule


# A fresh network passes signals on about unchanged, from hidden layer to hidden layer, forward and backward.
VANISHED = 1e-4  # gradient at the bottom over that at the top: too small, whatever the outcome
WEAK = 1e-2  # too small where the run did not learn
EXPLODED = 30.0  # too large
NORM_GAIN = 1.25  # batch norm makes gradients grow by up to about 1.21 per layer downward (Yang et al. 2019)
OWN_LAYERS, OWN_FIT = 4, 0.7  # biases in a module of the user's own, and how well a line must fit them (r squared)


def _depth(run: Run, found: Found) -> Iterator[Finding]:
    """The gradient shrinks or grows by a constant factor per layer: a line through its logarithm."""
    names, flow = run.backward_L
    seen = np.flatnonzero((flow > 0) & np.isfinite(flow))  # an underflow to 0 has no logarithm
    if len(seen) < 2:
        return
    slope = float(np.polyfit(seen, np.log(flow[seen]), 1)[0])
    own = "model.depth" not in run.config  # whether the biases of such a module lie layer on layer is unknown
    if own and (len(seen) < OWN_LAYERS or np.corrcoef(seen, np.log(flow[seen]))[0, 1] ** 2 < OWN_FIT):
        return
    gain, ratio = math.exp(-slope), math.exp(-slope * (len(flow) - 1))
    lowest, highest = (names[i].removesuffix(".bias") for i in (0, -1))
    evidence = {"bottom_over_top": ratio, "factor_a_layer": gain, "by_layer": flow.tolist()}
    if ratio < VANISHED or (ratio < WEAK and run.learned < LEARNED and run.tried):
        said = f"the gradient shrinks by {gain:.2g} a layer on its way down: {ratio:.1e} of it reaches {lowest}"
        yield Finding("vanishing_gradients", f"{lowest} to {highest}", 1, said, evidence)
    elif ratio > EXPLODED * (NORM_GAIN ** len(flow) if run.batchnorm else 1):
        said = f"the gradient grows by {gain:.2g} a layer on its way down: {ratio:.1e} times as large in {lowest}"
        yield Finding("exploding_gradients", f"{lowest} to {highest}", 1, said, evidence)


def _no_gradient(run: Run, found: Found) -> Iterator[Finding]:
    if found.keys() & {"dead_units", "saturated_units", "vanishing_gradients", "not_finite"}:
        return
    at_start = [run.start[f"grad_norm/{name}"] for name in run.parameters]
    none = (np.vstack([at_start, run.table("grad_norm", run.parameters)]) == 0).all(0)
    if none.any() and not none.all():
        names = [name for name, is_none in zip(run.parameters, none, strict=True) if is_none]
        said = f"{len(names)} parameter{'s have' if len(names) > 1 else ' has'} no gradient in any step looked at"
        yield Finding("no_gradient", ", ".join(names), 1, said)


START_EXCESS = (3.0, 1.5)  # above the expected loss by this much, and by this many times it
SQUARED_START_EXCESS = (0.0, 9.0)  # for squared errors, which grow with the square of the inputs


def _loss_at_start(run: Run, found: Found) -> Iterator[Finding]:
    loss, expected = run.start["loss"], run.start["expected_loss"]
    least, times = START_EXCESS if "target_top_class" in run.start else SQUARED_START_EXCESS
    if loss - expected > max(least, times * expected) and "inputs_not_normalised" not in found:
        said = f"the loss starts at {loss:.3g}; a network that guesses has {expected:.3g}"
        yield Finding("loss_at_start", "output layer", 0, said, {"loss": loss, "expected": expected})


GIANT_STEP = (1.0, 3.0, 1e3)  # length of the first step over that of the weights: too long where something is left to
# learn; too long in any case; and no longer a sign of anything, as the weights were all but zero


def _giant_step(run: Run, found: Found) -> Iterator[Finding]:
    """A first step as long as the weights: the initialisation is lost."""
    giant = float(np.median(run.first_step))
    low, certain, high = GIANT_STEP
    if len(run.weights) > 1 and (low if run.kept < LEARNED_ALL else certain) < giant < high:
        said = f"the first step was {giant:.2g} times as long as the weights"
        yield Finding("learning_rate_too_high", "", 1, said, {"first_step": giant, "lr": run.rows[0]["lr"]})


DECOUPLED = {"torch.optim.AdamW", "torch.optim.Adafactor", "torch.optim.Muon"}
DECAY_SHARE = 0.4  # of weight decay in what moves the weights


def _decay(run: Run, found: Found) -> Iterator[Finding]:
    """Weight decay moves the weights more than the gradient does, they shrink, and the run does not learn."""
    decay = run.config.get("optimizer.weight_decay") or 0.0
    if not decay or run.kept > 0.7 or found.keys() & {"not_finite", "vanishing_gradients", "learning_rate_too_high"}:
        return
    if any(found.get(name) == 0 for name in ("dead_units", "saturated_units")):
        return
    norms = run.table("weight_norm", run.weights)
    with np.errstate(all="ignore"):
        target = str(run.config.get("optimizer._target_"))
        decoupled = run.column("lr")[:, None] * decay / run.updates  # lr * decay of the weight per step
        penalty = decay * norms / run.table("grad_norm", run.weights)
        if target in DECOUPLED or run.config.get("optimizer.decoupled_weight_decay") is True:
            share = decoupled
        else:  # nobody knows what a class of the user's own does
            share = penalty if target.startswith("torch.optim.") else np.fmin(decoupled, penalty)
        unknown = np.isnan(share).all(axis=0)  # no gradient and no weight left, at every epoch
        share_W = np.nanmedian(np.where(unknown, math.inf, share), axis=0)
        shrunk_W = norms[-1] / [run.start[f"weight_norm/{name}"] for name in run.weights]
    slightly, far, all_but = ((shrunk_W < x) for x in (0.97, 0.8, 0.2))
    ruled = (slightly & (share_W > 5 * DECAY_SHARE)) | (far & (share_W > DECAY_SHARE)) | all_but
    if ruled.mean() > 0.5:
        worst = int(np.argmin(shrunk_W))
        pull = f"weight decay pulls {min(share_W[worst], 1e6):.2g} times as hard as the gradient"
        said = f"{run.weights[worst]} shrank to {shrunk_W[worst]:.1g} of its length; {pull}"
        evidence = {"share": share_W.tolist(), "shrunk": shrunk_W.tolist()}
        yield Finding("weight_decay_dominates", run.weights[worst], int(run.steps[0]), said, evidence)


BIG_STEP = 0.02  # length of a step over that of the weight


def _rate_high(run: Run, found: Found) -> Iterator[Finding]:
    """From a sound start the loss is not finite, stays above chance level, or jumps; or a step kills a layer."""
    unsound = {"inputs_not_normalised", "exploding_gradients", "saturated_units", "dead_units"}
    if any(found.get(name, math.inf) <= 1 for name in unsound):
        return
    if found.keys() & {"learning_rate_too_high", "no_gradient", "weight_decay_dominates"}:
        return
    loss = np.where(np.isfinite(run.loss), run.loss, math.inf)
    base = max(run.start["loss"], run.chance_loss)
    worse = np.median(loss[len(loss) // 2 :]) > 1.2 * base
    jumps = loss.max() > 3 * base and run.kept < LEARNED / 2
    died = min((step for name, step in found.items() if name in {"dead_units", "saturated_units"}), default=0)
    e = int(loss.argmax())
    said = f"from a sound start the loss rose to {loss[e]:.3g}; guessing costs {run.chance_loss:.3g}"
    if died and run.kept < LEARNED and found.keys() <= {"dead_units", "saturated_units"}:
        e = int(np.flatnonzero(run.steps == died)[0])
        said = f"by step {died} a layer that was sound had become flat, and with it the run"
    elif not ("not_finite" in found or ((worse or jumps) and run.updates.max() > BIG_STEP)):
        said = ""
    if said:
        evidence = {"largest_loss": float(loss[e]), "largest_step": float(run.updates.max()), "lr": run.rows[e]["lr"]}
        yield Finding("learning_rate_too_high", "", found.get("not_finite", int(run.steps[e])), said, evidence)


SMALL_STEP = 5e-4  # about 1e-3 is usual
MOVED = 0.05  # a weight that went no further than this share of its length has hardly moved


def _rate_low(run: Run, found: Found) -> Iterator[Finding]:
    """Steps are small, no weight moves by more than a small share of its length, and the run does not learn."""
    distance = float(run.distances.max())
    lowest, first = float(np.nan_to_num(run.loss, nan=math.inf).min()), run.start["loss"]
    learned = min(run.learned, 1 - lowest / first if first else 0.0)
    slow = (distance < MOVED and learned < LEARNED) or (distance < 4 * MOVED and learned < 0.4 * LEARNED)
    longest = max(run.updates.max(), np.nan_to_num(run.first_step, posinf=0.0).max())  # a schedule may end at nothing
    if slow and not found and longest < SMALL_STEP:
        rate = float(run.column("lr").max())
        said = f"in {run.steps[-1]} steps no weight moved by more than {distance:.1g} of its length"
        if rate == 0:
            said = "the learning rate is 0"
        yield Finding("learning_rate_too_low", "", 1, said, {"way": distance, "lr": rate, "learned": learned})


CAUSES: list[Rule] = [
    broken,
    _labels,
    _inputs,
    _flat("dead_units", "dead", DEAD),
    _flat("saturated_units", "saturated", SATURATED),
    _depth,
    _no_gradient,
    _loss_at_start,
    _giant_step,
    _decay,
    _rate_high,
    _rate_low,
]
