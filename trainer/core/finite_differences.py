"""Compares gradients with finite differences of the loss, in float64: does backward agree with forward?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = (1e-5, 1e-6, 1e-7)  # absolute; a smaller one only where the slopes on both sides of a larger one differ
WIDER = 3.0  # times a step: a slope that is one there too does not depend on it
COORDINATES = 16  # of each tensor, drawn at random, beside the one with the largest gradient
TOLERANCE = 1e-4  # relative; float64 and these steps leave about 1e-8
ULP = 2.0**-52  # relative: a smaller change of a number in float64 is lost
ROUNDING = 64 * ULP  # of an example's loss, where it changes: some tens of operations on the way to it


@dataclass(frozen=True)
class Check:
    """A tensor's gradient, at the coordinate where it and the differences of the loss disagree the most."""

    checked: int  # coordinates
    error: float  # |gradient - difference| over the larger of the two, the rms of the gradient and what rounding hides
    worst: tuple[int, ...]  # the coordinate
    gradient: float  # there
    difference: float  # there
    kink: bool  # the slopes on its two sides stay apart: f has no derivative there
    ok: bool


def check_gradients(
    losses: Callable[[], Tensor], parameters: Mapping[str, Tensor], coordinates: int = COORDINATES
) -> dict[str, Check]:
    """Check autograd's gradient of every parameter. Raises ValueError where the loss is not finite, or varies."""
    gradients = torch.autograd.grad(losses().sum(), list(parameters.values()), materialize_grads=True)
    with torch.no_grad():
        value = losses().sum()
        if not value.isfinite():
            raise ValueError(f"the loss is {value.item()}: it has no differences")
        if losses().sum() != value:
            raise ValueError("the loss is not the same twice for the same weights and examples: it has no differences")
    pairs = zip(parameters.items(), gradients, strict=True)
    return {name: check(losses, parameter, gradient, coordinates) for (name, parameter), gradient in pairs}


@torch.no_grad()
def check(losses: Callable[[], Tensor], tensor: Tensor, gradient: Tensor, coordinates: int = COORDINATES) -> Check:
    """Compare `gradient` with (f(x + h) - f(x - h)) / 2h at coordinates of `tensor`, which is moved and put back.

    `losses` gives f in float64 as terms to be summed, one per example, the same each time: differences are taken
    example by example, so that examples which a coordinate does not reach add no rounding. At a kink, each example's
    slope may be any between those on its two sides: autograd chooses one.

    A random direction through all coordinates is tried as well; where it disagrees, bisection finds a coordinate.
    """
    assert tensor.dtype == torch.float64, f"{tensor.dtype}: differences need float64"
    flat = gradient.detach().reshape(-1)
    generator = torch.Generator().manual_seed(0)
    chosen = {int(flat.abs().argmax()), *torch.randperm(len(flat), generator=generator)[:coordinates].tolist()}
    signs = torch.randint(2, (len(flat),), generator=generator).to(flat) * 2 - 1
    scale, here, before = flat.square().mean().sqrt().item(), losses(), tensor.detach().clone()

    def along(indices: Tensor) -> _Slope:
        direction = torch.zeros_like(flat)
        direction[indices] = signs[indices] / len(indices) ** 0.5
        move = direction.view_as(tensor)

        def moved(step: float) -> Tensor:
            tensor.copy_(before + step * move)
            return losses()

        return _slope(moved, here, (flat * direction)[indices].sum().item(), scale)

    try:
        suspects = torch.arange(len(flat))
        if len(flat) > len(chosen) and along(suspects).blame > TOLERANCE:
            while len(suspects) > 1:
                suspects = max(suspects.tensor_split(2), key=lambda half: along(half).blame)
            chosen.add(int(suspects))
        slopes = {index: along(torch.tensor([index])) for index in sorted(chosen)}
    finally:
        tensor.copy_(before)
    index = max(slopes, key=lambda index: slopes[index].rank)
    claimed, difference, error, kink = slopes[index]
    worst = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), tensor.shape))
    sign = signs[index].item()
    return Check(len(slopes), error, worst, sign * claimed, sign * difference, kink, error <= TOLERANCE)


class _Slope(NamedTuple):
    """A claimed slope of f along a direction, beside differences of f."""

    claimed: float
    difference: float
    error: float
    kink: bool

    @property
    def blame(self) -> float:
        """The error where f has a derivative."""
        return 0.0 if self.kink else self.error

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Sorts disagreements: those at kinks below others; then by what is missing, infinite where it is no number."""
        missing = abs(self.difference - self.claimed)
        return self.blame > TOLERANCE, self.error > TOLERANCE, math.inf if math.isnan(missing) else missing


def _slope(moved: Callable[[float], Tensor], here: Tensor, claimed: float, scale: float) -> _Slope:
    """Compare the slope of f at 0 with the one claimed; `moved` gives f's terms at a distance along the direction."""
    found, wider = _Slope(claimed, math.nan, math.inf, kink=False), math.inf
    for step in STEPS:
        ahead, behind = (moved(step) - here) / step, (here - moved(-step)) / step  # slopes, (N,)
        changed = here[(ahead != 0) | (behind != 0)]
        rounding = (ROUNDING * changed.abs().sum() + ULP * here.abs().sum()).item() / step
        difference = (ahead + behind).sum().item() / 2
        size = max(abs(difference), abs(claimed), scale, rounding / TOLERANCE)
        error = abs(difference - claimed) / size if size else 0.0
        gap = (ahead - behind).abs().sum().item() / size if size else 0.0
        if error <= TOLERANCE:  # they agree
            return _Slope(claimed, difference, error, kink=False)
        if not gap > TOLERANCE:  # f is smooth here
            wide = (moved(WIDER * step) - moved(-WIDER * step)).sum().item() / (2 * WIDER * step)
            if not abs(wide - difference) > abs(difference - claimed) / 4:
                return _Slope(claimed, difference, math.inf if math.isnan(error) else error, kink=False)
            found = _Slope(claimed, difference, error, kink=True)  # what differences give depends on the step
            continue
        low, high = torch.minimum(ahead, behind).sum().item(), torch.maximum(ahead, behind).sum().item()
        if low - TOLERANCE * size <= claimed <= high + TOLERANCE * size:
            found = _Slope(claimed, claimed, 0.0, kink=False)
        else:
            found = _Slope(claimed, difference, error, kink=gap > wider / 2)
        wider = gap
    return found
