"""Losses and accuracy as pure functions: tensors in, a tensor with a leading member axis out. Nothing here syncs.

Shapes: K member, B example, N example of a split, C class (or O output).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import ConfigError, Loss
from trainer.core.own_loss import OwnLoss

DELTA = 1.0  # of Huber's loss, where none is given
GAMMA = 2.0  # of the focal loss: the best in the paper
FEW = 64  # examples that the lowest loss of all is searched on
AGREED = 1e-4  # of the lowest loss: two searches within it found the same
NEAR_ZERO = 0.05  # of the chance level: a lowest loss within it counts as none
LossFunction = Callable[[Tensor, Tensor], Tensor]  # outputs (..., C), targets -> (...): one number an example


def function(loss: Loss) -> LossFunction:
    """Return the loss of every example as a function of outputs and targets, the user's own or ours.

    Raises ConfigError where it cannot be found.
    """
    return OwnLoss(loss) if loss._target_ is not None else functools.partial(losses_KB, loss)


def losses_KB(loss: Loss, output_KBC: Tensor, target_KB: Tensor) -> Tensor:
    """The loss of every example; also (B,) of (B, C). Integer targets are classes, others values (K, B, O).

    Cross-entropy: -sum_c q_c log softmax(output)_c with q = (1 - s) onehot + s / C (Szegedy et al. 2016, section 7).
    Focal: -(1 - p)^gamma log p of the target's class, p = softmax(output) (Lin et al. 2017, equation 4).
    The others are means over outputs, the target one-hot for classes. Mean squared error: d^2, d = output - target.
    Huber: d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (Huber 1964). Binary cross-entropy: -log
    sigmoid(output) for the target's class, -log(1 - sigmoid(output)) for each other one. Output: the model's own.
    """
    if loss.name == "output":
        return output_KBC.mean(-1)
    classes = not target_KB.dtype.is_floating_point
    scores = output_KBC.transpose(1, 2) if output_KBC.ndim == 3 else output_KBC  # classes in the second place
    if loss.name == "cross_entropy" or (loss.name == "auto" and classes):
        return F.cross_entropy(scores, target_KB, reduction="none", label_smoothing=loss.label_smoothing)
    if loss.name == "focal":
        cost = F.cross_entropy(scores, target_KB, reduction="none")
        wrong = -torch.expm1(-cost)  # 1 - p, to all its digits
        tiny = torch.finfo(wrong.dtype).tiny  # of a power below 1 the derivative at 0 is infinite
        return wrong.clamp_min(tiny) ** (GAMMA if loss.gamma is None else loss.gamma) * cost
    target = F.one_hot(target_KB, output_KBC.shape[-1]).to(output_KBC.dtype) if classes else target_KB
    if loss.name == "bce":
        return F.binary_cross_entropy_with_logits(output_KBC, target, reduction="none").mean(-1)
    if loss.name == "huber":
        delta = DELTA if loss.delta is None else loss.delta
        return F.huber_loss(output_KBC, target, reduction="none", delta=delta).mean(-1)
    return (output_KBC - target).square().mean(-1)


def correct_KB(output_KBC: Tensor, target_KB: Tensor) -> Tensor:
    """Whether the largest output is the target's class: bool. (max over a strided axis is 15 times argmax's speed.)"""
    return output_KBC.transpose(1, 2).max(1).indices == target_KB


def chance_level(loss: Loss, target_KN: Tensor, classes: int | None) -> dict[str, Tensor]:
    """What predictions that do not look at the input cost on these targets, (K,) each.

    guessing_loss: the best constant prediction; NaN where it is no measure, as a loss of the user's own has no lowest
    value, or one that is not near 0. expected_loss: a network whose outputs are all zero, as a fresh one's
    nearly are (ln C for cross-entropy). target_top_class: the share of the most frequent class.
    """
    searched = loss._target_ is not None or loss.name in ("huber", "focal")
    if classes is None:
        y_KNO = target_KN.double()
        if searched:
            even = torch.full_like(y_KNO[0, :, 0], 1 / y_KNO.shape[1])
            middle = y_KNO.shape[1] // 2  # sorted: CUDA's median is refused as random
            return _searched(loss, classes, [(y, even, [y.mean(0), y.sort(0).values[middle]]) for y in y_KNO])
        return {
            "guessing_loss": y_KNO.var(1, correction=0).mean(1),
            "expected_loss": y_KNO.square().mean((1, 2)),
        }
    share_KC = torch.stack([torch.bincount(y, minlength=classes) for y in target_KN]).double() / target_KN.shape[1]
    top = {"target_top_class": share_KC.amax(1)}
    if searched:
        each = torch.arange(classes, device=share_KC.device)
        some = [(each, share, [torch.zeros_like(share), (share + 1e-3).log()]) for share in share_KC]
        return _searched(loss, classes, some) | top
    if loss.name == "mse":
        costs = (share_KC * (1 - share_KC)).mean(1), torch.full_like(share_KC[:, 0], 1 / classes)
    elif loss.name == "bce":
        both = torch.special.entr(share_KC) + torch.special.entr(1 - share_KC)
        costs = both.mean(1), torch.full_like(share_KC[:, 0], math.log(2))
    else:
        q_KC = (1 - loss.label_smoothing) * share_KC + loss.label_smoothing / classes
        costs = torch.special.entr(q_KC).sum(1), torch.full_like(q_KC[:, 0], math.log(classes))
    return {"guessing_loss": costs[0], "expected_loss": costs[1], **top}


Targets = tuple[Tensor, Tensor, list[Tensor]]  # (N,) or (N, O), the share (N,) of each, predictions (C,) to begin at


def _searched(loss: Loss, classes: int | None, targets: list[Targets]) -> dict[str, Tensor]:
    """Return guessing_loss and expected_loss of each member's targets by a search, for losses without a formula."""
    losses, is_own = function(loss), loss._target_ is not None
    rows = list[tuple[float, float]]()
    for dtype in (torch.float64, torch.float32):  # a function of the user's own may know the second alone
        try:
            found: dict[bytes, tuple[float, float]] = {}  # many members have equal shares of classes
            for target, share, starts in targets:
                key = (share if classes else target).cpu().numpy().tobytes()
                if key not in found:
                    found[key] = _levels(losses, target, share, starts if is_own else starts[:1], dtype)
                rows.append(found[key])
            if is_own:
                rows = _measures(losses, targets, rows, dtype)
            break
        except ConfigError:
            if dtype == torch.float32:
                raise
            rows.clear()
    guessing, expected = torch.tensor(rows, dtype=torch.float64, device=targets[0][0].device).T
    return {"guessing_loss": guessing, "expected_loss": expected}


