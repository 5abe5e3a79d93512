"""Check a first step's gradients: by finite differences, by closed forms; find where along the graph one goes wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import Config
from trainer.core import finite_differences, losses
from trainer.core.finite_differences import Check
from trainer.trace import facts, graph
from trainer.trace.network import Batch, Point, Subject, Watch

ALL, SAMPLE = 100, 19  # coordinates of a gradient that are checked: all where there are at most ALL, else SAMPLE


def gradients(subject: Subject, points: Sequence[Point], batches: Sequence[Batch]) -> list[facts.Gradient]:
    """Check every gradient, in the order in which backward reaches them: a layer's output, then its parameters."""
    offsets = {point.name: torch.zeros_like(point.shown) for point in points}
    parameters = subject.parameters
    owners = {name: name.rpartition(".")[0] for name in parameters}
    order: list[str] = []
    for point in reversed(points):
        layer = "" if point.module is subject.network else point.layer
        order += [point.name, *(name for name, owner in owners.items() if owner == layer and name not in order)]
    order += [name for name in parameters if name not in order]
    arrived = {point.name: point.gradient for point in points} | {name: p.grad for name, p in parameters.items()}

    def check(name: str, tensor: Tensor, gradient: Tensor) -> Check:
        def losses() -> Tensor:
            subject.rewind()
            with Watch(subject.network, {} if name in parameters else {name: tensor}):
                return subject.losses(batches)

        count = tensor.numel() if tensor.numel() <= ALL else SAMPLE
        return finite_differences.check(losses, tensor, gradient, count)

    out = []
    for name in order:
        tensor: Tensor = parameters[name] if name in parameters else offsets[name]
        found = arrived[name]
        gradient = torch.zeros_like(tensor) if found is None else found
        out.append(
            facts.Gradient(
                name=name,
                kind="parameter" if name in parameters else "activation",
                shape=list(tensor.shape),
                norm=gradient.norm().item(),
                mean=gradient.mean().item(),
                count=tensor.numel(),
                check=check(name, tensor, gradient),
            )
        )
    subject.rewind()
    return out


def faults(loss: Tensor, points: Sequence[Point], subject: Subject, checked: Sequence[facts.Gradient]) -> list[str]:
    """Find where a gradient goes wrong: it is right at one point of the graph and wrong at the next.

    If several operations lie between the two, those defined in Python are suspected first.
    """
    checks = {gradient.name: gradient.check for gradient in checked}
    made = {point.grad_fn: point for point in reversed(points)}
    names = {id(p): name for name, p in subject.parameters.items()}
    found = []
    for point in [None, *reversed(points)]:
        if point is not None and not checks[point.name].ok:
            continue
        operations, met = graph.above(loss.grad_fn if point is None else point.grad_fn, made)
        theirs = [o for o in operations if isinstance(o, torch.autograd.function.BackwardCFunction)]
        suspects = ", ".join(graph.name(o) for o in theirs or operations)
        for end in met:
            name = made[end].name if end in made else names.get(id(end.variable))
            if name is None or checks[name].ok:
                continue
            check = checks[name]
            where = "the loss" if point is None else f"{point.name} ({type(point.module).__name__})"
            at = f"{name}[{','.join(map(str, check.worst))}]"
            found.append(
                f"right at {where}, wrong where {suspects} hands it on to {name}: at {at} it is {check.gradient:.6g}, "
                f"finite differences give {check.difference:.6g}"
            )
    return found


def closed_forms(subject: Subject, points: Sequence[Point], batches: Sequence[Batch]) -> list[facts.ClosedForm]:
    """The gradient of the output, and of a last linear layer, by formula."""
    last, (x, y) = points[-1], batches[0]
    examples = sum(len(targets) for _, targets in batches)
    output, classes = last.shown, subject.dataset.classes
    loss = subject.config.loss
    if last.gradient is None or output.shape != (len(x), subject.dataset.out_features) or loss._target_ is not None:
        return []
    target, name = y if classes is None else F.one_hot(y, classes).to(output.dtype), loss_name(subject.config, y)
    if name == "output":
        expected = torch.full_like(output, 1 / (examples * output.shape[1]))
        formula = f"1 / ({examples} * {output.shape[1]})"
    elif name == "cross_entropy":
        smoothing = loss.label_smoothing
        q = (1 - smoothing) * target + smoothing / target.shape[1]
        expected = (output.softmax(1) - q) / examples
        formula = f"(softmax(output) - {'smoothed one-hot' if smoothing else 'one-hot'}) / {examples}"
    elif name == "focal":
        gamma, shares = losses.GAMMA if loss.gamma is None else loss.gamma, output.softmax(1)
        p = (shares * target).sum(1, keepdim=True)
        expected = ((1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log()) * (shares - target) / examples
        formula = f"((1-p)^{gamma:g} - {gamma:g} p (1-p)^{gamma - 1:g} log p) (softmax(output) - one-hot) / {examples}"
    elif name == "bce":
        expected = (output.sigmoid() - target) / (examples * output.shape[1])
        formula = f"(sigmoid(output) - one-hot) / ({examples} * {output.shape[1]})"
    elif name == "huber":
        delta = losses.DELTA if loss.delta is None else loss.delta
        expected = (output - target).clamp(-delta, delta) / (examples * output.shape[1])
        formula = f"(output - target, at most {delta:g} either way) / ({examples} * {output.shape[1]})"
    else:
        expected = 2 * (output - target) / (examples * output.shape[1])
        formula = f"2 (output - target) / ({examples} * {output.shape[1]})"
    pairs: list[tuple[str, str, Tensor, Tensor | None]] = [(last.name, formula, expected, last.gradient)]
    if isinstance(last.module, nn.Linear) and len(batches) == 1:
        prefix = f"{last.layer}." if last.module is not subject.network else ""
        given = last.given[0].detach()
        weight, bias = last.module.weight, last.module.bias
        pairs.append(
            (f"{prefix}weight", "G^T x, with G the line above and x its input", expected.T @ given, weight.grad)
        )
        if bias is not None:
            pairs.append((f"{prefix}bias", "the sum of G over the examples", expected.sum(0), bias.grad))
    return [facts.ClosedForm(n, f, (e - g).abs().max().item()) for n, f, e, g in pairs if g is not None]


def loss_name(config: Config, target: Tensor) -> str:
    """Return the name of the loss: the user's own path, or what auto stands for with such targets."""
    if config.loss._target_ is not None or config.loss.name != "auto":
        return config.loss._target_ or config.loss.name
    return "mse" if target.dtype.is_floating_point else "cross_entropy"
