"""The text of --help: every group with its options, every key with its value, meaning, unit and range."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import textwrap
import typing
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from trainer import config as cfg
from trainer.cli.config_files import Sources
from trainer.language import is_chinese, translated

KEY_WIDTH, VALUE_WIDTH = 26, 14
COMMANDS = (
    "python -m trainer [KEY=VALUE ...]        train one run, in outputs/runs",
    "python -m trainer -m [KEY=A,B,C ...]     every combination, in outputs/sweeps",
    "python -m trainer resume=DIR [...]       continue a run or a sweep, or add to it",
    "python -m trainer --dry-run [...]        what would run, and what is done",
    "python -m trainer --cfg job [...]        show the configuration, train nothing",
    "python -m trainer.cure RUN               what helps a sick run, tried beside it",
    "python -m trainer.versus [KEY=A,B ...]   a fair comparison, each group tuned",
    "python -m trainer.trace [...]            one training step of it, taken apart",
)

OWN = (
    "One's own: KEY._target_=module.Name takes a class or function from this folder, model=custom "
    "model._target_=my_models.Net model.width=64, with its arguments as keys; presets stand in ./conf/model/*.yaml. "
    "See docs/own.md."
)


def text(sources: Sources, overrides: Sequence[str], width: int | None = None) -> str:
    """Write out every group and every knob with its value, unit and range.

    width: of a line in characters; the terminal's by default, between 80 and 120. Raises what composing raises.
    """
    values = sources.compose(overrides)
    width = width or min(120, max(80, shutil.get_terminal_size((100, 24)).columns))
    files = "Choices, files of conf/ (--help data=mnist tells about that one, with its keys):"
    lines = [*map(translated, COMMANDS), "", translated(files), ""]
    for group, options in sources.groups.items():
        lines += _columns([(f"{group}=", KEY_WIDTH)], ", ".join(sorted(options)), width)
    for override in overrides:
        if comments := _comments(sources, override):
            lines += ["", f"{override}:", ""]
            lines += [f"  {part}" for comment in comments for part in textwrap.wrap(comment, width - 2)]
    lines += ["", translated("Keys, with the values of this command line:"), ""]
    for key, value, meaning in knobs(cfg.Config, values):
        said, _, expected = meaning.removesuffix(")").rpartition(" (")
        meaning = f"{translated(said)}（{translated(expected)}）" if is_chinese() and said else translated(meaning)
        lines += _columns([(key, KEY_WIDTH), (value, VALUE_WIDTH)], meaning, width) if key else [""]
    lines += ["", *_wrapped(translated(OWN), width)]
    lines += ["", translated("Hydra's own flags: --hydra-help")]
    lines += [translated("Tab completion for bash:") + ' eval "$(trainer -sc install=bash)"']
    return "\n".join(lines)


def knobs(cls: type, values: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """List (dotted key, value, meaning with type, unit and range) of every knob; empty keys between groups."""
    out: list[tuple[str, str, str]] = []
    hints = typing.get_type_hints(cls)
    known = dataclasses.fields(cls)
    for field in known:
        hint = hints[field.name]
        options = typing.get_args(hint) if cfg.is_union(hint) else (hint,)
        if dataclasses.is_dataclass(options[0]):
            group = values[field.name]
            chosen = cfg.group_class(options, group)
            out += [("", "", ""), *knobs(chosen, group, f"{prefix}{field.name}.")]
        elif field.metadata.get("rest"):
            others = [key for key in values if key not in {f.name for f in known}]
            out += [(prefix + key, _short(values[key]), f"handed to {values['_target_']}") for key in others]
        elif field.name in values:
            if field.default is None:  # a key that not every option has: where it stands, null means nothing
                options = tuple(option for option in options if option is not type(None))
            meaning = f"{field.metadata['help']} ({cfg.expected(options, field.metadata)})"
            out.append((prefix + field.name, _short(values[field.name]), meaning))
    return out


def _comments(sources: Sources, override: str) -> list[str]:
    """Return the comments on top of the file that an override chooses."""
    group, _, option = override.lstrip("+").partition("=")
    file = sources.find(f"{group}/{option}") if group in sources.groups else None
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return [line[1:].removeprefix(" ") for line in comments if "@package" not in line]


def _columns(cells: Sequence[tuple[str, int]], meaning: str, width: int) -> list[str]:
    """Lay out cells of fixed widths and then text, wrapped in its column; a cell too long pushes the text down."""
    indent = 2 + sum(size for _, size in cells)
    head = "  " + "".join(f"{cell:<{size}}" for cell, size in cells)
    wrapped = _wrapped(meaning, width - indent)
    if len(head) > indent or not head.endswith(" "):
        return [head.rstrip(), *(" " * indent + line for line in wrapped)]
    return [head + wrapped[0], *(" " * indent + line for line in wrapped[1:])]


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text at blanks; Chinese, which has none and is two columns wide, where the line is full."""
    if text.isascii():
        return textwrap.wrap(text, width, break_on_hyphens=False)
    from rich.console import Console
    from rich.text import Text

    return [line.plain.rstrip() for line in Text(text).wrap(Console(), width)]


def _short(value: Any) -> str:
    """Write a value as it would be typed."""
    if isinstance(value, list):
        return "[" + ",".join(_short(item) for item in value) + "]"
    return OmegaConf.to_yaml({"v": value})[3:].strip()
