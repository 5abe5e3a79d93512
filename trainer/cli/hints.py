"""What is wrong with a command line that cannot be composed, all problems at once, and what to type instead."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from trainer import config as cfg
from trainer.cli import SUBCOMMANDS, file_errors
from trainer.cli.config_files import SINGLE_KEYS, Sources, is_argument, parse, values_of
from trainer.config import ConfigError, closest, homes, no_such_key

READERS = ("hydra.", "omegaconf.", "yaml.", "antlr4.", "codecs", "<frozen codecs>")  # what reads configuration files
SWEEP_HINT = "several values make a sweep, which takes the flag -m; a list is written [1,2]"
WORDS = (*SUBCOMMANDS, "resume", "--help", "--version", "--dry-run", "--multirun")  # what may be typed without a =


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


def problems(sources: Sources, overrides: Sequence[str], error: Exception, is_sweep: bool = False) -> list[str]:
    """List what is wrong with the overrides and in the files they choose, where composing ended in `error`.

    is_sweep: whether a key may have several values.
    """
    groups = sources.groups
    found, overrides = unreadable(sources, overrides)
    files = file_errors.survey(sources, overrides)
    chosen, values = list[str](), []
    mistaken = set[str]()  # groups of which a wrong option was chosen: nobody knows what keys they have
    for text in overrides:
        override = parse(text)
        assert override is not None
        key = override.key_or_group
        options = groups.get(key) or (sources.options(key) if key.startswith("hydra/") else set[str]())
        if not key:
            found.append(f"{text}: cannot be read as KEY=VALUE (no key); --help lists every key")
        elif key in groups and override.is_delete():
            found.append(f"{text}: cannot be left out; choose another, {key}=NAME: {', '.join(sorted(groups[key]))}")
        elif options:
            wrong = [choice for choice in values_of(override) if choice not in options]
            found += [
                f"{key}={choice}: no such option; {file_errors.no_option(key, choice, options)}" for choice in wrong
            ]
            mistaken |= {key} if wrong else set()
            if not wrong and key in groups:
                chosen.append(f"{key}={values_of(override)[0]}")
        elif not key.startswith("hydra"):
            values.append((text, override))
        if override.is_sweep_override() and not is_sweep:
            found.append(f"{text}: {SWEEP_HINT}")
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
        found += [] if found else file_errors.located([_one_line(last)], files, overrides)
    return found or file_errors.located([_one_line(error)], files, overrides)


def unreadable(sources: Sources, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (what is wrong with words that are no KEY=VALUE, the overrides that can be read)."""
    found, good, rest = list[str](), list[str](), list(overrides)
    while rest:
        text = rest.pop(0)
        key, is_given, value = text.rstrip(":").partition("=")
        if (parse(text) is not None and (value or not rest or "=" in rest[0])) or text.startswith("~"):
            (good if parse(text) is not None else found).append(text)
            continue
        following = rest[0].lstrip("=") if rest and "=" not in rest[0].lstrip("=") else ""
        if _is_key(sources, key) and not value and (following or rest[:1] == ["="]):
            rest.pop(0)
            following = following or (rest.pop(0) if rest else "VALUE")
            found.append(f"{text} {following}: a key and its value are one word, {key}={following}")
        elif is_given:
            found.append(f"{text}: cannot be read as KEY=VALUE ({_why_unreadable(text)})")
        elif owners := [group for group, options in sources.groups.items() if closest(text, options, 1.0)]:
            option = closest(text, sources.groups[owners[0]])
            found.append(f"{text}: no key; did you mean {' or '.join(f'{group}={option}' for group in owners)}?")
        elif _is_key(sources, key):
            found.append(f"{text}: has no value; type {key}=VALUE")
        else:
            near = closest(text, WORDS)
            hint = f"did you mean {near}?" if near else "a key and its value are typed as KEY=VALUE"
            found.append(f"{text}: no such key or command; {hint}")
    return found, good


def _is_key(sources: Sources, word: str) -> bool:
    return word in sources.groups or word in SINGLE_KEYS or bool(homes(word.rpartition(".")[2]))


def _why_unreadable(text: str) -> str:
    """Say why an override cannot be read: what is most often the cause, else in the parser's words."""
    value = text.partition("=")[2]
    for opening, closing in ("[]", "()", "{}"):
        if value.count(opening) != value.count(closing):
            return f"a {opening} without its {closing}, or the other way round; quote the whole word, 'KEY=[1,2]'"
    if value.endswith(","):
        return "nothing stands behind the last comma"
    try:
        OverridesParser.create().parse_override(text)
    except HydraException as syntax:
        return f"{_one_line(syntax)}; quote special characters"
    raise AssertionError(text)


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
            close = closest(part, known, 0.6)
            owners = _owners(sources, where)
            if not above and homes(part) and closest(part, known, 1.0) is None:
                return no_such_key(where, known)
            if owners and not close:
                return f"{where}: no such key here; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
            if takes_any and not close and not homes(part):
                return f"{where}: no such key; an argument of {above}._target_ is added with a plus, +{where}=VALUE"
            return no_such_key(where, known)
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
    text = " ".join(str(error).partition("Config search path:")[0].split())
    if found := re.match(r"Cannot find primary config '(.*?)'", text):
        name = found[1].removesuffix(".yaml")
        return f"--config-name={name}: no such configuration; expected {name}.yaml in --config-dir or in conf/ here"
    if found := re.search(r"raised while composing config: (.*) full_key: (\S+)", text):
        return f"{found[2]}: {found[1]}"
    return text or type(error).__name__
