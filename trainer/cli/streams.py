"""Standard output and error: whatever is missing or narrow about them, words never end a command."""

from __future__ import annotations

import io
import os
import sys


def prepare() -> None:
    """Open what was closed (`>&-`), and write what an encoding does not have as Python does: \\xb1 for ± in ASCII.

    A file that is opened takes the lowest free number: without this, the first of ours would become standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
