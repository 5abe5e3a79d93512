"""The answer first: one paragraph that a person can quote, and the command to run next."""

import shlex
from collections.abc import Sequence

from trainer.compare import words
from trainer.compare.groups import Group, Layout
from trainer.compare.keys import is_seed, seed_of
from trainer.compare.knobs import tidy, typed
from trainer.compare.results import Answer, Comparison, Effect, Interaction
from trainer.compare.tuning import Edge

MOST = 3  # knobs that are spoken of
FEW_LEVELS = 5  # as many are counted one by one
ENOUGH = 20  # more seeds than this are not advised


def compose(found: Comparison, plan: Layout, edges: Sequence[Edge]) -> Answer:
    """Say what differs, by how much, how sure; what is not known; what to run next."""
    if len(found.groups) < 2 or "run" in found.groups[0].knobs:
        return Answer(found.recommendation.sentence if len(found.groups) == 1 else "", None)
    main = found.criterion or found.score
    told = [effect for effect in found.effects if effect.measure in (main, found.score)]
    claimed = [effect for effect in told if effect.claimed]
    lines = _differences(found, plan, claimed, main)
    used, spoken_of = set(found.chosen.values()), {effect.knob for effect in claimed}
    lines += [_overfits(plan, k, used) for k, knob in enumerate(plan.knobs) if knob.name in spoken_of]
    silent = [k.name for k in plan.knobs if not any(effect.knob == k.name for effect in claimed)]
    for effect in told:
        if effect.knob in silent:  # over all levels of the others nothing, and yet something at one of them
            lines += [f"{one.sentence}." for one in effect.simple if one.claimed]
    silent = [name for name in silent if not any(one.claimed for e in told if e.knob == name for one in e.simple)]
    if silent and claimed:
        measures = dict.fromkeys(words.measure(effect.measure) for effect in told)
        lines.append(f"No effect of {_and(silent)} on {' or '.join(measures)} is shown.")
    lines += [
        f"{effect.sentence}."
        for effect in found.effects
        if effect.claimed and effect.measure == "gap" and effect.knob in silent
    ]
    lines.append(f"{found.recommendation.sentence}.")
    lines += [_doubt(plan, edge) for edge in edges[:MOST]]
    if found.interactions and not any(one.claimed for one in found.interactions) and len(plan.knobs) == 2 and claimed:
        lines.append(f"Whether {plan.knobs[0].name} and {plan.knobs[1].name} act on each other is not shown.")
    said = dict.fromkeys(line[0].upper() + line[1:] for line in lines if line)
    return Answer(" ".join(said), _next(found, plan, edges), list(said))


def _differences(found: Comparison, plan: Layout, claimed: Sequence[Effect], main: str | None) -> list[str]:
    crossed = _strongest(found, main)
    if not claimed and not crossed:
        tested = [effect for effect in found.effects if effect.measure == main and effect.size is not None]
        if not tested or all(contrast.p is None for effect in tested for contrast in effect.contrasts):
            return ["Nothing can be tested: no two groups that differ in one thing have two runs each."]
        largest = max(tested, key=lambda one: one.size or 0.0).sentence
        for said in ("no difference shown; ", "not enough seeds to tell: ", "not enough runs to tell: "):
            largest = largest.removeprefix(said)
        return [f"No difference is shown; the largest: {largest}."]
    averages, depends = [], []
    for knob in list(dict.fromkeys(effect.knob for effect in claimed))[:MOST]:
        for effect in claimed:
            if effect.knob == knob and not _turns(effect):
                averages.append(f"{effect.sentence}.")
                averages += [_means(effect, plan), _per_level(effect)] if effect.measure == main else []
    for one in crossed[:MOST]:
        depends.append(f"{one.sentence}.")
        depends += _by_level(found, one.knobs, one.measure)
    return depends + averages if any(_turns(effect) for effect in claimed) else averages + depends


def _turns(effect: Effect) -> bool:
    """Whether an effect is shown in both directions, at one level of another knob and at another: no average tells."""
    shown = [one for at in effect.simple for one in at.contrasts if one.claimed and one.difference]
    return any(
        (one.a, one.b) == (other.a, other.b) and (one.difference or 0) * (other.difference or 0) < 0
        for one in shown
        for other in shown
    )


def _strongest(found: Comparison, main: str | None) -> list[Interaction]:
    """Return the clearest claimed interaction of each pair of knobs: in the measure that decides, else in the score."""
    strongest: dict[tuple[str, ...], Interaction] = {}
    claimed = [one for one in found.interactions if one.claimed and one.measure in (main, found.score)]
    for one in sorted(claimed, key=lambda one: (one.measure != main, one.p_adjusted or 0.0)):
        strongest.setdefault(tuple(one.knobs), one)
    return list(strongest.values())


