"""The network of a run as readers know it, a plain torch.nn module, on the run's own data and random streams.

Shapes: B example of a batch, F features of a layer. Everything is float64 on the CPU, so that all of it can be proven.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer import config as cfg
from trainer.config import Config, ConfigError, CustomModel, Mlp
from trainer.core import data as datasets
from trainer.core import networks, own_module
from trainer.core.dropout import StackedDropout
from trainer.core.gradients import clip_factor_K, norms_PK, total_norm_K
from trainer.core.loop import check_functions
from trainer.core.optimizers import MemberOptimizers
from trainer.core.stack import Stack

Batch = tuple[Tensor, Tensor]  # examples (B, *shape), targets


class MemberDropout(nn.Dropout):
    """nn.Dropout with the masks that the run draws in training: x (B, F) -> x * factor."""

    def __init__(self, stacked: StackedDropout, rate: float) -> None:
        super().__init__(rate)
        self.draw = stacked.factor

    def _get_name(self) -> str:
        return "Dropout"

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        self.factor = self.draw(input.T[None])[0].T
        return input * self.factor


class Subject:
    """One run before its first step: its plain network, its first batches, its loss, its optimizer."""

    def __init__(self, config: Config, steps: int) -> None:
        """steps: optimizer steps whose batches there are. Raises ConfigError as training does."""
        self.config = config
        self.dataset = datasets.load(config.data, dtype=torch.float64)
        self.stack = Stack([config], self.dataset)
        with _in_float64("the loss", "output"):
            check_functions(self.stack)
        self.network = _plain(self.stack)
        self.steps = steps
        self.rows = list(itertools.islice(_rows(self.stack), steps))
        self.rewind = self._moment(weights=False)
        self.restart = self._moment(weights=True)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What the optimizer updates, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def _moment(self, weights: bool) -> Callable[[], None]:
        """Return a function that puts buffers and random streams (and weights) back to what they are now."""
        tensors = [*self.network.buffers(), *(self.network.parameters() if weights else ())]
        values = [tensor.detach().clone() for tensor in tensors]
        noises = getattr(self.stack.model, "noises", {})
        streams = {key: noise.member_state(0) for key, noise in noises.items()}
        generator = torch.get_rng_state()

        @torch.no_grad()
        def put_back() -> None:
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
            torch.set_rng_state(generator)
            for key, noise in noises.items():
                noise.load_member_states([streams[key]])

        return put_back

    def batches(self, t: int) -> list[Batch]:
        """The batches of a step, counted from 0."""
        own_shape = isinstance(self.config.model, CustomModel)
        shape = self.dataset.shape if own_shape else (self.dataset.in_features,)
        return [(self.dataset.x[rows].view(-1, *shape), targets) for rows, targets in self.rows[t]]

    def output(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, O). Raises ConfigError where a user's module fails."""
        with _in_float64("forward", "x"):
            return own_module.outputs(self.network, x, self.dataset.out_features)

    def losses(self, batches: Sequence[Batch]) -> Tensor:
        """Every example's share of the step's loss, (N,): their sum is the loss, a mean over the step's examples.

        Raises ConfigError where a loss or module of the user's own fails.
        """
        outputs = [self.output(x) for x, _ in batches]
        with _in_float64("the loss", "output"):
            parts = [self.stack.losses_KB(output, y) for output, (_, y) in zip(outputs, batches, strict=True)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)) / sum(map(len, parts))

    def optimizers(self, config: cfg.Optimizer) -> MemberOptimizers:
        """The code that trains, over views of this network's weights with the member axis that it expects."""
        views = {name: p.detach()[None] for name, p in self.parameters.items()}
        return MemberOptimizers(views, [config], self.stack.optimizers.schedules)

    def clip_factor(self, gradients: Sequence[Tensor | None]) -> tuple[float, float]:
        """Return the total norm, and the factor by which clip_norm scales the gradients; 1 where nothing is clipped."""
        norm = total_norm_K(norms_PK([None if g is None else g[None] for g in gradients], 1))
        limit = self.config.clip_norm
        factor = 1.0 if limit is None else clip_factor_K(norm, torch.full_like(norm, limit)).item()
        return norm.item(), factor


@contextmanager
def _in_float64(code: str, given: str) -> Iterator[None]:
    """Say of an error about types of numbers why there are others than in training."""
    try:
        yield
    except ConfigError as error:
        hint = f"; trace computes in float64, so tensors that {code} makes need dtype={given}.dtype"
        about = ("dtype", "scalar type")
        raise ConfigError([line + hint * any(sign in line for sign in about) for line in error.problems]) from error


