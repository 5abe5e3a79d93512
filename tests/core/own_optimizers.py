"""Optimizers as a user writes them, and what steps them in a stack, on weights of known gradients."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.helpers import make_config
from trainer.config import Config
from trainer.core.optimizers import MemberOptimizers
from trainer.core.schedules import lr_schedule

SHAPES = {"layers.0.weight": (5, 3), "layers.0.bias": (5,), "layers.1.weight": (2, 5), "scale": ()}
STEPS = 30


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, foreach-style."""

    def __init__(
        self, params: Any, lr: float = 1e-4, beta: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "beta": beta, "beta2": beta2, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            moments = [self.state[p].setdefault("m", torch.zeros_like(p)) for p in params]
            signs = torch._foreach_lerp(moments, grads, 1 - group["beta"])
            torch._foreach_sign_(signs)
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, signs, alpha=-group["lr"])
            torch._foreach_lerp_(moments, grads, 1 - group["beta2"])


class OwnAdam(torch.optim.Optimizer):
    """torch's Adam, written again; its step counter is an attribute of the object."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.t = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.t += 1
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                g = p.grad + group["weight_decay"] * p
                m, v = self.state[p].setdefault("moments", [torch.zeros_like(p), torch.zeros_like(p)])
                m.mul_(b1).add_(g, alpha=1 - b1)
                v.mul_(b2).addcmul_(g, g, value=1 - b2)
                m_hat, v_hat = m / (1 - b1**self.t), v / (1 - b2**self.t)
                p.addcdiv_(m_hat, v_hat.sqrt() + 1e-8, value=-group["lr"])


class Buffers(torch.optim.Optimizer):
    """Momentum in a list of its own, by place; and weights that get new memory every step."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.buffers = [torch.zeros_like(p) for group in self.param_groups for p in group["params"]]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for i, p in enumerate(p for group in self.param_groups for p in group["params"]):
            self.buffers[i] = self.buffers[i] * 0.9 + p.grad
            p.data = p.data - self.param_groups[0]["lr"] * self.buffers[i]


class GlobalNorm(Buffers):
    """Steps of one length: every weight depends on all gradients; its count is kept in the param group."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        group["count"] = self.state["count"] = self.state.get("count", 0) + 1  # type: ignore[index]
        norm = sum(p.grad.square().sum() for p in group["params"]) ** 0.5
        for p in group["params"]:
            p.data.add_(p.grad / norm, alpha=-group["lr"] / group["count"])


class ByTensor(Buffers):
    """The largest gradient of a tensor decides."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad / p.grad.abs().max(), alpha=-self.param_groups[0]["lr"])


class ByDimensions(Buffers):
    """Another step for matrices."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad.sign() if p.ndim == 2 else p.grad, alpha=-self.param_groups[0]["lr"])


class BySize(Buffers):
    """Another step for large tensors: 40 weights are reached by a stack of three, and by no member."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad.sign() if p.numel() >= 40 else p.grad, alpha=-self.param_groups[0]["lr"])


class SkipsNaN(Buffers):
    """Leaves out a step with a NaN in it, wherever that is."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if all(p.grad.isfinite().all() for p in self.param_groups[0]["params"]):
            super().step()


class Langevin(Buffers):
    """Noise of all three global generators."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            noise = torch.randn_like(p) + random.random() + np.random.rand()  # noqa: NPY002
            p.data.add_(p.grad + 0.1 * noise, alpha=-self.param_groups[0]["lr"])


def own(cls: type | str, **values: Any) -> Config:
    """A configuration with a class of this module or, by its whole name, of another; lr 0.01."""
    name = cls if isinstance(cls, str) else f"{__name__}.{cls.__name__}"
    knobs = {f"optimizer.{key}": value for key, value in ({"lr": 0.01} | values).items()}
    return make_config("optimizer=custom", **{"optimizer._target_": name}, **knobs)


def start(members: int) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    draw = {n: torch.randn(members, *s, generator=generator, dtype=torch.float64) for n, s in SHAPES.items()}
    return {name: nn.Parameter(value) for name, value in draw.items()}


def gradient(p: Tensor, step: int) -> Tensor:
    return torch.cos(p.detach() * 3 + step) + p.detach()


def stacked(configs: list[Config], parameters: dict[str, Any], seeds: list[int] | None = None) -> MemberOptimizers:
    schedules = [lr_schedule(c.schedule, 4, STEPS) for c in configs]
    return MemberOptimizers(parameters, [c.optimizer for c in configs], schedules, seeds)


def train(optimizers: MemberOptimizers, parameters: dict[str, Any], first: int, last: int) -> None:
    for step in range(first, last):
        optimizers.step(step, [gradient(p, step) for p in parameters.values()])
