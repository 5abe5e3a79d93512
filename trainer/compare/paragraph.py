"""The answer first: one paragraph that a person can quote, and the command to run next."""

import itertools
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
        return Answer(_of_one_group(found, plan) if found.groups else "", None)
    if NO_KNOB in found.groups[0].knobs:
        text = f"The {len(found.groups)} runs are not compared: nothing lies beside them that says what each was given."
        return Answer(text, None, [text])
    main = found.criterion or found.score
    told = [effect for effect in found.effects if effect.measure == main]
    scores = [effect for effect in found.effects if effect.measure == found.score != main]
    crossed = _strongest(found, main)
    lines = [_all_underfit(plan), *_differences(found, plan, told, scores, crossed)]
    lines += [f"{fairness.fraction(plan)}.", f"{fairness.untuned(plan)}."]
    used, spoken_of = set(found.chosen.values()), {e.knob for e in (*told, *scores) if e.claimed}
    within_crossed = {name for one in crossed for name in one.knobs}
    silent = [knob.name for knob in plan.knobs if knob.name not in spoken_of | within_crossed]
    for effect in told:
        some = [one for one in effect.simple if one.claimed]
        if some and effect.knob in silent:
            lines += [f"{one.sentence}." for one in some[:MOST]]  # over all levels of the others nothing, but at some
            at = {one.knob for one in some}
            others = [other for other in plan.knobs if other.name in at]
            lines += [_whether_levels_differ(effect, other, found) for other in others]
            silent.remove(effect.knob)
    if plan.by_setting:  # of the others nothing was asked
        untested = [knob.name for k, knob in enumerate(plan.knobs) if k not in plan.by_setting]
        silent = [name for name in silent if name not in untested]
        if untested:
            what = f"what {_and(untested)} {words.verb('does', len(untested))}"
            lines.append(f"{what} cannot be tested: at too few settings of the other knobs, each run once.")
    if silent and len(silent) < len(plan.knobs):
        measures = dict.fromkeys(words.measure(effect.measure) for effect in (*told, *scores))
        lines.append(f"No effect of {_and(silent)} on {' or '.join(measures)} is shown.")
    gaps = [effect for effect in found.effects if effect.claimed and effect.measure == "gap"]
    gaps = [effect for effect in gaps if effect.knob not in spoken_of | within_crossed]
    lines += [line for effect in gaps for line in _gap(effect, found, plan)]
    spoken_of |= {effect.knob for effect in gaps}
    for k, knob in enumerate(plan.knobs):
        if knob.name in spoken_of:
            lines.append(_counts("overfit", plan, k, used, lambda run: run.verdict.verdict == "overfit"))
        lines.append(_counts("diverged or failed", plan, k, used, lambda run: run.failed))
    falling = [one.text for one in found.warnings if one.kind in ("still_falling", "cut_short")]
    lines += [*(f"{text}." for text in falling), f"{found.recommendation.sentence}."]
    lines += [f"{edge.text(plan)}." for edge in edges[: fairness.MOST]]
    if found.tests > 1:
        lines += [_how(found, plan), f"Intervals are of one difference each; {_corrected(found)}."]
    said = dict.fromkeys(line[0].upper() + line[1:] for line in lines if line.strip("."))
    command, reason = _next(found, plan, edges)
    return Answer(" ".join(said), command, list(said), reason)


def _all_underfit(plan: Layout) -> str:
    """Say first where no run has learned what it could."""
    runs = [run for group in plan.groups for run in group.distinct]
    if any(run.verdict.verdict != "underfit" for run in runs):
        return ""
    return f"All {len(runs)} runs are underfit: train longer, or at other learning rates, before comparing."


def _of_one_group(found: Comparison, plan: Layout) -> str:
    """Say of a single run what it is judged to be, and why; of several alike, or without validation, the mean."""
    runs = plan.groups[0].distinct
    verdict = runs[0].verdict
    if len(runs) > 1 or verdict.verdict == "no_validation" or not verdict.sentence:
        return found.recommendation.sentence
    return f"{verdict.verdict.replace('_', ' ')}: {verdict.sentence}"


