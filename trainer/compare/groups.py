"""Sort runs into groups that differ in nothing but the seed, and lay their values out as arrays.

Where a knob is only tuned, groups that differ in nothing else are one *contender*: it is compared at its best setting.
"""

import itertools
import json
import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.compare import knobs as knob_finder
from trainer.compare.budget import ALPHA
from trainer.compare.keys import NO_KNOB, hashable, natural, seed_of
from trainer.compare.knobs import Knob, Setting
from trainer.compare.results import Estimate, GroupSummary, Interval
from trainer.compare.statistics import Floats, mean_interval, number, share_interval
from trainer.judge.curves import INFINITE
from trainer.judge.overfit import Verdict
from trainer.text import few, key_of

UNFINISHED = ("failed", "interrupted")
NO_SEED = "no seed: "


@dataclass(frozen=True)
class Run:
    """One run as the comparison sees it; where something is unknown (another tool's run), its default."""

    path: str
    name: str
    config: dict[str, Any]  # flat: "model.depth" -> 2; with no config at all, a run is a group of its own
    verdict: Verdict
    measures: dict[str, float]  # gap, best_val_loss, final_val_loss, best_val_accuracy, test_loss, test_accuracy
    status: str | None = None  # completed, failed, interrupted
    epochs: int | None = None  # epochs trained, where its steps are epochs
    hashes: dict[str, str] = field(default_factory=dict)  # data_hash, split_hash, init_hash, order_hash
    overrides: tuple[str, ...] | None = None  # as typed; None where nobody knows
    sweep: str = ""  # the folder of the sweep it belongs to; "" for none
    tuned: tuple[str, ...] = ()  # keys that were tuned before it was run
    guessing_loss: float | None = None  # the loss of a network that has learned nothing
    first_loss: float | None = None  # the validation loss after the first epoch
    signals: dict[str, float] = field(default_factory=dict)  # what else was recorded: why.signals
    val_loss: Floats | None = field(default=None, compare=False, repr=False)  # (N,) by epoch from 1, of our runs
    is_lost: bool = False  # whether it stopped for that, or its losses were no numbers at the end
    metrics: dict[str, bool] = field(default_factory=dict)  # name behind test_ -> whether higher is better

    @property
    def counts(self) -> bool:
        """Whether its numbers enter means: it ended, and did not diverge."""
        return self.status not in UNFINISHED and not self.diverged

    @property
    def diverged(self) -> bool:
        """Whether it was judged so, or lost its numbers too early to be judged."""
        return self.verdict.verdict == "diverged" or self.is_lost

    @cached_property
    def numbers(self) -> str | None:
        """Return all numbers of a run that ended, if they are so many that no other has them by chance."""
        is_known = self.counts and len(self.measures) > 1 and "best_val_loss" in self.measures
        return json.dumps(sorted(self.measures.items())) if is_known else None

    @property
    def failed(self) -> bool:
        """Whether it came to nothing by itself: it diverged, or could not go on. One that was interrupted did not."""
        return self.status != "interrupted" and not self.counts


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    name: str  # as typed
    levels: tuple[int, ...]  # index into each compared knob's levels
    settled: tuple[int, ...]  # index into each tuned knob's levels
    runs: tuple[Run, ...]  # in order of seed, then path
    seeds: tuple[Any, ...]

    @cached_property
    def distinct(self) -> tuple[Run, ...]:
        """Return one run of each seed: a run that was recorded twice is one."""
        return tuple(dict(reversed(list(zip(self.seeds, self.runs, strict=True)))).values())[::-1]


@dataclass(frozen=True)
class Contender:
    """What is compared: a group; or, where something is tuned, all groups that differ in nothing else."""

    name: str
    levels: tuple[int, ...]
    members: tuple[int, ...]  # indices of its groups


