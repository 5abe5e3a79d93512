"""Sick runs, what is said against them, and what it brings: known truth for `scripts.calibrate cures`.

A fault of scripts.plants is planted in a healthy run, its sane twin. What a cure brings is its share of the way back:
(cost of the sick run - cost of the cured one) / (cost of the sick run - cost of the twin), the cost as trainer.cure has
it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from scripts import plants
from scripts.healthy import Knobs, Rng, architecture, configured, dataset, healthy_knobs, pick
from scripts.plant_tools import Fault
from trainer.cli.app import configure
from trainer.compare.statistics import share_interval
from trainer.config import Config
from trainer.core import loop
from trainer.core.data import Dataset
from trainer.core.stack import Stack, Step
from trainer.cure import trial
from trainer.engine.planning import stack_key
from trainer.judge import advice, health, overfit
from trainer.judge.remedies import Overrides

NO_CURE = (
    "one class",
    "97 %",
    "targets",
    "all inputs the same",
    "a weight that is NaN",
)  # faults of the data that no override mends, by how their names begin
LEAST_WAY = 0.2  # of the chance level between a sick run and its twin: less is no illness
SEEDS = 3


@dataclass
class Patient:
    """A sick run, and what was tried on it."""

    fault: str
    made: str
    prescribed: list[tuple[str, str, Overrides]]  # finding, rule and what it says to type, as they are printed
    sick: list[float]  # cost by seed
    twin: float
    tried: list[tuple[Overrides, list[float]]] = field(default_factory=list)  # what was typed, cost by seed

    def share(self, cure: Overrides) -> float:
        """Return the share of the way back with the run's own seed; NaN where the fault leaves the cure no place."""
        (cost,) = [costs[0] for typed, costs in self.tried if typed == cure] or [math.nan]
        return (self.sick[0] - cost) / (self.sick[0] - self.twin)

    @property
    def named(self) -> Overrides | None:
        """Return what trainer.cure would name."""
        if not self.tried:
            return None
        typed, costs = zip(*self.tried, strict=True)
        place = trial.named(typed, np.array([self.sick, *costs]))
        return None if place is None else typed[place]


def patient(rng: Rng, seeds: int = SEEDS) -> Patient | None:
    """Draw a sick run, and try cures on it; None where it is not sick."""
    possible = [fault for fault in plants.FAULTS if not fault.name.startswith(NO_CURE)]
    fault = pick(rng, *possible)
    a = fault.shape(rng) if fault.shape else architecture(rng)
    while not (fault.shape or fault.fits(a)):
        a = architecture(rng)
    sane = a | healthy_knobs(rng, a) | {"seed": int(rng.integers(2**30)), "data": configured(a["data"])}
    sick = sane | fault.knobs(rng, a) | ({"data.normalisation": "none"} if fault.inputs else {})
    work = _Ward(fault, dataset(a["data"]), int(rng.integers(2**31)))
    deep = {"model.batchnorm": True} if a["model.activation"] == "sigmoid" and a["model.depth"] > 5 else {}
    (twin,) = work.train([configure(_typed(sane | deep))], planted=False)
    chance = twin.start["guessing_loss"]
    config = configure(_typed(sick))
    (ill,) = work.train([config], looked_at=True)
    if _cost(ill, chance) - _cost(twin, chance) < LEAST_WAY * chance:
        return None
    found = health.judge(ill.rows, ill.start, config.flat(), ill.not_finite)
    findings, settings = [one.finding for one in found], config.flat()
    prescribed = [
        (name, rule, cure)
        for name in findings
        for rule, cure in itertools.islice(advice.cures(name, settings).items(), advice.SHOWN)
    ]
    out = Patient(fault.name, " ".join(_typed(sick)), prescribed, [], _cost(twin, chance))
    asked: list[Overrides] = [{}, *trial.candidates(findings, settings)]
    cured = [configure(trial.applied(_typed(sick), cure)) for cure in asked]
    ended = work.train([dataclasses.replace(one, seed=one.seed + s) for one in cured for s in range(seeds)])
    for i, cure in enumerate(asked):
        group = ended[i * seeds : (i + 1) * seeds]
        if None not in group:
            out.tried.append((cure, [_cost(one, chance) for one in group]))
    out.sick = out.tried.pop(0)[1]
    return out


def patients(count: int, seed: int) -> list[Patient]:
    """Draw so many runs; return those that are sick."""
    drawn = (patient(np.random.default_rng([seed, number])) for number in range(count))
    return [one for one in drawn if one is not None]


WORKS, WORSE = 0.5, -0.1  # shares of the way back


def print_cures(found: Sequence[Patient]) -> None:
    """Print how often each rule's cure works, and how often a run has one that does among what is printed."""
    by_rule: dict[tuple[str, str], list[float]] = {}
    for one in found:
        for name, rule, cure in one.prescribed:
            if not math.isnan(share := one.share(cure)):
                by_rule.setdefault((name, rule), []).append(share)
    print(f"\n## Cures ({len(found)} sick runs)\n")
    print("| finding | cure | tried | worked | made it worse |\n|" + " --- |" * 5)
    for (name, rule), shares in sorted(by_rule.items(), key=lambda item: (item[0][0], -_share_of(item[1], WORKS))):
        worked, worse = (sum(s >= WORKS for s in shares), sum(s < WORSE for s in shares))
        print(f"| {name} | {rule.replace('_', ' ')} | {len(shares)} | {worked} | {worse} |")
    curable = [one for one in found if any(one.share(cure) >= WORKS for cure, _ in one.tried)]
    printed = [[one.share(cure) for _, _, cure in one.prescribed] for one in curable]
    hits = {
        "at least one printed cure works": [any(s >= WORKS for s in shares) for shares in printed],
        "the first printed cure works": [bool(shares) and shares[0] >= WORKS for shares in printed],
        "trainer.cure names one that works": [
            one.named is not None and one.share(one.named) >= WORKS for one in curable
        ],
    }
    print(f"\nOf the {len(curable)} runs that any of what was tried cures:\n")
    print("| | runs |\n| --- | --- |")
    for name, of in hits.items():
        low, high = share_interval(sum(of), len(of))
        print(f"| {name} | {sum(of) / max(1, len(of)):.1%} ({sum(of)} of {len(of)}; {low:.1%} to {high:.1%}) |")
    everything = [s for shares in by_rule.values() for s in shares]
    print(f"\nPrinted cures that made a run worse: {sum(s < WORSE for s in everything)} of {len(everything)}.")
    for one in found:
        if one not in curable or not any(one.share(cure) >= WORKS for _, _, cure in one.prescribed):
            names = ", ".join(dict.fromkeys(name for name, _, _ in one.prescribed)) or "nothing"
            print(f"  {'not printed' if one in curable else 'no cure'}: {one.fault}: {names} ({one.made})")


def _share_of(shares: Sequence[float], least: float) -> float:
    return sum(s >= least for s in shares) / len(shares)


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


class _Unseen(plants.Kept):
    """An observer that keeps epochs alone."""

    def wants(self, step: Step) -> bool:
        """No step."""
        return False

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Members keep their rows themselves."""


class _Ward:
    """Trains runs with a fault planted in each alike."""

    def __init__(self, fault: Fault, dataset: Dataset, seed: int) -> None:
        self.fault, self.dataset, self.seed = fault, dataset, seed

    def train(self, configs: Sequence[Config], planted: bool = True, looked_at: bool = False) -> list[Any]:
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
            kept = plants.Kept(stack) if looked_at else _Unseen(stack)
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
