"""Functions to minimise: their equations, their minima, training on them, the picture; and lines recovered."""

import csv
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import Cli, make_config, record, run, small_data
from trainer.cli.config_files import CONF
from trainer.config import ConfigError, Function
from trainer.core import data
from trainer.core.surfaces import FUNCTIONS
from trainer.read.other_tools import read_event_folder
from trainer.record import trajectories
from trainer.record.ground_truth import recovered

# ------------------------------------------------------------------ the functions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_equation_says_what_is_computed(name: str) -> None:
    text = FUNCTIONS[name].equation.partition("= ")[2].replace("^", "**")
    text = re.sub(r"(?<=[\d\w)]) (?=[(xy])", "*", text)
    for x, y in np.random.default_rng(0).uniform(-2, 2, (20, 2)):
        assert FUNCTIONS[name].value(x, y) == pytest.approx(eval(text, {"x": x, "y": y}), rel=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_minima(name: str) -> None:
    problem = FUNCTIONS[name]
    h = 1e-6
    for x, y in problem.minima:
        assert problem.value(x, y) == problem.lowest
        slopes = [problem.value(x + a, y + b) - problem.value(x - a, y - b) for a, b in ((h, 0), (0, h))]
        assert slopes == pytest.approx([0, 0], abs=1e-12)
    x, y = np.random.default_rng(0).uniform(-5, 5, (2, 100_000))
    assert problem.value(x, y).min() > problem.lowest


def test_every_function_has_its_file_and_knob() -> None:
    paths = [path for path in (CONF / "problem").glob("*.yaml") if path.stem != "custom"]
    assert {path.stem for path in paths} == set(FUNCTIONS) == set(get_args(Function))
    for path in paths:
        equation = FUNCTIONS[path.stem].equation.partition("= ")[2]
        assert path.read_text().splitlines()[1].startswith(f"# {equation}: ")


# ------------------------------------------------------------------ training on them

GRADIENTS = {  # by hand
    "quadratic": lambda x, y: (2 * (x - 3), 2 * (y - 2)),
    "rosenbrock": lambda x, y: (-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)),
    "saddle": lambda x, y: (2 * x, -2 * y + 2 * y**3),
    "beale": lambda x, y: (
        sum(2 * (c - x + x * y**n) * (y**n - 1) for n, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
        sum(2 * (c - x + x * y**n) * n * x * y ** (n - 1) for n, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_descent_is_the_obvious_loop(name: str) -> None:
    config = make_config(f"problem={name}", "optimizer=sgd", epochs=25)
    log = run([config], data.load(config.data, dtype=torch.float64))
    x, y = make_config(f"problem={name}").model.start  # type: ignore[union-attr]
    for row in log.rows[0]:
        dx, dy = GRADIENTS[name](x, y)
        x, y = x - config.optimizer.lr * dx, y - config.optimizer.lr * dy
        found = (row["point/x"], row["point/y"], row["eval/train_loss"])
        assert found == pytest.approx((x, y, FUNCTIONS[name].value(x, y)), abs=1e-6)  # the start is kept in float32


def test_optimizers_share_a_stack_and_are_as_alone() -> None:
    names = ("sgd", "adam", "rmsprop", "nadam", "adamw")
    budgets = dict(zip(names, (10, 15, 20, 25, 30), strict=True))
    configs = [make_config("problem=rosenbrock", f"optimizer={name}", epochs=n) for name, n in budgets.items()]
    dataset = data.load(configs[0].data, dtype=torch.float64)
    together = run(configs, dataset)
    for k, config in enumerate(configs):
        alone = run([config], dataset).rows[0]
        assert [row["epoch"] for row in together.rows[k]] == [row["epoch"] for row in alone]
        for a, b in zip(together.rows[k], alone, strict=True):
            assert a == pytest.approx(b, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "nadam", "rmsprop"])
def test_every_optimizer_gets_far_with_its_default_rate(name: str, optimizer: str) -> None:
    config = make_config(f"problem={name}", f"optimizer={optimizer}")
    rows = run([config], data.load(config.data)).rows[0]
    problem = FUNCTIONS[name]
    start = problem.value(*config.model.start) - problem.lowest  # type: ignore[union-attr]
    slow = (name, optimizer) == ("rosenbrock", "sgd")  # the valley is the point of it
    assert rows[-1]["eval/train_loss"] - problem.lowest < start * (0.3 if slow else 0.02)


def test_what_a_run_leaves(tmp_path: Path) -> None:
    config = make_config("problem=saddle", "optimizer=sgd", epochs=100)
    (directory,) = record([config], tmp_path, data.load(config.data))
    with open(directory / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 101))
    summary = json.loads((directory / "summary.json").read_text())
    last = {key: float(rows[-1][f"point/{key}"]) for key in "xy"}
    assert summary["recovered"] == {"x": {"true": 0.0, "found": last["x"]}, "y": {"true": 1.0, "found": last["y"]}}
    assert last == pytest.approx({"x": 0, "y": 1}, abs=1e-3)
    assert summary["health"] == []  # rules for networks say nothing of a function
    assert b"path" in b"".join(path.read_bytes() for path in directory.glob("events*"))
    series, _ = read_event_folder(directory, [path.name for path in directory.glob("events*")])
    assert series["point/x"].values.tolist() == pytest.approx([float(row["point/x"]) for row in rows])


def test_a_run_that_leaves_all_bounds_is_told_so(tmp_path: Path) -> None:
    config = make_config("problem=beale", "optimizer=sgd", epochs=20, **{"optimizer.lr": 1.0})
    (directory,) = record([config], tmp_path, data.load(config.data))
    summary = json.loads((directory / "summary.json").read_text())
    assert [finding["finding"] for finding in summary["health"]] == ["not_finite"]
    assert summary["stopped_by"] == "diverged"


def test_a_sweep_draws_its_paths(cli: Cli, tmp_path: Path) -> None:
    line = "-m problem=rosenbrock optimizer=sgd,adam,rmsprop epochs=20 hydra.sweep.dir=out"
    code, out, err = cli(line)
    assert (code, err) == (0, "")
    assert "picture   out/paths_rosenbrock.png" in out
    with Image.open(tmp_path / "out/paths_rosenbrock.png") as image:
        assert image.size == (trajectories.WIDTH, trajectories.HEIGHT)
    assert not list((tmp_path / "out").glob("*.part"))


def test_a_single_run_ends_with_what_it_found(cli: Cli) -> None:
    code, out, _ = cli("problem=quadratic optimizer=sgd epochs=150 hydra.run.dir=out")
    assert code == 0
    assert re.search(r"^f         \d\S*e-1\d at \(3, 2\) after 150 steps$", out, re.MULTILINE)
    assert re.search(r"^distance  \d\S*e-0[67] to the minimum at \(3, 2\)$", out, re.MULTILINE)


MISTAKES = {
    "problem=rosenbrok": ["problem=rosenbrok: no such option; did you mean rosenbrock?"],
    "problem=beale data=digits": [
        "model: beale is a function to minimise, which has data=point and loss.name=output; found digits and output; "
        "leave both to problem=beale"
    ],
    "problem=beale model.start=[1]": ["model.start: found 1 numbers, expected two, e.g. [-1.5,2]"],
    "problem=beale model.start=[1,nan]": [
        "model.start: found [1,nan], expected a list of numbers; it must be finite",
    ],
    "data=point": [
        "model: data=point and loss.name=output are for functions to minimise; choose one with problem=NAME, or "
        "another data set and loss.name=auto"
    ],
}


@pytest.mark.parametrize("line", MISTAKES)
def test_each_mistake_in_words(cli: Cli, line: str) -> None:
    code, _, err = cli(f"{line} hydra.run.dir=out")
    assert code == 2
    assert [said.strip() for said in err.splitlines()[1:]] == MISTAKES[line]


# ------------------------------------------------------------------ a line


@pytest.mark.parametrize(
    "normalisation", ["standard", *(pytest.param(name, marks=pytest.mark.slow) for name in ("none", "unit"))]
)
def test_a_line_is_recovered_whatever_the_inputs_scale(tmp_path: Path, normalisation: str) -> None:
    values = {"data.noise": 0.0, "data.normalisation": normalisation, "epochs": 150, "optimizer.lr": 0.1}
    config = make_config("experiment=linear_regression", "optimizer=sgd", **values)
    (directory,) = record([config], tmp_path, data.load(config.data))
    found = json.loads((directory / "summary.json").read_text())["recovered"]
    assert found == {
        "slope": {"true": 2.0, "found": pytest.approx(2, abs=1e-3)},
        "intercept": {"true": 1.0, "found": pytest.approx(1, abs=1e-3)},
    }


def test_a_run_on_a_line_ends_with_slope_and_intercept(cli: Cli) -> None:
    code, out, _ = cli("experiment=linear_regression hydra.run.dir=out")
    assert code == 0
    found = dict(re.findall(r"^(slope|intercept) +true [\d.]+, found ([\d.]+)$", out, re.MULTILINE))
    assert {key: float(value) for key, value in found.items()} == pytest.approx({"slope": 2, "intercept": 1}, abs=0.15)


def test_nothing_is_recovered_where_no_truth_is_known() -> None:
    deep = make_config("data=line", **{"model.depth": 1, "model.width": 1})
    state = {"layers.0.weight": torch.ones(1, 1), "layers.0.bias": torch.ones(1), "layers.1.weight": torch.ones(1, 1)}
    assert recovered(deep, state, 0.0, 1.0) == {}
    assert recovered(make_config(), {"layers.0.weight": torch.ones(64, 64)}, 0.0, 1.0) == {}
    with pytest.raises(ConfigError):
        make_config(**{"loss.name": "output"})
    assert small_data("line").classes is None
