"""Training faults planted on purpose, and healthy runs beside them: known truth for `scripts.calibrate health`.

An architecture (data, depth, width, activation, batch norm, batch size, epochs) is drawn at random; the runs planted in
it train together in as few stacks as their shapes allow. What a configuration cannot say is changed in the stack
before it trains: the bias of one layer, the labels, the inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scripts.healthy import Knobs, Rng, architecture, configured, dataset, healthy_knobs, odd, pick, short
from scripts.plant_kinds import BY_NAME, FAULTS
from scripts.plant_tools import Fault
from trainer.cli.app import configure
from trainer.config import Config
from trainer.core import loop
from trainer.core.data import Dataset
from trainer.core.stack import Stack, Step
from trainer.engine.planning import stack_key
from trainer.judge import health

__all__ = ["BY_NAME", "FAULTS", "Case", "cases", "train_cases"]


@dataclass
class Case:
    """A trained run: its truth, how it was made, and what health.judge may look at."""

    fault: str  # the name of what was planted, or "" for a control
    made: str
    rows: list[dict[str, float]]
    start: dict[str, float]
    config: dict[str, Any]
    not_finite: health.NotFinite | None

    @property
    def short(self) -> bool:
        """Whether it had no time to learn."""
        return len(self.rows) <= 3

    @property
    def learned(self) -> bool:
        """Whether a control learned; health.py sees neither the accuracy nor the floor."""
        if "eval/train_accuracy" in self.rows[0]:
            top = self.start["target_top_class"]
            return max(row["eval/train_accuracy"] for row in self.rows) > top + 0.4 * (1 - top)
        return min(row["eval/train_loss"] for row in self.rows) < 0.5 * self.start["guessing_loss"]


def cases(rng: Rng, controls: int = 6, faults: int = 8) -> list[Case]:
    """Draw an architecture and train its runs: controls and faults that fit it, or short or odd controls."""
    if rng.random() < 0.15:
        a, knobs = odd(rng)
        return train_cases(rng, a | knobs, [None] * (controls // 2), knobs)
    if rng.random() < 0.3:
        fault = pick(rng, *(fault for fault in FAULTS if fault.shape))
        return train_cases(rng, fault.shape(rng), [fault] * (faults // 2))
    a = architecture(rng)
    if rng.random() < 0.1:
        return train_cases(rng, short(a), [None] * controls)
    fitting = [fault for fault in FAULTS if not fault.shape and fault.fits(a)]
    if rng.random() < 0.2:  # inputs are those of a whole stack
        fault = pick(rng, *(fault for fault in fitting if fault.inputs))
        return train_cases(rng, a, [fault] * (faults // 2))
    planted = [pick(rng, *(fault for fault in fitting if not fault.inputs)) for _ in range(faults)]
    return train_cases(rng, a, [*planted, *[None] * controls])


def train_cases(rng: Rng, a: Knobs, planted: Sequence[Fault | None], last: Knobs | None = None) -> list[Case]:
    """Train these runs of one architecture, in as few stacks as their shapes allow; `last` overrides all knobs."""
    stacks: dict[object, list[tuple[Fault | None, Config, str]]] = {}
    for fault in planted:
        drawn = a | healthy_knobs(rng, a) | (fault.knobs(rng, a) if fault else {}) | (last or {})
        drawn |= {"seed": int(rng.integers(2**31)), "data": configured(a["data"])}
        if drawn["optimizer"] != "sgd":
            drawn.pop("optimizer.momentum", None)
        overrides = [f"{key}={value}" for key, value in drawn.items() if value is not None]
        config = configure(overrides)
        stacks.setdefault(stack_key(config), []).append((fault, config, f"{a['data']}: {' '.join(overrides)}"))
    return [case for group in stacks.values() for case in _train(rng, dataset(a["data"]), group)]


def _train(rng: Rng, examples: Dataset, group: Sequence[tuple[Fault | None, Config, str]]) -> list[Case]:
    faults, configs, made = zip(*group, strict=True)
    if faults[0] is not None and faults[0].inputs:
        examples = dataclasses.replace(examples, x=faults[0].inputs(rng, examples.x))
    stack = Stack(configs, examples)
    for k, fault in enumerate(faults):
        if fault is not None and fault.change:
            fault.change(rng, stack, k)
    kept = Kept(stack)
    loop.train(stack, kept)
    return [
        Case(fault.name if fault else "", text, member.rows, member.start, config.flat(), kept.first.get(member.index))
        for fault, config, text, member in zip(faults, configs, made, kept.members, strict=True)
    ]


class Kept:
    """An observer that finds the first step of each member that is not finite."""

    def __init__(self, stack: Stack) -> None:
        self.members = list(stack.members)
        self.tags = stack.step_tags
        self.first: dict[int, health.NotFinite] = {}
        self.steps: list[int] = []
        self.measured: list[Tensor] = []

    def checkpoint(self, stack: Stack) -> None:
        """Nothing is saved."""

    def wants(self, step: Step) -> bool:
        """Every step."""
        return True

    def burst(self, numbers: list[int], measured_SMK: Tensor, rates_SK: list[list[float]]) -> None:
        """Keep steps until their epoch ends."""
        self.steps += numbers
        self.measured.append(measured_SMK)

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Look through the epoch's steps."""
        measured_SMK = torch.cat(self.measured).numpy()
        for k, member in enumerate(stack.members):
            found = health.first_not_finite(np.array(self.steps), self.tags, measured_SMK[:, :, k])
            if found:
                self.first.setdefault(member.index, found)
        self.steps, self.measured = [], []

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Nothing to write."""
