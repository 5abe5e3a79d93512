"""Laws of every comparison, odd input, how often it claims what is not there, and its power."""

import dataclasses
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.compare.runs import effect, grid, run
from trainer.compare.budget import ALPHA
from trainer.compare.comparison import Run, compare
from trainer.compare.results import Contrast
from trainer.judge.overfit import Verdict

# Laws


def _widths(spreads: Sequence[float], slope: float = 0.005) -> list[Contrast]:
    rng = np.random.default_rng(4)
    runs = [
        run({"model.width": width, "seed": seed}, float(0.5 + slope * width + spread * rng.normal()))
        for width, spread in enumerate(spreads)
        for seed in range(5)
    ]
    return effect(compare(runs), "model.width").contrasts


def test_unequal_spreads_are_corrected_by_bonferroni_not_by_what_one_noise_for_all_would_do() -> None:
    tested = [
        (one.p or 0.0, one.p_adjusted or 0.0) for one in _widths((0.09, 0.01, 0.01, 0.01, 0.01, 0.01), slope=0.05)
    ]
    assert len(tested) == 15
    surest = min(tested)
    assert surest[1] >= min(1.0, 15 * surest[0])  # what is left when that is shown is asked of fewer
    assert all(adjusted >= p for p, adjusted in tested)
    assert surest[0] < 0.05


def test_one_group_that_is_far_noisier_than_the_others_hides_nothing_about_those() -> None:
    with_it, without = (_widths(spreads) for spreads in ((0.01,) * 5 + (0.5,), (0.01,) * 5))
    intervals = {(one.a, one.b): (one.low, one.high) for one in with_it}
    for one in without:
        assert intervals[one.a, one.b] == pytest.approx((one.low, one.high), rel=1e-9)
    wild = [one.claimed for one in with_it if 5 in (one.a, one.b)]
    assert wild == [False] * 5


def test_where_one_group_is_noisier_the_others_are_compared_by_their_own_noise() -> None:
    values = np.array(  # a learning rate too large beside good ones, which share what is of the seed
        [[0.66, 0.65, 0.57, 0.53], [0.40, 0.49, 0.38, 0.32], [0.24, 0.28, 0.20, 0.10], [2.50, 2.25, 2.30, 2.41]]
    )
    runs = [run({"optimizer.lr": 10.0**i, "seed": s}, values[i, s]) for i, s in np.ndindex(4, 4)]
    by_pair = {(one.a, one.b): one for one in effect(compare(runs), "optimizer.lr").contrasts}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        one, textbook = by_pair[10.0**i, 10.0**j], stats.ttest_rel(values[i], values[j])
        interval = textbook.confidence_interval()
        assert (one.p, one.low, one.high) == pytest.approx((textbook.pvalue, interval.low, interval.high), rel=1e-9)
        assert one.claimed


def test_where_one_of_many_groups_is_a_little_noisier_the_others_keep_the_noise_of_all() -> None:
    values = np.random.default_rng(0).normal(size=(9, 5)) + np.arange(9.0)[:, None]
    values[8] = 8 + 2.0 * (values[8] - values[8].mean())
    runs = [run({"optimizer.lr": 10.0**i, "seed": s}, values[i, s]) for i, s in np.ndindex(9, 5)]
    by_pair = {(one.a, one.b): one.p for one in effect(compare(runs), "optimizer.lr").contrasts}
    residuals = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    se = np.sqrt((residuals**2).sum() / 32 * 2 / 5)
    pooled = {
        (i, j): 2 * stats.t.sf(abs(values[i].mean() - values[j].mean()) / se, 32) for i in range(9) for j in range(i)
    }
    for (i, j), p in pooled.items():
        is_pooled = by_pair[10.0**j, 10.0**i] == pytest.approx(p, rel=1e-9)
        assert is_pooled == (i != 8)


def test_order_of_runs_changes_nothing() -> None:
    runs = grid(interaction=0.2)
    for number in range(5):
        shuffled = random.Random(number).sample(runs, len(runs))
        assert compare(shuffled).to_json() == compare(runs).to_json()


def test_seeds_relabelled_change_nothing() -> None:
    names: list[Any] = [11, "x", 2.5, 3, -1]
    relabelled = [dataclasses.replace(r, config={**r.config, "seed": names[r.config["seed"]]}) for r in grid()]
    one, two = compare(grid()).to_json(), compare(relabelled).to_json()
    for key in ("effects", "differences", "interactions"):
        assert _numbers(one[key]) == pytest.approx(_numbers(two[key]), rel=1e-6, abs=1e-12)
    assert one["recommendation"]["ties"] == two["recommendation"]["ties"]


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_scale_of_a_measure_changes_no_claim() -> None:
    scaled = [dataclasses.replace(r, measures={k: 1e3 * v for k, v in r.measures.items()}) for r in grid()]
    one, two = compare(grid()), compare(scaled)
    assert [e.claimed for e in one.effects] == [e.claimed for e in two.effects]
    assert two.effects[0].size == pytest.approx(1e3 * (one.effects[0].size or 0))


