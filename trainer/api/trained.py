"""A checkpoint as a plain module that takes raw inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer import config as cfg
from trainer.config import Config, ConfigError, CustomModel
from trainer.core import global_streams, networks, own_calls, own_code, own_module, state


class Trained(nn.Module):
    """A trained network behind the normalisation that its inputs had: raw (B, ...) -> (B, O)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, shift: Tensor, scale: Tensor, shape: tuple[int, ...]) -> None:
        """shape: of an example that the network takes; shift, scale: x = (raw - shift) / scale, of flat examples."""
        super().__init__()
        self.network = network
        self.shape = shape
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, raw: Any) -> Tensor:
        """raw: (B, *shape) or (B, I), a tensor or an array of numbers."""
        x = torch.as_tensor(raw).to(self.shift)
        x = (x.reshape(len(x), -1) - self.shift) / self.scale
        return self.network(x.reshape(-1, *self.shape))


def load(path: Path, target: Callable[..., nn.Module] | None = None) -> nn.Module:
    """Read a run's checkpoints/best.pt or last.pt. Nothing is unpickled, and no random stream moves.

    target: what makes the network, instead of what the file names. Raises ConfigError.
    """
    saved = state.from_bytes(path.read_bytes())
    config = cfg.from_dict(saved["config"])
    shape = tuple(saved["input"]["shape"])
    with global_streams.kept(torch.device("cpu")):
        if isinstance(config.model, CustomModel):
            network = _own(config, config.model, path, shape, saved["out_features"], target)
        else:
            network = networks.plain(config.model, saved["in_features"], saved["out_features"], shape)
            shape = (saved["in_features"],)
    try:
        network.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from error
    return Trained(network, saved["input"]["shift"], saved["input"]["scale"], shape).eval()


def _own(
    config: Config,
    model: CustomModel,
    path: Path,
    shape: tuple[int, ...],
    out_features: int,
    target: Callable[..., nn.Module] | None,
) -> nn.Module:
    """Make a network of the user's own, as training did. Raises ConfigError."""
    if target is not None:
        return own_module.build(model, shape, out_features, config.seed, target)
    here = Path.cwd()
    before, sys.path[:] = list(sys.path), [str(here), *sys.path]  # as training found it
    try:
        module = model._target_.rpartition(".")[0]
        beside = [folder for folder in path.absolute().parents if here in folder.parents and folder != here / "outputs"]
        if any(own_code.lies_in(own_code.find(module), folder) for folder in beside):
            why = "lies beside the run, and may be somebody else's; if you trust it, say .model(target=CLASS)"
            raise ConfigError([f"{path}: its network {model._target_} {why}"])
        found = own_calls.find_target("model._target_", model._target_)
        is_builder = own_code.is_network_of_torchvision(model._target_)
        if not (isinstance(found, type) or own_code.is_own(own_code.find(module)) or is_builder):
            why = "is a function outside the current folder; if you trust it, say .model(target=FUNCTION)"
            raise ConfigError([f"{path}: its network {model._target_} {why}"])
        return own_module.build(model, shape, out_features, config.seed, found)
    finally:
        sys.path[:] = before
