"""Optimizers of the user's own against the same class used in the ordinary way, one object a member.

Float64, 1e-12 over 30 steps: both sides compute the same sums, a stack in kernels that may round differently.
"""

import copy
import functools
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.core import own_optimizers
from tests.core.own_optimizers import (
    STEPS,
    Buffers,
    ByDimensions,
    BySize,
    ByTensor,
    GlobalNorm,
    Langevin,
    Lion,
    OwnAdam,
    SkipsNaN,
    gradient,
    own,
    stacked,
    start,
    train,
)
from tests.helpers import Log, make_config, run, small_data
from trainer.config import Config
from trainer.core.optimizers import OWN, MemberOptimizers
from trainer.core.schedules import lr_schedule

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


def ordinary(config: Config, weights: list[Tensor], schedule: Any = None) -> list[Tensor]:
    """The class as its author uses it, on one member's weights."""
    factor = lr_schedule(schedule or config.schedule, 4, STEPS)
    cls, keywords = getattr(own_optimizers, config.optimizer.name), config.optimizer.keywords()
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
        target = {"optimizer._target_": f"{__name__}.{name}"} if name else {}
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


def test_what_is_kept_for_all_weights_has_a_name_that_no_parameter_has() -> None:
    parameters = start(1)
    optimizers = stacked([own(GlobalNorm)], parameters)
    train(optimizers, parameters, 0, 3)
    assert optimizers.member_state(0)[OWN]["groups"][0]["count"] == 3
    assert optimizers.member_state(0)[OWN]["state"] == {"count": 3}
    with pytest.raises(KeyError):
        nn.Module().register_parameter(OWN, nn.Parameter(torch.zeros(1)))
