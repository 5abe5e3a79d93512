"""What a person sees: a bar on a terminal, plain lines elsewhere, a table at the end."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trainer.cli.display import Display, SweepDisplay
from trainer.engine.progress import News
from trainer.engine.worker import Job

ROW = {
    "epoch": 3.0,
    "step": 30.0,
    "eval/train_loss": 0.25,
    "eval/train_accuracy": 0.9,
    "val/loss": 0.5,
    "val/accuracy": 0.8,
    "lr": 0.1,
}
SUMMARY: dict[str, Any] = {
    "status": "completed",
    "stopped_by": "budget",
    "epochs": 4,
    "final": {**ROW, "epoch": 4, "eval/train_loss": 0.125, "val/loss": 0.75},
    "best": ROW,
    "test": {"best": {"loss": 0.5, "accuracy": 0.75}, "last": {"loss": 0.625, "accuracy": 0.7}},
    "verdict": {"verdict": "overfit", "sentence": "validation loss rises"},
    "health": [],
    "cost": {"seconds": 2.0, "steps_per_second": 1234.5, "training_s": 1.5, "evaluation_s": 0.3, "recording_s": 0.2},
}


def shown(monkeypatch: pytest.MonkeyPatch, *, tty: bool, width: int = 100) -> tuple[Display, io.StringIO]:
    """A display whose console writes into a string."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=tty, width=width, color_system=None)
    monkeypatch.setattr("trainer.cli.display.screen", lambda: console)
    return Display(), out


def news(stack: int = 0, **values: Any) -> News:
    """A stack of one: 4 epochs of 10 steps."""
    values |= {"loss": values["row"]["val/loss"]} if "row" in values else {}
    return News(
        **{"stack": stack, "members": 1, "runs": 0.0, "step": 0, "steps": 40, "epoch": 0, "epochs": 4, **values}
    )


