"""Find the runs below some paths, this trainer's and other tools', and read their curves of training and validation.

A folder with our metrics.csv is a run of ours. Else a folder whose event files hold a training and a validation loss
is a run, or a folder whose sub-folders hold one each (Keras), or a CSV file with both (Lightning's, Keras's CSVLogger).
"""

import csv
import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.files import Damaged, check_bytes, is_sealed, unseal
from trainer.read import other_tools
from trainer.read.configs import read_config, recorded_config

_LOSSES = ("eval/train_loss", "val/loss")
_ACCURACIES = ("eval/train_accuracy", "val/accuracy")
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d{9,}")
_READ = {"metrics.csv", ".hydra/config.yaml"}  # what a verdict comes from
_SKIPPED = {"checkpoints", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Curves:
    """One run: its curves, each (N,) or None, over `epochs` (N,); and what its files say about it."""

    path: str
    name: str  # the path below what was given
    source: str  # trainer, events or csv
    epochs: np.ndarray  # epochs from 1 in our runs, steps as they were logged in others
    train_loss: np.ndarray
    val_loss: np.ndarray | None
    train_accuracy: np.ndarray | None = None
    val_accuracy: np.ndarray | None = None
    config: dict[str, Any] = field(default_factory=dict)  # flat: {"optimizer.lr": 0.1}
    summary: dict[str, Any] = field(default_factory=dict)  # our summary.json
    notes: tuple[str, ...] = ()  # what was unusual about its files, a sentence each

    def recorded(self, *keys: str) -> Any:
        """Return an entry of summary.json; None where the file does not have it."""
        found: Any = self.summary
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found


@dataclass
class _Search:
    train_tag: str | None
    val_tag: str | None
    base: Path  # names are given below it
    runs: list[Curves] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    files: int = 0


def find_runs(
    paths: Iterable[str | os.PathLike[str]], train_tag: str | None = None, val_tag: str | None = None
) -> tuple[list[Curves], list[str]]:
    """Return every run below `paths` in natural order, and a sentence about whatever could not be used.

    The tags name the losses of other tools' runs; where they are None, the names are guessed. Raises ValueError where a
    path does not exist, or where no run is found, with what was found instead.
    """
    paths = [Path(path) for path in paths]
    missing = [_no_such_path(path) for path in paths if not path.exists()]
    if missing:
        raise ValueError("\n".join(missing))
    base = paths[0] if len(paths) == 1 else Path(os.path.commonpath([path.absolute() for path in paths]))
    search = _Search(train_tag, val_tag, base.parent if base.is_file() else base)
    for path in paths:
        if path.is_file():
            _guarded(_read_file, search, path)
        else:
            for place, folders, files in os.walk(path):
                _guarded(_read_folder, search, Path(place), folders, files)
    runs = {os.path.realpath(run.path): run for run in search.runs}  # a path given twice, or inside another
    if not runs:
        raise ValueError(_no_runs(search, paths))
    return sorted(runs.values(), key=lambda run: _natural(run.path)), search.problems


def _guarded(read: Callable[..., None], search: _Search, place: Path, *listing: list[str]) -> None:
    """Skip and report a file that cannot be opened, or is no text where text is expected."""
    try:
        read(search, place, *listing)
    except (OSError, csv.Error) as error:
        search.problems.append(f"{place}: cannot be read: {error}")
    except Damaged as damage:
        search.problems.append(f"{damage}; python -m trainer resume=DIR trains the run again")


def _read_folder(search: _Search, folder: Path, folders: list[str], files: list[str]) -> None:
    """Read the runs in one folder; remove from `folders` what need not be walked into."""
    hydra = ".hydra" in folders
    folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
    search.files += len(files)
    if "metrics.csv" in files and (run := _read_ours(search, folder)) is not None:
        search.runs.append(run)
        folders.clear()
        return
    found = len(search.runs)
    _read_role_folders(search, folder, folders)
    series: dict[str, other_tools.Series] = {}
    event_files = [name for name in files if "tfevents" in name]
    for path, names in _one_run_each(folder, event_files):
        series, notes = other_tools.read_event_folder(folder, names)
        _add(search, series, path, "events", notes)
    if len(search.runs) == found:
        for name in sorted(files):  # a sweep's table has one row per run: no curve
            if name.endswith(".csv") and not (name == "sweep.csv" and "sweep.json" in files):
                _add(search, other_tools.read_csv(folder / name), folder / name, "csv", [])
    if len(search.runs) > found:
        return
    if hydra and "summary.json" in files:
        status = _read_summary(search, folder).get("error") or "it has no metrics.csv"
        search.problems.append(f"{folder}: nothing to judge: {status}")
    elif series:
        search.problems.append(_no_losses(search, folder, series))


def _one_run_each(folder: Path, event_files: list[str]) -> list[tuple[Path, list[str]]]:
    """Split event files into runs: those of a folder are one, as in TensorBoard, unless they were renamed."""
    if len(event_files) > 1 and not all(_EVENT_FILE.match(name) for name in event_files):
        return [(folder / name, [name]) for name in sorted(event_files)]
    return [(folder, event_files)] if event_files else []


def _read_file(search: _Search, path: Path) -> None:
    search.files += 1
    if path.name == "metrics.csv" and (run := _read_ours(search, path.parent)) is not None:
        search.runs.append(run)
    elif path.suffix == ".csv":
        _add(search, other_tools.read_csv(path), path, "csv", [])
    else:
        series, notes = other_tools.read_event_folder(path.parent, [path.name])
        if not _add(search, series, path, "events", notes):
            search.problems.append(_no_losses(search, path, series) if series else "\n".join(notes))


def _read_role_folders(search: _Search, folder: Path, names: list[str]) -> None:
    """Read runs kept in sub-folders by role, as Keras does; remove these from `names`, so that they are read once."""
    for subject, parts in other_tools.role_folders(names).items():
        series: dict[str, other_tools.Series] = {}
        notes: list[str] = []
        for part in parts:
            files = [name for name in os.listdir(folder / part) if "tfevents" in name]
            read, problems = other_tools.read_event_folder(folder / part, files)
            series |= {f"{part}/{tag}": points for tag, points in read.items()}
            notes += problems
        place = folder / subject if subject else folder
        if series and _add(search, series, place, "events", notes):
            names[:] = [name for name in names if name not in parts]


def _add(search: _Search, series: dict[str, other_tools.Series], path: Path, source: str, notes: list[str]) -> bool:
    """Add the run in the series to the search; return whether there is one."""
    chosen = other_tools.choose(series, search.train_tag, search.val_tag)
    if chosen is None:
        return False
    folder = path if path.is_dir() else path.parent
    run = Curves(
        path=str(path),
        name=_name(search, path),
        source=source,
        epochs=chosen.steps,
        train_loss=chosen.train_loss,
        val_loss=chosen.val_loss,
        train_accuracy=chosen.train_accuracy,
        val_accuracy=chosen.val_accuracy,
        config=read_config(folder / "hparams.yaml") or read_config(folder / ".hydra" / "config.yaml"),
        notes=(f"losses: {chosen.tags.train_loss} and {chosen.tags.val_loss}", *notes, *chosen.notes),
    )
    search.runs.append(run)
    search.problems += notes
    return True


def _no_losses(search: _Search, place: Path, series: dict[str, other_tools.Series]) -> str:
    """Say why a place with recorded scalars is no run, and what to type."""
    losses = sorted(series, key=lambda tag: ("loss" not in tag.lower(), tag))
    shown = ", ".join(losses[:8]) + (f" and {len(losses) - 8} more" if len(losses) > 8 else "")
    wanted = " and ".join(
        f"{option} {tag}" if tag else f"a {side} loss by a common name"
        for side, option, tag in (
            ("training", "--train-tag", search.train_tag),
            ("validation", "--val-tag", search.val_tag),
        )
    )
    return f"{place}: found the tags {shown}; expected {wanted}; name them with --train-tag TAG --val-tag TAG"


def _no_runs(search: _Search, paths: list[Path]) -> str:
    where = ", ".join(map(str, paths))
    if search.problems:
        return f"{where}: no run that can be judged\n" + "\n".join(search.problems[:10])
    found = f"{search.files} files, none of them a run's" if search.files else "nothing"
    return (
        f"{where}: found {found}; expected folders with metrics.csv (this trainer), or TensorBoard event files or "
        "CSV files with a training and a validation loss; a sweep lies in outputs/sweeps/<date>/<time>"
    )


def _no_such_path(path: Path) -> str:
    """Say that a path is missing, with the nearest name that exists."""
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    wanted = path.relative_to(parent).parts[0]
    near = difflib.get_close_matches(wanted, os.listdir(parent) if parent.is_dir() else [], n=1, cutoff=0.6)
    hint = f"did you mean {parent / near[0]}?" if near else f"{parent} is there, {wanted} in it is not"
    return f"{path}: no such file or folder; {hint}"


# ------------------------------------------------------------------ our own runs


def _read_ours(search: _Search, folder: Path) -> Curves | None:
    """Read the run of a folder with a metrics.csv; None where that file is another tool's."""
    content = (folder / "metrics.csv").read_bytes()
    sealed = _read_sealed(folder)
    for name, state in sealed.get("files", {}).items():
        if name in _READ:
            check_bytes((folder / name).read_bytes(), folder / name, state)
    text = other_tools.without_nul(content.decode(errors="replace"))
    rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))  # without a row still being written
    if not rows or "epoch" not in rows[0] or _LOSSES[0] not in rows[0]:
        return None
    header, *rows = rows
    epoch = header.index("epoch")
    whole = [row for row in rows if len(row) == len(header) and _counts(row[epoch])]
    broken = len(rows) - len(whole)
    notes = [f"{folder / 'metrics.csv'}: {broken} broken row{'s' * (broken != 1)} left out"] if broken else []
    cells = dict(zip(header, zip(*whole, strict=True), strict=False))  # no rows, no columns
    wanted = [name for name in ("epoch", *_LOSSES, *_ACCURACIES) if name in header]
    columns = {name: _numbers(cells.get(name, ())) for name in wanted}
    search.problems += notes
    summary = sealed or _read_summary(search, folder)
    return Curves(
        path=str(folder),
        name=_name(search, folder),
        source="trainer",
        epochs=columns["epoch"],
        train_loss=columns[_LOSSES[0]],
        val_loss=columns.get(_LOSSES[1]),
        train_accuracy=columns.get(_ACCURACIES[0]),
        val_accuracy=columns.get(_ACCURACIES[1]),
        config=recorded_config(summary, folder),
        summary=summary,
        notes=tuple(notes),
    )


def _counts(cell: str) -> bool:
    """Whether a cell holds the number of an epoch."""
    epoch = other_tools.number(cell)
    return epoch is not None and math.isfinite(epoch)


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """Read cells as (N,) float64; nan for one that holds no number."""
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        return np.array([number if (number := other_tools.number(cell)) is not None else np.nan for cell in cells])


def _read_sealed(folder: Path) -> dict[str, Any]:
    """Read our summary.json; empty without a checksum. Raises Damaged where the checksum does not match."""
    path = folder / "summary.json"
    content = path.read_bytes() if path.exists() else b""
    return unseal(content, path) if is_sealed(content) else {}


def _read_summary(search: _Search, folder: Path) -> dict[str, Any]:
    """Read a summary.json without a checksum: of an earlier version, or cut. Empty where it is not written yet."""
    path = folder / "summary.json"
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        search.problems.append(f"{path}: damaged, no JSON; the run is judged without its test results")
        return {}
    return found if isinstance(found, dict) else {}


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a sort key by which run 10 comes after run 9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]


def _name(search: _Search, path: Path) -> str:
    name = os.path.relpath(path, search.base)
    return path.resolve().name if name == "." else name
