"""From plain nested values to a checked Config: every problem is found at once, each said in one line."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from trainer.config.contradictions import contradictions
from trainer.config.data import DATA_CLASSES, Data
from trainer.config.knob import ConfigError
from trainer.config.model import CustomModel, Mlp, model_class
from trainer.config.optimizer import CustomOptimizer, CustomSchedule, NamedSchedule, TorchOptimizer
from trainer.config.schema import Config
from trainer.config.words import SYNONYMS, choices, closest, expected, is_union, nearest, show, simplified

MISSING = "???"  # how a YAML file says that a value must be given


def from_dict(raw: Mapping[str, Any]) -> Config:
    """Build a checked Config from plain nested values.

    Raises ConfigError with every problem found: unknown and missing keys, wrong types, values out of range, and
    combinations that cannot work.
    """
    problems: list[str] = []
    config = _build(Config, raw, "", problems)
    if not problems:
        problems = contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config


def problems_of(cls: type, raw: Mapping[str, Any], path: str) -> list[str]:
    """List what is wrong with the given keys of a dataclass, which stand at `path`; keys that are missing are right."""
    problems: list[str] = []
    known = {f.name: f for f in fields(cls)}
    for key, value in raw.items():
        if key not in known:
            problems.append(no_such_key(f"{path}.{key}", known))
        elif _type_hints(cls)[key] is not Any:
            _convert(_type_hints(cls)[key], value, f"{path}.{key}", known[key], problems)
    return problems


def homes(key: str) -> list[str]:
    """List the dotted keys of all groups that end in this one: lr -> [optimizer.lr]."""
    key = SYNONYMS.get(simplified(key), key)
    return [f"{group}.{key}" for group, names in _group_keys().items() if key in names]


@functools.cache
def _group_keys() -> dict[str, set[str]]:
    """Return the keys of each group of keys, of all its kinds; not name, which many have."""
    hints = _type_hints(Config)
    kinds = {f.name: typing.get_args(hints[f.name]) or (hints[f.name],) for f in fields(Config)}
    return {
        group: {f.name for kind in own if dataclasses.is_dataclass(kind) for f in fields(kind)} - {"name"}
        for group, own in kinds.items()
    }


def no_such_key(where: str, known: typing.Iterable[str]) -> str:
    """Say that a dotted key does not exist, and which may be meant: one of its group, or of another group."""
    key = where.rpartition(".")[2]
    known = set(known)
    elsewhere = [home for home in homes(key) if home != where]
    if elsewhere and closest(key, known, cutoff=1.0) is None:
        return f"{where}: no such key; did you mean {' or '.join(elsewhere)}?"
    return f"{where}: no such key; {nearest(key, known)}"


def group_class(options: Sequence[Any], raw: Any) -> type:
    """Which of the classes of a field a group of keys describes."""
    keys = raw if isinstance(raw, Mapping) else {}
    name, target = keys.get("name"), str(keys.get("_target_", "torch.optim."))
    if Data in options:
        return DATA_CLASSES.get(name if isinstance(name, str) else None, Data)
    if Mlp in options:
        return model_class(raw)
    if TorchOptimizer in options:
        return TorchOptimizer if target.startswith("torch.optim.") else CustomOptimizer
    if NamedSchedule in options:
        return CustomSchedule if name == "custom" else NamedSchedule
    return options[0]


_type_hints = functools.cache(typing.get_type_hints)


def _build(cls: type, raw: Any, path: str, problems: list[str]) -> Any:
    """`cls` from the mapping `raw`, which stands at `path`; None, and a line in `problems`, where that fails."""
    if not isinstance(raw, Mapping):
        example = next(f.name for f in fields(cls))
        glued = isinstance(raw, str) and re.fullmatch(r"(\w+):(\S+)", raw)
        hint = f"; a space belongs behind the colon, {glued[1]}: {glued[2]}" if glued else ""
        how = f"a group of keys, set one by one: {path}.{example}=VALUE{hint}"
        problems.append(f"{path}: found {show(raw)}, expected {how}")
        return None
    before = len(problems)
    hints = _type_hints(cls)
    known = {f.name: f for f in fields(cls) if not f.metadata.get("rest")}
    values: dict[str, Any] = {}
    for name, f in known.items():
        where = f"{path}.{name}" if path else name
        if name in raw and raw[name] != MISSING:
            values[name] = _convert(hints[name], raw[name], where, f, problems)
        elif f.default is dataclasses.MISSING:
            problems.append(f"{where}: missing; give it a value, {where}=VALUE ({f.metadata.get('help', 'a choice')})")
    others = {str(key): value for key, value in raw.items() if key not in known}
    takes_rest = [f.name for f in fields(cls) if f.metadata.get("rest")]
    if takes_rest:
        values[takes_rest[0]] = others
    else:
        for key in others:
            where = f"{path}.{key}" if path else key
            problems.append(no_such_key(where, known))
    return cls(**values) if len(problems) == before else None


def _convert(hint: Any, value: Any, where: str, f: dataclasses.Field[Any], problems: list[str]) -> Any:
    """`value` as the type `hint` says, within the range of field `f`."""
    options = typing.get_args(hint) if is_union(hint) else (hint,)
    groups = [option for option in options if dataclasses.is_dataclass(option)]
    if groups:
        chosen = group_class(groups, value)
        if chosen is CustomModel and {"depth", "width", "activation"} <= set(value):
            problems.append(
                f"{where}._target_: stands beside the keys of {where}=mlp; choose {where}=custom as well, "
                f"{where}=custom {where}._target_={value['_target_']}"
            )
            return None
        return _build(typing.cast(type, chosen), value, where, problems)
    for option in options:
        ok, converted = _as_type(option, value)
        if ok:
            numbers = converted if isinstance(converted, list) else [converted]
            if not all(_in_range(number, f.metadata) for number in numbers):
                finite = all(math.isfinite(number) for number in numbers)
                what = expected(options, f.metadata) + ("" if finite else "; it must be finite")
                problems.append(f"{where}: found {show(value)}, expected {what}")
            return converted
    hint_text = ""
    names = [name for option in options for name in choices(option)]
    if close := closest(str(value), names):
        hint_text = f"; did you mean {close}?"
    elif int in options and (several := _several(where, value)):
        hint_text = f"; several values make a sweep: -m {several}"
    elif int in options and isinstance(value, float) and value.is_integer():
        hint_text = f"; write {int(value)}"
    problems.append(f"{where}: found {show(value)}, expected {expected(options, f.metadata)}{hint_text}")
    return None


def _several(where: str, value: Any) -> str:
    """Return how a sweep over what looks like several whole numbers is typed: for 0..4, 'seed=range(5)'."""
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        return f"{where}={','.join(map(str, value))}"
    found = re.fullmatch(r"(\d+)\s*(\.\.+|-|:|to)\s*(\d+)|range\s+(\d+)", str(value))
    if found is None:
        return ""
    first, between, last, count = found.groups()
    end = int(count or last) + (between not in (":", None))
    return f"'{where}=range({first + ',' if int(first or 0) else ''}{end})'"


def _as_type(option: Any, value: Any) -> tuple[bool, Any]:
    """(True, converted) where `value` is of the type `option`."""
    if option is type(None):
        return value is None, None
    if typing.get_origin(option) is list:
        (item,) = typing.get_args(option)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False, None
        converted = [_as_type(item, element) for element in value]
        return all(ok for ok, _ in converted), [element for _, element in converted]
    if names := choices(option):
        return value in names, value
    if option is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    return type(value) is option, value


def _in_range(value: Any, limits: Mapping[str, Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return (
        math.isfinite(value)
        and (limits["ge"] is None or value >= limits["ge"])
        and (limits["gt"] is None or value > limits["gt"])
        and (limits["le"] is None or value <= limits["le"])
        and (limits["lt"] is None or value < limits["lt"])
    )
