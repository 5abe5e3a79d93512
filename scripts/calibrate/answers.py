"""What is said across runs, on simulated sweeps: false claims, power, and intervals after tuning."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from scripts.calibrate import share
from scripts.histories import Floats, Rng
from trainer.compare.budget import ALPHA
from trainer.compare.comparison import Comparison, Run, compare
from trainer.compare.results import Contrast, Recommendation
from trainer.judge.overfit import Verdict

NO_VERDICT = Verdict("healthy", None, None, "", {})

Draw = Callable[[], Floats]
DRAWS: dict[str, Callable[[Rng], Draw]] = {  # two values each, of mean 0 and variance 1
    "normal": lambda rng: lambda: rng.normal(size=2),
    "skewed": lambda rng: lambda: (rng.lognormal(size=2) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1)),
    "heavy-tailed": lambda rng: lambda: rng.standard_t(3, size=2) / np.sqrt(3),
}


def sweep(
    levels: Iterable[dict[str, object]],
    seeds: int,
    draw: Draw,
    *,
    rho: float = 0.5,
    spreads: Sequence[float] = (),
    by_level: str | None = None,
    effects: Sequence[float] = (),
) -> list[Run]:
    """Runs of a simulated sweep: validation loss, gap, and accuracy of 180 examples.

    draw: two values of variance 1. rho: the share of the variance that the groups of a seed have in common. spreads:
    of the groups, factors of the rest. by_level: a knob whose levels share half of the rest within a seed, as runs of
    equal initial weights do. effects: what is added to the groups' losses, in standard deviations of a run.
    """
    shared = [draw() for _ in range(seeds)]
    of_level: dict[tuple[object, int], Floats] = {}
    runs = []
    for number, group in enumerate(levels):
        spread = spreads[number] if spreads else 1.0
        for seed in range(seeds):
            own = draw()
            if by_level:
                key = group[by_level], seed
                own = np.sqrt(0.5) * (own + of_level.setdefault(key, draw()))
            loss, other = np.sqrt(rho) * shared[seed] + spread * np.sqrt(1 - rho) * own
            loss += effects[number] if effects else 0.0
            rest = np.sqrt(1 - 0.7**2) * other
            measures = {
                "best_val_loss": 10 + float(loss),
                "gap": float(0.7 * loss + rest),  # the validation loss is part of the gap
                "test_accuracy": round((0.9 - 0.01 * (0.7 * loss - rest)) * 180) / 180,
            }
            name = f"{number}-{seed}"
            runs.append(Run(name, name, {"seed": seed, **group}, NO_VERDICT, measures))
    return runs


def claims(found: Comparison) -> bool:
    """Whether any difference is claimed: a knob, an interaction, two groups, or a group worse than the best."""
    tests = [
        *found.differences,
        *found.interactions,
        *(test for effect in found.effects for test in effect.contrasts),
        *(test for effect in found.effects for one in effect.simple for test in one.contrasts),
    ]
    contenders = len(found.chosen) or len(found.groups)
    return any(test.claimed for test in tests) or len(found.recommendation.ties) < contenders - 1


def _named(count: int) -> list[dict[str, object]]:
    return [{"name": f"x{i}"} for i in range(count)]


def _grid(**knobs: Sequence[object]) -> list[dict[str, object]]:
    return [dict(zip(knobs, values, strict=True)) for values in itertools.product(*knobs.values())]


GRID = _grid(optimizer=("sgd", "adam", "adamw"), dropout=(0, 0.5), depth=(1, 2, 3))
DESIGNS: dict[str, tuple[list[dict[str, object]], int, dict[str, Any]]] = {
    "2 names, 5 seeds": (_named(2), 5, {}),
    "6 names, 3 seeds": (_named(6), 3, {}),
    "9 names, 5 seeds": (_named(9), 5, {}),
    "grid 3 x 2 x 3, 5 seeds (90 runs)": (GRID, 5, {}),
    "grid 4 x 4, 2 seeds": (_grid(rate=range(4), width=range(4)), 2, {}),
    "grid 3 x 4, 3 seeds, equal initial weights by width": (
        _grid(name=("a", "b", "c"), width=range(4)), 3, {"by_level": "width"},
    ),
    "4 names, 3 seeds, one spreads 5 times as far": (_named(4), 3, {"spreads": (5, 1, 1, 1)}),
    "4 names, 5 seeds, one spreads 5 times as far": (_named(4), 5, {"spreads": (5, 1, 1, 1)}),
    "9 names, 3 seeds, one spreads 5 times as far": (_named(9), 3, {"spreads": (5, *[1] * 8)}),
    "9 names, 5 seeds, one spreads 5 times as far": (_named(9), 5, {"spreads": (5, *[1] * 8)}),
    "6 names, 5 seeds, half spread 3 times as far": (_named(6), 5, {"spreads": (3, 3, 3, 1, 1, 1)}),
    "2 optimizers with 7 rates each, 5 seeds, tuned": (
        _grid(**{"optimizer": ("sgd", "adam"), "optimizer.lr": [0.001 * 3**i for i in range(7)]}), 5, {},
    ),
    "grid 5 x 3 x 2, 1 seed, each rate spreads twice as far": (
        _grid(rate=range(5), depth=range(3), dropout=(0, 0.5)), 1,
        {"spreads": [2**rate for rate, _, _ in itertools.product(range(5), range(3), range(2))]},
    ),
}  # fmt: skip


def null(count: int) -> None:
    """Count false claims on sweeps where nothing differs."""
    print(f"\n## Sweeps where nothing differs ({count:,} each)\n")
    print(f"| design | {' | '.join(DRAWS)} |\n|{' --- |' * (len(DRAWS) + 1)}")
    rng = np.random.default_rng(2)
    for design, (levels, seeds, how) in DESIGNS.items():
        hits = [
            sum(claims(compare(sweep(levels, seeds, draw(rng), **how))) for _ in range(count))
            for draw in DRAWS.values()
        ]
        print(f"| {design} | " + " | ".join(share(n, count) for n in hits) + " |", flush=True)
    _textbook_null(count)


def _textbook_null(count: int) -> None:
    """Count the false claims of tests as textbooks have them, of the loss alone, on the very same sweeps.

    Tukey's is exact where the noise is normal and spreads alike: what it finds there is the luck of the draws.
    """
    print(f"\n### Textbook tests of the loss alone, on the same sweeps ({count:,} each)\n")
    print(f"| design | test | {' | '.join(DRAWS)} |\n|{' --- |' * (len(DRAWS) + 2)}")
    tests = {"Tukey's in blocks": _tukey_range, "paired t, Bonferroni": _paired, "Welch's, Bonferroni": _welch}
    rng = np.random.default_rng(2)
    for design, (levels, seeds, how) in DESIGNS.items():
        shape = len(levels), seeds
        losses = [
            [_losses(sweep(levels, seeds, draw(rng), **how), shape) for _ in range(count)] for draw in DRAWS.values()
        ]
        for name in tests if "spreads" in how else [*tests][:1]:
            hits = [sum(tests[name](values_GS) for values_GS in of_draw) for of_draw in losses]
            print(f"| {design} | {name} | " + " | ".join(share(n, count) for n in hits) + " |", flush=True)


def _losses(runs: Sequence[Run], shape: tuple[int, int]) -> Floats:
    return np.array([run.measures["best_val_loss"] for run in runs]).reshape(shape)


def _paired(values_GS: Floats) -> bool:
    """Whether a paired t test of any two groups finds a difference, corrected by Bonferroni."""
    first, second = np.triu_indices(len(values_GS), 1)
    found: Any = stats.ttest_rel(values_GS[first], values_GS[second], axis=1)
    return bool(found.pvalue.min() * len(first) < ALPHA)


def _welch(values_GS: Floats) -> bool:
    """Whether Welch's t test of any two groups finds a difference, corrected by Bonferroni."""
    first, second = np.triu_indices(len(values_GS), 1)
    found: Any = stats.ttest_ind(values_GS[first], values_GS[second], axis=1, equal_var=False)
    return bool(found.pvalue.min() * len(first) < ALPHA)


