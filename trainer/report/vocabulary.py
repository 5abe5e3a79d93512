"""Name things once for all reports: verdicts and their colours, measures, means with ±, knobs, findings, advice."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from trainer.compare.keys import NO_KNOB, label
from trainer.compare.words import SMALL, change, does
from trainer.judge import health
from trainer.judge.overfit import Kind, Label, is_unsure
from trainer.language import translated
from trainer.read.curves import Curves
from trainer.text import plural

VERDICTS: tuple[Label, ...] = get_args(Label)  # worst first
KINDS: tuple[Kind, ...] = get_args(Kind)  # of the verdict overfit


class Style(NamedTuple):
    """A verdict's colour on a terminal, on the light and the dark page, and its sign, for eyes that see no colour."""

    terminal: str
    light: str
    dark: str
    sign: str


MOST_LEVELS = 6  # of a knob, whose best one is told with every other


STYLES: dict[str, Style] = {  # told apart with red-green and blue-yellow colour blindness too
    "overfit": Style("red", "#86201a", "#dd774c", "▲"),
    "diverged": Style("magenta", "#431765", "#c864ff", "✕"),
    "underfit": Style("yellow", "#9c6d0c", "#fcc938", "▼"),
    "too_short": Style("dim", "#6d727a", "#8f959e", "◔"),
    "no_validation": Style("blue", "#450126", "#f8ffcc", "○"),
    "healthy": Style("cyan", "#0b6ae8", "#a5ecf5", "●"),
}


class Measure(NamedTuple):
    """What a number of a run is called: as the title of a column, and in full."""

    short: str
    full: str


MEASURES = {
    "gap": Measure("gap", "gap (validation − training loss)"),
    "best_val_loss": Measure("best val", "best validation loss"),
    "final_val_loss": Measure("last val", "last validation loss"),
    "best_val_accuracy": Measure("best val acc.", "best validation accuracy"),
    "test_loss": Measure("test loss", "test loss"),
    "test_accuracy": Measure("test acc.", "test accuracy"),
    "final_train_loss": Measure("last train", "last training loss"),
    "final_train_accuracy": Measure("last train acc.", "last training accuracy"),
    "final_val_accuracy": Measure("last val acc.", "last validation accuracy"),
    "final_test_loss": Measure("last test loss", "test loss after the last epoch"),
    "final_test_accuracy": Measure("last test acc.", "test accuracy after the last epoch"),
}
_WORDS = {"best": "best", "final": "last", "train": "training", "val": "validation", "test": "test"}
PER_CLASS = {
    "recall": "recall in % (accuracy within the class)",
    "precision": "precision in %",
    "f1": "F1 in % (harmonic mean of both)",
}
INTERVAL = "mean ± half of its 95 % confidence interval over seeds (Student's t)"


def spelled(name: str) -> str:
    """Write a verdict or finding as people read it: too_short as too short."""
    return name.replace("_", " ")


def axis(runs: Iterable[Curves]) -> str:
    """Name what the x of these runs counts."""
    units = {run.unit for run in runs}
    return units.pop() if len(units) == 1 else "step or epoch, as it was logged"


def worded(name: str) -> str:
    """Write a verdict or its kind in the reader's language."""
    return translated(spelled(name))


def judged(run: Mapping[str, Any]) -> str:
    """Write a run's verdict: overfit, with its kind where that is no rise, (loss only); `?` where it is not sure.

    Healthy curves are called not overfit where the run has findings, or has learned next to nothing.
    """
    named = f" ({worded(run['kind'])})" if run.get("kind") in ("gap", "loss_only") else ""
    return worded(called_verdict(run)) + named + "?" * _is_unsure(run)


def called_verdict(run: Mapping[str, Any]) -> str:
    """Return what a run's verdict is called: where it says healthy of a doubtful run, not overfit."""
    return DOUBTFUL if run["verdict"] == "healthy" and is_doubtful(run) else run["verdict"]


