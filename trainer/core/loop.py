"""The training loop: a stack of K members, one forward pass, one backward pass, one update a step for all of them.

Shapes: K member, N example of a split, B example of a batch, I in-feature, C class (or output), P parameter,
M measured quantity.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.config import Config, ConfigError, CustomModel, Mlp, Surface
from trainer.core import data as datasets
from trainer.core import losses, mlp
from trainer.core.activations import LOOK_EXAMPLES, Look, input_statistics, top_class_K
from trainer.core.data import Dataset, Split
from trainer.core.optimizers import MemberOptimizers, lr_schedule
from trainer.judge import overfit
from trainer.judge.health import Finding, NotFinite

EVALUATION_FLOATS = 2**19  # inputs of an evaluation batch, all members together: more leave a core's cache
EVALUATION_TILE = 64  # its examples are a multiple of it: a product with 91 columns takes as long as one with 128


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
    findings: list[Finding] = field(default_factory=list)  # of checks before training
    start: dict[str, float] = field(default_factory=dict)  # the look before the first step, and that step's measures
    not_finite: NotFinite | None = None
    rows: list[dict[str, float]] = field(default_factory=list)  # one an epoch: epoch, step and every per-epoch scalar
    best: Best | None = None
    waited: int = 0  # epochs since the monitored value last improved
    overfit_for: int = 0  # epochs in a row with the verdict overfit, where that is monitored

    def observe(self, row: dict[str, float], snapshot: Callable[[], dict[str, Tensor]]) -> str | None:
        """Take in an epoch's metrics; the reason to stop, if there is one.

        Without a validation split the last epoch is the best. A run whose weights are no longer finite never recovers.
        """
        self.rows.append(row)
        stopping = self.config.early_stopping
        value = row.get(stopping.tag)
        if value is None:
            self.best = Best(int(row["epoch"]), math.nan, row, snapshot())
        else:
            loss = -value if stopping.monitor == "val/accuracy" else value
            if self.best is None or loss < self.best.value - stopping.min_delta:  # NaN is no improvement
                self.best = Best(int(row["epoch"]), loss if math.isfinite(loss) else math.inf, row, snapshot())
                self.waited = 0
            else:
                self.waited += 1
        patience = stopping.patience
        if stopping.monitor == "verdict":
            self.overfit_for = self.overfit_for + 1 if self.judge().verdict == "overfit" else 0
            self.waited, patience = self.overfit_for, patience or 1
        if not all(math.isfinite(v) for tag, v in row.items() if tag.startswith("weight_norm/")):
            return "diverged"
        if patience is not None and self.waited >= patience:
            return "early_stopping"
        return None

    def judge(self) -> overfit.Verdict:
        """The verdict on the epochs so far."""
        rows = self.rows

        def column(tag: str) -> list[float] | None:
            return [row[tag] for row in rows] if rows and tag in rows[0] else None

        return overfit.judge(
            column("eval/train_loss") or [],
            column("val/loss"),
            column("eval/train_accuracy"),
            column("val/accuracy"),
            [row["epoch"] for row in rows],
            self.start.get("guessing_loss"),
        )


class Observer(Protocol):
    """What the loop tells: it takes what a step or an epoch returns, and never reaches inside."""

    def wants(self, step: int, *, first: bool, last: bool) -> bool:
        """Whether to measure this step (counted from 1); last: of its epoch."""
        ...

    def step(self, step: int, measured_MK: Tensor, learning_rates: list[float]) -> None: ...

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None: ...

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Members (by place in the stack) whose training ends, each with the reason."""
        ...


