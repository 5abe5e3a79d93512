"""Real torch.optim classes over the members of a stack.

A stacked parameter is (K, ...). Consecutive members with equal optimizer and schedule share one leaf, the slice
parameter[a:b]; each such span is a param group of its own, so members with different hyperparameters, or different
optimizer classes, train in one stack. Classes of the user's own: own_optimizer.py.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from trainer import config as cfg
from trainer.config import ConfigError, CustomOptimizer, NamedSchedule, TorchOptimizer, nearest
from trainer.core import own_optimizer
from trainer.core.own_calls import in_words
from trainer.core.own_optimizer import OwnOptimizer, Traits
from trainer.core.schedules import LrSchedule
from trainer.core.seeds import stream_seed

# The update of a weight depends on that weight's gradient alone: a slice of members is as good as one.
ELEMENTWISE = {
    "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "ASGD", "Rprop",
}  # fmt: skip

OWN = ".own"  # among the names of parameters, which begin with no dot: what an own class keeps for all of them
PLATEAU = ".plateau"

FUSED_ON_GPU = {"SGD", "Adam", "AdamW"}  # Adagrad's kernel is for a CPU alone in older versions, and says so in a step

# torch.optim marks this method so that its first call imports all of torch.compile: two seconds, for nothing here.
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
if not hasattr(_add_param_group, "__dynamo_disable"):
    _add_param_group.__dynamo_disable = _add_param_group


@dataclass
class Span:
    """Consecutive members [start, stop) with one optimizer and schedule: their leaves, and their param groups."""

    start: int
    stop: int
    config: cfg.Optimizer
    schedule: LrSchedule
    leaves: Sequence[Tensor]  # one a parameter: parameter[start:stop], or parameter[start] for a class not elementwise
    groups: list[dict[str, Any]]
    optimizer: torch.optim.Optimizer
    elementwise: bool
    own: OwnOptimizer | None = None
    plateau: ReduceLROnPlateau | None = None
    rate: float | None = None  # that the groups have

    def learning_rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        base = self.config.lr if self.plateau is None else self.plateau.optimizer.param_groups[0]["lr"]
        return base if self.schedule.is_constant else base * self.schedule(step)

    def prepare(self, step: int) -> None:
        """Put into the groups the learning rate and momentum of a step."""
        lr, momentum = self.learning_rate(step), self.schedule.momentum(step)
        for group in self.groups:
            if not isinstance(group["lr"], Tensor):
                group["lr"] = lr
            elif lr != self.rate:
                group["lr"].fill_(lr)
            if momentum is not None and "betas" in group:  # as torch's OneCycleLR
                group["betas"] = (momentum, *group["betas"][1:])
            elif momentum is not None:
                group["momentum"] = momentum
        self.rate = lr

    def take(self, gradients: Sequence[Tensor | None]) -> None:
        """Hand the leaves their parts of the gradients."""
        for leaf, gradient in zip(self.leaves, gradients, strict=True):
            part = gradient
            if gradient is not None and leaf.shape != gradient.shape:
                part = gradient[self.start : self.stop] if self.elementwise else gradient[self.start]
            # the fused kernels read a gradient in the order of memory, whatever its strides
            leaf.grad = part if part is None else part.contiguous()


class MemberOptimizers:
    """An optimizer for every member of a stack, in as few torch.optim param groups as their configs allow."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        configs: Sequence[cfg.Optimizer],
        schedules: Sequence[LrSchedule],
        seeds: Sequence[int] | None = None,
        traits: Mapping[str, Traits] | None = None,
    ) -> None:
        """`parameters`: name -> (K, ...); seeds: of the runs, for classes of the user's own that draw random numbers;
        traits: what is known of those. Raises ConfigError for a class or an argument that cannot be used.
        """
        self.parameters = dict(parameters)
        self.configs = list(configs)
        self.schedules = list(schedules)
        self.seeds = list(seeds or [0] * len(configs))
        self.traits = dict(traits or {})
        self.spans: list[Span] = []
        optimizers: dict[type, torch.optim.Optimizer] = {}
        start = 0
        for stop in range(1, len(configs) + 1):
            same = stop < len(configs) and configs[stop] == configs[start] and schedules[stop] == schedules[start]
            if same and self._traits(configs[start]).elementwise and schedules[start].schedule.name != "plateau":
                continue
            self.spans.append(self._span(start, stop, optimizers))
            start = stop
        self.optimizers = list(optimizers.values())

    def _traits(self, config: cfg.Optimizer) -> Traits:
        if isinstance(config, TorchOptimizer):
            return Traits(config.name in ELEMENTWISE)
        key = str(replace(config, lr=0.0))
        if key not in self.traits:
            like, shapes = next(iter(self.parameters.values())), [p.shape[1:] for p in self.parameters.values()]
            self.traits[key] = own_optimizer.examine(config, shapes, self.decays(config), len(like), like)
        return self.traits[key]

    def decays(self, config: cfg.Optimizer) -> list[bool]:
        """Which parameters weight decay touches."""
        return [config.decay == "all" or parameter.ndim > 2 for parameter in self.parameters.values()]

    def _span(self, start: int, stop: int, optimizers: dict[type, torch.optim.Optimizer]) -> Span:
        config, schedule, traits = self.configs[start], self.schedules[start], self._traits(self.configs[start])
        leaves: Sequence[Tensor] = []
        for parameter in self.parameters.values():
            if not traits.elementwise:
                leaves.append(parameter.detach()[start])
            elif stop - start == len(parameter):
                leaves.append(parameter)
            else:
                leaves.append(parameter.detach()[start:stop])
        decays, own = self.decays(config), None
        if isinstance(config, CustomOptimizer):
            seed = stream_seed(self.seeds[start], "optimizer") if traits.draws else None
            own = OwnOptimizer(config, leaves, decays, traits.elementwise, seed)
            optimizer, groups, leaves = own.optimizer, own.optimizer.param_groups, own.leaves
        else:
            optimizer, groups = _torch_optimizer(config, leaves, decays, optimizers)
        if schedule.momentum(0) is not None and not {"momentum", "betas"} & set(groups[0]):
            why = f"{config.name} has neither momentum nor betas; try schedule.cycle_momentum=false"
            raise ConfigError([f"schedule.cycle_momentum: {why}"])
        plateau = _plateau(schedule.schedule, config.lr)
        return Span(start, stop, config, schedule, leaves, groups, optimizer, traits.elementwise, own, plateau)

    def learning_rates(self, step: int) -> list[float]:
        """Every member's learning rate at a step, counted from 0."""
        rates: list[float] = []
        for span in self.spans:
            rates += [span.learning_rate(step)] * (span.stop - span.start)
        return rates

    def observe(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Take in every member's metrics of an epoch: the validation loss may lower its learning rate."""
        for span in self.spans:
            if span.plateau is not None:
                span.plateau.step(rows[span.start]["val/loss"])

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph may hold `update`: kernels read the rates from tensors, and nothing else changes."""
        hooked = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        fixed = (span.own is None and span.schedule.momentum(0) is None for span in self.spans)
        return not hooked and all(fixed) and all(isinstance(g["lr"], Tensor) for s in self.spans for g in s.groups)

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Say in the param groups that they may be captured, which torch.optim asks for; it warns where it is not."""
        groups = [group for span in self.spans for group in span.groups if "capturable" in group]
        for group in groups:
            group["capturable"] = True
        yield
        for group in groups:
            group["capturable"] = False

    def step(self, step: int, gradients: Sequence[Tensor | None]) -> None:
        """Update every parameter in place. gradients: one a parameter, (K, ...); None: no gradient, no update.

        Raises ConfigError where a class of the user's own fails.
        """
        self.prepare(step)
        self.update(step, gradients)

    def prepare(self, step: int) -> None:
        """Set every member's learning rate and momentum to those of a step."""
        for span in self.spans:
            span.prepare(step)

    @torch.no_grad()
    def update(self, step: int, gradients: Sequence[Tensor | None]) -> None:
        """What is left of `step` after `prepare`."""
        own: dict[str, list[OwnOptimizer]] = {}
        for span in self.spans:
            span.take(gradients)
            if span.own is not None:
                own.setdefault(span.config._target_, []).append(span.own)
        for optimizer in self.optimizers:
            _step(optimizer)
        for path, optimizers in own.items():
            with in_words(f"optimizer._target_: step {step + 1} of {path} fails"):
                for optimizer in optimizers:
                    optimizer.step()

    def member_state(self, k: int) -> dict[str, dict[str, Any]]:
        """Member k's optimizer state by parameter name, as if it had trained alone (copies, on the CPU)."""
        span = next(span for span in self.spans if span.start <= k < span.stop)
        out: dict[str, dict[str, Any]] = {}
        if span.own is not None:
            by_leaf, common = span.own.member_state(k - span.start)
            out = {**dict(zip(self.parameters, by_leaf, strict=True)), OWN: common}
        else:
            for name, leaf in zip(self.parameters, span.leaves, strict=True):
                state = span.optimizer.state.get(leaf, {})
                out[name] = {key: _of_member(span, leaf, value, k) for key, value in state.items()}
        if span.plateau is not None:
            out[PLATEAU] = span.plateau.state_dict()
        return out

    def load_member_states(self, states: Sequence[dict[str, dict[str, Any]]]) -> None:
        """Give every member, in order, the state that member_state took from it."""
        for span in self.spans:
            members = states[span.start : span.stop]
            if span.plateau is not None:
                span.plateau.load_state_dict(members[0][PLATEAU])
                span.plateau.optimizer.param_groups[0]["lr"] = members[0][PLATEAU]["_last_lr"][0]
            if span.own is not None:
                span.own.load([([state[name] for name in self.parameters], state[OWN]) for state in members])
                continue
            for name, leaf in zip(self.parameters, span.leaves, strict=True):
                parts = [state[name] for state in members]
                span.optimizer.state[leaf] = {
                    key: _join(span, leaf, key, [part[key] for part in parts]) for key in parts[0]
                }

    def select(self, parameters: Mapping[str, Tensor], members: Sequence[int]) -> MemberOptimizers:
        """The optimizers of these members, state included, over `parameters` that hold only them."""
        configs, schedules = [self.configs[k] for k in members], [self.schedules[k] for k in members]
        chosen = MemberOptimizers(parameters, configs, schedules, [self.seeds[k] for k in members], self.traits)
        chosen.load_member_states([self.member_state(k) for k in members])
        return chosen


def _plateau(schedule: cfg.Schedule, lr: float) -> ReduceLROnPlateau | None:
    """torch's own scheduler over a rate that it may lower; None where the schedule is another."""
    if not isinstance(schedule, NamedSchedule) or schedule.name != "plateau":
        return None
    keys = cfg.SCHEDULE_KEYS["plateau"]
    return ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr), **{key: getattr(schedule, key) for key in keys})


