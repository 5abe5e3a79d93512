"""An evaluation as figures, PNG and SVG: learning curves by group, and what each knob does."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.compare.keys import NO_KNOB
from trainer.compare.statistics import mean_interval
from trainer.judge.curves import INFINITE
from trainer.read.curves import Curves
from trainer.report import tables, vocabulary
from trainer.text import cut, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_GROUPS = 8  # more curves than this nobody can tell apart: those with the lowest validation loss are drawn
# Okabe and Ito 2008, "Color Universal Design": told apart with any colour vision; dashes help where curves coincide.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1, 1.5)))
_INK, _GREY, _RULE = "#1d2024", "#686d75", "#e2e2dc"
_DPI = 200  # of PNG: a column of a paper is 3.5 inches wide
_LONGEST = 60  # name in a legend
_POINTS = 400  # of a curve


def figures(evaluation: Mapping[str, Any], runs: Sequence[Curves]) -> dict[str, bytes]:
    """Return file name -> content: curves.png, effect_KNOB.png and the same as .svg; of several sweeps, SWEEP_...

    runs: the curves of the evaluation's runs.
    """
    files: dict[str, bytes] = {}
    for name, figure in drawn(evaluation, runs):
        stem = _free(name, files)
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            out = io.BytesIO()
            figure.savefig(out, format=kind, dpi=_DPI, metadata=metadata)
            files[f"{stem}.{kind}"] = out.getvalue()
            figure.set_layout_engine("none")  # it is laid out: that takes as long as drawing
    return files


def drawn(evaluation: Mapping[str, Any], runs: Sequence[Curves]) -> Iterator[tuple[str, Figure]]:
    """Yield (name, figure), as `figures` has them; matplotlib's settings are ours until the next is asked for."""
    import matplotlib as mpl

    curves = {run.path: run for run in runs}
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "", "text.parse_math": False, "font.size": 9}
    with mpl.rc_context(style), warnings.catch_warnings():  # text stays text; the same numbers, the same file
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font does not have: boxes, in PNG
        for part in vocabulary.parts(evaluation):
            before = "" if part is evaluation else f"{_slug(part['name'])}_"
            for name, figure in _drawn(part, curves):
                yield f"{before}{name}", figure


def effect_name(knob: str) -> str:
    """Return the name of the figure of a knob."""
    return f"effect_{_slug(knob)}"


def _drawn(part: Mapping[str, Any], curves: Mapping[str, Curves]) -> Iterator[tuple[str, Figure]]:
    if part["groups"]:
        yield "curves", _curves(part, curves)
    by_knob: dict[str, list[Mapping[str, Any]]] = {}
    for effect in part["effects"]:
        if effect["knob"] != NO_KNOB and any(level["mean"] is not None for level in effect["levels"]):
            by_knob.setdefault(effect["knob"], []).append(effect)
    for knob, effects in by_knob.items():
        yield effect_name(knob), _effects(knob, effects, part["runs"], part["groups"])


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("._")[:60] or "_"


def _free(stem: str, taken: Mapping[str, bytes]) -> str:
    """Return the name, or one with a number behind it where another already has it."""
    stems = {name.rpartition(".")[0].lower() for name in taken}
    names = [stem, *(f"{stem}_{number}" for number in range(2, len(stems) + 2))]
    return next(name for name in names if name.lower() not in stems)


# ------------------------------------------------------------------ learning curves


