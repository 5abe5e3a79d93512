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


Columns = dict[str, list[float]]  # what is measured, by name: a number a member


class Observer(Protocol):
    """What the loop tells: it takes what a step or an epoch returns, and never reaches inside."""

    def checkpoint(self, stack: Stack) -> None:
        """Between two steps: save what is needed to go on, where that is due."""
        ...

    def wants(self, step: Step) -> bool:
        """Whether this step is to be measured and handed to `burst`."""
        ...

    def burst(self, numbers: list[int], measured_SMK: Tensor, rates_SK: list[list[float]]) -> None: ...

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

    `stop` is asked before every burst of steps; `is_overfit` after every epoch of a member that monitors
    the verdict or health.
    """
    if stack.step == 0:
        measure_start(stack)
    measured_MK, moved_3PK = torch.empty(0), torch.empty(0)
    while stack.members:
        rows_KN, target_KN = stack.next_order()
        for burst in stack.bursts():
            if stop():
                observer.leave(stack, dict.fromkeys(range(len(stack.members)), "interrupt"))
                return
            observer.checkpoint(stack)
            wanted = [observer.wants(step) for step in burst]
            if burst[0].first or burst[0].last:  # then it is alone
                measured_MK, moved_3PK = watched_step(stack, rows_KN, target_KN, burst[0].batches)
                measured_SMK = measured_MK[None]
            else:
                measured_SMK = train_steps(stack, rows_KN, target_KN, [step.batches for step in burst], wanted)
            if numbers := [step.number for step, is_wanted in zip(burst, wanted, strict=True) if is_wanted]:
                rates_SK = [stack.optimizers.learning_rates(number - 1) for number in numbers]
                observer.burst(numbers, measured_SMK, rates_SK)
            if burst[0].first:
                _measure_first_step(stack, measured_MK, moved_3PK)
        stack.finish_epoch()
        rows = evaluate_epoch(stack, measured_MK, moved_3PK)
        stack.optimizers.observe(rows)
        ending = stack.observe(rows, is_overfit)
        observer.epoch(stack, rows)
        if ending:
            observer.leave(stack, ending)
            stack.select([k for k in range(len(stack.members)) if k not in ending])


def train_steps(
    stack: Stack,
    rows_KN: Tensor,
    target_KN: Tensor,
    steps: Sequence[Sequence[slice]],
    measure: Sequence[bool],
    moved_3PK: Tensor | None = None,
) -> Tensor:
    """Take optimizer steps with every member, each on the given batches of its order; return what was measured.

    That is (S, M, K): of each of the S steps that are to be measured, in the order of `Stack.step_tags`. The gradient
    of a step is that of the mean loss over all its examples, in however many batches they come. moved_3PK: filled by
    the native step, as `watched_step` says.
    """
    if stack.native is not None:
        measured_SMK = stack.dataset.x.new_empty(sum(measure), len(stack.step_tags), len(stack.members))
        stack.native(stack.step, rows_KN, target_KN, steps, measure, measured_SMK, moved_3PK)
    else:
        taken = [
            _torch_step(stack, stack.step + i, rows_KN, target_KN, batches, is_measured)
            for i, (batches, is_measured) in enumerate(zip(steps, measure, strict=True))
        ]
        measured = [*itertools.compress(taken, measure)]
        measured_SMK = torch.stack(measured) if measured else torch.empty(0, len(stack.step_tags), len(stack.members))
    stack.step += len(steps)
    stack.epoch_step += len(steps)
    return measured_SMK


def train_step(stack: Stack, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool) -> Tensor:
    """Take one step, as `train_steps`; return what was measured of it: (M, K), or (0, K) where nothing was to be."""
    return train_steps(stack, rows_KN, target_KN, [batches], [measure]).flatten(0, 1)


def watched_step(stack: Stack, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice]) -> tuple[Tensor, Tensor]:
    """Take one step; return what was measured of it, (M, K), and how far it moved the weights, (3, P, K).

    That is the norm of each parameter before it, of its change, and after it.
    """
    if stack.native is not None:
        moved_3PK = stack.dataset.x.new_empty(3, len(stack.parameters), len(stack.members))
        return train_steps(stack, rows_KN, target_KN, [batches], [True], moved_3PK)[0], moved_3PK
    before = _weights(stack)
    measured_MK = train_step(stack, rows_KN, target_KN, batches, measure=True)
    after = _weights(stack)
    changes = [a - b for a, b in zip(after, before, strict=True)]
    return measured_MK, torch.stack([norms_PK(each, len(stack.members)) for each in (before, changes, after)])


def _torch_step(
    stack: Stack, done: int, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool
) -> Tensor:
    """Take the step after `done` others by torch, (M, K) or (0, K): any network, loss, optimizer and device."""
    compute = functools.partial(_gradients, stack)
    if stack.graphed is not None:
        return stack.graphed(compute, done, rows_KN, target_KN, batches, measure)
    gradients, measured_MK = compute(rows_KN, target_KN, batches, measure)
    stack.optimizers.step(done, gradients)
    return measured_MK


def _gradients(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool
) -> tuple[Sequence[Tensor | None], Tensor]:
    """The clipped gradient of every parameter, (K, ...), and what `_torch_step` returns."""
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
    data = losses.chance_level(stack.loss, stack.train_y_KN, stack.classes) | input_statistics(stack.gather(rows_KN))
    norm_PK = norms_PK(_weights(stack), len(stack.members))
    named = {"loss": scores["loss"], **_on_host(data), **statistics, **_by_parameter(stack, weight_norm=norm_PK)}
    K = len(stack.members)
    order = [name for name in stack.activations.order if name in stack.parameters]
    named |= {f"forward_order/{name}": [float(i)] * K for i, name in enumerate(order)}
    if 0 < stack.activations.kept < 1:
        named["dropout_noise"] = [1 / stack.activations.kept - 1] * K
    for member, row in zip(stack.members, _by_member(named), strict=True):
        member.start = {name: value for name, value in row.items() if name != "guessing_loss" or value == value}
    stack.evaluating_s += time.perf_counter() - began


def _measure_first_step(stack: Stack, measured_MK: Tensor, moved_3PK: Tensor) -> None:
    """Add loss, gradient norms and update ratios of the first step to every member's `start`."""
    gradient_PK, ratio_PK = measured_MK[-len(stack.parameters) :], moved_3PK[1] / moved_3PK[0]
    named = _by_parameter(stack, grad_norm=gradient_PK, update_ratio=ratio_PK)
    named["first_step_loss"] = measured_MK[0].tolist()
    for member, row in zip(stack.members, _by_member(named), strict=True):
        member.start |= row


