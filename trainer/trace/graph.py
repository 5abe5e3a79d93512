"""Walks the graph that a forward pass leaves behind: from loss.grad_fn along next_functions to AccumulateGrad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.trace import facts
from trainer.trace.network import Point

BY_NAME = {  # kept tensors that no one else holds
    ("NativeBatchNormBackward0", "result1"): "mean of the batch",
    ("NativeBatchNormBackward0", "result2"): "1 / sqrt(variance of the batch + eps)",
    ("LogSoftmaxBackward0", "result"): "log of the softmax",
    ("NllLossBackward0", "self"): "log of the softmax",
}
Operation = Any  # torch.autograd.graph.Node: one that Python code defined, or one of PyTorch's own


def nodes(loss: Tensor, points: Sequence[Point], parameters: Mapping[str, Tensor]) -> list[facts.Node]:
    """List every operation below the loss once, depth first, first branch first."""
    numbers: dict[Operation, int] = {}
    stack = [loss.grad_fn]
    while stack:
        operation = stack.pop()
        if operation not in numbers:
            numbers[operation] = len(numbers)
            stack += reversed(_next(operation))
    made = {point.grad_fn: point for point in reversed(points)}
    names = {id(parameter): key for key, parameter in parameters.items()}
    out = []
    for operation, number in numbers.items():
        what, shape = None, None
        if hasattr(operation, "variable"):  # AccumulateGrad
            what, shape = names.get(id(operation.variable)), list(operation.variable.shape)
        elif operation in made:
            what, shape = f"output of {made[operation].name}", list(made[operation].shown.shape)
            what = what.removeprefix("output of ") if what.endswith(" input") else what
        out.append(facts.Node(number, name(operation), what, shape, [numbers[n] for n in _next(operation)]))
    return out


def name(operation: Operation) -> str:
    """AddmmBackward0; of a class that Python code defines, its own name with Backward."""
    return operation.name().removeprefix("torch::autograd::")


def _next(operation: Operation) -> list[Operation]:
    return [following for following, _ in operation.next_functions if following is not None]


def above(start: Operation, ends: Iterable[Operation]) -> tuple[list[Operation], list[Operation]]:
    """(operations from `start` on, not beyond `ends` or parameters; the ends and AccumulateGrads that are met)."""
    stops = set(ends)
    seen, met, stack = [], [], [start]
    while stack:
        operation = stack.pop()
        if operation is None or operation in seen or operation in met:
            continue
        if operation is not start and (operation in stops or hasattr(operation, "variable")):
            met.append(operation)
            continue
        seen.append(operation)
        stack += reversed(_next(operation))
    return seen, met


def saved(
    operation: Operation, known: Mapping[tuple[int, int], tuple[str, list[int]]], single: bool = False
) -> list[facts.Saved]:
    """The tensors that an operation keeps for its backward, those of one number only where `single`.

    known: `address` -> name, shape.
    """
    kept = {
        key.removeprefix("_saved_"): value
        for key in dir(operation)
        if key.startswith("_saved_") and isinstance(value := _read(operation, key), Tensor)
    }
    if isinstance(operation, torch.autograd.function.BackwardCFunction):
        kept = {f"saved_tensors[{i}]": value for i, value in enumerate(operation.saved_tensors)}
    out = []
    for key, value in kept.items():
        if not (value.ndim or single):
            continue
        what, shape = known.get(address(value), (None, []))
        if what and shape != list(value.shape):
            what += ", transposed" if shape == list(value.shape)[::-1] else ", reshaped"
        what = what or BY_NAME.get((name(operation), key))
        out.append(facts.Saved(name(operation), key, list(value.shape), what))
    return out


def address(value: Tensor) -> tuple[int, int]:
    """What two tensors share that are views of the same numbers."""
    return value.data_ptr(), value.numel()


def _read(operation: Operation, key: str) -> Any:
    try:
        return getattr(operation, key)
    except RuntimeError:  # overwritten in place since: backward will refuse it too
        return None
