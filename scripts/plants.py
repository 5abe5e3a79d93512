"""Training faults planted on purpose, and healthy runs beside them: known truth for `scripts.calibrate health`.

An architecture (data, depth, width, activation, batch norm, batch size, epochs) is drawn at random; the runs planted in
it train together in as few stacks as their shapes allow. What a configuration cannot say is changed in the stack
before it trains: the bias of one layer, the labels, the inputs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.cli.app import configure
from trainer.config import Config, Mlp
from trainer.core import data, loop
from trainer.core.data import Dataset
from trainer.core.stack import Stack, Step
from trainer.engine.planning import stack_key
from trainer.judge import health

Rng = np.random.Generator
Knobs = dict[str, Any]
ADAPTIVE = ("adam", "adamw", "rmsprop", "nadam")
HIDDEN = 500  # examples of a generated data set


@dataclass(frozen=True)
class Fault:
    """What is planted, and what must or may be found."""

    name: str
    expected: frozenset[str]  # one of these must be found
    also: frozenset[str]  # these may be found: consequences of the fault
    knobs: Callable[[Rng, Knobs], Knobs] = lambda rng, architecture: {}
    change: Callable[[Rng, Stack, int], None] | None = None  # of one member, before it trains
    inputs: Callable[[Rng, Tensor], Tensor] | None = None  # of a whole stack
    shape: Callable[[Rng], Knobs] | None = None  # its own architecture, if it needs one
    fits: Callable[[Knobs], bool] = lambda architecture: True  # or what it asks of one
    by_outcome: bool = False  # no fault where the run learns all the same


@dataclass
class Case:
    """A trained run: its truth, how it was made, and what health.judge may look at."""

    fault: str  # the name of what was planted, or "" for a control
    made: str
    rows: list[dict[str, float]]
    start: dict[str, float]
    config: dict[str, Any]
    not_finite: health.NotFinite | None

    @property
    def short(self) -> bool:
        """Whether it had no time to learn."""
        return len(self.rows) <= 3

    @property
    def learned(self) -> bool:
        """Whether a control learned; health.py sees neither the accuracy nor the floor."""
        if "eval/train_accuracy" in self.rows[0]:
            top = self.start["target_top_class"]
            return max(row["eval/train_accuracy"] for row in self.rows) > top + 0.4 * (1 - top)
        return min(row["eval/train_loss"] for row in self.rows) < 0.5 * self.start["guessing_loss"]


# ------------------------------------------------------------------ data


@functools.cache
def _dataset(name: str) -> Dataset:
    """The data sets of conf/data, and three that it does not have, under the name of one that it has."""
    base = configure([f"data={_configured(name)}"]).data
    if name == _configured(name):
        return data.load(base)
    rng = np.random.default_rng(0)
    x, y = {"moons": _moons, "blobs": _blobs, "waves": _waves}[name](rng)
    return data.assemble(dataclasses.replace(base, normalisation="standard"), x, y, x[:50], y[:50])


def _configured(name: str) -> str:
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


# ------------------------------------------------------------------ healthy


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
        **pick(rng, {}, {}, {"loss.label_smoothing": 0.1} if _classes({"data": name}) else {}),
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


# ------------------------------------------------------------------ faults


def _bias(value: Callable[[Rng], float]) -> Callable[[Rng, Stack, int], None]:
    """All biases of one hidden layer."""

    def change(rng: Rng, stack: Stack, k: int) -> None:
        layer = int(rng.integers(0, _depth(stack, k)))
        with torch.no_grad():
            stack.parameters[f"layers.{layer}.bias"][k].fill_(value(rng))

    return change


def _output(part: str, low: float, high: float) -> Callable[[Rng, Stack, int], None]:
    """The output layer's weights scaled up, or the bias of its first unit lifted."""

    def change(rng: Rng, stack: Stack, k: int) -> None:
        parameter = stack.parameters[f"layers.{_depth(stack, k)}.{part}"].detach()[k]
        if part == "weight":
            parameter *= log_uniform(rng, low, high)
        else:
            parameter[0] += log_uniform(rng, low, high)

    return change


def _labels(share: float) -> Callable[[Rng, Stack, int], None]:
    """Turn this share of the training labels, drawn at random, into one class."""

    def change(rng: Rng, stack: Stack, k: int) -> None:
        labels = stack.train_y_KN[k]
        labels[torch.from_numpy(rng.random(len(labels)) < share)] = int(rng.integers(0, stack.classes))

    return change


