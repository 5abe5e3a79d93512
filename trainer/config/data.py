"""The keys of `data`: where examples come from, how they are split, and what a batch is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trainer.config.knob import knob, rest

DataName = Literal[
    "digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "spirals", "line", "clusters", "point", "csv", "npz",
    "folder", "custom", "sklearn", "torchvision",
]  # fmt: skip
Task = Literal["classification", "regression"]
Missing = Literal["refuse", "mean", "drop"]
Decimal = Literal["point", "comma"]
SklearnName = Literal["iris", "wine", "breast_cancer", "diabetes", "digits"]
TorchvisionName = Literal[
    "CIFAR10", "CIFAR100", "EMNIST", "EuroSAT", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "SEMEION", "STL10", "SVHN",
    "USPS",
]  # fmt: skip
EmnistSplit = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]
Normalisation = Literal["none", "unit", "standard"]


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
        """What messages call the data set: by its file or folder, function or class, where it has one."""
        return next((getattr(self, key) for key in ("path", "_target_", "dataset") if hasattr(self, key)), self.name)

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


@dataclass(frozen=True, kw_only=True)
class Folder(ReadData):
    """Pictures in a folder for each class; these in folders train and test, or not."""

    path: str = knob("the folder, from the current folder")
    size: int | None = knob("side that pictures are scaled to; null: they are of one size", "pixels", ge=1)


@dataclass(frozen=True, kw_only=True)
class CustomData(OwnData):
    """What a function of the user's own returns, or any map-style torch.utils.data.Dataset."""

    _target_: str = knob("dotted path of a function or a torch.utils.data.Dataset class, e.g. my_data.load")
    arguments: dict[str, Any] = rest("its keyword arguments; root is filled in if it takes it")


@dataclass(frozen=True, kw_only=True)
class SklearnData(ReadData):
    """The data sets that come with scikit-learn."""

    dataset: SklearnName = knob("the data set")

    @property
    def is_regression(self) -> bool | None:
        return self.dataset == "diabetes"


@dataclass(frozen=True, kw_only=True)
class TorchvisionData(ReadData):
    """Pictures of one size, read from data.root by torchvision; downloaded there once."""

    dataset: TorchvisionName = knob("the data set, a class of torchvision.datasets")
    split: EmnistSplit | None = knob("which of EMNIST's six sets of classes")


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
