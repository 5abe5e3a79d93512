"""Say what tests found, in words that one can quote."""

from collections.abc import Iterable, Sequence

from trainer.compare.keys import label
from trainer.compare.knobs import Knob
from trainer.compare.results import Contrast, Level, Shape, ShapeKind
from trainer.text import plural

SMALL = 1e-4  # a smaller p is not told: it would promise that the model of the noise is exact
ROUNDING = 1e-12  # a smaller difference is none
NOT_SHOWN = ("no difference shown", "not enough seeds to tell", "not enough runs to tell")
MEASURES = {
    "best_val_loss": "best validation loss",
    "final_val_loss": "last validation loss",
    "best_val_accuracy": "best validation accuracy",
}


def measure(name: str) -> str:
    """Call a measure by its name in a sentence."""
    return MEASURES.get(name, name.replace("_", " "))


def is_percent(name: str) -> bool:
    """Whether a measure is told in percent, and its differences in points of a percent."""
    return name.endswith("accuracy")


OF_MANY = {"is": "are", "was": "were", "does": "do", "defines": "define", "changes": "change"}


def verb(one: str, count: int) -> str:
    """Return a verb as it stands with so many subjects; one: how it stands with one."""
    return one if count == 1 else OF_MANY[one]


def does(knob: str, together: Sequence[str]) -> str:
    """Begin a clause of what a knob does; together: the keys that it consists of, where they are several."""
    return f"what {knob} {verb('does', len(together) or 1)}"


def value(number: float, name: str, digits: int = 4) -> str:
    """Write a value of a measure as the tables do: an accuracy in percent."""
    return f"{number:.2%}" if is_percent(name) else f"{number:.{digits}g}"


def largest(contrasts: Iterable[Contrast]) -> Contrast | None:
    """Return the contrast that stands for several: the largest that is claimed, else that is tested, else of all."""
    known = [one for one in contrasts if one.difference is not None]
    tested = [one for one in known if one.p is not None] or known
    return max(tested, key=lambda one: (one.claimed, abs(one.difference or 0.0)), default=None)


def head(contrasts: Sequence[Contrast], shape: Shape | None) -> Contrast | None:
    """Return the contrast to tell: where a measure turns inside, that of the turn with what comes closest to it."""
    turned = [
        one for one in contrasts if shape and shape.turn is not None and shape.turn in (one.a, one.b) and one.claimed
    ]
    return min(turned, key=lambda one: abs(one.difference or 0.0), default=largest(contrasts))


def levels(knob: Knob, a: int, b: int) -> tuple[str, str]:
    """Name two levels: the first as typed, of the second only the value where that is clear."""
    if knob.brings[a] == knob.brings[b]:
        return knob.plain(a), knob.plain(b) if any(knob.brings) else knob.short(b)
    return knob.text(a), knob.text(b)


def sentence(test: Contrast, subject: str, than: str, unit: str, means: tuple[float, float] | None = None) -> str:
    """Say what a test found. means: of both sides, where they are not a difference themselves."""
    if test.p is None or test.difference is None:
        repeats = plural(test.n, unit) + " per side"
        if test.n > 1:  # at settings that have one each
            repeats = f"{test.n} runs per side, no two at equal settings"
        return f"{measure(test.measure)}: {repeats}: not enough; two {unit}s test, five or more tell"
    name = test.measure
    size = "neither higher nor lower" if abs(test.difference) < ROUNDING else amount(test.difference, name)
    seen = f"{subject} is {size} {than}"
    sides = "" if means is None else f"{value(means[0], name)} against {value(means[1], name)}; "
    evidence = f" ({sides}{interval(test)}, {test.n} {unit}s, {corrected(test.p_adjusted)})"
    if test.over == "settings":
        so = (test.higher_share.mean or 0.0) * test.higher_share.n  # ties half
        so = so if test.difference > 0 else test.higher_share.n - so
        over = f"the median over {test.n} settings of the other knobs; so at {so:g} of these"
        evidence = f" ({over}; {interval(test)}, {corrected(test.p_adjusted)})"
    if test.claimed:
        return seen + evidence
    if test.seeds_needed is not None:
        needed = f"a true difference of this size would show with about {test.seeds_needed} {unit}s"
        return f"not enough {unit}s to tell: {seen}{evidence}; {needed}"
    beyond = max(abs(test.low or 0.0), abs(test.high or 0.0))
    unlikely = f"; one of more than {figure(beyond, name, 2)} is unlikely" if beyond > ROUNDING else ""
    return f"no difference shown: {seen}{evidence}{unlikely}"


def amount(difference: float, name: str) -> str:
    """Write a difference as how much higher or lower."""
    return f"{figure(abs(difference), name)} {'higher' if difference > 0 else 'lower'}"


def interval(test: Contrast) -> str:
    """Write the interval of a difference."""
    return f"95 % interval {bounds(test.low or 0.0, test.high or 0.0, test.measure)}"


