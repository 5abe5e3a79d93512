"""The answer first: one paragraph that a person can quote, and the command to run next."""

import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from trainer.compare import fairness, words
from trainer.compare.groups import Group, Layout, Run
from trainer.compare.keys import NO_KNOB, label, seed_of
from trainer.compare.knobs import Knob, own
from trainer.compare.results import Answer, Comparison, Contrast, Effect, Interaction
from trainer.compare.tuning import Edge
from trainer.text import key_of

MOST = 3  # knobs that are spoken of
FEW_LEVELS = 8  # as many are told one by one
ENOUGH = 20  # more seeds than this are not advised
ONE_SEED = 5  # seeds that are advised where there is one


def compose(found: Comparison, plan: Layout, edges: Sequence[Edge]) -> Answer:
    """Say what differs, by how much, how sure; what is not known; what to run next."""
    if len(found.groups) < 2:
        return Answer(found.recommendation.sentence if found.groups else "", None)
    if NO_KNOB in found.groups[0].knobs:
        text = f"The {len(found.groups)} runs are not compared: nothing lies beside them that says what each was given."
        return Answer(text, None, [text])
    main = found.criterion or found.score
    told = [effect for effect in found.effects if effect.measure == main]
    scores = [effect for effect in found.effects if effect.measure == found.score != main]
    crossed = _strongest(found, main)
    lines = _differences(found, plan, told, scores, crossed)
    used, spoken_of = set(found.chosen.values()), {e.knob for e in (*told, *scores) if e.claimed}
    within_crossed = {name for one in crossed for name in one.knobs}
    silent = [knob.name for knob in plan.knobs if knob.name not in spoken_of | within_crossed]
    for effect in told:
        some = [f"{one.sentence}." for one in effect.simple if one.claimed]
        if some and effect.knob in silent:
            lines += some[:MOST]  # over all levels of the others nothing, and yet something at one of them
            silent.remove(effect.knob)
    if silent and len(silent) < len(plan.knobs):
        measures = dict.fromkeys(words.measure(effect.measure) for effect in (*told, *scores))
        lines.append(f"No effect of {_and(silent)} on {' or '.join(measures)} is shown.")
    lines += [f"{e.sentence}." for e in found.effects if e.claimed and e.measure == "gap" and e.knob in silent]
    for k, knob in enumerate(plan.knobs):
        if knob.name in spoken_of:
            lines.append(_counts("overfit", plan, k, used, lambda run: run.verdict.verdict == "overfit"))
        lines.append(_counts("diverged or failed", plan, k, used, lambda run: run.failed))
    lines.append(f"{found.recommendation.sentence}.")
    lines += [f"{edge.text(plan)}." for edge in edges[: fairness.MOST]]
    if found.interactions and not any(one.claimed for one in found.interactions) and len(plan.knobs) == 2 and spoken_of:
        lines.append(f"Whether {plan.knobs[0].name} and {plan.knobs[1].name} act on each other is not shown.")
    if found.tests > 1:
        lines.append(f"Intervals are of each difference alone; p is corrected for all {found.tests} tests.")
    said = dict.fromkeys(line[0].upper() + line[1:] for line in lines if line)
    return Answer(" ".join(said), _next(found, plan, edges), list(said))


def _differences(
    found: Comparison, plan: Layout, told: list[Effect], scores: list[Effect], crossed: list[Interaction]
) -> list[str]:
    claimed = [effect for effect in (*told, *scores) if effect.claimed]
    if not claimed and not crossed:
        if any(one.claimed for effect in told for one in effect.simple):
            return []
        tested = [effect for effect in told if any(one.p is not None for one in effect.contrasts)]
        if not tested:
            return ["Nothing can be tested: no two groups that differ in one thing have two runs each."]
        largest = max(tested, key=lambda one: one.size or 0.0).sentence
        for prefix in words.NOT_SHOWN:
            largest = largest.removeprefix(f"{prefix}: ")
        return [f"No difference is shown; the largest: {largest}."]
    averages, depends = [], []
    for one in crossed[:MOST]:
        both = [effect for effect in told if effect.knob in one.knobs]
        least = min(both, key=lambda effect: (len(effect.levels), effect.knob == one.knobs[0]), default=None)
        depends.append(f"{one.sentence}.")
        depends += [_per_level(least, k) for k in plan.knobs if least and k.name in one.knobs and k.name != least.knob]
    for name in list(dict.fromkeys(effect.knob for effect in claimed))[:MOST]:
        main, score = (next((e for e in some if e.knob == name), None) for some in (told, scores))
        if main and main.claimed and not _turns(main):
            changing = _changing(main, crossed, plan)
            over = f"averaged over {_and(changing)}: " if changing else ""
            averages += [f"{over}{main.sentence}{_also(main, score)}.", _means(main, plan)]
            if len(plan.knobs) == 2 and not crossed:
                averages += [_per_level(main, knob) for knob in plan.knobs if knob.name != name]
        told_of_both = main and (_turns(main) or (main.claimed and _also(main, score)))
        if score and score.claimed and not told_of_both and not _changing(score, crossed, plan):
            averages.append(f"{score.sentence}.")
    return depends + averages


