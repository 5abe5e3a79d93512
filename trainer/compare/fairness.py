"""Check that a comparison is fair: say what else differs between runs than the knobs that are compared."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.compare.groups import UNFINISHED, Group, Layout, Run
from trainer.compare.keys import NO_KNOB, hashable, is_epochs, is_optimizer, is_rate, label
from trainer.compare.knobs import Knob
from trainer.compare.results import Caveat
from trainer.compare.tuning import Choice, Edge

MOST = 3  # edges that are told of one by one: of the group to use first
LONGER = 1.5  # times as many epochs, from which runs that say no budget are taken to have had another


def warnings(plan: Layout, choice: Choice, edges: Sequence[Edge], loss_knobs: Sequence[Knob]) -> list[Caveat]:
    """Return the caveats, each at most once."""
    runs = [run for group in plan.groups for run in group.runs]
    found = [_together(knob) for knob in plan.knobs]
    found += [
        _data(runs),
        _loss(plan, loss_knobs),
        _split(plan),
        _order(plan),
        _budget(plan),
        _tune(plan, choice),
        _learning_rate(plan),
        _selection(runs),
        _seeds(plan),
        _diverged(plan.groups),
        _unfinished(runs),
        _duplicates(plan),
        _unbalanced(plan),
    ]
    found += [Caveat("edge", edge.text(plan)) for edge in edges[:MOST]]
    if len(edges) > MOST:
        found.append(Caveat("edge", f"{len(edges) - MOST} more groups are best at an edge of their own grid"))
    return [warning for warning in found if warning]


def _together(knob: Knob) -> Caveat | None:
    if not knob.together:
        return None
    shown = [knob.plain(i) for i in range(len(knob.texts))]
    levels = " | ".join([*shown[:4], *(["..."] if len(shown) > 4 else [])])
    names = f"{', '.join(knob.together[:-1])} and {knob.together[-1]}"
    how = f"moved together ({levels})" if len(shown) <= 4 else f"differ together, in {len(shown)} ways ({levels})"
    return Caveat("together", f"{names} {how}: what each does alone cannot be told apart")


def _loss(plan: Layout, knobs: Sequence[Knob]) -> Caveat | None:
    if not knobs:
        return None
    names = " and ".join(knob.name for knob in knobs)
    others = "accuracies and other metrics" if plan.metrics else "accuracies"
    said = f"losses at its values are different quantities, only {others} are compared"
    return Caveat("loss", f"{names} defines the loss: {said}")


def _tune(plan: Layout, choice: Choice) -> Caveat | None:
    if not plan.tuned:
        return None
    names = " and ".join(knob.name for knob in plan.tuned)
    several = any(len(one.members) > 1 for one in plan.contenders)
    how = "chosen by the validation split, at each seed by the other seeds" if several else "as it was given to each"
    return Caveat(
        "tune", f"{names} is tuned, not compared: every group stands at its own best, {how} (--tune none compares it)"
    )


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
    varied = any(is_epochs(key) for knob in plan.knobs if not knob.together for key in knob.keys)
    runs = [run for group in plan.groups for run in group.runs if run.counts]
    asked = [_asked(run) for run in runs]
    epochs = {n for budget, run in zip(asked, runs, strict=True) if (n := budget or run.epochs)}
    if varied or len(epochs) < 2:
        return None
    if not all(asked) and max(epochs) < LONGER * min(epochs):
        return None  # as runs that stop early do
    return Caveat("budget", f"the runs trained for {min(epochs)} to {max(epochs)} epochs: unequal budgets")


def _asked(run: Run) -> int | None:
    """Return how many epochs a run was to train."""
    found = [n for key, n in run.config.items() if is_epochs(key) and isinstance(n, int)]
    return max(found, default=None)


def _learning_rate(plan: Layout) -> Caveat | None:
    """Warn of optimizers compared at one learning rate each: their best rates differ by orders of magnitude."""
    optimizers = next(
        (k for k, knob in enumerate(plan.knobs) if is_optimizer(knob.keys[0]) and _named(knob.levels)), None
    )
    if optimizers is None:
        return None
    if plan.tuned and all(len(one.members) == 1 for one in plan.contenders):
        return None  # each was tuned elsewhere
    rates: dict[int, set[Any]] = defaultdict(set)
    for group in plan.groups:
        rates[group.levels[optimizers]] |= {hashable(v) for key, v in group.runs[0].config.items() if is_rate(key)}
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
    few = [group.name for group in plan.groups if len(group.distinct) < 3]
    if not few or NO_KNOB in (knob.name for knob in plan.knobs):
        return None
    smallest = min(len(group.distinct) for group in plan.groups)
    count = "every group" if len(few) == len(plan.groups) else f"{len(few)} of {len(plan.groups)} groups"
    have = "has" if "every" in count or len(few) == 1 else "have"
    is_ours = all(run.overrides is not None for group in plan.groups for run in group.runs)
    advice = "run seed=range(5)" if plan.unit == "seed" and is_ours else "repeat each with other random seeds"
    text = f"{count} {have} fewer than 3 {plan.unit}s (one has {smallest}): wide or missing intervals; {advice}"
    return Caveat("seeds", text)


def _diverged(groups: tuple[Group, ...]) -> Caveat | None:
    hit = [(group, sum(run.diverged for run in group.distinct)) for group in groups]
    if not any(count for _, count in hit):
        return None
    where = _some(f"{count} of {len(group.distinct)} runs of {group.name}" for group, count in hit if count)
    text = f"{where} diverged: means are of those that ended; in choosing they count as having learned nothing"
    return Caveat("diverged", text)


def _unfinished(runs: list[Run]) -> Caveat | None:
    failed, stopped = (sum(run.status == status for run in runs) for status in UNFINISHED)
    said = [f"{failed} of {len(runs)} runs failed: in choosing they count as having learned nothing"] * bool(failed)
    said += [f"{stopped} of {len(runs)} runs were interrupted: they count as not run"] * bool(stopped)
    return Caveat("unfinished", "; ".join(said) + "; means are of those that ended") if said else None


def _duplicates(plan: Layout) -> Caveat | None:
    names = [group.name for group in plan.groups if len(group.distinct) < len(group.runs)]
    if not names:
        return None
    what = "config and seed" if plan.unit == "seed" else "config and numbers"
    return Caveat("duplicates", f"{_some(names)}: runs with the same {what}; they count as one")


def _unbalanced(plan: Layout) -> Caveat | None:
    combinations = math.prod(len(knob.levels) for knob in plan.knobs)
    if combinations <= len(plan.contenders):
        return None
    all_of_them = str(combinations) if combinations < 1e6 else "more than a million"
    text = f"{len(plan.contenders)} of {all_of_them} combinations of the knobs were run: only equal ones are compared"
    return Caveat("unbalanced", text)


def _some(items: Iterable[Any]) -> str:
    """List the first few items."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
