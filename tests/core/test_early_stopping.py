"""Early stopping: on a value that no longer improves, and by the verdict."""

import itertools
import math
from typing import Any

import pytest

from tests.helpers import is_overfit, make_config, small_data
from trainer.config import Config
from trainer.core.stack import Member, Stack
from trainer.judge import overfit


def spirals(**values: Any) -> Config:
    """160 examples, 5 steps an epoch."""
    small = {"data.train_size": 160, "data.batch_size": 32, "model.width": 12}
    return make_config("data=spirals", **(small | values))


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "stopping", "best", "stopped"),
    [
        ([3, 2, 1, 2, 3, 4], {"patience": 2}, 3, 5),
        ([3, 2, 1, 2, 0.5, 4, 5], {"patience": 2}, 5, 7),
        ([1, 2, 3, 4, 5, 6], {"patience": 1}, 1, 2),
        ([3, 2, 1, 2, 3, 4], {"patience": None}, 3, None),
        ([3, 2.95, 2.9, 2.85, 2.8], {"patience": 2, "min_delta": 0.11}, 1, 3),
        ([3, 2.95, 2.88, 2.85, 2.8], {"patience": 2, "min_delta": 0.11}, 3, 5),
        ([1, 1, 1, 1], {"patience": 3}, 1, 4),
        ([2, NAN, NAN, NAN], {"patience": 2}, 1, 3),
        ([NAN, 2, 1, INF, NAN], {"patience": 2}, 3, 5),
        ([NAN, NAN, NAN], {"patience": 2}, 1, 3),
    ],
)
@pytest.mark.parametrize("monitor", ["val/loss", "val/accuracy"])
def test_early_stopping_on_a_planted_curve(
    losses: list[float], stopping: dict[str, Any], best: int, stopped: int | None, monitor: str
) -> None:
    """An accuracy is monitored like the loss turned upside down."""
    values = {f"early_stopping.{key}": value for key, value in stopping.items()}
    stack = Stack([spirals(**values, **{"early_stopping.monitor": monitor})], small_data("spirals"))
    member = stack.members[0]
    reasons = []
    for epoch, loss in enumerate(losses, 1):
        value = loss if monitor == "val/loss" else 10 - loss
        reasons.append(
            member.observe(
                {"epoch": epoch, "step": epoch, monitor: value}, lambda epoch=epoch: {"w": epoch}, is_overfit
            )
        )
        if reasons[-1]:
            break
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert (len(reasons) if reasons[-1] else None) == stopped
    assert reasons[-1] in {None, "early_stopping"}
    assert member.best is not None
    assert (member.best.epoch, member.best.state) == (best, {"w": best})


@pytest.mark.parametrize("begins", [20, 150, 700, 1999])
@pytest.mark.parametrize("patience", [1, 3, 20])
def test_a_judge_of_all_epochs_reads_each_of_them_a_bounded_number_of_times(begins: int, patience: int) -> None:
    """A run that is overfit from an epoch on stops at most a hundredth of its length later than if asked every time.

    In 2,000 epochs a judge who is asked every time reads two million rows.
    """
    stopping = {"early_stopping.monitor": "verdict", "early_stopping.patience": patience}
    member = Stack([spirals(**stopping)], small_data("spirals")).members[0]
    read = 0

    def judge(member: Member) -> bool:
        nonlocal read
        read += len(member.rows)
        return len(member.rows) >= begins

    stopped = next(
        epoch
        for epoch in itertools.count(1)
        if member.observe({"epoch": epoch, "step": epoch, "val/loss": 1.0}, lambda: {}, judge)
    )
    asked_every_time = begins + patience - 1
    assert asked_every_time <= stopped <= asked_every_time + max(0, begins // 100)
    if begins < 200:
        assert stopped == asked_every_time
    assert read <= (150 + patience) * stopped


@pytest.mark.parametrize("patience", [None, 1, 4])
def test_early_stopping_by_the_verdict(patience: int | None) -> None:
    """A loss that falls for ten epochs and then climbs back: stopped where `judge` has said overfit long enough."""
    epochs = [*range(1, 41)]
    losses = [3 - 0.25 * min(e, 10) + 0.1 * max(0, e - 10) for e in epochs]
    rows = [
        {"epoch": e, "step": e, "eval/train_loss": 3 - 0.07 * e, "val/loss": v}
        for e, v in zip(epochs, losses, strict=True)
    ]
    curves = [[row[tag] for row in rows] for tag in ("eval/train_loss", "val/loss")]
    called = [overfit.judge(*(curve[:n] for curve in curves)).verdict == "overfit" for n in range(1, len(rows) + 1)]
    assert not any(called[:10])
    assert all(called[30:])
    values = {"early_stopping.monitor": "verdict", "early_stopping.patience": patience}
    member = Stack([spirals(**values)], small_data("spirals")).members[0]
    stopped = next(n for n, row in enumerate(rows, 1) if member.observe(row, dict, is_overfit))
    assert stopped == called.index(True) + (patience or 3)
    assert member.best is not None
    assert member.best.epoch == 10
