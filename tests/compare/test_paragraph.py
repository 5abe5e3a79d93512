"""What one quotes: percent and points, no average that hides an interaction, verbs that agree, and what to use."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from tests.compare.runs import accuracy, effect, is_chinese, sweep
from trainer.compare.comparison import compare
from trainer.judge.overfit import Verdict
from trainer.report import vocabulary


def test_an_accuracy_is_told_in_percent_as_in_the_tables_and_its_differences_in_points() -> None:
    settings = [{"bn": bn, "width": width} for bn in (False, True) for width in (8, 16, 32)]
    runs = sweep(settings, lambda s: 0.5 - 0.2 * s["bn"] - s["width"] / 100, more={"test_accuracy": accuracy})
    found = compare(runs)
    (bn,) = effect(found, "bn", "test_accuracy").contrasts
    low, high = (np.mean([run.measures["test_accuracy"] for run in runs if run.config["bn"] == bn]) for bn in (0, 1))
    assert f"test accuracy is {100 * (high - low):.2f} points lower at bn=false than at true" in bn.sentence
    assert f"({low:.2%} against {high:.2%}; 95 % interval {100 * (bn.low or 0):.2f} to " in bn.sentence
    told = [one.sentence for one in (*found.effects, *found.interactions) if one.measure == "test_accuracy"]
    told += [one.shape.sentence for one in found.effects if one.shape and one.measure == "test_accuracy"]
    told += [line for line in found.answer.lines if line.startswith("Test accuracy")]
    assert len(told) > 3
    without_p = [re.sub("p [=<] [0-9.e-]+", "", text) for text in told]
    assert not [text for text in without_p if re.search(r"\d\.\d{3}", text)]  # no fraction
    assert all(map(is_chinese, told))


def test_what_is_to_be_used_by_its_accuracy_is_told_in_percent() -> None:
    runs = sweep([{"width": width} for width in (8, 16)], lambda s: 1 - s["width"] / 100, more={"acc": accuracy})
    by_accuracy = [dataclasses.replace(run, measures={"best_val_accuracy": run.measures["acc"]}) for run in runs]
    found = compare(by_accuracy).recommendation
    assert found.mean is not None
    mean = f"the highest mean best validation accuracy, {found.mean:.2%} (n = 5, 95 % interval {found.low:.2%} to "
    assert found.sentence.startswith(f"use width=16: {mean}")


@pytest.mark.parametrize("knobs", [2, 5])
def test_an_average_that_hides_an_interaction_is_left_out_or_says_so(knobs: int) -> None:
    """Of more than four knobs no effects at single levels are asked: there the average says what it hides."""
    settings = [dict(zip("abcde", values, strict=False)) for values in itertools.product((0, 1), repeat=knobs)]
    found = compare(sweep(settings, lambda s: 0.4 + 0.1 * s["a"] + 0.2 * s["a"] * s["b"], noise=0.02, seeds=3))
    assert effect(found, "a").claimed
    assert found.answer.lines[0].startswith("What a does to the best validation loss depends on b: ")
    assert not [line for line in found.answer.lines if line.startswith("Best validation loss is ")]
    told = [line for line in found.answer.lines if line.startswith("Averaged over ")]
    hides = ", which hides how it depends: best validation loss is 0."
    assert {line.partition(hides)[0] for line in told} == (
        {"Averaged over b", "Averaged over a"} if knobs == 5 else set()
    )
    assert sum(line.startswith("By level, ") for line in found.answer.lines) == (0 if knobs == 5 else 2)
    assert all(map(is_chinese, told))


def test_what_several_keys_do_together_has_the_verbs_of_several() -> None:
    settings = [{"mixup": on, "cutmix": on, "width": width} for on in (False, True) for width in (0, 1)]
    found = compare(sweep(settings, lambda s: 0.5 - 0.2 * s["mixup"] * s["width"]))
    assert found.answer.lines[0].startswith("What mixup and cutmix do to the best validation loss depends on width: ")
    said = vocabulary.beside(vars(next(one for one in found.effects if one.together)))
    assert said.startswith("recorded beside what mixup and cutmix do to the best validation loss")
    lone = vocabulary.beside(vars(effect(found, "width")))
    assert lone.startswith("recorded beside what width does to the best validation loss")
    assert all(is_chinese(line.replace("mixup and cutmix", "mixup")) for line in found.answer.lines)


def test_runs_that_were_recorded_again_are_counted() -> None:
    runs = sweep([{"lr": 1}, {"lr": 2}], lambda setting: float(setting["lr"]))
    again = [dataclasses.replace(run, path=f"{run.path}/again") for run in runs[:3]]
    for count, are in ((3, "are"), (1, "is")):
        warned = compare([*runs, *again[:count]]).warnings
        (told,) = [one.text for one in warned if one.kind == "duplicates"]
        said = f"{count} of {10 + count} runs {are} the same as another (equal config and seed)"
        assert told == f"{said} and {are} not counted again: lr=1"
        assert is_chinese(told)


@pytest.mark.parametrize("worse", [(0.0, 0.0), (0.0, 0.2), (0.2, 0.2)])
def test_only_what_all_others_are_shown_to_be_worse_than_is_to_be_used(worse: tuple[float, float]) -> None:
    found = compare(sweep([{"lr": lr} for lr in (0, 1, 2)], lambda s: 0.3 + (0.0, *worse)[s["lr"]])).recommendation
    begins = {0: "use lr=0: the lowest mean best validation loss, ", 2: "no group is shown to be better than another; "}
    said = begins.get(len(found.ties), f"lowest mean best validation loss: {found.group}, ")
    assert found.sentence.startswith(said)
    if len(found.ties) == 1:
        assert f"; not shown to be better than {found.ties[0]}; lr=2 is shown to be worse" in found.sentence
    assert is_chinese(found.sentence)


def test_how_many_degrees_of_freedom_the_pooled_noise_has() -> None:
    """(G - 1)(S - 1) in blocks of seeds, G (S - 1) where runs have none in common."""
    runs = sweep([{"lr": lr} for lr in range(4)], lambda s: s["lr"])
    assert compare(runs).noise_df["best_val_loss"] == 3 * 4
    alone = [dataclasses.replace(run, config={"lr": run.config["lr"]}) for run in runs]
    assert compare(alone).noise_df["best_val_loss"] == 4 * 4


def test_what_holds_up_is_told_at_the_levels_on_which_it_depends() -> None:
    settings = [{"bn": bn, "width": width, "lr": lr} for bn in (False, True) for width in (8, 16) for lr in (1, 2)]
    loss = lambda s: 0.4 + 0.1 * s["lr"] - 0.2 * s["bn"] * (s["width"] == 16)  # noqa: E731
    part = compare(sweep(settings, loss)).to_json()
    claims = [line for line in vocabulary.claims(part) if "best validation loss" in line]
    begins = [
        "best validation loss is 0.10",
        "at bn=true: best validation loss is 0.1",
        "at width=16: best validation loss",
    ]
    assert [line[: len(begin)] for line, begin in zip(claims, begins, strict=False)] == begins
    assert "at lr=1 than at 2" in claims[0]
    assert [line[:11] for line in claims[3:]] == ["what bn doe"]
    average = vocabulary.of_effect(part["effects"][0], is_average=True)[0]
    assert average.startswith("on average: best validation loss is ")
    assert is_chinese(average)


def test_of_a_gap_that_depends_on_another_knob_no_average_is_told_but_what_the_loss_did() -> None:
    settings = [{"bn": bn, "dropout": dropout} for bn in (False, True) for dropout in (0, 0.5)]
    runs = sweep(settings, lambda s: 0.4 + 0.1 * s["dropout"])
    for run in runs:
        run.measures["gap"] += 0.2 * run.config["bn"] * (run.config["dropout"] == 0.5)
    lines = compare(runs).answer.lines
    (told,) = [line for line in lines if line.startswith("At dropout=0.5: gap is 0.")]
    assert "; the best validation loss is " in told
    assert not [line for line in lines if line.startswith("Gap is ")]
    assert all(map(is_chinese, lines))


def test_what_one_knob_does_at_one_level_of_another_is_not_averaged() -> None:
    settings = [{"opt": opt, "wd": wd} for opt in ("adam", "adamw") for wd in (0.0, 0.1)]
    found = compare(sweep(settings, lambda one: 0.4 - 0.1 * (one["opt"] == "adamw" and one["wd"] > 0)))
    assert found.answer.lines[0].startswith("What opt does to the best validation loss depends on wd: ")
    assert re.match(
        r"By level, opt=adam against adamw: 0\.00\d+ \w+ at wd=0 .*; 0\.\d+ higher at", found.answer.lines[1]
    )
    assert re.match(r"By level, wd=0 against 0.1: 0\.00\d+ \w+ at opt=adam .*; 0\.\d+ higher at", found.answer.lines[2])
    assert not any(line.startswith("Best validation loss is") for line in found.answer.lines)


def test_what_loss_and_accuracy_say_apart_is_said() -> None:
    runs = sweep([{"model": "mlp"}, {"model": "cnn"}], lambda one: 0.4 if one["model"] == "mlp" else 0.3)
    for run in runs:
        run.measures["best_val_accuracy"] = (0.92 if run.config["model"] == "mlp" else 0.88) + 0.001 * run.config[
            "seed"
        ]
    found = compare(runs)
    assert "best validation accuracy is 4.00 points lower there" in found.answer.lines[0]
    assert "but by best validation accuracy, model=mlp is shown to be better" in found.recommendation.sentence


def test_a_gap_is_told_where_the_loss_of_a_knob_is_not_told_on_average() -> None:
    """Dropout closes the gap and helps a little, with batch norm alone: the gap is said, and who overfits."""
    settings = [{"dropout": dropout, "bn": bn} for dropout in (0, 0.5) for bn in (False, True)]
    runs = sweep(settings, lambda s: 0.5 + 0.02 * (s["dropout"] == 0) * s["bn"], noise=0.012)
    gaps = [
        dataclasses.replace(
            run,
            measures={**run.measures, "gap": run.measures["gap"] + 0.4 * (run.config["dropout"] == 0)},
            verdict=Verdict("overfit" if run.config["dropout"] == 0 else "healthy", 3.0, None, "", {}),
        )
        for run in runs
    ]
    said = compare(gaps).answer.text
    assert "Gap is 0." in said
    assert "Runs that overfit: 10 of 10 at dropout=0, 0 of 10 at 0.5." in said
