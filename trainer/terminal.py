"""What a person sees: a progress bar (plain lines where there is no terminal), and the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.record import epoch_line
from trainer.train import Stack

if TYPE_CHECKING:
    from rich.progress import Progress

    from trainer.stack import Job

PLAIN_LINE_S = 1.0
PLAIN_SWEEP_LINE_S = 5.0
TICK_S = 0.1
BAR_TEXT_WIDTH = 75  # characters beside the bar


class Display:
    """Shows one run's training: on a terminal a bar, else a line an epoch, at most one a second."""

    def __init__(self) -> None:
        self.console = Console()
        self.progress = _bar(self.console) if self.console.is_terminal else None

    def __enter__(self) -> Display:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

    def start(self, stack: Stack) -> None:
        """Training begins."""
        self.total = stack.total_steps(stack.members[0].config)
        self.epochs = -(-self.total // stack.steps_per_epoch)
        self.began = self.said = self.ticked = time.perf_counter()
        if self.progress:
            self.task = self.progress.add_task("", total=self.total)

    def tick(self, stack: Stack) -> None:
        """Called every step: move the bar ten times a second."""
        now = time.perf_counter()
        if self.progress and now - self.ticked > TICK_S:
            self.progress.update(self.task, completed=stack.step)
            self.ticked = now

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Called every epoch."""
        now = time.perf_counter()
        speed = stack.step / (now - self.began)
        if self.progress:
            text = f"{stack.epoch}/{self.epochs}  {_short_line(rows[0])}  {speed:,.0f} steps/s"
            self.progress.update(self.task, completed=stack.step, description=text)
        elif stack.epoch in {1, self.epochs} or now - self.said > PLAIN_LINE_S:
            said = epoch_line(rows[0]).replace(f"epoch {stack.epoch}", f"epoch {stack.epoch}/{self.epochs}", 1)
            print(f"{said}  {speed:,.0f} steps/s", flush=True)
            self.said = now

    def done(self, jobs: Sequence[Job]) -> None:
        """The end of a run: numbers, verdict, where the time went, where to look further."""
        if self.progress:
            self.progress.stop()
        for job in jobs:
            if job.summary and job.status != "failed":
                self.summary(job.summary, job.directory)

    def summary(self, summary: dict[str, Any], directory: Path) -> None:
        """The end of a run: numbers, verdict, where the time went, where to look further."""
        if summary["final"]:
            self.console.print(_table(summary))
        for line in _closing_lines(summary, directory):
            self.console.print(line, soft_wrap=True, highlight=False)
        sys.stdout.flush()


VERDICT_STYLES = {"healthy": "green", "overfit": "yellow", "underfit": "yellow", "diverged": "red", "too_short": "dim"}


class SweepDisplay:
    """One line for a whole sweep: runs done, steps a second over all members, time left, best so far."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.console = Console()
        self.progress = _bar(self.console) if self.console.is_terminal else None
        self.began = self.said = self.ticked = time.perf_counter()
        self.steps = 0  # of all members
        self.sizes: dict[Stack, int] = {}
        self.shares: dict[Stack, float] = {}  # how far each stack in training has come
        self.best: tuple[float, str] = (float("inf"), "")

    def __enter__(self) -> SweepDisplay:
        if self.progress:
            self.progress.start()
            self.task = self.progress.add_task("", total=len(self.jobs))
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

    def start(self, stack: Stack) -> None:
        """A stack begins; several may train at once."""
        self.sizes[stack] = len(stack.members)
        self.shares[stack] = 0.0

    def tick(self, stack: Stack) -> None:
        """Called every step of a stack."""
        self.steps += len(stack.members)
        now = time.perf_counter()
        if now - self.ticked > TICK_S:
            self.ticked = now
            self.shares[stack] = stack.step / stack.total_steps(stack.members[0].config)
            ended = sum(job.status != "waiting" for job in self.jobs)
            self._say(ended + sum(self.shares[s] * self.sizes[s] for s in list(self.shares)), now)

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Called every epoch of a stack."""
        for member, row in zip(stack.members, rows, strict=True):
            tag = member.config.early_stopping.tag
            value, is_loss = row.get(tag, row["eval/train_loss"]), tag == "val/loss"
            if (value if is_loss else -value) < self.best[0]:
                self.best = (value if is_loss else -value, f"best {tag.replace('/', ' ')} {value:.4f}")

    def done(self, jobs: Sequence[Job]) -> None:
        """A stack's jobs have ended."""
        self.shares = {stack: share for stack, share in self.shares.items() if stack.members}
        self._say(float(sum(job.status != "waiting" for job in self.jobs)), time.perf_counter())

    def _say(self, runs: float, now: float) -> None:
        runs = min(runs, len(self.jobs))
        speed = self.steps / (now - self.began)
        line = f"{self.best[1]}  {speed:,.0f} steps/s"
        if self.progress:
            self.progress.update(self.task, completed=runs, description=f"{runs:.0f}/{len(self.jobs)} runs  {line}")
        elif runs == len(self.jobs) or now - self.said > PLAIN_SWEEP_LINE_S:
            left = (now - self.began) * (len(self.jobs) / max(runs, 1e-9) - 1)
            print(f"{runs:.0f} of {len(self.jobs)} runs  {line}  {left:.0f} s left", flush=True)
            self.said = now


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(bar_width=max(5, min(40, console.width - BAR_TEXT_WIDTH))),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        transient=True,
    )


