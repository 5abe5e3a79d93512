"""The keys of `optimizer` and `schedule`: how parameters follow their gradients, and how far, over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trainer.config.knob import knob, rest, to_dict

Decay = Literal["all", "weights"]
ScheduleName = Literal[
    "constant", "step", "multistep", "exponential", "linear", "polynomial", "cosine", "cosine_restarts", "one_cycle",
    "inverse_sqrt", "plateau",
]  # fmt: skip
Anneal = Literal["cos", "linear"]


@dataclass(frozen=True, kw_only=True)
class _Optimizer:
    _target_: str = knob("a class of torch.optim, or a torch.optim.Optimizer class of your own, e.g. my_opt.Lion")
    lr: float = knob("learning rate", ge=0)
    weight_decay: float = knob("weight decay (L2 penalty, or decoupled: the class decides)", ge=0)
    decay: Decay = knob("parameters weight decay touches: all, or weights only (no biases, no batch norm)")

    @property
    def name(self) -> str:
        """The class's own name."""
        return self._target_.rpartition(".")[2]

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments for the class: every field that has a value, `decay` and `_target_` apart."""
        return {key: value for key, value in to_dict(self).items() if key not in {"_target_", "decay"}}


@dataclass(frozen=True, kw_only=True)
class TorchOptimizer(_Optimizer):
    """Any class of torch.optim: the fields below are checked here, all others by the class itself."""

    momentum: float | None = knob("momentum factor", ge=0, lt=1, default=None)
    nesterov: bool | None = knob("Nesterov momentum", default=None)
    dampening: float | None = knob("dampening of momentum", ge=0, le=1, default=None)
    betas: list[float] | None = knob("decay rates of the first and second moment", ge=0, lt=1, default=None)
    alpha: float | None = knob("decay rate of the squared gradient (RMSprop)", ge=0, lt=1, default=None)
    eps: float | None = knob("term added to the denominator", ge=0, default=None)
    amsgrad: bool | None = knob("the AMSGrad variant", default=None)
    arguments: dict[str, Any] = rest("any other keyword argument of the class")


@dataclass(frozen=True, kw_only=True)
class CustomOptimizer(_Optimizer):
    """Any torch.optim.Optimizer class of the user's own."""

    arguments: dict[str, Any] = rest("its other keyword arguments")


Optimizer = TorchOptimizer | CustomOptimizer


@dataclass(frozen=True, kw_only=True)
class NamedSchedule:
    """The learning rate over time, as a factor on optimizer.lr."""

    name: ScheduleName = knob("how the learning rate goes on after the warm-up; conf/schedule/ says what each does")
    warmup: float = knob("linear rise from zero before it", "epochs", ge=0)
    step_size: float | None = knob("epochs between two drops", "epochs", gt=0, default=None)
    milestones: list[float] | None = knob("epochs after which it drops, e.g. [15,25]", "epochs", gt=0, default=None)
    gamma: float | None = knob("factor of a drop (step, multistep), or of an epoch", gt=0, le=1, default=None)
    end_factor: float | None = knob("factor at the end of the budget", ge=0, le=1, default=None)
    power: float | None = knob("exponent of what is left of the budget", gt=0, default=None)
    period: float | None = knob("epochs until the first restart", "epochs", gt=0, default=None)
    period_factor: int | None = knob("length of a period over that of the one before", ge=1, default=None)
    pct_start: float | None = knob("share of the budget in which it rises", ge=0, le=1, default=None)
    anneal: Anneal | None = knob("shape of the rise and of the fall", default=None)
    cycle_momentum: bool | None = knob("move momentum, or the first of the betas, the other way", default=None)
    base_momentum: float | None = knob("momentum where the learning rate is highest", ge=0, lt=1, default=None)
    max_momentum: float | None = knob("momentum at the start and at the end", ge=0, lt=1, default=None)
    div_factor: float | None = knob("optimizer.lr over the first learning rate", ge=1, default=None)
    final_div_factor: float | None = knob("the first learning rate over the last", ge=1, default=None)
    three_phase: bool | None = knob(
        "fall to the first learning rate as fast as it rose, then to the last", default=None
    )
    factor: float | None = knob("factor of a drop", gt=0, lt=1, default=None)
    patience: int | None = knob("epochs without a better val/loss before a drop", "epochs", ge=0, default=None)
    threshold: float | None = knob("smallest relative improvement that counts", ge=0, lt=1, default=None)
    cooldown: int | None = knob("epochs after a drop that do not count", "epochs", ge=0, default=None)
    min_lr: float | None = knob("smallest learning rate", ge=0, default=None)

    @property
    def spans_budget(self) -> bool:
        """Whether the learning rate of a step depends on how many there will be."""
        return self.name in {"linear", "polynomial", "cosine", "one_cycle"}


@dataclass(frozen=True, kw_only=True)
class CustomSchedule:
    """The learning rate over time by a function of the user's own: its factor on optimizer.lr."""

    name: Literal["custom"] = knob("custom: a function of your own")
    warmup: float = knob("linear rise from zero before it", "epochs", ge=0)
    _target_: str = knob("dotted path of a function, from progress in [0, 1] to a factor, e.g. my_schedules.wave")
    arguments: dict[str, Any] = rest("its keyword arguments")

    @property
    def spans_budget(self) -> bool:
        """It does: a share of the budget is what the function is given."""
        return True


Schedule = NamedSchedule | CustomSchedule
SCHEDULE_KEYS = {  # what each wants beside its warm-up
    "step": ("step_size", "gamma"),
    "multistep": ("milestones", "gamma"),
    "exponential": ("gamma",),
    "linear": ("end_factor",),
    "polynomial": ("power",),
    "cosine_restarts": ("period", "period_factor"),
    "one_cycle": (
        "pct_start", "anneal", "cycle_momentum", "base_momentum", "max_momentum", "div_factor", "final_div_factor",
        "three_phase",
    ),
    "plateau": ("factor", "patience", "threshold", "cooldown", "min_lr"),
}  # fmt: skip
