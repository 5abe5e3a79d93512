"""A gradient against central finite differences, in float64: an oracle that knows nothing of autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 1e-5  # near the best for central differences in float64: (3 * 2^-52)^(1/3) for values and derivatives of order 1
KINK_STEP = 1e-7  # where the first step leads across the kink of a ReLU
ALL, SAMPLE = 100, 20  # coordinates checked: all where there are at most ALL, else SAMPLE of them
TOLERANCE = 1e-5  # of the largest gradient: STEP leaves about 1e-9, a wrong backward far more
NOISE = 1e-10  # absolute: what rounding in the loss leaves of a derivative that is zero


@dataclass(frozen=True)
class Difference:
    """How a tensor's gradient compares with differences of the loss."""

    checked: int  # coordinates
    error: float  # largest |gradient - difference| over the largest gradient of the tensor
    worst: tuple[int, ...]  # where that is
    gradient: float  # there
    difference: float  # there
    ok: bool


def check(losses: Callable[[], Tensor], tensor: Tensor, gradient: Tensor) -> Difference:
    """Compare `gradient` with (f(x + h) - f(x - h)) / 2h at coordinates of `tensor`, which is moved and put back.

    `losses`: everything summed to f, (N,): differences are taken an example at a time, so that those of the others,
    zero for an activation, add no rounding. At a kink any slope between those on its two sides, an example at a time,
    is right: autograd chooses one.
    """
    flat = gradient.reshape(-1)
    coordinates = _coordinates(flat)
    here = losses()
    quotients = [_central(losses, here, tensor, i, flat[i].item()) for i in coordinates]
    errors = [abs(flat[i].item() - q) for i, q in zip(coordinates, quotients, strict=True)]
    scale = max([NOISE / TOLERANCE, *(abs(q) for q in quotients), *(flat[i].abs().item() for i in coordinates)])
    place = max(range(len(errors)), key=lambda k: math.inf if math.isnan(errors[k]) else errors[k])
    error = errors[place] / scale
    worst, found = _place(tensor, coordinates[place]), flat[coordinates[place]].item()
    return Difference(len(coordinates), error, worst, found, quotients[place], error <= TOLERANCE)


def _coordinates(flat: Tensor) -> list[int]:
    """All where they are few; else the largest gradient and an evenly spread sample."""
    n = len(flat)
    if n <= ALL:
        return list(range(n))
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: SAMPLE - 1].tolist()
    return sorted({int(flat.abs().argmax()), *drawn})


def _place(tensor: Tensor, i: int) -> tuple[int, ...]:
    return tuple(int(k) for k in torch.unravel_index(torch.tensor(i), tensor.shape))


@torch.no_grad()
def _central(losses: Callable[[], Tensor], here: Tensor, tensor: Tensor, i: int, gradient: float) -> float:
    """The central difference along one coordinate; `gradient` itself where it lies between the slopes of a kink."""
    place = _place(tensor, i)
    before = tensor[place].item()

    def moved(by: float) -> Tensor:
        tensor[place] = before + by
        value = losses()
        tensor[place] = before
        return value

    central = ((moved(STEP) - moved(-STEP)).sum() / (2 * STEP)).item()
    size = max(abs(central), abs(gradient))
    if abs(central - gradient) <= max(TOLERANCE * size, NOISE):
        return central
    above = (moved(KINK_STEP) - here) / KINK_STEP
    below = (here - moved(-KINK_STEP)) / KINK_STEP
    slack = TOLERANCE * size + NOISE * STEP / KINK_STEP
    low, high = torch.minimum(above, below).sum().item(), torch.maximum(above, below).sum().item()
    return gradient if low - slack <= gradient <= high + slack else central
