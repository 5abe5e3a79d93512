"""What is promised about speed; -s shows the numbers.

The command is one thread, so its processor time is what the clock shows on an idle machine: the limits hold that.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import fake_runs
from trainer.read.event_files import read_scalars
from trainer.record.tensorboard import EventWriter

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return spent


def say(what: str, spent: list[float], unit: str = "s") -> float:
    middle = statistics.median(spent)
    print(f"\n{what}: median {middle:.3g} {unit}, {min(spent):.3g} to {max(spent):.3g}, n = {len(spent)}")
    return middle


def command(folder: Path) -> list[float]:
    """Processor seconds of `python -m trainer.evaluate folder`, five times."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "trainer.evaluate", str(folder)], cwd=ROOT, check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return spent


def test_speed_of_a_thousand_runs_of_ours(tmp_path: Path) -> None:
    fake_runs.sweep(tmp_path, seeds=56, events=False)
    assert say("1,008 runs of 30 epochs, whole command", command(tmp_path)) < 3


def test_speed_of_a_hundred_other_runs(tmp_path: Path) -> None:
    for i in range(100):
        curves = fake_runs.curves(10_000, 0.4 * (i % 2), i, speed=1000.0)
        fake_runs.other_run(tmp_path / str(i), ("Loss/train", "Loss/val"), *curves, chunk=50)
    assert say("100 runs of another tool, of 2 x 10,000 points, whole command", command(tmp_path)) < 5


def test_speed_of_reading_two_million_points(tmp_path: Path) -> None:
    writer, steps = EventWriter(tmp_path), np.arange(100_000)
    for block in range(10):
        for tag in ("train/loss", "validation/loss"):
            writer.scalars([tag], 100_000 * block + steps, np.random.rand(len(steps), 1), 1.7e9 + steps)  # noqa: NPY002
    writer.flush()
    assert say("2 million events read", seconds(lambda: read_scalars(writer.path), 3)) < 5


def test_speed_of_writing_against_summary_writer(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    tags, steps = [f"grad_norm/layers.{i}.weight" for i in range(12)], np.arange(1000, 1100)
    values, walls = np.random.default_rng(0).random((100, 12)), np.full(100, 1.7e9)
    ours, theirs = EventWriter(tmp_path), SummaryWriter(str(tmp_path / "peer"))

    def write() -> None:
        ours.scalars(tags, steps, values, walls)
        ours.flush()

    def peer() -> None:
        for step in range(10):
            for tag in tags:
                theirs.add_scalar(tag, 0.5, step)

    write(), peer()
    ours_us = say("EventWriter", [1e6 * s / 1200 for s in seconds(write, 30)], "us a scalar")
    peer_us = say("SummaryWriter.add_scalar", [1e6 * s / 120 for s in seconds(peer, 30)], "us a scalar")
    assert ours_us < 0.5
    assert ours_us < peer_us / 30
