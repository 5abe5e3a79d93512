"""Check that a comparison is fair: say what else differs between runs than the knobs that are compared."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from trainer.compare.groups import UNFINISHED, Group, Layout, Run, hashable, label
from trainer.compare.results import Caveat

BOUNDED = ("dropout", "weight_decay", "momentum", "label_noise", "label_smoothing")  # 0 is no edge of these: it is off


def warnings(plan: Layout) -> list[Caveat]:
    """Return the caveats that need no winner, each at most once."""
    runs = [run for group in plan.groups for run in group.runs]
    found = [
        _data(runs),
        _split(plan),
        _order(plan),
        _budget(plan),
        _learning_rate(plan),
        _selection(runs),
        _seeds(plan),
    ]
    found += [_diverged(plan.groups), _unfinished(runs), _duplicates(plan.groups), _unbalanced(plan)]
    return [warning for warning in found if warning]


def edges(plan: Layout, best: int) -> list[Caveat]:
    """Warn of numeric knobs whose best value is the first or last tried: the optimum may lie outside."""
    found = []
    for knob, level in zip(plan.knobs, plan.groups[best].levels, strict=True):
        numbers = [value for value in knob.levels if isinstance(value, (int, float))]
        if len(numbers) != len(knob.levels) or len(numbers) < 3 or level not in (0, len(numbers) - 1):
            continue
        if numbers[level] == 0 and knob.name.endswith(BOUNDED):
            continue
        side, beyond = ("lowest", "lower") if level == 0 else ("highest", "higher")
        text = f"the best group has the {side} {knob.name} tried ({label(numbers[level])}): try {beyond} ones too"
        found.append(Caveat("edge", text))
    return found


def _data(runs: list[Run]) -> Caveat | None:
    hashes = {run.hashes["data_hash"] for run in runs if run.hashes.get("data_hash")}
    if len(hashes) < 2:
        return None
    return Caveat(
        "data", f"the runs were trained on {len(hashes)} different data sets (data_hash): losses do not compare"
    )


def _by_seed(plan: Layout, key: str) -> dict[Any, set[str]]:
    """Return for each seed the different hashes among its runs."""
    found: dict[Any, set[str]] = defaultdict(set)
    for group in plan.groups:
        for run, seed in zip(group.runs, group.seeds, strict=True):
            if run.hashes.get(key):
                found[seed].add(run.hashes[key])
    return found


def _split(plan: Layout) -> Caveat | None:
    if any(key.endswith(("train_size", "val_fraction")) for knob in plan.knobs for key in knob.keys):
        return None  # other splits are what is compared
    seeds = [seed for seed, hashes in _by_seed(plan, "split_hash").items() if len(hashes) > 1]
    if not seeds:
        return None
    text = f"runs of the same seed have different splits (seeds {_some(seeds)}): the split is part of any difference"
    return Caveat("split", text)


def _order(plan: Layout) -> Caveat | None:
    if any("batch_size" in key or "train_size" in key for knob in plan.knobs for key in knob.keys):
        return None  # other batches are what is compared
    seeds = [seed for seed, hashes in _by_seed(plan, "order_hash").items() if len(hashes) > 1]
    if not seeds:
        return None
    return Caveat("order", f"runs of the same seed saw their batches in another order (seeds {_some(seeds)})")


def _budget(plan: Layout) -> Caveat | None:
    """Compare epochs as asked for in the config (a run that stops early had the same budget), else as trained."""
    if any("epochs" in knob.keys for knob in plan.knobs):
        return None
    runs = [run for group in plan.groups for run in group.runs if run.counts]
    epochs = {n for run in runs if isinstance(n := run.config.get("epochs", run.epochs), int)}
    if len(epochs) < 2:
        return None
    return Caveat("budget", f"the runs trained for {min(epochs)} to {max(epochs)} epochs: unequal budgets")


def _learning_rate(plan: Layout) -> Caveat | None:
    """Warn of optimizers compared at one learning rate each: their best rates differ by orders of magnitude."""
    optimizers = next(
        (k for k, knob in enumerate(plan.knobs) if knob.keys[0].startswith("optimizer") and _named(knob.levels)), None
    )
    if optimizers is None:
        return None
    rates: dict[int, set[Any]] = defaultdict(set)
    for group in plan.groups:
        rates[group.levels[optimizers]].add(hashable(group.runs[0].config.get("optimizer.lr")))
    levels = plan.knobs[optimizers].levels
    few = [label(levels[level]) for level, values in sorted(rates.items()) if len(values) == 1 and None not in values]
    if not few:
        return None
    text = f"{_some(few)}: only one learning rate tried; the optimizers' differences may be differences of tuning"
    return Caveat("learning_rate", text)


def _named(values: Iterable[Any]) -> bool:
    return any(isinstance(value, str) for value in values)


def _selection(runs: list[Run]) -> Caveat | None:
    if any(str(run.config.get("early_stopping.monitor", "")).startswith("test") for run in runs):
        return Caveat("selection", "early stopping watched the test split: test numbers are flattered by the selection")
    has_test = any(run.measures.get("test_loss") is not None for run in runs)
    if has_test and not any(run.measures.get("best_val_loss") is not None for run in runs):
        return Caveat("selection", "there is no validation split: choosing by the test numbers would flatter them")
    return None


def _seeds(plan: Layout) -> Caveat | None:
    few = [group.name for group in plan.groups if len(set(group.seeds)) < 3]
    if not few:
        return None
    smallest = min(len(set(group.seeds)) for group in plan.groups)
    count = "every group" if len(few) == len(plan.groups) else f"{len(few)} of {len(plan.groups)} groups"
    text = f"{count} has fewer than 3 seeds (one has {smallest}): wide or missing intervals; run seed=range(5)"
    return Caveat("seeds", text)


def _diverged(groups: tuple[Group, ...]) -> Caveat | None:
    hit = [(group, sum(run.verdict.verdict == "diverged" for run in group.runs)) for group in groups]
    if not any(count for _, count in hit):
        return None
    where = _some(f"{count} of {len(group.runs)} runs of {group.name}" for group, count in hit if count)
    return Caveat("diverged", f"{where} diverged: they are left out of the means, which speak for the others only")


def _unfinished(runs: list[Run]) -> Caveat | None:
    count = sum(run.status in UNFINISHED for run in runs)
    if not count:
        return None
    return Caveat("unfinished", f"{count} of {len(runs)} runs failed or were interrupted: left out of all means")


def _duplicates(groups: tuple[Group, ...]) -> Caveat | None:
    names = [group.name for group in groups if len(set(group.seeds)) < len(group.seeds)]
    if not names:
        return None
    text = f"{_some(names)}: runs with the same config and seed; they count as one, averaged"
    return Caveat("duplicates", text)


def _unbalanced(plan: Layout) -> Caveat | None:
    combinations = math.prod(len(knob.levels) for knob in plan.knobs)
    if combinations <= len(plan.groups):
        return None
    all_of_them = str(combinations) if combinations < 1e6 else "more than a million"
    text = f"{len(plan.groups)} of {all_of_them} combinations of the knobs were run: only equal ones are compared"
    return Caveat("unbalanced", text)


def _some(items: Iterable[Any]) -> str:
    """List the first few items."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
