"""Runs of other tools: the right cause, however their keys are written and wherever their runs lie."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.compare.runs import DIVERGED, Config, effect, sweep
from trainer.compare.comparison import Run, compare
from trainer.compare.sections import compare_sections
from trainer.evaluate import evaluate


def width(setting: Config) -> float:
    return 0.5 if setting["model.width"] == 32 else 0.4


WIDTHS: list[Config] = [{"model.width": 32}, {"model.width": 256}]


@pytest.mark.parametrize(
    "name", ["rng", "trainSeed", "data.split-seed", "fold", "trial", "cfg.random_state", "seed_everything"]
)
def test_a_repetition_is_no_knob_whatever_it_is_called(name: str) -> None:
    runs = sweep(WIDTHS, width)
    for run in runs:
        run.config[name] = run.config.pop("seed")
    found = compare(runs)
    assert {one.knob for one in found.effects} == {"model.width"}
    assert effect(found, "model.width").claimed
    assert effect(found, "model.width").contrasts[0].paired


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        ("optimizer", "learning-rate"),
        ("optimizerName", "learningRate"),
        ("optimizer.type", "optimizer.params.lr"),
        ("optim_name", "base_lr"),
        ("training.opt", "training.lr"),
    ],
)
def test_a_rate_is_tuned_however_it_is_written(optimizer: str, rate: str) -> None:
    best = {"sgd": 0.1, "adam": 0.001}
    settings = [{optimizer: name, rate: best[name] * factor} for name in best for factor in (0.1, 1.0, 10.0)]

    def loss(setting: Config) -> float:
        name = setting[optimizer]
        return (0.36 if name == "sgd" else 0.3) + 0.15 * float(np.log10(setting[rate] / best[name])) ** 2

    found = compare(sweep(settings, loss))
    assert found.tuned == [rate]
    assert {one.knob for one in found.effects} == {optimizer}
    assert effect(found, optimizer).contrasts[0].difference == pytest.approx(-0.06, abs=0.02)


@pytest.mark.parametrize("name", ["loss_type", "criterionName", "train.loss.fn", "normalize_targets"])
def test_losses_that_do_not_compare_are_known_by_any_name(name: str) -> None:
    settings: list[Config] = [{name: "a"}, {name: "b"}]
    runs = sweep(settings, lambda one: 0.1 if one[name] == "a" else 0.5, more={"best_val_accuracy": lambda _: 0.9})
    found = compare(runs)
    assert {one.measure for one in found.effects} == {"best_val_accuracy"}
    assert not any(one.claimed for one in found.effects)


def test_what_only_names_a_run_or_follows_from_it_is_no_cause() -> None:
    runs = sweep(WIDTHS, width)
    for number, run in enumerate(runs):
        run.config.update({"run_name": f"try {number}", "wandb.id": number, "started_at": 1.7e9 + 37 * number})
        run.config.update({"gpu": number % 3, "num_workers": number % 4, "hostname": f"node{number % 2}"})
        of = run.config["model.width"]
        run.config.update({"n_params": 100 * of, "experiment": f"width {of}"})
    found = compare(runs)
    assert {one.knob for one in found.effects} == {"model.width"}
    assert found.effects[0].contrasts[0].n == 5
    assert "together" not in {one.kind for one in found.warnings}


def test_a_name_that_says_more_than_the_other_keys_is_a_knob() -> None:
    settings = [{"experiment": name, "model.width": width} for name in ("old", "new") for width in (32, 64)]
    found = compare(sweep(settings, lambda one: 0.5 if one["experiment"] == "old" else 0.4))
    assert {one.knob for one in found.effects if one.claimed} == {"experiment"}


def test_another_version_of_the_code_is_part_of_the_cause() -> None:
    settings = [{"optimizer": "sgd", "git_sha": "abc"}, {"optimizer": "adam", "git_sha": "def"}]
    found = compare(sweep(settings, lambda one: 0.5 if one["optimizer"] == "sgd" else 0.4))
    assert sorted(found.effects[0].together) == ["git_sha", "optimizer"]


def test_numbers_written_as_text_are_numbers() -> None:
    runs = sweep([{"depth": depth} for depth in (2, 4, 16)], lambda one: 0.3 + 0.02 * float(one["depth"]))
    runs = [dataclasses.replace(run, config=run.config | {"depth": str(run.config["depth"])}) for run in runs]
    shape = effect(compare(runs), "depth").shape
    assert shape is not None
    assert shape.kind == "rising"
    mixed = [dataclasses.replace(run, config=run.config | {"depth": int(run.config["depth"])}) for run in runs[::2]]
    assert [group.n for group in compare([*mixed, *runs[1::2]]).groups] == [5, 5, 5]


def test_an_argument_that_is_null_with_some_choices_is_theirs() -> None:
    momentum = {None: 0.3, 0.9: 0.4, 0.0: 0.5}
    settings = [{"optimizer.name": "sgd" if m is not None else "adam", "optimizer.momentum": m} for m in momentum]
    found = compare(sweep(settings, lambda one: momentum[one["optimizer.momentum"]]))
    assert {one.knob for one in found.effects} == {"optimizer.name"}
    assert "null" not in found.answer.text
    assert found.recommendation.group == "optimizer.name=adam"
    assert "together" not in {one.kind for one in found.warnings}


def in_folders(*sweeps: list[Run]) -> list[Run]:
    """Runs that lie as other tools leave them: a folder each, below that of their sweep."""
    return [
        dataclasses.replace(run, path=f"out/{folder}/version_{number}/metrics.csv", name=f"{folder}/{number}")
        for folder, runs in enumerate(sweeps)
        for number, run in enumerate(runs)
    ]


def test_sweeps_of_another_tool_in_one_folder_are_each_compared_on_their_own() -> None:
    """A width differs between the sweeps along with the rate, so that no effect of it can be read across them."""
    one = sweep([{"optimizer": o, "width": 64, "lr": 0.01} for o in ("sgd", "adam")],
                lambda s: 0.4 if s["optimizer"] == "sgd" else 0.3)  # fmt: skip
    two = sweep([{"optimizer": "adam", "width": w, "lr": 0.001} for w in (32, 128)], lambda s: 0.6 - s["width"] / 1000)
    sections, apart = compare_sections(in_folders(one, two))
    assert [section.name for section in sections] == ["runs in out/0", "runs in out/1"]
    assert [{each.knob for each in section.found.effects} for section in sections] == [{"optimizer"}, {"width"}]
    assert len(apart) == 1
    halves = in_folders([run for run in one if run.config["optimizer"] == "sgd"], [*one[5:]])
    assert len(compare_sections(halves)[0]) == 1  # a folder for each optimizer is one comparison


def test_sections_of_two_data_sets_have_names_of_their_own() -> None:
    settings = [{"task": t, "optimizer": o} for t in ("cola", "sst2") for o in ("sgd", "adam")]
    sections, _ = compare_sections(in_folders(sweep(settings, lambda one: 0.1 if one["task"] == "cola" else 2.0)))
    assert [one.name for one in sections] == ["runs in out/0 (task=cola)", "runs in out/0 (task=sst2)"]


def test_survivors_are_not_chosen_where_the_loss_of_guessing_is_not_known() -> None:
    runs = sweep([{"lr": 0.1}, {"lr": 1.0}], lambda one: 0.35 if one["lr"] == 0.1 else 0.3)
    runs = [dataclasses.replace(run, first_loss=2.0) for run in runs]
    runs[5:8] = [dataclasses.replace(run, verdict=DIVERGED, measures={}) for run in runs[5:8]]
    found = compare(runs)
    assert found.recommendation.group == "lr=0.1"
    assert "Runs that diverged or failed: 0 of 5 at lr=0.1, 3 of 5 at 1." in found.answer.lines


def test_runs_that_are_too_short_to_be_judged_are_compared_all_the_same(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        low = 0.3 if number < 3 else 0.6
        rows = [f"{epoch},{low},{low + 0.1 / epoch + 0.01 * (number % 3)}" for epoch in (1, 2, 3)]
        (folder / "log.csv").write_text("\n".join(["epoch,train_loss,val_loss", *rows]))
        (folder / "config.yaml").write_text(f"width: {32 if number < 3 else 64}\nseed: {number % 3}\n")
    found, _ = evaluate([tmp_path])
    assert {run["verdict"] for run in found["runs"]} == {"too_short"}
    assert found["criterion"] == "best_val_loss"
    assert "Best validation loss is 0.3 lower at width=32 than at 64" in found["answer"]["text"]
