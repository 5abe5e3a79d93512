"""Compare what belongs together: each sweep and data set on its own, sweeps together only where they make one grid."""

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.compare.comparison import compare
from trainer.compare.groups import Run, common_config, layout
from trainer.compare.knobs import hashable, is_seed
from trainer.compare.results import Comparison

DATA = {"data", "data.name", "data._target_", "data.path", "data.dataset", "dataset", "dataset.name", "dataset_name"}
WHOLE = 0.5  # runs make one grid where at least this share of the combinations of their knobs was run
MANY = 4  # single runs that differ in more keys than this are not compared


@dataclass(frozen=True)
class Section:
    """Runs that are compared with each other."""

    name: str
    runs: list[Run]
    found: Comparison


def compare_sections(runs: Sequence[Run], tune: Sequence[str] | None = None) -> tuple[list[Section], list[str]]:
    """Compare the runs of each section; and say, in a line each, what is not compared with what."""
    parts: list[list[Run]] = []
    blocks: dict[tuple[Any, str], list[Run]] = {}
    for run in runs:
        blocks.setdefault((_data(run), run.sweep), []).append(run)
    for (data, _), block in blocks.items():
        near = next((part for part in parts if _data(part[0]) == data and _are_one_grid(part, block, tune)), None)
        if near is None:
            parts.append(list(block))
        else:
            near += block
    sections = []
    for part in parts:
        alone = len(parts) == 1 or part[0].sweep or _is_grid(part, tune)
        sections.append(Section(_name(part), part, compare(part, tune) if alone else compare([])))
    kept = [one for one in sections if one.found.groups]
    heaps = [one for one in sections if not one.found.groups]
    lines = [_heap(one.runs) for one in heaps] + [_apart(one, two) for one, two in itertools.pairwise(kept)]
    return kept or [Section(_name(list(runs)), list(runs), compare(runs, tune))], lines


def _data(run: Run) -> Any:
    return tuple((key, hashable(run.config[key])) for key in sorted(DATA & run.config.keys()))


def _are_one_grid(one: Sequence[Run], two: Sequence[Run], tune: Sequence[str] | None) -> bool:
    """Whether two parts make one grid together, and nothing that differs between them hides behind something else."""
    hidden = [{key for knob in layout(runs, tune).knobs for key in knob.together} for runs in (one, two, [*one, *two])]
    return hidden[2] <= hidden[0] | hidden[1] and _is_grid([*one, *two], tune)


def _is_grid(runs: Sequence[Run], tune: Sequence[str] | None) -> bool:
    """Whether runs make one grid: most combinations of what differs between them were run."""
    plan = layout(runs, tune)
    combinations = math.prod(len(knob.levels) for knob in plan.knobs)
    return len(plan.knobs) <= MANY and len(plan.contenders) >= WHOLE * combinations


def _name(runs: Sequence[Run]) -> str:
    """Name a section by its sweeps, and single runs by where they lie."""
    sweeps = list(dict.fromkeys(run.sweep for run in runs if run.sweep))
    if sweeps:
        return ", ".join(sweeps)
    if len(runs) == 1:
        return runs[0].path
    try:
        return f"single runs in {os.path.commonpath([os.path.dirname(run.path) for run in runs]) or '.'}"
    except ValueError:  # relative and absolute paths together
        return "single runs"


def _heap(runs: Sequence[Run]) -> str:
    keys = _keys([run.config for run in runs])
    return f"{_name(runs)}: {len(runs)} runs that differ in {_some(keys)} are not compared: too few of them are alike"


def _apart(one: Section, two: Section) -> str:
    common = [common_config(section.runs) for section in (one, two)]
    keys = _keys(common)
    why = f"they differ in {_some(keys)}" if keys else "what differs between them are not the same knobs"
    return f"{one.name} and {two.name} are not compared with each other: {why}"


def _keys(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys that every configuration has, and that differ."""
    shared = set.intersection(*(set(config) for config in configs)) if configs else set()
    return sorted(key for key in shared if len({hashable(config[key]) for config in configs}) > 1 and not is_seed(key))


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more keys" if len(keys) > 3 else "")
