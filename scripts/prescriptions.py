"""Sick runs, what is said against them, and what it brings: known truth for `scripts.calibrate cures`.

A fault of scripts.plants is planted in a healthy run, its sane twin. What a cure brings is its share of the way back:
(cost of the sick run - cost of the cured one) / (cost of the sick run - cost of the twin), the cost as trainer.cure has
it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from scripts import plants
from scripts.plants import Fault, Knobs, Rng
from trainer.cli.app import configure
from trainer.config import Config
from trainer.core import loop
from trainer.core.data import Dataset
from trainer.core.stack import Stack
from trainer.cure import trial
from trainer.engine.planning import stack_key
from trainer.judge import health, overfit
from trainer.judge.cures import Overrides

NO_CURE = ("one class", "97 %")  # faults of the data that no override mends, by how their names begin
LEAST_WAY = 0.2  # of the chance level between a sick run and its twin: less is no illness
SEEDS = 3


@dataclass
class Patient:
    """A sick run, and what was tried on it."""

    fault: str
    made: str
    findings: list[str]
    chance: float
    sick: list[float]  # cost by seed
    twin: float
    tried: dict[str, list[float]] = field(default_factory=dict)  # what was typed -> cost by seed

    def share(self, typed: str) -> float:
        """Return the share of the way back with the run's own seed."""
        return (self.sick[0] - self.tried[typed][0]) / (self.sick[0] - self.twin)


Tries = Callable[[Sequence[str], Config], Sequence[Overrides]]  # findings and configuration -> what to try


def patient(rng: Rng, tries: Tries, seeds: int = SEEDS) -> Patient | None:
    """Draw a sick run, and try cures on it; None where it is not sick."""
    possible = [fault for fault in plants.FAULTS if not fault.name.startswith(NO_CURE)]
    fault = plants.pick(rng, *possible)
    a = fault.shape(rng) if fault.shape else plants.architecture(rng)
    while not (fault.shape or fault.fits(a)):
        a = plants.architecture(rng)
    sane = a | plants.healthy_knobs(rng, a) | {"seed": int(rng.integers(2**30)), "data": plants._configured(a["data"])}
    sick = sane | fault.knobs(rng, a) | ({"data.normalisation": "none"} if fault.inputs else {})
    work = _Ward(fault, plants._dataset(a["data"]), int(rng.integers(2**31)))
    deep = {"model.batchnorm": True} if a["model.activation"] == "sigmoid" and a["model.depth"] > 5 else {}
    (twin,) = work.train([configure(_typed(sane | deep))], planted=False)
    chance = twin.start["guessing_loss"]
    config = configure(_typed(sick))
    configs = [dataclasses.replace(config, seed=config.seed + s) for s in range(seeds)]
    ill = work.train(configs)
    costs = [_cost(one, chance) for one in ill]
    if costs[0] - _cost(twin, chance) < LEAST_WAY * chance:
        return None
    found = health.judge(ill[0].rows, ill[0].start, config.flat(), ill[0].not_finite)
    findings = [one.finding for one in found]
    out = Patient(fault.name, " ".join(_typed(sick)), findings, chance, costs, _cost(twin, chance))
    asked: list[tuple[str, Config]] = []
    for cure in tries(findings, config):
        try:
            cured = configure(trial.applied(_typed(sick), cure))
        except Exception as error:  # a cure must be accepted
            raise AssertionError(f"{cure} on {out.made}") from error
        asked += [(trial.cures.written(cure), dataclasses.replace(cured, seed=cured.seed + s)) for s in range(seeds)]
    for (name, _), one in zip(asked, work.train([config for _, config in asked]), strict=True):
        if one is not None:
            out.tried.setdefault(name, []).append(_cost(one, chance))
    return out


def _typed(knobs: Knobs) -> list[str]:
    if knobs["optimizer"] != "sgd":
        knobs = {key: value for key, value in knobs.items() if key != "optimizer.momentum"}
    return [f"{key}={value}" for key, value in knobs.items() if value is not None]


def _cost(one: Any, chance: float) -> float:
    losses = [row["val/loss"] for row in one.rows]
    verdict = overfit.judge([row["eval/train_loss"] for row in one.rows], losses, epochs=[r["epoch"] for r in one.rows])
    finite = [loss for loss in losses if np.isfinite(loss)]
    best = {"val/loss": min(finite)} if finite else {}
    return trial.cost(best, chance, verdict.verdict == "diverged")


class _Ward:
    """Trains runs with a fault planted in each alike."""

    def __init__(self, fault: Fault, dataset: Dataset, seed: int) -> None:
        self.fault, self.dataset, self.seed = fault, dataset, seed

    def train(self, configs: Sequence[Config], planted: bool = True) -> list[Any]:
        """Train these runs in as few stacks as their shapes allow; None for one in which the fault has no place."""
        out: dict[int, Any] = {}
        stacks: dict[object, list[int]] = {}
        for i, config in enumerate(configs):
            stacks.setdefault((stack_key(config), config.data.normalisation), []).append(i)
        for members in stacks.values():
            group = [configs[i] for i in members]
            stack = Stack(group, self._data(group[0]) if planted else self.dataset)
            try:
                for k in range(len(group)):
                    if planted and self.fault.change:
                        self.fault.change(np.random.default_rng(self.seed), stack, k)
            except (KeyError, AssertionError):
                out |= dict.fromkeys(members)
                continue
            kept = plants.Kept(stack)
            loop.train(stack, kept)
            for i, member in zip(members, kept.members, strict=True):
                out[i] = plants.Case(
                    self.fault.name, "", member.rows, member.start, member.config.flat(), kept.first.get(member.index)
                )
        return [out[i] for i in range(len(configs))]

    def _data(self, config: Config) -> Dataset:
        """The inputs that are out of scale; brought back to it where the run asks for that."""
        if not self.fault.inputs:
            return self.dataset
        x: Tensor = self.fault.inputs(np.random.default_rng(self.seed), self.dataset.x)
        if config.data.normalisation == "standard":
            std = x.std(0, correction=0)
            x = (x - x.mean(0)) / std.where(std > 1e-6 * x.abs().amax(0), std.new_ones(()))
        return dataclasses.replace(self.dataset, x=x)
