"""Prints a trace in the terminal: seven parts, the same text every time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.text import cut, plural
from trainer.trace import tree
from trainer.trace.facts import BatchNorm, Dropout, Layer, Summary, Trace

WIDEST = 200  # columns of a table; a narrower terminal breaks its lines
ROUNDING = 1e-14  # of a sum, relative: shown as 0
FEW = 6  # entries of a vector that are shown
PARTS = {
    1: "PARAMETERS, before anything",
    2: "FORWARD, layer by layer",
    3: "THE GRAPH that forward left behind, from the loss down",
    4: "BACKWARD: every gradient, checked",
    5: "THE STEP of one weight, by torch and by hand",
    6: "AFTER THE STEP: what is left in .grad",
    7: "MORE STEPS, and other optimizers",
}


def show(out: Printer, trace: Trace, command: str, parts: Sequence[int]) -> None:
    """Print the parts. command: the training whose first step this is."""
    if list(parts) == list(PARTS):
        _head(out, trace, command)
    for part in parts:
        out.title(f"{part}  {PARTS[part]}")
        SHOW[part](out, trace)
    if trace.faults and 4 not in parts:
        _faults(out, trace)


class Printer:
    """Lines and tables; no highlighting, so that a number looks the same everywhere."""

    def __init__(self, file: IO[str]) -> None:
        self.console = Console(file=file, width=WIDEST, highlight=False, markup=False, emoji=False)
        self.begun = False

    def title(self, text: str) -> None:
        if self.begun:
            self.console.print()
        self.console.print(Text(text, "bold"))

    def line(self, text: str = "", style: str = "") -> None:
        self.begun = True
        self.console.print(Text(text, style), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; columns that begin with '>' are right-aligned."""
        self.begun = True
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for column in columns:
            right = column.startswith(">")
            table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        with self.console.capture() as captured:
            self.console.print(table)
        for line in captured.get().splitlines():  # rich pads every line to the width of the table
            self.console.print(Text.from_ansi(line.rstrip()), soft_wrap=True)


def _n(value: float) -> str:
    return f"{value:.4g}"


def error(value: float) -> str:
    """Write an error to one digit."""
    return "0" if value == 0 else f"{value:.0e}"


def _pair(summary: Summary | None) -> tuple[str, str]:
    return ("", "") if summary is None else (_mean(summary.mean, summary.std), _n(summary.std))


def _mean(value: float, scale: float) -> str:
    """A mean, 0 where it is nothing but rounding: that differs between machines."""
    return _n(value if abs(value) > ROUNDING * scale else 0.0)


def _settings(settings: dict[str, Any]) -> str:
    """The settings that are not zero or off."""
    shown = {key: f"{v:g}" if isinstance(v, float) else str(v) for key, v in settings.items() if v}
    return ", ".join(f"{key}={value}" for key, value in shown.items())


def _head(out: Printer, trace: Trace, command: str) -> None:
    examples = plural(trace.examples, "example")
    examples += "" if trace.batch == trace.examples else f" in batches of {trace.batch}"
    out.line(f"The first step of  {command}")
    out.line(f"network {trace.network}; {trace.data}, {examples}; loss {trace.loss_name}")
    out.line(f"{trace.step.optimizer}({_settings(trace.step.settings)})")
    out.line("Computed in float64 on the CPU, so that rounding hides no error; training itself uses float32.")


def _parameters(out: Printer, trace: Trace) -> None:
    columns = ["parameter", "shape", ">mean", ">std", "requires_grad", "is_leaf", "grad_fn", "grad"]
    rows = [
        (p.name, str(tuple(p.shape)), *_pair(p.values), *map(str, (p.requires_grad, p.is_leaf, p.grad_fn, p.grad)))
        for p in trace.parameters
    ]
    out.table(columns, rows)
    count = sum(p.count for p in trace.parameters)
    out.line(f"{count:,} numbers. Nothing computed them: they are leaves, without grad_fn.")


def _forward(out: Printer, trace: Trace) -> None:
    columns = ["layer", "output", "grad_fn", ">mean", ">std", ">eval mean", ">eval std", "module"]
    rows = [["input", str((trace.batch, *trace.input_shape)), "None", *_pair(trace.input), "", "", ""]]
    for layer in trace.layers:
        both = (*_pair(layer.training), *_pair(layer.evaluation))
        if not layer.shape:  # the loss: the std of one number says nothing
            both = (both[0], "", both[2], "")
        rows.append([layer.name, str(tuple(layer.shape)), str(layer.grad_fn), *both, _short(layer.module)])
    out.table(columns, rows)
    out.line(f"The loss is the mean {trace.loss_name} of {plural(trace.examples, 'example')}: {trace.loss:.6g}")
    if trace.batch < trace.examples:
        out.line(f"Shown is the first of the step's batches, {plural(trace.batch, 'example')} of {trace.examples}.")
    if any(layer.saved for layer in trace.layers):
        out.line("Kept for backward:")
    for layer in trace.layers:
        for kept in layer.saved:
            what = f" = {kept.what}" if kept.what else ""
            out.line(f"  {layer.name}: {kept.operation} keeps {kept.name} {tuple(kept.shape)}{what}")
    for layer in trace.layers:
        if layer.dropout:
            _dropout(out, layer, layer.dropout)
        if layer.batchnorm:
            _batchnorm(out, layer, layer.batchnorm)


