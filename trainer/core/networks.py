"""Which network a configuration asks for: as a stack of K members, and as one member's plain model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer import config as cfg
from trainer.config import Config
from trainer.core import global_streams
from trainer.core.cnn import cnn, draw_weights
from trainer.core.data import Dataset
from trainer.core.mlp import Mlp, Stacked, plain_mlp
from trainer.core.own_function import OwnFunction
from trainer.core.own_module import UserModule, build
from trainer.core.seeds import stream_seed
from trainer.core.surfaces import FUNCTIONS, coordinates


class Surface(Stacked):
    """K points, each at a function's value there: whatever comes in (K, B, I), out goes f (K, B, 1)."""

    def __init__(self, configs: Sequence[cfg.Surface]) -> None:
        """Raises AssertionError where the members' functions differ, ConfigError where the user's own is of no use."""
        super().__init__()
        first = configs[0]
        assert all(c.shape == first.shape for c in configs), "members of a stack have one function"
        self.names = coordinates(len(first.start))
        self.point = nn.Parameter(torch.tensor([c.start for c in configs]))  # (K, D)
        self.own = OwnFunction(first.function, len(first.start)) if first.is_own else None
        if self.own is None:
            self.value = FUNCTIONS[first.function].value
        else:
            for start in self.point:
                self.own.check_start(start)
            self.together = self.own.takes_all(self.point)

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, I) -> (K, B, 1)."""
        if self.own is None:
            value_K = self.value(self.point[:, 0], self.point[:, 1])
        else:
            value_K = self.own.values(self.point, self.together)
        return value_K.view(-1, 1, 1).expand(-1, x.shape[1], 1)

    def readings(self) -> dict[str, Tensor]:
        """Where every member's point is."""
        return {f"point/{name}": self.point.detach()[:, i] for i, name in enumerate(self.names)}


class PlainSurface(nn.Module):
    """One point: (B, I) -> (B, 1), the function's value there for every example."""

    def __init__(self, config: cfg.Surface) -> None:
        super().__init__()
        own = OwnFunction(config.function, len(config.start)) if config.is_own else None
        self.value = own.at if own else lambda point: FUNCTIONS[config.function].value(point[0], point[1])
        self.point = nn.Parameter(torch.tensor(config.start))

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.point).expand(len(x), 1)


Network = Mlp | Surface | UserModule


def stacked(configs: Sequence[Config], dataset: Dataset) -> Network:
    """Build the network of a stack, on the data set's device and in its precision.

    Raises ConfigError where a module or function of the user's own cannot be found, built or used, or a network does
    not fit the data.
    """
    first = configs[0].model
    device = dataset.x.device
    network: Network
    if isinstance(first, cfg.CustomModel | cfg.Cnn):
        assert len(configs) == 1, "such a network trains alone"
    if isinstance(first, cfg.CustomModel):
        module = build(first, dataset.shape, dataset.out_features, configs[0].seed)
        network = UserModule(module, dataset.shape, dataset.out_features)
    elif isinstance(first, cfg.Cnn):
        module = plain(first, dataset.in_features, dataset.out_features, dataset.shape)
        draw_weights(module, first, configs[0].seed)
        global_streams.seed(stream_seed(configs[0].seed, "dropout"))
        network = UserModule(module, (dataset.in_features,), dataset.out_features)
    elif isinstance(first, cfg.Surface):
        network = Surface([c.model for c in configs if isinstance(c.model, cfg.Surface)])
    else:
        mlps = [c.model for c in configs if isinstance(c.model, cfg.Mlp)]
        network = Mlp(mlps, [c.seed for c in configs], dataset.in_features, dataset.out_features, device)
    return network.to(device, dataset.x.dtype)


def plain(
    config: cfg.Mlp | cfg.Cnn | cfg.Surface, in_features: int, out_features: int, shape: Sequence[int]
) -> nn.Module:
    """Build one member's network in plain PyTorch, (B, I) -> (B, O); it loads the `model` of a checkpoint.

    shape: of an example, which a network for pictures wants. Raises ConfigError where that is no picture.
    """
    if isinstance(config, cfg.Cnn):
        return cnn(config, shape, out_features)
    return PlainSurface(config) if isinstance(config, cfg.Surface) else plain_mlp(config, in_features, out_features)


def predictor(network: Network, state: dict[str, Tensor], config: Config, dataset: Dataset) -> nn.Module:
    """Return a member's plain model in evaluation mode with the weights of `state`: (B, I) -> (B, O)."""
    if isinstance(network, UserModule):
        return network.predictor(state)
    assert isinstance(config.model, cfg.Mlp | cfg.Surface)
    return network.predictor(state, plain(config.model, dataset.in_features, dataset.out_features, dataset.shape))


def gradients(network: Network, loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Return the derivative of a loss by each parameter; None where it does not depend on it.

    Raises ConfigError where that goes wrong in a module or function of the user's own.
    """
    if isinstance(network, UserModule):
        return network.gradients(loss, parameters)
    if isinstance(network, Surface) and network.own is not None:
        return network.own.gradients(loss, parameters)
    return torch.autograd.grad(loss, parameters, allow_unused=True)
