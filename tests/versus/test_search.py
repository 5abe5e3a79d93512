"""The race of a group's candidates, against slow computations; outcomes are made up."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.versus import search
from trainer.versus.search import FIRST_TUNING_SEED, MOST_WIDENINGS, WIDER, Outcome, Race

LR = "optimizer.lr"


def outcome(loss: float, accuracy: float = 0.5, verdict: str = "healthy", status: str = "completed") -> Outcome:
    return Outcome("there", status, verdict, loss, accuracy)


def decide(race: Race, of: Callable[[dict[str, str], int], Outcome]) -> Race:
    """Give every run that is wanted its outcome, until the race is decided."""
    while wanted := race.wanted():
        for candidate, seed in wanted:
            assert seed not in candidate.runs, "the same run twice"
            candidate.runs[seed] = of(candidate.values, seed)
    return race


def bowl(best: float) -> Callable[[dict[str, str], int], Outcome]:
    """A loss that grows with the distance from the best rate, in decades."""
    return lambda values, seed: outcome(abs(math.log10(float(values[LR]) / best)))


@given(st.integers(2, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_the_winner_is_that_of_halving_by_hand(count: int, draw: int) -> None:
    seeds = 10
    loss_CS = np.random.default_rng(draw).normal(size=(count, seeds))
    race = Race({"model.activation": [str(i) for i in range(count)]}, "val_loss")  # a key whose grid stays as it is
    decide(race, lambda values, seed: outcome(loss_CS[int(values["model.activation"]), seed - FIRST_TUNING_SEED]))
    left, rung, runs = list(range(count)), 0, 0
    while len(left) > 1:
        rung += 1
        runs += len(left)
        left = sorted(left, key=lambda i: loss_CS[i, :rung].mean())[: -(-len(left) // 2)]
    assert race.best.values == {"model.activation": str(left[0])}
    assert race.runs == runs == sum(search.rungs(count)) == search.most_runs(count, 0)


@pytest.mark.parametrize("count", [2, 15, 40])
def test_rates_are_equally_far_apart_on_a_log_scale(count: int) -> None:
    rates = [float(text) for text in search.rate_grid(count)]
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 10, count), rtol=0.005)  # three digits
    assert rates == sorted(set(rates))


@pytest.mark.parametrize("bad", [outcome(0.0, 1.0, "diverged"), outcome(0.0, 1.0, status="failed"), outcome(math.nan)])
@pytest.mark.parametrize("measure", ["val_loss", "val_accuracy"])
def test_one_run_that_diverged_or_failed_makes_its_candidate_the_worst(bad: Outcome, measure: str) -> None:
    race = Race({"model.width": ["8", "16", "32", "64"]}, measure)
    decide(race, lambda v, seed: bad if v["model.width"] == "16" else outcome(1.0 + int(v["model.width"]), 0.1))
    assert race.best.values == {"model.width": "8"}
    assert race.rungs[0]["ranking"][-1] == {"values": {"model.width": "16"}, "mean": math.inf}


def test_where_all_fail_smaller_rates_are_tried() -> None:
    def of(values: dict[str, str], seed: int) -> Outcome:
        return outcome(0.1, verdict="diverged" if float(values[LR]) > 2e-5 else "healthy")

    race = decide(Race({LR: ["0.0001", "0.001", "0.01"]}, "val_loss"), of)
    assert float(race.best.values[LR]) <= 2e-5
    hopeless = decide(
        Race({LR: ["0.0001", "0.001"]}, "val_loss"), lambda values, seed: outcome(0.1, verdict="diverged")
    )
    assert hopeless.why() == "every setting failed or diverged with some seed; this is the first of them"
    assert "nan" not in str(hopeless.to_json())


@pytest.mark.parametrize(("best", "widenings"), [(0.05, 0), (2e-5, 1), (50.0, 1), (1e-9, 2), (1e9, 2)])
def test_a_grid_whose_edge_wins_is_widened(best: float, widenings: int) -> None:
    race = decide(Race({LR: search.rate_grid(15)}, "val_loss"), bowl(best))
    rates = sorted(float(one.values[LR]) for one in race.candidates)
    assert len(race.widenings) == widenings
    assert len(rates) == 15 + WIDER * widenings
    steps = np.diff(np.log10(rates))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.03)  # three digits; the new values are as far apart
    assert float(race.best.values[LR]) == min(rates, key=lambda rate: abs(math.log10(rate / best)))
    assert bool(race.edges(race.best.values)) == (widenings == MOST_WIDENINGS)


def test_below_no_weight_decay_lies_nothing_and_the_upper_edge_is_one() -> None:
    decay = "optimizer.weight_decay"
    least = decide(Race({decay: ["0", "0.01", "0.1"]}, "val_loss"), lambda v, seed: outcome(float(v[decay])))
    assert (least.best.values, least.widenings, least.edges(least.best.values)) == ({decay: "0"}, [], [])
    most = decide(Race({decay: ["0", "0.01", "0.1"]}, "val_loss"), lambda v, seed: outcome(-float(v[decay])))
    assert [one["added"] for one in most.widenings] == [["1", "10", "100"], ["1e+03", "1e+04", "1e+05"]]


def test_two_tuned_keys_make_every_combination_and_are_widened_beside_the_best() -> None:
    def of(values: dict[str, str], seed: int) -> Outcome:
        return outcome(abs(math.log10(float(values[LR]) / 10)) + abs(float(values["model.dropout"]) - 0.2))

    race = Race({LR: ["0.01", "0.1", "1"], "model.dropout": ["0", "0.2", "0.5"]}, "val_loss")
    assert len(race.candidates) == 9
    decide(race, of)
    assert race.best.values == {LR: "10", "model.dropout": "0.2"}
    assert [one.values for one in race.candidates[9:]] == [
        {LR: rate, "model.dropout": "0.2"} for rate in ("10", "100", "1e+03")
    ]


def test_equal_accuracies_are_told_apart_by_the_loss() -> None:
    race = Race({"model.width": ["4", "8", "16"]}, "val_accuracy")
    of = {"4": outcome(0.1, 0.8), "8": outcome(0.3, 0.9), "16": outcome(0.2, 0.9)}
    decide(race, lambda values, seed: of[values["model.width"]])
    assert race.best.values == {"model.width": "16"}
    assert race.why().startswith("best validation accuracy, 0.9 (mean over 2 seeds); next model.width=8 with 0.9")


@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.sampled_from([-1.0, 0.0, 1.0]))
@settings(max_examples=100, deadline=None)
def test_no_race_takes_more_runs_than_were_announced(count: int, draw: int, slope: float) -> None:
    rng = np.random.default_rng(draw)
    race = Race({LR: search.rate_grid(count)}, "val_loss")
    noise = float(rng.choice([0.0, 1.0, 5.0]))
    decide(race, lambda v, seed: outcome(slope * math.log10(float(v[LR])) + noise * rng.normal()))
    assert sum(search.rungs(count)) <= race.runs <= search.most_runs(count, 1)


def test_an_outcome_holds_nothing_of_the_test_split() -> None:
    def of(test: Mapping[str, Any]) -> Outcome:
        best = {"val/loss": 0.3, "val/accuracy": 0.9, "eval/train_loss": 0.1}
        return Outcome.of(
            "search-1/0", {"status": "completed", "best": best, "verdict": {"verdict": "healthy"}, **test}
        )

    expected = Outcome("search-1/0", "completed", "healthy", 0.3, 0.9)
    assert of({"test": {"best": {"loss": 1e9, "accuracy": 0.0}}}) == of({}) == expected


def test_what_is_left_is_what_then_runs() -> None:
    race = Race({"model.width": [str(2**i) for i in range(1, 8)]}, "val_loss")
    while wanted := race.wanted():
        announced = race.left()
        for candidate, seed in wanted:
            candidate.runs[seed] = outcome(float(candidate.values["model.width"]))
        assert race.left() == announced - len(wanted)
    assert race.left() == 0


def test_what_is_added_late_runs_with_every_seed_of_those_it_joins() -> None:
    def of(values: dict[str, str], seed: int) -> Outcome:
        place = math.log10(float(values[LR]))
        return outcome(abs(place + 1.6) if seed == FIRST_TUNING_SEED else -5 * place)  # later seeds: larger is better

    race = decide(Race({LR: ["0.001", "0.01", "0.1"]}, "val_loss"), of)
    assert race.widenings[0] == {"key": LR, "beyond": "0.1", "added": ["1", "10", "100"], "seeds": 2}
    for one in race.candidates[3:]:
        assert set(one.runs) >= {FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1}


def test_a_grid_with_one_value_above_nothing_is_widened_by_decades() -> None:
    decay = "optimizer.weight_decay"
    race = decide(Race({decay: ["0", "0.1"]}, "val_loss"), lambda values, seed: outcome(-float(values[decay])))
    assert race.widenings[0]["added"] == ["1", "10", "100"]
