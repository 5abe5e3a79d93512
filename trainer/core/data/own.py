"""Data that a user's own code makes, and arrays in a file; what comes with scikit-learn."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from trainer import config as cfg
from trainer.config import ConfigError
from trainer.core import global_streams, own_calls
from trainer.core.data.dataset import Raw
from trainer.core.data.own_arrays import as_array, nowhere, raw
from trainer.core.data.pictures import as_picture
from trainer.core.seeds import stream_seed

KEY = "data._target_"
EXPECTED = "expected (x, y) or ((x, y), (x_test, y_test)), or one or two torch.utils.data.Dataset"
FORMATS = "numpy.savez(FILE, x=x, y=y) writes such a file"


def read_custom(data: cfg.CustomData) -> Raw:
    """Call what data._target_ names, under a random stream that is the same for every run. Raises ConfigError."""
    with global_streams.kept(torch.device("cpu")):
        global_streams.seed(stream_seed(0, "data"))
        target = own_calls.find_target(KEY, data._target_)
        arguments = dict(data.arguments)
        own_calls.check_arguments("data", target, arguments)
        if "root" in own_calls.parameters(target):
            arguments["root"] = os.path.expanduser(data.root)
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        global_streams.seed(stream_seed(0, "data"))
        with own_calls.in_words(f"data: {data._target_}({given}) fails"):
            found = target(**arguments)
            parts, names = _parts(data, found)
            return raw(data, f"{KEY}: {data._target_}", parts, names, data.task)


def _parts(data: cfg.CustomData, found: Any) -> tuple[list[tuple[Any, Any]], list[str] | None]:
    """Return one or two pairs (x, y), and the names of the classes where a Dataset has them. Raises ConfigError."""
    several = list(found) if isinstance(found, tuple | list) and len(found) == 2 else []
    if isinstance(found, Dataset) or (several and all(isinstance(one, Dataset) for one in several)):
        datasets = several or [found]
        return [_all_examples(data, one) for one in datasets], _class_names(datasets[0])
    if several and all(isinstance(one, tuple | list) and len(one) == 2 and _is_array(one[0]) for one in several):
        return [(x, y) for x, y in several], None
    if several and not any(isinstance(one, str | dict | Dataset) for one in several):
        return [(several[0], several[1])], None
    what = f"{type(found).__name__} of {len(found)}" if isinstance(found, tuple | list | dict) else type(found).__name__
    raise ConfigError([f"{KEY}: {data._target_} gives {what}; {EXPECTED}"])


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and len(value.shape) > 0


def _class_names(dataset: Any) -> list[str] | None:
    names = getattr(dataset, "classes", None)
    return [str(name) for name in names] if isinstance(names, list | tuple) and names else None


def _all_examples(data: cfg.CustomData, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read every example of a map-style Dataset, once: x (N, ...) and y (N, ...). Raises ConfigError."""
    name = f"{type(dataset).__name__} of {data._target_}"
    if isinstance(dataset, IterableDataset):
        raise ConfigError([f"{KEY}: {name} is an IterableDataset, whose examples have no numbers; {EXPECTED}"])
    n = len(dataset)
    if n == 0:
        raise ConfigError([f"{KEY}: {name} is empty; expected examples"])
    first, y = _example(name, dataset, 0)
    if not np.array_equal(first, _example(name, dataset, 0)[0]):
        said = "two readings of its first example differ; each example is read once, so augmentation has no effect"
        raise ConfigError([f"{KEY}: {name}: {said}; leave out what is random in it"])
    xs, ys = np.empty((n, *first.shape), first.dtype), [y]
    xs[0] = first
    for i in range(1, n):
        x, y = _example(name, dataset, i)
        if (x.shape, x.dtype) != (first.shape, first.dtype) or y.shape != ys[0].shape:
            found, expected = (f"{a.shape} {a.dtype} with target {b.shape}" for a, b in ((x, y), (first, ys[0])))
            raise ConfigError([f"{KEY}: example {i} of {name} is {found}, expected {expected}, as the first"])
        xs[i] = x
        ys.append(y)
    return xs, np.stack(ys)


def _example(name: str, dataset: Any, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Read an example as arrays; a picture of Pillow's as (channels, height, width)."""
    with own_calls.in_words(f"data: example {i} of {name} fails"):
        item = dataset[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ConfigError([f"{KEY}: example {i} of {name} is {type(item).__name__}, expected a pair (x, y)"])
        x, y = item
        return as_picture(x) if hasattr(x, "getbands") else as_array(x), as_array(y)


def read_npz(data: cfg.Arrays) -> Raw:
    """Read arrays from a file of NumPy's; nothing in it is unpickled. Raises ConfigError."""
    path, where = Path(data.path).expanduser(), f"data.path: {data.path}"
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files if name in ("x", "y", "x_test", "y_test")}
            names = ", ".join(file.files)
    except FileNotFoundError as error:
        raise ConfigError([f"{where} {nowhere(path)}; {FORMATS}"]) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        if "pickle" in str(error) and zipfile.is_zipfile(path):
            said = "holds Python objects; reading them could run code; save arrays of numbers or texts instead"
            raise ConfigError([f"{where} {said}"]) from error
        why = " ".join(str(error).split()) if zipfile.is_zipfile(path) else "it is of another kind"
        raise ConfigError([f"{where} cannot be read as an .npz file ({why}); {FORMATS}"]) from error
    wanted = {"x", "y"} | ({"x_test", "y_test"} if {"x_test", "y_test"} & found.keys() else set())
    if not wanted <= found.keys():
        raise ConfigError([f"{where} holds {names or 'nothing'}; expected {', '.join(sorted(wanted))}; {FORMATS}"])
    parts = [(found["x"], found["y"])] + ([(found["x_test"], found["y_test"])] if len(wanted) > 2 else [])
    return raw(data, where, parts, task=data.task)


def read_sklearn(data: cfg.SklearnData) -> Raw:
    """A data set that comes with scikit-learn."""
    from sklearn import datasets  # a second of import time

    found = getattr(datasets, f"load_{data.dataset}")()
    x = found.images[:, None] if data.dataset == "digits" else found.data
    names = None if data.is_regression else [str(name) for name in found.target_names]
    return raw(data, f"data.dataset: {data.dataset}", [(x, found.target)], names)
