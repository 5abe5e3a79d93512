"""trainer.run and trainer.sweep: what is asked for, as values that JSON has; and what came of it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.api import objects, process
from trainer.api.results import Run, Runs
from trainer.config import ConfigError

Asked = dict[str, Any]  # key -> its value


def run(
    *overrides: str | Mapping[str, Any],
    data: Any = None,
    target: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    **values: Any,
) -> Run:
    """Train one run, as `python -m trainer` does with the same overrides: the same bits, in the same kind of folder.

    overrides: strings as they are typed on the command line, or mappings of dotted keys to values. values: keys without
    a dot. A value may be a class or function of your own: of a network, or whatever else a `_target_` names. data: a
    name such as "mnist"; arrays (x, y) or (x, y, x_test, y_test); a pandas DataFrame, whose column to predict is
    `target`; a torch Dataset, or a pair (train, test); a function that returns any of these. folder: where the run
    goes, outputs/runs/<date>/<time> by default; what is there already is not trained again.

    Raises ConfigError with all problems, of the network's code too, and KeyboardInterrupt once what was recorded is
    safe.

    >>> import trainer
    >>> run = trainer.run("optimizer=adam epochs=5", {"model.depth": 1}, seed=1)
    >>> run.status, run.config["model.depth"], len(run.curves())
    ('completed', 1, 5)
    """
    asked = _asked(overrides, values, data, target, is_sweep=False)
    ended = process.train({**asked, "sweep": False, "folder": None if folder is None else os.fspath(folder)})
    assert ended.folder is not None
    return Run(ended.folder)


def sweep(
    *overrides: str | Mapping[str, Any],
    data: Any = None,
    target: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    **values: Any,
) -> Runs:
    """Train every combination of values, as `python -m trainer -m` does: in the same stacks, a failed run harms none.

    Whatever can be iterated over is several values; a value that is a list itself stands in one, [[64, 32]]. The rest
    is as in `trainer.run`. A run that fails is a row with its error. Raises ConfigError where every run is refused.

    >>> import trainer
    >>> runs = trainer.sweep({"optimizer": ["sgd", "adam"], "seed": range(2)}, "epochs=5 model.depth=1")
    >>> runs.frame()[["optimizer", "seed", "status"]]
      optimizer  seed     status
    0       sgd     0  completed
    1       sgd     1  completed
    2      adam     0  completed
    3      adam     1  completed
    """
    asked = _asked(overrides, values, data, target, is_sweep=True)
    ended = process.train({**asked, "sweep": True, "folder": None if folder is None else os.fspath(folder)})
    assert ended.folder is not None
    return Runs.of_sweep(ended.folder, ended.rows)


def load(path: str | os.PathLike[str] = "outputs") -> Runs:
    """Read all runs of this trainer below a folder, in order; no run is read twice. Raises ConfigError where none is.

    >>> import trainer
    >>> trainer.load("outputs/nowhere")
    Traceback (most recent call last):
    trainer.config.ConfigError: outputs/nowhere: no such folder
    """
    return Runs.below(Path(path))


def _asked(
    overrides: Iterable[str | Mapping[str, Any]], values: Asked, data: Any, target: str | None, is_sweep: bool
) -> dict[str, Any]:
    """Return what the other process is asked for: `typed` texts, and `values` of keys, always a list of some.

    Raises ConfigError with everything that is wrong with them.
    """
    typed: list[str] = []
    asked: list[tuple[str, Any]] = []
    problems: list[str] = []
    for one in overrides:
        if isinstance(one, str):
            typed += _split(one, problems)
        elif isinstance(one, Mapping):
            asked += one.items()
        else:
            problems.append(f"found {type(one).__name__}, expected 'KEY=VALUE' as it is typed, or a mapping")
    out: list[tuple[str, list[Any]]] = []
    try:
        if data is not None or target is not None:
            out += [(key, [value]) for key, value in objects.data(data, target)]
    except ConfigError as error:
        problems += error.problems
    for key, value in (*asked, *values.items()):
        several = is_sweep and isinstance(value, Iterable) and not isinstance(value, str | type | Mapping)
        several = several and getattr(value, "ndim", 1) > 0
        try:
            plain = [_plain(str(key), item) for item in (value if several else [value])]
        except ConfigError as error:
            problems += error.problems
            continue
        if not plain:
            problems.append(f"{key}: found no value, expected at least one")
        out.append((str(key), plain))
    if problems:
        raise ConfigError(problems)
    return {"typed": typed, "values": out, "path": sys.path}


def _split(text: str, problems: list[str]) -> list[str]:
    """Split a string into overrides as a shell does."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        problems.append(f"{text}: cannot be read: {str(error).lower()}")
        return []
    flags = [word for word in words if word.startswith("-") and not word.startswith("--config-")]
    problems += [f"{flag}: flags are for the command line; expected KEY=VALUE" for flag in flags]
    return words


def _plain(key: str, value: Any) -> Any:
    """Return a value as JSON has it; a class or function as {"target": its dotted path}. Raises ConfigError."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # of numpy or torch
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if objects.is_target(key, value):
        return {"target": objects.path(str(key), value)}
    if isinstance(value, Mapping):
        raise ConfigError([f"{key}: found a mapping, expected a value; write the keys in it with dots, '{key}.KEY'"])
    if isinstance(value, Iterable):
        items = [_plain(key, item) for item in value]
        return [item["target"] if isinstance(item, dict) else item for item in items]
    kinds = "a number, a string, a list, a class or a function"
    raise ConfigError([f"{key}: found {type(value).__name__}, expected {kinds}"])
