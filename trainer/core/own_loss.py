"""A loss of the user's own: found by its dotted path, called on all members' examples as rows, tried before it trains.

Shapes: K member, B example, R row, C class (or O output).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.config import ConfigError, Loss
from trainer.core.own_calls import check_arguments, find_target, in_words

ALONE = 16  # rows that are tried one by one
KEY = "loss._target_"


class OwnLoss:
    """The user's function of outputs (R, C) and targets, (R,) classes or (R, O) values: a number a row, (R,).

    It is called with (K, B, C) or (B, C); members are rows to it, which changes nothing where rows do not mix.
    """

    def __init__(self, loss: Loss) -> None:
        """Raises ConfigError where the function cannot be found, or takes no such arguments."""
        assert loss._target_ is not None
        self.path, self.keywords = loss._target_, loss.keywords()
        self.function = find_target(KEY, self.path)
        check_arguments("loss", self.function, self.keywords)

    def __call__(self, output_KBC: Tensor, target_KB: Tensor) -> Tensor:
        """Raises ConfigError where the function fails, or gives anything else than a number a row."""
        shape = output_KBC.shape[:-1]
        output = output_KBC.reshape(-1, output_KBC.shape[-1])
        target = target_KB.reshape(-1, *target_KB.shape[len(shape) :])
        with in_words(f"{KEY}: {self.path} fails on outputs {tuple(output.shape)} and targets {tuple(target.shape)}"):
            loss: Any = self.function(output, target, **self.keywords)
        wanted = f"expected one number per example, ({len(output)},)"
        if not isinstance(loss, Tensor) or loss.shape != (len(output),):
            found = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            hints = {
                "a tensor ()": "; leave out the mean or sum over the batch, reduction='none'",
                f"a tensor {tuple(output.shape)}": "; take the mean over the outputs, .mean(1)",
            }
            hint = hints.get(found, "")
            raise ConfigError([f"{KEY}: {self.path} gives {found}, {wanted}{hint}"])
        if not loss.is_floating_point() or loss.device != output.device:
            found, like = (f"{one.dtype} on {one.device}".removeprefix("torch.") for one in (loss, output))
            raise ConfigError([f"{KEY}: {self.path} gives {found}, {wanted}, {like} like the outputs"])
        if output.requires_grad and torch.is_grad_enabled() and not loss.requires_grad:
            why = "gives a loss that no output takes part in; is there a detach, no_grad or argmax in it?"
            raise ConfigError([f"{KEY}: {self.path} {why}"])
        return loss.to(output.dtype).view(shape)

    def check(self, output_RC: Tensor, target: Tensor) -> None:
        """Raise ConfigError unless rows together and alone have the same loss, each time, and backward goes through.

        That is tried in float64, and in the outputs' own precision where the function refuses the other.
        """
        precise = target.double() if target.is_floating_point() else target
        try:
            self._check(output_RC.double(), precise)
        except ConfigError:
            if output_RC.dtype == torch.float64:
                raise
            self._check(output_RC, target)

    def _check(self, output_RC: Tensor, target: Tensor) -> None:
        output, given = output_RC.detach().clone().requires_grad_(), target.clone()
        with torch.enable_grad():
            loss = self(output * 1, given)
            with in_words(f"{KEY}: the backward pass of {self.path} fails"):
                torch.autograd.grad(loss.sum(), output)
        with torch.no_grad():
            given_output = output.clone()
            again = self(given_output, given)
            alone = [self(output[r : r + 1], target[r : r + 1]) for r in range(min(ALONE, len(output)))]
        if not (torch.equal(given, target) and torch.allclose(given_output, output, rtol=0, atol=0, equal_nan=True)):
            raise ConfigError([f"{KEY}: {self.path} changes the outputs or targets that it is given; leave them"])
        if not _close(again, loss):
            raise ConfigError([f"{KEY}: {self.path} gives another loss for the same outputs and targets"])
        if not _close(torch.cat(alone), loss[: len(alone)]):
            why = "the loss of an example depends on the others of its batch; expected a function of each row alone"
            raise ConfigError([f"{KEY}: {self.path}: {why}"])


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether losses agree but for rounding, relative to the largest."""
    scale = b.detach().nan_to_num(0, 0, 0).abs().max().item()
    return torch.allclose(a, b.detach(), rtol=0, atol=torch.finfo(b.dtype).eps ** 0.5 * scale, equal_nan=True)
