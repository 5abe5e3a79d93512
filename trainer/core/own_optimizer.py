"""An optimizer of the user's own: made, stepped, saved; and tried out on numbers of ours before anything trains.

Where a class is elementwise, that is, where the step of a weight depends on that weight and its gradients alone,
members share leaves with a leading member axis; else each has leaves and an object of its own. Trying tells.
"""

# ruff: noqa: NPY002 - NumPy's legacy generator is what the user's code draws from
from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from trainer.config import ConfigError, CustomOptimizer, Optimizer, TorchOptimizer
from trainer.core import global_streams
from trainer.core.own_calls import check_arguments, find_target, in_words, parameters

KEY = "optimizer._target_"
CLOSURE = "this loop computes the loss once a step, and has no closure to compute it again"
PLAIN = (bool, int, float, str, type(None))
STEPS, SAVED, SPOILT = 9, 5, 12  # of a trial: saved and loaded after SAVED of them, in SPOILT beside gradients of NaN
TORCH_KEYS = {f.name for f in fields(TorchOptimizer)} - {"lr", "weight_decay"}
LARGEST_TRIAL = 4_000_000  # weights; above, each member has leaves of its own, which costs little there

MemberState = tuple[list[dict[str, Any]], dict[str, Any]]  # what is kept by leaf, and for all of them


@dataclass(frozen=True)
class Traits:
    """What trying out a class has shown."""

    elementwise: bool
    draws: bool = False  # random numbers, from the global generators


class OwnOptimizer:
    """One object of the user's class, over the weights of one member, or of several with a leading axis."""

    def __init__(
        self,
        config: CustomOptimizer,
        weights: Sequence[Tensor],
        decays: Sequence[bool],
        stacked: bool,
        seed: int | None = None,
    ) -> None:
        """weights: views of what is trained; decays: which of them have weight decay; seed: of a class that draws.

        Raises ConfigError.
        """
        cls, keywords = _resolve(config)
        self.weights = [weight.detach() for weight in weights]
        self.leaves = [nn.Parameter(weight) for weight in self.weights]
        self.device = self.weights[0].device
        self.stacked = stacked
        self.stream: dict[str, Any] | None = None  # where the random numbers of a class that draws stand
        params: list[Any] = self.leaves
        if not all(decays) and "weight_decay" in keywords:
            groups = [[p for p, d in zip(self.leaves, decays, strict=True) if d is has] for has in (True, False)]
            params = [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}]
        given = ", ".join(f"{key}={value!r}" for key, value in keywords.items())
        with global_streams.kept(self.device) if seed is not None else contextlib.nullcontext():
            if seed is not None:
                global_streams.seed(seed)
            with in_words(f"optimizer: {config._target_}({given}) fails"):
                self.optimizer: torch.optim.Optimizer = cls(params, **keywords)
                has_rate = all("lr" in group for group in self.optimizer.param_groups)
            if seed is not None:
                self.stream = global_streams.state(self.device)
        if not has_rate:
            raise ConfigError([f"{KEY}: {config._target_} has no lr in its param_groups, where schedule= sets it"])

    def step(self) -> None:
        """Update the weights by the gradients in the leaves; also where the class gives a leaf other memory."""
        if self.stream is None:
            self.optimizer.step()
        else:
            with global_streams.kept(self.device):
                global_streams.restore(self.stream, self.device)
                self.optimizer.step()
                self.stream = global_streams.state(self.device)
        for leaf, weight in zip(self.leaves, self.weights, strict=True):
            if leaf.data_ptr() != weight.data_ptr():  # p.data = ...
                weight.copy_(leaf.detach())
                leaf.data = weight

    def member_state(self, k: int) -> MemberState:
        """What the class keeps for member k: copies, on the CPU, without member axis.

        Raises ConfigError for an entry of its state that a checkpoint cannot hold.
        """
        optimizer = self.optimizer
        shapes = {leaf.shape for leaf in self.leaves}

        def part(value: Any, stacked: set[torch.Size]) -> Any:
            def own(t: Tensor) -> Tensor:
                return (t[k] if self.stacked and t.shape in stacked else t).to("cpu", copy=True)

            return tree_map_only(Tensor, own, value)

        others = {key: value for key, value in optimizer.state.items() if not isinstance(key, Tensor)}
        for entries in (*(optimizer.state.get(leaf, {}) for leaf in self.leaves), others):
            for key, value in entries.items() if isinstance(entries, dict) else [("all", entries)]:
                if not (isinstance(entries, dict) and _is_plain({key: value})):
                    found = f"{type(optimizer).__name__} keeps a {type(value).__name__} as {key} in its state"
                    held = "a checkpoint holds dicts of numbers, strings, tensors, lists, tuples and dicts"
                    raise ConfigError([f"{KEY}: {found}; {held}"])
        common = {
            "state": part(others, shapes),
            "groups": [part(_plain_part(group), shapes) for group in optimizer.param_groups],
            "attributes": part(_plain_part(vars(optimizer), _base_attributes()), shapes),
        }
        by_leaf = [part(dict(optimizer.state.get(leaf, {})), {leaf.shape}) for leaf in self.leaves]
        return by_leaf, common if self.stream is None else {**common, "stream": self.stream}

    def load(self, members: Sequence[MemberState]) -> None:
        """Give the object what member_state took of each of its members, in order."""

        def joined(values: list[Any], stacked: set[torch.Size]) -> Any:  # those of members differ in tensors alone
            def join(first: Any, *others: Any) -> Any:
                if not isinstance(first, Tensor):
                    return first
                is_stacked = self.stacked and first.shape in stacked
                return (torch.stack([first, *others]) if is_stacked else first).to(self.device, copy=True)

            return tree_map(join, *values)

        for i, leaf in enumerate(self.leaves):
            if entries := joined([by_leaf[i] for by_leaf, _ in members], {leaf.shape[1:]}):
                self.optimizer.state[leaf] = entries
        shapes = {leaf.shape[1:] for leaf in self.leaves}
        others, groups, attributes = (
            joined([common[key] for _, common in members], shapes) for key in ("state", "groups", "attributes")
        )
        self.optimizer.state.update(others)
        for group, values in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(values)
        vars(self.optimizer).update(attributes)
        self.stream = members[0][1].get("stream")


