"""What a process sets up before it trains: device, threads, determinism, memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from trainer.config import Config, ConfigError, CustomModel
from trainer.core.loop import Stack

PYTORCH_THREADS = torch.get_num_threads()  # its own choice, before any of ours
SMALL_STEP_FLOPS = 5e7  # below it a second thread costs more than it brings, and far more on a busy machine


def keep_freed_memory() -> None:
    """Keep glibc from returning freed tensors to the system: a third of the time of a step at K = 45 is page faults.

    By default a block above 128 KiB is mapped on allocation and unmapped on free. Elsewhere than on glibc: nothing.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(m_mmap_threshold, 2**30)
    mallopt(m_trim_threshold, 2**31 - 1)


def set_up(config: Config) -> torch.device:
    """The device to train on, determinism set. Raises ConfigError where there is no such device."""
    keep_freed_memory()
    name = config.device
    if config.device == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise ConfigError([f"device: found {name}, but PyTorch sees no such device here; try device=cpu"])
    if name != "cpu":  # what we run on a CPU is deterministic anyway, and this call imports all of torch.compile
        torch.use_deterministic_algorithms(config.deterministic)
        # we read no memory that we did not write, so it need not be filled
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    return torch.device(name)


def workers(configs: Sequence[Config]) -> int:
    """How many stacks to train at once: one a core; one alone on a GPU, or where modules share PyTorch's own stream."""
    on_cpu = all(c.device == "cpu" or (c.device == "auto" and not torch.cuda.is_available()) for c in configs)
    if not on_cpu or any(isinstance(c.model, CustomModel) for c in configs):
        return 1
    threads = max((c.threads or 1 for c in configs), default=1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def set_threads(stack: Stack, workers: int) -> None:
    """PyTorch's threads for a stack: as configured; else one where it has company or its step is small."""
    wanted = stack.members[0].config.threads
    weights = sum(p.numel() for p in stack.parameters.values())
    step_flops = 6 * weights * stack.batch_size * stack.accumulate  # forward 2, backward 4 a weight and example
    if wanted is not None:
        torch.set_num_threads(wanted)
    else:
        torch.set_num_threads(1 if workers > 1 or step_flops < SMALL_STEP_FLOPS else PYTORCH_THREADS)


def free_memory(device: torch.device) -> int:
    """Bytes that a new stack could take on a device; for a CPU what the system calls available."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 4 * 2**30  # not Linux: a modest guess
