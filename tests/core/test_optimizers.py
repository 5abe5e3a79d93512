"""Members' optimizers against torch.optim's own, one ordinary optimizer a member; schedules against lr_scheduler.

Everything in float64. Tolerance 1e-12 over 50 steps: both sides compute the same sums, in kernels (fused and not) that
round differently, about 1e-16 a step.
"""

import copy
import math
import random
import typing
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.helpers import make_config, make_optimizer
from trainer.config import SCHEDULE_KEYS, ConfigError, Optimizer, ScheduleName
from trainer.core.optimizers import ELEMENTWISE, MemberOptimizers
from trainer.core.schedules import lr_schedule

SHAPES = {"layers.0.weight": (5, 3), "layers.0.bias": (5,), "layers.norm0.weight": (5,), "layers.1.weight": (2, 5)}
STEPS = 50
CONSTANT = lr_schedule(make_config().schedule, 1, STEPS)

KNOBS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"maximize": True}),
    ("Adam", {}),
    ("Adam", {"betas": [0.7, 0.9], "eps": 1e-3}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.1, "amsgrad": True, "betas": [0.8, 0.99]}),
    ("AdamW", {"weight_decay": 0.1, "foreach": True}),
    ("RMSprop", {"alpha": 0.9}),
    ("RMSprop", {"centered": True, "momentum": 0.8, "eps": 1e-4, "weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "momentum_decay": 0.01}),
    ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "weight_decay": 0.1}),
    ("RAdam", {"weight_decay": 0.1}),
    ("Adamax", {"betas": [0.8, 0.9]}),
    ("Adadelta", {"rho": 0.8, "lr": 1.0}),
    ("ASGD", {"lambd": 0.01, "t0": 10.0, "weight_decay": 0.1}),
    ("Rprop", {"etas": [0.4, 1.3]}),
    ("Adafactor", {"weight_decay": 0.1}),
]
DECAYED = [
    *((name, {"weight_decay": 0.2, "decay": "weights"}) for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adafactor")),
]


def start(members: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = {n: torch.randn(members, *shape, generator=generator, dtype=torch.float64) for n, shape in SHAPES.items()}
    return {name: nn.Parameter(value) for name, value in draw.items()}


def gradient(parameters: dict[str, Tensor], step: int) -> list[Tensor | None]:
    """Of a bowl, rippled by the step, so that moments and signs matter: every member its own."""
    return [torch.cos(p.detach() * 3 + step) + p.detach() for p in parameters.values()]


def oracle(config: Optimizer, weights: list[Tensor], factors: list[float]) -> list[Tensor]:
    """One ordinary torch.optim optimizer over one member's weights, stepped in the ordinary way."""
    leaves = [nn.Parameter(w.clone()) for w in weights]
    keywords = {key: tuple(v) if isinstance(v, list) else v for key, v in config.keywords().items()}
    groups: list[dict[str, Any]] = [{"params": leaves}]
    if config.decay == "weights":
        groups = [
            {"params": [p for p in leaves if p.ndim > 1]},
            {"params": [p for p in leaves if p.ndim == 1], "weight_decay": 0.0},
        ]
    name = config._target_.split(".")[-1]
    if name == "Rprop":
        keywords.pop("weight_decay")
    optimizer = getattr(torch.optim, name)(groups, **keywords)
    for step, factor in enumerate(factors):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * factor
        named = {str(i): p for i, p in enumerate(leaves)}
        for p, g in zip(leaves, gradient(named, step), strict=True):
            p.grad = g
        optimizer.step()
    return [p.detach() for p in leaves]


def assert_like_alone(configs: list[Optimizer], schedules: list[Any] | None = None, steps: int = STEPS) -> None:
    """Every member of one stack against its oracle."""
    schedules = schedules or [CONSTANT] * len(configs)
    parameters = start(len(configs))
    first = {name: value.detach().clone() for name, value in parameters.items()}
    stacked = MemberOptimizers(parameters, configs, schedules)
    for step in range(steps):
        rates = stacked.learning_rates(step)
        assert rates == [c.lr * s(step) for c, s in zip(configs, schedules, strict=True)]
        stacked.step(step, gradient(parameters, step))
    for k, (config, schedule) in enumerate(zip(configs, schedules, strict=True)):
        expected = oracle(config, [w[k] for w in first.values()], [schedule(t) for t in range(steps)])
        for name, want in zip(parameters, expected, strict=True):
            moved = (want - first[name][k]).abs().max()
            assert moved > 1e-6, f"{config._target_}: the oracle stood still"
            torch.testing.assert_close(
                parameters[name].detach()[k], want, rtol=1e-12, atol=1e-12, msg=lambda m, c=config: f"{c}: {m}"
            )


@pytest.mark.parametrize(("name", "knobs"), KNOBS + DECAYED)
def test_every_class_and_knob(name: str, knobs: dict[str, Any]) -> None:
    assert_like_alone([make_optimizer(name, **knobs)] * 3)


def test_every_class_is_covered() -> None:
    assert {name for name, _ in KNOBS} >= ELEMENTWISE


ANY = st.sampled_from(KNOBS + DECAYED).flatmap(
    lambda chosen: st.sampled_from([0.003, 0.02]).map(lambda lr: make_optimizer(chosen[0], **({"lr": lr} | chosen[1])))
)
SCHEDULES = [
    lr_schedule(make_config(f"schedule={name}", **values).schedule, 4, total)
    for name, values, total in [
        ("constant", {}, 12),
        ("constant", {"schedule.warmup": 1}, 12),
        ("cosine", {}, 12),
        ("cosine", {}, 30),
        ("cosine", {"schedule.warmup": 1}, 12),
        ("step", {"schedule.step_size": 1, "schedule.gamma": 0.5}, 12),
    ]
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANY, st.sampled_from(SCHEDULES)), min_size=1, max_size=5))
def test_any_mixture_in_any_order(members: list[tuple[Optimizer, Any]]) -> None:
    assert_like_alone([config for config, _ in members], [schedule for _, schedule in members], steps=12)


