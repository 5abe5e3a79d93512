"""What is printed is understood by one who sees nothing else: one number for one thing, and why where two differ."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import scipy.stats

from tests.compare.runs import DIVERGED, HEALTHY, Config, effect, is_chinese, sweep
from trainer.compare import words
from trainer.compare.comparison import Run, compare
from trainer.compare.results import Answer

CROSSED: list[Config] = [{"bn": bn, "dropout": dropout} for bn in (False, True) for dropout in (0, 0.5)]


def line(answer: Answer, start: str) -> str:
    (found,) = [one for one in answer.lines if one.startswith(start)]
    return found


@pytest.mark.parametrize("apart", [0.0, 0.3])
def test_levels_have_intervals_and_the_interaction_says_whether_they_differ(apart: float) -> None:
    """No p stands at a level: that one is significant and another is not says nothing of their difference."""
    found = compare(sweep(CROSSED, lambda s: 0.4 + (0.06 + apart * s["bn"]) * (s["dropout"] == 0), noise=0.02))
    told = line(found.answer, "By level, dropout=")
    assert " p " not in told
    assert told.count("95 % interval") == 2
    one = next(one for one in found.interactions if one.measure == "best_val_loss")
    assert one.claimed is (apart > 0)
    is_denied = any("It is not shown that what dropout does to the best validation loss depends on bn" in each
                    for each in found.answer.lines)  # fmt: skip
    assert is_denied is not one.claimed
    assert ("depends on dropout:" in found.answer.text) is one.claimed
    assert all(map(is_chinese, found.answer.lines))


def test_what_is_shown_at_one_level_alone_is_not_told_as_a_difference_of_levels() -> None:
    settings = [{"width": width, "dropout": dropout} for width in (0, 1, 2) for dropout in (0, 0.5)]
    at = {(0, 0): 0.44}
    lines = compare(
        sweep(settings, lambda s: at.get((s["width"], s["dropout"]), 0.4), noise=0.013, seeds=3)
    ).answer.lines
    assert lines[0].startswith("At width=0: best validation loss is 0.0428 higher at dropout=0 than at 0.5 ")
    assert lines[1].startswith("It is not shown that what dropout does to the best validation loss depends on width (")


def test_an_interval_without_0_beside_a_p_over_5_percent_is_explained_once() -> None:
    runs = sweep([{"dropout": d} for d in (0, 0.2, 0.5)], lambda s: 0.4 + 0.018 * s["dropout"], noise=0.006)
    found = compare(runs)
    odd = [
        one for one in effect(found, "dropout").contrasts if not one.claimed and (one.low or 0) * (one.high or 0) > 0
    ]
    assert bool(odd) is ("an interval without 0 is not enough" in found.answer.text)
    assert found.answer.lines[-2] == "Groups are compared seed by seed."
    assert f"p is corrected for all {found.tests} questions asked" in found.answer.lines[-1]
    assert is_chinese(found.answer.lines[-1])


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(-0.0, 1e-17, "0"), (9.96, 10.04, "9.96 to 10"), (9.996, 10.004, "10"), (-0.00121, 0.0012, "-0.00121 to 0.0012")],
)
def test_a_range_whose_ends_read_alike_is_one_number_and_nothing_is_minus_0(low: float, high: float, text: str) -> None:
    assert words.span(*(words.figure(end, "gap") for end in (low, high))) == text
    assert words.change(-1e-17, "gap") == words.change(0.0, "gap") == "0"


def test_ratios_are_told_as_times_not_as_logarithms() -> None:
    """Losses 1.25 and 1.6 times as high at every seed, whose own are far apart: differences hide what ratios show."""
    rng, scale = np.random.default_rng(0), {"relu": 1.6, "tanh": 1.25, "gelu": 1.0}
    losses = {
        (act, seed): float(0.1 * scale[act] * np.exp(rng.normal(0, 0.03) + 1.2 * np.sin(seed)))
        for act, seed in itertools.product(scale, range(5))
    }
    runs = [
        Run(f"{act}/{seed}", "", {"act": act, "seed": seed}, HEALTHY, {"best_val_loss": loss})
        for (act, seed), loss in losses.items()
    ]
    said = compare(runs).recommendation.sentence
    assert "logarithm" not in said
    (least,) = re.findall(r"tested as ratios: their losses are at least (\S+) times as high", said)
    ratio = scipy.stats.gmean([losses["tanh", seed] / losses["gelu", seed] for seed in range(5)])
    tanh, gelu = (np.mean([losses[act, seed] for seed in range(5)]) for act in ("tanh", "gelu"))
    assert min(ratio, tanh / gelu) - 0.01 <= float(least) <= min(ratio, tanh / gelu)  # a reader may divide the means
    assert is_chinese(said)


def test_every_command_says_why_it_is_to_be_run() -> None:
    typed = lambda one: [f"dropout={one['dropout']}"]  # noqa: E731
    edge = compare(sweep([{"dropout": d} for d in (0.1, 0.3, 0.5)], lambda s: 1 - s["dropout"], typed=typed)).answer
    assert (edge.reason, edge.next is None) == ("the best dropout is the highest tried", False)
    settings = [{"dropout": d} for d in (0, 0.5)]
    more = compare(sweep(settings, lambda s: 0.4 + 0.06 * s["dropout"], seeds=3, typed=typed)).answer
    assert (more.next, more.reason) == (
        "python -m trainer resume=outputs/one 'seed=range(7)'",
        "more seeds may settle what dropout does",
    )
    one = compare(sweep(settings, lambda s: s["dropout"], seeds=1, typed=typed)).answer
    assert one.next == "python -m trainer resume=outputs/one 'seed=range(5)'"
    assert one.reason == "one seed tells nothing of chance"
    assert all(is_chinese(str(answer.reason)) for answer in (edge, more, one))


def test_what_listed_groups_have_in_common_is_said_once() -> None:
    settings = [{"model.batchnorm": bn, "optimizer.lr": lr} for bn in (False, True) for lr in (0.1, 0.2, 0.4)]
    found = compare(sweep(settings, lambda s: 0.4 + 0.3 * s["model.batchnorm"], noise=0.02))
    assert found.recommendation.sentence.count("model.batchnorm=false") <= 2
    (said,) = re.findall(r"not shown to be better than ([^;]*)", found.recommendation.sentence)
    assert re.fullmatch(r"optimizer.lr=0.\d, optimizer.lr=0.\d \(all with model.batchnorm=false\)", said)
    assert len(found.recommendation.ties) == 2


def test_groups_of_the_same_numbers_are_said_to_be_the_same() -> None:
    """Decoupled weight decay of 0 is none: Adam and AdamW are one optimizer there."""
    settings = [{"opt": opt, "wd": wd} for opt in ("adam", "adamw") for wd in (0, 0.1)]
    runs = sweep(settings, lambda s: 0.3 + s["wd"] * (3 if s["opt"] == "adam" else 1))
    runs[10:15] = [dataclasses.replace(run, measures=runs[i].measures) for i, run in enumerate(runs[10:15])]
    said = compare(runs).recommendation.sentence
    assert "opt=adam, opt=adamw (all with wd=0) gave exactly the same numbers" in said
    assert "not shown to be better" not in said
    assert is_chinese(said)


def test_why_a_group_is_not_shown_to_be_worse_whose_mean_is() -> None:
    runs = sweep([{"lr": lr} for lr in (0.1, 0.3, 1.0)], lambda s: 0.3 + 0.1 * (s["lr"] == 0.3), noise=0.005, seeds=4)
    wild = {seed: {"best_val_loss": value} for seed, value in enumerate((0.25, 0.31, 0.4, 2.9))}
    spread = [dataclasses.replace(run, measures=wild[run.config["seed"]]) for run in runs[8:]]
    said = compare([*runs[:8], *spread]).recommendation.sentence
    assert "; lr=0.3 is shown to be worse" in said
    assert "lr=1 has a mean of 0.965, but its 4 seeds, from 0.25 to 2.9, are too few to show that it is worse" in said
    lost = [dataclasses.replace(run, verdict=DIVERGED, measures={}) for run in runs[8:10]]
    said = compare([*runs[:8], *lost, *spread[2:]]).recommendation.sentence
    assert (
        "not shown to be better than lr=1; 2 of 4 runs of lr=1 diverged or failed (mean of the others 1.65): ranks"
        in said
    )
    assert is_chinese(said)


def test_a_mean_that_is_not_the_tables_says_why() -> None:
    """At each seed the rate is chosen by the other seeds; the table has the rate that is best over all of them."""
    runs = sweep([{"opt": o, "lr": lr} for o in ("adam", "sgd") for lr in (0.1, 0.2, 0.3)], lambda _: 0.3, noise=0.05)
    found = compare(runs)
    table = {group.name: group.measures["best_val_loss"].mean for group in found.groups}
    (tuned,) = [one.text for one in found.warnings if one.kind == "tune"]
    levels = {str(one.value): one.mean for one in effect(found, "opt").levels}
    for name, group in found.chosen.items():
        own, of_group = levels[name.removeprefix("opt=")], table[group]
        is_said = f"{name} counts with {own:.4g}, not with {of_group:.4g}, what lr=" in tuned
        assert is_said is (f"{own:.4g}" != f"{of_group:.4g}")
    assert "counts with" in tuned
    assert is_chinese(tuned.partition("; ")[2])


def test_seeds_that_one_level_lacks_are_said_to_be_left_out() -> None:
    runs = sweep([{"dropout": d} for d in (0, 0.2, 0.5)], lambda s: 0.3 + s["dropout"], seeds=5)
    found = compare(runs[:-2])
    pair = next(one for one in effect(found, "dropout").contrasts if one.b == 0.5)
    assert pair.sentence.endswith("; over the seeds that both have")
    assert "over the seeds" not in next(one for one in effect(found, "dropout").contrasts if one.b == 0.2).sentence
    names = [dataclasses.replace(run, config={**run.config, "dropout": f"x{run.config['dropout']}"}) for run in runs]
    assert line(compare(names[:-2]).answer, "Means over the 3 seeds that all have: 0.")
    assert line(compare(names).answer, "Means: 0.")


def test_names_that_are_not_told_apart_over_another_between_them_are_said() -> None:
    """relu and sine are not shown to differ although gelu, between their means, differs from relu."""
    rng = np.random.default_rng(22)
    means = {"relu": (0.40, 0.006), "gelu": (0.43, 0.006), "sine": (0.75, 0.35)}
    runs = [
        Run(f"{act}/{seed}", "", {"act": act, "seed": seed}, HEALTHY, {"best_val_loss": float(rng.normal(mean, sd))})
        for act, (mean, sd) in means.items()
        for seed in range(6)
    ]
    found = compare(runs)
    open_pairs = {frozenset((one.a, one.b)) for one in effect(found, "act").contrasts if not one.claimed}
    assert open_pairs == {frozenset(("relu", "sine")), frozenset(("gelu", "sine"))}
    told = line(found.answer, "Means: ").rstrip(".").partition("not shown to differ: ")[2]
    assert {frozenset(pair.split(" – ")) for pair in told.split("; ")} == open_pairs


def test_classes_of_one_name_are_told_apart_by_their_paths() -> None:
    loss = {"lib.a.Net": 0.5, "lib.b.Net": 0.4, "torch.nn.MLP": 0.6}
    for typed in (None, lambda one: [f"model._target_={one['model._target_']}"]):
        found = compare(
            sweep([{"model._target_": path} for path in loss], lambda s: loss[s["model._target_"]], typed=typed)
        )
        assert len({group.name for group in found.groups}) == 3
        assert len({level.value for level in effect(found, "model").levels}) == 3
    plain = compare(sweep([{"model._target_": path} for path in loss], lambda s: loss[s["model._target_"]]))
    assert [group.name for group in plain.groups] == ["model=a.Net", "model=b.Net", "model=MLP"]
    assert plain.recommendation.group == "model=b.Net"


def test_what_long_values_share_is_not_repeated() -> None:
    path = "hub/vision/very/long/common/prefix"
    settings = [{"backbone": f"{path}/resnet_{v}", "aug": aug} for v in "AB" for aug in (False, True)]
    found = compare(sweep(settings, lambda s: 0.5 - 0.1 * s["backbone"].endswith("B")))
    assert f"at backbone={path}/resnet_A than at …resnet_B" in found.answer.lines[0]
    assert f"By level, backbone={path}/resnet_A against …resnet_B: " in found.answer.text
    assert str(found.recommendation.group).endswith(f"backbone={path}/resnet_B")  # what is to be used is told whole


def test_where_the_loss_shows_nothing_and_the_accuracy_does_that_is_said_of_the_groups_too() -> None:
    runs = sweep([{"depth": 2}, {"depth": 8}], lambda _: 0.4)
    for run in runs:
        run.measures["best_val_accuracy"] = 0.9 + 0.05 * (run.config["depth"] == 8) + 0.001 * run.config["seed"]
    said = compare(runs).recommendation.sentence
    assert said.startswith("no group is shown to be better than another; ")
    best = compare(runs).recommendation.group
    other = "depth=2 is shown to be worse" if best == "depth=8" else "depth=8 is shown to be better"
    assert said.endswith(f"; but by best validation accuracy, {other}")


@pytest.mark.parametrize(
    ("seeds", "asked"), [((0, 1, 2), "range({n})"), ((3, 7, 11), "0,1,2,3,.*7.*,11"), ((1, 2, 4), "range({n})")]
)
def test_the_command_for_more_seeds_keeps_those_that_ran(seeds: tuple[int, ...], asked: str) -> None:
    """A sweep goes on where its runs are among those that the command asks for."""
    runs = sweep([{"dropout": d} for d in (0, 0.5)], lambda s: 0.4 + 0.06 * s["dropout"], seeds=3,
                 typed=lambda one: [f"dropout={one['dropout']}"])  # fmt: skip
    runs = [dataclasses.replace(run, config={**run.config, "seed": seeds[run.config["seed"]]}) for run in runs]
    found = compare(runs)
    needed = max(one.seeds_needed or 0 for one in effect(found, "dropout").contrasts)
    (typed,) = re.findall(r"seed=([^']*)", str(found.answer.next))
    assert re.fullmatch(re.escape(asked.format(n=needed)) if "range" in asked else asked, typed)
    given = range(needed) if "range" in typed else [int(seed) for seed in typed.split(",")]
    assert len(given) == needed
    assert {*seeds} <= {*given}


def test_what_had_fewer_rates_to_be_tuned_by_is_said_with_the_claim() -> None:
    """Only the rate matters, and only one batch size had the better one: in the answer, not in a warning alone."""
    settings = [{"batch_size": 32, "lr": 0.1}, {"batch_size": 64, "lr": 0.2}, {"batch_size": 64, "lr": 0.1}]
    found = compare(sweep(settings, lambda s: 0.5 - 0.08 * (s["lr"] == 0.2)))
    assert effect(found, "batch_size").claimed
    assert found.answer.lines[1].startswith("Only one lr was tried at batch_size=32, more at others; ")
    both = compare(sweep([*settings, {"batch_size": 32, "lr": 0.2}], lambda s: 0.5 - 0.08 * (s["lr"] == 0.2)))
    assert "Only one lr" not in both.answer.text


def test_what_is_known_at_one_combination_alone_is_told_of_that_one() -> None:
    settings = [{"peak": peak, "norm": norm} for peak in (0.1, 1.0) for norm in ("none", "layer")]
    runs = sweep(settings, lambda s: 0.5 - 0.05 * (s["peak"] == 1))
    lost = [dataclasses.replace(run, verdict=DIVERGED, measures={}) for run in runs[10:15]]
    found = compare([*runs[:10], *lost, *runs[15:]])
    assert "; at norm=layer alone, where both have numbers; of the runs that ended" in effect(found, "peak").sentence
    assert "alone" not in effect(compare(runs), "peak").sentence


def test_more_seeds_for_an_effect_that_is_shown_are_to_tell_the_best_value() -> None:
    loss = {0: 0.5, 0.5: 0.33, 0.9: 0.3}
    runs = sweep([{"momentum": m} for m in loss], lambda s: loss[s["momentum"]], seeds=3,
                 typed=lambda one: [f"momentum={one['momentum']}"])  # fmt: skip
    answer = compare(runs).answer
    assert answer.next is not None
    assert answer.reason == "more seeds may settle which momentum is best"


def test_why_nothing_is_shown_of_a_group_that_looks_much_worse() -> None:
    """Its mean lies beyond the best group's interval, though no test tells them apart."""
    wild = {("wide", seed): loss for seed, loss in enumerate((0.31, 0.9, 1.2, 4.0))}
    runs = [
        Run(f"{name}/{seed}", "", {"net": name, "seed": seed}, HEALTHY, {"best_val_loss": loss})
        for (name, seed), loss in ({("small", seed): 0.3 + 0.01 * (seed % 2) for seed in range(4)} | wild).items()
    ]
    said = compare(runs).recommendation.sentence
    assert said.startswith("no group is shown to be better than another; net=small: ")
    assert said.endswith(
        "; net=wide has a mean of 1.603, but its 4 seeds, from 0.31 to 4, are too few to show that it is worse"
    )


