"""What a data set shows: equal examples, leaks, contradictions, constant features; against slow loops and sklearn."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from trainer.core.data.inspection import inspect
from trainer.judge import data


def facts(x: np.ndarray, y: np.ndarray, test_x: np.ndarray | None = None, test_y: np.ndarray | None = None):
    test_x, test_y = (x[:0] if test_x is None else test_x), (y[:0] if test_y is None else test_y)
    as_targets = torch.long if y.dtype.kind == "i" else torch.float32
    tensors = [torch.from_numpy(a).float() for a in (x, test_x)]
    targets = [torch.from_numpy(a).to(as_targets) for a in (y, test_y)]
    return inspect(tensors[0], targets[0], tensors[1], targets[1])


def test_equal_examples_are_those_a_slow_loop_finds() -> None:
    rng = np.random.default_rng(0)
    x, test_x = rng.integers(0, 3, (90, 4)).astype(float), rng.integers(0, 3, (40, 4)).astype(float)
    y, test_y = rng.integers(0, 2, 90), rng.integers(0, 2, 40)
    x[:, 1] *= -1  # some of its zeros are negative
    test_x[:, 1] *= -1
    found = facts(x, y, test_x, test_y)
    same = lambda a, b: bool((a == b).all())  # noqa: E731
    assert found["duplicates"] == sum(any(same(x[i], x[j]) for j in range(i)) for i in range(90))
    assert found["test_among_train"] == sum(any(same(t, one) for one in x) for t in test_x)
    both = sum(any(same(t, x[i]) and y[i] == u for i in range(90)) for t, u in zip(test_x, test_y, strict=True))
    assert found["with_its_target"] == both
    ill = {i for i, j in itertools.permutations(range(90), 2) if same(x[i], x[j]) and y[i] != y[j]}
    assert found["contradicting"] == len(ill) > 0


def test_the_floor_is_the_loss_of_the_best_prediction() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 3, (200, 2)).astype(float), rng.integers(0, 3, 200)
    share = np.array([[np.mean(y[(x == row).all(1)] == c) for c in range(3)] for row in x])
    assert facts(x, y)["floor"] == pytest.approx(log_loss(y, share, labels=[0, 1, 2]), rel=1e-12)
    values = rng.normal(size=(200, 2))
    best = np.stack([values[(x == row).all(1)].mean(0) for row in x])
    assert facts(x, values)["floor"] == pytest.approx(np.mean((values - best) ** 2), rel=1e-5)  # float32 targets
    assert facts(x, values)["chance"] == pytest.approx(values.var(0).mean(), rel=1e-5)


def test_constant_features_are_named() -> None:
    x = np.random.default_rng(2).normal(size=(50, 6))
    x[:, [1, 4]] = 0.1
    found = facts(x, np.arange(50) % 2)
    assert (found["constant"], found["constant_features"], found["features"]) == ([1, 4], 2, 6)
    assert data.judge(found) == []


def noisy(n: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, 3))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("clean", []), ("leak", ["leakage"]), ("copies", ["leakage"]), ("four copies", []), ("few values", []),
        ("contradictions", ["contradicting_targets"]), ("one contradiction", []),
        ("other targets in the test split", []), ("zeros", []),
    ],
)  # fmt: skip
def test_what_is_wrong_with_data_is_found(kind: str, expected: list[str]) -> None:
    x, test_x = noisy(200), noisy(240)[200:]
    y, test_y = np.arange(200) % 2, np.arange(40) % 2
    if kind in ("leak", "other targets in the test split"):
        test_x[:10], test_y[:10] = x[:10], y[:10] ^ ("other" in kind)
    if kind in ("copies", "four copies", "contradictions", "one contradiction"):
        many = {"copies": 20, "four copies": 4, "contradictions": 60, "one contradiction": 1}[kind]
        x[:many], y[:many] = x[100 : 100 + many], y[100 : 100 + many] ^ ("contra" in kind)
    if kind == "few values":  # every example has many twins, in the test split too
        x, test_x = np.sign(x[:, :2]), np.sign(test_x[:, :2])
        y = (x[:, 0] > 0).astype(int)
    if kind == "zeros":
        x[:] = 0
    found = data.judge(facts(x, y, test_x, test_y))
    assert [one.finding for one in found] == expected
    assert all(one.step == 0 and one.to_json({})["try"] for one in found)
