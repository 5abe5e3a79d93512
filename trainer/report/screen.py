"""What words and tables are printed on: as wide as there is room, and never obeyed by the terminal."""

import os
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from trainer.language import translated
from trainer.text import printable

PLAIN_WIDTH = 160  # characters, where there is no terminal to ask


def screen(file: TextIO | None = None) -> Console:
    """Return a console that is as wide as its terminal, or as COLUMNS says; a file or a pipe has no width to fit."""
    console = _Screen(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PLAIN_WIDTH
    return console


def fitting(console: Console, table: Table, spared: Iterable[str]) -> Table:
    """Leave out columns, by their titles and in this order, until the table fits: columns go before digits."""
    for title in spared:
        if fits(console, table):
            break
        table.columns = [column for column in table.columns if str(column.header) not in (title, translated(title))]
        for i, column in enumerate(table.columns):
            column._index = i
    return table


def fits(console: Console, table: Table) -> bool:
    """Tell whether every cell of a table has room in one line."""
    return Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width


class _Screen(Console):
    """A console that takes words for words: names from files can neither command the terminal nor begin a line."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Turn a string that is printed, or stands in a table, into text."""
        return super().render_str(printable(text), **how)

    def on_broken_pipe(self) -> None:
        """Let the error through, as of any other output that takes no more; rich would leave with exit code 1."""
        raise
