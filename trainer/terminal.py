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


class Display:
    """Shows one run's training: on a terminal a bar, else a line an epoch, at most one a second."""

    def __init__(self) -> None:
        self.console = Console()
        self.progress = _bar(self.console, "step") if self.console.is_terminal else None

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
        line = f"{epoch_line(rows[0])}  {stack.step / (now - self.began):,.0f} steps/s"
        if self.progress:
            self.progress.update(self.task, completed=stack.step, description=line)
        elif stack.epoch == 1 or stack.step >= self.total or now - self.said > PLAIN_LINE_S:
            print(line, flush=True)
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
        self.progress = _bar(self.console, "run") if self.console.is_terminal else None
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
            value = row.get(member.config.early_stopping.monitor.value, row["eval/train_loss"])
            is_loss = member.config.early_stopping.monitor.value == "val/loss"
            if (value if is_loss else -value) < self.best[0]:
                name = member.config.early_stopping.monitor.value.replace("/", " ")
                self.best = (value if is_loss else -value, f"best {name} {value:.4f}")

    def done(self, jobs: Sequence[Job]) -> None:
        """A stack's jobs have ended."""
        self.shares = {stack: share for stack, share in self.shares.items() if stack.members}
        self._say(float(sum(job.status != "waiting" for job in self.jobs)), time.perf_counter())

    def _say(self, runs: float, now: float) -> None:
        runs = min(runs, len(self.jobs))
        speed = self.steps / (now - self.began)
        line = f"{self.best[1]}  {speed:,.0f} steps/s"
        if self.progress:
            self.progress.update(self.task, completed=runs, description=line)
        elif runs == len(self.jobs) or now - self.said > PLAIN_SWEEP_LINE_S:
            left = (now - self.began) * (len(self.jobs) / max(runs, 1e-9) - 1)
            print(f"{runs:.0f} of {len(self.jobs)} runs  {line}  {left:.0f} s left", flush=True)
            self.said = now


def _bar(console: Console, unit: str) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(unit), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def _table(summary: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("loss", "accuracy"):
        table.add_column(title, justify="right")
    best, last, test = summary["best"], summary["final"], summary["test"]
    for name, row, prefix in (("train", best, "eval/train_"), ("val", best, "val/"), ("test", test.get("best"), "")):
        _add_row(table, f"{name}, best epoch", row, prefix)
    for name, row, prefix in (("train", last, "eval/train_"), ("val", last, "val/"), ("test", test.get("last"), "")):
        _add_row(table, f"{name}, last epoch", row, prefix)
    return table


def _add_row(table: Table, name: str, row: dict[str, float] | None, prefix: str) -> None:
    if row and f"{prefix}loss" in row:
        accuracy = row.get(f"{prefix}accuracy")
        table.add_row(name, f"{row[f'{prefix}loss']:.4f}", "" if accuracy is None else f"{accuracy:.2%}")


def _closing_lines(summary: dict[str, Any], directory: Path) -> list[Text | str]:
    cost, verdict, best, last = summary["cost"], summary["verdict"], summary["best"], summary["final"]
    lines: list[Text | str] = []
    if best and "val/loss" in best:
        gap = last["val/loss"] - last["eval/train_loss"]
        lines.append(
            f"best epoch {best['epoch']} of {summary['epochs']}; gap at the end {gap:.4f} (val loss - train loss)"
        )
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
