"""What a process sets up before it trains: device, threads, determinism; and what the machine has: cores, memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config import Config, ConfigError
from trainer.engine import cgroup, cost

if TYPE_CHECKING:
    import torch

    from trainer.core.stack import Stack

SMALL_STEP_FLOPS = 5e7  # below it a second thread costs more than it brings, and far more on a busy machine
GPU_PRODUCTS = 5e6  # of a member's step: below, a CPU is about as fast, and need not be set up; docs/sweeps.md
CPU_MEMBERS = 128  # of a stack
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA's, AMD's and Windows' drivers under Linux


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


def release_freed_memory() -> None:
    """Return to the system what glibc keeps. Elsewhere: nothing."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def set_up(config: Config) -> torch.device:
    """Return the device to train on, determinism set. Raises ConfigError where there is no such device."""
    import torch

    keep_freed_memory()
    pytorch_threads()
    torch.set_num_threads(1)  # until the stack is there: data are the same bits whatever the number of cores
    name = device_of(config)
    available = {"cpu": True, "cuda": has_cuda(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise ConfigError([f"device: found {name}, but PyTorch sees no such device here; try device=cpu"])
    if name != "cpu":  # what we run on a CPU is deterministic anyway, and this call imports all of torch.compile
        torch.use_deterministic_algorithms(config.deterministic)
        # we read no memory that we did not write, so it need not be filled
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    return torch.device(name)


def device_of(config: Config) -> str:
    """Return the device that a run asks for; auto is a GPU, where there is one and it pays."""
    if config.device != "auto":
        return config.device
    is_small = cost.is_known(config) and cost.of_step(config) < GPU_PRODUCTS
    return "cuda" if not is_small and has_cuda() else "cpu"


@functools.cache
def has_cuda() -> bool:
    """Whether PyTorch sees a GPU.

    It is imported to be asked only where there may be one: the command of a sweep starts sooner without.
    """
    if sys.platform == "linux" and not any(os.path.exists(path) for path in GPU_FILES):
        return False
    import torch

    return torch.cuda.is_available()


def workers(configs: Sequence[Config]) -> int:
    """Return how many stacks to train at once: one per core; one alone on a GPU."""
    if any(device_of(c) != "cpu" for c in configs):
        return 1
    threads = max((c.threads or 1 for c in configs), default=1)
    return max(1, cores() // threads)


def most_members(configs: Sequence[Config]) -> int:
    """Return how many members a stack may have: on a GPU, as many as its memory allows."""
    return CPU_MEMBERS if any(device_of(c) == "cpu" for c in configs) else sys.maxsize


def cores() -> int:
    """Return how many processors this process may keep busy, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cgroup.cpu_quota())))


def set_threads(stack: Stack, threads: int | None) -> None:
    """Set PyTorch's threads for a stack: as configured; else `threads`, None being its own choice, where it pays."""
    import torch

    wanted = stack.members[0].config.threads
    weights = sum(p.numel() for p in stack.parameters.values())
    step_flops = 6 * weights * stack.batch_size * stack.accumulate  # forward 2, backward 4 per weight and example
    if wanted is not None:
        torch.set_num_threads(wanted)
    else:
        torch.set_num_threads(1 if step_flops < SMALL_STEP_FLOPS else threads or pytorch_threads())


@functools.cache
def pytorch_threads() -> int:
    """Return PyTorch's own choice, as it was before any of ours."""
    import torch

    return min(torch.get_num_threads(), cores())


def free_memory(device: torch.device) -> int:
    """Return the bytes that a new stack could take on a device; of a CPU, the least that system and container say."""
    import torch

    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # of stacks that are done
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        available = 4 * 2**30  # not Linux: a modest guess
    return int(min(available, cgroup.free_memory()))
