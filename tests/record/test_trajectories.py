"""The picture of paths: what is drawn stands where it should, in colours of its own, and nothing cannot be drawn."""

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from trainer.core.surfaces import FUNCTIONS
from trainer.record import trajectories
from trainer.record.pictures import Png


def where(png: Png, colour: str) -> np.ndarray:
    """(row, column) of every pixel of a colour, (N, 2), the legend at the right left out."""
    pixels = np.asarray(Image.open(io.BytesIO(png.data)).convert("RGB"))
    assert pixels.shape == (png.height, png.width, 3)
    found = np.argwhere((pixels == ImageColor.getrgb(colour)).all(2))
    return found[found[:, 1] < 0.8 * png.width]


def test_paths_stand_where_they_are() -> None:
    """A path along a rectangle shows the scale; a second one, in its middle, is measured by it."""
    problem = FUNCTIONS["quadratic"]
    left, bottom, right, top = 0.0, -1.0, 5.0, 3.0
    around = np.array([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)])
    up = np.array([(1.25, 0.0), (1.25, 2.0)])
    png = trajectories.draw(problem, {"around": around, "up": up})
    (y0, x0), (y1, x1) = where(png, trajectories.COLOURS[0]).min(0), where(png, trajectories.COLOURS[0]).max(0)
    line = where(png, trajectories.COLOURS[1])
    column = x0 + (x1 - x0) * (1.25 - left) / (right - left)
    end = y1 + (y0 - y1) * (2.0 - bottom) / (top - bottom)
    marker = 7  # pixels around its end, and the rectangle's line is a few wide
    assert np.abs(line[:, 1] - column).max() <= marker
    assert line[:, 0].min() == pytest.approx(end, abs=marker)


def test_each_path_has_a_colour() -> None:
    ways = {f"run {i}": np.array([[0.2 * i, 0.0], [0.2 * i, 1.0]]) for i in range(3)}
    png = trajectories.draw(FUNCTIONS["rosenbrock"], ways)
    assert [len(where(png, colour)) > 50 for colour in trajectories.COLOURS[:4]] == [True] * 3 + [False]


def test_of_many_paths_the_lowest_are_drawn() -> None:
    ways = {"low": np.array([[0.9, 0.9]]), "high": np.array([[-2.0, 3.0]]), "overflows": np.array([[1e300, 0.0]])}
    alone = trajectories.draw(FUNCTIONS["rosenbrock"], {"low": ways["low"]}, most=1)
    of_three = trajectories.draw(FUNCTIONS["rosenbrock"], ways, most=1)
    colour = trajectories.COLOURS[0]
    np.testing.assert_array_equal(where(alone, colour), where(of_three, colour))


@pytest.mark.parametrize("card", [False, True])
@pytest.mark.parametrize(
    "ways",
    [
        {},
        {"nan at once": [[math.nan, 0.0]]},
        {"far away": [[0.0, 0.0], [1e300, -1e300], [math.inf, 0.0]]},
        {"stays": [[0.5, 0.5]]},
        {f"run {i}": [[i / 10, 0.0], [1.0, 1.0]] for i in range(40)},
        {"a name that is longer than the margin has room for": [[0.0, 0.0], [1.0, 1.0]]},
        {"my.Adam lr=${x} $": [[0.0, 0.0], [1.0, 1.0]]},
    ],
)
def test_any_paths_can_be_drawn(ways: dict[str, Any], card: bool) -> None:
    png = trajectories.draw(FUNCTIONS["saddle"], {name: np.array(way) for name, way in ways.items()}, card=card)
    image = Image.open(io.BytesIO(png.data))
    assert image.size == (png.width, png.height) == (trajectories.CARD if card else (1000, 680))


def test_the_same_paths_give_the_same_bytes() -> None:
    ways = {"a": np.array([[0.0, 0.0], [1.0, 1.0]])}
    assert trajectories.draw(FUNCTIONS["beale"], ways) == trajectories.draw(FUNCTIONS["beale"], ways)
