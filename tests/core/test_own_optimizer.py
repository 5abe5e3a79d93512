"""Optimizers of the user's own against the same class used in the ordinary way, one object a member; and refusals.

Float64, 1e-12 over 30 steps: both sides compute the same sums, a stack in kernels that may round differently.
"""

import collections
import copy
import functools
import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers import Log, make_config, run, small_data
from trainer.config import Config, ConfigError
from trainer.core.optimizers import OWN, MemberOptimizers
from trainer.core.schedules import lr_schedule

HERE = __name__
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


KNOBS: list[tuple[type, dict[str, Any], bool]] = [  # class, arguments, whether it is elementwise
    (Lion, {"beta": 0.8}, True),
    (Lion, {"weight_decay": 0.3, "decay": "weights"}, True),
    (OwnAdam, {"weight_decay": 0.1}, True),
    (Buffers, {}, True),
    (GlobalNorm, {}, False),
    (ByTensor, {}, False),
    (ByDimensions, {}, False),
    (BySize, {}, False),
    (SkipsNaN, {}, False),
    (Langevin, {}, False),
]
NAMES = [f"{cls.__name__}{'-decay' if 'decay' in knobs else ''}" for cls, knobs, _ in KNOBS]
every_class = pytest.mark.parametrize(("cls", "knobs", "elementwise"), KNOBS, ids=NAMES)


def own(cls: type | str, **values: Any) -> Config:
    """A configuration with one of these classes; lr 0.01."""
    name = cls if isinstance(cls, str) else cls.__name__
    knobs = {f"optimizer.{key}": value for key, value in ({"lr": 0.01} | values).items()}
    return make_config("optimizer=custom", **{"optimizer._target_": f"{HERE}.{name}"}, **knobs)


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


def ordinary(config: Config, weights: list[Tensor], schedule: Any = None) -> list[Tensor]:
    """The class as its author uses it, on one member's weights."""
    factor = lr_schedule(schedule or config.schedule, 4, STEPS)
    cls, keywords = globals()[config.optimizer.name], config.optimizer.keywords()
    if not issubclass(cls, Lion | OwnAdam):
        del keywords["weight_decay"]
    leaves = [nn.Parameter(w.clone()) for w in weights]
    groups: Any = leaves
    if config.optimizer.decay == "weights":
        groups = [
            {"params": [p for p in leaves if p.ndim > 1]},
            {"params": [p for p in leaves if p.ndim < 2], "weight_decay": 0.0},
        ]
    optimizer = cls(groups, **keywords)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = config.optimizer.lr * factor(step)
        for p in leaves:
            p.grad = gradient(p, step)
        optimizer.step()
    return [p.detach() for p in leaves]


@every_class
def test_members_step_as_alone(cls: type, knobs: dict[str, Any], elementwise: bool) -> None:
    """Three members, one of another rate; the shares of leaves are as the class allows."""
    configs = [own(cls, **knobs), own(cls, **knobs), own(cls, lr=0.003, **knobs)]
    parameters = start(3)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimizers = stacked(configs, parameters, [7, 8, 9])
    assert len(optimizers.spans) == (2 if elementwise else 3)
    train(optimizers, parameters, 0, STEPS)
    for k, config in enumerate(configs):
        if cls is Langevin:  # whose numbers are the run's own
            alone = {name: nn.Parameter(w[k : k + 1].clone()) for name, w in before.items()}
            train(stacked([config], alone, [7 + k]), alone, 0, STEPS)
            expected = [p.detach()[0] for p in alone.values()]
        else:
            expected = ordinary(config, [w[k] for w in before.values()])
        moved = [(want - w[k]).abs().max() for w, want in zip(before.values(), expected, strict=True)]
        assert sum(distance > 1e-3 for distance in moved) > 2  # a scalar may be where it was
        for name, want in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameters[name].detach()[k], want, rtol=1e-12, atol=1e-12)


@every_class
def test_state_goes_through_a_file_to_another_company(cls: type, knobs: dict[str, Any], elementwise: bool) -> None:
    """Saved after 10 steps; member 1 alone, and all in another order, go on as if nothing had been."""
    config = own(cls, **knobs)
    parameters = start(3)
    optimizers = stacked([config] * 3, parameters, [7, 8, 9])
    train(optimizers, parameters, 0, 10)
    written = io.BytesIO()
    torch.save([optimizers.member_state(k) for k in range(3)], written)
    written.seek(0)
    states = torch.load(written, weights_only=True)
    before = copy.deepcopy(states)
    again = [2, 0, 1]
    moved = {n: nn.Parameter(p.detach()[again].clone()) for n, p in parameters.items()}
    others = stacked([config] * 3, moved)
    others.load_member_states([states[k] for k in again])
    lone = {n: nn.Parameter(p.detach()[1:2].clone()) for n, p in parameters.items()}
    alone = stacked([config], lone)
    alone.load_member_states(states[1:2])
    kept = {n: nn.Parameter(p.detach()[[2, 1]].clone()) for n, p in parameters.items()}
    fewer = optimizers.select(kept, [2, 1])
    for which, values in ((optimizers, parameters), (others, moved), (alone, lone), (fewer, kept)):
        train(which, values, 10, 20)
    for name, p in parameters.items():
        near = functools.partial(torch.testing.assert_close, rtol=1e-13, atol=1e-13)
        near(moved[name], p[again])
        near(lone[name], p[1:2])
        near(kept[name], p[[2, 1]])
    torch.testing.assert_close(states, before, rtol=0, atol=0)


