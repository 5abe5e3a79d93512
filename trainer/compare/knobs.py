"""Find the knobs of a comparison: what the user changed, under the names that were typed.

Keys are taken in this order: what was typed (a run's overrides) before what merely varies, a choice of a file or a
class before the values that it brings. A key that follows from a typed one is *brought* by it. Typed keys that moved
together, or of which one exists only at some values of the other, are one knob: they cannot be told apart.
"""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.compare import keys
from trainer.compare.keys import ABSENT, CLASS, hashable, label, natural
from trainer.text import few, key_of

LONG = 32  # characters of a value that are repeated
FEW = 3  # as many keys that a choice brings are named


@dataclass(frozen=True)
class Knob:
    """What was changed: one key, or several that cannot be told apart. Levels in natural order, texts beside them."""

    name: str  # the key as typed, without "._target_" where a class is chosen; of several keys all
    keys: tuple[str, ...]  # every config key that changes with it, its own first
    together: tuple[str, ...]  # the typed keys it consists of, where they are several
    levels: tuple[Any, ...]  # of one key its values, else what stands behind "name=" of a text
    texts: tuple[str, ...]  # what to type for each level: "optimizer=sgd optimizer.momentum=0.9"; "" for a default
    brings: tuple[str, ...]  # what else each level sets: "optimizer.lr=0.001"

    @property
    def is_numeric(self) -> bool:
        """Whether its levels are numbers, which have an order and a shape."""
        return all(isinstance(level, int | float) for level in self.levels)

    def plain(self, level: int) -> str:
        """Name a level as it is typed."""
        default = f"no {self.name}" if self.levels[level] is None else f"{self.name}={label(self.levels[level])}"
        return self.texts[level] or default

    def short(self, level: int) -> str:
        """Name a level by its value, where another was named in full: of a long one the path that all share is …."""
        value = self.plain(level).removeprefix("" if self.together else f"{self.name}=")
        if self.together or len(value) <= LONG:
            return value
        values = [self.plain(i).removeprefix(f"{self.name}=") for i in range(len(self.levels))]
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(min(values), max(values), strict=False))
        path = re.sub("[^/. ]*$", "", "".join(one for one, _ in same))
        return f"…{value.removeprefix(path)}" if path else value

    def text(self, level: int) -> str:
        """Name a level as it is typed, with what cannot be told apart from it."""
        text = self.plain(level)
        return f"{text} (with {self.brings[level]})" if self.brings[level] else text


Row = tuple[tuple[int, ...], tuple[int, ...]]  # levels of the knobs to compare, and of those to tune


@dataclass(frozen=True)
class Setting:
    """What one run was given."""

    config: Mapping[str, Any]  # flat
    typed: Mapping[str, str] | None  # key -> value as typed, without the seed; None where nobody knows (another tool)


def typed(overrides: Sequence[str]) -> dict[str, str]:
    """Return what overrides set: key -> text of the value. Hydra's own keys are none of a run's."""
    found = {key_of(text): text.partition("=")[2] for text in overrides}
    return {key: value for key, value in found.items() if not key.startswith(("hydra.", "hydra/"))}


