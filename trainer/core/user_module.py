"""A network of the user's own: found by its dotted path, built under the run's streams, trained as a stack of one.

Shapes: B example, I in-feature, O out-feature.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainer import config as cfg
from trainer.config import ConfigError, stream_seed


class UserModule(nn.Module):
    """A stack of one: any module of the user's own, (1, B, I) -> (1, B, O).

    Its parameters get the leading member axis, its buffers stay as they are; its forward sees a batch of examples in
    their own shape, (B, *shape).
    """

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        out_features: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """out_features: what the module must give for each example."""
        super().__init__()
        self.shape = shape
        self.out_features = out_features
        self.module = module.to(device)
        stacked: dict[nn.Parameter, nn.Parameter] = {}  # one for one: parameters that are tied stay tied
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    if parameter not in stacked:
                        value = parameter.detach()[None].contiguous()
                        stacked[parameter] = nn.Parameter(value, parameter.requires_grad)
                    part._parameters[name] = stacked[parameter]

    def forward(self, x: Tensor) -> Tensor:
        parameters = {name: value[0] for name, value in self.module.named_parameters()}
        return outputs(self.module, x[0].view(-1, *self.shape), self.out_features, parameters)[None]

    def stacked_parameters(self) -> dict[str, nn.Parameter]:
        """Every trainable parameter by the module's own name for it."""
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def member_state(self, k: int) -> dict[str, Tensor]:
        """The module's own state dict (copies, on the CPU)."""
        parameters = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}
        state = self.module.state_dict()
        return {n: (v[k] if n in parameters else v).detach().to("cpu", copy=True) for n, v in state.items()}

    def load_member_state(self, k: int, state: dict[str, Tensor]) -> None:
        """Put a state that member_state gave back into the module."""
        parameters = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}
        for name, value in self.module.state_dict().items():
            (value[k] if name in parameters else value).copy_(state[name])

    def predictor(self, state: dict[str, Tensor]) -> nn.Module:
        """Give the module the weights of `state`, and return it in evaluation mode: (B, I) -> (B, O)."""
        self.load_member_state(0, state)
        return _Unstacked(self).eval()

    def readings(self) -> dict[str, Tensor]:
        """Nothing that we know of."""
        return {}

    def select(self, members: Sequence[int]) -> None:
        """A stack of one keeps its member."""
        assert list(members) == [0]


def outputs(
    module: nn.Module, examples: Tensor, out_features: int, parameters: dict[str, Tensor] | None = None
) -> Tensor:
    """What a module, or the module with these parameters instead of its own, gives for examples (B, ...): (B, O).

    Raises ConfigError where it fails, or gives anything else.
    """
    name = type(module).__name__
    try:
        y = module(examples) if parameters is None else functional_call(module, parameters, (examples,))
    except Exception as error:
        hint = ""
        if "more than 1 value per channel" in str(error):
            hint = "; batch norm wants two examples a batch, try data.drop_last=true or another data.batch_size"
        raise ConfigError(
            [f"model._target_: {name} fails on inputs of shape {tuple(examples.shape)}: {describe_error(error)}{hint}"]
        ) from error
    if not isinstance(y, Tensor) or y.shape != (len(examples), out_features):
        found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        what = f"a tensor ({len(examples)}, {out_features}): one row per example, one column per class or output"
        raise ConfigError([f"model._target_: the output of {name} is {found}, expected {what}"])
    return y


class _Unstacked(nn.Module):
    """A stack of one without its member axis: (B, I) -> (B, O)."""

    def __init__(self, stack: UserModule) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x[None])[0]


def build(config: cfg.CustomModel, in_features: int, out_features: int, seed: int) -> nn.Module:
    """The user's own module, initialised under the run's init stream; PyTorch's own generator then draws its dropout.

    Raises ConfigError where the class cannot be found or built.
    """
    path, _, name = config._target_.rpartition(".")
    expected = "expected module.Class, importable from this folder"
    if not path:
        raise ConfigError([f"model._target_: found {name}, {expected}, e.g. my_models.{name.capitalize()}"])
    try:
        target = getattr(importlib.import_module(path), name)
    except Exception as error:
        raise ConfigError(
            [f"model._target_: cannot import {config._target_}: {describe_error(error)}; {expected}"]
        ) from error
    arguments = dict(config.arguments)
    try:
        known = inspect.signature(target).parameters
    except (TypeError, ValueError):  # not callable, or written in C
        known = {}
    arguments |= {
        key: value
        for key, value in {"in_features": in_features, "out_features": out_features}.items()
        if key in known and key not in arguments
    }
    torch.manual_seed(stream_seed(seed, "init"))
    try:
        module = target(**arguments)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ConfigError([f"model: {config._target_}({given}) fails: {describe_error(error)}"]) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            [f"model._target_: {config._target_} gives {type(module).__name__}, expected torch.nn.Module"]
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError([f"model._target_: {config._target_} has no parameters to train"])
    torch.manual_seed(stream_seed(seed, "dropout"))
    return module


def describe_error(error: Exception) -> str:
    """An error of the user's own code in one line, with the place in that code where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f for f in frames if f.filename != __file__ and "site-packages" not in f.filename and f.filename[0] != "<"
    ]
    theirs = [f for f in theirs if "importlib" not in f.filename]
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
