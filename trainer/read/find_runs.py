"""Find the runs below some paths, this trainer's and other tools', and read their curves of training and validation.

A folder with our metrics.csv is a run of ours. Else a folder whose event files hold a training and a validation loss
is a run, or a folder whose sub-folders hold one each (Keras), or a CSV file with both (Lightning's, Keras's CSVLogger).
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.read import bounded, other_tools
from trainer.read.bounded import Unreadable, shortened
from trainer.read.configs import FINAL, VERSUS, read_config
from trainer.read.curves import Curves, Search
from trainer.read.our_runs import read_run, read_summary

_EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d{9,}")
_SKIPPED = {"checkpoints", "from_python", "node_modules", "__pycache__"}


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
    search = Search(train_tag, val_tag, base if base.is_dir() else base.parent)
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
    return sorted(runs.values(), key=lambda run: natural(run.path)), search.problems


def _folders(search: Search, top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
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


def _read_folder(search: Search, folder: Path, folders: list[str], files: list[str]) -> None:
    """Read the runs in one folder; remove from `folders` what need not be walked into."""
    hydra = ".hydra" in folders
    folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
    search.files += len(files)
    found = len(search.runs)
    if VERSUS in files and FINAL in folders:
        search.problems.append(f"{folder}: the runs of its search chose the settings that {FINAL} compares: not judged")
        folders[:] = [FINAL]
    if "metrics.csv" in files:
        run = None
        try:
            run = read_run(search, folder)
        except Unreadable as error:  # where it is Damaged, the event files are not asked instead
            search.problems.append(str(error))
        if run is not None:
            search.runs.append(run)
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
        error = read_summary(search, folder)[0].get("error")
        status = shortened(str(error)) if error else "it has no metrics.csv"
        search.problems.append(f"{folder}: nothing to judge: {status}")
    elif series:
        search.problems.append(_no_losses(search, folder, series))


def _one_run_each(folder: Path, event_files: list[str]) -> list[tuple[Path, list[str]]]:
    """Split event files into runs: those of a folder are one, as in TensorBoard, unless they were renamed."""
    if len(event_files) > 1 and not all(_EVENT_FILE.match(name) for name in event_files):
        return [(folder / name, [name]) for name in sorted(event_files)]
    return [(folder, event_files)] if event_files else []


def _read_file(search: Search, path: Path) -> None:
    search.files += 1
    if path.name == "metrics.csv" and (run := read_run(search, path.parent)) is not None:
        search.runs.append(run)
    elif path.suffix == ".csv":
        _add_csv(search, path)
    else:
        series, notes = other_tools.read_event_folder(path.parent, [path.name])
        if not _add(search, series, path, "events", notes) and series:
            search.problems.append(_no_losses(search, path, series))


def _add_csv(search: Search, path: Path) -> None:
    """Add the run in a CSV file, where it has the columns of one."""
    series = other_tools.read_csv(path, search.train_tag, search.val_tag)
    if series is not None and not _add(search, series, path, "csv", []):
        search.problems.append(f"{path}: nothing to judge: its losses have no numbers")


def _read_role_folders(search: Search, folder: Path, names: list[str]) -> None:
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


def _add(search: Search, series: dict[str, other_tools.Series], path: Path, source: str, notes: list[str]) -> bool:
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
        name=search.name(path),
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


def _no_losses(search: Search, place: Path, series: dict[str, other_tools.Series]) -> str:
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


def _no_runs(search: Search, paths: list[Path]) -> list[str]:
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


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a sort key by which run 10 comes after run 9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text)]