@dataclass(frozen=True)
class Layout:
    """All groups of a comparison; G groups, C contenders, S seeds."""

    groups: tuple[Group, ...]
    knobs: tuple[Knob, ...]
    tuned: tuple[Knob, ...]
    contenders: tuple[Contender, ...]
    seeds: tuple[Any, ...]
    unit: str  # what a group repeats: "seed", or "run" where runs have none
    idle: tuple[Knob, ...] = ()  # what changes no number: twins that differ in these alone are one run

    def values_GS(self, measure: str) -> Floats:
        """Return a measure of every group and seed; nan where missing, not finite, diverged or unfinished."""
        total = np.zeros((len(self.groups), len(self.seeds)))
        count = np.zeros_like(total)
        for row, column, run in self.cells_of_runs:
            value = run.measures.get(measure)
            if run.counts and value is not None and abs(value) < INFINITE:
                total[row, column] += value
                count[row, column] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    @cached_property
    def runs(self) -> list[Run]:
        """Return the runs of all groups."""
        return [run for group in self.groups for run in group.runs]

    @property
    def combinations(self) -> int:
        """Count the combinations of the knobs' levels, run or not."""
        return math.prod(len(knob.levels) for knob in self.knobs)

    @property
    def is_chosen(self) -> bool:
        """Whether a contender has several settings, of which one is chosen."""
        return any(len(one.members) > 1 for one in self.contenders)

    @cached_property
    def by_setting(self) -> set[int]:
        """Return the knobs to be compared over the settings of the others, where each setting was run once.

        There nothing but other settings tells what chance does. Of these knobs there are so many settings that signs
        which all agree, 2 ways of 2^n, show a difference of any two values among all that are asked.
        """
        asked, found = 0, set[int]()
        if self.is_chosen or any(len(group.distinct) > 1 for group in self.groups):
            return found
        settings = {k: int(((self.cells(k) >= 0).sum(0) > 1).sum()) for k in range(len(self.knobs))}
        for k in sorted(settings, key=lambda k: -settings[k]):
            asked += math.comb(len(self.knobs[k].levels), 2)
            if 2.0 ** (1 - settings[k]) * asked > ALPHA:
                break
            found.add(k)
        return found

    @cached_property
    def metrics(self) -> dict[str, bool]:
        """Return the metrics that runs have beside loss and accuracy: name -> whether higher is better."""
        return {name: higher for run in self.runs for name, higher in run.metrics.items()}

    def is_higher_better(self, measure: str) -> bool:
        """Whether more of a measure is better: of an accuracy, and of a metric that is so."""
        name = measure.removeprefix("final_").removeprefix("best_").partition("_")[2]  # of test_, val_, train_
        return self.metrics.get(name, measure.endswith("accuracy"))

    @cached_property
    def failed_GS(self) -> NDArray[np.bool_]:
        """Return where a run came to nothing, and no other of the same group and seed ended."""
        failed = np.zeros((len(self.groups), len(self.seeds)), bool)
        ended = np.zeros_like(failed)
        for row, column, run in self.cells_of_runs:
            failed[row, column] |= run.failed
            ended[row, column] |= run.counts
        return failed & ~ended

    @cached_property
    def cells_of_runs(self) -> list[tuple[int, int, Run]]:
        """Return each run with the row of its group and the column of its seed."""
        column = {seed: index for index, seed in enumerate(self.seeds)}
        return [
            (row, column[seed], run)
            for row, group in enumerate(self.groups)
            for run, seed in zip(group.runs, group.seeds, strict=True)
        ]

    def cells(self, *knobs: int) -> NDArray[np.int64]:
        """Index contenders by level of the given knobs (an axis each), combination of the others last; -1: none."""
        if knobs not in self._tables:
            self._tables[knobs] = self._cells(knobs)
        return self._tables[knobs]

    def across(self, knob: int) -> NDArray[np.int64]:
        """Index contenders by level of a knob, as cells does; of a fraction, balanced columns in no order."""
        if knob not in self.fractions:
            return self.cells(knob)
        rows = [[c for c, one in enumerate(self.contenders) if one.levels[knob] == level] for level in range(
            len(self.knobs[knob].levels))]  # fmt: skip
        return np.array(rows)

    @cached_property
    def fractions(self) -> list[int]:
        """Return the knobs of which no two values were run at equal values of the others, but balanced against them.

        So it is in a regular fraction of resolution IV and more (Box and Hunter 1961): any three knobs' values occur
        equally often together, and what one does on average is not mixed with what another does, nor two together.
        """
        alone = [k for k in range(len(self.knobs)) if ((self.cells(k) >= 0).sum(0) < 2).all()]
        return alone if len(self.knobs) > 3 and all(map(self._is_balanced, alone)) else []

    def _is_balanced(self, knob: int) -> bool:
        others = (k for k in range(len(self.knobs)) if k != knob)
        for pair in itertools.combinations(others, 2):
            three = (knob, *pair)
            counts = Counter(tuple(one.levels[k] for k in three) for one in self.contenders)
            if len(counts) < math.prod(len(self.knobs[k].levels) for k in three) or len({*counts.values()}) > 1:
                return False
        return True

    @cached_property
    def _tables(self) -> dict[tuple[int, ...], NDArray[np.int64]]:
        return {}

    def _cells(self, knobs: tuple[int, ...]) -> NDArray[np.int64]:
        others = [k for k in range(len(self.knobs)) if k not in knobs]
        rests = sorted({tuple(one.levels[k] for k in others) for one in self.contenders})
        column = {rest: index for index, rest in enumerate(rests)}
        table = np.full((*(len(self.knobs[k].levels) for k in knobs), len(rests)), -1)
        for index, one in enumerate(self.contenders):
            table[(*(one.levels[k] for k in knobs), column[tuple(one.levels[k] for k in others)])] = index
        return table


