"""Check that a comparison is fair: say what else differs between runs than the knobs that are compared."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from trainer.compare import words
from trainer.compare.groups import UNFINISHED, Group, Layout, Run, listed
from trainer.compare.keys import (
    NO_KNOB,
    hashable,
    is_epoch_length,
    is_epochs,
    is_optimizer,
    is_rate,
    label,
    may_end_early,
)
from trainer.compare.knobs import Knob
from trainer.compare.results import Caveat
from trainer.compare.tuning import Edge, learned
from trainer.text import few, plural

MOST = 3  # edges that are told of one by one: of the group to use first
ACROSS_RUNS = {"still_falling", "cut_short", "seeds"}  # what cannot be held against a single run
LONGER = 1.5  # times as many epochs, from which runs that say no budget are taken to have had another
ENDLESS = 1e9  # epochs from here on are no budget
WHOLE = 0.9  # of the epochs that were asked for: runs of fewer were cut short


def warnings(
    plan: Layout,
    edges: Sequence[Edge],
    loss_knobs: Sequence[Knob],
    told_apart: Sequence[str],
    compared: Sequence[Group],
) -> list[Caveat]:
    """Return the caveats, each at most once. told_apart: see tuning.told_apart. compared: what each contender is."""
    more = len(edges) - MOST
    are, whose = ("group is", "its") if more == 1 else ("groups are", "their")
    found = [
        *(("together", _together(knob)) for knob in plan.knobs if knob.together),
        ("together", _momentum(plan)),
        ("data", _data(plan)),
        ("loss", _loss(plan, loss_knobs)),
        ("split", _split(plan)),
        ("order", _order(plan)),
        ("budget", _budget(plan) or _steps(plan)),
        ("cut_short", _cut_short(plan)),
        ("evaluations", _evaluations(plan)),
        ("still_falling", _still_falling(plan, compared)),
        ("tune", _tune(plan, told_apart)),
        ("learning_rate", _learning_rate(plan) or untuned(plan)),
        ("selection", _selection(plan)),
        ("seeds", _seeds(plan) or _no_seed_in_common(plan)),
        ("diverged", _diverged(plan)),
        ("unfinished", _unfinished(plan)),
        ("duplicates", _idle(plan) or _duplicates(plan)),
        ("unbalanced", fraction(plan) or _unbalanced(plan)),
        *(("edge", edge.text(plan)) for edge in edges[:MOST]),
        ("edge", f"{more} more {are} best at an edge of {whose} own grid" if more > 0 else ""),
    ]
    is_alone = sum(len(group.distinct) for group in plan.groups) == 1
    return [Caveat(kind, text) for kind, text in found if text and not (is_alone and kind in ACROSS_RUNS)]


def _together(knob: Knob) -> str:
    shown = [knob.plain(i) for i in range(len(knob.texts))]
    levels = " | ".join([*shown[:4], *(["..."] if len(shown) > 4 else [])])
    names = f"{', '.join(knob.together[:-1])} and {knob.together[-1]}"
    how = f"moved together ({levels})" if len(shown) <= 4 else f"differ together, in {len(shown)} ways ({levels})"
    return f"{names} {how}: what each does alone cannot be told apart"


def _momentum(plan: Layout) -> str:
    """Warn of schedules that move momentum too, compared with those that move the learning rate alone."""
    knobs = [k for k, knob in enumerate(plan.knobs) if {"schedule", "schedule.name"} & {knob.name, *knob.keys}]
    moving = [group for group in plan.groups if group.runs[0].config.get("schedule.cycle_momentum")]
    if not knobs or len(moving) in (0, len(plan.groups)):
        return ""
    names = few(dict.fromkeys(plan.knobs[k].plain(group.levels[k]) for group in moving for k in knobs))
    said = "moves momentum as well as the learning rate: what each does alone cannot be told apart"
    return f"{names} {said} (schedule.cycle_momentum=false moves the rate alone)"


def _loss(plan: Layout, knobs: Sequence[Knob]) -> str:
    names = " and ".join(knob.name for knob in knobs)
    others = "accuracies and other metrics" if plan.metrics else "accuracies"
    count = sum(len(knob.together) or 1 for knob in knobs)
    defines, its = words.verb("defines", count), "its" if count == 1 else "their"
    said = f"losses at {its} values are different quantities, only {others} are compared"
    return f"{names} {defines} the loss: {said}" if knobs else ""


def _tune(plan: Layout, told_apart: Sequence[str]) -> str:
    names = " and ".join(knob.name for knob in plan.tuned)
    how = "as it was given to each"
    if plan.is_chosen:
        how = "chosen by the validation split, at each seed by the other seeds"
    are, them = words.verb("is", len(plan.tuned)), "it" if len(plan.tuned) == 1 else "them"
    said = f"{are} tuned, not compared: every group stands at its own best, {how} (--tune none compares {them})"
    said += "".join(f"; so {one}" for one in told_apart[:MOST])
    return f"{names} {said}" if names else ""


def _data(plan: Layout) -> str:
    count = len({run.hashes.get("data_hash") for run in plan.runs} - {None, ""})
    found = f"the runs were trained on {count} different data sets (data_hash): losses do not compare"
    return found if count > 1 else ""


def _seeds_that_differ(plan: Layout, key: str, *compared: str) -> str:
    """List the seeds whose runs have different hashes; none where a knob that changes these is what is compared."""
    found: dict[Any, set[Any]] = defaultdict(set)
    if any(part in one for knob in plan.knobs for one in knob.keys for part in compared):
        return ""
    for group in plan.groups:
        for run, seed in zip(group.runs, group.seeds, strict=True):
            found[seed] |= {run.hashes.get(key)} - {None, ""}
    return few([seed for seed, hashes in found.items() if len(hashes) > 1])


def _split(plan: Layout) -> str:
    seeds = _seeds_that_differ(plan, "split_hash", "train_size", "val_fraction")
    found = f"runs of the same seed have different splits (seeds {seeds}): the split is part of any difference"
    return found if seeds else ""


def _order(plan: Layout) -> str:
    seeds = _seeds_that_differ(plan, "order_hash", "train_size", "batch_size")
    return f"runs of the same seed saw their batches in another order (seeds {seeds})" if seeds else ""


def _still_falling(plan: Layout, compared: Sequence[Group]) -> str:
    """Count the runs whose validation loss is lowest at their last epoch, where that is half of them or more.

    Runs that have learned nothing have no say.
    """
    least = learned(plan.runs)
    ended = [run for group in compared for run in group.distinct if run.counts and run.epochs]
    judged = [run for run in ended if "best_index" in run.verdict.evidence]
    known = [run for run in judged if run.measures.get("best_val_loss", 0.0) < least]
    falling = [run for run in known if run.verdict.evidence["best_index"] == (run.verdict.evidence["epochs"] or 0) - 1]
    if _compares_epochs(plan) or not falling or 2 * len(falling) < len(known):
        return ""
    of = "runs that learned" if len(known) < len(ended) else "runs"
    said = f"{len(falling)} of {len(known)} {of} have their lowest validation loss at their last epoch"
    return f"{said}: after more epochs the order may be another"


def _compares_epochs(plan: Layout) -> bool:
    return any(is_epochs(key) for knob in plan.knobs if not knob.together for key in knob.keys)


def _asked(run: Run) -> dict[str, float]:
    """Return the numbers of epochs that a run's configuration says, by their keys."""
    said = {key: n for key, n in run.config.items() if is_epochs(key) and not isinstance(n, bool)}
    return {key: n for key, n in said.items() if isinstance(n, (int, float)) and 0 < n < ENDLESS}


