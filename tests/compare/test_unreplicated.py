"""A grid whose settings were run once each: a knob is compared over the settings of the others."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from tests.compare.runs import DIVERGED, Config, effect, is_chinese, sweep
from trainer.compare.comparison import Run, compare
from trainer.compare.statistics import signed_ranks

SIZES = {0.001: 0.05, 0.003: 0.02, 0.01: 0.01, 0.03: 0.04, 0.1: 0.4}  # of everything, at each rate


def grid(does: float, depths: int = 3) -> list[Run]:
    """lr x depth x dropout, one seed: dropout costs `does` times what the rate makes of it, with noise of that size."""
    settings = [{"lr": lr, "depth": d, "dropout": p} for lr in SIZES for d in range(1, depths + 1) for p in (0, 0.3)]
    rng = np.random.default_rng(3)

    def loss(setting: Config) -> float:
        return 0.1 + SIZES[setting["lr"]] * (1 + does * (setting["dropout"] > 0) + rng.normal(0, 0.5))

    return sweep(settings, loss, seeds=1, noise=0.0)


@pytest.mark.parametrize("n", [2, 5, 6, 9, 25, 60])
def test_signed_ranks_are_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        differences = rng.normal(0.3, 1, n)
        found = signed_ranks(differences)
        assert found.p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=1e-9)
        assert found.median == np.median([(a + b) / 2 for i, a in enumerate(differences) for b in differences[i:]])


def test_the_interval_is_what_the_test_does_not_reject() -> None:
    differences = np.random.default_rng(1).standard_cauchy(14)
    found = signed_ranks(differences)
    for shift in np.linspace(-4, 4, 400):
        rejected = stats.wilcoxon(differences - shift, method="exact").pvalue < 0.05
        assert rejected == (not found.low <= shift <= found.high)
    assert signed_ranks(differences[:5]).high == np.inf  # 2 ways of 32 are more than 5 in 100


def test_signed_ranks_with_ties_zeros_and_failures_are_those_of_all_signs() -> None:
    differences = np.array([0.0, 1.0, 1.0, -1.0, 2.0, 2.0, np.inf, -np.inf, np.inf, 0.5])
    ranks = stats.rankdata(abs(differences[1:]))
    sums = np.array([ranks[list(signs)].sum() for signs in itertools.product((False, True), repeat=9)])
    seen = ranks[differences[1:] > 0].sum()
    as_far = abs(sums - ranks.sum() / 2) >= abs(seen - ranks.sum() / 2) - 1e-9
    assert signed_ranks(differences).p == pytest.approx(as_far.mean(), rel=1e-12)
    assert signed_ranks(np.zeros(5)).p == 1.0


def test_many_signed_ranks_are_about_normal() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 300)
    assert signed_ranks(differences).p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=0.02)


def test_a_knob_is_compared_setting_by_setting() -> None:
    runs = grid(does=1.5)
    found = compare(runs)
    (one,) = effect(found, "dropout").contrasts
    values = np.array([run.measures["best_val_loss"] for run in runs]).reshape(-1, 2)
    differences = values[:, 0] - values[:, 1]
    assert (one.n, one.over) == (15, "settings")
    assert one.difference == pytest.approx(signed_ranks(differences).median)
    assert one.p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert one.claimed
    lower = int((differences < 0).sum())
    assert f"the median over 15 settings of the other knobs; so at {lower} of these" in one.sentence
    assert "Each setting was run once: " in found.answer.text
    assert "what one seed does alike at all of them is not told from" in found.answer.text
    unseeded = [dataclasses.replace(run, config={**run.config, "seed": None}) for run in runs]
    assert "what one seed does" not in compare(unseeded).answer.text  # each has had chances of its own
    assert effect(compare(unseeded), "dropout").contrasts[0].p == one.p
    assert "What lr does cannot be tested: at too few settings of the other knobs" in found.answer.text
    assert all(each.p is None for each in effect(found, "lr").contrasts)
    said = (
        "best validation loss: 6 runs per side, no two at equal settings: not enough; two seeds test, five or more tell"
    )
    assert effect(found, "lr").sentence == said
    assert is_chinese(said)
    assert "groups of one seed cannot be told apart" in found.recommendation.sentence
    assert not effect(found, "dropout").simple  # at a level there is nothing to test by
    assert [one.text for one in found.warnings if one.kind == "seeds"] == [
        "every group has 1 seed: wide or missing intervals; repeat each with other random seeds"
    ]
    assert all(map(is_chinese, found.answer.lines))


def test_of_too_few_settings_the_differences_stand_untested() -> None:
    found = compare(
        sweep([{"act": a, "depth": d} for a in ("relu", "tanh") for d in (1, 2)], lambda s: s["depth"], seeds=1)
    )
    assert [one.contrasts[0].difference for one in effect(found, "depth").simple] == pytest.approx([-1, -1], abs=0.1)
    assert not any(one.p for effects in found.effects for one in effects.contrasts)
    assert {one.over for one in effect(found, "depth").contrasts} == {"seeds"}
    assert "What a knob does cannot be tested" in found.answer.text


def test_what_failed_at_a_setting_is_the_worst_there() -> None:
    """Survivors alone say nothing: here the level that breaks is the better one wherever it ends."""
    runs = grid(does=-1.5)
    assert effect(compare(runs), "dropout").claimed
    broken = [
        dataclasses.replace(run, verdict=DIVERGED, measures={})
        if run.config["dropout"] and run.config["lr"] > 0.02
        else run
        for run in runs
    ]
    (one,) = effect(compare(broken), "dropout").contrasts
    assert one.n == 9
    assert not one.claimed
    assert "6 of 15 runs at dropout=0.3 diverged or failed" in one.sentence


@pytest.mark.slow
def test_other_spreads_at_each_setting_make_no_claims() -> None:
    claims = 0
    for number in range(100):
        rng = np.random.default_rng(number)
        settings = [{"lr": lr, "depth": d, "act": a} for lr in SIZES for d in (1, 2, 3, 4) for a in ("relu", "tanh")]
        runs = sweep(settings, lambda s, r=rng: 1 + SIZES[s["lr"]] * r.standard_exponential(), seeds=1, noise=0.0)
        claims += any(one.claimed for one in compare(runs).effects)
    assert claims <= 10  # of 100 at 5 in 100: more by chance once in 90 times


def test_seeds_decide_where_there_are_some_and_settings_that_pair_nothing_never() -> None:
    twice = [*grid(does=1.5), *(dataclasses.replace(run, path=f"{run.path}b") for run in grid(does=1.5)[:1])]
    twice[-1] = dataclasses.replace(twice[-1], config={**twice[-1].config, "seed": 1}, measures={"best_val_loss": 0.2})
    assert {one.over for one in effect(compare(twice), "dropout").contrasts} == {"seeds"}
    rng = np.random.default_rng(0)
    drawn = [{"lr": 10 ** float(rng.uniform(-3, 0)), "act": act} for act in ("relu", "tanh") for _ in range(15)]
    found = compare(sweep(drawn, lambda s: 0.1 + 0.2 * (s["act"] == "tanh"), seeds=1), tune=())
    assert "What a knob does cannot be tested" in found.answer.text
