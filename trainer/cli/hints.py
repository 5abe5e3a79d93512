"""What is wrong with a command line that cannot be composed, all problems at once, and what to type instead."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from trainer import config as cfg
from trainer.cli import file_errors
from trainer.cli.config_files import Sources, is_argument, values_of
from trainer.config import ConfigError, nearest

READERS = ("hydra.", "omegaconf.", "yaml.", "antlr4.", "codecs", "<frozen codecs>")  # what reads configuration files
SWEEP_HINT = "several values make a sweep, which takes the flag -m; a list is written [1,2]"


def is_of_composing(error: BaseException) -> bool:
    """Tell whether an error means that a configuration cannot be composed; it is no bug of ours, nor the disk's."""
    if isinstance(error, HydraException | OmegaConfBaseException | yaml.YAMLError):
        return True
    if isinstance(error, OSError):
        return False
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, RecursionError):  # it may end anywhere
        return any(name.startswith(READERS) for name in frames)
    return (
        isinstance(error, ValueError | AssertionError | TypeError)
        and frames[-1:] != []
        and frames[-1].startswith(READERS)
    )


def problems(sources: Sources, overrides: Sequence[str], error: Exception) -> list[str]:
    """List what is wrong with the overrides and in the files they choose, where composing ended in `error`."""
    found: list[str] = []
    groups = sources.groups
    files = file_errors.survey(sources, overrides)
    chosen, values = list[str](), []
    mistaken = set[str]()  # groups of which a wrong option was chosen: nobody knows what keys they have
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as syntax:
            found.append(f"{text}: cannot be read as KEY=VALUE ({_one_line(syntax)}); quote special characters")
            continue
        key = override.key_or_group
        options = groups.get(key) or (sources.options(key) if key.startswith("hydra/") else set[str]())
        if not key:
            found.append(f"{text}: cannot be read as KEY=VALUE (no key); --help lists every key")
        elif key in groups and override.is_delete():
            found.append(f"{text}: cannot be left out; choose another, {key}=NAME: {', '.join(sorted(groups[key]))}")
        elif options:
            wrong = [choice for choice in values_of(override) if choice not in options]
            found += [f"{key}={choice}: no such option; {nearest(choice, options)}" for choice in wrong]
            mistaken |= {key} if wrong else set()
            if not wrong and key in groups:
                chosen.append(f"{key}={values_of(override)[0]}")
        elif not key.startswith("hydra"):
            values.append((text, override))
    if files.problems:  # without these files nothing can be composed, and no key be known
        return [*found, *files.problems]
    try:
        tree = sources.compose(chosen)
    except Exception as reason:
        return [*found, _of_files(reason, files)]
    for _, override in values:  # whose arguments the others may be
        group, _, rest = override.key_or_group.partition(".")
        if rest == "_target_" and "_target_" in (tree.get(group) or ()) and not override.is_sweep_override():
            tree[group]["_target_"] = override.value()
    good = []
    for text, override in values:
        if override.key_or_group.partition(".")[0] in mistaken:
            continue
        problem = _key_problem(sources, override, tree)
        if problem:
            found.append(problem)
        elif not override.is_sweep_override() and not override.is_delete():
            good.append(text)
    try:
        cfg.from_dict(sources.compose([*chosen, *good]) if good else tree)
    except ConfigError as more:
        keys = {line.split(":")[0] for line in found}
        found += file_errors.located([p for p in more.problems if p.split(":")[0] not in keys], files, overrides)
    except (HydraException, OmegaConfBaseException) as last:
        found += [] if found else [_one_line(last)]
    if not found:
        found = [f"{text}: {SWEEP_HINT}" for text, override in values if override.is_sweep_override()]
    return found or [_one_line(error)]


def _of_files(error: Exception, files: file_errors.Survey) -> str:
    """Describe an error that configuration files cause together, in one line."""
    if isinstance(error, RecursionError):
        return "a value refers to itself, by way of ${...}"
    return file_errors.located([_one_line(error)], files, [])[0]


def _key_problem(sources: Sources, override: Override, tree: Any) -> str | None:
    """Return what to type instead of an override's key; None where it exists in the tree."""
    key = override.key_or_group
    parts = key.split(".")
    for depth, part in enumerate(parts):
        above = ".".join(parts[:depth])
        where = ".".join(parts[: depth + 1])
        if not isinstance(tree, dict):
            return f"{key}: {above} is a value, not a group of keys"
        if part not in tree:
            known = {*tree, *(sources.groups if not above else ())} - {"_target_"}
            takes_any = "_target_" in tree  # arguments of a class: any may be added, the class checks them
            if takes_any and (override.is_add() or (depth == 1 and is_argument(key, {above: tree}))):
                return None
            close = difflib.get_close_matches(part, known, n=1, cutoff=0.6)
            owners = _owners(sources, where)
            if owners and not close:
                return f"{where}: no such key here; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
            if takes_any and not close:
                return f"{where}: no such key; an argument of {above}._target_ is added with a plus, +{where}=VALUE"
            return f"{where}: no such key; {nearest(part, known)}"
        tree = tree[part]
    if override.is_add() and not isinstance(tree, dict):
        return f"{key}: is there already; type it without the plus, {key}=VALUE"
    return None


def _owners(sources: Sources, key: str) -> list[str]:
    """List the options of a group, as GROUP=OPTION, whose files hold a dotted key."""
    group = key.partition(".")[0]
    owners = []
    for option in sorted(sources.groups.get(group, ())):
        file = file_errors.Survey(sources, {})
        file.file(f"{group}/{option}")
        if key in file.keys:
            owners.append(f"{group}={option}")
    return owners


def _one_line(error: Exception) -> str:
    """Shorten Hydra's message by the search path at its end, OmegaConf's to the key and its first line."""
    if key := getattr(error, "full_key", None):
        return f"{key}: {str(error).splitlines()[0]}"
    return " ".join(str(error).partition("Config search path:")[0].split()) or type(error).__name__