# Odd input


def test_nothing_one_run_and_runs_of_another_tool() -> None:
    assert compare([]).recommendation.group is None
    alone = compare(grid()[:1])
    assert (len(alone.groups), alone.effects, alone.groups[0].name) == (1, [], "all runs")
    others = [dataclasses.replace(r, config={}, name=f"<b>{n}</b>") for n, r in enumerate(grid()[:4])]
    found = compare(others)
    assert [group.n for group in found.groups] == [1, 1, 1, 1]
    assert found.groups[0].name == "run=<b>0</b>"


def test_values_of_every_type_and_measures_of_some_runs() -> None:
    values: list[Any] = [None, True, 1, 1.5, "a", [1, 2], {"b": 3}]
    runs = [run({"seed": s, "key": value}, 0.1 * s) for value in values for s in range(2)]
    runs[0] = dataclasses.replace(runs[0], measures={"gap": float("nan"), "other": float("inf")})
    runs[1] = dataclasses.replace(runs[1], measures={})
    found = compare(runs)
    assert len(found.groups) == 7
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_any_config_and_any_numbers_give_strict_json() -> None:
    rng, choice = np.random.default_rng(0), random.Random(0)
    values: list[Any] = [None, True, 0, 1, "a", "1", [1, 2], {"a": 1}, float("nan"), 2**60, -1e-9]
    numbers = [0.5, float("nan"), float("inf"), 1e308, 0.7, 0.9]
    for _ in range(75):
        keys = choice.sample(["a", "optimizer._target_", "optimizer.lr", "epochs"], choice.randint(0, 3))
        runs = []
        for number in range(choice.randint(1, 20)):
            config = {key: choice.choice(values) for key in keys} | {"seed": choice.choice([0, 1, "x", None])}
            measures = {key: choice.choice([*numbers, float(rng.normal())]) for key in ("gap", "best_val_loss")}
            verdict = Verdict(choice.choice(["overfit", "diverged"]), None, None, "", {})
            runs.append(Run(f"path {number}", "x", config, verdict, measures))
        found = json.dumps(compare(runs).to_json(), allow_nan=False)
        assert json.dumps(compare(choice.sample(runs, len(runs))).to_json()) == found


def test_runs_without_seeds_are_tested_unpaired() -> None:
    runs = [dataclasses.replace(r, config={k: v for k, v in r.config.items() if k != "seed"}) for r in grid()]
    test = compare(runs).differences[0]
    assert not test.paired
    assert test.p is not None


# False claims and power


def simulated(rng: np.random.Generator, groups: int, seeds: int, effect: float = 0.0) -> list[Run]:
    shared = rng.normal(size=seeds)
    return [
        dataclasses.replace(
            run({"seed": s, "name": g}, 0.0), measures={"gap": float(shared[s] + rng.normal() + effect * (g == 0))}
        )
        for g in range(groups)
        for s in range(seeds)
    ]


@pytest.mark.slow
def test_where_nothing_differs_little_is_claimed() -> None:
    """400 sweeps of three equal groups: at most 5 % claim anything, within three standard errors."""
    rng = np.random.default_rng(0)
    hits = sum(any(test.claimed for test in compare(simulated(rng, 3, 5)).differences) for _ in range(400))
    assert hits / 400 <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / 400)


@pytest.mark.slow
def test_power_is_the_textbooks() -> None:
    rng = np.random.default_rng(1)
    ours, textbook = 0, 0
    for _ in range(300):
        runs = simulated(rng, 2, 5, effect=2.0)
        ours += compare(runs).differences[0].claimed
        a, b = np.array([r.measures["gap"] for r in runs]).reshape(2, 5)
        textbook += bool(stats.ttest_rel(a, b).pvalue <= ALPHA)
    assert textbook > 100
    assert ours / textbook >= 0.95


@pytest.mark.slow
def test_power_of_nine_groups_is_near_tukeys() -> None:
    """Pairs of the one group that differs: Tukey's test in blocks, five seeds."""
    rng = np.random.default_rng(2)
    ours, textbook = 0, 0
    critical = stats.studentized_range.ppf(1 - ALPHA, 9, 32)
    for _ in range(40):
        runs = simulated(rng, 9, 5, effect=2.8)
        ours += sum(0 in (test.a, test.b) and test.claimed for test in compare(runs).effects[0].contrasts)
        values = np.array([r.measures["gap"] for r in runs]).reshape(9, 5)
        residuals = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
        se = np.sqrt((residuals**2).sum() / 32 / 5)
        textbook += int((np.abs(values[0].mean() - values[1:].mean(1)) / se > critical).sum())
    assert textbook > 200
    assert ours / textbook >= 0.8
