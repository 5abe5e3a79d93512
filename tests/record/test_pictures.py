"""Pictures show what they are given: colours of cells and tiles, read back from the PNG."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from trainer.record import pictures
from trainer.record.pictures import BAD, GOOD, PAPER, Png


def pixels(png: Png) -> np.ndarray:
    """(height, width, 3)."""
    out = np.asarray(Image.open(io.BytesIO(png.data)).convert("RGB")).astype(float)
    assert out.shape == (png.height, png.width, 3)
    return out


@pytest.mark.parametrize(("classes", "cell"), [(2, 29), (10, 29), (20, 24), (30, 12)])
def test_a_confusion_matrix_has_the_colour_of_its_shares(classes: int, cell: int) -> None:
    rng = np.random.default_rng(classes)
    target = rng.integers(0, classes, 400_000)
    predicted = np.where(rng.random(len(target)) < 0.6, target, np.minimum(target + 1, classes - 1))
    png = pictures.confusion(target, predicted, list(map(str, range(classes))))
    assert png.width <= 350 or classes > 10  # as wide as TensorBoard's cards
    found = pixels(png)
    for i, j in itertools.product(range(classes), repeat=2):
        count, row = np.sum((target == i) & (predicted == j)), np.sum(target == i)
        depth = 0.08 + 0.92 * count / row if count else 0
        wanted = np.array(PAPER) + depth * (np.array(GOOD if i == j else BAD) - PAPER)
        corner = found[40 + cell * i + 1, 34 + cell * j + 1]  # numbers stand in the middle
        np.testing.assert_allclose(corner, wanted, atol=0.5 * 255 / (pictures.SHADES - 1) + 1)


def test_a_confusion_matrix_counts() -> None:
    """Numbers can be told apart, and stand on their own cell alone."""
    target = np.array([0] * 7 + [1] * 3)
    one, other = (pixels(pictures.confusion(target, np.array([0] * 7 + [1] * k + [0] * (3 - k)), "01")) for k in (3, 2))
    assert np.array_equal(one[:69], other[:69])  # the first row is the same: 7 right, none wrong
    assert not np.array_equal(one[69:], other[69:])


def test_wrong_examples_are_the_most_confident_and_in_order() -> None:
    target = np.array([0, 1, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    grey = np.zeros((4, 1, 2, 2))
    grey[1, 0, 0, 0] = grey[2, 0, 1, 1] = 1  # white at the upper left, at the lower right
    found = pictures.wrong(grey, target, probabilities, "01")
    assert found is not None
    first, second = (pixels(found)[8:72, 14 + k * 84 : 78 + k * 84] for k in range(2))  # 1 as 0: 80 %, 0 as 1: 70 %
    assert first[0, 0].min() == second[63, 63].min() == 255
    assert first[63, 63].max() == second[0, 0].max() == 0
    colour = pictures.wrong(np.repeat(grey, 3, 1), target, probabilities, "01")
    assert colour is not None
    assert np.array_equal(pixels(colour), pixels(found))
    assert pictures.wrong(grey[:1], target[:1], probabilities[:1], "01") is None


def test_first_layer_weights_share_one_scale() -> None:
    found = pixels(pictures.first_layer(np.array([[1.0, 0.0], [-0.5, 2.0]]), (1, 1, 2)))
    zoom, gap = 18, 8
    colours = [found[gap, gap + k * (2 * zoom + gap) + i * zoom] for k in range(2) for i in range(2)]
    half = lambda colour: (np.array(PAPER) + np.array(colour)) / 2  # noqa: E731
    quarter = np.array(PAPER) + (np.array(GOOD) - PAPER) / 4
    for colour, wanted in zip(colours, [half(BAD), PAPER, quarter, BAD], strict=True):
        np.testing.assert_allclose(colour, wanted, atol=2)
