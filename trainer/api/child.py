"""The process that trains for Python: the command line itself, which says as JSON what it would show a person.

Standard output carries an object a line: {"folder"} once it is known, {"done", "of", "text"} now and then, and at last
{"ended"} or {"bug"} with all that came of it. What is printed goes to standard error. Standard input is asked for once;
whatever comes then, its end included, stops training as Ctrl-C does.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from trainer.cli import app, command_line
from trainer.cli.command import Command
from trainer.cli.command_line import CommandLine, parse, quoted
from trainer.config import ConfigError

if TYPE_CHECKING:
    from trainer.cli.config_files import Sources
    from trainer.cli.display import SweepDisplay
    from trainer.engine.jobs import Job


def main(asked: dict[str, Any]) -> None:
    """Train what is asked for (commands.py), and end the process."""
    gc.disable()  # as the command line does
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    threading.Thread(target=_wait_for_stop, daemon=True).start()
    talk = _Talk(out)
    try:
        talk.say(ended=True, **_train(asked, talk))
    except KeyboardInterrupt:
        talk.say(ended=True, interrupted=True)
    except ConfigError as error:
        talk.say(ended=True, problems=error.problems)
    except BaseException:
        talk.say(bug=traceback.format_exc())
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(0)  # a million objects need not be freed one by one


class _Talk:
    """What is said to the caller; and, for a display, a progress bar there."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.total = 0.0

    def say(self, **news: Any) -> None:
        with contextlib.suppress(OSError):  # nobody is left to hear it: standard input has ended too
            self.out.write(json.dumps(news) + "\n")
            self.out.flush()

    def show(self, jobs: Sequence[Job]) -> SweepDisplay:
        """Return the display of jobs that begin to train."""
        from trainer.cli.display import SweepDisplay

        return SweepDisplay(jobs, self)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def add_task(self, description: str, *, total: float) -> None:
        self.total = total

    def update(self, task_id: None, *, completed: float, description: str) -> None:
        self.say(done=completed, of=self.total, text=description)


def _wait_for_stop() -> None:
    sys.stdin.buffer.read(1)
    _thread.interrupt_main()


def _train(asked: dict[str, Any], talk: _Talk) -> dict[str, Any]:
    """Train; return what came of it. Raises ConfigError, and what is a bug of ours."""
    app.prepare(asked["sweep"])
    line = _line(asked)
    sys.argv = ["trainer", *(["-m"] if line.is_sweep else []), *line.overrides]  # what a lock says of its owner

    def show(jobs: Sequence[Job]) -> SweepDisplay:
        talk.say(folder=_folder(command))
        return talk.show(jobs)

    command = Command(line, show)
    is_stopped = app.execute(command) != 0
    problems, left_in = app.problems(command)
    if problems:
        return {"problems": problems, "left_in": None if left_in is None else str(left_in)}
    rows = []
    if command.jobs:
        from trainer.cli import sweep_table

        folder = command.folder
        assert folder is not None
        try:
            rows = sweep_table.write(command.jobs, folder)
            sweep_table.draw_paths(command.jobs, folder)
        except OSError as error:
            return {"problems": [f"{error.filename or folder}: {error.strerror or error}"], "left_in": str(folder)}
    return {"folder": _folder(command), "rows": rows, "interrupted": is_stopped}


def _folder(command: Command) -> str | None:
    """Return the folder of a run or sweep."""
    folder = command.folder or command.directory
    return None if folder is None else str(folder.absolute())


def _line(asked: dict[str, Any]) -> CommandLine:
    """Return the command line that stands for what is asked. Raises ConfigError."""
    files = [word for word in asked["typed"] if word.startswith("--config-")]
    words = [*asked["typed"], *_overrides(asked["values"], command_line.read(files).sources)]
    if asked["folder"] is not None:
        words.append(f"hydra.{'sweep' if asked['sweep'] else 'run'}.dir={quoted(asked['folder'])}")
    resumes = any(word.startswith("resume=") for word in words)
    line = command_line.read([*(["-m"] if asked["sweep"] and not resumes else []), *words])
    if line.is_sweep != asked["sweep"]:
        there, here = ("sweep", "run") if line.is_sweep else ("run", "sweep")
        raise ConfigError([f"resume={line.resumed}: is a {there}; call trainer.{there}, not trainer.{here}"])
    if line.foreign_plugins and line.directory is None:
        said = "who trains elsewhere does not say where; name it with folder=..."
        raise ConfigError([f"{line.foreign_plugins[0]}: {said}"])
    return line


def _overrides(values: Sequence[tuple[str, Sequence[Any]]], sources: Sources) -> list[str]:
    """Write keys and their values as they are typed. A class stands for GROUP=custom GROUP._target_=its path."""
    out = []
    for key, several in values:
        targets = [value["target"] for value in several if isinstance(value, dict)]
        texts = [_text(key, value) for value in several if not isinstance(value, dict)]
        options = sources.groups.get(key, set()) if targets else set()
        if not targets or "." in key:
            out.append(f"{key}={','.join([*texts, *targets])}")
            continue
        if texts and ("custom" not in options or len(targets) > 1):
            raise ConfigError([f"{key}: found names beside {len(targets)} classes, expected names and one, or classes"])
        if "custom" in options:
            out.append(f"{key}={','.join([*texts, 'custom'])}")
        out.append(f"{key}._target_={','.join(targets)}")
    return out


def _text(key: str, value: Any) -> str:
    """Write a value so that Hydra reads it back."""
    if isinstance(value, list):
        return f"[{','.join(_text(key, item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return repr(value)
    read = parse(f"{key}={value}")
    is_plain = read is not None and not read.is_sweep_override() and read.value() == value
    return value if is_plain and "'" not in value and '"' not in value else quoted(value)
