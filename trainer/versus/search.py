"""Which setting each group is compared at: a race of candidates over seeds, decided by the validation split alone.

Successive halving (Jamieson and Talwalkar 2016), with seeds as its resource: every candidate trains with one seed, the
better half goes on with another, until one is left. Each run has its whole number of epochs, so that no schedule is cut
short. Candidates that are compared have run with the same seeds, so their means are paired.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.text import plural

FIRST_TUNING_SEED = 10_000  # the seeds of the comparison itself are 0, 1, 2, ...: always below
WIDER = 3  # values that are added beyond an edge
MOST_WIDENINGS = 2  # of one group
DIGITS = 3  # of a value in a grid of ours
LOG_KEYS = ("optimizer.lr", "optimizer.weight_decay")  # tuned over orders of magnitude: these grids can be widened
LEAST_RATE, MOST_RATE = 1e-4, 10.0  # of the default grid: Adam's usual rates lie far below those of plain SGD
WEIGHT_DECAYS = ("0", "1e-05", "0.0001", "0.001", "0.01", "0.1")


def rate_grid(count: int) -> list[str]:
    """Return learning rates from LEAST_RATE to MOST_RATE, as one types them, equally far apart on a log scale."""
    step = (MOST_RATE / LEAST_RATE) ** (1 / (count - 1))
    return [_typed(LEAST_RATE * step**i) for i in range(count)]


def most_runs(candidates: int, keys: int) -> int:
    """Return how many runs a race of this many candidates takes at most; keys: how many grids can be widened."""

    def after(rung: int, racing: int, widenings: int) -> int:
        kept = math.ceil(racing / 2)
        next_rung = 0 if racing == 1 else after(rung, 1, 0) if kept == 1 else kept + after(rung + 1, kept, widenings)
        if not widenings or not keys:
            return next_rung
        added = WIDER * keys
        return max(next_rung, added * (rung + 1) + after(rung, racing + added, widenings - 1))

    return candidates + after(0, candidates, MOST_WIDENINGS)


def rungs(candidates: int) -> list[int]:
    """Return how many candidates train at each rung of a race, if no grid is widened: 15, 8, 4, 2."""
    out = [candidates]
    while out[-1] > 2:
        out.append(math.ceil(out[-1] / 2))
    return out


@dataclass(frozen=True)
class Outcome:
    """What a run of a search came to, on the validation split; at its best epoch."""

    path: str  # below the comparison's directory
    status: str  # completed, failed
    verdict: str | None
    val_loss: float | None
    val_accuracy: float | None

    @classmethod
    def of(cls, path: str, summary: Mapping[str, Any]) -> Outcome:
        """Take the validation numbers out of a run's summary; nothing of the test split."""
        best = summary.get("best") or {}
        verdict = (summary.get("verdict") or {}).get("verdict")
        return cls(path, summary["status"], verdict, *(_number(best.get(f"val/{name}")) for name in MEASURES.values()))

    def cost(self, measure: str) -> float:
        """Return how bad it is, lower is better: infinity for a run that failed or diverged, however good once."""
        value = self.val_loss if measure == "val_loss" else self.val_accuracy
        if self.status != "completed" or self.verdict == "diverged" or value is None or self.val_loss is None:
            return math.inf
        if not math.isfinite(self.val_loss) or not math.isfinite(value):
            return math.inf
        return value if measure == "val_loss" else -value


MEASURES = {"val_loss": "loss", "val_accuracy": "accuracy"}  # what can decide -> its tag behind val/


@dataclass(eq=False)
class Candidate:
    """A setting of the tuned keys, and what its runs came to, by seed."""

    values: dict[str, str]  # as one types them
    runs: dict[int, Outcome] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values.items())

    def mean(self, measure: str) -> float:
        """Return its mean cost over its seeds; infinity where one run failed or diverged."""
        return statistics.fmean(run.cost(measure) for run in self.runs.values())

    def rank(self, measure: str) -> tuple[float, int, float]:
        """Return what candidates are sorted by: mean cost; then fewer failures; then, at equal accuracy, the loss."""
        failed = sum(run.cost("val_loss") == math.inf for run in self.runs.values())
        return self.mean(measure), failed, self.mean("val_loss")


