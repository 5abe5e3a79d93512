"""The verdict on one run: every label and the traps it knows."""

import numpy as np
import pytest

from tests.judge.losses import HEALTHY, NOISE, OVERFIT, STALLED, TRAIN, Floats, T
from trainer import files
from trainer.judge.overfit import is_unsure, judge


@pytest.mark.parametrize(
    ("label", "train", "val"),
    [
        ("overfit", TRAIN, OVERFIT),
        ("overfit", TRAIN, STALLED),
        ("overfit", TRAIN, 2.2 + 0.05 * T),  # the first epoch is the best
        ("overfit", TRAIN, OVERFIT + 0.03 * NOISE[0]),
        ("healthy", TRAIN, HEALTHY),
        ("healthy", TRAIN, HEALTHY + 0.1 * NOISE[0]),
        ("healthy", TRAIN, HEALTHY + np.where(T == 20, 5.0, 0.0)),  # one spike
        ("healthy", TRAIN, HEALTHY + 0.8 * np.exp(-(((T - 10) / 3) ** 2)) - 0.1 * (T > 18)),  # late recovery
        ("healthy", TRAIN, np.where(T < 20, 2.2, 0.1)),  # grokking
        ("healthy", TRAIN, HEALTHY + 1.0),  # a gap that was there from the start
        ("healthy", TRAIN, HEALTHY - 0.3),  # dropout: validation below training
        ("healthy", TRAIN + 0.02 * T, HEALTHY + 0.02 * T),  # both rise alike
        ("underfit", 2.3 - 0.05 * T, 2.3 - 0.05 * T),
        ("underfit", np.ones(30), np.ones(30)),
        ("underfit", 1 + 0.01 * NOISE[0], 1 + 0.01 * NOISE[1]),
        ("diverged", np.where(T < 20, TRAIN, np.nan), np.where(T < 20, HEALTHY, np.nan)),
        ("diverged", TRAIN, np.where(T < 20, HEALTHY, np.inf)),
        ("diverged", TRAIN + 0.01 * T**2, HEALTHY + 0.01 * T**2),
        ("diverged", np.full(30, np.nan), np.full(30, np.nan)),
        ("too_short", TRAIN[:1], HEALTHY[:1]),
        ("too_short", TRAIN[:4], OVERFIT[:4]),
        ("no_validation", TRAIN, None),  # overfitting cannot be seen
        ("too_short", [], []),
    ],
)
def test_each_label(label: str, train: Floats, val: Floats | None) -> None:
    found = judge(train, val)
    assert found.verdict == label, found.sentence
    assert found.sentence
    assert (found.onset is not None) == (label == "overfit")
    files.to_json(found.to_json())


def test_evidence_is_what_the_curves_say() -> None:
    found = judge(TRAIN, OVERFIT)
    best = int(np.argmin(OVERFIT))
    assert found.best_epoch == best + 1
    assert found.evidence["best_val_loss"] == OVERFIT[best]
    assert found.evidence["gap"] == pytest.approx(np.mean((OVERFIT - TRAIN)[-3:]))
    assert found.evidence["rise"] == pytest.approx(OVERFIT[-3:].mean() - OVERFIT[best])
    assert found.evidence["learned"] == pytest.approx(TRAIN[0] - TRAIN[-1])
    assert found.onset == pytest.approx(best + 1, abs=3)
    assert "+70%" in found.sentence
    assert "training loss kept falling" in found.sentence


def test_noise_is_measured() -> None:
    rng = np.random.default_rng(1)
    t = np.linspace(0, 8, 2000)
    found = judge(np.exp(-t), np.exp(-t) + rng.normal(0, 0.05, 2000))
    assert found.evidence["noise"] == pytest.approx(0.05, rel=0.1)


def test_onset_is_on_the_axis_of_epochs() -> None:
    found = judge(TRAIN, OVERFIT, epochs=100 * (1 + T))
    plain = judge(TRAIN, OVERFIT)
    assert plain.onset is not None
    assert plain.best_epoch is not None
    assert found.onset == 100 * plain.onset
    assert found.best_epoch == 100 * plain.best_epoch


def test_onset_of_a_stall_is_where_validation_stopped_improving() -> None:
    found = judge(TRAIN, STALLED)
    assert found.onset == pytest.approx(4, abs=1)
    assert "has hardly improved since epoch" in found.sentence
    assert "the gap has opened by" in found.sentence
    later = judge(TRAIN, STALLED - np.where(T == 12, 0.01, 0.0))
    assert "has hardly improved since epoch 4 (its lowest is at epoch 13)" in later.sentence


