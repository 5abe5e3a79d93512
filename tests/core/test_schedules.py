"""Schedules against torch.optim.lr_scheduler, functions of one's own, and refusals."""

import math
import random
import typing
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from tests.helpers import make_config, make_optimizer
from trainer.config import SCHEDULE_KEYS, ConfigError, ScheduleName
from trainer.core.optimizers import MemberOptimizers
from trainer.core.schedules import lr_schedule


def torch_factors(build: Any, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimizer)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def linear(optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LinearLR:
    return lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)


def after_warmup(build: Any, steps: int) -> Any:
    """torch's own way to a warm-up: one schedule, then another that counts from its start."""
    return lambda o: lr_scheduler.SequentialLR(o, [linear(o, steps), build(o)], [steps])


def one_cycle(**knobs: Any) -> Any:
    return lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=100, cycle_momentum=False, **knobs)


def vaswani(t: int) -> float:
    """Equation 3 of Vaswani et al. 2017 for a warm-up of 20 steps, over its largest value."""
    step = t + 1
    return min(step**-0.5, step * 20**-1.5) / 20**-0.5


UNMOVED = {"cycle_momentum": False}
SCHEDULE_ORACLES = [
    ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ("constant", {"warmup": 2}, lambda o: linear(o, 20)),
    ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=100)),
    ("cosine", {"warmup": 1.5}, after_warmup(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=85), 15)),
    ("step", {"step_size": 3, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, step_size=30, gamma=0.3)),
    ("step", {"step_size": 0.25, "gamma": 0.9}, lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.9)),
    ("multistep", {"milestones": [7, 2.5], "gamma": 0.3}, lambda o: lr_scheduler.MultiStepLR(o, [25, 70], gamma=0.3)),
    ("exponential", {"gamma": 0.7}, lambda o: lr_scheduler.ExponentialLR(o, gamma=0.7**0.1)),
    (
        "exponential",
        {"gamma": 0.7, "warmup": 2},
        after_warmup(lambda o: lr_scheduler.ExponentialLR(o, gamma=0.7**0.1), 20),
    ),
    ("linear", {}, lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=100)),
    ("linear", {"end_factor": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, end_factor=0.2, total_iters=100)),
    (
        "linear",
        {"warmup": 1.5},
        after_warmup(lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=85), 15),
    ),
    ("polynomial", {"power": 1.7}, lambda o: lr_scheduler.PolynomialLR(o, total_iters=100, power=1.7)),
    (
        "polynomial",
        {"power": 2.0, "warmup": 2},
        after_warmup(lambda o: lr_scheduler.PolynomialLR(o, total_iters=80, power=2.0), 20),
    ),
    ("cosine_restarts", {"period": 3}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=30)),
    (
        "cosine_restarts",
        {"period": 1, "period_factor": 2},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=2),
    ),
    (
        "cosine_restarts",
        {"period": 2, "warmup": 1},
        after_warmup(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=20), 10),
    ),
    ("one_cycle", UNMOVED, one_cycle()),
    (
        "one_cycle",
        {"anneal": "linear", "pct_start": 0.25, **UNMOVED},
        one_cycle(anneal_strategy="linear", pct_start=0.25),
    ),
    ("one_cycle", {"three_phase": True, "pct_start": 0.4, **UNMOVED}, one_cycle(three_phase=True, pct_start=0.4)),
    ("one_cycle", {"div_factor": 3, "final_div_factor": 7, **UNMOVED}, one_cycle(div_factor=3.0, final_div_factor=7.0)),
    ("inverse_sqrt", {"warmup": 2}, lambda o: lr_scheduler.LambdaLR(o, vaswani)),
]


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # torch's own, inside SequentialLR
@pytest.mark.parametrize(("name", "values", "build"), SCHEDULE_ORACLES)
def test_schedules_against_torch(name: str, values: dict[str, float], build: Any) -> None:
    """100 steps, 10 an epoch. Tolerance 1e-12: torch multiplies its factors up step by step."""
    schedule = make_config(f"schedule={name}", **{f"schedule.{k}": v for k, v in values.items()}).schedule
    factor = lr_schedule(schedule, 10, 100)
    assert [factor(t) for t in range(100)] == pytest.approx(torch_factors(build, 100), rel=1e-12, abs=1e-12)