class Stack:
    """K runs that train together: one model, one set of optimizers, one data set; each member its own streams.

    All members share tensor shapes, loss, batch size, number of training examples and a budget in steps, if any.
    """

    def __init__(self, configs: Sequence[Config], dataset: Dataset) -> None:
        """Raises ConfigError where a split, a model or an optimizer cannot be made from its configuration."""
        first = configs[0]
        self.dataset = dataset
        self.loss = first.loss
        self.classes = dataset.classes
        self.device = dataset.x.device
        splits = [datasets.split(dataset, c.data, c.seed) for c in configs]
        seeds = [c.seed for c in configs]
        n = len(splits[0].train)
        self.batch_size = min(first.data.batch_size, n)
        self.batches = datasets.batch_slices(n, first.data.batch_size, first.data.drop_last)
        _check_batch_norm(first, n, self.batches)
        if isinstance(first.model, CustomModel):
            assert len(configs) == 1, "a module of the user's own trains alone"
            sizes = (dataset.in_features, dataset.out_features)
            self.model: mlp.Mlp | mlp.Surface | mlp.Solo = mlp.custom(first.model, *sizes, dataset.shape, first.seed)
        elif isinstance(first.model, Surface):
            self.model = mlp.Surface([c.model for c in configs if isinstance(c.model, Surface)])
        else:
            mlps = [c.model for c in configs if isinstance(c.model, Mlp)]
            self.model = mlp.Mlp(mlps, seeds, dataset.in_features, dataset.out_features, self.device)
        self.model.to(self.device, dataset.x.dtype)
        self.accumulate = first.accumulate
        self.steps_per_epoch = math.ceil(len(self.batches) / self.accumulate)
        schedules = [lr_schedule(c.schedule, self.steps_per_epoch, self.total_steps(c)) for c in configs]
        self.parameters: dict[str, nn.Parameter] = self.model.stacked_parameters()  # name -> (K, ...)
        self.optimizers = MemberOptimizers(self.parameters, [c.optimizer for c in configs], schedules)
        self.members = [
            Member(c, k, s, datasets.EpochOrder(n, c.seed, c.data.shuffle), init_hashes(self.model.member_state(k)))
            for k, (c, s) in enumerate(zip(configs, splits, strict=True))
        ]
        self.epoch = 0  # finished epochs
        self.step = 0  # finished optimizer steps
        self.epoch_step = 0  # of them in the epoch that is not finished
        self.look = Look(self.model)
        self.clips = any(c.clip_norm is not None for c in configs)  # and so it stays, whoever leaves
        self.measuring_s = 0.0
        self.evaluating_s = 0.0
        self._index()

    def total_steps(self, config: Config) -> int:
        """A run's budget in optimizer steps."""
        return config.steps if config.steps is not None else config.epochs * self.steps_per_epoch

    @property
    def step_tags(self) -> list[str]:
        """What a measured step holds, in order (M,)."""
        return [
            "train/loss",
            *(["train/accuracy"] if self.classes else []),
            "grad_norm/total",
            *(["grad_norm/clipped_total"] if self.clips else []),
            *(f"grad_norm/{name}" for name in self.parameters),
        ]

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
        if self.members:
            self.model.select(keep)
            self.parameters = self.model.stacked_parameters()
            self.optimizers = self.optimizers.select(self.parameters, keep)
            self._index()

    def next_order(self) -> tuple[Tensor, Tensor]:
        """This epoch's data set rows and targets of every member, in its own new order: (K, N) each."""
        orders = [member.order.next() for member in self.members]
        for member, order in zip(self.members, orders, strict=True):
            member.order_hash = member.order_hash or hashlib.blake2b(order.numpy().data, digest_size=8).hexdigest()
        order_KN = torch.stack(orders).to(self.device)
        targets = self.train_y_KN
        order = order_KN if targets.ndim == 2 else order_KN[:, :, None].expand(-1, -1, targets.shape[2])
        return self.train_KN.gather(1, order_KN), targets.gather(1, order)

    def finish_epoch(self) -> None:
        """Count an epoch; the next step is the first of a new order."""
        self.epoch += 1
        self.epoch_step = 0
        for member in self.members:
            member.order.finish()

    def gather(self, rows_KB: Tensor) -> Tensor:
        """The examples in these rows of the data set: (K, B, I)."""
        return self.dataset.x.index_select(0, rows_KB.reshape(-1)).view(*rows_KB.shape, -1)


def train(stack: Stack, observer: Observer, stop: Callable[[], bool] = lambda: False) -> None:
    """Train every member to its end: budget, early stopping, or divergence. `stop` is asked before every step."""
    if stack.step == 0:
        look_at_start(stack)
    while stack.members:
        rows_KN, target_KN = stack.next_order()
        before: dict[str, Tensor] = {}
        measured = None
        for last, batches in _steps(stack):
            if stop():
                observer.leave(stack, dict.fromkeys(range(len(stack.members)), "interrupt"))
                return
            first = stack.step == 0
            before = _copy(stack.parameters) if first or last else {}
            wanted = observer.wants(stack.step + 1, first=first, last=last)
            measured = train_step(stack, rows_KN, target_KN, batches, wanted or first or last)
            if measured is not None and first:
                ratios = _by_member(update_ratios(stack, before))
                for member, *seen in zip(stack.members, _gradient_norms(stack, measured), ratios, strict=True):
                    member.start |= seen[0] | seen[1]
            if measured is not None and wanted:
                observer.step(stack.step, measured, stack.optimizers.learning_rates(stack.step - 1))
        assert measured is not None
        stack.finish_epoch()
        rows = evaluate_epoch(stack, before, measured)
        ended = {}
        for k, (member, row) in enumerate(zip(stack.members, rows, strict=True)):
            reason = member.observe(row, lambda k=k: stack.model.member_state(k))
            if stack.step >= stack.total_steps(member.config):
                reason = reason or "budget"
            if reason:
                ended[k] = reason
        observer.epoch(stack, rows)
        if ended:
            observer.leave(stack, ended)
            stack.select([k for k in range(len(stack.members)) if k not in ended])


