"""Parts 8 to 10 of a trace: a function at its start, forward and back, in float64, each derivative checked.

Shapes: D coordinate, M number that comes out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer.config import ConfigError, Surface
from trainer.core import finite_differences
from trainer.core.own_calls import describe_error, parameters
from trainer.core.own_function import OwnFunction, show
from trainer.core.surfaces import FUNCTIONS, coordinates
from trainer.trace import facts, graph
from trainer.trace.operations import Recorder, chain_rule, overwritten

EXACT = 1e-9  # relative: sums in another order
UNSEEN = ("cut", "number")
Call = Callable[[Sequence[Tensor]], Tensor]


def look(config: Surface) -> facts.Function:
    """Take a function apart at its start.

    Raises ConfigError where it cannot be found, fails, differs from call to call, or gives anything but finite numbers
    in a floating-point tensor of shape () or (M,).
    """
    own = OwnFunction(config.function, len(config.start)) if config.is_own else None
    names = coordinates(len(config.start))
    if own is None:
        plain = FUNCTIONS[config.function].value
        call: Call = lambda inputs: plain(*inputs)  # noqa: E731
    else:
        call = own.call
        known = [p.name for p in parameters(own.function).values() if p.kind is not inspect.Parameter.VAR_POSITIONAL]
        names = known if len(known) == len(names) else names
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in config.start]
    with Recorder(dict(zip(names, inputs, strict=True))) as recorder:
        value = call(inputs)
    if said := _refusal(value, call(inputs)):
        where = f"{said} at {show(inputs)}"
        raise own.refusal(where) if own else ConfigError([f"model.function: {config.function} {where}"])
    result = recorder.name(value)
    found = facts.Function(
        name=config.function,
        point=dict(zip(names, config.start, strict=True)),
        operations=[row.shown for row in recorder.rows],
        result=result,
        value=value.tolist(),
    )
    if not value.requires_grad:
        found.failure = "what comes out has no grad_fn, so no derivative leads back from it"
        return found
    try:
        _go_back(found, call, inputs, value, recorder)
    except ConfigError:
        raise
    except Exception as error:  # whatever a backward of the user's own raises
        found.failure = overwritten(recorder) or describe_error(error)
        return found
    wrong = [one for one in found.gradient if _is_wrong(one)] or [one for one in found.second if _is_wrong(one)]
    found.faults = [_fault(one, names, _suspects(found)) for one in wrong]
    return found


def _refusal(value: object, again: object) -> str:
    """Say what is no number, or no vector, of which there is anything to be seen; '' where there is."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim > 1 or value.shape in ((0,), (1,)):
        found = f"a tensor {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        hint = "; torch.stack makes it of several" * isinstance(value, list | tuple)
        return f"gives {found}, expected a tensor of floating-point numbers, of shape () or (M,), M > 1{hint},"
    if not value.isfinite().all():
        return f"is {value.tolist()}"
    if not isinstance(again, Tensor) or not torch.equal(value, again):
        return f"differs from call to call, {value.tolist()}, then {getattr(again, 'tolist', lambda: again)()},"
    return ""


def _go_back(found: facts.Function, call: Call, inputs: Sequence[Tensor], value: Tensor, recorder: Recorder) -> None:
    """Fill in all that comes of backward. Raises RuntimeError where torch refuses it."""
    names = list(found.point)
    several = value.ndim == 1
    found.kept = _kept(recorder, dict(zip(names, inputs, strict=True)))
    terms = _terms(value)
    rows = [_slopes(term, inputs) for term in terms]
    if not torch.allclose(_slopes(call(inputs).sum(), inputs), sum(rows, torch.tensor(0.0)), EXACT, EXACT):
        raise ConfigError([f"model.function: the gradient of {found.name} differs from call to call at {show(inputs)}"])
    labels = [f"f[{i}]" if several else "f" for i in range(len(terms))]
    for i, (label, slopes) in enumerate(zip(labels, rows, strict=True)):
        check = _check(lambda x, i=i: _terms(call(x))[i], inputs, slopes)
        found.gradient.append(facts.Derivative(label, terms[i].item(), slopes.tolist(), check))
    if several:
        try:
            value.backward(retain_graph=True)
        except RuntimeError as error:
            found.refused = str(error)
        found.summed = _slopes(value, inputs, torch.ones_like(value)).tolist()
    else:
        bars = chain_rule(recorder, found.result)
        by_hand = torch.stack([bars.get(name, torch.zeros_like(value)) for name in names])
        if torch.allclose(by_hand, rows[0], EXACT, EXACT):  # else something was computed where nobody saw it
            found.chain_rule = by_hand.tolist()
        _derive_again(found, call, inputs)
    _twice(found, call, inputs)


