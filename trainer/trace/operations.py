"""Writes down what a function computes, one operation of torch after the other: v1, v2, ... as in a Wengert list.

Each operation is computed once more on copies of its inputs. That gives its own derivative, apart from all others, and
the chain rule is applied to those. Griewank and Walther 2008, "Evaluating Derivatives", chapters 2 and 3.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from trainer.trace import facts, graph

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floor_divide": "//", "remainder": "%", "pow": "**"}
INFIX |= {"matmul": "@", "gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!="}
SWAPPED = {"__rsub__": "-", "__rdiv__": "/", "__rpow__": "**", "__rfloordiv__": "//", "__rmod__": "%"}
TO_PYTHON = {"item": "item", "__float__": "float", "__int__": "int", "__bool__": "bool", "tolist": "tolist"}
ATTRIBUTES = {"data", "T", "mT", "H", "mH", "real", "imag"}  # those that are operations
SHAPE_ALONE = re.compile(r"(zeros|ones|full|empty|rand|randn)_like|new_\w+")  # what they take from a tensor
IN_PLACE = re.compile(r"[a-z0-9_]*[a-z0-9]_|__setitem__")
Pull = Callable[[Tensor], Sequence[Tensor | None]]  # derivative by the result -> by each input


@dataclass
class Row:
    """An operation while it is written down: what is shown of it, and how a derivative passes through it."""

    shown: facts.Operation
    result: Tensor | None = None
    node: Any = None  # of the graph, as it was then: an operation in place gives its tensor another
    given: Sequence[Tensor] = ()  # its inputs that have names
    pull: Pull | None = None
    writes_into: Tensor | None = None
    recorded: bool = True  # by torch; not under no_grad


class Recorder(TorchFunctionMode):
    """Writes down what runs inside `with`, starting from inputs that have names."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.names = {id(tensor): (name, tensor, tensor.grad_fn) for name, tensor in inputs.items()}
        self.labels: dict[int, tuple[str, Tensor]] = {}  # results that have no derivative: comparisons
        self.leaves = {id(tensor): name for name, tensor in inputs.items()}
        self.numbers = itertools.count(1)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = func.__self__.__name__
            if name not in ATTRIBUTES:
                return func(*args, **kwargs)
        tensors = _tensors([args, kwargs])
        given = [tensor for tensor in tensors if self.name(tensor)]
        is_labelled = any(id(tensor) in self.labels for tensor in tensors)
        if not (given or is_labelled) or SHAPE_ALONE.fullmatch(name):
            return func(*args, **kwargs)
        expression = self._expression(name, args, kwargs)
        copies = {id(t): t.detach().clone().requires_grad_(t.requires_grad) for t in tensors}
        inputs = [self.name(tensor) for tensor in given]
        if name in TO_PYTHON:
            with warnings.catch_warnings():  # torch's, that a number is taken out: the row says so
                warnings.simplefilter("ignore")
                result = func(*args, **kwargs)
            self._left_torch(name, expression, inputs, result)
            return result
        result = func(*args, **kwargs)
        writes_into = args[0] if IN_PLACE.fullmatch(name) else None
        for i, value in enumerate(_tensors([args[0] if name == "__setitem__" else result])):
            if not value.is_floating_point():
                self.labels[id(value)] = (expression, value)
                continue
            row = self._add(expression, value, inputs, given)
            if writes_into is not None:
                row.writes_into, row.shown.version = writes_into, value._version
            if value.requires_grad:
                row.pull = _pull(func, args, kwargs, copies, [id(t) for t in given], i)
        return result

    def name(self, tensor: Tensor) -> str:
        """Return a tensor's name, '' where it comes from no input; one that nobody saw being made gets one."""
        name, known, grad_fn = self.names.get(id(tensor), ("", None, None))
        if known is tensor and grad_fn is tensor.grad_fn:
            return name
        if tensor.grad_fn is None:
            return ""
        return self._add_unseen(tensor)

    def _add_unseen(self, tensor: Tensor) -> str:
        """Write down an operation that is in the graph alone: of a class of the user's own, or through a view."""
        node: Any = tensor.grad_fn
        made = {row.node: row for row in self.rows if row.node is not None}
        followed = [following for following, _ in node.next_functions]
        inputs, given = [], []
        for following in followed:
            if following is not None:
                row, leaf = made.get(following), getattr(following, "variable", None)
                inputs.append(row.shown.name if row else self.leaves.get(id(leaf), "?"))
                given.append(row.result if row else leaf)
        operation = re.sub(r"Backward\d*$", "", graph.name(node))
        row = self._add(f"{operation}({', '.join(inputs)})", tensor, inputs, given)
        row.shown.is_own = isinstance(node, torch.autograd.function.BackwardCFunction)
        if row.shown.is_own:
            before = itertools.dropwhile(lambda row: row.recorded, reversed(self.rows))
            for inside in itertools.takewhile(lambda row: not row.recorded, before):
                inside.shown.kind = "inside"
        if "?" not in inputs:
            row.pull = lambda bar: _fitting(_called(node, bar), followed, given)
        return row.shown.name

    def _add(self, expression: str, value: Tensor, inputs: list[str], given: Sequence[Tensor]) -> Row:
        name = f"v{next(self.numbers)}"
        kind = "" if value.requires_grad else "cut" if any(t.requires_grad for t in given) else "constant"
        grad_fn = None if value.grad_fn is None else graph.name(value.grad_fn)
        shown = facts.Operation(name, expression, inputs, value.detach().tolist(), grad_fn, kind)
        self.rows.append(Row(shown, value, value.grad_fn, given, recorded=torch.is_grad_enabled()))
        self.names[id(value)] = (name, value, value.grad_fn)
        return self.rows[-1]

    def _left_torch(self, name: str, expression: str, inputs: list[str], result: Any) -> None:
        """Write down a number that Python took out of a tensor: to choose a branch, or to go on with it."""
        is_branch = name == "__bool__"
        text = expression if is_branch else f"{TO_PYTHON[name]}({expression})"
        kind = "branch" if is_branch else "number"
        self.rows.append(Row(facts.Operation("", text, inputs, result, None, kind)))

    def _expression(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        shown = [self._show(value) for value in args]
        plain = name if name.startswith("__") else name.removesuffix("_")
        if name in TO_PYTHON:
            return shown[0]
        if plain in INFIX and len(args) == 2:
            return f"{shown[0]} {INFIX[plain]} {shown[1]}"
        if name in SWAPPED:
            return f"{shown[1]} {SWAPPED[name]} {shown[0]}"
        if name == "__getitem__":
            return f"{shown[0]}[{shown[1]}]"
        if name == "__setitem__":
            return f"{shown[0]} with [{shown[1]}] = {shown[2]}"
        if name in ATTRIBUTES:
            return f"{shown[0]}.{name}"
        shown += [
            f"{key}={self._show(value)}" for key, value in kwargs.items() if value is not None and value is not False
        ]
        return f"-{shown[0]}" if name == "neg" else f"{plain}({', '.join(shown)})"

    def _show(self, value: Any) -> str:
        if isinstance(value, Tensor):
            text, known = self.labels.get(id(value)) or (self.name(value), value)
            if text and known is value:
                return text
            return f"{value.item():.4g}" if value.ndim == 0 else f"tensor{tuple(value.shape)}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(self._show, value)) + "]"
        if isinstance(value, slice):
            return ":".join("" if end is None else self._show(end) for end in (value.start, value.stop))
        return f"{value:g}" if isinstance(value, float) else str(value)


