"""What a person sees: a progress bar (plain lines where there is no terminal), and the table at the end."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.engine.progress import TICK_S, News
from trainer.judge import advice, health
from trainer.language import print_line, translated
from trainer.record import ground_truth
from trainer.record.run_files import epoch_line
from trainer.report import vocabulary
from trainer.report.screen import fitting, screen
from trainer.text import printable, shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from trainer.engine.worker import Job

PLAIN_LINE_S = 1.0
PLAIN_SWEEP_LINE_S = 5.0
LITTLE = 0.02  # of a run: who has trained less cannot say how long the rest takes
BAR_LEAST, BAR_TIME = 5, 13  # characters of the bar itself, and of the time left with its spaces
BAR_TEXT_WIDTH = 75  # characters beside the bar


def words(*parts: str | tuple[str, str]) -> Text:
    """A line to print: parts, or (part, style). Nothing in them is rich's markup or a terminal's command."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((printable(translated(part)), style) for part, style in pairs))


def is_copied(console: Console, line: str) -> bool:
    """Whether a line must not be broken: a path or command stands behind its label, or nobody counts columns there."""
    return not console.is_terminal or re.match(r"\S+  ", line) is not None


class Display:
    """Shows one run's training: on a terminal a bar, else one line per epoch, at most one per second."""

    def __init__(self, here: Path | None = None) -> None:
        """here: the folder that the command was typed in, which Hydra may have left."""
        self.console = screen()
        self.here = here or Path.cwd()
        self.progress = _bar(self.console) if self.console.is_terminal else None
        self.began = self.said = 0.0
        self.first = 0  # step: a run that goes on was trained so far by an earlier command

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

    def tell(self, news: News) -> None:
        """Move the bar; print a line where an epoch has ended."""
        now = time.perf_counter()
        if not self.began:
            self.began, self.first = now, news.step
            if self.progress:
                self.progress.start()
                self.progress.add_task(f"0/{news.epochs}", total=news.steps, completed=news.step)
        if self.progress:
            self.progress.update(self.progress.task_ids[0], completed=news.step)
        if news.row is None:
            return
        speed = f"{(news.step - self.first) / (now - self.began):,.0f} steps/s"
        if self.progress:
            text = _fitting_line(self.console, f"{news.epoch}/{news.epochs}", *_short_line(news.row), speed)
            self.progress.update(self.progress.task_ids[0], description=text)
        elif news.epoch in {1, news.epochs} or now - self.said > PLAIN_LINE_S:
            said = epoch_line(news.row).replace(f"epoch {news.epoch}", f"epoch {news.epoch}/{news.epochs}", 1)
            print_line(f"{said}  {speed}")
            self.said = now

    def done(self, jobs: Sequence[Job]) -> None:
        """Print the end of a run: numbers, verdict, where the time went if it went now, where to look further."""
        if self.progress:
            self.progress.stop()
        for job in jobs:
            if job.summary and job.status != "failed":
                self.summary(job.recorded(), job.directory, job.finished_earlier)

    def summary(self, summary: dict[str, Any], directory: Path, finished_earlier: bool = False) -> None:
        """Print the end of a run; a function's value and point instead of a table over splits."""
        if summary["final"] and not ground_truth.is_of_function(summary):
            self.console.print(_table(summary, self.console))
        for line in _closing_lines(summary, shown(directory, self.here), finished_earlier):
            self.console.print(line, soft_wrap=is_copied(self.console, line.plain))
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
        self.console = Console()
        self.progress = bar or (_bar(self.console) if self.console.is_terminal and jobs else None)
        self.began = self.said = self.ticked = time.perf_counter()
        self.trained = 0.0  # runs, by this command
        self.told = 0  # runs that had ended, in the last line
        self.steps = 0  # of all members
        self.news: dict[int, News] = {}  # the last of each stack in training
        self.best: tuple[float, str] = (float("inf"), "")

    def __enter__(self) -> SweepDisplay:
        if self.progress:
            self.progress.start()
            self.task = self.progress.add_task(f"0/{len(self.jobs)} runs", total=len(self.jobs))
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

    def tell(self, news: News) -> None:
        """Take in how far a stack has come; several train at once, after an error again in halves."""
        before = self.news.get(news.stack)
        if before is not None and before.step < news.step:  # else it begins, or goes on where an earlier command ended
            self.steps += news.members * (news.step - before.step)
            self.trained += max(0.0, news.runs - before.runs)
        self.news[news.stack] = news
        if news.row is not None and news.loss < self.best[0]:
            self.best = (news.loss, f"best {_called(news.row, news.monitor)} {number(news.row, news.monitor)}")
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
        said = [*([self.best[1]] if self.best[1] else []), *([f"{speed:,.0f} steps/s"] if speed >= 1 else [])]
        if self.progress:
            description = _fitting_line(self.console, f"{math.floor(runs)}/{len(self.jobs)} runs", *said)
            self.progress.update(self.task, completed=runs, description=description)
        elif (ended == len(self.jobs) > self.told) or (ended < len(self.jobs) and now - self.said > PLAIN_SWEEP_LINE_S):
            left = (now - self.began) * (len(self.jobs) - runs) / self.trained if self.trained > LITTLE else 0
            rest = [f"{_time(left)} left"] if left else []
            print(
                "  ".join(map(translated, [f"{math.floor(runs)} of {len(self.jobs)} runs", *said, *rest])), flush=True
            )
            self.said, self.told = now, ended


