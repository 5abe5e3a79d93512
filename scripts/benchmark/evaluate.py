"""1,008 runs of ours, and 100 of another tool, against what reads them in a notebook."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scripts.benchmark import command, pairs, say
from tests import fake_runs

ACCUMULATE = """
import sys, pathlib
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for path in pathlib.Path(sys.argv[1]).rglob("events.out.*"):
    EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
"""


def measure(n: int) -> None:
    """Print what evaluating takes over what reading takes."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        fake_runs.sweep(ours, seeds=56)
        for i in range(100):
            curves = fake_runs.curves(10_000, 0.4 * (i % 2), i, speed=1000.0)
            fake_runs.other_run(theirs / str(i), ("Loss/train", "Loss/val"), *curves, chunk=50)
        for runs, what in (
            (ours, "1,008 runs of 30 epochs"),
            (theirs, "100 runs of another tool, of 2 x 10,000 points"),
        ):
            say(
                f"python -m trainer.evaluate, {what} / reading",
                pairs(
                    lambda runs=runs: command("-m", "trainer.evaluate", str(runs), folder=folder),
                    lambda runs=runs: command("-c", ACCUMULATE, str(runs), folder=folder),
                    n,
                ),
                "reading, judging and comparing against reading alone",
            )