def layout(runs: Sequence[Run], tune: Sequence[str] | None = None) -> Layout:
    """Sort runs into groups and find the knobs; the order of the runs does not matter. tune: see knobs.find.

    A knob that changes no number is none: its runs would be taken for repetitions.
    """
    plan = _layout(runs, tune)
    idle = tuple(knob for k, knob in enumerate(plan.knobs) if _is_idle(plan, k))
    if not idle or len(idle) == len(plan.knobs):
        return plan
    gone = {key for knob in idle for key in (knob.name, *knob.keys)}
    return replace(_layout([_without(run, gone) for run in runs], tune), idle=idle)


def _is_idle(plan: Layout, k: int) -> bool:
    """Whether all runs that differ in a knob's value alone have exactly the same numbers, in two places and more."""
    found: dict[Any, dict[int, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for row, column, run in plan.cells_of_runs:
        levels, settled = plan.groups[row].levels, plan.groups[row].settled
        found[levels[:k], levels[k + 1 :], settled, column][levels[k]].add(run.numbers)
    twins = [set().union(*by_level.values()) for by_level in found.values() if len(by_level) > 1]
    return all(len(one) == 1 for one in twins) and sum(one != {None} for one in twins) > 1


def _without(run: Run, gone: Set[str]) -> Run:
    overrides = None if run.overrides is None else tuple(one for one in run.overrides if key_of(one) not in gone)
    return replace(
        run, config={key: value for key, value in run.config.items() if key not in gone}, overrides=overrides
    )


def _layout(runs: Sequence[Run], tune: Sequence[str] | None) -> Layout:
    settings = [_setting(run) for run in runs]
    if tune is None and any(run.tuned for run in runs):
        tune = sorted({key for run in runs for key in run.tuned})
    knobs, tuned, rows = knob_finder.find(settings, tune)
    names = _repetitions(runs, rows)
    members: dict[knob_finder.Row, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[row].append(index)
    groups = []
    for levels, settled in sorted(members):
        seeded = sorted(
            ((names[i], runs[i]) for i in members[levels, settled]),
            key=lambda pair: (natural(pair[0]), pair[1].path),
        )
        name = _name([*knobs, *tuned], (*levels, *settled))
        groups.append(Group(name, levels, settled, tuple(run for _, run in seeded), tuple(seed for seed, _ in seeded)))
    rivals: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        rivals[group.levels].append(index)
    contenders = [Contender(_name(knobs, levels), levels, tuple(rivals[levels])) for levels in sorted(rivals)]
    seeds = sorted({seed for group in groups for seed in group.seeds}, key=natural)
    unit = "seed" if any(not str(seed).startswith(NO_SEED) for seed in seeds) else "run"
    return Layout(tuple(groups), tuple(knobs), tuple(tuned), tuple(contenders), tuple(seeds), unit)


def _setting(run: Run) -> Setting:
    config = run.config or {NO_KNOB: run.name}
    return Setting(config, None if run.overrides is None else knob_finder.typed(run.overrides))


def _repetitions(runs: Sequence[Run], rows: Sequence[knob_finder.Row]) -> list[Any]:
    """Return what tells each run from the others of its group, and pairs it with those of others: its seed.

    Without one nothing pairs; a seed that all runs have, and that yet gave different numbers, is none. Runs of one
    group with exactly the same numbers are one run, which was recorded again or ignores its seed.
    """
    seeds = [seed_of(run.config) for run in runs]
    same = [(row, run.numbers or run.path) for run, row in zip(runs, rows, strict=True)]
    ended = {cell for cell, run in zip(same, runs, strict=True) if run.numbers}
    differ = max(Counter(row for row, _ in ended).values(), default=0) > 1
    has_seeds = len({hashable(seed) for seed in seeds}) > 1 or not differ
    own = [
        hashable(seed) if has_seeds and seed is not None else f"{NO_SEED}{run.path}"
        for run, seed in zip(runs, seeds, strict=True)
    ]
    # of equal ones the first in order, which is put in last, whatever the order of the runs
    first = dict(sorted(zip(same, own, strict=True), key=lambda pair: natural(pair[1]), reverse=True))
    return [first[cell] for cell in same]


def _name(knobs: Sequence[Knob], levels: Sequence[int]) -> str:
    pairs = zip(knobs, levels, strict=True)
    texts = [knob.plain(i) for knob, i in pairs if knob.texts[i] or knob.levels[i] is not None]
    return " ".join(texts) or ("all runs" if not knobs else "the defaults")


def listed(plan: Layout, groups: Sequence[Group]) -> str:
    """Name groups, three at most; what all of them have in common is said once."""
    knobs = (*plan.knobs, *plan.tuned)
    rows = [(*group.levels, *group.settled) for group in groups]
    shared = [k for k in range(len(knobs)) if len(groups) > 1 and len({row[k] for row in rows}) == 1]
    apart = [k for k in range(len(knobs)) if k not in shared]
    if not shared or not apart:
        return few(group.name for group in groups)
    names = [_name([knobs[k] for k in apart], [row[k] for k in apart]) for row in rows]
    return f"{few(names)} (all with {_name([knobs[k] for k in shared], [rows[0][k] for k in shared])})"


def common_config(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the keys and values that all the runs share; what JSON cannot hold as text."""
    first, *rest = [{key: hashable(value) for key, value in run.config.items()} for run in runs]
    shared = [key for key, value in first.items() if all(key in other and other[key] == value for other in rest)]
    return {key: value if isinstance(value := runs[0].config[key], bool) else first[key] for key in shared}


def summaries(plan: Layout, values: Mapping[str, Floats]) -> list[GroupSummary]:
    """Describe the groups: runs, verdicts, and every measure with its interval."""
    intervals = {measure: mean_interval(values_GS) for measure, values_GS in values.items()}
    failed_G = plan.failed_GS.sum(1)
    return [
        GroupSummary(
            name=group.name,
            knobs={
                knob.name: knob.levels[i]
                for knob, i in zip((*plan.knobs, *plan.tuned), (*group.levels, *group.settled), strict=True)
            },
            config=common_config(group.runs),
            runs=[run.path for run in group.runs],
            seeds=[hashable(seed_of(run.config)) for run in group.runs],
            n=len(group.distinct),
            verdicts=dict(sorted(Counter(run.verdict.verdict for run in group.distinct).items())),
            overfit_share=share(sum(run.verdict.verdict == "overfit" for run in group.distinct), len(group.distinct)),
            measures={
                measure: Estimate(number(mean[g]), number(low[g]), number(high[g]), int(n[g]), number(sd[g]))
                for measure, (mean, sd, low, high, n) in intervals.items()
            },
            failed_share=share(int(failed_G[g]), len(group.distinct)),
            command=command(group),
        )
        for g, group in enumerate(plan.groups)
    ]


def command(group: Group) -> str | None:
    """Return the command that makes the group's runs, the seed left out; None where it is not known, or not one."""
    made: dict[tuple[str, ...], list[str]] = {}
    for run in group.runs:
        kept = knob_finder.own(run.overrides or ())
        made.setdefault(tuple(sorted(kept)), kept)
    if len(made) != 1 or any(run.overrides is None for run in group.runs):
        return None
    return shlex.join(["python", "-m", "trainer", *next(iter(made.values()))])


def share(hits: float, n: int) -> Interval:
    """Return a share with Wilson's interval; of nothing there is none."""
    return Interval(hits / n, *share_interval(hits, n), n) if n else Interval(None, None, None, 0)