def _curves(part: Mapping[str, Any], curves: Mapping[str, Curves]) -> Figure:
    """Draw the losses and the validation accuracy of each group: mean over seeds that ended, and its 95 % interval."""
    from matplotlib.figure import Figure

    groups = sorted(tables.compared(part), key=lambda group: _order(tables.mean(group, "best_val_loss")))[:_MOST_GROUPS]
    counting = {run["path"] for run in part["runs"] if tables.counts(run)}
    ended = [[path for path in group["runs"] if path in counting] or group["runs"] for group in groups]
    there = [[curves[path] for path in paths] for paths in ended]
    shown = [
        (title, name)
        for title, name in (
            ("training loss", "train_loss"),
            ("validation loss", "val_loss"),
            ("validation accuracy (%)", "val_accuracy"),
        )
        if any(getattr(run, name) is not None for runs in there for run in runs)
    ]
    figure = Figure(figsize=(3.4 * len(shown), 3.1 + 0.17 * ((len(groups) + 1) // 2)), layout="constrained")
    losses: list[tuple[Axes, list[np.ndarray]]] = []
    for axes, (title, name) in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        middle = []
        for i, (group, runs) in enumerate(zip(groups, there, strict=True)):
            lines = [(run.epochs, values) for run in runs if (values := getattr(run, name)) is not None]
            if lines:
                x_E, mean_E, low_E, high_E = _average(lines, 100 if name.endswith("accuracy") else 1)
                axes.fill_between(x_E, low_E, high_E, color=_COLOURS[i], alpha=0.13, lw=0)
                axes.plot(x_E, mean_E, color=_COLOURS[i], ls=_DASHES[i % len(_DASHES)], lw=1.6, label=_label(group))
                middle.append(mean_E)
        _frame(axes, title, vocabulary.axis([run for runs in there for run in runs]))
        if name.endswith("accuracy"):
            _limit([axes], middle)
        else:
            losses.append((axes, middle))
    _limit([axes for axes, _ in losses], [mean for _, means in losses for mean in means])  # one scale: the gap is seen
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    if len(groups) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(2, len(groups)), frameon=False, fontsize=8)
    left = f"{len(groups)} of {len(tables.compared(part))} groups, those with the lowest validation loss; "
    note = left if len(groups) < len(tables.compared(part)) else ""
    if any(len(runs) > 1 for runs in there):
        note += "mean over seeds with its 95 % interval (Student's t)"
    if note:
        figure.suptitle(note, fontsize=8, color=_GREY)
    return figure


def _order(loss: float | None) -> float:
    return float("inf") if loss is None else loss


def _label(group: Mapping[str, Any]) -> str:
    knobs = group["knobs"]
    if not knobs or NO_KNOB in knobs:
        return printable(group["name"].removeprefix(f"{NO_KNOB}="))
    named = zip(vocabulary.short_names(list(knobs)), knobs.values(), strict=True)
    text = printable(", ".join(vocabulary.setting(name, value) for name, value in named if value is not None))
    return cut(text, _LONGEST)


def _average(lines: Sequence[tuple[np.ndarray, np.ndarray]], scale: float) -> tuple[np.ndarray, ...]:
    """Return points (E,), mean, and the ends of its 95 % t interval, where at least half of the curves have a value.

    lines: points and values of each curve; those with other points are read between their own. Values are multiplied
    by `scale`.
    """
    low, high = min(x.min() for x, _ in lines), max(x.max() for x, _ in lines)
    same = all(len(x) == len(lines[0][0]) and (x == lines[0][0]).all() for x, _ in lines)
    x_E = lines[0][0] if same and len(lines[0][0]) <= _POINTS else np.linspace(low, high, _POINTS)
    values_ER = np.stack([np.interp(x_E, x, y, left=np.nan, right=np.nan) for x, y in lines], 1)
    values_ER[~(np.abs(values_ER) < INFINITE)] = np.nan
    values_ER *= scale
    mean_E, _, low_E, high_E, n_E = mean_interval(values_ER)
    enough = 2 * n_E >= len(lines)
    return x_E, *(np.where(enough, values, np.nan) for values in (mean_E, low_E, high_E))


def _limit(panels: Sequence[Axes], means: Sequence[np.ndarray]) -> None:
    """Show on all panels what the means do after their first fifth: a steep start would press all that follows flat."""
    late = np.concatenate([mean[len(mean) // 5 :] for mean in means]) if means else np.empty(0)
    late = late[np.isfinite(late)]
    if len(late):
        low, high = np.quantile(late, [0.0, 1.0])
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        for axes in panels:
            axes.set_ylim(low - margin, high + margin)


# ------------------------------------------------------------------ effects


def _effects(
    knob: str,
    effects: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
) -> Figure:
    """Draw the levels of a knob with their 95 % intervals, and each run as a dot; a panel for each measure."""
    from matplotlib.figure import Figure

    level_of = {path: group["knobs"].get(knob) for group in groups for path in group["runs"]}
    columns = len(effects) if len(effects) < 4 else -(-len(effects) // 2)  # four are two rows of two
    rows = -(-len(effects) // columns)
    figure = Figure(figsize=(3.2 * columns, 0.3 + 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(effects) :]:
        axes.set_visible(False)
    for axes, effect in zip(panels, effects, strict=False):
        measure, levels = effect["measure"], effect["levels"]
        percent = 100 if measure.endswith("accuracy") else 1
        place = {str(level["value"]): i for i, level in enumerate(levels)}
        dots = [
            (place[str(level_of[run["path"]])], percent * value)
            for run in runs
            if str(level_of.get(run["path"])) in place and isinstance(value := run["measures"].get(measure), float)
        ]
        if dots:
            at, value = np.array(dots).T
            aside = 0.25 * ((0.618034 * np.arange(len(dots))) % 1 - 0.5)
            axes.plot(at + aside, value, "o", ms=3, color=_COLOURS[0], alpha=0.35, mew=0)
        for i, level in enumerate(levels):
            if level["mean"] is None:
                continue
            if level["low"] is not None:
                axes.plot([i, i], [percent * level["low"], percent * level["high"]], color=_INK, lw=1.4)
            axes.plot([i - 0.17, i + 0.17], [percent * level["mean"]] * 2, color=_INK, lw=2)
        called = vocabulary.called(measure).full
        _frame(axes, f"{called}{' (%)' * (percent == 100)}", printable(knob))
        axes.set_xticks(range(len(levels)), [printable(tables.cell(level["value"])) or "null" for level in levels])
        axes.set_xlim(-0.6, len(levels) - 0.4)
        if sum(len(tables.cell(level["value"])) for level in levels) > 34:
            axes.tick_params(axis="x", labelrotation=45)
    note = "mean over the other knobs with its 95 % interval over seeds (Student's t); dots: runs"
    figure.suptitle(note, fontsize=8, color=_GREY)
    return figure


def _frame(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=9, loc="left", color=_INK)
    axes.set_xlabel(below)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_RULE, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.locator_params(axis="x", integer=True, nbins=8)
