"""Standard output and error: whatever is missing, narrow or full about them, words never end a command."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


class _Patient(io.FileIO):
    """An open file that takes whatever is written to it; what has no room is lost, and the first reason is kept."""

    error: OSError | None = None
    brief: _Patient | None = None  # where a line stands that goes when anything else is written

    def write(self, data: Any) -> int | None:
        """Write some bytes; return how many of them need not be written again."""
        clear()
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def prepare() -> None:
    """Open what was closed (`>&-`), write on where it is full or nobody reads, and what an encoding lacks as \\xb1.

    A file that is opened takes the lowest free number: without this, the first of ours would become standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _patient(sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False))
    sys.stderr = _patient(sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False))


def say_briefly(text: str) -> None:
    """Show a line on a terminal until anything else is written: what a person waits for."""
    raw = _raw(sys.stdout)
    if isinstance(raw, _Patient) and raw.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        sys.stdout.flush()
        raw.write(f"{text} ...\r".encode())
        _Patient.brief = raw


def clear() -> None:
    """Take away the line that was shown briefly."""
    raw, _Patient.brief = _Patient.brief, None
    if raw is not None:
        raw.write(b"\x1b[2K")


def flush() -> None:
    """Write what is not written yet."""
    clear()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def settled(program: str, code: int) -> int:
    """Return a program's exit code: 2 for 0, and a sentence, if standard output took less than all that was said."""
    flush()
    raw = _raw(sys.stdout)
    if isinstance(raw, _Patient) and raw.error:
        print(f"{program}: the standard output takes no more: {raw.error.strerror}", file=sys.stderr, flush=True)
        return code or 2
    return code


def _raw(stream: TextIO) -> Any:
    """Return the unbuffered file below a stream; None where there is none, as in a notebook."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _patient(stream: TextIO) -> TextIO:
    """Return a stream to the same file that takes whatever is written to it."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    if type(_raw(stream)) is not io.FileIO:  # a test's, a Windows console's, or one of ours already
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    raw = _Patient(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw),  # type: ignore[arg-type]
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
