"""Read a run of this trainer: metrics.csv, and what summary.json says of it and of its checksums."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from trainer.files import Damaged, check_bytes, is_sealed, sealed_json
from trainer.read import bounded
from trainer.read.bounded import Missing, Unreadable
from trainer.read.configs import recorded_config, recorded_overrides
from trainer.read.curves import Curves, Search
from trainer.read.numbers import number

_LOSSES = ("eval/train_loss", "val/loss")
_ACCURACIES = ("eval/train_accuracy", "val/accuracy")
_SIDES = {"train": "eval/train_", "val": "val/"}
_READ = {"metrics.csv", ".hydra/config.yaml"}  # what a verdict comes from


def read_run(search: Search, folder: Path) -> Curves | None:
    """Read the run of a folder with a metrics.csv; None where that file is another tool's.

    Raises Unreadable; Damaged where the file, or what else a verdict comes from, is not what was written.
    """
    path = folder / "metrics.csv"
    content = bounded.content(path, bounded.MOST_TABLE)
    summary, sealed = read_summary(search, folder)
    if sealed:
        _check_written(folder, summary.get("files"), content)
    rows = bounded.table_rows(content, path)
    header = next(rows, [])
    if "epoch" not in header or _LOSSES[0] not in header:
        return None
    metrics = {f"{side}_{name}": f"{tag}{name}" for name in _metrics(summary) for side, tag in _SIDES.items()}
    wanted = [name for name in ("epoch", *_LOSSES, *_ACCURACIES, *metrics.values()) if name in header]
    epoch, cells_of = header.index("epoch"), itemgetter(*map(header.index, wanted))
    cells = [cells_of(row) if len(row) == len(header) and _counts(row[epoch]) else None for row in rows]
    whole = list(zip(*filter(None, cells), strict=True)) or [()] * len(wanted)
    columns = {name: _numbers(column) for name, column in zip(wanted, whole, strict=True)}
    broken = cells.count(None)
    notes = [f"{path}: {broken} broken row{'s' * (broken != 1)} left out"] if broken else []
    search.problems += notes
    config: dict[str, Any] = {}
    with search.skipping():
        config = recorded_config(summary, folder)
    overrides = None
    with search.skipping():
        overrides = recorded_overrides(folder)
    return Curves(
        path=str(folder),
        name=search.name(folder),
        source="trainer",
        epochs=columns["epoch"],
        train_loss=columns[_LOSSES[0]],
        val_loss=columns.get(_LOSSES[1]),
        train_accuracy=columns.get(_ACCURACIES[0]),
        val_accuracy=columns.get(_ACCURACIES[1]),
        metrics={name: columns[tag] for name, tag in metrics.items() if tag in columns},
        config=config,
        summary=summary,
        overrides=overrides,
        notes=tuple(notes),
    )


def _metrics(summary: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics that a summary says which direction is better of."""
    found = summary.get("metrics")
    return [str(name) for name in found] if isinstance(found, dict) else []


def _counts(cell: str) -> bool:
    """Whether a cell holds the number of an epoch."""
    epoch = number(cell)
    return epoch is not None and math.isfinite(epoch)


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """Read cells as (N,) float64; nan for one that holds no number."""
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        return np.array([np.nan if (value := number(cell)) is None else value for cell in cells])


def read_summary(search: Search, folder: Path) -> tuple[dict[str, Any], bool]:
    """Read our summary.json, and whether it is sealed; empty where it is not written yet, or no use.

    Without a checksum it is of an earlier version, or cut. Raises Damaged where the checksum does not match.
    """
    path = folder / "summary.json"
    try:
        content = bounded.content(path, bounded.MOST_DOCUMENT)
        sealed = is_sealed(content)
        found = bounded.json_document(sealed_json(content, path) if sealed else content, path)
        if not isinstance(found, dict):
            raise Unreadable(f"{path}: cannot be read: found {type(found).__name__}")
    except Missing:
        return {}, False
    except Unreadable as error:
        search.problems.append(f"{error}; the run is judged without its test results")
        return {}, False
    return found, sealed


def _check_written(folder: Path, states: Any, metrics: bytes) -> None:
    """Raise Damaged where the files that a verdict comes from are not those that the summary was sealed with."""
    for name in _READ:
        state = states.get(name) if isinstance(states, dict) else None
        if not isinstance(state, dict):
            continue
        try:
            content = metrics if name == "metrics.csv" else bounded.content(folder / name, bounded.MOST_DOCUMENT)
        except Unreadable as error:
            raise Damaged(str(error)) from error
        check_bytes(content, folder / name, state)


def not_run(sweep: Path) -> list[str]:
    """Say which runs of a sweep of ours left nothing that could be judged: a value of theirs was refused."""
    path = sweep / "sweep.json"
    try:
        found = bounded.json_document(bounded.content(path, bounded.MOST_DOCUMENT), path)
    except Unreadable:
        return []
    rows = found.get("runs") if isinstance(found, dict) else None
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    errors = [str(row.get("error")) for row in rows if row.get("status") == "failed" and not row.get("epochs")]
    counts = Counter(errors)
    return [f"{sweep}: {count} of {len(rows)} runs did not run: {error}" for error, count in counts.items()]
