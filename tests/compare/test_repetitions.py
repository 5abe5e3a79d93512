"""What is a repetition and what is not: only other numbers of the same setting tell how much chance does."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from tests.compare.runs import effect, sweep
from trainer.compare.comparison import Run, compare

SETTINGS = itertools.product((1, 2), (0, 1), (1, 5))
GRID = [{"lr": lr, "record": record, "checkpoint": minutes} for lr, record, minutes in SETTINGS]


def test_knobs_that_change_no_number_are_none() -> None:
    """Twins are one run: p is that of the runs that differ, whatever else was varied."""
    few = sweep([{"lr": 1}, {"lr": 2}], lambda s: 0.01 * s["lr"], seeds=5)
    by_setting = {(one.config["lr"], one.config["seed"]): one for one in few}
    runs = [
        dataclasses.replace(by_setting[setting["lr"], seed], path=f"{n}/{seed}", config={**setting, "seed": seed})
        for n, setting in enumerate(GRID)
        for seed in range(5)
    ]
    alone, found = compare(few), compare(runs)
    assert [one.knob for one in found.effects] == [one.knob for one in alone.effects]
    assert [one.p for one in effect(found, "lr").contrasts] == [one.p for one in effect(alone, "lr").contrasts]
    values = np.array([run.measures["best_val_loss"] for run in few]).reshape(2, 5)
    assert effect(found, "lr").contrasts[0].p == pytest.approx(stats.ttest_rel(*values).pvalue, rel=1e-9)
    said = "checkpoint, record change no number: runs that differ in them alone are one"
    assert [one.text for one in found.warnings] == [said]
    other = [*runs[:-1], dataclasses.replace(runs[-1], measures={**runs[-1].measures, "gap": 0.2})]
    assert {"record", "checkpoint"} <= {one.knob for one in compare(other).effects}


def test_a_knob_alone_that_changes_no_number_is_asked_about() -> None:
    runs = sweep([{"clip": 1}], lambda s: 0.1)
    twins = [dataclasses.replace(run, path=f"{run.path}b", config={**run.config, "clip": 5}) for run in runs]
    assert "exactly the same numbers" in compare([*runs, *twins]).answer.text


def test_seeds_that_change_nothing_are_no_repetitions() -> None:
    made = sweep([{"act": "relu"}, {"act": "tanh"}], lambda s: 0.5 + 0.001 * (s["act"] == "tanh"), seeds=1)
    runs = [
        dataclasses.replace(run, path=f"{run.path}/{seed}", config={**run.config, "seed": seed})
        for run in made
        for seed in range(5)
    ]
    found = compare(runs)
    assert [group.n for group in found.groups] == [1, 1]
    assert not any(one.claimed for one in found.differences)


def test_a_seed_that_all_runs_have_and_that_gives_other_numbers_is_none() -> None:
    runs = sweep([{"opt": "adam"}, {"opt": "sgd"}], lambda s: 0.5 + 0.1 * (s["opt"] == "sgd"))
    one_seed = [dataclasses.replace(run, config={**run.config, "seed": 0}) for run in runs]
    found = compare(one_seed)
    assert [group.n for group in found.groups] == [5, 5]
    assert effect(found, "opt").claimed
    assert found.warnings == []
    again = dataclasses.replace(one_seed[0], path="again", status="failed", measures={})
    assert [group.n for group in compare([one_seed[0], one_seed[5], again]).groups] == [1, 1]  # tried twice, ended once


@pytest.mark.parametrize("how", ["no seed", "own seeds", "other seeds at another rate"])
def test_a_tuned_group_stands_at_its_best_rate_whatever_its_seeds(how: str) -> None:
    """Adam is better at the best rate of each, and far worse where both are averaged over all rates."""
    at = {"adam": [0.45, 0.9, 1.4], "sgd": [0.5, 0.6, 0.7]}
    settings = [{"optimizer": name, "lr": 10.0**k} for name in at for k in range(3)]
    runs: list[Run] = []
    for k, run in enumerate(sweep(settings, lambda s: at[s["optimizer"]][int(np.log10(s["lr"]))])):
        config = dict(run.config)
        config["seed"] = {"own seeds": k, "other seeds at another rate": config["seed"] + 100 * int(config["lr"])}.get(
            how
        )
        runs.append(dataclasses.replace(run, config=config))
    found = compare(runs)
    assert found.tuned == ["lr"]
    (one,) = effect(found, "optimizer").contrasts
    means = [np.mean([run.measures["best_val_loss"] for run in runs[first : first + 5]]) for first in (0, 15)]
    assert one.difference == pytest.approx(means[0] - means[1])
    assert one.claimed


def test_losses_of_different_definitions_are_averaged_by_no_knob() -> None:
    settings = [{"loss.name": name, "width": width} for name, width in itertools.product(("mse", "huber"), (16, 128))]
    runs = sweep(
        settings, lambda s: (100.0 if s["loss.name"] == "mse" else 1.0) / s["width"], more={"test_loss": float}
    )
    found = compare(runs)
    assert not any(one.claimed for one in [*found.effects, *found.differences])
    assert "metrics=[r2]" in found.answer.text
    with_r2 = compare(sweep(settings, lambda s: 1 / s["width"], more={"test_accuracy": lambda loss: 1 - loss}))
    assert {one.measure for one in with_r2.effects} == {"test_accuracy"}


def test_a_rate_that_follows_from_all_else_was_not_tuned() -> None:
    """Runs made by hand, each with a rate of its own: only the rate matters, and it is named."""
    made = [("adam", 0.1, 1e-3), ("adam", 0.3, 3e-4), ("sgd", 0.2, 3e-3), ("sgd", 0.5, 1e-4)]
    settings = [{"optimizer": name, "dropout": dropout, "lr": lr} for name, dropout, lr in made]
    found = compare(sweep(settings, lambda s: -0.1 * np.log10(s["lr"]), seeds=3))
    assert found.tuned == []
    assert all(
        {"optimizer", "dropout", "lr"} <= set(one.knob.replace(" and ", ", ").split(", ")) for one in found.effects
    )
    assert any(one.kind == "together" and "lr" in one.text for one in found.warnings)


def test_groups_without_a_common_seed_are_told_what_common_seeds_would_bring() -> None:
    runs = sweep([{"dropout": 0}, {"dropout": 0.5}], lambda s: 0.5)
    apart = [dataclasses.replace(run, config={**run.config, "seed": k}) for k, run in enumerate(runs)]
    assert [one.kind for one in compare(apart).warnings] == ["seeds"]
    assert compare(runs).warnings == []


def test_of_two_edges_the_next_command_widens_that_of_the_group_that_lost() -> None:
    """Adam is best at its lowest rate and wins; SGD, best at its highest, may yet overtake it."""
    at = {"adam": [0.1, 0.3, 0.5], "sgd": [0.9, 0.6, 0.4]}
    settings = [{"optimizer": name, "optimizer.lr": 10.0**k} for name in at for k in (-3, -2, -1)]
    runs = sweep(
        settings,
        lambda s: at[s["optimizer"]][round(3 + np.log10(s["optimizer.lr"]))],
        typed=lambda s: [f"optimizer={s['optimizer']}", f"optimizer.lr={s['optimizer.lr']}"],
    )
    assert compare(runs).answer.next == "python -m trainer resume=outputs/one optimizer.lr=0.001,0.01,0.1,0.3,1"