def _table(summary: dict[str, Any]) -> Table:
    """Train, val and test by the best and the last weights."""
    best, last, test = summary["best"], summary["final"], summary["test"]
    names = ["loss", "accuracy"] if "eval/train_accuracy" in last else ["loss"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for weights in (f"best (epoch {best['epoch']:.0f})", f"last (epoch {last['epoch']:.0f})"):
        for i, name in enumerate(names):
            table.add_column(f"{weights}\n{name}" if i == 0 else f"\n{name}", justify="right")
    rows = [("train", best, last, "eval/train_"), ("val", best, last, "val/")]
    for name, *columns, prefix in [*rows, ("test", test.get("best", {}), test.get("last", {}), "")]:
        if f"{prefix}loss" in columns[0]:
            table.add_row(name, *(number(values, prefix + n) for values in columns for n in names))
    return table


def number(values: dict[str, float], key: str) -> str:
    """A loss to four decimals, an accuracy in percent, what is large in powers of ten."""
    value = values[key]
    if key.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3e}"


def _short_line(row: dict[str, float]) -> str:
    """An epoch beside the bar."""
    parts = [f"loss {number(row, 'eval/train_loss')} train"]
    if "val/loss" in row:
        parts.append(f"{number(row, 'val/loss')} val")
    accuracy = "val/accuracy" if "val/accuracy" in row else "eval/train_accuracy"
    if accuracy in row:
        parts.append(f"{number(row, accuracy)} right")
    return "  ".join(parts)


def _closing_lines(summary: dict[str, Any], directory: Path) -> list[Text | str]:
    cost, verdict, best, last = summary["cost"], summary["verdict"], summary["best"], summary["final"]
    lines: list[Text | str] = []
    if best and "val/loss" in best:
        gap = number({"loss": last["val/loss"] - last["eval/train_loss"]}, "loss")
        lines.append(f"gap at the end {gap} (val loss - train loss)")
    name = verdict["verdict"]
    lines.append(Text.assemble((name.replace("_", " "), VERDICT_STYLES[name]), f": {verdict['sentence']}"))
    if summary["stopped_by"] != "budget":
        lines.append(f"ended by {summary['stopped_by'].replace('_', ' ')} after epoch {summary['epochs']}")
    shares = {key: cost[f"{key}_s"] / cost["seconds"] for key in ("training", "evaluation", "recording")}
    spent = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    lines.append(f"{cost['seconds']:.2f} s at {cost['steps_per_second']:,.0f} steps/s: {spent}")
    try:
        shown = directory.relative_to(Path.cwd())
    except ValueError:
        shown = directory
    lines.append(f"curves    tensorboard --logdir {shown}")
    lines.append(f"numbers   {shown}/summary.json, metrics.csv, checkpoints/")
    return lines
