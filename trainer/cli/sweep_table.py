"""Sum up a sweep: one table, grouped over seeds, and sweep.csv and sweep.json with one row per run."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from trainer import files
from trainer.cli.display import is_copied, words
from trainer.compare.statistics import mean_interval
from trainer.config import ConfigError, Surface
from trainer.engine.jobs import Job, describe, ranges, swept
from trainer.engine.jobs import name as named
from trainer.engine.jobs import values as typed
from trainer.language import translated
from trainer.record import ground_truth, trajectories
from trainer.report import vocabulary
from trainer.report.screen import fitting, screen
from trainer.text import plural, printable, shown

MOST_ROWS = 40
Place = tuple[str, ...]
DISTANCE: Place = ("distance",)
OF_FUNCTION: dict[str, Place] = {"f": ("final", "eval/train_loss"), "distance": DISTANCE}  # where all minimised one
MEASURES: dict[str, Place] = {  # column -> its place in summary.json; the first one present ranks the rows
    "val loss": ("best", "val/loss"),
    "val accuracy": ("best", "val/accuracy"),
    "train loss": ("best", "eval/train_loss"),
    "test loss": ("test", "best", "loss"),
    "test accuracy": ("test", "best", "accuracy"),
}


def close(jobs: Sequence[Job], folder: Path) -> None:
    """Write sweep.csv and sweep.json beside the runs, then print the table: words may fail, and files are there.

    Raises OSError where the files, or the words, cannot be written.
    """
    error, pictures = None, []
    try:
        write(jobs, folder)
        pictures = draw_paths(jobs, folder)
    except OSError as problem:
        error = problem
    console = screen()
    laid = table(jobs)
    there = [name for name in measures(jobs) if any(translated(name) == column.header for column in laid.columns)]
    console.print(fitting(console, laid, [*there[:0:-1], "verdicts"]))  # what ranks the rows stays
    for line in [*captions(jobs), *troubles(jobs), *_closing_lines(jobs, folder)]:
        console.print(words(line), soft_wrap=is_copied(console, line))
    for name in pictures:
        console.print(words(f"picture   {shown(folder / name)}"), soft_wrap=True)
    if error is not None:
        raise error


def write(jobs: Sequence[Job], folder: Path) -> list[dict[str, Any]]:
    """Write sweep.csv and sweep.json, one row per run; return the rows. Raises OSError."""
    rows = [row(job) for job in jobs]
    files.write(folder / "sweep.json", files.to_json({"runs": rows}))
    files.write(folder / "sweep.csv", _csv(rows))
    return rows


def _closing_lines(jobs: Sequence[Job], folder: Path) -> list[str]:
    """Return what was found, how many runs ended well, and where to look further."""
    done = sum(job.status == "completed" for job in jobs)
    before = sum(job.finished_earlier for job in jobs)
    said = f", {before} of them before" if before else ""
    where = shown(folder)
    has_curves = not all(job.config is not None and job.config.record.keep == "none" for job in jobs)
    curves = f"python -m trainer.evaluate {where} --tensorboard" if len(jobs) > 1 else f"tensorboard --logdir {where}"
    return [
        *vocabulary.findings_by_kind([{"name": job.number, **(job.summary or {})} for job in jobs]),
        f"{done} of {plural(len(jobs), 'run')} completed{said}",
        f"judged    python -m trainer.evaluate {where}",
        *[f"curves    {curves}"] * has_curves,
        f"numbers   {where}/sweep.csv, sweep.json",
    ]


def draw_paths(jobs: Sequence[Job], folder: Path) -> list[str]:
    """Draw the ways downhill for each function that the sweep minimised; return the files' names."""
    by_function: dict[str, tuple[Surface, dict[str, Any]]] = {}
    keys = [key for key in swept(jobs) if key not in ("problem", "model.function", "seed")]
    for job in jobs:
        model = job.config.model if job.config is not None else None
        if not isinstance(model, Surface) or len(model.start) != 2 or job.status != "completed":
            continue
        with open(job.directory / "metrics.csv", newline="", encoding="utf-8") as file:
            points = trajectories.points(model.start, list(csv.DictReader(file)))
        _, ways = by_function.setdefault(model.function, (model, {}))
        name = named(job, keys)
        ways[name if name not in ways else f"{name} ({job.number})"] = points
    pictures = []
    for function, (model, ways) in by_function.items():
        with contextlib.suppress(ConfigError):  # the user's own function is gone since
            picture = trajectories.draw(trajectories.problem(model), ways)
            pictures.append(f"paths_{function}.png")
            files.write(folder / pictures[-1], picture.data)
    return pictures


def troubles(jobs: Sequence[Job]) -> list[str]:
    """Return a line for every reason why runs have no result, with their numbers and the overrides of the first."""
    by_reason: dict[str, list[Job]] = {}
    for job in jobs:
        if job.status != "completed":
            reason = f"{job.status}{'' if job.error is None else ': ' + describe(job.error)}"
            by_reason.setdefault(reason, []).append(job)
    return [
        f"run{'s' * (len(group) > 1)} {ranges([job.number for job in group])} {reason}"
        f"  ({' '.join(group[0].overrides)}{' ...' if len(group) > 1 else ''})"
        for reason, group in by_reason.items()
    ]


