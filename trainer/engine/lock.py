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

NAME = ".lock"
ORPHANS_S = 10.0


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep a directory to this process. Raises ConfigError naming the owner where another process has it, OSError.

    flock(2): the kernel lets go of it when the last process that inherited it ends, so that no lock outlives its
    owner; a .lock that lies about after a SIGKILL is nobody's, and taken over. Workers of a killed process end within
    a step: they are waited for. Where there is no flock: no lock.
    """
    if fcntl is None:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    handle = _locked(path)
    try:
        os.truncate(handle, 0)
        os.write(handle, _owner().encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _locked(path: Path) -> int:
    """An open, locked file at `path`: again where the owner before removed it in between."""
    assert fcntl is not None
    patience = time.monotonic() + ORPHANS_S
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
        except OSError:
            os.close(handle)
            raise
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
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner['pid']} on {owner['host']} since {owner['since']} ({owner['command']})"
