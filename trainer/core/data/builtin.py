"""Data sets that come with this package, or are made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from trainer import config as cfg
from trainer.core.data.dataset import Raw
from trainer.core.data.splits import stratified_order

TEST_SHARE = 0.2
SLOPE, INTERCEPT = 2.0, 1.0  # of data=line; a run says at its end how near it came


def digits(data: cfg.Data) -> Raw:
    """1,797 pictures of handwritten digits, 180 of them the test split."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        x, y = file["pixels"].reshape(-1, 1, 8, 8), file["labels"]
    order = stratified_order(torch.from_numpy(y).long(), torch.Generator().manual_seed(0)).numpy()
    test, rest = order[:180], order[180:]
    return Raw(x[rest], y[rest], x[test], y[test])


def spirals(data: cfg.Data) -> Raw:
    """Three arms: radius r in [0.1, 1], angle 4 r + 2 pi arm / 3 plus noise."""
    examples, noise, rng = _knobs(data)
    arm = np.arange(examples) % 3
    radius = rng.uniform(0.1, 1, examples)
    angle = 4 * radius + 2 * np.pi * arm / 3 + noise * rng.normal(size=examples)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _shared_out(x, arm)


def line(data: cfg.Data) -> Raw:
    """y = 2 x + 1 + noise with x uniform on [-1, 1]: SLOPE and INTERCEPT."""
    examples, noise, rng = _knobs(data)
    x = rng.uniform(-1, 1, (examples, 1))
    return _shared_out(x, SLOPE * x + INTERCEPT + noise * rng.normal(size=(examples, 1)))


def clusters(data: cfg.Data) -> Raw:
    """Ten normal clusters in four dimensions: centres N(0, 1), examples around them N(0, noise)."""
    examples, noise, rng = _knobs(data)
    label = np.arange(examples) % 10
    centre = rng.normal(size=(10, 4))
    return _shared_out(centre[label] + noise * rng.normal(size=(examples, 4)), label)


def point(data: cfg.Data) -> Raw:
    """One example of nothing: what a function to minimise is trained on, and read once at the end."""
    nothing = np.zeros((1, 1))
    return Raw(nothing, nothing, nothing, nothing)


def _knobs(data: cfg.Data) -> tuple[int, float, np.random.Generator]:
    assert isinstance(data, cfg.Generated)
    assert data.examples is not None
    assert data.noise is not None
    return data.examples, data.noise, np.random.default_rng(0)


def _shared_out(x: np.ndarray, y: np.ndarray) -> Raw:
    n_test = round(TEST_SHARE * len(x))
    order = np.random.default_rng(1).permutation(len(x))
    test, rest = order[:n_test], order[n_test:]
    return Raw(x[rest], y[rest], x[test], y[test])
