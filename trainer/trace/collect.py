"""Take the first training step of a run apart, with the model, loss and optimizer code that trains.

Nothing is taken on trust: gradients are compared with finite differences and, at the output, with the closed form; the
optimizer's step with its equation; all of it with the trainer's own step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.config import Config, ConfigError, Mlp, Optimizer, nearest
from trainer.core import data as datasets
from trainer.core import loop
from trainer.trace import backward, facts, graph, stepping
from trainer.trace.network import Batch, Point, Subject, Watch
from trainer.trace.stepping import Place

SHOWN = 60  # entries of a dropout mask that are kept for showing


def trace(config: Config, weight: str | None, steps: int, rivals: Mapping[str, Optimizer]) -> facts.Trace:
    """Take the first step of a run apart, and follow it for `steps` steps.

    weight: `layers.0.weight[2,3]`, or a parameter, whose entry with the largest gradient is taken; None: of all.
    rivals: optimizers to compare with, by name. Raises ConfigError as training does, or for a weight that is not there.
    """
    torch.set_num_threads(1)  # sums in one order: the same command prints the same numbers
    subject = Subject(config, steps)
    parameters = [_parameter(name, p) for name, p in subject.network.named_parameters()]
    wanted = _wanted(subject.parameters, weight)
    batches = subject.batches(0)
    with Watch(subject.network) as watch:
        loss = subject.losses(batches).sum()
    points = [point for point in watch.points if point.value.requires_grad]
    _check_loss(loss)
    layers = _layers(subject, watch.points, batches, loss)
    nodes = graph.nodes(loss, points, subject.parameters)
    _backward(loss)
    _check_repeats(subject, loss)
    gradients = backward.gradients(subject, points, batches)
    faults = backward.faults(loss, points, subject, gradients)
    closed_forms = backward.closed_forms(subject, points, batches)
    place = _largest(subject.parameters, *wanted)
    step = stepping.step(subject, place)
    after = stepping.after(subject, batches)
    subject.restart()
    start_loss = stepping.evaluation_loss(subject)
    rows = [row for row, _ in stepping.walk(subject, config.optimizer, place)]
    compared = [stepping.rival(subject, name, optimizer, place) for name, optimizer in rivals.items()]
    trained, weights = _train_in_float32(config)
    return facts.Trace(
        network=_describe(subject),
        data=subject.dataset.name,
        batch=len(batches[0][1]),
        examples=sum(len(y) for _, y in batches),
        loss_name=backward.loss_name(config, batches[0][1]),
        loss=loss.item(),
        parameters=parameters,
        input_shape=list(batches[0][0].shape[1:]),
        input=_summary(batches[0][0]),
        layers=layers,
        graph=nodes,
        gradients=gradients,
        closed_forms=closed_forms,
        faults=faults,
        step=step,
        in_training={**trained, "weight": weights[place[0]][place[1]].item()},
        after=after,
        rows=rows,
        start_loss=start_loss,
        rivals=compared,
    )


def _train_in_float32(config: Config) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Take the trainer's own first step, in its own precision: what it measures, and the weights after it."""
    stack = loop.Stack([config], datasets.load(config.data))
    rows_KN, target_KN = stack.next_order()
    measured_MK = loop.train_step(stack, rows_KN, target_KN, stack.batches[: stack.accumulate], measure=True)
    measured = dict(zip(stack.step_tags, measured_MK[:, 0].tolist(), strict=True))
    weights = {name: p.detach()[0].clone() for name, p in stack.parameters.items()}
    return {"loss": measured["train/loss"], "norm": measured["grad_norm/total"]}, weights


def _check_loss(loss: Tensor) -> None:
    """Raises ConfigError where a loss has no gradient."""
    if not loss.isfinite():
        raise ConfigError([f"the loss of the first step is {loss.item()}: it has no gradient; look at the inputs"])
    if not loss.requires_grad:
        raise ConfigError(
            ["model._target_: no parameter takes part in the loss; is there a detach or no_grad in forward?"]
        )


