"""Functions of two variables that optimizers are shown on: their equations, minima and where to look. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]


@dataclass(frozen=True)
class PlaneFunction:
    """A function f(x, y) >= lowest, its minima, and the part of the plane to draw: (x, y) of two corners.

    Of a user's own function nobody knows where it is lowest: it has no minima, and its window follows the paths.
    `value` takes numbers, arrays or tensors alike; grid: how many points along an axis a picture asks for.
    """

    equation: str
    value: Callable[[Any, Any], Any]
    minima: tuple[Point, ...]
    lowest: float | None
    window: tuple[Point, Point] | None
    grid: int = 400

    def nearest(self, x: float, y: float) -> Point:
        """The minimum that is nearest to a point."""
        return min(self.minima, key=lambda minimum: (minimum[0] - x) ** 2 + (minimum[1] - y) ** 2)


def coordinates(count: int) -> list[str]:
    """Names of a point's coordinates."""
    return ["x", "y"][:count] if count <= 2 else [f"x{i + 1}" for i in range(count)]


FUNCTIONS = {
    "quadratic": PlaneFunction(
        "f(x, y) = (x - 3)^2 + (y - 2)^2",
        lambda x, y: (x - 3) ** 2 + (y - 2) ** 2,
        minima=((3.0, 2.0),),
        lowest=0.0,
        window=((-1.5, -1.5), (5.5, 4.0)),
    ),
    # Rosenbrock 1960, "An automatic method for finding the greatest or least value of a function", section 4
    "rosenbrock": PlaneFunction(
        "f(x, y) = (1 - x)^2 + 100 (y - x^2)^2",
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        minima=((1.0, 1.0),),
        lowest=0.0,
        window=((-2.0, -1.0), (2.0, 3.0)),
    ),
    # Beale 1958, "On an iterative method for finding a local minimum of a function of more than one variable"
    "beale": PlaneFunction(
        "f(x, y) = (1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2",
        lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
        minima=((3.0, 0.5),),
        lowest=0.0,
        window=((-0.5, -1.5), (4.5, 2.0)),
    ),
    # a saddle at (0, 0) between two minima: the gradient vanishes where nothing is lowest
    "saddle": PlaneFunction(
        "f(x, y) = x^2 - y^2 + y^4 / 2",
        lambda x, y: x**2 - y**2 + y**4 / 2,
        minima=((0.0, 1.0), (0.0, -1.0)),
        lowest=-0.5,
        window=((-2.0, -1.7), (2.0, 1.7)),
    ),
}
