"""Columns of a table that any program wrote, and the runs in it: wide or long, one run or many. Pure.

A table is wide (a column a tag) or long (a column that names the tag, one with its value). Its rows may belong to
several runs, told apart by a column (run, fold, seed), or its columns may (`run-a - train_loss`).
"""

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from trainer.read import tag_names
from trainer.read.bounded import MOST_NUMBERS, MOST_TEXT, shortened
from trainer.read.columns import MOST_RUNS, by_column
from trainer.read.curves import Series
from trainer.read.numbers import setting

MOST_STEP = 1e15  # a step beyond is none: floats do not count so far
_MOST_WORDS = 30  # columns that are neither a curve nor an axis and are kept
_MOST_CELLS = 4_000_000  # of these
MOST_TAGS = 20_000  # that a long table names
_TAG = {"tag", "metric", "variable", "name", "key", "measure", "series", "scalar", "metric name", "metric key"}
_VALUE = {"value", "values", "metric value", "y"}
_RUN = {"run", "trial", "experiment", "exp", "job", "replicate", "replica", "repeat", "repetition", "rep", "fold"}
_RUN |= {"cv fold", "k fold", "kfold", "seed", "random seed", "random state", "run seed", "model", "method"}
_RUN |= {"algorithm", "optimizer", "optimiser", "variant", "config", "setting", "architecture", "arch", "dataset"}
_RUN |= {"condition"}
_NOT_CONFIG = {"run", "trial", "experiment", "exp", "job", "name", "date", "time", "timestamp", "hostname", "host"}
_NOT_CONFIG |= {"pid"}
_KNOBS = {"lr", "learning rate", "seed", "batch size", "optimizer", "dropout", "weight decay", "momentum", "depth"}
_KNOBS |= {"width"}


@dataclass
class Table:
    """N rows: of curves and axes the rows that hold a number, and these; of other columns the words of each row."""

    names: list[str]  # of all columns, for messages
    rows: int = 0
    numbers: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # name -> rows, values
    words: dict[str, list[str]] = field(default_factory=dict)  # name -> (N,)


class Part(NamedTuple):
    """One run's part of a table, its points in the order of the file."""

    label: str  # what tells it from the others; "" of the only one
    series: dict[str, Series]
    config: dict[str, Any]
    unit: str  # of the steps: "epoch", "step", "iteration"


def normal(name: str) -> str:
    """Return a column's name in words, without whose side it is on and what counts it: `Train/Global_Step` -> step."""
    return " ".join(word for word in tag_names.words(name) if word not in _COUNTED and tag_names.role(word) is None)


_COUNTED = {"trainer", "time", "num", "number", "no", "n", "current", "total", "global", "idx", "index", "id", "count"}
_UNITS = {"step": "step", "steps": "step", "iter": "iteration", "iters": "iteration", "iteration": "iteration"}
_UNITS |= {"iterations": "iteration", "it": "iteration", "update": "step", "updates": "step"}
_UNITS |= {"epoch": "epoch", "epochs": "epoch", "ep": "epoch", "round": "round", "rounds": "round"}


def unit_of(name: str) -> str | None:
    """Return what a column counts, if it is an axis: epoch, step, iteration or round."""
    return _UNITS.get(normal(name))


def is_run(names: Sequence[str], train_tag: str | None = None, val_tag: str | None = None) -> bool:
    """Whether columns called so may hold curves, on one side at least."""
    plain = {normal(name) for name in names}
    long = bool(plain & _VALUE) and any(unit_of(name) for name in names)
    return long or bool(tag_names.candidates(names, train_tag, val_tag))


class Builder:
    """Gathers a table cell by cell, at most so many numbers."""

    def __init__(self, names: Sequence[str], rows: int, train_tag: str | None, val_tag: str | None) -> None:
        curves = tag_names.candidates(names, train_tag, val_tag)
        self.left = MOST_NUMBERS
        self.table = Table(list(names), rows)
        self.texts: dict[str, str] = {}  # each once
        others = []
        for name in dict.fromkeys(names):
            if name.endswith(("__MIN", "__MAX")):
                continue  # of Weights & Biases, beside a column of the mean
            if name in curves or unit_of(name) or normal(name) in _VALUE:
                self.table.numbers[name] = array("q"), array("d")
            elif name:
                others.append(name)
        kept = (
            others[:_MOST_WORDS]
            if len(others) * rows <= _MOST_CELLS
            else [n for n in others if normal(n) in _RUN | _TAG]
        )
        if len(kept) * rows <= _MOST_CELLS:
            self.table.words = {name: [""] * rows for name in kept}

    def number(self, row: int, name: str, value: float) -> None:
        """Take a number of a curve or an axis."""
        rows, values = self.table.numbers[name]
        rows.append(row)
        values.append(value)
        self.left -= 1

    def column(self, name: str, values: "array[float]") -> None:
        """Take a number in each row of a curve or an axis. Raises KeyError for another column."""
        self.table.numbers[name][0].extend(range(len(values)))
        self.table.numbers[name][1].extend(values)
        self.left -= len(values)

    def word(self, row: int, name: str, text: str) -> None:
        """Take the word of another column."""
        self.table.words[name][row] = self.texts.setdefault(text, text[:MOST_TEXT])

    def done(self) -> Table:
        """Return the table, its numbers as arrays."""
        table = self.table
        table.numbers = {name: (np.array(rows), np.array(values)) for name, (rows, values) in table.numbers.items()}
        table.words = {name: cells for name, cells in table.words.items() if any(cells)}
        return table