def _torch_optimizer(
    config: TorchOptimizer,
    leaves: Sequence[Tensor],
    decays: Sequence[bool],
    optimizers: dict[type, torch.optim.Optimizer],
) -> tuple[torch.optim.Optimizer, list[dict[str, Any]]]:
    """The one optimizer of a class of torch.optim, with these leaves added; and their param groups."""
    cls, keywords = _resolve(config, leaves[0].device)
    wanted = [{"params": [leaf for leaf, decay in zip(leaves, decays, strict=True) if decay], **keywords}]
    if spared := [leaf for leaf, decay in zip(leaves, decays, strict=True) if not decay]:
        wanted.append({"params": spared, **keywords, "weight_decay": 0.0})
    try:
        optimizer = cls(wanted, **keywords)  # always: it checks the arguments and completes the groups
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError([f"optimizer: torch.optim.{cls.__name__} refuses its arguments: {error}"]) from error
    groups = list(optimizer.param_groups)  # its own: the optimizer may get those of other spans
    if cls in optimizers:  # one optimizer a class: it takes over the complete groups, and state that is there
        for group in groups:
            optimizers[cls].add_param_group(group)
        optimizers[cls].state.update(optimizer.state)
    return optimizers.setdefault(cls, optimizer), groups


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


def _resolve(config: TorchOptimizer, device: torch.device) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
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
    surplus = [k for k, v in keywords.items() if k not in parameters and not (k == "weight_decay" and v == 0)]
    if left := [key for key in surplus if key not in config.arguments and key != "weight_decay"]:
        raise ConfigError([own_optimizer.left_over(config, left)])
    if surplus:
        raise ConfigError(
            [f"optimizer.{key}: {name} has no such argument; {nearest(key, parameters)}" for key in surplus]
        )
    keywords = {key: tuple(v) if isinstance(v, list) else v for key, v in keywords.items() if key in parameters}
    has_fused = "fused" in parameters and (device.type == "cpu" or (device.type == "cuda" and name in FUSED_ON_GPU))
    if has_fused and not {"fused", "foreach", "differentiable"} & set(keywords):
        keywords["fused"] = True
        if device.type == "cuda":  # a number that a CUDA graph reads at each replay; its kernel wants 32 bits
            keywords["lr"] = torch.tensor(keywords["lr"], dtype=torch.float32, device=device)
    return cls, keywords
