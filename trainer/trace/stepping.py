"""Parts 5 to 7 of a trace: the optimizer's step by torch and by hand, what it leaves behind, more steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config import ConfigError, Optimizer
from trainer.core.optimizers import MemberOptimizers
from trainer.trace import equations, facts
from trainer.trace.network import Batch, Subject

Place = tuple[str, tuple[int, ...]]  # a weight: its parameter, and where in it


@dataclass
class Moved:
    """A step of all weights: before, gradient used, after, optimizer state; by parameter. Arrays are float64."""

    before: dict[str, np.ndarray]
    used: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    state_before: dict[str, dict[str, np.ndarray]]
    state_after: dict[str, dict[str, np.ndarray]]
    settings: dict[str, dict[str, Any]]  # of each parameter's param group
    lines: dict[str, equations.Equations | None]
    error: float | None  # the largest difference between torch's step and the equations, weights and state


def _move(subject: Subject, optimizers: MemberOptimizers, t: int, gradients: Mapping[str, Tensor | None]) -> Moved:
    """One step (t counted from 0) with torch's optimizer, and with its equations."""
    names = [name for name, gradient in gradients.items() if gradient is not None]
    before = {name: subject.parameters[name].detach().numpy().copy() for name in names}
    state_before = _state(optimizers, names)
    optimizers.step(t, [None if g is None else g[None] for g in gradients.values()])
    after = {name: subject.parameters[name].detach().numpy().copy() for name in names}
    used = {name: gradient.numpy() for name, gradient in gradients.items() if gradient is not None}
    state_after = _state(optimizers, names)
    (span,) = optimizers.spans
    settings, lines, errors = {}, {}, []
    for name, leaf in zip(optimizers.parameters, span.leaves, strict=True):
        if name not in names:
            continue
        group = next(group for group in span.groups if any(leaf is p for p in group["params"]))
        settings[name] = {**equations.settings_by_name(group), "t": t + 1}
        first = not state_before[name]
        known = type(span.optimizer).__name__ if span.own is None else ""  # a class of the user's own may have any name
        lines[name] = equations.equations(known, settings[name], first)
        if lines[name] is not None:
            solved = equations.solve(lines[name], _values(settings[name], before[name], used[name], state_before[name]))
            errors.append(np.abs(before[name] + solved["update"] - after[name]).max())
            errors += [np.abs(solved[symbol] - value).max() for symbol, value in state_after[name].items()]
    error = float(max(errors)) if errors else None
    return Moved(before, used, after, state_before, state_after, settings, lines, error)


