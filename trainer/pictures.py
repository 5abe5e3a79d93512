"""Pictures of a trained run as PNG: confusion matrix, confidently wrong examples, first-layer weights. No torch."""

from __future__ import annotations

import io
import itertools
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
INK, PAPER, GOOD, BAD = (31, 41, 55), (255, 255, 255), (37, 99, 235), (220, 38, 38)


class Png(NamedTuple):
    """An encoded picture and its size in pixels."""

    data: bytes
    width: int
    height: int


def confusion(target: np.ndarray, predicted: np.ndarray, classes: int) -> Png:
    """Rows are true classes, columns predictions: share of the row as depth of colour, the count as a number.

    target, predicted: (N,) integers below `classes`.
    """
    counts = np.bincount(target * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    cell = 36 if classes <= 20 else 12
    left, top = 52, 40
    image = Image.new("RGB", (left + cell * classes + 10, top + cell * classes + 10), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    draw.text((left, 4), "predicted class (columns), true class (rows)", INK, font)
    for i in range(classes):
        middle = cell * i + cell // 2
        draw.text((left + middle, top - 10), str(i), INK, font, anchor="mm")
        draw.text((left - 14, top + middle), str(i), INK, font, anchor="mm")
        for j in range(classes):
            colour = _mix(PAPER, GOOD if i == j else BAD, 0.08 + 0.92 * share[i, j] if counts[i, j] else 0)
            x, y = left + cell * j, top + cell * i
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=colour, outline=(229, 231, 235))
            if counts[i, j] and cell > 20:
                ink = PAPER if share[i, j] > 0.5 else INK
                draw.text((x + cell // 2 - 1, y + cell // 2 - 1), str(counts[i, j]), ink, font, anchor="mm")
    return encode(image)


def wrong(images: np.ndarray, target: np.ndarray, probabilities: np.ndarray, most: int = 24) -> Png | None:
    """The wrongly classified examples with the highest probability; None where every one is right.

    images (N, C, H, W) of any scale, target (N,), probabilities (N, classes).
    """
    predicted = probabilities.argmax(1)
    confidence = probabilities.max(1)
    index = np.flatnonzero(predicted != target)
    index = index[np.argsort(-confidence[index], kind="stable")][:most]
    if len(index) == 0:
        return None
    captions = [f"{target[i]} seen as {predicted[i]}\n{confidence[i]:.0%}" for i in index]
    return _grid([_picture(images[i], 80) for i in index], captions, columns=8 if len(index) > 4 else 4)


def first_layer(weights: np.ndarray, shape: tuple[int, ...], most: int = 64) -> Png:
    """The weights of each unit of the first layer as a picture: blue negative, white zero, red positive.

    weights (O, I) with I = C * H * W; colour channels are averaged. One scale for all units.
    """
    planes = weights[:most].reshape(-1, *shape).mean(1)
    scale = np.abs(planes).max() or 1.0
    if not math.isfinite(scale):
        planes, scale = np.nan_to_num(planes, nan=0.0, posinf=0.0, neginf=0.0), 1.0
    levels = np.rint(127 + 127 * np.clip(planes / scale, -1, 1)).astype(np.uint8)
    height, width = shape[1:]
    zoom, gap, columns = max(1, 56 // max(height, width)), 8, min(8, len(levels))
    rows = -(-len(levels) // columns)
    cell_height, cell_width = height * zoom + gap, width * zoom + gap
    sheet = np.full((rows * cell_height + gap, columns * cell_width + gap), 127, np.uint8)
    for i, tile in enumerate(levels.repeat(zoom, 1).repeat(zoom, 2)):
        y, x = i // columns * cell_height + gap, i % columns * cell_width + gap
        sheet[y : y + height * zoom, x : x + width * zoom] = tile
    colours = [_mix(PAPER, BAD if z > 0 else GOOD, abs(z) / 127) for z in range(-127, 128)]
    image = Image.fromarray(sheet).convert("P")
    image.putpalette(list(itertools.chain.from_iterable(colours)))
    return encode(image)


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], t: float) -> tuple[int, int, int]:
    red, green, blue = (round(x + (y - x) * t) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _picture(image: np.ndarray, size: int) -> Image.Image:
    """(C, H, W) of any scale, stretched to grey or colour."""
    low, high = image.min(), image.max()
    pixels = ((image - low) / ((high - low) or 1) * 255).astype(np.uint8)
    channels = pixels.transpose(1, 2, 0)
    if channels.shape[2] == 1:
        channels = np.repeat(channels, 3, axis=2)
    return Image.fromarray(channels).resize((size, size), Image.Resampling.NEAREST)


def _grid(tiles: list[Image.Image], captions: list[str] | None, columns: int) -> Png:
    width, height = tiles[0].size
    gap, below = 8, 34 if captions else 0
    wide = max(width, 96) if captions else width
    rows = -(-len(tiles) // columns)
    image = Image.new("RGB", (columns * (wide + gap) + gap, rows * (height + below + gap) + gap), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for i, tile in enumerate(tiles):
        x, y = gap + i % columns * (wide + gap), gap + i // columns * (height + below + gap)
        image.paste(tile, (x + (wide - width) // 2, y))
        if captions:
            draw.text((x + wide // 2, y + height + 3), captions[i], INK, font, anchor="ma", align="center")
    return encode(image)


def encode(image: Image.Image) -> Png:
    """An image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Png(buffer.getvalue(), *image.size)
