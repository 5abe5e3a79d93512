"""Data and classes that are given as Python objects, as files that the command line can name.

They lie in outputs/from_python below the current folder, each named by a hash of what it holds: the same object is the
same file, so that resume=, hashes and a command typed later find what a notebook had.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from trainer import files
from trainer.config import ConfigError

if TYPE_CHECKING:
    import numpy as np

FOLDER = Path("outputs", "from_python")
DATA = "expected a name, (x, y), (x, y, x_test, y_test), a DataFrame with target=COLUMN, a torch Dataset or a function"


def is_target(key: str, value: Any) -> TypeGuard[Callable[..., Any]]:
    """Whether a value is a class or a function, to be named by its path. Raises ConfigError for an instance of one."""
    torch = sys.modules.get("torch")
    if torch and isinstance(value, torch.nn.Module | torch.optim.Optimizer):
        why = "every run makes its own from its seed; give the class, or a function that makes one"
        raise ConfigError([f"{key}: found an instance of {type(value).__name__}; {why}"])
    return callable(value)


def path(key: str, target: Callable[..., Any]) -> str:
    """Return the dotted path of a class or function; one that no module holds is written into a file.

    Raises ConfigError where that cannot be done.
    """
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if module is None or name is None:
        raise ConfigError([f"{key}: found {type(target).__name__}, expected a class or a function with a name"])
    if module != "__main__" and getattr(sys.modules.get(module), name, None) is target:
        parts = module.split(".")
        places = (".".join(parts[:n]) for n in range(1, len(parts) + 1))  # torch.optim.Adagrad, not ...adagrad.Adagrad
        return next(f"{place}.{name}" for place in places if getattr(sys.modules.get(place), name, None) is target)
    from trainer.api import source

    text = source.module(key, target)
    stem = f"{target.__name__.lower()}_{files.digest(text.encode())}"
    _write(FOLDER / f"{stem}.py", text.encode())
    return f"{'.'.join(FOLDER.parts)}.{stem}.{target.__name__}"


def data(given: Any, target: str | None) -> list[tuple[str, Any]]:
    """Return the keys that stand for data, with their values. Raises ConfigError."""
    if hasattr(given, "to_csv") and hasattr(given, "columns"):
        return _table(given, target)
    if target is not None:
        raise ConfigError([f"target: found {target}, but data is no DataFrame; a file's is data.target=COLUMN"])
    if isinstance(given, str):
        return [("data", given)]
    if not isinstance(given, Mapping | list | tuple) and not _is_dataset(given) and callable(given):
        return [("data", {"target": path("data", given)})]
    arrays = _arrays(given)
    digest = hashlib.blake2b(digest_size=8)
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    file = FOLDER / f"data_{digest.hexdigest()}.npz"
    if not file.exists():
        import numpy as np

        content = io.BytesIO()
        np.savez(content, **cast(dict[str, Any], arrays))
        _write(file, content.getvalue())
    return [("data", "npz"), ("data.path", file.as_posix())]


def _table(frame: Any, target: str | None) -> list[tuple[str, Any]]:
    """Write a DataFrame as the CSV file that `data=csv` reads."""
    if target not in frame.columns:
        found = "none" if target is None else repr(target)
        shown = ", ".join(map(str, frame.columns[:10])) + ", ..." * (len(frame.columns) > 10)
        raise ConfigError([f"target: found {found}, expected the column to predict, one of {shown}"])
    content = frame.to_csv(index=False).encode()
    file = FOLDER / f"data_{files.digest(content)}.csv"
    _write(file, content)
    return [("data", "csv"), ("data.path", file.as_posix()), ("data.target", str(target))]


def _arrays(given: Any) -> dict[str, np.ndarray]:
    """Return x and y, and x_test and y_test where they are given. Raises ConfigError."""
    import numpy as np

    parts: dict[str, Any]
    if isinstance(given, Mapping):
        parts = dict(given)
    elif _is_dataset(given):
        parts = dict(zip(("x", "y"), _items(given), strict=True))
    elif isinstance(given, list | tuple) and len(given) == 2 and all(map(_is_dataset, given)):
        parts = dict(zip(_NAMES, [part for dataset in given for part in _items(dataset)], strict=True))
    elif isinstance(given, list | tuple) and len(given) in (2, 4):
        parts = dict(zip(_NAMES, given, strict=False))
    else:
        raise ConfigError([f"data: found {type(given).__name__}, {DATA}"])
    if set(parts) not in ({"x", "y"}, set(_NAMES)):
        raise ConfigError([f"data: found {', '.join(map(str, parts))}, expected x and y, or also x_test and y_test"])
    out = {}
    for name in _NAMES[: len(parts)]:
        value = parts[name]
        if hasattr(value, "detach"):
            value = value.detach().cpu()
        try:
            array = np.asarray(value)
        except ValueError as error:  # rows of several lengths
            raise ConfigError([f"data: {name} is no array: {error}"]) from error
        if array.dtype == object and all(isinstance(one, str) for one in array.flat):
            array = array.astype(str)
        if array.dtype == object:
            raise ConfigError([f"data: {name} holds objects of Python's, expected numbers; {DATA}"])
        out[name] = np.ascontiguousarray(array)
    return out


_NAMES = ("x", "y", "x_test", "y_test")


def _is_dataset(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.utils.data.Dataset)


def _items(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples and targets of a map-style torch Dataset. Raises ConfigError."""
    import numpy as np

    if not hasattr(dataset, "__len__"):
        raise ConfigError([f"data: {type(dataset).__name__} has no length, expected a map-style torch Dataset"])
    pairs = [dataset[i] for i in range(len(dataset))]
    try:
        x, y = (np.stack([_array(part) for part in parts]) for parts in zip(*pairs, strict=True))
    except ValueError as error:
        why = f"cannot be put into arrays x and y: {error}"
        raise ConfigError([f"data: the items of {type(dataset).__name__} {why}"]) from error
    return x, y


def _array(part: Any) -> np.ndarray:
    """Return an example, or its target, as an array; a picture of Pillow's as (channels, height, width)."""
    import numpy as np

    from trainer.core.data.pictures import as_picture  # torch, which a Dataset has brought

    return as_picture(part) if hasattr(part, "getbands") else np.asarray(part)


def _write(file: Path, content: bytes) -> None:
    """Write a file that its name tells the content of, unless it is there. Raises OSError."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.part")
    beside.write_bytes(content)
    os.replace(beside, file)
