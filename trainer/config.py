"""What can be configured: every knob's name, type, unit and range. `conf/` supplies the values.

`from_dict` checks a composed configuration against these dataclasses and lists *all* problems at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal


class ConfigError(ValueError):
    """A user's mistake: `problems` holds one line each, saying where, what was found and what was expected."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[object, ...]:  # pickled by its problems: it crosses processes
        return type(self), (self.problems,)


def knob(
    help: str,
    unit: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A field with its meaning, unit and range: ge <= value <= le, gt < value < lt."""
    return field(default=default, metadata={"help": help, "unit": unit, "ge": ge, "gt": gt, "le": le, "lt": lt})


def rest(help: str) -> Any:
    """A field that takes the keys no other field takes (keyword arguments of a class the user names)."""
    return field(metadata={"help": help, "rest": True}, hash=False)


DataName = Literal[
    "digits",
    "mnist",
    "fashion_mnist",
    "kmnist",
    "cifar10",
    "spirals",
    "line",
    "clusters",
    "point",
    "csv",
    "npz",
    "folder",
    "custom",
    "sklearn",
    "torchvision",
]
Task = Literal["classification", "regression"]
Missing = Literal["refuse", "mean", "drop"]
Decimal = Literal["point", "comma"]
SklearnName = Literal["iris", "wine", "breast_cancer", "diabetes", "digits"]
TorchvisionName = Literal[
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "EuroSAT",
    "FashionMNIST",
    "KMNIST",
    "MNIST",
    "QMNIST",
    "SEMEION",
    "STL10",
    "SVHN",
    "USPS",
]
EmnistSplit = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]
Normalisation = Literal["none", "unit", "standard"]
Activation = Literal["relu", "tanh", "sigmoid", "gelu", "silu"]
Position = Literal["before", "after"]
Pooling = Literal["max", "mean", "none"]
Init = Literal["default", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "normal"]
Function = Literal["quadratic", "rosenbrock", "beale", "saddle"]
Decay = Literal["all", "weights"]
ScheduleName = Literal[
    "constant", "step", "multistep", "exponential", "linear", "polynomial", "cosine", "cosine_restarts", "one_cycle",
    "inverse_sqrt", "plateau",
]  # fmt: skip
Anneal = Literal["cos", "linear"]
LossName = Literal["auto", "cross_entropy", "mse", "huber", "focal", "bce", "output"]
OF_CLASSES = ("cross_entropy", "focal", "bce")  # losses that want class targets
MetricName = Literal["f1", "balanced_accuracy", "auroc", "top5", "mae", "rmse", "r2"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Monitor = Literal["val/loss", "val/accuracy", "verdict", "health"]
StepBy = Literal["auto", "torch", "native"]


@dataclass(frozen=True, kw_only=True)
class Data:
    name: DataName = knob("the data set")
    root: str = knob("folder of downloaded data sets; environment variable TRAINER_DATA_ROOT")
    train_size: int | None = knob("training examples kept, drawn stratified by class; null: all", "examples", ge=1)
    label_noise: float = knob("share of the training labels redrawn uniformly over all classes", ge=0, le=1)
    val_fraction: float = knob("share of the non-test examples held out for validation, stratified", ge=0, lt=1)
    batch_size: int = knob("examples in a batch", "examples", ge=1)
    drop_last: bool = knob("leave out the last batch of an epoch where it is smaller")
    shuffle: bool = knob("draw a new order every epoch")
    normalisation: Normalisation = knob("inputs as they are, to [0, 1], or to mean 0 and standard deviation 1")

    @property
    def title(self) -> str:
        """What messages call the data set."""
        return self.name

    @property
    def is_regression(self) -> bool | None:
        """Whether the targets are values, not classes; None where only the data know."""
        return False


@dataclass(frozen=True, kw_only=True)
class Generated(Data):
    """Data made on the spot."""

    examples: int | None = knob("size of a generated data set", "examples", ge=10, default=None)
    noise: float | None = knob("standard deviation of the noise in a generated data set", ge=0, default=None)

    @property
    def is_regression(self) -> bool | None:
        return self.name == "line"


@dataclass(frozen=True, kw_only=True)
class ReadData(Data):
    """Data that are read from somewhere, with or without a test split of their own."""

    test_fraction: float | None = knob(
        "share of the examples held out as the test split, stratified, the same for every seed; 0: no test numbers; "
        "null: the test split that comes with the data, or 0.2 where none does",
        ge=0,
        lt=1,
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class OwnData(ReadData):
    """Data of the user's own, of which only a look says what they are."""

    task: Task | None = knob(
        "classes or values; null: values where the target has fractions (in a table also where it has more than 20 "
        "different whole numbers), else classes",
        default=None,
    )

    @property
    def is_regression(self) -> bool | None:
        return None if self.task is None else self.task == "regression"


@dataclass(frozen=True, kw_only=True)
class Arrays(OwnData):
    """NumPy's arrays x and y (and x_test and y_test) in a file."""

    path: str = knob("the file, from the current folder")

    @property
    def title(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class Table(OwnData):
    """A CSV or Parquet file: one example a row."""

    path: str = knob("the file, from the current folder")
    target: str = knob("the column to predict")
    ignore: list[str] = knob("columns left out")
    missing: Missing = knob("empty cells: refused, filled with the column's mean, or their rows dropped")
    decimal: Decimal = knob("what stands before the fraction of a number")

    def __hash__(self) -> int:  # of a list
        return hash(repr(self))

    @property
    def title(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class Folder(ReadData):
    """Pictures in a folder for each class; these in folders train and test, or not."""

    path: str = knob("the folder, from the current folder")
    size: int | None = knob("side that pictures are scaled to; null: they are of one size", "pixels", ge=1)

    @property
    def title(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class CustomData(OwnData):
    """What a function of the user's own returns, or any map-style torch.utils.data.Dataset."""

    _target_: str = knob("dotted path of a function or a torch.utils.data.Dataset class, e.g. my_data.load")
    arguments: dict[str, Any] = rest("its keyword arguments; root is filled in if it takes it")

    @property
    def title(self) -> str:
        return self._target_


@dataclass(frozen=True, kw_only=True)
class SklearnData(ReadData):
    """The data sets that come with scikit-learn."""

    dataset: SklearnName = knob("the data set")

    @property
    def title(self) -> str:
        return self.dataset

    @property
    def is_regression(self) -> bool | None:
        return self.dataset == "diabetes"


@dataclass(frozen=True, kw_only=True)
class TorchvisionData(ReadData):
    """Pictures of one size, read from data.root by torchvision; downloaded there once."""

    dataset: TorchvisionName = knob("the data set, a class of torchvision.datasets")
    split: EmnistSplit | None = knob("which of EMNIST's six sets of classes")

    @property
    def title(self) -> str:
        return self.dataset


DATA_CLASSES: dict[Any, type[Data]] = {  # by name; all others are Data
    "spirals": Generated,
    "line": Generated,
    "clusters": Generated,
    "csv": Table,
    "npz": Arrays,
    "folder": Folder,
    "custom": CustomData,
    "sklearn": SklearnData,
    "torchvision": TorchvisionData,
}


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """A multi-layer perceptron: depth hidden layers of linear, batch norm, activation, dropout; then a linear layer."""

    depth: int = knob("hidden layers; 0 is a linear model", "layers", ge=0)
    width: int | list[int] = knob("units of a hidden layer: one number, or a list with one a layer", "units", ge=1)
    activation: Activation = knob("non-linearity of the hidden layers")
    dropout: float = knob("probability that a hidden unit is zeroed in training", ge=0, lt=1)
    input_dropout: float = knob("probability that an input is zeroed in training", ge=0, lt=1)
    batchnorm: bool = knob("batch normalisation of every hidden layer")
    batchnorm_position: Position = knob("batch norm before or after the activation")
    init: Init = knob("distribution of the initial weights; default is PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in))")
    init_scale: float = knob("factor on the initial weights", gt=0)
    init_std: float = knob("standard deviation for init=normal", gt=0)
    bias_init: float | None = knob("constant the biases start at; null: PyTorch's default, uniform like the weights")

    @property
    def widths(self) -> list[int]:
        """Units of each hidden layer, input side first."""
        return self.width if isinstance(self.width, list) else [self.width] * self.depth

    @property
    def shape(self) -> tuple[object, ...]:
        """What networks must have in common to share tensors: widths, activation, where batch norm stands."""
        return tuple(self.widths), self.activation, self.batchnorm, self.batchnorm and self.batchnorm_position


@dataclass(frozen=True, kw_only=True)
class Cnn:
    """A convolutional network for pictures: depth blocks of convolution, batch norm, activation, pooling, dropout."""

    depth: int = knob("convolutions, each of a block; a linear layer follows", "layers", ge=1)
    channels: int | list[int] = knob("channels of a convolution: one number, or a list with one a layer", ge=1)
    kernel: int = knob("side of a convolution's window, odd", "pixels", ge=1)
    pooling: Pooling = knob("what 2 x 2 pixels become after each convolution: their max, their mean; or none")
    activation: Activation = knob("non-linearity after each convolution")
    dropout: float = knob("probability that a hidden unit is zeroed in training", ge=0, lt=1)
    batchnorm: bool = knob("batch normalisation of every convolution, before the activation")
    init: Init = knob("distribution of the initial weights; default is PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in))")
    init_scale: float = knob("factor on the initial weights", gt=0)
    init_std: float = knob("standard deviation for init=normal", gt=0)
    bias_init: float | None = knob("constant the biases start at; null: PyTorch's default, uniform like the weights")

    @property
    def widths(self) -> list[int]:
        """Channels of each convolution, input side first."""
        return self.channels if isinstance(self.channels, list) else [self.channels] * self.depth


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A point that an optimizer moves downhill: the loss is a function of its coordinates, two for those of ours."""

    function: str = knob(f"{', '.join(typing.get_args(Function))}, or the dotted path of one of your own, e.g. my.f")
    start: list[float] = knob("where the point starts, [x,y]; your own function may have any number of coordinates")

    @property
    def is_own(self) -> bool:
        """Whether the function is the user's own, named by its dotted path."""
        return "." in self.function

    @property
    def shape(self) -> tuple[object, ...]:
        """What points must have in common to share tensors."""
        return self.function, len(self.start)


@dataclass(frozen=True, kw_only=True)
class CustomModel:
    """Any torch.nn.Module of the user's own."""

    _target_: str = knob("dotted path of a torch.nn.Module class or function, e.g. my_models.ConvNet")
    arguments: dict[str, Any] = rest(
        "its keyword arguments; in_features, out_features and num_classes are filled in if it takes them"
    )


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
    device: Device = knob("auto is cuda where there is one, else cpu; small networks train faster on a CPU")
    threads: int | None = knob("CPU threads; null: one for small networks, else PyTorch's choice", "threads", ge=1)
    step: StepBy = knob("what trains: native (C++, an mlp on a CPU), torch, or auto: native where it can")
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
        return dict(_flatten(to_dict(self)))

    def targets(self) -> dict[str, str]:
        """Dotted key -> dotted path of whatever is named and called, apart from PyTorch's optimizers."""
        named = {key: value for key, value in self.flat().items() if key.endswith("._target_")}
        if isinstance(self.model, Surface) and self.model.is_own:
            named["model.function"] = self.model.function
        named |= {f"metrics.{i}": name for i, name in enumerate(self.metrics) if "." in name}
        return {key: path for key, path in named.items() if not path.startswith("torch.optim.")}


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dictionary that `from_dict` would read back; fields without a value are left out."""
    out: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("rest"):
            out |= value
        elif dataclasses.is_dataclass(value):
            out[f.name] = to_dict(value)
        elif value is not None or f.default is dataclasses.MISSING:
            out[f.name] = value
    return out


def from_dict(raw: Mapping[str, Any]) -> Config:
    """Build a checked Config from plain nested values.

    Raises ConfigError with every problem found: unknown and missing keys, wrong types, values out of range, and
    combinations that cannot work.
    """
    problems: list[str] = []
    config = _build(Config, raw, "", problems)
    if not problems:
        problems = _contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config


def stream_seed(seed: int, purpose: str) -> int:
    """A 64-bit seed for one of a run's random streams: split, init/<parameter>, order, dropout.

    Streams are separate so that, say, one more dropout layer changes no batch order (promise 2 of the README).
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little")


# What other tools, and habit, call it, in small letters without hyphens and underscores -> what it is called here.
SYNONYMS = {"gpu": "cuda", "learningrate": "lr", "layers": "depth", "hiddensize": "width", "bs": "batch_size"}


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """', did you mean <the closest known word>?' or the list to choose from."""
    known = sorted(known)
    close = closest(word, known)
    return f"did you mean {close}?" if close else f"choose from {', '.join(known)}"


def closest(word: str, known: typing.Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known word that was meant: the same but for case, hyphens, underscores and module; a near one."""
    plain = {_plain(name): name for name in known}
    meant = (word, SYNONYMS.get(_plain(word), ""), word.rpartition(".")[2])
    same = next((plain[_plain(one)] for one in meant if _plain(one) in plain), None)
    close = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=cutoff)
    return same or (plain[close[0]] if close else None)


def _plain(word: str) -> str:
    return re.sub(r"[-_\s]", "", word.lower())


def homes(key: str) -> list[str]:
    """List the dotted keys of all groups that end in this one: lr -> [optimizer.lr]."""
    key = SYNONYMS.get(_plain(key), key)
    return [f"{group}.{key}" for group, names in _group_keys().items() if key in names]


@functools.cache
def _group_keys() -> dict[str, set[str]]:
    """Return the keys of each group of keys, of all its kinds; not name, which many have."""
    hints = _type_hints(Config)
    kinds = {f.name: typing.get_args(hints[f.name]) or (hints[f.name],) for f in fields(Config)}
    return {
        group: {f.name for kind in own if dataclasses.is_dataclass(kind) for f in fields(kind)} - {"name"}
        for group, own in kinds.items()
    }


def no_such_key(where: str, known: typing.Iterable[str]) -> str:
    """Say that a dotted key does not exist, and which may be meant: one of its group, or of another group."""
    key = where.rpartition(".")[2]
    known = set(known)
    elsewhere = [home for home in homes(key) if home != where]
    if elsewhere and closest(key, known, cutoff=1.0) is None:
        return f"{where}: no such key; did you mean {' or '.join(elsewhere)}?"
    return f"{where}: no such key; {nearest(key, known)}"


MISSING = "???"  # how a YAML file says that a value must be given


def _build(cls: type, raw: Any, path: str, problems: list[str]) -> Any:
    """`cls` from the mapping `raw`, which stands at `path`; None, and a line in `problems`, where that fails."""
    if not isinstance(raw, Mapping):
        example = next(f.name for f in fields(cls))
        glued = isinstance(raw, str) and re.fullmatch(r"(\w+):(\S+)", raw)
        hint = f"; a space belongs behind the colon, {glued[1]}: {glued[2]}" if glued else ""
        how = f"a group of keys, set one by one: {path}.{example}=VALUE{hint}"
        problems.append(f"{path}: found {_show(raw)}, expected {how}")
        return None
    before = len(problems)
    hints = _type_hints(cls)
    known = {f.name: f for f in fields(cls) if not f.metadata.get("rest")}
    values: dict[str, Any] = {}
    for name, f in known.items():
        where = f"{path}.{name}" if path else name
        if name in raw and raw[name] != MISSING:
            values[name] = _convert(hints[name], raw[name], where, f, problems)
        elif f.default is dataclasses.MISSING:
            problems.append(f"{where}: missing; give it a value, {where}=VALUE ({f.metadata.get('help', 'a choice')})")
    others = {str(key): value for key, value in raw.items() if key not in known}
    takes_rest = [f.name for f in fields(cls) if f.metadata.get("rest")]
    if takes_rest:
        values[takes_rest[0]] = others
    else:
        for key in others:
            where = f"{path}.{key}" if path else key
            problems.append(no_such_key(where, known))
    return cls(**values) if len(problems) == before else None


def problems_of(cls: type, raw: Mapping[str, Any], path: str) -> list[str]:
    """List what is wrong with the given keys of a dataclass, which stand at `path`; keys that are missing are right."""
    problems: list[str] = []
    known = {f.name: f for f in fields(cls)}
    for key, value in raw.items():
        if key not in known:
            problems.append(no_such_key(f"{path}.{key}", known))
        elif _type_hints(cls)[key] is not Any:
            _convert(_type_hints(cls)[key], value, f"{path}.{key}", known[key], problems)
    return problems


def model_class(raw: Any) -> type:
    """Which kind of model a group of keys describes: one of ours, or a class the user names."""
    keys = set(raw) if isinstance(raw, Mapping) else set()
    return CustomModel if "_target_" in keys else Surface if "function" in keys else Cnn if "kernel" in keys else Mlp


def group_class(options: Sequence[Any], raw: Any) -> type:
    """Which of the classes of a field a group of keys describes."""
    keys = raw if isinstance(raw, Mapping) else {}
    name, target = keys.get("name"), str(keys.get("_target_", "torch.optim."))
    if Data in options:
        return DATA_CLASSES.get(name if isinstance(name, str) else None, Data)
    if Mlp in options:
        return model_class(raw)
    if TorchOptimizer in options:
        return TorchOptimizer if target.startswith("torch.optim.") else CustomOptimizer
    if NamedSchedule in options:
        return CustomSchedule if name == "custom" else NamedSchedule
    return options[0]


_type_hints = functools.cache(typing.get_type_hints)


def _convert(hint: Any, value: Any, where: str, f: dataclasses.Field[Any], problems: list[str]) -> Any:
    """`value` as the type `hint` says, within the range of field `f`."""
    options = typing.get_args(hint) if is_union(hint) else (hint,)
    groups = [option for option in options if dataclasses.is_dataclass(option)]
    if groups:
        chosen = group_class(groups, value)
        if chosen is CustomModel and {"depth", "width", "activation"} <= set(value):
            problems.append(
                f"{where}._target_: stands beside the keys of {where}=mlp; choose {where}=custom as well, "
                f"{where}=custom {where}._target_={value['_target_']}"
            )
            return None
        return _build(typing.cast(type, chosen), value, where, problems)
    for option in options:
        ok, converted = _as_type(option, value)
        if ok:
            numbers = converted if isinstance(converted, list) else [converted]
            if not all(_in_range(number, f.metadata) for number in numbers):
                finite = all(math.isfinite(number) for number in numbers)
                what = expected(options, f.metadata) + ("" if finite else "; it must be finite")
                problems.append(f"{where}: found {_show(value)}, expected {what}")
            return converted
    hint_text = ""
    names = [name for option in options for name in _choices(option)]
    if close := closest(str(value), names):
        hint_text = f"; did you mean {close}?"
    elif int in options and (several := _several(where, value)):
        hint_text = f"; several values make a sweep: -m {several}"
    elif int in options and isinstance(value, float) and value.is_integer():
        hint_text = f"; write {int(value)}"
    problems.append(f"{where}: found {_show(value)}, expected {expected(options, f.metadata)}{hint_text}")
    return None


def _several(where: str, value: Any) -> str:
    """Return how a sweep over what looks like several whole numbers is typed: for 0..4, 'seed=range(5)'."""
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        return f"{where}={','.join(map(str, value))}"
    found = re.fullmatch(r"(\d+)\s*(\.\.+|-|:|to)\s*(\d+)|range\s+(\d+)", str(value))
    if found is None:
        return ""
    first, between, last, count = found.groups()
    end = int(count or last) + (between not in (":", None))
    return f"'{where}=range({first + ',' if int(first or 0) else ''}{end})'"


def _as_type(option: Any, value: Any) -> tuple[bool, Any]:
    """(True, converted) where `value` is of the type `option`."""
    if option is type(None):
        return value is None, None
    if typing.get_origin(option) is list:
        (item,) = typing.get_args(option)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False, None
        converted = [_as_type(item, element) for element in value]
        return all(ok for ok, _ in converted), [element for _, element in converted]
    if names := _choices(option):
        return value in names, value
    if option is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    return type(value) is option, value


def _choices(option: Any) -> tuple[str, ...]:
    """The strings of a Literal; none for any other type."""
    return typing.get_args(option) if typing.get_origin(option) is Literal else ()


def _in_range(value: Any, limits: Mapping[str, Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return (
        math.isfinite(value)
        and (limits["ge"] is None or value >= limits["ge"])
        and (limits["gt"] is None or value > limits["gt"])
        and (limits["le"] is None or value <= limits["le"])
        and (limits["lt"] is None or value < limits["lt"])
    )


def describe_type(options: Sequence[Any]) -> str:
    """A type in words: 'a whole number', 'one of relu, tanh', 'a number or null'."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", type(None): "null"}
    out = []
    for option in options:
        if typing.get_origin(option) is list:
            examples = {int: "a list such as [64,32]", str: "a list such as [f1,auroc]"}
            out.append(examples.get(typing.get_args(option)[0], "a list of numbers"))
        elif names := _choices(option):
            out.append("one of " + ", ".join(names))
        else:
            out.append(words[option])
    return " or ".join(out)


def describe_range(limits: Mapping[str, Any]) -> str:
    """A range in words: '>= 0 and < 1', or nothing."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    powers = {2**63: "2^63"}
    bounds = ((sign, limits[name]) for name, sign in signs.items() if limits.get(name) is not None)
    return " and ".join(f"{sign} {powers.get(bound) or f'{bound:g}'}" for sign, bound in bounds)


def expected(options: Sequence[Any], limits: Mapping[str, Any]) -> str:
    """Type, unit and range in words: 'a whole number of examples >= 1, or null'."""
    bounds = describe_range(limits)
    kinds = describe_type([option for option in options if option is not type(None)])
    unit = f" of {limits['unit']}" if limits["unit"] else ""
    null = ", or null" if type(None) in options else ""
    return f"{kinds}{unit}{' ' + bounds if bounds else ''}{null}"


def _contradictions(config: Config) -> list[str]:
    """Problems that no single value shows."""
    problems = []
    model, optimizer = config.model, config.optimizer
    if isinstance(model, Mlp) and isinstance(model.width, list) and len(model.width) != model.depth:
        problems.append(
            f"model.width: found {len(model.width)} widths for model.depth={model.depth} hidden layers, "
            f"expected one a layer; try model.depth={len(model.width)}, or one number for all"
        )
    if isinstance(model, Cnn):
        if isinstance(model.channels, list) and len(model.channels) != model.depth:
            problems.append(
                f"model.channels: found {len(model.channels)} numbers for model.depth={model.depth} convolutions, "
                f"expected one a layer; try model.depth={len(model.channels)}, or one number for all"
            )
        if model.kernel % 2 == 0:
            problems.append(f"model.kernel: found {model.kernel}, expected an odd number; try {model.kernel + 1}")
    problems += _of_schedule(config)
    data = config.data
    if isinstance(data, TorchvisionData) and (data.dataset == "EMNIST") != (data.split is not None):
        known = ", ".join(typing.get_args(EmnistSplit))
        problems.append(f"data.dataset: EMNIST, and no other set, has splits; say data.split=NAME, one of {known}")
    if isinstance(model, Surface):
        if config.data.name != "point" or config.loss.name != "output":
            problems.append(
                f"model: {model.function} is a function to minimise, which has data=point and loss.name=output; "
                f"found {config.data.name} and {config.loss.name}; leave both to problem="
                f"{'custom' if model.is_own else model.function}"
            )
        if not model.is_own and model.function not in (known := typing.get_args(Function)):
            problems.append(
                f"model.function: found {model.function}, expected one of {', '.join(known)}, or one of your own as "
                "module.function, e.g. my.f"
            )
        elif len(model.start) != 2 and not (model.is_own and model.start):
            wanted = "one for each coordinate" if model.is_own else "two"
            problems.append(f"model.start: found {len(model.start)} numbers, expected {wanted}, e.g. [-1.5,2]")
    elif config.data.name == "point" or config.loss.name == "output":
        problems.append(
            "model: data=point and loss.name=output are for functions to minimise; choose one with problem=NAME, or "
            "another data set and loss.name=auto"
        )
    problems += task_problems(config, bool(config.data.is_regression))
    problems += _loss_contradictions(config) + _metric_contradictions(config)
    stops = config.early_stopping.patience is not None or config.early_stopping.monitor == "verdict"
    if stops and config.data.val_fraction == 0:
        problems.append(
            "early_stopping.patience: data.val_fraction=0 leaves nothing to monitor; "
            "try early_stopping.patience=null, or data.val_fraction=0.1"
        )
    betas = optimizer.betas if isinstance(optimizer, TorchOptimizer) else None
    if betas is not None and len(betas) != 2:
        problems.append(f"optimizer.betas: found {len(betas)} numbers, expected two, e.g. [0.9,0.999]")
    return problems


def _of_schedule(config: Config) -> list[str]:
    """What a schedule lacks, or has beside what it wants; what cannot go with it."""
    schedule = config.schedule
    if isinstance(schedule, CustomSchedule):
        return []
    problems = []
    name, wanted = schedule.name, SCHEDULE_KEYS.get(schedule.name, ())
    by_name = {f.name: f for f in fields(schedule)}
    given = [key for keys in SCHEDULE_KEYS.values() for key in keys if getattr(schedule, key) is not None]
    if missing := [key for key in wanted if key not in given]:
        units = {key: by_name[key].metadata["unit"] for key in missing}
        keys = " and ".join(f"{key} ({unit})" if unit else key for key, unit in units.items())
        problems.append(f"schedule: {name} wants {keys}; try schedule={name}")
    for key in dict.fromkeys(given):
        if key not in wanted:
            owners = " or ".join(f"schedule={other}" for other, keys in SCHEDULE_KEYS.items() if key in keys)
            problems.append(f"schedule.{key}: {name} has no such key; choose {owners}")
    if name == "one_cycle" and schedule.warmup:
        problems.append("schedule.warmup: one_cycle rises by itself; set it to 0, and see schedule.pct_start")
    if name == "plateau" and config.data.val_fraction == 0:
        problems.append(
            "schedule: plateau follows val/loss, and data.val_fraction=0 leaves none; try data.val_fraction=0.1"
        )
    return problems


def task_problems(config: Config, is_regression: bool) -> list[str]:
    """Problems of a configuration with what its data are: values, where a regression, or classes."""
    problems = []
    data = config.data
    if is_regression:
        if data.label_noise:
            instead = " and use data.noise" if isinstance(data, Generated) else ""
            problems.append(f"data.label_noise: a regression has no labels to redraw; set it to 0{instead}")
        if config.loss.name in OF_CLASSES:
            what = data.name if isinstance(data, Generated) else f"{data.name} ({data.title})"
            problems.append(
                f"loss.name: {config.loss.name} wants classes, and data={what} is a regression; try loss.name=mse"
            )
        if config.early_stopping.monitor == "val/accuracy":
            problems.append("early_stopping.monitor: a regression has no accuracy; try early_stopping.monitor=val/loss")
    if config.loss.label_smoothing and is_regression and config.loss.name in ("auto", "cross_entropy"):
        problems.append("loss.label_smoothing: only cross-entropy can be smoothed; set it to 0")
    return problems


def _loss_contradictions(config: Config) -> list[str]:
    loss, problems = config.loss, []
    is_own = loss._target_ is not None
    if is_own and loss.name != "auto":
        problems.append(f"loss._target_: stands beside loss.name={loss.name}; leave out one of them")
    for key, owner in (("delta", "huber"), ("gamma", "focal")):
        if getattr(loss, key) is not None and not is_own and loss.name != owner:
            problems.append(f"loss.{key}: {loss.name} has none; choose loss.name={owner}, or leave it out")
    if not is_own:
        known = [f.name for f in fields(Loss) if not f.metadata.get("rest")]
        problems += [f"loss.{key}: no such key; {nearest(key, known)}" for key in loss.arguments]
    if loss.label_smoothing and (is_own or loss.name not in ("auto", "cross_entropy")):
        problems.append("loss.label_smoothing: only cross-entropy can be smoothed; set it to 0")
    return problems


TAKEN = ("loss", "accuracy", "confusion", "per_class")  # names that other numbers of a run have


def _metric_contradictions(config: Config) -> list[str]:
    known = typing.get_args(MetricName)
    problems = []
    if config.metrics and isinstance(config.model, Surface):
        problems.append("metrics: a function to minimise has none; leave them out")
    for name in config.metrics:
        if "." not in name and name not in known:
            own = "a function of your own is written with its module, my_metrics.f"
            problems.append(f"metrics: found {_show(name)}; {nearest(name, known)}; {own}")
    short = [name.rpartition(".")[2] for name in config.metrics]
    for name in sorted({name for name in short if short.count(name) > 1}):
        problems.append(f"metrics: {name} stands there {short.count(name)} times; give each a name of its own")
    for name in short:
        if name in TAKEN or name.startswith("last_"):
            problems.append(f"metrics: {name} is a name that other numbers of a run have; give your function another")
    return problems


def is_union(hint: Any) -> bool:
    """Whether a type is one of several, such as int | None."""
    return typing.get_origin(hint) in {typing.Union, types.UnionType}


def _show(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(_show(item) for item in value) + "]"
    if value is None or value == "":
        return "null" if value is None else "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
