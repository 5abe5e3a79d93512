"""The picture of optimizers on their way downhill: paths over the contours of a function of two variables. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.core.surfaces import Point, Problem
from trainer.record.pictures import INK, PAPER, Colour, Png, encode

WIDTH, HEIGHT = 1000, 680
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 76, 44  # margins; the names stand in the right one
FINE = 2  # drawn this many times larger, then scaled down: smooth lines
BANDS = 16  # contours
DEEPEST = 1e-4  # of the highest value: contours go no deeper
LOW, HIGH, CONTOUR = (176, 208, 230), (251, 251, 249), (148, 170, 190)
GREY = (107, 114, 128)
COLOURS = (
    (37, 99, 235), (220, 38, 38), (22, 163, 74), (217, 119, 6), (124, 58, 237), (13, 148, 136), (219, 39, 119),
    (101, 67, 33),
)  # fmt: skip
LABEL_HEIGHT = 34
THIN, THICKER, THICKEST = 2.0, 1.6, 4  # pixels: a path under n others is n * THICKER wider, at most for THICKEST
MOST = (HEIGHT - TOP - BOTTOM) // LABEL_HEIGHT  # paths whose names find room


def draw(problem: Problem, paths: Mapping[str, np.ndarray], most: int = MOST) -> Png:
    """Paths (S, 2) of points, by name, from a start to wherever they came; of many, those that end lowest.

    A path ends where it is no longer finite. Each name stands at the height of its path's end, with the value there.
    """
    finite = {name: _finite(np.asarray(path, float)) for name, path in paths.items()}
    with np.errstate(over="ignore"):
        ends = {name: float(problem.value(*path[-1])) for name, path in finite.items() if len(path)}
    shown = sorted(ends, key=lambda name: ends[name])[:most]
    colours = dict(zip((name for name in paths if name in shown), itertools.cycle(COLOURS), strict=False))
    window = _window(problem, [finite[name] for name in shown])
    frame = _Frame(window)
    image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), PAPER)
    plot = _contours(problem, window)
    over = ImageDraw.Draw(plot)
    lines = {name: [frame.inside(point) for point in finite[name].tolist()] for name in shown}
    for line in lines.values():
        over.line(line, PAPER, round(FINE * (2 * THIN + _width(0, len(lines)))), joint="curve")
    for i, (name, line) in enumerate(lines.items()):
        over.line(line, colours[name], round(FINE * _width(i, len(lines))), joint="curve")
    for name, line in lines.items():
        _dot(over, line[-1], 5.5, colours[name], PAPER)
    for minimum in problem.minima:
        _star(over, frame.inside(minimum))
    if shown:
        _ring(over, frame.inside(tuple(finite[shown[0]][0])))
    image.paste(plot, (LEFT * FINE, TOP * FINE))
    pen = ImageDraw.Draw(image)
    _axes(pen, frame)
    steps = max((len(finite[name]) - 1 for name in shown), default=0)
    pen.text((LEFT * FINE, 14 * FINE), problem.equation, INK, _font(19))
    said = f"{steps} steps from the ring; the star is the minimum; contours at equal ratios of f above its lowest value"
    said += f"; the best {most} of {len(paths)}" if len(paths) > most else ""
    pen.text((LEFT * FINE, 44 * FINE), said, GREY, _font(13))
    _labels(pen, [(name, ends[name], frame.outside(finite[name][-1].tolist()), colours[name]) for name in shown])
    return encode(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def points(start: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """A run's path (S, 2) out of its rows of metrics, one a step."""
    return np.array([start, *([float(row["point/x"]), float(row["point/y"])] for row in rows)])


def _finite(path: np.ndarray) -> np.ndarray:
    """The path up to its first point that is not a number."""
    bad = np.flatnonzero(~np.isfinite(path).all(1))
    return path[: bad[0]] if len(bad) else path


class _Frame:
    """From the plane to pixels of the fine picture."""

    def __init__(self, window: tuple[Point, Point]) -> None:
        (self.x0, self.y0), (self.x1, self.y1) = window
        self.width, self.height = (WIDTH - LEFT - RIGHT) * FINE, (HEIGHT - TOP - BOTTOM) * FINE

    def inside(self, point: Sequence[float]) -> Point:
        """In the plot; far outside of it no further than a few pictures away."""
        x = (point[0] - self.x0) / (self.x1 - self.x0) * self.width
        y = (self.y1 - point[1]) / (self.y1 - self.y0) * self.height
        return min(max(x, -5e4), 5e4), min(max(y, -5e4), 5e4)

    def outside(self, point: Sequence[float]) -> Point:
        """In the whole picture, at the edge of the plot where it is beyond."""
        x, y = self.inside(point)
        return LEFT * FINE + min(max(x, 0), self.width), TOP * FINE + min(max(y, 0), self.height)


def _window(problem: Problem, paths: Sequence[np.ndarray]) -> tuple[Point, Point]:
    """The problem's own, widened by at most half of it for paths that leave it."""
    corners = np.array(problem.window)
    size = corners[1] - corners[0]
    points = np.concatenate([corners.mean(0, keepdims=True), *paths])
    low = np.clip(points.min(0) - 0.03 * size, corners[0] - size / 2, corners[0])
    high = np.clip(points.max(0) + 0.03 * size, corners[1], corners[1] + size / 2)
    return (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))


