"""Measure verdicts, statistics and findings against known truth: the tables in docs/.

    python -m scripts.calibrate                 # everything, about ten minutes on two cores
    python -m scripts.calibrate synthetic real  # confusion matrices, false alarms, onsets, how sure
    python -m scripts.calibrate stopping        # early stopping by the verdict and by the loss
    python -m scripts.calibrate null power tuned  # false claims where nothing differs; power; intervals after tuning
    python -m scripts.calibrate health          # planted training faults and healthy controls, about twenty minutes
    python -m scripts.calibrate cures           # what is suggested against planted faults, tried; about an hour

The real runs are trained by `python -m trainer` in --out; those that are there already are reused.
"""

import argparse
import csv
import functools
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from scripts import plants, prescriptions
from scripts.histories import NOISES, Floats, Rng, history
from trainer.compare.comparison import Comparison, Run, compare
from trainer.compare.inference import ALPHA
from trainer.compare.results import Contrast, Recommendation
from trainer.compare.statistics import share_interval
from trainer.judge.health import judge as judge_health
from trainer.judge.overfit import SURE, Verdict, judge

ROOT = Path(__file__).parents[1]
VERDICTS = ("overfit", "healthy", "underfit", "diverged", "too_short")
SYNTHETIC_SEED = 1759  # rules were chosen on the histories of others
NO_VERDICT = Verdict("healthy", None, None, "", {})


@dataclass(frozen=True)
class Case:
    """A judged history: its truth, where it comes from, and how far off its onset is (in run lengths; nan if none)."""

    label: str
    kind: str
    noise: float
    verdict: Verdict
    onset_error: float

    @property
    def score(self) -> float:
        """The evidence that overfitting was decided on; 1 is the threshold."""
        return float(self.verdict.evidence.get("score") or 0.0)


# Real runs: true by construction, some seeds each. What overfits has memorised: far fewer examples than weights, or
# wrong labels, and epochs enough to fit them all. What is healthy has right labels, and all 1,437 examples or, of
# MNIST, 1,000 and dropout.
REAL = [
    ("overfit", "data.train_size=20,40 model.width=256 epochs=150"),
    ("overfit", "data.train_size=40 optimizer=sgd optimizer.momentum=0.9 optimizer.lr=0.05 epochs=150"),
    ("overfit", "data.train_size=300 data.label_noise=0.5,1 model.width=256 epochs=150"),
    ("overfit", "data.train_size=300 data.label_noise=0.5 model.width=256 model.batchnorm=true epochs=100"),
    (
        "overfit",
        "data.label_noise=0.4 model.width=256 epochs=100 optimizer=sgd optimizer.momentum=0.9 optimizer.lr=0.05",
    ),
    ("overfit", "data.label_noise=0.4 model.width=512 epochs=60 optimizer=adamw optimizer.lr=0.003"),
    ("healthy", "model.width=32,128 epochs=30"),
    ("healthy", "model.dropout=0.2,0.5 epochs=40"),
    ("healthy", "model.batchnorm=true model.dropout=0,0.3 epochs=20"),
    ("healthy", "optimizer=sgd optimizer.momentum=0,0.9 optimizer.lr=0.05 epochs=40"),
    ("healthy", "optimizer=adamw optimizer.weight_decay=0.1 model.depth=1,3 epochs=30"),
    ("healthy", "schedule=cosine,step epochs=40"),
    ("healthy", "schedule=step schedule.step_size=20 optimizer=sgd optimizer.momentum=0.9 optimizer.lr=0.05 epochs=30"),
    ("healthy", "data.label_noise=0.1 model.dropout=0.5 epochs=40"),
    ("underfit", "optimizer.lr=3e-5 epochs=6,15"),
    ("underfit", "optimizer=sgd optimizer.lr=0.003 epochs=20"),
    ("diverged", "optimizer=sgd optimizer.lr=1e6 epochs=10"),
    ("overfit", "model=cnn data.train_size=100 data.label_noise=0.4 optimizer.lr=0.005 epochs=100"),
    ("healthy", "model=cnn epochs=12"),
    ("overfit", "data=mnist data.train_size=1000 data.label_noise=0.4 model.width=256 epochs=40"),
    ("healthy", "data=mnist data.train_size=1000 model.dropout=0.5 epochs=30"),
]


def synthetic(count: int) -> None:
    """Judge `count` synthetic histories."""
    rng = np.random.default_rng(SYNTHETIC_SEED)
    cases = []
    for _ in range(count):
        made = history(rng)
        verdict = judge(made.train, made.val)
        error = np.nan
        if made.onset is not None and verdict.onset is not None:
            error = abs(verdict.onset - 1 - made.onset) / len(made.train)
        cases.append(Case(made.label, made.kind, made.noise, verdict, error))
    print(f"\n## Synthetic histories ({count:,})\n")
    _report(cases)
    print("\n| noise (share of learned) | missed | false alarms |\n| --- | --- | --- |")
    for noise in NOISES:
        some = [case for case in cases if case.noise == noise]
        print(f"| {noise} | {_missed(some)} | {_alarms(some)} |")
    _reliability(cases)