def _also(main: Effect, score: Effect | None) -> str:
    """Say of the levels that a claim is of what the score does there, where it is claimed too."""
    head = words.largest(main.contrasts)
    for one in score.contrasts if score and head else ():
        if head and one.claimed and one.difference and (one.a, one.b) == (head.a, head.b):
            evidence = f"{words.interval(one)}, {words.corrected(one.p_adjusted)}"
            return f"; {words.measure(one.measure)} is {words.amount(one.difference)} there ({evidence})"
    return ""


def _turns(effect: Effect) -> bool:
    """Whether an effect is shown in both directions, at one level of another knob and at another: no average tells."""
    ways: dict[tuple[Any, Any], set[bool]] = {}
    for one in (one for at in effect.simple for one in at.contrasts if one.claimed and one.difference):
        ways.setdefault((one.a, one.b), set()).add((one.difference or 0.0) > 0)
    return any(len(way) > 1 for way in ways.values())


def _changing(effect: Effect, crossed: Sequence[Interaction], plan: Layout) -> list[str]:
    """Name the knobs that are shown to change an effect, at some of whose levels it is not shown itself."""
    return [
        knob.name
        for knob in plan.knobs
        if any({effect.knob, knob.name} == set(one.knobs) for one in crossed)
        and not all(one.claimed for _, one in _largest_at(effect, knob))
    ]


def _largest_at(effect: Effect, other: Knob) -> list[tuple[str, Contrast]]:
    """Return the largest difference of a knob at each level of another, with that level as typed."""
    head, levels = words.largest(effect.contrasts), [other.plain(i) for i in range(len(other.levels))]
    within = [(at.at, one) for at in effect.simple if at.at in levels for one in at.contrasts]
    return [(at, one) for at, one in within if head and (one.a, one.b) == (head.a, head.b)]


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
    means = [(level.mean, i) for i, level in enumerate(effect.levels) if level.mean is not None]
    if effect.shape or not 3 <= len(means) <= FEW_LEVELS:
        return ""
    order = [i for _, i in sorted(means)]
    place = {level: order.index(i) for i, level in enumerate(knob.levels) if i in order}
    apart = {frozenset((place[one.a], place[one.b])) for one in effect.contrasts if one.claimed}
    runs = [_alike(start, len(order), apart) for start in range(len(order))]
    alike = [run for n, run in enumerate(runs) if len(run) > 1 and (n == 0 or run[-1] > runs[n - 1][-1])]
    texts = [knob.plain(i) for i in order]
    told = ", ".join(f"{mean:.4g} ({knob.plain(i)})" for mean, i in sorted(means))
    sets = "; ".join(" – ".join(texts[i] for i in run) for run in alike)
    return f"Means: {told}; " + (f"not shown to differ: {sets}." if alike else "every two differ.")


def _alike(start: int, count: int, apart: set[frozenset[int]]) -> list[int]:
    """Return the neighbours in order of the means, from `start` on, of which no two are shown to differ."""
    run = [start]
    while (i := run[-1] + 1) < count and not any(frozenset((i, other)) in apart for other in run):
        run.append(i)
    return run


