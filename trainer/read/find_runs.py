"""Find the runs below some paths, this trainer's and other tools', and read their curves of training and validation.

A folder with our metrics.csv is a run of ours. Else a folder whose event files hold a training and a validation loss
is a run, or a folder whose sub-folders hold one each (Keras), or a run of MLflow's, or a CSV or JSON file with both.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.read import assemble, bounded, columns, mlflow, other_tools, tag_names
from trainer.read.bounded import Unreadable, shortened
from trainer.read.configs import FINAL, VERSUS
from trainer.read.curves import Curves, Search, Series
from trainer.read.our_runs import not_run, read_run, read_summary
from trainer.text import few

_EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d{9,}")
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,15})")  # of Hugging Face: each holds the history up to it
_OURS = {"summary.json", "sweep.json", "plan.json", "versus.json"}
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
    path does not exist or a tag is an accuracy's, or where no run is found, with what was found instead.
    """
    paths = [Path(path) for path in paths]
    wrong = [_no_such_path(path) for path in paths if not os.path.exists(path)]
    wrong += [
        f"{option} {tag}: found an accuracy, expected a loss; accuracies beside the losses are found by themselves"
        for option, tag in (("--train-tag", train_tag), ("--val-tag", val_tag))
        if tag is not None and tag_names.measure(tag) == "accuracy"
    ]
    if wrong:
        raise Problems(wrong)
    base = paths[0] if len(paths) == 1 else Path(os.path.commonpath([path.absolute() for path in paths]))
    search = Search(train_tag, val_tag, base if base.is_dir() else base.parent)
    named: dict[Path, list[str]] = {}  # folder -> files in it
    for path in paths:
        if not path.is_dir():
            named.setdefault(path.parent, []).append(path.name)
            continue
        for place, folders, files in _folders(search, path):
            with search.skipping():
                _read_folder(search, place, folders, files)
    for folder, files in named.items():
        _read_files(search, folder, files)
    assemble.add_logs(search)
    assemble.scale_accuracies(search)
    assemble.configure(search)
    assemble.drop_copies(search)
    runs = {_real(run.path): run for run in search.runs}  # a path given twice, or inside another
    search.problems = list(dict.fromkeys(search.problems))
    if not runs:
        raise Problems(_no_runs(search, paths))
    return sorted(runs.values(), key=lambda run: natural(run.path)), search.problems + _unused(search)


def _unused(search: Search) -> list[str]:
    """Say, in a line, which tables beside runs are no run's."""
    if len(search.unused) < 2:
        return list(search.unused.values())
    what = "tables without known losses; python -m trainer.evaluate FILE lists the columns of one"
    return [f"{few(search.unused)}: {what}"]


def _real(path: str) -> str:
    place, mark, part = path.rpartition("#")
    return f"{os.path.realpath(place)}{mark}{part}" if mark and not os.path.exists(path) else os.path.realpath(path)


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
    if "sweep.json" in files:
        search.problems += not_run(folder)
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
    if mlflow.is_run(folders, files):
        series, config, name, problems = mlflow.read_run(folder)
        search.problems += problems
        if assemble.add(search, series, folder, "mlflow", config=config):
            search.runs[found:] = [
                replace(run, name=run.name.replace(folder.name, name or folder.name)) for run in search.runs[found:]
            ]
        elif series:
            search.without[folder] = _no_losses(search, folder, series)
        folders.clear()
        return
    _drop_checkpoints(folders, files)
    series = {}
    event_files = [name for name in files if "tfevents" in name]
    for path, names in _one_run_each(folder, event_files):
        series |= _read_events(search, path, folder, names)
    _read_role_folders(search, folder, folders, series if len(search.runs) == found else {})
    if len(search.runs) == found:
        suffixes = assemble.CSV + assemble.JSON
        ours = (
            {"sweep.csv", *_OURS} if "sweep.json" in files else _OURS
        )  # a sweep's table has one row per run: no curve
        assemble.add_tables(search, folder, [name for name in files if name.endswith(suffixes) and name not in ours])
    if len(search.runs) > found:
        return
    search.logs[folder] = [name for name in files if name.endswith(assemble.LOG) and name != "trainer.log"]
    if hydra and "summary.json" in files:
        error = read_summary(search, folder)[0].get("error")
        status = shortened(str(error)) if error else "it has no metrics.csv"
        search.problems.append(f"{folder}: nothing to judge: {status}")
    elif series:
        search.without[folder] = _no_losses(search, folder, series)