def test_onset_of_a_stall_is_in_shares_of_what_was_learned() -> None:
    creeping = STALLED + 0.2 * np.exp(-T / 5)
    plain = judge(TRAIN, creeping)
    assert plain.verdict == "overfit"
    assert 3 < (plain.onset or 0) < 15
    assert judge(64 * TRAIN, 64 * creeping).onset == judge(TRAIN / 64, creeping / 64).onset == plain.onset


def test_disagreeing_accuracy_is_said() -> None:
    accuracy = 0.5 + 0.01 * T
    found = judge(TRAIN, OVERFIT, accuracy, accuracy)
    assert "validation accuracy still improved" in found.sentence
    assert found.evidence["accuracy_end"] == pytest.approx(0.78)
    assert "accuracy still improved" not in judge(TRAIN, OVERFIT, accuracy, accuracy[::-1]).sentence


@pytest.mark.parametrize(
    ("slope", "said"), [(-0.02, "kept falling"), (0.0, "stayed as it was"), (0.012, "did not rise")]
)
def test_what_the_training_loss_did_meanwhile(slope: float, said: str) -> None:
    train = np.maximum(2.2 * np.exp(-T / 4), 0.3) + slope * np.maximum(T - 8, 0)
    found = judge(train, OVERFIT + 0.05 * np.maximum(T - 10, 0))
    assert found.kind == "rise"
    assert f"while training loss {said}" in found.sentence


def test_what_training_did_since_validation_stalled_counts_from_there() -> None:
    """The lowest epoch comes near the end, and hardly anything after it."""
    found = judge(TRAIN, STALLED - np.where(T == 27, 0.01, 0.0))
    assert found.kind == "gap"
    assert "(its lowest is at epoch 28) while training loss kept falling" in found.sentence


def test_a_percentage_that_says_nothing_is_left_out() -> None:
    assert "%) above" not in judge(TRAIN + 1e5, OVERFIT + 1e5).sentence
    assert "%) above" not in judge(TRAIN, OVERFIT - OVERFIT.min() + 0.001).sentence  # 86,000 %


def test_what_ends_high_without_a_lasting_rise_is_said() -> None:
    found = judge(TRAIN, HEALTHY + np.where(T >= 28, 0.8, 0.0))
    assert found.verdict == "healthy"
    assert "and ends 0.533 above that, too briefly or too unsteadily for a lasting rise" in found.sentence
    assert "shows no lasting rise" in judge(TRAIN, HEALTHY).sentence


# Kinds of overfitting, and how sure


def test_a_short_run_without_noise() -> None:
    """Fourteen epochs, the best in the middle: what textbooks draw."""
    train = 2.05 * 0.786 ** np.arange(14) + 0.02
    val = np.array([2.5, 1.874, 1.454, 1.172, 0.984, 0.917, 0.892, 0.896, 0.917, 0.952, 0.995, 1.043, 1.096, 1.15])
    found = judge(train, val)
    assert (found.verdict, found.kind) == ("overfit", "rise"), found.sentence


def test_a_rise_of_the_loss_that_costs_accuracy() -> None:
    accuracy = np.minimum(0.5 + 0.05 * T, 0.9) - 0.01 * np.maximum(T - 8, 0)
    found = judge(TRAIN, OVERFIT, None, accuracy)
    assert (found.verdict, found.kind) == ("overfit", "rise")
    assert "validation accuracy has lost 1" in found.sentence  # from 0.89 or so to 0.70
    assert found.evidence["accuracy_lost"] == pytest.approx(0.19, abs=0.02)


def test_a_rise_of_the_loss_that_costs_no_accuracy() -> None:
    accuracy = np.minimum(0.5 + 0.05 * T, 0.9) + 0.002 * NOISE[0]
    found = judge(TRAIN, OVERFIT, None, accuracy)  # validation's alone, as most tools log it
    assert (found.verdict, found.kind) == ("overfit", "loss_only")
    assert "accuracy" in found.sentence


def test_a_gap_without_a_rise() -> None:
    found = judge(TRAIN, STALLED)
    assert (found.verdict, found.kind) == ("overfit", "gap")
    assert judge(TRAIN, HEALTHY).kind is None


