"""What a run recorded, as arrays, and what several rules of health.py ask of it. Pure; no torch.

Shapes: E epoch, L hidden layer, W weight matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from trainer.judge.cures import ADVICE

Floats = np.ndarray


@dataclass(frozen=True)
class Finding:
    """Something wrong: what, where, since which step (0: before the first), in a sentence, with its numbers."""

    finding: str
    where: str
    step: int
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as summary.json and evaluation.json hold it."""
        why, advice = ADVICE[self.finding]
        return {**vars(self), "why": why, "try": advice}


class NotFinite(NamedTuple):
    """The first recorded step that holds a value which is not finite, and the tensor where it shows."""

    step: int
    tensor: str


LEARNED = 0.5  # a run that has taken this share off the chance-level loss has learned: ambiguous signs do not count
LEARNED_ALL = 0.9  # a run that keeps this share off it has nothing left to learn
MOST_LABELS = 0.9  # of the labels are one class: more is a fault of the data
TRIED = (0.3, 30, 100)  # weights moved by this share of their length in so many steps, or so many steps in any case:
# long enough to learn something


class Run:
    """A run's records as arrays, and what several rules ask of them."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, float]],
        start: Mapping[str, float],
        config: Mapping[str, Any],
        not_finite: NotFinite | None,
    ) -> None:
        self.rows, self.start, self.config, self.not_finite = rows, start, config, not_finite
        self.parameters = [tag.removeprefix("grad_norm/") for tag in start if tag.startswith("grad_norm/")]
        self.weights = [p for p in self.parameters if p.endswith("weight") and "norm" not in p] or self.parameters
        self.loss = self.column("eval/train_loss")
        self.steps = self.column("step").astype(int)

    def column(self, tag: str) -> Floats:
        """Return a column of the rows, (E,); NaN where it was not recorded."""
        return np.array([row.get(tag, math.nan) for row in self.rows], dtype=float)

    def table(self, kind: str, names: Sequence[str]) -> Floats:
        """Return the columns `kind/name`, (E, len(names))."""
        return np.array([[row.get(f"{kind}/{name}", math.nan) for name in names] for row in self.rows], dtype=float)

    def layers(self, kind: str) -> list[str]:
        """Return the activation modules that have this statistic, input side first."""
        return [tag.removeprefix(f"{kind}/") for tag in self.start if tag.startswith(f"{kind}/")]

    @property
    def batchnorm(self) -> bool:
        return any("norm" in name for name in self.parameters)

    @property
    def chance_loss(self) -> float:
        """The loss of the best prediction that ignores the input."""
        return self.start["guessing_loss"]

    @cached_property
    def learned(self) -> float:
        """The share of the chance-level loss that the best epoch has taken off; 0 at least."""
        return self._taken_off(float(np.nanmin(self.loss)) if np.isfinite(self.loss).any() else math.inf)

    @cached_property
    def kept(self) -> float:
        """The same for the last third of the run."""
        return self._taken_off(float(np.median(self.loss[-max(1, len(self.loss) // 3) :])))

    def _taken_off(self, loss: float) -> float:
        base = self.chance_loss if self.start.get("target_top_class", 0) <= MOST_LABELS else self.start["expected_loss"]
        return max(0.0, 1 - loss / base) if base > 0 and not math.isnan(loss) else 0.0

    @cached_property
    def updates(self) -> Floats:
        """Length of each epoch's last step over that of the weight, (E, W); 0 for a weight that is zero."""
        return np.nan_to_num(self.table("update_ratio", self.weights), nan=0.0, posinf=0.0)

    @cached_property
    def first_step(self) -> Floats:
        """Length of the first step over that of the weight, (W,). RMSprop makes it 1/sqrt(1 - alpha) times as long."""
        ratio = np.array([self.start[f"update_ratio/{name}"] for name in self.weights])
        if self.config.get("optimizer._target_") == "torch.optim.RMSprop":
            ratio *= math.sqrt(1 - self.config.get("optimizer.alpha", 0.99))
        return ratio

    @cached_property
    def distances(self) -> Floats:
        """How far each weight went over its own length, (W,), were all its steps in one direction."""
        return self.updates.T @ np.diff(self.steps, prepend=0)

    def widths(self, layers: int) -> list[int]:
        """Return the units of each hidden layer; 64 in a module of the user's own, which does not tell."""
        width = self.config.get("model.width", 64)
        return width[:layers] if isinstance(width, list) else [width] * layers

    @cached_property
    def tried(self) -> bool:
        """Whether the run was long enough for its outcome to say something."""
        distance, few, many = TRIED
        return bool(self.steps[-1] >= (few if self.distances.max() >= distance else many))

    @cached_property
    def backward_L(self) -> tuple[list[str], Floats]:
        """Names and gradients (L,) of the hidden layers in the first step, root mean square per unit, input side first.

        It is the gradient of the layer's bias (of its batch norm, where that has taken the bias's place).
        """
        names = [name for name in self.parameters if name.endswith("bias")][:-1]
        if self.config.get("model.batchnorm_position") == "after":
            names = [name for name in names if "norm" not in name]
        norms = np.array([self.start[f"grad_norm/{name}"] for name in names])
        return names, norms / np.sqrt(self.widths(len(names)))


Found = Mapping[str, int]  # what earlier rules found, and since which step
Rule = Callable[[Run, Found], Iterator[Finding]]