def test_what_is_not_shown_at_a_level_is_called_so() -> None:
    """As in the table: a difference is stated only where it is claimed."""
    settings = [{"dropout": d, "bn": bn} for bn in (False, True) for d in (0, 0.5)]
    found = compare(sweep(settings, lambda s: 0.4 + 0.06 * (s["dropout"] == 0 and not s["bn"]), noise=0.02))
    (by_level,) = [line for line in found.answer.lines if line.startswith("By level, dropout=0 against 0.5:")]
    claims = [one.contrasts[0].claimed for one in effect(found, "dropout").simple]
    assert [", not shown" not in part for part in by_level.split(";")] == claims == [True, False]
    assert is_chinese(by_level)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.2345, 1.2391, "1.23 to 1.24"),
        (1.2311, 1.2329, "1.231 to 1.233"),
        (0.0, 0.0, "0"),
        (-1e-15, 0.5, "0 to 0.5"),
    ],
)
def test_an_interval_has_the_digits_that_tell_its_ends_apart(low: float, high: float, text: str) -> None:
    assert words.bounds(low, high, "gap") == text


def test_a_dip_that_is_not_shown_is_not_told_as_a_rise() -> None:
    """Losses .5, .49, 3 at three rates: the last is shown to be worse, not that the middle is best."""
    losses = {0.03: 0.5, 0.3: 0.49, 3.0: 3.0}
    found = compare(sweep([{"lr": lr} for lr in losses], lambda s: losses[s["lr"]], noise=0.05))
    (shape,) = [one.shape for one in found.effects if one.measure == "best_val_loss"]
    assert shape is not None
    assert shape.kind == "no shape shown"
    assert re.match(
        r"best validation loss is higher at lr=3 than at 0.03; that it is lowest between, [\d.]+ at 0.3, is not shown",
        shape.sentence,
    )
    assert is_chinese(shape.sentence)


