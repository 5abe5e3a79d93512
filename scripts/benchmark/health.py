"""What activation statistics after each epoch add to the training of that epoch, on digits, all recorded."""

from __future__ import annotations

import torch

from scripts.benchmark import say, seconds
from trainer.cli import app
from trainer.core import data, loop
from trainer.core.stack import Stack


def measure(n: int) -> None:
    """Print their share for a run alone, and in a stack of 64."""
    dataset = data.load(app.configure([]).data)
    for K, limit in ((1, "at most 0.05"), (64, "at most 0.03")):
        made = Stack([app.configure([f"seed={k}"]) for k in range(K)], dataset)
        torch.set_num_threads(1)
        say(
            f"activation statistics / training of an epoch, K = {K}",
            [_statistics_share(made) for _ in range(5 * n)],
            limit,
        )


def _statistics_share(made: Stack) -> float:
    """Evaluation with activation statistics minus evaluation without, over the steps of an epoch, measured in turn."""
    rows, target = made.next_order()
    evaluated = [
        seconds(
            lambda probe=probe: [loop.evaluate(made, made.train_KN, made.train_y_KN, probe=probe) for _ in range(10)]
        )
        for probe in (True, False)
    ]
    batches = [[batch] for batch in made.batches]
    trained = seconds(lambda: loop.train_steps(made, rows, target, batches, [True] * len(batches)))
    return (evaluated[0] - evaluated[1]) / 10 / trained