def _resolve(config: CustomOptimizer) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The class of a config, and its keyword arguments. Raises ConfigError where there is none, or it is of no use."""
    cls = find_target(KEY, config._target_)
    known = parameters(cls)
    takes_any = not known or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    keywords = {key: tuple(v) if isinstance(v, list) else v for key, v in config.keywords().items()}
    if "lr" not in known and not takes_any:
        raise ConfigError([f"{KEY}: {config._target_} has no argument lr, which optimizer.lr and schedule= set"])
    if "weight_decay" not in known and not config.weight_decay:
        del keywords["weight_decay"]
    surplus = [] if takes_any else [key for key in keywords if key not in known and key in TORCH_KEYS]
    if len(surplus) > 1:
        raise ConfigError([left_over(config, surplus)])
    check_arguments("optimizer", cls, keywords)
    closure = parameters(getattr(cls, "step", cls)).get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError([f"{KEY}: step of {config._target_} wants a closure; {CLOSURE}"])
    return cls, keywords


def left_over(config: Optimizer, keys: Sequence[str]) -> str:
    """What to say of keys that a class does not take, and that come from the file of another."""
    hint = f"choose optimizer=custom as well, optimizer=custom optimizer._target_={config._target_}"
    return f"optimizer._target_: {config.name} has no {', '.join(keys)}, which another optimizer= brought; {hint}"


def examine(
    config: CustomOptimizer, shapes: Sequence[torch.Size], decays: Sequence[bool], members: int, like: Tensor
) -> Traits:
    """Try a class out on weights of these shapes, for stacks of `members`, with the type and on the device of `like`.

    Raises ConfigError where it fails, steps differently from call to call, or cannot be saved.
    """
    keywords = {"lr": config.lr, "weight_decay": config.weight_decay, "decay": config.decay}
    keywords = json.dumps({**keywords, "arguments": config.arguments})
    return _examine(config._target_, keywords, tuple(shapes), tuple(decays), members, like.dtype, like.device)


@functools.lru_cache(maxsize=64)
@torch.no_grad()
def _examine(
    path: str,
    keywords: str,
    shapes: tuple[torch.Size, ...],
    decays: tuple[bool, ...],
    members: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Traits:
    config = CustomOptimizer(_target_=path, **json.loads(keywords))
    trial = functools.partial(_Trial, config, shapes, decays, device)
    with global_streams.kept(device):
        global_streams.seed(0)
        untouched = _next_numbers(device)
        trials = []
        for saved in (False, False, True):
            global_streams.seed(0)
            one = trial([0], dtype, stacked=False)
            one.run(SAVED)
            if saved:
                one = one.saved_and_loaded()
            one.run(STEPS)
            trials.append(one)
        draws = _next_numbers(device) != untouched
        first, repeated, resumed = trials
        if not repeated.equals(0, first):
            raise ConfigError([f"{KEY}: {path} steps differently from call to call, from the same numbers"])
        if not resumed.equals(0, first):
            why = "what its steps depend on belongs in self.state or in param_groups, as numbers and tensors"
            raise ConfigError([f"{KEY}: {path} would not go on after a kill as if there had been none; {why}"])
        small = members * sum(shape.numel() for shape in shapes) <= LARGEST_TRIAL
        if draws or members == 1 or not small:
            return Traits(elementwise=False, draws=draws)
        try:
            return Traits(elementwise=_is_elementwise(trial, members))
        except ConfigError:  # it fails beside others, which is no member's fault
            return Traits(elementwise=False)


def _is_elementwise(trial: Callable[..., _Trial], members: int) -> bool:
    """Whether members together step as alone, in float64, also saved and in another order, or beside one of NaN.

    Three of them; and for two steps as many as there will be: a class may treat large tensors in another way.
    """
    alone = [trial([kind], torch.float64, stacked=False) for kind in (0, 1)]
    together = trial([0, 1, 0], torch.float64, stacked=True)
    many = trial([k % 2 for k in range(members)], torch.float64, stacked=True)
    moved = False
    for steps in (2, SAVED, STEPS):
        stacks = [together, many] if steps == 2 else [together]
        for one in (*alone, *stacks):
            moved = one.run(steps) or moved
        if not all(stack.equals(k, alone[kind]) for stack in stacks for k, kind in enumerate(stack.kinds[:3])):
            return False
        if steps == SAVED:
            together = together.saved_and_loaded()
    alone[0].run(SPOILT)
    together.run(SPOILT, spoilt=1)
    return moved and all(together.equals(k, alone[0]) for k, kind in enumerate(together.kinds) if kind == 0)


class _Trial:
    """Members of two kinds, with weights and gradients of sizes that differ from step to step, and one optimizer."""

    def __init__(
        self,
        config: CustomOptimizer,
        shapes: Sequence[torch.Size],
        decays: Sequence[bool],
        device: torch.device,
        kinds: Sequence[int],
        dtype: torch.dtype,
        stacked: bool,
    ) -> None:
        self.arguments = (config, shapes, decays, device)
        self.config, self.shapes, self.kinds, self.dtype = config, shapes, kinds, dtype
        self.device, self.stacked, self.done = device, stacked, 0
        self.optimizer = OwnOptimizer(config, self._numbers(0), decays, stacked)

    def _numbers(self, step: int, spoilt: int | None = None) -> list[Tensor]:
        """The weights before the first step (0), or the gradients of a step; of a kind that is spoilt NaN."""
        kinds: dict[int, list[Tensor]] = {}
        for kind in set(self.kinds):
            generator = torch.Generator().manual_seed(2 * step + kind)
            draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
            scales = [10 ** draw(()).clamp(-2, 2) if step else 1.0 for _ in self.shapes]
            factor = torch.nan if kind == spoilt else 1
            kinds[kind] = [draw(s) * scale * factor for s, scale in zip(self.shapes, scales, strict=True)]
        wanted = [torch.stack([kinds[kind][i] for kind in self.kinds]) for i in range(len(self.shapes))]
        return [(w if self.stacked else w[0]).to(self.device, self.dtype) for w in wanted]

    def run(self, steps: int, spoilt: int | None = None) -> bool:
        """Step until there were `steps`; whether a weight has moved."""
        before = [weight.clone() for weight in self.optimizer.weights]
        for step in range(self.done + 1, steps + 1):
            rate = 0.01 * (1 - step / 50)  # as a schedule would
            for group in self.optimizer.optimizer.param_groups:
                group["lr"] = rate
            for leaf, gradient in zip(self.optimizer.leaves, self._numbers(step, spoilt), strict=True):
                leaf.grad = gradient
            with in_words(f"{KEY}: step {step} of {self.config._target_} fails", hints={"closure": CLOSURE}):
                self.optimizer.step()
            if any(group["lr"] != rate for group in self.optimizer.optimizer.param_groups):
                raise ConfigError(
                    [f"{KEY}: {self.config._target_} changes lr in its param_groups, where schedule= sets it"]
                )
        self.done = max(self.done, steps)
        return not all(map(torch.equal, before, self.optimizer.weights))

    def saved_and_loaded(self) -> _Trial:
        """The same members in the other order, in a new optimizer that has read what this one has written."""
        order = range(len(self.kinds))[::-1]
        out = _Trial(*self.arguments, [self.kinds[k] for k in order], self.dtype, self.stacked)
        written = io.BytesIO()
        torch.save([self.optimizer.member_state(k) for k in order], written)
        written.seek(0)
        out.optimizer.load(torch.load(written, weights_only=True))
        for weight, value in zip(out.optimizer.weights, self.optimizer.weights, strict=True):
            weight.copy_(value.flip(0) if self.stacked else value)
        out.done = self.done
        return out

    def equals(self, k: int, alone: _Trial) -> bool:
        """Whether member k has the weights of another that is alone; to round-off in a stack, else to the bit."""
        rtol, atol = (1e-9, 1e-12) if self.stacked else (0, 0)
        pairs = zip(self.optimizer.weights, alone.optimizer.weights, strict=True)
        return all(torch.allclose(w[k] if self.stacked else w, a, rtol, atol, equal_nan=True) for w, a in pairs)


def _next_numbers(device: torch.device) -> tuple[float, ...]:
    """What the global generators give next."""
    tensors = [torch.rand(()), *([torch.rand((), device=device)] if device.type == "cuda" else [])]
    return random.random(), np.random.random(), *(tensor.item() for tensor in tensors)


def _is_plain(value: Any) -> bool:
    """Whether torch.load(weights_only=True) reads a value back as it was; a parameter is no value of its own."""
    if type(value) is dict:
        return all(type(key) in PLAIN for key in value) and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if type(value) in (list, tuple) else type(value) in (Tensor, *PLAIN)


def _plain_part(values: dict[str, Any], without: frozenset[str] = frozenset()) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in without and _is_plain(value)}


@functools.cache
def _base_attributes() -> frozenset[str]:
    return frozenset(vars(torch.optim.Optimizer([torch.zeros(1)], {})))
