"""What a comparison says, as evaluation.json holds it: each field of these dataclasses is a key.

No number here is nan or inf: what cannot be computed is None. docs/comparing.md has the equations and their reasons.
"""

from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

Said = Literal["differs", "not enough seeds", "no difference seen"]


@dataclass(frozen=True)
class Interval:
    """A mean over `n` values with its 95 % interval, None where n < 2; of a share, Wilson's, otherwise Student's t."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Estimate(Interval):
    """A mean over seeds, with the standard deviation of one seed."""

    sd: float | None


@dataclass(frozen=True)
class Level(Interval):
    """A knob's value with its mean over all combinations of the other knobs."""

    value: Any


@dataclass(frozen=True)
class GroupSummary:
    """Runs that differ in nothing but the seed."""

    name: str  # "optimizer=Adam model.dropout=0.5": the knobs only; "all runs" where nothing differs
    knobs: dict[str, Any]  # knob -> value
    config: dict[str, Any]  # what its runs have in common
    runs: list[str]  # paths, in order of seed
    seeds: list[Any]
    n: int  # number of runs
    verdicts: dict[str, int]  # {"overfit": 3, "healthy": 2}
    overfit_share: Interval
    measures: dict[str, Estimate]  # of the runs that ended
    failed_share: Interval  # of the runs that diverged or failed
    command: str | None  # that makes its runs, without the seed; None where it is not known


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A tested difference a - b: of two values of a knob, at equal values of the other knobs."""

    a: Any
    b: Any
    measure: str
    difference: float | None  # over settings the median (Hodges and Lehmann's), else the mean
    low: float | None  # 95 % interval of this difference on its own: Student's t, of the median by signed ranks
    high: float | None
    sd: float | None  # of the pairs' differences
    n: int  # seeds, or settings of the other knobs
    paired: bool  # by seed, or by setting
    p: float | None  # two-sided; the larger of that by the pooled noise and that by the noise of its own rows
    p_adjusted: float | None  # for all tests of the comparison: inference.py
    claimed: bool  # p_adjusted <= 0.05
    answer: Said
    seeds_needed: int | None  # to show it with a chance of 80 %, if the true difference is the one seen, shrunk
    higher_share: Interval  # how often a is higher than b at the same seed, ties half: P(a > b)
    sentence: str
    over: Literal["seeds", "settings"] = "seeds"  # what is paired: settings where each was run once


@dataclass(frozen=True, kw_only=True)
class Difference(Contrast):
    """A tested difference of two groups, `a` and `b` by name, that differ in one knob."""

    knob: str


@dataclass(frozen=True, kw_only=True)
class Interaction(Contrast):
    """Whether the change of one knob depends on another: of knobs [A, B], `a` is [a1, a2] and `b` is [b1, b2].

    difference = (y[a2, b2] - y[a1, b2]) - (y[a2, b1] - y[a1, b1]). Numeric knobs are compared at their ends.
    """

    knobs: list[str]


@dataclass(frozen=True)
class SimpleEffects:
    """What a knob does at one level of another."""

    at: str  # the other level as typed: "model.batchnorm=true"
    contrasts: list[Contrast]
    claimed: bool
    sentence: str
    knob: str  # the other one: "model.batchnorm"


ShapeKind = Literal["rising", "falling", "peak inside", "valley inside", "no shape shown"]


@dataclass(frozen=True)
class Shape:
    """How a measure goes over the levels of a knob of numbers; only what tests show has a name."""

    kind: ShapeKind
    turn: float | None  # the level of the peak or valley
    sentence: str


@dataclass(frozen=True)
class Recorded:
    """A recorded signal that clearly differs between two levels of a knob: evidence beside its effect, not a cause."""

    signal: str  # a key of why.SIGNALS
    ratio: float  # of geometric means: at `a` over at `b` of the effect's largest claimed contrast
    low: float  # 95 % t interval of the ratio
    high: float
    n: int  # seeds
    sentence: str


@dataclass(frozen=True)
class Effect:
    """What a knob does to a measure."""

    knob: str
    keys: list[str]  # the config keys that change with it
    together: list[str]  # the typed keys that it consists of, where what each does cannot be told apart
    measure: str
    levels: list[Level]
    contrasts: list[Contrast]  # every pair of levels
    size: float | None  # the largest |difference| of the contrasts
    claimed: bool  # whether any contrast is
    sentence: str
    shape: Shape | None  # of three and more numbers
    simple: list[SimpleEffects]  # where another knob was crossed with it: at each level of that one
    why: list[Recorded] = field(default_factory=list)  # of a claim on the measure that decides: what else differs


@dataclass(frozen=True)
class Caveat:
    """A reason to doubt the comparison; kinds: data, loss, split, order, budget, cut_short,
    evaluations, still_falling, tune, together, edge, learning_rate,
    selection, seeds, diverged, unfinished, duplicates, unbalanced."""

    kind: str
    text: str


@dataclass(frozen=True)
class Recommendation:
    """The group to use, None where there is none, and why."""

    sentence: str
    group: str | None = None
    knobs: dict[str, Any] | None = None
    criterion: str | None = None  # the measure it has the best mean of, with that mean:
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    overfit_share: Interval | None = None
    ties: list[str] = field(default_factory=list)  # names of groups that are not shown to be worse
    command: str | None = None  # that trains it


@dataclass(frozen=True)
class Answer:
    """The comparison in a paragraph that one can quote, and what to run next."""

    text: str
    next: str | None  # a command that runs
    lines: list[str] = field(default_factory=list)  # the text, a line for each thing that is said
    reason: str | None = None  # why to run it


@dataclass(frozen=True)
class Comparison:
    """What holds across runs."""

    groups: list[GroupSummary]  # sorted by their knobs' values
    effects: list[Effect]  # one for each knob and tested measure, the largest first within a measure
    differences: list[Difference]
    interactions: list[Interaction]
    warnings: list[Caveat]
    recommendation: Recommendation
    score: str | None  # the measure taken as the score
    criterion: str | None  # the measure that decides: what selection uses
    tuned: list[str]  # the knobs that are only tuned: each contender is compared at its best of them
    chosen: dict[str, str]  # each contender -> the group that it is best at
    tests: int  # how many tests shared the error budget
    noise_df: dict[str, float]  # measure -> degrees of freedom of the noise that is pooled over all groups
    answer: Answer

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary for strict JSON."""
        return _plain(self)


def _plain(value: Any) -> Any:
    """Return records as dictionaries. Unlike dataclasses.asdict it copies no values: a quarter of the time."""
    if is_dataclass(value) or isinstance(value, dict):
        return {key: _plain(part) for key, part in (value if isinstance(value, dict) else vars(value)).items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value