DOUBTFUL = "not overfit"  # what healthy curves of a doubtful run are called
LITTLE = 0.25  # of the chance-level loss: less than this is next to nothing


def is_doubtful(run: Mapping[str, Any]) -> bool:
    """Whether a run has findings, or its training loss stays near that of guessing."""
    evidence = run.get("evidence", {})
    guessing, lowest = evidence.get("guessing_loss"), evidence.get("train_low")
    return bool(run.get("health")) or bool(guessing and lowest and lowest > (1 - LITTLE) * guessing)


def reason(run: Mapping[str, Any]) -> str:
    """Say why a run is judged so, in the reader's language."""
    return translated(run["sentence"])


def _is_unsure(run: Mapping[str, Any]) -> bool:
    probability = run.get("probability")
    return isinstance(probability, float) and is_unsure(probability, run.get("evidence", {}))


def counted(names: Iterable[str]) -> str:
    """Count verdicts, worst first: '2 overfit, 1 too short'; other names after them."""
    counts = Counter(names)
    order = [*(name for name in VERDICTS if name in counts), *(name for name in counts if name not in VERDICTS)]
    return ", ".join(f"{counts[name]} {worded(name)}" for name in order)


def called(measure: str) -> Measure:
    """Return what a measure is called; of a metric of the user's choice, final_val_f1, by the parts of its name."""
    if measure in MEASURES:
        return MEASURES[measure]
    parts = re.fullmatch("(?:(best|final)_)?(train|val|test)_(.+)", measure)
    if parts is None or (parts[1] is None and parts[2] != "test"):
        return Measure(measure, spelled(measure))
    when, split, name = parts.groups()
    if split == "test":
        return Measure(f"{'last ' if when else ''}test {name}", f"test {name}{' after the last epoch' if when else ''}")
    return Measure(f"{_WORDS[when]} {split} {name}", f"{_WORDS[when]} {_WORDS[split]} {name}")


def known(found: Iterable[str]) -> list[str]:
    """Return the measures among these in the order of MEASURES, others after them as they come."""
    there = dict.fromkeys(found)
    return [*(name for name in MEASURES if name in there), *(name for name in there if name not in MEASURES)]


def best_at(runs: Iterable[Mapping[str, Any]]) -> str:
    """Name where runs were best, as the title of a column: not how good."""
    units = {run["unit"] for run in runs}
    return f"best {units.pop()}" if len(units) == 1 else "best at"


