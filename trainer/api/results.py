"""What runs left on disk, as tables, figures, a comparison, and networks to call: one run, or many."""

from __future__ import annotations

import html
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from trainer import files
from trainer.api import folders
from trainer.api.evaluation import Evaluation
from trainer.config import ConfigError
from trainer.text import plural

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

MOST_ROWS = 20  # that a notebook shows of a table
DIGITS = "{:.4g}".format


class Run:
    """One run: what its folder says, and says now, as files are read when they are asked for.

    >>> import trainer
    >>> run = trainer.run("epochs=6 model.depth=1", seed=3)
    >>> run.verdict, round(run.summary["test"]["best"]["accuracy"], 2)
    ('underfit', 0.94)
    >>> run.curves()[["epoch", "val/loss"]].round(2).tail(1)
       epoch  val/loss
    5      6      0.32
    >>> import numpy as np
    >>> network = run.model()  # takes what the data hold, here 8 x 8 pixels from 0 to 16
    >>> network(np.zeros((3, 8, 8))).shape
    torch.Size([3, 10])
    """

    def __init__(self, folder: Path | None, refused: Mapping[str, Any] | None = None) -> None:
        """folder: None for a run that was refused; `refused` is what the sweep says of it."""
        self.folder = folder
        self.refused = refused or {}

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json, as docs/files.md describes it; empty before the run has ended, an error where it is damaged."""
        if self.folder is None:
            return {"status": self.refused.get("status"), "error": self.refused.get("error")}
        from trainer.read.curves import Search
        from trainer.read.our_runs import read_summary

        search = Search(None, None, self.folder)
        try:
            found, _ = read_summary(search, self.folder)
        except files.Damaged as damage:  # it harms no other run
            return {"status": "failed", "error": str(damage)}
        return {"status": "failed", "error": search.problems[0]} if search.problems else found

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, flat: {"optimizer.lr": 0.1}."""
        if self.folder is None:
            return {}
        from trainer.read.configs import recorded_config

        return recorded_config(self.summary, self.folder)

    @cached_property
    def overrides(self) -> dict[str, str]:
        """What was typed for this run: key -> text."""
        from trainer.compare.knobs import typed
        from trainer.read.configs import recorded_overrides

        if self.folder is None:
            return {
                key: str(value)
                for key, value in self.refused.items()
                if key not in _ROW and " " not in key  # as in "val loss"
            }
        return typed(recorded_overrides(self.folder) or ())

    @property
    def status(self) -> str:
        """completed, interrupted or failed; unfinished for one that is in training or was killed."""
        return str(self.summary.get("status") or "unfinished")

    @property
    def error(self) -> str | None:
        """Why it failed, in one line."""
        return self.summary.get("error")

    @property
    def verdict(self) -> str | None:
        """overfit, healthy, underfit, diverged, too_short or no_validation."""
        return (self.summary.get("verdict") or {}).get("verdict")

    def curves(self) -> pd.DataFrame:
        """Return metrics.csv: one row per epoch. Raises ConfigError where there is none."""
        import pandas as pd

        from trainer.read import bounded

        path = self._file("metrics.csv")
        version = tuple(int(number) for number in pd.__version__.split(".")[:2])
        exact: Any = {"float_precision": "round_trip"} if version < (3, 1) else {}  # which is always exact
        return pd.read_csv(io.BytesIO(bounded.content(path, bounded.MOST_TABLE)), **exact)

    def steps(self, tags: str = "*") -> pd.DataFrame:
        """Return recorded scalars: columns step, tag, value. tags: a pattern such as "grad_norm/*"."""
        import pandas as pd

        from trainer.read.event_files import read_scalars

        found = []
        for path in sorted(self.folder.glob("events.out.tfevents.*")) if self.folder else []:
            scalars, problems = read_scalars(path)
            for problem in problems:
                warnings.warn(f"{path}: {problem}", stacklevel=2)
            for tag, points in scalars.items():
                if fnmatchcase(tag, tags):
                    found.append(pd.DataFrame({"step": points.steps, "tag": tag, "value": points.values}))
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["step", "tag", "value"])

    def compare(self) -> Evaluation:
        """Return what `python -m trainer.evaluate` says of this run."""
        return Runs([self]).compare()

    def plot(self) -> Figure:
        """Draw the learning curves."""
        return Runs([self]).plot()

    def model(self, weights: str = "best", target: Any = None) -> nn.Module:
        """Return the trained network in evaluation mode: raw inputs (B, ...) -> outputs (B, O).

        weights: "best" (by the validation split) or "last". Inputs are tensors or arrays in the data's own units: what
        normalised them in training is the first layer. target: the class of the network, where it is neither one of
        ours nor to be found from here. Raises ConfigError.
        """
        from trainer.api.trained import load

        return load(self._file(f"checkpoints/{weights}.pt"), target)

    def numbers(self) -> dict[str, float]:
        """Return the measures at the best epoch, at the last one, and on the test split with either's weights."""
        from trainer.read.numbers import number

        summary, test = self.summary, self.summary.get("test") or {}
        parts = (  # of many tags those that are measured on a whole split
            ("best_", summary.get("best"), {"epoch": "epoch", "eval/train_": "train_", "val/": "val_"}),
            ("test_", test.get("best"), {"": ""}),
            ("last_", summary.get("final"), {"eval/train_": "train_", "val/": "val_"}),
            ("last_test_", test.get("last"), {"": ""}),
        )
        out: dict[str, float] = {}
        for name, values, wanted in parts:
            for tag, value in (values or {}).items():
                before = next((before for before in wanted if tag.startswith(before)), None)
                if before is not None and (found := number(value)) is not None:
                    out[f"{name}{wanted[before]}{tag.removeprefix(before)}"] = found
        return out

    def _file(self, name: str) -> Path:
        if self.folder is None or not (self.folder / name).is_file():
            keep = (self.summary.get("config") or {}).get("record.keep", "all")
            hint = f": record.keep={keep}, train it again with all" if keep != "all" else ""
            why = self.error or f"{self.folder} has no {name}{hint}"
            raise ConfigError([f"the run {self.status}: {why}"])
        return self.folder / name

    def __repr__(self) -> str:
        sentence = (self.summary.get("verdict") or {}).get("sentence")
        said = self.error or (f"{self.verdict}: {sentence}" if sentence else "")
        numbers = "  ".join(f"{key} {DIGITS(value)}" for key, value in self.numbers().items() if _is_shown(key))
        return "\n".join(filter(None, [f"{folders.shown(self.folder)}: {self.status}", said, numbers]))

    def _repr_html_(self) -> str:
        return Runs([self])._repr_html_()


