"""A function of the user's own that a point moves down: found by its dotted path, checked where it starts.

f takes each coordinate as a tensor of one number, f(x, y), and gives a tensor of one number that it computed from them.
Shapes: K point, D coordinate.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config import ConfigError
from trainer.core.own_calls import find_target, in_words, parameters, place
from trainer.core.surfaces import PlaneFunction

KEY = "model.function"
CLOSE = 1e-9  # relative, in float64: f of all points at once and of each alone
GRID = 60  # points of a picture along an axis
PATIENCE_S = 3.0  # for all of them, where f takes one at a time: some fifteen times what a short f needs


class OwnFunction:
    """f, by its dotted path."""

    def __init__(self, path: str, dimensions: int) -> None:
        """Raises ConfigError where it cannot be found, or does not take so many coordinates."""
        self.path = path
        self.function = find_target(KEY, path)
        self.place = place(self.function)
        if known := parameters(self.function):
            try:
                inspect.signature(self.function).bind(*range(dimensions))
            except TypeError as error:
                takes = f"{path}({', '.join(map(str, known.values()))})"
                why = f"found {dimensions} numbers, one for each argument of {takes}: {error}{self.place}"
                raise ConfigError([f"model.start: {why}"]) from error

    def call(self, coordinates: Sequence[Tensor]) -> Any:
        """Return whatever it gives. Raises ConfigError for whatever it raises."""
        head = f"{KEY}: {self.path} fails"
        try:
            with in_words(head):
                return self.function(*coordinates)
        except ConfigError as error:  # asked for the point only now: on a device it has to wait for that
            where = f"{head} at {show(coordinates)}"
            raise ConfigError([line.replace(head, where, 1) for line in error.problems]) from error

    def at(self, point: Tensor) -> Tensor:
        """(D,) -> (), in the type of the point.

        Raises ConfigError where it fails, gives anything else, or a number that no derivative leads back from.
        """
        value = self.call(point.unbind())
        if not isinstance(value, Tensor):
            raise self.refusal(f"gives {type(value).__name__}, expected a tensor that torch computed from its input")
        if value.shape != () or not value.is_floating_point():
            found = f"{value.dtype}".removeprefix("torch.") + f" of shape {tuple(value.shape)}"
            hint = f"; python -m trainer.trace shows a vector's Jacobian: problem=custom {KEY}={self.path}"
            raise self.refusal(f"gives a tensor, {found}, expected one number, of shape (){hint * (value.ndim == 1)}")
        if torch.is_grad_enabled() and point.requires_grad and not value.requires_grad:
            why = "is there a detach, no_grad, item(), or a function of math or numpy on its way?"
            raise self.refusal(f"gives a constant at {show(point)}, no derivative leads back to its input; {why}")
        return value.to(point.dtype)

    def values(self, points: Tensor, together: bool) -> Tensor:
        """(K, D) -> (K,): all points in one call, where that was seen to work, or one after the other."""
        if not together:
            return torch.stack([self.at(point) for point in points])
        with in_words(f"{KEY}: {self.path} fails"):
            return torch.vmap(self.function)(*points.unbind(1)).to(points.dtype)

    def gradients(self, loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the derivative of a loss by each parameter. Raises ConfigError where backward fails."""
        with in_words(f"{KEY}: the backward pass of {self.path}{self.place} fails"):
            return torch.autograd.grad(loss, parameters, materialize_grads=True)

    def check_start(self, point: Tensor) -> None:
        """Raise ConfigError where (D,) is no point to start from, or f is not the same the second time."""
        point = point.detach().clone().requires_grad_()
        value, where = self.at(point), f"at the start, {show(point)}"
        if not value.isfinite():
            raise self.refusal(f"is {value.item()} {where}")
        again = self.at(point)
        (slope,), (slope_again,) = self.gradients(value, [point]), self.gradients(again, [point])
        if again != value or not torch.allclose(slope, slope_again, equal_nan=True):
            values = f"{value.item():g} with the gradient {show(slope)}, then {again.item():g} with {show(slope_again)}"
            raise self.refusal(f"differs from call to call {where}: {values}")
        if not slope.isfinite().all():
            raise self.refusal(f"has the gradient {show(slope)} {where}")

    def takes_all(self, points: Tensor) -> bool:
        """Whether f can be given all points (K, D) at once: value and gradient are then the same, in float64.

        vmap keeps points apart; what branches on values, or draws random numbers, cannot be given to it.
        """
        if len(points) == 1:
            return False
        points = points.detach().double().requires_grad_()
        try:
            alone, both = (self.values(points, together) for together in (False, True))
            slopes = [self.gradients(value.sum(), [points])[0] for value in (alone, both)]
        except (ConfigError, AttributeError):  # AttributeError: vmap gave no tensor
            return False
        return torch.allclose(alone, both, CLOSE, CLOSE) and torch.allclose(slopes[0], slopes[1], CLOSE, CLOSE)

    @torch.no_grad()
    def on_arrays(self, x: Any, y: Any) -> np.ndarray:
        """f of coordinates broadcast against each other; NaN where it fails, all NaN where a picture cannot wait."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        points = torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1))
        try:
            values = self.values(points, together=True)
        except ConfigError:
            values = self._one_by_one(points)
        return values.numpy().reshape(x.shape)

    def _one_by_one(self, points: Tensor) -> Tensor:
        values = torch.full((len(points),), torch.nan, dtype=torch.float64)
        until = time.monotonic() + PATIENCE_S
        with contextlib.suppress(TimeoutError), _patient(until):
            for i, point in enumerate(points):
                with contextlib.suppress(ConfigError):
                    values[i] = self.at(point)
                if time.monotonic() > until:
                    raise TimeoutError
            return values
        return torch.full_like(values, torch.nan)

    def refusal(self, why: str) -> ConfigError:
        """What is wrong with f, and where it is written."""
        return ConfigError([f"{KEY}: {self.path} {why}{self.place}"])


def show(point: Sequence[Tensor] | Tensor) -> str:
    """'(1, -0.5)'."""
    return f"({', '.join(f'{coordinate.item():.6g}' for coordinate in point)})"


def plane(path: str) -> PlaneFunction:
    """Return the user's own function of two variables, to be drawn. Raises ConfigError where it cannot be found."""
    name = path.replace("_", r"\_")
    own = OwnFunction(path, 2)
    return PlaneFunction(rf"\mathrm{{{name}}}(x, y)", own.on_arrays, minima=(), lowest=None, window=None, grid=GRID)


@contextlib.contextmanager
def _patient(until: float) -> Iterator[None]:
    """End what the user's code computes at a time of the monotonic clock: a loop of its own may have no end."""

    def look(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("trainer", "contextlib"):
            return None
        if time.monotonic() > until:
            raise TimeoutError
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)
