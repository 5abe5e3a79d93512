"""A comparison under way: the sweeps of its search, one after the other, then that of its fresh seeds.

Each sweep lies below the comparison's directory as any other does; versus.json there says what was tried, what was
chosen and why. Nothing is read from it to decide: what comes next follows from the runs, so that a command that was
killed goes on where it was, and ends with the same bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from trainer import files
from trainer.cli.batches import Batches
from trainer.cli.command import remove_if_empty
from trainer.config import ConfigError
from trainer.engine.jobs import Job, describe
from trainer.language import print_line
from trainer.versus import search
from trainer.versus.request import NAME, Request
from trainer.versus.search import Candidate, Outcome, Race


class Comparison:
    """The groups of a request, each with its race, and their final runs."""

    def __init__(self, request: Request, batches: Batches) -> None:
        self.request, self.batches = request, batches
        self.directory = batches.directory
        self.races = [Race(request.grids, request.measure) for _ in request.groups]
        self.searches: list[int] = []  # runs of each sweep of the search
        self.final: list[list[Job]] = []  # of each group
        self.failed: list[Job] = []  # runs that ended with an error
        self._speed = (0, 0.0)  # runs trained by this command, and the seconds they took

    def train(self) -> None:
        """Train what is not done. Raises ConfigError where a group cannot start, and what a launcher raises."""
        self.write()
        while wanted := [
            (group, candidate, seed) for group, race in enumerate(self.races) for candidate, seed in race.wanted()
        ]:
            self._search(wanted)
            self.write()
        count = len(self.request.seeds)
        jobs = [self._overrides(g, race.best, s) for g, race in enumerate(self.races) for s in self.request.seeds]
        ended = self._sweep("final", jobs, [group for group in range(len(self.races)) for _ in range(count)])
        self.final = [ended[i * count : (i + 1) * count] for i in range(len(self.races))]
        self.write()

    def first_runs(self) -> list[list[list[str]]]:
        """Return the overrides of every setting that is surely tried, by group."""
        return [[self._overrides(g, c, s) for c, s in race.wanted()] for g, race in enumerate(self.races)]

    def budget(self) -> list[str]:
        """Say how many runs the comparison takes at most."""
        request, groups = self.request, len(self.races)
        sizes = search.rungs(request.candidates)
        widened = sum(key in search.LOG_KEYS for key in request.grids)
        most = groups * search.most_runs(request.candidates, widened)
        few, fresh = groups * sum(sizes), groups * len(request.seeds)
        grids = ", ".join(f"{key} ({_span(values)})" for key, values in request.grids.items())
        name = "loss" if request.measure == "val_loss" else "accuracy: the losses of the groups do not compare"
        first, last = search.FIRST_TUNING_SEED, search.FIRST_TUNING_SEED + len(sizes) - 1
        seeds = f"seeds {first} to {last}" if last > first else f"seed {first}"
        out = [
            f"groups    {groups}: {' x '.join(self._axes())}",
            f"tuned     {grids}; by validation {name}",
            f"search    {few} runs, for each group {' + '.join(map(str, sizes))} with {seeds}: the better half goes on",
            f"final     {fresh} runs, for each group its best setting with seeds 0 to {len(request.seeds) - 1}",
            f"in all    {few + fresh} runs",
        ]
        if widened:
            out[-1] += (
                f"; at most {most + fresh}: where the edge of a grid wins, {search.WIDER} values are added beyond it, "
                f"{search.MOST_WIDENINGS} times at most"
            )
        return out

    def write(self) -> None:
        """Write versus.json, whole or not at all. Raises OSError."""
        files.write_sealed(self.directory / NAME, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return what is known so far: the plan, every run of the search, what was chosen and why."""
        request = self.request
        tuning = sorted({seed for race in self.races for one in race.candidates for seed in one.runs})
        return {
            "command": request.command,
            "compared": request.compared,
            "tuned": request.grids,
            "measure": request.measure,
            "seeds": {"tuning": tuning, "final": list(request.seeds)},
            "searches": self.searches,
            "groups": [self._entry(group) for group in range(len(self.races))],
        }

    def _entry(self, group: int) -> dict[str, Any]:
        request, race = self.request, self.races[group]
        overrides = request.groups[group]
        out = {"name": request.name(overrides), "overrides": overrides, **race.to_json()}
        if race.wanted():  # it is on
            return out | {"chosen": None}
        best = race.best
        final = [self._below(job) for job in self.final[group]] if self.final else []
        edges = [{"key": key, "edge": "upper" if upper else "lower"} for key, upper in race.edges(best.values)]
        return out | {"chosen": best.values, "why": race.why(), "at_edge": edges, "final": final}

    def _search(self, wanted: Sequence[tuple[int, Candidate, int]]) -> None:
        """Train the next runs of all races, as one sweep, and enter what they came to."""
        before = [len(race.widenings) for race in self.races]
        name = f"search-{len(self.searches) + 1}"
        jobs = self._sweep(name, [self._overrides(*run) for run in wanted], [group for group, _, _ in wanted])
        self.searches.append(len(jobs))
        for (_, candidate, seed), job in zip(wanted, jobs, strict=True):
            outcome = Outcome.of(self._below(job), job.summary or {"status": job.status})
            if self.request.measure == "val_accuracy" and job.status == "completed" and outcome.val_accuracy is None:
                what = "the losses of the groups do not compare, and there is no accuracy to compare instead"
                raise ConfigError([f"{' '.join(self.request.compared)}: {what}"])
            candidate.runs[seed] = outcome
        for race, overrides, count in zip(self.races, self.request.groups, before, strict=True):
            race.wanted()  # decides whether a grid is widened
            for one in race.widenings[count:]:
                name, where = self.request.name(overrides), f"{one['key']}={one['beyond']}"
                print_line(f"{name}: best at the edge, {where}; adds {', '.join(one['added'])}")
        self._say_what_is_left()

    def _sweep(self, name: str, jobs: Sequence[Sequence[str]], groups: Sequence[int]) -> list[Job]:
        """Train some runs; return them in order. groups: of each run.

        A run that fails is an outcome, the worst. Raises ConfigError where all runs of a group are refused: it cannot
        be compared.
        """
        began = time.perf_counter()
        ended = self.batches.train(self.directory / name, jobs)
        spent = time.perf_counter() - began
        self.batches.command.began |= any(job.status == "completed" for job in ended)
        for group in set(groups):
            errors = [job.error for job, of in zip(ended, groups, strict=True) if of == group]
            refused = [error.problems for error in errors if isinstance(error, ConfigError)]
            if len(refused) == len(errors):
                remove_if_empty(self.directory / name)
                raise ConfigError(list(dict.fromkeys(line for problems in refused for line in problems)))
        self.failed += [job for job in ended if job.status == "failed"]
        new = sum(not job.finished_earlier for job in ended)
        self._speed = (self._speed[0] + new, self._speed[1] + spent * (new > 0))
        before = f", {len(ended) - new} of them before" if new < len(ended) else ""
        print_line(f"{name:<10}{len(ended)} runs{before}, in {spent:.1f} s")
        for job in ended:
            if job.error is not None:
                print_line(f"run {self._below(job)} failed: {describe(job.error)}")
        return ended

    def _say_what_is_left(self) -> None:
        """Estimate the rest from the speed so far; grids that will be widened are not foreseen."""
        runs, seconds = self._speed
        left = sum(race.left() + len(self.request.seeds) for race in self.races)
        if runs:
            print_line(f"{'':<10}about {left} more take {left * seconds / runs:.0f} s")

    def _overrides(self, group: int, candidate: Candidate, seed: int) -> list[str]:
        tuned = [f"{key}={value}" for key, value in candidate.values.items()]
        return [*self.request.groups[group], *tuned, f"seed={seed}"]

    def _below(self, job: Job) -> str:
        return os.path.relpath(job.directory, self.directory)

    def _axes(self) -> list[str]:
        levels = [self.request.levels(group) for group in self.request.groups]
        out = []
        for key in self.request.compared:
            values = dict.fromkeys(level[key].partition("=")[2] for level in levels if key in level)
            out.append(f"{key}={','.join(values)}")
        return out


def _span(values: Sequence[str]) -> str:
    few = 6
    if len(values) <= few:
        return ", ".join(values)
    return f"{len(values)} values from {values[0]} to {values[-1]}"
