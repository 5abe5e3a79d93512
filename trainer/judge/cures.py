"""Why each finding of health.py matters, and what cures it: overrides that the run's own configuration takes.

A rule looks at a configuration (dotted keys) and says what to type, or nothing where it does not apply or would change
nothing. A finding's rules are ordered by how often they cured planted runs; docs/health.md has the table. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

Settings = Mapping[str, Any]  # a configuration as dotted keys
Overrides = dict[str, str]  # key -> value, as they are typed
Rule = FunctionType  # Settings -> Overrides
SHOWN = 3  # cures in a sentence


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
    parts = [written(overrides, " with ") for overrides in [*cures(finding, config).values()][:SHOWN]]
    parts += [ADVICE[finding].words] if ADVICE[finding].words else []
    return ", or ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def written(overrides: Overrides, between: str = " ") -> str:
    """Write overrides as they are typed."""
    return between.join(f"{key}={value}" for key, value in overrides.items())


# ------------------------------------------------------------------ rules

RATES = {  # the rate that each optimizer of ours begins with (conf/optimizer)
    "SGD": 0.1, "Adadelta": 1.0, "Adafactor": 0.01, "Adagrad": 0.01, "Adam": 0.001, "Adamax": 0.002, "AdamW": 0.001,
    "ASGD": 0.01, "NAdam": 0.002, "RAdam": 0.001, "RMSprop": 0.001, "Rprop": 0.01,
}  # fmt: skip
SATURATING = {"tanh", "sigmoid"}


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _set(config: Settings, **values: Any) -> Overrides:
    """Type these values (model__init for model.init) where they differ; nothing unless the configuration has them."""
    named = {key.replace("__", "."): value for key, value in values.items()}
    if not named.keys() <= config.keys():
        return {}
    return {key: _typed(value) for key, value in named.items() if config[key] != value}


def _usual(config: Settings) -> float | None:
    """Return the rate that the run's optimizer usually has; with momentum a tenth at least. None for another class."""
    rate = RATES.get(str(config.get("optimizer._target_")).removeprefix("torch.optim."))
    return None if rate is None else rate * max(0.1, 1 - (config.get("optimizer.momentum") or 0.0))


def slower(config: Settings) -> Overrides:
    """Lower the rate to the optimizer's usual one; where it is no higher than that, to a tenth."""
    rate, usual = config.get("optimizer.lr"), _usual(config)
    if not rate:
        return {}
    return _set(config, optimizer__lr=usual if usual is not None and rate > 1.5 * usual else rate / 10)


def faster(config: Settings) -> Overrides:
    """Raise the rate to the optimizer's usual one; where it is no lower than that, tenfold."""
    rate, usual = config.get("optimizer.lr"), _usual(config)
    if rate is None or (usual is not None and rate > 1.5 * usual):
        return {}
    return _set(config, optimizer__lr=usual if usual is not None and rate < usual / 1.5 else rate * 10)


def batch_norm(config: Settings) -> Overrides:
    """Normalise every hidden layer."""
    if not config.get("model.depth") or config["data.batch_size"] == 1:
        return {}
    return _set(config, model__batchnorm=True)


def relu(config: Settings) -> Overrides:
    """Use ReLU and the init made for it, instead of an activation that saturates."""
    if config.get("model.activation") not in SATURATING:
        return {}
    return _set(config, model__activation="relu", model__init="he_normal", model__init_scale=1.0)


def usual_init(config: Settings) -> Overrides:
    """Draw weights as the activation wants them (He et al. 2015, Glorot and Bengio 2010)."""
    activation, init = config.get("model.activation"), config.get("model.init")
    fitting = "glorot_uniform" if activation in SATURATING else "he_normal"
    if activation == "sigmoid" and init != "normal":  # all of them let its gradients vanish alike
        fitting = init
    return _set(config, model__init=fitting, model__init_scale=1.0)