def _drop_checkpoints(folders: list[str], files: list[str]) -> None:
    """Leave out checkpoints whose history is in a later one, or in the folder itself."""
    numbered = {name: int(found[1]) for name in folders if (found := _CHECKPOINT.fullmatch(name))}
    last = None if "trainer_state.json" in files else max(numbered, key=lambda name: numbered[name], default=None)
    folders[:] = [name for name in folders if name not in numbered or name == last]


def _read_events(search: Search, path: Path, folder: Path, names: list[str]) -> dict[str, Series]:
    """Add the runs in event files; return their curves."""
    events = other_tools.read_events(folder, names)
    if events.config:
        search.hparams[folder] = events.config
    search.problems += events.problems
    for label, series in columns.by_column(events.series, exported=False):
        assemble.add(search, series, path, "events", events.problems, label)
    return events.series


def _one_run_each(folder: Path, event_files: list[str]) -> list[tuple[Path, list[str]]]:
    """Split event files into runs: those of a folder are one, as in TensorBoard, unless they were renamed."""
    if len(event_files) > 1 and not all(_EVENT_FILE.match(name) for name in event_files):
        return [(folder / name, [name]) for name in sorted(event_files)]
    return [(folder, event_files)] if event_files else []


def _read_files(search: Search, folder: Path, names: list[str]) -> None:
    """Read files that the user named, which may hold a side of a run each."""
    search.files += len(names)
    others = []
    for name in names:
        path = folder / name
        with search.skipping():
            if name == "metrics.csv" and (run := read_run(search, folder)) is not None:
                search.runs.append(run)
            elif path.suffix in assemble.CSV + assemble.JSON or ("tfevents" not in name and _is_text(path)):
                others.append(name)
            else:
                found = len(search.runs)
                series = _read_events(search, path, folder, [name])
                if series and len(search.runs) == found:
                    search.problems.append(_no_losses(search, path, series))
    assemble.add_tables(search, folder, others, told=True)


def _is_text(path: Path) -> bool:
    with bounded.opened(path) as file:
        first = file.read(1000)
    return b"\0" not in first and len(first) > 0


def _read_role_folders(search: Search, folder: Path, names: list[str], own: dict[str, Series]) -> None:
    """Read runs kept in sub-folders by role, event files as Keras does or tables; remove these from `names`.

    own: curves of the folder itself, which are of training where only a sub-folder of validation lies in it.
    """
    for subject, parts in other_tools.role_folders(names, bool(own)).items():
        series = dict(own) if len({*map(tag_names.role, parts)}) == 1 else {}
        notes: list[str] = []
        tables: list[str] = []
        for part in parts:
            with search.skipping():
                files = [entry.name for entry in bounded.listing(folder / part)]
                tables += [f"{part}/{name}" for name in files if name.endswith(assemble.CSV + assemble.JSON)]
                events = other_tools.read_events(folder / part, [name for name in files if "tfevents" in name])
                series |= {f"{part}/{tag}": points for tag, points in events.series.items()}
                notes += events.problems
        place = folder / subject if subject else folder
        search.problems += notes
        found = len(search.runs)
        if not assemble.add(search, series, place, "events", notes):
            assemble.add_tables(search, folder, tables)
        if len(search.runs) > found:
            names[:] = [name for name in names if name not in parts]


def _no_losses(search: Search, place: Path, series: Mapping[str, Series]) -> str:
    """Say why a place with recorded scalars is no run, and what to type."""
    losses = sorted(series, key=lambda tag: ("loss" not in tag.lower(), tag))
    return f"{place}: found the tags {few(map(shortened, losses), 8)}; {assemble.expected(search, series)}"


def _no_runs(search: Search, paths: list[Path]) -> list[str]:
    where = ", ".join(map(str, paths))
    many = f"{search.files} files, none of them a run's" if search.files > 1 else "1 file, which is no run's"
    found = f"{many} that can be judged" if search.files else "nothing"
    return [
        f"{where}: found {found}; expected folders with metrics.csv (this trainer), or TensorBoard event files, "
        "CSV, JSON or log files with a training and a validation loss; a sweep lies in outputs/sweeps/<date>/<time>",
        *[*search.problems, *search.unused.values()][:10],
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