def parts(table: Table) -> list[Part]:
    """Split a table into its runs."""
    table = _wide(table)
    axes = {name: unit for name in table.numbers if (unit := unit_of(name))}
    runs = _runs_of_rows(table, axes)
    found = []
    for label, rows_N in runs:
        inside = {name: _within(cells, rows_N, table.rows) for name, cells in table.numbers.items()}
        steps_N, unit, epochs = _axis(inside, axes, table.rows)
        series = {}
        for name, (rows, values) in inside.items():
            if name in axes and name not in epochs:
                continue
            counted = np.isfinite(steps_N[rows]) & _told(values)
            if counted.any():
                series[name] = _by_epoch(steps_N[rows][counted], values[counted], unit)
        config = _config(table, rows_N, several=len(runs) > 1)
        found += [Part("/".join(filter(None, (label, own))), mine, config, unit) for own, mine in by_column(series)]
    return found


def _told(values: np.ndarray) -> np.ndarray:
    """Tell numbers from nan that fills cells: any, but for a stretch at the end that is longer than all before."""
    absent = np.isnan(values)
    if not absent.any() or absent.all():
        return np.ones(len(values), bool)
    last = len(values) - int(np.argmin(absent[::-1]))  # behind the last number
    ends = np.flatnonzero(~np.append(absent[:last], False))
    longest = int(np.diff(ends, prepend=-1).max()) - 1
    told = ~absent
    told[last:] = len(values) - last > longest
    return told


def _by_epoch(steps: np.ndarray, values: np.ndarray, unit: str) -> Series:
    """Average rows that follow each other within an epoch."""
    begins = np.flatnonzero(np.append(True, np.diff(steps) != 0))
    if unit != "epoch" or len(begins) in (1, len(steps)):
        return Series(steps, values)
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.add.reduceat(values, begins)
    return Series(steps[begins], sums / np.diff(np.append(begins, len(steps))))