def play(display: Display) -> None:
    """Four epochs."""
    with display:
        display.tell(news())
        display.began -= 1.0  # or it would be millions of steps a second
        for step in range(1, 41):
            display.tell(news(step=step, epoch=(step - 1) // 10, runs=step / 40))
            if step % 10 == 0:
                row = {**ROW, "epoch": step // 10}
                display.tell(news(step=step, epoch=step // 10, runs=step / 40, monitor="val/loss", row=row))


def test_without_a_terminal_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The first and the last epoch always, between them one a second; no control characters."""
    display, out = shown(monkeypatch, tty=False)
    play(display)
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"[\d,]+ steps/s", "N steps/s", line) for line in lines] == [
        "epoch 1/4  train loss 0.2500  val loss 0.5000  val accuracy 80.00%  N steps/s",
        "epoch 4/4  train loss 0.2500  val loss 0.5000  val accuracy 80.00%  N steps/s",
    ]
    assert out.getvalue() == ""


@pytest.mark.parametrize("width", [80, 100, 120])
def test_on_a_terminal_a_bar_that_fits_and_goes(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    display, out = shown(monkeypatch, tty=True, width=width)
    play(display)
    frames = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\n", "\r").split("\r")
    last = [frame for frame in frames if frame.strip()][-1]
    assert re.search(r"━ 4/4  loss 0.2500 train  0.5000 val  80.00% right  [\d,]+ steps/s .*left$", last.rstrip())
    assert all(len(frame) <= width for frame in frames)
    assert "…" not in last
    assert out.getvalue().endswith("\x1b[1A\x1b[2K"), "the bar is wiped at the end"


def test_one_line_for_a_whole_sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two stacks at once, one of them halved after an error: runs and steps are counted once."""
    now = [100.0]
    monkeypatch.setattr("trainer.cli.display.time.perf_counter", lambda: now[0])
    jobs = [Job(number, Path()) for number in range(4)]
    display = SweepDisplay(jobs)
    monkeypatch.setattr("trainer.cli.display.PLAIN_SWEEP_LINE_S", 0.0)

    def tell(**values: Any) -> str:
        now[0] += 1.0
        display.tell(news(**values))
        return capsys.readouterr().out.strip()

    assert tell(stack=0, members=2, step=0) == "0 of 4 runs"  # nobody can say how long it takes
    assert tell(stack=0, members=2, step=20, runs=1.0) == "1 of 4 runs  20 steps/s  6 s left"
    row = {**ROW, "val/loss": 0.125}
    assert tell(stack=1, members=2, step=100, runs=0.5).startswith("1 of 4 runs  13 steps/s")  # 100 steps were before
    said = tell(stack=1, members=2, step=120, runs=1.0, monitor="val/loss", row=row)
    assert said == "2 of 4 runs  best val loss 0.1250  20 steps/s  5 s left"
    assert tell(stack=0, members=1, step=0).startswith("1 of 4 runs")  # begun again, in halves
    assert tell(stack=0, members=1, step=40, runs=1.0, monitor="val/loss", row=ROW).startswith("2 of 4 runs")
    assert display.steps == 2 * 20 + 2 * 20 + 1 * 40
    assert tell(stack=0, members=1, step=40, runs=0.0).startswith("1 of 4 runs")  # and now it is among those that ended
    jobs[0].status = "completed"
    now[0] += 1.0
    display.done(jobs[:1])
    assert capsys.readouterr().out.startswith("2 of 4 runs  best val loss 0.1250")
    for job in jobs:
        job.status = "completed"
        display.done([job])
    display.done(jobs)
    assert [line[:11] for line in capsys.readouterr().out.splitlines()] == ["4 of 4 runs"]  # once, without a time left


def test_no_speed_of_an_earlier_command(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    with display:
        display.tell(news(step=1_000_000, steps=1_000_010))
        display.began -= 1.0
        display.tell(news(step=1_000_010, steps=1_000_010, epoch=4, row={**ROW, "epoch": 4}))
    assert re.search(r"  (9|10) steps/s$", capsys.readouterr().out.strip())


def test_a_table_gives_up_columns_and_no_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Six metrics: as many columns as there is room for, each with all its digits."""
    metrics = {f"metric_{i}": 0.123456 for i in range(6)}
    rows = {f"{split}/{name}": value for split in ("eval/train", "val") for name, value in metrics.items()}
    rows |= {f"eval/train_{name}": value for name, value in metrics.items()}
    test = {"loss": 0.5, "accuracy": 0.75, **metrics}
    summary = {**SUMMARY, "metrics": metrics, "test": {"best": test, "last": test}}
    summary |= {"final": {**SUMMARY["final"], **rows}, "best": {**ROW, **rows}}
    columns = []
    for width in (60, 80, 110, 200):
        display, out = shown(monkeypatch, tty=False, width=width)
        display.summary(summary, tmp_path)
        table = out.getvalue().splitlines()[1:5]
        assert "…" not in "".join(table)
        assert max(map(len, table)) <= width
        assert set(table[1].split()[1:]) <= {"0.2500", "90.00%", "0.1250", "0.1235"}
        columns.append(len(table[0].split()))
    assert columns == sorted(columns)
    assert (columns[0], columns[-1]) == (4, 16)


def test_the_end_of_a_run_on_a_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its value, how far it is from the minimum, and no verdict: there is nothing to generalise to."""
    last = {"epoch": 9, "step": 9, "eval/train_loss": 2.0, "point/x": 4.0, "point/y": 6.0}
    pairs = {"x": {"true": 1.0, "found": 4.0}, "y": {"true": 2.0, "found": 6.0}}
    summary = {**SUMMARY, "final": last, "best": last, "recovered": pairs, "config": {"model.function": "quadratic"}}
    assert summary_text(monkeypatch, summary, tmp_path)[:3] == [
        "f         2 at (4, 6) after 9 steps",
        "distance  5 to the minimum at (1, 2)",
        "2.00 s at 1,234 steps/s: training 75%, evaluation 15%, recording 10%",
    ]


def summary_text(monkeypatch: pytest.MonkeyPatch, summary: dict[str, Any], directory: Path) -> list[str]:
    display, out = shown(monkeypatch, tty=False)
    display.summary(summary, directory)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_end_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert summary_text(monkeypatch, SUMMARY, tmp_path / "outputs/run") == [
        "       best (epoch 3)            last (epoch 4)",
        "                 loss  accuracy            loss  accuracy",
        "train          0.2500    90.00%          0.1250    90.00%",
        "val            0.5000    80.00%          0.7500    80.00%",
        "test           0.5000    75.00%          0.6250    70.00%",
        "gap at the end 0.6250 (val loss - train loss)",
        "overfit: validation loss rises",
        "gradients, activations and updates: all is well",
        "2.00 s at 1,234 steps/s: training 75%, evaluation 15%, recording 10%",
        "curves    tensorboard --logdir outputs/run",
        "numbers   outputs/run/summary.json, metrics.csv, checkpoints/",
    ]


def test_a_regression_without_validation_that_blew_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {"epoch": 2, "eval/train_loss": float("nan"), "lr": 0.1}
    best = {"epoch": 1, "eval/train_loss": 5.9376e8, "lr": 0.1}
    test = {"best": {"loss": 1e30}, "last": {"loss": float("inf")}}
    verdict = {"verdict": "diverged", "sentence": "not finite"}
    finding = {
        "finding": "not_finite",
        "where": "train/loss",
        "step": 7,
        "sentence": "NaN",
        "why": "bad",
        "try": "less",
    }
    summary = {**SUMMARY, "final": row, "best": best, "test": test, "verdict": verdict, "stopped_by": "diverged"}
    assert summary_text(monkeypatch, {**summary, "health": [finding]}, tmp_path)[:7] == [
        "       best (epoch 1)  last (epoch 2)",
        "                 loss            loss",
        "train       5.938e+08             nan",
        "test        1.000e+30             inf",
        "diverged: not finite",
        "not finite (train/loss, from step 7): NaN; bad. Try less.",
        "ended by diverged after epoch 4",
    ]


def test_interrupted_before_the_first_epoch_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    verdict = {"verdict": "too_short", "sentence": "0 epochs"}
    nothing = {"final": {}, "best": {}, "test": {}, "verdict": verdict, "stopped_by": "interrupt", "epochs": 0}
    assert summary_text(monkeypatch, {**SUMMARY, **nothing}, tmp_path)[:2] == [
        "too short: 0 epochs",
        "ended by interrupt after epoch 0",
    ]
