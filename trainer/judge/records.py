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

from trainer.judge import advice
from trainer.judge.advice import ADVICE

Floats = np.ndarray


@dataclass(frozen=True)
class Finding:
    """Something wrong: what, where, since which step (0: before the first), in a sentence, with its numbers."""

    finding: str
    where: str
    step: int
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_json(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as summary.json and evaluation.json hold it. config: of the run, dotted keys."""
        return {**vars(self), "why": ADVICE[self.finding].why, "try": advice.sentence(self.finding, config)}


class NotFinite(NamedTuple):
    """The first recorded step that holds a value which is not finite, and the tensor where it shows."""

    step: int
    tensor: str


LEARNED = 0.5  # a run that has taken this share off the chance-level loss has learned: ambiguous signs do not count
LEARNED_ALL = 0.9  # a run that keeps this share off it has nothing left to learn
GENERALISES = 0.8  # of the same, on the validation split
MOST_LABELS = 0.9  # of the labels are one class: more is a fault of the data
CANCELLED = 1e-4  # a bias has a gradient about as long as that of its weights, over the root of their number a unit
MOVED = 0.05  # a weight that went no further than this share of its length has hardly moved
TRIED = (0.3, 30, 5, 100)  # weights moved by this share of their length in so many steps and epochs, or so many steps
# in any case: long enough to learn something


def late(curve: Floats) -> float:
    """Return the median of the last third of a curve (E,)."""
    return float(np.median(curve[-max(1, len(curve) // 3) :]))


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
        return any("norm" in name or ".bn" in f".{name}" for name in self.parameters)

    @property
    def chance_loss(self) -> float:
        """The loss of the best prediction that ignores the input."""
        return self.start["guessing_loss"]

    @cached_property
    def learned(self) -> float:
        """The share of the chance-level loss that the best epoch has taken off; 0 at least."""
        return self.taken_off(float(np.nanmin(self.loss)) if np.isfinite(self.loss).any() else math.inf)

    @cached_property
    def kept(self) -> float:
        """The same for the last third of the run."""
        return self.taken_off(late(self.loss))

    def taken_off(self, loss: float) -> float:
        """Return the share of the way from the chance-level loss to the lowest that a loss has come; 0 at least."""
        base = self.chance_loss if self.start.get("target_top_class", 0) <= MOST_LABELS else self.start["expected_loss"]
        room = base - self.floor
        return max(0.0, (base - loss) / room) if room > 0 and not math.isnan(loss) else 0.0

    @cached_property
    def floor(self) -> float:
        """The lowest loss there is: the entropy of smoothed labels, else 0."""
        smoothing = self.config.get("loss.label_smoothing") or 0.0
        if not smoothing or not self.classes:
            return 0.0
        q = np.array([1 - smoothing + smoothing / self.classes, *[smoothing / self.classes] * (self.classes - 1)])
        return float(-(q * np.log(q)).sum())

    @cached_property
    def classes(self) -> int:
        """Of a run that learns them by cross-entropy, whose loss for equal outputs is ln C; else 0."""
        cross_entropy = self.config.get("loss.name") in ("auto", "cross_entropy")
        own = self.config.get("loss._target_") is not None
        return (
            round(math.exp(self.start["expected_loss"])) if self.is_classification and cross_entropy and not own else 0
        )

    @property
    def is_classification(self) -> bool:
        return "target_top_class" in self.start

    @cached_property
    def does_well(self) -> bool:
        """Whether it ends with next to nothing left to learn, and most of that holds for other examples."""
        last = max(1, len(self.loss) // 3)
        val = self.column("val/loss")[-last:]
        generalises = not np.isfinite(val).any() or self.taken_off(float(np.median(val))) >= GENERALISES
        return self.kept >= LEARNED_ALL and generalises

    @cached_property
    def top_rate(self) -> float:
        """The highest learning rate of the run; 0 where none was recorded."""
        return float(np.nan_to_num(self.column("lr")).max())

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

    @cached_property
    def longest_step(self) -> float:
        """Of all that are known, over the length of the weight."""
        return float(max(self.updates.max(), np.nan_to_num(self.first_step, posinf=0.0).max()))

    def widths(self, layers: int) -> list[int]:
        """Return the units of each hidden layer; 64 in a module of the user's own, which does not tell."""
        width = self.config.get("model.width", 64)
        return width[:layers] if isinstance(width, list) else [width] * layers

    @cached_property
    def tried(self) -> bool:
        """Whether the run was long enough for its outcome to say something."""
        distance, few, epochs, many = TRIED
        is_soon = self.distances.max() >= distance and len(self.rows) >= epochs and not self.batchnorm
        return bool(self.steps[-1] >= (few if is_soon else many))

    def _is_cancelled(self, bias: str) -> bool:
        weight = self.start.get(f"grad_norm/{bias.removesuffix('bias')}weight", 0.0)
        return self.start[f"grad_norm/{bias}"] < CANCELLED * weight

    @cached_property
    def backward_L(self) -> tuple[list[str], Floats]:
        """Names and gradients (L,) of the hidden layers in the first step, root mean square per unit, input side first.

        It is the gradient of the layer's bias (of its batch norm, where that has taken the bias's place).
        """
        tags = sorted((tag for tag in self.start if tag.startswith("forward_order/")), key=lambda tag: self.start[tag])
        order = [tag.removeprefix("forward_order/") for tag in tags]
        names = [name for name in order or self.parameters if name.endswith("bias")][:-1]
        if order:  # of a module of the user's own: batch norm takes the gradient of a bias before it away
            names = [name for name in names if not self._is_cancelled(name)]
        if self.config.get("model.batchnorm_position") == "after":
            names = [name for name in names if "norm" not in name]
        norms = np.array([self.start[f"grad_norm/{name}"] for name in names])
        return names, norms / np.sqrt(self.widths(len(names)))


Found = Mapping[str, int]  # what earlier rules found, and since which step
Rule = Callable[[Run, Found], Iterator[Finding]]
