"""What a trial shows: a row for each cure, and the one to use, ready to type."""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from typing import Any, TextIO

from rich.table import Table

from trainer.cli import command_line
from trainer.compare.statistics import Floats
from trainer.cure import trial
from trainer.cure.request import Request
from trainer.cure.trial import Shown
from trainer.judge import advice
from trainer.judge.remedies import Overrides
from trainer.language import translated
from trainer.report.screen import screen
from trainer.text import plural


@dataclass(frozen=True)
class Answer:
    """What was tried, and what it came to. costs_CS: of the run itself, then of each cure; with each seed."""

    request: Request
    cures: list[Overrides]
    costs_CS: Floats
    measure: str  # the name of the loss

    def command(self, cure: Overrides) -> str:
        """Return the run's command with a cure, quoted for a shell."""
        request = self.request
        flags, _ = command_line.split(request.line.repeatable)
        typed = [*flags, *request.overrides]
        return shlex.join(["python", "-m", "trainer", *trial.applied([*typed, f"seed={request.seed}"], cure)])

    @functools.cached_property
    def shown(self) -> list[Shown]:
        """Each cure compared with the run itself."""
        return trial.compare(self.costs_CS)

    @functools.cached_property
    def best(self) -> int | None:
        """The place of the cure to use, None where none brought the loss down."""
        return trial.named(self.cures, self.costs_CS)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a dictionary."""
        entries = [
            {"overrides": [f"{key}={value}" for key, value in cure.items()], "command": self.command(cure)}
            | {"losses": costs.tolist(), "shown": one.verdict, **vars(one)}
            for cure, costs, one in zip(self.cures, self.costs_CS[1:], self.shown, strict=True)
        ]
        return {
            "run": str(self.request.run),
            "findings": self.request.findings,
            "measure": self.measure,
            "budget": self.request.budget,
            "seeds": [self.request.seed + s for s in range(self.costs_CS.shape[1])],
            "losses": self.costs_CS[0].tolist(),
            "cures": entries,
            "named": None if self.best is None else entries[self.best]["overrides"],
        }

    def show(self, file: TextIO) -> None:
        """Print the table, what to use, and how sure that is."""
        console = screen(file)
        console.print(self._table())
        for line in self._lines():
            console.print(translated(line), soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(translated("cure"), no_wrap=True)
        for title in (self.measure, "change", "95 % interval", "p", ""):
            table.add_column(translated(title), justify="right" if title else "left", no_wrap=True)
        table.add_row(translated("none: the run itself"), f"{self.costs_CS[0].mean():.4g}")
        rows = zip(self.cures, self.shown, strict=True)
        for cure, one in sorted(rows, key=lambda row: row[1].mean):
            interval = f"{one.low:+.3g} to {one.high:+.3g}"
            cells = [advice.written(cure), f"{one.mean:.4g}", f"{one.difference:+.3g}", interval, f"{one.p:.2g}"]
            table.add_row(*cells, translated(one.words))
        return table

    def _lines(self) -> list[str]:
        seeds = plural(self.costs_CS.shape[1], "seed")
        lines = [
            f"mean {self.measure} at the best epoch over {seeds}; a run that diverges counts as one that guesses; "
            "interval: of each change alone; p: corrected, as many cures were tried, and by a cure's own noise"
        ]
        if any(one.words.startswith("may ") for one in self.shown):
            lines.append("may help, may harm: the interval lies apart from 0, but of so many cures some do by luck")
        if self.best is None:
            return [*lines, f"none of {plural(len(self.cures), 'cure')} brought the {self.measure} down"]
        cure, one = self.cures[self.best], self.shown[self.best]
        numbers = f"{self.measure} {one.mean:.4g} instead of {self.costs_CS[0].mean():.4g}"
        sure = f"95 % interval of the change {one.low:+.3g} to {one.high:+.3g}, {seeds}, corrected p = {one.p:.2g}"
        said = one.words.replace("not shown", "is not shown to help")
        lines.append(f"{advice.written(cure)} {said}: {numbers} ({sure})")
        return [*lines, f"type      {self.command(cure)}"]