def _means(effect: Effect, plan: Layout) -> str:
    """Say the mean at each of three and more names, and which of them are not shown to differ; of numbers a shape."""
    knob = next(knob for knob in plan.knobs if knob.name == effect.knob)
    means = [(level.mean, knob.plain(i)) for i, level in enumerate(effect.levels) if level.mean is not None]
    if effect.shape or not 3 <= len(means) <= FEW_LEVELS:
        return ""
    texts = dict(zip(knob.levels, map(knob.plain, range(len(knob.levels))), strict=True))
    alike = [f"{texts[one.a]} – {texts[one.b]}" for one in effect.contrasts if not one.claimed]
    told = ", ".join(f"{mean:.4g} ({text})" for mean, text in sorted(means))
    return f"Means: {told}; " + (f"not shown to differ: {', '.join(alike)}." if alike else "every two differ.")


def _per_level(effect: Effect) -> str:
    """Say what the difference that was told is at each level of the knob that was crossed with it."""
    parts = []
    head = max(effect.contrasts, key=lambda one: (one.claimed, abs(one.difference or 0.0)))
    for one in effect.simple:
        for same in one.contrasts:
            if (same.a, same.b) == (head.a, head.b) and same.difference is not None:
                size = f"{abs(same.difference):.3g} {'higher' if same.difference > 0 else 'lower'}"
                size = "equal" if abs(same.difference) < words.ROUNDING else size
                shown = "not tested" if same.p_adjusted is None else words.corrected(same.p_adjusted)
                parts.append(f"at {one.at} {size} ({shown})")
    return f"By level: {', '.join(parts)}." if 1 < len(parts) <= ENOUGH // 2 else ""


def _by_level(found: Comparison, knobs: Sequence[str], measure: str) -> list[str]:
    """Say what the first knob does at each level of the second."""
    for effect in found.effects:
        if effect.knob == knobs[1] and effect.measure == measure:
            return [f"{one.sentence}." for one in effect.simple if one.at.startswith(f"{knobs[0]}=")]
    return []


def _overfits(plan: Layout, k: int, chosen: set[str]) -> str:
    """Count the runs that overfit at each level of a knob; nothing where all do, or none.

    chosen: names of the groups that count, where something is tuned.
    """
    levels = range(len(plan.knobs[k].levels))
    groups = [group for group in plan.groups if not chosen or group.name in chosen]
    runs = [[run for group in groups if group.levels[k] == level for run in group.distinct] for level in levels]
    counts = [(sum(run.verdict.verdict == "overfit" for run in some), len(some)) for some in runs]
    if len({hits / n for hits, n in counts if n}) < 2 or len(counts) > FEW_LEVELS:
        return ""
    parts = [f"{hits} of {n} at {plan.knobs[k].plain(i)}" for i, (hits, n) in enumerate(counts)]
    return f"Runs that overfit: {', '.join(parts)}."


def _doubt(plan: Layout, edge: Edge) -> str:
    whose = f"{plan.contenders[edge.contender].name} is best at" if edge.own else "the best group has"
    beyond = "lower" if edge.side == "lowest" else "higher"
    return f"Not known: whether a {beyond} {edge.knob.name} is better; {whose} the {edge.side} tried ({edge.tried})."


def _next(found: Comparison, plan: Layout, edges: Sequence[Edge]) -> str | None:
    """Return a command that would tell more: a wider grid first, then more seeds."""
    for edge in edges:
        members = plan.contenders[edge.contender].members
        group = plan.groups[members[0]] if edge.own else plan.groups[_of(found, plan)]
        if command := _sweep(group, {edge.knob.name: edge.add}, _seeds(plan)):
            return command
    needed = [
        contrast.seeds_needed
        for effect in found.effects
        if effect.measure in (found.criterion, found.score)
        for contrast in effect.contrasts
        if contrast.seeds_needed and contrast.seeds_needed <= ENOUGH
    ]
    sweeps = {run.sweep for group in plan.groups for run in group.runs}
    if needed and len(sweeps) == 1 and "" not in sweeps and plan.unit == "seed":
        return shlex.join(["python", "-m", "trainer", f"resume={sweeps.pop()}", f"seed=range({max(needed)})"])
    return None


def _of(found: Comparison, plan: Layout) -> int:
    return next(index for index, group in enumerate(plan.groups) if group.name == found.recommendation.group)


def _seeds(plan: Layout) -> str:
    seeds = sorted({seed for seed in plan.seeds if isinstance(seed, int)})
    if not seeds:
        return ""
    return f"range({len(seeds)})" if seeds == list(range(len(seeds))) else ",".join(map(str, seeds))


def _sweep(group: Group, changes: dict[str, str], seeds: str) -> str | None:
    """Return the command of a sweep like a group's runs, but for the changes; None where it is not known."""
    overrides = group.runs[0].overrides
    if overrides is None:
        return None
    kept = []
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        if key in typed([text]) and key not in changes and not is_seed(key):
            kept.append(tidy(text))
    changed = [f"{key}={value}" for key, value in changes.items()]
    repeats = [f"seed={seeds}"] if seeds and seed_of(group.runs[0].config) is not None else []
    return shlex.join(["python", "-m", "trainer", "-m", *kept, *changed, *repeats])


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