def _differences(
    found: Comparison, plan: Layout, told: list[Effect], scores: list[Effect], crossed: list[Interaction]
) -> list[str]:
    claimed = [effect for effect in (*told, *scores) if effect.claimed]
    if not claimed and not crossed:
        if any(one.claimed for effect in told for one in effect.simple):
            return []
        tested = [effect for effect in told if any(one.p is not None for one in effect.contrasts)]
        if not tested and found.criterion is None and any(one.kind == "loss" for one in found.warnings):
            return []  # the recommendation says why nothing is compared
        if not tested:
            return ["What a knob does cannot be tested: no two groups that differ in one thing have two runs each."]
        largest = max(tested, key=lambda one: one.size or 0.0).sentence
        for prefix in words.NOT_SHOWN:
            largest = largest.removeprefix(f"{prefix}: ")
        elsewhere = any(effect.claimed for effect in found.effects)
        of = " or ".join(dict.fromkeys(words.measure(effect.measure) for effect in (*told, *scores)))
        return [f"No difference{f' of {of}' * elsewhere} is shown; the largest: {largest}."]
    lines = []
    for one in crossed[:MOST]:
        both = [effect for effect in (*told, *scores) if effect.knob in one.knobs]
        lines += [f"{one.sentence}.", *_simple_effects(one, both, found, plan)]
    for name in list(dict.fromkeys(effect.knob for effect in claimed))[:MOST]:
        main, score = (next((e for e in some if e.knob == name and e.claimed), None) for some in (told, scores))
        if main and (over := _averaged(main, found, plan)) is not None:
            lines += [f"{over}{main.sentence}{_also(main, score)}.", _means(main, plan)]
            if len(plan.knobs) == 2 and not crossed:
                lines += [line for k in plan.knobs if k.name != name for line in _per_level(main, k, found, plan)]
            score = None if _also(main, score) else score
        if score and (over := _averaged(score, found, plan)) is not None:
            lines.append(f"{over}{score.sentence}.")
    return lines


def _simple_effects(crossed: Interaction, both: Sequence[Effect], found: Comparison, plan: Layout) -> list[str]:
    """Say what two knobs that depend on each other do, each at each level of the other; and to the score if shown."""
    knobs = [knob for knob in plan.knobs if knob.name in crossed.knobs]
    lines = []
    for effect, other in itertools.product(both, knobs):
        is_shown = any(one.claimed for _, one in _largest_at(effect, other))
        if effect.knob != other.name and (effect.measure == crossed.measure or is_shown):
            lines += _per_level(effect, other, found, plan)
    return lines


def _averaged(effect: Effect, found: Comparison, plan: Layout) -> str | None:
    """Say over which knobs an effect is averaged that it is shown to depend on; None where it is told at their levels.

    So is one that is shown in both directions: no average tells what it is.
    """
    crossed = [one for one in found.interactions if one.claimed and one.measure == effect.measure]
    pairs = [set(one.knobs) for one in crossed]
    others = [knob for knob in plan.knobs if {effect.knob, knob.name} in pairs]
    ways: dict[tuple[Any, Any], set[bool]] = {}
    for one in (one for at in effect.simple for one in at.contrasts if one.claimed and one.difference):
        ways.setdefault((one.a, one.b), set()).add((one.difference or 0.0) > 0)
    if any(_largest_at(effect, knob) for knob in others) or any(len(way) > 1 for way in ways.values()):
        return None
    return f"averaged over {_and([knob.name for knob in others])}, which hides how it depends: " if others else ""


def _also(main: Effect, score: Effect | None) -> str:
    """Say of the levels that a claim is of what the score does there, where it is claimed too."""
    head = words.head(main.contrasts, main.shape)
    for one in score.contrasts if score and head else ():
        if head and one.claimed and one.difference and (one.a, one.b) == (head.a, head.b):
            evidence = f"{words.interval(one)}, {words.corrected(one.p_adjusted)}"
            return f"; {words.measure(one.measure)} is {words.amount(one.difference, one.measure)} there ({evidence})"
    return ""