def _kept(recorder: Recorder, inputs: Mapping[str, Tensor]) -> list[facts.Saved]:
    """What each operation keeps for backward, tensors by the names that they have here."""
    made = {row.shown.name: row for row in recorder.rows if row.node is not None}
    tensors = {**inputs, **{name: row.result for name, row in made.items() if row.result is not None}}
    known = {graph.address(tensor): (name, list(tensor.shape)) for name, tensor in tensors.items()}
    nodes = {row.node for row in made.values()}
    return [
        replace(kept, operation=f"{name}: {kept.operation}")
        for name, row in made.items()
        for node in graph.above(row.node, nodes - {row.node})[0]
        for kept in graph.saved(node, known, single=True)
    ]


def _derive_again(found: facts.Function, call: Call, inputs: Sequence[Tensor]) -> None:
    """The gradient's own derivatives."""

    def gradient(x: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(call(x), x, create_graph=True, materialize_grads=True)

    try:
        slopes = gradient(inputs)
        rows = [
            _slopes(slope, inputs) if slope.requires_grad else torch.zeros(len(inputs)).double() for slope in slopes
        ]
    except Exception as error:  # a backward of the user's own that cannot be derived
        found.no_second = describe_error(error)
        return
    found.gradient_nodes = len({node for slope in slopes for node in graph.above(slope.grad_fn, ())[0]})
    for i, (name, row) in enumerate(zip(found.point, rows, strict=True)):
        check = _check(lambda x, i=i: gradient(x)[i], inputs, row)
        found.second.append(facts.Derivative(f"df/d{name}", slopes[i].item(), row.tolist(), check))


def _twice(found: facts.Function, call: Call, inputs: Sequence[Tensor]) -> None:
    """Go back twice through one graph, without retain_graph and with it."""
    total = call(inputs).sum()
    total.backward()
    try:
        total.backward()
    except RuntimeError as error:
        found.again = str(error).partition(". ")[0]
    for x in inputs:
        x.grad = None
    total = call(inputs).sum()
    total.backward(retain_graph=True)
    reached = [(x.grad, x.grad.clone()) for x in inputs if x.grad is not None]
    total.backward()
    found.doubled = all(torch.equal(gradient, 2 * once) for gradient, once in reached)


def _terms(value: Tensor) -> Tensor:
    return value if value.ndim else value[None]


def _leaves(point: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in point]


def _slopes(value: Tensor, inputs: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """The derivative of a number, or of a weighted sum of some, by each coordinate: (D,)."""
    return torch.stack(torch.autograd.grad(value, inputs, weights, retain_graph=True, materialize_grads=True))


def _check(
    term: Callable[[Sequence[Tensor]], Tensor], inputs: Sequence[Tensor], slopes: Tensor
) -> finite_differences.Check:
    """Compare a derivative with differences of what it is of."""
    point = torch.stack(list(inputs)).detach()

    @torch.enable_grad()
    def losses() -> Tensor:
        return term(_leaves(point)).detach()[None]

    found = finite_differences.check(losses, point, slopes, len(point))
    if found.ok or found.kink:
        return found
    (worst,) = found.worst
    jumps = []
    for h in (1e-5, 1e-7):
        ahead, behind = (_leaves(point + h * sign * (torch.arange(len(point)) == worst)) for sign in (1, -1))
        jumps.append((term(ahead) - term(behind)).abs().item())
    return replace(found, kink=jumps[1] > jumps[0] / 2)  # as far apart from however near: it jumps


def _is_wrong(one: facts.Derivative) -> bool:
    return not (one.check.ok or one.check.kink)


def _suspects(found: facts.Function) -> str:
    """Where backward goes wrong: what it does not see, and what has a backward of the user's own."""
    unseen = [f"{one.name} = {one.expression}".removeprefix(" = ") for one in found.operations if one.kind in UNSEEN]
    own = [f"{one.name} = {one.expression}" for one in found.operations if one.is_own]
    said = f"; for backward it is a constant: {', '.join(unseen)}" if unseen else ""
    return said + (f"; its backward is the user's own: {', '.join(own)}" if own else "")


def _fault(one: facts.Derivative, names: Sequence[str], suspects: str) -> str:
    check = one.check
    by = names[check.worst[0]]
    numbers = f"{check.gradient + 0.0:.6g} by backward, {check.difference:.6g} by differences"
    return f"the derivative of {one.name} by {by} is {numbers}{suspects}"