def _budget(plan: Layout) -> str:
    """Compare epochs as asked for in the config (a run that stops early had the same budget), else as trained."""
    runs = [(group.name, run) for group in plan.groups for run in group.runs if run.counts]
    asked = [max(_asked(run).values(), default=0) for _, run in runs]
    trained = [(name, n) for (name, run), said in zip(runs, asked, strict=True) if (n := said or run.epochs)]
    epochs = {n for _, n in trained}
    if _compares_epochs(plan) or len(epochs) < 2:
        return ""
    if not all(asked) and max(epochs) < LONGER * min(epochs):
        return ""  # as runs that stop early do
    return f"the runs trained for {_span(epochs)} epochs{_by_group(trained)}: unequal budgets"


def _steps(plan: Layout) -> str:
    """Say that equal epochs are no equal number of steps, where what makes an epoch longer or shorter is compared."""
    names = [knob.name for knob in plan.knobs if any(is_epoch_length(key) for key in (knob.name, *knob.keys))]
    if not names or any(run.config.get("steps") for run in plan.runs):
        return ""
    how = "with equal epochs its values are trained for unequal numbers of steps"
    ours = " (steps=N makes them equal)" if all(run.overrides is not None for run in plan.runs) else ""
    return f"{names[0]} changes how many steps an epoch has: {how}{ours}"


