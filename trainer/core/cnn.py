"""A convolutional network for pictures, out of torch.nn's own layers: it trains as a stack of one.

Neither vmap nor grouped convolution gained anything for pictures on a CPU: members train side by side, one per core.
Shapes: B example, I in-feature (a picture, row by row), O out-feature.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from trainer import config as cfg
from trainer.config import ConfigError, Pooling
from trainer.core.mlp import ACTIVATIONS, initialise
from trainer.core.seeds import stream_seed

POOLINGS: dict[Pooling, type[nn.Module]] = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}


def cnn(config: cfg.Cnn, shape: Sequence[int], out_features: int) -> nn.Module:
    """Build a network for pictures of shape (C, H, W), or (H, W): (B, I) -> (B, O).

    depth blocks of convolution ("same" padding), batch norm, activation, pooling of 2 x 2 and dropout; then a linear
    layer. Named as in the MLP: layers.<i> is the i-th layer with weights, layers.norm<i> the batch norm after it.
    Raises ConfigError where an example is no picture, or too small to be pooled so often.
    """
    if len(shape) not in (2, 3):
        expected = "pictures of shape (channels, height, width)"
        raise ConfigError([f"model: cnn is for {expected}; an example here is {tuple(shape)}; try model=mlp"])
    channels, height, width = (1, *shape)[-3:]
    layers: OrderedDict[str, nn.Module] = OrderedDict(picture=nn.Unflatten(1, (channels, height, width)))
    for i, out_channels in enumerate(config.widths):
        has_bias = not config.batchnorm  # which would subtract it again: its gradient is rounding alone
        layers[str(i)] = nn.Conv2d(channels, out_channels, config.kernel, padding="same", bias=has_bias)
        if config.batchnorm:
            layers[f"norm{i}"] = nn.BatchNorm2d(out_channels)
        layers[f"act{i}"] = ACTIVATIONS[config.activation]()
        if config.pooling != "none":
            if min(height, width) < 2:
                size = " x ".join(map(str, shape[-2:]))
                hint = f"try model.depth={i}, or model.pooling=none"
                raise ConfigError([f"model.depth: pictures of {size} are one pixel after {i} poolings; {hint}"])
            layers[f"pool{i}"] = POOLINGS[config.pooling](2)
            height, width = height // 2, width // 2
        if config.dropout:
            layers[f"drop{i}"] = nn.Dropout(config.dropout)
        channels = out_channels
    layers["flat"] = nn.Flatten()
    layers[str(config.depth)] = nn.Linear(channels * height * width, out_features)
    return nn.Sequential(OrderedDict(layers=nn.Sequential(layers)))


@torch.no_grad()
def draw_weights(network: nn.Module, config: cfg.Cnn, seed: int) -> None:
    """Draw the initial weights, each parameter from a stream of its own: none depends on which others there are."""
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if ".norm" not in name:  # one and zero, as built
            fan_in = parameters[name.replace("bias", "weight")][0].numel()
            initialise(parameter, fan_in, config, torch.Generator().manual_seed(stream_seed(seed, f"init/{name}")))
