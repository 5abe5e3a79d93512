"""How long runs trained: whether they were still improving, and whether all had as many epochs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compare.runs import HEALTHY, Config, is_chinese, sweep
from trainer.compare.comparison import compare
from trainer.evaluate import evaluate
from trainer.judge.overfit import Verdict

WIDTHS: list[Config] = [{"model.width": 32}, {"model.width": 256}]


def width(setting: Config) -> float:
    return 0.5 if setting["model.width"] == 32 else 0.4


def best_at(epoch: int, epochs: int = 20) -> Verdict:
    """The verdict on a run whose validation loss is lowest at an epoch, counted from 1."""
    return dataclasses.replace(HEALTHY, evidence={"best_index": epoch - 1, "epochs": epochs})


@pytest.mark.parametrize(("last", "said"), [(3, False), (5, True)])
def test_runs_that_were_still_getting_better_are_counted(last: int, said: bool) -> None:
    """10 runs of 20 epochs, some of them best at the last one: said from half of them on."""
    runs = sweep([{"width": w} for w in (8, 16)], lambda s: 1 / s["width"])
    runs = [dataclasses.replace(run, epochs=20, verdict=best_at(20 if i < last else 9)) for i, run in enumerate(runs)]
    told = [one.text for one in compare(runs).warnings if one.kind == "still_falling"]
    text = (
        f"{last} of 10 runs have their lowest validation loss at their last epoch: after more epochs the order may be "
    )
    assert told == [f"{text}another"] * said
    assert all(map(is_chinese, told))


def test_runs_that_learned_nothing_do_not_hide_that_the_others_were_still_getting_better() -> None:
    runs = sweep([{"lr": lr} for lr in (0.1, 10, 100)], lambda s: 0.2 if s["lr"] == 0.1 else 2.31)
    runs = [
        dataclasses.replace(run, epochs=20, guessing_loss=2.3, verdict=best_at(20 if i < 5 else 2))
        for i, run in enumerate(runs)
    ]
    (told,) = [one.text for one in compare(runs).warnings if one.kind == "still_falling"]
    assert told.startswith("5 of 5 runs that learned have")
    assert is_chinese(told)


@pytest.mark.parametrize(("schedule", "is_longer"), [("constant", True), ("cosine", False), (["?"], False)])
def test_runs_that_were_still_improving_are_to_be_trained_longer(schedule: Any, is_longer: bool) -> None:
    """Before more seeds; not where the schedule spans the epochs, which cannot be resumed with more."""
    settings: list[Config] = [{"dropout": d, "epochs": 20, "schedule.name": schedule} for d in (0, 0.5)]
    runs = sweep(settings, lambda s: 0.4 + 0.06 * s["dropout"], seeds=3, typed=lambda s: [f"dropout={s['dropout']}"])
    runs = [dataclasses.replace(run, epochs=20, verdict=best_at(20)) for run in runs]
    answer = compare(runs).answer
    assert "6 of 6 runs have their lowest validation loss at their last epoch" in answer.text
    assert "Use " not in answer.text
    longer = ("python -m trainer resume=outputs/one epochs=40", "runs were still improving")
    assert ((answer.next, answer.reason) == longer) is is_longer
    assert is_chinese(str(answer.reason))


def test_unequal_budgets_are_said_where_only_the_curves_tell_them() -> None:
    runs = sweep(WIDTHS, width)
    unequal = [dataclasses.replace(run, epochs=10 if run.config["model.width"] == 32 else 60) for run in runs]
    assert [one.text for one in compare(unequal).warnings if one.kind == "budget"] == [
        "the runs trained for 10 to 60 epochs (model.width=32: 10, model.width=256: 60): unequal budgets"
    ]
    stopped = [dataclasses.replace(run, epochs=20 + i) for i, run in enumerate(runs)]  # as early stopping does
    assert "budget" not in {one.kind for one in compare(stopped).warnings}
    asked = [dataclasses.replace(run, config=run.config | {"max_epochs": 30}) for run in unequal]
    assert "budget" not in {one.kind for one in compare(asked).warnings}


@pytest.mark.parametrize("key", ["data.batch_size", "trainSize", "per_device_train_batch_size"])
def test_equal_epochs_are_no_equal_steps(key: str) -> None:
    runs = sweep([{key: 100, "epochs": 9}, {key: 1000, "epochs": 9}], lambda s: 0.5 - 0.0001 * s[key])
    said = f"{key} changes how many steps an epoch has: with equal epochs its values are trained for unequal numbers"
    assert [one.text for one in compare(runs).warnings if one.kind == "budget"] == [f"{said} of steps"]
    by_steps = [dataclasses.replace(run, config={**run.config, "steps": 500}) for run in runs]
    assert "budget" not in {one.kind for one in compare(by_steps).warnings}


def logged(folder: Path, group: str, seed: int, epochs: np.ndarray, more: str = "", low: float = 0.5) -> None:
    """A run as another tool leaves it: a loss that falls until it ends, over the epochs that are logged."""
    folder = folder / f"{group}-{seed}"
    folder.mkdir()
    val = low + 1.8 * np.exp((epochs[0] - epochs) / 8) + 0.01 * np.random.default_rng(seed).normal()
    rows = [f"{epoch:g},{loss - 0.1},{loss}" for epoch, loss in zip(epochs, val, strict=True)]
    (folder / "log.csv").write_text("\n".join(["epoch,train_loss,val_loss", *rows]))
    (folder / "config.yaml").write_text(f"optimizer: {group}\nseed: {seed}\n{more}")


@pytest.mark.parametrize("first", [0, 1])
def test_epochs_may_be_counted_from_0(first: int, tmp_path: Path) -> None:
    for seed in range(5):
        logged(tmp_path, "sgd", seed, np.arange(20) + first)
        logged(tmp_path, "adam", seed, np.arange(20) + first, low=0.3)
    found, _ = evaluate([tmp_path])
    assert [one["text"].partition(" have ")[0] for one in found["warnings"] if one["kind"] == "still_falling"] == [
        "10 of 10 runs"
    ]
    assert "Use " not in found["answer"]["text"]


CUT = "5 of 5 runs of optimizer=adam have 11 to 12 of the 20 epochs that {} says: "
CUT += "killed, stopped early, or still training"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("max_epochs: 20", "max_epochs"),
        ("num_train_epochs: 20.0", "num_train_epochs"),
        ("epochs: 20\npretraining: {epochs: 100}", "epochs"),  # the fewer of two
        ("max_epochs: 20\npatience: null\nmax_steps: -1", "max_epochs"),
        ("max_epochs: 20\nearly_stopping: {patience: 3}", ""),
        ("max_epochs: 20\nscheduler: {patience: 3}\nlr_patience: 2", "max_epochs"),
        ("max_epochs: 20\nearly_stop: true", ""),
        ("max_epochs: 20\nmax_steps: 1000", ""),
        ("max_epochs: 20\ncallbacks: [lightning.EarlyStopping]", ""),
        ("max_epochs: -1", ""),
        (f"max_epochs: {10**400}", ""),
        ("max_epochs: 12", ""),
        ("", ""),
    ],
)
def test_runs_of_fewer_epochs_than_their_configuration_says_are_counted(more: str, said: str, tmp_path: Path) -> None:
    for seed in range(5):
        logged(tmp_path, "sgd", seed, np.arange(20), more)
        logged(tmp_path, "adam", seed, np.arange(11 + seed % 2), more, low=0.2)
    found, _ = evaluate([tmp_path])
    told = [one["text"] for one in found["warnings"] if one["kind"] == "cut_short"]
    assert told == ([CUT.format(said)] if said else [])
    assert ("killed" in found["answer"]["text"]) == bool(said)
    assert "Use " not in found["answer"]["text"]
    assert all(
        is_chinese(text.replace("optimizer", "opt").replace(f"that {said} says", "that lr says")) for text in told
    )


@pytest.mark.parametrize(
    "epochs",
    [
        np.arange(1, 21),
        np.arange(20),
        np.arange(1, 20, 2),
        np.arange(2, 21, 2),
        np.arange(4, 20),
        np.linspace(0.5, 20, 40),
    ],
)
def test_whoever_has_its_epochs_is_not_cut_short_however_it_counts_them(epochs: np.ndarray, tmp_path: Path) -> None:
    """From 0 or 1, measured every other epoch or twice in each, resumed in another file."""
    for seed in range(3):
        logged(tmp_path, "sgd", seed, np.arange(20), "max_epochs: 20")
        logged(tmp_path, "adam", seed, epochs, "max_epochs: 20")
    assert not {one["kind"] for one in evaluate([tmp_path])[0]["warnings"]} & {"cut_short", "budget"}


def test_epochs_beyond_all_bounds_are_no_number_of_epochs(tmp_path: Path) -> None:
    for seed in range(3):
        logged(tmp_path, "sgd", seed, np.array([-1e200, 1, 2, 3, 4, 5, 1e200]), "max_epochs: 20")
    (said,) = (one["text"] for one in evaluate([tmp_path])[0]["warnings"] if one["kind"] == "cut_short")
    assert said.startswith("3 of 3 runs of all runs have 5 of the 20 epochs")


def test_what_is_known_to_have_ended_is_not_called_cut_short_and_others_are_not_to_be_used() -> None:
    runs = sweep(WIDTHS, width)
    cut = [dataclasses.replace(run, epochs=6, config=run.config | {"epochs": 20}, status=None) for run in runs]
    found = compare(cut)
    assert [one.kind for one in found.warnings] == ["cut_short"]
    assert "to be worse" in found.recommendation.sentence
    assert not found.recommendation.sentence.startswith("use ")
    assert compare(runs).recommendation.sentence.startswith("use ")
    assert compare([dataclasses.replace(run, status="completed") for run in cut]).warnings == []  # it says why


@pytest.mark.parametrize(("apart", "said"), [(10, True), (1.25, False)])
def test_another_number_of_evaluations_is_said(apart: float, said: bool) -> None:
    """Where runs of a group differ in it they stopped early, and where they trained for longer that is said."""
    runs = sweep(WIDTHS, width)
    times = [20 if run.config["model.width"] == 32 else round(20 * apart) for run in runs]
    often = [dataclasses.replace(run, verdict=best_at(9, n)) for run, n in zip(runs, times, strict=True)]
    found = compare(often)
    assert found.recommendation.sentence.startswith("use ") is not said
    told = [one.text for one in found.warnings if one.kind == "evaluations"]
    counts = f"20 to {20 * apart:g} times (model.width=32: 20, model.width=256: {20 * apart:g})"
    assert told == [f"validation was measured {counts}: the best of more is better by luck alone"] * said
    assert all(is_chinese(text.replace("model", "opt")) for text in told)
    stopped = [dataclasses.replace(run, verdict=best_at(9, times[i] + i)) for i, run in enumerate(runs)]
    longer = [dataclasses.replace(run, epochs=n) for run, n in zip(often, times, strict=True)]
    assert all(one.kind != "evaluations" for some in (stopped, longer) for one in compare(some).warnings)
    batches = [
        dataclasses.replace(run, config={"batch_size": run.config["model.width"], "seed": run.config["seed"]})
        for run in often
    ]
    kinds = {one.kind for one in compare(batches).warnings}
    assert kinds >= {"budget", *["evaluations"] * said}
