"""Across runs: groups and knobs, effects, guards, laws; false claims and power; cost."""

import dataclasses
import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from trainer.compare import knobs as knobs_of
from trainer.compare.comparison import Run, compare
from trainer.compare.inference import ALPHA
from trainer.compare.results import Contrast, Effect
from trainer.judge.overfit import Verdict

Config = dict[str, Any]


def run(config: Config, gap: float, **changes: Any) -> Run:
    """A run of a config with a given gap; validation and test numbers follow from it."""
    name = " ".join(f"{key}={value}" for key, value in config.items())
    verdict = Verdict("overfit" if gap > 0.3 else "healthy", 3.0, None, "", {})
    measures = {"gap": gap, "best_val_loss": 0.3 + gap, "test_loss": 0.4 + gap**2}
    made = Run(
        name,
        name,
        config,
        verdict,
        measures,
        "completed",
        30,
        {"data_hash": "d", "split_hash": str(config.get("seed"))},
    )
    return dataclasses.replace(made, **changes)


def grid(seeds: int = 5, effect: float = 0.4, interaction: float = 0.0, **knobs: list[Any]) -> list[Run]:
    """Every combination; dropout lowers the gap by `effect`, by `interaction` more with batch norm; noise 0.02."""
    knobs = knobs or {"model.dropout": [0.0, 0.5], "model.batchnorm": [False, True]}
    rng = np.random.default_rng(0)
    made = []
    for values in itertools.product(*knobs.values()):
        config = dict(zip(knobs, values, strict=True))
        drop = config.get("model.dropout", 0) > 0
        for seed in range(seeds):
            gap = 0.5 - effect * drop - interaction * drop * bool(config.get("model.batchnorm")) + rng.normal(0, 0.02)
            made.append(run({"seed": seed, "epochs": 30, **config}, float(gap)))
    return made


def effect_of(runs: list[Run], knob: str, measure: str = "gap") -> Effect:
    return next(e for e in compare(runs).effects if (e.knob, e.measure) == (knob, measure))


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


# Guards


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("data", lambda r: {"hashes": {"data_hash": str(r.config["model.dropout"])}}),
        ("split", lambda r: {"hashes": {"split_hash": str(r.config["model.dropout"])}}),
        ("order", lambda r: {"hashes": {"order_hash": str(r.config["model.dropout"])}}),
        ("unfinished", lambda r: {"status": "failed" if r.config["seed"] == 0 else "completed"}),
        ("diverged", lambda r: {"verdict": Verdict("diverged", None, None, "", {})} if r.config["seed"] == 0 else {}),
        ("selection", lambda r: {"config": {**r.config, "early_stopping.monitor": "test/loss"}}),
        ("duplicates", lambda r: {"config": {**r.config, "seed": max(1, r.config["seed"])}, "hashes": {}}),
    ],
)
def test_unfair_comparisons_are_said(kind: str, change: Any) -> None:
    assert compare(grid()).warnings == []
    found = compare([dataclasses.replace(r, **change(r)) for r in grid()]).warnings
    assert [warning.kind for warning in found] == [kind]
    assert all(warning.text for warning in found)


def test_unequal_budgets_few_seeds_missing_combinations() -> None:
    longer = [dataclasses.replace(r, config={**r.config, "epochs": 30 + r.config["seed"]}) for r in grid()]
    assert "budget" not in {w.kind for w in compare(longer).warnings}  # here the budget is a knob
    as_trained = [
        dataclasses.replace(r, config={"seed": r.config["seed"], "d": r.config["model.dropout"]}, epochs=9 + n)
        for n, r in enumerate(grid())
    ]
    assert "budget" in {w.kind for w in compare(as_trained).warnings}
    assert [w.kind for w in compare(grid(seeds=2)).warnings] == ["seeds"]
    assert [w.kind for w in compare(grid()[:15]).warnings] == ["unbalanced"]


def test_a_best_value_at_the_edge_of_the_grid() -> None:
    def kinds(best: float, values: list[float], knob: str = "optimizer.lr") -> list[str]:
        runs = [
            run({"seed": s, knob: v}, abs(np.log10(v + 1e-9) - np.log10(best + 1e-9)) + s / 100)
            for v in values
            for s in range(3)
        ]
        return [w.kind for w in compare(runs).warnings]

    assert kinds(0.01, [0.001, 0.01, 0.1]) == []
    assert kinds(0.1, [0.001, 0.01, 0.1]) == ["edge"]
    assert kinds(0.001, [0.001, 0.01, 0.1]) == ["edge"]
    assert kinds(0.0, [0.0, 0.2, 0.5], "model.dropout") == []  # 0 is off, not an edge