def test_a_run_of_six_epochs_that_rises_from_the_middle_on_is_no_mere_gap() -> None:
    found = judge([0.9, 0.6, 0.45, 0.33, 0.24, 0.17], [0.75, 0.62, 0.55, 0.57, 0.63, 0.72])
    assert (found.verdict, found.kind, found.best_epoch) == ("overfit", "rise", 3)
    assert found.sentence.startswith("validation loss has risen by 0.17 (+31%) above its minimum at epoch 3")
    flat = judge([0.9, 0.6, 0.45, 0.33, 0.24, 0.17], [0.75, 0.62, 0.55, 0.56, 0.55, 0.56])
    assert flat.kind in (None, "gap")


def test_the_probability_grows_with_the_rise() -> None:
    found = [judge(TRAIN, 2.0 * np.exp(-T / 3) + 0.3 + slope * T) for slope in (0, 0.003, 0.006, 0.01, 0.03)]
    p = [one.probability for one in found]
    assert p == sorted(p)
    assert p[0] < 0.1
    assert p[-1] > 0.9
    assert all((one.probability > 0.5) == (one.verdict == "overfit") for one in found if one.probability is not None)
    unsure = [one for one in found if one.probability is not None and 0.1 < one.probability < 0.9]
    assert unsure
    assert all("not sure: overfit with a probability of" in one.sentence for one in unsure)


def test_a_late_drop_of_the_learning_rate_then_a_rise() -> None:
    """The noise before the drop is not that after it, and what the drop gained is not held against the rise."""
    rng = np.random.default_rng(0)
    t = np.arange(110)
    late = t >= 80
    train = np.exp(-t / 12) + np.where(late, -0.012 * np.maximum(t - 79, 0) ** 0.5 - 0.1, 0) + 0.5
    noise = np.where(late, 0.004, 0.03) * rng.normal(size=(2, 110))
    found = judge(train + 0.5 * noise[0], train.clip(0.6) - 0.2 * late + 0.007 * np.maximum(t - 80, 0) + noise[1])
    assert (found.verdict, found.kind) == ("overfit", "rise"), found.sentence


@pytest.mark.parametrize("seed", range(5))
def test_a_late_drop_of_the_learning_rate_that_the_noise_before_it_hides(seed: int) -> None:
    """The drop is hardly larger than what single epochs differ by before it."""
    rng = np.random.default_rng([3, seed])
    t = np.arange(120)
    late = t >= 90
    noise = np.where(late, 0.01, 0.06) * rng.normal(size=(2, 120))
    train = np.exp(-t / 10) - 0.25 * late
    val = train + 0.1 + 0.01 * np.maximum(t - 90, 0)
    found = judge(train + 0.8 * noise[0], val + noise[1])
    assert (found.verdict, found.kind) == ("overfit", "rise"), found.sentence


@pytest.mark.parametrize(("rate", "n"), [(6, 50), (12, 60), (8, 120)])
def test_a_steep_smooth_fall_of_the_training_loss_is_no_drop_of_the_learning_rate(rate: float, n: int) -> None:
    """Nor does its bend say how noisy validation is after it."""
    train = np.exp(-rate * np.arange(n) / n)
    noise = 0.06 * np.random.default_rng(n).normal(size=(50, n))
    assert sum(judge(train, 0.2 + 0.8 * train + one).verdict == "overfit" for one in noise) <= 1


def test_a_training_loss_without_noise_does_not_say_how_much_less_noisy_validation_is_after_a_drop() -> None:
    t = np.arange(200)
    train = 0.7 * np.exp(-t / 13) + 0.2 * (t < 100) + 0.08 * (t < 150)
    noise = 0.06 * np.random.default_rng(4).normal(size=(50, 200))
    assert sum(judge(train, 0.2 + 0.8 * train + one).verdict == "overfit" for one in noise) <= 1


@pytest.mark.parametrize("depth", [0.3, 1.0])
def test_a_lone_dip_of_the_validation_loss_is_no_level_that_it_rose_from(depth: float) -> None:
    dip = np.where(T == 20, depth, 0.0)
    assert judge(TRAIN, HEALTHY - dip + 0.01 * NOISE[0]).verdict == "healthy"
    assert judge(TRAIN, OVERFIT - dip + 0.01 * NOISE[0]).verdict == "overfit"


def test_a_hump_in_the_first_epochs_then_a_rise() -> None:
    t = np.arange(100)
    train = 0.7 * np.exp(-t / 15)
    hump = 3 * np.exp(-0.5 * ((t - 4) / 2) ** 2)
    val = np.maximum(0.7 * np.exp(-t / 8), 0.35) + hump + 0.004 * np.maximum(t - 35, 0)
    found = judge(train, val)
    assert (found.verdict, found.kind) == ("overfit", "rise"), found.sentence


