"""Read curves that other tools recorded: event files and CSV files in a folder, whatever their tags are called."""

import csv
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainer.judge.curves import align
from trainer.read import tag_names
from trainer.read.bounded import (
    MOST_LINE,
    MOST_NUMBERS,
    MOST_TABLE,
    Unreadable,
    in_utf8,
    opened,
    parsed,
    rest,
    table_rows,
)
from trainer.read.event_files import read_scalars
from trainer.read.tag_names import Tags

_MOST_STEPS = 1e15  # a step beyond is none: floats do not count so far
_UNIT_RATIO = 4  # a curve whose steps go this many times further than the other's counts steps, the other epochs


class Series(NamedTuple):
    """A tag's points, each (N,): ascending steps, each once, and values."""

    steps: np.ndarray
    values: np.ndarray


class Recorded(NamedTuple):
    """A run's curves, each (N,) or None, over `steps` as they were logged."""

    tags: Tags
    steps: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    train_accuracy: np.ndarray | None
    val_accuracy: np.ndarray | None
    notes: list[str]


def read_event_folder(folder: Path, files: Iterable[str]) -> tuple[dict[str, Series], list[str]]:
    """Read all scalars of a folder's event files, later files last, with a sentence about whatever was wrong."""
    pieces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    notes = []
    for name in sorted(files):
        try:
            scalars, problems = read_scalars(folder / name)
        except Unreadable as error:
            notes.append(str(error))
            continue
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            notes.append(f"{folder / name}: {problems[0]}{more}")
        for tag, points in scalars.items():
            pieces.setdefault(tag, []).append((points.steps, points.values))
    return {tag: _in_order(*map(np.concatenate, zip(*parts, strict=True))) for tag, parts in pieces.items()}, notes


def read_csv(path: Path, train_tag: str | None = None, val_tag: str | None = None) -> dict[str, Series] | None:
    """Read a CSV file's curves over its `step` or `epoch` column, or over its rows; None without columns of losses.

    Lightning's CSVLogger leaves cells empty, Keras's separator is the user's choice, a last line may be half-written,
    and what PowerShell's `>` writes is UTF-16. Raises Unreadable.
    """
    with opened(path) as file:
        first, following = file.readline(MOST_LINE), None
        if json.detect_encoding(first).startswith(("utf-16", "utf-32")):
            first, _, following = in_utf8(first + rest(file, path, MOST_TABLE)).partition(b"\n")
        header = first.decode("utf-8-sig", errors="replace")
        delimiter = max(",;\t", key=header.count)
        with parsed(path):
            names = [
                name.strip() for name in next(csv.reader([header.replace("\0", "\ufffd")], delimiter=delimiter), [])
            ]
        if tag_names.guess(dict.fromkeys(names, 2), train_tag, val_tag) is None:
            return None  # some other table, perhaps a large one
        if len(first) >= MOST_LINE:
            raise Unreadable(f"{path}: cannot be read: its first line has more than {MOST_LINE:,} bytes")
        following = rest(file, path, MOST_TABLE) if following is None else following
        rows = table_rows(following, path, delimiter)
        return _columns(rows, path, names, tag_names.candidates(names, train_tag, val_tag))


def _columns(rows: Iterable[Sequence[str]], path: Path, names: Sequence[str], curves: set[str]) -> dict[str, Series]:
    """Gather the curves among a table's columns, over the first axis that counts anything, or else over the rows."""
    axes = [name for name in ("step", "global_step", "epoch") if name in names]
    place = {name: i for i, name in enumerate(names) if name in curves or name in axes}
    cells = {name: (array("q"), array("d")) for name in place}  # rows, and the numbers in them
    count, left = 0, MOST_NUMBERS
    for count, row in enumerate(rows, 1):
        for name, i in place.items():
            if i < len(row) and (value := number(row[i])) is not None:
                numbered, values = cells[name]
                numbered.append(count - 1)
                values.append(value)
        left -= min(len(row), len(place))
        if left < 0:
            raise Unreadable(f"{path}: cannot be read: more than {MOST_NUMBERS:,} numbers")
    columns = {name: (np.array(numbered), np.array(values)) for name, (numbered, values) in cells.items()}
    steps_N = np.arange(count, dtype=np.float64)
    if (axis := next((columns[name] for name in axes if columns[name][1].any()), None)) is not None:
        steps_N = np.full(count, np.nan)
        steps_N[axis[0]] = axis[1]
    steps_N[~(np.abs(steps_N) < _MOST_STEPS)] = np.nan
    series = {}
    for name in place:
        numbered, values = columns[name]
        counted = np.isfinite(steps_N[numbered])
        if counted.any():
            series[name] = _in_order(steps_N[numbered][counted], values[counted])
    return series


