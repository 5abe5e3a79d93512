"""What makes a run the same run: its configuration, its data and the code that trained it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer import files
from trainer.config import Config, CustomModel

CODE = (  # all that train imports
    *("config", "data", "health", "look", "metrics", "model", "optim", "overfit", "problems", "tidy", "train"),
)
NO_RESULT = {"data.root", "checkpoint.minutes", "checkpoint.epochs"}  # keys that change nothing of what a run leaves


def result_keys(config: Config) -> dict[str, Any]:
    """The flat configuration, without what changes no result, in JSON's own values."""
    return json.loads(files.to_json({key: value for key, value in config.flat().items() if key not in NO_RESULT}))


def config_hash(config: Config) -> str:
    """Equal for configurations with equal results."""
    return files.digest(result_keys(config))


def code(config: Config) -> dict[str, str]:
    """What computes: a hash of our own sources, versions, and a hash of the source of a model of the user's own."""
    out = dict(_installed())
    if isinstance(config.model, CustomModel):
        module = config.model._target_.rpartition(".")[0]
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # the run itself will say so
            found = None
        if found is not None and found.origin is not None and Path(found.origin).is_file():
            out[module] = _hash([Path(found.origin)])
    return out


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """The keys in which two flat mappings differ."""
    return {key for key in {**was, **now} if was.get(key) != now.get(key)}


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """'key was 1, is 2' for each key of two flat mappings."""
    keys = changed(was, now)
    return [f"{key} was {_show(was.get(key))}, is {_show(now.get(key))}" for key in {**was, **now} if key in keys]


@functools.cache
def _installed() -> dict[str, str]:
    here = Path(__file__).parent
    sources = _hash([*(here / f"{name}.py" for name in CODE), here / "digits.npz"])
    return {"trainer": sources, "torch": metadata.version("torch"), "numpy": metadata.version("numpy")}


def _hash(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