def test_noise_does_not_hide_late_progress() -> None:
    t = np.arange(60)
    train, noise = 2.2 * np.exp(-t / 20), 0.03 * np.random.default_rng(1).normal(size=60)
    assert judge(train, 1.0 + 0.55 * train + noise).verdict == "healthy"


@pytest.mark.parametrize("seed", range(5))
def test_converged_runs_are_not_underfit(seed: int) -> None:
    t, noise = np.arange(90), 0.004 * np.random.default_rng(seed).normal(size=(2, 90))
    fall = np.exp(-t / 8)
    spike = fall + 1.0 * ((t >= 72) & (t < 74))  # in both losses
    step = fall + 0.2 * (t < 74) * (1 - np.exp(-t / 8))  # a drop of the learning rate
    restarts = fall + 0.08 * (1 + np.cos(np.pi * (t % 20) / 20)) * (t >= 20)
    for name, curve in (("spike", spike), ("step", step), ("restarts", restarts)):
        found = judge(curve + noise[0], 0.9 * curve + 0.1 + noise[1])
        assert found.verdict == "healthy", (name, found.sentence)


def test_a_first_training_loss_that_is_a_mean_over_the_epoch() -> None:
    """It is far above the loss after the epoch; what was learned is not."""
    val = np.maximum(0.8 * np.exp(-T / 4), 0.32) + 0.006 * np.maximum(T - 10, 0)
    train = 0.75 * np.exp(-T / 8)
    tall = np.append(2.4, train[1:])
    assert judge(tall, val).verdict == judge(train, val).verdict == "overfit"
    assert judge(tall, val).evidence["learned"] == pytest.approx(0.8 - train[-1], abs=0.02)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_training_loss_on_another_scale_is_said(factor: float) -> None:
    found = judge(factor * TRAIN, OVERFIT)
    assert (found.verdict, found.kind) == ("overfit", "rise")
    assert "on different scales" in found.sentence
    assert found.evidence["gap_share"] == 0
    assert "on different scales" not in judge(TRAIN + 3, OVERFIT).sentence  # a penalty in training alone


@pytest.mark.parametrize(
    "train",
    [
        [2.305, 2.302, 2.295, 2.284, 2.251, 2.158],
        [2.303, 2.302, 2.301, 2.300, 2.299, 2.248, 1.995],
        [2.303, 2.301, 2.298, 2.290, 2.282, 2.151, 2.16],  # near its lowest
        [2.3, 1.5, 1.0, 0.8, 0.7, 2.5, 2.5, 0.72],  # back from a spike
        [*np.linspace(2.3, 2.2, 17), 2.0, 1.5, 0.9],
        [*np.linspace(2.3, 2.2, 36), 2.0, 1.5, 0.9, 0.5],
        [*np.linspace(2.3, 2.2, 110), *np.linspace(2.2, 0.5, 10)],
    ],
)
@pytest.mark.parametrize("lag", [0, 1])
def test_what_falls_to_its_end_has_neither_diverged_nor_gone_backward(train: list[float], lag: int) -> None:
    val = np.array(train[:1] * lag + train[: len(train) - lag]) + 0.05
    found = judge(train, val, chance_loss=2.303)
    assert found.verdict in ("underfit", "healthy"), found.sentence
    assert "backward" not in found.sentence
    assert "above that" not in found.sentence
    assert judge(train, None).verdict in ("no_validation", "underfit")


@pytest.mark.parametrize("after", [[2.31, 2.33], [2.31, 2.33, 2.32]])
def test_what_came_back_up_has_diverged(after: list[float]) -> None:
    """For one epoch it has not: nothing says that it stays there."""
    train = [2.305, 2.302, 2.295, 2.284, 2.251, 2.158]
    assert judge([*train, after[0]], None).verdict == "no_validation"
    found = judge([*train, *after], None)
    assert found.verdict == "diverged"
    assert found.sentence.startswith("training loss has come back up from 2.158 to 2.3")


def test_training_that_goes_backward_is_said() -> None:
    both = 0.8 * np.exp(-T / 3) + 0.014 * np.maximum(T - 8, 0)
    found = judge(both, both + 0.05)
    assert found.verdict == "healthy"
    assert found.sentence.startswith("training has gone backward")


def test_training_that_goes_backward_is_said_though_validation_is_noisy() -> None:
    both = 0.8 * np.exp(-T / 3) + 0.02 * np.maximum(T - 8, 0)
    assert judge(both, both + 0.05 + 0.16 * NOISE[0]).sentence.startswith("training has gone backward")


