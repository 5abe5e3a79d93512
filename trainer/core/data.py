"""A data set as tensors on the device: loading, splits, label noise, batch order. No DataLoader.

Shapes: N example, I in-feature, O output (regression).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer import config as cfg
from trainer.config import ConfigError, Normalisation, stream_seed
from trainer.core import image_files

GENERATED_TEST_SHARE = 0.2
SLOPE, INTERCEPT = 2.0, 1.0  # of data=line; a run says at its end how near it came


@dataclass(frozen=True)
class Dataset:
    """All examples of one data set, normalised, on one device; every run of a sweep reads the same tensors.

    x (N, I) and y (N,) int64 class or (N, O) value hold the examples that runs split into train and val;
    test_x and test_y the test split. An example is a flat row of shape `shape`. x = (raw - shift) / scale.
    """

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    shape: tuple[int, ...]
    classes: int | None
    shift: Tensor
    scale: Tensor
    hash: str

    @property
    def in_features(self) -> int:
        return self.x.shape[1]

    @property
    def out_features(self) -> int:
        return self.classes if self.classes is not None else self.y.shape[1]


@dataclass(frozen=True)
class Split:
    """One run's part of a data set: row numbers of train and val (CPU), and the training targets, noise included."""

    train: Tensor
    val: Tensor
    train_y: Tensor

    @property
    def hash(self) -> str:
        """Hash of which examples train and which validate; label noise leaves it as it is."""
        return _hash(self.train, self.val)


