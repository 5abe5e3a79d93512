"""What is wrong with data, network and initialisation: rules for health.judge, thresholds beside them.

Shapes: E epoch, L hidden layer, W weight matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainer.judge.records import LEARNED, LEARNED_ALL, MOST_LABELS, MOVED, Finding, Found, NotFinite, Rule, Run


def broken(run: Run, found: Found) -> Iterator[Finding]:
    bad = run.not_finite
    if bad is None:
        broken = ~np.isfinite(run.table("weight_norm", run.parameters))
        if not broken.any():
            return
        e = int(broken.any(1).argmax())
        bad = NotFinite(int(run.steps[e]), run.parameters[int(broken[e].argmax())])
    first = run.start["loss"]
    if bad.step <= 1 or not math.isfinite(first):  # nothing had been learned by then
        said = f"the very first numbers are wrong, before any training: {bad.tensor} is NaN or infinite"
        yield Finding("not_finite_at_start", bad.tensor, 0, said, {"loss_at_start": first})
        return
    said = f"the numbers have become useless: {bad.tensor} is NaN or infinite from step {bad.step} on"
    yield Finding("not_finite", bad.tensor, bad.step, said, {"loss_at_start": first})


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
    if rms == 0 or math.isnan(ratio):
        said = f"all examples looked at have the same inputs, so nothing tells them apart (root mean square {rms:.3g})"
        yield Finding("inputs_constant", "inputs", 0, said, {"rms": rms, "mean": mean})
        return
    if not low <= rms <= high:
        said = f"the inputs' root mean square is {rms:.3g}, not about 1"
    elif abs(mean) > INPUT_OFFSET * std and abs(mean) > 2:
        said = f"the inputs lie at {mean:.3g} with a standard deviation of only {std:.3g}"
    elif ratio > FEATURE_RATIO:
        said = f"one input feature varies {ratio:.3g} times as much as the median one"
    else:
        return
    yield Finding("inputs_not_normalised", "inputs", 0, said, {"rms": rms, "mean": mean, "feature_ratio": ratio})


TARGET_SCALE = (0.02, 50.0)  # standard deviation of what should be about 1
TARGET_OFFSET = 10.0  # mean over standard deviation


def _targets(run: Run, found: Found) -> Iterator[Finding]:
    """Regression targets lie far from 0, or are very small or large, and the run does not learn them."""
    if run.is_classification or run.config.get("loss.name") not in ("auto", "mse") or run.kept > LEARNED_ALL:
        return
    if run.config.get("loss._target_") is not None or not run.chance_loss > 0:
        return
    std = math.sqrt(run.chance_loss)
    mean = math.sqrt(max(run.start["expected_loss"] - run.chance_loss, 0.0))
    low, high = TARGET_SCALE
    if not low <= std <= high or (mean > TARGET_OFFSET * std and mean > 2):
        said = f"the numbers to predict are of an unusual size: {mean:.3g} from zero, standard deviation {std:.3g}"
        yield Finding("targets_not_normalised", "targets", 0, said, {"offset": mean, "std": std})


def _bottleneck(run: Run, found: Found) -> Iterator[Finding]:
    """A layer whose units, each on or off, are too few to tell the classes apart; or that is a single unit."""
    widths = run.widths(run.config["model.depth"]) if "model.depth" in run.config else []
    if not widths or not run.tried or run.kept > LEARNED_ALL:
        return
    narrow = min(widths)
    is_dead = run.rows[-1].get(f"dead_units/layers.act{widths.index(narrow)}") == 1
    if run.distances.max() < MOVED and not is_dead:
        return
    if 2**narrow < run.classes or (narrow == 1 and run.kept < LEARNED):
        layer, units = widths.index(narrow), "a single unit" if narrow == 1 else f"only {narrow} units"
        of = f" for {run.classes} classes" if run.classes else ""
        said = f"everything must pass through {units}{of} in layer {layer}, which is too narrow"
        yield Finding("bottleneck", f"layers.{layer}", 0, said, {"width": narrow, "classes": run.classes})


FLAT = {"dead_units", "saturated_units"}
DEAD = (0.65, 0.8)  # share of a layer's units, plus this over the root of their number
SATURATED = (0.1, 0.4)
MOST = 0.5  # of them, where units became flat on the way: some saturate in every network that trains


def _flat(kind: str, word: str, limit: tuple[float, float]) -> Rule:
    """Make the rule for layers with too many flat units: before the first step, or at the end."""

    def rule(run: Run, found: Found) -> Iterator[Finding]:
        ill = []
        if run.does_well:
            return
        for layer, width in zip(run.layers(kind), run.widths(len(run.layers(kind))), strict=True):
            share = np.append(run.start[f"{kind}/{layer}"], run.table(kind, [layer]))
            if run.batchnorm:
                share[0] = 0.0  # before training there are no running statistics: evaluation mode shows another network
            least = min(0.98, limit[0] + limit[1] / math.sqrt(width))
            over = share >= np.append(least, np.full(len(share) - 1, max(least, MOST)))
            if over[0] or over[-1]:
                ill.append((layer, share, int(over.argmax())))
        if ill:
            layer, share, e = min(ill, key=lambda one: (one[2], -one[1].max()))
            yield Finding(
                kind,
                ", ".join(name for name, _, _ in ill),
                int(run.steps[e - 1]) if e else 0,
                f"{share.max():.0%} of the units of {'layer ' * layer.isdigit()}{layer} are {word}",
                {"at_start": {name: float(s[0]) for name, s, _ in ill}, "at_end": {n: float(s[-1]) for n, s, _ in ill}},
            )

    return rule


# A fresh network passes signals on about unchanged, from hidden layer to hidden layer, forward and backward.
VANISHED = 1e-4  # gradient at the bottom over that at the top: too small, whatever the outcome
WEAK = 1e-2  # too small where the run did not learn
EXPLODED = 30.0  # too large
NORM_GAIN = 1.25  # batch norm makes gradients grow by up to about 1.21 per layer downward (Yang et al. 2019)
SMALLEST = 1e-45  # positive number of 32 bits
OWN_LAYERS, OWN_FIT = 4, 0.7  # biases in a module of the user's own, and how well a line must fit them (r squared)


def _depth(run: Run, found: Found) -> Iterator[Finding]:
    """The gradient shrinks or grows by a constant factor per layer: a line through its logarithm."""
    names, flow = run.backward_L
    own = "model.depth" not in run.config  # whether the biases of such a module lie layer on layer is unknown
    if not own and not found.keys() & FLAT:  # which stop a gradient altogether; else a 0 is a number that was too small
        flow = np.maximum(flow, SMALLEST)
    seen = np.flatnonzero((flow > 0) & np.isfinite(flow))
    if len(seen) < 2 or np.ptp(flow[seen]) == 0:
        return
    if own and run.does_well:
        return
    slope = float(np.polyfit(seen, np.log(flow[seen]), 1)[0])
    if own and (len(seen) < OWN_LAYERS or np.corrcoef(seen, np.log(flow[seen]))[0, 1] ** 2 < OWN_FIT):
        return
    gain, ratio = math.exp(-slope), math.exp(-slope * (len(flow) - 1))
    lowest, highest = (names[i].removesuffix(".bias") for i in (0, -1))
    evidence = {"bottom_over_top": ratio, "factor_a_layer": gain, "by_layer": flow.tolist()}
    if ratio < VANISHED or (ratio < WEAK and run.learned < LEARNED and run.tried):
        said = (
            f"the first layers are hardly taught anything: the gradient shrinks to {gain:.2g} of itself a layer on its "
            f"way down, {ratio:.1e} of it reaches {lowest}"
        )
        yield Finding("vanishing_gradients", f"{lowest} to {highest}", 1, said, evidence)
    elif ratio > EXPLODED * (NORM_GAIN ** len(flow) if run.batchnorm else 1):
        said = (
            f"the first layers are pushed far too hard: the gradient grows {gain:.2g} times a layer on its way down, "
            f"{ratio:.1e} times in all to {lowest}"
        )
        yield Finding("exploding_gradients", f"{lowest} to {highest}", 1, said, evidence)


def _no_gradient(run: Run, found: Found) -> Iterator[Finding]:
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
    if run.batchnorm:  # before training there are no running statistics: evaluation mode shows another network
        loss = run.start.get("first_step_loss", loss)
    least, times = START_EXCESS if "target_top_class" in run.start else SQUARED_START_EXCESS
    if loss - expected > max(least, times * expected):
        said = f"the fresh network is surely wrong, not unsure: its loss is {loss:.3g}, that of guessing {expected:.3g}"
        yield Finding("loss_at_start", "output layer", 0, said, {"loss": loss, "expected": expected})


CAUSES: list[Rule] = [
    broken,
    _labels,
    _inputs,
    _targets,
    _bottleneck,
    _flat("dead_units", "switched off for every example", DEAD),
    _flat("saturated_units", "stuck at one end of their range", SATURATED),
    _depth,
    _no_gradient,
    _loss_at_start,
]
