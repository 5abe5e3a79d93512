"""A function of the user's own to minimise: its paths, alone and stacked, its picture, every mistake in words."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import HEAD, Cli, check_kill, make_config, record, rows, run, summary
from trainer.cli.trust import check_code
from trainer.config import Config, ConfigError
from trainer.core import data
from trainer.core.own_function import OwnFunction
from trainer.core.stack import Stack
from trainer.engine.planning import stack_key
from trainer.record import trajectories

pytestmark = pytest.mark.slow

FUNCTIONS = """
import math
import torch

def valley(x, y):
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2

def roof(x, y):
    if x > 0:
        return x**2 + y**2
    return y**2 - 3 * x

def bowl(*point):
    return torch.stack(point).square().sum()

def doubled(x, y):
    while x < 8:
        x = x * 2
    return (x - y) ** 2

def edge(x, y):
    if x < 0.5:
        raise ValueError("too far")
    return x**2 + y**2

def flat(x, y):
    return 0 * x + 3

class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        return grad / 2

def halved(x, y):
    return Halved.apply(x * x) + y * y

def drawn(x, y):
    return x * torch.rand(()) + y

def detached(x, y):
    return (x * y).detach()

def python(x, y):
    return math.sin(x.item()) + y.item()

def number(x, y):
    return 3.0

def vector(x, y):
    return torch.stack([x, y])

def log(x, y):
    return torch.log(x) + y

def root(x, y):
    return torch.sqrt(x - x) + y

def broken(x, y):
    return x @ y

def overwritten(x, y):
    z = x.exp()
    z += 1
    return z * y

def one(x):
    return x**2

class Thing:
    pass
