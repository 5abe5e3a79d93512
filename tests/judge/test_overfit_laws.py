"""The laws that the verdict on a run obeys, whatever its curves; odd and bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judge.losses import HEALTHY, OVERFIT, TRAIN, Floats, T
from trainer import files
from trainer.judge.curves import align
from trainer.judge.overfit import judge

# Laws. The curves are drawn from what training does and from what it does not.


@st.composite
def curves(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Training and validation loss: falling with a rise and noise, random walks, or a few integers over and over."""
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["falling", "walk", "ties"]))
    u = np.arange(n) / n
    if kind == "ties":
        return rng.integers(0, 6, n).astype(float), rng.integers(0, 6, n).astype(float)
    if kind == "walk":
        return np.cumsum(rng.normal(-0.05, 1, n)), np.cumsum(rng.normal(0, 1, n))
    rise = rng.exponential(0.5) * np.clip(u - rng.uniform(0, 0.7), 0, 1)
    noise = rng.choice([0, 0.01, 0.05]) * rng.normal(size=(2, n))
    fall = np.exp(-rng.uniform(0, 15) * u)
    return fall + noise[0], rng.uniform(0.5, 1) * fall + rise + noise[1]


@settings(max_examples=150, deadline=None)
@given(curves(), st.integers(-10, 10))
def test_scale_changes_nothing(losses: tuple[Floats, Floats], power: int) -> None:
    scale = 2.0**power  # exact in floating point, so that the verdict must be equal even on a threshold
    plain, scaled = judge(*losses), judge(losses[0] * scale, losses[1] * scale)
    assert (scaled.verdict, scaled.best_epoch, scaled.onset) == (plain.verdict, plain.best_epoch, plain.onset)
    assert scaled.evidence.get("score") == plain.evidence.get("score")


@settings(max_examples=150, deadline=None)
@given(curves(), st.floats(-3, 3))
def test_a_constant_on_both_changes_nothing(losses: tuple[Floats, Floats], constant: float) -> None:
    plain, moved = judge(*losses), judge(losses[0] + constant, losses[1] + constant)
    score = plain.evidence.get("score")
    on_the_edge = plain.verdict != moved.verdict and (
        score is None or abs(float(score) - 1) < 1e-9 or len(set(losses[1])) < 7
    )
    assert plain.verdict == moved.verdict or on_the_edge


@settings(max_examples=150, deadline=None)
@given(curves(), st.integers(2, 3))
def test_repeating_every_epoch_changes_nothing(losses: tuple[Floats, Floats], times: int) -> None:
    train, val = (np.repeat(loss, times) for loss in losses)
    assert judge(train, val).verdict == judge(*losses).verdict


@settings(max_examples=250, deadline=None)
@given(curves(), st.integers(0, 2**32 - 1), st.booleans())
def test_a_worse_tail_is_never_healthier(losses: tuple[Floats, Floats], seed: int, repeated: bool) -> None:
    train, val = (np.repeat(loss, 2) for loss in losses) if repeated else losses
    before = judge(train, val)
    rng = np.random.default_rng(seed)
    tail = np.arange(len(val)) > np.argmin(val)
    size = rng.choice([0.01, 0.1, 1, 10, np.inf]) * (np.ptp(val) + 1e-3)
    worse = [
        np.where(tail, val + rng.exponential(1, len(val)) * (size if np.isfinite(size) else 1e3), val),
        np.where(tail & (rng.random(len(val)) < 0.2), val + size, val),
        np.where(tail, np.maximum(val, rng.choice(val)), val),
        np.where(tail & (np.arange(len(val)) < rng.integers(0, len(val) + 1)), val + size, val),
    ]
    for curve in worse:
        after = judge(train, curve)
        if before.verdict == "overfit":
            assert after.verdict in ("overfit", "diverged")  # diverged: it ends in infinity
        scores = [found.evidence.get("score") for found in (before, after)]
        if scores[0] is not None and scores[1] is not None:
            assert scores[1] >= scores[0] - 1e-9


@given(st.permutations(range(30)))
def test_order_of_epochs_changes_nothing(order: list[int]) -> None:
    found = judge(TRAIN[order], OVERFIT[order], epochs=1 + T[order])
    assert found == judge(TRAIN, OVERFIT)


# Bad input


def test_a_resumed_run_counts_its_last_values() -> None:
    again = np.concatenate([T[:20] + 1, T[15:] + 1])
    train = np.concatenate([TRAIN[:15], np.full(5, 9.0), TRAIN[15:]])
    val = np.concatenate([OVERFIT[:15], np.full(5, 9.0), OVERFIT[15:]])
    assert judge(train, val, epochs=again) == judge(TRAIN, OVERFIT)


@pytest.mark.parametrize("n", range(1, 8))
def test_constant_losses_of_any_length(n: int) -> None:
    assert judge([2.0] * n, [1.0] * n).verdict == ("too_short" if n == 1 else "underfit")
    assert judge([2.0] * n, None).verdict == ("too_short" if n == 1 else "underfit")