def real(out: Path, seeds: int) -> None:
    """Train the runs that are missing, and judge all."""
    cases = []
    for label, overrides, runs in _real_runs(out, seeds):
        for first in range(0, len(runs), seeds):  # the seed is the last key of the sweep: it changes fastest
            cases += _judge_seeds(label, overrides, runs[first : first + seeds])
    print(f"\n## Real runs ({len(cases)}, digits and MNIST, {seeds} seeds each)\n")
    _report(cases)
    _reliability(cases)


def labelled(path: Path | None) -> None:
    """Judge histories that people labelled: a JSON list of {label: overfit, not or unclear, train, val}."""
    if path is None:
        raise SystemExit("labelled: give the file with --labelled FILE")
    counts: Counter[tuple[str, bool]] = Counter()
    for one in json.loads(path.read_text("utf-8")):
        train, val = (np.array(one[name], float) for name in ("train", "val"))  # null becomes nan
        counts[one["label"], judge(train, val).verdict == "overfit"] += 1
    tp, fn, fp = counts["overfit", True], counts["overfit", False], counts["not", True]
    print(f"tp {tp}, fn {fn}, fp {fp}, ", end="")
    print(f"unclear called overfit {counts['unclear', True]}: F1 {2 * tp / (2 * tp + fn + fp):.3f}")


def _reliability(cases: list[Case]) -> None:
    """Probabilities against the share that is overfit, Brier's score, and how many are sure."""
    pairs = [(case.verdict.probability, case.label == "overfit") for case in cases if case.label != "diverged"]
    p, truth = np.array([(probability or 0.0, true) for probability, true in pairs]).T
    hard = np.array([case.verdict.verdict == "overfit" for case in cases if case.label != "diverged"])
    print("\n| probability | runs | mean probability | overfit |\n| --- | --- | --- | --- |")
    edges = (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0001)
    for low, high in itertools.pairwise(edges):
        some = (low <= p) & (p < high)
        if some.any():
            cells = f"{p[some].mean():.2f} | {_share(int(truth[some].sum()), int(some.sum()))}"
            print(f"| {low} to {min(high, 1)} | {some.sum()} | {cells} |")
    brier, of_label = np.mean((p - truth) ** 2), np.mean((hard - truth) ** 2)
    sure = _share(int(((p < 1 - SURE) | (p > SURE)).sum()), len(p))
    print(f"\nBrier score {brier:.4f}, of the verdict alone {of_label:.4f}; sure: {sure}.")


RULES: dict[str, tuple[str, int]] = {  # what is monitored, and the patience
    "verdict, patience 1": ("verdict", 1),
    "verdict, patience 3": ("verdict", 3),
    "validation loss, patience 3": ("loss", 3),
    "validation loss, patience 10": ("loss", 10),
}


def stopping(out: Path, seeds: int) -> None:
    """Stop the real runs early by each rule, from their curves: what it costs healthy ones, and saves of others."""
    real_runs = [(label, run) for label, _, runs in _real_runs(out, seeds) for run in runs if label != "diverged"]
    called = [
        [judge(train[:end], val[:end]).verdict == "overfit" for end in range(1, len(val) + 1)]
        for _, (train, val) in real_runs
    ]
    print(f"\n## Early stopping on the real runs ({len(real_runs)})\n")
    print("| rule | other runs hurt | overfit runs stopped | epochs trained, of overfit runs |\n|" + " --- |" * 4)
    for name, (monitor, patience) in RULES.items():
        hurt, others, stopped, shares = 0, 0, 0, []
        for (label, (train, val)), is_called in zip(real_runs, called, strict=True):
            end = _stopped(val, is_called, monitor, patience)
            if label == "overfit":
                stopped += end < len(val)
                shares.append(end / len(val))
            else:
                others += 1
                hurt += min(val[:end]) - min(val) > 0.01 * (max(val[0], train[0]) - min(val))
        spent = f"{np.median(shares):.0%}, {np.quantile(shares, 0.9):.0%} in the worst tenth"
        print(f"| {name} | {_share(hurt, others)} | {_share(stopped, len(shares))} | {spent} |")
    print("\nHurt: the best validation loss until the stop is worse by 1 % of the fall from the higher first loss.")


