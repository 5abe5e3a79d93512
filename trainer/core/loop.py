"""The training loop: a stack of K members, one forward pass, one backward pass, one update per step for all of them.

Shapes: K member, N example of a split, B example of a batch, I in-feature, C class (or output), P parameter,
M measured quantity.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainer.core import global_streams, losses, metrics, networks
from trainer.core.activations import PROBE_EXAMPLES, input_statistics, top_class_K
from trainer.core.gradients import clip_factor_K, norms_PK, total_norm_K
from trainer.core.metrics import Metric
from trainer.core.own_loss import OwnLoss
from trainer.core.stack import Member, Stack, Step

EVALUATION_FLOATS = 2**19  # inputs of an evaluation batch, all members together: more leave a core's cache
GPU_EVALUATION_FLOATS = 2**24  # fewer leave a GPU idle
EVALUATION_TILE = 64  # its examples are a multiple of it: a product with 91 columns takes as long as one with 128


class Observer(Protocol):
    """What the loop tells: it takes what a step or an epoch returns, and never reaches inside."""

    def checkpoint(self, stack: Stack) -> None:
        """Between two steps: save what is needed to go on, where that is due."""
        ...

    def wants(self, step: Step) -> bool:
        """Whether this step is to be measured and handed to `step`."""
        ...

    def step(self, number: int, measured_MK: Tensor, learning_rates: list[float]) -> None: ...

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None: ...

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Members (by place in the stack) whose training ends, each with the reason."""
        ...


def train(
    stack: Stack,
    observer: Observer,
    stop: Callable[[], bool] = lambda: False,
    is_overfit: Callable[[Member], bool] = lambda member: False,
) -> None:
    """Train every member to its end: budget, early stopping, or divergence.

    `stop` is asked before every step; `is_overfit` after every epoch of a member that monitors
    the verdict or health.
    """
    if stack.step == 0:
        measure_start(stack)
    before, measured_MK = _weights(stack), torch.empty(0)
    while stack.members:
        rows_KN, target_KN = stack.next_order()
        for step in stack.steps():
            if stop():
                observer.leave(stack, dict.fromkeys(range(len(stack.members)), "interrupt"))
                return
            observer.checkpoint(stack)
            measure, wanted = step.first or step.last, observer.wants(step)
            if measure:
                before = _weights(stack)
            measured_MK = train_step(stack, rows_KN, target_KN, step.batches, measure or wanted)
            if wanted:
                observer.step(step.number, measured_MK, stack.optimizers.learning_rates(step.number - 1))
            if step.first:
                _measure_first_step(stack, before, measured_MK)
        stack.finish_epoch()
        rows = evaluate_epoch(stack, before, measured_MK)
        stack.optimizers.observe(rows)
        ending = stack.observe(rows, is_overfit)
        observer.epoch(stack, rows)
        if ending:
            observer.leave(stack, ending)
            stack.select([k for k in range(len(stack.members)) if k not in ending])


def train_step(stack: Stack, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool) -> Tensor:
    """Take one optimizer step with every member on the given batches of its order; return what was measured.

    That is (M, K) in the order of `Stack.step_tags`, or (0, K) where nothing was to be measured. The gradient is that
    of the mean loss over all examples of the step, in however many batches they come.
    """
    if stack.native is not None:
        measured_MK = stack.dataset.x.new_empty(len(stack.step_tags) if measure else 0, len(stack.members))
        stack.native(stack.step, rows_KN, target_KN, batches, measured_MK)
    else:
        measured_MK = _torch_step(stack, rows_KN, target_KN, batches, measure)
    stack.step += 1
    stack.epoch_step += 1
    return measured_MK


def _torch_step(stack: Stack, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool) -> Tensor:
    """What `train_step` says, by torch: any network, loss and optimizer, on any device."""
    compute = functools.partial(_gradients, stack)
    if stack.graphed is not None:
        return stack.graphed(compute, stack.step, rows_KN, target_KN, batches, measure)
    gradients, measured_MK = compute(rows_KN, target_KN, batches, measure)
    stack.optimizers.step(stack.step, gradients)
    return measured_MK


