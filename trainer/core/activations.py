"""Activation statistics of a stack in evaluation mode, layer by layer; predictions and inputs: what judge.health reads.

They are taken of the first PROBE_EXAMPLES training examples of each member, the same every epoch. That draws no random
number and changes no tensor. Shapes: K member, B example, F unit of a layer (or channel), C class.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from trainer.core.networks import Network
from trainer.core.own_module import UserModule

PROBE_EXAMPLES = 128
FLAT_SLOPE = 0.05  # an activation is flat where its slope is below this share of its steepest
_FLAT_TANH = (1 - FLAT_SLOPE) ** 0.5  # |tanh(z)| whose slope 1 - tanh^2 is FLAT_SLOPE
_SATURATING: dict[type[nn.Module], tuple[float, float]] = {  # middle of the outputs, and how far from it they are flat
    nn.Tanh: (0.0, _FLAT_TANH),
    nn.Sigmoid: (0.5, _FLAT_TANH / 2),  # sigmoid(z) = (1 + tanh(z / 2)) / 2
}
_RECTIFYING: dict[type[nn.Module], float] = {  # inputs up to which the slope is flat
    nn.ReLU: 0.0,
    nn.GELU: -2.349,
    nn.SiLU: -4.083,
}
SATURATED_EXAMPLES = 0.9  # a unit is saturated where it is flat on at least this share of the examples


def flat_part(module: nn.Module) -> tuple[bool, float, float, float]:
    """Whether an activation saturates; the middle of its outputs and how far from it they are flat, or 0 and up to
    which input; on which share of the examples a unit is to be flat.
    """
    if type(module) in _SATURATING:
        return True, *_SATURATING[type(module)], SATURATED_EXAMPLES
    return False, 0.0, _RECTIFYING[type(module)], 1.0


def tags(name: str, module: nn.Module) -> list[str]:
    """What is found of an activation module, in this order."""
    kind = "saturated_units" if type(module) in _SATURATING else "dead_units"
    return [f"activation_mean/{name}", f"activation_spread/{name}", f"{kind}/{name}"]


class ActivationStatistics:
    """Statistics of every activation module, taken while attached: tag -> (K,).

    `activation_mean/<module>` over units and examples; `activation_spread/<module>`: the standard deviation over
    examples, root mean square over units; `dead_units/<module>` (ReLU, GELU, SiLU): share of units that are flat on
    every example; `saturated_units/<module>` (tanh, sigmoid): share of units that are flat on nearly every example.
    """

    def __init__(self, network: Network) -> None:
        self.alone = isinstance(network, UserModule)
        modules = dict((network.module if isinstance(network, UserModule) else network).named_modules())
        self.modules = {name: m for name, m in modules.items() if type(m) in {*_SATURATING, *_RECTIFYING}}
        self.with_parameters = {name: m for name, m in modules.items() if m._parameters} if self.alone else {}
        self.order: list[str] = []  # parameters of a module of the user's own, as forward first comes to them
        self.dropouts = [m for m in modules.values() if isinstance(m, _DropoutNd)] if self.alone else []
        self.kept = 1.0  # of a signal by those of its dropout layers that drop a half or more, one after the other
        self.uses: Counter[str] = Counter()  # of each such module with parameters, in one forward
        self.found: dict[str, Tensor] = {}
        self.tags: list[str] | None = None  # those of the first time: every row has the same columns

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Watch every activation module until the block ends."""
        self.found = {}
        hooks: list[tuple[nn.Module, Any]] = [(m, partial(self._take, name)) for name, m in self.modules.items()]
        if self.tags is None:  # the first time
            hooks += [(m, partial(self._come_to, name)) for name, m in self.with_parameters.items()]
            hooks += [(m, self._drop) for m in self.dropouts]
        handles = [module.register_forward_hook(hook) for module, hook in hooks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def taken(self, loss_K: Tensor) -> dict[str, Tensor]:
        """What the last block saw; NaN, where `loss_K` lies, for a module that was not called."""
        self.tags = self.tags or list(self.found)
        return {tag: self.found.get(tag, torch.full_like(loss_K, math.nan)) for tag in self.tags}

    def _take(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        z, a = self._by_unit(inputs[0]), self._by_unit(output)
        calls = sum(tag.split("/")[1].split(" ")[0] == name for tag in self.found)
        name = f"{name} {calls // 3 + 1}" if calls else name  # a module used several times
        mean_KF = a.mean(2)  # var_mean is 20 times slower than the two lines that follow
        spread_K = torch.linalg.vector_norm(a - mean_KF[:, :, None], dim=(1, 2)) / (a.shape[1] * a.shape[2]) ** 0.5
        if type(module) in _SATURATING:
            middle, limit = _SATURATING[type(module)]
            flat_KF = ((a - middle).abs() > limit).sum(2) >= SATURATED_EXAMPLES * a.shape[2]
        else:
            flat_KF = z.amax(2) <= _RECTIFYING[type(module)]
        found = mean_KF.mean(1), spread_K, flat_KF.mean(1, dtype=a.dtype)
        self.found |= zip(tags(name, module), found, strict=True)

    def _come_to(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        self.uses[name] += 1
        names = (f"{name}.{own}".lstrip(".") for own in module._parameters)
        self.order += [one for one in names if one not in self.order]

    def _drop(self, module: _DropoutNd, inputs: object, output: object) -> None:
        self.kept *= 1 - module.p if module.p >= 0.5 else 1.0

    def _by_unit(self, x: Tensor) -> Tensor:
        """(K, F, B): inside a stack of MLPs as it is; a module of the user's own sees (B, F, ...) or (B,)."""
        if not self.alone:
            return x
        return (x if x.ndim > 1 else x[:, None]).transpose(0, 1).flatten(1)[None]


def top_class_K(output_KBC: Tensor) -> Tensor:
    """The share of examples whose prediction is the class predicted most."""
    predicted_KB = output_KBC.transpose(1, 2).max(1).indices
    return F.one_hot(predicted_KB, output_KBC.shape[2]).mean(1, dtype=torch.float64).amax(1)


def input_statistics(x_KBI: Tensor) -> dict[str, Tensor]:
    """Root mean square and mean of all inputs, and how far their features' scales lie apart: (K,).

    input_feature_ratio: the largest standard deviation of a feature over the median one, constant features apart.
    """
    feature_KI = x_KBI.std(1, correction=0)
    feature_KI = feature_KI.masked_fill(feature_KI == 0, math.nan)
    varying_K = (~feature_KI.isnan()).sum(1, keepdim=True)
    middle_K = (varying_K - 1).clamp(min=0) // 2
    median_K = feature_KI.sort(1).values.gather(1, middle_K)[:, 0]  # median() is random on CUDA
    return {
        "input_rms": x_KBI.square().mean((1, 2)).sqrt(),
        "input_mean": x_KBI.mean((1, 2)),
        "input_feature_ratio": feature_KI.nan_to_num(0).amax(1) / median_K,
    }
