"""The verdict on runs whose noise hides what they do: slow falls, stalls, drops of the learning rate."""

import numpy as np
import pytest

from tests.judge.losses import Floats
from trainer.judge.overfit import judge


def of_the_shape(height: float, n: int, seed: int, noise: float, *, stalls: bool) -> tuple[Floats, Floats]:
    """A slow fall; validation follows it by `height`, or stops following after a fifth of the run."""
    rng = np.random.default_rng([7, seed])
    train = np.exp(-3 * np.arange(n) / n)
    train = (train - train[-1]) / (1 - train[-1])
    val = np.maximum(train, train[n // 5]) if stalls else 1 - height * (1 - train)
    return train, val + noise * rng.normal(size=n)


def test_what_still_gains_is_healthy_though_the_lowest_epoch_came_earlier_by_luck() -> None:
    verdicts = [judge(*of_the_shape(0.5, 120, seed, 0.02, stalls=False)) for seed in range(40)]
    assert sum(one.best_epoch is not None and one.best_epoch <= 108 for one in verdicts) > 5
    assert [one.verdict for one in verdicts] == ["healthy"] * 40


def test_what_has_stalled_is_overfit_though_the_lowest_epoch_comes_late_by_luck() -> None:
    verdicts = [judge(*of_the_shape(1.0, 600, seed, 0.05, stalls=True)) for seed in range(40)]
    assert sum(one.best_epoch is not None and one.best_epoch > 540 for one in verdicts) > 2
    assert [one.verdict for one in verdicts] == ["overfit"] * 40


def test_the_way_back_from_a_spike_of_the_training_loss_is_no_drop_of_the_learning_rate() -> None:
    rng = np.random.default_rng(8)
    train = np.exp(-np.arange(80) / 5)
    val = train + 0.1 + 0.03 * rng.normal(size=80)
    val[55] = 0.0  # the minimum
    spiked = train.copy()
    spiked[45] += 0.4
    plain, after = judge(train, val).evidence, judge(spiked, val).evidence
    assert after["noise_before_best"] == plain["noise_before_best"]
    assert after["rise_share"] == plain["rise_share"]


@pytest.mark.parametrize("n", [24, 60])
def test_a_slow_fall_is_underfit_though_it_is_noisy(n: int) -> None:
    rng = np.random.default_rng([9, n])
    fall = np.exp(-1.2 * np.arange(n) / n)
    fall = (fall - fall[-1]) / (1 - fall[-1])
    called = [judge(fall + noise[0], 0.9 * fall + noise[1]).verdict for noise in 0.04 * rng.normal(size=(40, 2, n))]
    assert called.count("underfit") >= 38


@pytest.mark.parametrize("n", [12, 40])
@pytest.mark.parametrize("last", [0.8, 0.9])
def test_two_drops_of_the_learning_rate_are_not_a_slow_fall(n: int, last: float) -> None:
    u = np.arange(n) / n
    curve = 0.6 * np.exp(-30 * u) + 0.2 * (u < 0.5) + 0.2 * (u < last)
    assert judge(curve, 0.1 + 0.9 * curve).verdict == "healthy"


@pytest.mark.parametrize("start", [5, 6, 8])
def test_a_fall_that_the_training_loss_shares_is_no_lone_dip(start: int) -> None:
    """A drop of the learning rate within the first ten epochs, and a rise from the very next epoch on."""
    t, noise = np.arange(14), 0.004 * np.random.default_rng(2).normal(size=14)
    train = 0.6 * np.exp(-t / 2) + 0.35 * (t < start)
    found = judge(train, train + 0.1 + 0.03 * np.maximum(t - start, 0) + noise)
    assert (found.verdict, found.kind, found.best_epoch) == ("overfit", "rise", start + 1)


@pytest.mark.parametrize("n", [80, 150])
def test_a_stall_is_seen_through_noise(n: int) -> None:
    verdicts = [judge(*of_the_shape(1.0, n, seed, 0.05, stalls=True)).verdict for seed in range(40)]
    assert verdicts.count("overfit") >= 38


@pytest.mark.parametrize("n", [80, 200])
def test_a_step_at_a_half_and_at_three_quarters_of_the_run_is_not_a_slow_fall(n: int) -> None:
    """Training goes on falling between the steps; validation is flat in the last fifth, and was not in those before."""
    u, rng = np.arange(n) / n, np.random.default_rng([10, n])
    first, second = np.maximum(u - 0.5, 0), np.maximum(u - 0.75, 0)
    train = 0.5 * np.exp(-25 * u) + 0.25 * np.where(u < 0.5, 1, 0.5 * np.exp(-6 * first))
    train += 0.25 * np.where(u < 0.75, 1, 0.5 * np.exp(-6 * second))
    val = 0.1 + 0.5 * np.exp(-25 * u) + 0.25 * np.where(u < 0.5, 1, 0.6 * np.exp(-6 * first.clip(max=0.25)))
    val += 0.25 * np.where(u < 0.75, 1, 0.3 * np.exp(-40 * second))
    called = [judge(train + noise[0], val + noise[1]).verdict for noise in 0.01 * rng.normal(size=(40, 2, n))]
    assert called.count("underfit") <= 1
