"""What is tried, and what the trial shows: against scipy, and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from trainer.cli.app import configure
from trainer.cure import trial


def test_what_is_typed_gives_way_to_a_cure() -> None:
    typed = ["optimizer=sgd", "optimizer.momentum=0.9", "model.depth=3", "+model.x=1"]
    assert trial.applied(typed, {"optimizer": "adam"}) == ["model.depth=3", "+model.x=1", "optimizer=adam"]
    assert trial.applied(typed, {"optimizer.momentum": "0.5"})[:2] == ["optimizer=sgd", "model.depth=3"]
    assert trial.applied(typed, {"model.x": "2"})[-1] == "model.x=2"
    assert "+model.x=1" not in trial.applied(typed, {"model.x": "2"})


def test_candidates_are_cures_of_every_finding_and_pairs_that_do_not_meet() -> None:
    config = configure(["model.depth=20", "optimizer.lr=5"]).flat()
    tried = trial.candidates(["vanishing_gradients", "learning_rate_too_high"], config)
    assert tried[0] == {"optimizer.lr": "0.001"}  # what is odd comes first
    assert {"model.batchnorm": "true"} in tried
    assert {"optimizer": "adam"} in tried
    assert {"optimizer.lr": "0.001", "model.batchnorm": "true"} in tried
    assert not any({"optimizer", "optimizer.lr"} <= cure.keys() for cure in tried)
    assert len({tuple(sorted(cure.items())) for cure in tried}) == len(tried)


def test_a_cost_is_no_more_than_guessing() -> None:
    assert trial.cost({"val/loss": 0.3, "eval/train_loss": 0.1}, 2.3, diverged=False) == 0.3
    assert trial.cost({"eval/train_loss": 0.1}, 2.3, diverged=False) == 0.1
    assert trial.cost({"val/loss": 0.3}, 2.3, diverged=True) == 2.3
    assert trial.cost({"val/loss": float("nan")}, 2.3, diverged=False) == 2.3
    assert trial.cost({}, 2.3, diverged=False) == 2.3


def test_one_cure_is_compared_by_a_paired_t_test() -> None:
    costs = np.array([[2.3, 2.2, 2.25], [1.1, 0.9, 1.15]])
    (shown,) = trial.compare(costs)
    paired = stats.ttest_rel(costs[1], costs[0])
    low, high = paired.confidence_interval(0.95)
    assert (shown.mean, shown.difference) == pytest.approx((1.05, -1.2))
    assert (shown.low, shown.high) == pytest.approx((low, high))
    assert shown.p == pytest.approx(paired.pvalue, abs=0.002)  # drawn from the joint distribution
    assert shown.verdict == "helps"


@pytest.mark.parametrize(
    ("difference", "half", "p", "said"),
    [
        (-1, 0.5, 0.01, "helps"),
        (1, 0.5, 0.01, "makes it worse"),
        (-1, 2, 0.3, "not shown"),
        (-1, 0.5, 0.3, "may help"),
        (1, 0.5, 0.3, "may harm"),
        (-1, math.nan, math.nan, "not shown"),
    ],
)
def test_an_interval_apart_from_0_is_no_proof_of_many_cures(difference: int, half: float, p: float, said: str) -> None:
    assert trial.Shown(1.0, difference, difference - half, difference + half, p).words == said


@pytest.mark.slow
def test_what_nothing_differs_in_is_rarely_said_to_help() -> None:
    rng = np.random.default_rng(0)
    claims = sum(
        any(one.verdict != "not shown" for one in trial.compare(rng.normal(size=(8, 3)) + rng.normal(size=3)))
        for _ in range(80)
    )
    assert claims <= 9  # 5 % of 80, and two and a half standard deviations


def test_who_changes_least_of_those_that_bring_most_is_named() -> None:
    cures = [{"a": "1", "b": "1"}, {"a": "1"}, {"c": "1"}]
    costs = np.array([[2.0, 2.0], [0.1, 0.1], [0.15, 0.2], [1.0, 1.0]])
    assert trial.named(cures, costs) == 1
    costs[2] = 0.9
    assert trial.named(cures, costs) == 0
    costs[1:] = 2.5
    assert trial.named(cures, costs) is None
    assert trial.named([{"optimizer": "adam"}, {"optimizer.lr": "1"}], np.array([[2.0], [0.10], [0.15]])) == 1
