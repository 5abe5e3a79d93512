"""Compare runs: groups, effects of knobs, interactions, warnings, what to use, and the answer in a paragraph.

`compare(runs)` is a pure function; results.py defines what it returns. The steps, a module each: find the knobs
(knobs.py) and lay the runs out (groups.py); choose each contender's best setting where something is tuned (tuning.py);
ask (questions.py) and test all questions with one error budget (inference.py), both called by answered.py; say it
(effects.py, recommendation.py, words.py, answer.py).

Where nothing differs, at most 5 in 100 comparisons claim anything at all. docs/comparing.md has the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainer.compare import fairness, paragraph, tuning
from trainer.compare.answered import Answered, defines_loss, is_loss, known, losses_differ
from trainer.compare.effects import differences, effects, interactions
from trainer.compare.groups import Layout, Run, layout, summaries
from trainer.compare.recommendation import recommendation
from trainer.compare.results import Comparison, Recommendation
from trainer.compare.statistics import Floats

__all__ = ["Comparison", "Run", "compare"]

CRITERIA = ("best_val_loss", "best_val_accuracy", "function_value")  # what is selected on: never the test split


def compare(runs: Sequence[Run], tune: Sequence[str] | None = None) -> Comparison:
    """Compare runs, one or thousands, in any order.

    tune: the keys that are tuned, not compared; None guesses the learning rate where optimizers, schedules or batch
    sizes are compared; () tunes nothing.
    """
    if not runs:
        none = Recommendation("no recommendation: no runs")
        return Comparison([], [], [], [], [], none, None, None, [], {}, 0, {}, paragraph.Answer("no runs", None))
    plan = layout(runs, tune)
    values = _values(plan)
    criterion = _criterion(plan, values)
    if plan.tuned and criterion is None:
        plan = layout(runs, ())
        values, criterion = _values(plan), None
    return _result(Answered(plan, values, criterion))


def _values(plan: Layout) -> dict[str, Floats]:
    names = sorted({measure for run in plan.runs for measure in run.measures})
    return {name: plan.values_GS(name) for name in names}


def _criterion(plan: Layout, values: Mapping[str, Floats]) -> str | None:
    """Return the measure that decides: of the validation split, and the same quantity for every group."""
    names = [*CRITERIA, *(f"best_val_{name}" for name in plan.metrics)]
    present = known(values, names)
    if losses_differ(plan):
        present = [name for name in present if not is_loss(name)]
    return present[0] if present else None


def _result(answered: Answered) -> Comparison:
    """Put the answers together."""
    groups = summaries(answered.plan, answered.values)
    of_knobs = effects(answered)
    main = [effect for effect in of_knobs if effect.measure == answered.criterion]
    shown = {one.knob for one in main if one.claimed or all(each.p is None for each in one.contrasts)}
    edges = tuning.edges(answered.plan, answered.choice, answered.best, shown)
    told_apart = []
    if name := answered.criterion:
        told_apart = tuning.told_apart(answered.plan, answered.choice, answered.values[name], name)
    compared = [answered.plan.groups[g] for g in answered.choice.groups_C if g >= 0]
    loss_knobs = [knob for knob in answered.plan.knobs if defines_loss(knob)]
    warnings = fairness.warnings(answered.plan, edges, loss_knobs, told_apart, compared)
    has_ended = all(one.kind not in ("still_falling", "cut_short", "evaluations") for one in warnings)
    found = Comparison(
        groups=groups,
        effects=of_knobs,
        differences=differences(answered),
        interactions=interactions(answered),
        warnings=warnings,
        recommendation=recommendation(answered, groups, has_ended),
        score=answered.score,
        criterion=answered.criterion,
        tuned=[knob.name for knob in answered.plan.tuned],
        chosen=_chosen(answered),
        tests=sum(about.family != "recommendation" and one.p is not None for about, one in answered.by_about.items()),
        noise_df=answered.noise_df,
        answer=paragraph.Answer("", None),
    )
    return replace(found, answer=paragraph.compose(found, answered.plan, edges))


def _chosen(answered: Answered) -> dict[str, str]:
    if not answered.plan.tuned:
        return {}
    return {
        one.name: answered.group_name(c)
        for c, one in enumerate(answered.plan.contenders)
        if answered.choice.groups_C[c] >= 0
    }
