"""Where the runs of a folder lie, those included that were refused and have no folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.config import ConfigError

Row = Mapping[str, Any]  # what sweep.json says of a run


def below(folder: Path) -> list[tuple[Path | None, Row | None]]:
    """Return all runs below a folder, in the order of their names: as `of_row`. Raises ConfigError if there is none."""
    from trainer.read.configs import FINAL, VERSUS
    from trainer.read.find_runs import natural

    if not folder.is_dir():
        raise ConfigError([f"{folder}: no such folder"])
    runs: dict[str, tuple[Path | None, Row | None]] = {}
    for place, inside, names in os.walk(folder.absolute()):
        if ".hydra" in inside:
            runs[place] = Path(place), None
            inside.clear()
        inside[:] = [name for name in inside if not name.startswith(".")]
        if VERSUS in names and FINAL in inside:
            inside[:] = [FINAL]
        if "sweep.json" in names:
            runs |= {os.path.join(place, str(row["run"])): (None, row) for row in _refused(Path(place))}
    if not runs:
        raise ConfigError([f"{folder}: holds no run; a sweep lies in outputs/sweeps/<date>/<time>"])
    return [runs[place] for place in sorted(runs, key=natural)]


def of_row(row: Row) -> tuple[Path | None, Row | None]:
    """Return a run's folder; of one that was refused what sweep.json says of it."""
    folder = Path(row["directory"]).absolute()
    return (folder, None) if (folder / ".hydra").is_dir() else (None, row)


def shown(folder: Path | None) -> str | None:
    """Return a folder's path from the current one, where it lies below it."""
    if folder is None:
        return None
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _refused(sweep: Path) -> Iterator[Row]:
    from trainer.read.bounded import MOST_TABLE, Unreadable, content

    try:
        rows = json.loads(content(sweep / "sweep.json", MOST_TABLE))["runs"]
    except (Unreadable, ValueError, KeyError, TypeError):
        return
    for row in rows:
        if isinstance(row, dict) and row.get("status") == "failed" and Path(row["directory"]).name == sweep.name:
            yield row
