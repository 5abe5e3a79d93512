"""Turn what other tools' files hold into runs: one for each curve of both losses, with its configuration, each once."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainer.read import histories, logs, other_tools, tables, tag_names
from trainer.read.bounded import MOST_DOCUMENT, Unreadable, content, json_document, shortened
from trainer.read.columns import has_pair
from trainer.read.configs import flat_config, of_another_tool, read_config
from trainer.read.curves import Curves, Search, Series
from trainer.read.numbers import cell_number
from trainer.read.tables import Part, Table
from trainer.text import few

CONFIGS = (  # files beside a run that hold its settings, the first that has any
    "hparams.yaml", ".hydra/config.yaml", "params.json", "hparams.json", "args.yaml", "args.json", "config.yaml",
    "config.json",
)  # fmt: skip
JSON = (".json", ".jsonl", ".ndjson")
CSV = (".csv", ".tsv")
LOG = (".log", ".txt", ".out", ".dat")  # read where a folder has no other run
_OF_ONE_TAG = re.compile(r"run-(.*?)-tag-(.*)")  # a file that TensorBoard's page downloads
_OF_ONE_EPOCH = re.compile(r"metrics_epoch_([0-9]{1,9})\.json")  # AllenNLP
# of a run that two loggers recorded the first is kept: for its precision
_SOURCES = ("csv", "json", "mlflow", "events", "log")
_SHARE = 1.001  # the highest of an accuracy that is no percentage: 1 in half precision
_NEAREST = 50  # runs that end alike, among which a copy is looked for
_SAME = 1e-5  # relative: event files keep 32 bits of a number
_SAME_PRINTED = 1e-2  # and logs few digits


class Half(NamedTuple):
    """Curves of a file that has not both losses: with those of others in its folder they may be a run."""

    path: Path
    series: dict[str, Series]
    unit: str


def add(
    search: Search,
    series: Mapping[str, Series],
    path: Path,
    source: str,
    notes: Sequence[str] = (),
    label: str = "",
    config: Mapping[str, Any] | None = None,
    unit: str = "step",
) -> bool:
    """Add the runs in the series to the search, a fit each; return whether there is one."""
    fits = other_tools.choose(series, search.train_tag, search.val_tag, unit)
    again = f"the steps start again: {len(fits)} fits, each judged apart" if len(fits) > 1 else ""
    for number, fit in enumerate(fits, 1):
        own = ".".join(filter(None, (label.replace("/", "_"), str(number) if again else "")))
        losses = f"losses: {shortened(fit.tags.train_loss)} and {shortened(fit.tags.val_loss)}"
        remarks = [*fit.remarks, *([again] if again else [])]
        run = Curves(
            path=f"{path}#{own}" if own else str(path),
            name=f"{search.name(path)}#{own}" if own else search.name(path),
            source=source,
            epochs=fit.steps,
            train_loss=fit.train_loss,
            val_loss=fit.val_loss,
            train_accuracy=fit.train_accuracy,
            val_accuracy=fit.val_accuracy,
            config=dict(config or {}),
            notes=(losses, *notes, *fit.notes, *remarks),
            remarks=tuple(remarks),
            unit=fit.unit,
            accuracy_tag=fit.tags.val_accuracy,
        )
        search.runs.append(run)
    return bool(fits)


# ------------------------------------------------------------------ tables


def add_tables(search: Search, folder: Path, names: Iterable[str], told: bool = False) -> None:
    """Add the runs in a folder's CSV and JSON files: of each file, or of several that hold a side or a tag each.

    names: of the files, or paths below the folder, such as train/log.csv and val/log.csv.
    told: the files were named by the user, so that one without a run is a problem.
    """
    halves: dict[tuple[str, str], list[Half]] = {}
    silent: dict[Path, str] = {}  # files without a run, and what is in them
    names = sorted(names)
    by_epoch = sorted((int(found[1]), folder / name) for name in names if (found := _OF_ONE_EPOCH.fullmatch(name)))
    if len(by_epoch) > 1:
        with search.skipping():
            table = histories.read_rows(by_epoch, search.train_tag, search.val_tag)
            added = [add(search, part.series, folder, "json", unit=part.unit) for part in tables.parts(table)]
            if any(added):
                names = [name for name in names if not _OF_ONE_EPOCH.fullmatch(name)]
    for name in names:
        with search.skipping():
            path = folder / name
            columns = _add_file(search, folder, name, halves)
            if columns and tag_names.guess(dict.fromkeys(columns, 2), search.train_tag, search.val_tag):
                search.problems.append(f"{path}: nothing to judge: its losses have no numbers")
            elif columns is not None:
                silent[path] = _no_columns(search, path, columns)
    for (subject, label), parts in halves.items():
        series = {name: points for half in parts for name, points in half.series.items()}
        own, source = "_".join(filter(None, (subject, label))), _source(parts[0].path)
        place, own = (folder, own) if parts[0].path.parent == folder else (folder / own, "")
        if len(parts) > 1 and add(search, series, place, source, label=own, unit=parts[0].unit):
            for half in parts:
                silent.pop(half.path, None)
    of_halves = {half.path for parts in halves.values() for half in parts}
    for path, sentence in silent.items():
        if told or path in of_halves:
            search.problems.append(sentence)
        else:
            search.unused[path] = sentence


def _add_file(search: Search, folder: Path, name: str, halves: dict[tuple[str, str], list[Half]]) -> list[str] | None:
    """Add the runs of one file; return its columns where it has none, None where it has or is no table."""
    path = folder / name
    single = _OF_ONE_TAG.fullmatch(path.stem)
    if path.suffix in JSON and single:
        points = histories.read_points(path)
        parts = [Part("", {"value": Series(*np.array(points, dtype=np.float64).T)}, {}, "step")] if points else []
        found = [("", Table(["value"]), parts)]
    elif path.suffix in JSON:
        read = histories.read_json(path, search.train_tag, search.val_tag)
        found = [(label, table, tables.parts(table)) for label, table in read]
    else:
        table = histories.read_csv(path, search.train_tag, search.val_tag)
        found = [("", table, tables.parts(table))]
        if path.suffix not in CSV and not any(
            has_pair(part.series, search.train_tag, search.val_tag) for part in found[0][2]
        ):
            printed = logs.read_log(path, search.train_tag, search.val_tag)
            found = [("", printed if printed.numbers else table, tables.parts(printed))]
    added = False
    for label, _, parts in found:
        for part in parts:
            whole = "/".join(filter(None, (label, part.label)))
            if add(search, part.series, path, _source(path), label=whole, config=part.config, unit=part.unit):
                added = True
            elif curves := {n: p for n, p in part.series.items() if tables.unit_of(n) is None}:
                key, series = _half(os.path.splitext(name)[0], single, whole, curves)
                halves.setdefault(key, []).append(Half(path, series, part.unit))
    return None if added or not found else found[0][1].names


def add_logs(search: Search) -> None:
    """Add the runs in what training loops printed, where a folder holds no other run; any other text is passed over."""
    for folder, names in search.logs.items():
        if any(folder in (place := Path(run.path)).parents or folder == place for run in search.runs):
            continue
        for name in sorted(names):
            with suppress(Unreadable):
                _add_file(search, folder, name, {})


def _source(path: Path) -> str:
    return "json" if path.suffix in JSON else "csv" if path.suffix in CSV else "log"


def _half(
    stem: str, single: re.Match[str] | None, label: str, series: dict[str, Series]
) -> tuple[tuple[str, str], dict[str, Series]]:
    """Return what tells a half's run from others in its folder, and its curves by names that say the side."""
    if len(series) == 1 and tables.normal(next(iter(series))) == "value":
        run, tag = single.groups() if single else ("", stem)
        is_side = tag_names.role(run) is not None
        subject = tag_names.subject(run) if is_side else run.strip(".")
        return (subject, label), {f"{run}/{tag}" if is_side else tag: next(iter(series.values()))}
    if tag_names.role(stem) is not None and not any(tag_names.role(name) for name in series):
        return (tag_names.subject(stem), label), {f"{stem}/{name}": points for name, points in series.items()}
    return ("", label), series