def row(job: Job) -> dict[str, Any]:
    """Return a run's entry in sweep.json: number, status, overrides, measures, verdict."""
    summary = job.summary or {}
    out: dict[str, Any] = {"run": job.number, "status": job.status}
    out |= typed(job)
    out |= {name: _measure(job, place) for name, place in measures([job]).items()}
    best_epoch = (summary.get("verdict") or {}).get("best_epoch")
    out |= {"best_epoch": best_epoch, "verdict": _verdict(job), "epochs": summary.get("epochs")}
    return out | {"error": None if job.error is None else describe(job.error), "directory": str(job.directory)}


def table(jobs: Sequence[Job]) -> Table:
    """Show runs that differ by seed alone in one row: mean ± half of its confidence interval, best first."""
    keys, groups, of_functions = _columns(jobs), _rows(jobs), are_of_functions(jobs)
    measured = {
        name: place for name, place in measures(jobs).items() if any(_measure(job, place) is not None for job in jobs)
    }
    out = Table(box=None, pad_edge=False)
    for key in keys:
        out.add_column(printable(key.removeprefix("model.").removeprefix("data.")))
    out.add_column(translated("runs"), justify="right")
    for name in measured:
        out.add_column(translated(name), justify="right", no_wrap=True)
    if not of_functions:
        out.add_column(translated("verdicts"))
    ranked = sorted(groups.items(), key=lambda item: _rank(item[1], next(iter(measured.values()), None)))
    for values, members in ranked[:MOST_ROWS]:
        cells = [_mean_cell([_measure(job, place) for job in members], name) for name, place in measured.items()]
        verdicts = [] if of_functions else [vocabulary.counted(_verdict(job) or job.status for job in members)]
        out.add_row(*map(printable, map(_short, values)), str(len(members)), *cells, *map(printable, verdicts))
    return out


def captions(jobs: Sequence[Job]) -> list[str]:
    """Say what the table means: its ±, and what it leaves out."""
    rows = len(_rows(jobs))
    out = [vocabulary.INTERVAL] if rows < len(jobs) else []
    if rows > MOST_ROWS:
        out.append(f"the best {MOST_ROWS} of {rows} rows; sweep.csv has all")
    return out


def _columns(jobs: Sequence[Job]) -> list[str]:
    """Return the keys whose values tell the rows apart: those swept, the seed apart."""
    return [key for key in swept(jobs) if key != "seed"]


def _rows(jobs: Sequence[Job]) -> dict[tuple[str, ...], list[Job]]:
    """Group the jobs of each row by its values."""
    keys, groups = _columns(jobs), dict[tuple[str, ...], list[Job]]()
    for job in jobs:
        values = typed(job)
        groups.setdefault(tuple(values.get(key, "") for key in keys), []).append(job)
    return groups


def are_of_functions(jobs: Sequence[Job]) -> bool:
    """Whether all runs with a result minimised a function of the plane."""
    found = [ground_truth.is_of_function(job.summary) for job in jobs if job.summary and "config" in job.summary]
    return bool(found) and all(found)


def measures(jobs: Sequence[Job]) -> dict[str, Place]:
    """Return column -> place in summary.json, the metrics that were asked for last."""
    if are_of_functions(jobs):
        return OF_FUNCTION
    names = dict.fromkeys(name for job in jobs for name in (job.summary or {}).get("metrics") or {})
    metrics: dict[str, Place] = {f"val {name}": ("best", f"val/{name}") for name in names}
    return MEASURES | metrics | {f"test {name}": ("test", "best", name) for name in names}


def _measure(job: Job, place: Place) -> float | None:
    if place == DISTANCE:
        return ground_truth.distance(job.summary or {})
    value: Any = job.summary or {}
    for key in place:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else float(value)


def _short(value: str) -> str:
    """Write a drawn number in four digits, true and false as they are typed; anything else as it was typed."""
    if value in ("True", "False"):  # as Hydra writes them
        return value.lower()
    try:
        return f"{float(value):.4g}" if len(value) > len("0.00001") else value
    except ValueError:
        return value


def _rank(jobs: Sequence[Job], place: Place | None) -> float:
    values = [_measure(job, place) for job in jobs] if place else []
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(finite) if finite and len(finite) == len(values) else math.inf


def _mean_cell(values: Sequence[float | None], name: str) -> str:
    """Write the mean of a row's runs; no ± where one of them is not finite."""
    known = np.array([value for value in values if value is not None])
    if len(known) == 0:
        return ""
    mean, _, _, high, _ = mean_interval(known[None])
    half = float(high[0] - mean[0]) if np.isfinite(known).all() else math.nan
    return vocabulary.mean_cell(float(known.mean()), half, name)


def _verdict(job: Job) -> str | None:
    return ((job.summary or {}).get("verdict") or {}).get("verdict")


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
