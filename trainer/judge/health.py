"""Find what is wrong with a training run from what it recorded. Pure; no torch.

Thresholds are relative: to what an untrained network should give (Glorot and Bengio 2010, He et al. 2015), to the
weights, to the chance-level loss (that of the best prediction which ignores the input), to the run's own noise. Where a
sign is ambiguous, the outcome decides: a network that learned is not called ill for looking unusual. docs/health.md has
the rules and how often they are right.

Shapes: E epoch, L hidden layer, W weight matrix, S step, M measured quantity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.judge.advice import ADVICE
from trainer.judge.causes import CAUSES, FLAT, broken
from trainer.judge.records import LEARNED, Finding, Floats, NotFinite, Run
from trainer.judge.steps import NOISY, STEPS, hardly_moved
from trainer.judge.symptoms import STILL, SYMPTOMS

EXPLAINS = {  # a cause: what is not said beside it
    "inputs_constant": ADVICE.keys() - {"inputs_constant", "one_class"},  # all that a network does with such inputs
    "inputs_not_normalised": {"loss_at_start", "learning_rate_too_high"},
    "targets_not_normalised": {"loss_at_start", "learning_rate_too_high"},
    "bottleneck": {"loss_at_start", "exploding_gradients", *FLAT},
    "dropout_too_high": {"learning_rate_too_high", *NOISY},
    "weight_decay_dominates": {"learning_rate_too_high"},
    **{name: {"no_gradient"} for name in (*FLAT, "vanishing_gradients", "not_finite")},
}
FLATTENS = {  # what makes units die or saturate that were sound at the start
    "inputs_not_normalised", "vanishing_gradients", "exploding_gradients", "loss_at_start", "weight_decay_dominates",
    "learning_rate_too_high", "momentum_too_high", "batch_too_small",
}  # fmt: skip
LAST = {"labels_unrelated", "oscillation", "loss_does_not_move", "one_batch", "not_finite"}  # after their causes


def first_not_finite(steps: Floats, tags: Sequence[str], values: Floats) -> NotFinite | None:
    """Find the first of the steps (S,) whose measured values (S, M) are not all finite.

    The tensor named is the loss, else the topmost gradient: the order in which a step computes them.
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return None
    s = int(bad.any(1).argmax())
    named = [tag for m, tag in enumerate(tags) if bad[s, m]]
    gradients = [tag for tag in named if tag.startswith("grad_norm/") and not tag.endswith("total")]
    tensor = "train/loss" if "train/loss" in named else gradients[-1] if gradients else named[0]
    return NotFinite(int(steps[s]), tensor)


def judge(
    rows: Sequence[Mapping[str, float]],
    start: Mapping[str, float],
    config: Mapping[str, Any],
    not_finite: NotFinite | None = None,
) -> list[Finding]:
    """Return what is wrong with a run, worst first; nothing where all is well.

    rows: one per epoch, as in metrics.csv. start: what was measured before the first step and in it, as in
    summary.json. config: dotted keys. not_finite: where a recorded step first held NaN or infinity.
    """
    if not rows or not start:
        return []
    run = Run(rows, start, config, not_finite)
    if "model.function" in config:  # no network
        return [*broken(run, {}), *hardly_moved(run)]
    if "guessing_loss" not in start:  # no chance level to measure by
        return list(broken(run, {}))
    found: list[Finding] = []
    for rule in [*CAUSES, *STEPS]:
        found += rule(run, {finding.finding: finding.step for finding in found})
    seen = {finding.finding: finding.step for finding in found}  # also of what is left out, as something explains it
    explained = set[str]().union(*(EXPLAINS.get(name, ()) for name in seen))
    found = [one for one in found if one.finding not in explained]
    later = [one for one in found if one.step > 0 and one.finding in FLAT]
    found = [one for one in found if one not in later]
    found += later if not any(one.finding in FLATTENS for one in found) else []
    for rule in SYMPTOMS:
        found += rule(run, seen | {finding.finding: finding.step for finding in found})
    return sorted(found, key=lambda one: one.finding in LAST)


def settled(
    findings: Sequence[Finding],
    rows: Sequence[Mapping[str, float]],
    start: Mapping[str, float],
    config: Mapping[str, Any],
) -> list[Finding]:
    """Return all that was found of a run, before, in and after training, without what other findings explain.

    That a batch is not fitted says nothing where the run has learned half, or something else was found.
    """
    names = {one.finding for one in findings}
    explained = {"no_gradient"} if "wrong_gradient" in names else set[str]()
    if "one_batch" in names and "guessing_loss" in start:
        is_only = names <= {"one_batch", "one_class", "loss_does_not_move", "leakage"}
        explained |= set[str]() if is_only and Run(rows, start, config, None).learned < LEARNED else {"one_batch"}
    kept = [one for one in findings if one.finding not in explained]
    return sorted(kept, key=lambda one: one.finding in LAST)


HOPELESS = {  # what does not pass by itself
    "not_finite", "not_finite_at_start", "inputs_constant", "vanishing_gradients", "dead_units",
    "weight_decay_dominates", "dropout_too_high", "learning_rate_too_high",
}  # fmt: skip
HOPELESS_EPOCHS = 5  # at least, before a run is given up, or said to be hopeless


def hopeless(rows: Sequence[Mapping[str, float]], start: Mapping[str, float], config: Mapping[str, Any]) -> list[str]:
    """Return the causes that do not pass by themselves of which a run has learned nothing so far; none: it may yet."""
    if len(rows) < HOPELESS_EPOCHS or "guessing_loss" not in start or Run(rows, start, config, None).learned >= STILL:
        return []
    return [one.finding for one in judge(rows, start, config) if one.finding in HOPELESS]


ALL_WELL = "gradients, activations and updates: all is well"


def name(finding: Mapping[str, Any]) -> str:
    """Return what a finding is called: vanishing gradients."""
    return str(finding.get("finding", "finding")).replace("_", " ")


def line(finding: Mapping[str, Any]) -> str:
    """Return a finding of summary.json in words: what, where, since when, why it matters, what to try."""
    where = f"{finding['where']}, " if finding["where"] else ""
    since = f"step {finding['step']}" if finding["step"] else "the start"
    said, why = finding["sentence"], finding["why"]
    return f"{name(finding)} ({where}from {since}): {said}; {why}. Try {finding['try']}."


def markdown(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return all findings for TensorBoard's text page."""
    if not findings:
        return ALL_WELL
    return "\n".join(f"- **{name(finding)}**{line(finding).removeprefix(name(finding))}" for finding in findings)
