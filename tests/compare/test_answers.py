"""What is said across runs: the right cause, the right sign, how sure, in words that can be typed back."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from tests.compare.runs import DIVERGED, HEALTHY, Config, effect, sweep
from trainer.compare.comparison import Run, compare
from trainer.compare.sections import compare_sections

OPTIMIZERS = {
    "sgd": {"optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.0},
    "momentum": {"optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.9},
    "adam": {"optimizer._target_": "torch.optim.Adam", "optimizer.lr": 0.001, "optimizer.eps": 1e-8},
}
TYPED = {"sgd": ["optimizer=sgd"], "momentum": ["optimizer=sgd", "optimizer.momentum=0.9"], "adam": ["optimizer=adam"]}


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_optimizers_name_never_vanishes_behind_its_arguments(is_ours: bool) -> None:
    names = {id(config): name for name, config in OPTIMIZERS.items()}
    loss = {"sgd": 0.6, "momentum": 0.5, "adam": 0.3}
    runs = sweep(
        list(OPTIMIZERS.values()),
        lambda setting: loss[names[id(setting)]],
        typed=(lambda setting: TYPED[names[id(setting)]]) if is_ours else None,
    )
    found = compare(runs)
    assert {one.knob for one in found.effects} == {"optimizer"}
    assert found.recommendation.group == ("optimizer=adam" if is_ours else "optimizer=Adam")
    assert "adam" in found.answer.text.lower()
    assert "null" not in found.answer.text
    texts = [level.value for level in found.effects[0].levels]
    assert len(texts) == 3
    assert sum("momentum=0.9" in str(text) for text in texts) == 1


def test_three_names_are_told_with_their_means_and_which_do_not_differ() -> None:
    losses = {"relu": 0.5, "tanh": 0.8, "gelu": 0.5}
    found = compare(sweep([{"activation": name} for name in losses], lambda one: losses[one["activation"]]))
    (told,) = [line for line in found.answer.lines if line.startswith("Means: ")]
    assert re.fullmatch(
        r"Means: 0\.\d+ \(activation=gelu\), 0\.\d+ \(relu\), 0\.\d+ \(tanh\); not shown to differ: gelu – relu\.",
        told,
    )


def test_two_lone_runs_that_differ_in_unlike_keys_are_told_whole() -> None:
    configs: list[Config] = [{"epochs": 3, "model.width": 16}, {"epochs": 4, "model.width": 32}]
    runs = sweep(configs, lambda _: 0.5, seeds=1, typed=lambda one: [f"{key}={value}" for key, value in one.items()])
    levels = [group.knobs["epochs and model.width"] for group in compare(runs).groups]
    assert levels == ["epochs=3 model.width=16", "epochs=4 model.width=32"]


def test_a_folder_of_its_own_for_each_run_is_no_knob() -> None:
    runs = sweep([{"drop": drop} for drop in (0, 0.5)], lambda one: 0.5 + one["drop"])
    for number, one in enumerate(runs):
        one.config["hp.out_dir"] = f"/runs/{number}"
    assert [one.knob for one in compare(runs).effects if one.measure == "best_val_loss"] == ["drop"]


def test_a_tiny_p_is_told_as_tiny() -> None:
    found = compare(sweep([{"drop": drop} for drop in (0, 0.5, 0.9)], lambda one: 0.5 + 10 * one["drop"], noise=1e-3))
    assert "corrected p < 0.0001" in found.answer.text
    assert not re.search(r"p = \d\.?\d*e-", found.answer.text)


def test_keys_that_moved_together_are_named_together() -> None:
    settings = [{"opt": "sgd", "width": 64, "lr": 0.1}, {"opt": "adam", "width": 512, "lr": 0.01}]
    found = compare(sweep(settings, lambda setting: 0.5 if setting["opt"] == "sgd" else 0.3))
    (one,) = (each for each in found.effects if each.measure == "best_val_loss")
    assert one.claimed
    assert sorted(one.together) == ["lr", "opt", "width"]
    assert all(key in one.sentence for key in ("opt=adam", "width=512", "lr=0.01"))
    assert "together" in {warning.kind for warning in found.warnings}


def test_a_choice_of_a_file_names_what_it_brings() -> None:
    settings: list[Config] = [
        {"model.batchnorm": False, "model.init": "glorot"},
        {"model.batchnorm": True, "model.init": "he_normal"},
    ]
    runs = sweep(settings, lambda s: 0.3 if s["model.batchnorm"] else 0.5, typed=lambda s: [
        "experiment=" + ("garbin_batchnorm" if s["model.batchnorm"] else "garbin_standard")])  # fmt: skip
    found = compare(runs)
    assert {one.knob for one in found.effects} == {"experiment"}
    assert (
        "experiment=garbin_batchnorm (with model.batchnorm=true, model.init=he_normal)"
        in effect(found, "experiment").sentence
    )
    assert found.recommendation.group == "experiment=garbin_batchnorm"
    assert found.recommendation.command == "python -m trainer experiment=garbin_batchnorm"


RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def rate_curve(setting: Config) -> float:
    """Each optimizer's loss over its rates: the best of Adam is lower by 0.05, far from what is best for SGD."""
    best = {"sgd": 0.3, "adam": 0.003}[setting["optimizer"]]
    steep = {"sgd": 0.2, "adam": 0.3}[setting["optimizer"]]
    return (0.35 if setting["optimizer"] == "sgd" else 0.30) + steep * np.log10(setting["optimizer.lr"] / best) ** 2


