"""Runs of known answer, as the comparison sees them: a law, a part of the seed, and noise."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainer import language
from trainer.compare.comparison import Comparison, Run, compare
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


def run(config: Config, gap: float, **changes: Any) -> Run:
    """A run of a config with a given gap; validation and test numbers follow from it."""
    name = " ".join(f"{key}={value}" for key, value in config.items())
    verdict = Verdict("overfit" if gap > 0.3 else "healthy", 3.0, None, "", {})
    measures = {"gap": gap, "best_val_loss": 0.3 + gap, "test_loss": 0.4 + gap**2}
    made = Run(
        name,
        name,
        config,
        verdict,
        measures,
        "completed",
        30,
        {"data_hash": "d", "split_hash": str(config.get("seed"))},
    )
    return dataclasses.replace(made, **changes)


def grid(seeds: int = 5, effect: float = 0.4, interaction: float = 0.0, **knobs: list[Any]) -> list[Run]:
    """Every combination; dropout lowers the gap by `effect`, by `interaction` more with batch norm; noise 0.02."""
    knobs = knobs or {"model.dropout": [0.0, 0.5], "model.batchnorm": [False, True]}
    rng = np.random.default_rng(0)
    made = []
    for values in itertools.product(*knobs.values()):
        config = dict(zip(knobs, values, strict=True))
        drop = config.get("model.dropout", 0) > 0
        for seed in range(seeds):
            gap = 0.5 - effect * drop - interaction * drop * bool(config.get("model.batchnorm")) + rng.normal(0, 0.02)
            made.append(run({"seed": seed, "epochs": 30, **config}, float(gap)))
    return made


def effect_of(runs: list[Run], knob: str, measure: str = "gap") -> Effect:
    return effect(compare(runs), knob, measure)


def is_chinese(text: str) -> bool:
    """Whether no English word is left in a text's Chinese but names of knobs and values."""
    names = r"\b(bn|dropout|depth|width|mixup|cutmix|true|false|lr|opt|wd|sgd|adam|adamw|act|gelu|p|n)\b"
    return not re.search("[A-Za-z]{2}", re.sub(names, "", language.in_chinese(text)))
