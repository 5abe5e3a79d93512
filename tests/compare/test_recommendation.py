"""Which group is named, which are not shown to be worse, and what of runs that guess or came to nothing."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from tests.compare.runs import DIVERGED, HEALTHY, effect, sweep
from trainer.compare import tuning
from trainer.compare.comparison import Run, compare


def test_where_nothing_is_shown_no_group_is_recommended() -> None:
    rng = np.random.default_rng(3)
    settings = [{"model.dropout": dropout} for dropout in (0, 0.2, 0.5)]
    found = compare(sweep(settings, lambda setting: 0.4 + 0.01 * rng.standard_normal()))
    assert found.recommendation.sentence.startswith("no group is shown to be better than another; model.dropout=")
    assert "95 % interval" in found.recommendation.sentence
    assert "wider for having been chosen" in found.recommendation.sentence
    assert len(found.recommendation.ties) == 2


def test_a_network_that_guesses_is_shown_to_be_worse() -> None:
    rng = np.random.default_rng(0)
    runs = sweep([{"optimizer.lr": 0.001}], lambda _: 0.1)
    for seed in range(5):  # losses of guessing networks are wild
        wild = {"best_val_loss": float(2.3 + rng.exponential(30)), "gap": 0.1}
        runs.append(Run(f"w{seed}", "", {"optimizer.lr": 1.0, "seed": seed}, HEALTHY, wild, guessing_loss=2.3))
    found = compare(runs).recommendation
    assert found.group == "optimizer.lr=0.001"
    assert found.ties == []
    assert "the other group is shown to be worse" in found.sentence


def test_networks_that_guess_do_not_hide_what_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of real runs at four learning rates. No seed moves those of guessing networks: they are in no block."""
    values = {
        "best_val_loss": [
            [0.2679, 0.1936, 0.3256, 0.2062],
            [0.0725, 0.0493, 0.1641, 0.0523],
            [2.3082, 2.3076, 2.3070, 2.3091],
            [4.3150, 3.9649, 3.5492, 3.8903],
        ],
        "test_accuracy": [
            [0.9444, 0.9556, 0.9444, 0.9556],
            [0.9778, 0.9778, 0.9889, 0.9611],
            [0.1056, 0.1000, 0.1000, 0.0944],
            [0.1000, 0.0944, 0.1000, 0.1000],
        ],
        "gap": [
            [0.0716, -0.0182, 0.1418, -0.0268],
            [0.0710, 0.0429, 0.1577, 0.0424],
            [-0.0002, -0.0011, 0.0018, -0.0009],
            [-0.0243, 0.0102, -0.0335, -0.0221],
        ],
        "test_loss": [
            [0.2153, 0.2281, 0.2154, 0.2322],
            [0.0614, 0.0609, 0.0590, 0.0848],
            [2.3063, 2.3071, 2.3079, 2.3096],
            [4.3045, 3.9477, 3.5944, 3.9011],
        ],
    }
    runs = [
        Run(f"{lr}/{seed}", "", {"lr": lr, "seed": seed}, HEALTHY, measures, guessing_loss=2.3026)
        for i, lr in enumerate((0.03, 0.3, 3, 30))
        for seed in range(4)
        for measures in [{name: rows[i][seed] for name, rows in values.items()}]
    ]
    found = compare(runs)
    by_pair = {(one.a, one.b): one for one in effect(found, "lr").contrasts}
    textbook = stats.ttest_rel(*values["best_val_loss"][:2])
    one, interval = by_pair[0.03, 0.3], textbook.confidence_interval()
    assert (one.p, one.low, one.high) == pytest.approx((textbook.pvalue, interval.low, interval.high), rel=1e-9)
    assert all(one.claimed for one in by_pair.values())
    assert found.recommendation.sentence.startswith("use lr=0.3: ")
    assert "; best validation loss is 0.164 higher at lr=0.03 than at 0.3 (" in effect(found, "lr").sentence  # not 30
    monkeypatch.setattr(tuning, "idle", lambda _, losses_CS: np.zeros(len(losses_CS), bool))
    assert "not shown to be better than lr=0.03" in compare(runs).recommendation.sentence


def test_what_is_worse_than_any_other_group_is_not_among_those_that_may_be_best() -> None:
    """Two names at two depths: at depth 8 one is shown to be worse than the other, which may not be the best itself."""
    rng = np.random.default_rng(5)
    levels = {(1, "a"): 0.30, (1, "b"): 0.30, (8, "a"): 0.31, (8, "b"): 0.62}
    runs = []
    for (depth, name), mean in levels.items():
        for seed in range(3):
            loss = mean + (0.15 if depth == 1 else 0.01) * rng.normal()
            runs.append(
                Run(
                    f"{depth}{name}{seed}",
                    "",
                    {"depth": depth, "name": name, "seed": seed},
                    HEALTHY,
                    {"best_val_loss": loss},
                )
            )
    found = compare(runs)
    worse = {one.b if (one.difference or 0) < 0 else one.a for one in found.differences if one.claimed}
    assert worse
    assert not worse & {*found.recommendation.ties}


def test_one_run_a_side_shows_nothing() -> None:
    found = compare(sweep([{"a": 1}, {"a": 2}, {"a": 3}], lambda setting: float(setting["a"]), seeds=1))
    assert "shown to be worse" not in found.recommendation.sentence
    assert "groups of one seed cannot be told apart" in found.recommendation.sentence
    assert "use " not in found.answer.text
    assert "What a knob does cannot be tested" in found.answer.text


def test_runs_that_diverged_are_an_outcome() -> None:
    """The survivors of a rate that is too high are the best runs, and no reason to use it."""
    runs = sweep([{"optimizer.lr": 0.1}, {"optimizer.lr": 1.0}], lambda s: 0.5 if s["optimizer.lr"] == 0.1 else 0.3)
    for number in (5, 6, 7):
        runs[number] = dataclasses.replace(runs[number], verdict=DIVERGED, measures={})
    runs = [dataclasses.replace(run, guessing_loss=2.3) for run in runs]
    found = compare(runs)
    wild = next(group for group in found.groups if group.name == "optimizer.lr=1")
    assert (wild.failed_share.mean, wild.n) == (0.6, 5)
    assert found.recommendation.group == "optimizer.lr=0.1"
    (contrast,) = effect(found, "optimizer.lr").contrasts
    assert not contrast.claimed  # survivors say one thing, those that came to nothing the other
    assert "3 of 5 runs at optimizer.lr=1 diverged or failed" in contrast.sentence


def test_a_run_that_lost_its_numbers_before_a_verdict_was_possible_counts_as_diverged() -> None:
    runs = sweep([{"optimizer.lr": lr} for lr in (0.1, 1000)], lambda one: 0.5 + one["optimizer.lr"])
    lost = [dataclasses.replace(run, is_lost=run.config["seed"] < 3) for run in runs[5:]]
    found = compare([*runs[:5], *lost])
    assert [group.failed_share.mean for group in found.groups] == [0, 0.6]
    assert "3 of 5 runs at optimizer.lr=1000 diverged or failed" in effect(found, "optimizer.lr").sentence


def test_no_interval_of_an_accuracy_goes_beyond_all() -> None:
    settings = [{"width": width} for width in (8, 16)]
    runs = sweep(settings, lambda s: 0.002, more={"best_val_accuracy": lambda loss: min(1.0, 1 - loss)})
    runs = [dataclasses.replace(run, measures={"best_val_accuracy": run.measures["best_val_accuracy"]}) for run in runs]
    found = compare(runs).recommendation
    assert found.criterion == "best_val_accuracy"
    assert found.high == 1.0