def test_a_rate_of_its_own_for_every_optimizer_is_tuned_and_not_averaged_over() -> None:
    settings = [{"optimizer": o, "optimizer.lr": lr} for o in ("sgd", "adam") for lr in RATES]
    found = compare(sweep(settings, rate_curve))
    assert found.tuned == ["optimizer.lr"]
    assert found.chosen == {
        "optimizer=adam": "optimizer=adam optimizer.lr=0.003",
        "optimizer=sgd": "optimizer=sgd optimizer.lr=0.3",
    }
    (contrast,) = effect(found, "optimizer").contrasts
    assert (contrast.a, contrast.b, contrast.claimed) == ("adam", "sgd", True)
    assert contrast.difference == pytest.approx(-0.05, abs=0.015)
    over_all = compare(sweep(settings, rate_curve), tune=())
    assert (effect(over_all, "optimizer").contrasts[0].difference or 0) > 0  # what tuning is for: the sign is another
    assert found.recommendation.group == "optimizer=adam optimizer.lr=0.003"


def test_grids_of_rates_that_differ_are_each_optimizers_own() -> None:
    settings = [{"optimizer": "sgd", "optimizer.lr": lr} for lr in (0.03, 0.1, 0.3)]
    settings += [{"optimizer": "adam", "optimizer.lr": lr} for lr in (0.001, 0.003, 0.01)]
    found = compare(sweep(settings, rate_curve))
    assert {one.knob for one in found.effects} == {"optimizer"}
    assert effect(found, "optimizer").contrasts[0].difference == pytest.approx(-0.05, abs=0.015)
    edges = [warning.text for warning in found.warnings if warning.kind == "edge"]
    assert len(edges) == 1  # Adam's best is inside, SGD's at its own edge
    assert "optimizer=sgd is best at the highest tried (0.3), try optimizer.lr=0.9,3 too" in edges[0]


def test_the_command_to_run_next_adds_the_values_beyond_the_edge() -> None:
    settings = [{"optimizer": "sgd", "optimizer.lr": lr} for lr in (0.01, 0.03, 0.1)]
    runs = sweep(
        settings, rate_curve, typed=lambda s: ["optimizer=sgd", f"optimizer.lr={s['optimizer.lr']}", "epochs=5"]
    )
    assert compare(runs).answer.next == "python -m trainer resume=outputs/one optimizer.lr=0.01,0.03,0.1,0.3,1"


@pytest.mark.slow
def test_what_is_scored_had_no_say_in_what_is_chosen() -> None:
    """Pure noise, 15 rates: the best of them looks good; the mean at other seeds is that of any."""
    means = []
    for number in range(200):
        rng = np.random.default_rng(number)
        settings = [{"optimizer": o, "optimizer.lr": lr} for o in ("a", "b") for lr in range(1, 16)]
        runs = [
            Run(f"{i}/{seed}", "", {**s, "seed": seed}, HEALTHY, {"best_val_loss": 1 + float(rng.normal(0, 0.1))})
            for i, s in enumerate(settings)
            for seed in range(5)
        ]
        means += [level.mean for level in effect(compare(runs), "optimizer").levels]
    standard_error = 0.1 / np.sqrt(len(means) * 5)
    assert np.mean(means) == pytest.approx(1.0, abs=4 * standard_error)