def _depth(stack: Stack, k: int) -> int:
    network = stack.members[k].config.model
    assert isinstance(network, Mlp)
    return network.depth


def _deep(activations: Sequence[str], low: int, high: int) -> Callable[[Rng], Knobs]:
    """Digits in a deep network."""
    return lambda rng: {
        "data": "digits",
        "data.train_size": 800,
        "data.batch_size": pick(rng, 32, 64),
        "epochs": int(rng.integers(10, 20)),
        "model.depth": int(rng.integers(low, high + 1)),
        "model.width": pick(rng, 16, 32, 64),
        "model.activation": pick(rng, *activations),
        "model.batchnorm": False,
    }


def _valley(rng: Rng) -> Knobs:
    """A linear model in full batches: momentum near 1 lets it swing through its minimum again and again."""
    return {
        "data": "line",
        "data.train_size": 64,
        "data.batch_size": 64,
        "epochs": int(rng.integers(40, 100)),
        "model.depth": 0,
        "model.width": 8,
        "model.activation": "relu",
        "model.batchnorm": False,
    }


def _rate(sgd: tuple[float, float], adaptive: tuple[float, float]) -> Callable[[Rng, Knobs], Knobs]:
    """Any optimizer with a learning rate between these bounds; momentum 0.9 counts tenfold."""

    def knobs(rng: Rng, a: Knobs) -> Knobs:
        optimizer = pick(rng, "sgd", "momentum", "adam", "adamw", "rmsprop")
        no_decay = {"optimizer.weight_decay": 0.0}
        if optimizer in ADAPTIVE:
            return {"optimizer": optimizer, "optimizer.lr": log_uniform(rng, *adaptive)} | no_decay
        momentum = 0.9 if optimizer == "momentum" else 0.0
        rate = log_uniform(rng, *sgd) * (1 - momentum)
        return {"optimizer": "sgd", "optimizer.lr": rate, "optimizer.momentum": momentum} | no_decay

    return knobs


def _decay(rng: Rng, a: Knobs) -> Knobs:
    optimizer = pick(rng, "sgd", "adam", "adamw")
    decay = log_uniform(rng, *{"sgd": (0.3, 3), "adam": (1, 10), "adamw": (50, 300)}[optimizer])
    rate = 0.1 if optimizer == "sgd" else 1e-3
    return {
        "optimizer": optimizer,
        "optimizer.lr": rate,
        "optimizer.weight_decay": decay,
        "optimizer.momentum": 0.0 if optimizer == "sgd" else None,
        "data.label_noise": 0.0,
        "schedule": "constant",
    }


def _plain(a: Knobs) -> bool:
    return not a["model.batchnorm"]


def _classes(a: Knobs) -> bool:
    return a["data"] not in {"line", "waves"}


def _fault(name: str, expected: str, also: str = "", **parts: Any) -> Fault:
    return Fault(name, frozenset(expected.split()), frozenset(also.split()), **parts)


