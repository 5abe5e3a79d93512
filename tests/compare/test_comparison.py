"""Across runs: groups and knobs, effects, interactions, what to use."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from tests.compare.runs import effect_of, grid, run
from trainer.compare import knobs as knobs_of
from trainer.compare.comparison import compare


def test_groups_are_everything_but_the_seed() -> None:
    found = compare(grid())
    assert [group.name for group in found.groups] == [
        f"model.batchnorm={norm} model.dropout={dropout}" for norm in ("false", "true") for dropout in ("0", "0.5")
    ]
    assert all(group.seeds == [0, 1, 2, 3, 4] for group in found.groups)
    assert found.groups[0].config == {"epochs": 30, "model.batchnorm": False, "model.dropout": 0.0}
    gaps = [r.measures["gap"] for r in grid()[:5]]
    numbers = found.groups[0].measures["gap"]
    assert numbers.mean == pytest.approx(np.mean(gaps))
    assert (numbers.low, numbers.high) == pytest.approx(stats.t.interval(0.95, 4, np.mean(gaps), stats.sem(gaps)))
    assert found.groups[0].verdicts == {"overfit": 5}
    assert found.groups[0].overfit_share.mean == 1
    json.dumps(found.to_json(), allow_nan=False)


def test_the_knob_that_matters_is_named_with_its_size() -> None:
    found = compare(grid())
    assert {effect.knob for effect in found.effects if effect.claimed} == {"model.dropout"}
    assert found.criterion == "best_val_loss"
    assert found.effects[0].measure == "best_val_loss"  # what decides comes first
    effect = effect_of(grid(), "model.dropout")
    assert found.effects[0].knob == effect.knob == "model.dropout"
    assert effect.size == pytest.approx(0.4, abs=0.02)
    contrast = effect.contrasts[0]
    assert contrast.low is not None
    assert contrast.high is not None
    assert contrast.low < 0.4 < contrast.high
    assert "gap is 0.4" in effect.sentence
    assert "higher at model.dropout=0 than at 0.5" in effect.sentence
    assert found.score == "test_loss"


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_an_effect_is_measured_by_pooled_noise_or_by_its_own(shift: float) -> None:
    """shift: of the effect, from one seed to the next. Then scipy's paired test of each seed's averages is the one."""
    made = grid()
    runs = [
        run(one.config, one.measures["gap"] + shift * one.config["seed"] * (one.config["model.dropout"] > 0))
        for one in made
    ]
    gap = np.array([one.measures["gap"] for one in runs]).reshape(4, 5)  # dropout and batch norm, seed
    means = gap.reshape(2, 2, 5).mean(1)
    residuals = gap - gap.mean(1, keepdims=True) - gap.mean(0) + gap.mean()
    t = (means[0].mean() - means[1].mean()) / np.sqrt((residuals**2).sum() / 12 / 5)  # of means of 10 runs each
    oracle = 2 * stats.t.sf(abs(t), 12) if shift == 0 else stats.ttest_rel(*means).pvalue
    effect = effect_of(runs, "model.dropout")
    assert effect.contrasts[0].p == pytest.approx(oracle)
    assert [level.mean for level in effect.levels] == pytest.approx(means.mean(1))


def test_each_combination_counts_alike_however_many_of_its_seeds_ended() -> None:
    """Dropout costs 1 with batch norm, where two of five seeds ended, and 0 without: 0.5 on average, not 2 / 7."""
    runs = grid(effect=0.0)
    for one in runs:
        norm, dropout = one.config["model.batchnorm"], one.config["model.dropout"] > 0
        one.measures["gap"] += float(norm and dropout)
        if norm and dropout and one.config["seed"] > 1:
            one.measures["gap"] = float("nan")
    gap = np.array([one.measures["gap"] for one in runs]).reshape(2, 2, 5)  # dropout, batch norm, seed
    found = effect_of(runs, "model.dropout").contrasts[0]
    assert found.difference == pytest.approx(np.nanmean(gap[0] - gap[1], 1).mean())
    assert found.difference == pytest.approx(-0.5, abs=0.05)


def test_interactions() -> None:
    found = next(test for test in compare(grid(interaction=0.2)).interactions if test.measure == "gap")
    assert (found.knobs, found.a, found.b) == (
        ["model.batchnorm", "model.dropout"],
        ["false", "true"],
        [0.0, 0.5],
    )
    assert found.difference == pytest.approx(-0.2, abs=0.04)
    assert found.claimed
    assert not any(test.claimed for test in compare(grid()).interactions)


def test_differences_are_between_groups_that_differ_in_one_knob() -> None:
    found = [test for test in compare(grid()).differences if test.measure == "gap"]
    assert len(found) == 4
    assert {test.knob for test in found} == {"model.dropout", "model.batchnorm"}
    assert all(test.claimed == (test.knob == "model.dropout") for test in found)


def test_a_single_knob_is_tested_once_and_shown_twice() -> None:
    found = compare(grid(**{"model.dropout": [0.0, 0.2, 0.5]}))
    by_effect = [test.p_adjusted for effect in found.effects for test in effect.contrasts]
    assert sorted(test.p_adjusted or 0.0 for test in found.differences) == sorted(p or 0.0 for p in by_effect)
    assert found.tests == len(by_effect) == 9  # three pairs, three measures


def test_keys_that_follow_from_another_are_no_knobs_of_their_own() -> None:
    settings = {"SGD": (0.1, None), "Adam": (0.001, 0.9), "AdamW": (0.001, 0.9)}
    runs = [
        run(
            {"seed": seed, "optimizer._target_": f"torch.optim.{name}", "optimizer.lr": lr, "optimizer.beta": beta},
            0.1 + seed / 50,
        )
        for name, (lr, beta) in settings.items()
        for seed in range(3)
    ]
    found = compare(runs)
    assert {effect.knob for effect in found.effects} == {"optimizer"}
    assert found.effects[0].keys == ["optimizer._target_", "optimizer.beta", "optimizer.lr"]
    assert [level.value for level in found.effects[0].levels] == ["Adam", "AdamW", "SGD"]
    assert [warning.kind for warning in found.warnings] == ["learning_rate"]


def test_not_enough_seeds_says_how_many() -> None:
    rng = np.random.default_rng(4)
    runs = [
        run({"seed": s, "width": w}, 0.2 + 0.05 * (w == 8) + float(rng.normal(0, 0.02)))
        for w in (4, 8)
        for s in range(3)
    ]
    test = effect_of(runs, "width").contrasts[0]
    assert (test.claimed, test.answer) == (False, "not enough seeds")
    assert test.seeds_needed is not None
    assert test.seeds_needed > 3
    assert f"a true difference of this size would show with about {test.seeds_needed} seeds" in test.sentence
    alone = effect_of([run({"seed": 0, "width": w}, 0.2) for w in (4, 8)], "width").contrasts[0]
    assert (alone.answer, alone.p, alone.seeds_needed) == ("not enough seeds", None, None)


def test_recommendation_is_by_validation_and_names_its_ties() -> None:
    found = compare(grid()).recommendation
    assert found.criterion == "best_val_loss"
    assert found.knobs["model.dropout"] == 0.5
    assert [tie for tie in found.ties if "dropout=0.5" in tie]
    assert not [tie for tie in found.ties if tie.endswith("dropout=0")]
    no_val = [dataclasses.replace(r, measures={"gap": 0.1, "test_loss": 0.2}) for r in grid()]
    assert compare(no_val).recommendation.group is None
    assert "selection" in {warning.kind for warning in compare(no_val).warnings}


def test_a_class_of_ones_own_beside_a_file_of_ours_is_one_knob() -> None:
    """As `-m optimizer=adam,custom optimizer._target_=my.Lion optimizer.beta=0.8,0.9` leaves them, or with a plus."""
    adam = knobs_of.Setting({"optimizer._target_": "torch.optim.Adam", "optimizer.lr": 0.1}, {"optimizer": "adam"})
    lions = [
        knobs_of.Setting(
            {"optimizer._target_": "my.Lion", "optimizer.lr": 0.1, "optimizer.beta": beta},
            knobs_of.typed(["optimizer=custom", "optimizer._target_=my.Lion", f"{plus}optimizer.beta={beta}"]),
        )
        for plus in ("", "+")
        for beta in (0.8, 0.9)
    ]
    (knob,), tuned, rows = knobs_of.find([adam, *lions])
    assert (knob.name, tuned) == ("optimizer", [])
    assert knob.texts == (
        "optimizer=adam",
        "optimizer=custom optimizer._target_=my.Lion optimizer.beta=0.8",
        "optimizer=custom optimizer._target_=my.Lion optimizer.beta=0.9",
    )
    assert [levels for levels, _ in rows] == [(0,), (1,), (2,), (1,), (2,)]
