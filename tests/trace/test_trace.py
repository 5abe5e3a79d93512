"""The trace of the default network: every number against the same, computed with numpy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.trace.examples import DEFAULT, EXACT, shown
from trainer.core import data
from trainer.core.stack import Stack
from trainer.trace import facts


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
    name, place = shown(default)
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
    name, place = shown(default)
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
    name, place = shown(default)
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