def number(value: Any, measure: str) -> str:
    """Write a measure: an accuracy in percent, else four digits; what is not finite as the file has it."""
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:.2%}" if measure.endswith("accuracy") else f"{value:#.4g}"


def mean_cell(mean: float | None, half: float | None, measure: str) -> str:
    """Write a mean over seeds ± half of its interval, see INTERVAL; no ± where one seed has no interval."""
    if mean is None or half is None or not math.isfinite(half):
        return number(mean, measure)
    shown = f"{half:.2%}" if measure.endswith("accuracy") else f"{half:#.2g}".removesuffix(".")  # 0.10, of two digits
    return f"{number(mean, measure)} ± {shown}"


# ------------------------------------------------------------------ what an evaluation says


def knob_names(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the knobs of the comparison, and `seed` where runs have one and differ in it."""
    groups = [group for part in parts(evaluation) for group in part["groups"]]
    knobs = list(dict.fromkeys(knob for group in groups for knob in group["knobs"] if knob != NO_KNOB))
    seeds = {str(run["config"]["seed"]) for run in evaluation["runs"] if "seed" in run["config"]}
    return [*knobs, "seed"] if len(seeds) > 1 else knobs


def short_names(knobs: Sequence[str]) -> list[str]:
    """Shorten `model.dropout` to dropout, `optimizer.name` to optimizer; not where two would be the same."""
    short = [re.sub(r"[^\s,]+", lambda key: key[0].removesuffix(".name").split(".")[-1], knob) for knob in knobs]
    return [one if short.count(one) == 1 else knob for one, knob in zip(short, knobs, strict=True)]


def setting(knob: str, value: Any) -> str:
    """Write a knob's value with its name; of several keys that are one knob, the value says them."""
    text = "null" if value is None else label(value)
    return text if isinstance(value, str) and " and " in knob else f"{knob}={text}"


def parts(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the comparisons to show, each with its runs: every sweep of several on its own, else the whole.

    Runs that belong to none of several stand in a last part without groups.
    """
    sweeps = evaluation.get("sweeps") or []
    if len(sweeps) < 2:
        return [evaluation]
    by_path = {run["path"]: run for run in evaluation["runs"]}
    found = [{**sweep, "runs": [by_path[path] for path in sweep["runs"]]} for sweep in sweeps]
    within = {path for sweep in sweeps for path in sweep["runs"]}
    rest = [run for path, run in by_path.items() if path not in within]
    nothing = {"groups": [], "effects": [], "interactions": [], "warnings": [], "recommendation": {}}
    return [*found, *([{"name": "not compared", "runs": rest, **nothing}] if rest else [])]


class Advice(NamedTuple):
    """What a comparison comes to: a paragraph to quote, the command to run next, reasons to doubt it."""

    text: str | None
    command: str | None
    warnings: list[str]
    lines: Sequence[str] = ()  # the paragraph, a line for each thing that it says
    reason: str | None = None  # why to run the command

    @property
    def next(self) -> str:
        """Introduce the command to run next, with the reason to."""
        return f"next ({self.reason}):" if self.reason else "next:"


def advice(part: Mapping[str, Any]) -> Advice:
    """Return the answer of a comparison, or what it recommends where it has none.

    Of a single group, or of runs that share no config, nothing is recommended.
    """
    groups, answer = part["groups"], part.get("answer") or {}
    text = answer.get("text")
    if not text and (len(groups) < 2 or any(NO_KNOB in group["knobs"] for group in groups)):
        return Advice(None, None, [])
    text = text or part["recommendation"].get("sentence")
    warnings = [warning["text"] for warning in part["warnings"] if warning["text"].lower() not in str(text).lower()]
    lines = answer.get("lines") or ([text] if text else [])
    return Advice(text, answer.get("next"), warnings, lines, answer.get("reason"))


def overview(evaluation: Mapping[str, Any]) -> Advice:
    """Return what stands above everything: the answer; of several sweeps nothing that each says for itself."""
    whole = advice(evaluation)
    text, warnings = whole.text, whole.warnings
    apart = list(evaluation.get("not_compared") or [])
    each = parts(evaluation)
    if each == [evaluation]:
        return whole._replace(warnings=[*warnings, *apart])
    told = [advice(part) for part in each]
    if all((one.text or "") in (text or "") for one in told):
        what = "sets of runs" if any(len(sweep["runs"]) == 1 for sweep in evaluation["sweeps"]) else "sweeps"
        text = f"{len(evaluation['sweeps'])} {what}, each compared on its own"
    warnings = [one for one in warnings if not any(one in other.warnings for other in told)]
    return Advice(text, whole.command, [*warnings, *apart], [text] if text else [])


def broken(evaluation: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each requirement that does not hold."""
    return [one["sentence"] for one in evaluation.get("requirements", []) if not one["passed"]]


def depends(part: Mapping[str, Any], effect: Mapping[str, Any]) -> set[str]:
    """Return the knobs that an effect is shown to depend on: then what it is over all is but an average."""
    claimed = (one for one in part["interactions"] if one["claimed"] and one["measure"] == effect["measure"])
    return {knob for one in claimed if effect["knob"] in one["knobs"] for knob in one["knobs"]} - {effect["knob"]}


def claims(part: Mapping[str, Any]) -> list[str]:
    """Return what holds up after correction, a sentence each: what knobs do, then which depend on each other.

    What a knob does that depends on another is told at each level, and as an average only where levels are not asked.
    """
    found = []
    for effect in part["effects"]:
        others = depends(part, effect)
        levels = [simple for simple in effect["simple"] if simple["knob"] in others]
        told = [simple["sentence"] for simple in levels if simple["claimed"]]
        averaged = [of_effect(effect, bool(others))[0]] if effect["claimed"] and not levels else []
        found += [*averaged, *told] if effect["knob"] != NO_KNOB and effect["sentence"] else []
    return [*found, *(one["sentence"] for one in part["interactions"] if one["claimed"] and one["sentence"])]


def of_effect(effect: Mapping[str, Any], is_average: bool) -> list[str]:
    """Return what a knob does, a sentence each: over all, at each level of another, and in which shape."""
    found = [("on average: " if is_average else "") + effect["sentence"]]
    for simple in effect.get("simple") or []:
        found.append(("" if simple["at"] in simple["sentence"] else f"at {simple['at']}: ") + simple["sentence"])
    if shape := effect.get("shape"):
        found.append(shape["sentence"])
    return [sentence for sentence in found if sentence]


def beside(effect: Mapping[str, Any]) -> str:
    """Return what stands over the recorded signals that differ along with an effect."""
    doing = does(effect["knob"], effect["together"])
    return f"recorded beside {doing} to the {called(effect['measure']).full}; evidence, not a cause:"


def largest(effect: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the contrast that stands for an effect: the largest claimed, else tested, else of all; None for none."""
    known = [one for one in effect["contrasts"] if one["difference"] is not None]
    return max(
        known, key=lambda one: (one["claimed"], one["p_adjusted"] is not None, abs(one["difference"])), default=None
    )


def cost_sign(measure: str) -> int:
    """Return 1 for a measure of which less is better, else -1."""
    return 1 if measure.endswith("loss") else -1


def told(effect: Mapping[str, Any], decides: bool) -> list[Mapping[str, Any]]:
    """Return the contrasts of an effect to print, the largest first: of what decides, the best level with every other.

    Of more than MOST_LEVELS only the largest.
    """
    levels, most = [level for level in effect["levels"] if level["mean"] is not None], largest(effect)
    if most is None or not decides or not 2 < len(levels) <= MOST_LEVELS:
        return [most] if most else []
    best = min(levels, key=lambda level: cost_sign(effect["measure"]) * level["mean"])["value"]
    others = [one for one in effect["contrasts"] if one is not most and best in (one["a"], one["b"])]
    return [most, *sorted(others, key=lambda one: -abs(one["difference"] or 0.0))]


def difference(value: float | None, measure: str) -> str:
    """Write a difference of two means, as sentences do."""
    return "" if value is None else change(value, measure)


def small(p: float | None) -> str:
    """Write a corrected p; of a very small one only that it is, as sentences do."""
    return "" if p is None else f"< {SMALL:g}" if p < SMALL else f"{p:.2g}"


def finding(item: Any) -> str:
    """Write a finding of summary.json in words, whatever another version or tool has put there."""
    if isinstance(item, dict) and {"where", "step", "sentence", "why", "try"} <= item.keys():
        return translated(health.line(item))
    if isinstance(item, dict):
        return translated(str(item.get("sentence") or item.get("text") or json.dumps(item)))
    return str(item)


_NAMED = 5  # runs of a kind of finding


def findings_by_kind(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each kind of finding with the runs that have it, the most frequent first."""
    named: dict[str, list[str]] = {}
    for run in runs:
        for called in dict.fromkeys(health.name(item) for item in run.get("health", []) if isinstance(item, Mapping)):
            named.setdefault(called, []).append(str(run["name"]))
    return [
        f"{called} in {plural(len(names), 'run')}: {', '.join(names[:_NAMED])}{', ...' * (len(names) > _NAMED)}"
        for called, names in sorted(named.items(), key=lambda item: -len(item[1]))
    ]
