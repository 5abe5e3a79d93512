"""What a run was to find and what it found, where the truth is known: a line's slope and intercept, a minimum.

A pair is {"true": ..., "found": ...}, by the name of the quantity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainer.config import Config, Surface
from trainer.core.surfaces import FUNCTIONS


def recovered(config: Config, state: Mapping[str, Any], shift: float, scale: float) -> dict[str, dict[str, float]]:
    """The pairs of a run with these weights; empty where no truth is known.

    state: a plain model's state dict. shift, scale: of the inputs, x = (raw - shift) / scale; the found slope and
    intercept are those of raw inputs. A network with hidden layers has neither.
    """
    if isinstance(config.model, Surface):
        if config.model.is_own:
            return {}
        x, y = map(float, state["point"])
        nearest = FUNCTIONS[config.model.function].nearest(x, y)
        return {"x": _pair(nearest[0], x), "y": _pair(nearest[1], y)}
    weight = state.get("layers.0.weight")
    if config.data.name != "line" or weight is None or tuple(weight.shape) != (1, 1):
        return {}
    if "layers.1.weight" in state:
        return {}
    from trainer.core.data import INTERCEPT, SLOPE  # torch, which the command of a sweep does without

    slope = float(weight) / scale
    return {"slope": _pair(SLOPE, slope), "intercept": _pair(INTERCEPT, float(state["layers.0.bias"]) - slope * shift)}


def is_of_function(summary: Mapping[str, Any]) -> bool:
    """Whether a run, by its summary, minimised a function of the plane: there is nothing to generalise to."""
    return "model.function" in (summary.get("config") or {})


def distance(summary: Mapping[str, Any]) -> float | None:
    """Return the distance from where a run on a function ended to the nearest minimum; None where none is known."""
    pairs = summary.get("recovered") or {}
    if not pairs or not is_of_function(summary):
        return None
    return math.hypot(*(pair["found"] - pair["true"] for pair in pairs.values()))


def _pair(true: float, found: float) -> dict[str, float]:
    return {"true": true, "found": found}
