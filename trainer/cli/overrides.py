"""Words for the command line: what every knob means, and what is wrong with an override, all problems at once."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import shutil
import textwrap
import traceback
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer import config as cfg
from trainer.config import ConfigError, nearest

_CHECKOUT = Path(__file__).parents[2] / "conf"
_INSTALLED = Path(__file__).parents[1] / "conf"  # inside a wheel
CONF = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
HIDDEN_GROUPS = {"sizes", "rates", "hydra"}
SWITCHES = {  # flags without a value
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--dry-run")
}


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(flags with their values, overrides) of a command line that may mix them.

    An override holds '=' or begins with '~'; a word without either, right after a flag, is that flag's value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    after_flag = False
    for argument in arguments:
        is_flag = argument.startswith("-")
        is_value = after_flag and "=" not in argument and not argument.startswith("~")
        (flags if is_flag or is_value else overrides).append(argument)
        after_flag = is_flag and "=" not in argument and argument not in SWITCHES
    return flags, overrides


def flag_problems(flags: Sequence[str]) -> list[str]:
    """What is wrong with the flags: a line for each."""
    parser, said = get_args_parser(), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            unknown = parser.parse_known_args(list(flags))[1]
    except SystemExit:
        return [said.getvalue().strip().rpartition("error: ")[2]]
    known = re.findall(r"(?<![\w-])--[a-z-]+", parser.format_usage())
    return [f"{flag}: no such flag; {nearest(flag, known)}" for flag in unknown]


def run_directory(overrides: Sequence[str], kind: str = "run") -> Path | None:
    """The directory a command line names for its run (or sweep), where it does so plainly."""
    texts = [text for text in overrides if text.startswith(f"hydra.{kind}.dir=")]
    if not texts or "$" in texts[-1]:
        return None
    try:
        return Path(str(OverridesParser.create().parse_override(texts[-1]).value()))
    except HydraException:
        return None


def quoted(value: str) -> str:
    """A value as Hydra's grammar reads it back, whatever stands in it."""
    if re.fullmatch(r"[\w./-]+", value):
        return value
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return f"'{escaped}'"


