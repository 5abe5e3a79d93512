"""Prints what a trace found of a function: its operations and the chain rule, more derivatives, a second backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.trace.facts import Derivative, Function, Operation
from trainer.trace.text import Printer, error

FIRST, LAST = 20, 8  # operations that are shown of many
FEW = 6  # numbers of a vector, or terms of a sum, that are shown
PARTS = {
    8: "THE FUNCTION, operation by operation, and the chain rule back",
    9: "MORE DERIVATIVES",
    10: "BACKWARD A SECOND TIME",
}
NOTES = {
    "cut": "no way back: a constant for backward",
    "constant": "made of constants",
    "inside": "inside an operation with a backward of its own",
    "branch": "decides which branch runs; not in the graph",
    "number": "a number of Python's; not in the graph",
}


def show(out: Printer, function: Function, parts: Sequence[int]) -> None:
    """Print the parts."""
    for part in parts:
        out.title(f"{part}  {PARTS[part]}")
        SHOW[part](out, function)
    for fault in function.faults:
        out.line(f"WRONG GRADIENT: {fault}", "bold red")


def _operations(out: Printer, function: Function) -> None:
    at = ", ".join(f"{name} = {value:g}" for name, value in function.point.items())
    out.line(f"f is {function.name}, at {at}")
    rows = [_row(one, function) for one in function.operations]
    out.table(["", "computed", ">value", "grad_fn", "its own derivative"], _some(rows, ("…", "", "", "", "")))
    branches = sum(one.kind == "branch" for one in function.operations)
    if branches:
        times = "once" if branches == 1 else f"{branches} times"
        out.line(f"A value decided {times} which branch runs: the graph holds the operations that ran, and no others.")
    out.line(f"f = {function.result} = {_value(function.value)}")
    if function.failure:
        out.line(f"There is no way back: {function.failure}", "bold red")
        return
    if function.chain_rule is not None:
        _chain(out, function)
    elif len(function.gradient) == 1:
        out.line("The chain rule by hand gives something else: part of f was computed where it could not be seen.")
    for one in function.gradient:
        for name, slope, i in zip(function.point, one.slopes, range(len(one.slopes)), strict=True):
            hand = "" if function.chain_rule is None else f"; by the chain rule {_close(slope, function.chain_rule[i])}"
            out.line(f"d{one.name}/d{name} = {slope + 0.0:.9g} by backward{hand}")
        out.line(f"{one.name}: {_checked(one)}")


def _row(one: Operation, function: Function) -> tuple[str, ...]:
    own = [f"d{one.name}/d{name} = {_value(term.own)}" for name, term in one.terms.items() if term.own is not None]
    written = f"version {one.version}: written in place" if one.version else ""
    reached = one.grad_fn is None or one.gradient is not None or function.chain_rule is None
    note = ", ".join(own) or NOTES.get(one.kind, "" if reached else "no gradient arrives")
    value = str(one.value) if isinstance(one.value, bool) else _value(one.value)
    return one.name, one.expression, value, one.grad_fn or "", "; ".join(part for part in (note, written) if part)


def _chain(out: Printer, function: Function) -> None:
    """A line for each number that the chain rule gives, from the end to the beginning."""
    out.line(f"The chain rule, from the end to the beginning, where df/d{function.result} = 1:")
    named = [one for one in function.operations if one.name]
    gradients = {one.name: one.gradient for one in named}
    lines = []
    for name in [*(one.name for one in reversed(named)), *function.point]:
        used = [(one, one.terms[name]) for one in named if name in one.terms]
        if not used:
            continue
        symbols = [f"df/d{one.name} * d{one.name}/d{name}" for one, _ in used]
        numbers = [f"{_n(gradients[one.name])} * {_n(term.own)}" for one, term in used if term.own is not None]
        total = _value(_sum([term.part for _, term in used]))
        middle = f"{_terms(numbers)} = " if len(numbers) == len(used) else ""
        lines.append(f"  df/d{name} = {_terms(symbols)} = {middle}{total}")
    for line in _some(lines, "  …"):
        out.line(line)


def _terms(parts: Sequence[str]) -> str:
    return " + ".join(parts[:FEW]) + (f" + … ({len(parts)} terms)" if len(parts) > FEW else "")


def _sum(parts: Sequence[Any]) -> Any:
    """Add up numbers, or nested lists of them, entry by entry."""
    if isinstance(parts[0], list):
        return [_sum(entries) for entries in zip(*parts, strict=True)]
    return sum(parts)


def _close(a: float, b: float) -> str:
    return "the same" if a == b else f"the same to {abs(a - b):.0e}"


def _checked(one: Derivative) -> str:
    return f"against (f(x + h) - f(x - h)) / 2h, h = 1e-5: relative error {error(one.check.error)}  {_verdict(one)}"


def _verdict(one: Derivative) -> str:
    return "ok" if one.check.ok else "none here: a kink, or a jump" if one.check.kink else "WRONG"


def _more(out: Printer, function: Function) -> None:
    names = list(function.point)
    if function.refused is not None:
        out.line(f"The Jacobian: {len(function.gradient)} numbers come out, and each row is a backward of its own.")
        _matrix(out, function.gradient, names)
        out.line(f"f.backward()               RuntimeError: {function.refused}")
        count = len(function.gradient)
        out.line(f"f.backward(torch.ones({count}))  {_value(function.summed)}: all rows, added up")
        return
    if function.no_second is not None:
        out.line(f"There is no second derivative: {function.no_second}")
        return
    out.line(
        f"The second derivative: with create_graph=True the gradient has a graph of its own, {function.gradient_nodes} "
        "operations, and is derived like any other number."
    )
    _matrix(out, function.second, names)


def _matrix(out: Printer, rows: Sequence[Derivative], names: Sequence[str]) -> None:
    columns = ["", ">value", *(f">d/d{name}" for name in names[:FEW]), ">relative error", ""]
    lines = []
    for one in rows:
        slopes = [f"{slope + 0.0:.7g}" for slope in one.slopes[:FEW]]
        lines.append((one.name, f"{one.value + 0.0:.7g}", *slopes, error(one.check.error), _verdict(one)))
    out.table(columns, _some(lines, ("…", *[""] * (len(columns) - 1))))
    out.line("relative error: against (f(x + h) - f(x - h)) / 2h, h = 1e-5, f being what stands at the left")


def _again(out: Printer, function: Function) -> None:
    if function.kept:
        out.line("Kept for backward, and freed by it:")
        lines = [f"  {one.operation} keeps {one.name} = {one.what or _shape(one.shape)}" for one in function.kept]
        for line in _some(lines, "  …"):
            out.line(line)
    else:
        out.line("No operation keeps a tensor for backward: there is nothing to free.")
    said = "no error" if function.again is None else f"RuntimeError: {function.again}"
    out.line(f"backward(), backward()                   {said}")
    twice = "every .grad is exactly doubled: backward adds" if function.doubled else "NOT doubled"
    out.line(f"backward(retain_graph=True), backward()  {twice}")


def _some(lines: Sequence[Any], gap: Any) -> list[Any]:
    """All lines; of many the first and the last."""
    return list(lines) if len(lines) <= FIRST + LAST + 1 else [*lines[:FIRST], gap, *lines[-LAST:]]


def _n(value: Any) -> str:
    text = _value(value)
    return f"({text})" if text.startswith("-") else text


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value[:FEW])) + (", …" if len(value) > FEW else "") + "]"
    return f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)  # no minus before a zero


def _shape(shape: Sequence[int]) -> str:
    return f"a tensor {tuple(shape)}" if shape else "a number"


SHOW = {8: _operations, 9: _more, 10: _again}