def _tukey_range(values_GS: Floats) -> bool:
    """Whether Tukey's test in a randomised block design finds a difference of any two groups."""
    means_G = values_GS.mean(1)
    order = np.argsort(means_G)  # the last one is the farthest from the first
    return _tukey(values_GS[order]) > 0


def power(count: int) -> None:
    """Count how often a difference is found, beside the textbook's test where that holds: blocks, equal spreads."""
    rng = np.random.default_rng(3)
    for groups in (2, 4, 9):
        print(
            f"\n## Power, {groups} groups, the last one's loss higher: compare, Tukey's test in blocks (ratio), ",
            end="",
        )
        print(f"{count:,} sweeps a cell\n")
        print("| effect (sd of a run) | " + " | ".join(f"{n} seeds" for n in (3, 5, 10)) + " |\n|" + " --- |" * 4)
        for effect in (1.0, 1.5, 2.0, 3.0):
            cells = [_power(rng, groups, seeds, effect, count) for seeds in (3, 5, 10)]
            print(f"| {effect} | " + " | ".join(cells) + " |", flush=True)
    print(
        "\n## Power in a grid of 4 rates x 2 x 2, 2 seeds: the knob of 4, compare and analysis of variance in blocks\n"
    )
    print("| effect of the last rate (sd of a run) | compare | analysis of variance | ratio |\n|" + " --- |" * 4)
    levels = _grid(rate=range(4), width=(8, 16), dropout=(0, 0.5))
    for effect in (0.5, 1.0, 1.5, 2.0):
        ours = textbook = 0
        for _ in range(count):
            runs = sweep(levels, 2, lambda: rng.normal(size=2), effects=[effect * (one["rate"] == 3) for one in levels])
            found = next(e for e in compare(runs).effects if (e.knob, e.measure) == ("rate", "best_val_loss"))
            ours += found.claimed
            textbook += (
                _variance_ratio(np.array([run.measures["best_val_loss"] for run in runs]).reshape(4, 4, 2)) <= ALPHA
            )
        print(f"| {effect} | {ours / count:.2f} | {textbook / count:.2f} | {ours / max(1, textbook):.2f} |", flush=True)


