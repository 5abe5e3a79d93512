"""What a person sees: a progress bar (plain lines where there is no terminal), and the table at the end."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.engine.progress import TICK_S, News
from trainer.judge import cures, health
from trainer.record.run_files import epoch_line
from trainer.report import vocabulary
from trainer.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from trainer.engine.worker import Job

PLAIN_LINE_S = 1.0
PLAIN_SWEEP_LINE_S = 5.0
BAR_TEXT_WIDTH = 75  # characters beside the bar


def words(*parts: str | tuple[str, str]) -> Text:
    """A line to print: parts, or (part, style). Nothing in them is rich's markup or a terminal's command."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((printable(part), style) for part, style in pairs))


class Display:
    """Shows one run's training: on a terminal a bar, else one line per epoch, at most one per second."""

    def __init__(self) -> None:
        self.console = Console()
        self.progress = _bar(self.console) if self.console.is_terminal else None
        self.began = self.said = 0.0

    def __enter__(self) -> Display:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

    def tell(self, news: News) -> None:
        """Move the bar; print a line where an epoch has ended."""
        now = time.perf_counter()
        if self.progress and not self.progress.tasks:
            self.progress.add_task("", total=news.steps)
        self.began = self.began or now
        if self.progress:
            self.progress.update(self.progress.task_ids[0], completed=news.step)
        if news.row is None:
            return
        speed = f"{news.step / (now - self.began):,.0f} steps/s"
        if self.progress:
            text = f"{news.epoch}/{news.epochs}  {_short_line(news.row)}  {speed}"
            self.progress.update(self.progress.task_ids[0], description=text)
        elif news.epoch in {1, news.epochs} or now - self.said > PLAIN_LINE_S:
            said = epoch_line(news.row).replace(f"epoch {news.epoch}", f"epoch {news.epoch}/{news.epochs}", 1)
            print(f"{said}  {speed}", flush=True)
            self.said = now

    def done(self, jobs: Sequence[Job]) -> None:
        """Print the end of a run: numbers, verdict, where the time went, where to look further."""
        if self.progress:
            self.progress.stop()
        for job in jobs:
            if job.summary and job.status != "failed":
                self.summary(job.summary, job.directory)

    def summary(self, summary: dict[str, Any], directory: Path) -> None:
        """Print the end of a run: numbers, verdict, where the time went, where to look further."""
        if summary["final"]:
            self.console.print(_table(summary))
        for line in _closing_lines(summary, directory):
            self.console.print(line, soft_wrap=True)
        sys.stdout.flush()


