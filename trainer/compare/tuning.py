"""Choose by the validation split: each contender's best setting, and among contenders the one to use.

Choosing flatters: the best of many settings was also lucky. So a contender's value at a seed is that of the setting
which is best at all *other* seeds (leave-one-out, as in nested cross-validation: Varma and Simon 2006, BMC
Bioinformatics 7:91); the seed that is scored had no say. A run that diverged counts as one that learned nothing, so
that a setting which is good when it survives is not taken for a good one.
"""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.compare import words
from trainer.compare.groups import Layout, Run
from trainer.compare.keys import is_share, label
from trainer.compare.knobs import Knob
from trainer.compare.statistics import Floats, mean_of

TUNED = 4.0
LEARNED = 0.01  # of the loss of guessing: less is none
LARGEST_STEP = 10**0.5  # beyond a grid's edge, however coarse the grid
BOUNDED = ("dropout", "weight_decay", "momentum", "label_noise", "label_smoothing")  # 0 is no edge of these: it is off


@dataclass(frozen=True)
class Choice:
    """Which group stands for each of C contenders, and what stands for it at each of S seeds."""

    groups_C: NDArray[np.int64]  # the best by all seeds; -1 where no run has the criterion
    groups_CS: NDArray[np.int64]  # the best by the other seeds; -1 where there is none

    @property
    def inflation_C(self) -> Floats:
        """Return by how much tuning adds to the variance of each contender's mean, relative to it.

        Scores at seeds whose settings were chosen by each other vary together, as far as the choices differ. Where all
        do, Nadeau and Bengio (2003, Machine Learning 52) add n / (n - 1) for leave-one-out; TUNED times that is what
        intervals need to hold the truth in 95 of 100 simulated sweeps (`scripts.calibrate tuned`).
        """
        chosen = self.groups_CS >= 0
        n_C = chosen.sum(1)
        other = (chosen & (self.groups_CS != self.groups_C[:, None])).sum(1)
        return TUNED * other / np.maximum(n_C, 1) * n_C / np.maximum(n_C - 1, 1)

    def take(self, values_GS: Floats) -> Floats:
        """Return a measure's (C, S) values of the contenders, from the groups' (G, S)."""
        seeds = np.arange(values_GS.shape[1])
        return np.where(self.groups_CS >= 0, values_GS[self.groups_CS, seeds], np.nan)


def cost_sign(plan: Layout, measure: str) -> float:
    """Return -1 for a measure of which more is better, else 1: its costs are the values times this."""
    return -1.0 if plan.is_higher_better(measure) else 1.0


def is_loss(measure: str) -> bool:
    """Whether a measure is the loss of a split; a metric whose name ends so is none."""
    return re.fullmatch("((best|final)_)?(train|val|test)_loss", measure) is not None


def cost(plan: Layout, criterion: str | None, values_GS: Floats) -> Floats:
    """Return what each of G groups costs at each of S seeds, lower is better; nan where no run has the criterion.

    A run that diverged costs as much as a network that has learned nothing, or as the worst one seen: of losses, of
    those after the first epoch too; of what is better the higher, 0.
    """
    sign = 1.0 if criterion is None else cost_sign(plan, criterion)
    costs_GS = sign * values_GS
    seen = [float(np.nanmax(costs_GS))] if np.isfinite(costs_GS).any() else []
    if criterion is not None and is_loss(criterion):
        seen += [loss for run in plan.runs for loss in (run.guessing_loss, run.first_loss) if loss is not None]
    elif sign < 0:
        seen.append(0.0)
    return np.where(plan.failed_GS & ~np.isfinite(costs_GS), max(seen, default=np.nan), costs_GS)


def has_ratios(criterion: str, values_GS: Floats) -> bool:
    """Whether values are compared as ratios: losses, all of them above 0."""
    return is_loss(criterion) and bool((values_GS[np.isfinite(values_GS)] > 0).all())


def ranked(plan: Layout, criterion: str, values_GS: Floats) -> Floats:
    """Return the costs by which groups are shown to be worse than the best: of losses the logarithm.

    What is worse than guessing counts as guessing. Otherwise a few wild losses are noise enough to hide behind.
    """
    costs_GS = cost_sign(plan, criterion) * values_GS
    if not has_ratios(criterion, values_GS):
        return costs_GS
    return np.log(np.minimum(costs_GS, guessing(plan.runs)))


def guessing(runs: Iterable[Run]) -> float:
    """Return the loss of a network that has learned nothing; inf where no run says."""
    return max((run.guessing_loss for run in runs if run.guessing_loss), default=math.inf)


def idle(plan: Layout, losses_CS: Floats) -> NDArray[np.bool_]:
    """Return which contenders have learned nothing: no run has a validation loss below that of guessing (C,)."""
    there_CS = np.isfinite(losses_CS)
    learned_CS = there_CS & (losses_CS < learned(plan.runs))
    return np.logical_and(there_CS.any(1), ~learned_CS.any(1))


def learned(runs: Iterable[Run]) -> float:
    """Return the loss below which a run has learned something: that of guessing, less LEARNED; inf if unknown."""
    return (1 - LEARNED) * guessing(runs)