def bounds(low: float, high: float, name: str) -> str:
    """Write an interval with as many digits, three at least, as tell its ends apart; five at most."""
    if is_percent(name):
        return f"{span(*(_points(value) for value in (low, high)))} points"
    for digits in (3, 4, 5):
        ends = [f"{0.0 if abs(value) < ROUNDING else value:.{digits}g}" for value in (low, high)]
        if ends[0] != ends[1]:
            break
    return span(*ends)


def figure(difference: float, name: str, digits: int = 3) -> str:
    """Write the size of a difference; what is left of rounding is 0, and never negative."""
    if is_percent(name):
        return f"{_points(difference)} points"
    return f"{0.0 if abs(difference) < ROUNDING else difference:.{digits}g}"


def change(difference: float, name: str) -> str:
    """Write a difference with its sign; 0 has none."""
    text = figure(difference, name)
    return f"+{text}" if difference >= ROUNDING and not text.startswith("0.00 ") else text


def _points(share: float) -> str:
    """Write a difference of shares in points of a percent."""
    text = f"{100 * share:.2f}"
    return text if float(text) else "0.00"


def span(low: str, high: str, to: str = " to ") -> str:
    """Write a range; one whose ends read alike is one number."""
    return low if low == high else f"{low}{to}{high}"


def corrected(p: float | None) -> str:
    """Write a corrected p value; of a very small one only that it is."""
    return "corrected p < 0.0001" if p is not None and p < SMALL else f"corrected p = {p:.2g}"


def failures(knob: Knob, failed: list[tuple[int, int]], a: int, b: int) -> str:
    """Say how many runs of two levels came to nothing; empty where none did. failed: (failed, all) of each level."""
    parts = [
        f"{failed[i][0]} of {failed[i][1]} runs at {knob.plain(i)} diverged or failed" for i in (a, b) if failed[i][0]
    ]
    return f"; of the runs that ended: {' and '.join(parts)}" if parts else ""


def shape(knob: Knob, name: str, means: list[Level], contrasts: list[Contrast], lower_is_better: bool) -> Shape | None:
    """Say how a measure goes over three or more numbers: only what claimed differences of its levels show."""
    known = [level.mean for level in means if level.mean is not None]
    if not knob.is_numeric or len(means) < 3 or len(known) < len(means):
        return None
    position = {level: index for index, level in enumerate(knob.levels)}
    claims = {  # (lower index, higher index) -> whether the measure rises
        (position[one.a], position[one.b]): one.difference < 0
        for one in contrasts
        if one.claimed and one.difference is not None
    }
    top, bottom = known.index(max(known)), known.index(min(known))
    up, down = (way in claims.values() for way in (True, False))
    at = [f"{value(mean, name, 3)} at {label(level)}" for level, mean in zip(knob.levels, known, strict=True)]
    path, of = ", ".join(at), measure(name)

    def turns(index: int, rises: bool) -> bool:
        before = any(claims.get((i, index)) is rises for i in range(index))
        after = any(claims.get((index, j)) is (not rises) for j in range(index + 1, len(known)))
        return before and after

    insides: list[tuple[ShapeKind, int, bool]] = [("peak inside", top, True), ("valley inside", bottom, False)]
    for kind, turn, rises in insides:
        if turns(turn, rises):
            good = "" if name == "gap" else f" ({'worst' if rises == lower_is_better else 'best'} there)"
            way, back = ("rises", "falls") if rises else ("falls", "rises")
            text = f"{of} {way} with {knob.name} to {at[turn]} and {back} again: "
            text += f"a {kind}{good}, shown on both sides ({path})"
            return Shape(kind, float(knob.levels[turn]), text)
    if up != down and {top, bottom} == {0, len(known) - 1} and (0, len(known) - 1) in claims:
        kind = "rising" if up else "falling"
        return Shape(kind, None, f"{of} {'rises' if up else 'falls'} with {knob.name} ({path})")
    (turn, other), rises = ((top, bottom) if up else (bottom, top)), up
    if up != down and claims.get((0, turn)) is rises:
        ways = ("rises", "higher", "lowest") if rises else ("falls", "lower", "highest")
        if turn < len(known) - 1:
            text = f"{of} {ways[0]} with {knob.name} from {at[0]} to {at[turn]}; that it turns there is not shown"
        else:
            text = f"{of} is {ways[1]} at {knob.plain(turn)} than at {label(knob.levels[0])}; "
            text += f"that it is {ways[2]} between, {at[other]}, is not shown"
        return Shape("no shape shown", None, f"{text} ({path})")
    if up != down:
        i, j = max(claims, key=lambda pair: pair[1] - pair[0])
        text = f"{of} is {'higher' if up else 'lower'} at {knob.plain(j)} than at {label(knob.levels[i])}; "
        return Shape("no shape shown", None, f"{text}no rise or fall over all values is shown ({path})")
    return Shape("no shape shown", None, f"{of} over {knob.name}: no rise or fall is shown ({path})")