@pytest.mark.parametrize("n", [6, 8, 14, 30])
def test_a_zigzag_that_falls_has_learned_something(n: int) -> None:
    t = np.arange(n)
    for zigzag in (
        np.linspace(2.24, 1.93, n) + 0.08 * (-1.0) ** t,
        600 + 2200 * np.exp(-t / 2) + 500 * (-1.0) ** t,
    ):
        assert "was learned:" not in judge(zigzag, zigzag).sentence
    assert "nothing was learned" in judge(2.0 + 0.08 * (-1.0) ** t, np.full(n, 2.0)).sentence


def test_noise_has_learned_nothing() -> None:
    rng = np.random.default_rng(17)
    verdicts = [judge(*(1 + 0.01 * rng.normal(size=(2, n)))).verdict for n in (12, 20, 40) for _ in range(200)]
    assert verdicts.count("underfit") >= 0.97 * 600


def test_a_fall_that_noise_may_have_made_is_not_called_nothing() -> None:
    train = np.array([2900, 1600, 400, 3400, 2500, 1600, 3300, 900, 1600, 2000, 1100, 900, 800, 4800, 3300, 1000.0])
    found = judge(np.append(train, [3600, 2100, 1300, 600]), np.append(train, [3600, 2100, 1300, 600]))
    assert found.verdict == "underfit"
    assert found.sentence.startswith("little was learned, if anything: training loss went from 2900 to ")


def test_a_validation_loss_that_swings_cannot_be_judged_surely() -> None:
    found = judge(0.3 * np.exp(-T / 5) + 0.5, 0.6 + 0.4 * (-1) ** T)
    assert "too much to judge it surely" in found.sentence
    assert is_unsure(found.probability, found.evidence)
    steady = judge(TRAIN, HEALTHY)
    assert not is_unsure(steady.probability, steady.evidence)


@pytest.mark.parametrize("n", [30, 60, 150])
def test_no_one_is_sure_of_swings_of_twice_what_was_learned(n: int) -> None:
    t = np.arange(n)
    train = np.exp(-6 * t / n)
    sure = 0
    for seed in range(30):
        rng = np.random.default_rng([seed, n])
        slow = np.sin(2 * np.pi * (t / rng.uniform(5, n / 5) + rng.random()))
        for swings in (rng.normal(size=n), 2 * slow):
            found = judge(train, 0.1 + 0.9 * train + 2 * swings)
            sure += found.verdict == "healthy" and not is_unsure(found.probability, found.evidence)
    assert sure <= 1  # of 60


@pytest.mark.parametrize("n", [20, 40, 100, 400])
@pytest.mark.parametrize("cycles", [2.5, 4])
def test_no_one_is_sure_of_a_slow_wave_higher_than_what_was_learned(n: int, cycles: float) -> None:
    u = np.arange(n) / n
    for start in np.arange(0, 1, 0.1):
        wave = 0.6 * np.sin(2 * np.pi * (cycles * u + start))
        found = judge(np.exp(-8 * u), 0.1 + 0.9 * np.exp(-8 * u) + wave)
        assert is_unsure(found.probability, found.evidence), (start, found.sentence)


def test_one_hump_is_no_wave() -> None:
    """Double descent: once up and down."""
    t = np.arange(100)
    hump = 0.6 * np.exp(-0.5 * ((t - 35) / 8) ** 2) - 0.1 * np.clip((t - 35) / 50, 0, 1)
    found = judge(np.exp(-t / 8), 0.2 + 0.8 * np.exp(-t / 8) + hump)
    assert (found.verdict, is_unsure(found.probability, found.evidence)) == ("healthy", False)


def test_a_large_rise_is_seen_through_its_swings() -> None:
    found = judge(TRAIN, OVERFIT + 1.5 * T + 2 * NOISE[0])
    assert (found.verdict, is_unsure(found.probability, found.evidence)) == ("overfit", False)


def test_a_validation_loss_that_is_infinite_at_first() -> None:
    """Epochs are counted with those: the same verdict as with large numbers there."""
    val = np.concatenate([np.full(10, np.inf), OVERFIT])
    train = np.concatenate([np.full(10, TRAIN[0]), TRAIN])
    assert judge(train, val).evidence["scales_differ"] == 0
    assert judge(train, val).verdict == judge(train, np.where(np.isinf(val), 2.5, val)).verdict == "overfit"


def test_a_run_that_ends_in_nan_within_four_epochs_has_diverged() -> None:
    assert judge([2.3, 1.9, np.nan], [2.3, 2.0, np.nan]).verdict == "diverged"
    assert judge([2.3, np.nan], None).verdict == "diverged"
