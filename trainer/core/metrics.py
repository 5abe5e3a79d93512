"""What else is measured of a network's predictions on a whole split: F1 and the like, or functions of the user's own.

Shapes: N example of a split, C class (or O output).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.config import ConfigError
from trainer.core import global_streams
from trainer.core.own_calls import find_target, in_words

Function = Callable[[Tensor, Tensor], Any]  # outputs (N, C), targets (N,) classes or (N, O) values -> a number


@dataclass(frozen=True)
class Metric:
    """A number of a split's outputs and targets, both on the CPU."""

    name: str  # behind val/ and test/
    function: Function
    higher_is_better: bool
    path: str | None = None  # of a function of the user's own

    def __call__(self, output_NC: Tensor, target_N: Tensor) -> float:
        """Raises ConfigError where a function of the user's own fails, or gives no number."""
        if self.path is None:
            return float(self.function(output_NC, target_N))
        output, target = output_NC.clone(), target_N.clone()  # theirs to change
        with (
            global_streams.kept(torch.device("cpu")),
            in_words(f"metrics: {self.path} fails on outputs {tuple(output.shape)} and targets {tuple(target.shape)}"),
        ):
            value = self.function(output, target)
            if getattr(value, "shape", ()) == ():
                return float(value)
        raise ConfigError([f"metrics: {self.path} gives an array of shape {tuple(value.shape)}, expected one number"])


def named(names: Sequence[str], classes: int | None) -> list[Metric]:
    """Return the metrics of a configuration; classes: of the data, None for a regression.

    Raises ConfigError where one cannot be found, or has no meaning for such targets.
    """
    return [_own(name) if "." in name else _ours(name, classes) for name in names]


def measure(metrics: Sequence[Metric], output_NC: Tensor, target_N: Tensor) -> dict[str, float]:
    """Return each metric of a whole split by its name; NaN where it cannot be told, as where outputs are not finite."""
    output, target = output_NC.cpu(), target_N.cpu()
    if not output.isfinite().all():
        return {metric.name: math.nan for metric in metrics}
    return {metric.name: metric(output, target) for metric in metrics}


def check(metrics: Sequence[Metric], output_NC: Tensor, target_N: Tensor) -> None:
    """Try the user's own functions on some examples; the caller keeps the global random streams.

    Raises ConfigError where one fails, or differs from call to call.
    """
    for metric in metrics:
        if metric.path is not None:
            first = measure([metric], output_NC, target_N)[metric.name]
            global_streams.seed(0)
            again = measure([metric], output_NC, target_N)[metric.name]
            if not (first == again or (math.isnan(first) and math.isnan(again))):
                said = f"gives {first:.6g}, then {again:.6g} for the same outputs and targets"
                raise ConfigError([f"metrics: {metric.path} {said}"])


def _own(path: str) -> Metric:
    function = find_target("metrics", path)
    better = bool(getattr(function, "higher_is_better", True))
    return Metric(path.rpartition(".")[2], function, better, path)


def _ours(name: str, classes: int | None) -> Metric:
    known, others, kinds = OF_CLASSES, OF_VALUES, ("values", "classes")
    if classes is None:
        known, others, kinds = others, known, kinds[::-1]
    if name not in known:
        assert name in others
        choices = f"choose from {', '.join(sorted(known))}, or a function of your own"
        raise ConfigError([f"metrics: {name} wants {kinds[0]}, and the targets are {kinds[1]}; {choices}"])
    if name == "top5" and classes is not None and classes <= TOP:
        raise ConfigError([f"metrics: top5 of {classes} classes is always 1; leave it out"])
    return Metric(name, *known[name])


# ------------------------------------------------------------------ of classes

TOP = 5


def _f1(output_NC: Tensor, target_N: Tensor) -> Tensor:
    """Mean over classes of 2 TP / (2 TP + FP + FN); of those that neither occur nor are predicted, none."""
    from torchmetrics.functional.classification import multiclass_f1_score

    predicted, classes = output_NC.max(1).indices, output_NC.shape[1]
    return multiclass_f1_score(predicted, target_N, classes, average="macro", validate_args=False)


def _balanced_accuracy(output_NC: Tensor, target_N: Tensor) -> Tensor:
    """Mean recall of the classes that occur (Brodersen et al. 2010)."""
    from torchmetrics.functional.classification import multiclass_recall

    predicted, classes = output_NC.max(1).indices, output_NC.shape[1]
    recall_C = multiclass_recall(predicted, target_N, classes, average="none", validate_args=False)
    return recall_C[target_N.unique()].mean()


def _auroc(output_NC: Tensor, target_N: Tensor) -> float:
    """Area under the ROC curve of each class against the rest, by its probability; the mean over those that occur.

    NaN where all examples are of one class.
    """
    from torchmetrics.functional.classification import binary_auroc

    share_NC, there = output_NC.double().softmax(1), target_N.unique()
    if len(there) < 2:
        return math.nan
    areas = [binary_auroc(share_NC[:, c], (target_N == c).long(), validate_args=False) for c in there.tolist()]
    return float(torch.stack(areas).mean())


def _top5(output_NC: Tensor, target_N: Tensor) -> Tensor:
    from torchmetrics.functional.classification import multiclass_accuracy

    classes = output_NC.shape[1]
    return multiclass_accuracy(output_NC, target_N, classes, average="micro", top_k=TOP, validate_args=False)


OF_CLASSES: dict[str, tuple[Function, bool]] = {  # name -> function, whether higher is better
    "f1": (_f1, True),
    "balanced_accuracy": (_balanced_accuracy, True),
    "auroc": (_auroc, True),
    "top5": (_top5, True),
}

# ------------------------------------------------------------------ of values: means over outputs, in float64


def _mae(output_NO: Tensor, target_NO: Tensor) -> Tensor:
    return (output_NO.double() - target_NO).abs().mean()


def _rmse(output_NO: Tensor, target_NO: Tensor) -> Tensor:
    return (output_NO.double() - target_NO).square().mean(0).sqrt().mean()


def _r2(output_NO: Tensor, target_NO: Tensor) -> Tensor:
    """1 - sum (y - output)^2 / sum (y - mean)^2; where targets do not vary -inf, or NaN if all are met.

    torchmetrics takes squares below 1e-4 for none, whatever the unit.
    """
    y_NO = target_NO.double()
    return (1 - (y_NO - output_NO).square().sum(0) / (y_NO - y_NO.mean(0)).square().sum(0)).mean()


OF_VALUES: dict[str, tuple[Function, bool]] = {"mae": (_mae, False), "rmse": (_rmse, False), "r2": (_r2, True)}