def load(data: cfg.Data, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Dataset:
    """Read a data set and normalise it (statistics from the non-test examples only).

    Raises ConfigError where it is missing, damaged, or holds a value that is not finite.
    """
    if data.name in image_files.TORCHVISION:
        raw = image_files.read(data.name, Path(data.root).expanduser())
    else:
        made_here = {
            "digits": _digits,
            "spirals": _spirals,
            "line": _line,
            "clusters": _clusters,
            "point": _point,
        }
        raw = made_here[data.name](data)
    return assemble(data, *raw, device=device, dtype=dtype)


def assemble(
    data: cfg.Data,
    x: np.ndarray,
    y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Dataset:
    """A Dataset from raw arrays: examples (N, ...) and integer classes (N,) or values (N, O).

    Raises ConfigError naming the first value that is not finite.
    """
    for name, values in (("inputs", x), ("targets", y), ("test inputs", test_x), ("test targets", test_y)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))
            raise ConfigError(
                [
                    f"data: {len(bad)} values of the {name} of {data.name} are not finite, the first at "
                    f"{tuple(bad[0].tolist())}; expected finite numbers; repair or drop these examples"
                ]
            )
    shape = x.shape[1:]
    digest = _hash(x, y, test_x, test_y)
    rows = torch.from_numpy(x).reshape(len(x), -1).to(dtype, copy=True)
    test_rows = torch.from_numpy(test_x).reshape(len(test_x), -1).to(dtype, copy=True)
    shift, scale = _normalisation(data.normalisation, rows, shape)
    for tensor in (rows, test_rows):
        tensor.sub_(shift).div_(scale)
    integer = y.dtype.kind in "iu"
    targets = [torch.from_numpy(t).to(torch.int64 if integer else dtype).to(device) for t in (y, test_y)]
    classes = int(max(y.max(), test_y.max())) + 1 if integer else None
    return Dataset(
        name=data.name,
        x=rows.to(device),
        y=targets[0],
        test_x=test_rows.to(device),
        test_y=targets[1],
        shape=tuple(shape),
        classes=classes,
        shift=shift,
        scale=scale,
        hash=digest,
    )


def split(dataset: Dataset, data: cfg.Data, seed: int) -> Split:
    """One run's train and val rows, stratified by class, and its training targets with label noise.

    The first n_val rows of a stratified random order validate, the next train_size train: so a smaller train_size is
    a subset of a larger one, and the validation split does not depend on it. Label noise as in Zhang et al. 2017
    ("Understanding deep learning requires rethinking generalization"): the given share of the training labels is drawn
    anew, uniformly over all classes. Raises ConfigError where a split would be empty.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "split"))
    labels = dataset.y.cpu()
    order = stratified_order(labels, generator) if dataset.classes else torch.randperm(len(labels), generator=generator)
    # rounded up, at least one; but 0.07 of 100, which is 7.000000000000001, is 7
    n_val = max(math.ceil(data.val_fraction * len(order) - 1e-9), int(data.val_fraction > 0))
    val, train = order[:n_val], order[n_val:]
    if len(train) == 0:
        raise ConfigError([f"data.val_fraction: {data.val_fraction} leaves no training examples of {len(order)}"])
    if data.train_size is not None:
        if data.train_size > len(train):
            raise ConfigError(
                [
                    f"data.train_size: found {data.train_size}, expected at most the {len(train)} examples of "
                    f"{dataset.name} that are neither test nor validation; try data.train_size=null for all"
                ]
            )
        train = train[: data.train_size]
    if data.drop_last and data.batch_size > len(train):
        raise ConfigError(
            [
                f"data.batch_size: found {data.batch_size}, expected at most the {len(train)} training examples with "
                f"data.drop_last=true, which leaves out smaller batches; try data.batch_size={len(train)}"
            ]
        )
    train_y = labels[train]
    if data.label_noise and dataset.classes:
        noise = torch.Generator().manual_seed(stream_seed(seed, "label_noise"))
        redrawn = torch.randperm(len(train), generator=noise)[: round(data.label_noise * len(train))]
        train_y[redrawn] = torch.randint(dataset.classes, (len(redrawn),), generator=noise)
    return Split(train, val, train_y)


def stratified_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A random order of the rows in which every prefix holds each class in proportion.

    Cut at quantile q, it holds q times the size of each class, to within one example.
    Each row is given the quantile (its random rank within its class + u) / class size, with one u in [0, 1) a class;
    the rows sorted by quantile are the order. labels (N,) int64 -> (N,) int64.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels)
    starts = torch.cumsum(counts, 0) - counts
    classes = labels[by_class]
    rank = torch.arange(len(labels)) - starts[classes]
    offset = torch.rand(len(counts), generator=generator, dtype=torch.float64)
    quantile = (rank + offset[classes]) / counts[classes]
    return by_class[torch.argsort(quantile, stable=True)]


class EpochOrder:
    """The order in which a run visits its training examples: a new permutation every epoch, from its own stream."""

    def __init__(self, n: int, seed: int, shuffle: bool) -> None:
        self.n = n
        self.shuffle = shuffle
        self.generator = torch.Generator().manual_seed(stream_seed(seed, "order"))
        self.finish()

    def next(self) -> Tensor:
        """(N,) int64 positions in the training split. Until `finish`, `state` is what gives this order again."""
        return torch.randperm(self.n, generator=self.generator) if self.shuffle else torch.arange(self.n)

    def finish(self) -> None:
        """The epoch of the last order is over."""
        self.state = self.generator.get_state()

    def resume(self, state: Tensor) -> None:
        """Put the stream back to a `state`."""
        self.generator.set_state(state)
        self.state = state


def batch_slices(n: int, batch_size: int, drop_last: bool) -> list[slice]:
    """The batches of an epoch as slices of its order."""
    end = n - n % batch_size if drop_last else n
    return [slice(start, min(start + batch_size, end)) for start in range(0, end, batch_size)]


def _normalisation(kind: Normalisation, rows: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return (shift, scale), each broadcastable to a row: per channel for pictures, per feature otherwise.

    A feature that never varies becomes exactly zero. Left at any other constant, its weights would have a gradient that
    batch norm makes zero but for rounding, and Adam would amplify that.
    """
    if kind == "none":
        return torch.zeros(1, dtype=rows.dtype), torch.ones(1, dtype=rows.dtype)
    channels = shape[0] if len(shape) == 3 else rows.shape[1]
    grouped = rows.reshape(len(rows), channels, -1)
    if kind == "unit":
        shift = grouped.amin((0, 2))
        scale = grouped.amax((0, 2)) - shift
    else:
        std, shift = torch.std_mean(grouped, (0, 2), correction=0)
        scale = std
    scale = torch.where(scale > 0, scale, 1)
    per_channel = rows.shape[1] // channels
    shift, scale = shift.repeat_interleave(per_channel), scale.repeat_interleave(per_channel)
    low = rows.amin(0)
    return torch.where(low == rows.amax(0), low, shift), scale


def _hash(*arrays: Tensor | np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(np.asarray(array)).data)
    return digest.hexdigest()


def _digits(data: cfg.Data) -> tuple[np.ndarray, ...]:
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        x, y = file["pixels"].reshape(-1, 1, 8, 8), file["labels"]
    order = stratified_order(torch.from_numpy(y).long(), torch.Generator().manual_seed(0)).numpy()
    test, rest = order[:180], order[180:]
    return x[rest], y[rest], x[test], y[test]


def _spirals(data: cfg.Data) -> tuple[np.ndarray, ...]:
    """Three arms: radius r in [0.1, 1], angle 4 r + 2 pi arm / 3 plus noise."""
    assert data.examples is not None
    assert data.noise is not None
    rng = np.random.default_rng(0)
    arm = np.arange(data.examples) % 3
    radius = rng.uniform(0.1, 1, data.examples)
    angle = 4 * radius + 2 * np.pi * arm / 3 + data.noise * rng.normal(size=data.examples)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _generated(x, arm)


def _line(data: cfg.Data) -> tuple[np.ndarray, ...]:
    """y = 2 x + 1 + noise with x uniform on [-1, 1]: SLOPE and INTERCEPT."""
    assert data.examples is not None
    assert data.noise is not None
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (data.examples, 1))
    return _generated(x, SLOPE * x + INTERCEPT + data.noise * rng.normal(size=(data.examples, 1)))


def _clusters(data: cfg.Data) -> tuple[np.ndarray, ...]:
    """Ten normal clusters in four dimensions: centres N(0, 1), examples around them N(0, noise)."""
    assert data.examples is not None
    assert data.noise is not None
    rng = np.random.default_rng(0)
    label = np.arange(data.examples) % 10
    centre = rng.normal(size=(10, 4))
    return _generated(centre[label] + data.noise * rng.normal(size=(data.examples, 4)), label)


def _point(data: cfg.Data) -> tuple[np.ndarray, ...]:
    """One example of nothing: what a function to minimise is trained on, and read once at the end."""
    nothing = np.zeros((1, 1))
    return nothing, nothing, nothing, nothing


def _generated(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    n_test = round(GENERATED_TEST_SHARE * len(x))
    order = np.random.default_rng(1).permutation(len(x))
    test, rest = order[:n_test], order[n_test:]
    return x[rest], y[rest], x[test], y[test]
