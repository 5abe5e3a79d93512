"""What is told beside a difference: each signal and ratio against a slow one, only what is clear, never a claim."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests import fake_runs
from trainer.compare import why
from trainer.compare.comparison import Run, compare
from trainer.compare.results import Effect
from trainer.evaluate import evaluate
from trainer.judge.overfit import Verdict

STEPS = ("first_update_ratio", "last_update_ratio")


def run(config: dict[str, Any], loss: float, **changes: Any) -> Run:
    name = " ".join(f"{key}={value}" for key, value in config.items())
    verdict = Verdict("healthy", 3.0, None, "", {})
    made = Run(name, name, config, verdict, {"best_val_loss": loss}, "completed", 30, guessing_loss=2.3)
    return dataclasses.replace(made, **changes)


def grid(
    ratios: dict[str, float], *, noise: float = 0.05, effect: float = 0.5, common: bool = True, **others: list[Any]
) -> list[Run]:
    """Optimizer x others x 5 seeds: adam's loss is `effect` lower, its signals are `ratios` times sgd's.

    common: whether both have the same seeds, which then move the signals far more than the noise does.
    """
    rng = np.random.default_rng(1)
    made = []
    for optimizer, *rest in itertools.product(["sgd", "adam"], *others.values()):
        adam = optimizer == "adam"
        for seed in range(5):
            signals = {
                name: (ratio if adam else 1.0) * float(np.exp(rng.normal(0, noise) + seed * common))
                for name, ratio in ratios.items()
            }
            config = {"optimizer": optimizer, **dict(zip(others, rest, strict=True))}
            config["seed"] = seed if common or adam else seed + 5
            made.append(run(config, float(1.0 - effect * adam + rng.normal(0, 0.01)), signals=signals))
    return made


def optimizers(runs: list[Run], tune: list[str] | None = None) -> Effect:
    found = compare(runs, tune).effects
    return next(effect for effect in found if effect.knob == "optimizer" and effect.measure == "best_val_loss")


def test_signals_of_one_run() -> None:
    """The means by scipy; normalisation and biases are left out; what is not finite or not there is no signal."""
    ratios = {"0.weight": 0.02, "0.bias": 7.0, "norm0.weight": 9.0, "1.weight": 0.5, "2.weight": 0.0}
    start = {f"update_ratio/layers.{name}": ratio for name, ratio in ratios.items()}
    norms = {"norm0.weight": 5.0, "0.weight": 0.3, "1.weight": 0.9, "2.weight": 0.6, "2.bias": 4.0}
    start |= {f"grad_norm/layers.{name}": norm for name, norm in norms.items()}
    final = {"dead_units/layers.act0": 0.3, "dead_units/layers.act1": 0.1, "grad_norm/layers.0.weight": 1.0}
    losses = 2.3 * np.exp(-np.arange(12) / 3) + np.random.default_rng(0).normal(0, 0.02, 12)
    bends = sorted(abs(losses[i] - 2 * losses[i + 1] + losses[i + 2]) for i in range(10))
    assert why.signals(start, final, losses) == pytest.approx(
        {
            "first_update_ratio": stats.gmean([0.02, 0.5]),
            "first_gradient_ratio": 0.5,
            "dead_units": 0.2,
            "roughness": (bends[4] + bends[5]) / 2 / (max(losses) - min(losses)),
        },
        rel=1e-12,
    )
    assert why.signals(None, {"dead_units/a": 0.0}, losses[:9]) == {"dead_units": why.DEAD}
    broken = {
        "update_ratio/a.weight": "inf",
        "update_ratio/b.weight": 10**400,
        "dead_units/a": None,
        "grad_norm/a.weight": 1.0,
        "grad_norm/b.weight": 0.0,
    }
    assert why.signals(broken, broken, np.full(20, np.nan)) == why.signals("?", [], np.ones(20)) == {}


def test_epochs_to_a_loss() -> None:
    """The oracle walks the lowest loss so far in steps of a thousandth of an epoch."""
    loss, start = np.array([2.2, 1.9, 2.6, np.nan, 1.1, 1.3, np.inf, 0.4]), 2.3
    lowest = [start]
    for value in loss:
        lowest.append(min(lowest[-1], value) if math.isfinite(value) else lowest[-1])
    fine = np.linspace(1, 8, 7001)
    for target in (2.25, 2.2, 2.0, 1.9, 1.5, 1.2, 0.7, 0.4):
        slow = next(x for x in fine if np.interp(x, range(9), lowest) <= target + 1e-12)
        assert why.epochs_to(loss, start, target) == pytest.approx(slow, abs=1.1e-3)
    assert math.isnan(why.epochs_to(loss, start, 0.3))
    assert math.isnan(why.epochs_to(loss, start, 2.4))


NAME = "first_update_ratio"


def test_a_ratio_and_its_interval_are_those_of_scipys_paired_test() -> None:
    """By seed, over the logarithms at equal values of the other knob; where a run is missing, so is its partner."""
    _, *runs = grid({NAME: 9.0}, **{"model.width": [8, 64]})
    at = {(r.config["optimizer"], r.config["model.width"], r.config["seed"]): math.log(r.signals[NAME]) for r in runs}
    logs = [
        np.mean([at["adam", width, seed] - at["sgd", width, seed] for width in (8, 64) if ("sgd", width, seed) in at])
        for seed in range(5)
    ]
    interval = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    (found,) = optimizers(runs).why
    assert (found.signal, found.n) == (NAME, 5)
    expected = np.exp([np.mean(logs), interval.low, interval.high])
    assert [found.ratio, found.low, found.high] == pytest.approx(expected, rel=1e-9)


def test_without_common_seeds_they_are_those_of_welchs_test() -> None:
    runs = grid({NAME: 9.0}, common=False)
    adam, sgd = ([math.log(r.signals[NAME]) for r in runs if r.config["optimizer"] == name] for name in ("adam", "sgd"))
    interval = stats.ttest_ind(adam, sgd, equal_var=False).confidence_interval(0.95)
    (found,) = optimizers(runs).why
    expected = [stats.gmean(np.exp(adam)) / stats.gmean(np.exp(sgd)), np.exp(interval.low), np.exp(interval.high)]
    assert [found.ratio, found.low, found.high] == pytest.approx(expected, rel=1e-9)


def test_sentences_say_more_than_one_times_and_what_the_other_end_of_training_shows() -> None:
    def told(first: float, last: float, noise: float = 0.02) -> list[tuple[str, str]]:
        runs = grid({"first_update_ratio": first, "last_update_ratio": last}, noise=noise)
        return [(one.signal, one.sentence) for one in optimizers(runs).why]

    for first, levels in ((9.0, "optimizer=adam as at optimizer=sgd"), (1 / 9, "optimizer=sgd as at optimizer=adam")):
        ((signal, text),) = told(first, 1.1)
        assert signal == "first_update_ratio"
        assert re.match(rf"the first step is (8.9|9|9.1) times as long relative to the weights at {levels} \(", text)
        assert "5 seeds); in the last step they are alike (" in text
        low, high = map(float, re.findall(r"95 % interval (\S+) to (\S+) times", text)[0])
        assert 8 < low < 9 < high < 10
    assert [signal for signal, _ in told(2.0, 0.2)] == ["last_update_ratio", "first_update_ratio"]  # the largest first
    assert not any("alike" in text for _, text in told(2.0, 0.2))
    assert "in the last step they differ less (" in told(9.0, 1.5)[0][1]
    assert "in the last step they differ the other way (" in told(9.0, 1 / 1.5)[0][1]
    runs = grid({"first_update_ratio": 9.0, "last_update_ratio": 1.1})
    wild = [  # on average alike
        dataclasses.replace(one, signals=one.signals | {STEPS[1]: one.signals[STEPS[1]] * 4.0 ** ((i + 1) % 3 - 1)})
        for i, one in enumerate(runs[:5])
    ]
    assert "; in the last step no difference is seen (" in optimizers([*wild, *runs[5:]]).why[0].sentence


def test_only_what_is_clear_and_claimed_is_told() -> None:
    assert optimizers(grid(dict.fromkeys(STEPS, 1.4), noise=0.01)).why == []  # sure, but small
    for ratio in (2.5, 1 / 2.5):  # large, and more than 1 for sure, but not more than 1.5
        runs = grid({NAME: ratio}, noise=0.0)
        unsure = [
            dataclasses.replace(one, signals={NAME: one.signals[NAME] * 3.0 ** (i % 2 - 0.5)})
            for i, one in enumerate(runs[:5])
        ]
        assert optimizers(runs).why
        assert optimizers([*unsure, *runs[5:]]).why == []
    assert optimizers(grid(dict.fromkeys(STEPS, 9.0), effect=0.0)).why == []  # no difference beside which to tell it
    assert optimizers(grid({})).why == []
    everything = {name: 3.0 + i for i, name in enumerate(why.SIGNALS)}
    assert [one.signal for one in optimizers(grid(everything)).why] == [*why.SIGNALS][: -why.MOST - 1 : -1]


def test_nothing_else_in_the_comparison_changes() -> None:
    runs = grid(dict.fromkeys(STEPS, 9.0))
    bare = compare([dataclasses.replace(one, signals={}) for one in runs])
    told = compare(runs)
    assert any(effect.why for effect in told.effects)
    assert all(not effect.why for effect in told.effects if effect.measure != "best_val_loss")
    assert (
        dataclasses.replace(told, effects=[dataclasses.replace(effect, why=[]) for effect in told.effects]) == bare
    )  # the answer too


def test_a_run_that_diverged_has_no_say() -> None:
    runs = grid(dict.fromkeys(STEPS, 9.0))
    lost = dataclasses.replace(runs[0], verdict=Verdict("diverged", None, None, "", {}), signals={STEPS[0]: 1e30})
    (found,) = (one for one in optimizers([lost, *runs[1:]]).why if one.signal == STEPS[0])
    assert found.n == 4
    assert found.ratio == pytest.approx(9, rel=0.2)


def test_tuned_groups_are_compared_at_their_best() -> None:
    """Each optimizer's best rate is another; its other rate's signals would give 900 times."""
    rng = np.random.default_rng(0)
    runs = []
    for optimizer, lr, seed in itertools.product(["sgd", "adam"], [0.01, 0.1], range(5)):
        adam, best = optimizer == "adam", (optimizer == "adam") == (lr == 0.01)
        signal = (9.0 if adam else 1.0) * (1.0 if best else 0.01 if optimizer == "sgd" else 1e4)
        config = {"optimizer": optimizer, "optimizer.lr": lr, "seed": seed}
        loss = 1.0 - 0.5 * adam + 0.3 * (not best) + rng.normal(0, 0.01)
        runs.append(run(config, float(loss), signals={STEPS[0]: signal * float(np.exp(rng.normal(0, 0.02)))}))
    assert set(compare(runs).chosen.values()) == {
        "optimizer=adam optimizer.lr=0.01",
        "optimizer=sgd optimizer.lr=0.1",
    }
    (found,) = optimizers(runs).why
    assert found.ratio == pytest.approx(9, rel=0.1)


def test_speed_is_to_half_way_between_guessing_and_the_worst_best_loss() -> None:
    """Straight falls from guessing: at half the slope, twice the epochs."""
    runs = []
    for one in grid({}):
        adam = one.config["optimizer"] == "adam"
        slope = (0.2 if adam else 0.1) * (1 + 0.02 * one.config["seed"] * adam)
        curve = 2.3 - slope * np.arange(1, 11)
        runs.append(dataclasses.replace(one, val_loss=curve, measures={"best_val_loss": float(curve[-1])}))
    (found,) = optimizers(runs).why
    assert found.signal == why.SPEED
    assert found.ratio == pytest.approx(stats.gmean([0.5 / (1 + 0.02 * seed) for seed in range(5)]))
    said = (
        "a validation loss of 1.8, which all runs compared reach, it takes 2.1 times as many epochs at optimizer=sgd as"
    )
    assert f"{said} at optimizer=adam" in found.sentence
    learned_nothing = dataclasses.replace(runs[0], measures={"best_val_loss": 2.4})
    assert optimizers([learned_nothing, *runs[1:]]).why == []
    by_accuracy = [
        dataclasses.replace(one, measures={"best_val_accuracy": -one.measures["best_val_loss"]}) for one in runs
    ]
    assert all(effect.claimed and not effect.why for effect in compare(by_accuracy).effects)


def test_of_recorded_runs(tmp_path: Path) -> None:
    """Summaries as the trainer writes them reach the JSON; runs that recorded none of it have none."""
    root = fake_runs.sweep(tmp_path / "s", seeds=3, events=False)
    assert all(effect["why"] == [] for effect in evaluate([root])[0]["effects"])
    for path in root.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        dropout = summary["config"]["model.dropout"]
        tags = {f"update_ratio/{layer}": 0.001 * (9 if dropout else 1) for layer in fake_runs.LAYERS}
        summary |= {"start": tags | {"guessing_loss": 2.3}, "final": summary["final"] | dict.fromkeys(tags, 0.01)}
        path.write_text(json.dumps(summary))
    effects = evaluate([root])[0]["effects"]
    (found,) = (e["why"] for e in effects if e["knob"] == "model.dropout" and e["measure"] == "best_val_loss")
    assert [one["signal"] for one in found] == ["first_update_ratio"]
    assert max(found[0]["ratio"], 1 / found[0]["ratio"]) == pytest.approx(9)


def test_the_last_step_of_a_schedule_that_ends_at_0_is_no_evidence() -> None:
    still = {"update_ratio/layers.0.weight": 1e-8, "grad_norm/layers.0.weight": 1.0}
    found = why.signals({"update_ratio/layers.0.weight": 0.01}, still, np.ones(3))
    assert found == {"first_update_ratio": pytest.approx(0.01)}