def _within(
    cells: tuple[np.ndarray, np.ndarray], rows_N: np.ndarray | None, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    if rows_N is None:
        return cells
    mask = np.zeros(rows, bool)
    mask[rows_N] = True
    kept = mask[cells[0]]
    return cells[0][kept], cells[1][kept]


# ------------------------------------------------------------------ long tables


def _wide(table: Table) -> Table:
    """Give each tag of a long table, and each split of one with a column for it, a column of its own."""
    numbers = dict(table.numbers)
    tag = next((name for name in table.words if normal(name) in _TAG), None)
    value = next((name for name in numbers if normal(name) in _VALUE), None)
    split = next((name for name, cells in table.words.items() if _names_splits(cells)), None)
    if tag is not None and value is not None:
        columns = {value: table.words[tag]}
    else:
        columns = {name: [name] * table.rows for name in numbers if split and not unit_of(name)}
    if not columns:
        return table
    splits = table.words[split] if split else None
    for name, tags in columns.items():
        rows, values = numbers.pop(name)
        places: dict[str, list[int]] = {}
        for i, row in enumerate(rows.tolist()):
            called = f"{splits[row]}/{tags[row]}" if splits else tags[row]
            if called in places or len(places) < MOST_TAGS:
                places.setdefault(called, []).append(i)
        numbers |= {called: (rows[found], values[found]) for called, found in places.items()}
    words = {name: cells for name, cells in table.words.items() if name not in (tag, split)}
    return Table(table.names, table.rows, numbers, words)


def _names_splits(cells: Sequence[str]) -> bool:
    """Whether a column says of each row whether it is of training or of validation: train, val, test."""
    said = set(cells) - {""}
    if not 2 <= len(said) <= 6:
        return False
    return {"train", "val"} <= {tag_names.role(word) if len(tag_names.words(word)) == 1 else None for word in said}


# ------------------------------------------------------------------ runs in rows, and in columns


def _runs_of_rows(table: Table, axes: Mapping[str, str]) -> list[tuple[str, np.ndarray | None]]:
    """Tell runs apart by the columns that name them; where steps still repeat, by any of which each word begins one."""
    likely = [
        name for name, cells in table.words.items() if 2 <= len(set(cells) - {""}) <= min(MOST_RUNS, table.rows // 2)
    ]
    keys = [name for name in likely if normal(name) in _RUN]
    runs = _grouped(table, keys)
    axis = next((name for unit in ("epoch", "") for name in axes if axes[name].startswith(unit)), None)
    if axis is None:
        return runs
    steps_N = np.full(table.rows, np.nan)
    rows, values = table.numbers[axis]
    steps_N[rows] = values
    for name in likely:
        is_setting = normal(name) in _KNOBS
        if name in keys or not any(_repeats(steps_N, rows_N, is_setting) for _, rows_N in runs):
            continue
        finer = _grouped(table, [*keys, name])
        begins = {float(np.nanmin(part)) for _, rows_N in finer if np.isfinite(part := steps_N[_all(rows_N)]).any()}
        if len(begins) == 1 and len(finer) > len(runs):
            keys.append(name)
            runs = finer
    return runs


def _repeats(steps_N: np.ndarray, rows_N: np.ndarray | None, at_once: bool) -> bool:
    """Whether an axis comes back to a value after it has gone on, or has one more than once: batches of an epoch."""
    steps = steps_N[_all(rows_N)]
    steps = steps[np.isfinite(steps)]
    changes = steps if at_once else steps[np.append(True, np.diff(steps) != 0)[: len(steps)]]
    return len(np.unique(changes)) < len(changes)


def _all(rows_N: np.ndarray | None) -> Any:
    return slice(None) if rows_N is None else rows_N


def _grouped(table: Table, columns: Sequence[str]) -> list[tuple[str, np.ndarray | None]]:
    if not columns:
        return [("", None)]
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(zip(*(table.words[name] for name in columns), strict=True)):
        if any(key):
            groups.setdefault(key, []).append(row)
    if len(groups) > MOST_RUNS:
        return [("", None)]

    def label(key: Sequence[str]) -> str:
        numbers = re.compile(r"[-+0-9.e]*")
        named = [f"{name}={one}" if numbers.fullmatch(one) else one for name, one in zip(columns, key, strict=True)]
        return ",".join(shortened(one) for one in named)

    return [(label(key), np.array(rows)) for key, rows in groups.items()]


# ------------------------------------------------------------------ axes and configuration


def _axis(
    numbers: Mapping[str, tuple[np.ndarray, np.ndarray]], axes: Mapping[str, str], rows: int
) -> tuple[np.ndarray, str, set[str]]:
    """Return the step of each row (N,), its unit, and the columns that say which epoch a step is in.

    The first that counts anything; a step that starts again while epochs go on counts within an epoch.
    """
    found = {}
    for name, unit in axes.items():
        cells, values = numbers[name]
        if _varies(values):
            steps_N = np.full(rows, np.nan)
            steps_N[cells] = values
            steps_N[~(np.abs(steps_N) < MOST_STEP)] = np.nan
            found[name] = (unit, steps_N, _falls(values))
    epochs = [name for name, (unit, _, _) in found.items() if unit == "epoch"]
    others = [name for name in found if name not in epochs]
    fewest = min((found[name][2] for name in epochs), default=0)
    steps = [name for name in others if not epochs or found[name][2] <= fewest]
    if not steps and not epochs:
        return np.arange(rows, dtype=np.float64), "epoch", set()
    chosen = (steps or epochs)[0]
    return found[chosen][1], found[chosen][0], set(epochs) if steps else set()


def _varies(values: np.ndarray) -> bool:
    counted = values[np.abs(values) < MOST_STEP]
    return len(counted) > 0 and (len(counted) < 3 or bool((counted != counted[0]).any())) and bool(counted.any())


def _falls(values: np.ndarray) -> int:
    """Count how often an axis goes back."""
    with np.errstate(invalid="ignore"):
        return int((np.diff(values) < 0).sum())


def _config(table: Table, rows_N: np.ndarray | None, several: bool) -> dict[str, Any]:
    """Return what other columns hold all through a run: of the only run, what is known to be a setting."""
    config: dict[str, Any] = {}
    for name, cells in table.words.items():
        said = set(cells) if rows_N is None else {cells[row] for row in rows_N.tolist()}
        key = name.removeprefix("config/")
        plain = normal(name)
        is_setting = key != name or plain in _KNOBS or (several and not set(plain.split()) & _NOT_CONFIG)
        if len(said) == 1 and is_setting and (text := said.pop()):
            config["seed" if plain in ("fold", "cv fold", "k fold", "kfold") else key] = setting(text)
    return config
