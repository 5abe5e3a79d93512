"""Find the runs below some paths, this trainer's and other tools', and read their curves of training and validation.

A folder with our metrics.csv is a run of ours. Else a folder whose event files hold a training and a validation loss
is a run, or a folder whose sub-folders hold one each (Keras), or a CSV file with both (Lightning's, Keras's CSVLogger).
"""

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from trainer.files import Damaged, check_bytes, is_sealed, sealed_json
from trainer.read import bounded, other_tools
from trainer.read.bounded import Missing, Unreadable, shortened
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

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Go on after what cannot be read, and keep the sentence that says why."""
        try:
            yield
        except Unreadable as error:
            self.problems.append(str(error))
        except Damaged as damage:
            self.problems.append(f"{damage}; python -m trainer resume=DIR trains the run again")


class Problems(ValueError):
    """Why there is nothing to judge or to show, a problem a line."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def find_runs(
    paths: Iterable[str | os.PathLike[str]], train_tag: str | None = None, val_tag: str | None = None
) -> tuple[list[Curves], list[str]]:
    """Return every run below `paths` in natural order, and a sentence about whatever could not be used.

    The tags name the losses of other tools' runs; where they are None, the names are guessed. Raises ValueError where a
    path does not exist, or where no run is found, with what was found instead.
    """
    paths = [Path(path) for path in paths]
    missing = [_no_such_path(path) for path in paths if not os.path.exists(path)]
    if missing:
        raise Problems(missing)
    base = paths[0] if len(paths) == 1 else Path(os.path.commonpath([path.absolute() for path in paths]))
    search = _Search(train_tag, val_tag, base if base.is_dir() else base.parent)
    for path in paths:
        if not path.is_dir():
            with search.skipping():
                _read_file(search, path)
            continue
        for place, folders, files in _folders(search, path):
            with search.skipping():
                _read_folder(search, place, folders, files)
    runs = {os.path.realpath(run.path): run for run in search.runs}  # a path given twice, or inside another
    search.problems = list(dict.fromkeys(search.problems))
    if not runs:
        raise Problems(_no_runs(search, paths))
    return sorted(runs.values(), key=lambda run: _natural(run.path)), search.problems