def _pull(func: Any, args: Any, kwargs: Any, copies: Mapping[int, Tensor], inputs: Sequence[int], place: int) -> Pull:
    """Compute an operation again, on copies of its inputs, and return how derivatives pass through it."""
    leaves = [copies[one] for one in inputs if copies[one].requires_grad]
    with torch.enable_grad():
        again = {one: leaf.clone() for one, leaf in copies.items()}  # what is done in place is not done to a leaf
        args, kwargs = tree_map_only(Tensor, lambda tensor: again[id(tensor)], (args, kwargs))
        result = func(*args, **kwargs)
    value = _tensors([args[0] if result is None else result])[place]

    def pull(bar: Tensor) -> list[Tensor | None]:
        found = iter(torch.autograd.grad(value, leaves, bar, retain_graph=True, allow_unused=True))
        return [next(found) if copies[one].requires_grad else None for one in inputs]

    return pull


def chain_rule(recorder: Recorder, result: str) -> dict[str, Tensor]:
    """Return the derivative of a single number by everything that it came from, by name.

    Fills in the gradient and terms of each operation.
    """
    bars: dict[str, Tensor] = {}
    for row in reversed(recorder.rows):
        if row.shown.name == result and row.result is not None:
            bars[result] = torch.ones_like(row.result)
        bar = bars.get(row.shown.name)
        if bar is None or row.pull is None:
            continue
        row.shown.gradient = bar.tolist()
        own = row.pull(torch.ones_like(bar)) if bar.ndim == 0 else [None] * len(row.given)
        for name, part, alone in zip(row.shown.inputs, row.pull(bar), own, strict=False):
            if part is not None:
                bars[name] = bars[name] + part if name in bars else part
                single = None if alone is None or alone.ndim else alone.item()
                row.shown.terms[name] = facts.Term(single, part.tolist())
    return bars


def overwritten(recorder: Recorder) -> str | None:
    """Say which tensor that is kept for backward was overwritten in place, and by what; None where none was."""
    nodes = {row.node for row in recorder.rows if row.node is not None}
    for at, row in enumerate(recorder.rows):
        if row.node is None:
            continue
        for node in graph.above(row.node, nodes - {row.node})[0]:
            for key in (key for key in dir(node) if key.startswith("_saved_")):
                try:
                    getattr(node, key)
                except RuntimeError as error:
                    versions = re.search(r"at version (\d+); expected version (\d+)", str(error))
                    if versions is None:
                        continue
                    own = [*row.given, row.result]
                    later = (w for w in recorder.rows[at + 1 :] if w.writes_into is not None)
                    by = next((w.shown for w in later if any(w.writes_into is tensor for tensor in own)), None)
                    said = f", by {by.name} = {by.expression} in place" if by else ""
                    return (
                        f"{graph.name(node)}, of {row.shown.name} = {row.shown.expression}, keeps its "
                        f"{key.removeprefix('_saved_')} as it was at version {versions[2]}; it has been overwritten "
                        f"since and is at version {versions[1]}{said}"
                    )
    return None


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dictionaries, each once, in order."""
    return list({id(leaf): leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)}.values())


def _called(node: Any, bar: Tensor) -> tuple[Tensor | None, ...]:
    """What an operation of the graph hands on. One of a class of Python's is called by another name."""
    parts = node.apply(bar) if hasattr(node, "apply") else node(bar)
    return parts if isinstance(parts, tuple) else (parts,)


def _fitting(parts: Sequence[Tensor | None], followed: Sequence[Any], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """The parts that lead on, in the shapes of their inputs: operations leave that to autograd."""
    if len(parts) != len(followed):  # one for each argument of a user's forward, None for what is no tensor
        parts = [part for part in parts if part is not None]
    leading = [part for part, following in zip(parts, followed, strict=False) if following is not None]
    return [None if part is None else part.sum_to_size(x.shape) for part, x in zip(leading, inputs, strict=False)]
