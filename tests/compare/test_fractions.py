"""Regular fractions of a grid: what each knob does on average, where nothing is mixed with it but what three do."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats

from tests.compare.runs import Config, effect, is_chinese, sweep
from trainer.compare.comparison import Run, compare
from trainer.compare.groups import layout


def fraction(knobs: str, *words: str) -> list[Config]:
    """Runs of a fraction of all combinations of 0 and 1: those in which every word's letters have an even sum."""
    every = (dict(zip(knobs, values, strict=True)) for values in itertools.product((0, 1), repeat=len(knobs)))
    return [one for one in every if not any(sum(one[letter] for letter in word) % 2 for word in words)]


def least_squares(runs: list[Run]) -> tuple[float, float]:
    """Effect of a (0 less 1) and its p, from the model loss = group + seed, by ordinary least squares."""
    groups = sorted({tuple(run.config[key] for key in "abcd") for run in runs})
    rows = [(groups.index(tuple(run.config[key] for key in "abcd")), run.config["seed"]) for run in runs]
    seeds = max(seed for _, seed in rows) + 1
    design = np.zeros((len(runs), len(groups) + seeds - 1))
    for row, (group, seed) in enumerate(rows):
        design[row, group] = 1
        if seed:
            design[row, len(groups) + seed - 1] = 1
    y = np.array([run.measures["best_val_loss"] for run in runs])
    estimate, (squares,), rank, _ = np.linalg.lstsq(design, y, rcond=None)
    weights = np.zeros(design.shape[1])
    weights[: len(groups)] = [(1 if group[0] == 0 else -1) / 4 for group in groups]
    df = len(runs) - rank
    error = np.sqrt(squares / df * weights @ np.linalg.inv(design.T @ design) @ weights)
    difference = float(weights @ estimate)
    return difference, float(2 * scipy.stats.t.sf(abs(difference) / error, df))


def test_a_half_fraction_is_analysed_as_least_squares_do() -> None:
    runs = sweep(fraction("abcd", "abcd"), lambda s: 0.4 + 0.03 * s["a"] - 0.06 * s["b"], noise=0.02, seeds=3)
    found = compare(runs)
    assert {one.knob for one in found.effects if one.measure == "best_val_loss"} == set("abcd")
    (of_a,) = effect(found, "a").contrasts
    difference, p = least_squares(runs)
    assert of_a.difference == pytest.approx(difference, abs=1e-12)
    assert of_a.p == pytest.approx(p, rel=1e-9)
    means = [np.mean([run.measures["best_val_loss"] for run in runs if run.config["a"] == value]) for value in (0, 1)]
    assert [level.mean for level in effect(found, "a").levels] == pytest.approx(means, abs=1e-12)
    assert f"({means[0]:.4g} against {means[1]:.4g}; " in of_a.sentence
    assert not found.differences  # no two groups differ in one knob
    assert not found.interactions
    assert [one.simple for one in found.effects] == [[]] * len(found.effects)


def test_what_two_do_together_is_in_no_effect_and_what_three_do_is_said_to_be() -> None:
    both = lambda s: 0.4 + 0.1 * ((s["a"] + s["b"]) % 2)  # noqa: E731
    assert not [one.knob for one in compare(sweep(fraction("abcd", "abcd"), both)).effects if one.claimed]
    three = lambda s: 0.4 + 0.1 * ((s["b"] + s["c"] + s["d"]) % 2)  # noqa: E731
    found = compare(sweep(fraction("abcd", "abcd"), three))
    assert [one.knob for one in found.effects if one.claimed] == ["a"]
    (said,) = [one.text for one in found.warnings if one.kind == "unbalanced"]
    assert said == (
        "8 of 16 combinations of the knobs were run, a balanced fraction: what a, b, c, d do is averaged over them, "
        "and not told apart from what three or more of the others do together; "
        "whether one depends on another is not asked"
    )
    assert f"{said}." in found.answer.lines
    assert is_chinese(said)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (fraction("abcd"), ""),  # all combinations
        (fraction("abcd", "abcd"), "abcd"),
        (fraction("abcde", "abcde"), "abcde"),
        (fraction("abcde", "abcd"), "abcd"),  # e was crossed with all
        (fraction("abcdef", "abcd", "cdef"), "abcdef"),
        (fraction("abcd", "abd"), ""),  # d is what a and b do together
        (fraction("abcd", "abcd")[:-1], ""),
        ([{"a": i, "b": j, "c": (i + j) % 3, "d": (i + 2 * j) % 3} for i in range(3) for j in range(3)], ""),
    ],
)
def test_which_knobs_are_balanced_against_every_two_others(settings: list[Config], found: str) -> None:
    plan = layout(sweep(settings, lambda _: 0.4, seeds=1))
    assert "".join(plan.knobs[k].name for k in plan.fractions) == found
    for k in plan.fractions:
        columns = plan.across(k)
        assert sorted(columns.ravel()) == list(range(len(settings)))
        assert all(plan.contenders[c].levels[k] == level for level, row in enumerate(columns) for c in row)


def test_of_a_fraction_with_a_missing_run_nothing_is_said_by_knob() -> None:
    runs = sweep(fraction("abcd", "abcd"), lambda s: 0.4 + 0.1 * s["a"])
    assert effect(compare(runs), "a").claimed
    gone = dataclasses.replace(runs[3], status="interrupted", measures={})
    assert not compare([*runs[:3], gone, *runs[4:]]).effects
