"""A run's part of a data set: which examples train and which validate, label noise, the order of batches.

Shapes: N example, O output (regression).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import config as cfg
from trainer.config import ConfigError
from trainer.core.data.dataset import Dataset, hash_of
from trainer.core.seeds import stream_seed


@dataclass(frozen=True)
class Split:
    """One run's part of a data set: row numbers of train and val (CPU), and the training targets, noise included."""

    train: Tensor
    val: Tensor
    train_y: Tensor

    @property
    def hash(self) -> str:
        """Hash of which examples train and which validate; label noise leaves it as it is."""
        return hash_of(self.train, self.val)


def split(dataset: Dataset, data: cfg.Data, seed: int) -> Split:
    """One run's train and val rows, stratified by class, and its training targets with label noise.

    The first n_val rows of a stratified random order validate, the next train_size train: so a smaller train_size is
    a subset of a larger one, and the validation split does not depend on it. Label noise as in Zhang et al. 2017
    ("Understanding deep learning requires rethinking generalization"): the given share of the training labels is drawn
    anew, uniformly over all classes. Raises ConfigError where a split would be empty.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "split"))
    labels = dataset.y.cpu()
    val, train = held_out(labels, data.val_fraction, generator)
    if len(train) == 0:
        raise ConfigError([f"data.val_fraction: {data.val_fraction} leaves no training examples of {len(labels)}"])
    if data.train_size is not None:
        if data.train_size > len(train):
            raise ConfigError(
                [
                    f"data.train_size: found {data.train_size}, expected at most the {len(train)} examples of "
                    f"{dataset.name} that are neither test nor validation; try data.train_size=null for all"
                ]
            )
        train = train[: data.train_size]
    if data.drop_last and data.batch_size > len(train):
        raise ConfigError(
            [
                f"data.batch_size: found {data.batch_size}, expected at most the {len(train)} training examples with "
                f"data.drop_last=true, which leaves out smaller batches; try data.batch_size={len(train)}"
            ]
        )
    train_y = labels[train]
    if data.label_noise and dataset.classes:
        noise = torch.Generator().manual_seed(stream_seed(seed, "label_noise"))
        redrawn = torch.randperm(len(train), generator=noise)[: round(data.label_noise * len(train))]
        train_y[redrawn] = torch.randint(dataset.classes, (len(redrawn),), generator=noise)
    return Split(train, val, train_y)


def held_out(y: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the rows that are held out, then the others, in a random order: of integer classes (N,) a stratified one.

    They are rounded up, at least one; but 0.07 of 100, which is 7.000000000000001, is 7.
    """
    is_classes = not y.dtype.is_floating_point
    order = stratified_order(y, generator) if is_classes else torch.randperm(len(y), generator=generator)
    n = max(math.ceil(fraction * len(y) - 1e-9), int(fraction > 0))
    return order[:n], order[n:]


def stratified_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A random order of the rows in which every prefix holds each class in proportion.

    Cut at quantile q, it holds q times the size of each class, to within one example.
    Each row is given the quantile (its random rank within its class + u) / class size, with one u in [0, 1) a class;
    the rows sorted by quantile are the order. labels (N,) int64 -> (N,) int64.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels)
    starts = torch.cumsum(counts, 0) - counts
    classes = labels[by_class]
    rank = torch.arange(len(labels)) - starts[classes]
    offset = torch.rand(len(counts), generator=generator, dtype=torch.float64)
    quantile = (rank + offset[classes]) / counts[classes]
    return by_class[torch.argsort(quantile, stable=True)]


class EpochOrder:
    """The order in which a run visits its training examples: a new permutation every epoch, from its own stream."""

    def __init__(self, n: int, seed: int, shuffle: bool) -> None:
        self.n = n
        self.shuffle = shuffle
        self.generator = torch.Generator().manual_seed(stream_seed(seed, "order"))
        self.finish()

    def next(self) -> Tensor:
        """(N,) int64 positions in the training split. Until `finish`, `state` is what gives this order again."""
        return torch.randperm(self.n, generator=self.generator) if self.shuffle else torch.arange(self.n)

    def finish(self) -> None:
        """The epoch of the last order is over."""
        self.state = self.generator.get_state()

    def resume(self, state: Tensor) -> None:
        """Put the stream back to a `state`."""
        self.generator.set_state(state)
        self.state = state


def batch_slices(n: int, batch_size: int, drop_last: bool) -> list[slice]:
    """The batches of an epoch as slices of its order."""
    end = n - n % batch_size if drop_last else n
    return [slice(start, min(start + batch_size, end)) for start in range(0, end, batch_size)]
