"""A small network to take apart, and the tolerances."""

from typing import Any

import pytest

from tests.helpers import make_config
from trainer.config import Config
from trainer.trace import collect, facts
from trainer.trace.__main__ import DATA, NETWORK

CLUSTERS = (*DATA, *NETWORK)
DEFAULT = make_config(*CLUSTERS)
EXACT = 1e-12  # float64: rounding leaves about 1e-16 of values of order 1


def trace(config: Config, weight: str | None = None, steps: int = 1) -> facts.Trace:
    return collect.trace(config, weight, steps, {})


def shown(found: facts.Trace) -> tuple[str, tuple[int, ...]]:
    """The weight that is followed: (parameter, index)."""
    name, _, index = found.step.weight.rstrip("]").partition("[")
    return name, tuple(map(int, index.split(",")))


def quick(cases: list[Any], *numbers: int) -> list[Any]:
    """The cases with all but these marked slow."""
    return [pytest.param(*case, marks=[] if i in numbers else [pytest.mark.slow]) for i, case in enumerate(cases)]