def _largest_at(effect: Effect, other: Knob) -> list[tuple[str, Contrast]]:
    """Return the largest difference of a knob at each level of another, with that level as typed."""
    head = words.largest(effect.contrasts)
    within = [(at.at, one) for at in effect.simple if at.knob == other.name for one in at.contrasts]
    return [(at, one) for at, one in within if head and (one.a, one.b) == (head.a, head.b)]


def _strongest(found: Comparison, main: str | None) -> list[Interaction]:
    """Return the clearest claimed interaction of each pair of knobs: in the measure that decides, else in the score."""
    strongest: dict[tuple[str, ...], Interaction] = {}
    claimed = [one for one in found.interactions if one.claimed and one.measure in (main, found.score)]
    for one in sorted(claimed, key=lambda one: (one.measure != main, one.p_adjusted or 0.0)):
        strongest.setdefault(tuple(one.knobs), one)
    return list(strongest.values())


def _gap(effect: Effect, found: Comparison, plan: Layout) -> list[str]:
    """Say what a knob does to the gap; where that depends on another, at its levels. Each sentence has the loss too."""
    if (over := _averaged(effect, found, plan)) is not None:
        return [f"{over}{effect.sentence}."]
    crossed = [one for one in found.interactions if one.claimed and one.measure == "gap" and effect.knob in one.knobs]
    others = {knob for one in crossed for knob in one.knobs}
    levels = [one for one in effect.simple if one.claimed and (one.knob in others or not others)]
    return [f"{one.sentence}." for one in levels or crossed]


def _means(effect: Effect, plan: Layout) -> str:
    """Say the mean at each of three and more names, and which of them are not shown to differ; of numbers a shape."""
    knob = _knob(effect, plan)
    means = [(level.mean, i) for i, level in enumerate(effect.levels) if level.mean is not None]
    if effect.shape or not 3 <= len(means) <= FEW_LEVELS:
        return ""
    order = [i for _, i in sorted(means)]
    place = {level: order.index(i) for i, level in enumerate(knob.levels) if i in order}
    apart = {frozenset((place[one.a], place[one.b])) for one in effect.contrasts if one.claimed}
    runs = [_alike(start, len(order), apart) for start in range(len(order))]
    sets = [run for n, run in enumerate(runs) if len(run) > 1 and (n == 0 or run[-1] > runs[n - 1][-1])]
    pairs = ([i, j] for i, j in itertools.combinations(range(len(order)), 2) if frozenset((i, j)) not in apart)
    sets += [pair for pair in pairs if not any({*pair} <= {*run} for run in sets)]  # with others between them
    over, most = (max(one.n for one in some) for some in (effect.levels, effect.contrasts))
    if over < min(2, most):
        return ""
    texts = [knob.short(i) for i in order]
    named = [knob.plain(order[0]), *texts[1:]]
    told = ", ".join(
        f"{words.value(mean, effect.measure)} ({name})" for (mean, _), name in zip(sorted(means), named, strict=True)
    )
    where = f"Means over the {over} {plan.unit}s that all have" if over < most else "Means"
    alike = "; ".join(" – ".join(texts[i] for i in run) for run in sets)
    return f"{where}: {told}; " + (f"not shown to differ: {alike}." if alike else "every two differ.")


def _knob(effect: Effect, plan: Layout) -> Knob:
    return next(knob for knob in plan.knobs if knob.name == effect.knob)


def _alike(start: int, count: int, apart: set[frozenset[int]]) -> list[int]:
    """Return the neighbours in order of the means, from `start` on, of which no two are shown to differ."""
    run = [start]
    while (i := run[-1] + 1) < count and not any(frozenset((i, other)) in apart for other in run):
        run.append(i)
    return run