"""
FILE = "own_functions.py"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / FILE).write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_functions", raising=False)
    return tmp_path


def own(name: str, *choices: str, start: Any = (1.0, 2.0), **values: Any) -> Config:
    values = {"model.function": f"own_functions.{name}", "model.start": list(start)} | values
    return make_config("problem=custom", *choices, **values)


def paths(configs: list[Config]) -> list[np.ndarray]:
    """(S, 2) of every member, in float64."""
    log = run(configs, data.load(configs[0].data, dtype=torch.float64))
    return [np.array([(row["point/x"], row["point/y"], row["eval/train_loss"]) for row in rows]) for rows in log.rows]


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_the_users_own_valley_is_rosenbrocks(optimizer: str) -> None:
    values = {"epochs": 30, "optimizer.lr": 0.001}
    ours = make_config("problem=rosenbrock", f"optimizer={optimizer}", **values)
    theirs = own("valley", f"optimizer={optimizer}", start=(-1.5, 2.0), **values)
    np.testing.assert_allclose(paths([theirs])[0], paths([ours])[0], rtol=1e-12)


def test_branches_are_chosen_by_each_point() -> None:
    starts = [(1.0, 1.0), (-0.5, 1.0), (0.2, -1.0)]
    found = paths([own("roof", "optimizer=sgd", start=start, epochs=80) for start in starts])
    for (x, y), path in zip(starts, found, strict=True):
        x, y = float(np.float32(x)), float(np.float32(y))  # the start is kept in float32
        for row in path:
            x, y = x - 0.01 * (2 * x if x > 0 else -3), y - 0.01 * 2 * y
            assert row == pytest.approx((x, y, x * x + y * y if x > 0 else y * y - 3 * x), abs=1e-12)


@pytest.mark.parametrize(("name", "at_once"), [("valley", True), ("bowl", True), ("roof", False), ("halved", False)])
def test_alone_and_in_a_stack_the_same_run(name: str, at_once: bool) -> None:
    names = ("sgd", "adam", "rmsprop", "nadam")
    configs = [
        own(name, f"optimizer={optimizer}", start=(0.3 + i, 1.0 - i), epochs=10 + 5 * i, **{"optimizer.lr": 1e-3})
        for i, optimizer in enumerate(names)
    ]
    stack = Stack(configs, data.load(configs[0].data, dtype=torch.float64))
    assert stack.model.together is at_once  # type: ignore[union-attr]
    for config, path in zip(configs, paths(configs), strict=True):
        np.testing.assert_allclose(path, paths([config])[0], rtol=1e-9)


def test_only_points_of_one_function_and_size_share_a_stack() -> None:
    keys = [stack_key(own(*case)) for case in [("valley",), ("roof",)]]
    keys += [stack_key(own("bowl", start=start)) for start in [(1.0, 2.0), (1.0, 2.0, 3.0)]]
    assert len(set(keys)) == 4
    assert stack_key(own("valley", start=(5.0, 5.0))) == keys[0]


def test_any_number_of_coordinates(tmp_path: Path) -> None:
    config = own("bowl", "optimizer=sgd", start=(1.0, 2.0, 3.0), epochs=2)
    (directory,) = record([config], tmp_path / "out", data.load(config.data))
    last = rows(directory)[-1]
    assert [last[f"point/x{i}"] for i in (1, 2, 3)] == pytest.approx([0.98**2 * i for i in (1, 2, 3)], rel=1e-6)
    assert "path" not in str(summary(directory)["files"])


def test_what_a_run_leaves(tmp_path: Path) -> None:
    config = own("valley", epochs=5)
    (directory,) = record([config], tmp_path / "out", data.load(config.data))
    found = summary(directory)
    assert found["recovered"] == {}  # nobody knows the minimum
    assert set(found["provenance"]["code"]) == {"results", "torch", "numpy", "own_functions"}
    assert b"path" in b"".join(path.read_bytes() for path in directory.glob("events*"))


@pytest.mark.slow
def test_a_sweep_of_optimizers_draws_its_paths(cli: Cli, tmp_path: Path) -> None:
    line = "-m problem=custom model.function=own_functions.valley,own_functions.roof model.start=[2,1] epochs=20"
    code, out, err = cli(f"{line} optimizer=sgd,adam,rmsprop optimizer.lr=0.001 hydra.sweep.dir=out")
    assert (code, err) == (0, "")
    for name in ("valley", "roof"):
        assert f"picture   out/paths_own_functions.{name}.png" in out
        with Image.open(tmp_path / f"out/paths_own_functions.{name}.png") as image:
            assert image.size == (trajectories.WIDTH, trajectories.HEIGHT)
    assert "true" not in out


def test_one_bad_start_harms_no_other(cli: Cli) -> None:
    line = "-m problem=custom model.function=own_functions.edge model.start=[0.6,1],[50,1],[0.1,1] optimizer=sgd"
    code, out, _ = cli(f"{line} epochs=40 hydra.sweep.dir=out")
    assert code == 1
    assert [summary(Path("out") / str(n))["status"] for n in range(3)] == ["failed", "completed", "failed"]
    assert "1 of 3 runs completed" in out
    assert "own_functions.edge fails at (0.1, 1): ValueError: too far (" in out


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits(folder: Path) -> None:
    (folder / FILE).write_text(FUNCTIONS + "\ndef slow(x, y):\n    import os, time\n"
        "    time.sleep(float(os.environ.get('SLOW', 0)))\n    return roof(x, y)\n")  # fmt: skip
    line = ["problem=custom", "model.function=own_functions.slow", "checkpoint.epochs=1", "record.pictures=false"]
    check_kill(folder, "-m", *line, "epochs=8", "model.start=[2,1],[-1,1]", "optimizer=sgd,adam")


def test_another_source_is_another_run(cli: Cli, folder: Path) -> None:
    line = "problem=custom model.function=own_functions.valley model.start=[2,1] epochs=2 hydra.run.dir=out"
    assert cli(line)[0] == 0
    assert "done before" in cli(line)[1]
    (folder / FILE).write_text(FUNCTIONS.replace("100 *", "10 *"))
    code, _, err = cli(line)
    assert code == 2
    assert "was finished with other code or data: own_functions was " in err


def test_code_that_lies_in_a_resumed_directory_is_not_called(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "theirs.py").write_text("open('called', 'w')\ndef f(x, y): return x * y\n")
    config = own("valley", **{"model.function": "run.theirs.f"})
    with pytest.raises(ConfigError, match=r"model\.function=run\.theirs\.f, which is code that lies in this directory"):
        check_code(Path("run"), [config])
    check_code(Path("run"), [config], ["model.function=run.theirs.f"])  # typed again
    assert not os.path.exists("called")


# ------------------------------------------------------------------ the picture


def test_heights_are_the_functions_and_nothing_where_it_fails() -> None:
    x, y = np.linspace(-1, 2, 7)[None, :], np.linspace(-1, 1, 5)[:, None]
    for name, expected in {
        "valley": (1 - x) ** 2 + 100 * (y - x**2) ** 2,  # in one call
        "roof": np.where(x > 0, x**2 + y**2, y**2 - 3 * x),  # point by point
        "edge": np.where(x < 0.5, np.nan, x**2 + y**2),
        "flat": np.full((5, 7), 3.0),
    }.items():
        np.testing.assert_allclose(OwnFunction(f"own_functions.{name}", 2).on_arrays(x, y), expected, atol=1e-12)


@pytest.mark.slow
def test_a_loop_without_an_end_outside_the_paths_ends_with_no_heights() -> None:
    """x * 2 never reaches 8 from below zero."""
    function = OwnFunction("own_functions.doubled", 2)
    np.testing.assert_array_equal(function.on_arrays([1.0, 5.0], 2.0), [(8 - 2.0) ** 2, (10 - 2.0) ** 2])
    assert np.isnan(function.on_arrays([1.0, -1.0], 2.0)).all()
    assert sys.gettrace() is None


def test_the_window_follows_the_paths_down() -> None:
    """A path from (100, 50) to (101, 52), and one that leaves upwards: the first one fills the picture."""
    model = own("bowl").model
    ways = {
        "down": np.array([(104.0, 52.0), (100.0, 50.0)]),
        "up": np.array([(104.0, 50.0), (1e6, 1e6)]),
    }
    png = trajectories.draw(trajectories.problem(model), ways)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(png.data)) as image:
        pixels = np.asarray(image.convert("RGB"))[:, : int(0.8 * png.width)]
    colour = [int(trajectories.COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
    columns = np.flatnonzero((pixels == colour).all(2).any(0))
    assert 0.5 * png.width < columns.max() - columns.min() < 0.8 * png.width
    yellow = [int(trajectories.YELLOW[i : i + 2], 16) for i in (1, 3, 5)]
    assert not (pixels == yellow).all(2).any()  # nobody knows a minimum


@pytest.mark.parametrize("name", ["valley", "roof", "edge", "flat"])
@pytest.mark.parametrize("way", [[[1.0, 1.0]], [[2.0, 1.0], [1.0, 1.0], [np.nan, 0.0]], [[np.nan, 0.0]]])
def test_any_function_and_path_can_be_drawn(name: str, way: list[list[float]]) -> None:
    png = trajectories.draw(trajectories.problem(own(name).model), {"a": np.array(way)}, card=True)  # type: ignore[arg-type]
    assert (png.width, png.height) == trajectories.CARD


# ------------------------------------------------------------------ mistakes

LINES = {name: 1 + FUNCTIONS[: FUNCTIONS.index(f"def {name}(")].count("\n") for name in (
    "drawn", "detached", "python", "number", "vector", "log", "root", "broken", "overwritten", "one")}  # fmt: skip
KIND = "expected a function of your own that computes a number from its coordinates, e.g. my.f"
MISTAKES = {
    "absent": "cannot import own_functions.absent: AttributeError: module 'own_functions' has no attribute "
    "'absent'; expected module.function",
    "Thing": f"own_functions.Thing is a class; {KIND}",
    "math": f"own_functions.math is a value, module; {KIND}",
    "detached": "own_functions.detached gives a constant at (1, 2), no derivative leads back to its input; is there a "
    "detach, no_grad, item(), or a function of math or numpy on its way?",
    "python": "own_functions.python gives float, expected a tensor that torch computed from its input",
    "number": "own_functions.number gives float, expected a tensor that torch computed from its input",
    "vector": "own_functions.vector gives a tensor, float32 of shape (2,), expected one number, of shape (); python -m "
    "trainer.trace shows a vector's Jacobian: problem=custom model.function=own_functions.vector",
    "log": "own_functions.log is nan at the start, (-1, 2)",
    "root": "own_functions.root has the gradient (nan, 1) at the start, (1, 2)",
    "broken": "own_functions.broken fails at (1, 2): RuntimeError: both arguments to matmul need to be at least 1D, "
    "but they are 0D and 0D",
    "drawn": "own_functions.drawn differs from call to call at the start, (1, 2): ",
    "overwritten": "the backward pass of own_functions.overwritten ",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_has_one_line(name: str, cli: Cli, folder: Path) -> None:
    start = "[-1,2]" if name == "log" else "[1,2]"
    code, _, err = cli(f"problem=custom model.function=own_functions.{name} model.start={start} hydra.run.dir=out")
    assert code == 2
    head, line = err.splitlines()
    assert head == f"trainer: 1 problem; {HEAD}"
    assert line.strip().startswith(f"model.function: {MISTAKES[name]}")
    if name in LINES:
        where = LINES[name] + (1 if name == "broken" else 0)
        assert f"({folder / FILE}, line {where})" in line
    assert not list(folder.glob("out/*.csv"))


TYPED = {
    "model.function=rosen": "model.function: found rosen, expected one of quadratic, rosenbrock, beale, saddle, or one "
    "of your own as module.function, e.g. my.f",
    "model.function=own_functions.one": "model.start: found 2 numbers, one for each argument of own_functions.one(x): "
    "too many positional arguments",
    "model.function=math.hypot": f"model.function: math.hypot is of Python's standard library; {KIND}",
    "model.function=own_functions.valley model.start=[]": "model.start: found 0 numbers, expected one for each "
    "coordinate, e.g. [-1.5,2]",
    "model.function=own_functions.valley data=digits": "model: own_functions.valley is a function to minimise, which "
    "has data=point and loss.name=output; found digits and output; leave both to problem=custom",
    "": "model.function: missing; give it a value, model.function=VALUE (quadratic, rosenbrock, beale, saddle, or the "
    "dotted path of one of your own, e.g. my.f)",
}


@pytest.mark.parametrize("line", TYPED)
def test_what_was_typed_wrong(line: str, cli: Cli) -> None:
    code, _, err = cli(f"problem=custom model.start=[1,2] {line} hydra.run.dir=out")
    assert code == 2
    (said,) = err.splitlines()[1:]
    assert said.strip().startswith(TYPED[line])


def test_a_run_that_fails_on_its_way_keeps_what_it_recorded(cli: Cli) -> None:
    line = "problem=custom model.function=own_functions.edge model.start=[0.6,1] optimizer=sgd epochs=40"
    code, _, err = cli(f"{line} checkpoint.epochs=1 hydra.run.dir=out")
    assert code == 2
    assert "the run stopped; what it had recorded is in " in err
    assert json.loads(Path("out/summary.json").read_text())["status"] == "failed"
    assert rows(Path("out"))
