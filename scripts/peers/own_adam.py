"""Adam as a user would write it (Kingma and Ba 2015, algorithm 1), in the style of torch's foreach implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class OwnAdam(torch.optim.Optimizer):
    """Elementwise, and known to the trainer by its path alone."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "step": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter by its gradient."""
        for group in self.param_groups:
            group["step"] += 1
            (b1, b2), t = group["betas"], group["step"]
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            m = [self.state[p].setdefault("m", torch.zeros_like(p)) for p in params]
            v = [self.state[p].setdefault("v", torch.zeros_like(p)) for p in params]
            torch._foreach_lerp_(m, grads, 1 - b1)
            torch._foreach_mul_(v, b2)
            torch._foreach_addcmul_(v, grads, grads, 1 - b2)
            root = torch._foreach_sqrt(v)
            torch._foreach_div_(root, (1 - b2**t) ** 0.5)
            torch._foreach_add_(root, group["eps"])
            torch._foreach_addcdiv_(params, m, root, -group["lr"] / (1 - b1**t))
