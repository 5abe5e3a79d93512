"""`.resume/plan.json` as it lies there: its checksum says that it is whole, not that this trainer wrote it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trainer import files
from trainer.files import Damaged
from trainer.record.destination import is_event_file

FOLDER = ".resume"


def path_of(directory: Path) -> Path:
    """Return where the plan of a directory lies, if it has one."""
    return directory / FOLDER / "plan.json"


def read_plan(directory: Path) -> dict[str, Any]:
    """The plan of a directory; an empty one where there is none.

    Raises Damaged where it is not what was written, or of another shape, or names a file outside the directory.
    """
    path = path_of(directory)
    try:
        plan = files.read_sealed(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"command": [], "runs": {}, "stacks": {}}
    if not _is_plan(plan):
        raise Damaged(f"{path}: is no plan of this trainer's")
    for name in plan["runs"]:
        files.inside(directory, name)
    return plan


def _is_plan(plan: dict[str, Any]) -> bool:
    """Whether a plan has the shape that it is read by; names of stacks become names of files."""
    runs, stacks = plan.get("runs"), plan.get("stacks")
    return (
        _is_list_of_texts(plan.get("command"))
        and isinstance(runs, dict)
        and all(_is_run(run) for run in runs.values())
        and isinstance(stacks, dict)
        and all(re.fullmatch(r"[0-9]{1,9}(\.[01])*", name) and _is_stack(entry) for name, entry in stacks.items())
    )


def _is_run(run: Any) -> bool:
    return (
        isinstance(run, dict)
        and all(isinstance(run.get(key), dict) for key in ("config", "code"))
        and ("events" not in run or is_event_file(run["events"]))
    )


def _is_stack(entry: Any) -> bool:
    if not isinstance(entry, dict) or not _is_list_of_texts(entry.get("runs")):
        return False
    return type(entry.get("workers")) is int and isinstance(entry.get("threads"), int | None)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
