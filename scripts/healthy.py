"""Data, networks and runs as an experienced user would set them up, drawn at random: what `scripts.plants` trains."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from trainer.cli.app import configure
from trainer.core import data
from trainer.core.data import Dataset

Rng = np.random.Generator
Knobs = dict[str, Any]
ADAPTIVE = ("adam", "adamw", "rmsprop", "nadam")
HIDDEN = 500  # examples of a generated data set


@functools.cache
def dataset(name: str) -> Dataset:
    """The data sets of conf/data, and three that it does not have, under the name of one that it has."""
    base = configure([f"data={configured(name)}"]).data
    if name == configured(name):
        return data.load(base)
    rng = np.random.default_rng(0)
    x, y = {"moons": _moons, "blobs": _blobs, "waves": _waves}[name](rng)
    return data.assemble(dataclasses.replace(base, normalisation="standard"), x, y, x[:50], y[:50])


def configured(name: str) -> str:
    return {"moons": "spirals", "blobs": "spirals", "waves": "line"}.get(name, name)


def _moons(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles."""
    side, angle = np.arange(HIDDEN) % 2, rng.uniform(0, np.pi, HIDDEN)
    x = np.stack([np.cos(angle) * (1 - 2 * side) + side, np.sin(angle) * (1 - 2 * side) + 0.5 * side], 1)
    return x + rng.normal(0, 0.1, x.shape), side