def _by_group(found: Sequence[tuple[str, float]]) -> str:
    """Say in brackets what numbers each group has, the fewest first; nothing where all have the same."""
    numbers: dict[str, set[float]] = defaultdict(set)
    for name, n in found:
        numbers[name].add(n)
    spans = {name: _span(some) for name, some in sorted(numbers.items(), key=lambda one: sorted(one[1]))}
    return f" ({few(f'{name}: {span}' for name, span in spans.items())})" if len({*spans.values()}) > 1 else ""


def _span(numbers: Collection[float]) -> str:
    return " to ".join(f"{n:g}" for n in sorted({min(numbers), max(numbers)}))


def _cut_short(plan: Layout) -> str:
    """Count the runs of fewer epochs than their configuration says, where nothing says why."""
    found = [(group, [one for run in group.distinct if (one := _cut(run))]) for group in plan.groups]
    cut = [one for _, some in found for one in some]
    where = few(f"{len(some)} of {len(group.distinct)} runs of {group.name}" for group, some in found if some)
    if not cut:
        return ""
    had, asked, keys = (set(column) for column in zip(*cut, strict=True))
    said = f"{_span(had)} of the {_span(asked)} epochs that {' or '.join(sorted(keys))} says"
    return f"{where} {'has' if len(cut) == 1 else 'have'} {said}: killed, stopped early, or still training"


def _cut(run: Run) -> tuple[int, float, str] | None:
    """Return a run's epochs, those that were asked for, and by which key; None where it has them, or says why not."""
    asked = sorted((n, key) for key, n in _asked(run).items())
    is_known = run.status is not None or any(may_end_early(key, value) for key, value in run.config.items())
    if is_known or not asked or not run.counts or not run.epochs or run.epochs >= WHOLE * asked[0][0]:
        return None
    return run.epochs, *asked[0]


def _evaluations(plan: Layout) -> str:
    """Compare how often validation was measured, where all runs of a group, two or more, agree: no early stopping."""
    counted = [(group.name, run.verdict.evidence) for group in plan.groups for run in group.distinct if run.counts]
    found = [(name, float(one["epochs"] or 0)) for name, one in counted if "best_index" in one]
    times = {n for _, n in found}
    is_regular = 2 * len(set(found)) == 2 * len({name for name, _ in found}) <= len(found)
    if not times or not is_regular or max(times) < LONGER * min(times) or _budget(plan) or _cut_short(plan):
        return ""
    said = "the best of more is better by luck alone"
    return f"validation was measured {_span(times)} times{_by_group(found)}: {said}"


def _learning_rate(plan: Layout) -> str:
    """Warn of optimizers compared at one learning rate each: their best rates differ by orders of magnitude."""
    found = (k for k, knob in enumerate(plan.knobs) if is_optimizer(knob.keys[0]) and _has_names(knob))
    k = next(found, None)
    if k is None or (plan.tuned and not plan.is_chosen):  # each was tuned elsewhere
        return ""
    rates: dict[int, set[Any]] = defaultdict(set)
    for group in plan.groups:
        rates[group.levels[k]] |= {hashable(v) for key, v in group.runs[0].config.items() if is_rate(key)}
    levels = plan.knobs[k].levels
    few_rates = [label(levels[i]) for i, values in sorted(rates.items()) if len(values) == 1 and None not in values]
    said = "only one learning rate tried; the optimizers' differences may be differences of tuning"
    return f"{few(few_rates)}: {said}" if few_rates else ""


def untuned(plan: Layout) -> str:
    """Warn where what is tuned had a single value for some of those compared, and several for others."""
    lone = [one.name for one in plan.contenders if len(one.members) == 1]
    names = " and ".join(knob.name for knob in plan.tuned)
    said = f"only one {names} was tried at {few(lone)}, more at others; what differs may be a difference of tuning"
    return said if lone and plan.is_chosen else ""