def train_step(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool
) -> Tensor | None:
    """One optimizer step of every member on the given batches of its order; measured (M, K), if asked for.

    The gradient is that of the mean loss over all examples of the step, in however many batches they come.
    """
    parameters = list(stack.parameters.values())
    examples = sum(batch.stop - batch.start for batch in batches)
    gradients: Sequence[Tensor | None] = []
    step_losses, correct = [], []
    for batch in batches:
        output_KBC = stack.model(stack.gather(rows_KN[:, batch]))
        loss_KB = losses.losses_KB(stack.loss, output_KBC, target_KN[:, batch])
        part = torch.autograd.grad(loss_KB.sum() / examples, parameters, allow_unused=True)
        gradients = part if not gradients else [_add(a, b) for a, b in zip(gradients, part, strict=True)]
        if measure:
            step_losses.append(loss_KB.detach())
            if stack.classes:
                correct.append(losses.correct_KB(output_KBC.detach(), target_KN[:, batch]))
    began = time.perf_counter()
    measured = []
    factor_K = None
    if measure or stack.max_norm_K is not None:
        norms_PK = losses.norms_PK(gradients, len(stack.members))
        total_K = losses.total_norm_K(norms_PK)
        if stack.max_norm_K is not None:
            factor_K = losses.clip_factor_K(total_K, stack.max_norm_K)
            gradients = [g if g is None else g * factor_K.view(-1, *[1] * (g.ndim - 1)) for g in gradients]
        if measure:
            measured = [_joined(step_losses).mean(1)]
            if stack.classes:
                measured.append(_joined(correct).mean(1, dtype=total_K.dtype))
            measured += [total_K] if factor_K is None else [total_K, total_K * factor_K]
            measured.append(norms_PK.view(-1))
    stack.measuring_s += time.perf_counter() - began
    stack.optimizers.step(stack.step, gradients)
    stack.step += 1
    stack.epoch_step += 1
    return torch.cat(measured).view(-1, len(stack.members)) if measured else None


def look_at_start(stack: Stack) -> None:
    """Every member's `start`: what the look examples and the training targets show before the first step."""
    began = time.perf_counter()
    rows_KN, target_KN = stack.train_KN[:, :LOOK_EXAMPLES], stack.train_y_KN[:, :LOOK_EXAMPLES]
    loss, _, looked = evaluate(stack, rows_KN, target_KN, look=True)
    named = {"loss": loss, **losses.guessing(stack.loss, stack.train_y_KN, stack.classes), **looked}
    named |= input_statistics(stack.gather(rows_KN))
    norms_PK = losses.norms_PK([p.detach() for p in stack.parameters.values()], len(stack.members))
    named |= {f"weight_norm/{name}": norm for name, norm in zip(stack.parameters, norms_PK, strict=True)}
    for member, row in zip(stack.members, _by_member(named), strict=True):
        member.start = row
    stack.evaluating_s += time.perf_counter() - began


def evaluate_epoch(stack: Stack, before: dict[str, Tensor], measured_MK: Tensor) -> list[dict[str, float]]:
    """Every member's row of metrics after an epoch, both splits in evaluation mode.

    `before` holds the weights before the epoch's last step, `measured_MK` what was measured of it.
    """
    began = time.perf_counter()
    named: dict[str, Tensor] = {}
    loss, accuracy, looked = evaluate(stack, stack.train_KN, stack.train_y_KN, look=True)
    named["eval/train_loss"] = loss
    if accuracy is not None:
        named["eval/train_accuracy"] = accuracy
    if stack.val_KN.shape[1]:
        loss, accuracy, _ = evaluate(stack, stack.val_KN, stack.dataset.y[stack.val_KN])
        named["val/loss"] = loss
        if accuracy is not None:
            named["val/accuracy"] = accuracy
    K = len(stack.members)
    after = [p.detach() for p in stack.parameters.values()]
    weight_PK = losses.norms_PK(after, K)
    named |= {f"weight_norm/{name}": norm for name, norm in zip(stack.parameters, weight_PK, strict=True)}
    named |= update_ratios(stack, before) | looked | stack.model.readings()
    rates = stack.optimizers.learning_rates(stack.step - 1)
    rows = [
        {"epoch": stack.epoch, "step": stack.step, **row, **norms, "lr": lr}
        for row, norms, lr in zip(_by_member(named), _gradient_norms(stack, measured_MK), rates, strict=True)
    ]
    stack.evaluating_s += time.perf_counter() - began
    return rows


