"""Verdicts on histories of known truth: made up, of real runs, labelled by people; and early stopping by them."""

import csv
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.calibrate import ROOT, share
from scripts.histories import NOISES, history
from trainer.judge.overfit import SURE, Verdict, judge

VERDICTS = ("overfit", "healthy", "underfit", "diverged", "too_short")
SYNTHETIC_SEED = 75025  # rules were chosen on the histories of others


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
            cells = f"{p[some].mean():.2f} | {share(int(truth[some].sum()), int(some.sum()))}"
            print(f"| {low} to {min(high, 1)} | {some.sum()} | {cells} |")
    brier, of_label = np.mean((p - truth) ** 2), np.mean((hard - truth) ** 2)
    sure = share(int(((p < 1 - SURE) | (p > SURE)).sum()), len(p))
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
        print(f"| {name} | {share(hurt, others)} | {share(stopped, len(shares))} | {spent} |")
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
    return share(sum(case.verdict.verdict != "overfit" for case in overfit), len(overfit))


def _alarms(cases: list[Case]) -> str:
    healthy = [case for case in cases if case.label == "healthy"]
    return share(sum(case.verdict.verdict == "overfit" for case in healthy), len(healthy))
