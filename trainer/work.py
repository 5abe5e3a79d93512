"""What a process sets up before it trains: device, threads, determinism, data."""

from __future__ import annotations

import torch

from trainer import data
from trainer.config import Config, ConfigError, Device
from trainer.data import Dataset
from trainer.train import Stack

SMALL_STEP_FLOPS = 1e8  # below it a second thread costs more than it brings, and far more on a busy machine


def set_up(config: Config) -> torch.device:
    """The device to train on, determinism set. Raises ConfigError where there is no such device."""
    name = config.device.value
    if config.device is Device.auto:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise ConfigError([f"device: found {name}, but PyTorch sees no such device here; try device=cpu"])
    if name != "cpu":  # what we run on a CPU is deterministic anyway, and this call imports all of torch.compile
        torch.use_deterministic_algorithms(config.deterministic)
        # we read no memory that we did not write, so it need not be filled
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    return torch.device(name)


def set_threads(stack: Stack) -> int:
    """Set PyTorch's threads for a stack: what its configuration says, else one where a step is small."""
    wanted = stack.members[0].config.threads
    weights = sum(p.numel() for p in stack.parameters.values())
    step_flops = 6 * weights * stack.batch_size * stack.accumulate  # forward 2, backward 4 a weight and example
    if wanted is not None:
        torch.set_num_threads(wanted)
    elif step_flops < SMALL_STEP_FLOPS:
        torch.set_num_threads(1)
    return torch.get_num_threads()


def load(config: Config, device: torch.device) -> Dataset:
    """The run's data set on its device."""
    return data.load(config.data, device)