@pytest.mark.parametrize(("higher", "best"), [(False, "mse"), (True, "huber")])
@pytest.mark.parametrize("name", ["score", "hinge_loss"])
def test_where_losses_do_not_compare_a_metric_decides_in_its_own_direction(name: str, higher: bool, best: str) -> None:
    """Lower by 0.5 with mse; a metric whose name ends as a loss's is none."""
    rng = np.random.default_rng(0)
    runs = []
    for loss, seed in itertools.product(["mse", "huber"], range(6)):
        value = 1.0 - 0.5 * (loss == "mse") + rng.normal(0, 0.05)
        measures = {"best_val_loss": 0.3, "test_loss": 0.3, f"best_val_{name}": value, f"test_{name}": value + 0.1}
        runs.append(run({"loss.name": loss, "seed": seed}, 0.1, measures=measures, metrics={name: higher}))
    found = compare(runs)
    assert found.criterion == f"best_val_{name}"
    assert found.recommendation.knobs == {"loss.name": best}
    assert ("highest" if higher else "lowest") in found.recommendation.sentence
    assert {(effect.measure, effect.claimed) for effect in found.effects} == {
        (f"best_val_{name}", True),
        (f"test_{name}", True),
    }
    (caveat,) = [one for one in found.warnings if one.kind == "loss"]
    assert caveat.text.endswith("only accuracies and other metrics are compared")


def test_a_metric_beside_an_accuracy_is_tested_and_does_not_decide() -> None:
    made = [
        dataclasses.replace(one, measures={**one.measures, "test_f1": 0.9 - one.measures["gap"]}, metrics={"f1": True})
        for one in grid()
    ]
    found = compare(made)
    assert found.criterion == "best_val_loss"
    assert effect_of(made, "model.dropout", "test_f1").size == pytest.approx(0.4, abs=0.05)
    assert all(group.measures["test_f1"].n == 5 for group in found.groups)


def test_diverged_runs_are_left_out_of_means() -> None:
    runs = grid()
    runs[0] = dataclasses.replace(runs[0], verdict=Verdict("diverged", None, None, "", {}), measures={"gap": 1e9})
    group = compare(runs).groups[0]
    assert group.measures["gap"].n == 4
    assert group.verdicts == {"diverged": 1, "overfit": 4}


def test_a_group_that_diverged_is_no_tie() -> None:
    gone = [dataclasses.replace(r, verdict=Verdict("diverged", None, None, "", {})) for r in grid()[:5]]
    name = compare(grid()).groups[0].name
    assert name not in compare([*gone, *grid()[5:]]).recommendation.ties


# Laws


def _widths(spreads: Sequence[float], slope: float = 0.005) -> list[Contrast]:
    rng = np.random.default_rng(4)
    runs = [
        run({"model.width": width, "seed": seed}, float(0.5 + slope * width + spread * rng.normal()))
        for width, spread in enumerate(spreads)
        for seed in range(5)
    ]
    return next(e for e in compare(runs).effects if e.measure == "best_val_loss").contrasts


def test_unequal_spreads_are_corrected_by_bonferroni_not_by_what_one_noise_for_all_would_do() -> None:
    tested = [
        (one.p or 0.0, one.p_adjusted or 0.0) for one in _widths((0.09, 0.01, 0.01, 0.01, 0.01, 0.01), slope=0.05)
    ]
    assert len(tested) == 15
    assert all(adjusted >= min(1.0, 15 * p) for p, adjusted in tested)
    assert min(p for p, _ in tested) < 0.05


def test_one_group_that_is_far_noisier_than_the_others_hides_nothing_about_those() -> None:
    with_it, without = (_widths(spreads) for spreads in ((0.01,) * 5 + (0.5,), (0.01,) * 5))
    intervals = {(one.a, one.b): (one.low, one.high) for one in with_it}
    for one in without:
        assert intervals[one.a, one.b] == pytest.approx((one.low, one.high), rel=1e-9)
    wild = [one.claimed for one in with_it if 5 in (one.a, one.b)]
    assert wild == [False] * 5


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
    for _ in range(150):
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


def test_where_nothing_differs_little_is_claimed() -> None:
    """400 sweeps of three equal groups: at most 5 % claim anything, within three standard errors."""
    rng = np.random.default_rng(0)
    hits = sum(any(test.claimed for test in compare(simulated(rng, 3, 5)).differences) for _ in range(400))
    assert hits / 400 <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / 400)


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
