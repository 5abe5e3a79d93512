"""The keys of our launchers (conf/hydra/launcher), checked as those of a run are: hydra.launcher.KEY=VALUE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.cli.config_files import parse
from trainer.config import knob, problems_of

PREFIX = "hydra.launcher."


@dataclass
class Stack:
    """hydra/launcher=stack, the default."""

    max_members: int | None = knob("of one stack", "runs", ge=1)
    workers: int | None = knob("that train stacks side by side", "processes", ge=0)


@dataclass
class Engine:
    """What all that send stacks elsewhere have."""

    max_members: int = knob("of one stack", "runs", ge=1)
    jobs: int | None = knob("that stacks are shared out among", "jobs", ge=1)
    threads: int = knob("of a stack", "threads", ge=1)
    detach: bool = knob("submit and leave")


@dataclass
class Slurm(Engine):
    """hydra/launcher=slurm."""

    cluster: Literal["slurm", "local"] = knob("where")
    partition: str | None = knob("Slurm's")
    timeout_min: int = knob("of a job", "minutes", ge=1)
    max_num_timeout: int = knob("that a job is queued again", "times", ge=0)
    signal_delay_s: int = knob("before the limit", "seconds", ge=0)
    cpus_per_task: int = knob("of a job", "cores", ge=1)
    gpus_per_node: int | None = knob("of a job", "GPUs", ge=0)
    mem_gb: float | None = knob("of a job", "GB", gt=0)
    array_parallelism: int = knob("that Slurm runs at once", "jobs", ge=1)
    setup: list[str] | None = knob("lines of shell before a job")
    additional_parameters: Any = knob("of sbatch")


@dataclass
class Dask(Engine):
    """hydra/launcher=dask."""

    address: str | None = knob("of the scheduler")


@dataclass
class Ray(Engine):
    """hydra/launcher=ray."""

    address: str | None = knob("of the cluster")
    num_cpus: float = knob("of a job", ge=0)
    num_gpus: float = knob("of a job", ge=0)


KINDS: dict[str, type] = {"stack": Stack, "slurm": Slurm, "dask": Dask, "ray": Ray}


def problems(overrides: Sequence[str]) -> list[str]:
    """List what is wrong with the keys that were typed for a launcher of ours; nothing of another's."""
    named = [text.partition("=")[2] for text in overrides if text.startswith("hydra/launcher=")]
    kind = KINDS.get(named[-1] if named else "stack")
    typed = {text.lstrip("+"): parse(text) for text in overrides if text.lstrip("+").startswith(PREFIX)}
    if kind is None:
        return []
    values = {
        text.partition("=")[0].removeprefix(PREFIX): override.value()
        for text, override in typed.items()
        if override is not None and not override.is_sweep_override() and "${" not in text
    }
    return problems_of(kind, {key: v for key, v in values.items() if "." not in key}, PREFIX.rstrip("."))
