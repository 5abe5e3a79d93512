"""python -m trainer.trace: every number against an independent computation, and against the trainer's own steps."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers import make_config
from trainer.config import Config
from trainer.core import data
from trainer.core.loop import train_step
from trainer.core.stack import Stack
from trainer.trace import collect, equations, facts, svg, text, tree
from trainer.trace.__main__ import CHOOSES_DATA, DATA, NETWORK, compose, main, rivals

CLUSTERS = (*DATA, *NETWORK)
DEFAULT = make_config(*CLUSTERS)
EXACT = 1e-12  # float64: rounding leaves about 1e-16 of values of order 1
CLOSE = 1e-9  # over several steps: another order of the same sums, amplified by batch norm and by Adam near g = 0


def trace(config: Config, weight: str | None = None, steps: int = 1) -> facts.Trace:
    return collect.trace(config, weight, steps, {})


# ------------------------------------------------------------------ the default trace, computed once more with numpy


class ByHand:
    """The network 4-5-10 with ReLU and cross-entropy, forward and backward written out, and its first batches."""

    def __init__(self, steps: int) -> None:
        dataset = data.load(DEFAULT.data, dtype=torch.float64)
        stack = Stack([DEFAULT], dataset)
        self.start = {name: value.numpy() for name, value in stack.model.member_state(0).items()}
        rows = stack.members[0].split.train[stack.members[0].order.next()]
        batches = [rows[5 * i : 5 * i + 5] for i in range(steps)]
        self.batches = [(dataset.x[b].numpy(), dataset.y[b].numpy()) for b in batches]

    @staticmethod
    def step(w: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """(gradient or value of everything by name, loss)."""
        a = x @ w["layers.0.weight"].T + w["layers.0.bias"]
        h = np.maximum(a, 0)
        z = h @ w["layers.1.weight"].T + w["layers.1.bias"]
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        loss = -np.log(p[np.arange(5), y]).mean()
        dz = (p - np.eye(10)[y]) / 5
        dh = dz @ w["layers.1.weight"]
        da = dh * (a > 0)
        gradients = {"layers.1.weight": dz.T @ h, "layers.1.bias": dz.sum(0)}
        gradients |= {"layers.0.weight": da.T @ x, "layers.0.bias": da.sum(0)}
        passed = {"layers.0": (a, da), "layers.act0": (h, dh), "layers.1": (z, dz)}
        return gradients | {f"out {n}": v for n, (v, _) in passed.items()} | {
            n: g for n, (_, g) in passed.items()
        }, loss

    def train(self, update: Callable[..., Any]) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
        """(weights before the first and after every step, gradients of every step); update: (w, g, memory, t) -> w."""
        weights, gradients = [self.start], []
        memory: dict[str, dict[str, Any]] = {name: {} for name in self.start}
        for t, batch in enumerate(self.batches, 1):
            g, _ = self.step(weights[-1], *batch)
            weights.append({n: update(w, g[n], memory[n], t) for n, w in weights[-1].items()})
            gradients.append({n: g[n] for n in self.start})
        return weights, gradients


def sgd(w: Any, g: Any, memory: dict[str, Any], t: int) -> Any:
    return w - 0.1 * g


def adam(w: Any, g: Any, memory: dict[str, Any], t: int, decay: float = 0.0) -> Any:
    """Kingma and Ba 2015, algorithm 1; decay: Loshchilov and Hutter 2019, algorithm 2."""
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g * g
    step = 0.001 * (memory["m"] / (1 - 0.9**t)) / (np.sqrt(memory["v"] / (1 - 0.999**t)) + 1e-8)
    return w - step - 0.001 * decay * w


def rmsprop(w: Any, g: Any, memory: dict[str, Any], t: int) -> Any:
    memory["v"] = 0.99 * memory.get("v", 0) + 0.01 * g * g
    return w - 0.001 * g / (np.sqrt(memory["v"]) + 1e-8)


def nadam(w: Any, g: Any, memory: dict[str, Any], t: int) -> Any:
    """Dozat 2016, algorithm 8, with his schedule of the momentum."""
    mu, mu_next = (0.9 * (1 - 0.5 * 0.96 ** (s * 0.004)) for s in (t, t + 1))
    memory["product"] = memory.get("product", 1) * mu
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g * g
    scale = np.sqrt(memory["v"] / (1 - 0.999**t)) + 1e-8
    m = mu_next * memory["m"] / (1 - memory["product"] * mu_next) + (1 - mu) * g / (1 - memory["product"])
    return w - 0.002 * m / scale


RIVALS = {"sgd": sgd, "adam": adam, "adamw": lambda *a: adam(*a, decay=0.01), "rmsprop": rmsprop, "nadam": nadam}


@pytest.fixture(scope="module")
def default() -> facts.Trace:
    torch.set_num_threads(1)
    return collect.trace(DEFAULT, None, 5, rivals(compose(CLUSTERS), []))


@pytest.fixture(scope="module")
def by_hand() -> ByHand:
    return ByHand(5)


def test_parameters_and_forward(default: facts.Trace, by_hand: ByHand) -> None:
    values, loss = by_hand.step(by_hand.start, *by_hand.batches[0])
    assert [p.name for p in default.parameters] == list(by_hand.start)
    for p in default.parameters:
        value = by_hand.start[p.name]
        assert (p.shape, p.count) == (list(value.shape), value.size)
        assert (p.requires_grad, p.is_leaf, p.grad_fn, p.grad) == (True, True, None, None)
        assert (p.values.mean, p.values.std) == pytest.approx((value.mean(), value.std()), abs=EXACT)
    x = by_hand.batches[0][0]
    assert (default.input.mean, default.input.std) == pytest.approx((x.mean(), x.std()), abs=EXACT)
    assert default.loss == pytest.approx(loss, abs=EXACT)
    assert default.start_loss == pytest.approx(loss, abs=EXACT)  # nothing here is another in evaluation mode
    *layers, last = default.layers
    assert [layer.name for layer in layers] == ["layers.0", "layers.act0", "layers.1"]
    for layer in layers:
        value = values[f"out {layer.name}"]
        assert layer.shape == list(value.shape)
        assert (layer.training.mean, layer.training.std) == pytest.approx((value.mean(), value.std()), abs=EXACT)
        assert layer.evaluation == layer.training
    assert (last.name, last.training.mean) == ("loss", default.loss)
    assert (default.batch, default.examples, default.network) == (5, 5, "4-5-10 relu")


def test_what_is_saved(default: facts.Trace) -> None:
    saved = {layer.name: [(s.shape, s.what) for s in layer.saved] for layer in default.layers}
    assert saved["layers.0"] == [([5, 4], "the input")]  # the input wants no gradient, so the weight is not needed
    assert saved["layers.act0"] == [([5, 5], "output of layers.act0")]
    assert saved["layers.1"] == [([5, 5], "output of layers.act0"), ([5, 10], "layers.1.weight, transposed")]
    assert ([5], "the targets") in saved["loss"]


def test_graph(default: facts.Trace) -> None:
    edges = {(n.name, n.what): [(default.graph[k].name, default.graph[k].what) for k in n.next] for n in default.graph}
    last, hidden = ("AddmmBackward0", "output of layers.1"), ("AddmmBackward0", "output of layers.0")
    relu = ("ReluBackward0", "output of layers.act0")
    assert edges[("SumBackward0", None)] == [("DivBackward0", None)]
    assert edges[("NllLossBackward0", None)] == [("LogSoftmaxBackward0", None)]
    assert edges[("LogSoftmaxBackward0", None)] == [last]
    assert edges[last] == [("AccumulateGrad", "layers.1.bias"), relu, ("TBackward0", None)]
    assert edges[relu] == [hidden]
    assert edges[hidden] == [("AccumulateGrad", "layers.0.bias"), ("TBackward0", None)]
    ends = {node.what for node in default.graph if not node.next}
    assert ends == {p.name for p in default.parameters}


def test_gradients(default: facts.Trace, by_hand: ByHand) -> None:
    values, _ = by_hand.step(by_hand.start, *by_hand.batches[0])
    assert len(default.gradients) == 7
    for gradient in default.gradients:
        expected = values[gradient.name]
        assert gradient.norm == pytest.approx(np.linalg.norm(expected), abs=EXACT)
        assert gradient.mean == pytest.approx(expected.mean(), abs=EXACT)
        check = gradient.check
        assert check.ok
        assert check.checked == gradient.count == expected.size
        assert check.gradient == pytest.approx(expected[check.worst], abs=EXACT)
        assert check.difference == pytest.approx(expected[check.worst], abs=1e-9)
        assert check.error < 1e-8  # of h^2 f''' and of rounding over h
    assert [form.name for form in default.closed_forms] == ["layers.1", "layers.1.weight", "layers.1.bias"]
    assert all(form.error < 1e-15 for form in default.closed_forms)
    assert default.faults == []


def test_step_and_what_is_left_after_it(default: facts.Trace, by_hand: ByHand) -> None:
    weights, gradients = by_hand.train(adam)
    name, _, index = default.step.weight.rstrip("]").partition("[")
    place = tuple(map(int, index.split(",")))
    step, g = default.step, gradients[0][name][place]
    largest = max(np.abs(gradient).max() for gradient in gradients[0].values())
    assert abs(g) == pytest.approx(largest, abs=EXACT)
    assert (step.before, step.gradient, step.used) == pytest.approx((weights[0][name][place], g, g), abs=EXACT)
    assert step.state_before == {}
    assert step.state_after == pytest.approx({"m": 0.1 * g, "v": 0.001 * g * g}, abs=EXACT)
    assert (step.after, step.by_hand) == pytest.approx((weights[1][name][place],) * 2, abs=EXACT)
    assert step.error is not None
    assert step.error_all is not None
    assert max(step.error, step.error_all) <= EXACT
    assert step.lines is not None
    expected = {"m": 0.1 * g, "v": 0.001 * g * g, "m_hat": g, "v_hat": g * g, "update": -0.001 * g / (abs(g) + 1e-8)}
    assert {line.symbol: line.value for line in step.lines} == pytest.approx(expected, abs=EXACT)
    total = math.sqrt(sum((v * v).sum() for v in gradients[0].values()))
    after = default.after
    again, _ = by_hand.step(weights[1], *by_hand.batches[0])
    expected_next = math.sqrt(sum((again[n] ** 2).sum() for n in by_hand.start))
    assert (after.norm, after.next_norm) == pytest.approx((total, expected_next), abs=EXACT)
    assert (after.twice_norm, after.doubled, after.cleared) == (2 * after.next_norm, True, "None")
    assert [(s.name, s.stop - s.start) for s in after.vector] == [(n, v.size) for n, v in by_hand.start.items()]
    assert [s.start for s in after.vector] == [0, *(s.stop for s in after.vector[:-1])]
    norms = [np.linalg.norm(gradients[0][s.name]) for s in after.vector]
    assert [s.norm for s in after.vector] == pytest.approx(norms, abs=EXACT)
    assert (after.clip_norm, after.clip_factor) == (None, 1.0)


def test_more_steps(default: facts.Trace, by_hand: ByHand) -> None:
    weights, gradients = by_hand.train(adam)
    name, _, index = default.step.weight.rstrip("]").partition("[")
    place = tuple(map(int, index.split(",")))
    assert [row.step for row in default.rows] == [1, 2, 3, 4, 5]
    for i, row in enumerate(default.rows):
        _, loss = by_hand.step(weights[i], *by_hand.batches[i])
        norm = math.sqrt(sum((v * v).sum() for v in gradients[i].values()))
        assert (row.loss, row.norm, row.lr) == pytest.approx((loss, norm, 0.001), abs=EXACT)
        before, after = (weights[k][name][place] for k in (i, i + 1))
        expected = (before, gradients[i][name][place], after - before, after)
        assert (row.before, row.gradient, row.update, row.after) == pytest.approx(expected, abs=EXACT)
        assert row.error is not None
        assert row.error <= EXACT


def test_rivals(default: facts.Trace, by_hand: ByHand) -> None:
    name, _, index = default.step.weight.rstrip("]").partition("[")
    place = tuple(map(int, index.split(",")))
    assert {rival.name for rival in default.rivals} == set(RIVALS)
    for rival in default.rivals:
        weights, gradients = by_hand.train(RIVALS[rival.name])
        steps = {n: weights[1][n] - weights[0][n] for n in weights[0]}
        update = np.concatenate([step.ravel() for step in steps.values()])
        downhill = -np.concatenate([gradients[0][n].ravel() for n in steps])
        cosine = update @ downhill / np.linalg.norm(update) / np.linalg.norm(downhill)
        _, loss = by_hand.step(weights[-1], *by_hand.batches[0])
        # torch keeps NAdam's product of momenta in float32
        tolerance = 1e-7 if rival.name == "nadam" else EXACT
        found = (rival.first_update, rival.first_length, rival.cosine, rival.after, rival.loss)
        expected = (steps[name][place], np.linalg.norm(update), cosine, weights[-1][name][place], loss)
        assert found == pytest.approx(expected, abs=tolerance)


# ------------------------------------------------------------------ the trainer's own steps

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


def quick(cases: list[Any], *numbers: int) -> list[Any]:
    """The cases with all but these marked slow."""
    return [pytest.param(*case, marks=[] if i in numbers else [pytest.mark.slow]) for i, case in enumerate(cases)]


@pytest.mark.parametrize(("choices", "values"), quick(CONFIGS, 0, 2, 6, 9))
def test_the_plain_network_takes_the_trainers_steps(choices: tuple[str, ...], values: dict[str, Any]) -> None:
    """Loss, gradient norms and weights of three steps, in float64, against a stack of one."""
    choices = choices if any(c.startswith(CHOOSES_DATA) for c in choices) else (*CLUSTERS, *choices)
    config = make_config(*choices, **values)
    found = trace(config, steps=3)
    assert found.faults == []
    stack = Stack([config], data.load(config.data, dtype=torch.float64))
    name, _, index = found.step.weight.rstrip("]").partition("[")
    place = tuple(map(int, index.split(",")))
    first, steps = stack.next_order(), stack.steps_per_epoch
    orders = [first if t < steps else stack.next_order() for t in range(0, 3, steps)]
    for t, row in enumerate(found.rows):
        rows, target = orders[t // steps]
        batches = stack.batches[t % steps * stack.accumulate : (t % steps + 1) * stack.accumulate]
        measured = train_step(stack, rows, target, batches, measure=True)
        assert measured is not None
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


# ------------------------------------------------------------------ wrong gradients

MODELS = '''
import random
import torch
from torch import nn

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor * ctx.saved_tensors[0], None

class Squares(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return Square.apply(x, self.factor)

class InALayer(nn.Module):
    def __init__(self, in_features, out_features, factor=1.0):
        super().__init__()
        self.first, self.square = nn.Linear(in_features, 6), Squares(factor)
        self.drop, self.last = nn.Dropout(0.3), nn.Linear(6, out_features)

    def forward(self, x):
        return self.last(self.drop(self.square(self.first(x))))

class InForward(nn.Module):
    def __init__(self, in_features, out_features, factor=1.0):
        super().__init__()
        self.first, self.last, self.relu = nn.Linear(in_features, 6), nn.Linear(6, out_features), nn.ReLU(inplace=True)
        self.factor = factor

    def forward(self, x):
        h = self.relu(self.first(x))
        return self.last(torch.tanh(Square.apply(h, self.factor)) + h)

class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, factor):
        ctx.save_for_backward(x, w)
        ctx.factor = factor
        return x @ w.T

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, ctx.factor / 2 * grad.T @ x, None

class OfAWeight(nn.Module):
    def __init__(self, in_features, out_features, factor=2.02):
        super().__init__()
        self.weight, self.factor = nn.Parameter(torch.randn(6, in_features) / 4), factor
        self.last = nn.Linear(6, out_features)

    def forward(self, x):
        return self.last(Product.apply(x, self.weight, self.factor).relu())

class Kinks(nn.Module):
    """Units that stand exactly at the kink of their ReLU, twice used, some through an identity."""
    def __init__(self, in_features, out_features):
        super().__init__()
        self.zero, self.same = nn.Linear(in_features, 6), nn.Identity()
        self.last, self.unused = nn.Linear(6, out_features), nn.Parameter(torch.zeros(2))
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, x):
        return self.last(self.same(self.zero(x)).relu() + self.zero(x + 1).tanh())

class Random(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.last = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.last(x) * random.random()

class Detached(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.last = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.last(x).detach()

class Single(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.last = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.last(x) @ torch.eye(x.shape[1] + 6)

class Breaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        raise KeyError("nothing saved")

class Broken(Detached):
    def forward(self, x):
        return Breaks.apply(self.last(x))

class Odd(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.add_module('<b>"&', nn.Linear(in_features, out_features))

    def forward(self, x):
        return next(self.children())(x)
'''


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "traced_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


FAULTS = {
    "InALayer": r"right at square \(Squares\), wrong where SquareBackward hands it on to first: at first\[\d,\d\] it",
    "InForward": r"right at last input \(Linear\), wrong where SquareBackward hands it on to relu: at relu\[\d,\d\]",
    "OfAWeight": r"right at last input \(Linear\), wrong where ProductBackward hands it on to weight: at weight\[",
}


@pytest.mark.parametrize("name", quick([(name,) for name in FAULTS], 0))
def test_a_wrong_backward_is_caught_and_named(models: None, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = ["model=custom", f"model._target_=traced_models.{name}"]
    assert main([*target, "--steps", "1"]) == 1
    said = capsys.readouterr().out
    assert re.search("WRONG GRADIENT: " + FAULTS[name], said), said
    assert main([*target, "--part", "1", "--steps", "1"]) == 1  # whatever is shown
    assert "WRONG GRADIENT" in capsys.readouterr().out
    assert main([*target, "+model.factor=2.0", "--steps", "1"]) == 0
    assert "WRONG" not in capsys.readouterr().out


def test_a_kink_is_no_mistake(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=custom", "model._target_=traced_models.Kinks", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "zero (call 2)" in said
    assert "same" in said


def test_a_module_of_the_users_own_takes_the_trainers_steps(models: None) -> None:
    values = {"factor": 2.0, "_target_": "traced_models.InALayer"}
    config = make_config(*CLUSTERS, "optimizer=sgd", **{"model": values})
    found = trace(config, "first.weight[2,3]", steps=3)
    stack = Stack([config], data.load(config.data, dtype=torch.float64))
    rows, target = stack.next_order()
    for t, row in enumerate(found.rows):
        measured = train_step(stack, rows, target, stack.batches[t : t + 1], measure=True)
        assert measured is not None
        assert row.loss == pytest.approx(measured[0].item(), abs=EXACT)
        assert row.after == pytest.approx(stack.parameters["first.weight"][0, 2, 3].item(), abs=EXACT)


# ------------------------------------------------------------------ the command


def test_json_holds_everything_and_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed=3", "--json", "-", "--steps", "2"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert {"parameters", "layers", "graph", "gradients", "step", "after", "rows", "rivals"} <= set(found)
    assert len(found["rows"]) == 2
    assert found["gradients"][0]["check"]["ok"] is True
    assert "7  MORE STEPS" in err
    assert main(["seed=3", "--json", str(tmp_path / "t.json"), "--steps", "2"]) == 0
    assert json.loads((tmp_path / "t.json").read_text()) == found
    assert capsys.readouterr().out == err  # the same numbers every time


def test_svg_is_whole_and_escaped(models: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "graph.svg"
    assert main(["--svg", str(target), "model=custom", "model._target_=traced_models.Odd", "--steps", "1"]) == 0
    picture = ElementTree.fromstring(target.read_text())
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert 'output of <b>"& (5, 10)' in texts
    assert {"AccumulateGrad", "AddmmBackward0", "loss"} <= set(texts)


def test_every_operation_has_a_box_and_every_step_an_arrow(default: facts.Trace) -> None:
    picture = ElementTree.fromstring(svg.draw(default))
    boxes = [e for e in picture.iter("{http://www.w3.org/2000/svg}rect") if e.get("rx")]
    arrows = [e for e in picture.iter("{http://www.w3.org/2000/svg}path") if e.get("marker-end")]
    assert len(boxes) == len({(e.get("x"), e.get("y")) for e in boxes}) == len(default.graph)
    assert len(arrows) == sum(len(set(node.next)) for node in default.graph)


def test_rows_of_any_graph_hold_every_operation_below_all_that_lead_to_it() -> None:
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        size = 2 + seed % 12
        ends = [n for n in range(size) if n == size - 1]
        following: list[list[int]] = []
        for n in range(size):
            later = torch.randperm(size - n - 1, generator=generator)[: 1 + seed % 3] + n + 1
            following.append([] if n in ends else sorted({n + 1, *later.tolist()}))
        graph = [facts.Node(n, f"op{n}", None, None, nexts) for n, nexts in enumerate(following)]
        order = [node.number for row in tree.rows(graph) for node in row.chain]
        assert sorted(order) == list(range(size))
        assert all(order.index(a) < order.index(b) for a in range(size) for b in following[a])


MISTAKES = {
    "--member foo": "--member: no parameter foo; choose from layers.0.bias, layers.0.weight, layers.1.bias, "
    "layers.1.weight",
    "--member layers.0.wieght[1,2]": "--member: no parameter layers.0.wieght; did you mean layers.0.weight?",
    "--member layers.0.weight[5,0]": "--member: layers.0.weight[5,0] is not in its shape (5, 4); the last entry is "
    "layers.0.weight[4,3]",
    "--member layers.0.weight[1": "--member: found layers.0.weight[1, expected a parameter and an index, e.g. "
    "layers.0.weight[2,3]",
    "--membre x": "--membre: no such flag; did you mean --member?",
    "-m seed=1,2": "-m: no such flag; a trace takes one configuration; sweeps are for python -m trainer",
    "--part 8": "--part 8: parts 8 to 10 are of functions, problem=NAME; this has 1, 2, 3, 4, 5, 6, 7",
    "epochs=0": "epochs: found 0, expected a whole number of epochs >= 1",
    "optimizer=adamm": "optimizer=adamm: no such option; did you mean adam?",
    "--svg nowhere/x.svg": "nowhere/x.svg: there is no folder nowhere; make it first: mkdir -p nowhere",
    "--json .": ".: is a folder; give the file's name, such as trace.json",
    "model.init_scale=1e200": "the loss of the first step is nan: it has no gradient; look at the inputs",
    "model=custom model._target_=traced_models.Detached": "model._target_: no parameter takes part in the loss; is "
    "there a detach or no_grad in forward?",
    "model=custom model._target_=traced_models.Broken": "model._target_: the backward pass fails: KeyError: 'nothing "
    "saved'",
    "model=custom model._target_=traced_models.Random": "model._target_: Random gives another loss for the same "
    "weights, examples and state of torch's generator; draw random numbers with torch alone",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_each_mistake_in_words(line: str, models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"trainer.trace: 1 problem; nothing was traced (python -m trainer.trace --help)\n  {MISTAKES[line]}\n"


def test_a_module_that_makes_float32_tensors_is_told_so(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=custom", "model._target_=traced_models.Single"]) == 2
    err = capsys.readouterr().err
    assert "Single fails on inputs of shape (5, 4): RuntimeError: " in err
    assert "; trace computes in float64, so tensors that forward makes need dtype=x.dtype\n" in err


def test_a_flag_with_a_bad_value(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--steps 0", "--steps x", "--part 11"):
        with pytest.raises(SystemExit) as stopped:
            main(flag.split())
        assert stopped.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_the_chosen_parts_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--part", "3", "--part", "6", "--steps", "1", "clip_norm=0.5"]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^\d  [A-Z ]+", said, re.MULTILINE) == ["3  THE GRAPH ", "6  AFTER THE STEP"]
    assert "clip_norm=0.5 multiplies every entry by min(1, 0.5 / (norm + 1e-6)) = 0.48" in said


@pytest.mark.slow
def test_a_large_network_is_no_wall_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["data=digits", "model.depth=1", "model.width=256", "model.dropout=0.2", "model.batchnorm=true"]
    assert main([*config, "--steps", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 180
    assert max(map(len, lines)) < 160
    assert all(len(re.findall(r"\d\.\d", line)) <= 16 for line in lines)


@pytest.mark.parametrize("x", [torch.zeros(3), torch.ones(2, 2)])
def test_shapes_are_written_as_python_writes_tuples(x: Tensor) -> None:
    assert text._shape(list(x.shape)) == str(tuple(x.shape))
