"""`python -m trainer`: hand over to app; a user's mistake becomes one clear message and exit code 2."""

import atexit
import gc
import importlib
import os
import sys
import threading

from trainer import stdio
from trainer.cli import SUBCOMMANDS


def main() -> None:
    stdio.prepare()
    if (word := "".join(sys.argv[1:2])) in SUBCOMMANDS:
        command = importlib.import_module(SUBCOMMANDS[word])
        sys.exit(stdio.settled(f"trainer.{word}", command.main(sys.argv[2:])))
    stdio.say_briefly("starting")
    gc.disable()  # searching for garbage takes a third of importing torch; train_stack enables it
    try:
        from trainer.cli import process

        process.prepare(process.wants_workers(sys.argv[1:]))  # a server imports torch while we import Hydra

        from trainer.cli import app

        code = app.run(sys.argv[1:])
    except KeyboardInterrupt:  # before training began, or a second time: nothing to save, or no patience to save it
        print("trainer: interrupted", file=sys.stderr)
        code = 130
    leave(code)


def leave(code: int) -> None:
    """Exit without freeing a million objects one by one, which takes a fifth of a short run."""
    has_threads = threading.active_count() > 1  # of another launcher's: Python waits for them
    if not has_threads:
        atexit._run_exitfuncs()
    code = stdio.settled("trainer", code)
    if has_threads:
        sys.exit(code)
    os._exit(code)


if __name__ == "__main__":
    main()
