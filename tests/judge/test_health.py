"""Findings: planted by configuration or by hand, and absent where all is well. docs/health.md has the large numbers."""

import csv
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import Cli, Quiet, make_config, record, small_data
from trainer.config import Config
from trainer.core import data
from trainer.core.loop import train
from trainer.core.stack import Stack
from trainer.judge import health
from trainer.judge.health import Finding, judge
from trainer.record.destination import Destination

DATA = torch.float32
ILL: list[Any] = [  # finding, choices, values, where
    (
        "vanishing_gradients",
        (),
        {"model.depth": 20, "model.activation": "sigmoid", "epochs": 3},
        "layers.0 to layers.19",
    ),
    ("vanishing_gradients", (), {"model.depth": 16, "model.init_scale": 0.5}, "layers.0 to layers.15"),
    ("exploding_gradients", (), {"model.depth": 9, "model.init": "he_normal", "model.init_scale": 4.0}, "layers.0 to "),
    ("dead_units", (), {"model.bias_init": -20.0}, "layers.act0, layers.act1"),
    ("saturated_units", (), {"model.activation": "tanh", "model.init_scale": 60.0}, "layers.act0, layers.act1"),
    ("loss_at_start", (), {"model.init_scale": 12.0}, "output layer"),
    ("inputs_not_normalised", (), {"data.normalisation": "none"}, "inputs"),
    ("learning_rate_too_high", (), {"optimizer.lr": 1.0}, ""),
    ("learning_rate_too_low", (), {"optimizer.lr": 1e-6}, ""),
    ("learning_rate_too_low", (), {"optimizer.lr": 0.0}, ""),
    ("weight_decay_dominates", ("optimizer=sgd",), {"optimizer.weight_decay": 1.0, "epochs": 15}, "layers."),
    ("not_finite", ("optimizer=sgd",), {"optimizer.lr": 1e30}, "train/loss"),
    ("labels_unrelated", (), {"data.label_noise": 1.0, "epochs": 20, "optimizer.lr": 0.003}, "labels"),
    ("dropout_too_high", (), {"model.dropout": 0.9, "model.depth": 4}, ""),
    ("dropout_too_high", (), {"model.input_dropout": 0.97}, ""),
    ("bottleneck", (), {"model.width": [32, 1, 32], "model.depth": 3}, "layers.1"),
    ("weight_decay_dominates", ("optimizer=adamw",), {"optimizer.weight_decay": 1200.0}, ""),
    ("weight_decay_dominates", ("optimizer=sgd",), {"optimizer.weight_decay": 1000.0}, ""),
    ("schedule_ends_early", ("schedule=step",), {"schedule.step_size": 0.2}, ""),
    ("momentum_too_high", ("optimizer=sgd",), {"optimizer.momentum": 0.999, "epochs": 20, "optimizer.lr": 0.2}, ""),
    pytest.param(
        "batch_too_small",
        ("optimizer=sgd",),
        {"optimizer.lr": 0.2, "data.batch_size": 1, "epochs": 5},
        "",
        marks=pytest.mark.slow,
    ),
    ("too_few_steps", (), {"accumulate": 100}, ""),
]
MAY_FOLLOW = {"learning_rate_too_high", "loss_at_start", "dead_units", "saturated_units", "one_class", "not_finite"}
WELL: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {}),
    (("optimizer=sgd",), {"optimizer.momentum": 0.9, "optimizer.lr": 0.03}),
    (("optimizer=adamw", "schedule=cosine"), {"model.dropout": 0.5, "optimizer.weight_decay": 0.1}),
    ((), {"model.batchnorm": True, "model.depth": 12, "model.width": 32}),
    ((), {"model.depth": 4, "model.init": "he_normal", "epochs": 25}),  # overfits
    ((), {"model.activation": "tanh", "model.batchnorm": True, "model.batchnorm_position": "after"}),
    ((), {"data.label_noise": 0.4, "loss.label_smoothing": 0.1}),
    ((), {"loss.label_smoothing": 0.85}),
    ((), {"model.input_dropout": 0.5}),
    (("optimizer=sgd",), {"optimizer.momentum": 0.99, "optimizer.lr": 0.002}),
    (("schedule=exponential",), {"schedule.gamma": 0.7}),
    ((), {"data.shuffle": False}),
    ((), {"loss.name": "mse"}),
    ((), {"model.depth": 3, "model.width": [64, 32, 32], "model.batchnorm": True, "model.activation": "gelu"}),
    ((), {"epochs": 1}),
    ((), {"epochs": 1, "data.train_size": 30}),  # one step
    ((), {"epochs": 2, "model.depth": 6}),
    (("experiment=linear_regression",), {}),
    (("experiment=linear_regression",), {"model.depth": 2, "optimizer.lr": 0.01}),
]