def _has_names(knob: Knob) -> bool:
    return any(isinstance(level, str) for level in knob.levels)


def _selection(plan: Layout) -> str:
    if any(str(run.config.get("early_stopping.monitor", "")).startswith("test") for run in plan.runs):
        return "early stopping watched the test split: test numbers are flattered by the selection"
    there = {name for run in plan.runs for name in run.measures}
    if "test_loss" in there and "best_val_loss" not in there:
        return "there is no validation split: choosing by the test numbers would flatter them"
    return ""


def _seeds(plan: Layout) -> str:
    counts = [len(group.distinct) for group in plan.groups]
    small = sum(count < 3 for count in counts)
    if not small or NO_KNOB in (knob.name for knob in plan.knobs):
        return ""
    which = f"{small} of {len(counts)} groups {'has' if small == 1 else 'have'}"
    which = "every group has" if small == len(counts) else which
    is_ours = all(run.overrides is not None for run in plan.runs)
    advice = "run seed=range(5)" if plan.unit == "seed" and is_ours else "repeat each with other random seeds"
    few_of_them = f"fewer than 3 {plan.unit}s (one has {min(counts)})"
    if len({*counts}) == 1:
        few_of_them = plural(counts[0], plan.unit)
    return f"{which} {few_of_them}: wide or missing intervals; {advice}"


def _no_seed_in_common(plan: Layout) -> str:
    seeds = [set(group.seeds) for group in plan.groups]
    if plan.unit != "seed" or len(seeds) < 2 or len(set[Any]().union(*seeds)) < sum(map(len, seeds)):
        return ""
    return "no two groups have a seed in common: with the same seeds in each, as many runs tell smaller differences"


def _diverged(plan: Layout) -> str:
    hit = [(sum(run.diverged for run in group.distinct), group) for group in plan.groups]
    where = few([f"{count} of {len(group.distinct)} runs of {group.name}" for count, group in hit if count])
    said = "diverged: means are of those that ended; in choosing they count as having learned nothing"
    return f"{where} {said}" if where else ""


def _unfinished(plan: Layout) -> str:
    failed, stopped = (sum(run.status == status for run in plan.runs) for status in UNFINISHED)
    count = len(plan.runs)
    said = [f"{failed} of {count} runs failed: in choosing they count as having learned nothing"] * bool(failed)
    was, does = (words.verb(one, stopped) for one in ("was", "does"))
    said += [f"{stopped} of {count} runs {was} interrupted, and {does} not count"] * bool(stopped)
    return "; ".join([*said, "means are of those that ended"]) if said else ""


def _idle(plan: Layout) -> str:
    """Name the knobs that change no number."""
    names, count = few((knob.name for knob in plan.idle), most=8), len(plan.idle)
    said = (
        f"{words.verb('changes', count)} no number: runs that differ in {'it' if count == 1 else 'them'} alone are one"
    )
    return f"{names} {said}" if names else ""


def _duplicates(plan: Layout) -> str:
    """Count the runs that were recorded again: each counts once with the first of its seed."""
    groups = [group for group in plan.groups if len(group.distinct) < len(group.runs)]
    again = sum(len(group.runs) - len(group.distinct) for group in groups)
    what = "config and seed" if plan.unit == "seed" else "config and numbers"
    said = f"{again} of {len(plan.runs)} runs {words.verb('is', again)} the same as another (equal {what})"
    return f"{said} and {words.verb('is', again)} not counted again: {listed(plan, groups)}" if groups else ""


def fraction(plan: Layout) -> str:
    """Say what a fraction of all combinations cannot tell apart."""
    names = few((plan.knobs[k].name for k in plan.fractions), most=8)
    said = f"{len(plan.contenders)} of {plan.combinations} combinations of the knobs were run, a balanced fraction"
    told = (
        f"what {names} do is averaged over them, and not told apart from what three or more of the others do together"
    )
    return f"{said}: {told}; whether one depends on another is not asked" if plan.fractions else ""


def _unbalanced(plan: Layout) -> str:
    ran = len(plan.contenders)
    all_of_them = str(plan.combinations) if plan.combinations < 1e6 else "more than a million"
    found = f"{ran} of {all_of_them} combinations of the knobs were run: only equal ones are compared"
    return found if plan.combinations > ran else ""
