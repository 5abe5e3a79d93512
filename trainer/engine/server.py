"""What the server that forks workers imports, once for all of them."""

import gc
import sys

sys.excepthook = lambda *error: None  # a server that cannot fork ends without a word: the command says what that means
gc.disable()  # searching for garbage takes a third of the time of importing torch; train_stack enables it

from trainer.engine import worker  # noqa: E402, F401
