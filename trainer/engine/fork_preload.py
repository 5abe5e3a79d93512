"""What the server that forks workers imports, once for all of them; it ends after the command, however that ended."""

import atexit
import gc
import os
import shutil
import signal
import sys
from typing import Any

from trainer.engine import interrupts


def _ends_alone(*error: Any) -> None:
    """End without a word where no process can be forked: the command lives, and says what that means."""
    atexit.unregister(shutil.rmtree)


sys.excepthook = _ends_alone
for number in interrupts.SIGNALS:  # they may reach all processes; the command decides what ends when
    signal.signal(number, signal.SIG_IGN)
atexit.register(os._exit, 0)  # last of all: to take what is imported apart takes half a second
atexit.register(shutil.rmtree, os.environ["TRAINER_SOCKETS"], ignore_errors=True)  # a killed command removes nothing
gc.disable()  # searching for garbage takes a third of the time of importing torch; train_stack enables it

from trainer.engine import worker  # noqa: E402, F401
