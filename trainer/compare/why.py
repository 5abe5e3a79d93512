"""What else was recorded differs between two levels of a knob: evidence beside a difference, never its cause.

`signals` takes a few numbers from what one run recorded; `beside` compares them between the levels of a knob's largest
claimed contrast, at equal values of the other knobs and by seed. All are positive, and compared by ratios: of
geometric means, with Student's t interval of the logarithms. Not corrected for how many are looked at; that a ratio
has to be large over its whole interval stands for it. Nothing here enters a claim.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.compare.groups import Layout, Run
from trainer.compare.results import Contrast, Recorded
from trainer.compare.statistics import Floats, differences, mean_of
from trainer.judge.curves import INFINITE

CLEAR = 1.5  # a ratio is told where its whole interval lies above this, or below 1 / this
MOST = 4  # as many signals are told
DEAD = 0.01  # a smaller share of dead units counts as this: a ratio to 0 is none
CURVE = 10  # epochs that the roughness of a curve takes
STILL = 1e-6  # steps shorter than this, relative to the weights, are the end of a schedule, and no evidence
SPEED = "epochs_to_half"  # the one signal that takes all runs of a comparison


OTHER_END = {"first": "last", "last": "first"}
OF_A_STEP = {
    "update_ratio": "the {when} step is {times} times as long relative to the weights at {a} as at {b}",
    "gradient_ratio": "the gradient of the first layer, relative to that of the last layer, is {times} times as large "
    "in the {when} step at {a} as at {b}",
}
SIGNALS = {  # name -> what is {times} as large at {a} as at {b}
    **{f"{when}_{name}": text.replace("{when}", when) for name, text in OF_A_STEP.items() for when in OTHER_END},
    "dead_units": "the share of dead units at the end is {times} times as large at {a} as at {b}",
    SPEED: "to a validation loss of {target}, which all runs compared reach, it takes {times} times as many epochs "
    "at {a} as at {b}",
    "roughness": "the training loss is {times} times as rough from epoch to epoch at {a} as at {b}",
}


def signals(start: object, final: object, train_loss: Floats) -> dict[str, float]:
    """Return the signals of one run, all > 0, without those that it did not record.

    start, final: these entries of summary.json (the first step and the last one), {tag: number}; train_loss (N,) by
    epoch. Weights are parameters named *weight, but for those of normalisation.

    first_update_ratio, last_update_ratio: geometric mean of update_ratio/<weight>, |step| / |weight|, without
    dimension, over the weights that moved; above STILL. first_gradient_ratio, last_gradient_ratio: grad_norm of the
    first weight over that of the last weight. dead_units: mean share over layers, at least DEAD. roughness: median of
    |second difference| of the training loss over epochs, relative to its highest less its lowest value; of CURVE epochs
    and more.
    """
    found: dict[str, float | None] = {}
    ends = {"first": _by_kind(start), "last": _by_kind(final)}
    for when, recorded in ends.items():
        ratio = _geometric_mean(recorded["update_ratio"])
        found[f"{when}_update_ratio"] = ratio if ratio and ratio > STILL else None
        norms = recorded["grad_norm"]
        if len(norms) > 1 and norms[0] > 0 and norms[-1] > 0:
            found[f"{when}_gradient_ratio"] = norms[0] / norms[-1]
    dead = ends["last"]["dead_units"]
    found["dead_units"] = max(sum(dead) / len(dead), DEAD) if dead and min(dead) >= 0 else None
    if len(train_loss) >= CURVE and (np.abs(train_loss) < INFINITE).all():
        bends = np.sort(np.abs(train_loss[2:] - 2 * train_loss[1:-1] + train_loss[:-2]))
        rough, fall = bends[(len(bends) - 1) // 2] + bends[len(bends) // 2], train_loss.max() - train_loss.min()
        found["roughness"] = float(rough / 2 / fall) if fall > 0 else None
    return {name: value for name, value in found.items() if value and math.isfinite(value)}


def _number(value: object) -> float:
    """Return a recorded number; -1 for what is none, or as good as infinite."""
    return float(value) if isinstance(value, int | float) and -INFINITE < value < INFINITE else -1.0


def _by_kind(tags: object) -> dict[str, list[float]]:
    """Return what was recorded of each weight and each layer, the first first."""
    found: dict[str, list[float]] = {"update_ratio": [], "grad_norm": [], "dead_units": []}
    for tag, value in tags.items() if isinstance(tags, dict) else ():
        kind, _, name = tag.partition("/")
        if kind in found and (kind == "dead_units" or (name.endswith("weight") and "norm" not in name)):
            found[kind].append(_number(value))
    return found


def _geometric_mean(values: Iterable[float]) -> float | None:
    logs = [math.log(value) for value in values if value > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None


def epochs_to(loss: Floats, start: float, target: float) -> float:
    """Return after how many epochs, 1 at least, a loss (N,) is first at the target or below it, linear between epochs.

    start: the loss after 0 epochs. nan where it never is, or was from the start. How the loss goes within the first
    epoch, where most is learned, nobody has measured: all of it counts.
    """
    lowest = np.fmin.accumulate(np.concatenate([[start], loss]))
    at = int(np.argmax(lowest <= target))
    if at == 0:
        return math.nan
    return max(float(at - 1 + (lowest[at - 1] - target) / (lowest[at - 1] - lowest[at])), 1.0)


def half_way(runs: Sequence[Run]) -> float | None:
    """Return the loss half way between guessing and the worst best validation loss of the runs; None without one."""
    guessing = [run.guessing_loss for run in runs if run.guessing_loss is not None]
    worst = max((run.measures.get("best_val_loss", -math.inf) for run in runs), default=math.inf)
    return (min(guessing) + worst) / 2 if guessing and worst < min(guessing) else None


@dataclass(frozen=True)
class Measured:
    """The signals of a comparison. T signals, C contenders, S seeds."""

    logs_TCS: Floats  # natural logarithms; nan where missing
    target: float | None  # the loss that epochs_to_half is about


def measured(plan: Layout, groups_C: NDArray[np.int64], losses_compare: bool) -> Measured:
    """Return the signals of the groups that stand for each contender, -1 for none.

    losses_compare: whether losses at the knobs' values are the same quantity, without which no speed to one of them is.
    """
    chosen = {*groups_C.tolist()}
    runs = [one for one in plan.cells_of_runs if one[0] in chosen and one[2].counts]
    target = half_way([run for _, _, run in runs]) if losses_compare else None
    total = np.zeros((len(SIGNALS), len(plan.groups) + 1, len(plan.seeds)))  # the last group: none
    count = np.zeros_like(total)
    position = {name: t for t, name in enumerate(SIGNALS)}
    for row, column, run in runs:
        found = dict(run.signals)
        if target is not None and run.val_loss is not None and run.guessing_loss is not None:
            found[SPEED] = epochs_to(run.val_loss, run.guessing_loss, target)
        for name, value in found.items():
            if value > 0:
                total[position[name], row, column] += math.log(value)
                count[position[name], row, column] += 1
    return Measured(np.where(count > 0, total / np.maximum(count, 1), np.nan)[:, groups_C], target)


def beside(plan: Layout, found: Measured, knob: int, contrasts: Sequence[Contrast]) -> list[Recorded]:
    """Return which signals clearly differ between the levels of the largest claimed contrast, the largest first.

    contrasts: those of the knob, at least one of them claimed.
    """
    one = plan.knobs[knob]
    most = max((c for c in contrasts if c.claimed), key=lambda c: abs(c.difference or 0.0))
    i, j = one.levels.index(most.a), one.levels.index(most.b)
    table = plan.across(knob)
    rows = table[:, (table[i] >= 0) & (table[j] >= 0)]  # contenders at equal other knobs
    a, b = found.logs_TCS[:, rows[i]], found.logs_TCS[:, rows[j]]
    both = np.isfinite(a) & np.isfinite(b)
    kept = both | ~both.any((1, 2), keepdims=True)
    a, b = (mean_of(np.where(kept, side, np.nan), 1) for side in (a, b))
    tests = differences(a, b)
    with np.errstate(over="ignore"):
        ratios = np.exp(np.stack([tests.difference, tests.low, tests.high], 1))  # (T, 3)
        sides = np.exp(np.stack([mean_of(a, 1), mean_of(b, 1)], 1))  # (T, 2)
    known = {name: row for name, row in zip(SIGNALS, ratios, strict=True) if np.isfinite(row).all()}
    clear = {name: row for name, row in known.items() if row[1] >= CLEAR or row[2] <= 1 / CLEAR}
    names = [one.plain(at) for at in (i, j)]
    told = []
    for t, name in enumerate(SIGNALS):
        if name in clear:
            when, _, of = name.partition("_")
            same = f"{OTHER_END.get(when)}_{of}"  # at the other end of the run
            other = known.get(same) if same not in clear else None
            n = int(tests.n[t])
            said = _sentence(name, names, clear[name], sides[t], f"{n} {plan.unit}s", other, found.target)
            ratio, low, high = (float(value) for value in clear[name])
            told.append(Recorded(name, ratio, low, high, n, said))
    return sorted(told, key=lambda one: -abs(math.log(one.ratio)))[:MOST]


def _sentence(
    name: str, levels: Sequence[str], ratio: Floats, sides: Floats, n: str, other: Floats | None, target: float | None
) -> str:
    """Say a ratio as times > 1, and what it is at the other time. ratio, other: (3,), the ratio and its interval."""
    if ratio[0] < 1:
        levels, sides = levels[::-1], sides[::-1]
        ratio, other = 1 / ratio[[0, 2, 1]], None if other is None else 1 / other[[0, 2, 1]]
    times, low, high = _times(ratio)
    goal = "" if target is None else f"{target:.3g}"
    said = SIGNALS[name].format(times=times, a=levels[0], b=levels[1], target=goal)
    said += f" ({sides[0]:.2g} against {sides[1]:.2g}, 95 % interval {low} to {high} times, {n})"
    if other is not None:
        times, low, high = _times(other)
        when = f"in the {OTHER_END[name.partition('_')[0]]} step"
        is_alike, is_open = other[1] >= 1 / CLEAR and other[2] <= CLEAR, other[1] <= 1 <= other[2]
        they = "the other way" if other[0] < 1 else "less"
        seen = "they are alike" if is_alike else "no difference is seen" if is_open else f"they differ {they}"
        said += f"; {when} {seen}"
        said += f" ({times} times, {low} to {high})"
    return said


def _times(values: Floats) -> list[str]:
    """Write a ratio and the ends of its interval with as many digits, two at least, as tell these apart; four at most.

    values: (3,).
    """
    for digits in (2, 3, 4):
        texts = [f"{value:.0f}" if 99 <= value < 1e6 else f"{value:.{digits}g}" for value in values]
        if texts[1] != texts[2]:
            break
    return texts
