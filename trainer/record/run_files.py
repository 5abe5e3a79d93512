"""The directory of one run: its growing files, and what of it is known by name.

`metrics.csv` has one row per epoch, `trainer.log` one line per event, the event file everything that TensorBoard shows.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer import files
from trainer.config import Config
from trainer.files import Growing
from trainer.judge.health import NotFinite
from trainer.record import hparams
from trainer.record.destination import WEIGHTS, Destination
from trainer.record.tensorboard import EventWriter

TEXTS = {"metrics": "metrics.csv", "log": "trainer.log"}
WRITTEN = (*TEXTS, "events")  # the files of a run that grow
DIAGNOSTICS = ("activation_mean/", "activation_spread/", "dead_units/", "saturated_units/", "eval/top_class")
CURVES = "train and validation"  # the category of charts that compare both
Charts = Mapping[str, Mapping[str, Sequence[str]]]  # category -> title -> tags


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv as they were before they were written: numbers without a point are whole."""
    if not path.exists():
        return []
    table = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [{tag: int(text) if text.isdecimal() else float(text) for tag, text in row.items()} for row in table]


class RunFiles:
    """The directory of one run: buffers, so that no file stays open between two flushes."""

    def __init__(
        self, destination: Destination, config: Config, charts: Charts, written: dict[str, Any] | None = None
    ) -> None:
        """written: the `state` that the files of a run which goes on are cut to. Raises Damaged where they cannot."""
        self.destination, self.directory = destination, destination.folder
        directory = self.directory
        directory.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        self.columns: list[str] = []
        self.csv: list[str] = []
        self.lines: list[str] = []
        self.epochs: list[tuple[dict[str, float], float]] = []  # rows, and when they came
        self.not_finite: NotFinite | None = None  # the first recorded step with NaN or infinity
        self.keeps_events = config.record.keep != "none"
        if written is None:
            destination.discard()
            self.metrics, self.logged = (Growing(directory / name) for name in TEXTS.values())
            self.events = EventWriter(directory, name=destination.events, wall_time=self.began)
            self.events.custom_scalars(charts)
            row = destination.row or hparams.alone(config)
            self.events.hparams_columns(row, _metrics(charts), self.began)
            self.events.hparams_start(row, self.began)
            return
        for name in (*WEIGHTS, "summary.json"):  # of a command that was interrupted
            (directory / name).unlink(missing_ok=True)
        self.metrics, self.logged, events = (Growing.cut(directory, written[key]) for key in WRITTEN)
        self.events = EventWriter(directory, file=events)
        self.rows = read_rows(self.metrics.path)
        self.columns = list(self.rows[0]) if self.rows else []

    def row(self, row: dict[str, float], now: float) -> None:
        """One epoch: a line of metrics.csv, a line of trainer.log, and with those to come an event."""
        if not self.columns:
            self.columns = list(row)
            self.csv.append(",".join(self.columns))
        self.csv.append(",".join(repr(row[column]) for column in self.columns))
        self.epochs.append((row, now))
        self.log(epoch_line(row), now)

    def epoch_events(self) -> None:
        """The events of the epochs since the last ones."""
        if self.epochs:
            own = ("epoch", "step", "lr", "grad_norm/")  # the last two are recorded with their steps
            tags = [tag for tag in self.columns if not tag.startswith(own)]
            steps, times = np.array([row["step"] for row, _ in self.epochs]), np.array([now for _, now in self.epochs])
            values = np.array([[row[tag] for tag in tags] for row, _ in self.epochs])
            self.events.scalars([_shown(tag) for tag in tags], steps, values, times)
            self.epochs.clear()

    def scalars(self, step: int, values: dict[str, float], now: float) -> None:
        self.events.scalars(list(values), np.array([step]), np.array([list(values.values())]), np.array([now]))

    def log(self, line: str, now: float | None = None) -> None:
        """A line of trainer.log, with its time."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        self.lines.append(f"{stamp} {line}")

    @property
    def state(self) -> dict[str, Any]:
        """Where the files stand: name, size and checksum of each."""
        return dict(zip(WRITTEN, (self.metrics.state, self.logged.state, self.events.file.state), strict=True))

    def flush(self) -> None:
        """Append everything said so far to the files: the small ones first, should the disk be full."""
        for file, lines in ((self.metrics, self.csv), (self.logged, self.lines)):
            if lines:
                file.append(("\n".join(lines) + "\n").encode())
                lines.clear()
        self.epoch_events()
        if self.keeps_events:
            self.events.flush()
        else:
            self.events.drop()


def _shown(tag: str) -> str:
    """Return a column's tag: TensorBoard opens the first two groups by name, so diagnostics stand behind losses."""
    return f"watch/{tag}" if tag.startswith(DIAGNOSTICS) else tag


def _metrics(charts: Charts) -> list[str]:
    """Return the tags that are columns of TensorBoard's HParams table: validation, training, test; losses first."""
    by_name = charts[CURVES]
    tags = [[*reversed(tags), f"test/{name}"] for name, tags in by_name.items()]
    return [tag for group in tags for tag in group]


def epoch_line(row: dict[str, float]) -> str:
    """An epoch in one plain line; a step on a function of the plane as its value and the point."""
    if any(tag.startswith("point/") for tag in row):
        point = ", ".join(f"{value:.4g}" for tag, value in row.items() if tag.startswith("point/"))
        return f"epoch {int(row['epoch'])}  f {row['eval/train_loss']:.4g} at ({point})"
    parts = [f"epoch {int(row['epoch'])}", f"train loss {row['eval/train_loss']:.4f}"]
    if "val/loss" in row:
        parts.append(f"val loss {row['val/loss']:.4f}")
    accuracy = row.get("val/accuracy", row.get("eval/train_accuracy"))
    if accuracy is not None:
        parts.append(f"{'val' if 'val/accuracy' in row else 'train'} accuracy {accuracy:.2%}")
    return "  ".join(parts)


def manifest(run: RunFiles) -> dict[str, Any]:
    """Return size and checksum of each file of a run whose numbers somebody reads, by its path below the folder."""
    out = {state["name"]: state for state in run.state.values() if state["size"]}
    for name in (*WEIGHTS, ".hydra/config.yaml"):
        if (run.directory / name).exists():
            out[name] = files.state(run.directory / name)
    return {name: {"size": state["size"], "crc32c": state["crc32c"]} for name, state in out.items()}
