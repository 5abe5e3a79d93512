"""Find and read the runs, judge each, compare all: the evaluation, as docs/evaluate.md describes its JSON."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer import files
from trainer.compare.comparison import Run, compare
from trainer.compare.knobs import typed
from trainer.compare.results import Recommendation
from trainer.compare.sections import Section, compare_sections
from trainer.compare.why import signals
from trainer.judge.curves import INFINITE
from trainer.judge.overfit import Verdict, judge
from trainer.read.configs import tuned_keys
from trainer.read.curves import Curves
from trainer.read.find_runs import Problems, find_runs
from trainer.read.numbers import number
from trainer.report.vocabulary import PER_CLASS
from trainer.text import few

LISTS = ("groups", "effects", "differences", "interactions", "warnings")  # of a comparison
HASHES = ("data_hash", "split_hash", "order_hash")  # of a run's provenance: what shows that a comparison is fair


def evaluate(
    paths: Iterable[str | os.PathLike[str]],
    train_tag: str | None = None,
    val_tag: str | None = None,
    tune: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[Curves]]:
    """Return the evaluation of all runs below `paths`, as docs/evaluate.md describes its JSON, and their curves.

    Raises ValueError, with what to type instead, where a path does not exist or holds no run.
    """
    paths = list(paths)
    runs, problems = find_runs(paths, train_tag, val_tag)
    if problems_of_keys := _unknown(tune or (), runs):
        raise Problems(problems_of_keys)
    sweeps = {folder: _sweep(folder) for folder in {Path(run.path).parent for run in runs}}
    tuned = {sweep: tuned_keys(Path(sweep)) for sweep in set(sweeps.values()) if sweep}
    judged = []
    for run in runs:
        sweep = sweeps[Path(run.path).parent]
        judged.append(_compared(run, _judged(run), sweep, tuned.get(sweep, ())))
    sections, apart = compare_sections(judged, tune)
    evaluation = {
        "paths": [os.fspath(path) for path in paths],
        "runs": [_entry(run, one) for run, one in zip(runs, judged, strict=True)],
        **_all(sections, apart),
        "problems": problems,
        "remarks": _remarks(runs),
    }
    return files.strict(evaluation), runs


def _all(sections: Sequence[Section], apart: Sequence[str]) -> dict[str, Any]:
    """Return the comparison of the only section; of several, everything that each says, and each on its own."""
    each = [section.found.to_json() for section in sections]
    sweeps: list[dict[str, Any]] = [{"name": one.name, "runs": [run.path for run in one.runs]} for one in sections]
    if len(each) == 1:
        return {**each[0], "sweeps": sweeps, "not_compared": list(apart)}
    sweeps = [{**sweep, **found} for sweep, found in zip(sweeps, each, strict=True)]
    whole = {key: [item for found in each for item in found[key]] for key in LISTS}
    text = " ".join(f"{section.name}: {section.found.answer.text}" for section in sections)
    sentence = f"no one recommendation: {len(each)} sweeps, each with its own"
    return {
        **compare([]).to_json(),
        **whole,
        "tests": sum(found["tests"] for found in each),
        "recommendation": vars(Recommendation(sentence)),
        "answer": {"text": text, "next": None},
        "sweeps": sweeps,
        "not_compared": list(apart),
    }


def _remarks(runs: Sequence[Curves]) -> list[str]:
    """Return what was chosen in reading the runs, each sentence once, with the runs that it is said of."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for remark in run.remarks:
            names.setdefault(remark, []).append(run.name)
    return [f"{few(of, of=' runs')}: {remark}" for remark, of in names.items()]


def _judged(run: Curves) -> Verdict:
    chance_loss = number(run.recorded("start", "guessing_loss"))  # our runs know their targets
    curves = run.train_loss, run.val_loss, run.train_accuracy, run.val_accuracy, run.epochs
    return judge(*curves, chance_loss, run.unit)


