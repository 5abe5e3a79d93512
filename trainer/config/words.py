"""Types, ranges and values in words; the known word that is nearest to one that was mistyped."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

# What other tools, and habit, call it, in small letters without hyphens and underscores -> what it is called here.
SYNONYMS = {"gpu": "cuda", "learningrate": "lr", "layers": "depth", "hiddensize": "width", "bs": "batch_size"}


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """', did you mean <the closest known word>?' or the list to choose from."""
    known = sorted(known)
    close = closest(word, known)
    return f"did you mean {close}?" if close else f"choose from {', '.join(known)}"


def closest(word: str, known: typing.Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known word that was meant: the same but for case, hyphens, underscores and module; a near one."""
    plain = {simplified(name): name for name in known}
    meant = (word, SYNONYMS.get(simplified(word), ""), word.rpartition(".")[2])
    same = next((plain[simplified(one)] for one in meant if simplified(one) in plain), None)
    close = difflib.get_close_matches(simplified(word), plain, n=1, cutoff=cutoff)
    return same or (plain[close[0]] if close else None)


def simplified(word: str) -> str:
    return re.sub(r"[-_\s]", "", word.lower())


def is_union(hint: Any) -> bool:
    """Whether a type is one of several, such as int | None."""
    return typing.get_origin(hint) in {typing.Union, types.UnionType}


def choices(option: Any) -> tuple[str, ...]:
    """The strings of a Literal; none for any other type."""
    return typing.get_args(option) if typing.get_origin(option) is Literal else ()


def describe_type(options: Sequence[Any]) -> str:
    """A type in words: 'a whole number', 'one of relu, tanh', 'a number or null'."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", type(None): "null"}
    out = []
    for option in options:
        if typing.get_origin(option) is list:
            examples = {int: "a list such as [64,32]", str: "a list such as [f1,auroc]"}
            out.append(examples.get(typing.get_args(option)[0], "a list of numbers"))
        elif names := choices(option):
            out.append("one of " + ", ".join(names))
        else:
            out.append(words[option])
    return " or ".join(out)


def describe_range(limits: Mapping[str, Any]) -> str:
    """A range in words: '>= 0 and < 1', or nothing."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    powers = {2**63: "2^63"}
    bounds = ((sign, limits[name]) for name, sign in signs.items() if limits.get(name) is not None)
    return " and ".join(f"{sign} {powers.get(bound) or f'{bound:g}'}" for sign, bound in bounds)


def expected(options: Sequence[Any], limits: Mapping[str, Any]) -> str:
    """Type, unit and range in words: 'a whole number of examples >= 1, or null'."""
    bounds = describe_range(limits)
    kinds = describe_type([option for option in options if option is not type(None)])
    unit = f" of {limits['unit']}" if limits["unit"] else ""
    null = ", or null" if type(None) in options else ""
    return f"{kinds}{unit}{' ' + bounds if bounds else ''}{null}"


def show(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(show(item) for item in value) + "]"
    if value is None or value == "":
        return "null" if value is None else "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)