_ROW = {"run", "status", "error", "directory", "verdict", "best_epoch", "epochs"}  # of sweep.json, beside overrides
_SHOWN = ("best_epoch", "best_val_loss", "best_val_accuracy")  # and whatever was measured on the test split


class Runs(Sequence[Run]):
    """Several runs, in order: `runs[0]` is one of them, `runs[2:5]` are some."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)

    @classmethod
    def of_sweep(cls, folder: Path, rows: Sequence[Mapping[str, Any]]) -> Runs:
        """Return the runs of a sweep. rows: what its sweep.json says of each; none where another launcher trained."""
        if not rows:
            return cls.below(folder)
        return cls([Run(*folders.of_row(row)) for row in rows])

    @classmethod
    def below(cls, folder: Path) -> Runs:
        """Return all runs below a folder, those that were refused included. Raises ConfigError where there is none."""
        return cls([Run(path, row) for path, row in folders.below(folder)])

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def frame(self) -> pd.DataFrame:
        """Return one row per run: what differs between them, seed, status, verdict, measures, error, folder.

        best_... is the epoch that the validation split chose, test_... the test split with its weights; last_... and
        last_test_... are those of the last epoch.
        """
        import pandas as pd

        rows = []
        for run, settings in zip(self, self._settings(), strict=True):
            known = {"status": run.status, "verdict": run.verdict, **run.numbers()}
            rows.append({**settings, **known, "error": run.error, "folder": folders.shown(run.folder)})
        columns = dict.fromkeys(key for row in rows for key in row if key not in ("error", "folder"))
        return pd.DataFrame(rows, columns=[*columns, "error", "folder"])

    def curves(self) -> pd.DataFrame:
        """Return one row per run and epoch: the run's number, what differs between runs, seed, and metrics.csv.

        >>> import trainer
        >>> runs = trainer.sweep({"optimizer": ["sgd", "adam"], "seed": [0, 1]}, "epochs=5 model.depth=1")
        >>> curves = runs.curves()
        >>> curves.groupby(["epoch", "optimizer"])["val/loss"].mean().unstack().round(2).head(2)
        optimizer  adam   sgd
        epoch
        1          1.81  1.29
        2          1.27  0.66
        """
        return self._stacked([run.curves() if _has_curves(run) else None for run in self])

    def steps(self, tags: str = "*") -> pd.DataFrame:
        """Return recorded scalars of all runs: the run's number, what differs, seed, step, tag, value.

        tags: a pattern such as "grad_norm/*".
        """
        return self._stacked([run.steps(tags) for run in self])

    def compare(self, tune: Sequence[str] | None = None) -> Evaluation:
        """Return what `python -m trainer.evaluate` says of these runs.

        tune: keys that are tuned, not compared; None guesses the learning rate where it should be one, () tunes none.
        Raises ConfigError where no run can be judged.
        """
        return Evaluation(self._evaluated(tune)[0])

    def plot(self, knob: str | None = None) -> Figure:
        """Draw the learning curves of each group of runs, or what a knob does to each measure.

        Raises ConfigError where there is no such knob.
        """
        from trainer.report import figures

        evaluation, curves = self._evaluated(None)
        wanted = "curves" if knob is None else figures.effect_name(knob)
        for name, figure in figures.drawn(evaluation, curves):
            if name == wanted:
                return _shown_in_a_notebook(figure)
        there = ", ".join(dict.fromkeys(effect["knob"] for effect in evaluation["effects"]))
        if len(evaluation["sweeps"]) > 1:
            raise ConfigError(["plot: these are several sweeps, each with its own figure; load and plot each"])
        raise ConfigError([f"plot: no effect of {knob} to draw; there is one of {there or 'nothing'}"])

    def best(self) -> Run:
        """Return the run with the best monitored value, by the validation split; runs that diverged are none.

        Raises ConfigError where no run has one, or where the loss itself differs between runs.
        """
        tags = {run.config.get("early_stopping.monitor") for run in self if run.config}
        key, sign = ("best_val_accuracy", -1) if tags == {"val/accuracy"} else ("best_val_loss", 1)
        keys = sorted({name for run in self for name in run.config if name.startswith("loss.")})
        differing = [name for name in keys if len({str(run.config.get(name)) for run in self if run.config}) > 1]
        if key == "best_val_loss" and differing:
            what = f"the runs differ in {', '.join(differing)}, and losses of different definitions do not compare"
            raise ConfigError(
                [f"best: {what}; take it of runs of one loss, or train with early_stopping.monitor=val/accuracy"]
            )
        costs = [sign * run.numbers().get(key, math.nan) for run in self]
        there = [
            (cost, i)
            for i, (cost, run) in enumerate(zip(costs, self, strict=True))
            if math.isfinite(cost) and run.status == "completed" and run.verdict != "diverged"
        ]
        if not there:
            raise ConfigError([f"best: no completed run of {len(self)} has a {key}"])
        return self[min(there)[1]]

    def _settings(self) -> list[dict[str, Any]]:
        """Return of each run its values of the keys that differ between these runs, and its seed."""
        from trainer.compare.keys import ABSENT, hashable
        from trainer.compare.knobs import Setting, level

        keys = dict.fromkeys(key for run in self for key in run.overrides if key != "seed")
        settings = [Setting(run.config, run.overrides) for run in self]
        levels = {key: [level(key, one) for one in settings] for key in keys}

        def differs(key: str) -> bool:  # as far as is known: of a refused run sweep.json does not have every key
            pairs = zip(levels[key], self, strict=True)
            return len({hashable(value) for value, run in pairs if run.folder or key in run.overrides}) > 1

        varying = [key for key in levels if differs(key)]
        out = []
        for i, run in enumerate(self):
            own = {key: run.config.get(key, _number(levels[key][i])) for key in varying}
            seed = run.config.get("seed", _number(run.overrides.get("seed")))
            out.append({**{key: None if value == ABSENT else value for key, value in own.items()}, "seed": seed})
        return out

    def _stacked(self, frames: Sequence[pd.DataFrame | None]) -> pd.DataFrame:
        import pandas as pd

        found = []
        for i, (frame, settings) in enumerate(zip(frames, self._settings(), strict=True)):
            if frame is not None:
                columns = {key: [value] * len(frame) for key, value in {"run": i, **settings}.items()}
                found.append(pd.concat([pd.DataFrame(columns, index=frame.index), frame], axis=1))
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    def _evaluated(self, tune: Sequence[str] | None) -> tuple[dict[str, Any], list[Any]]:
        from trainer.evaluate import evaluate
        from trainer.read.find_runs import Problems

        places = [shown for run in self if (shown := folders.shown(run.folder)) is not None]
        if not places:
            raise ConfigError(["no run was trained: there is nothing to judge"])
        try:
            return evaluate(places, tune=tune)
        except Problems as problems:
            raise ConfigError([line.removeprefix("--") for line in problems.lines]) from problems

    def _table(self) -> tuple[str, pd.DataFrame]:
        """Return a headline, and the columns of `frame` that tell the runs apart."""
        from trainer.report import vocabulary

        frame = self.frame()
        first = list(frame.columns[: frame.columns.get_loc("status")])
        odd = [] if set(frame["status"]) == {"completed"} else ["status"]
        error = ["error"] if frame["error"].notna().any() else []
        measures = [name for name in frame if _is_shown(name)]
        columns = [*first, *odd, "verdict", *measures, *error]
        counts = vocabulary.counted(run.verdict or run.status for run in self)
        return f"{plural(len(self), 'run')}: {counts}", frame.filter(columns)

    def __repr__(self) -> str:
        if not self._runs:
            return "0 runs"
        headline, table = self._table()
        return f"{headline}\n{table.to_string(max_rows=MOST_ROWS, float_format=DIGITS, na_rep='')}"

    def _repr_html_(self) -> str:
        if not self._runs:
            return "0 runs"
        headline, table = self._table()
        return f"{html.escape(headline)}{table.to_html(max_rows=MOST_ROWS, float_format=DIGITS, na_rep='')}"


def _is_shown(measure: str) -> bool:
    return measure in _SHOWN or measure.startswith("test_")


def _number(text: Any) -> Any:
    """Return the number that was typed; anything else as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except (TypeError, ValueError):
            continue
    return text


def _has_curves(run: Run) -> bool:
    return run.folder is not None and (run.folder / "metrics.csv").is_file()


def _shown_in_a_notebook(figure: Figure) -> Figure:
    """Let a notebook show a figure that pyplot, whose state is global, knows nothing of."""

    def picture() -> bytes:
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=100)
        return out.getvalue()

    figure._repr_png_ = picture  # type: ignore[attr-defined]
    return figure
