"""One run's whole configuration: the groups of keys, and the keys of the small groups."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.config.data import Data
from trainer.config.knob import flatten, knob, rest, to_dict
from trainer.config.model import Cnn, CustomModel, Mlp, Surface
from trainer.config.optimizer import CustomOptimizer, CustomSchedule, NamedSchedule, TorchOptimizer

LossName = Literal["auto", "cross_entropy", "mse", "huber", "focal", "bce", "output"]
OF_CLASSES = ("cross_entropy", "focal", "bce")  # losses that want class targets
MetricName = Literal["f1", "balanced_accuracy", "auroc", "top5", "mae", "rmse", "r2"]
Keep = Literal["all", "curves", "none"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Monitor = Literal["val/loss", "val/accuracy", "verdict", "health"]
StepBy = Literal["auto", "torch", "native"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    name: LossName = knob(
        "cross_entropy, focal, bce (binary cross-entropy of each class against the rest), mse or huber (one-hot for "
        "classes), output (what the model gives, for problem=), or auto: what the task wants"
    )
    label_smoothing: float = knob("share of the target spread evenly over the classes", ge=0, lt=1)
    delta: float | None = knob("huber: error from which on it grows linearly; null: 1", gt=0, default=None)
    gamma: float | None = knob("focal: how much less easy examples count; null: 2", ge=0, default=None)
    _target_: str | None = knob(
        "instead of a name, a function of your own: (output, target) -> one loss per example, e.g. my_losses.pinball",
        default=None,
    )
    arguments: dict[str, Any] = rest("its keyword arguments")

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments for the user's own function, which may take a delta or gamma too."""
        return {key: v for key in ("delta", "gamma") if (v := getattr(self, key)) is not None} | self.arguments


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    monitor: Monitor = knob(
        "what decides when to stop: a value that no longer improves, the verdict overfit, or a hopeless state of health"
    )
    patience: int | None = knob(
        "epochs without improvement, or overfit or hopeless in a row, until the run stops; null: never, or after three",
        "epochs",
        ge=1,
    )
    min_delta: float = knob("smallest change that counts as an improvement", ge=0)

    @property
    def tag(self) -> str:
        """The value whose best epoch is kept."""
        return "val/accuracy" if self.monitor == "val/accuracy" else "val/loss"

    def loss(self, row: Mapping[str, float]) -> float | None:
        """Return an epoch's monitored value, lower is better; None without a validation split."""
        value = row.get(self.tag)
        return None if value is None else -value if self.tag == "val/accuracy" else value


@dataclass(frozen=True, kw_only=True)
class Check:
    """Checks before training; what they find stands among the run's findings. null: for a small module of one's own."""

    one_batch: bool | None = knob(
        "whether the network can fit its first batch, without dropout; null: for a small module of your own"
    )
    gradients: bool | None = knob(
        "every parameter's gradient against differences of the loss, in float64; null: for a small module of your own"
    )


@dataclass(frozen=True, kw_only=True)
class Record:
    every: int = knob("record every n-th step (always the first and the last of an epoch); 0: none", "steps", ge=0)
    pictures: bool = knob("confusion matrix, most confidently wrong examples, first-layer weights")
    keep: Keep = knob(
        "of a run: all; curves: no weights; none: no events either, a row an epoch remains", default="all"
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """When to save what a killed run needs to go on: at whichever comes first."""

    minutes: float | None = knob("time between two checkpoints of a stack; null: no matter", "minutes", ge=0)
    epochs: int | None = knob("epochs between two checkpoints of a stack; null: no matter", "epochs", ge=1)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run. Units and ranges stand beside each field; `conf/` holds the values."""

    seed: int = knob("source of every random number of the run", ge=0, lt=2**63)
    epochs: int = knob("passes over the training split", "epochs", ge=1)
    steps: int | None = knob("optimizer steps, instead of epochs", "steps", ge=1)
    accumulate: int = knob("batches whose gradients make one step", "batches", ge=1)
    clip_norm: float | None = knob("largest total gradient norm; a longer gradient is shortened to it", gt=0)
    device: Device = knob(
        "auto is cuda where there is one, else cpu; cpu for a small network, which trains as fast there"
    )
    threads: int | None = knob("CPU threads; null: one for small networks, else PyTorch's choice", "threads", ge=1)
    step: StepBy = knob(
        "what trains: native (C++, an mlp on a CPU), torch, or auto: native or CUDA graphs where it can"
    )
    deterministic: bool = knob("refuse operations that give other bits every time")
    data: Data = field()
    model: Mlp | Cnn | Surface | CustomModel = field()
    optimizer: TorchOptimizer | CustomOptimizer = field()
    schedule: NamedSchedule | CustomSchedule = field()
    loss: Loss = field()
    metrics: list[str] = knob(
        f"what else is measured: {', '.join(typing.get_args(MetricName))}; or a function of your own, e.g. [f1,my.f]"
    )
    early_stopping: EarlyStopping = field()
    check: Check = field()
    record: Record = field()
    checkpoint: Checkpoint = field()

    def flat(self) -> dict[str, Any]:
        """The configuration as dotted keys and plain values, in the order of the fields."""
        return self._flat.copy()

    @functools.cached_property
    def _flat(self) -> dict[str, Any]:
        return dict(flatten(to_dict(self)))

    def targets(self) -> dict[str, str]:
        """Dotted key -> dotted path of whatever is named and called, apart from PyTorch's optimizers."""
        named = {key: value for key, value in self.flat().items() if key.endswith("._target_")}
        if isinstance(self.model, Surface) and self.model.is_own:
            named["model.function"] = self.model.function
        named |= {f"metrics.{i}": name for i, name in enumerate(self.metrics) if "." in name}
        return {key: path for key, path in named.items() if not path.startswith("torch.optim.")}