def _gradients(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool
) -> tuple[Sequence[Tensor | None], Tensor]:
    """The clipped gradient of every parameter, (K, ...), and what `train_step` returns."""
    parameters = list(stack.parameters.values())
    examples = sum(batch.stop - batch.start for batch in batches)
    gradients: Sequence[Tensor | None] = []
    step_losses, correct = [], []
    for batch in batches:
        output_KBC = stack.model(stack.gather(rows_KN[:, batch]))
        loss_KB = stack.losses_KB(output_KBC, target_KN[:, batch])
        part = networks.gradients(stack.model, loss_KB.sum() / examples, parameters)
        gradients = part if not gradients else [_add(a, b) for a, b in zip(gradients, part, strict=True)]
        if measure:
            step_losses.append(loss_KB.detach())
            if stack.classes:
                correct.append(losses.correct_KB(output_KBC.detach(), target_KN[:, batch]))
    began = time.perf_counter()
    measured = []
    factor_K = None
    if measure or stack.max_norm_K is not None:
        gradient_PK = norms_PK(gradients, len(stack.members))
        total_K = total_norm_K(gradient_PK)
        if stack.max_norm_K is not None:
            factor_K = clip_factor_K(total_K, stack.max_norm_K)
            gradients = [g if g is None else g * factor_K.view(-1, *[1] * (g.ndim - 1)) for g in gradients]
        if measure:
            measured = [_joined(step_losses).mean(1)]
            if stack.classes:
                measured.append(_joined(correct).mean(1, dtype=total_K.dtype))
            measured += [total_K] if factor_K is None else [total_K, total_K * factor_K]
            measured.append(gradient_PK.view(-1))
    stack.measuring_s += time.perf_counter() - began
    K = len(stack.members)
    return gradients, torch.cat(measured).view(-1, K) if measured else torch.empty(0, K)


def measure_start(stack: Stack) -> None:
    """Fill every member's `start` with what the probe examples and the training targets show before the first step.

    A chance level that is none, NaN, is left out.
    """
    began = time.perf_counter()
    rows_KN, target_KN = stack.train_KN[:, :PROBE_EXAMPLES], stack.train_y_KN[:, :PROBE_EXAMPLES]
    scores, statistics = evaluate(stack, rows_KN, target_KN, probe=True)
    named = {"loss": scores["loss"], **losses.chance_level(stack.loss, stack.train_y_KN, stack.classes), **statistics}
    named |= input_statistics(stack.gather(rows_KN)) | weight_norms(stack)
    order = [name for name in stack.activations.order if name in stack.parameters]
    named |= {f"forward_order/{name}": torch.full_like(scores["loss"], i) for i, name in enumerate(order)}
    if 0 < stack.activations.kept < 1:
        named["dropout_noise"] = torch.full_like(scores["loss"], 1 / stack.activations.kept - 1)
    for member, row in zip(stack.members, _by_member(named), strict=True):
        member.start = {name: value for name, value in row.items() if name != "guessing_loss" or value == value}
    stack.evaluating_s += time.perf_counter() - began


def _measure_first_step(stack: Stack, before: dict[str, Tensor], measured_MK: Tensor) -> None:
    """Add loss, gradient norms and update ratios of the first step to every member's `start`."""
    ratios = _by_member(update_ratios(stack, before))
    for member, gradients, ratio in zip(stack.members, _gradient_norms(stack, measured_MK), ratios, strict=True):
        member.start |= gradients | ratio
    for member, loss in zip(stack.members, measured_MK[0].tolist(), strict=True):
        member.start["first_step_loss"] = loss


def evaluate_epoch(stack: Stack, before: dict[str, Tensor], measured_MK: Tensor) -> list[dict[str, float]]:
    """Return every member's row of metrics after an epoch, both splits in evaluation mode.

    `before` holds the weights before the epoch's last step, `measured_MK` what was measured of it.
    """
    began = time.perf_counter()
    scores, statistics = evaluate(stack, stack.train_KN, stack.train_y_KN, stack.metrics, probe=True)
    named = {f"eval/train_{name}": value for name, value in scores.items()}
    if stack.val_KN.shape[1]:
        scores, _ = evaluate(stack, stack.val_KN, stack.dataset.y[stack.val_KN], stack.metrics)
        named |= {f"val/{name}": value for name, value in scores.items()}
    named |= weight_norms(stack) | update_ratios(stack, before) | statistics | stack.model.readings()
    rates = stack.optimizers.learning_rates(stack.step - 1)
    rows = [
        {"epoch": stack.epoch, "step": stack.step, **row, **gradients, "lr": lr}
        for row, gradients, lr in zip(_by_member(named), _gradient_norms(stack, measured_MK), rates, strict=True)
    ]
    stack.evaluating_s += time.perf_counter() - began
    return rows


def weight_norms(stack: Stack) -> dict[str, Tensor]:
    """weight_norm/<parameter>: (K,) each."""
    weights = [p.detach() for p in stack.parameters.values()]
    weight_PK = norms_PK(weights, len(stack.members))
    return {f"weight_norm/{name}": norm for name, norm in zip(stack.parameters, weight_PK, strict=True)}