def test_a_fall_is_told_only_where_its_ends_are_shown_to_differ() -> None:
    """The middle rate is lower at every seed by as much; the last one is lower still on average, and wild."""
    rng = np.random.default_rng(0)
    settings = [{"wd": wd} for wd in (0, 0.1, 1)]
    runs = sweep(settings, lambda s: 0.5 - {0: 0.0, 0.1: 0.02, 1: 0.05}[s["wd"]], noise=0.001)
    runs = [
        dataclasses.replace(one, measures={"best_val_loss": one.measures["best_val_loss"] + 0.2 * rng.normal()})
        if one.config["wd"] == 1
        else one
        for one in runs
    ]
    (effect,) = (one for one in compare(runs).effects if one.measure == "best_val_loss")
    assert [(one.a, one.b) for one in effect.contrasts if one.claimed] == [(0, 0.1)]
    means = [level.mean or 0.0 for level in effect.levels]
    assert means == sorted(means, reverse=True)
    assert effect.shape is not None
    assert effect.shape.kind == "no shape shown"
    said = "best validation loss is lower at wd=0.1 than at 0; no rise or fall over all values is shown ("
    assert effect.shape.sentence.startswith(said)
    assert is_chinese(effect.shape.sentence)


def test_where_another_measure_differs_it_is_said_of_which_none_is_shown() -> None:
    runs = sweep([{"dropout": dropout} for dropout in (0, 0.5)], lambda _: 0.4)
    alike = compare(runs).answer.lines[0]
    for run in runs:
        run.measures["gap"] += 0.5 * (run.config["dropout"] == 0)
    found = compare(runs).answer.lines[0]
    assert alike.startswith("No difference is shown; the largest: ")
    assert found.startswith("No difference of best validation loss is shown; the largest: ")
    assert all(map(is_chinese, (alike, found)))


def test_nobody_is_told_to_use_clean_labels() -> None:
    for knob, start in (
        ("data.label_noise", "lowest mean best validation loss: data.label_noise=0, "),
        ("lr", "use lr=0: "),
    ):
        runs = sweep([{knob: level} for level in (0, 0.3)], lambda s: 0.4 + 0.5 * next(iter(s.values())))
        said = compare(runs).recommendation.sentence
        assert said.startswith(start)
        assert "the other group is shown to be worse" in said
