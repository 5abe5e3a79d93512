"""Networks of K members at once: each weight is one tensor with a leading member axis.

Shapes: K member, B example, I in-features, O out-features, F features of a hidden layer. A stack takes (K, B, I) and
gives (K, B, O); its layers work on (K, F, B).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer import config as cfg
from trainer.config import Activation, Init
from trainer.core.dropout import DropoutNoise, StackedDropout
from trainer.core.seeds import stream_seed

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
INITS: dict[Init, Callable[[Tensor, cfg.Mlp | cfg.Cnn, torch.Generator], object]] = {
    # U(-1/sqrt(fan_in), 1/sqrt(fan_in)): nn.Linear's default, and the "standard" one of Glorot and Bengio 2010, eq. 1
    "default": lambda w, c, g: nn.init.uniform_(w, -1 / math.sqrt(w[0].numel()), 1 / math.sqrt(w[0].numel()), g),
    # variance 2 / (fan_in + fan_out): Glorot and Bengio 2010, eq. 16
    "glorot_uniform": lambda w, c, g: nn.init.xavier_uniform_(w, generator=g),
    "glorot_normal": lambda w, c, g: nn.init.xavier_normal_(w, generator=g),
    # variance 2 / fan_in: He et al. 2015, eq. 10
    "he_uniform": lambda w, c, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
    "he_normal": lambda w, c, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g),
    "normal": lambda w, c, g: nn.init.normal_(w, std=c.init_std, generator=g),
}


class StackedLinear(nn.Module):
    """K linear layers: (K, I, B) -> (K, O, B). weight (K, O, I) and bias (K, O): member k's are nn.Linear's own.

    One batched matrix product for all. With examples in the last axis the gradient of the weight, grad (K, O, B) times
    x (K, B, I), comes out laid out like the weight; with (K, B, I) activations it comes transposed and wants a copy.
    """

    def __init__(self, members: int, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(members, out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return torch.bmm(self.weight, x)
        return torch.baddbmm(self.bias.unsqueeze(2), self.weight, x)


class StackedBatchNorm(nn.Module):
    """K batch normalisations (Ioffe and Szegedy 2015): (K, F, B) -> (K, F, B).

    Channels are independent, so K of them over F features are one over K * F. State as in nn.BatchNorm1d, with a
    leading member axis.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, features))
        self.bias = nn.Parameter(torch.zeros(members, features))
        self.register_buffer("running_mean", torch.zeros(members, features))
        self.register_buffer("running_var", torch.ones(members, features))
        self.register_buffer("num_batches_tracked", torch.zeros(members, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        K, features, B = x.shape
        if self.training:
            self.num_batches_tracked += 1
        y = F.batch_norm(
            x.view(1, K * features, B),
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            training=self.training,
        )
        return y.view(K, features, B)


class Stacked(nn.Module):
    """K members whose parameters and buffers all have a leading member axis, named as in the plain model."""

    def stacked_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by its plain name; the leading axis is the member."""
        return dict(self.named_parameters())

    def member_state(self, k: int) -> dict[str, Tensor]:
        """Member k's parameters and buffers, as the state dict of its plain model (copies, on the CPU)."""
        return {name: value[k].detach().to("cpu", copy=True) for name, value in self.state_dict().items()}

    def member_states(self) -> Callable[[int], dict[str, Tensor]]:
        """`member_state` of this moment for many members: all leave a GPU in one copy, when the first is asked for."""
        host = functools.cache(lambda: {name: value.detach().to("cpu") for name, value in self.state_dict().items()})
        return lambda k: {name: value[k].clone() for name, value in host().items()}

    def load_member_state(self, k: int, state: dict[str, Tensor]) -> None:
        """Put a state that member_state gave back into member k."""
        for name, value in self.state_dict().items():
            value[k].copy_(state[name])

    def predictor(self, state: dict[str, Tensor], plain: nn.Module) -> nn.Module:
        """Return the member's plain model, in evaluation mode, with the weights of `state`: (B, I) -> (B, O)."""
        plain.load_state_dict(state)
        first = next(self.parameters())
        return plain.to(first.device, first.dtype).eval()

    def readings(self) -> dict[str, Tensor]:
        """What is to be recorded of every member after an epoch, by tag: (K,) each."""
        return {}

    def select(self, members: Sequence[int]) -> None:
        """Keep only these members, in this order."""
        index = torch.tensor(list(members), device=next(self.parameters()).device)
        for module in self.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(parameter.detach()[index])
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer[index]


class Mlp(Stacked):
    """K multi-layer perceptrons of one shape: (K, B, I) -> (K, B, O).

    Parameter names are those of the model that `plain_mlp` builds: layers.<i> is the i-th linear layer, whatever
    else stands between, layers.norm<i> the batch norm after it.
    """

    def __init__(
        self,
        configs: Sequence[cfg.Mlp],
        seeds: Sequence[int],
        in_features: int,
        out_features: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Raises AssertionError where the members' shapes differ."""
        super().__init__()
        first = configs[0]
        assert all(c.shape == first.shape for c in configs), "members of a stack have one shape"
        members = len(configs)
        keys = ("dropout", "input_dropout")
        self.noises = {
            key: DropoutNoise(
                [seed if getattr(c, key) else None for c, seed in zip(configs, seeds, strict=True)],
                torch.device(device),
                key,
            )
            for key in keys
        }
        self.layers = nn.Sequential(
            _layers(
                first,
                in_features,
                out_features,
                lambda i, o, bias: StackedLinear(members, i, o, bias),
                lambda features: StackedBatchNorm(members, features),
                lambda key: StackedDropout([getattr(c, key) for c in configs], self.noises[key]),
                has_dropout={key: any(getattr(c, key) for c in configs) for key in keys},
            )
        )
        for before, layer in itertools.pairwise(self.layers):
            if isinstance(before, StackedLinear) and isinstance(layer, nn.ReLU):
                layer.inplace = True  # one pass over memory less; the product's own backward does not read its output
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, parameter in parameters.items():
                if ".norm" in name:
                    continue  # one and zero, as built
                fan_in = parameters[name.replace("bias", "weight")].shape[2]
                for member, c, seed in zip(parameter, configs, seeds, strict=True):
                    initialise(member, fan_in, c, torch.Generator().manual_seed(stream_seed(seed, f"init/{name}")))
        self.to(device)

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, I) -> (K, B, O), both as views: inside, examples are the last axis."""
        return self.layers(x.transpose(1, 2)).transpose(1, 2)

    def select(self, members: Sequence[int]) -> None:
        """Keep only these members, in this order."""
        super().select(members)
        for noise in self.noises.values():
            noise.select(members)


def plain_mlp(config: cfg.Mlp, in_features: int, out_features: int) -> nn.Module:
    """Build one member's network out of torch.nn's own layers; it loads what `Stacked.member_state` gives."""
    rates = {"dropout": config.dropout, "input_dropout": config.input_dropout}
    layers = _layers(
        config,
        in_features,
        out_features,
        lambda i, o, bias: nn.Linear(i, o, bias),
        nn.BatchNorm1d,
        lambda key: nn.Dropout(rates[key]),
        has_dropout={key: rate > 0 for key, rate in rates.items()},
    )
    return nn.Sequential(OrderedDict(layers=nn.Sequential(layers)))


def _layers(
    config: cfg.Mlp,
    in_features: int,
    out_features: int,
    linear: Callable[[int, int, bool], nn.Module],
    norm: Callable[[int], nn.Module],
    dropout: Callable[[str], nn.Module],
    has_dropout: dict[str, bool],
) -> OrderedDict[str, nn.Module]:
    """The layers of an MLP by name, in order, out of the parts given.

    A linear layer that feeds batch norm has no bias: the norm subtracts it again, its gradient is zero but for
    rounding, and Adam would amplify that.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if has_dropout["input_dropout"]:
        layers["drop_in"] = dropout("input_dropout")
    features = in_features
    norm_first = config.batchnorm and config.batchnorm_position == "before"
    for i, width in enumerate(config.widths):
        layers[str(i)] = linear(features, width, not norm_first)
        if norm_first:
            layers[f"norm{i}"] = norm(width)
        layers[f"act{i}"] = ACTIVATIONS[config.activation]()
        if config.batchnorm and not norm_first:
            layers[f"norm{i}"] = norm(width)
        if has_dropout["dropout"]:
            layers[f"drop{i}"] = dropout("dropout")
        features = width
    layers[str(config.depth)] = linear(features, out_features, True)
    return layers


def initialise(member: Tensor, fan_in: int, config: cfg.Mlp | cfg.Cnn, generator: torch.Generator) -> None:
    """Fill one member's weight (O, I), or (O, I, H, W) of a convolution, or bias (O,)."""
    if member.ndim > 1:
        INITS[config.init](member, config, generator)
        member.mul_(config.init_scale)
    elif config.bias_init is not None:
        member.fill_(config.bias_init)
    else:
        nn.init.uniform_(member, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator)