def update_ratios(stack: Stack, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """update_ratio/<parameter>: |w_after - w_before| / |w_before| of a step, (K,) each."""
    K = len(stack.members)
    change_PK = losses.norms_PK([stack.parameters[name].detach() - w for name, w in before.items()], K)
    ratio_PK = change_PK / losses.norms_PK(list(before.values()), K)
    return {f"update_ratio/{name}": ratio for name, ratio in zip(before, ratio_PK, strict=True)}


@torch.no_grad()
def evaluate(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, look: bool = False
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Mean loss (K,) and accuracy (K,; None for a regression) over rows of the data set, in evaluation mode.

    With `look`, the first LOOK_EXAMPLES are a batch of their own, and its activations and predictions are returned too.
    """
    K, n = rows_KN.shape
    size = EVALUATION_TILE * math.ceil(EVALUATION_FLOATS / (EVALUATION_TILE * K * stack.dataset.in_features))
    looked_at = min(n, LOOK_EXAMPLES) if look else 0
    looked: dict[str, Tensor] = {}
    stack.model.eval()
    loss = torch.zeros(K, dtype=torch.float64, device=stack.device)
    correct = torch.zeros(K, dtype=torch.float64, device=stack.device)
    starts = ([0] if look else []) + list(range(looked_at, n, size))
    for start, end in itertools.pairwise([*starts, n]):
        x, target = stack.gather(rows_KN[:, start:end]), target_KN[:, start:end]
        if end <= looked_at:
            with stack.look.attached():
                output = stack.model(x)
            looked = stack.look.taken(loss)
            if stack.classes:
                looked["eval/top_class"] = top_class_K(output)
        else:
            output = stack.model(x)
        loss += losses.losses_KB(stack.loss, output, target).sum(1)
        if stack.classes:
            correct += losses.correct_KB(output, target).sum(1)
    stack.model.train()
    return loss / n, correct / n if stack.classes else None, looked


def _by_member(named: dict[str, Tensor]) -> list[dict[str, float]]:
    """tag -> (K,) as one dictionary a member, in one host copy."""
    host = torch.stack([value.double() for value in named.values()], 1).tolist()
    return [dict(zip(named, values, strict=True)) for values in host]


def _gradient_norms(stack: Stack, measured_MK: Tensor) -> list[dict[str, float]]:
    """Every member's gradient norm by parameter out of a measured step."""
    tags = [f"grad_norm/{name}" for name in stack.parameters]
    return [dict(zip(tags, norms, strict=True)) for norms in measured_MK[-len(tags) :].t().tolist()]


@torch.no_grad()
def evaluate_test(stack: Stack, k: int, state: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
    """Loss and accuracy of a member's state on the test split, by its plain model; and the outputs (N, C)."""
    sizes = (stack.dataset.in_features, stack.dataset.out_features)
    predictor = stack.model.predictor(state, stack.members[k].config, sizes)
    outputs = torch.cat([predictor(x) for x in stack.dataset.test_x.split(8192)])[None]
    target = stack.dataset.test_y[None]
    result = {"loss": losses.losses_KB(stack.loss, outputs, target).double().mean().item()}
    if stack.classes:
        result["accuracy"] = losses.correct_KB(outputs, target).double().mean().item()
    return result, outputs[0]


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
    return {name: hashlib.blake2b(value.numpy().tobytes(), digest_size=8).hexdigest() for name, value in state.items()}


def _steps(stack: Stack) -> Iterator[tuple[bool, list[slice]]]:
    """The batches of each step left of an epoch, and whether it is the epoch's last (or the budget's)."""
    limits = [m.config.steps for m in stack.members if m.config.steps is not None]
    for start in range(stack.epoch_step * stack.accumulate, len(stack.batches), stack.accumulate):
        done = bool(limits) and stack.step + 1 >= min(limits)
        yield done or start + stack.accumulate >= len(stack.batches), stack.batches[start : start + stack.accumulate]
        if done:
            return


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """(K, B) of all batches of a step; nothing is copied where it is one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _copy(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
