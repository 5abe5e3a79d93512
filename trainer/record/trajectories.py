"""Draws the paths of optimizers over the contours of a function of two variables. No torch; matplotlib on first use."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.config import Surface
from trainer.core.surfaces import FUNCTIONS, PlaneFunction, Point
from trainer.record.pictures import Png
from trainer.text import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 1000, 680  # pixels
CARD = (350, 340)  # pixels: TensorBoard's cards are that wide, and leave out columns of what is wider
DPI = 100
MOST = 12  # paths: as many as find room in the legend
# Okabe and Ito 2008, "Color Universal Design": told apart with any colour vision. Their yellow is left to the minimum.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
YELLOW, INK, GREY, PAPER, VALLEY, HEIGHTS = "#F0E442", "#1F2937", "#4B5563", "#FFFFFF", "#B4BBC6", "#FCFCFB"
DASHES = ("-", (0, (3, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))  # beside seven colours: no two paths look alike
MARKERS = "os^DvPX"
THIN, THICKER, THICKEST = 2.0, 1.2, 2  # points: a path under n others is n * THICKER wider, at most for THICKEST
BANDS = 16  # contours
POINTS = 200  # of a path that are asked for their height
DEEPEST = 1e-4  # of the highest value: contours go no deeper


def draw(problem: PlaneFunction, paths: Mapping[str, np.ndarray], most: int = MOST, card: bool = False) -> Png:
    """Draw paths (S, 2) of points, by name, from a start to wherever they end; of many, those that end lowest.

    A path ends where it is no longer finite; the legend gives the value there. `card`: small, for TensorBoard.
    """
    from matplotlib.figure import Figure

    finite = {name: _finite(np.asarray(path, float)) for name, path in paths.items()}
    ends = {name: _value(problem, path[-1]) for name, path in finite.items() if len(path)}
    lowest = sorted(ends, key=lambda name: ends[name])[:most]
    shown = {name: path for name, path in finite.items() if name in lowest}
    width, height = CARD if card else (WIDTH, HEIGHT)
    figure = Figure((width / DPI, height / DPI), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot()
    window = _window(problem, list(shown.values()))
    _draw_contours(axes, problem, window)
    _draw_paths(axes, shown, ends, window, 5 if card else 8)
    star, ring = (11, 5) if card else (20, 9)
    if problem.minima:
        axes.plot(*np.transpose(problem.minima), "*", ms=star, mfc=YELLOW, mec=INK, label="minimum", zorder=4)
    if shown:
        starts = np.transpose([path[0] for path in shown.values()])
        axes.plot(*starts, "o", ms=ring, mfc=PAPER, mec=INK, mew=1.5, label="start", zorder=5)
    said = f"{max((len(path) for path in shown.values()), default=1) - 1} steps"
    said += f"; the best {most} of {len(paths)}" if len(paths) > most else ""
    lowest = "lowest value" if problem.lowest is not None else "lowest value here"
    _label(figure, axes, "" if card else f"${problem.equation}$", said, lowest)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Png(buffer.getvalue(), width, height)


def problem(model: Surface) -> PlaneFunction:
    """Return the function of two variables that a configuration names. Raises ConfigError where it cannot be found."""
    if not model.is_own:
        return FUNCTIONS[model.function]
    from trainer.core import own_function  # torch, which the command of a sweep does without

    return own_function.plane(model.function)


def points(start: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """A run's path (S, 2) from its rows of metrics, one per step."""
    return np.array([start, *([float(row["point/x"]), float(row["point/y"])] for row in rows)])


def _finite(path: np.ndarray) -> np.ndarray:
    """The path up to its first point that is not a number."""
    bad = np.flatnonzero(~np.isfinite(path).all(1))
    return path[: bad[0]] if len(bad) else path


def _value(problem: PlaneFunction, point: np.ndarray) -> float:
    """f, infinite where it overflows."""
    with np.errstate(all="ignore"):
        value = float(problem.value(*point))
    return value if math.isfinite(value) else math.inf