def short(*choices: str, **values: Any) -> Config:
    """Ten epochs of 400 digits, but for what is said."""
    size = {} if "experiment=linear_regression" in choices else {"data.train_size": 400, "data.batch_size": 32}
    return make_config(*choices, **({"epochs": 10, **size, "record.pictures": False} | values))


class Findings(Quiet):
    """Judges as a recorder does, and writes nothing of the end."""

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        self.flush(stack)
        for k in leaving:
            member, run = stack.members[k], self.runs[k]
            assert run is not None
            self.found = judge(member.rows, member.start, member.config.flat(), run.not_finite)


def stack_of(config: Config) -> Stack:
    raw = config.data.normalisation == "none" and config.data.name != "line"
    return Stack([config], raw_digits() if raw else small_data(config.data.name, DATA))


def findings(stack: Stack, folder: Path) -> list[Finding]:
    recorder = Findings(stack, [Destination(folder)])
    train(stack, recorder)
    return recorder.found


@functools.cache
def raw_digits():
    return data.load(make_config(**{"data.normalisation": "none"}).data)


@pytest.mark.parametrize(("finding", "choices", "values", "where"), ILL)
def test_what_is_planted_is_found(
    finding: str, choices: tuple[str, ...], values: dict[str, Any], where: str, tmp_path: Path
) -> None:
    found = findings(stack_of(short(*choices, **values)), tmp_path)
    named = {one.finding: one for one in found}
    assert finding in named, found
    assert named[finding].where.startswith(where)
    assert set(named) <= {finding} | MAY_FOLLOW
    for one in found:
        said = one.to_json(short(*choices, **values).flat())
        assert set(said) == {"finding", "where", "step", "sentence", "evidence", "why", "try"}
        assert said["sentence"] in health.line(said)
        assert 0 <= one.step <= 5 * 400


@pytest.mark.parametrize(("choices", "values"), WELL)
def test_all_is_well(choices: tuple[str, ...], values: dict[str, Any], tmp_path: Path) -> None:
    assert findings(stack_of(short(*choices, **values)), tmp_path) == []


@pytest.mark.parametrize("layer", [0, 2])
def test_a_layer_that_dies_is_named(layer: int, tmp_path: Path) -> None:
    stack = stack_of(short(**{"model.depth": 3}))
    with torch.no_grad():
        stack.parameters[f"layers.{layer}.bias"].fill_(-100)
    (found,) = findings(stack, tmp_path)
    assert (found.finding, found.where, found.step) == ("dead_units", f"layers.act{layer}", 0)
    assert found.evidence["at_end"] == {f"layers.act{layer}": 1.0}


def test_one_class_in_the_labels(tmp_path: Path) -> None:
    stack = stack_of(short())
    stack.train_y_KN.fill_(3)
    assert [(found.finding, found.where) for found in findings(stack, tmp_path)] == [("one_class", "labels")]


@pytest.mark.parametrize(("lr", "expected"), [(1e-8, ["learning_rate_too_low"]), (1e-3, [])])
def test_a_point_that_hardly_moves_is_told(lr: float, expected: list[str], tmp_path: Path) -> None:
    config = make_config("problem=rosenbrock", "optimizer=sgd", epochs=50, **{"optimizer.lr": lr})
    assert [one.finding for one in findings(Stack([config], data.load(config.data)), tmp_path)] == expected


@pytest.mark.parametrize(
    ("scale", "offset", "expected"),
    [(1.0, 1000.0, True), (1e-4, 0.0, True), (1e4, 0.0, True), (1.0, 0.0, False), (3.0, 5.0, False)],
)
def test_targets_that_are_not_standardised(scale: float, offset: float, expected: bool, tmp_path: Path) -> None:
    config = short("experiment=linear_regression", "optimizer=adam", epochs=20, **{"model.depth": 1})
    stack = stack_of(config)
    stack.train_y_KN.mul_(scale).add_(offset)
    assert ("targets_not_normalised" in [one.finding for one in findings(stack, tmp_path)]) == expected