def _stopped(val: list[float], called: list[bool], monitor: str, patience: int) -> int:
    """Return after how many epochs a run stops, as `Member.observe` counts; its length where it does not.

    called: whether the run is called overfit after each epoch.
    """
    waited, best = 0, math.inf
    for end, loss in enumerate(val, 1):
        if monitor == "verdict":
            waited = waited + 1 if called[end - 1] else 0
        else:
            waited, best = (0, loss) if loss < best else (waited + 1, best)
        if waited >= patience:
            return end
    return len(val)


def _real_runs(out: Path, seeds: int) -> Iterable[tuple[str, str, list[tuple[list[float], list[float]]]]]:
    """Yield truth, overrides and losses of the runs of each entry of REAL; train those that are missing."""
    for index, (label, overrides) in enumerate(REAL):
        directory = out / f"{index:02d}-{label}"
        if not (directory / "done").exists():
            command = [sys.executable, "-m", "trainer", "-m", *overrides.split(), f"seed=range({seeds})"]
            command += ["record.pictures=false", f"hydra.sweep.dir={directory.resolve()}"]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            (directory / "done").touch()
        paths = sorted(directory.glob("*/metrics.csv"), key=lambda path: int(path.parent.name))
        yield label, overrides, [_losses(path) for path in paths]