STUCK = "loss_does_not_move one_class "
OFF_SCALE = STUCK + (
    "saturated_units dead_units loss_at_start learning_rate_too_high not_finite exploding_gradients vanishing_gradients"
)
FAULTS = [
    _fault(
        "deep sigmoid",
        "vanishing_gradients",
        STUCK,
        shape=_deep(["sigmoid"], 6, 25),
        knobs=lambda rng, a: {"model.init": pick(rng, "default", "glorot_uniform")},
    ),
    _fault(
        "deep ReLU, init too small by sqrt(6)",
        "vanishing_gradients",
        STUCK + "dead_units",
        shape=_deep(["relu"], 14, 30),
        knobs=lambda rng, a: {"model.init": "default"},
    ),
    _fault(
        "deep, init scaled down",
        "vanishing_gradients",
        STUCK + "dead_units",
        shape=_deep(["tanh", "relu", "gelu"], 8, 20),
        knobs=lambda rng, a: {"model.init": "he_normal", "model.init_scale": float(rng.uniform(0.1, 0.4))},
    ),
    _fault(
        "deep, init scaled up",
        "exploding_gradients",
        "loss_at_start not_finite learning_rate_too_high dead_units",
        shape=_deep(["relu", "gelu", "silu"], 8, 20),
        knobs=lambda rng, a: {"model.init": "he_normal", "model.init_scale": float(rng.uniform(2.5, 5))},
    ),
    _fault(
        "all biases far below zero",
        "dead_units",
        STUCK + "no_gradient loss_at_start",
        knobs=lambda rng, a: {"model.bias_init": -log_uniform(rng, 6, 40)},
        fits=lambda a: a["model.activation"] == "relu" and _plain(a),
    ),
    _fault(
        "the biases of a layer far below zero",
        "dead_units",
        STUCK + "no_gradient",
        change=_bias(lambda rng: -log_uniform(rng, 15, 60)),
        fits=lambda a: a["model.activation"] == "relu" and _plain(a),
    ),
    _fault(
        "weights too large for tanh or sigmoid",
        "saturated_units",
        STUCK + "loss_at_start exploding_gradients",
        knobs=lambda rng, a: {"model.init_scale": log_uniform(rng, 12, 60), "model.init": "glorot_normal"},
        fits=lambda a: a["model.activation"] in {"tanh", "sigmoid"} and _plain(a) and a["data"] in {"digits", "blobs"},
    ),
    _fault(
        "the biases of a layer saturate it",
        "saturated_units",
        STUCK + "vanishing_gradients",
        change=_bias(lambda rng: pick(rng, -1.0, 1.0) * log_uniform(rng, 10, 40)),
        fits=lambda a: a["model.activation"] in {"tanh", "sigmoid"} and _plain(a),
    ),
    _fault("inputs too large", "inputs_not_normalised", OFF_SCALE, inputs=lambda rng, x: x * log_uniform(rng, 20, 500)),
    _fault(
        "inputs far from zero", "inputs_not_normalised", OFF_SCALE, inputs=lambda rng, x: x + log_uniform(rng, 20, 200)
    ),
    _fault(
        "one feature out of scale",
        "inputs_not_normalised",
        OFF_SCALE,
        inputs=lambda rng, x: x * (1 + (torch.arange(x.shape[1]) == x.shape[1] // 2) * log_uniform(rng, 100, 1000)),
        fits=lambda a: a["data"] in {"digits", "blobs", "waves"},
    ),
    _fault(
        "inputs too small",
        "inputs_not_normalised",
        OFF_SCALE + " learning_rate_too_low",
        inputs=lambda rng, x: x * log_uniform(rng, 1e-5, 1e-2),
    ),
    _fault(
        "learning rate far too high",
        "learning_rate_too_high",
        STUCK + "not_finite oscillation saturated_units dead_units exploding_gradients",
        knobs=_rate((10, 100), (0.3, 3)),
        by_outcome=True,
    ),
    _fault("learning rate far too low", "learning_rate_too_low", STUCK, knobs=_rate((1e-7, 3e-5), (1e-8, 5e-6))),
    _fault("learning rate zero", "learning_rate_too_low", STUCK, knobs=lambda rng, a: {"optimizer.lr": 0.0}),
    _fault(
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
    _fault(
        "weight decay far too strong",
        "weight_decay_dominates",
        STUCK + "vanishing_gradients dead_units",
        knobs=_decay,
        fits=lambda a: a["data"] != "line",  # a line fits with small weights
    ),
    _fault(
        "overflow",
        "not_finite learning_rate_too_high",
        "saturated_units dead_units",
        knobs=lambda rng, a: {
            "optimizer": "sgd",
            "optimizer.momentum": 0.0,
            "optimizer.lr": log_uniform(rng, 1e8, 1e30),
        },
        fits=_plain,
    ),
    _fault("one class in the labels", "one_class", "dead_units", change=_labels(1.0), fits=_classes),
    _fault("97 % of the labels one class", "one_class", "dead_units", change=_labels(0.97), fits=_classes),
    _fault(
        "labels unrelated to inputs",
        "labels_unrelated loss_does_not_move",
        "one_class",
        knobs=lambda rng, a: {"data.label_noise": 1.0},
        fits=_classes,
    ),
    _fault(
        "output weights too large",
        "loss_at_start",
        "learning_rate_too_high exploding_gradients not_finite dead_units",
        change=_output("weight", 30, 300),
        fits=lambda a: a["data"] in {"digits", "blobs"},
    ),
    _fault(
        "output bias too large",
        "loss_at_start",
        "one_class saturated_units",
        change=_output("bias", 10, 40),
        fits=_classes,
    ),
    _fault(
        "momentum that swings",
        "oscillation",
        "learning_rate_too_high",
        shape=_valley,
        knobs=lambda rng, a: {
            "optimizer": "sgd",
            "optimizer.lr": log_uniform(rng, 0.05, 0.2),
            "optimizer.momentum": float(rng.uniform(0.97, 0.998)),
            "optimizer.weight_decay": 0.0,
            "schedule": "constant",
        },
    ),
    _fault(
        "weights all but zero",
        "vanishing_gradients no_gradient loss_does_not_move dead_units",
        STUCK + "learning_rate_too_high",
        knobs=lambda rng, a: {"model.init": "normal", "model.init_std": 1e-30, "model.bias_init": 0.0},
        fits=lambda a: a["data"] == "digits" and _plain(a) and a["model.depth"] > 1 and a["model.activation"] == "relu",
    ),
]
BY_NAME = {fault.name: fault for fault in FAULTS}


# ------------------------------------------------------------------ training them


def cases(rng: Rng, controls: int = 6, faults: int = 8) -> list[Case]:
    """Draw an architecture and train its runs: controls and faults that fit it, or short controls."""
    if rng.random() < 0.2:
        fault = pick(rng, *(fault for fault in FAULTS if fault.shape))
        return train_cases(rng, fault.shape(rng), [fault] * (faults // 2))
    a = architecture(rng)
    if rng.random() < 0.1:
        return train_cases(rng, short(a), [None] * controls)
    fitting = [fault for fault in FAULTS if not fault.shape and fault.fits(a)]
    if rng.random() < 0.2:  # inputs are those of a whole stack
        fault = pick(rng, *(fault for fault in fitting if fault.inputs))
        return train_cases(rng, a, [fault] * (faults // 2))
    planted = [pick(rng, *(fault for fault in fitting if not fault.inputs)) for _ in range(faults)]
    return train_cases(rng, a, [*planted, *[None] * controls])


def train_cases(rng: Rng, a: Knobs, planted: Sequence[Fault | None]) -> list[Case]:
    """Train these runs of one architecture, in as few stacks as their shapes allow."""
    stacks: dict[object, list[tuple[Fault | None, Config, str]]] = {}
    for fault in planted:
        drawn = a | healthy_knobs(rng, a) | (fault.knobs(rng, a) if fault else {})
        drawn |= {"seed": int(rng.integers(2**31)), "data": _configured(a["data"])}
        if drawn["optimizer"] != "sgd":
            drawn.pop("optimizer.momentum", None)
        overrides = [f"{key}={value}" for key, value in drawn.items() if value is not None]
        config = configure(overrides)
        stacks.setdefault(stack_key(config), []).append((fault, config, f"{a['data']}: {' '.join(overrides)}"))
    return [case for group in stacks.values() for case in _train(rng, _dataset(a["data"]), group)]


def _train(rng: Rng, dataset: Dataset, group: Sequence[tuple[Fault | None, Config, str]]) -> list[Case]:
    faults, configs, made = zip(*group, strict=True)
    if faults[0] is not None and faults[0].inputs:
        dataset = dataclasses.replace(dataset, x=faults[0].inputs(rng, dataset.x))
    stack = Stack(configs, dataset)
    for k, fault in enumerate(faults):
        if fault is not None and fault.change:
            fault.change(rng, stack, k)
    kept = Kept(stack)
    loop.train(stack, kept)
    return [
        Case(fault.name if fault else "", text, member.rows, member.start, config.flat(), kept.first.get(member.index))
        for fault, config, text, member in zip(faults, configs, made, kept.members, strict=True)
    ]


class Kept:
    """An observer that finds the first step of each member that is not finite."""

    def __init__(self, stack: Stack) -> None:
        self.members = list(stack.members)
        self.tags = stack.step_tags
        self.first: dict[int, health.NotFinite] = {}
        self.steps: list[int] = []
        self.measured: list[Tensor] = []

    def checkpoint(self, stack: Stack) -> None:
        """Nothing is saved."""

    def wants(self, step: Step) -> bool:
        """Every step."""
        return True

    def step(self, number: int, measured_MK: Tensor, learning_rates: list[float]) -> None:
        """Keep a step until its epoch ends."""
        self.steps.append(number)
        self.measured.append(measured_MK)

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Look through the epoch's steps."""
        measured_SMK = torch.stack(self.measured).numpy()
        for k, member in enumerate(stack.members):
            found = health.first_not_finite(np.array(self.steps), self.tags, measured_SMK[:, :, k])
            if found:
                self.first.setdefault(member.index, found)
        self.steps, self.measured = [], []

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Nothing to write."""
