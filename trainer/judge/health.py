"""Find what is wrong with a training run from what it recorded. Pure; no torch.

Thresholds are relative: to what an untrained network should give (Glorot and Bengio 2010, He et al. 2015), to the
weights, to the chance-level loss (that of the best prediction which ignores the input), to the run's own noise. Where a
sign is ambiguous, the outcome decides: a network that learned is not called ill for looking unusual. docs/health.md has
the rules and how often they are right.

Shapes: E epoch, L hidden layer, W weight matrix, S step, M measured quantity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from trainer.judge import cures
from trainer.judge.cures import ADVICE

Floats = np.ndarray


@dataclass(frozen=True)
class Finding:
    """Something wrong: what, where, since which step (0: before the first), in a sentence, with its numbers."""

    finding: str
    where: str
    step: int
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_json(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as summary.json and evaluation.json hold it. config: of the run, dotted keys."""
        return {**vars(self), "why": ADVICE[self.finding].why, "try": cures.sentence(self.finding, config)}


class NotFinite(NamedTuple):
    """The first recorded step that holds a value which is not finite, and the tensor where it shows."""

    step: int
    tensor: str


def first_not_finite(steps: Floats, tags: Sequence[str], values: Floats) -> NotFinite | None:
    """Find the first of the steps (S,) whose measured values (S, M) are not all finite.

    The tensor named is the loss, else the topmost gradient: the order in which a step computes them.
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return None
    s = int(bad.any(1).argmax())
    named = [tag for m, tag in enumerate(tags) if bad[s, m]]
    gradients = [tag for tag in named if tag.startswith("grad_norm/") and not tag.endswith("total")]
    tensor = "train/loss" if "train/loss" in named else gradients[-1] if gradients else named[0]
    return NotFinite(int(steps[s]), tensor)


def judge(
    rows: Sequence[Mapping[str, float]],
    start: Mapping[str, float],
    config: Mapping[str, Any],
    not_finite: NotFinite | None = None,
) -> list[Finding]:
    """Return what is wrong with a run, worst first; nothing where all is well.

    rows: one per epoch, as in metrics.csv. start: what was measured before the first step and in it, as in
    summary.json. config: dotted keys. not_finite: where a recorded step first held NaN or infinity.
    """
    if not rows or not start:
        return []
    run = _Run(rows, start, config, not_finite)
    if "guessing_loss" not in start or "model.function" in config:  # no chance level to measure by, or no network
        return list(_not_finite(run, {}))
    found: list[Finding] = []
    for rule in _CAUSES:
        found += rule(run, {finding.finding: finding.step for finding in found})
    if any(finding.finding in _ROOTS for finding in found):  # of which units die or saturate later
        found = [one for one in found if one.step == 0 or one.finding not in {"dead_units", "saturated_units"}]
    for rule in _SYMPTOMS:
        found += rule(run, {finding.finding: finding.step for finding in found})
    return found


LEARNED = 0.5  # a run that has taken this share off the chance-level loss has learned: ambiguous signs do not count
MOST_LABELS = 0.9  # of the labels are one class: more is a fault of the data
TRIED = (0.3, 30, 100)  # weights moved by this share of their length in so many steps, or so many steps in any case:
# long enough to learn something


class _Run:
    """A run's records as arrays, and what several rules ask of them."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, float]],
        start: Mapping[str, float],
        config: Mapping[str, Any],
        not_finite: NotFinite | None,
    ) -> None:
        self.rows, self.start, self.config, self.not_finite = rows, start, config, not_finite
        self.parameters = [tag.removeprefix("grad_norm/") for tag in start if tag.startswith("grad_norm/")]
        self.weights = [p for p in self.parameters if p.endswith("weight") and "norm" not in p] or self.parameters
        self.loss = self.column("eval/train_loss")
        self.steps = self.column("step").astype(int)

    def column(self, tag: str) -> Floats:
        """Return a column of the rows, (E,); NaN where it was not recorded."""
        return np.array([row.get(tag, math.nan) for row in self.rows], dtype=float)

    def table(self, kind: str, names: Sequence[str]) -> Floats:
        """Return the columns `kind/name`, (E, len(names))."""
        return np.array([[row.get(f"{kind}/{name}", math.nan) for name in names] for row in self.rows], dtype=float)

    def layers(self, kind: str) -> list[str]:
        """Return the activation modules that have this statistic, input side first."""
        return [tag.removeprefix(f"{kind}/") for tag in self.start if tag.startswith(f"{kind}/")]

    @property
    def batchnorm(self) -> bool:
        return any("norm" in name for name in self.parameters)

    @property
    def chance_loss(self) -> float:
        """The loss of the best prediction that ignores the input."""
        return self.start["guessing_loss"]

    @cached_property
    def learned(self) -> float:
        """The share of the chance-level loss that the best epoch has taken off; 0 at least."""
        return self._taken_off(float(np.nanmin(self.loss)) if np.isfinite(self.loss).any() else math.inf)

    @cached_property
    def kept(self) -> float:
        """The same for the last third of the run."""
        return self._taken_off(float(np.median(self.loss[-max(1, len(self.loss) // 3) :])))

    def _taken_off(self, loss: float) -> float:
        base = self.chance_loss if self.start.get("target_top_class", 0) <= MOST_LABELS else self.start["expected_loss"]
        return max(0.0, 1 - loss / base) if base > 0 and not math.isnan(loss) else 0.0

    @cached_property
    def updates(self) -> Floats:
        """Length of each epoch's last step over that of the weight, (E, W); 0 for a weight that is zero."""
        return np.nan_to_num(self.table("update_ratio", self.weights), nan=0.0, posinf=0.0)

    @cached_property
    def first_step(self) -> Floats:
        """Length of the first step over that of the weight, (W,). RMSprop makes it 1/sqrt(1 - alpha) times as long."""
        ratio = np.array([self.start[f"update_ratio/{name}"] for name in self.weights])
        if self.config.get("optimizer._target_") == "torch.optim.RMSprop":
            ratio *= math.sqrt(1 - self.config.get("optimizer.alpha", 0.99))
        return ratio

    @cached_property
    def distances(self) -> Floats:
        """How far each weight went over its own length, (W,), were all its steps in one direction."""
        return self.updates.T @ np.diff(self.steps, prepend=0)

    def widths(self, layers: int) -> list[int]:
        """Return the units of each hidden layer; 64 in a module of the user's own, which does not tell."""
        width = self.config.get("model.width", 64)
        return width[:layers] if isinstance(width, list) else [width] * layers

    @cached_property
    def tried(self) -> bool:
        """Whether the run was long enough for its outcome to say something."""
        distance, few, many = TRIED
        return bool(self.steps[-1] >= (few if self.distances.max() >= distance else many))

    @cached_property
    def backward_L(self) -> tuple[list[str], Floats]:
        """Names and gradients (L,) of the hidden layers in the first step, root mean square per unit, input side first.

        It is the gradient of the layer's bias (of its batch norm, where that has taken the bias's place).
        """
        names = [name for name in self.parameters if name.endswith("bias")][:-1]
        if self.config.get("model.batchnorm_position") == "after":
            names = [name for name in names if "norm" not in name]
        norms = np.array([self.start[f"grad_norm/{name}"] for name in names])
        return names, norms / np.sqrt(self.widths(len(names)))


# ------------------------------------------------------------------ causes

Found = Mapping[str, int]  # what earlier rules found, and since which step
Rule = Callable[[_Run, Found], Iterator[Finding]]


def _not_finite(run: _Run, found: Found) -> Iterator[Finding]:
    bad = run.not_finite
    if bad is None:
        broken = ~np.isfinite(run.table("weight_norm", run.parameters))
        if not broken.any():
            return
        e = int(broken.any(1).argmax())
        bad = NotFinite(int(run.steps[e]), run.parameters[int(broken[e].argmax())])
    said = f"{bad.tensor} is NaN or infinite from step {bad.step} on"
    yield Finding("not_finite", bad.tensor, bad.step, said, {"loss_at_start": run.start["loss"]})


def _labels(run: _Run, found: Found) -> Iterator[Finding]:
    """One class fills the labels."""
    top = run.start.get("target_top_class", 0.0)
    if top > MOST_LABELS:
        yield Finding("one_class", "labels", 0, f"{top:.0%} of the training labels are one class", {"share": top})


INPUT_RMS = (0.05, 4.0)  # of what should be about 1
INPUT_OFFSET = 3.0  # mean over standard deviation
FEATURE_RATIO = 30.0  # largest standard deviation of a feature over the median one


def _inputs(run: _Run, found: Found) -> Iterator[Finding]:
    rms, mean, ratio = (run.start[f"input_{name}"] for name in ("rms", "mean", "feature_ratio"))
    std = math.sqrt(max(rms**2 - mean**2, 0.0))
    low, high = INPUT_RMS
    if not low <= rms <= high:
        said = f"the inputs' root mean square is {rms:.3g}, not about 1"
    elif abs(mean) > INPUT_OFFSET * std and abs(mean) > 2:
        said = f"the inputs lie at {mean:.3g} with a standard deviation of only {std:.3g}"
    elif ratio > FEATURE_RATIO:
        said = f"one input feature varies {ratio:.3g} times as much as the median one"
    else:
        return
    yield Finding("inputs_not_normalised", "inputs", 0, said, {"rms": rms, "mean": mean, "feature_ratio": ratio})


DEAD = (0.65, 0.8)  # share of a layer's units, plus this over the root of their number
SATURATED = (0.1, 0.4)


def _flat(kind: str, word: str, limit: tuple[float, float]) -> Rule:
    """Make the rule for layers with too many flat units: before the first step, or at the end."""

    def rule(run: _Run, found: Found) -> Iterator[Finding]:
        ill = []
        for layer, width in zip(run.layers(kind), run.widths(len(run.layers(kind))), strict=True):
            share = np.append(run.start[f"{kind}/{layer}"], run.table(kind, [layer]))
            if run.batchnorm:
                share[0] = 0.0  # before training there are no running statistics: evaluation mode shows another network
            over = share >= min(0.98, limit[0] + limit[1] / math.sqrt(width))
            if over[0] or over[-1]:
                ill.append((layer, share, int(over.argmax())))
        if ill:
            layer, share, e = min(ill, key=lambda one: (one[2], -one[1].max()))
            yield Finding(
                kind,
                ", ".join(name for name, _, _ in ill),
                int(run.steps[e - 1]) if e else 0,
                f"{share.max():.0%} of the units of {layer} are {word}",
                {"at_start": {name: float(s[0]) for name, s, _ in ill}, "at_end": {n: float(s[-1]) for n, s, _ in ill}},
            )

    return rule


# A fresh network passes signals on about unchanged, from hidden layer to hidden layer, forward and backward.
VANISHED = 1e-4  # gradient at the bottom over that at the top: too small, whatever the outcome
WEAK = 1e-2  # too small where the run did not learn
EXPLODED = 30.0  # too large
NORM_GAIN = 1.25  # batch norm makes gradients grow by up to about 1.21 per layer downward (Yang et al. 2019)
OWN_LAYERS, OWN_FIT = 4, 0.7  # biases in a module of the user's own, and how well a line must fit them (r squared)


def _depth(run: _Run, found: Found) -> Iterator[Finding]:
    """The gradient shrinks or grows by a constant factor per layer: a line through its logarithm."""
    names, flow = run.backward_L
    seen = np.flatnonzero((flow > 0) & np.isfinite(flow))  # an underflow to 0 has no logarithm
    if len(seen) < 2:
        return
    slope = float(np.polyfit(seen, np.log(flow[seen]), 1)[0])
    own = "model.depth" not in run.config  # whether the biases of such a module lie layer on layer is unknown
    if own and (len(seen) < OWN_LAYERS or np.corrcoef(seen, np.log(flow[seen]))[0, 1] ** 2 < OWN_FIT):
        return
    gain, ratio = math.exp(-slope), math.exp(-slope * (len(flow) - 1))
    lowest, highest = (names[i].removesuffix(".bias") for i in (0, -1))
    evidence = {"bottom_over_top": ratio, "factor_a_layer": gain, "by_layer": flow.tolist()}
    if ratio < VANISHED or (ratio < WEAK and run.learned < LEARNED and run.tried):
        said = f"the gradient shrinks by {gain:.2g} a layer on its way down: {ratio:.1e} of it reaches {lowest}"
        yield Finding("vanishing_gradients", f"{lowest} to {highest}", 1, said, evidence)
    elif ratio > EXPLODED * (NORM_GAIN ** len(flow) if run.batchnorm else 1):
        said = f"the gradient grows by {gain:.2g} a layer on its way down: {ratio:.1e} times as large in {lowest}"
        yield Finding("exploding_gradients", f"{lowest} to {highest}", 1, said, evidence)


def _no_gradient(run: _Run, found: Found) -> Iterator[Finding]:
    if found.keys() & {"dead_units", "saturated_units", "vanishing_gradients", "not_finite"}:
        return
    at_start = [run.start[f"grad_norm/{name}"] for name in run.parameters]
    none = (np.vstack([at_start, run.table("grad_norm", run.parameters)]) == 0).all(0)
    if none.any() and not none.all():
        names = [name for name, is_none in zip(run.parameters, none, strict=True) if is_none]
        said = f"{len(names)} parameter{'s have' if len(names) > 1 else ' has'} no gradient in any step looked at"
        yield Finding("no_gradient", ", ".join(names), 1, said)


START_EXCESS = (3.0, 1.5)  # above the expected loss by this much, and by this many times it
SQUARED_START_EXCESS = (0.0, 9.0)  # for squared errors, which grow with the square of the inputs


def _loss_at_start(run: _Run, found: Found) -> Iterator[Finding]:
    loss, expected = run.start["loss"], run.start["expected_loss"]
    least, times = START_EXCESS if "target_top_class" in run.start else SQUARED_START_EXCESS
    if loss - expected > max(least, times * expected) and "inputs_not_normalised" not in found:
        said = f"the loss starts at {loss:.3g}; a network that guesses has {expected:.3g}"
        yield Finding("loss_at_start", "output layer", 0, said, {"loss": loss, "expected": expected})


LEARNED_ALL = 0.9  # a run that keeps this share off the chance-level loss has nothing left to learn
GIANT_STEP = (1.0, 3.0, 1e3)  # length of the first step over that of the weights: too long where something is left to
# learn; too long in any case; and no longer a sign of anything, as the weights were all but zero


def _giant_step(run: _Run, found: Found) -> Iterator[Finding]:
    """A first step as long as the weights: the initialisation is lost."""
    giant = float(np.median(run.first_step))
    low, certain, high = GIANT_STEP
    if len(run.weights) > 1 and (low if run.kept < LEARNED_ALL else certain) < giant < high:
        said = f"the first step was {giant:.2g} times as long as the weights"
        yield Finding("learning_rate_too_high", "", 1, said, {"first_step": giant, "lr": run.rows[0]["lr"]})


DECOUPLED = {"torch.optim.AdamW", "torch.optim.Adafactor", "torch.optim.Muon"}
DECAY_SHARE = 0.4  # of weight decay in what moves the weights


def _decay(run: _Run, found: Found) -> Iterator[Finding]:
    """Weight decay moves the weights more than the gradient does, they shrink, and the run does not learn."""
    decay = run.config.get("optimizer.weight_decay") or 0.0
    if not decay or run.kept > 0.7 or found.keys() & {"not_finite", "vanishing_gradients", "learning_rate_too_high"}:
        return
    if any(found.get(name) == 0 for name in ("dead_units", "saturated_units")):
        return
    norms = run.table("weight_norm", run.weights)
    with np.errstate(all="ignore"):
        target = str(run.config.get("optimizer._target_"))
        decoupled = run.column("lr")[:, None] * decay / run.updates  # lr * decay of the weight per step
        penalty = decay * norms / run.table("grad_norm", run.weights)
        if target in DECOUPLED or run.config.get("optimizer.decoupled_weight_decay") is True:
            share = decoupled
        else:  # nobody knows what a class of the user's own does
            share = penalty if target.startswith("torch.optim.") else np.fmin(decoupled, penalty)
        unknown = np.isnan(share).all(axis=0)  # no gradient and no weight left, at every epoch
        share_W = np.nanmedian(np.where(unknown, math.inf, share), axis=0)
        shrunk_W = norms[-1] / [run.start[f"weight_norm/{name}"] for name in run.weights]
    slightly, far, all_but = ((shrunk_W < x) for x in (0.97, 0.8, 0.2))
    ruled = (slightly & (share_W > 5 * DECAY_SHARE)) | (far & (share_W > DECAY_SHARE)) | all_but
    if ruled.mean() > 0.5:
        worst = int(np.argmin(shrunk_W))
        pull = f"weight decay pulls {min(share_W[worst], 1e6):.2g} times as hard as the gradient"
        said = f"{run.weights[worst]} shrank to {shrunk_W[worst]:.1g} of its length; {pull}"
        evidence = {"share": share_W.tolist(), "shrunk": shrunk_W.tolist()}
        yield Finding("weight_decay_dominates", run.weights[worst], int(run.steps[0]), said, evidence)


BIG_STEP = 0.02  # length of a step over that of the weight


def _rate_high(run: _Run, found: Found) -> Iterator[Finding]:
    """From a sound start the loss is not finite, stays above chance level, or jumps; or a step kills a layer."""
    unsound = {"inputs_not_normalised", "exploding_gradients", "saturated_units", "dead_units"}
    if any(found.get(name, math.inf) <= 1 for name in unsound):
        return
    if found.keys() & {"learning_rate_too_high", "no_gradient", "weight_decay_dominates"}:
        return
    loss = np.where(np.isfinite(run.loss), run.loss, math.inf)
    base = max(run.start["loss"], run.chance_loss)
    worse = np.median(loss[len(loss) // 2 :]) > 1.2 * base
    jumps = loss.max() > 3 * base and run.kept < LEARNED / 2
    died = min((step for name, step in found.items() if name in {"dead_units", "saturated_units"}), default=0)
    e = int(loss.argmax())
    said = f"from a sound start the loss rose to {loss[e]:.3g}; guessing costs {run.chance_loss:.3g}"
    if died and run.kept < LEARNED and found.keys() <= {"dead_units", "saturated_units"}:
        e = int(np.flatnonzero(run.steps == died)[0])
        said = f"by step {died} a layer that was sound had become flat, and with it the run"
    elif not ("not_finite" in found or ((worse or jumps) and run.updates.max() > BIG_STEP)):
        said = ""
    if said:
        evidence = {"largest_loss": float(loss[e]), "largest_step": float(run.updates.max()), "lr": run.rows[e]["lr"]}
        yield Finding("learning_rate_too_high", "", found.get("not_finite", int(run.steps[e])), said, evidence)


SMALL_STEP = 5e-4  # about 1e-3 is usual
MOVED = 0.05  # a weight that went no further than this share of its length has hardly moved


def _rate_low(run: _Run, found: Found) -> Iterator[Finding]:
    """Steps are small, no weight moves by more than a small share of its length, and the run does not learn."""
    distance = float(run.distances.max())
    lowest, first = float(np.nan_to_num(run.loss, nan=math.inf).min()), run.start["loss"]
    learned = min(run.learned, 1 - lowest / first if first else 0.0)
    slow = (distance < MOVED and learned < LEARNED) or (distance < 4 * MOVED and learned < 0.4 * LEARNED)
    longest = max(run.updates.max(), np.nan_to_num(run.first_step, posinf=0.0).max())  # a schedule may end at nothing
    if slow and not found and longest < SMALL_STEP:
        rate = float(run.column("lr").max())
        said = f"in {run.steps[-1]} steps no weight moved by more than {distance:.1g} of its length"
        if rate == 0:
            said = "the learning rate is 0"
        yield Finding("learning_rate_too_low", "", 1, said, {"way": distance, "lr": rate, "learned": learned})


# ------------------------------------------------------------------ symptoms, where no cause was found


STILL = 0.05  # below this share of the chance-level loss a run has learned nothing
BY_HEART = (0.02, 0.45, 0.1)  # validation gains at most this where labels are learned by heart: luck; or this share of
# what training has learned; but no more than the last


def _labels_unrelated(run: _Run, found: Found) -> Iterator[Finding]:
    """Training labels are learned by heart, at least in part, and next to nothing of it generalises."""
    val = run.column("val/loss")
    if found or not run.tried or run.learned < STILL or not np.isfinite(val).any():
        return
    lowest = float(np.nanmin(val))
    luck, share, most = BY_HEART
    if 1 - lowest / run.chance_loss < min(max(luck, share * run.learned), most):
        said = (
            f"the training loss fell to {np.nanmin(run.loss):.3g}, yet the validation loss never below {lowest:.3g}; "
            f"guessing costs {run.chance_loss:.3g}"
        )
        yield Finding("labels_unrelated", "labels", 0, said, {"lowest_val_loss": lowest, "guessing": run.chance_loss})


SWING = 2.0  # a climb of the training loss by this factor
SWING_LEVEL = 0.2  # to at least this share of the chance-level loss: near its floor a loss may flicker
SWINGS = 3


def _oscillation(run: _Run, found: Found) -> Iterator[Finding]:
    """The training loss doubles again and again, to a good part of the chance-level loss."""
    if found.keys() - {"learning_rate_too_high"} or run.kept > LEARNED_ALL:
        return
    if run.batchnorm and run.learned > LEARNED:  # running statistics lag behind, so the loss in evaluation mode jumps
        return
    climbs, trough, peak, rising = [], math.inf, -math.inf, False
    for step, loss in zip(run.steps.tolist(), (run.loss + 1e-9 * run.chance_loss).tolist(), strict=True):
        if rising and loss < peak / SWING:
            climbs[-1] = (climbs[-1][0], peak / trough)
            trough, rising = loss, False
        elif not rising and loss > trough * SWING and loss > SWING_LEVEL * run.chance_loss:
            climbs.append((step, loss / trough))
            peak, rising = loss, True
        trough, peak = (trough, max(peak, loss)) if rising else (min(trough, loss), peak)
    if len(climbs) >= SWINGS:
        largest = max(climb for _, climb in climbs)
        said = (
            f"the training loss doubled {len(climbs)} times and fell again, once it grew by a factor of {largest:.2g}"
        )
        yield Finding("oscillation", "", climbs[0][0], said, {"climbs": len(climbs), "largest": largest})


ONE_CLASS = 0.95  # of the predictions


def _one_class(run: _Run, found: Found) -> Iterator[Finding]:
    top = run.column("eval/top_class")
    if not found and run.tried and top[-1] >= ONE_CLASS and run.start["target_top_class"] < 0.8:
        since = int(np.flatnonzero(np.append(0, top) < ONE_CLASS)[-1])  # epochs
        said = f"{top[-1]:.0%} of the predictions are one class"
        yield Finding("one_class", "predictions", int(run.steps[since]), said, {"share": float(top[-1])})


def _still(run: _Run, found: Found) -> Iterator[Finding]:
    if run.tried and run.learned < STILL and not found.keys() - {"one_class"}:
        lowest = float(np.nanmin(run.loss)) if np.isfinite(run.loss).any() else math.nan
        said = f"in {run.steps[-1]} steps the training loss fell to {lowest:.3g}; guessing costs {run.chance_loss:.3g}"
        yield Finding("loss_does_not_move", "", int(run.steps[-1]), said, {"learned": run.learned})


_ROOTS = {"inputs_not_normalised", "vanishing_gradients", "exploding_gradients", "weight_decay_dominates"}
_CAUSES: list[Rule] = [
    _not_finite,
    _labels,
    _inputs,
    _flat("dead_units", "dead", DEAD),
    _flat("saturated_units", "saturated", SATURATED),
    _depth,
    _no_gradient,
    _loss_at_start,
    _giant_step,
    _decay,
    _rate_high,
    _rate_low,
]
_SYMPTOMS: list[Rule] = [_labels_unrelated, _oscillation, _one_class, _still]


# ------------------------------------------------------------------ words


ALL_WELL = "gradients, activations and updates: all is well"


def name(finding: Mapping[str, Any]) -> str:
    """Return what a finding is called: vanishing gradients."""
    return str(finding.get("finding", "finding")).replace("_", " ")


def line(finding: Mapping[str, Any]) -> str:
    """Return a finding of summary.json in words: what, where, since when, why it matters, what to try."""
    where = f"{finding['where']}, " if finding["where"] else ""
    since = f"step {finding['step']}" if finding["step"] else "the start"
    said, why = finding["sentence"], finding["why"]
    return f"{name(finding)} ({where}from {since}): {said}; {why}. Try {finding['try']}."


def markdown(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return all findings for TensorBoard's text page."""
    if not findings:
        return ALL_WELL
    return "\n".join(f"- **{name(finding)}**{line(finding).removeprefix(name(finding))}" for finding in findings)