def _blobs(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Five clusters in 20 dimensions; half of all examples are of one."""
    y = rng.choice(5, HIDDEN, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    return rng.normal(0, 1.5, (5, 20))[y] + rng.normal(0, 1, (HIDDEN, 20)), y


def _waves(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Regression from 8 features to 2 values."""
    x = rng.normal(0, 1, (HIDDEN, 8))
    y = np.stack([np.sin(x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3]], 1)
    return x, y + rng.normal(0, 0.1, y.shape)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def pick(rng: Rng, *values: Any) -> Any:
    """Draw one of these."""
    return values[rng.integers(len(values))]


DEEPEST = {"relu": 8, "gelu": 5, "silu": 5, "tanh": 6, "sigmoid": 2}  # without batch norm, with a fitting init


def architecture(rng: Rng) -> Knobs:
    """A network and data that train with healthy_knobs."""
    name = pick(rng, "digits", "digits", "digits", "digits", "spirals", "line", "moons", "blobs", "waves")
    activation = pick(rng, "relu", "relu", "tanh", "gelu", "silu", *(["sigmoid"] if name != "spirals" else []))
    norm = bool(rng.random() < 0.25) and name not in {"line", "waves"}
    depth = int(rng.integers(1, DEEPEST[activation] + 1))
    if norm:
        depth = int(rng.integers(1, 5 if activation == "sigmoid" else 31))
    sizes = {"digits": pick(rng, 200, 400, 800, 1400), "spirals": 640, "line": 64}
    examples: int = sizes.get(name, 400)
    batch: int = {"line": 16, "spirals": 32}[name] if name in {"line", "spirals"} else pick(rng, 16, 32, 64)
    steps = int(rng.integers(900, 1500) if name == "spirals" else rng.integers(300, 800)) // (2 if depth > 12 else 1)
    return {
        "data": name,
        "data.train_size": examples,
        "data.batch_size": batch,
        "data.val_fraction": 0.2 if name != "digits" else 0.111,
        "epochs": int(np.clip(steps * batch // examples, 10, 80)),
        "model.depth": min(depth, 3) if name == "line" else depth,
        "model.width": pick(rng, *([16, 32, 64, 128, 256, 512] if name == "digits" and depth < 8 else [16, 32, 64])),
        "model.activation": activation,
        "model.batchnorm": norm,
        "model.batchnorm_position": pick(rng, "before", "before", "after"),
        **pick(rng, {}, {}, {"loss.label_smoothing": 0.1} if classes({"data": name}) else {}),
        **pick(rng, {}, {}, {"clip_norm": 1.0}, {"schedule.warmup": 1}, {"accumulate": 2}),
    }


def short(a: Knobs) -> Knobs:
    """The same with too few epochs to expect anything of the outcome."""
    return a | {"epochs": 1 + a["epochs"] % 3}


def healthy_knobs(rng: Rng, a: Knobs) -> Knobs:
    """Draw optimizer, learning rate, init and regularisation as an experienced user would choose them."""
    deep = a["model.depth"] > 4 and not a["model.batchnorm"]
    regression = a["data"] in {"line", "waves"}
    plain_sgd = [] if deep or a["data"] == "spirals" else ["sgd"]
    optimizer = pick(rng, "momentum", *ADAPTIVE, *plain_sgd)
    out: Knobs = {"optimizer": "sgd" if optimizer == "momentum" else optimizer}
    if optimizer == "sgd":
        out["optimizer.lr"] = log_uniform(rng, 0.05, 0.2) / (3 if regression else 1)
    elif optimizer == "momentum":
        out |= {"optimizer.lr": log_uniform(rng, 0.01, 0.04) / (3 if regression else 1), "optimizer.momentum": 0.9}
    else:
        low, high = (3e-4, 4e-3) if a["data"] == "digits" else (1e-3, 1e-2)
        out["optimizer.lr"] = log_uniform(rng, low, min(high, 1e-3) if deep and a["data"] == "digits" else high)
    if a["model.activation"] in {"tanh", "sigmoid"}:
        out["model.init"] = pick(rng, "glorot_uniform", "glorot_normal" if deep else "default")
    else:
        out["model.init"] = "he_normal" if deep else pick(rng, "default", "he_normal", "he_uniform")
    if a["data"] == "digits" and not deep:
        out["model.dropout"] = pick(rng, 0.0, 0.0, 0.0, 0.2, 0.5) if a["model.width"] >= 64 else 0.0
        out["model.input_dropout"] = pick(rng, 0.0, 0.0, 0.0, 0.1)
        out["data.label_noise"] = pick(rng, 0.0, 0.0, 0.0, 0.1, 0.3)
    out["schedule"] = pick(rng, "constant", "constant", "cosine")
    if optimizer == "adamw":
        out["optimizer.weight_decay"] = pick(rng, 0.01, 0.05, 0.1)
    elif rng.random() < 0.3:
        out["optimizer.weight_decay"] = log_uniform(rng, 1e-6, 1e-4 if optimizer in ADAPTIVE else 1e-3)
    return out


def classes(a: Knobs) -> bool:
    return a["data"] not in {"line", "waves"}


ODD: list[tuple[str, Knobs]] = [  # sound, though they look unusual: the data they are for, and what is odd
    (
        "digits",
        {"model.depth": 24, "model.width": 32, "model.batchnorm": True, "epochs": 25},
    ),
    ("digits", {"loss.label_smoothing": 0.3}),
    ("digits", {"loss.label_smoothing": 0.6, "epochs": 40}),
    ("digits", {"model.input_dropout": 0.5, "model.width": 128, "epochs": 60}),
    ("digits", {"model.dropout": 0.5, "model.depth": 3, "model.width": 128, "model.activation": "relu", "epochs": 60}),
    ("digits", {"optimizer": "sgd", "optimizer.momentum": 0.99, "optimizer.lr": 0.001, "epochs": 40}),
    ("digits", {"model.depth": 0, "epochs": 60}),
    ("digits", {"model.width": 6, "model.depth": 1, "model.activation": "tanh", "epochs": 80}),
    ("digits", {"data.batch_size": 2, "optimizer": "sgd", "optimizer.lr": 0.005, "epochs": 10}),
    ("digits", {"data.batch_size": 400, "optimizer": "adam", "optimizer.lr": 0.01, "epochs": 100}),
    ("digits", {"optimizer": "adamw", "optimizer.lr": 0.001, "optimizer.weight_decay": 1.0, "epochs": 40}),
    ("digits", {"schedule": "exponential", "schedule.gamma": 0.9, "epochs": 60}),
    ("digits", {"schedule": "step", "schedule.step_size": 10, "epochs": 40}),
    ("digits", {"schedule": "linear", "schedule.warmup": 5, "epochs": 40}),
    ("digits", {"clip_norm": 0.1, "epochs": 40}),
    ("digits", {"loss.name": "focal", "epochs": 40}),
    ("digits", {"loss.name": "mse", "epochs": 40}),
    ("digits", {"data.shuffle": False}),
    ("digits", {"data.label_noise": 0.4, "epochs": 60}),
    ("spirals", {"model.width": 8, "model.depth": 3, "model.activation": "tanh", "optimizer.lr": 0.01, "epochs": 120}),
    ("spirals", {"model.width": 256, "model.depth": 2, "model.activation": "relu", "epochs": 60}),
    ("line", {"data.noise": 1.0, "model.depth": 1}),
    ("waves", {"loss.name": "huber", "epochs": 60}),
    ("waves", {"model.width": 256, "model.depth": 2, "epochs": 60}),
]


def odd(rng: Rng) -> tuple[Knobs, Knobs]:
    """Draw an architecture for one of ODD; return it, and what is odd: it goes before everything else."""
    name, knobs = ODD[rng.integers(len(ODD))]
    while True:
        a = architecture(rng)
        deep = a["model.depth"] > 4
        if a["data"] == name and not deep and not a["model.batchnorm"] and a["data.train_size"] >= min(400, 64):
            break
    unfit = {"optimizer": {"optimizer.weight_decay": 0.0}, "loss.name": {"loss.label_smoothing": 0.0}}
    return a, {key: value for name in unfit if name in knobs for key, value in unfit[name].items()} | knobs
