"""Members' optimizers against torch.optim's own, one ordinary optimizer a member.

Everything in float64. Tolerance 1e-12 over 50 steps: both sides compute the same sums, in kernels (fused and not) that
round differently, about 1e-16 a step.
"""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.helpers import make_config, make_optimizer
from trainer.config import ConfigError, Optimizer
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