def _plain(stack: Stack) -> nn.Module:
    """The stack's one member as a plain module with its initial weights, in training mode, in float64."""
    config = stack.members[0].config
    dataset = stack.dataset
    if isinstance(config.model, CustomModel):
        network = own_module.build(config.model, dataset.shape, dataset.out_features, config.seed)
        return network.to(torch.float64).train()
    network = networks.plain(config.model, dataset.in_features, dataset.out_features, dataset.shape)
    network.load_state_dict(stack.model.member_state(0))
    for name, layer in stack.model.named_modules():
        if isinstance(layer, StackedDropout):
            assert isinstance(config.model, Mlp)
            rate = config.model.input_dropout if name.endswith("drop_in") else config.model.dropout
            network.set_submodule(name, MemberDropout(layer, rate))
    return network.to(torch.float64).train()


def _rows(stack: Stack) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """(rows of the data set, targets) of every step's batches, in the run's own order, epoch after epoch."""
    while True:
        rows_KN, target_KN = stack.next_order()
        for start in range(0, len(stack.batches), stack.accumulate):
            yield [(rows_KN[0, b], target_KN[0, b]) for b in stack.batches[start : start + stack.accumulate]]


@dataclass
class Point:
    """A place in the forward pass: a layer's output, or its input where that is no layer's output."""

    name: str
    layer: str
    module: nn.Module
    value: Tensor  # in the graph
    shown: Tensor  # its numbers, safe from later layers that overwrite it
    grad_fn: Any
    given: tuple[Tensor, ...]  # the layer's inputs
    given_by: set[Any]  # the operations that made these; the layer may overwrite them in place
    notes: dict[str, Tensor]  # dropout: factor; batch norm: running mean and var, before and after
    gradient: Tensor | None = None


class Watch:
    """Watches every layer's output in the network's first call, and the gradient that arrives there in backward.

    A layer is a module without children. `offsets`, by name of a point, are added to what passes there: the loss as a
    function of an activation is the loss as a function of its offset.
    """

    def __init__(self, network: nn.Module, offsets: dict[str, Tensor] | None = None) -> None:
        self.network = network
        self.offsets = offsets or {}
        self.points: list[Point] = []
        self.calls: dict[str, int] = {}
        self.running: dict[str, Tensor] = {}  # before the current layer, where it is a batch norm
        self.given_by: set[Any] = set()  # of the current layer
        self.handles: list[Any] = []
        self.over = False

    def __enter__(self) -> Watch:
        for name, module in self.network.named_modules():
            if not any(module.children()):
                label = name or type(module).__name__
                self.handles.append(module.register_forward_pre_hook(self._before(label)))
                self.handles.append(module.register_forward_hook(self._after(label)))
        self.handles.append(self.network.register_forward_hook(self._at_the_end))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _before(self, label: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> Any:
            if self.over:
                return None
            self.calls[label] = self.calls.get(label, 0) + 1
            self.running = _running(module, "before")
            self.given_by = {value.grad_fn for value in given if isinstance(value, Tensor)}
            first = given[0] if given else None
            name = f"{self._name(label)} input"
            is_new = isinstance(first, Tensor) and first.grad_fn is not None and self._point(first) is None
            if name not in self.offsets and not is_new:
                return None
            return (self._take(name, label, module, given[0], ()), *given[1:])

        return hook

    def _after(self, label: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
            if self.over or not isinstance(output, Tensor):
                return None
            tensors = tuple(value for value in given if isinstance(value, Tensor))
            return self._take(self._name(label), label, module, output, tensors)

        return hook

    def _at_the_end(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        if self.over or not isinstance(output, Tensor):
            return None
        self.over = True
        if self._point(output) is None:
            self.calls["output"] = 1
            return self._take("output", "output", module, output, ())
        return None

    def _point(self, value: Tensor) -> Point | None:
        return next((point for point in self.points if point.value is value), None)

    def _name(self, label: str) -> str:
        """The layer's name; from its second call in a step on, with the number of the call."""
        return label if self.calls[label] == 1 else f"{label} (call {self.calls[label]})"

    def _take(self, name: str, layer: str, module: nn.Module, value: Tensor, given: tuple[Tensor, ...]) -> Tensor:
        if name in self.offsets:
            value = value + self.offsets[name]
        shown, made_by = value.detach().clone(), self.given_by if given else set()
        notes = {**self.running, **_running(module, "after")} if given else {}
        if isinstance(factor := getattr(module, "factor", None), Tensor) and module.training:
            notes["factor"] = factor
        point = Point(name, layer, module, value, shown, value.grad_fn, given, made_by, notes)
        self.points.append(point)
        if value.requires_grad:
            value.register_hook(lambda gradient: setattr(point, "gradient", gradient.detach().clone()))
        return value


def _running(module: nn.Module, when: str) -> dict[str, Tensor]:
    """Copy a batch norm layer's running statistics; empty for other layers."""
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
        return {}
    return {f"mean_{when}": module.running_mean.clone(), f"var_{when}": module.running_var.clone()}
