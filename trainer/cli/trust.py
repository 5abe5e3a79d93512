"""What the command that lies in a directory may ask for: `resume=DIR` repeats it, and DIR may be somebody else's.

Numbers and choices are harmless. What names code, or files that may name code, is checked before anything is called; it
is taken without question where it is typed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from trainer.cli.config_files import parse
from trainer.config import Config, ConfigError
from trainer.core import own_code

FOLDERS = ("--config-dir=", "--config-path=")
ENGINES = ("slurm", "dask", "ray")  # that stacks can be sent to
HARMLESS = (  # of Hydra's own keys: the others name code, folders, or what a launcher sends elsewhere
    "hydra.launcher.max_members",
    "hydra.launcher.workers",
    *(f"hydra.launcher.{key}" for key in ("cluster", "jobs", "threads", "detach", "timeout_min", "max_num_timeout")),
    *(f"hydra.launcher.{key}" for key in ("partition", "cpus_per_task", "gpus_per_node", "mem_gb")),
    *(f"hydra.launcher.{key}" for key in ("signal_delay_s", "array_parallelism", "num_cpus", "num_gpus")),
    "hydra.sweep.subdir",
    "hydra.job.name",
    "hydra.job.config.override_dirname.",
    "hydra.verbose",
)
OUR_PLUGINS = (*(f"hydra/launcher={name}" for name in ("stack", *ENGINES)), "hydra/sweeper=grid")


def command_problems(directory: Path, flags: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Say what must be typed again of the command that lies in a directory."""
    again = to_be_typed_again(directory, flags, overrides)
    return [_again(directory, text, "may name code to run") for text in again]


def to_be_typed_again(directory: Path, flags: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """List the flags and overrides of a command that `resume=` of its directory does not take from there."""
    out = []
    for flag in flags:
        folder = next((Path(flag.removeprefix(name)) for name in FOLDERS if flag.startswith(name)), None)
        is_name = re.fullmatch(r"--config-name=[\w-]+(\.yaml)?", flag) is not None
        if not is_name and (folder is None or not _is_ours(folder, directory)):
            out.append(flag)
    for text in overrides:
        override = parse(text)
        if override is None or (_concerns_hydra(override) and not _is_harmless(text, override)):
            out.append(text)
    return out


def check_code(directory: Path, configs: Iterable[Config], typed: Iterable[str] = ()) -> None:
    """See that runs of a directory that is resumed call nothing but classes of PyTorch's kinds, torchvision's
    networks and the user's own code.

    typed: overrides beside resume=, whose keys are trusted. Raises ConfigError where one would, before that code is
    imported.
    """
    trusted = {text.partition("=")[0] for text in typed}
    items = (item for config in configs for item in config.targets().items())
    called = ((key.partition(".")[0] if key.startswith("metrics.") else key, path) for key, path in items)
    named = dict.fromkeys(item for item in called if item[0] not in trusted)
    problems = [problem for key, target in named if (problem := _code_problem(directory, key, target))]
    if problems:
        raise ConfigError(problems)


def _code_problem(directory: Path, key: str, target: str) -> str | None:
    module = target.rpartition(".")[0]
    spec = own_code.find(module)
    text = f"{key}=[{target}]" if key == "metrics" else f"{key}={target}"
    if own_code.lies_in(spec, directory):
        return _again(directory, text, "is code that lies in this directory itself")
    if own_code.is_own(spec) or own_code.is_network_of_torchvision(target):
        return None
    from trainer.core import own_calls  # torch: most directories name no code

    try:
        found = own_calls.find_target(key, target)
    except ConfigError as error:
        return f"{directory}: {'; '.join(error.problems)}"
    return None if isinstance(found, type) else _again(directory, text, "calls a function outside the current folder")


def _again(directory: Path, text: str, why: str) -> str:
    return f"{directory}: its command has {text}, which {why}; if you trust it, type it again here"


def _is_ours(folder: Path, directory: Path) -> bool:
    """Whether a folder lies in the current one, and not in the directory that is resumed."""
    place = folder.resolve()
    return place.is_relative_to(Path.cwd().resolve()) and not place.is_relative_to(directory.resolve())


def _concerns_hydra(override: Override) -> bool:
    """Whether an override sets keys of Hydra's own, by its key or by the package it is put into."""
    names = (override.key_or_group, override.package or "")
    return any(re.split(r"[./]", name)[0] == "hydra" for name in names)


def _is_harmless(text: str, override: Override) -> bool:
    key = override.key_or_group
    return text in OUR_PLUGINS or (override.package is None and key.startswith(HARMLESS))