def _window(problem: PlaneFunction, paths: Sequence[np.ndarray]) -> tuple[Point, Point]:
    """The problem's own window, widened by at most half of it for paths that leave it."""
    if problem.window is None:
        return _around(problem, paths)
    corners = np.array(problem.window)
    size = corners[1] - corners[0]
    points = np.concatenate([corners.mean(0, keepdims=True), *paths])
    low = np.clip(points.min(0) - 0.03 * size, corners[0] - size / 2, corners[0])
    high = np.clip(points.max(0) + 0.03 * size, corners[1], corners[1] + size / 2)
    return (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))


def _around(problem: PlaneFunction, paths: Sequence[np.ndarray]) -> tuple[Point, Point]:
    """A window around the paths as far as they are no higher than where they began, no side below a third of another.

    Where a path climbs it is on its way out of every window.
    """
    near = [np.zeros((1, 2))] if not paths else []
    for path in paths:
        some = path[:: 1 + len(path) // POINTS]
        height = problem.value(some[:, 0], some[:, 1])
        near.append(some[~(height > height[0])])
    points = np.concatenate(near)
    low, high = points.min(0), points.max(0)
    longest = (high - low).max() or 1.0
    half = np.maximum(0.6 * (high - low), longest / 5)
    (x0, y0), (x1, y1) = (low + high) / 2 - half, (low + high) / 2 + half
    return (float(x0), float(y0)), (float(x1), float(y1))


def _draw_contours(axes: Axes, problem: PlaneFunction, window: tuple[Point, Point]) -> None:
    """Bands of equal steps in log(f - lowest), darker where it is lower, with a line between two bands.

    Where nobody knows the lowest value it is that of the window. Where f is not finite the paper stays white.
    """
    from matplotlib.colors import LinearSegmentedColormap

    (x0, y0), (x1, y1) = window
    axes.set(xlim=(x0, x1), ylim=(y0, y1))
    x, y = np.linspace(x0, x1, problem.grid), np.linspace(y0, y1, problem.grid)
    height = np.ma.masked_invalid(problem.value(x[None, :], y[:, None]))
    if height.count() == 0:
        return
    height = height - (height.min() if problem.lowest is None else problem.lowest)
    top = float(height.max()) or 1.0
    depth = np.log10(np.maximum(height, DEEPEST * top) / top)
    levels = np.linspace(np.log10(DEEPEST), 0, BANDS + 1)
    axes.contourf(x, y, depth, levels, cmap=LinearSegmentedColormap.from_list("", [VALLEY, HEIGHTS]))
    axes.contour(x, y, depth, levels, colors="#9AA3AF", linestyles="-", linewidths=0.5)


def _draw_paths(
    axes: Axes, paths: Mapping[str, np.ndarray], ends: Mapping[str, float], window: tuple[Point, Point], end_size: float
) -> None:
    """Each path in a colour and dashes of its own, lower ones wider, so that all are seen where they coincide."""
    corners = np.array(window)
    size = corners[1] - corners[0]
    for i, (name, path) in enumerate(paths.items()):
        path = np.clip(path, corners[0] - 9 * size, corners[1] + 9 * size)  # matplotlib overflows far outside
        width = THIN + THICKER * min(len(paths) - 1 - i, THICKEST)
        style = {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i % len(DASHES)], "lw": width}
        label = cut(name, 26).replace("$", r"\$") + f"\nf = {ends[name]:.3g}"
        axes.plot(*path.T, color=PAPER, lw=width + 2, zorder=2)
        axes.plot(*path.T, **style, zorder=3)
        axes.plot(*path[-1], **style, marker=MARKERS[i % len(MARKERS)], ms=end_size, mec=PAPER, label=label, zorder=6)


def _label(figure: Figure, axes: Axes, equation: str, said: str, lowest: str) -> None:
    """Axes, title and legend: beside the plot, or below that of a card, which has no equation."""
    card = not equation
    axes.tick_params(labelsize=7 if card else 10, colors=INK)
    axes.set_xlabel("x", fontsize=8 if card else 11)
    axes.set_ylabel("y", fontsize=8 if card else 11, rotation=0)
    if card:
        axes.set_title(said, fontsize=9, color=INK, loc="left")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    else:
        said += f"; contours at equal ratios of f above its {lowest}"
        axes.set_title(f"{equation}\n", fontsize=13, color=INK, loc="left")
        axes.text(0, 1.02, said, transform=axes.transAxes, fontsize=10, color=GREY)
        figure.legend(loc="outside right upper", fontsize=10, frameon=False, labelspacing=0.9, handlelength=4)