def _per_level(effect: Effect, other: Knob, found: Comparison, plan: Layout) -> list[str]:
    """Say what the largest difference of a knob is at each level of another, and whether these are shown to differ.

    With intervals, not p: that it is significant at one level and not at another says nothing of whether it depends on
    the level, which the interaction does (Gelman and Stern 2006).
    """
    known = [(at, one, one.difference) for at, one in _largest_at(effect, other) if one.difference is not None]
    if not 1 < len(known) <= FEW_LEVELS:
        return [_whether_levels_differ(effect, other, found)]
    parts = []
    for at, one, difference in known:
        size = "equal" if abs(difference) < words.ROUNDING else words.amount(difference, one.measure)
        evidence = "not tested" if one.p is None else words.interval(one)
        is_open = one.p is not None and not one.claimed and size != "equal"
        parts.append(f"{size} at {at} ({evidence}{', not shown' * is_open})")
    knob, one = _knob(effect, plan), known[0][1]
    first, second = (knob.levels.index(level) for level in (one.a, one.b))
    of = (
        "by level"
        if effect.measure == (found.criterion or found.score)
        else f"{words.measure(effect.measure)} by level"
    )
    told = f"{of}, {knob.plain(first)} against {knob.short(second)}: {'; '.join(parts)}."
    return [told, _whether_levels_differ(effect, other, found)]


def _whether_levels_differ(effect: Effect, other: Knob, found: Comparison) -> str:
    """Say that an effect is not shown to depend on another knob; empty where it is shown."""
    pair = {effect.knob, other.name}
    asked = [one for one in found.interactions if set(one.knobs) == pair and one.measure == effect.measure]
    if any(one.claimed for one in asked):
        return ""
    what = f"{words.does(effect.knob, effect.together)} to the {words.measure(effect.measure)} depends on {other.name}"
    tested = [one for one in asked if one.p_adjusted is not None]
    if not tested:
        return f"Whether {what} could not be tested."
    head = words.largest(effect.contrasts)
    ends = [] if head is None else [head.a, head.b]
    of_head = [one for one in tested if (one.a if one.knobs[0] == effect.knob else one.b) == ends] or tested
    most = min(of_head, key=lambda one: one.p_adjusted or 0.0)
    evidence = f"{words.figure(abs(most.difference or 0.0), most.measure)}, {words.corrected(most.p_adjusted)}"
    return f"It is not shown that {what} (clearest difference between two levels {evidence})."


def _how(found: Comparison, plan: Layout) -> str:
    """Say what a difference is taken between; empty where runs have no seeds in common."""
    tested = [one for effect in found.effects for one in effect.contrasts if one.p is not None]
    if any(one.over == "settings" for one in tested):
        said = "Each setting was run once: a knob's values are compared at each setting of the others, by signed ranks"
        seed = "; what one seed does alike at all of them is not told from what the knob does"
        return f"{said}{seed * (len(plan.seeds) == 1)}."
    is_paired = any(one.paired for one in tested)
    return "Groups are compared seed by seed." if is_paired else ""


def _corrected(found: Comparison) -> str:
    """Say what p is corrected for, and where it is so, that an interval without 0 does not show a difference."""
    seen = [one for effect in found.effects for of in (effect, *effect.simple) if (one := words.largest(of.contrasts))]
    said = f"p is corrected for all {found.tests} questions asked"
    if any(not one.claimed and one.low and one.high and one.low * one.high > 0 for one in seen):
        return f"{said}: an interval without 0 is not enough"
    return said


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
    knob = plan.knobs[k]
    counted = ", ".join(f"{h} of {n} at {(knob.short if i else knob.plain)(i)}" for i, (h, n) in enumerate(found))
    return f"Runs that {did}: {counted}."


