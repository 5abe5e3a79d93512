"""What is unfair, missing or beyond comparison is said; what diverged is left out."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from tests.compare.runs import effect_of, grid, run, sweep
from trainer.compare import tuning
from trainer.compare.comparison import compare
from trainer.judge.overfit import Verdict

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


@pytest.mark.parametrize(
    ("name", "values", "index", "tried"),
    [
        ("beta2", (0.9, 0.99, 0.999), 2, None),
        ("keep_prob", (0.5, 0.8, 1.0), 2, None),
        ("train_fraction", (0.25, 0.5, 1.0), 2, None),
        ("drop_path", (0.1, 0.3, 0.5), 2, ("highest", "0.7,0.9")),
        ("optimizer.lr", (0.1, 0.3, 1.0), 2, ("highest", "3,10")),
        ("weight_decay", (0.01, 0.1, 1.0), 2, ("highest", "3,10")),
        ("gradient_clip", (1.0, 5.0, 10.0), 2, ("highest", "20,40")),
    ],
)
def test_values_to_try_are_values_that_can_be_tried(
    name: str, values: tuple[float, ...], index: int, tried: tuple[str, str] | None
) -> None:
    assert tuning.beyond(name, list(values), index) == tried


def test_a_schedule_that_moves_momentum_too_is_said() -> None:
    names = {"cosine": {}, "one_cycle": {"schedule.cycle_momentum": True}}
    settings = [{"schedule.name": name, **more} for name, more in names.items()]
    found = compare(sweep(settings, lambda s: 0.1 + 0.1 * (s["schedule.name"] == "cosine")))
    assert any(one.kind == "together" and "moves momentum as well" in one.text for one in found.warnings)
    alike = [{**one, "schedule.cycle_momentum": True} for one in settings]
    assert compare(sweep(alike, lambda s: 0.1)).warnings == []


def test_where_all_runs_are_underfit_that_is_said_first() -> None:
    runs = sweep([{"lr": 1}, {"lr": 3}], lambda s: 2.3)
    lost = [dataclasses.replace(run, verdict=Verdict("underfit", None, None, "", {})) for run in runs]
    assert compare(lost).answer.text.startswith("All 10 runs are underfit")
    assert "underfit" not in compare([*lost[1:], runs[0]]).answer.text
