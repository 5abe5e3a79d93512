"""Real torch.optim classes over the members of a stack.

A stacked parameter is (K, ...). Consecutive members with equal optimizer and schedule share one leaf, the slice
parameter[a:b]; each such span is a param group of its own, so members with different hyperparameters, or different
optimizer classes, train in one stack.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from trainer import config as cfg
from trainer.config import ConfigError, nearest
from trainer.core.schedules import LrSchedule

# The update of a weight depends on that weight's gradient alone: a slice of members is as good as one.
ELEMENTWISE = {
    "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "ASGD", "Rprop",
}  # fmt: skip

# torch.optim marks this method so that its first call imports all of torch.compile: two seconds, for nothing here.
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
if not hasattr(_add_param_group, "__dynamo_disable"):
    _add_param_group.__dynamo_disable = _add_param_group  # type: ignore[attr-defined]


@dataclass
class Span:
    """Consecutive members [start, stop) with one optimizer and schedule: their leaves, and their param groups."""

    start: int
    stop: int
    config: cfg.Optimizer
    schedule: LrSchedule
    leaves: list[Tensor]  # one a parameter: parameter[start:stop], or parameter[start] for a class not elementwise
    groups: list[dict[str, Any]]
    optimizer: torch.optim.Optimizer
    elementwise: bool


class MemberOptimizers:
    """An optimizer for every member of a stack, in as few torch.optim param groups as their configs allow."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        configs: Sequence[cfg.Optimizer],
        schedules: Sequence[LrSchedule],
    ) -> None:
        """`parameters`: name -> (K, ...). Raises ConfigError for a class or an argument that torch.optim refuses."""
        self.parameters = dict(parameters)
        self.configs = list(configs)
        self.schedules = list(schedules)
        self.spans: list[Span] = []
        optimizers: dict[type, torch.optim.Optimizer] = {}
        start = 0
        for stop in range(1, len(configs) + 1):
            same = stop < len(configs) and configs[stop] == configs[start] and schedules[stop] == schedules[start]
            if same and configs[start].name in ELEMENTWISE:
                continue
            self.spans.append(self._span(start, stop, optimizers))
            start = stop
        self.optimizers = list(optimizers.values())

    def _span(self, start: int, stop: int, optimizers: dict[type, torch.optim.Optimizer]) -> Span:
        config = self.configs[start]
        cls, keywords = _resolve(config, next(iter(self.parameters.values())).device)
        elementwise = config.name in ELEMENTWISE
        leaves = []
        for parameter in self.parameters.values():
            if not elementwise:
                leaves.append(parameter.detach()[start])
            elif stop - start == len(parameter):
                leaves.append(parameter)
            else:
                leaves.append(parameter.detach()[start:stop])
        decayed, spared = leaves, []
        if config.decay == "weights":
            is_weight = [parameter.ndim > 2 for parameter in self.parameters.values()]
            decayed = [leaf for leaf, weight in zip(leaves, is_weight, strict=True) if weight]
            spared = [leaf for leaf, weight in zip(leaves, is_weight, strict=True) if not weight]
        wanted = [{"params": decayed, **keywords}]
        if spared:
            wanted.append({"params": spared, **keywords, "weight_decay": 0.0})
        try:
            optimizer = cls(wanted, **keywords)  # always: it checks the arguments and completes the groups
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError([f"optimizer: torch.optim.{cls.__name__} refuses its arguments: {error}"]) from error
        groups = optimizer.param_groups
        if cls in optimizers:  # one optimizer a class: it takes over the complete groups, and state that is there
            for group in groups:
                optimizers[cls].add_param_group(group)
            optimizers[cls].state.update(optimizer.state)
        optimizer = optimizers.setdefault(cls, optimizer)
        return Span(start, stop, config, self.schedules[start], leaves, groups, optimizer, elementwise)

    def learning_rates(self, step: int) -> list[float]:
        """Every member's learning rate at a step, counted from 0."""
        rates: list[float] = []
        for span in self.spans:
            rates += [span.config.lr * span.schedule(step)] * (span.stop - span.start)
        return rates

    @torch.no_grad()
    def step(self, step: int, gradients: Sequence[Tensor | None]) -> None:
        """Update every parameter in place. gradients: one a parameter, (K, ...); None: no gradient, no update."""
        for span in self.spans:
            lr = span.config.lr * span.schedule(step)
            for group in span.groups:
                group["lr"] = lr
            for leaf, gradient in zip(span.leaves, gradients, strict=True):
                part = gradient
                if gradient is not None and leaf.shape != gradient.shape:
                    part = gradient[span.start : span.stop] if span.elementwise else gradient[span.start]
                # the fused kernels read a gradient in the order of memory, whatever its strides
                leaf.grad = part if part is None else part.contiguous()
        for optimizer in self.optimizers:
            _step(optimizer)

    def member_state(self, k: int) -> dict[str, dict[str, Any]]:
        """Member k's optimizer state by parameter name, as if it had trained alone (copies, on the CPU)."""
        span = next(span for span in self.spans if span.start <= k < span.stop)
        out: dict[str, dict[str, Any]] = {}
        for name, leaf in zip(self.parameters, span.leaves, strict=True):
            state = span.optimizer.state.get(leaf, {})
            out[name] = {key: _of_member(span, leaf, value, k) for key, value in state.items()}
        return out

    def load_member_states(self, states: Sequence[dict[str, dict[str, Any]]]) -> None:
        """Give every member, in order, the state that member_state took from it."""
        for span in self.spans:
            for name, leaf in zip(self.parameters, span.leaves, strict=True):
                members = [states[k][name] for k in range(span.start, span.stop)]
                span.optimizer.state[leaf] = {
                    key: _join(span, leaf, key, [member[key] for member in members]) for key in members[0]
                }

    def select(self, parameters: Mapping[str, Tensor], members: Sequence[int]) -> MemberOptimizers:
        """The optimizers of these members, state included, over `parameters` that hold only them."""
        chosen = MemberOptimizers(parameters, [self.configs[k] for k in members], [self.schedules[k] for k in members])
        chosen.load_member_states([self.member_state(k) for k in members])
        return chosen


