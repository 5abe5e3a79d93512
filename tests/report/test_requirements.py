"""What is required in CI: which runs break it, and when a group is shown to be worse than in a baseline."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from trainer.report.requirements import against_baseline, within, without_verdict


def run(path: str, verdict: str = "healthy", seed: int | None = 0, **measures: Any) -> dict[str, Any]:
    entry = {"path": path, "name": path, "verdict": verdict, "sentence": f"{path} it is", "status": "completed"}
    return {**entry, "measures": measures, "config": {} if seed is None else {"seed": seed}}


def evaluation(groups: dict[str, list[float]], measure: str = "test_accuracy", first: int = 0) -> dict[str, Any]:
    """An evaluation of groups by name, a value a seed; nan: that run failed."""
    runs, found = [], []
    for name, values in groups.items():
        members = [run(f"{name}/{i}", seed=first + i, **{measure: value}) for i, value in enumerate(values)]
        for one in members:
            one["status"] = "failed" if math.isnan(one["measures"][measure]) else "completed"
        runs += members
        group = {"name": name, "n": len(members), "config": {"model": name}, "runs": [one["path"] for one in members]}
        found.append(group)
    return {"runs": runs, "groups": found}


def test_verdicts() -> None:
    runs = [run("a", "overfit"), run("b"), run("c", "too_short")]
    found = without_verdict(runs, "overfit")
    assert (found.name, found.passed, found.broken) == ("no run overfit", False, {"a": "a it is"})
    assert found.sentence == "no run overfit: broken by 1 of 3 runs: a (a it is)"
    assert without_verdict(runs, "diverged").sentence == "no run diverged: holds for 3 runs"
    assert list(without_verdict(runs, "too_short").broken) == ["c"]


def test_bounds_on_measures() -> None:
    runs = [run("a", best_val_accuracy=0.9), run("b", best_val_accuracy=0.8999), run("c"), run("d", gap="nan")]
    found = within(runs, "val_accuracy", 0.9, at_least=True)
    assert found.broken == {"b": "89.99%", "c": "not measured", "d": "not measured"}
    assert found.sentence == (
        "best validation accuracy at least 90.00%: broken by 3 of 4 runs: b (89.99%), c (not measured), "
        "d (not measured)"
    )
    assert within(runs[:1], "best_val_accuracy", 0.9, at_least=True).passed
    assert within(runs[:1], "val_accuracy", 0.9, at_least=False).passed
    assert within(runs[3:], "gap", 0.1, at_least=False).broken == {"d": "nan"}
    with pytest.raises(
        ValueError, match=r"^sharpness: no run has this measure; expected one of best_val_accuracy, gap"
    ):
        within(runs, "sharpness", 1, at_least=False)


@pytest.mark.parametrize(("measure", "worse"), [("test_accuracy", -1), ("best_val_loss", 1)])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5, -2.5])
def test_paired_by_seed_as_scipy_tests_it(measure: str, worse: int, shift: float) -> None:
    """One-sided t test of the differences; two groups share the 5 % by Holm: the smaller p counts twice."""
    rng = np.random.default_rng(7)
    old = {name: list(rng.normal(size=6)) for name in "ab"}
    new = {name: [value + worse * shift * 0.3 + rng.normal(0, 0.3) for value in old[name]] for name in "ab"}
    found = against_baseline(evaluation(new, measure), evaluation(old, measure))
    side = "greater" if worse > 0 else "less"
    p = {name: float(scipy.stats.ttest_rel(new[name], old[name], alternative=side).pvalue) for name in "ab"}
    low, high = sorted(p.values())
    holm = {low: min(1, 2 * low), high: min(1, max(2 * low, high))}
    for name, requirement in zip("ab", found, strict=True):
        assert requirement.test is not None
        assert requirement.test["paired"]
        assert requirement.test["p"] == pytest.approx(p[name], rel=1e-9)
        assert requirement.test["p_adjusted"] == pytest.approx(holm[p[name]], rel=1e-9)
        assert requirement.passed == (holm[p[name]] > 0.05)
        assert ("not shown to be worse" in requirement.sentence) == requirement.passed
    if abs(shift) > 2:  # six seeds cannot miss it
        assert {one.passed for one in found} == {shift < 0}


def test_other_seeds_by_welch() -> None:
    old, new = [0.9, 0.91, 0.93, 0.92], [0.8, 0.83, 0.79]
    (found,) = against_baseline(evaluation({"a": new}, first=10), evaluation({"a": old}))
    p = scipy.stats.ttest_ind(new, old, equal_var=False, alternative="less").pvalue
    assert found.test is not None
    assert found.test["p"] == pytest.approx(float(p), rel=0.05)  # values on a grid of 0.01 get its rounding errors too
    assert not found.passed
    assert "Welch's test, 3 and 4 runs" in found.sentence
    assert "80.67% against 91.50%; difference -10.83 points (95 % interval -" in found.sentence


def test_runs_without_a_seed_are_not_paired() -> None:
    new, old = evaluation({"a": [0.5, 0.61, 0.7]}), evaluation({"a": [0.52, 0.6, 0.73]})
    for one in [*new["runs"], *old["runs"]]:
        one["config"] = {}
    (found,) = against_baseline(new, old)
    assert found.test is not None
    assert not found.test["paired"]


def test_equal_runs_are_not_worse() -> None:
    same = evaluation({"a": [0.9, 0.91], "b": [0.5, 0.5]})
    assert all(one.passed for one in against_baseline(same, same))


def test_failures_and_few_runs() -> None:
    old = evaluation({"a": [0.9, 0.91], "b": [0.9, 0.9]})
    lost, few = against_baseline(evaluation({"a": [math.nan, math.nan], "b": [0.2]}), old)
    assert not lost.passed
    assert lost.sentence == (
        "a: worse than in the baseline: none of its 2 runs ended with a test accuracy, 2 of 2 there did"
    )
    assert few.passed
    assert few.sentence == (
        "b: test accuracy cannot be tested against the baseline: 1 seed here, 2 there; two of each are needed"
    )


def test_groups_are_found_by_config_then_by_name() -> None:
    old, new = evaluation({"a": [0.9, 0.91], "b": [0.8, 0.82]}), evaluation({"a": [0.8, 0.82], "c": [0.1, 0.1]})
    new["groups"][0]["config"] = {"model": "b", "seed": 3}
    found = against_baseline(new, old)
    assert "81.00% against 81.00%" in found[0].sentence
    assert found[1].sentence == "c: the baseline has no such group"
    new["groups"][0]["config"] = {"model": "a", "new key": 1}
    assert "81.00% against 90.50%" in against_baseline(new, old)[0].sentence
    with pytest.raises(ValueError, match=r"^no group has the config or the name of one here: found a, b; expected x"):
        against_baseline(evaluation({"x": [1.0, 2.0]}), old)
    with pytest.raises(ValueError, match="runs with one of test_accuracy, best_val_loss; there is none"):
        against_baseline(evaluation({"a": [1.0, 2.0]}, "gap"), old)


def test_no_false_alarm_beyond_five_percent() -> None:
    """Where nothing has changed, at most 5 % of evaluations of three groups claim anything: of 400, at most 31."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        old, new = ({name: list(rng.normal(size=5)) for name in "abc"} for _ in range(2))
        alarms += not all(one.passed for one in against_baseline(evaluation(new), evaluation(old)))
    assert alarms <= scipy.stats.binom.ppf(0.999, 400, 0.05)
    assert alarms >= 5