def test_a_gap_is_told_with_the_loss() -> None:
    """A smaller gap where the loss is higher is no gain."""
    settings = [{"model.dropout": dropout} for dropout in (0, 0.5)]
    runs = sweep(settings, lambda setting: 0.4 + 0.1 * (setting["model.dropout"] > 0))
    for run in runs:
        run.measures["gap"] += 0.5 * (run.config["model.dropout"] == 0)
    sentence = effect(compare(runs), "model.dropout", "gap").sentence
    assert re.search(r"gap is 0\.\d+ higher at model.dropout=0 than at 0.5", sentence)
    assert re.search(r"the best validation loss is 0\.\d+ lower there \(corrected p < 0.0001", sentence)


def test_two_crossed_knobs_are_told_per_level_and_then_together() -> None:
    settings = [{"model.batchnorm": b, "model.dropout": d} for b in (False, True) for d in (0, 0.5)]
    loss = {(False, 0): 0.5, (False, 0.5): 0.4, (True, 0): 0.4, (True, 0.5): 0.5}
    found = compare(sweep(settings, lambda s: loss[s["model.batchnorm"], s["model.dropout"]]))
    simple = {one.at: one for one in effect(found, "model.dropout").simple}
    assert set(simple) == {"model.batchnorm=false", "model.batchnorm=true"}
    assert "higher at model.dropout=0" in simple["model.batchnorm=false"].sentence
    assert "lower at model.dropout=0" in simple["model.batchnorm=true"].sentence
    assert all(one.claimed for one in simple.values())
    assert "depends on" in found.answer.text
    (told,) = [line for line in found.answer.lines if line.startswith("By level, model.dropout=0 against 0.5: ")]
    assert re.search(r"0\.1\d* higher at model.batchnorm=false .*; 0\.\d+ lower at model.batchnorm=true ", told)


def test_what_turns_with_another_knob_is_not_told_as_an_average() -> None:
    """A knob that helps much at one level and harms a little at the other: no sentence of what it does on average."""
    settings = [{"model.batchnorm": b, "model.dropout": d} for b in (False, True) for d in (0, 0.5)]
    loss = {(False, 0): 0.9, (False, 0.5): 0.4, (True, 0): 0.4, (True, 0.5): 0.5}
    found = compare(sweep(settings, lambda s: loss[s["model.batchnorm"], s["model.dropout"]], seeds=6))
    assert effect(found, "model.dropout").claimed
    assert found.answer.lines[0].startswith("What model.batchnorm does to the best validation loss depends on")
    assert not any(line.startswith("Best validation loss is") for line in found.answer.lines)


def test_a_run_recorded_twice_is_one() -> None:
    runs = sweep([{"a": 1}, {"a": 2}], lambda setting: float(setting["a"]), seeds=2)
    twice = compare([*runs, *(dataclasses.replace(run, path=f"{run.path}/again") for run in runs)])
    assert [group.n for group in twice.groups] == [2, 2]
    assert [one.p for one in twice.effects[0].contrasts] == [one.p for one in compare(runs).effects[0].contrasts]
    unseeded = [dataclasses.replace(run, config={"a": run.config["a"]}) for run in runs]
    again = compare([*unseeded, *(dataclasses.replace(run, path=f"{run.path}/again") for run in unseeded)])
    assert [group.n for group in again.groups] == [2, 2]


def test_no_seeds_are_spoken_of_where_there_are_none() -> None:
    runs = sweep([{"a": 1}, {"a": 2}], lambda setting: float(setting["a"]))
    found = compare([dataclasses.replace(run, config={"a": run.config["a"]}) for run in runs])
    said = (
        found.answer.text + " ".join(one.sentence for one in found.effects) + " ".join(w.text for w in found.warnings)
    )
    assert "seed" not in said
    assert "5 runs" in said


def test_a_peak_inside_is_seen() -> None:
    peak = dict(zip((2, 4, 8, 16, 32, 64, 128, 256, 512), (2.0, 3.4, 5.1, 7.8, 8.7, 8.1, 7.3, 6.5, 5.9), strict=True))
    found = compare(sweep([{"model.width": w} for w in peak], lambda s: peak[s["model.width"]], noise=0.2))
    shape = effect(found, "model.width").shape
    assert shape is not None
    assert (shape.kind, shape.turn) == ("peak inside", 32.0)
    assert "falls again" in effect(found, "model.width").sentence
    flat = compare(sweep([{"model.width": w} for w in peak], lambda _: 2.0, noise=0.2))
    assert effect(flat, "model.width").shape.kind == "no shape shown"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "key",
    ["loss.name", "loss.label_smoothing", "criterion", "focal_gamma", "label_smooth", "pos_weight", "huber_delta"],
)
def test_losses_of_different_definitions_are_not_compared(key: str) -> None:
    settings = [
        {key: value} for value in ((0.0, 0.1, 0.3) if "smoothing" in key else ("mse", "cross_entropy", "hinge"))
    ]
    number = {setting[key]: i for i, setting in enumerate(settings)}
    runs = sweep(settings, lambda s: 0.1 + number[s[key]], more={"best_val_accuracy": lambda _: 0.9})
    found = compare(runs)
    assert not any(one.claimed for one in found.effects)
    assert {one.measure for one in found.effects} == {"best_val_accuracy"}
    assert found.criterion == "best_val_accuracy"
    assert "loss" in {warning.kind for warning in found.warnings}
    without = compare([dataclasses.replace(run, measures={"best_val_loss": 0.1, "gap": 0.1}) for run in runs])
    assert without.recommendation.group is None


