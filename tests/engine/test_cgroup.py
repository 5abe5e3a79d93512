"""Limits of containers, read from trees of files like those the kernel shows."""

import math
from pathlib import Path

import pytest

from trainer.engine import cgroup, runtime

GIB = 2**30


def tree(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def test_version_2_every_group_above_limits_too(mounted: Path) -> None:
    tree(
        mounted,
        {
            "membership": "0::/pods/mine\n",
            "pods/mine/memory.max": "max\n",
            "pods/mine/memory.current": f"{1 * GIB}\n",
            "pods/mine/cpu.max": "150000 100000\n",
            "pods/memory.max": f"{4 * GIB}\n",
            "pods/memory.current": f"{3 * GIB}\n",
            "pods/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
            "pods/cpu.max": "max 100000\n",
        },
    )
    assert cgroup.free_memory() == 1.5 * GIB  # half a GiB of what is used can be dropped
    assert cgroup.cpu_quota() == 1.5


def test_version_1(mounted: Path) -> None:
    tree(
        mounted,
        {
            "membership": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
            "memory/docker/abc/memory.limit_in_bytes": f"{2 * GIB}\n",
            "memory/docker/abc/memory.usage_in_bytes": f"{GIB}\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": f"{9 * GIB}\n",
            "cpu/docker/abc/cpu.cfs_quota_us": "50000\n",
            "cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cgroup.free_memory() == GIB
    assert cgroup.cpu_quota() == 0.5
    assert runtime.cores() == 1


def test_inside_a_container_that_sees_its_own_group_as_the_root(mounted: Path) -> None:
    tree(mounted, {"membership": "0::/\n", "memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"})
    assert cgroup.free_memory() == 0


def test_without_limits_or_without_control_groups(mounted: Path) -> None:
    assert (cgroup.free_memory(), cgroup.cpu_quota()) == (math.inf, math.inf)
    tree(mounted, {"membership": "0::/nowhere\nnonsense\n", "memory.max": "not a number\n", "cpu.max": "max 0"})
    assert (cgroup.free_memory(), cgroup.cpu_quota()) == (math.inf, math.inf)
