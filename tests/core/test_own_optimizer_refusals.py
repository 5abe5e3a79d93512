"""Optimizers of the user's own that are refused: what is said, for one member and for two."""

import collections
from typing import Any

import pytest
import torch

from tests.core.own_optimizers import Buffers, Lion, own, stacked, start
from trainer.config import ConfigError


class Clock(Buffers):
    calls = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        Clock.calls += 1
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad, alpha=-self.param_groups[0]["lr"] * Clock.calls)


class Box:
    count = 0


class Hidden(Buffers):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        self.box = Box()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.box.count += 1
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad, alpha=-self.param_groups[0]["lr"] * self.box.count)


class Deque(Buffers):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            self.state[p].setdefault("old", collections.deque()).append(p.grad)


class Bare(Buffers):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            self.state[p] = p.grad.clone()


class OwnRate(Buffers):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.param_groups[0]["lr"] *= 0.9


class NoRate(torch.optim.Optimizer):
    def __init__(self, params: Any, rate: float = 0.1) -> None:
        super().__init__(params, {"rate": rate})


class HiddenRate(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"rate": lr})


class Sam(Buffers):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is None:
            raise RuntimeError("a closure, please")


class Closure(Buffers):
    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()


class Newton(torch.optim.LBFGS):
    pass


class Third(Buffers):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count = getattr(self, "count", 0) + 1
        if self.count == 3:
            raise ValueError("boom")


class Broken(Buffers):
    def __init__(self, params: Any, lr: float) -> None:
        raise RuntimeError("no")


CLOSURE = "this loop computes the loss once a step, and has no closure to compute it again"
REFUSED = {
    "Clock": "optimizer._target_: {}.Clock steps differently from call to call, from the same numbers",
    "Hidden": "optimizer._target_: {}.Hidden would not go on after a kill as if there had been none; what its steps "
    "depend on belongs in self.state or in param_groups, as numbers and tensors",
    "Deque": "optimizer._target_: Deque keeps a deque as old in its state; a checkpoint holds dicts of numbers, "
    "strings, tensors, lists, tuples and dicts",
    "Bare": "optimizer._target_: Bare keeps a Tensor as all in its state; a checkpoint holds dicts of numbers, "
    "strings, tensors, lists, tuples and dicts",
    "OwnRate": "optimizer._target_: {}.OwnRate changes lr in its param_groups, where schedule= sets it",
    "NoRate": "optimizer._target_: {}.NoRate has no argument lr, which optimizer.lr and schedule= set",
    "HiddenRate": "optimizer._target_: {}.HiddenRate has no lr in its param_groups, where schedule= sets it",
    "Sam": f"optimizer._target_: step 1 of {{}}.Sam fails: RuntimeError: a closure, please ({__file__}, line LINE); "
    f"{CLOSURE}",
    "Closure": f"optimizer._target_: step of {{}}.Closure wants a closure; {CLOSURE}",
    "Newton": f"optimizer._target_: step of {{}}.Newton wants a closure; {CLOSURE}",
    "Third": f"optimizer._target_: step 3 of {{}}.Third fails: ValueError: boom ({__file__}, line LINE)",
    "Broken": f"optimizer: {{}}.Broken(lr=0.01) fails: RuntimeError: no ({__file__}, line LINE)",
    "stacked": "optimizer._target_: {}.stacked is a function; expected a torch.optim.Optimizer class, e.g. my_opt.Lion",
    "Box": "optimizer._target_: {}.Box is no torch.optim.Optimizer; expected a torch.optim.Optimizer class, e.g. "
    "my_opt.Lion",
    "Lino": "optimizer._target_: cannot import {}.Lino: AttributeError: module '{}' has no attribute 'Lino'; did you "
    "mean Lion?; expected module.Class, importable from this folder",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("members", [1, 2])
def test_refusals(name: str, members: int) -> None:
    with pytest.raises(ConfigError) as caught:
        stacked([own(f"{__name__}.{name}")] * members, start(members))
    head, _, tail = REFUSED[name].replace("{}", __name__).partition("LINE")
    assert str(caught.value).startswith(head)
    assert str(caught.value).endswith(tail)


def test_arguments_are_checked_against_the_class() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer.betas: Lion has no such argument; did you mean beta\?$"):
        stacked([own(Lion, betas=[0.9, 0.99])], start(1))
    with pytest.raises(ConfigError, match=r"^optimizer.weight_decay: Buffers has no such argument; choose from lr"):
        stacked([own(Buffers, weight_decay=0.1)], start(1))
    with pytest.raises(
        ConfigError, match=r"_target_: Lion has no betas, eps, which another optimizer= brought; choose"
    ):
        stacked([own(Lion, betas=[0.9, 0.99], eps=1e-8)], start(1))
