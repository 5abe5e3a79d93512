"""Arrays that a user brings: checked, their targets made classes or values, a test split held out where none came.

Shapes: N example, O output (regression).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from trainer import config as cfg
from trainer.config import ConfigError
from trainer.core.data import splits
from trainer.core.data.dataset import Raw, check_finite
from trainer.core.seeds import stream_seed

TEST_FRACTION = 0.2  # where the data come without a test split, and no fraction is asked for
MOST_CLASSES = 1000
NUMBERS = "biuf"  # kinds of NumPy's dtypes: bool, integers, floats
NUMBERED = "; for values, say data.task=regression"


class Targets(NamedTuple):
    """Integer classes (N,) with their names, or values (N, O) without."""

    values: np.ndarray
    class_names: tuple[str, ...]


def raw(
    data: cfg.ReadData,
    where: str,
    parts: Sequence[tuple[Any, Any]],
    names: Sequence[str] | None = None,
    task: cfg.Task | None = None,
) -> Raw:
    """Make one or two pairs (x, y) of arrays, tensors or frames a data set; the second pair is the test split.

    where: who gave them, for messages. names: of the classes that the integers in y count. task: None: by the target.
    Raises ConfigError.
    """
    xs = [as_inputs(data, f"the {kind}inputs", where, x) for kind, (x, _) in zip(("", "test "), parts, strict=False)]
    ys = [as_array(y) for _, y in parts]
    for what, arrays in (("examples", xs), ("targets", ys)):
        if len({array.shape[1:] for array in arrays}) > 1:
            shapes = " and ".join(str(array.shape[1:]) for array in arrays)
            raise ConfigError([f"{where}: {what} and test {what} have shapes {shapes}, expected one"])
    for x, y in zip(xs, ys, strict=True):
        if y.ndim == 0 or len(x) != len(y):
            found = f"{len(y)} targets" if y.ndim else f"one target, {y}"
            raise ConfigError([f"{where}: {len(x)} examples and {found}, expected one target an example"])
    targets = as_targets(data, where, np.concatenate(ys), names, task)
    n = len(xs[0])
    if len(parts) > 1:
        if data.test_fraction is not None:
            said = f"found {data.test_fraction}, but a test split of {len(xs[1])} examples comes with {data.title}"
            raise ConfigError([f"data.test_fraction: {said}; try data.test_fraction=null"])
        return Raw(xs[0], targets.values[:n], xs[1], targets.values[n:], targets.class_names)
    rest, test = held_out(data, targets.values)
    x, y = xs[0], targets.values
    return Raw(x[rest], y[rest], x[test], y[test], targets.class_names)


def held_out(data: cfg.ReadData, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the examples that are not, and that are, the test split: stratified, the same always.

    Raises ConfigError where nothing is left to train on.
    """
    fraction = TEST_FRACTION if data.test_fraction is None else data.test_fraction
    generator = torch.Generator().manual_seed(stream_seed(0, "test"))  # of no run: all share it
    test, rest = splits.held_out(torch.from_numpy(y), fraction, generator)
    if len(rest) == 0:
        raise ConfigError([f"data: test_fraction={fraction} leaves no training examples of {len(y)} of {data.title}"])
    return np.sort(rest.numpy()), np.sort(test.numpy())


def as_inputs(data: cfg.Data, name: str, where: str, value: Any) -> np.ndarray:
    """Return examples (N, ...) as an array that PyTorch takes. Raises ConfigError."""
    x = as_array(value)
    if x.dtype.kind not in NUMBERS:
        raise ConfigError([f"{where}: {name} are {_called(x)}, expected numbers"])
    if x.ndim == 0 or x.size == 0:
        raise ConfigError([f"{where}: {name} have shape {x.shape}, expected (examples, ...), none of them 0"])
    check_finite(data, name.removeprefix("the "), x)
    return numbers(x if x.ndim > 1 else x[:, None])


def numbers(x: np.ndarray) -> np.ndarray:
    """Numbers in a form PyTorch takes: writable, in the machine's byte order, of a type that it computes with."""
    other = {"b1": "u1", "u2": "i4", "u4": "i8", "u8": "f8", "f2": "f4"}.get(x.dtype.str[1:])
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        other = "f8"
    return np.require(x, other or x.dtype.newbyteorder("="), ["C", "W"])


def as_targets(
    data: cfg.Data, where: str, y: np.ndarray, names: Sequence[str] | None = None, task: cfg.Task | None = None
) -> Targets:
    """Return targets (N,), (N, 1) or (N, O) as classes or as values.

    Classes are counted in the order of their names, or of `names`, which their numbers stand for. Raises ConfigError.
    """
    if task is None:
        task = "regression" if y.dtype.kind == "f" else "classification"
    if task == "regression":
        if y.dtype.kind not in NUMBERS:
            raise ConfigError([f"{where}: the targets are {_called(y)}, expected numbers for a regression"])
        values = numbers(y.astype(np.float64) if y.dtype.kind in "biu" else y)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2:
            raise ConfigError([f"{where}: the targets have shape {y.shape}, expected (examples, outputs)"])
        check_finite(data, "targets", values)
        if (values == values[0]).all():
            raise ConfigError([f"{where}: every target is {values[0, 0]:g}; there is nothing to learn"])
        return Targets(values, ())
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise ConfigError(
            [f"{where}: the targets have shape {y.shape}, expected one class an example, (examples,){NUMBERED}"]
        )
    return _classes(data, where, y, names)


def _classes(data: cfg.Data, where: str, y: np.ndarray, names: Sequence[str] | None) -> Targets:
    if y.dtype.kind in NUMBERS:
        check_finite(data, "targets", y)
        found, codes = np.unique(y, return_inverse=True)
    else:
        import pandas  # sorts by hash: texts in a tenth of the time

        if (missing := pandas.isna(y)).any():
            raise ConfigError([f"{where}: {missing.sum()} targets are missing, the first is number {missing.argmax()}"])
        codes, found = pandas.factorize(np.array([_text(value) for value in y.tolist()], object), sort=True)
    if len(found) > MOST_CLASSES or (y.dtype.kind not in "biu" and len(found) > len(y) / 2):
        said = f"{len(found)} different targets in {len(y)} examples, expected at most {MOST_CLASSES} classes"
        raise ConfigError([f"{where}: {said}, each several times{NUMBERED if y.dtype.kind in NUMBERS else ''}"])
    if len(found) == 1:
        raise ConfigError([f"{where}: every example is of class {_text(found[0])}; expected two classes or more"])
    values: list[Any] = found.tolist()
    named = [_text(value) for value in values]
    if names is not None and y.dtype.kind in "iu" and values[0] >= 0 and values[-1] < len(names):
        named = [str(names[value]) for value in values]
    return Targets(np.ascontiguousarray(codes, np.int64), tuple(named))


def nowhere(path: Path) -> str:
    """Say that there is no such file or folder."""
    return "is nowhere" if path.is_absolute() else f"is nowhere in {Path.cwd()}"


def as_array(value: Any) -> np.ndarray:
    """An array of an array, tensor, frame or list."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _called(x: np.ndarray) -> str:
    """What an array holds that is no numbers."""
    if x.dtype.kind == "O" and x.size:
        return f"Python objects, {type(x.flat[0]).__name__} the first"
    return {"U": "texts", "S": "texts", "M": "dates", "m": "durations", "c": "complex"}.get(x.dtype.kind, str(x.dtype))
