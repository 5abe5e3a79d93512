"""The kinds of training faults that `scripts.plants` plants, each with what must or may be found."""

from __future__ import annotations

import torch

from scripts.healthy import classes, log_uniform, pick
from scripts.plant_tools import (
    bias,
    decay,
    deep,
    digits,
    ends_early,
    fault,
    few_steps,
    labels,
    nan,
    narrow,
    output,
    plain,
    rate,
    rescale,
    valley,
)

STUCK = "loss_does_not_move one_class "
OFF_SCALE = STUCK + (
    "saturated_units dead_units loss_at_start learning_rate_too_high not_finite exploding_gradients vanishing_gradients"
)
FAULTS = [
    fault(
        "deep sigmoid",
        "vanishing_gradients",
        STUCK,
        shape=deep(["sigmoid"], 6, 25),
        knobs=lambda rng, a: {"model.init": pick(rng, "default", "glorot_uniform")},
    ),
    fault(
        "deep ReLU, init too small by sqrt(6)",
        "vanishing_gradients",
        STUCK + "dead_units",
        shape=deep(["relu"], 14, 30),
        knobs=lambda rng, a: {"model.init": "default"},
    ),
    fault(
        "deep, init scaled down",
        "vanishing_gradients",
        STUCK + "dead_units",
        shape=deep(["tanh", "relu", "gelu"], 8, 20),
        knobs=lambda rng, a: {"model.init": "he_normal", "model.init_scale": float(rng.uniform(0.1, 0.4))},
    ),
    fault(
        "deep, init scaled up",
        "exploding_gradients",
        "loss_at_start not_finite learning_rate_too_high dead_units",
        shape=deep(["relu", "gelu", "silu"], 8, 20),
        knobs=lambda rng, a: {"model.init": "he_normal", "model.init_scale": float(rng.uniform(2.5, 5))},
    ),
    fault(
        "all biases far below zero",
        "dead_units",
        STUCK + "no_gradient loss_at_start",
        knobs=lambda rng, a: {"model.bias_init": -log_uniform(rng, 6, 40)},
        fits=lambda a: a["model.activation"] == "relu" and plain(a),
        by_outcome=True,
    ),
    fault(
        "the biases of a layer far below zero",
        "dead_units",
        STUCK + "no_gradient",
        change=bias(lambda rng: -log_uniform(rng, 15, 60)),
        fits=lambda a: a["model.activation"] == "relu" and plain(a),
        by_outcome=True,
    ),
    fault(
        "weights too large for tanh or sigmoid",
        "saturated_units",
        STUCK + "loss_at_start exploding_gradients",
        knobs=lambda rng, a: {"model.init_scale": log_uniform(rng, 12, 60), "model.init": "glorot_normal"},
        fits=lambda a: a["model.activation"] in {"tanh", "sigmoid"} and plain(a) and a["data"] in {"digits", "blobs"},
        by_outcome=True,
    ),
    fault(
        "the biases of a layer saturate it",
        "saturated_units",
        STUCK + "vanishing_gradients",
        change=bias(lambda rng: pick(rng, -1.0, 1.0) * log_uniform(rng, 10, 40)),
        fits=lambda a: a["model.activation"] in {"tanh", "sigmoid"} and plain(a),
        by_outcome=True,
    ),
    fault("inputs too large", "inputs_not_normalised", OFF_SCALE, inputs=lambda rng, x: x * log_uniform(rng, 20, 500)),
    fault(
        "inputs far from zero", "inputs_not_normalised", OFF_SCALE, inputs=lambda rng, x: x + log_uniform(rng, 20, 200)
    ),
    fault(
        "one feature out of scale",
        "inputs_not_normalised",
        OFF_SCALE,
        inputs=lambda rng, x: x * (1 + (torch.arange(x.shape[1]) == x.std(0).argmax()) * log_uniform(rng, 100, 1000)),
        fits=lambda a: a["data"] in {"digits", "blobs", "waves"},
    ),
    fault(
        "inputs too small",
        "inputs_not_normalised",
        OFF_SCALE + " learning_rate_too_low",
        inputs=lambda rng, x: x * log_uniform(rng, 1e-5, 1e-2),
    ),
    fault(
        "learning rate far too high",
        "learning_rate_too_high",
        STUCK + "not_finite oscillation saturated_units dead_units exploding_gradients",
        knobs=rate((10, 100), (0.3, 3)),
        by_outcome=True,
    ),
    fault("learning rate far too low", "learning_rate_too_low", STUCK, knobs=rate((1e-7, 3e-5), (1e-8, 5e-6))),
    fault("learning rate zero", "learning_rate_too_low", STUCK, knobs=lambda rng, a: {"optimizer.lr": 0.0}),
    fault(
        "gradients clipped to nothing",
        "learning_rate_too_low",
        STUCK,
        knobs=lambda rng, a: {
            "optimizer": "sgd",
            "optimizer.lr": 0.1,
            "optimizer.momentum": 0.0,
            "optimizer.weight_decay": 0.0,
            "clip_norm": log_uniform(rng, 1e-8, 1e-6),
        },
    ),
    fault(
        "weight decay far too strong",
        "weight_decay_dominates",
        STUCK + "vanishing_gradients dead_units",
        knobs=decay,
        fits=lambda a: a["data"] != "line",  # a line fits with small weights
    ),
    fault(
        "overflow",
        "not_finite learning_rate_too_high",
        "saturated_units dead_units",
        knobs=lambda rng, a: {
            "optimizer": "sgd",
            "optimizer.momentum": 0.0,
            "optimizer.lr": log_uniform(rng, 1e8, 1e30),
        },
        fits=plain,
    ),
    fault("one class in the labels", "one_class", "dead_units", change=labels(1.0), fits=classes),
    fault("97 % of the labels one class", "one_class", "dead_units", change=labels(0.97), fits=classes),
    fault(
        "labels unrelated to inputs",
        "labels_unrelated loss_does_not_move",
        "one_class",
        knobs=lambda rng, a: {"data.label_noise": 1.0},
        fits=classes,
    ),
    fault(
        "output weights too large",
        "loss_at_start",
        "learning_rate_too_high exploding_gradients not_finite dead_units",
        change=output("weight", 30, 300),
        fits=lambda a: a["data"] in {"digits", "blobs"},
    ),
    fault(
        "output bias too large",
        "loss_at_start",
        "one_class saturated_units",
        change=output("bias", 10, 40),
        fits=classes,
    ),
    fault(
        "momentum that swings",
        "oscillation",
        "momentum_too_high learning_rate_too_high",
        shape=valley,
        knobs=lambda rng, a: {
            "optimizer": "sgd",
            "optimizer.lr": log_uniform(rng, 0.05, 0.2),
            "optimizer.momentum": float(rng.uniform(0.97, 0.998)),
            "optimizer.weight_decay": 0.0,
            "schedule": "constant",
        },
    ),
    fault(
        "weights all but zero",
        "vanishing_gradients no_gradient loss_does_not_move dead_units",
        STUCK + "learning_rate_too_high",
        knobs=lambda rng, a: {"model.init": "normal", "model.init_std": 1e-30, "model.bias_init": 0.0},
        fits=lambda a: a["data"] == "digits" and plain(a) and a["model.depth"] > 1 and a["model.activation"] == "relu",
    ),
    fault(
        "dropout far too high",
        "dropout_too_high",
        STUCK + "labels_unrelated",
        shape=digits,
        knobs=lambda rng, a: pick(
            rng,
            {"model.depth": int(rng.integers(2, 6)), "model.dropout": float(rng.uniform(0.8, 0.97))},
            {"model.depth": int(rng.integers(5, 9)), "model.dropout": float(rng.uniform(0.6, 0.9))},
            {"model.input_dropout": float(rng.uniform(0.95, 0.99))},
        ),
        by_outcome=True,
    ),
    fault(
        "a layer of one unit, or two",
        "bottleneck",
        STUCK + "dead_units",
        shape=digits,
        knobs=narrow,
        by_outcome=True,
    ),
    fault(
        "targets far from zero",
        "targets_not_normalised",
        OFF_SCALE + " learning_rate_too_low",
        change=lambda rng, stack, k: rescale(stack, k, 1.0, log_uniform(rng, 100, 10_000)),
        fits=lambda a: not classes(a),
        by_outcome=True,
    ),
    fault(
        "targets all but zero, or huge",
        "targets_not_normalised",
        OFF_SCALE + " learning_rate_too_low oscillation",
        change=lambda rng, stack, k: rescale(
            stack, k, pick(rng, log_uniform(rng, 1e-5, 1e-3), log_uniform(rng, 1e3, 1e5)), 0
        ),
        fits=lambda a: not classes(a),
        by_outcome=True,
    ),
    fault(
        "a step or two an epoch",
        "too_few_steps",
        STUCK + "learning_rate_too_low",
        shape=digits,
        knobs=few_steps,
        by_outcome=True,
    ),
    fault(
        "weight decay that flips weights",
        "weight_decay_dominates",
        STUCK + "not_finite dead_units",
        knobs=lambda rng, a: {
            "optimizer": "adamw",
            "optimizer.lr": (rate := log_uniform(rng, 1e-3, 1e-2)),
            "optimizer.weight_decay": float(rng.uniform(0.6, 4)) / rate,
            "schedule": "constant",
        },
    ),
    fault(
        "all inputs the same",
        "inputs_constant",
        STUCK,
        inputs=lambda rng, x: pick(rng, x * 0, x[:1].expand_as(x).clone()),
    ),
    fault(
        "a schedule that ends in the first epochs",
        "schedule_ends_early",
        STUCK + "learning_rate_too_low",
        knobs=ends_early,
        fits=lambda a: a["epochs"] >= 10,
        by_outcome=True,
    ),
    fault(
        "momentum that never forgets",
        "momentum_too_high oscillation",
        "dead_units saturated_units learning_rate_too_high not_finite " + STUCK,
        shape=digits,
        knobs=lambda rng, a: {
            "optimizer": "sgd",
            "optimizer.lr": log_uniform(rng, 0.05, 0.3),
            "optimizer.momentum": 1 - log_uniform(rng, 3e-4, 5e-3),
            "optimizer.weight_decay": 0.0,
        },
        by_outcome=True,
    ),
    fault(
        "one example a step, at a rate for many",
        "batch_too_small",
        "dead_units saturated_units not_finite oscillation " + STUCK,
        shape=digits,
        knobs=lambda rng, a: {
            "data.batch_size": 1,
            "epochs": 5,
            "optimizer": "sgd",
            "optimizer.lr": log_uniform(rng, 0.1, 0.4),
            "optimizer.weight_decay": 0.0,
            "accumulate": 1,
        },
        by_outcome=True,
    ),
    fault("a weight that is NaN", "not_finite_at_start", change=nan),
]
BY_NAME = {one.name: one for one in FAULTS}
