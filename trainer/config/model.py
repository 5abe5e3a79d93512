"""The keys of `model`: the networks of this package, a function to minimise, a network of the user's own."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainer.config.knob import knob, rest

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "silu"]
Position = Literal["before", "after"]
Pooling = Literal["max", "mean", "none"]
Init = Literal["default", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "normal"]
Function = Literal["quadratic", "rosenbrock", "beale", "saddle"]


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """A multi-layer perceptron: depth hidden layers of linear, batch norm, activation, dropout; then a linear layer."""

    depth: int = knob("hidden layers; 0 is a linear model", "layers", ge=0)
    width: int | list[int] = knob("units of a hidden layer: one number, or a list with one a layer", "units", ge=1)
    activation: Activation = knob("non-linearity of the hidden layers")
    dropout: float = knob("probability that a hidden unit is zeroed in training", ge=0, lt=1)
    input_dropout: float = knob("probability that an input is zeroed in training", ge=0, lt=1)
    batchnorm: bool = knob("batch normalisation of every hidden layer")
    batchnorm_position: Position = knob("batch norm before or after the activation")
    init: Init = knob("distribution of the initial weights; default is PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in))")
    init_scale: float = knob("factor on the initial weights", gt=0)
    init_std: float = knob("standard deviation for init=normal", gt=0)
    bias_init: float | None = knob("constant the biases start at; null: PyTorch's default, uniform like the weights")

    @property
    def widths(self) -> list[int]:
        """Units of each hidden layer, input side first."""
        return self.width if isinstance(self.width, list) else [self.width] * self.depth

    @property
    def shape(self) -> tuple[object, ...]:
        """What networks must have in common to share tensors: widths, activation, where batch norm stands."""
        return tuple(self.widths), self.activation, self.batchnorm, self.batchnorm and self.batchnorm_position


@dataclass(frozen=True, kw_only=True)
class Cnn:
    """A convolutional network for pictures: depth blocks of convolution, batch norm, activation, pooling, dropout."""

    depth: int = knob("convolutions, each of a block; a linear layer follows", "layers", ge=1)
    channels: int | list[int] = knob("channels of a convolution: one number, or a list with one a layer", ge=1)
    kernel: int = knob("side of a convolution's window, odd", "pixels", ge=1)
    pooling: Pooling = knob("what 2 x 2 pixels become after each convolution: their max, their mean; or none")
    activation: Activation = knob("non-linearity after each convolution")
    dropout: float = knob("probability that a hidden unit is zeroed in training", ge=0, lt=1)
    batchnorm: bool = knob("batch normalisation of every convolution, before the activation")
    init: Init = knob("distribution of the initial weights; default is PyTorch's U(-1/sqrt(fan_in), 1/sqrt(fan_in))")
    init_scale: float = knob("factor on the initial weights", gt=0)
    init_std: float = knob("standard deviation for init=normal", gt=0)
    bias_init: float | None = knob("constant the biases start at; null: PyTorch's default, uniform like the weights")

    @property
    def widths(self) -> list[int]:
        """Channels of each convolution, input side first."""
        return self.channels if isinstance(self.channels, list) else [self.channels] * self.depth


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A point that an optimizer moves downhill: the loss is a function of its coordinates, two for those of ours."""

    function: str = knob(f"{', '.join(typing.get_args(Function))}, or the dotted path of one of your own, e.g. my.f")
    start: list[float] = knob("where the point starts, [x,y]; your own function may have any number of coordinates")

    @property
    def is_own(self) -> bool:
        """Whether the function is the user's own, named by its dotted path."""
        return "." in self.function

    @property
    def shape(self) -> tuple[object, ...]:
        """What points must have in common to share tensors."""
        return self.function, len(self.start)


@dataclass(frozen=True, kw_only=True)
class CustomModel:
    """Any torch.nn.Module of the user's own."""

    _target_: str = knob("dotted path of a torch.nn.Module class or function, e.g. my_models.ConvNet")
    arguments: dict[str, Any] = rest(
        "its keyword arguments; in_features, out_features and num_classes are filled in if it takes them"
    )


def model_class(raw: Any) -> type:
    """Which kind of model a group of keys describes: one of ours, or a class the user names."""
    keys = set(raw) if isinstance(raw, Mapping) else set()
    return CustomModel if "_target_" in keys else Surface if "function" in keys else Cnn if "kernel" in keys else Mlp