def _measures(
    losses: LossFunction, targets: list[Targets], rows: list[tuple[float, float]], dtype: torch.dtype
) -> list[tuple[float, float]]:
    """Put NaN for the chance level of members where the lowest loss of all, against it, is not near 0.

    Of classes that is the mean over classes, whatever their shares: the same for every member.
    """
    out, floor = [], None
    for (target, _, starts), (guessing, expected) in zip(targets, rows, strict=True):
        if floor is None or target.is_floating_point():
            floor = _floor(losses, target, len(starts[0]), dtype)
        is_measure = math.isfinite(guessing) and guessing > 0 and abs(floor) <= NEAR_ZERO * guessing
        out.append((guessing if is_measure else math.nan, expected))
    return out


def _levels(
    losses: LossFunction, target: Tensor, share: Tensor, starts: list[Tensor], dtype: torch.dtype
) -> tuple[float, float]:
    """(the lowest mean loss of one prediction for all, the mean loss of outputs that are zero)."""
    found = [_lowest(losses, start[None].to(dtype), target, share) for start in starts]
    guessing = min(found)
    if (
        guessing > 0 and max(found) - guessing > AGREED * guessing
    ):  # a loss with edges, as the absolute error has: no derivatives
        best = starts[found.index(guessing)]
        guessing = min(guessing, _lowest(losses, best[None].to(dtype), target, share, "Powell"))
    y = target.to(dtype) if target.is_floating_point() else target
    zeros = torch.zeros(len(y), len(starts[0]), dtype=dtype, device=y.device)
    return guessing, float(losses(zeros, y).double() @ share)


def _floor(losses: LossFunction, target: Tensor, outputs: int, dtype: torch.dtype) -> float:
    """The lowest mean loss where each example has a prediction of its own; on a few examples."""
    few = slice(None, None, math.ceil(len(target) / FEW))
    target = target[few]
    share = torch.full((len(target),), 1 / len(target), dtype=torch.float64, device=target.device)
    zeros = torch.zeros(len(target), outputs, dtype=dtype, device=target.device)
    return _lowest(losses, target.to(dtype) if target.is_floating_point() else zeros, target, share)


def _lowest(
    losses: LossFunction, output_RC: Tensor, target: Tensor, share_N: Tensor, method: Literal["CG", "Powell"] = "CG"
) -> float:
    """Return the lowest mean loss that a search finds from outputs: one row (1, C) for all examples, or one each."""
    from scipy.optimize import minimize  # a class of torch.optim would import all of torch.compile

    y = target.to(output_RC.dtype) if target.is_floating_point() else target

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        output = torch.from_numpy(flat).to(output_RC).view_as(output_RC).requires_grad_()
        with torch.enable_grad():
            loss = losses(output.expand(len(y), -1), y).double() @ share_N
            (gradient,) = torch.autograd.grad(loss, output)
        return loss.item(), gradient.double().cpu().numpy().ravel()

    start = output_RC.double().cpu().numpy().ravel()
    with np.errstate(all="ignore"):  # of a loss without a lowest value
        if method == "Powell":
            return float(minimize(lambda flat: value(flat)[0], start, method=method, options={"maxiter": 20}).fun)
        # conjugate gradients: measured, the bookkeeping of L-BFGS-B took longer than the losses
        return float(minimize(value, start, jac=True, method=method, options={"gtol": 1e-6, "maxiter": 50}).fun)