def own(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that make a run what it is: without Hydra's own keys and the seed."""
    return [tidy(text) for text in overrides if typed([text]) and not keys.is_seed(key_of(text))]


def find(settings: Sequence[Setting], tune: Sequence[str] | None = None) -> tuple[list[Knob], list[Knob], list[Row]]:
    """Return the knobs to compare, those to tune, each sorted by name; and each run's levels of the first and the last.

    tune: the keys that are only tuned; None guesses.
    """
    columns = _columns(settings)
    chosen = _chosen(settings, columns)
    tune = _to_tune(chosen) if tune is None else tune
    parts = _joined({key: column for key, column in chosen.items() if key not in tune})
    compared = sorted((_knob(part, chosen, columns, settings) for part in parts), key=lambda pair: pair[0].name)
    tuned = [_knob([key], chosen, columns, settings) for key in sorted(chosen) if key in tune]
    levels, settled = ([*zip(*(row for _, row in found), strict=True)] or [()] * len(settings)
                       for found in (compared, tuned))  # fmt: skip
    return [knob for knob, _ in compared], [knob for knob, _ in tuned], list(zip(levels, settled, strict=True))


def _to_tune(chosen: Mapping[str, list[Any]]) -> list[str]:
    """Guess what was varied for the sake of fairness only: the learning rate, where what needs its own is compared.

    And had several: one that follows from all else that was changed was changed with it.
    """
    rates, rivals = (list(filter(of, chosen)) for of in (keys.is_rate, keys.needs_a_rate))
    others = list(zip(*(column for key, column in chosen.items() if key not in rates), strict=True))
    return [
        rate
        for rate in rates
        if any(not follows(chosen[rival], chosen[rate]) for rival in rivals) and not follows(others, chosen[rate])
    ]


def _columns(settings: Sequence[Setting]) -> dict[str, list[Any]]:
    """Return the config keys that differ between runs with their values, but for seeds and what only names a run."""
    names = sorted({key for one in settings for key in one.config})
    columns = {key: [hashable(one.config.get(key, ABSENT)) for one in settings] for key in names}
    columns = {key: keys.alike(column) for key, column in columns.items() if len(set(column)) > 1}
    varying = {key: column for key, column in columns.items() if not keys.is_seed(key) and len(set(column)) > 1}
    told = {key: column for key, column in varying.items() if not keys.is_place(key) and not keys.is_label(key)}
    given = list(zip(*told.values(), *(columns[key] for key in columns if keys.is_seed(key)), strict=True))
    kept = {key for key in varying if key in told or not (keys.is_place(key) or _names_runs(varying[key], given))}
    return {key: column for key, column in varying.items() if key in kept} if told else varying


def _names_runs(column: Sequence[Any], given: Sequence[Any]) -> bool:
    """Whether a label says no more than which run it is, or what follows from all that was given to it."""
    return len(set(column)) == len(column) > 2 or (bool(given) and follows(given, column))


def _chosen(settings: Sequence[Setting], columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the keys that were changed by hand with their levels, choices first; levels are None where absent."""
    known = all(one.typed is not None for one in settings)
    typed_keys = (key for one in settings for key in one.typed or () if not keys.is_seed(key))
    names = dict.fromkeys(typed_keys) if known else {}
    chosen = {name: [level(name, one) for one in settings] for name in names}
    chosen = {name: column for name, column in chosen.items() if len(set(column)) > 1}
    order = {name: number for number, name in enumerate(chosen)}

    def preference(key: str) -> tuple[Any, ...]:
        column = columns.get(key, ())
        is_choice = key not in columns or key.endswith(CLASS)
        is_text = any(isinstance(value, str) and value != ABSENT for value in column)
        return not is_choice, key.count("."), not is_text, order.get(key, len(order)), len(key), key

    choices = [column for name, column in chosen.items() if name not in columns]  # of files: they bring values
    behind = list(zip(*choices, strict=True)) if choices else [()] * len(settings)
    for key in sorted(columns, key=preference):
        is_brought = follows(behind, columns[key]) if known else _is_argument(key, columns[key], chosen)
        if key not in chosen and not is_brought:
            chosen[key] = columns[key]
    return {key: chosen[key] for key in sorted(chosen, key=preference)}


def _is_argument(key: str, column: Sequence[Any], chosen: Mapping[str, list[Any]]) -> bool:
    """Whether a key is an argument of a class that was chosen, and the choice brings its value."""
    return any(
        (of := keys.parent(one)) != one and key.startswith(f"{of}.") and follows(chosen[one], column) for one in chosen
    )


def level(key: str, one: Setting) -> Any:
    """Return a run's level of a typed key: its value; of a choice of a file, the name of the file."""
    if key in one.config:
        return hashable(one.config[key])
    text = (one.typed or {}).get(key)
    if text is not None:
        return text
    if f"{key}.name" in one.config:
        return hashable(one.config[f"{key}.name"])
    target = one.config.get(key + CLASS)  # files of optimizers are called as their classes
    return str(target).rpartition(".")[2].lower() if target else ABSENT


def follows(leader: Sequence[Any], column: Sequence[Any]) -> bool:
    """Whether each value of `leader` goes with one value of `column`."""
    return len(set(zip(leader, column, strict=True))) == len(set(leader))


def _joined(chosen: Mapping[str, list[Any]]) -> list[list[str]]:
    """Group keys that moved together, or of which one exists only at some values of the other."""
    parts: list[list[str]] = []
    for key, column in chosen.items():
        near = [part for part in parts if any(_belong(other, chosen[other], key, column) for other in part)]
        parts = [part for part in parts if part not in near]
        parts.append([*itertools.chain(*near), key])
    return parts


def _belong(first: str, ones: Sequence[Any], second: str, others: Sequence[Any]) -> bool:
    if follows(ones, others) or follows(others, ones):
        return True
    is_argument = second.startswith(f"{keys.parent(first)}.")
    return is_argument and ABSENT in others  # that not every class takes


def _knob(
    part: Sequence[str], chosen: Mapping[str, list[Any]], columns: Mapping[str, list[Any]], settings: Sequence[Setting]
) -> tuple[Knob, list[int]]:
    """Make a knob of the keys in `part`, and return each run's level of it."""
    lead = part[0]
    rows = list(zip(*(chosen[key] for key in part), strict=True))
    order = sorted(set(rows), key=lambda row: tuple(map(natural, row)))
    first = {row: rows.index(row) for row in order}
    brought = [key for key, column in columns.items() if key not in chosen and follows(rows, column)]
    shown = sorted(
        (key for key in brought if _is_told(key, columns[key], part)),
        key=lambda key: (not key.endswith("lr"), f"{key}="),
    )
    classes = {key: _class_names(chosen[key]) for key in part if key.endswith(CLASS)}
    levels, texts = zip(*(_named(part, row, settings[first[row]], classes) for row in order), strict=True)
    apart = tuple(key.removesuffix(CLASS) for key in part if not key.startswith(f"{keys.parent(lead)}.") or key == lead)
    return Knob(
        name=lead.removesuffix(CLASS) if len(apart) < 2 else _and(apart),
        keys=(*part, *sorted(brought)),
        together=() if len(apart) < 2 else apart,
        levels=tuple(levels),
        texts=tuple(texts),
        brings=tuple(few((f"{key}={label(columns[key][first[row]])}" for key in shown), FEW) for row in order),
    ), [order.index(row) for row in rows]


def _is_told(key: str, column: Sequence[Any], part: Sequence[str]) -> bool:
    """Whether a key that a choice brings is worth naming: what every level has, and the choice does not say itself."""
    own = {f"{one.removesuffix(CLASS)}{end}" for one in part for end in (CLASS, ".name")}
    return ABSENT not in column and key not in own


def _class_names(column: Sequence[Any]) -> dict[str, str]:
    """Name classes by the last part of their paths, or by as many parts as tell them apart."""
    paths = {value for value in column if isinstance(value, str) and value != ABSENT}
    tails = {path: [path.split(".", n)[n] for n in range(path.count("."), -1, -1)] for path in paths}
    shared = Counter(itertools.chain(*tails.values()))
    return {path: next((tail for tail in some if shared[tail] == 1), path) for path, some in tails.items()}


Classes = Mapping[str, Mapping[str, str]]  # key of a class -> its path -> its name


def _named(part: Sequence[str], row: Sequence[Any], one: Setting, classes: Classes) -> tuple[Any, str]:
    """Return a level and what to type for it."""
    texts = [
        "" if value is None and one.typed is None and len(part) > 1 else _typed_text(key, value, one, classes)
        for key, value in zip(part, row, strict=True)
    ]
    if len(part) == 1:
        value = classes.get(part[0], {}).get(row[0], row[0])
        return (None if value == ABSENT else value), texts[0]
    whole, lead = " ".join(filter(None, texts)), part[0].removesuffix(CLASS)
    is_one = all(key.startswith(f"{keys.parent(part[0])}.") for key in part[1:])  # a choice and its arguments
    return (whole.removeprefix(f"{lead}=" if is_one else "") or None), whole


def _typed_text(key: str, value: Any, one: Setting, classes: Classes) -> str:
    if value == ABSENT:
        return ""
    if one.typed is not None and key in one.typed:
        return tidy(f"{key}={one.typed[key]}")
    if key.endswith(CLASS) and isinstance(value, str):
        key, value = key.removesuffix(CLASS), classes[key][value]
        if one.typed is not None and key in one.typed:  # the choice of a file that names it
            return ""
    return f"{key}={label(value)}"


def tidy(override: str) -> str:
    """Write true, false and null as YAML does, not as Python."""
    key, equals, value = override.partition("=")
    return f"{key}{equals}{value.lower() if value.lower() in ('true', 'false', 'null') else value}"


def _and(names: Sequence[str]) -> str:
    *some, last = names if len(names) <= FEW else (*names[: FEW - 1], f"{len(names) - FEW + 1} more")
    return f"{', '.join(some)} and {last}"