@pytest.mark.parametrize("change", [lambda x: x * 0, lambda x: x[:1].expand_as(x)])
def test_inputs_that_are_all_the_same(change: Any, tmp_path: Path) -> None:
    dataset = small_data("digits", DATA)
    stack = Stack([short(epochs=5)], dataclasses.replace(dataset, x=change(dataset.x)))
    assert [one.finding for one in findings(stack, tmp_path)] == ["inputs_constant"]


# ------------------------------------------------------------------ where findings go


def test_findings_stand_in_every_record_of_the_run(tmp_path: Path, cli: Cli) -> None:
    code, out, _ = cli(
        "model.depth=12 model.activation=sigmoid epochs=2 data.train_size=100 record.pictures=false hydra.run.dir=ill"
    )
    assert code == 0
    summary = json.loads((tmp_path / "ill/summary.json").read_text())
    (found,) = summary["health"]
    assert found["finding"] == "vanishing_gradients"
    assert health.line(found) in out
    assert health.line(found) in (tmp_path / "ill/trainer.log").read_text()
    (events,) = (tmp_path / "ill").glob("events*")
    assert b"**vanishing gradients**" in events.read_bytes()
    with open(tmp_path / "ill/metrics.csv", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    again = judge(rows, summary["start"], summary["config"])
    assert [one.to_json(summary["config"]) for one in again] == [found]  # from files alone
    code, out, _ = cli("epochs=2 data.train_size=100 record.pictures=false hydra.run.dir=well")
    assert health.ALL_WELL in out
    assert json.loads((tmp_path / "well/summary.json").read_text())["health"] == []


def test_every_finding_says_why_and_what_to_try() -> None:
    for finding in health.ADVICE:
        said = Finding(finding, "there", 3, "so it is").to_json({})
        assert health.line(said).startswith(f"{finding.replace('_', ' ')} (there, from step 3): so it is; ")
    assert {one.values[0] if hasattr(one, "values") else one[0] for one in ILL} | {
        "inputs_constant",
        "not_finite_at_start",
        "targets_not_normalised",
        "norm_without_statistics",
        "squashed_outputs",
        "no_gradient",
        "oscillation",
        "loss_does_not_move",
        "one_class",
        "one_batch",
        "leakage",
        "contradicting_targets",
        "wrong_gradient",
        "unregistered_layers",
        "unsaved_state",
        "random_evaluation",
        "softmax_twice",
    } == set(health.ADVICE)


def test_members_of_a_stack_have_their_own_findings(tmp_path: Path) -> None:
    configs = [short(epochs=2), short(epochs=2, **{"optimizer.lr": 0.0}), short(epochs=2, **{"model.bias_init": -20.0})]
    runs = record(configs, tmp_path, small_data("digits", DATA))
    found = [json.loads((run / "summary.json").read_text())["health"] for run in runs]
    assert [[one["finding"] for one in some] for some in found] == [[], ["learning_rate_too_low"], ["dead_units"]]


def test_who_is_hopeless_is_told_once_while_it_trains(cli: Cli) -> None:
    line = "epochs=10 data.train_size=64 record.pictures=false"
    _, out, err = cli(f"-m model.bias_init=-20,0,-30 {line} hydra.launcher.workers=0 hydra.sweep.dir=told")
    said = "in 5 epochs 2 of 3 runs (0, 2) learned nothing, and waiting will not help: dead units; "
    assert [text for text in err.splitlines() if "learned nothing" in text] == [
        f"note: {said}early_stopping.monitor=health ends such runs"
    ]
    assert "waiting" not in out
    _, _, err = cli(f"model.bias_init=-21 {line} epochs=9 hydra.run.dir=short")  # it is about to end anyway
    assert "learned nothing" not in err


def test_a_hopeless_run_stops_where_it_is_asked_to(tmp_path: Path, cli: Cli) -> None:
    line = "model.bias_init=-20,0 early_stopping.monitor=health epochs=9 data.train_size=100 record.pictures=false"
    code, *_ = cli(f"-m {line} hydra.sweep.dir=two")
    runs = [json.loads(path.read_text()) for path in sorted((tmp_path / "two").glob("*/summary.json"))]
    ended = {run["config"]["model.bias_init"]: (run["stopped_by"], run["epochs"]) for run in runs}
    assert (code, ended) == (0, {-20.0: ("early_stopping", 7), 0.0: ("budget", 9)})
