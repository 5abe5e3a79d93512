"""Losses and metrics as a user writes them, good and bad."""

import os

import torch
from torch import Tensor
from torch.nn import functional as F

WEIGHT = torch.ones(10)


def entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def in_float32(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, WEIGHT, reduction="none")


def pinball(output: Tensor, target: Tensor, q: float = 0.9) -> Tensor:
    error = target - output
    return torch.maximum(q * error, (q - 1) * error).mean(1)


def hinge(output: Tensor, target: Tensor) -> Tensor:
    sign = 2 * F.one_hot(target, output.shape[1]) - 1
    return (1 - sign * output).relu().mean(1)


def shifted(output: Tensor, target: Tensor) -> Tensor:
    return entropy(output, target) + 5


def unbounded(output: Tensor, target: Tensor) -> Tensor:
    return -output.gather(1, target[:, None])[:, 0]


def scalar(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def matrix(output: Tensor, target: Tensor) -> Tensor:
    return -output.log_softmax(1)


def number(output: Tensor, target: Tensor) -> float:
    return 1.0


def mixing(output: Tensor, target: Tensor) -> Tensor:
    loss = entropy(output, target)
    return loss / loss.detach().mean()


def raising(output: Tensor, target: Tensor) -> Tensor:
    raise KeyError("nothing there")


def detached(output: Tensor, target: Tensor) -> Tensor:
    return entropy(output, target).detach()


def random(output: Tensor, target: Tensor) -> Tensor:
    return entropy(output, target) * (1 + torch.rand(()))


def whole_numbers(output: Tensor, target: Tensor) -> Tensor:
    return entropy(output, target).long()


def in_place(output: Tensor, target: Tensor) -> Tensor:
    target %= 2
    return entropy(output, target)


class Breaks(torch.autograd.Function):
    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        raise KeyError("nothing saved")


def no_backward(output: Tensor, target: Tensor) -> Tensor:
    return entropy(Breaks.apply(output), target)


CALLS = [0]


def late(output: Tensor, target: Tensor, harm: str = "raise") -> Tensor:
    """Go wrong in the 30th training step; checks and evaluation have no gradient, or no 36 examples."""
    CALLS[0] += output.requires_grad and len(output) % 36 == 0
    if CALLS[0] < 30:
        return entropy(output, target)
    if harm == "raise":
        raise ValueError("too late")
    return entropy(output, target) * float("nan") if harm == "nan" else entropy(output, target).detach()


# ------------------------------------------------------------------ metrics


def top2(output: Tensor, target: Tensor) -> Tensor:
    return (output.topk(2, 1).indices == target[:, None]).any(1).double().mean()


def error_rate(output: Tensor, target: Tensor) -> float:
    return (output.argmax(1) != target).double().mean().item()


error_rate.higher_is_better = False  # pyright: ignore[reportFunctionMemberAccess]


def greedy(output: Tensor, target: Tensor) -> float:
    """Draws, and changes what it is given; the same each time."""
    torch.manual_seed(0)
    torch.rand(3)
    output.zero_(), target.zero_()
    return 1.0


def vector(output: Tensor, target: Tensor) -> Tensor:
    return output.argmax(1).double()


def text(output: Tensor, target: Tensor) -> str:
    return "good"


def varying(output: Tensor, target: Tensor) -> float:
    return torch.rand(()).item()


def ends(output: Tensor, target: Tensor) -> float:
    os._exit(3)
