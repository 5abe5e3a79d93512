"""One line that says how far training is: in a notebook below the cell, on a terminal in place; elsewhere nothing."""

from __future__ import annotations

import html
import shutil
import sys
from typing import Any


class Bar:
    """The line; whatever is printed stands above it."""

    def __init__(self) -> None:
        self.cell = _in_notebook()
        self.is_terminal = not self.cell and sys.stderr is not None and sys.stderr.isatty()
        self.handle: Any = None  # of what a notebook shows
        self.text = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.handle:
            self._show(self.text, "")
        self._clear()

    def update(self, done: float, of: float, text: str) -> None:
        """Show how many runs of how many are done, and what is said of them."""
        self.text = text
        if self.cell:
            self._show(text, f'<progress value="{done:.2f}" max="{of}"></progress> ')
        elif self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width].ljust(width)}", end="", file=sys.stderr, flush=True)

    def print(self, line: str) -> None:
        """Print a line above."""
        self._clear()
        print(line, end="", flush=True)

    def _clear(self) -> None:
        if self.is_terminal and self.text:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r", file=sys.stderr, flush=True)

    def _show(self, text: str, bar: str) -> None:
        from IPython.display import display

        shown = {"text/plain": text, "text/html": f"{bar}<code>{html.escape(text)}</code>"}
        if self.handle is None:
            self.handle = display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook; IPython on a terminal is not."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
