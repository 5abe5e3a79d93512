"""A disk that fails at a write of one's choice."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock


class BadDisk:
    """Every operation that writes below a folder is counted; from the `nth` on (or only that one) it fails.

    A write that fails has written half of what it was given. In this process only: one stack after the other.
    """

    def __init__(self, folder: Path, number: int, nth: int, lasting: bool) -> None:
        self.folder, self.number, self.nth, self.lasting = str(folder), number, nth, lasting
        self.count = 0

    def fails(self, path: object) -> bool:
        """Whether this operation does."""
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(self.folder):
            return False
        self.count += 1
        return self.count >= self.nth if self.lasting else self.count == self.nth

    def error(self, path: object) -> OSError:
        """The failure."""
        return OSError(self.number, os.strerror(self.number), str(path))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Python's own functions that write, in place of a disk of our own."""
        with contextlib.ExitStack() as patches:
            for module in (io, builtins):
                patches.enter_context(mock.patch.object(module, "open", self._opening(io.open)))
            for name in ("replace", "mkdir"):
                patches.enter_context(mock.patch.object(os, name, self._calling(getattr(os, name))))
            yield

    def _calling(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **keywords: Any) -> Any:
            idle = function.__name__ == "mkdir" and os.path.isdir(path)  # nothing to write
            if not idle and self.fails(path):
                raise self.error(path)
            return function(path, *arguments, **keywords)

        return call

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def opening(path: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
            if not set(mode) & set("wax+"):
                return function(path, mode, *arguments, **keywords)
            if self.fails(path):
                raise self.error(path)
            file = function(path, mode, *arguments, **keywords)
            write = file.write

            def half(content: Any) -> int:
                if self.fails(path):
                    write(content[: len(content) // 2])
                    raise self.error(path)
                return write(content)

            return _Half(file, half) if isinstance(path, str | os.PathLike) else file

        return opening


class _Half:
    """A file whose `write` is another."""

    def __init__(self, file: Any, write: Callable[[Any], int]) -> None:
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Half:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
