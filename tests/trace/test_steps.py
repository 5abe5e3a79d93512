"""The steps of a trace against the trainer's own, and its equations against torch.optim."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import make_config
from tests.trace.examples import CLUSTERS, EXACT, quick, shown, trace
from trainer.core import data
from trainer.core.loop import train_step
from trainer.core.stack import Stack
from trainer.trace import equations
from trainer.trace.__main__ import CHOOSES_DATA, main

CLOSE = 1e-9  # over several steps: another order of the same sums, amplified by batch norm and by Adam near g = 0
CONFIGS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {"data.train_size": 10}),  # two steps an epoch
    (("optimizer=sgd",), {"model.dropout": 0.4, "model.input_dropout": 0.2, "optimizer.momentum": 0.9}),
    ((), {"model.batchnorm": True, "model.dropout": 0.3, "clip_norm": 0.3, "model.depth": 2, "model.width": [6, 5]}),
    (("optimizer=adamw", "schedule=cosine"), {"model.batchnorm": True, "model.batchnorm_position": "after"}),
    (("schedule=step",), {"loss.label_smoothing": 0.1, "schedule.warmup": 0.1, "model.activation": "gelu"}),
    ((), {"loss.name": "mse", "model.activation": "tanh", "optimizer.decay": "weights", "optimizer.weight_decay": 0.1}),
    (("optimizer=rmsprop",), {"accumulate": 3, "model.batchnorm": True, "model.input_dropout": 0.2}),
    (("experiment=linear_regression", "optimizer=nadam"), {}),
    (("data=line", "optimizer=sgd"), {"model.depth": 1, "model.width": 3, "data.batch_size": 7}),
    (("problem=beale", "optimizer=rmsprop"), {}),
]


@pytest.mark.parametrize(("choices", "values"), quick(CONFIGS, 0, 2, 6, 9))
def test_the_plain_network_takes_the_trainers_steps(choices: tuple[str, ...], values: dict[str, Any]) -> None:
    """Loss, gradient norms and weights of three steps, in float64, against a stack of one."""
    choices = choices if any(c.startswith(CHOOSES_DATA) for c in choices) else (*CLUSTERS, *choices)
    config = make_config(*choices, **values)
    found = trace(config, steps=3)
    assert found.faults == []
    stack = Stack([config], data.load(config.data, dtype=torch.float64))
    name, place = shown(found)
    first, steps = stack.next_order(), stack.steps_per_epoch
    orders = [first if t < steps else stack.next_order() for t in range(0, 3, steps)]
    for t, row in enumerate(found.rows):
        rows, target = orders[t // steps]
        batches = stack.batches[t % steps * stack.accumulate : (t % steps + 1) * stack.accumulate]
        measured = train_step(stack, rows, target, batches, measure=True)
        expected = dict(zip(stack.step_tags, measured[:, 0].tolist(), strict=True))
        assert row.loss == pytest.approx(expected["train/loss"], abs=EXACT if t == 0 else CLOSE)
        assert row.norm == pytest.approx(expected["grad_norm/total"], rel=EXACT if t == 0 else CLOSE)
        assert row.lr == stack.optimizers.learning_rates(t)[0]
        assert row.after == pytest.approx(stack.parameters[name][0][place].item(), abs=EXACT if t == 0 else CLOSE)
        if t == 0:
            norms = {g.name: g.norm for g in found.gradients if g.kind == "parameter"}
            assert norms == pytest.approx({n: expected[f"grad_norm/{n}"] for n in stack.parameters}, rel=EXACT)
            assert found.step.after == row.after
    assert found.in_training["loss"] == pytest.approx(found.loss, rel=1e-5)
    assert found.in_training["weight"] == pytest.approx(found.step.after, abs=1e-4 if "clip_norm" in values else 1e-5)


def test_dropout_and_batch_norm() -> None:
    config = make_config(*CLUSTERS, **{"model.dropout": 0.5, "model.batchnorm": True})
    found = {layer.name: layer for layer in trace(config).layers}
    stack = Stack([config], data.load(config.data, dtype=torch.float64))
    rows, _ = stack.next_order()
    assert not isinstance(stack.model, nn.Sequential)
    linear, norm, _, drop, _ = stack.model.layers
    x = stack.gather(rows[:, :5])
    before = linear(x.transpose(1, 2))[0].detach().numpy()  # (F, B)
    statistics = found["layers.norm0"].batchnorm
    assert statistics is not None
    assert statistics.batch_mean == pytest.approx(before.mean(1).tolist(), abs=EXACT)
    assert statistics.batch_var == pytest.approx(before.var(1).tolist(), abs=EXACT)
    assert statistics.running_mean_before == [0] * 5
    assert statistics.running_var_before == [1] * 5
    assert statistics.running_mean_after == pytest.approx((0.1 * before.mean(1)).tolist(), abs=EXACT)
    assert statistics.running_var_after == pytest.approx((0.9 + 0.1 * before.var(1, ddof=1)).tolist(), abs=EXACT)
    assert statistics.error < EXACT
    out = norm(torch.from_numpy(before)[None]).relu()
    mask = drop(out)[0].T != 0
    dropout = found["layers.drop0"].dropout
    assert dropout is not None
    assert dropout.mask is not None
    kept = torch.tensor(dropout.mask).bool()
    assert torch.equal(kept & (out[0].T > 0), mask)
    assert (dropout.rate, dropout.scale, dropout.count, dropout.kept) == (0.5, 2.0, 25, int(kept.sum()))
    evaluated = found["layers.drop0"].evaluation
    assert evaluated is not None
    running = [(statistics.running_mean_after, statistics.running_var_after)]
    mean, var = (np.array(values)[:, None] for values in running[0])
    expected = np.maximum((before - mean) / np.sqrt(var + 1e-5), 0)
    assert (evaluated.mean, evaluated.std) == pytest.approx((expected.mean(), expected.std()), abs=EXACT)


# ------------------------------------------------------------------ the optimizer's step by hand

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {"weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "dampening": 0.3}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decay": "weights"}),
    ("adam", {"weight_decay": 0.1}),
    ("adam", {"amsgrad": True, "betas": [0.8, 0.9]}),
    ("adamw", {"weight_decay": 0.3}),
    ("adamw", {"weight_decay": 0.0, "eps": 0.01}),
    ("rmsprop", {"centered": True, "momentum": 0.5}),
    ("rmsprop", {"weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "values"), quick(OPTIMIZERS, 2, 4, 5, 7))
def test_by_hand_is_what_torch_does(name: str, values: dict[str, Any]) -> None:
    config = make_config(*CLUSTERS, f"optimizer={name}", **{f"optimizer.{k}": v for k, v in values.items()})
    found = trace(config, steps=4)
    assert [row.error is not None and row.error <= EXACT for row in found.rows] == [True] * 4
    assert found.step.lines is not None
    for line in found.step.lines:  # the numbers that are put in give the value that is shown
        value = eval(line.numbers, {"sqrt": math.sqrt, "maximum": max})
        assert value == pytest.approx(line.value, rel=1e-4, abs=1e-12)
    assert found.step.lines[-1].symbol == "update"
    symbols = {line.symbol for line in found.step.lines}
    assert symbols >= set(found.step.state_after)
    assert ("d" in symbols) == (bool(values.get("weight_decay")) and name != "adamw")


def test_an_optimizer_without_equations_is_shown_as_torch_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizer=nadam", "--part", "5"]) == 0
    said = capsys.readouterr().out
    assert "The equations of torch.optim.NAdam are not known here" in said
    assert "state now  m = " in said
    assert equations.equations("SGD", {"maximize": True}, True) is None


def test_a_module_of_the_users_own_takes_the_trainers_steps(models: None) -> None:
    values = {"factor": 2.0, "_target_": "traced_models.InALayer"}
    config = make_config(*CLUSTERS, "optimizer=sgd", **{"model": values})
    found = trace(config, "first.weight[2,3]", steps=3)
    stack = Stack([config], data.load(config.data, dtype=torch.float64))
    rows, target = stack.next_order()
    for t, row in enumerate(found.rows):
        measured = train_step(stack, rows, target, stack.batches[t : t + 1], measure=True)
        assert row.loss == pytest.approx(measured[0].item(), abs=EXACT)
        assert row.after == pytest.approx(stack.parameters["first.weight"][0, 2, 3].item(), abs=EXACT)
