"""A lock on a directory while a process writes to it; it ends with the process, however that ends."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from trainer.config import ConfigError
from trainer.language import print_line

NAME = ".lock"
ORPHANS_S = 10.0  # that workers of a dead process are waited for


@contextmanager
def held(directory: Path) -> Iterator[int | None]:
    """Keep a directory to this process; yield the open lock, for workers to hold on to; None where locks do not work.

    flock(2): the kernel lets go of it when the last process that has it open ends, so that no lock outlives its owner;
    a .lock left behind after a SIGKILL is taken over. Workers of a killed process end within a step: they are waited
    for. Raises ConfigError naming the owner where another process has it, OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    handle = _locked(path)
    if handle is None:
        print_line(f"note: {directory}: files cannot be locked here; let no two commands train in it at once")
        yield None
        return
    try:
        os.truncate(handle, 0)
        os.write(handle, _owner().encode())
        yield handle
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _locked(path: Path) -> int | None:
    """Return an open, locked file at `path`: again where the owner before removed it in between; None for no locks."""
    if fcntl is None:
        return None
    patience = time.monotonic() + ORPHANS_S
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError as error:
            owner = _read(os.pread(handle, 4096, 0))
            if time.monotonic() > patience or _is_alive(owner):
                os.close(handle)
                raise ConfigError([f"{path.parent}: in use by {_describe(owner)}; wait for it, or end it"]) from error
            time.sleep(0.01)
        except OSError:  # some network file systems, some containers: each with an error of its own
            os.close(handle)
            with suppress(OSError):
                path.unlink()
            return None
        os.close(handle)


def _owner() -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join(["python", "-m", "trainer", *sys.argv[1:]])
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": began, "command": command})


def _read(content: bytes) -> dict[str, Any]:
    """The owner; nothing where it is about to write who it is."""
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process itself is there; on another machine nobody can say, so it is."""
    if owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        with suppress(PermissionError):  # it is there, another user's
            os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    return True


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    said = f"process {owner['pid']} on {owner['host']} since {owner['since']} ({owner['command']})"
    return said if _is_alive(owner) else f"workers of a process that has ended, {said}"