class Race:
    """The search of one group."""

    def __init__(self, grids: Mapping[str, Sequence[str]], measure: str) -> None:
        """grids: values of each tuned key, in ascending order. measure: a key of MEASURES."""
        self.measure = measure
        self.candidates = [Candidate(dict(zip(grids, one, strict=True))) for one in itertools.product(*grids.values())]
        self.racing = list(self.candidates)
        self.seeds = [FIRST_TUNING_SEED]  # that the racing candidates train with
        self.widenings: list[dict[str, Any]] = []
        self.rungs: list[dict[str, Any]] = []  # that are decided: seeds, candidates from best to worst, how many stay

    def wanted(self) -> list[tuple[Candidate, int]]:
        """Return the runs to be trained next, as (candidate, seed); none once the race is decided."""
        while True:
            missing = [(one, seed) for one in self.racing for seed in self.seeds if seed not in one.runs]
            if missing:
                return missing
            if len(self.widenings) < MOST_WIDENINGS and (added := self._beyond()):
                self.candidates += added
                self.racing += added
                continue
            if len(self.racing) == 1:
                return []
            ranked = self._ranked()
            self.racing = ranked[: math.ceil(len(ranked) / 2)]
            said = [{"values": one.values, "mean": one.mean(self.measure)} for one in ranked]
            self.rungs.append({"seeds": list(self.seeds), "ranking": said, "kept": len(self.racing)})
            if len(self.racing) > 1:
                self.seeds.append(self.seeds[-1] + 1)

    def left(self) -> int:
        """Return how many runs it still takes, if no grid is widened from here on."""
        wanted = self.wanted()
        return len(wanted) + sum(rungs(len(self.racing))[1:]) * (wanted != [])

    @property
    def best(self) -> Candidate:
        """The best so far; of equally good ones the first in the grid."""
        return self._ranked()[0]

    @property
    def runs(self) -> int:
        """How many runs it has taken."""
        return sum(len(one.runs) for one in self.candidates)

    def edges(self, values: Mapping[str, str]) -> list[tuple[str, bool]]:
        """List the tuned keys whose value is at the edge of what was tried, and whether that is the upper one."""
        out = []
        for key, value in values.items():
            tried = sorted({number for one in self.candidates if (number := _number(one.values[key])) is not None})
            place = _number(value)
            if place is None or len(tried) < 2 or place == 0:  # below no weight decay lies nothing
                continue
            out += [(key, place == tried[-1])] if place in (tried[0], tried[-1]) else []
        return out

    def why(self) -> str:
        """Say in one sentence why the best is the best."""
        best, seeds = self.best, len(self.best.runs)
        name = "validation " + MEASURES[self.measure]
        if best.mean(self.measure) == math.inf:
            return "every setting failed or diverged with some seed; this is the first of them"
        over = f"mean over {plural(seeds, 'seed')}"
        others = [one for one in self.candidates if one is not best and len(one.runs) == seeds]
        second = min(others, key=lambda one: one.rank(self.measure), default=None)
        then = "" if second is None else f"; next {second.name} with {_shown(second.mean(self.measure))}"
        return f"best {name}, {_shown(best.mean(self.measure))} ({over}){then}"

    def to_json(self) -> dict[str, Any]:
        """Return the race as a dictionary: what was tried, with every run, and how it was decided."""
        tried = [
            {"values": one.values, "runs": {str(seed): vars(run) for seed, run in one.runs.items()}}
            for one in self.candidates
        ]
        return {"tried": tried, "widened": self.widenings, "rungs": self.rungs}

    def _ranked(self) -> list[Candidate]:
        return sorted(self.racing, key=lambda one: (*one.rank(self.measure), self._place(one)))

    def _place(self, candidate: Candidate) -> tuple[float, ...]:
        """Return what equally good candidates are sorted by: smaller values first."""
        numbers = [_number(value) for value in candidate.values.values()]
        return (*(0.0 if number is None else number for number in numbers), self.candidates.index(candidate))

    def _beyond(self) -> list[Candidate]:
        """Return new candidates beyond each edge that the best is at, beside it in all other keys."""
        best, out = self.best, []
        for key, is_upper in self.edges(best.values):
            if key not in LOG_KEYS:
                continue
            tried = sorted({x for one in self.candidates if (x := _number(one.values[key])) is not None and x > 0})
            edge, inner = (tried[-1], tried[-2:-1]) if is_upper else (tried[0], tried[1:2])
            step = edge / inner[0] if inner else (10.0 if is_upper else 0.1)
            added = [_typed(edge * step**i) for i in range(1, WIDER + 1)]
            self.widenings.append({"key": key, "beyond": best.values[key], "added": added, "seeds": len(self.seeds)})
            out += [Candidate({**best.values, key: value}) for value in added]
        return out


def _typed(value: float) -> str:
    return f"{value:.{DIGITS}g}"


def _shown(cost: float) -> str:
    return f"{abs(cost):.4g}"


def _number(value: Any) -> float | None:
    """Return what a summary or an override holds as a number, "inf" and "nan" too; None where it is none."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
