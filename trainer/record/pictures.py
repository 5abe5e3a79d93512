"""Pictures of a trained run as PNG: confusion matrix, confidently wrong examples, first-layer weights. No torch.

TensorBoard's cards are 350 pixels wide, and leave out pixels of what is wider: letters would be torn.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.text import cut

INK, PAPER, GOOD, BAD = (31, 41, 55), (255, 255, 255), (37, 99, 235), (220, 38, 38)
SHADES, EDGES = 30, 4  # of a confusion matrix: depths of a colour, and steps at the edge of a letter
LINES = 2 * SHADES + 1  # the ground between its cells
MOST_WRONG, MOST_UNITS = 24, 64  # examples, and units of the first layer, that are shown
NAME = 11  # letters of a class's name
LINE = 16  # pixels from one line of a caption to the next


class Png(NamedTuple):
    """An encoded picture and its size in pixels."""

    data: bytes
    width: int
    height: int


def confusion(target: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Png:
    """Rows are true classes, columns predictions: share of the row as depth of colour, the count as a number.

    target, predicted: (N,) integers, which count the names of the classes.
    """
    classes = len(names)
    counts = np.bincount(target * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    cell = 29 if classes <= 10 else 24 if classes <= 20 else 12
    labels = [_letters(_short(name)) for name in names]
    widest = max(label.shape[1] for label in labels)
    numbered = widest < 24  # such as numbers: they need no more room than a cell
    left, top = (34, 40) if numbered else (widest + 12, widest + 32)
    deep = np.where(counts, 1 + np.rint(share * (SHADES - 1)), 0).astype(np.uint8)  # 0: paper, then SHADES of a colour
    cells = np.where((deep > 0) & ~np.eye(classes, dtype=bool), deep + SHADES, deep).repeat(cell, 0).repeat(cell, 1)
    cells[cell - 1 :: cell] = cells[:, cell - 1 :: cell] = LINES
    words = _letters("predicted class (columns), true class (rows)")
    side = cell * classes
    sheet = np.zeros((top + side + 10, left + max(side, words.shape[1]) + 10), np.uint8)
    sheet[top : top + side, left : left + side] = cells
    sheet *= EDGES
    _write(sheet, words, left + words.shape[1] // 2, 12)
    for i in range(0, classes, 1 if cell > 20 or not numbered else 5):
        label, middle = labels[i], cell * i + cell // 2
        upright, away = (label, 10) if numbered else (np.rot90(label), 6 + label.shape[1] // 2)
        _write(sheet, upright, left + middle, top - away)
        _write(sheet, label, left - (12 if numbered else away), top + middle)
    if cell > 20:
        for i, j in np.argwhere(counts):
            _write(sheet, _letters(str(counts[i, j])), left + cell * j + cell // 2 - 1, top + cell * i + cell // 2 - 1)
    return _encode_palette(sheet, _confusion_colours())


def _short(name: str) -> str:
    return cut(" ".join(name.split()) or "(none)", NAME)


@functools.cache
def _confusion_colours() -> list[int]:
    """Grounds (paper, SHADES right, SHADES wrong, lines), each with EDGES steps to the ink that is read on it."""
    depths = [0.08 + 0.92 * k / (SHADES - 1) for k in range(SHADES)]
    grounds = [PAPER, *(_mix(PAPER, colour, depth) for colour in (GOOD, BAD) for depth in depths), (229, 231, 235)]
    inks = [INK, *(PAPER if depth > 0.5 else INK for depth in depths * 2), INK]
    colours = [_mix(g, ink, k / (EDGES - 1)) for g, ink in zip(grounds, inks, strict=True) for k in range(EDGES)]
    return list(itertools.chain.from_iterable(colours))


@functools.lru_cache(2000)
def _letters(text: str) -> np.ndarray:
    """How much of each pixel a text covers: 0 to EDGES - 1."""
    font = ImageFont.load_default(12)
    box = font.getbbox(text)
    image = Image.new("L", (math.ceil(box[2]), math.ceil(box[3])))
    ImageDraw.Draw(image).text((0, 0), text, 255, font)
    return (np.asarray(image.crop(box)).astype(np.uint16) * (EDGES - 1) // 255).astype(np.uint8)


def _write(sheet: np.ndarray, letters: np.ndarray, x: int, y: int) -> None:
    """A text in the middle of (x, y), whatever the ground."""
    height, width = letters.shape
    part = sheet[y - height // 2 :, x - width // 2 :][:height, :width]
    part += np.maximum(letters, part % EDGES) - part % EDGES


def wrong(images: np.ndarray, target: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> Png | None:
    """The wrongly classified examples with the highest probability; None where every one is right.

    images (N, C, H, W) of any scale, target (N,), probabilities (N, classes), names of the classes.
    """
    predicted = probabilities.argmax(1)
    confidence = probabilities.max(1)
    index = np.flatnonzero(predicted != target)
    index = index[np.argsort(-confidence[index], kind="stable")][:MOST_WRONG]
    if len(index) == 0:
        return None
    seen = " seen as " if all(len(name) < 4 for name in names) else "\nseen as "
    pairs = [f"{_short(names[int(target[i])])}{seen}{_short(names[int(predicted[i])])}" for i in index]
    captions = [f"{pair}\n{confidence[i]:.0%}" for pair, i in zip(pairs, index, strict=True)]
    return _grid([_picture(images[i]) for i in index], captions, columns=4)


def first_layer(weights: np.ndarray, shape: tuple[int, ...]) -> Png:
    """The weights of each unit of the first layer as a picture: blue negative, white zero, red positive.

    weights (O, I) with I = C * H * W; colour channels are averaged. One scale for all units.
    """
    planes = weights[:MOST_UNITS].reshape(-1, *shape).mean(1)
    scale = np.abs(planes).max() or 1.0
    if not math.isfinite(scale):
        planes, scale = np.nan_to_num(planes, nan=0.0, posinf=0.0, neginf=0.0), 1.0
    levels = np.rint(127 + 127 * np.clip(planes / scale, -1, 1)).astype(np.uint8)
    height, width = shape[1:]
    zoom, gap, columns = max(1, 36 // max(height, width)), 8, min(8, len(levels))
    rows = -(-len(levels) // columns)
    cell_height, cell_width = height * zoom + gap, width * zoom + gap
    sheet = np.full((rows * cell_height + gap, columns * cell_width + gap), 127, np.uint8)
    for i, tile in enumerate(levels.repeat(zoom, 1).repeat(zoom, 2)):
        y, x = i // columns * cell_height + gap, i % columns * cell_width + gap
        sheet[y : y + height * zoom, x : x + width * zoom] = tile
    return _encode_palette(sheet, _signed_colours())


@functools.cache
def _signed_colours() -> list[int]:
    """Of levels -127 to 127."""
    colours = [_mix(PAPER, BAD if z > 0 else GOOD, abs(z) / 127) for z in range(-127, 128)]
    return list(itertools.chain.from_iterable(colours))


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], t: float) -> tuple[int, int, int]:
    red, green, blue = (round(x + (y - x) * t) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _picture(image: np.ndarray) -> np.ndarray:
    """(C, H, W) of any scale, stretched to grey (H, W) or colour (H, W, 3), enlarged to about 64 pixels."""
    low, high = image.min(), image.max()
    zoom = max(1, 64 // max(image.shape[1:]))
    pixels = ((image - low) / ((high - low) or 1) * 255).astype(np.uint8).repeat(zoom, 1).repeat(zoom, 2)
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _grid(tiles: list[np.ndarray], captions: list[str], columns: int) -> Png:
    height, width = tiles[0].shape[:2]
    lines = captions[0].count("\n") + 1
    gap, below, wide = 8, 6 + 14 * lines, max(width, 76 if lines < 3 else 110)
    rows = -(-len(tiles) // columns)
    size = rows * (height + below + gap) + gap, columns * (wide + gap) + gap
    sheet = np.full((*size, *tiles[0].shape[2:]), 255, np.uint8)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = gap + i % columns * (wide + gap), gap + i // columns * (height + below + gap)
        sheet[y : y + height, x + (wide - width) // 2 :][:, :width] = tile
        for k, line in enumerate(caption.split("\n")):
            letters = _line(line)
            top, left = y + height + 3 + k * LINE, x + wide // 2 - letters.shape[1] // 2
            part = sheet[top : top + len(letters), left : left + letters.shape[1]]
            part[:] = np.minimum(part, letters if sheet.ndim == 2 else letters[:, :, None])
    return encode(Image.fromarray(sheet))


@functools.lru_cache(2000)
def _line(text: str) -> np.ndarray:
    """A line of a caption in black on white, in the middle."""
    font = ImageFont.load_default(12)
    half = math.ceil(font.getlength(text) / 2) + 2
    image = Image.new("L", (2 * half, 18), "white")
    ImageDraw.Draw(image).text((half, 0), text, "black", font, anchor="ma")
    return np.asarray(image)


def _encode_palette(sheet: np.ndarray, colours: list[int]) -> Png:
    """A sheet of indices into a list of red, green, blue, red ...; for full colours the encoder would try filters."""
    image = Image.fromarray(sheet).convert("P")
    image.putpalette(colours)
    return encode(image)


def encode(image: Image.Image) -> Png:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Png(buffer.getvalue(), *image.size)
