"""A configurable training-experiment runner: see README.md, and docs/python.md for what stands here.

`run` trains one run, `sweep` many, `load` reads what lies on disk. Importing this imports neither torch nor pandas.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.api.commands import load, run, sweep
    from trainer.api.evaluation import Evaluation
    from trainer.api.results import Run, Runs
    from trainer.config import ConfigError

__all__ = ["ConfigError", "Evaluation", "Run", "Runs", "load", "run", "sweep"]

_HOMES = {"ConfigError": "config", "Evaluation": "api.evaluation", "Run": "api.results", "Runs": "api.results"}


def __getattr__(name: str) -> Any:
    """Import a public name once it is asked for: the command line, which begins here too, need not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}; choose from {', '.join(__all__)}")
    return getattr(importlib.import_module(f"trainer.{_HOMES.get(name, 'api.commands')}"), name)


def __dir__() -> list[str]:
    return __all__
