"""One error budget: stepping down against the closed test by brute force, and against textbook procedures."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainer.compare import budget
from trainer.compare.budget import ALPHA, Joint, correct, inherited
from trainer.compare.statistics import Floats, holm


def _correct(p: Floats, weights: Floats, subjects: list[object], joint: Joint | None = None) -> Floats:
    return correct(p, weights, subjects, np.zeros(len(p)), joint, np.ones(len(p), bool)).p


TESTS = st.lists(
    st.tuples(st.floats(1e-6, 0.2), st.sampled_from([0.1, 0.3, 1.0]), st.integers(0, 2)), min_size=1, max_size=6
)


@given(TESTS)
def test_what_is_shown_is_what_the_closed_test_shows(tests: list[tuple[float, float, int]]) -> None:
    """A hypothesis is rejected if and only if every set that holds it is, each by its own weighted Bonferroni test."""
    p, weights, subjects = np.array([t[0] for t in tests]), np.array([t[1] for t in tests]), [t[2] for t in tests]
    members = range(len(p))
    rejected = {}
    for size in range(1, len(p) + 1):
        for some in itertools.combinations(members, size):
            part = inherited(weights, subjects, np.isin(np.arange(len(p)), some))
            rejected[some] = any(p[t] <= ALPHA * part[t] / part.sum() for t in some)
    closed = [all(of for some, of in rejected.items() if t in some) for t in members]
    corrected = _correct(p, weights, list(subjects))
    edge = np.abs(corrected - ALPHA) < 1e-12
    assert [bool(one) for one in (corrected <= ALPHA)[~edge]] == [c for c, e in zip(closed, edge, strict=True) if not e]


@given(TESTS)
def test_where_nothing_is_inherited_it_is_holms(tests: list[tuple[float, float, int]]) -> None:
    p, weights = np.array([t[0] for t in tests]), np.array([t[1] for t in tests])
    corrected = _correct(p, weights, list(range(len(p))))
    assert ((corrected <= ALPHA) == (holm(p, weights) <= ALPHA))[np.abs(corrected - ALPHA) > 1e-12].all()
    assert (corrected >= holm(p, weights) - 1e-12).all()  # what is shown together has the p of the first


def test_the_next_measure_inherits_the_part_of_what_is_shown_and_the_last_hands_it_to_the_first() -> None:
    weights, subjects = np.array([1.0, 1.0, 0.1, 0.1, 0.1]), ["a", "b", "a", "b", "a"]
    given_T = np.array([True, True, True, True, True])
    assert inherited(weights, subjects, given_T).tolist() == weights.tolist()
    given_T[0] = False
    assert inherited(weights, subjects, given_T) == pytest.approx([0, 1, 1.1, 0.1, 0.1])
    given_T[4] = False
    assert inherited(weights, subjects, given_T) == pytest.approx([0, 1, 1.2, 0.1, 0])
    given_T[:] = [True, False, True, False, False]
    assert inherited(weights, subjects, given_T) == pytest.approx([1.1, 0, 0.1, 0, 0])


def test_a_second_measure_is_shown_by_the_part_of_the_first_but_not_where_the_first_is_open() -> None:
    weights = np.array([1.0, 1.0, 0.1, 0.1])
    shown = _correct(np.array([0.001, 0.6, 0.02, 0.9]), weights, ["a", "b", "a", "b"])
    still = _correct(np.array([0.6, 0.001, 0.02, 0.9]), weights, ["a", "b", "a", "b"])
    assert shown[2] == pytest.approx(0.02 / 1.1 * 2.2)
    assert still[2] == pytest.approx(0.02 / 0.1 * 2.2)


def test_a_p_that_is_inherited_is_no_lower_than_the_one_it_hangs_on() -> None:
    corrected = _correct(np.array([0.02, 1e-7]), np.array([1.0, 1e-6]), ["a", "a"])
    assert corrected[1] == corrected[0] == pytest.approx(0.02 * (1 + 1e-6))


def test_of_all_pairs_of_equal_groups_the_surest_has_tukeys_p() -> None:
    groups, df = 4, 12
    pairs = list(itertools.combinations(range(groups), 2))
    weights_TC = np.array([[(c == a) - (c == b) for c in range(groups)] for a, b in pairs], float)
    measure_T, two_sided_T = np.zeros(len(pairs), int), np.zeros(len(pairs), bool)
    joint = Joint(weights_TC, measure_T, two_sided_T, np.eye(1), [float(df)])
    t = 3.0
    p = np.array([2 * stats.t.sf(t, df), *[0.9] * (len(pairs) - 1)])
    tukey = stats.studentized_range.sf(t * np.sqrt(2), groups, df)
    assert _correct(p, np.ones(len(p)), list(pairs), joint)[0] == pytest.approx(tukey, rel=0.15)


@pytest.mark.slow
def test_where_one_difference_is_real_the_others_are_falsely_claimed_as_seldom_as_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Strong control: of four groups one differs by far; among the other three nothing does."""
    monkeypatch.setattr(budget, "DRAWS", (2000, 2000))
    rng, groups, seeds, sweeps = np.random.default_rng(5), 4, 5, 1000
    pairs = list(itertools.combinations(range(groups), 2))
    weights_TC = np.array([[(c == a) - (c == b) for c in range(groups)] for a, b in pairs], float)
    measures = 2
    df = (groups - 1) * (seeds - 1)
    every_TC = np.vstack([weights_TC] * measures)
    measure_T = np.repeat(np.arange(measures), len(pairs))
    joint = Joint(every_TC, measure_T, np.zeros(len(measure_T), bool), np.eye(measures), [float(df)] * measures)
    part = np.where(measure_T == 0, 1.0, 0.1)
    false = 0
    for _ in range(sweeps):
        values_MCS = rng.normal(size=(measures, groups, seeds))
        values_MCS[:, 0] += 10.0
        residuals = values_MCS - values_MCS.mean(2, keepdims=True)
        residuals = residuals - residuals.mean(1, keepdims=True)
        se_M = np.sqrt((residuals**2).sum((1, 2)) / df * 2 / seeds)
        t_T = (values_MCS.mean(2) @ weights_TC.T / se_M[:, None]).ravel()
        p = 2 * stats.t.sf(np.abs(t_T), df)
        claimed = _correct(p, part, list(pairs) * measures, joint) <= ALPHA
        false += bool((claimed & (every_TC[:, 0] == 0)).any())
    assert false / sweeps <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sweeps)