def _no_columns(search: Search, path: Path, columns: Sequence[str]) -> str:
    """Say what the columns of a file without a run are called, and what to type."""
    shown = few(map(shortened, columns), 20) or "none"
    if columns and all(cell_number(name) is not None for name in columns):
        return f"{path}: its first line, {shown}, names no columns; expected a line such as epoch,train_loss,val_loss"
    return f"{path}: found the columns {shown}; {expected(search, columns)}"


def expected(search: Search, names: Iterable[str]) -> str:
    """Say which losses were looked for among names, and what to type; of accuracies alone, what to log."""
    measured = {tag_names.measure(name) for name in names}
    if search.train_tag is search.val_tag is None and "accuracy" in measured and "loss" not in measured:
        return "accuracies alone are neither judged nor compared; log a training and a validation loss beside them"
    wanted = " and ".join(
        f"{option} {tag}" if tag else f"a {side} loss by a common name"
        for side, option, tag in (
            ("training", "--train-tag", search.train_tag),
            ("validation", "--val-tag", search.val_tag),
        )
    )
    return f"expected {wanted}; name them with --train-tag TAG --val-tag TAG"


# ------------------------------------------------------------------ accuracies


def scale_accuracies(search: Search) -> None:
    """Turn percentages into shares: a tag that exceeds 1 in any run is in percent in all of the same kind of file.

    A run alone does not tell: at chance level, 1 % of 100 classes is as high as a share of all.
    """
    columns = [(run.source, run.accuracy_tag) for run in search.runs]
    in_percent = {column for column, run in zip(columns, search.runs, strict=True) if _highest(run) > _SHARE}
    for i, (column, run) in enumerate(zip(columns, search.runs, strict=True)):
        if column in in_percent and run.source != "trainer":
            train, val = (None if one is None else one / 100 for one in (run.train_accuracy, run.val_accuracy))
            notes = (*run.notes, "accuracies are taken to be in percent")
            search.runs[i] = replace(run, train_accuracy=train, val_accuracy=val, notes=notes)