def _short(module: str) -> str:
    """A module's repr without the usual settings, cut to a column's width."""
    usual = (
        r"(in|out)_features=|, (bias=True|inplace=False|eps=1e-05|momentum=0.1|affine=True|track_running_stats=True)"
    )
    return cut(re.sub(usual, "", module.replace("\n", " ")), 32)


def _dropout(out: Printer, layer: Layer, dropout: Dropout) -> None:
    out.line(
        f"{layer.name}: p = {dropout.rate:g}: {dropout.kept} of {dropout.count} kept, those times 1 / (1 - p) = "
        f"{dropout.scale:.6g}; in evaluation mode nothing is dropped or scaled"
    )
    for row in dropout.mask or []:
        out.line("  " + " ".join("1" if kept else "." for kept in row))


def _batchnorm(out: Printer, layer: Layer, norm: BatchNorm) -> None:
    out.line(
        f"{layer.name}: training normalises with the batch's statistics, evaluation with the running ones, "
        f"which move by {norm.momentum:g} of the way"
    )
    rows = [
        ("  batch", _vector(norm.batch_mean), _vector(norm.batch_var)),
        ("  running, before", _vector(norm.running_mean_before), _vector(norm.running_var_before)),
        ("  running, after", _vector(norm.running_mean_after), _vector(norm.running_var_after)),
    ]
    out.table(["", "mean of each feature", "variance of each feature"], rows)
    out.line(
        f"  running = (1 - {norm.momentum:g}) * running + {norm.momentum:g} * batch (variance: with B - 1); "
        f"by hand the same to {error(norm.error)}"
    )


def _vector(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values[:FEW]) + (" …" if len(values) > FEW else "")


def _graph(out: Printer, trace: Trace) -> None:
    rows = tree.rows(trace.graph)
    heads = ["   " * (r.depth - 1) + "└─ " * (r.depth > 0) + " → ".join(node.name for node in r.chain) for r in rows]
    width = min(60, 2 + max(map(len, heads)))
    for row, head in zip(rows, heads, strict=True):
        last = row.chain[-1]
        shape = "" if last.shape is None else f" {tuple(last.shape)}"
        also = ", ".join(f"{node.name} {node.what or ''}".rstrip() for node in row.later)
        also = f"  and further down: {also}" if also else ""
        what = "loss ()" if last.number == 0 else f"{last.what or ''}{shape}"
        out.line(f"{head:<{width}}{what}{also}".rstrip())
    counted = sum(node.name == "AccumulateGrad" for node in trace.graph)
    out.line(f"{len(trace.graph)} operations, {counted} of them AccumulateGrad: there a gradient is added to a .grad")


def _backward(out: Printer, trace: Trace) -> None:
    columns = ["gradient of", "", "shape", ">norm", ">mean", ">checked", ">relative error", ""]
    rows = []
    for gradient in trace.gradients:
        check = gradient.check
        checked = f"{check.checked} of {gradient.count}"
        mean = _mean(gradient.mean, gradient.norm)
        numbers = (_n(gradient.norm), mean, checked, error(check.error))
        verdict = "ok" if check.ok else "WRONG"
        rows.append((gradient.name, gradient.kind, str(tuple(gradient.shape)), *numbers, verdict))
    out.table(columns, rows)
    out.line(
        "relative error: against (loss(w + h) - loss(w - h)) / 2h, h = 1e-5, over the gradient, at least the row's rms"
    )
    for form in trace.closed_forms:
        out.line(f"{form.name}: closed form {form.formula}, the same to {error(form.error)}")
    _faults(out, trace)


def _faults(out: Printer, trace: Trace) -> None:
    for fault in trace.faults:
        out.line(f"WRONG GRADIENT: {fault}", "bold red")


