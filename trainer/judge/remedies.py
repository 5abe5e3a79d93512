"""What may cure a run: each rule looks at its configuration and says what to type. Pure.

A rule says nothing where it does not apply, or would change nothing: {}. What it types the configuration takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]  # a configuration as dotted keys
Overrides = dict[str, str]  # key -> value, as they are typed

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


def usual_rate(config: Settings) -> Overrides:
    """Lower the rate to the optimizer's usual one, where it is higher, or nobody knows what is usual."""
    usual = _usual(config)
    return slower(config) if usual is None or (config.get("optimizer.lr") or 0.0) > 1.5 * usual else {}


def faster(config: Settings) -> Overrides:
    """Raise the rate to the optimizer's usual one; where it is no lower than that, tenfold.

    Not where it is the gradient that is cut to nothing.
    """
    rate, usual = config.get("optimizer.lr"), _usual(config)
    if rate is None or odd_clip(config) or (usual is not None and rate > 1.5 * usual):
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


def less_dropout(config: Settings) -> Overrides:
    """Drop a fifth of the hidden units at most, and no inputs."""
    hidden, inputs = (config.get(key) or 0.0 for key in ("model.dropout", "model.input_dropout"))
    return ({"model.dropout": "0.2"} if hidden > 0.2 else {}) | ({"model.input_dropout": "0"} if inputs > 0.2 else {})


def wider(config: Settings) -> Overrides:
    """Give every hidden layer 64 units, where one has fewer."""
    width = config.get("model.width", 64)
    narrow = min(width, default=64) if isinstance(width, list) else width
    return {"model.width": "64"} if "model.depth" in config and narrow < 64 else {}


def constant_rate(config: Settings) -> Overrides:
    """Leave the rate as it is."""
    return {} if config.get("schedule.name") in (None, "constant") else {"schedule": "constant"}


def cosine(config: Settings) -> Overrides:
    """Let the rate fall to nothing over the run."""
    return {} if config.get("schedule.name") in (None, "cosine") else {"schedule": "cosine"}


def larger_batches(config: Settings) -> Overrides:
    """Take batches of 32."""
    return _set(config, data__batch_size=32) if config.get("data.batch_size", 32) < 32 else {}


def more_steps(config: Settings) -> Overrides:
    """Take a step after each batch, of 32 examples at most."""
    small = _set(config, data__batch_size=min(32, config.get("data.batch_size", 32)))
    return small | _set(config, accumulate=1)


def longer(config: Settings) -> Overrides:
    """Train ten times as long."""
    if config.get("steps") is not None:
        return _set(config, steps=10 * config["steps"])
    return _set(config, epochs=10 * config["epochs"]) if "epochs" in config else {}


# What is odd about a configuration, whatever was found: each of these settings alone can spoil a run.
ODD_RATE = 1 / 30, 10  # of the usual rate
ODD_DECAY = 0.1  # where it is decoupled from the gradient, as in AdamW, ten times that
ODD_SCALE = 0.5, 2.0


def is_odd_rate(config: Settings) -> tuple[bool, bool]:
    """Whether the rate is far below, or far above, the optimizer's usual one; neither for another class."""
    usual, (low, high) = _usual(config), ODD_RATE
    if usual is None:
        return False, False
    return config["optimizer.lr"] <= low * usual, config["optimizer.lr"] >= high * usual


def odd_rate(config: Settings) -> Overrides:
    """Take the optimizer's usual rate instead of one that is far from it."""
    return _set(config, optimizer__lr=_usual(config)) if any(is_odd_rate(config)) else {}


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