def test_an_argument_left_out_is_the_class_default_not_the_neighbours() -> None:
    for name, knob in [("SGD", {"momentum": 0.9}), ("Adagrad", {"lr_decay": 0.5}), ("Adam", {"amsgrad": True})]:
        assert_like_alone([make_optimizer(name, **knob), make_optimizer(name)])


def test_equal_schedules_share_a_group_others_never() -> None:
    """A cosine depends on the budget: neighbours that differ in epochs alone must not share a learning rate."""
    adam = make_optimizer("Adam")
    cosine, constant = make_config("schedule=cosine").schedule, make_config().schedule
    longer = [lr_schedule(cosine, 4, 12), lr_schedule(cosine, 4, 24)]
    assert len(MemberOptimizers(start(2), [adam] * 2, longer).spans) == 2
    same = [lr_schedule(constant, 4, 12), lr_schedule(constant, 4, 24)]
    assert len(MemberOptimizers(start(2), [adam] * 2, same).spans) == 1


@pytest.mark.parametrize(("name", "knobs"), KNOBS)
def test_select_in_mid_training(name: str, knobs: dict[str, Any]) -> None:
    """Members that leave, and a new order, change nothing for those that stay. Tolerance as above."""
    configs = [make_optimizer(name, **knobs), make_optimizer("Adam"), make_optimizer(name, **knobs)]
    keep = [2, 0]
    parameters = start(3)
    first = {n: v.detach().clone() for n, v in parameters.items()}
    stacked = MemberOptimizers(parameters, configs, [CONSTANT] * 3)
    for step in range(20):
        stacked.step(step, gradient(parameters, step))
    fewer = {n: nn.Parameter(v.detach()[keep]) for n, v in parameters.items()}
    stacked = stacked.select(fewer, keep)
    for step in range(20, STEPS):
        stacked.step(step, gradient(fewer, step))
    for place, k in enumerate(keep):
        expected = oracle(configs[k], [w[k] for w in first.values()], [1.0] * STEPS)
        for value, want in zip(fewer.values(), expected, strict=True):
            torch.testing.assert_close(value.detach()[place], want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "knobs"), KNOBS)
