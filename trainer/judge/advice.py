"""Why each finding of health.py matters, and what cures it: overrides that the run's own configuration takes.

A finding's remedies are ordered by how often they cured planted runs; docs/health.md has the table. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import NamedTuple

from trainer.judge.remedies import (
    ODD,
    Overrides,
    Settings,
    adam,
    batch_norm,
    constant_rate,
    cosine,
    faster,
    larger_batches,
    less_decay,
    less_dropout,
    less_momentum,
    longer,
    more_steps,
    odd_bias,
    odd_init,
    relu,
    shallower,
    slower,
    standard_inputs,
    true_labels,
    usual_init,
    usual_rate,
    wider,
)

Rule = FunctionType  # Settings -> Overrides: one of remedies.py
SHOWN = 3  # cures in a sentence


SAME = {  # words that say what an override of this key types: one of the two is enough
    "fewer layers": "model.depth",
    "less dropout": "model.dropout",
    "a smaller optimizer.lr": "optimizer.lr",
    "no weight decay": "optimizer.weight_decay",
    "less momentum": "optimizer.momentum",
    "larger batches": "data.batch_size",
    "a larger model.width": "model.width",
    "inputs of one scale": "data.normalisation",
    "normalised inputs": "data.normalisation",
}


class Advice(NamedTuple):
    """Why a finding matters; what may cure it, the likeliest first; what only a person can do."""

    why: str
    rules: tuple[Rule, ...]
    words: str


def cures(finding: str, config: Settings) -> dict[str, Overrides]:
    """Return what to type against a finding, by the name of its rule, the likeliest cure first.

    Nothing where no override helps.
    """
    found: dict[str, Overrides] = {}
    for rule in ADVICE[finding].rules:
        overrides = rule(config)
        if overrides and overrides not in found.values():
            found[rule.__name__] = overrides
    return found


def can_be_tried(findings: Iterable[str], config: Settings) -> bool:
    """Whether python -m trainer.cure has anything to try: a run of a network, and an override against a finding."""
    return "model.function" not in config and any(cures(finding, config) for finding in findings)


def sentence(finding: str, config: Settings) -> str:
    """Say what to try against a finding: `Try ...`."""
    printed, words = [*cures(finding, config).values()][:SHOWN], ADVICE[finding].words
    parts = [written(overrides, " with ") for overrides in printed]
    if SAME.get(words) not in {key for overrides in printed for key in overrides}:
        parts.append(words.removeprefix("to ") if parts else words)
    return ", or ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def written(overrides: Overrides, between: str = " ") -> str:
    """Write overrides as they are typed."""
    return between.join(f"{key}={value}" for key, value in overrides.items())


ADVICE: dict[str, Advice] = {
    "not_finite": Advice(
        "once a weight is NaN or infinite, every later step is",
        (*ODD, adam, usual_rate),
        "to look for a division or logarithm that may get 0",
    ),
    "vanishing_gradients": Advice(
        "the lower layers get hardly any gradient, so they stay as they were drawn",
        (*ODD, usual_init, batch_norm, relu, shallower),
        "fewer layers",
    ),
    "exploding_gradients": Advice(
        "one step that suits the upper layers destroys the lower ones",
        (*ODD, usual_init, batch_norm, usual_rate),
        "fewer layers",
    ),
    "dead_units": Advice(
        "a unit that is flat on every example gets no gradient and never recovers",
        (*ODD, usual_rate, batch_norm, usual_init),
        "to look at the biases",
    ),
    "saturated_units": Advice(
        "in the flat part of its activation a unit passes hardly any gradient on",
        (*ODD, usual_rate, relu, batch_norm),
        "normalised inputs",
    ),
    "no_gradient": Advice(
        "it stays as it was initialised: the loss does not depend on it",
        (*ODD, usual_init, batch_norm),
        "to check that forward uses it and does not detach what it computes",
    ),
    "loss_at_start": Advice(
        "a fresh network should guess; the first steps only repair its output layer",
        (*ODD, usual_init, batch_norm),
        "smaller initial weights, or targets of a usual scale",
    ),
    "inputs_not_normalised": Advice(
        "initialisations and learning rates are made for inputs of about mean 0 and standard deviation 1",
        (standard_inputs, batch_norm),
        "inputs of one scale",
    ),
    "learning_rate_too_high": Advice(
        "steps jump over what they should descend into",
        (*ODD, slower, adam, batch_norm),
        "a smaller optimizer.lr",
    ),
    "learning_rate_too_low": Advice(
        "the weights end about where they were drawn",
        (*ODD, faster, adam),
        "more epochs",
    ),
    "weight_decay_dominates": Advice(
        "the weights are pulled to zero faster than the loss can hold them",
        (less_decay, adam),
        "no weight decay",
    ),
    "oscillation": Advice(
        "steps go back and forth across a valley instead of along it",
        (*ODD, less_momentum, slower, adam),
        "larger batches",
    ),
    "one_class": Advice(
        "such a network ignores its inputs",
        (*ODD, slower, batch_norm, adam),
        "to look at the labels and at how often each class occurs",
    ),
    "labels_unrelated": Advice(
        "what it learns by heart says nothing about other examples",
        (true_labels, *ODD),
        "to check that inputs and labels belong together: order, shuffling",
    ),
    "loss_does_not_move": Advice(
        "nothing is learned",
        (true_labels, *ODD, usual_init, batch_norm, faster, adam),
        "to check labels and loss; overfit one batch first: check.one_batch=true",
    ),
    "not_finite_at_start": Advice(
        "no step can mend what forward or the loss gives for the weights as they were drawn",
        (odd_init, odd_bias, standard_inputs),
        "to look for log, sqrt, division or overflow in forward and loss, and for NaN in the inputs",
    ),
    "inputs_constant": Advice(
        "a network can only give all of them the same answer",
        (),
        "to look at how the inputs are read: a column of zeros, one row repeated",
    ),
    "targets_not_normalised": Advice(
        "initialisations and learning rates are made for targets of about mean 0 and standard deviation 1",
        (),
        "to subtract the targets' mean and divide by their standard deviation",
    ),
    "bottleneck": Advice(
        "what does not fit through it cannot be learned above it",
        (wider,),
        "a larger model.width",
    ),
    "dropout_too_high": Advice(
        "the loss then follows the noise, and the network learns little or nothing",
        (less_dropout, shallower, *ODD),
        "less dropout",
    ),
    "schedule_ends_early": Advice(
        "the rest of the run changes nothing",
        (constant_rate, cosine),
        "one that lasts: step_size and milestones count epochs, gamma is the factor of a drop",
    ),
    "momentum_too_high": Advice(
        "steps add up over 1 / (1 - momentum) of them, and run far past the valley",
        (less_momentum, *ODD, adam),
        "less momentum",
    ),
    "batch_too_small": Advice(
        "each step follows one or two examples, too far for the others",
        (larger_batches, slower),
        "larger batches",
    ),
    "too_few_steps": Advice(
        "each step can only be so long",
        (more_steps, longer),
        "a smaller data.batch_size, or more epochs",
    ),
    "norm_without_statistics": Advice(
        "it normalises nothing, neither in training nor afterwards",
        (),
        "to leave out .eval() in forward and train(), or the layer",
    ),
    "squashed_outputs": Advice(
        "the loss wants any number there, and takes its own sigmoid or softmax where it needs one",
        (),
        "to return what goes into the last activation",
    ),
    "one_batch": Advice(
        "a network that cannot fit one batch cannot fit the data: the fault is in the model, loss or optimizer",
        (*ODD, slower, faster, adam),
        "to look for a wrong loss, a detached or saturated layer, an output that is squashed",
    ),
    "leakage": Advice(
        "test numbers are better than those of new examples would be",
        (),
        "to drop equal examples before the data are split",
    ),
    "contradicting_targets": Advice(
        "no network tells equal inputs apart",
        (),
        "to look which of their targets is right, or for a feature that is missing",
    ),
    "wrong_gradient": Advice(
        "backward does not compute the derivative of forward, so steps do not go downhill",
        (),
        "to check custom autograd functions, in-place changes and .detach() in this part of the module",
    ),
    "unregistered_layers": Advice(
        "no optimizer trains them, and no checkpoint holds them",
        (),
        "nn.ModuleList, nn.ModuleDict or nn.ParameterList in their place",
    ),
    "unsaved_state": Advice(
        "a run that is killed goes on without it, and a checkpoint predicts something else",
        (),
        "self.register_buffer(NAME, TENSOR) in __init__ for what forward keeps",
    ),
    "random_evaluation": Advice(
        "every loss in evaluation mode, and what is concluded from it, depends on chance",
        (),
        "nn.Dropout, or F.dropout(x, training=self.training)",
    ),
    "softmax_twice": Advice(
        "cross-entropy takes the softmax itself, so gradients are squashed twice",
        (),
        "to return what goes into softmax (logits)",
    ),
}