def _per_level(effect: Effect, other: Knob) -> str:
    """Say what the largest difference of a knob is at each level of another."""
    found = [(at, one, one.difference) for at, one in _largest_at(effect, other) if one.difference is not None]
    if not 1 < len(found) <= FEW_LEVELS:
        return ""
    parts = []
    for at, one, difference in found:
        size = "equal" if abs(difference) < words.ROUNDING else words.amount(difference)
        shown = "not tested" if one.p_adjusted is None else words.corrected(one.p_adjusted)
        parts.append(f"at {at} {size} ({shown})")
    name = "" if effect.together else f"{effect.knob}="
    return f"By level, {name}{label(found[0][1].a)} against {label(found[0][1].b)}: {', '.join(parts)}."


def _counts(did: str, plan: Layout, k: int, chosen: set[str], counts: Callable[[Run], bool]) -> str:
    """Count the runs that did something at each level of a knob; nothing where the share is the same at all.

    chosen: names of the groups that count, where something is tuned.
    """
    levels = range(len(plan.knobs[k].levels))
    groups = [group for group in plan.groups if not chosen or group.name in chosen]
    runs = [[run for group in groups if group.levels[k] == level for run in group.distinct] for level in levels]
    found = [(sum(map(counts, some)), len(some)) for some in runs]
    if len({hits / n for hits, n in found if n}) < 2 or len(found) > FEW_LEVELS:
        return ""
    counted = ", ".join(f"{hits} of {n} at {plan.knobs[k].plain(i)}" for i, (hits, n) in enumerate(found))
    return f"Runs that {did}: {counted}."


def _next(found: Comparison, plan: Layout, edges: Sequence[Edge]) -> str | None:
    """Return a command that would tell more: a wider grid first, then more seeds."""
    sweeps = {run.sweep for run in plan.runs}
    sweep = sweeps.pop() if len(sweeps) == 1 else ""
    is_fair = any(run.tuned for run in plan.groups[0].runs)  # of trainer.versus, which widens grids itself
    for edge in edges:
        if sweep and not is_fair:  # into the same folder, so that one answer is of all
            values = ",".join(sorted([*map(label, edge.knob.levels), *edge.add.split(",")], key=float))
            return shlex.join(["python", "-m", "trainer", f"resume={sweep}", f"{edge.knob.name}={values}"])
        group = next((one for one in plan.groups if one.name == found.recommendation.group), plan.groups[0])
        group = plan.groups[plan.contenders[edge.contender].members[0]] if edge.own else group
        if command := _sweep(group, {edge.knob.name: edge.add}, _seeds(plan)):
            return command
    needed = _needed(found, plan)
    if needed is None or not sweep or plan.unit != "seed":
        return None
    if is_fair:
        return shlex.join(["python", "-m", "trainer.versus", f"resume={os.path.dirname(sweep)}", f"seeds={needed}"])
    return shlex.join(["python", "-m", "trainer", f"resume={sweep}", f"seed=range({needed})"])


def _needed(found: Comparison, plan: Layout) -> int | None:
    """Return how many seeds would tell what is open: an effect that is not shown, or what ties with the best."""
    there = max(len(group.distinct) for group in plan.groups)
    if there == 1:
        return ONE_SEED
    best = found.recommendation.knobs or {}
    needed = [
        max(one.seeds_needed, there + 1)
        for effect in found.effects
        if effect.measure == (found.criterion or found.score)
        for one in effect.contrasts
        if one.seeds_needed and (not effect.claimed or best.get(effect.knob) in (one.a, one.b))
    ]
    return max((count for count in needed if count <= ENOUGH), default=None)


def _seeds(plan: Layout) -> str:
    seeds = sorted({seed for seed in plan.seeds if isinstance(seed, int)})
    if not seeds:
        return ""
    return f"range({len(seeds)})" if seeds == list(range(len(seeds))) else ",".join(map(str, seeds))


def _sweep(group: Group, changes: dict[str, str], seeds: str) -> str | None:
    """Return the command of a sweep like a group's runs, but for the changes; None where it is not known."""
    if group.runs[0].overrides is None:
        return None
    kept = [text for text in own(group.runs[0].overrides) if key_of(text) not in changes]
    changed = [f"{key}={value}" for key, value in changes.items()]
    repeats = [f"seed={seeds}"] if seeds and seed_of(group.runs[0].config) is not None else []
    return shlex.join(["python", "-m", "trainer", "-m", *kept, *changed, *repeats])


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
