"""Sort runs into groups that differ in nothing but the seed, find the knobs, lay values out as group x seed arrays."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.compare.results import Estimate, GroupSummary, Interval
from trainer.compare.statistics import Floats, mean_interval, number, share_interval
from trainer.judge.overfit import INFINITE, Verdict

SEED = "seed"
UNFINISHED = ("failed", "interrupted")


@dataclass(frozen=True)
class Run:
    """One run as the comparison sees it; where something is unknown (another tool's run), its default."""

    path: str
    name: str
    config: dict[str, Any]  # flat: "model.depth" -> 2; with no config at all, a run is a group of its own
    verdict: Verdict
    measures: dict[str, float]  # gap, best_val_loss, final_val_loss, best_val_accuracy, test_loss, test_accuracy
    status: str | None = None  # completed, failed, interrupted
    epochs: int | None = None  # epochs trained
    hashes: dict[str, str] = field(default_factory=dict)  # data_hash, split_hash, init_hash, order_hash

    @property
    def counts(self) -> bool:
        """Whether its numbers enter means: it ended, and did not diverge."""
        return self.status not in UNFINISHED and self.verdict.verdict != "diverged"


@dataclass(frozen=True)
class Knob:
    """A config key that differs between groups, with the keys whose value follows from its own."""

    name: str  # the key; without "._target_" where a class is chosen
    keys: tuple[str, ...]  # its own key first
    levels: tuple[Any, ...]  # in natural order; of a class, the last part of its path


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    name: str
    levels: tuple[int, ...]  # index into each knob's levels
    runs: tuple[Run, ...]  # in order of seed, then path
    seeds: tuple[Any, ...]


@dataclass(frozen=True)
class Layout:
    """All groups of a comparison; G groups, S seeds."""

    groups: tuple[Group, ...]
    knobs: tuple[Knob, ...]
    seeds: tuple[Any, ...]

    def values_GS(self, measure: str) -> Floats:
        """Return a measure of every group and seed; nan where missing, not finite, diverged or unfinished."""
        column = {seed: index for index, seed in enumerate(self.seeds)}
        total = np.zeros((len(self.groups), len(self.seeds)))
        count = np.zeros_like(total)
        for row, group in enumerate(self.groups):
            for run, seed in zip(group.runs, group.seeds, strict=True):
                value = run.measures.get(measure)
                if run.counts and value is not None and abs(value) < INFINITE:
                    total[row, column[seed]] += value
                    count[row, column[seed]] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def cells(self, *knobs: int) -> NDArray[np.int64]:
        """Index groups by level of the given knobs (an axis each) and combination of the others (last); -1: none."""
        others = [k for k in range(len(self.knobs)) if k not in knobs]
        rests = sorted({tuple(group.levels[k] for k in others) for group in self.groups})
        column = {rest: index for index, rest in enumerate(rests)}
        table = np.full((*(len(self.knobs[k].levels) for k in knobs), len(rests)), -1)
        for index, group in enumerate(self.groups):
            table[(*(group.levels[k] for k in knobs), column[tuple(group.levels[k] for k in others)])] = index
        return table


def layout(runs: Sequence[Run]) -> Layout:
    """Sort runs into groups and find the knobs; the order of the runs does not matter."""
    configs = [run.config or {"run": run.name} for run in runs]
    keys = sorted({key for config in configs for key in config} - {SEED})
    columns = {key: [hashable(config.get(key)) for config in configs] for key in keys}
    varying = [key for key in keys if len(set(columns[key])) > 1]
    members: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, values in enumerate(
        zip(*(columns[key] for key in varying), strict=True) if varying else [()] * len(runs)
    ):
        members[values].append(index)
    knobs, levels_GK = _knobs(varying, list(members))
    order = sorted(range(len(members)), key=lambda g: levels_GK[g])
    indices = list(members.values())
    groups = []
    for g in order:
        # A run without a seed is paired with no other: its path stands for the seed.
        seeded = sorted(
            ((runs[i].config.get(SEED, f"no seed: {runs[i].path}"), runs[i]) for i in indices[g]),
            key=lambda pair: (natural(pair[0]), pair[1].path),
        )
        name = " ".join(f"{knob.name}={label(knob.levels[i])}" for knob, i in zip(knobs, levels_GK[g], strict=True))
        seeds = tuple(hashable(seed) for seed, _ in seeded)
        groups.append(Group(name or "all runs", levels_GK[g], tuple(run for _, run in seeded), seeds))
    seeds = sorted({seed for group in groups for seed in group.seeds}, key=natural)
    return Layout(tuple(groups), tuple(knobs), tuple(seeds))


def _knobs(keys: list[str], groups: list[tuple[Any, ...]]) -> tuple[list[Knob], list[tuple[int, ...]]]:
    """Find the knobs among the varying keys, and each group's levels of them.

    A key that follows from another one (each value of that one goes with one value of this) is no knob of its own: its
    effect cannot be separated from the other's. Of two that follow from each other, the one that chooses a class stays,
    else the one with text before numbers, else the shorter, else the first in the alphabet.
    """
    column = {key: [group[k] for group in groups] for k, key in enumerate(keys)}
    levels = {key: sorted(set(column[key]), key=natural) for key in keys}

    def preference(key: str) -> tuple[Any, ...]:
        text = any(isinstance(value, str) for value in levels[key])
        return -len(levels[key]), not key.endswith("_target_"), not text, len(key), key

    followers: dict[str, list[str]] = {}
    for key in sorted(keys, key=preference):
        for leader in followers:
            if len(set(zip(column[leader], column[key], strict=True))) == len(levels[leader]):
                followers[leader].append(key)
                break
        else:
            followers[key] = []
    knobs, level_of = [], []
    for key in sorted(followers):
        shown = [value.rpartition(".")[2] if isinstance(value, str) else value for value in levels[key]]
        is_class = key.endswith("._target_") and len(set(shown)) == len(shown)
        name = key.removesuffix("._target_")
        knobs.append(Knob(name, (key, *sorted(followers[key])), tuple(shown if is_class else levels[key])))
        level_of.append({value: index for index, value in enumerate(levels[key])})
    by_key = [[index[value] for value in column[knob.keys[0]]] for knob, index in zip(knobs, level_of, strict=True)]
    return knobs, [tuple(row) for row in zip(*by_key, strict=True)] if knobs else [()] * len(groups)


def hashable(value: Any) -> Any:
    """Turn a config value into one that can be compared and hashed: lists and dicts into JSON, True into no 1."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return json.dumps(value, sort_keys=True, default=str)


def natural(value: Any) -> tuple[int, float, str]:
    """Return a sort key for values of mixed types: None, then numbers by size, then text."""
    if value is None:
        return 0, 0.0, ""
    return (1, float(value), "") if isinstance(value, (int, float)) else (2, 0.0, str(value))


def label(value: Any) -> str:
    """Write a value as the command line would have it."""
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def common_config(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the keys and values that all the runs share; what JSON cannot hold as text."""
    first, *rest = [{key: hashable(value) for key, value in run.config.items()} for run in runs]
    shared = [key for key, value in first.items() if all(key in other and other[key] == value for other in rest)]
    return {key: value if isinstance(value := runs[0].config[key], bool) else first[key] for key in shared}


def summaries(plan: Layout, values: dict[str, Floats]) -> list[GroupSummary]:
    """Describe the groups: runs, verdicts, and every measure with its interval."""
    intervals = {measure: mean_interval(values_GS) for measure, values_GS in values.items()}
    return [
        GroupSummary(
            name=group.name,
            knobs={knob.name: knob.levels[i] for knob, i in zip(plan.knobs, group.levels, strict=True)},
            config=common_config(group.runs),
            runs=[run.path for run in group.runs],
            seeds=[hashable(run.config.get("seed")) for run in group.runs],
            n=len(group.runs),
            verdicts=dict(sorted(Counter(run.verdict.verdict for run in group.runs).items())),
            overfit_share=_overfit_share(group),
            measures={
                measure: Estimate(number(mean[g]), number(low[g]), number(high[g]), int(n[g]), number(sd[g]))
                for measure, (mean, sd, low, high, n) in intervals.items()
            },
        )
        for g, group in enumerate(plan.groups)
    ]


def _overfit_share(group: Group) -> Interval:
    """Return the share of a group's runs that overfit, with Wilson's interval."""
    hits = sum(run.verdict.verdict == "overfit" for run in group.runs)
    return Interval(hits / len(group.runs), *share_interval(hits, len(group.runs)), len(group.runs))