def _compared(run: Curves, verdict: Verdict, sweep: str, tuned: tuple[str, ...]) -> Run:
    """Gather what compare takes from a run's verdict, curves and summary."""
    measures: dict[str, Any] = {key: verdict.evidence.get(key) for key in ("gap", "best_val_loss", "final_val_loss")}
    first = None
    if run.val_loss is not None and np.isfinite(run.val_loss).any():
        first = number(run.val_loss[0])
        if measures["best_val_loss"] is None:  # of a run that is too short to be judged
            measures |= {"best_val_loss": np.nanmin(run.val_loss), "final_val_loss": _end(run.val_loss)}
    if run.val_accuracy is not None and np.isfinite(run.val_accuracy).any():
        measures["best_val_accuracy"] = np.nanmax(run.val_accuracy)
    for key in ("train_loss", "train_accuracy", "val_accuracy"):
        measures[f"final_{key}"] = _end(getattr(run, key))
    metrics = found if isinstance(found := run.recorded("metrics"), dict) else {}
    for key, curve in run.metrics.items():
        measures[f"final_{key}"] = _end(curve)
        if key.startswith("val_") and np.isfinite(curve).any():
            lower = metrics[key.removeprefix("val_")] == "lower"
            measures[f"best_{key}"] = np.nanmin(curve) if lower else np.nanmax(curve)
    for key in ("loss", "accuracy", *metrics):
        measures[f"test_{key}"] = run.recorded("test", "best", key)  # of the weights that the validation split chose
        measures[f"final_test_{key}"] = run.recorded("test", "last", key)
    if run.config.get("data.name") == "point":  # a function of two variables: there are no data to split
        measures = {"function_value": run.recorded("test", "last", "loss")}
    hashes = {key: run.recorded("provenance", key) for key in HASHES}
    return Run(
        path=run.path,
        name=run.name,
        config=run.config,
        verdict=verdict,
        measures={key: found for key, value in measures.items() if (found := number(value)) is not None},
        status=status if isinstance(status := run.recorded("status"), str) else None,
        epochs=_epochs(run),
        hashes={key: str(value) for key, value in hashes.items() if value is not None},
        overrides=run.overrides,
        sweep=sweep,
        tuned=tuned,
        guessing_loss=number(run.recorded("start", "guessing_loss")),
        first_loss=first,
        signals=signals(run.recorded("start"), run.recorded("final"), run.train_loss) if run.summary else {},
        val_loss=run.val_loss if run.summary else None,
        is_lost=_is_lost(run),
        metrics={str(name): better != "lower" for name, better in metrics.items()},
    )


def _epochs(run: Curves) -> int | None:
    """Return how many epochs a run trained, counted from 0 or 1, and measured each or every few; None: not known."""
    if isinstance(recorded := run.recorded("epochs"), int):
        return recorded
    x = np.unique(run.epochs[np.abs(run.epochs) < INFINITE])
    if run.unit != "epoch" or len(x) < 2:
        return len(x) if run.unit == "epoch" else None
    return round(max(x[-1], x[-1] - x[0] + np.median(np.diff(x))))


def _is_lost(run: Curves) -> bool:
    """Whether a run stopped because it diverged, or its losses are no numbers at its end."""
    ends = [curve[-1] for curve in (run.train_loss, run.val_loss) if curve is not None and len(curve)]
    return run.recorded("stopped_by") == "diverged" or not np.isfinite(ends).all()


def _sweep(folder: Path) -> str:
    """Return the folder of the sweep that lies at a folder or up to two above it; "" where there is none."""
    marks = ("multirun.yaml", ".resume/plan.json")
    places = (folder, *folder.parents[:2])
    return next((str(place) for place in places if any(os.path.exists(place / mark) for mark in marks)), "")


def _unknown(keys: Iterable[str], runs: Sequence[Curves]) -> list[str]:
    """List what is wrong with the keys of --tune."""
    there = {key for run in runs for key in (*run.config, *typed(run.overrides or ()))}
    problems = []
    for key in keys:
        if key not in there:
            near = difflib.get_close_matches(key, there, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(f"--tune: found {key}, expected a key of the runs' configuration{hint}")
    return problems


def _end(curve: np.ndarray | None) -> float | None:
    """Return the mean of the last tenth of a curve, at least one epoch: what `final_val_loss` is of its own."""
    if curve is None or not len(curve):
        return None
    with np.errstate(all="ignore"):  # infinite and huge values are recorded too
        return float(curve[-max(1, len(curve) // 10) :].mean())


def _entry(run: Curves, compared: Run) -> dict[str, Any]:
    """Return one run's entry in `runs`."""
    health = run.recorded("health")
    per_class = _per_class(run.recorded("test", "best", "per_class"))
    names = run.recorded("class_names")
    class_names = [str(name) for name in names] if per_class and isinstance(names, list) else []
    return {
        "path": run.path,
        "name": run.name,
        "source": run.source,
        "unit": run.unit,
        "status": compared.status,
        **vars(compared.verdict),
        "measures": compared.measures,
        "health": health if isinstance(health, list) else [],
        "config": run.config,
        "notes": list(run.notes),
        **({"per_class": per_class} if per_class else {}),
        **({"class_names": class_names} if class_names else {}),
    }


def _per_class(found: Any) -> dict[str, list[float | None]]:
    """Return recall, precision and F1 of each class, as trainer.record.classes has them; empty where they are not."""
    if not isinstance(found, dict):
        return {}
    rows = {key: row for key in PER_CLASS if isinstance(row := found.get(key), list)}
    if len(rows) < len(PER_CLASS) or len({len(row) for row in rows.values()}) > 1:
        return {}
    return {key: [number(one) for one in row] for key, row in rows.items()}
