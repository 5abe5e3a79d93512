"""A data set as tensors on the device, normalised.

Shapes: N example, I in-feature, O output (regression).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer import config as cfg
from trainer.config import ConfigError, Normalisation
from trainer.core.data.inspection import inspect


class Raw(NamedTuple):
    """What a data set is before it is normalised: examples (N, ...), integer classes (N,) or values (N, O)."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    class_names: tuple[str, ...] = ()  # of classes 0, 1, ...; none: their numbers


@dataclass(frozen=True)
class Dataset:
    """All examples of one data set, normalised, on one device; every run of a sweep reads the same tensors.

    x (N, I) and y (N,) int64 class or (N, O) value hold the examples that runs split into train and val;
    test_x and test_y the test split, which may be empty. An example is a flat row of shape `shape`.
    x = (raw - shift) / scale.
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
    class_names: tuple[str, ...] = ()

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What inspection.inspect counts: of the whole data set, so once for all runs that read it."""
        return inspect(self.x, self.y, self.test_x, self.test_y)

    @property
    def in_features(self) -> int:
        return self.x.shape[1]

    @property
    def out_features(self) -> int:
        return self.classes if self.classes is not None else self.y.shape[1]


def assemble(
    data: cfg.Data,
    x: np.ndarray,
    y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    class_names: Sequence[str] = (),
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Dataset:
    """A Dataset from raw arrays: examples (N, ...) and integer classes (N,) or values (N, O).

    The test split may be empty. class_names: of classes 0, 1, ...; none: their numbers. Raises ConfigError naming the
    first value that is not finite.
    """
    for name, values in (("inputs", x), ("targets", y), ("test inputs", test_x), ("test targets", test_y)):
        check_finite(data, name, values)
    shape = x.shape[1:]
    rows = torch.from_numpy(x).reshape(len(x), math.prod(shape)).to(dtype, copy=True)
    test_rows = torch.from_numpy(test_x).reshape(len(test_x), math.prod(shape)).to(dtype, copy=True)
    shift, scale = _normalisation(data.normalisation, rows, shape)
    for tensor in (rows, test_rows):
        tensor.sub_(shift).div_(scale)
    integer = y.dtype.kind in "iu"
    targets = [torch.from_numpy(t).to(torch.int64 if integer else dtype).to(device) for t in (y, test_y)]
    classes = max(int(max(y.max(), test_y.max(initial=0))) + 1, len(class_names)) if integer else None
    return Dataset(
        name=data.title,
        x=rows.to(device),
        y=targets[0],
        test_x=test_rows.to(device),
        test_y=targets[1],
        shape=tuple(shape),
        classes=classes,
        shift=shift,
        scale=scale,
        hash=hash_of(x, y, test_x, test_y),
        class_names=tuple(class_names) or tuple(map(str, range(classes or 0))),
    )


def check_finite(data: cfg.Data, name: str, values: np.ndarray) -> None:
    """Raise ConfigError where a value is NaN or infinite, with the place of the first."""
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        bad = np.argwhere(~finite)
        raise ConfigError(
            [
                f"data: {len(bad)} values of the {name} of {data.title} are not finite, the first at "
                f"{tuple(bad[0].tolist())}; expected finite numbers; repair or drop these examples"
            ]
        )


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


def hash_of(*arrays: Tensor | np.ndarray) -> str:
    """Hash the bytes of arrays."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(np.asarray(array)).data)
    return digest.hexdigest()
