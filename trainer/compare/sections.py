"""Compare what belongs together: each sweep and data set on its own, sweeps together only where they make one grid."""

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.compare.comparison import compare
from trainer.compare.groups import Layout, Run, common_config, layout
from trainer.compare.keys import CLASS, hashable, is_data, is_seed, label
from trainer.compare.results import Comparison
from trainer.text import few

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
    for run, sweep in zip(runs, _sweeps(runs, tune), strict=True):
        blocks.setdefault((_data(run), sweep), []).append(run)
    for (data, _), block in blocks.items():
        near = next((part for part in parts if _data(part[0]) == data and _are_one_grid(part, block, tune)), None)
        if near is None:
            parts.append(list(block))
        else:
            near += block
    names = [_name(part) for part in parts]
    names = [
        f"{name} ({_data_text(part[0])})" if names.count(name) > 1 and _data(part[0]) else name
        for name, part in zip(names, parts, strict=True)
    ]
    sections = []
    for name, part in zip(names, parts, strict=True):
        alone = len(parts) == 1 or part[0].sweep or _is_grid(layout(part, tune))
        sections.append(Section(name, part, compare(part, tune) if alone else compare([])))
    kept = [one for one in sections if one.found.groups]
    heaps = [one for one in sections if not one.found.groups]
    lines = [_heap(one) for one in heaps] + [_apart(one, two) for one, two in itertools.pairwise(kept)]
    return kept or [Section(_name(list(runs)), list(runs), compare(runs, tune))], lines


def _sweeps(runs: Sequence[Run], tune: Sequence[str] | None) -> list[str]:
    """Return each run's sweep: another tool's is the folder above, where its runs differ in more than the seed."""
    beside = Counter(os.path.dirname(run.path) for run in runs)
    folders: dict[Any, list[Run]] = {}
    for run in runs:
        if not run.sweep and run.overrides is None and run.config:
            folder = os.path.dirname(run.path)
            folder = folder if beside[folder] > 1 else os.path.dirname(folder)
            folders.setdefault((_data(run), folder), []).append(run)
    several = {one: within for one, within in folders.items() if len(layout(within, tune).contenders) > 1}
    above = {run.path: folder for (_, folder), within in several.items() for run in within}
    return [above.get(run.path, run.sweep) for run in runs]


def _data(run: Run) -> Any:
    return tuple((key, hashable(run.config[key])) for key in sorted(run.config) if is_data(key))


def _data_text(run: Run) -> str:
    return " ".join(f"{key.removesuffix(CLASS)}={label(value)}" for key, value in _data(run))


def _are_one_grid(one: Sequence[Run], two: Sequence[Run], tune: Sequence[str] | None) -> bool:
    """Whether two parts make one grid together, and nothing that differs between them hides behind something else."""
    plans = [layout(runs, tune) for runs in (one, two, [*one, *two])]
    hidden = [{key for knob in plan.knobs for key in knob.together} for plan in plans]
    varied = [{knob.name for knob in (*plan.knobs, *plan.tuned)} for plan in plans[:2]]
    is_tuned_in_one = {knob.name for knob in plans[2].tuned} <= varied[0] | varied[1]
    return hidden[2] <= hidden[0] | hidden[1] and is_tuned_in_one and _is_grid(plans[2])


def _is_grid(plan: Layout) -> bool:
    """Whether runs make one grid: most combinations of what differs between them were run."""
    return len(plan.knobs) <= MANY and len(plan.contenders) >= WHOLE * plan.combinations


def _name(runs: Sequence[Run]) -> str:
    """Name a section by its sweeps, and single runs by where they lie."""
    sweeps = list(dict.fromkeys(run.sweep for run in runs if run.sweep))
    if sweeps:
        return ", ".join(sweeps)
    if len(runs) == 1:
        return runs[0].path
    kind = "runs" if any(run.overrides is None for run in runs) else "single runs"
    try:
        return f"{kind} in {os.path.commonpath([os.path.dirname(run.path) for run in runs]) or '.'}"
    except ValueError:  # relative and absolute paths together
        return kind


def _heap(one: Section) -> str:
    keys = _keys([run.config for run in one.runs])
    count = len(one.runs)
    return (
        f"{one.name}: {count} runs that differ in {few(keys, of=' keys')} are not compared: too few of them are alike"
    )


def _apart(one: Section, two: Section) -> str:
    common = [common_config(section.runs) for section in (one, two)]
    keys = _keys(common)
    why = f"they differ in {few(keys, of=' keys')}" if keys else "what differs between them are not the same knobs"
    return f"{one.name} and {two.name} are not compared with each other: {why}"


def _keys(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys that every configuration has, and that differ."""
    shared = set.intersection(*(set(config) for config in configs)) if configs else set()
    return sorted(key for key in shared if len({hashable(config[key]) for config in configs}) > 1 and not is_seed(key))