def _next(found: Comparison, plan: Layout, edges: Sequence[Edge]) -> tuple[str | None, str | None]:
    """Return a command that would tell more, and why: more of what is tuned, more epochs, a wider grid, more seeds."""
    sweeps = {run.sweep for run in plan.runs}
    sweep = sweeps.pop() if len(sweeps) == 1 else ""
    is_fair = any(run.tuned for run in plan.groups[0].runs)  # of trainer.versus, which widens grids itself
    longer = _longer(found, plan) if sweep and not is_fair else None
    for edge in sorted(edges, key=lambda edge: (not edge.own, edge.contender == edges[0].contender)):
        # the best's is told first and widened last: others may yet overtake it
        if longer and not edge.own:
            break
        reason = f"the best {edge.knob.name} is the {edge.side} tried"
        if sweep and not is_fair:  # into the same folder, so that one answer is of all
            values = ",".join(sorted([*map(label, edge.knob.levels), *edge.add.split(",")], key=float))
            return shlex.join(["python", "-m", "trainer", f"resume={sweep}", f"{edge.knob.name}={values}"]), reason
        group = next((one for one in plan.groups if one.name == found.recommendation.group), plan.groups[0])
        group = plan.groups[plan.contenders[edge.contender].members[0]] if edge.own else group
        if command := _sweep(group, {edge.knob.name: edge.add}, _seeds(plan)):
            return command, reason
    if longer:
        return shlex.join(
            ["python", "-m", "trainer", f"resume={sweep}", f"epochs={longer}"]
        ), "runs were still improving"
    needed, reason = _needed(found, plan)
    if needed is None or not sweep or plan.unit != "seed":
        return None, None
    if is_fair:
        command = ["python", "-m", "trainer.versus", f"resume={os.path.dirname(sweep)}", f"seeds={needed}"]
        return shlex.join(command), reason
    return shlex.join(["python", "-m", "trainer", f"resume={sweep}", f"seed={_seeds(plan, needed)}"]), reason


def _longer(found: Comparison, plan: Layout) -> int | None:
    """Return twice the epochs of runs that were still improving; None where a schedule spans them."""
    is_falling = any(warning.kind == "still_falling" for warning in found.warnings)
    asked = [run.config.get("epochs") for run in plan.runs] + [run.epochs for run in plan.runs if run.counts]
    is_constant = all(run.config.get("schedule.name", "constant") == "constant" for run in plan.runs)
    one = asked[0]  # what another hand wrote may be anything
    return 2 * one if is_falling and is_constant and isinstance(one, int) and all(n == one for n in asked) else None


def _needed(found: Comparison, plan: Layout) -> tuple[int | None, str]:
    """Return how many seeds would tell what is open, an effect that is not shown or what ties with the best; and what.

    As many as leave no more than a chance of 20 % to miss the difference that is seen.
    """
    there = max(len(group.distinct) for group in plan.groups)
    if there == 1:
        return ONE_SEED, "one seed tells nothing of chance"
    best = found.recommendation.knobs or {}
    needed: dict[str, int] = {}  # what is open -> seeds
    for effect in found.effects:
        for one in effect.contrasts if effect.measure == (found.criterion or found.score) else ():
            count = max(one.seeds_needed or 0, there + 1)
            is_open = one.seeds_needed and (not effect.claimed or best.get(effect.knob) in (one.a, one.b))
            if is_open and count <= ENOUGH:
                what = words.does(effect.knob, effect.together)
                if effect.claimed:
                    what = f"which {effect.knob} {words.verb('is', len(effect.together) or 1)} best"
                needed[what] = max(count, needed.get(what, 0))
    return max(needed.values(), default=None), f"more seeds may settle {_and([*needed])}" if needed else ""


def _seeds(plan: Layout, count: int = 0) -> str:
    """Return the seeds of the runs as typed, with the first others that make them so many."""
    there = {seed for seed in plan.seeds if isinstance(seed, int)}
    if not there:
        return ""
    others = (seed for seed in itertools.count() if seed not in there)
    seeds = sorted(there | {*itertools.islice(others, max(count - len(there), 0))})
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