def _values(settings: Mapping[str, Any], w: Any, g: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """What the equations start from; state that does not exist yet is zero."""
    return dict.fromkeys(equations.STATE.values(), 0.0) | {**settings, "w": w, "g": g, **state}


def _state(optimizers: MemberOptimizers, names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Each weight's own entries of the optimizer state, by the symbols of the equations."""
    out = {}
    kept = optimizers.member_state(0)
    for name in names:
        shape, state = optimizers.parameters[name].shape[1:], kept[name]
        entries = {key: v.double().numpy() for key, v in state.items() if isinstance(v, Tensor)}
        own = {
            key: value.reshape(shape) for key, value in entries.items() if value.size == shape.numel() and key != "step"
        }
        out[name] = {equations.STATE.get(key, key): value for key, value in own.items()}
    return out


def _clipped(subject: Subject) -> tuple[dict[str, Tensor | None], float, float]:
    """(gradients as the optimizer gets them, total norm before clipping, factor)."""
    gradients = {name: p.grad for name, p in subject.parameters.items()}
    norm, factor = subject.clip_factor(list(gradients.values()))
    return {name: None if g is None else g * factor for name, g in gradients.items()}, norm, factor


def step(subject: Subject, place: Place) -> facts.Step:
    name, index = place
    optimizer = subject.config.optimizer
    gradients, _, _ = _clipped(subject)
    grad = subject.parameters[name].grad
    if grad is None:
        raise ConfigError([f"--member: no gradient arrives at {name}: the loss does not depend on it"])
    moved = _move(subject, subject.optimizers(optimizer), 0, gradients)
    state_before, state_after = (
        {k: v[index].item() for k, v in s[name].items()} for s in (moved.state_before, moved.state_after)
    )
    before, used, after = (values[name][index].item() for values in (moved.before, moved.used, moved.after))
    lines = by_hand = None
    if (known := moved.lines[name]) is not None:
        lines = equations.with_numbers(known, _values(moved.settings[name], before, used, state_before))
        by_hand = before + lines[-1].value
    return facts.Step(
        optimizer=optimizer._target_,
        settings=optimizer.keywords(),
        lr=moved.settings[name]["lr"],
        weight=f"{name}[{','.join(map(str, index))}]",
        before=before,
        gradient=grad[index].item(),
        used=used,
        state_before=state_before,
        state_after=state_after,
        lines=lines,
        by_hand=by_hand,
        after=after,
        error=None if by_hand is None else abs(by_hand - after),
        error_all=moved.error,
    )


def after(subject: Subject, batches: Sequence[Batch]) -> facts.After:
    """What is in .grad after the step, after another backward, after two of them, after zero_grad."""
    parameters = subject.parameters
    left = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    _, norm, factor = _clipped(subject)
    slices, start = [], 0
    for name, p in parameters.items():
        size = 0.0 if name not in left else left[name].norm().item()
        slices.append(facts.Slice(name, start, start + p.numel(), size))
        start += p.numel()
    subject.network.zero_grad()
    cleared = {str(p.grad) for p in parameters.values()}
    subject.rewind()
    loss = subject.losses(batches).sum()  # the new weights, the same examples and masks
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    _, next_norm, _ = _clipped(subject)
    loss.backward()
    _, twice_norm, _ = _clipped(subject)
    doubled = all(torch.equal(p.grad, 2 * once[name]) for name, p in parameters.items() if p.grad is not None)
    subject.network.zero_grad()
    return facts.After(
        norm=norm,
        cleared=", ".join(sorted(cleared)),
        next_norm=next_norm,
        twice_norm=twice_norm,
        doubled=doubled,
        vector=slices,
        clip_norm=subject.config.clip_norm,
        clip_factor=factor,
    )


def walk(subject: Subject, optimizer: Optimizer, place: Place) -> Iterator[tuple[facts.Row, Moved]]:
    """Take all steps from the start with any optimizer: one weight's row, and the moves of all weights."""
    name, index = place
    subject.restart()
    optimizers = subject.optimizers(optimizer)
    for t in range(subject.steps):
        subject.network.zero_grad()
        loss = subject.losses(subject.batches(t)).sum()
        loss.backward()
        gradients, norm, _ = _clipped(subject)
        moved = _move(subject, optimizers, t, gradients)
        before, used, after = (values[name][index].item() for values in (moved.before, moved.used, moved.after))
        yield (
            facts.Row(
                step=t + 1,
                loss=loss.item(),
                norm=norm,
                lr=moved.settings[name]["lr"],
                before=before,
                gradient=used,
                state={key: value[index].item() for key, value in moved.state_after[name].items()},
                update=after - before,
                after=after,
                error=moved.error,
            ),
            moved,
        )


def rival(subject: Subject, name: str, optimizer: Optimizer, place: Place) -> facts.Rival:
    steps = list(walk(subject, optimizer, place))
    (first, moved), (last, _) = steps[0], steps[-1]
    update = np.concatenate([(moved.after[n] - moved.before[n]).ravel() for n in moved.before])
    downhill = -np.concatenate([moved.used[n].ravel() for n in moved.before])
    length = float(np.linalg.norm(update))
    both = length * float(np.linalg.norm(downhill))
    return facts.Rival(
        name=name,
        settings=optimizer.keywords(),
        first_update=first.update,
        first_length=length,
        cosine=float(update @ downhill) / both if both else float("nan"),
        after=last.after,
        loss=evaluation_loss(subject),
    )


@torch.no_grad()
def evaluation_loss(subject: Subject) -> float:
    """The loss on the first batch with the weights as they are, in evaluation mode."""
    subject.network.eval()
    loss = subject.losses(subject.batches(0)).sum().item()
    subject.network.train()
    return loss
