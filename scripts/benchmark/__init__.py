"""What every verb of the benchmark measures by: ratios to a peer measured in turn, n pairs, median and spread."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from trainer.cli import app
from trainer.core import data

PYTHON = sys.executable
MNIST = ["data=mnist", "data.batch_size=64", "model.depth=1", "model.width=256", "model.dropout=0", "epochs=1"]
SWEEP = ["optimizer=sgd,adam,adamw", "model.dropout=0,0.25,0.5", "model.batchnorm=false,true", "seed=range(5)"]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pairs(a: Callable[[], float], b: Callable[[], float], n: int, warm_up: bool = True) -> list[float]:
    """n ratios a / b, the two measured in turn, after one of each that does not count."""
    if warm_up:
        a()
        b()
    return [a() / b() for _ in range(n)]


def say(what: str, ratios: Sequence[float], limit: str) -> None:
    """One line of the table."""
    median = statistics.median(ratios)
    print(f"{what:<78} {median:8.3f}  [{min(ratios):.3f}, {max(ratios):.3f}]  n={len(ratios)}  {limit}", flush=True)


def command(*arguments: str, folder: str) -> float:
    """Wall time of a command run in `folder`, which must succeed."""
    call = [PYTHON, *arguments]
    return seconds(lambda: subprocess.run(call, cwd=folder, env=environment(), check=True, capture_output=True))


def cpu_seconds(*arguments: str, folder: str) -> float:
    """CPU time of a command run in `folder`, user's and system's, of all its processes (on Linux)."""
    pr_set_child_subreaper = 36  # prctl(2): what outlives the command, a server of workers, is waited for here
    prctl = ctypes.CDLL(None).prctl

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    command(*arguments, folder=folder)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()
    prctl(pr_set_child_subreaper, 0, 0, 0, 0)  # or what other commands leave would be counted here
    return spent() - before


def environment() -> dict[str, str]:
    """That of a user: this tree, and modules compiled once, not at each start."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def digits(folder: str) -> str:
    """Save what a textbook loop trains on; return the file."""
    config = app.configure([])
    dataset = data.load(config.data)
    split = data.split(dataset, config.data, 0)
    parts = {"train": split.train, "val": split.val}
    torch.save({name: (dataset.x[rows], dataset.y[rows]) for name, rows in parts.items()}, f"{folder}/digits.pt")
    return f"{folder}/digits.pt"


def installed(module: str) -> bool:
    """Whether there is a package; where there is none, say what is not measured."""
    try:
        importlib.import_module(module)
    except ImportError:
        print(f"not measured: {module} is not installed; try pip install -e '.[benchmark]'")
        return False
    return True