def choose(series: Mapping[str, Series], train_tag: str | None, val_tag: str | None) -> Recorded | None:
    """Pick the losses and accuracies out of a run's series, at common steps; None where there are no two losses."""
    found = tag_names.guess({name: len(points.steps) for name, points in series.items()}, train_tag, val_tag)
    if found is None:
        return None
    train, val = series[found.train_loss], series[found.val_loss]
    notes = []
    slope, offset = 1.0, 0.0
    if len(train.steps) == len(val.steps):
        steps, train_loss, val_loss = val.steps, train.values, val.values  # each has one value per epoch
    else:
        slope, offset = _units(train.steps, val.steps)
        if slope != 1.0:
            notes.append(f"{found.train_loss} and {found.val_loss} count different steps: taken to span the same run")
        steps, train_loss, val_loss = align(
            np.round(train.steps * slope + offset, 6), train.values, val.steps, val.values
        )
    train_accuracy = None if found.train_accuracy is None else _onto(steps, series[found.train_accuracy], slope, offset)
    val_accuracy = None if found.val_accuracy is None else _onto(steps, series[found.val_accuracy], 1.0, 0.0)
    return Recorded(found, steps, train_loss, val_loss, train_accuracy, val_accuracy, notes)


def _units(train_steps: np.ndarray, val_steps: np.ndarray) -> tuple[float, float]:
    """Return slope and offset from training steps to validation steps: 1 and 0, unless one of them counts epochs."""
    if min(len(train_steps), len(val_steps)) < 3:
        return 1.0, 0.0
    # a value stands for the stretch that ends at its step, so a curve begins one distance before its first step
    (train_begin, train_end), (val_begin, val_end) = (
        (steps[0] - np.median(np.diff(steps)), steps[-1]) for steps in (train_steps, val_steps)
    )
    slope = (val_end - val_begin) / (train_end - train_begin)
    if 1 / _UNIT_RATIO < slope < _UNIT_RATIO:
        return 1.0, 0.0
    return slope, val_begin - train_begin * slope


def _onto(steps: np.ndarray, series: Series, slope: float, offset: float) -> np.ndarray:
    if len(series.steps) == len(steps):
        return series.values
    if len(series.steps) > len(steps):
        return align(series.steps * slope + offset, series.values, steps, steps)[1]
    return np.interp(steps, series.steps * slope + offset, series.values)


def _in_order(steps: np.ndarray, values: np.ndarray) -> Series:
    """Sort by step, keeping the last value of each (a resumed run); points that all have one step count as written."""
    steps = steps.astype(np.float64)  # the difference of two integers can be too large for one
    if len(steps) > 1 and (steps == steps[0]).all():
        return Series(np.arange(len(steps), dtype=np.float64), values)
    if (np.diff(steps) > 0).all():
        return Series(steps, values)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(np.diff(steps) > 0, True)
    return Series(steps[last], values[last])


def number(value: Any) -> float | None:
    """Return the number in a CSV cell or in JSON, where "nan" and "inf" are text; None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def role_folders(names: Sequence[str]) -> dict[str, list[str]]:
    """Group sub-folders that hold the sides of one run, by its name: Keras's `train` and `validation` make up ''."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if tag_names.role(name) is not None:
            groups.setdefault(tag_names.subject(name), []).append(name)
    return {subject: parts for subject, parts in groups.items() if len({tag_names.role(part) for part in parts}) == 2}