def update_ratios(stack: Stack, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """update_ratio/<parameter>: |w_after - w_before| / |w_before| of a step, (K,) each."""
    K = len(stack.members)
    change_PK = norms_PK([stack.parameters[name].detach() - w for name, w in before.items()], K)
    ratio_PK = change_PK / norms_PK(list(before.values()), K)
    return {f"update_ratio/{name}": ratio for name, ratio in zip(before, ratio_PK, strict=True)}


@torch.no_grad()
def evaluate(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, measured: Sequence[Metric] = (), probe: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean loss, accuracy (not of a regression) and metrics over rows of the data set, in evaluation mode: (K,) each.

    For metrics all outputs are kept until the end: K N C floats. With `probe`, the first PROBE_EXAMPLES are a batch of
    their own; statistics of its activations and predictions are returned too.
    """
    if stack.native is None:
        scores, statistics, output_KNC = _torch_evaluate(stack, rows_KN, target_KN, bool(measured), probe)
    else:
        shape = (*rows_KN.shape, stack.dataset.out_features)
        output_KNC = stack.dataset.x.new_empty(shape) if measured else None
        look = stack.activations.modules if probe else None
        named = stack.native.evaluate(rows_KN, target_KN, look, output_KNC)
        scores = {name: named.pop(name) for name in ("loss", "accuracy") if name in named}
        statistics = named
    if output_KNC is not None:
        found = [metrics.measure(measured, output_NC, target_KN[k]) for k, output_NC in enumerate(output_KNC)]
        scores |= {name: scores["loss"].new_tensor([one[name] for one in found]) for name in found[0]}
    return scores, statistics


def _torch_evaluate(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, keep: bool, probe: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """Loss and accuracy, statistics of the probe, and if they are to be kept the outputs (K, N, C), as `evaluate`."""
    K, n = rows_KN.shape
    floats = EVALUATION_FLOATS if stack.device.type == "cpu" else GPU_EVALUATION_FLOATS
    size = EVALUATION_TILE * math.ceil(floats / (EVALUATION_TILE * K * stack.dataset.in_features))
    probed = min(n, PROBE_EXAMPLES) if probe else 0
    statistics: dict[str, Tensor] = {}
    stack.model.eval()
    loss = torch.zeros(K, dtype=torch.float64, device=stack.device)
    correct = torch.zeros(K, dtype=torch.float64, device=stack.device)
    outputs: list[Tensor] = []
    starts = ([0] if probe else []) + list(range(probed, n, size))
    for start, end in itertools.pairwise([*starts, n]):
        x, target = stack.gather(rows_KN[:, start:end]), target_KN[:, start:end]
        if end <= probed:
            with stack.activations.attached():
                output = stack.model(x)
            statistics = stack.activations.taken(loss)
            if stack.classes:
                statistics["eval/top_class"] = top_class_K(output)
        else:
            output = stack.model(x)
        loss += stack.losses_KB(output, target).sum(1)
        if stack.classes:
            correct += losses.correct_KB(output, target).sum(1)
        if keep:
            outputs.append(output)
    stack.model.train()
    scores = {"loss": loss / n} | ({"accuracy": correct / n} if stack.classes else {})
    return scores, statistics, torch.cat(outputs, 1) if keep else None


@torch.no_grad()
def evaluate_test(stack: Stack, k: int, state: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
    """Loss, accuracy and metrics of a member's state on the test split, by its plain model; and the outputs (N, C)."""
    predictor = networks.predictor(stack.model, state, stack.members[k].config, stack.dataset)
    outputs = torch.cat([predictor(x) for x in stack.dataset.test_x.split(8192)])[None]
    target = stack.dataset.test_y[None]
    result = {"loss": stack.losses_KB(outputs, target).double().mean().item()}
    if stack.classes:
        result["accuracy"] = losses.correct_KB(outputs, target).double().mean().item()
    return result | metrics.measure(stack.metrics, outputs[0], target[0]), outputs[0]


@torch.no_grad()
def check_functions(stack: Stack) -> None:
    """Try a loss and metrics of the user's own on the first batch, before anything trains; nothing else moves.

    Raises ConfigError where one fails, or is not what it must be.
    """
    if not (isinstance(stack.losses_KB, OwnLoss) or any(metric.path for metric in stack.metrics)):
        return
    with global_streams.kept(stack.device):
        rows_KB, target_KB = stack.train_KN[:1, : stack.batch_size], stack.train_y_KN[:1, : stack.batch_size]
        stack.model.eval()
        output = stack.model(stack.gather(rows_KB.expand(len(stack.members), -1)))[0]
        stack.model.train()
        if isinstance(stack.losses_KB, OwnLoss):
            stack.losses_KB.check(output, target_KB[0])
        metrics.check(stack.metrics, output, target_KB[0])


def _by_member(named: dict[str, Tensor]) -> list[dict[str, float]]:
    """tag -> (K,) as one dictionary a member, in one copy to the host."""
    host = torch.stack([value.double() for value in named.values()], 1).tolist()
    return [dict(zip(named, values, strict=True)) for values in host]


def _gradient_norms(stack: Stack, measured_MK: Tensor) -> list[dict[str, float]]:
    """Every member's gradient norm by parameter out of a measured step."""
    tags = [f"grad_norm/{name}" for name in stack.parameters]
    return [dict(zip(tags, norms, strict=True)) for norms in measured_MK[-len(tags) :].t().tolist()]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """(K, B) of all batches of a step; nothing is copied where it is one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _weights(stack: Stack) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in stack.parameters.items()}


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