def is_hydras(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised it, not our own code."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return True
    if isinstance(error, OSError):  # a full disk is nobody's mistake
        return False
    frames = list(traceback.walk_tb(error.__traceback__))
    return (
        isinstance(error, ValueError)
        and bool(frames)
        and frames[-1][0].f_globals.get("__name__", "").startswith(("hydra.", "omegaconf."))
    )


def problems(conf: Path, overrides: Sequence[str], error: Exception) -> list[str]:
    """What is wrong with the overrides of a command line that Hydra refused with `error`: a line for each."""
    found: list[str] = []
    groups = {path.name: {file.stem for file in path.glob("*.yaml")} for path in conf.iterdir() if path.is_dir()}
    choices, values = [], []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as syntax:
            found.append(f"{text}: cannot be read as KEY=VALUE ({_one_line(syntax)}); quote special characters")
            continue
        key = override.key_or_group
        if not key:
            found.append(f"{text}: cannot be read as KEY=VALUE (no key); --help lists every key")
        elif key in HIDDEN_GROUPS:
            found.append(f"{key}: follows from other choices; set its keys themselves, e.g. model.width=256")
        elif key in groups and override.is_delete():
            found.append(f"{text}: cannot be left out; choose another with {key}=NAME, {_there_is(groups[key])}")
        elif key in groups:
            wrong = [choice for choice in _choices(override) if choice not in groups[key]]
            found += [f"{key}={choice}: no such option; {nearest(choice, groups[key])}" for choice in wrong]
            if not wrong:
                choices.append(f"{key}={_choices(override)[0]}")
        elif not key.startswith("hydra"):
            values.append((text, override))
    tree = compose_config(conf, choices)
    good = []
    for text, override in values:
        problem = _key_problem(conf, override, tree, groups)
        if problem:
            found.append(problem)
        elif not override.is_sweep_override() and not override.is_delete():
            good.append(text)
    try:
        cfg.from_dict(compose_config(conf, [*choices, *good]) if good else tree)
    except ConfigError as more:
        found += [line for line in more.problems if line.split(":")[0] not in {f.split(":")[0] for f in found}]
    except (HydraException, OmegaConfBaseException) as last:
        found += [] if found else [_one_line(last)]
    if not found:
        found = [f"{text}: {_SWEEP_HINT}" for text, override in values if override.is_sweep_override()]
    return found or [_one_line(error)]


_SWEEP_HINT = "several values make a sweep, which takes the flag -m; a list is written [1,2]"


def help_text(conf: Path, overrides: Sequence[str], width: int | None = None) -> str:
    """Every group and every knob with its value, unit and range. Raises ConfigError.

    width: of a line in characters; the terminal's by default, between 80 and 120.
    """
    try:
        values = compose_config(conf, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(problems(conf, overrides, error)) from error
    width = width or min(120, max(80, shutil.get_terminal_size((100, 24)).columns))
    lines = [
        "python -m trainer [KEY=VALUE ...]        train one run, in outputs/runs/<date>/<time>",
        "python -m trainer -m [KEY=A,B,C ...]     a sweep: every combination, in outputs/sweeps/<date>/<time>",
        "python -m trainer resume=DIR [...]       go on with a run or a sweep, or add to it",
        "python -m trainer --dry-run [...]        what would run, and what is done",
        "python -m trainer --cfg job [...]        show the configuration, train nothing",
        "python -m trainer.trace [...]            one training step of it, taken apart",
        "",
        "Choices, files of conf/ (--help optimizer=sgd shows that option's keys):",
        "",
    ]
    for path in sorted(path for path in conf.iterdir() if path.is_dir() and path.name not in HIDDEN_GROUPS):
        options = ", ".join(sorted(file.stem for file in path.glob("*.yaml")))
        lines += _columns([(path.name + "=", KEY_WIDTH)], options, width)
    lines += ["", "Keys, with the values of this command line:", ""]
    for key, value, text in knobs(cfg.Config, values):
        lines += _columns([(key, KEY_WIDTH), (value, VALUE_WIDTH)], text, width) if key else [""]
    lines += ["", 'Hydra\'s own flags: --hydra-help. Tab completion for bash: eval "$(trainer -sc install=bash)"']
    return "\n".join(lines)


def knobs(cls: type, values: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """(dotted key, value, meaning with type, unit and range) of every knob in `values`; empty keys between groups."""
    out: list[tuple[str, str, str]] = []
    hints = typing.get_type_hints(cls)
    known = dataclasses.fields(cls)
    for field in known:
        hint = hints[field.name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if dataclasses.is_dataclass(options[0]):
            group = values[field.name]
            chosen = cfg.model_class(group) if cfg.Mlp in options else options[0]
            out += [("", "", ""), *knobs(typing.cast(type, chosen), group, f"{prefix}{field.name}.")]
        elif field.metadata.get("rest"):
            others = [key for key in values if key not in {f.name for f in known}]
            out += [(prefix + key, _short(values[key]), f"handed to {values['_target_']}") for key in others]
        elif field.name in values:
            if field.default is None:  # a key that not every option has: where it stands, null means nothing
                options = tuple(option for option in options if option is not type(None))
            text = f"{field.metadata['help']} ({cfg.expected(options, field.metadata)})"
            out.append((prefix + field.name, _short(values[field.name]), text))
    return out


KEY_WIDTH, VALUE_WIDTH = 26, 14


def _columns(cells: Sequence[tuple[str, int]], text: str, width: int) -> list[str]:
    """Cells of fixed widths and then text, wrapped within its own column; a cell too long pushes the text down."""
    indent = 2 + sum(size for _, size in cells)
    head = "  " + "".join(f"{cell:<{size}}" for cell, size in cells)
    wrapped = textwrap.wrap(text, width - indent, break_on_hyphens=False)
    if len(head) > indent or not head.endswith(" "):
        return [head.rstrip(), *(" " * indent + line for line in wrapped)]
    return [head + wrapped[0], *(" " * indent + line for line in wrapped[1:])]


def _short(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, list):
        return "[" + ",".join(_short(item) for item in value) + "]"
    return OmegaConf.to_yaml({"v": value})[3:].strip()


def _key_problem(conf: Path, override: Override, tree: Any, groups: dict[str, set[str]]) -> str | None:
    """None where the override's dotted key exists in the tree, else what to type instead."""
    key = override.key_or_group
    parts = key.split(".")
    for depth, part in enumerate(parts):
        above = ".".join(parts[:depth])
        where = ".".join(parts[: depth + 1])
        if not isinstance(tree, dict):
            return f"{key}: {above} is a value, not a group of keys"
        if part not in tree:
            known = {*tree, *(groups if not above else ())} - HIDDEN_GROUPS - {"_target_"}
            takes_any = "_target_" in tree  # arguments of a class: any may be added, the class checks them
            if takes_any and override.is_add():
                return None
            close = difflib.get_close_matches(part, known, n=1, cutoff=0.6)
            owners = _owners(conf, where)
            if owners and not close:
                return f"{where}: no such key here; {_having(owners)}"
            if takes_any and not close:
                return f"{where}: no such key; an argument of {above}._target_ is added with a plus, +{where}=VALUE"
            return f"{where}: no such key; {nearest(part, known)}"
        tree = tree[part]
    if override.is_add() and not isinstance(tree, dict):
        return f"{key}: is there already; type it without the plus, {key}=VALUE"
    return None


def _owners(conf: Path, key: str) -> list[str]:
    """The options of a group, as GROUP=NAME, whose files hold a dotted key."""
    group, _, rest = key.partition(".")
    owners = []
    for path in sorted((conf / group).glob("*.yaml")) if rest else ():
        is_global = "@package _global_" in path.read_text(encoding="utf-8").partition("\n")[0]
        held: Any = OmegaConf.to_container(OmegaConf.load(path))
        for part in (key if is_global else rest).split("."):
            held = held.get(part) if isinstance(held, dict) else None
        if held is not None:
            owners.append(f"{group}={path.stem}")
    return owners


def _having(owners: Sequence[str]) -> str:
    return f"{owners[0]} has it" if len(owners) == 1 else f"{', '.join(owners)} have it"


def _there_is(options: Iterable[str]) -> str:
    return f"choose from {', '.join(sorted(options))}"


def _choices(override: Override) -> list[str]:
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    return ["null" if value is None else str(value) for value in values]


def compose_config(conf: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """What Hydra composes from a folder of configurations and overrides, as plain values."""
    before = GlobalHydra.instance().hydra  # a sweep may be under way
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
    finally:
        GlobalHydra.instance().hydra = before
    return typing.cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True, throw_on_missing=False))


def _one_line(error: Exception) -> str:
    """Hydra's words, without the search path it lists at the end."""
    return " ".join(str(error).partition("Config search path:")[0].split())
