"""What the process of a command needs before anything else. Imports little: workers import torch in the meantime."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from trainer import stdio
from trainer.engine import fork_server

# Rounds that a thread of OpenMP (libgomp) waits for the others before it sleeps. With its own 300,000, two runs at once
# on one machine wait for each other ten times as long as they compute (`benchmark sweep --only s`).
SPINS = "1000"


def wants_workers(arguments: Sequence[str]) -> bool:
    """Whether a command line of `python -m trainer` is of a sweep that trains here."""
    is_sent = any(text.startswith("hydra/launcher=") and text != "hydra/launcher=stack" for text in arguments)
    return bool({"-m", "--multirun"} & set(arguments)) and not is_sent


def prepare(workers: bool) -> None:
    """Set up standard streams and environment, and where workers will be wanted, begin to start them."""
    stdio.prepare()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, so that we say it in our words
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic=true wants on a GPU
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if os.getcwd() not in sys.path[:1]:
        sys.path.insert(0, os.getcwd())  # for model._target_ of the user's own, also from the console script
    if workers:
        fork_server.warm_up()
