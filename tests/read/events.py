"""Runs of other tools, written as event files, and what is read of them."""

from pathlib import Path

import numpy as np

from tests import fake_runs
from trainer.read.find_runs import find_runs
from trainer.record.tensorboard import EventWriter

TRAIN, VAL = fake_runs.curves(30, 0.5, 0)


def write_events(folder: Path, series: dict[str, tuple[np.ndarray, np.ndarray]], born: float = 1.7e9) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventWriter(folder, wall_time=born)
    for tag, (steps, values) in series.items():
        steps = np.asarray(steps)
        writer.scalars([tag], steps, np.asarray(values, float)[:, None], born + steps)
    writer.flush()
    return writer.path


def only_run(*arguments):
    runs, _ = find_runs(*arguments)
    assert len(runs) == 1
    return runs[0]


def close(found, expected) -> None:
    """Event files keep 32 bits of a number."""
    np.testing.assert_allclose(found, expected, rtol=1e-6)
