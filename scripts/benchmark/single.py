"""One run against a hand-written loop, and the cost of a command."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scripts.benchmark import MNIST, PYTHON, command, environment, pairs, say, seconds
from scripts.peers import loops
from trainer.cli import app
from trainer.config import Config, ConfigError
from trainer.core import data, loop
from trainer.core.stack import Stack
from trainer.engine import pool, runtime
from trainer.engine.jobs import Job, StackJob
from trainer.engine.progress import News
from trainer.record.destination import Destination
from trainer.record.recorder import Recorder
from trainer.record.tensorboard import EventWriter


def measure(n: int) -> None:
    """One run against a hand-written loop, and the cost of a command."""
    with tempfile.TemporaryDirectory() as folder:
        torch_s = lambda: command("-c", "import torch", folder=folder)  # noqa: E731
        say(
            "python -m trainer (30 epochs of digits) / import torch",
            pairs(lambda: command("-m", "trainer", folder=folder), torch_s, n),
            "at most 3",
        )
        say(
            "python -m trainer --cfg job / import torch",
            pairs(lambda: command("-m", "trainer", "--cfg", "job", folder=folder), torch_s, n),
            "at most 0.6",
        )
        say(
            "recording a scalar / SummaryWriter.add_scalar",
            pairs(lambda: _ours_scalar(folder), lambda: _add_scalar(folder), n),
            "at most 1/30 = 0.033",
        )
    accuracies = [_test_accuracy([f"seed={seed}"]) for seed in range(5)]
    spread = f"{statistics.fmean(accuracies):.4f} +- {statistics.stdev(accuracies):.4f}"
    print(f"digits, defaults: test accuracy {spread}, n=5; at least 0.97")
    try:
        dataset = data.load(app.configure(MNIST).data)
    except ConfigError as error:
        print(f"MNIST figures skipped: {error}")
        return
    _mnist(dataset, [256], n, "at most 0.9")
    _mnist(dataset, [512, 512], n, "at most 0.7")
    if Path("/proc/self/status").exists():
        ours, theirs = (_peak_mb(which) for which in ("ours", "peer"))
        more = f"difference {ours - theirs:.0f}; at most 200"
        print(f"  peak memory: ours {ours:.0f} MB, hand-written {theirs:.0f} MB, {more}")
    mnist = ["data=mnist", "epochs=10", "model.width=256", "schedule=cosine"]
    print(f"{' '.join(mnist)}: test accuracy {_test_accuracy(mnist):.4f}, n=1; at least 0.98")


def _mnist(dataset: data.Dataset, widths: list[int], n: int, limit: str) -> None:
    """An epoch of a run alone, by as many threads as it has, against the hand-written loop by as many."""
    config = app.configure([*MNIST, f"model.depth={len(widths)}", f"model.width={widths}"])
    split = data.split(dataset, config.data, 0)
    x, y = dataset.x[split.train], dataset.y[split.train]
    runtime.set_threads(Stack([config], dataset), 1)
    sizes, threads = [784, *widths, 10], torch.get_num_threads()
    name = "-".join(map(str, sizes))
    print(f"MNIST {name}, batch 64, Adam, {len(x)} examples, {threads} threads, times of one epoch:")
    model = loops.network(sizes)
    optimizer = torch.optim.Adam(model.parameters())
    peer = lambda: seconds(lambda: loops.epoch(model, optimizer, x, y, 64))  # noqa: E731
    ours = lambda record=True: train_seconds([config], dataset, record)  # noqa: E731
    recorded = pairs(lambda: ours()[0], peer, n)
    say("  all recorded / hand-written loop, nothing recorded", recorded, limit)
    both = pairs(lambda: sum(ours()), peer, n)
    say("  all recorded and both splits evaluated / hand-written, no evaluation", both, "")
    say("  recording on / off", pairs(lambda: ours()[0], lambda: ours(False)[0], n), "at most 1.10")


class Silent:
    """A display that shows nothing."""

    def tell(self, news: News) -> None:
        """Nothing."""

    def done(self, jobs: Sequence[Job]) -> None:
        """Nothing."""


class UntilTested(Recorder):
    """A recorder that stops the clock once training is over and everything measured is written: before the test."""

    def checkpoint(self, stack: Stack) -> None: ...

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Flush; no test, no checkpoints."""
        self.flush(stack)
        self.ended = time.perf_counter()


def train_seconds(configs: Sequence[Config], dataset: data.Dataset, record: bool = True) -> tuple[float, float]:
    """(seconds of training and recording, seconds of evaluation) of a stack from its first step to its last."""
    if not record:
        configs = [dataclasses.replace(c, record=dataclasses.replace(c.record, every=0)) for c in configs]
    with tempfile.TemporaryDirectory() as folder:
        runtime.set_up(configs[0])
        made = Stack(configs, dataset)
        runtime.set_threads(made, 1)
        recorder = UntilTested(made, [Destination(Path(folder) / str(k)) for k in range(len(configs))])
        began = time.perf_counter()
        loop.train(made, recorder)
        return recorder.ended - began - made.evaluating_s, made.evaluating_s


def _test_accuracy(overrides: list[str]) -> float:
    config = app.configure(overrides)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(0, Path(folder), config=config)
        pool.train_stacks([StackJob([job])], 0, Silent(), lambda: False)
        assert job.summary is not None
        return job.summary["test"]["best"]["accuracy"]


def _ours_scalar(folder: str, tags: int = 12, steps: int = 1000) -> float:
    """Seconds per scalar through the event writer, a chunk of steps at a time, flushed to disk."""
    values = np.random.default_rng(0).normal(size=(steps, tags))
    writer = EventWriter(folder)
    names, numbers, times = [f"grad_norm/layers.{i}.weight" for i in range(tags)], np.arange(steps), np.full(steps, 1e9)

    def write() -> None:
        writer.scalars(names, numbers, values, times)
        writer.flush()

    return seconds(write) / (tags * steps)


def _add_scalar(folder: str, tags: int = 12, steps: int = 100) -> float:
    """Seconds per scalar through torch's SummaryWriter, flushed to disk."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def write() -> None:
        for step in range(steps):
            for i in range(tags):
                writer.add_scalar(f"grad_norm/layers.{i}.weight", 0.5 * step, step)
        writer.flush()

    taken = seconds(write) / (tags * steps)
    writer.close()
    return taken


def _peak_mb(which: str) -> float:
    """Peak memory of one epoch of MNIST in a fresh process: ours, command and all, or the hand-written loop."""
    with tempfile.TemporaryDirectory() as folder:
        ours = f"from trainer.cli import app; app.run({MNIST})"
        peer = (
            "import os, torch, torchvision; from scripts.peers import loops; "
            "d = torchvision.datasets.MNIST(os.environ['TRAINER_DATA_ROOT']); "
            "x = d.data.view(-1, 784).float().div_(255).sub_(0.13).div_(0.31); "
            "m = loops.network([784, 256, 10]); loops.epoch(m, torch.optim.Adam(m.parameters()), x, d.targets, 64)"
        )
        # not getrusage, which counts the memory of the process that started this one
        usage = "import re; print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
        script = f"{ours if which == 'ours' else peer}; {usage}"
        call = [PYTHON, "-c", script]
        done = subprocess.run(call, cwd=folder, env=environment(), check=True, capture_output=True, text=True)
        return int(done.stdout.split()[-1]) / 1024