def test_own_adam_is_torchs() -> None:
    theirs = make_config("optimizer=adam", **{"optimizer.lr": 0.01, "optimizer.weight_decay": 0.1})
    mine = own(OwnAdam, weight_decay=0.1)
    parameters = start(2)
    train(stacked([mine, theirs], parameters), parameters, 0, 0)  # both in one stack
    parameters = {n: nn.Parameter(p.detach()[:1].repeat(2, *[1] * (p.ndim - 1))) for n, p in parameters.items()}
    train(stacked([mine, theirs], parameters), parameters, 0, STEPS)
    for p in parameters.values():
        torch.testing.assert_close(p[0], p[1], rtol=1e-9, atol=1e-9)


def test_random_numbers_are_the_runs_own() -> None:
    """Neither the neighbours nor what else draws changes them, and they change nobody's."""

    def trained(seeds: list[int]) -> tuple[dict[str, nn.Parameter], float]:
        parameters = {n: nn.Parameter(p.detach()[: len(seeds)].clone()) for n, p in start(2).items()}
        optimizers = stacked([own(Langevin)] * len(seeds), parameters, seeds)
        torch.manual_seed(seeds[-1])
        train(optimizers, parameters, 0, 5)
        return parameters, torch.rand(()).item()

    together, drawn = trained([3, 4])
    torch.manual_seed(4)
    assert drawn == torch.rand(()).item()
    alone, _ = trained([3])
    other, _ = trained([5])
    for name, p in together.items():
        assert torch.equal(p[0], alone[name][0])
        assert not torch.equal(p[0], other[name][0])


def test_one_cycle_moves_betas_as_torch_does() -> None:
    config = own(OwnAdam)
    parameters = start(1)
    first = [p.detach()[0].clone() for p in parameters.values()]
    schedule = make_config("schedule=one_cycle").schedule
    optimizers = MemberOptimizers(parameters, [config.optimizer], [lr_schedule(schedule, 4, STEPS)])
    train(optimizers, parameters, 0, STEPS)
    leaves = [nn.Parameter(w) for w in first]
    optimizer = OwnAdam(leaves, lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=STEPS)
    for step in range(STEPS):
        for p in leaves:
            p.grad = gradient(p, step)
        optimizer.step()
        if step < STEPS - 1:
            scheduler.step()
    for p, want in zip(parameters.values(), leaves, strict=True):
        torch.testing.assert_close(p.detach()[0], want.detach(), rtol=1e-11, atol=1e-11)


# ------------------------------------------------------------------ in the loop


def assert_same_rows(together: Log, place: int, alone: Log) -> None:
    assert together.reasons[place] == alone.reasons[0]
    rows = [pytest.approx(row, rel=1e-9, abs=1e-9, nan_ok=True) for row in alone.rows[0]]
    assert together.rows[place] == rows


class Poison(Lion):
    """NaN in the weights after a few steps."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for p in self.param_groups[0]["params"]:
            self.state[p]["n"] = self.state[p].get("n", 0) + 1
            if self.state[p]["n"] > 7:
                p.data.fill_(torch.nan)


def test_runs_in_a_mixed_stack_are_the_runs_alone() -> None:
    """Own classes beside torch's, schedules that follow the validation loss, one that diverges, several budgets."""
    small = {"data.train_size": 160, "data.batch_size": 32, "model.width": 8, "epochs": 8}
    plateau = {"schedule.patience": 0, "schedule.factor": 0.5, "schedule.threshold": 0.2}
    groups = ["data=spirals"]

    def config(name: str, *choices: str, **values: Any) -> Config:
        target = {"optimizer._target_": f"{HERE}.{name}"} if name else {}
        chosen = [*groups, *(["optimizer=custom"] if name else []), *choices]
        return make_config(*chosen, **target, **(small | values))

    configs = [
        config("Lion"),
        config("Lion", seed=1),
        config("OwnAdam", "schedule=plateau", **plateau),
        config("OwnAdam", "schedule=plateau", **plateau, seed=1, epochs=5),
        config("", "schedule=plateau", **plateau, **{"optimizer.lr": 0.1}),
        config("Langevin", seed=3),
        config("Langevin", "schedule=one_cycle", seed=3, **{"schedule.cycle_momentum": False}),
        config("Poison"),
        config("GlobalNorm", **{"schedule.warmup": 1}),
    ]
    together = run(configs, small_data("spirals"))
    for place, one in enumerate(configs):
        assert_same_rows(together, place, run([one], small_data("spirals")))
    assert together.reasons.count("diverged") == 1
    rates = [{row["lr"] for row in rows} for rows in together.rows]
    assert all(len(rates[place]) > 1 for place in (2, 4))  # it did fall


# ------------------------------------------------------------------ refusals


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
    "ordinary": "optimizer._target_: {}.ordinary is a function; expected a torch.optim.Optimizer class, e.g. "
    "my_opt.Lion",
    "Box": "optimizer._target_: {}.Box is no torch.optim.Optimizer; expected a torch.optim.Optimizer class, e.g. "
    "my_opt.Lion",
    "Lino": "optimizer._target_: cannot import {}.Lino: AttributeError: module '{}' has no attribute 'Lino'; did you "
    "mean Lion?; expected module.Class, importable from this folder",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("members", [1, 2])
def test_refusals(name: str, members: int) -> None:
    with pytest.raises(ConfigError) as caught:
        stacked([own(name)] * members, start(members))
    head, _, tail = REFUSED[name].replace("{}", HERE).partition("LINE")
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


def test_what_is_kept_for_all_weights_has_a_name_that_no_parameter_has() -> None:
    parameters = start(1)
    optimizers = stacked([own(GlobalNorm)], parameters)
    train(optimizers, parameters, 0, 3)
    assert optimizers.member_state(0)[OWN]["groups"][0]["count"] == 3
    assert optimizers.member_state(0)[OWN]["state"] == {"count": 3}
    with pytest.raises(KeyError):
        nn.Module().register_parameter(OWN, nn.Parameter(torch.zeros(1)))