def _power(rng: Rng, groups: int, seeds: int, effect: float, count: int) -> str:
    """One cell: the share of the last group's pairs that are claimed."""
    ours = textbook = 0
    for _ in range(count):
        runs = sweep(_named(groups), seeds, lambda: rng.normal(size=2), effects=[0.0] * (groups - 1) + [effect])
        last = f"x{groups - 1}"
        found = next(one for one in compare(runs).effects if one.measure == "best_val_loss")
        ours += sum(test.claimed for test in found.contrasts if last in (test.a, test.b))
        textbook += _tukey(np.array([run.measures["best_val_loss"] for run in runs]).reshape(groups, seeds))
    pairs = count * (groups - 1)
    ratio = f"{ours / textbook:.2f}" if textbook else "-"
    return f"{ours / pairs:.2f}, {textbook / pairs:.2f} ({ratio})"


def _tukey(values_GS: Floats) -> int:
    """Pairs with the last group that Tukey's test in a randomised block design finds."""
    groups, seeds = values_GS.shape
    residuals = values_GS - values_GS.mean(1, keepdims=True) - values_GS.mean(0) + values_GS.mean()
    df = (groups - 1) * (seeds - 1)
    distance = np.abs(values_GS[:-1].mean(1) - values_GS[-1].mean()) / np.sqrt((residuals**2).sum() / df / seeds)
    return int((distance > _critical(groups, df)).sum())


@functools.cache
def _critical(groups: int, df: int) -> float:
    return float(stats.studentized_range.ppf(1 - ALPHA, groups, df))


def _variance_ratio(values_LRS: Floats) -> float:
    """p of a knob's main effect: cells and seeds as factors."""
    levels, rests, seeds = values_LRS.shape
    cells = values_LRS.reshape(levels * rests, seeds)
    residuals = cells - cells.mean(1, keepdims=True) - cells.mean(0) + cells.mean()
    df = (levels * rests - 1) * (seeds - 1)
    means = values_LRS.mean((1, 2))
    between = rests * seeds * ((means - means.mean()) ** 2).sum() / (levels - 1)
    return float(stats.f.sf(between / ((residuals**2).sum() / df), levels - 1, df))


def tuned(count: int) -> None:
    """Count how often intervals after tuning hold the truth: of the difference of two groups, and of the winner."""
    rates = [0.001 * 3**i for i in range(7)]
    levels = _grid(**{"optimizer": ("sgd", "adam"), "optimizer.lr": rates})
    print(f"\n## After tuning: coverage of 95 % intervals, {count:,} sweeps each of 2 optimizers, 7 rates, 5 seeds\n")
    print("| the loss over the rates | interval of the difference | interval of the winner | bias of the difference |")
    print("|" + " --- |" * 4)
    rng = np.random.default_rng(4)
    for name, steep in (("flat: all rates are equal", 0.0), ("a shallow valley", 0.3), ("a clear valley", 2.0)):
        held = winner = 0
        errors = []
        for _ in range(count):
            curve = [steep * (i - 3) ** 2 for i in range(7)]
            shift = 1.0  # Adam is better by one standard deviation of a run
            runs = sweep(levels, 5, lambda: rng.normal(size=2), effects=[*(c + shift for c in curve), *curve])
            found = compare(runs)
            test = next(e for e in found.effects if (e.knob, e.measure) == ("optimizer", "best_val_loss")).contrasts[0]
            held += _holds(test, -shift)
            errors.append((test.difference or 0.0) + shift)
            best = found.recommendation
            truth = 10 + (shift if "sgd" in str(best.group) else 0.0)
            winner += _holds(best, truth)
        bias = f"{np.mean(errors):+.3f} ± {1.96 * np.std(errors) / np.sqrt(count):.3f} sd"
        print(f"| {name} | {share(held, count)} | {share(winner, count)} | {bias} |", flush=True)


def _holds(interval: Contrast | Recommendation, truth: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high