class Bar(Protocol):
    """What shows how far a sweep has come: rich's progress bar, or one like it."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def add_task(self, description: str, *, total: float) -> Any: ...

    def update(self, task_id: Any, *, completed: float, description: str) -> None: ...


class SweepDisplay:
    """One line for a whole sweep: runs done, steps a second over all members, time left, best so far."""

    def __init__(self, jobs: Sequence[Job], bar: Bar | None = None) -> None:
        self.jobs = jobs
        console = Console()
        self.progress = bar or (_bar(console) if console.is_terminal else None)
        self.began = self.said = self.ticked = time.perf_counter()
        self.told = 0.0  # runs in the last line
        self.steps = 0  # of all members
        self.news: dict[int, News] = {}  # the last of each stack in training
        self.best: tuple[float, str] = (float("inf"), "")

    def __enter__(self) -> SweepDisplay:
        if self.progress:
            self.progress.start()
            self.task = self.progress.add_task("", total=len(self.jobs))
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

    def tell(self, news: News) -> None:
        """Take in how far a stack has come; several train at once, after an error again in halves."""
        before = self.news.get(news.stack)
        self.steps += news.members * (news.step - (before.step if before and before.step < news.step else 0))
        self.news[news.stack] = news
        if news.row is not None and news.loss < self.best[0]:
            self.best = (news.loss, f"best {news.monitor.replace('/', ' ')} {news.row[news.monitor]:.4f}")
        now = time.perf_counter()
        if now - self.ticked > TICK_S:
            self.ticked = now
            self._say(now)

    def done(self, jobs: Sequence[Job]) -> None:
        """Take in that some jobs have ended."""
        self._say(time.perf_counter())

    def _say(self, now: float) -> None:
        ended = sum(job.status != "waiting" for job in self.jobs)
        runs = min(ended + sum(one.runs for one in self.news.values()), len(self.jobs))
        speed = self.steps / (now - self.began)
        line = f"{self.best[1]}  {speed:,.0f} steps/s"
        if self.progress:
            self.progress.update(self.task, completed=runs, description=f"{runs:.0f}/{len(self.jobs)} runs  {line}")
        elif (runs == len(self.jobs) > self.told) or now - self.said > PLAIN_SWEEP_LINE_S:
            left = f"  {(now - self.began) * (len(self.jobs) / runs - 1):.0f} s left" if runs else ""
            print(f"{runs:.0f} of {len(self.jobs)} runs  {line}{left}", flush=True)
            self.said, self.told = now, runs


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
    """Lay out train, val and test for the best and the last weights."""
    best, last, test = summary["best"], summary["final"], summary["test"]
    names = ["loss", *(["accuracy"] if "eval/train_accuracy" in last else []), *summary.get("metrics", ())]
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
    """Write a loss to four decimals, an accuracy in percent, large numbers in powers of ten."""
    value = values[key]
    if key.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3e}"


def _short_line(row: dict[str, float]) -> str:
    """Describe an epoch beside the bar."""
    parts = [f"loss {number(row, 'eval/train_loss')} train"]
    if "val/loss" in row:
        parts.append(f"{number(row, 'val/loss')} val")
    accuracy = "val/accuracy" if "val/accuracy" in row else "eval/train_accuracy"
    if accuracy in row:
        parts.append(f"{number(row, accuracy)} right")
    return "  ".join(parts)


def _closing_lines(summary: dict[str, Any], directory: Path) -> list[Text]:
    cost, verdict, best, last = summary["cost"], summary["verdict"], summary["best"], summary["final"]
    lines: list[Text] = []
    if best and "val/loss" in best:
        gap = number({"loss": last["val/loss"] - last["eval/train_loss"]}, "loss")
        lines.append(words(f"gap at the end {gap} (val loss - train loss)"))
    if summary.get("config", {}).get("data.test_fraction") == 0:
        lines.append(words("no test numbers: data.test_fraction=0 leaves no test split"))
    for key, pair in summary.get("recovered", {}).items():
        lines.append(words(f"{key:<10}true {pair['true']:g}, found {pair['found']:.4f}"))
    name = verdict["verdict"]
    judged = vocabulary.judged(verdict | {"health": summary["health"]})
    style = vocabulary.STYLES[name].terminal if judged != "not overfit" else "yellow"
    lines.append(words((judged, style), f": {verdict['sentence']}"))
    if last and not summary["health"]:
        lines.append(words(health.ALL_WELL))
    for finding in summary["health"]:
        called = health.name(finding)
        lines.append(words((called, "red"), health.line(finding).removeprefix(called)))
    if summary["stopped_by"] != "budget":
        lines.append(words(f"ended by {summary['stopped_by'].replace('_', ' ')} after epoch {summary['epochs']}"))
    shares = {key: cost[f"{key}_s"] / cost["seconds"] for key in ("training", "evaluation", "recording")}
    spent = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    lines.append(words(f"{cost['seconds']:.2f} s at {cost['steps_per_second']:,.0f} steps/s: {spent}"))
    try:
        shown = directory.relative_to(Path.cwd())
    except ValueError:
        shown = directory
    if cures.can_be_tried((finding["finding"] for finding in summary["health"]), summary.get("config", {})):
        lines.append(words(f"cures     python -m trainer.cure {shlex.quote(str(shown))}"))
    lines.append(words(f"curves    tensorboard --logdir {shown}"))
    lines.append(words(f"numbers   {shown}/summary.json, metrics.csv, checkpoints/"))
    return lines
