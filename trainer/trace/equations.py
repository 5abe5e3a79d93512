"""What the optimizers of torch.optim do to a weight, as equations that are printed and computed from one text.

Each equation is `symbol = expression` over numbers or arrays: w weight, g gradient, t step counted from 1, the
optimizer's settings by their own names, and its state by the symbols of STATE. The last one, `update`, is added to w.
Sources: Sutskever et al. 2013 (momentum, Nesterov, as PyTorch has them), Kingma and Ba 2015 (Adam), Reddi et al. 2018
(AMSGrad), Loshchilov and Hutter 2019 (AdamW), Tieleman and Hinton 2012 and Graves 2013 (RMSprop, centred).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STATE = {  # torch.optim's name -> symbol
    "momentum_buffer": "b",
    "exp_avg": "m",
    "exp_avg_sq": "v",
    "max_exp_avg_sq": "v_max",
    "square_avg": "v",
    "grad_avg": "a",
}
MEANING = {
    "d": "weight decay as an L2 penalty: part of the gradient",
    "b": "momentum: what is left of earlier gradients, and this one",
    "m": "first moment: running mean of the gradient",
    "v": "second moment: running mean of its square",
    "v_max": "the largest second moment so far (AMSGrad)",
    "a": "running mean of the gradient, for its variance (centred)",
    "m_hat": "bias correction: m began at 0",
    "v_hat": "bias correction: v began at 0",
    "n": "Nesterov: the momentum looks one step ahead",
    "s": "root of the second moment",
    "decay": "decoupled weight decay: past the moments",
    "update": "",
}
Equations = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Line:
    """One equation with its numbers: symbol = expression = numbers = value."""

    symbol: str
    expression: str
    numbers: str
    value: float
    meaning: str


def equations(name: str, settings: Mapping[str, Any], first: bool) -> Equations | None:
    """The update of a class of torch.optim with these settings; first: of its steps. None where we know none."""
    if name not in KNOWN or settings.get("maximize"):
        return None
    decoupled = name == "AdamW" or settings.get("decoupled_weight_decay", False)
    return KNOWN[name]({**settings, "decoupled": decoupled}, first)


def _direction(settings: Mapping[str, Any]) -> tuple[list[tuple[str, str]], str]:
    """(equations, symbol) of where the loss goes down: the gradient, or with weight decay that of loss + penalty."""
    return ([("d", "g + weight_decay * w")], "d") if settings["weight_decay"] else ([], "g")


def _sgd(settings: Mapping[str, Any], first: bool) -> Equations:
    lines, d = _direction(settings)
    if not settings["momentum"]:
        return [*lines, ("update", f"-lr * {d}")]
    lines.append(("b", d if first else f"momentum * b + (1 - dampening) * {d}"))  # torch does not dampen the first
    if settings["nesterov"]:
        return [*lines, ("n", f"{d} + momentum * b"), ("update", "-lr * n")]
    return [*lines, ("update", "-lr * b")]


def _adam(settings: Mapping[str, Any], first: bool) -> Equations:
    decoupled = settings["decoupled"]  # AdamW
    lines, d = ([], "g") if decoupled else _direction(settings)
    lines += [
        ("m", f"beta1 * m + (1 - beta1) * {d}"),
        ("v", f"beta2 * v + (1 - beta2) * {d}**2"),
        ("m_hat", "m / (1 - beta1**t)"),
    ]
    if settings["amsgrad"]:
        lines += [("v_max", "maximum(v_max, v)"), ("v_hat", "v_max / (1 - beta2**t)")]
    else:
        lines.append(("v_hat", "v / (1 - beta2**t)"))
    step = "lr * m_hat / (sqrt(v_hat) + eps)"
    if decoupled and settings["weight_decay"]:
        return [*lines, ("decay", "-lr * weight_decay * w"), ("update", f"decay - {step}")]
    return [*lines, ("update", f"-{step}")]


def _rmsprop(settings: Mapping[str, Any], first: bool) -> Equations:
    lines, d = _direction(settings)
    lines.append(("v", f"alpha * v + (1 - alpha) * {d}**2"))
    if settings["centered"]:
        lines += [("a", f"alpha * a + (1 - alpha) * {d}"), ("s", "sqrt(v - a**2) + eps")]
    else:
        lines.append(("s", "sqrt(v) + eps"))
    if settings["momentum"]:
        return [*lines, ("b", f"momentum * b + {d} / s"), ("update", "-lr * b")]
    return [*lines, ("update", f"-lr * {d} / s")]


KNOWN = {"SGD": _sgd, "Adam": _adam, "AdamW": _adam, "RMSprop": _rmsprop}


def solve(lines: Equations, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every symbol's value after the equations, in order; of numbers or arrays alike."""
    known = {"sqrt": np.sqrt, "maximum": np.maximum, **values}
    for symbol, expression in lines:
        known[symbol] = eval(expression, {"__builtins__": {}}, known)  # texts of this file alone
    return {key: value for key, value in known.items() if key not in {"sqrt", "maximum"}}


def with_numbers(lines: Equations, values: Mapping[str, float]) -> list[Line]:
    """The equations for one weight, each with the numbers put in."""
    known: dict[str, Any] = dict(values)
    out = []
    for symbol, expression in lines:
        numbers = re.sub(r"[a-z]\w*", functools.partial(_number, known), expression)
        known = solve([(symbol, expression)], known)
        out.append(Line(symbol, expression, numbers, float(known[symbol]), MEANING[symbol]))
    return out


def _number(known: Mapping[str, Any], name: re.Match[str]) -> str:
    if name.group() not in known:
        return name.group()  # a function
    text = f"{known[name.group()]:.6g}"
    return f"({text})" if text.startswith("-") else text


def settings_by_name(group: Mapping[str, Any]) -> dict[str, Any]:
    """A param group's settings under the names of the equations: betas as beta1 and beta2."""
    out = {key: value for key, value in group.items() if key not in {"params", "betas"}}
    betas = group.get("betas", ())
    return out | ({"beta1": betas[0], "beta2": betas[1]} if isinstance(betas, tuple) and len(betas) == 2 else {})
