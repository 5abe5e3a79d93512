"""What is somebody else's: no command trains in, or writes through, what it does not know."""

import os
from collections.abc import Iterable
from pathlib import Path

from trainer.config import ConfigError
from trainer.engine import lock
from trainer.engine.resume.plan_file import path_of
from trainer.text import few

PLAN = path_of(Path()), "plan to continue by"  # what makes a directory ours, and its name


def not_ours(directory: Path, ours: tuple[Path, str] = PLAN) -> list[str]:
    """Return what keeps a command from training in a directory without a plan: whatever is there is somebody's."""
    mark, name = ours
    if (directory / mark).exists() or not os.path.lexists(directory):
        return []
    if not directory.is_dir():
        return [f"{directory}: is no directory; choose another"]
    found = sorted(path.name for path in directory.iterdir() if path.name != lock.NAME)
    why = f"holds {few(found, 5)}, but no {name}; nothing was touched, choose another directory"
    return [f"{directory}: {why}"] if found else []


def refuse(directory: Path, ours: tuple[Path, str] = PLAN) -> None:
    """Raise ConfigError with what `not_ours` says; nothing is touched."""
    if problems := not_ours(directory, ours):
        raise ConfigError(problems)


def links(paths: Iterable[Path]) -> list[str]:
    """Return the links among folders that are written into: they may lead anywhere."""
    found = sorted(path for path in set(paths) if path.is_symlink())
    return [f"{path}: is a link, which may lead out of this directory; remove it" for path in found]