def _highest(run: Curves) -> float:
    there = [one for one in (run.train_accuracy, run.val_accuracy) if one is not None]
    return max((float(np.nanmax(one, initial=0)) for one in there), default=0.0)


# ------------------------------------------------------------------ configurations


def configure(search: Search) -> None:
    """Give each run of another tool the settings that lie beside it, where it is the only one there."""
    places = [_place(run) for run in search.runs]
    counts = Counter((place, run.source) for place, run in zip(places, search.runs, strict=True))
    below: dict[Path, dict[str, Any]] = {}
    for folder, config in search.hparams.items():
        below[folder.parent] = below.get(folder.parent, {}) | config
    for i, (run, place) in enumerate(zip(search.runs, places, strict=True)):
        if run.source == "trainer":
            continue
        config = search.hparams.get(place, {})
        if counts[place, run.source] == 1:
            config = below.get(place, {}) | config | _beside(search, place)  # where a tuple is no text
        search.runs[i] = replace(run, config=of_another_tool(config | run.config))
    alone = set(places)
    search.problems += [
        said for folder, said in search.without.items() if folder.parent not in alone or folder not in search.hparams
    ]


def _place(run: Curves) -> Path:
    """Return the folder that a run lies in."""
    path = run.path  # os.path calls what is too long for a name no folder, where Path raises
    if not os.path.exists(path):
        path = path.rpartition("#")[0] or path
    return Path(path if os.path.isdir(path) else os.path.dirname(path))


def _beside(search: Search, folder: Path) -> dict[str, Any]:
    """Return the first configuration in a folder that has any."""
    for name in CONFIGS:
        path = folder / name
        with search.skipping():
            if path.suffix == ".json":
                found = path.is_file() and json_document(content(path, MOST_DOCUMENT), path)
                config = flat_config(found, path) if isinstance(found, dict) else {}
            else:
                config = read_config(path)
            if config:
                return config
    return {}


# ------------------------------------------------------------------ two loggers


def drop_copies(search: Search) -> None:
    """Keep one of the runs that two loggers recorded: of different kinds of file, with the same curves and settings."""
    groups: dict[int, list[int]] = {}
    for i, run in enumerate(search.runs):
        if run.source != "trainer" and len(run.epochs) > 4 and (_val(run) != _val(run)[0]).any():
            groups.setdefault(len(run.epochs), []).append(i)
    dropped: set[int] = set()
    for members in groups.values():
        members.sort(key=lambda i: float(_val(search.runs[i])[-1]))
        for at, a in enumerate(members):
            for b in members[at + 1 : at + 1 + _NEAREST]:
                if {a, b} & dropped or not _is_copy(search.runs[a], search.runs[b]):
                    continue
                kept, copy = sorted((a, b), key=lambda i: _SOURCES.index(search.runs[i].source))
                dropped.add(copy)
                _merge(search, kept, search.runs[copy])
    search.runs = [run for i, run in enumerate(search.runs) if i not in dropped]


def _val(run: Curves) -> np.ndarray:
    assert run.val_loss is not None  # other tools' runs have one
    return run.val_loss


def _is_copy(a: Curves, b: Curves) -> bool:
    if a.source == b.source or any(a.config[key] != b.config[key] for key in a.config.keys() & b.config.keys()):
        return False
    nearly = _SAME_PRINTED if "log" in (a.source, b.source) else _SAME
    pairs = [(_val(a), _val(b)), *([] if a.config and b.config else [(a.train_loss, b.train_loss)])]
    return all(np.allclose(one, other, rtol=nearly, atol=0, equal_nan=True) for one, other in pairs)


def _merge(search: Search, kept: int, copy: Curves) -> None:
    run = search.runs[kept]
    said = "two loggers recorded the same run: counted once"
    notes, remarks = (*run.notes, f"{said}, without {copy.path}"), (*run.remarks, said)
    search.runs[kept] = replace(run, config=copy.config | run.config, notes=notes, remarks=remarks)