def test_state_round_trip_is_exact_and_a_members_own(name: str, knobs: dict[str, Any]) -> None:
    configs = [make_optimizer(name, **knobs)] * 2
    parameters = start(2)
    stacked = MemberOptimizers(parameters, configs, [CONSTANT] * 2)
    for step in range(3):
        stacked.step(step, gradient(parameters, step))
    states = [stacked.member_state(k) for k in range(2)]
    copied = {n: nn.Parameter(v.detach().clone()) for n, v in parameters.items()}
    again = MemberOptimizers(copied, configs, [CONSTANT] * 2)
    again.load_member_states(states)
    alone = {n: nn.Parameter(v.detach()[1:].clone()) for n, v in parameters.items()}
    lone = MemberOptimizers(alone, configs[1:], [CONSTANT])
    lone.load_member_states(states[1:])
    before = copy.deepcopy(states)
    for step in range(3, 6):
        for optimizers, values in ((stacked, parameters), (again, copied), (lone, alone)):
            optimizers.step(step, gradient(values, step))
    for n in parameters:
        assert torch.equal(parameters[n], copied[n])
        torch.testing.assert_close(parameters[n][1:], alone[n], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(states, before, rtol=0, atol=0)  # copies: training on does not change them


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "RMSprop"])
@pytest.mark.parametrize("layout", ["transposed", "expanded"])
def test_gradients_of_any_memory_layout(name: str, layout: str) -> None:
    """torch.optim's fused kernels read memory in order and ignore strides: a user's module may give such gradients."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(1, 4, 6, generator=generator, dtype=torch.float64)
    g = draw.transpose(1, 2) if layout == "transposed" else draw[:, :1, :1].expand(1, 6, 4)
    start_value = torch.randn(1, 6, 4, generator=generator, dtype=torch.float64)
    parameter, plain = nn.Parameter(start_value.clone()), nn.Parameter(start_value.clone())
    stacked = MemberOptimizers({"w": parameter}, [make_optimizer(name)], [CONSTANT])
    optimizer = getattr(torch.optim, name)([plain], lr=0.01, foreach=False, fused=False) if name != "RMSprop" else None
    optimizer = optimizer or torch.optim.RMSprop([plain], lr=0.01, foreach=False)
    for step in range(3):
        stacked.step(step, [g])
        plain.grad = g.clone(memory_format=torch.contiguous_format)
        optimizer.step()
    torch.testing.assert_close(parameter, plain, rtol=1e-12, atol=1e-12)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    """Also by weight decay, as in torch.optim."""
    parameters = start(2)
    before = {n: v.detach().clone() for n, v in parameters.items()}
    stacked = MemberOptimizers(parameters, [make_optimizer("AdamW", weight_decay=0.5)] * 2, [CONSTANT] * 2)
    stacked.step(0, [None, *gradient(parameters, 0)[1:]])
    stacked = stacked.select(parameters, [0, 1])
    stacked.step(1, [None, *gradient(parameters, 1)[1:]])
    names = list(parameters)
    assert torch.equal(parameters[names[0]], before[names[0]])
    assert not torch.equal(parameters[names[1]], before[names[1]])


def test_muon_where_all_parameters_are_matrices() -> None:
    weights = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameter = nn.Parameter(weights.clone())
    config = make_optimizer("Muon", weight_decay=0.1)
    stacked = MemberOptimizers({"w": parameter}, [config] * 2, [CONSTANT] * 2)
    plain = [nn.Parameter(w.clone()) for w in weights]
    ordinary = [torch.optim.Muon([p], lr=0.01, weight_decay=0.1) for p in plain]
    for step in range(5):
        stacked.step(step, gradient({"w": parameter}, step))
        for p, optimizer in zip(plain, ordinary, strict=True):
            p.grad = gradient({"w": p}, step)[0]
            optimizer.step()
    # Muon's Newton-Schulz iteration computes in bfloat16: equal products give equal bits, so exact all the same
    torch.testing.assert_close(parameter, torch.stack(plain), rtol=0, atol=0)


# ------------------------------------------------------------------ schedules


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


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_moves_momentum_as_torch_does(name: str, three_phase: bool) -> None:
    """Momentum, or the first of the betas; weights to 1e-11, since rates and momenta are computed in another order."""
    config = make_optimizer(name, **({"momentum": 0.5} if name != "Adam" else {}))
    schedule = make_config("schedule=one_cycle", **{"schedule.three_phase": three_phase}).schedule
    parameters = start(2)
    stacked = MemberOptimizers(parameters, [config] * 2, [lr_schedule(schedule, 10, STEPS), CONSTANT])
    leaves = [nn.Parameter(p.detach()[0].clone()) for p in parameters.values()]
    still = oracle(config, [p.detach()[1].clone() for p in parameters.values()], [1.0] * STEPS)
    optimizer = getattr(torch.optim, name)(leaves, **({"momentum": 0.5} if name != "Adam" else {}))
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=STEPS, three_phase=three_phase)
    for step in range(STEPS):
        stacked.step(step, gradient(parameters, step))
        named = {str(i): p for i, p in enumerate(leaves)}
        for p, g in zip(leaves, gradient(named, step), strict=True):
            p.grad = g
        (group,) = optimizer.param_groups
        ours = stacked.spans[0].groups[0]
        keys = ["lr", "betas"] if name == "Adam" else ["lr", "momentum"]
        assert [ours[key] for key in keys] == [pytest.approx(group[key], rel=1e-12) for key in keys]
        optimizer.step()
        if step < STEPS - 1:
            scheduler.step()
    for p, want, neighbour in zip(parameters.values(), leaves, still, strict=True):
        torch.testing.assert_close(p.detach()[0], want.detach(), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(p.detach()[1], neighbour, rtol=1e-12, atol=1e-12)


def test_one_cycle_wants_a_momentum() -> None:
    message = "^schedule.cycle_momentum: Adagrad has neither momentum nor betas; try schedule.cycle_momentum=false$"
    schedule = lr_schedule(make_config("schedule=one_cycle").schedule, 10, STEPS)
    with pytest.raises(ConfigError, match=message):
        MemberOptimizers(start(1), [make_optimizer("Adagrad")], [schedule])


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
    parameters = start(3)
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


HERE = "schedule._target_: tests.core.test_optimizers."


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("negative", {}, HERE + r"negative\(0.1\) is -0.1, expected a number >= 0"),
        ("nothing", {}, HERE + r"nothing\(0\) is None, expected a number >= 0"),
        ("dice", {}, HERE + r"dice\(0\) is 0.[0-9]+, then 0.[0-9]+; expected the same"),
        ("broken", {}, HERE + r"broken\(0.5\) fails: ZeroDivisionError: .* \(.*test_optimizers.py, line [0-9]+\)"),
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


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        (
            "LBFGS",
            {},
            "optimizer._target_: LBFGS calls the loss several times a step, which this loop does not do; "
            "try optimizer=adam",
        ),
        (
            "SparseAdam",
            {},
            "optimizer._target_: SparseAdam wants sparse gradients, which this loop does not do; try optimizer=adam",
        ),
        (
            "Adagrad",
            {"momentum": 0.9, "dampening": 0.0},
            "optimizer._target_: Adagrad has no momentum, dampening, which another optimizer= brought; choose "
            "optimizer=custom as well, optimizer=custom optimizer._target_=torch.optim.Adagrad",
        ),
        ("Adan", {}, "optimizer._target_: no class torch.optim.Adan; in torch.optim, did you mean Adam?"),
        ("RAdamm", {}, "optimizer._target_: no class torch.optim.RAdamm; in torch.optim, did you mean RAdam?"),
        ("SGD", {"momentun": 0.9}, "optimizer.momentun: SGD has no such argument; did you mean momentum?"),
        (
            "SGD",
            {"nesterov": True},
            "optimizer: torch.optim.SGD refuses its arguments: "
            "Nesterov momentum requires a momentum and zero dampening",
        ),
        (
            "Adam",
            {"betas": [0.9, 0.99], "foreach": True, "fused": True},
            "optimizer: torch.optim.Adam refuses its arguments: `fused` and `foreach` cannot be `True` together.",
        ),
        (
            "Muon",
            {},
            "optimizer: torch.optim.Muon refuses its arguments: "
            "Muon only supports 2D parameters whereas we found a parameter with size: torch.Size([5])",
        ),
    ],
)
def test_refusals(name: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MemberOptimizers(start(1), [make_optimizer(name, **knobs)], [CONSTANT])
    assert str(caught.value) == message


def test_refusal_does_not_depend_on_the_neighbour() -> None:
    """The constructor of each member's class checks its arguments, not only the first one's."""
    good, bad = make_optimizer("SGD", momentum=0.9), make_optimizer("SGD", nesterov=True)
    with pytest.raises(ConfigError, match="Nesterov"):
        MemberOptimizers(start(2), [good, bad], [CONSTANT] * 2)


def test_step_hooks_registered_with_torch_fire() -> None:
    """Once before and once after every step of each optimizer; those of a class never seen are not called."""
    calls: list[str] = []
    before = register_optimizer_step_pre_hook(lambda optimizer, *_: calls.append(f"before {type(optimizer).__name__}"))
    after = register_optimizer_step_post_hook(lambda optimizer, *_: calls.append(f"after {type(optimizer).__name__}"))
    try:
        weight = torch.nn.Parameter(torch.ones(2, 3))
        schedule = lr_schedule(make_config().schedule, 1, 1)
        both = MemberOptimizers({"w": weight}, [make_optimizer("SGD"), make_optimizer("Adam")], [schedule, schedule])
        both.step(0, [torch.ones(2, 3)])
    finally:
        before.remove()
        after.remove()
    assert calls == ["before SGD", "after SGD", "before Adam", "after Adam"]
    both.step(1, [torch.ones(2, 3)])
    assert len(calls) == 4
