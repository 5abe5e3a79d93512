"""What a person sees: a progress bar (plain lines where there is no terminal), and the table at the end."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.record import epoch_line
from trainer.train import Stack

PLAIN_LINE_S = 1.0
TICK_S = 0.1


class Display:
    """Shows one stack's training: on a terminal a bar, else a line an epoch, at most one a second."""

    def __init__(self, stack: Stack) -> None:
        self.console = Console()
        self.total = max(stack.total_steps(member.config) for member in stack.members)
        self.epochs = -(-self.total // stack.steps_per_epoch)
        self.began = self.said = self.ticked = time.perf_counter()
        self.progress = None
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.progress = Progress(
                TextColumn("step"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.task = self.progress.add_task("", total=self.total)

    def __enter__(self) -> Display:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

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
        line = f"{epoch_line(rows[0])}  {speed:,.0f} steps/s".replace("epoch ", f"epoch {'':<{0}}", 1)
        if self.progress:
            self.progress.update(self.task, completed=stack.step, description=line)
        elif stack.epoch in {1, self.epochs} or now - self.said > PLAIN_LINE_S:
            print(line, flush=True)
            self.said = now

    def summary(self, summary: dict[str, Any], directory: Path) -> None:
        """The end of a run: numbers, verdict, where the time went, where to look further."""
        self.console.print(_table(summary))
        for line in _closing_lines(summary, directory):
            self.console.print(line, soft_wrap=True, highlight=False)
        sys.stdout.flush()


VERDICT_STYLES = {"healthy": "green", "overfit": "yellow", "underfit": "yellow", "diverged": "red", "too_short": "dim"}


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