def evaluate_epoch(stack: Stack, measured_MK: Tensor, moved_3PK: Tensor) -> list[dict[str, float]]:
    """Return every member's row of metrics after an epoch, both splits in evaluation mode.

    measured_MK, moved_3PK: of the epoch's last step, as `watched_step` returns them.
    """
    began = time.perf_counter()
    scores, statistics = evaluate(stack, stack.train_KN, stack.train_y_KN, stack.metrics, probe=True)
    named = {f"eval/train_{name}": values for name, values in scores.items()}
    if stack.val_KN.shape[1]:
        scores, _ = evaluate(stack, stack.val_KN, stack.dataset.y[stack.val_KN], stack.metrics)
        named |= {f"val/{name}": values for name, values in scores.items()}
    before_PK, change_PK, after_PK = moved_3PK
    named |= _by_parameter(stack, weight_norm=after_PK, update_ratio=change_PK / before_PK)
    named |= statistics | _on_host(stack.model.readings())
    named |= _by_parameter(stack, grad_norm=measured_MK[-len(stack.parameters) :])
    named["lr"] = stack.optimizers.learning_rates(stack.step - 1)
    rows = [{"epoch": stack.epoch, "step": stack.step, **row} for row in _by_member(named)]
    stack.evaluating_s += time.perf_counter() - began
    return rows


@torch.no_grad()
def evaluate(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, measured: Sequence[Metric] = (), probe: bool = False
) -> tuple[Columns, Columns]:
    """Mean loss, accuracy (not of a regression) and metrics over rows of the data set, in evaluation mode.

    For metrics all outputs are kept until the end: K N C floats. With `probe`, the first PROBE_EXAMPLES are a batch of
    their own; statistics of its activations and predictions are returned too.
    """
    if stack.native is None:
        scores, statistics, output_KNC = _torch_evaluate(stack, rows_KN, target_KN, bool(measured), probe)
    else:
        shape = (*rows_KN.shape, stack.dataset.out_features)
        output_KNC = stack.dataset.x.new_empty(shape) if measured else None
        statistics = stack.native.evaluate(rows_KN, target_KN, probe, output_KNC)
        scores = {name: statistics.pop(name) for name in ("loss", "accuracy") if name in statistics}
    if output_KNC is not None:
        found = [metrics.measure(measured, output_NC, target_KN[k]) for k, output_NC in enumerate(output_KNC)]
        scores |= {name: [one[name] for one in found] for name in found[0]}
    return scores, statistics


def _torch_evaluate(
    stack: Stack, rows_KN: Tensor, target_KN: Tensor, keep: bool, probe: bool
) -> tuple[Columns, Columns, Tensor | None]:
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
    return _on_host(scores), _on_host(statistics), torch.cat(outputs, 1) if keep else None


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


def _on_host(named: dict[str, Tensor]) -> Columns:
    """name -> (K,) as plain numbers, in one copy to the host."""
    values = torch.stack([value.double() for value in named.values()]).tolist() if named else []
    return dict(zip(named, values, strict=True))


def _by_member(named: Columns) -> list[dict[str, float]]:
    return [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]


def _by_parameter(stack: Stack, **kinds_PK: Tensor) -> Columns:
    """<kind>/<parameter>, of each kind what is measured of every parameter."""
    tags = [f"{kind}/{name}" for kind in kinds_PK for name in stack.parameters]
    return dict(zip(tags, torch.cat([*kinds_PK.values()]).tolist(), strict=True))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """(K, B) of all batches of a step; nothing is copied where it is one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _weights(stack: Stack) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in stack.parameters.values()]


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