def _time(seconds: float) -> str:
    """Write a time to come as exactly as anyone can know it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _called(row: dict[str, float], tag: str) -> str:
    """Name what a run is trained for: of a function its value, of a network the loss."""
    return "f" if "point/x" in row or "point/x1" in row else tag.replace("/", " ")


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(bar_width=max(BAR_LEAST, min(40, console.width - BAR_TEXT_WIDTH))),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn(translated("left")),
        console=console,
        transient=True,
    )


def _table(summary: dict[str, Any], console: Console) -> Table:
    """Lay out train, val and test for the best and the last weights, with the metrics that there is room for."""
    best, last, test = summary["best"], summary["final"], summary["test"]
    names = ["loss", *(["accuracy"] if "eval/train_accuracy" in last else []), *summary.get("metrics", ())]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for weights in (f"best (epoch {best['epoch']:.0f})", f"last (epoch {last['epoch']:.0f})"):
        for i, name in enumerate(names):
            head = f"{translated(weights)}\n" if i == 0 else "\n"
            table.add_column(Text(head + translated(name)), justify="right")
    rows = [("train", best, last, "eval/train_"), ("val", best, last, "val/")]
    for name, *columns, prefix in [*rows, ("test", test.get("best", {}), test.get("last", {}), "")]:
        if f"{prefix}loss" in columns[0]:
            table.add_row(translated(name), *(number(values, prefix + n) for values in columns for n in names))
    return fitting(console, table, [f"\n{translated(name)}" for name in names[::-1]])


def number(values: dict[str, float], key: str) -> str:
    """Write a loss to four decimals, an accuracy in percent, large and tiny numbers in powers of ten."""
    value = values[key]
    if key.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4f}" if value == 0 or 1e-4 <= abs(value) < 1e4 or math.isnan(value) else f"{value:.3e}"


def _fitting_line(console: Console, *parts: str) -> str:
    """Join what stands beside the bar, as much of it as there is room for."""
    room = console.width - BAR_LEAST - BAR_TIME
    said = [translated(part) for part in parts]
    return "  ".join(part for i, part in enumerate(said) if i == 0 or cell_len("  ".join(said[: i + 1])) <= room)


def _short_line(row: dict[str, float]) -> list[str]:
    """Describe an epoch beside the bar."""
    if any(tag.startswith("point/") for tag in row):
        return [f"f {row['eval/train_loss']:.4g}"]
    parts = [f"loss {number(row, 'eval/train_loss')} train"]
    if "val/loss" in row:
        parts.append(f"{number(row, 'val/loss')} val")
    accuracy = "val/accuracy" if "val/accuracy" in row else "eval/train_accuracy"
    if accuracy in row:
        parts.append(f"{number(row, accuracy)} right")
    return parts


def _closing_lines(summary: dict[str, Any], directory: str, finished_earlier: bool) -> list[Text]:
    cost, verdict, best, last = summary["cost"], summary["verdict"], summary["best"], summary["final"]
    lines: list[Text] = []
    if best and "val/loss" in best:
        gap = number({"loss": last["val/loss"] - last["eval/train_loss"]}, "loss")
        lines.append(words(f"gap at the end {gap} (val loss - train loss)"))
    if summary.get("config", {}).get("data.test_fraction") == 0:
        lines.append(words("no test numbers: data.test_fraction=0 leaves no test split"))
    if of_function := ground_truth.is_of_function(summary):
        lines += map(words, _of_function(summary))
    else:
        for key, pair in summary.get("recovered", {}).items():
            lines.append(words(f"{key:<10}true {pair['true']:g}, found {pair['found']:.4f}"))
        judged = {**verdict, "health": summary["health"]}
        style = vocabulary.STYLES[verdict["verdict"]].terminal
        style = "yellow" if verdict["verdict"] == "healthy" and vocabulary.is_doubtful(judged) else style
        lines.append(words((vocabulary.judged(judged), style), f": {vocabulary.reason(verdict)}"))
    if last and not summary["health"] and not of_function:
        lines.append(words(health.ALL_WELL))
    for finding in summary["health"]:
        called = translated(health.name(finding))
        lines.append(words((called, "red"), vocabulary.finding(finding).removeprefix(called)))
    if summary["stopped_by"] != "budget":
        lines.append(words(f"ended by {summary['stopped_by'].replace('_', ' ')} after epoch {summary['epochs']}"))
    if not finished_earlier:
        shares = {key: cost[f"{key}_s"] / cost["seconds"] for key in ("training", "evaluation", "recording")}
        spent = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        lines.append(words(f"{cost['seconds']:.2f} s at {cost['steps_per_second']:,.0f} steps/s: {spent}"))
    if advice.can_be_tried((finding["finding"] for finding in summary["health"]), summary.get("config", {})):
        lines.append(words(f"cures     python -m trainer.cure {directory}"))
    keeps = summary.get("config", {}).get("record.keep", "all")
    if keeps != "none":
        lines.append(words(f"curves    tensorboard --logdir {directory}"))
    weights = ", checkpoints/" if keeps == "all" else f"; record.keep={keeps}: no weights"
    lines.append(words(f"numbers   {directory}/summary.json, metrics.csv{weights}"))
    return lines


def _of_function(summary: dict[str, Any]) -> list[str]:
    """Say where a run on a function of the plane has come to."""
    last = summary["final"]
    if not last:
        return []
    point = ", ".join(f"{value:.5g}" for tag, value in last.items() if tag.startswith("point/"))
    lines = [f"f         {last['eval/train_loss']:.4g} at ({point}) after {last['step']:.0f} steps"]
    if (distance := ground_truth.distance(summary)) is not None:
        minimum = ", ".join(f"{pair['true']:g}" for pair in summary["recovered"].values())
        lines.append(f"distance  {distance:.4g} to the minimum at ({minimum})")
    return lines