def _contours(problem: Problem, window: tuple[Point, Point]) -> Image.Image:
    """Bands of equal steps in log(f - lowest), darker where it is lower, with a line between two bands."""
    frame = _Frame(window)
    x = np.linspace(frame.x0, frame.x1, frame.width)
    y = np.linspace(frame.y1, frame.y0, frame.height)
    height = problem.value(x[None, :], y[:, None]) - problem.lowest
    top = float(np.max(height))
    depth = np.log(np.maximum(height, DEEPEST * top) / (DEEPEST * top)) / -math.log(DEEPEST)  # 0 lowest, 1 highest
    band = np.minimum((depth * BANDS).astype(int), BANDS - 1)
    share = (band / (BANDS - 1))[..., None]
    colours = np.array(LOW) + (np.array(HIGH) - np.array(LOW)) * share
    edge = np.zeros(band.shape, bool)
    edge[1:] |= band[1:] != band[:-1]
    edge[:, 1:] |= band[:, 1:] != band[:, :-1]
    edge[:-1] |= edge[1:]  # two fine pixels wide
    colours[edge] = CONTOUR
    return Image.fromarray(colours.astype(np.uint8))


def _width(i: int, count: int) -> float:
    """Of the i-th path drawn, in pixels: those below are wider, so that all are seen where they run together."""
    return THIN + THICKER * min(count - 1 - i, THICKEST)


def _dot(pen: ImageDraw.ImageDraw, at: Point, radius: float, fill: Colour, rim: Colour) -> None:
    (x, y), r = at, radius * FINE
    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=rim, width=2 * FINE)


def _ring(pen: ImageDraw.ImageDraw, at: Point) -> None:
    _dot(pen, at, 8, PAPER, PAPER)
    _dot(pen, at, 7, PAPER, INK)


def _star(pen: ImageDraw.ImageDraw, at: Point) -> None:
    radii = (11, 4.6)
    turns = [(radii[i % 2] * FINE, math.pi * i / 5) for i in range(10)]
    points = [(at[0] + r * math.sin(t), at[1] - r * math.cos(t)) for r, t in turns]
    pen.polygon(points, fill=(250, 204, 21), outline=INK, width=FINE)


def _axes(pen: ImageDraw.ImageDraw, frame: _Frame) -> None:
    left, top, right, bottom = LEFT * FINE, TOP * FINE, LEFT * FINE + frame.width, TOP * FINE + frame.height
    pen.rectangle((left, top, right, bottom), outline=GREY, width=FINE)
    for value in _ticks(frame.x0, frame.x1):
        x = left + (value - frame.x0) / (frame.x1 - frame.x0) * frame.width
        pen.line((x, bottom, x, bottom + 5 * FINE), GREY, FINE)
        pen.text((x, bottom + 8 * FINE), f"{value:g}", GREY, _font(13), anchor="ma")
    for value in _ticks(frame.y0, frame.y1):
        y = bottom - (value - frame.y0) / (frame.y1 - frame.y0) * frame.height
        pen.line((left - 5 * FINE, y, left, y), GREY, FINE)
        pen.text((left - 9 * FINE, y), f"{value:g}", GREY, _font(13), anchor="rm")
    pen.text((right, bottom + 24 * FINE), "x", INK, _font(14), anchor="ra")
    pen.text((left - 44 * FINE, top), "y", INK, _font(14), anchor="la")


def _ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, at most nine."""
    power = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if (high - low) / step <= 9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * i, 10) + 0.0 for i in range(first, last + 1)]


def _labels(pen: ImageDraw.ImageDraw, labels: Sequence[tuple[str, float, Point, Colour]]) -> None:
    """Names beside the plot, each as near to its path's end as there is room, with a thin line from there."""
    edge = (WIDTH - RIGHT) * FINE
    ordered = sorted(labels, key=lambda label: label[2][1])
    heights = _spread([at[1] / FINE for _, _, at, _ in ordered])
    for (name, value, at, colour), middle in zip(ordered, heights, strict=True):
        pen.line([at, (edge + 8 * FINE, middle * FINE), (edge + 14 * FINE, middle * FINE)], colour, FINE)
        pen.text((edge + 19 * FINE, (middle - 15) * FINE), _cut(name, 24), colour, _font(14))
        pen.text((edge + 19 * FINE, (middle + 1) * FINE), f"f = {value:.3g}", GREY, _font(12))


def _spread(wanted: Sequence[float]) -> list[float]:
    """Heights near those wanted (sorted), LABEL_HEIGHT apart and inside the picture."""
    low, high = TOP + LABEL_HEIGHT / 2, HEIGHT - BOTTOM - LABEL_HEIGHT / 2
    out: list[float] = []
    for y in wanted:
        out.append(max(y, out[-1] + LABEL_HEIGHT if out else low))
    limit = high
    for i in reversed(range(len(out))):
        out[i] = min(out[i], limit)
        limit = out[i] - LABEL_HEIGHT
    return out


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * FINE)
