"""Read the curves of other tools: event files in a folder, and which of all series are losses, however called."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainer.judge.curves import align
from trainer.read import tag_names
from trainer.read.bounded import Unreadable, shortened
from trainer.read.curves import Series
from trainer.read.event_files import read_file
from trainer.read.tables import unit_of
from trainer.read.tag_names import Tags

_UNIT_RATIO = 4  # a curve whose steps go this many times further than the other's counts steps, the other epochs
_MOST_FITS = 1000  # in one file
_MOST_SHOWN = 8  # names in a sentence
_WHOLE = 100  # percent: what exceeds it is no accuracy


class Recorded(NamedTuple):
    """A run's curves, each (N,) or None, over `steps` as they were logged; accuracies in percent or as shares."""

    tags: Tags
    steps: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    train_accuracy: np.ndarray | None
    val_accuracy: np.ndarray | None
    notes: list[str]
    unit: str  # of the steps: "epoch", "step"
    remarks: list[str]  # what was chosen for the user, to be said


class Events(NamedTuple):
    """What the event files of a folder hold, the points in the order of the files; what was wrong, a sentence each."""

    series: dict[str, Series]
    config: dict[str, Any]
    problems: list[str]


def read_event_folder(folder: Path, files: Iterable[str]) -> tuple[dict[str, Series], list[str]]:
    """Read all scalars of a folder's event files by step, with a sentence about whatever was wrong."""
    found = read_events(folder, files)
    return {tag: _in_order(*points) for tag, points in found.series.items()}, found.problems


def read_events(folder: Path, files: Iterable[str]) -> Events:
    """Read all scalars and hyperparameters of a folder's event files, later files last."""
    config: dict[str, Any] = {}
    pieces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    notes = []
    for name in sorted(files):
        try:
            scalars, hparams, problems = read_file(folder / name)
        except Unreadable as error:
            notes.append(str(error))
            continue
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            notes.append(f"{folder / name}: {problems[0]}{more}")
        for tag, points in scalars.items():
            pieces.setdefault(tag, []).append(_sorted(points.steps.astype(np.float64), points.values))
        config |= hparams
    series = {tag: Series(*map(np.concatenate, zip(*parts, strict=True))) for tag, parts in pieces.items()}
    return Events(series, config, notes)