def shallower(config: Settings) -> Overrides:
    """Take a quarter of many layers."""
    depth = config.get("model.depth", 0)
    return {} if depth < 6 or isinstance(config.get("model.width"), list) else _set(config, model__depth=depth // 4)


def standard_inputs(config: Settings) -> Overrides:
    """Bring inputs to mean 0 and standard deviation 1."""
    return _set(config, data__normalisation="standard")


def less_decay(config: Settings) -> Overrides:
    """Take a hundredth of the weight decay, and no more than 0.01."""
    decay = config.get("optimizer.weight_decay") or 0.0
    return _set(config, optimizer__weight_decay=min(decay / 100, 0.01)) if decay else {}


def less_momentum(config: Settings) -> Overrides:
    """Keep a momentum of 0.9, where it is higher."""
    return _set(config, optimizer__momentum=0.9) if (config.get("optimizer.momentum") or 0.0) > 0.9 else {}


def adam(config: Settings) -> Overrides:
    """Use Adam as it comes, instead of another class or rate."""
    usual = config.get("optimizer._target_") == "torch.optim.Adam" and config.get("optimizer.lr") == RATES["Adam"]
    return {} if usual or "optimizer.lr" not in config else {"optimizer": "adam"}


def true_labels(config: Settings) -> Overrides:
    """Leave labels as they are."""
    return _set(config, data__label_noise=0.0)


# What is odd about a configuration, whatever was found: each of these settings alone can spoil a run.
ODD_RATE = 10, 1 / 30  # of the usual rate
ODD_DECAY = 0.1  # where it is decoupled from the gradient, as in AdamW, ten times that
ODD_SCALE = 0.5, 2.0


def odd_rate(config: Settings) -> Overrides:
    """Take the optimizer's usual rate instead of one that is far from it."""
    usual, (high, low) = _usual(config), ODD_RATE
    if usual is None or low * usual < config["optimizer.lr"] < high * usual:
        return {}
    return _set(config, optimizer__lr=usual)


def odd_decay(config: Settings) -> Overrides:
    """Take less of a weight decay that is strong."""
    most = ODD_DECAY * (10 if config.get("optimizer._target_") == "torch.optim.AdamW" else 1)
    return less_decay(config) if (config.get("optimizer.weight_decay") or 0.0) > most else {}


def odd_momentum(config: Settings) -> Overrides:
    """Take less of a momentum that is all but 1."""
    return less_momentum(config) if (config.get("optimizer.momentum") or 0.0) > 0.95 else {}


def odd_clip(config: Settings) -> Overrides:
    """Shorten gradients to 1, where they were shortened to next to nothing."""
    norm = config.get("clip_norm")
    return _set(config, clip_norm=1) if norm is not None and norm < 1e-3 else {}


def odd_init(config: Settings) -> Overrides:
    """Draw weights as the activation wants them, where they were scaled, or all but zero."""
    low, high = ODD_SCALE
    is_normal = config.get("model.init") == "normal"
    return usual_init(config) if is_normal or not low <= config.get("model.init_scale", 1.0) <= high else {}


def odd_bias(config: Settings) -> Overrides:
    """Start biases at 0, where they were set to something else."""
    return _set(config, model__bias_init=0.0) if config.get("model.bias_init") else {}


def odd_dropout(config: Settings) -> Overrides:
    """Drop a fifth, where more than a half of units or inputs was dropped."""
    return {key: "0.2" for key in ("model.dropout", "model.input_dropout") if (config.get(key) or 0.0) > 0.5}


ODD = (odd_bias, odd_init, odd_clip, odd_decay, odd_momentum, odd_rate, odd_dropout)


# ------------------------------------------------------------------ by finding

ADVICE: dict[str, Advice] = {
    "not_finite": Advice(
        "once a weight is NaN or infinite, every later step is",
        (*ODD, slower, adam, batch_norm),
        "look for a division or logarithm that may get 0",
    ),
    "vanishing_gradients": Advice(
        "the lower layers get hardly any gradient, so they stay as they were drawn",
        (*ODD, batch_norm, relu, usual_init, shallower),
        "fewer layers",
    ),
    "exploding_gradients": Advice(
        "one step that suits the upper layers destroys the lower ones",
        (*ODD, usual_init, batch_norm, slower),
        "fewer layers",
    ),
    "dead_units": Advice(
        "a unit that is flat on every example gets no gradient and never recovers",
        (*ODD, slower, batch_norm, usual_init, adam),
        "look at the biases",
    ),
    "saturated_units": Advice(
        "in the flat part of its activation a unit passes hardly any gradient on",
        (*ODD, slower, batch_norm, relu, adam),
        "normalised inputs",
    ),
    "no_gradient": Advice(
        "it stays as it was initialised: the loss does not depend on it",
        (*ODD, usual_init, batch_norm),
        "check that forward uses it and does not detach what it computes",
    ),
    "loss_at_start": Advice(
        "a fresh network should guess; the first steps only repair its output layer",
        (*ODD, usual_init, batch_norm, slower, adam),
        "targets of a usual scale",
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
        "look at the labels and at how often each class occurs",
    ),
    "labels_unrelated": Advice(
        "what it learns by heart says nothing about other examples",
        (true_labels, *ODD),
        "check that inputs and labels belong together: order, shuffling",
    ),
    "loss_does_not_move": Advice(
        "nothing is learned",
        (true_labels, *ODD, usual_init, batch_norm, faster, adam),
        "check labels and loss; overfit one batch first: check.one_batch=true",
    ),
    "one_batch": Advice(
        "a network that cannot fit one batch cannot fit the data: the fault is in the model, loss or optimizer",
        (*ODD, slower, faster, adam),
        "look for a wrong loss, a detached or saturated layer, an output that is squashed",
    ),
    "leakage": Advice(
        "test numbers are better than those of new examples would be",
        (),
        "drop equal examples before the data are split",
    ),
    "contradicting_targets": Advice(
        "no network tells equal inputs apart",
        (),
        "look which of their targets is right, or for a feature that is missing",
    ),
    "constant_inputs": Advice(
        "no network learns anything from them",
        (),
        "look at how the inputs are read",
    ),
    "wrong_gradient": Advice(
        "backward does not compute the derivative of forward, so steps do not go downhill",
        (),
        "check custom autograd functions, in-place changes and .detach() in this part of the module",
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
