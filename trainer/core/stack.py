"""A stack: K runs that train together, each member with its own data, random streams and early stopping.

Shapes: K member, N example of a split, B example of a batch, I in-feature, M measured quantity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.config import Config, ConfigError, Mlp, task_problems
from trainer.core import data as datasets
from trainer.core import global_streams, losses, metrics, networks
from trainer.core.activations import ActivationStatistics
from trainer.core.cuda_graph import GraphedStep
from trainer.core.data import Dataset, Split
from trainer.core.data.dataset import hash_of
from trainer.core.mlp import Mlp as MlpNetwork
from trainer.core.native import choice
from trainer.core.native.step import NativeStep
from trainer.core.optimizers import MemberOptimizers
from trainer.core.own_module import UserModule
from trainer.core.schedules import lr_schedule
from trainer.core.seeds import stream_seed

VERDICT_PATIENCE = 3  # epochs called overfit in a row; fewer stop healthy runs, see docs/overfitting.md
LOOKS = 100  # of a run, at least, by a judge who reads all its epochs each time: their cost stays linear in them


@dataclass
class Best:
    """The best epoch so far by the monitored value: its number, metrics and weights."""

    epoch: int
    value: float
    row: dict[str, float]
    state: dict[str, Tensor]


@dataclass
class Member:
    """A run while it trains: its configuration, its own data and streams, and what it has come to."""

    config: Config
    index: int  # its place among the runs handed to the stack
    split: Split
    order: datasets.EpochOrder
    init_hashes: dict[str, str]
    order_hash: str = ""
    start: dict[str, float] = field(default_factory=dict)  # statistics before the first step, and that step's measures
    rows: list[dict[str, float]] = field(default_factory=list)  # one per epoch: epoch, step, every per-epoch scalar
    best: Best | None = None
    waited: int = 0  # epochs since the monitored value last improved
    overfit_for: int = 0  # epochs in a row called overfit, or hopeless, where that is monitored

    def observe(
        self,
        row: dict[str, float],
        snapshot: Callable[[], dict[str, Tensor]],
        is_overfit: Callable[[Member], bool],
    ) -> str | None:
        """Take in an epoch's metrics; return the reason to stop, if there is one.

        Without a validation split the last epoch is the best. A run whose weights are no longer finite never recovers.
        """
        self.rows.append(row)
        stopping = self.config.early_stopping
        loss = stopping.loss(row)
        if loss is None:
            self.best = Best(int(row["epoch"]), math.nan, row, snapshot())
        elif self.best is None or loss < self.best.value - stopping.min_delta:  # NaN is no improvement
            self.best = Best(int(row["epoch"]), loss if math.isfinite(loss) else math.inf, row, snapshot())
            self.waited = 0
        else:
            self.waited += 1
        patience = stopping.patience
        if stopping.monitor in ("verdict", "health"):
            due = self.overfit_for > 0 or len(self.rows) % max(1, len(self.rows) // LOOKS) == 0
            self.overfit_for = self.overfit_for + 1 if due and is_overfit(self) else 0
            self.waited, patience = self.overfit_for, patience or VERDICT_PATIENCE
        if not all(math.isfinite(v) for tag, v in row.items() if tag.startswith("weight_norm/")):
            return "diverged"
        if patience is not None and self.waited >= patience:
            return "early_stopping"
        return None


class Step(NamedTuple):
    """An optimizer step to come."""

    number: int  # counted from 1
    batches: list[slice]  # of the epoch's order; several where gradients accumulate
    first: bool  # of the run
    last: bool  # of the epoch, or of the budget


class Stack:
    """K runs that train together: one model, one set of optimizers, one data set; each member its own streams.

    All members share tensor shapes, loss, metrics, batch size, number of training examples and a budget in steps, if
    any.
    """

    def __init__(self, configs: Sequence[Config], dataset: Dataset) -> None:
        """Raises ConfigError where a split, a model, a loss or an optimizer cannot be made from its configuration."""
        first = configs[0]
        self.dataset = dataset
        self.loss = first.loss
        self.classes = dataset.classes
        self.device = dataset.x.device
        if problems := [p for c in configs for p in task_problems(c, dataset.classes is None)]:
            raise ConfigError(list(dict.fromkeys(problems)))
        self.served = choice.served(configs, self.device.type)
        self._native: NativeStep | None = None  # of these members
        self._graphed: GraphedStep | None = None  # likewise
        self.losses_KB = losses.function(first.loss)  # the user's own code is imported before
        self.metrics = metrics.named(first.metrics, dataset.classes)  # a model's stream begins
        splits = [datasets.split(dataset, c.data, c.seed) for c in configs]
        n = len(splits[0].train)
        self.batch_size = min(first.data.batch_size, n)
        self.batches = datasets.batch_slices(n, first.data.batch_size, first.data.drop_last)
        _check_batch_norm(first, n, self.batches)
        self.model = networks.stacked(configs, dataset)
        self.accumulate = first.accumulate
        self.steps_per_epoch = math.ceil(len(self.batches) / self.accumulate)
        schedules = [lr_schedule(c.schedule, self.steps_per_epoch, self.total_steps(c)) for c in configs]
        self.parameters: dict[str, nn.Parameter] = self.model.stacked_parameters()  # name -> (K, ...)
        seeds = [c.seed for c in configs]
        self.optimizers = MemberOptimizers(self.parameters, [c.optimizer for c in configs], schedules, seeds)
        initial = self.model.member_states()
        self.members = [
            Member(c, k, s, datasets.EpochOrder(n, c.seed, c.data.shuffle), init_hashes(initial(k)))
            for k, (c, s) in enumerate(zip(configs, splits, strict=True))
        ]
        self.epoch = 0  # finished epochs
        self.step = 0  # finished optimizer steps
        self.epoch_step = 0  # of them in the epoch that is not finished
        self.activations = ActivationStatistics(self.model)
        self.draws_globally = len(configs) == 1 and (bool(first.targets()) or isinstance(self.model, UserModule))
        self.clips = any(c.clip_norm is not None for c in configs)  # and so it stays, whoever leaves
        self.measuring_s = 0.0
        self.evaluating_s = 0.0
        self._index()
        if self.draws_globally and not isinstance(self.model, UserModule):  # which has begun its stream already
            global_streams.seed(stream_seed(first.seed, "own"))

    def total_steps(self, config: Config) -> int:
        """A run's budget in optimizer steps."""
        return config.steps if config.steps is not None else config.epochs * self.steps_per_epoch

    @functools.cached_property
    def step_tags(self) -> list[str]:
        """What a measured step holds, in order (M,)."""
        return [
            "train/loss",
            *(["train/accuracy"] if self.classes else []),
            "grad_norm/total",
            *(["grad_norm/clipped_total"] if self.clips else []),
            *(f"grad_norm/{name}" for name in self.parameters),
        ]

    @property
    def native(self) -> NativeStep | None:
        """What takes the steps and evaluates, where that is not torch."""
        if self._native is None and self.served == "native":
            assert isinstance(self.model, MlpNetwork)
            first = self.members[0].config
            looked_at = self.activations.modules
            self._native = NativeStep(first, self.dataset, self.model, self.optimizers, self.max_norm_K, looked_at)
        return self._native

    @property
    def graphed(self) -> GraphedStep | None:
        """What takes torch's steps, where CUDA graphs do."""
        if self._graphed is None and self.served == "graph":
            noises = getattr(self.model, "noises", {})
            self._graphed = GraphedStep(list(noises.values()), self.optimizers)
        return self._graphed

    def _index(self) -> None:
        """Stack what the members hold: rows and targets of their splits on the device, and clipping norms."""
        self.train_KN = torch.stack([m.split.train for m in self.members]).to(self.device)
        self.val_KN = torch.stack([m.split.val for m in self.members]).to(self.device)
        self.train_y_KN = torch.stack([m.split.train_y for m in self.members]).to(self.device)
        self.max_norm_K = None
        if self.clips:
            limits = [math.inf if m.config.clip_norm is None else m.config.clip_norm for m in self.members]
            self.max_norm_K = torch.tensor(limits, dtype=self.dataset.x.dtype, device=self.device)

    def select(self, keep: Sequence[int]) -> None:
        """Keep only these members (by place), in this order; the others' tensors are freed."""
        self.members = [self.members[k] for k in keep]
        self._native = self._graphed = None
        if self.members:
            self.model.select(keep)
            self.parameters = self.model.stacked_parameters()
            self.optimizers = self.optimizers.select(self.parameters, keep)
            self._index()

    def next_order(self) -> tuple[Tensor, Tensor]:
        """This epoch's data set rows and targets of every member, in its own new order: (K, N) each."""
        orders = [member.order.next() for member in self.members]
        for member, order in zip(self.members, orders, strict=True):
            member.order_hash = member.order_hash or hash_of(order)
        order_KN = torch.stack(orders).to(self.device)
        targets = self.train_y_KN
        order = order_KN if targets.ndim == 2 else order_KN[:, :, None].expand(-1, -1, targets.shape[2])
        return self.train_KN.gather(1, order_KN), targets.gather(1, order)

    def bursts(self) -> Iterator[list[Step]]:
        """Yield the steps that are left of the epoch, those together that are taken in one call.

        A run's first step and an epoch's last are alone: weights are looked at before and after them.
        """
        starts = range(self.epoch_step * self.accumulate, len(self.batches), self.accumulate)
        limits = [m.config.steps - self.step for m in self.members if m.config.steps is not None]
        count = min([len(starts), *limits])
        steps = [
            Step(number, self.batches[start : start + self.accumulate], number == 1, number == self.step + count)
            for number, start in enumerate(starts[:count], self.step + 1)
        ]
        most = self.native.burst if self.native is not None else 1
        while steps:
            size = 1 if steps[0].first else max(1, min(most, len(steps) - 1))
            yield steps[:size]
            steps = steps[size:]

    def finish_epoch(self) -> None:
        """Count an epoch; the next step is the first of a new order."""
        self.epoch += 1
        self.epoch_step = 0
        for member in self.members:
            member.order.finish()

    def gather(self, rows_KB: Tensor) -> Tensor:
        """The examples in these rows of the data set: (K, B, I)."""
        return self.dataset.x.index_select(0, rows_KB.reshape(-1)).view(*rows_KB.shape, -1)

    def observe(self, rows: Sequence[dict[str, float]], is_overfit: Callable[[Member], bool]) -> dict[int, str]:
        """Take in an epoch's metrics; return the members (by place) that end with it, each with the reason."""
        ending, weights = {}, self.model.member_states()
        for k, (member, row) in enumerate(zip(self.members, rows, strict=True)):
            reason = member.observe(row, lambda k=k: weights(k), is_overfit)
            if self.step >= self.total_steps(member.config):
                reason = reason or "budget"
            if reason:
                ending[k] = reason
        return ending


def _check_batch_norm(config: Config, n: int, batches: Sequence[slice]) -> None:
    """Batch norm has no statistics of a single example. Raises ConfigError where a batch holds just one."""
    network = config.model
    if isinstance(network, Mlp) and network.batchnorm and network.depth and any(b.stop - b.start == 1 for b in batches):
        size = config.data.batch_size
        hint = "try data.drop_last=true, or another data.batch_size" if 1 < size < n else "try more examples a batch"
        raise ConfigError(
            [
                f"data.batch_size: {n} training examples in batches of {size} leave a batch of one example, which "
                f"model.batchnorm=true cannot normalise; {hint}"
            ]
        )


def init_hashes(state: dict[str, Tensor]) -> dict[str, str]:
    """A hash of each tensor's bytes: equal hashes, equal initial weights."""
    return {name: hash_of(value) for name, value in state.items()}