def test_every_schedule_has_an_oracle() -> None:
    names = {name for name, _, _ in SCHEDULE_ORACLES} | {"plateau"}
    assert names == set(typing.get_args(ScheduleName))


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"patience": 0, "factor": 0.5},
        {"patience": 2, "cooldown": 3, "threshold": 0.05},
        {"patience": 1, "min_lr": 0.002},
        {"patience": 0, "factor": 0.01},  # below torch's eps of 1e-8 it stays
    ],
)
def test_plateau_against_torch(knobs: dict[str, float]) -> None:
    """Members see losses of their own; one is taken out of the stack, and goes on from its saved state, on the way."""
    generator = torch.Generator().manual_seed(0)
    losses = 1 / (1 + torch.arange(40)) + 0.1 * torch.rand(3, 40, generator=generator, dtype=torch.float64)
    losses[1, 5] = torch.nan
    config = make_config("schedule=plateau", **{f"schedule.{k}": v for k, v in ({"patience": 3} | knobs).items()})
    parameters = {"w": nn.Parameter(torch.zeros(3, 1))}
    schedules = [lr_schedule(config.schedule, 2, 80)] * 3
    stacked = MemberOptimizers(parameters, [make_optimizer("SGD")] * 3, schedules)
    theirs = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01) for _ in range(3)]
    schedulers = [lr_scheduler.ReduceLROnPlateau(o, **({"patience": 3} | knobs)) for o in theirs]
    members = [0, 1, 2]
    for epoch in range(40):
        assert stacked.learning_rates(2 * epoch) == [theirs[k].param_groups[0]["lr"] for k in members]
        stacked.observe([{"val/loss": losses[k, epoch].item()} for k in members])
        for k in members:
            schedulers[k].step(losses[k, epoch].item())
        if epoch == 10:
            members = [2, 0]
            fewer = {n: nn.Parameter(p.detach()[members]) for n, p in parameters.items()}
            stacked = stacked.select(fewer, members)
    assert any(o.param_groups[0]["lr"] < 0.01 for o in theirs)


def test_a_function_of_ones_own() -> None:
    """progress, from 0, over the steps that the warm-up leaves."""
    given = {"schedule._target_": f"{__name__}.wave", "schedule.warmup": 1, "schedule.height": 2.0}
    factor = lr_schedule(make_config("schedule=custom", **given).schedule, 10, 50)
    expected = [(t + 1) / 10 for t in range(10)] + [wave(t / 40, 2.0) for t in range(40)]
    assert [factor(t) for t in range(50)] == expected


def wave(progress: float, height: float = 1.0) -> float:
    return height * (1 + math.cos(6 * progress))


def negative(progress: float) -> float:
    return -progress


def nothing(progress: float) -> None: ...


def dice(progress: float) -> float:
    return random.random()


def broken(progress: float) -> float:
    return 1 / (progress - 0.5) ** 2


HERE = "schedule._target_: tests.core.test_schedules."


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("negative", {}, HERE + r"negative\(0.1\) is -0.1, expected a number >= 0"),
        ("nothing", {}, HERE + r"nothing\(0\) is None, expected a number >= 0"),
        ("dice", {}, HERE + r"dice\(0\) is 0.[0-9]+, then 0.[0-9]+; expected the same"),
        ("broken", {}, HERE + r"broken\(0.5\) fails: ZeroDivisionError: .* \(.*test_schedules.py, line [0-9]+\)"),
        ("wave", {"heigth": 3}, r"schedule.heigth: wave has no such argument; did you mean height\?"),
        ("Any", {}, HERE + r"Any is .*expected a function of your own, .*"),
    ],
)
def test_functions_that_are_refused(name: str, knobs: dict[str, Any], message: str) -> None:
    given = {"schedule._target_": f"{__name__}.{name}", **{f"schedule.{k}": v for k, v in knobs.items()}}
    schedule = make_config("schedule=custom", **given).schedule
    state = random.getstate()
    with pytest.raises(ConfigError, match=f"^{message}$"):
        lr_schedule(schedule, 10, 10)
    assert random.getstate() == state


@settings(deadline=None)
@given(
    st.sampled_from(typing.get_args(ScheduleName)),
    st.floats(0, 5),
    st.floats(0.001, 5),
    st.integers(1, 50),
    st.integers(1, 200),
)
def test_every_schedule_gives_a_factor_in_0_to_1(
    name: str, warmup: float, epochs: float, steps_per_epoch: int, total: int
) -> None:
    """Also where the warm-up is longer than the budget, or a drop comes oftener than a step."""
    keys = {"step_size": epochs, "milestones": [epochs, 2 * epochs], "period": epochs, "pct_start": min(1.0, epochs)}
    values = {"schedule.warmup": 0.0 if name == "one_cycle" else warmup}
    values |= {f"schedule.{key}": value for key, value in keys.items() if key in SCHEDULE_KEYS.get(name, ())}
    factor = lr_schedule(make_config(f"schedule={name}", **values).schedule, steps_per_epoch, total)
    values_t = [factor(t) for t in range(total)]
    assert all(0 <= v <= 1 for v in values_t)
    assert values_t[0] > 0