def _step(out: Printer, trace: Trace) -> None:
    step = trace.step
    out.line(f"{step.weight} in step 1 of {step.optimizer}({_settings(step.settings)})")
    if step.lr != step.settings["lr"]:
        out.line(f"lr         {step.lr:.6g}, {step.settings['lr']:g} times the schedule's factor in step 1")
    out.line(f"w          {step.before:.10g}")
    factor = f", times {trace.after.clip_factor:.6g} by clip_norm = {step.used:.10g}"
    clipped = factor if step.used != step.gradient else ""
    out.line(f"g          {step.gradient:.10g}{clipped}")
    state = dict.fromkeys(step.state_after, 0.0) | step.state_before
    out.line(f"state      {_state(state) or 'none: this optimizer keeps none'}")
    for line in step.lines or []:
        out.line(f"  {line.symbol:<7}= {line.expression}" + (f"    ({line.meaning})" if line.meaning else ""))
        if not line.expression.isidentifier():
            out.line(f"         = {line.numbers}")
        out.line(f"         = {line.value:.10g}")
    if step.by_hand is None:
        out.line(f"The equations of {step.optimizer} are not known here; only torch's result is shown")
    else:
        out.line(f"by hand    {step.by_hand:.15g}    w + update")
    out.line(f"by torch   {step.after:.15g}")
    if step.error is not None and step.error_all is not None:
        out.line(f"difference {error(step.error)}; over all weights and their state {error(step.error_all)}")
    if step.state_after:
        out.line(f"state now  {_state(step.state_after)}")
    out.line(
        f"training, in float32: {trace.in_training['weight']:.9g}, loss {trace.in_training['loss']:.7g} "
        f"(here {trace.loss:.7g}); float32 holds about 7 digits"
    )


def _state(state: dict[str, float]) -> str:
    return "  ".join(f"{key} = {value:.6g}" for key, value in state.items())


def _after(out: Printer, trace: Trace) -> None:
    after = trace.after
    out.line(f"after step()                           |grad| = {after.norm:.6g}: the step read .grad and left it")
    out.line(f"after zero_grad()                      .grad is {after.cleared}")
    out.line(f"after backward() on the new weights    |grad| = {after.next_norm:.6g}")
    factor = "every entry exactly doubled" if after.doubled else "NOT doubled"
    out.line(f"after another, without zero_grad()     |grad| = {after.twice_norm:.6g}: {factor}, backward adds")
    total = after.vector[-1].stop
    squares = " + ".join(f"{_n(s.norm)}^2" for s in after.vector[:FEW]) + (" + …" if len(after.vector) > FEW else "")
    out.line(f"All gradients as one vector of {total:,} numbers, the parameters' one after the other:")
    rows = [(f"  {s.start}:{s.stop}", s.name, _n(s.norm), f"{_share(s.norm, after.norm):.1%}") for s in after.vector]
    out.table(["  entries", "parameter", ">norm", ">share of the squared norm"], rows)
    out.line(f"total norm {after.norm:.6g} = sqrt({squares})")
    if after.clip_norm is None:
        factor = min(1.0, 1 / (after.norm + 1e-6))
        out.line(f"clip_norm=null shortens nothing; clip_norm=1 would multiply every entry by {factor:.6g}")
    else:
        out.line(
            f"clip_norm={after.clip_norm:g} multiplies every entry by min(1, {after.clip_norm:g} / (norm + 1e-6)) = "
            f"{after.clip_factor:.6g}: the direction stays"
        )


def _share(norm: float, total: float) -> float:
    return (norm / total) ** 2 if total else 0.0


def _more(out: Printer, trace: Trace) -> None:
    states = list(dict.fromkeys(key for row in trace.rows for key in row.state))
    columns = ["step", "loss", "|grad|", "lr", "w", "g", *states, "update", "w after", "by hand"]
    rows = []
    for row in trace.rows:
        kept = [_n(row.state[key]) if key in row.state else "" for key in states]
        numbers = [row.loss, row.norm, row.lr, row.before, row.gradient]
        hand = "" if row.error is None else f"± {error(row.error)}"
        rows.append((str(row.step), *map(_n, numbers), *kept, _n(row.update), f"{row.after:.6g}", hand))
    out.line(f"w is {trace.step.weight}; g is what the optimizer is given")
    out.table([f">{column}" for column in columns], rows)
    out.line()
    steps = len(trace.rows)
    out.line("Each optimizer with its own defaults, from the same start over the same batches.")
    out.line(f"The loss is that of the first batch in evaluation mode; at the start it is {trace.start_loss:.6g}.")
    rows = []
    for rival in trace.rivals:
        cosine = "" if math.isnan(rival.cosine) else f"{rival.cosine:.3f}"
        numbers = (f"{rival.settings['lr']:g}", _n(rival.first_update), _n(rival.first_length), cosine)
        rows.append((rival.name, *numbers, f"{rival.after:.6g}", f"{rival.loss:.6g}"))
    ahead = [">lr", ">first update of w", ">length of first step", ">cosine to -gradient"]
    out.table(["optimizer", *ahead, f">w after {steps}", f">loss after {steps}"], rows)


SHOW = {1: _parameters, 2: _forward, 3: _graph, 4: _backward, 5: _step, 6: _after, 7: _more}
