"""Losses and accuracy as pure functions: tensors in, a tensor with a leading member axis out. Nothing here syncs.

Shapes: K member, B example, N example of a split, C class (or O output).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import Loss


def losses_KB(loss: Loss, output_KBC: Tensor, target_KB: Tensor) -> Tensor:
    """The loss of every example; also (B,) of (B, C). Integer targets are classes, others values (K, B, O).

    Cross-entropy: -sum_c q_c log softmax(output)_c with q = (1 - s) onehot + s / C (Szegedy et al. 2016, section 7).
    Mean squared error: the mean over outputs of (output - target)^2, the target one-hot for classes.
    Output: the mean of the model's own outputs.
    """
    if loss.name == "output":
        return output_KBC.mean(-1)
    classes = not target_KB.dtype.is_floating_point
    if loss.name == "cross_entropy" or (loss.name == "auto" and classes):
        smoothing = loss.label_smoothing
        scores = output_KBC.transpose(1, 2) if output_KBC.ndim == 3 else output_KBC  # classes in the second place
        return F.cross_entropy(scores, target_KB, reduction="none", label_smoothing=smoothing)
    target = F.one_hot(target_KB, output_KBC.shape[-1]).to(output_KBC.dtype) if classes else target_KB
    return (output_KBC - target).square().mean(-1)


def correct_KB(output_KBC: Tensor, target_KB: Tensor) -> Tensor:
    """Whether the largest output is the target's class: bool. (max over a strided axis is 15 times argmax's speed.)"""
    return output_KBC.transpose(1, 2).max(1).indices == target_KB


def chance_level(loss: Loss, target_KN: Tensor, classes: int | None) -> dict[str, Tensor]:
    """What predictions that do not look at the input cost on these targets, (K,) each.

    guessing_loss: the best constant prediction. expected_loss: a network whose outputs are all zero, as a fresh one's
    nearly are (ln C for cross-entropy). target_top_class: the share of the most frequent class.
    """
    if classes is None:
        y_KNO = target_KN.double()
        return {
            "guessing_loss": y_KNO.var(1, correction=0).mean(1),
            "expected_loss": y_KNO.square().mean((1, 2)),
        }
    share_KC = torch.stack([torch.bincount(y, minlength=classes) for y in target_KN]).double() / target_KN.shape[1]
    if loss.name == "mse":
        costs = (share_KC * (1 - share_KC)).mean(1), torch.full_like(share_KC[:, 0], 1 / classes)
    else:
        q_KC = (1 - loss.label_smoothing) * share_KC + loss.label_smoothing / classes
        costs = torch.special.entr(q_KC).sum(1), torch.full_like(q_KC[:, 0], math.log(classes))
    return {"guessing_loss": costs[0], "expected_loss": costs[1], "target_top_class": share_KC.amax(1)}