def test_an_optimum_that_moves_with_another_knob_is_seen() -> None:
    settings = [{"lr": lr, "depth": depth} for lr in (0.01, 0.1, 1.0) for depth in (2, 8)]
    best = {2: 0.1, 8: 0.01}
    found = compare(sweep(settings, lambda s: 0.3 + 0.1 * np.log10(s["lr"] / best[s["depth"]]) ** 2))
    claimed = [one.sentence for one in found.interactions if one.claimed and one.measure == "best_val_loss"]
    assert any("the best mean is that of lr=0.1 at depth=2, of 0.01 at depth=8" in text for text in claimed), claimed


def test_an_optimum_moves_only_where_the_two_are_told_apart() -> None:
    """At depth 8 a third value is far worse; which of the other two is best there, noise decides."""
    settings = [{"act": act, "depth": depth} for act in ("relu", "sigmoid", "tanh") for depth in (2, 8)]
    worse = {("sigmoid", 2): 0.1, ("sigmoid", 8): 0.9, ("relu", 8): 0.002, ("tanh", 2): 0.002}
    found = compare(sweep(settings, lambda s: 0.3 + worse.get((s["act"], s["depth"]), 0.0)))
    claimed = [one.sentence for one in found.interactions if one.claimed and one.measure == "best_val_loss"]
    means = {group.name: group.measures["best_val_loss"].mean or 0.0 for group in found.groups}
    assert means["act=relu depth=2"] < means["act=tanh depth=2"]
    assert means["act=relu depth=8"] > means["act=tanh depth=8"]
    assert claimed
    assert not any("the best mean is that of" in text for text in claimed)


def test_a_folder_of_several_sweeps_is_several_comparisons() -> None:
    one = sweep([{"model.dropout": d, "epochs": 5, "width": 8} for d in (0, 0.5)], lambda _: 0.5,
                typed=lambda s: [f"model.dropout={s['model.dropout']}"])  # fmt: skip
    two = sweep([{"model.dropout": 0, "epochs": 9, "width": w} for w in (16, 64)], lambda _: 0.5,
                typed=lambda s: [f"width={s['width']}"])  # fmt: skip
    two = [dataclasses.replace(run, sweep="outputs/two", path=f"two/{run.path}") for run in two]
    sections, apart = compare_sections([*one, *two])
    assert [section.name for section in sections] == ["outputs/one", "outputs/two"]
    assert [{each.knob for each in section.found.effects} for section in sections] == [{"model.dropout"}, {"width"}]
    assert len(apart) == 1
    assert "epochs" in apart[0]
    halves = [dataclasses.replace(run, sweep=f"outputs/{run.config['seed'] % 2}") for run in one]
    assert len(compare_sections(halves)[0]) == 1  # two halves of one grid are one


def test_data_sets_are_compared_apart() -> None:
    settings = [{"data.name": d, "model.dropout": p} for d in ("digits", "mnist") for p in (0, 0.5)]
    sections, _ = compare_sections(sweep(settings, lambda s: 0.5 if s["data.name"] == "digits" else 0.1))
    assert [{one.knob for one in section.found.effects} for section in sections] == [{"model.dropout"}] * 2


# Power: what the design gives is used


