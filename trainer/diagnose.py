"""Words for the command line: what every knob means, and what is wrong with an override, all problems at once."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import config as cfg
from trainer.config import ConfigError, nearest

_CHECKOUT = Path(__file__).parents[1] / "conf"
CONF = _CHECKOUT if _CHECKOUT.is_dir() else Path(__file__).parent / "conf"  # beside us, or inside an installed wheel
HIDDEN_GROUPS = {"sizes", "hydra"}


def problems(arguments: Sequence[str], error: Exception) -> list[str]:
    """What is wrong with the overrides of a command line that Hydra refused with `error`: a line for each."""
    found: list[str] = []
    groups = {path.name: {file.stem for file in path.glob("*.yaml")} for path in CONF.iterdir() if path.is_dir()}
    choices, values = [], []
    for text in (argument for argument in arguments if not argument.startswith("-")):
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as syntax:
            found.append(f"{text}: cannot be read as KEY=VALUE ({_one_line(syntax)}); quote special characters")
            continue
        key = override.key_or_group
        if key in groups:
            wrong = [choice for choice in _choices(override) if choice not in groups[key]]
            found += [f"{key}={choice}: no such option; {nearest(choice, groups[key])}" for choice in wrong]
            if not wrong:
                choices.append(f"{key}={_choices(override)[0]}")
        elif not key.startswith("hydra"):
            values.append((text, override))
    tree = _compose(choices)
    good = []
    for text, override in values:
        problem = _key_problem(override, tree, groups)
        if problem:
            found.append(problem)
        elif not override.is_sweep_override() and not override.is_delete():
            good.append(text)
    try:
        cfg.from_dict(_compose([*choices, *good]))
    except ConfigError as more:
        found += [line for line in more.problems if line.split(":")[0] not in {f.split(":")[0] for f in found}]
    except (HydraException, OmegaConfBaseException) as last:
        found += [] if found else [_one_line(last)]
    return found or [_one_line(error)]


def help_text(arguments: Sequence[str]) -> str:
    """Every group and every knob with its value, unit and range."""
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    values = _compose(overrides)
    lines = [
        "python -m trainer [KEY=VALUE ...]        train one run; outputs/runs/<date>/<time>",
        "python -m trainer -m [KEY=A,B,C ...]     a sweep: every combination; outputs/sweeps/<date>/<time>",
        "python -m trainer --cfg job [...]        show the configuration, train nothing",
        "",
        "Choices (conf/<group>/<option>.yaml; --help optimizer=sgd shows that option's keys):",
    ]
    for path in sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in HIDDEN_GROUPS):
        lines.append(f"  {path.name + '=':<14}{', '.join(sorted(file.stem for file in path.glob('*.yaml')))}")
    lines += ["", "Keys, with the values of this command line:"]
    lines += _knobs(cfg.Config, values, "")
    lines += ["", 'Hydra\'s own flags: --hydra-help. Tab completion for bash: eval "$(trainer -sc install=bash)"']
    return "\n".join(lines)


def _knobs(cls: type, values: dict[str, Any], prefix: str) -> list[str]:
    lines = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if dataclasses.is_dataclass(options[0]):
            group = values[field.name]
            chosen = cfg.CustomModel if len(options) == 2 and "_target_" in group else options[0]
            lines += ["", *_knobs(typing.cast(type, chosen), group, f"{prefix}{field.name}.")]
            continue
        if field.metadata.get("rest") or field.name not in values:
            continue
        value = OmegaConf.to_yaml({"v": values[field.name]}, resolve=True)[3:].strip() if values else ""
        value = (
            "[" + ",".join(str(v) for v in values[field.name]) + "]" if isinstance(values[field.name], list) else value
        )
        limits = cfg.describe_range(field.metadata)
        unit = field.metadata["unit"]
        notes = ", ".join(part for part in (cfg.describe_type(options), limits, unit) if part)
        lines.append(f"  {prefix + field.name:<30} {value:<22} {field.metadata['help']} ({notes})")
    return lines


def _key_problem(override: Override, tree: Any, groups: dict[str, set[str]]) -> str | None:
    """None where the override's dotted key exists in the tree, else what to type instead."""
    key = override.key_or_group
    parts = key.split(".")
    for depth, part in enumerate(parts):
        above = ".".join(parts[:depth])
        if not isinstance(tree, dict):
            return f"{key}: {above} is a value, not a group of keys"
        if part not in tree:
            known = {*tree, *(groups if not above else ())} - HIDDEN_GROUPS - {"_target_"}
            if "_target_" in tree:  # arguments of a class: any may be added, the class checks them
                where = f"{above} ({tree['_target_']})"
                return None if override.is_add() else f"{key}: no such key in {where}; {nearest(part, known)}"
            return f"{'.'.join(parts[: depth + 1])}: no such key; {nearest(part, known)}"
        tree = tree[part]
    return None


def _choices(override: Override) -> list[str]:
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    return [str(value) for value in values]


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    before = GlobalHydra.instance().hydra  # a sweep may be under way
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
    finally:
        GlobalHydra.instance().hydra = before
    return typing.cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True, throw_on_missing=False))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