def _sorted(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort a file's points, where no step comes twice: threads and processes write in any order."""
    if (np.diff(steps) > 0).all() or len(np.unique(steps)) < len(steps):
        return steps, values
    order = np.argsort(steps)
    return steps[order], values[order]


def choose(
    series: Mapping[str, Series], train_tag: str | None = None, val_tag: str | None = None, unit: str = "step"
) -> list[Recorded]:
    """Pick the losses and accuracies out of a run's series, at common steps; empty where there are no two losses.

    The series are in the order of the file: where the steps of both losses start again, each fit is one.
    """
    series = {name: _countable(points) for name, points in series.items()}
    counts = {name: len(points.steps) for name, points in series.items()}
    found = tag_names.guess(counts, train_tag, val_tag)
    if found is None:
        return []
    taken = {found.train_loss, found.val_loss}
    if train_tag is None and val_tag is None and (pairs := tag_names.parts(counts, found)):
        train_parts, val_parts = zip(*pairs, strict=True)
        if (train := _sum(series, train_parts)) and (val := _sum(series, val_parts)):
            taken = {*train_parts, *val_parts}
            found = found._replace(train_loss=" + ".join(train_parts), val_loss=" + ".join(val_parts))
            series |= {found.train_loss: train, found.val_loss: val}
    rivals = tag_names.rivals(counts, taken) if None in (train_tag, val_tag) else []
    remarks = [_said_choice(found, rivals)] if rivals or taken != {found.train_loss, found.val_loss} else []
    if train_tag is None and tag_names.role(found.train_loss) == "val":
        remarks.append(f"{shortened(found.train_loss)} is taken to be of training: the first of the sets")
    fits = _split_fits(series, found)
    return [_recorded(fit, found, unit, remarks) for fit in fits]


def _countable(points: Series) -> Series:
    """Leave out points at a step beyond 2^53, where floats no longer tell whole numbers apart."""
    there = np.abs(points.steps.astype(np.float64)) <= 2**53
    return points if there.all() else Series(points.steps[there], points.values[there])


def _sum(series: Mapping[str, Series], names: Sequence[str]) -> Series | None:
    """Add up parts of a loss; None where they were not logged at the same steps."""
    steps = series[names[0]].steps
    if not all(np.array_equal(series[name].steps, steps) for name in names):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        return Series(steps, np.sum([series[name].values for name in names], axis=0))


def _said_choice(found: Tags, rivals: Sequence[str]) -> str:
    """Say which of several losses were taken, and how to take others."""
    there = shortened(", ".join(map(shortened, rivals[:_MOST_SHOWN])), 300)
    more = f" and {len(rivals) - _MOST_SHOWN} more" if len(rivals) > _MOST_SHOWN else ""
    also = f" (there are also {there}{more})" if rivals else ""
    losses = f"{shortened(found.train_loss, 200)} against {shortened(found.val_loss, 200)}"
    return f"of several losses {losses} is judged{also}; --train-tag TAG --val-tag TAG take others"


def _split_fits(series: Mapping[str, Series], found: Tags) -> list[dict[str, Series]]:
    """Split a run whose steps start again, in both losses equally often, into its fits."""
    fits = {name: _fits(points) for name, points in series.items()}
    train, val = fits[found.train_loss], fits[found.val_loss]
    count = len(train) if len(train) == len(val) else 1
    if count == 1:
        whole = {name: _in_order(*points) for name, points in series.items()}
        if len(train) > 2 and len(train) >= len(whole[found.val_loss].steps) - 1:  # a step that counts within an epoch
            points = series[found.train_loss]
            whole[found.train_loss] = Series(np.arange(len(points.steps), dtype=np.float64), points.values)
        return [whole]
    return [{name: _in_order(*each[i]) for name, each in fits.items() if len(each) == count} for i in range(count)]


def _fits(points: Series) -> list[Series]:
    """Cut a curve where its steps are back at their beginning; a resumed run's go back less far."""
    steps = points.steps
    falls = np.flatnonzero(np.diff(steps) < 0) + 1
    if not len(falls) or len(np.unique(steps)) == len(steps):  # rows in another order are no fits
        return [points]
    begins, top = [0], -np.inf
    for at in falls.tolist():
        top = max(top, steps[at - 1])
        if steps[at] <= steps[begins[-1]] < top:
            begins.append(at)
            top = -np.inf
    if not 1 < len(begins) <= _MOST_FITS:
        return [points]
    ends = [*begins[1:], len(steps)]
    return [Series(steps[a:b], points.values[a:b]) for a, b in zip(begins, ends, strict=True)]


def _recorded(series: Mapping[str, Series], found: Tags, unit: str, remarks: Sequence[str]) -> Recorded:
    """Bring a fit's curves, each in order, to common steps; in epochs, where a column or a scalar tells them."""
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
    train_accuracy, val_accuracy = (
        None if tag is None or tag not in series or len(series[tag].steps) < 2 else _onto(steps, series[tag], *units)
        for tag, units in ((found.train_accuracy, (slope, offset)), (found.val_accuracy, (1.0, 0.0)))
    )
    highest = max(
        (float(np.nanmax(one, initial=0)) for one in (train_accuracy, val_accuracy) if one is not None), default=0
    )
    if highest > _WHOLE:
        train_accuracy = val_accuracy = None  # whatever it is
    if all(tag.rpartition("/")[2].startswith("epoch_") for tag in (found.train_loss, found.val_loss)):
        unit = "epoch"  # as Keras calls what it logs at the end of each
    for name in series if unit != "epoch" else ():
        epochs = _epochs_at(steps, series[name]) if unit_of(name) == "epoch" else None
        if epochs is not None:
            steps, unit = epochs, "epoch"
            break
    return Recorded(found, steps, train_loss, val_loss, train_accuracy, val_accuracy, notes, unit, list(remarks))


def _epochs_at(steps: np.ndarray, epochs: Series) -> np.ndarray | None:
    """Return the epoch of each step, (N,); None where some have none, or one with another."""
    places = np.searchsorted(epochs.steps, steps, side="right") - 1
    if not len(steps) or places.min() < 0:
        return None
    found = epochs.values[places]
    return found if np.isfinite(found).all() and (np.diff(found) > 0).all() else None


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


def role_folders(names: Sequence[str], own: bool = False) -> dict[str, list[str]]:
    """Group sub-folders that hold the sides of one run, by its name: Keras's `train` and `validation` make up ''.

    own: what lies beside them is of training, so that `eval` alone makes up '' too (tf.estimator).
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        if tag_names.role(name) is not None:
            groups.setdefault(tag_names.subject(name), []).append(name)

    def is_run(subject: str, parts: list[str]) -> bool:
        sides = {tag_names.role(part) for part in parts}
        return len(sides) == 2 or (own and not subject and sides == {"val"})

    return {subject: parts for subject, parts in groups.items() if is_run(subject, parts)}