@pytest.mark.slow
def test_three_seeds_of_four_levels_can_tell() -> None:
    """One level lies 3 standard deviations of a run from the others, half of whose variance the seed explains."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(60):
        shared = rng.normal(size=3)
        runs = [
            Run(f"{g}/{s}", "", {"a": f"x{g}", "seed": s}, HEALTHY,
                {"best_val_loss": float(3 * (g == 0) + np.sqrt(0.5) * (shared[s] + rng.normal()))})
            for g, s in itertools.product(range(4), range(3))
        ]  # fmt: skip
        found += effect(compare(runs), "a").claimed
    assert found / 60 > 0.71  # 0.8 of what Tukey's test in blocks finds, 0.89


def test_a_knob_among_many_is_found() -> None:
    """32 runs, five knobs of two levels would leave one degree of freedom to two seeds; the grid has fifteen."""
    settings = [dict(zip("abcd", values, strict=True)) for values in itertools.product((0, 1), repeat=4)]
    found = compare(sweep(settings, lambda s: 0.3 + 0.2 * s["a"], seeds=2, noise=0.05))
    assert {one.knob for one in found.effects if one.claimed} == {"a"}
    assert max(one.p_adjusted or 1 for one in effect(found, "a").contrasts) < 0.001


def test_the_command_for_more_seeds_of_a_fair_comparison_resumes_all_of_it() -> None:
    runs = sweep([{"optimizer": "sgd"}, {"optimizer": "adam"}], lambda one: 0.5 - 0.014 * (one["optimizer"] == "adam"),
                 typed=lambda one: [f"optimizer={one['optimizer']}"])  # fmt: skip
    found = compare([dataclasses.replace(run, sweep="outputs/versus/1/final", tuned=("lr",)) for run in runs])
    assert re.fullmatch(r"python -m trainer.versus resume=outputs/versus/1 seeds=\d+", str(found.answer.next))


def test_more_seeds_are_advised_than_there_are_and_only_for_what_is_open() -> None:
    runs = sweep([{"lr": 0.1}, {"lr": 1.0}], lambda one: 0.5 if one["lr"] == 0.1 else 0.48,
                 typed=lambda one: [f"lr={one['lr']}"], seeds=3)  # fmt: skip
    lost = [dataclasses.replace(run, verdict=DIVERGED, measures={}, first_loss=2.0) for run in runs[3:4]]
    advised = compare([*runs[:3], *lost, *runs[4:]]).answer.next
    assert advised is None or int(advised.partition("range(")[2].rstrip(")'")) > 3
    clear = sweep([{"lr": 0.1}, {"lr": 1.0}], lambda one: one["lr"], typed=lambda one: [f"lr={one['lr']}"], seeds=3)
    assert compare(clear).answer.next is None


def test_names_that_are_not_told_apart_stand_together() -> None:
    losses = {"gelu": 0.3, "relu": 0.4, "tanh": 0.401, "selu": 0.402, "elu": 0.399, "silu": 0.4}
    found = compare(sweep([{"act": name} for name in losses], lambda one: losses[one["act"]], noise=0.005))
    (told,) = [line for line in found.answer.lines if line.startswith("Means: ")]
    (alike,) = re.findall(r"not shown to differ: (.*)\.", told)
    assert sorted(alike.split(" – ")) == sorted(losses.keys() - {"gelu"})


def test_chance_is_no_reason_to_try_values_beyond_an_edge() -> None:
    settings = [{"dropout": dropout} for dropout in (0.1, 0.3, 0.5)]
    assert not [one for one in compare(sweep(settings, lambda _: 0.4)).warnings if one.kind == "edge"]
    risen = compare(sweep(settings, lambda one: 1 - one["dropout"]))
    assert next(one.text for one in risen.warnings if one.kind == "edge").endswith("try dropout=0.7,0.9 too")


def test_a_group_that_follows_no_seed_makes_no_interval_infinite() -> None:
    """Networks that guess have no gap, whatever the seed; all other gaps go with the seeds alone."""
    rng = np.random.default_rng(4)
    shared, runs = rng.normal(0, 0.05, 8), []
    for (opt, wd), seed in itertools.product(itertools.product(("adam", "adamw"), (0, 0.01, 0.3)), range(8)):
        is_lost = (opt, wd) == ("adam", 0.3)
        loss = (2.28 if is_lost else 0.13) + shared[seed] + rng.normal(0, 0.02)
        measures = {"best_val_loss": float(loss), "gap": float(0 if is_lost else shared[seed] + rng.normal(0, 1e-3))}
        runs.append(Run(f"{opt}/{wd}/{seed}", "", {"opt": opt, "wd": wd, "seed": seed}, HEALTHY, measures))
    found = compare(runs)
    for knob, a, b in (("opt", "adam", "adamw"), ("wd", 0, 0.3)):
        one = next(one for one in effect(found, knob).contrasts if (one.a, one.b) == (a, b))
        assert one.claimed
        assert (one.high or 1.0) - (one.low or 0.0) < 0.1
