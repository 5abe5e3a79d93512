"""What makes a run the same run: its configuration, the code that trained it, and what else it ran on."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer import files
from trainer.config import Config, identity
from trainer.core import own_code

RESULTS = 2  # raised with every change of the golden values in tests/, and by nothing else: results then differ


def result_keys(config: Config) -> dict[str, Any]:
    """The flat configuration, without what changes no result, in JSON's own values; each key in memory once."""
    found = json.loads(files.to_json(identity.result_keys(config.flat())))
    return {sys.intern(key): value for key, value in found.items()}


def config_hash(config: Config) -> str:
    """Equal for configurations with equal results."""
    return files.digest(result_keys(config))


def code(config: Config) -> dict[str, Any]:
    """What computes: the version of our results, those of packages, and a hash of every source file of the user's own.

    No user's code runs: whoever asks may only want to look.
    """
    own = [sources(target) for target in config.targets().values()]
    return {"results": RESULTS, **_versions(), **{module: hash for one in own for module, hash in one.items()}}


def sources(target: str) -> dict[str, str]:
    """Hash the source files of the user's own that a dotted path runs, by the names of their modules."""
    return {
        module: files.digest(path.read_bytes()) for module, path in own_code.sources(target.rpartition(".")[0]).items()
    }


@functools.cache
def environment() -> dict[str, Any]:
    """Versions of what computes, and the commit of this code where it stands in a git checkout."""
    here = Path(__file__).parents[1]
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "hydra-core", "tensorboard")}
    commit = None
    if (here.parent / ".git").exists():
        command = ["git", "-C", str(here), "rev-parse", "HEAD"]
        with suppress(OSError):  # no git, or no process can be started
            commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return {"versions": {"python": platform.python_version(), **versions}, "git_commit": commit}


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """The keys in which two flat mappings differ."""
    return {key for key in {**was, **now} if was.get(key) != now.get(key)}


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """'key was 1, is 2' for each key of two flat mappings."""
    keys = changed(was, now)
    return [f"{key} was {_show(was.get(key))}, is {_show(now.get(key))}" for key in {**was, **now} if key in keys]


@functools.cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "numpy")}


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
