"""Findings planted in records by hand: what each needs, and what explains what."""

import math
from typing import Any

import numpy as np
import pytest

from trainer.judge import health
from trainer.judge.health import NotFinite, first_not_finite, judge

CONFIG = {"model.depth": 3, "model.width": 64}


def sound(epochs: int = 12, layers: int = 3) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Records of a run as it should be; 10 steps an epoch."""
    names = [f"layers.{i}.{part}" for i in range(layers + 1) for part in ("weight", "bias")]
    start = {"loss": 2.35, "guessing_loss": 2.3, "expected_loss": 2.3, "target_top_class": 0.1, "eval/top_class": 0.2}
    start |= {"input_rms": 1.0, "input_mean": 0.0, "input_feature_ratio": 1.2}
    steady = {
        f"{kind}/layers.act{i}": v for i in range(layers) for kind, v in (("activation_mean", 0.2), ("dead_units", 0.1))
    }
    steady |= {f"weight_norm/{n}": 5.0 for n in names} | {f"update_ratio/{n}": 0.005 for n in names}
    start |= steady | {f"grad_norm/{n}": 0.3 for n in names}
    rows = [
        {
            "epoch": e,
            "step": 10 * e,
            "eval/train_loss": 2.3 * math.exp(-e / 4),
            "eval/train_accuracy": 1 - 0.9 * math.exp(-e / 4),
            "val/loss": 2.3 * math.exp(-e / 4) + 0.1,
            "val/accuracy": 0.9 - 0.8 * math.exp(-e / 4),
            "eval/top_class": 0.12,
            "lr": 0.001,
            **steady,
            **{f"grad_norm/{n}": 0.2 for n in names},
        }
        for e in range(1, epochs + 1)
    ]
    return rows, start


STILL = {"eval/train_loss": 2.3, "val/loss": 2.3, "eval/train_accuracy": 0.1}  # nothing learned


def names(*judged: Any) -> list[str]:
    return [found.finding for found in judge(*judged)]


def test_a_sound_record_and_nothing_to_judge() -> None:
    rows, start = sound()
    assert judge(rows, start, CONFIG) == []
    assert judge([], start, CONFIG) == judge(rows, {}, CONFIG) == []


@pytest.mark.parametrize("factor", [0.1, 0.2, 5.0, 10.0])
def test_the_factor_a_layer_is_measured(factor: float) -> None:
    rows, start = sound(layers=8)
    for i in range(8):
        start[f"grad_norm/layers.{i}.bias"] = 0.1 * factor ** (7 - i)
    (found,) = judge(rows, start, CONFIG)
    assert found.finding == ("vanishing_gradients" if factor < 1 else "exploding_gradients")
    assert found.evidence["factor_a_layer"] == pytest.approx(factor)
    assert found.evidence["bottom_over_top"] == pytest.approx(factor**7)
    assert (found.where, found.step) == ("layers.0 to layers.7", 1)


def test_a_gradient_so_small_that_it_is_zero_vanishes_too() -> None:
    rows, start = sound(layers=8)
    for i in range(8):
        start[f"grad_norm/layers.{i}.bias"] = 0.1**6 ** (7 - i) if i > 3 else 0.0
        start[f"grad_norm/layers.{i}.weight"] = 0.0 if i < 3 else 0.1
    assert names(rows, start, CONFIG) == ["vanishing_gradients"]
    start |= {f"grad_norm/layers.{i}.bias": 0.0 for i in range(7)}  # a single number is left
    assert names(rows, start, CONFIG) == ["vanishing_gradients"]


def test_biases_of_a_module_of_the_users_own_must_lie_on_a_line() -> None:
    """A bias below batch norm has next to no gradient: no sign of vanishing."""
    rows, start = sound(layers=8)
    for row in rows:
        row |= {"eval/train_loss": 2.0, "val/loss": 2.0}
    start |= {f"forward_order/layers.{i}.{part}": i for i in range(9) for part in ("weight", "bias")}
    for i in range(8):
        start[f"grad_norm/layers.{i}.bias"] = 1e-9 if i < 4 else 0.1
    assert judge(rows, start, {}) == []
    for i in range(8):
        start[f"grad_norm/layers.{i}.weight"] = start[f"grad_norm/layers.{i}.bias"] = 0.1**i
    assert names(rows, start, {}) == ["exploding_gradients"]
    start |= {"grad_norm/layers.8.bias": 0.1**8, "grad_norm/layers.8.weight": 0.1**8}
    for i in range(9):  # called the other way round than they were made
        start[f"forward_order/layers.{i}.bias"] = 8 - i
    assert names(rows, start, {}) == ["vanishing_gradients"]
    rows[-4:] = [row | {"eval/train_loss": 0.1, "val/loss": 0.1} for row in rows[-4:]]
    assert judge(rows, start, {}) == []  # it learned


@pytest.mark.parametrize(("weak", "learns"), [(True, True), (False, False), (False, True)])
def test_where_the_sign_is_ambiguous_the_outcome_decides(weak: bool, learns: bool) -> None:
    """Gradients a hundred times smaller at the bottom: no fault of a network that learned."""
    rows, start = sound(layers=3)
    for i in range(3):
        start[f"grad_norm/layers.{i}.bias"] = (0.07 if weak else 0.5) ** (2 - i)
    if not learns:
        for row in rows:
            row["eval/train_loss"] = 2.2 - 0.01 * row["epoch"]
    assert ("vanishing_gradients" in names(rows, start, CONFIG)) == (weak and not learns)


def test_a_parameter_without_gradient() -> None:
    rows, start = sound()
    for recorded in (start, *rows):
        recorded["grad_norm/layers.1.weight"] = 0.0
    (found,) = judge(rows, start, CONFIG)
    assert (found.finding, found.where) == ("no_gradient", "layers.1.weight")
    rows[3]["grad_norm/layers.1.weight"] = 0.1
    assert judge(rows, start, CONFIG) == []


@pytest.mark.parametrize(("batch", "expected"), [(1, ["batch_too_small"]), (64, ["loss_does_not_move"])])
def test_long_steps_after_one_example_each_undo_each_other(batch: int, expected: list[str]) -> None:
    rows, start = sound()
    still = [row | STILL for row in rows]
    start |= {f"update_ratio/layers.{i}.weight": 0.2 for i in range(4)}
    assert names(still, start, CONFIG | {"data.batch_size": batch}) == expected
    assert names(rows, start, CONFIG | {"data.batch_size": batch}) == []  # it learned


ADAM = CONFIG | {"optimizer._target_": "torch.optim.Adam"}


@pytest.mark.parametrize(
    ("lr", "step", "expected"),
    [
        (1e-3, 6e-4, "loss_does_not_move"),
        (3e-5, 6e-4, "learning_rate_too_low"),
        (1e-3, 0.1, "loss_does_not_move"),
        (0.05, 0.1, "learning_rate_too_high"),
    ],
)
def test_a_rate_far_from_the_usual_one_is_named(lr: float, step: float, expected: str) -> None:
    rows, start = sound()
    steps = {f"update_ratio/layers.{i}.{part}": step for i in range(4) for part in ("weight", "bias")}
    still = [row | STILL | steps for row in rows]
    assert names(still, start | steps, ADAM | {"optimizer.lr": lr}) == [expected]
    learned = [row | steps for row in rows]
    assert names(learned, start | steps, ADAM | {"optimizer.lr": lr}) == []


def test_units_die_of_a_rate_that_is_far_too_high_though_the_run_learns() -> None:
    rows, start = sound(9)
    for row in rows[2:]:
        row["dead_units/layers.act1"] = 0.9
    assert names(rows, start, ADAM | {"optimizer.lr": 1e-3}) == ["dead_units"]
    assert names(rows, start, ADAM | {"optimizer.lr": 0.03}) == ["learning_rate_too_high"]


def test_swings_are_measured_by_the_loss_at_the_start_where_that_is_low() -> None:
    """As of a regression that begins near its minimum."""
    rows, start = sound(30)
    swinging = [row | {"eval/train_loss": 0.02 + 0.22 * (row["epoch"] % 3 == 0)} for row in rows]
    assert names(swinging, start, CONFIG) == []
    level = [row | {"eval/train_loss": 0.05 + 0.19 * (row["epoch"] % 3 == 0)} for row in rows]
    assert names(level, start | {"loss": 0.3}, CONFIG) == ["oscillation"]
    assert names(swinging, start | {"loss": 0.3}, CONFIG) == []  # its last third is near the floor


@pytest.mark.parametrize(("epochs", "expected"), [(3, []), (5, ["loss_does_not_move"])])
def test_a_few_epochs_that_learned_nothing_say_nothing(epochs: int, expected: list[str]) -> None:
    rows, start = sound(epochs)
    moved = [row | STILL | {"update_ratio/layers.1.weight": 0.02} for row in rows]
    assert names(moved, start, CONFIG) == expected


@pytest.mark.parametrize(("epochs", "expected"), [(1, []), (12, ["labels_unrelated"])])
def test_nothing_is_learned_by_heart_in_one_pass(epochs: int, expected: list[str]) -> None:
    rows, start = sound(epochs)
    worse = [row | {"step": 120 * row["epoch"], "eval/train_loss": 2.1, "val/loss": 2.4} for row in rows]
    assert names(worse, start, CONFIG) == expected


def test_a_loss_that_cannot_fall_while_accuracy_rises_is_no_standstill() -> None:
    rows, start = sound()
    still = [row | STILL for row in rows]
    assert names(still, start, CONFIG) == ["loss_does_not_move"]
    assert names([row | {"eval/train_accuracy": 0.9} for row in still], start, CONFIG) == []


@pytest.mark.parametrize(("share", "expected"), [(0.3, ["loss_does_not_move"]), (0.6, ["learning_rate_too_high"])])
def test_some_units_saturate_in_every_network_that_trains(share: float, expected: list[str]) -> None:
    rows, start = sound()
    still = [row | STILL for row in rows]
    start |= {f"saturated_units/layers.act{i}": 0.0 for i in range(3)}
    for row in still:
        row |= {f"saturated_units/layers.act{i}": share for i in range(3)}
    assert names(still, start, CONFIG) == expected


def test_oscillation_and_a_rate_that_throws_the_loss_up() -> None:
    rows, start = sound(30)
    for row in rows:
        row["eval/train_loss"] = 0.4 + 0.9 * (row["epoch"] % 5 == 0)
    (found,) = judge(rows, start, CONFIG)
    assert (found.finding, found.step, found.evidence["climbs"]) == ("oscillation", 50, 6)
    for row in rows:
        row |= STILL
    (found,) = judge(rows, start, CONFIG)
    assert (found.finding, found.step) == ("loss_does_not_move", 300)
    for row in rows:
        row |= {"eval/train_loss": 9.0, "update_ratio/layers.0.weight": 0.3}
    assert names(rows, start, CONFIG) == ["learning_rate_too_high"]


def test_what_is_not_finite_is_named_in_the_order_of_computation() -> None:
    tags = ["train/loss", "grad_norm/total", "grad_norm/a", "grad_norm/b", "lr"]
    values = np.ones((4, 5))
    steps = np.array([3, 5, 6, 9])
    assert first_not_finite(steps, tags, values) is None
    values[3] = math.nan
    values[2, 1:4] = math.inf
    assert first_not_finite(steps, tags, values) == NotFinite(6, "grad_norm/b")
    values[1, 2] = math.nan
    assert first_not_finite(steps, tags, values) == NotFinite(5, "grad_norm/a")
    values[1, 0] = math.nan
    assert first_not_finite(steps, tags, values) == NotFinite(5, "train/loss")
    rows, start = sound()
    assert names(rows, start, CONFIG, NotFinite(5, "train/loss")) == ["not_finite"]  # after small steps
    assert names(rows, start, CONFIG, NotFinite(1, "train/loss")) == ["not_finite_at_start"]
    long = start | {f"update_ratio/layers.{i}.weight": 0.3 for i in range(4)}
    assert names(rows, long, CONFIG, NotFinite(5, "train/loss")) == ["learning_rate_too_high", "not_finite"]
    rows[4]["weight_norm/layers.1.bias"] = math.inf
    assert judge(rows, start, CONFIG)[0].where == "layers.1.bias"
    assert judge(rows, start, CONFIG)[0].step == 50


def test_a_problem_without_a_network_has_no_fault_of_a_network() -> None:
    rows, start = sound()
    start |= {"input_rms": 0.0, "loss": 900.0}
    assert judge(rows, start, {"model.function": "rosenbrock"}) == []
    assert [one.finding for one in judge(rows, start, {"model.function": "beale"}, NotFinite(3, "train/loss"))] == [
        "not_finite"
    ]


def test_inputs_that_are_all_the_same_explain_what_the_network_makes_of_them() -> None:
    rows, start = sound()
    start |= {"input_rms": 1.0, "input_feature_ratio": math.nan, "grad_norm/layers.0.bias": 900.0}
    start |= {f"dead_units/layers.act{i}": 1.0 for i in range(3)}
    still = [row | STILL for row in rows]
    assert names(still, start, CONFIG, NotFinite(1, "train/loss")) == ["inputs_constant"]


def test_units_that_are_flat_in_a_network_that_does_well_are_no_finding() -> None:
    rows, start = sound()
    for recorded in (start, *rows):
        recorded["dead_units/layers.act0"] = 0.99
    rows[-4:] = [row | {"eval/train_loss": 0.4, "val/loss": 0.5} for row in rows[-4:]]
    assert names(rows, start, CONFIG) == ["dead_units"]
    rows[-4:] = [row | {"eval/train_loss": 0.1, "val/loss": 0.2} for row in rows[-4:]]
    assert names(rows, start, CONFIG) == []


def test_what_another_finding_explains_is_left_out() -> None:
    rows, start = sound()
    still = [row | {"eval/train_loss": 2.3} for row in rows]

    def kept(rows: list[dict[str, float]], *found: str) -> list[str]:
        findings = [health.Finding(name, "", 0, "") for name in found]
        return [one.finding for one in health.settled(findings, rows, start, CONFIG)]

    assert kept(still, "one_batch", "loss_does_not_move") == ["one_batch", "loss_does_not_move"]
    assert kept(still, "loss_does_not_move", "random_evaluation") == ["random_evaluation", "loss_does_not_move"]
    assert kept(still, "one_batch", "softmax_twice") == ["softmax_twice"]
    assert kept(rows, "one_batch") == []  # the run learned
    assert kept(still, "no_gradient", "wrong_gradient") == ["wrong_gradient"]


def test_one_class_in_the_predictions() -> None:
    rows, start = sound()
    for row in rows[5:]:
        row |= {"eval/train_loss": 2.1, "eval/top_class": 1.0}
    for row in rows[:5]:
        row["eval/train_loss"] = 2.1
    (found,) = judge(rows, start, CONFIG)
    assert (found.finding, found.where, found.step) == ("one_class", "predictions", 60)


def test_labels_of_one_class_explain_that_nothing_is_learned() -> None:
    rows, start = sound()
    still = [row | STILL | {"eval/top_class": 1.0} for row in rows]
    assert names(still, start | {"target_top_class": 1.0}, CONFIG) == ["one_class"]
    assert names(still, start, CONFIG) == ["one_class", "loss_does_not_move"]
    early = [row | {"step": row["epoch"] * 8} for row in still]  # 96 steps: how often each class occurs comes first
    assert "one_class" in names(early, start, CONFIG)
    assert "one_class" not in names(early, start | {"target_top_class": 0.5}, CONFIG)


@pytest.mark.parametrize("consequence", [{"grad_norm/layers.0.bias": 90.0}, {"update_ratio/layers.1.weight": 2.0}])
def test_dropout_far_too_high_explains_what_its_noise_does(consequence: dict[str, float]) -> None:
    rows, start = sound()
    still = [row | STILL | {"step": 10 * row["step"]} for row in rows]
    noisy = CONFIG | {"model.dropout": 0.8}
    first = start | consequence | {f"update_ratio/layers.{i}.weight": 1.5 for i in (2, 3)}
    assert set(names(still, first, CONFIG)) & {"exploding_gradients", "learning_rate_too_high"}
    assert names(still, first, noisy)[0] == "dropout_too_high"
    assert not set(names(still, first, noisy)) & {"exploding_gradients", "learning_rate_too_high"}
    assert "dropout_too_high" not in names(still, first, CONFIG | {"model.dropout": 0.5})  # a usual amount


def test_with_batch_norm_the_first_step_shows_the_loss_at_the_start() -> None:
    """In evaluation mode there are no running statistics yet."""
    rows, start = sound()
    norms = {f"{kind}/norms.{i}.weight": 0.3 for i in range(3) for kind in ("grad_norm", "weight_norm")}
    rows, normalised = [row | norms for row in rows], start | norms
    assert names(rows, normalised | {"first_step_loss": 90.0}, CONFIG)[:1] == ["loss_at_start"]
    assert names(rows, normalised | {"first_step_loss": 2.5}, CONFIG) == []
    assert names(rows, start | {"first_step_loss": 90.0}, CONFIG) == []  # dropout may be what raises it


def test_a_run_is_hopeless_once_it_has_learned_nothing_of_a_cause_that_stays() -> None:
    rows, start = sound()
    for row in rows:
        row |= {"eval/train_loss": 2.3, "val/loss": 2.3, "dead_units/layers.act1": 1.0}
    assert health.hopeless(rows, start, CONFIG) == ["learning_rate_too_high"]  # which killed the layer
    assert not health.hopeless(rows[:4], start, CONFIG)
    assert not health.hopeless(rows, {name: v for name, v in start.items() if name != "guessing_loss"}, CONFIG)
    alive = [row | {"dead_units/layers.act1": 0.1} for row in rows]
    assert not health.hopeless(alive, start, CONFIG)
    assert not health.hopeless([rows[0] | {"eval/train_loss": 1.0}, *rows[1:]], start, CONFIG)
