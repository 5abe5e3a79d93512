"""Figures: which there are, that they open, that they show the numbers, and that odd curves draw."""

import io
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from tests import fake_runs
from trainer.evaluate import evaluate
from trainer.read.curves import Curves
from trainer.report.figures import _average, _curves, figures

Evaluated = tuple[dict[str, Any], list[Curves]]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return evaluate([fake_runs.sweep(tmp_path_factory.mktemp("sweeps") / "s", seeds=2, events=False)])


def words(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_curves_and_effects_as_png_and_svg(evaluated: Evaluated) -> None:
    drawn = figures(*evaluated)
    stems = ["curves", "effect_model.batchnorm", "effect_model.dropout", "effect_optimizer.name"]
    assert sorted(drawn) == sorted(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))
    for name, content in drawn.items():
        if name.endswith("png"):
            width, height = Image.open(io.BytesIO(content)).size
            assert 1000 < width < 3000
            assert 300 < height < 2000
    shown = words(drawn["curves.svg"])
    assert {"training loss", "validation loss", "validation accuracy (%)", "epoch"} <= set(shown)
    assert "batchnorm=true, dropout=0.5, optimizer=adamw" in shown
    assert shown[0].startswith("8 of 18 groups, those with the lowest") or any("8 of 18 groups" in one for one in shown)
    shown = words(drawn["effect_model.dropout.svg"])
    assert {"0", "0.25", "0.5", "model.dropout", "gap (validation − training loss)", "test accuracy (%)"} <= set(shown)


@pytest.mark.slow
def test_the_same_numbers_are_the_same_files(evaluated: Evaluated) -> None:
    assert figures(*evaluated) == figures(*evaluated)


@pytest.mark.slow
def test_each_sweep_has_its_own(evaluated: Evaluated) -> None:
    evaluation, runs = evaluated
    both = fake_runs.two_sweeps(evaluation)
    both["sweeps"][1]["name"] = "FIRST"  # the same file where letters are not told apart by size
    drawn = {name.removesuffix(".png") for name in figures(both, runs) if name.endswith(".png")}
    assert {"first_curves", "first_effect_model.dropout", "FIRST_curves_2", "FIRST_effect_model.dropout_2"} <= drawn
    assert len(drawn) == 8


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_the_mean_and_its_interval(seeds: int) -> None:
    """Student's t interval at each point, by SciPy; where less than half of the runs have a value, nothing."""
    rng = np.random.default_rng(seeds)
    x, values = np.arange(1.0, 21.0), rng.normal(size=(seeds, 20))
    values[0, 15:] = np.nan
    values[: seeds // 2 + 1, 18:] = np.nan
    found_x, mean, low, high = _average([(x, row) for row in values], scale=100)
    np.testing.assert_array_equal(found_x, x)
    np.testing.assert_allclose(mean[:15], 100 * values[:, :15].mean(0), rtol=1e-12)
    if seeds > 1:
        error = scipy.stats.sem(values[:, :15])
        by_scipy = scipy.stats.t.interval(0.95, seeds - 1, values[:, :15].mean(0), error)
        np.testing.assert_allclose([low[:15], high[:15]], 100 * np.array(by_scipy), rtol=1e-9)
    assert np.isnan(mean[15:18]).all() == (seeds == 1)
    assert np.isnan(mean[18:]).all()


def test_curves_over_other_points_are_read_between_their_own() -> None:
    short, long = np.arange(0.0, 11.0), np.arange(0.0, 5000.0)
    x, mean, *_ = _average([(short, 2 * short), (long, 4 * long)], scale=1)
    assert (x[0], x[-1], len(x)) == (0, 4999, 400)
    np.testing.assert_allclose(mean, np.where(x <= 10, 3 * x, 4 * x))


def test_a_run_that_diverged_is_not_in_the_mean_of_the_others(tmp_path: Path) -> None:
    for seed in range(3):
        train, val = fake_runs.curves(30, 0.0, seed)
        if seed == 2:
            train[20:], val[20:] = np.inf, np.inf
            train[10:20], val[10:20] = 1e6, 1e6
        fake_runs.our_run(tmp_path / str(seed), {"seed": seed, "model": {"depth": 2}}, train, val, events=False)
    evaluation, runs = evaluate([tmp_path])
    assert [run["verdict"] for run in evaluation["runs"]].count("diverged") == 1
    drawn = _curves(evaluation, {run.path: run for run in runs})
    ended = [run.val_loss for run in runs if run.val_loss is not None and np.isfinite(run.val_loss).all()]
    (line,) = drawn.axes[1].get_lines()
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), np.mean(ended, axis=0))


@pytest.mark.slow
def test_odd_runs_draw(tmp_path: Path) -> None:
    """One epoch, NaN, infinity, 1e300, no validation, names that are markup or in letters that the font lacks."""
    train, val = fake_runs.curves(30, 0.5, 0)
    gone, endless = val.copy(), val.copy()
    gone[12:], endless[12:] = np.nan, np.inf
    odd = {"one": (train[:1], val[:1]), "gone": (gone, gone), "endless": (train, endless), "huge": (train, 1e300 * val)}
    odd |= {"$x^{$": (train, val), "<b>&\x1b": (train, val), "深度": (train - 9, val - 9)}
    for i, (name, (a, b)) in enumerate(odd.items()):
        fake_runs.our_run(tmp_path / str(i), {"seed": 0, "model": {"$k_$": name}}, a, b, events=False)
    evaluation, runs = evaluate([tmp_path])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = figures(evaluation, runs)
    assert {name.partition(".")[0] for name in drawn} >= {"curves"}
    assert len([word for word in words(drawn["curves.svg"]) if "$x^{$" in word]) == 1
    assert figures(*evaluate([tmp_path / "0"]))  # one run, one epoch
