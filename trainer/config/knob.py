"""A key of the configuration: its meaning, unit and range, and what is wrong with a value as lines to print."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Any


class ConfigError(ValueError):
    """A user's mistake: `problems` holds one line each, saying where, what was found and what was expected."""

    __module__ = "trainer.config"  # where it is imported from

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[object, ...]:  # pickled by its problems: it crosses processes
        return type(self), (self.problems,)


def knob(
    help: str,
    unit: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A field with its meaning, unit and range: ge <= value <= le, gt < value < lt."""
    return field(default=default, metadata={"help": help, "unit": unit, "ge": ge, "gt": gt, "le": le, "lt": lt})


def rest(help: str) -> Any:
    """A field that takes the keys no other field takes (keyword arguments of a class the user names)."""
    return field(metadata={"help": help, "rest": True}, hash=False)


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dictionary that `from_dict` would read back; fields without a value are left out."""
    out: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("rest"):
            out |= value
        elif dataclasses.is_dataclass(value):
            out[f.name] = to_dict(value)
        elif value is not None or f.default is dataclasses.MISSING:
            out[f.name] = value
    return out


def flatten(tree: Mapping[str, Any], prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
