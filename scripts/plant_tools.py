"""What training faults are made of: knobs, and changes of a stack before it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.healthy import ADAPTIVE, Knobs, Rng, log_uniform, pick
from trainer.config import Mlp
from trainer.core.stack import Stack


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


def bias(value: Callable[[Rng], float]) -> Callable[[Rng, Stack, int], None]:
    """All biases of one hidden layer."""

    def change(rng: Rng, stack: Stack, k: int) -> None:
        layer = int(rng.integers(0, _depth(stack, k)))
        with torch.no_grad():
            stack.parameters[f"layers.{layer}.bias"][k].fill_(value(rng))

    return change


def output(part: str, low: float, high: float) -> Callable[[Rng, Stack, int], None]:
    """The output layer's weights scaled up, or the bias of its first unit lifted."""

    def change(rng: Rng, stack: Stack, k: int) -> None:
        parameter = stack.parameters[f"layers.{_depth(stack, k)}.{part}"].detach()[k]
        if part == "weight":
            parameter *= log_uniform(rng, low, high)
        else:
            parameter[0] += log_uniform(rng, low, high)

    return change


def labels(share: float) -> Callable[[Rng, Stack, int], None]:
    """Turn this share of the training labels, drawn at random, into one class."""

    def change(rng: Rng, stack: Stack, k: int) -> None:
        labels = stack.train_y_KN[k]
        labels[torch.from_numpy(rng.random(len(labels)) < share)] = int(rng.integers(0, stack.classes))

    return change


def _depth(stack: Stack, k: int) -> int:
    network = stack.members[k].config.model
    assert isinstance(network, Mlp)
    return network.depth


def deep(activations: Sequence[str], low: int, high: int) -> Callable[[Rng], Knobs]:
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


def valley(rng: Rng) -> Knobs:
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


def rate(sgd: tuple[float, float], adaptive: tuple[float, float]) -> Callable[[Rng, Knobs], Knobs]:
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


def decay(rng: Rng, a: Knobs) -> Knobs:
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


def digits(rng: Rng) -> Knobs:
    """Digits in a network of one to three layers."""
    return {
        "data": "digits",
        "data.train_size": pick(rng, 400, 800),
        "data.batch_size": pick(rng, 16, 32),
        "epochs": int(rng.integers(15, 30)),
        "model.depth": int(rng.integers(1, 4)),
        "model.width": pick(rng, 32, 64, 128),
        "model.activation": pick(rng, "relu", "tanh", "gelu"),
        "model.batchnorm": False,
    }


def narrow(rng: Rng, a: Knobs) -> Knobs:
    """One layer, or all, of a unit or two."""
    narrow, width = pick(rng, 1, 1, 2), pick(rng, 32, 64)
    if rng.random() < 0.5:
        return {"model.width": narrow}
    depth = int(rng.integers(2, 4))
    widths = [width] * depth
    widths[rng.integers(depth)] = narrow
    return {"model.depth": depth, "model.width": str(widths).replace(" ", "")}


def rescale(stack: Stack, k: int, scale: float, offset: float) -> None:
    """Give a member other training targets."""
    stack.train_y_KN[k] = stack.train_y_KN[k] * scale + offset


def few_steps(rng: Rng, a: Knobs) -> Knobs:
    """Give all examples in one step."""
    whole = pick(rng, {"data.batch_size": 2000}, {"accumulate": 200})
    rate = {"optimizer": "sgd", "optimizer.lr": log_uniform(rng, 0.02, 0.1), "optimizer.weight_decay": 0.0}
    return whole | rate | {"epochs": int(rng.integers(5, 25))}


def ends_early(rng: Rng, a: Knobs) -> Knobs:
    """Choose a schedule that is over in the first epochs."""
    step = {"schedule.step_size": float(rng.uniform(0.05, 0.3)), "schedule.gamma": float(rng.uniform(0.05, 0.2))}
    exponential = {"schedule": "exponential", "schedule.gamma": log_uniform(rng, 1e-5, 1e-2)}
    return pick(rng, {"schedule": "step", **step}, exponential) | {"schedule.warmup": 0}


def nan(rng: Rng, stack: Stack, k: int) -> None:
    """Put NaN into the output layer."""
    with torch.no_grad():
        stack.parameters[f"layers.{_depth(stack, k)}.weight"][k].view(-1)[0] = math.nan


def plain(a: Knobs) -> bool:
    return not a["model.batchnorm"]


def fault(name: str, expected: str, also: str = "", **parts: Any) -> Fault:
    return Fault(name, frozenset(expected.split()), frozenset(also.split()), **parts)