def _losses(path: Path) -> tuple[list[float], list[float]]:
    """Read training and validation loss of a run, one value per epoch."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    train, val = ([float(row[tag]) for row in rows] for tag in ("eval/train_loss", "val/loss"))
    return train, val


def _judge_seeds(label: str, kind: str, runs: list[tuple[list[float], list[float]]]) -> list[Case]:
    """Judge the seeds of one config; their true onset is taken to be the minimum of their mean validation curve."""
    cases = []
    for train, val in runs:
        verdict = judge(train, val)
        error = np.nan
        if label == "overfit" and verdict.onset is not None:
            mean_curve = np.mean([curve for _, curve in runs], axis=0)
            error = abs(verdict.onset - 1 - int(np.argmin(mean_curve))) / len(val)
        cases.append(Case(label, kind, np.nan, verdict, error))
    return cases


def _report(cases: list[Case]) -> None:
    """Confusion matrix, scores, each kind, and onset errors."""
    counts = Counter((case.label, case.verdict.verdict) for case in cases)
    print("| truth \\ verdict | " + " | ".join(VERDICTS) + " |\n|" + " --- |" * (len(VERDICTS) + 1))
    for label in VERDICTS[:4]:
        print(f"| {label} | " + " | ".join(str(counts[label, verdict]) for verdict in VERDICTS) + " |")
    found = sum(case.verdict.verdict == "overfit" for case in cases)
    true = sum(case.label == "overfit" for case in cases)
    both = counts["overfit", "overfit"]
    print(
        f"\nClass overfit: precision {both / found:.3f}, recall {both / true:.3f}, F1 {2 * both / (found + true):.3f}."
    )
    print(f"False alarms on healthy runs: {_alarms(cases)}. Missed: {_missed(cases)}.")
    errors = np.array([case.onset_error for case in cases if not np.isnan(case.onset_error)])
    if len(errors):
        print(f"Onset within 10 % of the run's length: {np.mean(errors <= 0.1):.1%} of {len(errors):,}; ", end="")
        print(f"median error {np.median(errors):.1%}, 95th percentile {np.quantile(errors, 0.95):.1%}.")
    print("\n| truth | how it was made | runs | verdicts | scores |\n| --- | --- | --- | --- | --- |")
    for label, kind in dict.fromkeys((case.label, case.kind) for case in sorted(cases, key=lambda case: case.label)):
        some = [case for case in cases if (case.label, case.kind) == (label, kind)]
        verdicts = ", ".join(
            f"{n} {verdict}" for verdict, n in Counter(case.verdict.verdict for case in some).most_common()
        )
        scores = np.sort([case.score for case in some])
        between = f"{scores[0]:.2f} to {scores[-1]:.2f}, median {np.median(scores):.2f}"
        print(f"| {label} | `{kind}` | {len(some)} | {verdicts} | {between} |")


def _missed(cases: list[Case]) -> str:
    overfit = [case for case in cases if case.label == "overfit"]
    return _share(sum(case.verdict.verdict != "overfit" for case in overfit), len(overfit))


def _alarms(cases: list[Case]) -> str:
    healthy = [case for case in cases if case.label == "healthy"]
    return _share(sum(case.verdict.verdict == "overfit" for case in healthy), len(healthy))


def _share(hits: int, of: int) -> str:
    """A share with its 95 % interval."""
    if of == 0:
        return "none"
    low, high = share_interval(hits, of)
    return f"{hits / of:.1%} ({hits} of {of:,}; {low:.1%} to {high:.1%})"


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
        print(f"| {design} | " + " | ".join(_share(n, count) for n in hits) + " |", flush=True)


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
        print(f"| {name} | {_share(held, count)} | {_share(winner, count)} | {bias} |", flush=True)


def _holds(interval: Contrast | Recommendation, truth: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high


def faults(architectures: int, seed: int) -> None:
    """Train planted faults and healthy controls, and compare what health.judge finds."""
    cases = []
    for number in range(architectures):
        cases += plants.cases(np.random.default_rng([seed, number]))
    print_findings(cases)


def _is_known(case: plants.Case) -> bool:
    """Whether a run counts: a control that learned, or had no time to; a fault, some only if little was learned."""
    if not case.fault:
        return case.short or case.learned
    return not (plants.BY_NAME[case.fault].by_outcome and case.learned)


def print_findings(cases: Sequence[plants.Case]) -> None:
    """Recall by fault and finding, precision by finding, false alarms on controls."""
    trained, cases = len(cases), [case for case in cases if _is_known(case)]
    found = [{one.finding for one in judge_health(c.rows, c.start, c.config, c.not_finite)} for c in cases]
    known = [plants.BY_NAME.get(case.fault) for case in cases]
    ill = [(fault, names) for fault, names in zip(known, found, strict=True) if fault]
    controls = [(case, names) for case, names in zip(cases, found, strict=True) if not case.fault]
    print(
        f"\n## Training faults ({len(ill)} runs of {len({f.name for f, _ in ill})} kinds, {len(controls)} controls)\n"
    )
    print("| planted | looked for | runs | found |\n| --- | --- | --- | --- |")
    for fault in plants.FAULTS:
        hits = [bool(fault.expected & names) for one, names in ill if one is fault]
        if hits:
            looked_for = " or ".join(sorted(fault.expected))
            print(f"| {fault.name} | {looked_for} | {len(hits)} | {_share(sum(hits), len(hits))} |")
    print("\n| finding | found | of these planted (precision) | planted | found (recall) |\n|" + " --- |" * 5)
    alarms = Counter(name for _, names in controls for name in names)
    for name in sorted({name for fault, names in ill for name in fault.expected | names} | set(alarms)):
        right = sum(name in names for fault, names in ill if name in fault.expected | fault.also)
        said = alarms[name] + sum(name in names for _, names in ill)
        hits = [bool(fault.expected & names) for fault, names in ill if name in fault.expected]
        print(f"| {name} | {said} | {_share(right, said)} | {len(hits)} | {_share(sum(hits), len(hits))} |")
    right = sum(len(names & (fault.expected | fault.also)) for fault, names in ill)
    said = sum(alarms.values()) + sum(len(names) for _, names in ill)
    hits = sum(bool(fault.expected & names) for fault, names in ill)
    print(f"\nAll: precision {right / said:.3f} of {said} findings, recall {hits / len(ill):.3f} of {len(ill)} faults.")
    print(f"Controls with a finding: {_share(sum(bool(names) for _, names in controls), len(controls))}; ", end="")
    print(f"{trained - len(cases)} runs whose truth is not known are left out.")
    for case, names in zip(cases, found, strict=True):
        fault = plants.BY_NAME.get(case.fault)
        wrong = names - (fault.expected | fault.also) if fault else names
        if wrong or (fault and not fault.expected & names):
            print(f"  {case.fault or 'control'}: {', '.join(sorted(names)) or 'nothing'} ({case.made})")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m scripts.calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["synthetic", "real", "stopping", "null", "power", "tuned"])
    parser.add_argument("--histories", type=int, default=5000, help="synthetic histories (default %(default)s)")
    parser.add_argument("--sweeps", type=int, default=1000, help="simulated sweeps per cell (default %(default)s)")
    parser.add_argument("--architectures", type=int, default=120, help="stacks of planted faults (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the planted faults (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "calibration", help="where real runs are kept")
    parser.add_argument("--labelled", type=Path, help="histories that people labelled, JSON")
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each real run (default %(default)s)")
    args = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "synthetic": lambda: synthetic(args.histories),
        "real": lambda: real(args.out, args.seeds),
        "labelled": lambda: labelled(args.labelled),
        "stopping": lambda: stopping(args.out, args.seeds),
        "null": lambda: null(4 * args.sweeps),  # a share of 5 % is known to 0.3 % only then
        "power": lambda: power(args.sweeps),
        "tuned": lambda: tuned(args.sweeps),
        "health": lambda: faults(args.architectures, args.seed),
        "cures": lambda: prescriptions.print_cures(prescriptions.patients(4 * args.architectures, args.seed)),
    }
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; choose from {', '.join(parts)}")
    for part in args.parts:
        parts[part]()


if __name__ == "__main__":
    main()
