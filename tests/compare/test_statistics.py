"""Intervals, tests, correction and planning against scipy, exact counts and resampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainer.compare.statistics import (
    differences,
    grid_step,
    holm,
    mean_interval,
    mean_of,
    seeds_needed,
    share_interval,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_mean_interval_is_students(n: int) -> None:
    values = RNG.normal(3, 2, (4, n))
    mean, sd, low, high, count = mean_interval(np.column_stack([values, np.full(4, np.nan)]))
    oracle = stats.t.interval(0.95, n - 1, values.mean(1), stats.sem(values, axis=1))
    np.testing.assert_allclose([low, high], oracle, rtol=1e-10)
    np.testing.assert_allclose([mean, sd], [values.mean(1), values.std(1, ddof=1)], rtol=1e-12)
    assert count.tolist() == [n] * 4


def test_one_value_has_a_mean_and_no_interval() -> None:
    mean, sd, low, high, n = mean_interval(np.array([[1.5, np.nan], [np.nan, np.nan]]))
    assert mean[0] == 1.5
    assert np.isnan([mean[1], *sd, *low, *high]).all()
    assert n.tolist() == [1, 0]


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (1, 5), (5, 5), (3, 10), (0, 1)])
def test_share_interval_is_wilsons(hits: int, n: int) -> None:
    oracle = stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert share_interval(hits, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_paired_difference_is_scipys(n: int) -> None:
    a, b = RNG.normal(0.5, 1, (6, n)), RNG.normal(0, 1, (6, n))
    found = differences(a, b)
    oracle = stats.ttest_rel(a, b, axis=1)
    np.testing.assert_allclose(found.p, oracle.pvalue, rtol=1e-10)
    interval = oracle.confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], [interval.low, interval.high], rtol=1e-10)
    assert found.paired.all()


def test_seeds_in_common_are_paired_and_others_are_not() -> None:
    a, b = RNG.normal(size=(1, 8)), RNG.normal(size=(1, 8))
    a[0, :2], b[0, 5:] = np.nan, np.nan  # 3 in common
    assert differences(a, b).p[0] == pytest.approx(stats.ttest_rel(a[0, 2:5], b[0, 2:5]).pvalue)
    a[0, :5] = np.nan  # none in common: Welch
    found = differences(a, b)
    assert not found.paired[0]
    assert found.p[0] == pytest.approx(stats.ttest_ind(a[0, 5:], b[0, :5], equal_var=False).pvalue)
    assert np.isnan(differences(a[:, :1], b[:, :1]).p[0])


def test_paired_p_agrees_with_flipping_signs() -> None:
    """The slow, assumption-free oracle: the difference's sign is arbitrary where nothing differs."""
    d = RNG.normal(0.6, 1, 14)
    signs = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)
    flips = np.abs((signs * d).mean(1))
    exact = np.mean(flips >= abs(d.mean()) - 1e-12)
    assert differences(d[None], np.zeros((1, 14))).p[0] == pytest.approx(exact, abs=0.01)


def test_equal_runs_do_not_differ_and_equal_steps_are_not_certain() -> None:
    same = RNG.normal(size=(1, 5))
    assert differences(same, same).p[0] == 1
    accuracy = np.array([[0.90, 0.91]])  # both seeds 1 of 100 examples better: chance, not certainty
    assert differences(accuracy + 0.01, accuracy).p[0] < 1e-6
    assert differences(accuracy + 0.01, accuracy, 0.01**2 / 6).p[0] > 0.1


def test_grid_step() -> None:
    assert grid_step(np.array([0.9, 0.95, 0.85, np.nan, 0.7])) == pytest.approx(0.05)
    assert grid_step(np.float32(RNG.integers(100, 180, 20) / 180).astype(float)) == pytest.approx(1 / 180, rel=1e-3)
    assert grid_step(RNG.normal(size=20)) == 0
    assert grid_step(np.array([1.0, 1.0])) == 0


def holm_by_hand(p: list[float], weights: list[float], alpha: float) -> set[int]:
    """Holm 1979: reject the most significant for its weight, take it out, go on."""
    left, rejected = set(range(len(p))), set()
    while left:
        best = min(left, key=lambda i: p[i] / weights[i])
        if p[best] > alpha * weights[best] / sum(weights[i] for i in left):
            break
        rejected.add(best)
        left.discard(best)
    return rejected


@given(
    st.lists(st.tuples(st.floats(1e-6, 1), st.sampled_from([0.1, 0.5, 1.0])), min_size=1, max_size=12),
    st.sampled_from([0.01, 0.05, 0.3]),
)
def test_holm(tests: list[tuple[float, float]], alpha: float) -> None:
    p, weights = (list(column) for column in zip(*tests, strict=True))
    adjusted = holm(np.array(p), np.array(weights))
    threshold = np.abs(adjusted - alpha) > 1e-9  # a tie with alpha may round either way
    rejected = holm_by_hand(p, weights, alpha)
    assert all((adjusted[i] <= alpha) == (i in rejected) for i in range(len(p)) if threshold[i])


def test_holm_leaves_out_what_could_not_be_tested() -> None:
    assert holm(np.array([0.01, np.nan, 0.02]))[[0, 2]].tolist() == [0.02, 0.02]
    assert holm(np.array([0.01]), np.array([1.0]), unspent=1.0).tolist() == [0.02]


@pytest.mark.parametrize("effect", [0.4, 0.7, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_seeds_needed_is_the_noncentral_ts(effect: float, alpha: float) -> None:
    def power(n: int) -> float:
        t = stats.t.ppf(1 - alpha / 2, n - 1)
        return float(stats.nct.sf(t, n - 1, effect * np.sqrt(n)))

    exact = next(n for n in range(3, 1000) if power(n) >= 0.8)
    assert seeds_needed(np.array([effect]), np.array([alpha]))[0] == pytest.approx(exact, abs=1)


def test_seeds_needed_for_nothing() -> None:
    found = seeds_needed(np.array([0.0, np.nan]), np.array([0.05, 0.05]))
    assert np.isinf(found[0])
    assert np.isnan(found[1])


def test_mean_of_ignores_what_is_missing() -> None:
    assert mean_of(np.array([[1, np.nan], [3, np.nan]]), 0).tolist()[0] == 2
