"""Ask a process of its own to train (child.py), show its progress, and stop it cleanly."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from trainer.api.progress import Bar
from trainer.config import ConfigError

# sys.path is the caller's, so that the same modules are found; nothing is imported before.
BEGIN = "import json, sys; asked = json.loads(sys.stdin.readline()); sys.path[:] = asked['path']"
PATIENCE_S = 2.0  # after its end, for what it has printed: a process that your code left behind may keep that open
BEGIN += "; from trainer.api import child; child.main(asked)"


@dataclass
class Ended:
    """What came of a command."""

    folder: Path | None = None  # of its run or sweep
    rows: list[dict[str, Any]] = field(default_factory=list)  # of a sweep: what sweep.json says of each run


def train(asked: dict[str, Any]) -> Ended:
    """Train what is asked for; return where it lies. What the process prints is printed.

    The process ends with this one. Ctrl-C, and the interrupt of a notebook, stop training after the step it is in; a
    second one ends it at once. Raises ConfigError, KeyboardInterrupt, and RuntimeError where the process died.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        **_apart(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    readers = [
        threading.Thread(target=_read, args=(stream, name, said), daemon=True)
        for stream, name in ((process.stdout, "news"), (process.stderr, "printed"))
    ]
    for reader in readers:
        reader.start()
    try:
        with contextlib.suppress(OSError):  # it has ended already, which is told below
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
        end = _follow(process, said)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()
        for reader, stream in zip(readers, (process.stdout, process.stderr), strict=True):
            reader.join(PATIENCE_S)
            if not reader.is_alive():
                stream.close()
    return _ended(end, process.returncode)


def _apart() -> dict[str, Any]:
    """Keep a terminal's or a notebook's interrupt from reaching the process: this one decides."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _read(stream: IO[str], name: str, said: queue.SimpleQueue[tuple[str, str]]) -> None:
    for line in stream:
        said.put((name, line))
    said.put((name, ""))


def _follow(process: subprocess.Popen[str], said: queue.SimpleQueue[tuple[str, str]]) -> dict[str, Any]:
    """Show what the process says until it has closed both streams; return its last news."""
    last: dict[str, Any] = {}
    open_, stopping = {"news", "printed"}, False
    with Bar() as bar:
        while open_:
            try:
                name, line = said.get(timeout=None if "news" in open_ else PATIENCE_S)
                if not line:
                    open_.remove(name)
                elif name == "printed":
                    bar.print(line)
                else:
                    news = json.loads(line)
                    last |= news
                    if "done" in news:
                        bar.update(**news)
            except queue.Empty:
                break
            except KeyboardInterrupt:
                if stopping:
                    raise
                stopping = True
                bar.print("stopping after this step; interrupt again to end at once\n")
                assert process.stdin is not None
                with contextlib.suppress(OSError):
                    process.stdin.close()
    return last


def _ended(end: dict[str, Any], code: int) -> Ended:
    """Return what a command came to. Raises ConfigError, KeyboardInterrupt, RuntimeError."""
    folder = Path(end["folder"]) if end.get("folder") else None
    there = f"; what was recorded is in {folder}" if folder and folder.exists() else ""
    if end.get("bug"):
        raise RuntimeError(f"a bug in trainer{there}\n{end['bug']}")
    if problems := end.get("problems"):
        left_in = f"; what was recorded is in {end['left_in']}" if end.get("left_in") else ""
        raise ConfigError([f"{problem}{left_in}" for problem in problems])
    if end.get("interrupted"):
        hint = f": trainer.load({str(folder)!r}) reads it, the same call with folder={str(folder)!r} goes on"
        raise KeyboardInterrupt(f"stopped{there}{hint if there else ''}")
    if "ended" not in end:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = "; out of memory?" if sys.platform != "win32" and code == -signal.SIGKILL else ""
        raise RuntimeError(f"the process that trained {how}{memory}{there}")
    return Ended(folder, end.get("rows", []))