def _backward(loss: Tensor) -> None:
    """Run backward. Raises ConfigError where a user's own backward fails."""
    try:
        loss.backward()
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError([f"model._target_: the backward pass fails: {said}"]) from error


def _check_repeats(subject: Subject, loss: Tensor) -> None:
    """Raises ConfigError where the same step has another loss the second time: differences would prove nothing."""
    subject.rewind()
    if subject.losses(subject.batches(0)).sum() != loss:
        raise ConfigError(
            [
                f"model._target_: {type(subject.network).__name__} gives another loss for the same weights, examples "
                "and state of torch's generator; draw random numbers with torch alone"
            ]
        )


# ------------------------------------------------------------------ the weight to follow


def _wanted(parameters: Mapping[str, Tensor], text: str | None) -> tuple[str | None, tuple[int, ...] | None]:
    """(parameter, index) out of 'layers.0.weight[2,3]'; None for what it leaves open. Raises ConfigError."""
    if text is None:
        return None, None
    found = re.fullmatch(r"([^\[\]]+)(?:\[(\d+(?:,\d+)*)\])?", text.replace(" ", ""))
    if found is None:
        raise ConfigError([f"--member: found {text}, expected a parameter and an index, e.g. layers.0.weight[2,3]"])
    name, index = found.groups()
    if name not in parameters:
        raise ConfigError([f"--member: no parameter {name}; {nearest(name, parameters)}"])
    if index is None:
        return name, None
    place, shape = tuple(map(int, index.split(","))), tuple(parameters[name].shape)
    if len(place) != len(shape) or any(i >= n for i, n in zip(place, shape, strict=True)):
        last = ",".join(str(n - 1) for n in shape)
        raise ConfigError([f"--member: {name}[{index}] is not in its shape {shape}; the last entry is {name}[{last}]"])
    return name, place


def _largest(parameters: Mapping[str, Tensor], name: str | None, index: tuple[int, ...] | None) -> Place:
    """The weight to follow; where that is open, the one with the largest gradient."""
    if name is not None and index is not None:
        return name, index
    among = {name: parameters[name]} if name is not None else parameters
    size = {n: 0.0 if p.grad is None else p.grad.abs().max().item() for n, p in among.items()}
    name = max(size, key=lambda n: size[n])
    grad = parameters[name].grad
    flat = 0 if grad is None else int(grad.abs().argmax())
    return name, tuple(int(i) for i in np.unravel_index(flat, parameters[name].shape))


# ------------------------------------------------------------------ parts 1 and 2: parameters, forward


def _summary(value: Tensor) -> facts.Summary:
    value = value.detach().double()
    return facts.Summary(value.mean().item(), value.std(correction=0).item())


def _parameter(name: str, parameter: nn.Parameter) -> facts.Parameter:
    return facts.Parameter(
        name=name,
        shape=list(parameter.shape),
        count=parameter.numel(),
        requires_grad=parameter.requires_grad,
        is_leaf=parameter.is_leaf,
        grad_fn=None if parameter.grad_fn is None else parameter.grad_fn.name(),
        grad=None if parameter.grad is None else str(parameter.grad),
        values=_summary(parameter),
    )


