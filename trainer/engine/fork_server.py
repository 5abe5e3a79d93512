"""The server that workers are forked from: its start is the first thing that a sweep's command does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import types
from collections.abc import Iterator
from multiprocessing import forkserver, util

START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def warm_up() -> None:
    """Begin to import what workers need, in the process they will be forked from."""
    if START_METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(["trainer.engine.fork_preload"])
        with contextlib.suppress(OSError), without_main():  # no process can be started: `pool` will say so
            os.environ["TRAINER_SOCKETS"] = util.get_temp_dir()  # which multiprocessing removes, unless it is killed
            forkserver.ensure_running()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep multiprocessing from running the script again in each worker: nothing of it is needed there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