def _step(optimizer: torch.optim.Optimizer) -> None:
    """Do what `optimizer.step()` does, registered step hooks included.

    Its detours, through torch.compile (see above) and an entry for profilers, are left out: the latter costs a tenth of
    the step of a small network.
    """
    bare = inspect.unwrap(type(optimizer).step)
    hooked = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
    (torch.optim.Optimizer.profile_hook_step(bare) if hooked else bare)(optimizer)


def _of_member(span: Span, leaf: Tensor, value: Any, k: int) -> Any:
    """Member k's part of an entry of the optimizer state of a leaf; with the leading axis where it has one."""
    if not isinstance(value, Tensor):
        return value
    per_weight = span.elementwise and value.shape == leaf.shape
    return (value[k - span.start : k - span.start + 1] if per_weight else value).to("cpu", copy=True)


def _join(span: Span, leaf: Tensor, key: str, values: list[Any]) -> Any:
    """The entry `key` of the optimizer state of a leaf out of its members' parts, where torch.optim would put it."""
    first = values[0]
    if not isinstance(first, Tensor):
        return first
    per_weight = span.elementwise and first.shape[1:] == leaf.shape[1:] and first.ndim == leaf.ndim
    if per_weight:
        return torch.cat(values).to(leaf.device)
    on_cpu = key == "step" and not (span.groups[0].get("fused") or span.groups[0].get("capturable"))
    return first.to("cpu" if on_cpu else leaf.device, copy=True)


def _resolve(config: cfg.Optimizer, device: torch.device) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The torch.optim class of a config, and its arguments; the fused kernel where there is one."""
    module, _, name = config._target_.rpartition(".")
    cls = getattr(torch.optim, name, None) if module == "torch.optim" else None
    known = [n for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)]
    if cls is None or name not in known or name == "Optimizer":
        usable = [n for n in known if n not in {"Optimizer", "LBFGS", "SparseAdam"}]
        raise ConfigError([f"optimizer._target_: no class {config._target_}; in torch.optim, {nearest(name, usable)}"])
    if name in {"LBFGS", "SparseAdam"}:
        why = "calls the loss several times a step" if name == "LBFGS" else "wants sparse gradients"
        raise ConfigError([f"optimizer._target_: {name} {why}, which this loop does not do; try optimizer=adam"])
    parameters = set(inspect.signature(cls).parameters) - {"params"}
    keywords = config.keywords()
    problems = [
        f"optimizer.{key}: {name} has no such argument; {nearest(key, parameters)}"
        for key, value in keywords.items()
        if key not in parameters and not (key == "weight_decay" and value == 0)
    ]
    if problems:
        raise ConfigError(problems)
    keywords = {key: tuple(v) if isinstance(v, list) else v for key, v in keywords.items() if key in parameters}
    if "fused" in parameters and not {"fused", "foreach", "differentiable"} & set(keywords) and device.type != "mps":
        keywords["fused"] = True
    return cls, keywords
