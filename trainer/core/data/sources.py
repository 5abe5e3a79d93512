"""Loading a data set, whatever it comes from."""

from __future__ import annotations

import torch

from trainer import config as cfg
from trainer.core.data import builtin, own, pictures, torchvision_sets
from trainer.core.data.dataset import Dataset, Raw, assemble


def load(data: cfg.Data, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Dataset:
    """Read a data set and normalise it (statistics from the non-test examples only).

    Raises ConfigError where it is missing, damaged, or holds a value that is not finite.
    """
    return assemble(data, *_read(data), device=device, dtype=dtype)


def _read(data: cfg.Data) -> Raw:
    if isinstance(data, cfg.Table):
        from trainer.core.data import tables  # pandas, a third of a second

        return tables.read(data)
    if isinstance(data, cfg.Arrays):
        return own.read_npz(data)
    if isinstance(data, cfg.Folder):
        return pictures.read(data)
    if isinstance(data, cfg.CustomData):
        return own.read_custom(data)
    if isinstance(data, cfg.SklearnData):
        return own.read_sklearn(data)
    if isinstance(data, cfg.TorchvisionData):
        return torchvision_sets.read(data)
    if data.name in torchvision_sets.PRESETS:
        return torchvision_sets.read_preset(data)
    return getattr(builtin, data.name)(data)
