"""What a container may use: the limits of control groups on memory and processors, versions 1 and 2.

Sources: the Linux kernel's documentation, admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def free_memory() -> float:
    """Return the bytes that this process's control groups still grant, infinite where nothing limits them.

    Pages of files that were read and can be dropped count as free.
    """
    free = math.inf
    for folder in _folders("memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            statistics = dict(line.split() for line in _text(folder / "memory.stat").splitlines() if " " in line)
            droppable = float(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
            free = min(free, limit - used + droppable)
    return max(0.0, free)


def cpu_quota() -> float:
    """Return how many processors' time this process may use, infinite where nothing limits it."""
    quota = math.inf
    for folder in _folders("cpu"):
        share, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if not period:
            share, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
        if share.isdecimal() and period.isdecimal() and int(period):
            quota = min(quota, int(share) / int(period))
    return quota


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups, innermost first: each of them limits it."""
    for line in _text(MEMBERSHIP).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            root = MOUNT
        elif controller in controllers.split(","):
            root = MOUNT / controller
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        yield from (root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _number(*paths: Path) -> float | None:
    """Return the number in the first of some files that holds one; None for none, as for 'max'."""
    for path in paths:
        text = _text(path).strip()
        if text.isdecimal():
            return float(text)
    return None


def _text(path: Path) -> str:
    """Return a file's text, nothing where it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
