"""Read a run of MLflow's file store: a folder with a file for each metric, parameter and tag. MLflow is not needed."""

from array import array
from pathlib import Path
from typing import Any

import numpy as np

from trainer.read.bounded import (
    MOST_DOCUMENT,
    MOST_KEYS,
    MOST_NUMBERS,
    MOST_ROWS,
    MOST_TABLE,
    MOST_TEXT,
    Unreadable,
    content,
    is_folder,
    listing,
    shortened,
)
from trainer.read.curves import Series
from trainer.read.numbers import number, setting

_DEEPEST = 8  # folders that the name of a metric makes: train/loss
_MOST_METRICS = 10_000


def is_run(folders: list[str], files: list[str]) -> bool:
    """Whether a folder with these is one."""
    return "metrics" in folders and "meta.yaml" in files


def read_run(folder: Path) -> tuple[dict[str, Series], dict[str, Any], str, list[str]]:
    """Return a run's curves in the order of their files, its parameters, its name, and what could not be read."""
    problems: list[str] = []
    series: dict[str, Series] = {}
    left = MOST_NUMBERS
    for name, path in _files(folder / "metrics", problems):
        steps, values = array("d"), array("d")
        try:
            lines = content(path, MOST_TABLE).decode("utf-8", "replace").split("\n", MOST_ROWS)
        except Unreadable as error:
            problems.append(str(error))
            continue
        for line in lines[:MOST_ROWS]:
            row = line.split(None, 3)  # time in ms, value, step
            value, step = (number(row[1]), number(row[2] if len(row) > 2 else 0)) if len(row) > 1 else (None, None)
            if value is not None and step is not None:
                steps.append(step)
                values.append(value)
        left -= len(steps)
        if left < 0:
            raise Unreadable(f"{folder}: cannot be read: more than {MOST_NUMBERS:,} numbers")
        if steps:
            series[name] = Series(np.array(steps), np.array(values))
    config: dict[str, Any] = {}
    for name, path in _files(folder / "params", problems):
        if len(config) < MOST_KEYS and (text := _text(path)):
            config[shortened(name, MOST_TEXT)] = setting(shortened(text, MOST_TEXT))
    return series, config, _text(folder / "tags" / "mlflow.runName"), problems


def _files(folder: Path, problems: list[str]) -> list[tuple[str, Path]]:
    """Return the files below a folder with their names, in which / makes folders."""
    found: list[tuple[str, Path]] = []
    waiting = [("", folder, 0)]
    while waiting and len(found) < _MOST_METRICS:
        prefix, place, depth = waiting.pop()
        try:
            entries = listing(place)
        except Unreadable as error:
            problems += [str(error)] if depth else []
            continue
        for entry in sorted(entries, key=lambda one: one.name):
            if not is_folder(entry):
                found.append((f"{prefix}{entry.name}", place / entry.name))
            elif depth < _DEEPEST and not entry.is_symlink():
                waiting.append((f"{prefix}{entry.name}/", place / entry.name, depth + 1))
    return sorted(found[:_MOST_METRICS])


def _text(path: Path) -> str:
    try:
        return content(path, MOST_DOCUMENT).decode("utf-8", "replace").strip()
    except Unreadable:
        return ""