def test_a_loss_that_falls_and_never_below_chance_has_learned_nothing() -> None:
    """A smooth fall far above its own noise, from 2.3039 to 2.3030, where chance costs 2.3026: ten classes."""
    curve = 2.3030 + 0.0009 * np.exp(-T / 10)
    assert judge(curve, curve).verdict == "healthy"
    found = judge(curve, curve, chance_loss=math.log(10))
    assert found.verdict == "underfit"
    assert found.sentence == (
        "nothing was learned: training loss was never below 2.303, and predictions that do not look at the input cost "
        "2.303"
    )
    assert judge(curve, curve, chance_loss=2.4).verdict == "healthy"  # 4 % below
    back = np.concatenate([np.linspace(2.3028, 2.3024, 10), np.linspace(2.3025, 2.3031, 20)])
    assert judge(back, back, chance_loss=math.log(10)).verdict == "underfit"  # what comes back was nothing
    collapsed = np.concatenate([np.linspace(2.272, 2.3024, 6), np.full(20, 2.3025) + 1e-6 * (-1.0) ** np.arange(20)])
    assert judge(collapsed, collapsed, chance_loss=math.log(10)).verdict == "underfit"
    assert (
        judge(collapsed - 0.2, collapsed, chance_loss=math.log(10)).verdict == "diverged"
    )  # 2.07: something was learned
    assert judge(back, back).verdict == judge(10 * back, 10 * back, chance_loss=math.log(10)).verdict == "diverged"
    assert judge(TRAIN, OVERFIT, chance_loss=2 * TRAIN[0]).verdict == "overfit"
    assert judge(curve - 3, curve - 3, chance_loss=-0.7).verdict == "healthy"  # a share of a negative loss says nothing


def test_what_the_first_epoch_has_learned_counts_where_chance_is_known() -> None:
    """Of ten classes: 0.22 after one epoch, then 0.02 to 0.2 at too high a learning rate. Nothing falls any more."""
    rng = np.random.default_rng(0)
    train = np.append(0.22, 0.11 + 0.05 * rng.standard_normal(14))
    val = train + 0.03
    assert judge(train, val).verdict == "underfit"
    assert judge(train, val, chance_loss=math.log(10)).verdict == "healthy"
    assert judge(train + 1.5, val + 1.5, chance_loss=math.log(10)).verdict == "underfit"  # 1.6: that was little
    assert judge(train - 9, val - 9, chance_loss=-0.7).verdict == "underfit"  # of a negative loss a share says nothing


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_hole_in_the_middle_is_bridged(value: float) -> None:
    hole = np.where(T == 15, value, OVERFIT)
    assert judge(TRAIN, hole).verdict == "overfit"
    assert judge(np.where(T == 15, value, TRAIN), OVERFIT).verdict == "overfit"


@pytest.mark.filterwarnings("error")
def test_any_numbers_at_all_give_a_verdict_in_strict_json() -> None:
    rng = np.random.default_rng(0)
    odd = [0, 1, -1, np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320, 5, 5]
    for _ in range(1500):
        n, m = rng.integers(0, 14, 2)
        train, val = rng.choice(odd, n), rng.choice(odd, m)
        common = np.where(rng.random(n) < 0.7, rng.normal(size=n), train)
        epochs = rng.choice([1, 2, 3, 4, 5, 6, np.nan, np.inf], n)
        for found in (judge(train, val), judge(common, common[::-1]), judge(common, train, train, train, epochs)):
            files.to_json(found.to_json())


def test_validation_every_few_epochs_has_not_diverged() -> None:
    sparse = np.where(T % 3 == 0, OVERFIT, np.nan)  # the last two epochs were not measured
    assert judge(TRAIN, sparse).verdict == "overfit"


def test_negative_losses() -> None:
    found = judge(TRAIN - 5, OVERFIT - 5)
    assert found.verdict == "overfit"
    assert "%)" not in found.sentence.split("above")[0]  # a percentage of a negative minimum means nothing


def test_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="val_accuracy: 3 values for 30"):
        judge(TRAIN, OVERFIT, val_accuracy=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="epochs: 2 values"):
        judge(TRAIN, OVERFIT, epochs=[1, 2])


def test_losses_of_different_lengths_span_the_same_run() -> None:
    steps = np.interp(np.linspace(0, 29, 3000), T, TRAIN)
    assert judge(steps, OVERFIT).verdict == "overfit"
    assert judge(steps, HEALTHY).verdict == "healthy"


def test_align_averages_what_was_logged_between_validations() -> None:
    x, train, val = align([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [2, 4, 6], [9, 8, 7])
    assert x.tolist() == [2, 4, 6]
    assert train.tolist() == [5.5, 3.5, 1.5]
    assert val.tolist() == [9, 8, 7]
    x, train, val = align([2, 4, 6], [9, 8, 7], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])
    assert train.tolist() == [9, 8, 7]
    assert val.tolist() == [5.5, 3.5, 1.5]


def test_align_interpolates_where_nothing_was_logged() -> None:
    _, train, _ = align([0, 10, 20], [2, 1, 0], [5, 15, 18], [1, 1, 1])
    assert train[2] == pytest.approx(0.2)
    assert [len(part) for part in align([], [], [1], [1])] == [0, 0, 0]