def _layers(subject: Subject, points: Sequence[Point], batches: Sequence[Batch], loss: Tensor) -> list[facts.Layer]:
    """Every layer's output and the loss, what was kept for backward, and the same in evaluation mode."""
    known = _known(subject, points, batches)
    subject.network.eval()
    with torch.no_grad(), Watch(subject.network) as watch:
        evaluated = subject.losses(batches).sum()
    subject.network.train()
    evaluation = {point.name: _summary(point.shown) for point in watch.points}
    made = {point.grad_fn for point in points if point.grad_fn is not None}

    def operations(end: Any, given: set[Any]) -> list[Any]:
        return [] if end is None or end in given else graph.above(end, (made | given) - {end})[0]

    def layer(name: str, module: str, value: Tensor, done: list[Any], evaluated: facts.Summary | None) -> facts.Layer:
        kept = [saved for operation in done for saved in graph.saved(operation, known)]
        names = [graph.name(operation) for operation in done]
        return facts.Layer(name, module, list(value.shape), names, kept, _summary(value), evaluated)

    layers = []
    for point in points:
        done = operations(point.grad_fn, point.given_by)
        module = repr(point.module) if point.given else ""
        layers.append(layer(point.name, module, point.shown, done, evaluation.get(point.name)))
        layers[-1].dropout, layers[-1].batchnorm = _dropout(point), _batchnorm(point)
    done = operations(loss.grad_fn, set()) if len(batches) == 1 else [loss.grad_fn]  # not through other batches
    layers.append(layer("loss", "", loss, done, _summary(evaluated)))
    return layers


def _known(
    subject: Subject, points: Sequence[Point], batches: Sequence[Batch]
) -> dict[tuple[int, int], tuple[str, list[int]]]:
    """Names and shapes of the tensors that a reader knows, by their address."""
    x, y = batches[0]
    known = {graph.address(x): ("the input", list(x.shape)), graph.address(y): ("the targets", list(y.shape))}
    for point in points:
        if "factor" in point.notes:
            known[graph.address(point.notes["factor"])] = ("mask times scale", list(point.shown.shape))
        known[graph.address(point.value)] = (f"output of {point.name}", list(point.shown.shape))
    for name, tensor in [*subject.network.named_parameters(), *subject.network.named_buffers()]:
        known[graph.address(tensor)] = (name, list(tensor.shape))
    return known


def _dropout(point: Point) -> facts.Dropout | None:
    """The mask of a dropout layer; if the layer is not ours, inferred from its input and output."""
    if not isinstance(point.module, nn.Dropout) or not point.given or not point.module.p:
        return None
    given = point.given[0].detach()
    factor = point.notes.get("factor", torch.where(given != 0, point.shown / given, 0.0))
    kept = factor > 0
    small = kept.ndim == 2 and kept.numel() <= SHOWN
    return facts.Dropout(
        rate=point.module.p,
        scale=factor.max().item(),
        kept=int(kept.sum()),
        count=kept.numel(),
        mask=kept.int().tolist() if small else None,
    )


def _batchnorm(point: Point) -> facts.BatchNorm | None:
    """Batch and running statistics, the latter compared with their equation."""
    module, running = point.module, point.notes
    if not isinstance(module, _BatchNorm) or not running:
        return None
    x = point.given[0].detach()
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean, var, unbiased = x.mean(axes), x.var(axes, correction=0), x.var(axes, correction=1)
    tracked = module.num_batches_tracked
    momentum = module.momentum if module.momentum is not None else 1 / (1 if tracked is None else tracked.item())
    expected_mean = (1 - momentum) * running["mean_before"] + momentum * mean
    expected_var = (1 - momentum) * running["var_before"] + momentum * unbiased
    error = max(
        (running["mean_after"] - expected_mean).abs().max().item(),
        (running["var_after"] - expected_var).abs().max().item(),
    )
    return facts.BatchNorm(
        momentum=momentum,
        batch_mean=mean.tolist(),
        batch_var=var.tolist(),
        running_mean_before=running["mean_before"].tolist(),
        running_mean_after=running["mean_after"].tolist(),
        running_var_before=running["var_before"].tolist(),
        running_var_after=running["var_after"].tolist(),
        error=error,
    )


def _describe(subject: Subject) -> str:
    config, dataset = subject.config.model, subject.dataset
    if isinstance(config, Mlp):
        sizes = [dataset.in_features, *config.widths, dataset.out_features]
        return "-".join(map(str, sizes)) + (f" {config.activation}" if config.depth else "")
    return type(subject.network).__name__
