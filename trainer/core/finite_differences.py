"""A gradient against differences of the loss, in float64: does backward compute the derivative of forward?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = (1e-5, 1e-6)  # absolute; the second only where the first disagrees: another kink, or strong curvature
COORDINATES = 16  # of each parameter, drawn at random; and the one with the largest gradient
TOLERANCE = 1e-4  # what counts as agreement: float64 and these steps leave about 1e-6
ROUNDING = 64 * 2.0**-52  # of a loss, relative: some tens of operations on the way to it


@dataclass(frozen=True)
class Check:
    """One parameter, at the coordinate where its gradient and the differences of the loss disagree the most."""

    parameter: str
    coordinate: tuple[int, ...]
    gradient: float
    difference: float  # the one-sided quotient nearest to the gradient
    error: float  # what of |gradient - difference| rounding does not explain, over the largest of the two and the rms

    @property
    def agrees(self) -> bool:
        return self.error <= TOLERANCE


def check_gradients(
    loss: Callable[[], Tensor],
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor | None] | None = None,
    coordinates: int = COORDINATES,
    seed: int = 0,
) -> dict[str, Check]:
    """Every parameter's gradient against differences of the loss along sampled coordinates.

    `loss` gives a scalar in float64, the same each time it is called; `parameters` are the float64 leaves it reads,
    which are moved in place and put back. `gradients` are those to check; without them, autograd's. None means zero.

    With h a step along one coordinate, the derivative must lie between (f(x) - f(x - h)) / h and (f(x + h) - f(x)) / h.
    Where f is smooth these differ by h |f''|; across the kink of a ReLU they hold what autograd chose. Where they stay
    apart however small h is, f has no derivative and nothing is said. A random direction through all coordinates is
    tried as well; where it disagrees, bisection finds a coordinate. Raises ValueError where the loss is not the same
    twice or not finite.
    """
    for name, parameter in parameters.items():
        assert parameter.dtype == torch.float64, f"{name} is {parameter.dtype}: differences want float64"
    if gradients is None:
        found = torch.autograd.grad(loss(), list(parameters.values()), allow_unused=True)
        gradients = dict(zip(parameters, found, strict=True))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        value = loss()
        if not value.isfinite():
            raise ValueError(f"the loss is {value.item()}: it has no differences")
        if loss() != value:
            raise ValueError("the loss is not the same twice for the same weights and examples: it has no differences")
        out = {}
        for name, parameter in parameters.items():
            gradient = gradients[name]
            gradient = torch.zeros_like(parameter) if gradient is None else gradient.detach()
            out[name] = _check(name, loss, parameter, gradient, coordinates, generator)
    return out


def _check(
    name: str, loss: Callable[[], Tensor], parameter: Tensor, gradient: Tensor, count: int, generator: torch.Generator
) -> Check:
    """The worst of the largest coordinate, `count` random ones, and one that a random direction leads to."""
    flat = gradient.reshape(-1)
    n = flat.numel()
    scale = flat.square().mean().sqrt().item()
    chosen = {int(flat.abs().argmax()), *torch.randperm(n, generator=generator)[:count].tolist()}
    signs = torch.randint(2, (n,), generator=generator).to(flat) * 2 - 1

    def along(indices: Tensor) -> tuple[float, float, float]:
        """(gradient, difference, error) along the given coordinates at once."""
        direction = torch.zeros(n, dtype=torch.float64)
        direction[indices] = signs[indices] / len(indices) ** 0.5
        return _along(loss, parameter, flat, direction.to(flat), scale)

    suspects = torch.arange(n)
    if n > len(chosen) and along(suspects)[2] > TOLERANCE:
        while len(suspects) > 1:
            halves = suspects.tensor_split(2)
            suspects = max(halves, key=lambda half: along(half)[2])
        chosen.add(int(suspects))
    results = [(index, *along(torch.tensor([index]))) for index in sorted(chosen)]
    index, slope, difference, error = max(results, key=lambda result: result[3])
    sign = signs[index].item()
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), parameter.shape))
    return Check(name, place, sign * slope, sign * difference, error)


def _along(
    loss: Callable[[], Tensor], parameter: Tensor, flat: Tensor, direction: Tensor, scale: float
) -> tuple[float, float, float]:
    """(gradient, nearest one-sided difference, relative error) along a direction of length 1."""
    slope = (flat * direction).sum().item()
    before = parameter.detach().clone()
    move = direction.view_as(parameter)
    best, gaps = (slope, float("nan"), float("inf")), []
    here = loss().item()
    for step in STEPS:
        parameter.copy_(before + step * move)
        forward = (loss().item() - here) / step
        parameter.copy_(before - step * move)
        backward = (here - loss().item()) / step
        parameter.copy_(before)
        low, high = min(forward, backward), max(forward, backward)
        nearest = min(max(low, slope), high)
        size = max(abs(slope), abs(nearest), scale)
        excess = abs(slope - nearest) - ROUNDING * abs(here) / step
        error = excess / size if excess > 0 else 0.0 if excess <= 0 else float("inf")  # the last: not finite
        best = min(best, (slope, nearest, error), key=lambda found: found[2])
        gaps.append((high - low) / size if size else 0.0)
        if error <= TOLERANCE:
            return best
    kink = TOLERANCE < gaps[0] < 2 * gaps[-1]  # the slopes on both sides stay apart: f has no derivative here
    return (slope, best[1], 0.0) if kink else best