def choose(plan: Layout, costs_GS: Floats) -> Choice:
    """Choose each contender's group."""
    there_GS = np.isfinite(costs_GS)
    total_GS = np.where(there_GS, costs_GS, 0.0)
    total_G, n_G = total_GS.sum(1), there_GS.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_G = np.where(n_G > 0, total_G / n_G, np.inf)
        rest_n = n_G[:, None] - there_GS
        rest_GS = np.where(rest_n > 0, (total_G[:, None] - total_GS) / rest_n, np.inf)
    ran_GS = np.zeros_like(there_GS)
    for row, column, run in plan.cells_of_runs:
        ran_GS[row, column] |= run.counts or run.failed
    groups_C = np.full(len(plan.contenders), -1)
    groups_CS = np.full((len(plan.contenders), len(plan.seeds)), -1)
    for c, contender in enumerate(plan.contenders):
        members = np.array(contender.members)
        if len(members) == 1:
            groups_C[c] = groups_CS[c] = members[0]
            continue
        best = members[np.argmin(mean_G[members])]
        groups_C[c] = best if n_G[best] else -1
        costs = rest_GS[members] if len(plan.seeds) > 1 else np.repeat(mean_G[members][:, None], len(plan.seeds), 1)
        chosen = members[np.argmin(costs, 0)]
        has_run = np.isfinite(costs).any(0) & ran_GS[chosen, np.arange(len(plan.seeds))]
        groups_CS[c] = np.where(has_run, chosen, -1)  # what another setting has at this seed says nothing of the best
    return Choice(groups_C, groups_CS)


def told_apart(plan: Layout, choice: Choice, values_GS: Floats, measure: str) -> list[str]:
    """Say which contenders' means are not those of the groups that stand for them, as every seed is scored apart."""
    found = []
    own_C, mean_G = mean_of(choice.take(values_GS), 1), mean_of(values_GS, 1)
    for contender, group, own in zip(plan.contenders, choice.groups_C, own_C.tolist(), strict=True):
        said, of_group = (words.value(mean, measure) for mean in (own, float(mean_G[group])))
        if group >= 0 and np.isfinite([own, mean_G[group]]).all() and said != of_group:
            settled = plan.groups[group].name.removeprefix(contender.name).strip()
            found.append(f"{contender.name} counts with {said}, not with {of_group}, what {settled} has in the table")
    return found


def best(costs_CS: Floats) -> int | None:
    """Return the contender with the lowest mean cost, None if no run has the criterion."""
    mean_C = mean_of(costs_CS, 1)
    return None if np.isnan(mean_C).all() else int(np.nanargmin(mean_C))


@dataclass(frozen=True)
class Edge:
    """A best value that is the first or last one tried: the optimum may lie outside."""

    contender: int
    knob: Knob
    tried: str
    side: str  # lowest, highest
    add: str  # values to add, as typed
    own: bool  # whether the knob is tuned: the edge is that of the contender's own grid

    def text(self, plan: Layout) -> str:
        """Say what is not known, and what to try."""
        whose = f"{plan.contenders[self.contender].name} is best at" if self.own else "the best group has"
        beyond = "lower" if self.side == "lowest" else "higher"
        tried = f"{whose} the {self.side} tried ({self.tried})"
        return f"not known: whether a {beyond} {self.knob.name} is better; {tried}, try {self.knob.name}={self.add} too"


def edges(plan: Layout, choice: Choice, winner: int | None, shown: Collection[str]) -> list[Edge]:
    """Find best values at an edge: of a tuned knob for every contender, each by its own grid; else for the winner.

    shown: the knobs whose effect is shown, or could not be tested; where a test shows none, the edge is chance.
    """
    found = []
    for t, knob in enumerate(plan.tuned):
        for c, contender in enumerate(plan.contenders):
            tried = sorted({plan.groups[g].settled[t] for g in contender.members})
            if choice.groups_C[c] >= 0 and knob.is_numeric and len(tried) > 1:
                found.append(_edge(c, knob, tried, plan.groups[choice.groups_C[c]].settled[t], own=True))
    for k, knob in enumerate(plan.knobs):
        if winner is not None and knob.name in shown and knob.is_numeric and len(knob.levels) >= 3:
            levels = list(range(len(knob.levels)))
            found.append(_edge(winner, knob, levels, plan.contenders[winner].levels[k], own=False))
    return sorted((one for one in found if one), key=lambda one: one.contender != winner)


def _edge(contender: int, knob: Knob, tried: list[int], best: int, *, own: bool) -> Edge | None:
    values = [float(knob.levels[i]) for i in tried]
    where = beyond(knob.name, values, tried.index(best))
    return Edge(contender, knob, label(knob.levels[best]), *where, own) if where else None


def beyond(name: str, values: list[float], index: int) -> tuple[str, str] | None:
    """Return which edge of ascending values an index is, and two values beyond, as typed; None inside, or at 0: off."""
    if 0 < index < len(values) - 1 or (values[index] == 0 and name.endswith(BOUNDED)):
        return None
    side = "lowest" if index == 0 else "highest"
    of_one = is_share(name) and max(values) <= 1
    near = values[:2] if index == 0 else values[-2:]
    if min(near) > 0 and max(near) / min(near) >= 1.5 and not of_one:
        ratio = min(max(near) / min(near), LARGEST_STEP) ** (-1 if index == 0 else 1)
        more = [values[index] * ratio, values[index] * ratio**2]
    else:
        step = near[0] - near[1] if index == 0 else near[1] - near[0]
        more = [values[index] + step, values[index] + 2 * step]
    whole = all(value.is_integer() for value in values)
    more = [value for value in more if value >= 1] if whole else more
    shown = [str(round(value)) if whole else label(float(f"{value:.1g}")) for value in more if value > 0]
    if of_one:
        shown = [text for text in shown if float(text) < 1]
    return (side, ",".join(sorted(dict.fromkeys(shown), key=float))) if shown else None