def _folders(search: _Search, top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk through folders as os.walk does, however deep; one that cannot be listed is a problem.

    Links to folders are listed and not followed, so that none leads in a circle.
    """
    waiting = [top]
    while waiting:
        place = waiting.pop()
        entries: list[os.DirEntry[str]] = []
        with search.skipping():
            entries = bounded.listing(place)
        inside = {entry.name: entry for entry in entries if bounded.is_folder(entry)}
        folders = list(inside)
        yield place, folders, [entry.name for entry in entries if entry.name not in inside]
        waiting += [place / name for name in reversed(folders) if not inside[name].is_symlink()]


def _read_folder(search: _Search, folder: Path, folders: list[str], files: list[str]) -> None:
    """Read the runs in one folder; remove from `folders` what need not be walked into."""
    hydra = ".hydra" in folders
    folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
    search.files += len(files)
    found = len(search.runs)
    if "metrics.csv" in files:
        try:
            search.runs += _read_ours(search, folder)
        except Unreadable as error:  # where it is Damaged, the event files are not asked instead
            search.problems.append(str(error))
        if len(search.runs) > found:
            folders.clear()
            return
    _read_role_folders(search, folder, folders)
    series: dict[str, other_tools.Series] = {}
    event_files = [name for name in files if "tfevents" in name]
    for path, names in _one_run_each(folder, event_files):
        series, notes = other_tools.read_event_folder(folder, names)
        _add(search, series, path, "events", notes)
    if len(search.runs) == found:
        for name in sorted(files):  # a sweep's table has one row per run: no curve
            if name.endswith(".csv") and not (name == "sweep.csv" and "sweep.json" in files):
                with search.skipping():
                    _add_csv(search, folder / name)
    if len(search.runs) > found:
        return
    if hydra and "summary.json" in files:
        error = _read_summary(search, folder)[0].get("error")
        status = shortened(str(error)) if error else "it has no metrics.csv"
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
    if path.name == "metrics.csv" and (run := _read_ours(search, path.parent)):
        search.runs += run
    elif path.suffix == ".csv":
        _add_csv(search, path)
    else:
        series, notes = other_tools.read_event_folder(path.parent, [path.name])
        if not _add(search, series, path, "events", notes) and series:
            search.problems.append(_no_losses(search, path, series))


def _add_csv(search: _Search, path: Path) -> None:
    """Add the run in a CSV file, where it has the columns of one."""
    series = other_tools.read_csv(path, search.train_tag, search.val_tag)
    if series is not None and not _add(search, series, path, "csv", []):
        search.problems.append(f"{path}: nothing to judge: its losses have no numbers")


def _read_role_folders(search: _Search, folder: Path, names: list[str]) -> None:
    """Read runs kept in sub-folders by role, as Keras does; remove these from `names`, so that they are read once."""
    for subject, parts in other_tools.role_folders(names).items():
        series: dict[str, other_tools.Series] = {}
        notes: list[str] = []
        for part in parts:
            with search.skipping():
                files = [entry.name for entry in bounded.listing(folder / part) if "tfevents" in entry.name]
                read, problems = other_tools.read_event_folder(folder / part, files)
                series |= {f"{part}/{tag}": points for tag, points in read.items()}
                notes += problems
        place = folder / subject if subject else folder
        if _add(search, series, place, "events", notes):
            names[:] = [name for name in names if name not in parts]


def _add(search: _Search, series: dict[str, other_tools.Series], path: Path, source: str, notes: list[str]) -> bool:
    """Add the run in the series to the search; return whether there is one."""
    search.problems += notes
    chosen = other_tools.choose(series, search.train_tag, search.val_tag)
    if chosen is None:
        return False
    folder = path if path.is_dir() else path.parent
    config: dict[str, Any] = {}
    for name in ("hparams.yaml", ".hydra/config.yaml"):
        with search.skipping():
            config = config or read_config(folder / name)
    losses = f"losses: {shortened(chosen.tags.train_loss)} and {shortened(chosen.tags.val_loss)}"
    run = Curves(
        path=str(path),
        name=_name(search, path),
        source=source,
        epochs=chosen.steps,
        train_loss=chosen.train_loss,
        val_loss=chosen.val_loss,
        train_accuracy=chosen.train_accuracy,
        val_accuracy=chosen.val_accuracy,
        config=config,
        notes=(losses, *notes, *chosen.notes),
    )
    search.runs.append(run)
    return True


def _no_losses(search: _Search, place: Path, series: dict[str, other_tools.Series]) -> str:
    """Say why a place with recorded scalars is no run, and what to type."""
    losses = sorted(series, key=lambda tag: ("loss" not in tag.lower(), tag))
    shown = ", ".join(map(shortened, losses[:8])) + (f" and {len(losses) - 8} more" if len(losses) > 8 else "")
    wanted = " and ".join(
        f"{option} {tag}" if tag else f"a {side} loss by a common name"
        for side, option, tag in (
            ("training", "--train-tag", search.train_tag),
            ("validation", "--val-tag", search.val_tag),
        )
    )
    return f"{place}: found the tags {shown}; expected {wanted}; name them with --train-tag TAG --val-tag TAG"


def _no_runs(search: _Search, paths: list[Path]) -> list[str]:
    where = ", ".join(map(str, paths))
    found = f"{search.files} files, none of them a run's that can be judged" if search.files else "nothing"
    return [
        f"{where}: found {found}; expected folders with metrics.csv (this trainer), or TensorBoard event files or "
        "CSV files with a training and a validation loss; a sweep lies in outputs/sweeps/<date>/<time>",
        *search.problems[:10],
    ]


def _no_such_path(path: Path) -> str:
    """Say that a path is missing, with the nearest name that exists."""
    parent = path.parent
    while not os.path.exists(parent) and parent != parent.parent:
        parent = parent.parent
    wanted = path.relative_to(parent).parts[0]
    try:
        near = difflib.get_close_matches(wanted, [entry.name for entry in bounded.listing(parent)], n=1, cutoff=0.6)
    except Unreadable as error:
        return f"{path}: cannot be found; {error}"
    hint = f"did you mean {parent / near[0]}?" if near else f"{parent} is there, {wanted} in it is not"
    return f"{path}: no such file or folder; {hint}"


# ------------------------------------------------------------------ our own runs


def _read_ours(search: _Search, folder: Path) -> list[Curves]:
    """Read the run of a folder with a metrics.csv; none where that file is another tool's.

    Raises Unreadable; Damaged where the file, or what else a verdict comes from, is not what was written.
    """
    path = folder / "metrics.csv"
    content = bounded.content(path, bounded.MOST_TABLE)
    summary, sealed = _read_summary(search, folder)
    if sealed:
        _check_written(folder, summary.get("files"), content)
    rows = bounded.table_rows(content, path)
    header = next(rows, [])
    if "epoch" not in header or _LOSSES[0] not in header:
        return []
    wanted = [name for name in ("epoch", *_LOSSES, *_ACCURACIES) if name in header]
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
    run = Curves(
        path=str(folder),
        name=_name(search, folder),
        source="trainer",
        epochs=columns["epoch"],
        train_loss=columns[_LOSSES[0]],
        val_loss=columns.get(_LOSSES[1]),
        train_accuracy=columns.get(_ACCURACIES[0]),
        val_accuracy=columns.get(_ACCURACIES[1]),
        config=config,
        summary=summary,
        notes=tuple(notes),
    )
    return [run]


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


def _read_summary(search: _Search, folder: Path) -> tuple[dict[str, Any], bool]:
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


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a sort key by which run 10 comes after run 9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text)]


def _name(search: _Search, path: Path) -> str:
    name = os.path.relpath(path, search.base)
    return path.resolve().name if name == "." else name
