"""Runs of known answer, as the comparison sees them: a law, a part of the seed, and noise."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainer.compare.comparison import Comparison, Run
from trainer.compare.results import Effect
from trainer.judge.overfit import Verdict

Config = dict[str, Any]
HEALTHY, DIVERGED = Verdict("healthy", None, None, "", {}), Verdict("diverged", None, None, "", {})


def sweep(
    settings: Sequence[Config],
    loss: Callable[[Config], float],
    *,
    seeds: int = 5,
    noise: float = 0.01,
    typed: Callable[[Config], Sequence[str]] | None = None,
    more: Mapping[str, Callable[[float], float]] | None = None,
) -> list[Run]:
    """A run of each setting and seed; its best validation loss is loss(setting), the seed's part, and noise.

    typed: what was typed for a setting; None is another tool. more: further measures, from the loss.
    """
    rng = np.random.default_rng(7)
    shared = rng.normal(0, noise, seeds)
    runs = []
    for number, setting in enumerate(settings):
        for seed in range(seeds):
            value = loss(setting) + shared[seed] + rng.normal(0, noise)
            measures = {"best_val_loss": float(value), "gap": 0.1 + float(rng.normal(0, 0.01))}
            measures |= {name: float(of(value)) for name, of in (more or {}).items()}
            run = Run(f"{number}/{seed}", f"{number}/{seed}", {**setting, "seed": seed}, HEALTHY, measures, "completed")
            if typed:
                run = dataclasses.replace(run, overrides=(*typed(setting), f"seed={seed}"), sweep="outputs/one")
            runs.append(run)
    return runs


def accuracy(loss: float) -> float:
    return 1 - loss / 4


def effect(found: Comparison, knob: str, measure: str = "best_val_loss") -> Effect:
    return next(one for one in found.effects if (one.knob, one.measure) == (knob, measure))
