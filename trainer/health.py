"""What is wrong with this training? Findings from what a run recorded. Pure; no torch.

Thresholds are relative: to what an untrained network should give (Glorot and Bengio 2010, He et al. 2015), to the
weights, to the loss of guessing, to the run's own noise. Where a sign is ambiguous, what became of the run decides: a
network that learned is not called ill for looking unusual. docs/health.md has the rules and how often they are right.

Shapes: E epoch, L hidden layer, W weight matrix, S step, M measured quantity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

Floats = np.ndarray

# A fresh network passes signals on about unchanged: of hidden layer over hidden layer, forward and backward.
VANISHED = 1e-5  # gradient at the bottom over that at the top: too small, whatever became of the run
WEAK = 1e-2  # too small where the run did not learn
EXPLODED = 1e2  # too large
NORM_GAIN = 1.25  # batch norm makes gradients grow by up to about 1.21 a layer downward (Yang et al. 2019)
LEARNED = 0.5  # share of the loss of guessing that a run has taken off, from which on ambiguous signs do not count
STILL = 0.02  # below this share it has learned nothing
INPUT_RMS = (0.05, 4.0)  # of what should be about 1
INPUT_OFFSET = 3.0  # mean over standard deviation
FEATURE_RATIO = 30.0  # largest standard deviation of a feature over the median one
START_LOSS = 3.0  # times what guessing costs
MOVED = 0.05  # length of a weight's whole way over its own length
GIANT_STEP = 1.0  # length of the first step over that of the weights
DECAY_SHARE = 0.4  # of weight decay in what moves the weights
ONE_CLASS = 0.95
SWING = 1.5  # a climb of the training loss, and
SWING_LEVEL = 0.1  # the level that it must reach, of the loss of guessing; near its floor a loss may flicker
SWINGS = 3


@dataclass(frozen=True)
class Finding:
    """Something wrong: what, where, since which step (0: before the first), in a sentence, the numbers."""

    finding: str
    where: str
    step: int
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As summary.json and evaluation.json hold it."""
        why, advice = ADVICE[self.finding]
        return {**vars(self), "why": why, "try": advice}


ADVICE: dict[str, tuple[str, str]] = {  # finding -> why it matters, what usually helps
    "not_finite": (
        "once a weight is NaN or infinite, every later step is",
        "a smaller optimizer.lr, clip_norm=1, schedule.warmup=1",
    ),
    "vanishing_gradients": (
        "the lower layers get hardly any gradient, so they stay as they were drawn",
        "model.batchnorm=true, model.activation=relu with model.init=he_normal, or fewer layers",
    ),
    "exploding_gradients": (
        "one step that suits the upper layers destroys the lower ones",
        "model.init_scale=1, model.init=he_normal (relu) or glorot_uniform (tanh), model.batchnorm=true, clip_norm=1",
    ),
    "dead_units": (
        "a unit that is flat on every example gets no gradient and never recovers",
        "a smaller optimizer.lr, model.bias_init=0, model.init=he_normal, or model.activation=gelu",
    ),
    "saturated_units": (
        "in the flat part of its activation a unit passes hardly any gradient on",
        "model.init=glorot_uniform with model.init_scale=1, normalised inputs, a smaller optimizer.lr, or "
        "model.activation=relu",
    ),
    "no_gradient": (
        "it stays as it was initialised: the loss does not depend on it",
        "check that forward uses it and does not detach what it computes",
    ),
    "loss_at_start": (
        "a fresh network should guess; the first steps only repair its output layer",
        "model.init_scale=1, model.bias_init=0, another model.init, or targets of a usual scale",
    ),
    "inputs_not_normalised": (
        "initialisations and learning rates are made for inputs of about mean 0 and standard deviation 1",
        "data.normalisation=standard",
    ),
    "learning_rate_too_high": (
        "steps jump over what they should descend into",
        "optimizer.lr a tenth of it, schedule.warmup=1, or clip_norm=1",
    ),
    "learning_rate_too_low": (
        "the weights end about where they were drawn",
        "ten times the optimizer.lr, no tiny clip_norm, or more epochs",
    ),
    "weight_decay_dominates": (
        "the weights are pulled to zero faster than the loss can hold them",
        "a hundredth of the optimizer.weight_decay",
    ),
    "oscillation": (
        "steps go back and forth across a valley instead of along it",
        "a third of the optimizer.lr, less optimizer.momentum, or schedule=cosine",
    ),
    "one_class": (
        "such a network ignores its inputs",
        "look at the labels and at how often each class occurs; a smaller optimizer.lr",
    ),
    "labels_unrelated": (
        "what it learns by heart says nothing about other examples",
        "check that inputs and labels belong together: order, shuffling, data.label_noise",
    ),
    "loss_does_not_move": (
        "nothing is learned",
        "check labels and loss; overfit one batch first: check.one_batch=true",
    ),
    "one_batch": (
        "a network that cannot fit one batch cannot fit the data: the fault is in the model, loss or optimizer",
        "another optimizer.lr; look for a wrong loss, a detached or saturated layer, an output that is squashed",
    ),
    "wrong_gradient": (
        "backward does not compute the derivative of forward, so steps do not go downhill",
        "check custom autograd functions, in-place changes and .detach() in this part of the module",
    ),
}


class NotFinite(NamedTuple):
    """The first recorded step that holds a value which is not finite, and the tensor where it shows."""

    step: int
    tensor: str


def first_not_finite(steps: Floats, tags: Sequence[str], values: Floats) -> NotFinite | None:
    """The first of the steps (S,) whose measured values (S, M) are not all finite: the loss, else the topmost gradient.

    That is the order in which a step computes them.
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
    """What is wrong with a run, worst first; nothing where all is well.

    rows: an epoch each, as in metrics.csv. start: what was seen before the first step and in it, as in summary.json.
    config: dotted keys. not_finite: where a recorded step first held NaN or infinity.
    """
    if not rows or not start:
        return []
    run = _Run(rows, start, config, not_finite)
    found: list[Finding] = []
    for rule in _CAUSES:
        found += rule(run, {finding.finding for finding in found})
    if not found:
        for rule in _SYMPTOMS:
            found += rule(run, {finding.finding for finding in found})
    return found


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
        """(E,); NaN where it was not recorded."""
        return np.array([row.get(tag, math.nan) for row in self.rows], dtype=float)

    def table(self, kind: str, names: Sequence[str]) -> Floats:
        """(E, len(names)) of `kind/name`."""
        return np.array([[row.get(f"{kind}/{name}", math.nan) for name in names] for row in self.rows], dtype=float)

    def layers(self, kind: str) -> list[str]:
        """The activation modules that have this statistic, input side first."""
        return [tag.removeprefix(f"{kind}/") for tag in self.start if tag.startswith(f"{kind}/")]

    @property
    def batchnorm(self) -> bool:
        return any("norm" in name for name in self.parameters)

    @property
    def guessing(self) -> float:
        """The loss of the best prediction that does not look at the input."""
        return self.start["guessing_loss"]

    @cached_property
    def learned(self) -> float:
        """The share of the loss of guessing that the best epoch has taken off; 0 at least."""
        best = np.nanmin(self.loss) if np.isfinite(self.loss).any() else math.inf
        return max(0.0, 1 - best / self.guessing) if self.guessing > 0 else 0.0

    @cached_property
    def updates(self) -> Floats:
        """(E, W): length of the epoch's last step over that of the weight; 0 for a weight that is zero."""
        return np.nan_to_num(self.table("update_ratio", self.weights), nan=0.0, posinf=0.0)

    @cached_property
    def ways(self) -> Floats:
        """(W,): the length of each weight's whole way over its own length, were all its steps straight on."""
        return self.updates.T @ np.diff(self.steps, prepend=0)

    @cached_property
    def backward_L(self) -> tuple[list[str], Floats]:
        """The gradient that reaches each hidden layer in the first step, root mean square a unit, input side first.

        It is that of the layer's bias (of its batch norm, where that has taken the bias's place), over the root of
        the number of units.
        """
        widths = self.config.get("model.width")
        depth = self.config.get("model.depth")
        if isinstance(depth, int) and widths is not None:
            sizes = widths if isinstance(widths, list) else [widths] * depth
            names = [
                next(n for n in (f"layers.{i}.bias", f"layers.norm{i}.bias") if n in self.parameters)
                for i in range(depth)
            ]
        else:
            names = [name for name in self.parameters if name.endswith("bias")][:-1]
            sizes = [1] * len(names)
        norms = np.array([self.start[f"grad_norm/{name}"] for name in names])
        return names, norms / np.sqrt(sizes)


# ------------------------------------------------------------------ causes, each (run, names found so far) -> findings

Rule = Callable[[_Run, set[str]], Iterator[Finding]]


def _not_finite(run: _Run, found: set[str]) -> Iterator[Finding]:
    bad = run.not_finite
    if bad is None:
        norms = run.table("weight_norm", run.parameters)
        broken = ~np.isfinite(norms)
        if not broken.any():
            return
        e = int(broken.any(1).argmax())
        bad = NotFinite(int(run.steps[e]), run.parameters[int(broken[e].argmax())])
    before = float(run.start.get("loss", math.nan))
    yield Finding(
        "not_finite",
        bad.tensor,
        bad.step,
        f"{bad.tensor} is NaN or infinite from step {bad.step} on",
        {"loss_at_start": before},
    )


def _inputs(run: _Run, found: set[str]) -> Iterator[Finding]:
    rms, mean, ratio = (run.start.get(f"input_{name}", math.nan) for name in ("rms", "mean", "feature_ratio"))
    spread = math.sqrt(max(rms**2 - mean**2, 0.0))
    low, high = INPUT_RMS
    if rms > high or rms < low:
        said = f"the inputs' root mean square is {rms:.3g}, not about 1"
    elif abs(mean) > INPUT_OFFSET * spread and abs(mean) > 2:
        said = f"the inputs lie at {mean:.3g} with a standard deviation of only {spread:.3g}"
    elif ratio > FEATURE_RATIO:
        said = f"one input feature varies {ratio:.3g} times as much as the median one"
    else:
        return
    yield Finding("inputs_not_normalised", "inputs", 0, said, {"rms": rms, "mean": mean, "feature_ratio": ratio})


def _flat_share(run: _Run, kind: str, layer: str) -> Floats:
    """(E + 1,): share of a layer's flat units before training and after each epoch.

    Before training batch norm has no running statistics, and evaluation mode shows something that is never trained.
    """
    share = np.concatenate([[run.start[f"{kind}/{layer}"]], run.table(kind, [layer])[:, 0]])
    if run.batchnorm:
        share[0] = 0.0
    return share


def _flat(kind: str) -> Rule:
    def rule(run: _Run, found: set[str]) -> Iterator[Finding]:
        layers = run.layers(kind)
        ill = []
        for i, layer in enumerate(layers):
            share = _flat_share(run, kind, layer)
            over = share >= _flat_limit(run, kind, i)
            if over[0] or over[-1]:
                ill.append((layer, share, over))
        if not ill:
            return
        layer, share, over = max(ill, key=lambda one: one[1].max())
        e = int(over.argmax())
        word = "dead" if kind == "dead_units" else "saturated"
        names = ", ".join(name for name, _, _ in ill)
        step = 0 if e == 0 else int(run.steps[e - 1])
        yield Finding(
            kind,
            names,
            step,
            f"{share.max():.0%} of the units of {layer} are {word}",
            {"share": {name: float(s[-1]) for name, s, _ in ill}, "share_at_start": float(share[0])},
        )

    return rule


def _flat_limit(run: _Run, kind: str, i: int) -> float:
    """The share of flat units that is too much: what a layer can do without, and two standard errors of a share."""
    widths = run.config.get("model.width")
    width = widths[i] if isinstance(widths, list) else widths if isinstance(widths, int) else 64
    return min(0.98, (0.7 if kind == "dead_units" else 0.5) + 1 / math.sqrt(width))


def _no_gradient(run: _Run, found: set[str]) -> Iterator[Finding]:
    if "dead_units" in found or "not_finite" in found:
        return
    norms = np.vstack([[run.start[f"grad_norm/{p}"] for p in run.parameters], run.table("grad_norm", run.parameters)])
    none = (norms == 0).all(0)
    if none.any() and not none.all():
        names = [p for p, is_none in zip(run.parameters, none, strict=True) if is_none]
        yield Finding(
            "no_gradient",
            ", ".join(names),
            1,
            f"{len(names)} parameter{'s have' if len(names) > 1 else ' has'} no gradient at all",
        )


def _depth(run: _Run, found: set[str]) -> Iterator[Finding]:
    names, flow = run.backward_L
    if len(flow) < 2 or not np.isfinite(flow).all() or flow.min() <= 0 or found & {"dead_units", "no_gradient"}:
        return
    ratio = flow[0] / flow[-1]
    gain = ratio ** (1 / (len(flow) - 1))
    lowest = names[0].removesuffix(".bias")
    evidence = {"bottom_over_top": float(ratio), "factor_a_layer": float(gain), "by_layer": flow.tolist()}
    where = f"{lowest} to {names[-1].removesuffix('.bias')}"
    if ratio < VANISHED or (ratio < WEAK and run.learned < LEARNED):
        said = f"the gradient shrinks by {gain:.2g} a layer on its way down: {ratio:.1e} of it reaches {lowest}"
        yield Finding("vanishing_gradients", where, 1, said, evidence)
    limit = EXPLODED * (NORM_GAIN ** len(flow) if run.batchnorm else 1)
    if ratio > limit:
        said = f"the gradient grows by {gain:.2g} a layer on its way down: {ratio:.1e} times as large in {lowest}"
        yield Finding("exploding_gradients", where, 1, said, evidence)


def _loss_at_start(run: _Run, found: set[str]) -> Iterator[Finding]:
    loss, expected = run.start["loss"], run.start["expected_loss"]
    limit = START_LOSS if "eval/top_class" in run.start else 10.0
    if loss > limit * expected and "inputs_not_normalised" not in found:
        yield Finding(
            "loss_at_start",
            "output layer",
            0,
            f"the loss starts at {loss:.3g}; a network that guesses has {expected:.3g}",
            {"loss": loss, "expected": expected},
        )


def _decay(run: _Run, found: set[str]) -> Iterator[Finding]:
    """Weight decay moves the weights more than the gradient does, they shrink, and the run does not learn."""
    decay = run.config.get("optimizer.weight_decay") or 0.0
    if not decay or run.learned > 0.6 or found & {"not_finite", "dead_units", "learning_rate_too_high"}:
        return
    norms = run.table("weight_norm", run.weights)
    first = np.array([run.start.get(f"weight_norm/{w}", math.nan) for w in run.weights])
    decoupled = "AdamW" in str(run.config.get("optimizer._target_"))
    with np.errstate(all="ignore"):
        if decoupled:
            share = run.column("lr")[:, None] * decay / run.updates
        else:
            share = decay * norms / run.table("grad_norm", run.weights)
        shrunk = norms[-1] / first
    share = np.nan_to_num(np.nanmedian(share, axis=0), nan=np.inf, posinf=np.inf)
    ruled = (share > DECAY_SHARE) & (shrunk < 0.8)
    if ruled.mean() > 0.5:
        worst = int(np.argmin(shrunk))
        yield Finding(
            "weight_decay_dominates",
            run.weights[worst],
            int(run.steps[0]),
            f"{run.weights[worst]} shrank to {shrunk[worst]:.1g} of its length, weight decay being "
            f"{min(share[worst], 1e6):.2g} times the gradient's pull",
            {"share": share.tolist(), "shrunk": shrunk.tolist()},
        )


def _rate_high(run: _Run, found: set[str]) -> Iterator[Finding]:
    """Steps as long as the weights; or a loss worse than guessing, or spikes, from a sound start."""
    first = np.array([run.start.get(f"update_ratio/{w}", math.nan) for w in run.weights])
    giant = float(np.nanmedian(first)) if np.isfinite(first).any() else 0.0
    loss = np.where(np.isfinite(run.loss), run.loss, math.inf)
    base = max(run.start["loss"], run.guessing)
    worse = np.median(loss[len(loss) // 2 :]) > 1.2 * base
    spike = loss.max() > 3 * base
    said = None
    if giant > GIANT_STEP:
        said = f"the first step was {giant:.2g} times as long as the weights"
    elif found & {"inputs_not_normalised", "exploding_gradients", "saturated_units", "no_gradient"}:
        return
    elif "not_finite" in found:
        said = "the loss left all bounds from a sound start"
    elif (worse or spike) and run.updates.max() > 0.02:
        said = f"the loss rose to {loss.max():.3g}; guessing costs {run.guessing:.3g}"
    if said:
        e = 0 if giant > GIANT_STEP else int(loss.argmax())
        yield Finding(
            "learning_rate_too_high",
            "",
            1 if giant > GIANT_STEP else int(run.steps[e]),
            said,
            {"first_step": giant, "largest_loss": float(loss.max()), "lr": float(run.column("lr")[e])},
        )


def _rate_low(run: _Run, found: set[str]) -> Iterator[Finding]:
    """No weight moves by more than a small share of its length, and the run does not learn."""
    way = float(run.ways.max())
    if found or way >= MOVED or run.learned > LEARNED:
        return
    rate = float(run.column("lr").max())
    said = (
        "the learning rate is 0"
        if rate == 0
        else f"in {run.steps[-1]} steps no weight moved by more than {way:.1g} of its length"
    )
    yield Finding("learning_rate_too_low", "", 1, said, {"way": way, "lr": rate, "learned": run.learned})


def _labels(run: _Run, found: set[str]) -> Iterator[Finding]:
    """One class fills the labels; or training labels are learned by heart and validation never beats guessing."""
    top = run.start.get("target_top_class")
    if top is None:
        return
    if top > 0.9:
        yield Finding("one_class", "labels", 0, f"{top:.0%} of the training labels are one class", {"share": top})
        return
    val = run.column("val/loss")
    fitted = np.nanmax(run.column("eval/train_accuracy")) - top
    right = np.nanmax(run.column("val/accuracy")) if np.isfinite(run.column("val/accuracy")).any() else 1.0
    if fitted > 0.15 and np.nanmin(val) > run.guessing - 0.02 * run.guessing and right < top + 0.12:
        yield Finding(
            "labels_unrelated",
            "labels",
            0,
            f"training accuracy reaches {fitted + top:.0%}, yet validation never beats guessing",
            {"val_loss": float(np.nanmin(val)), "guessing": run.guessing},
        )


# ------------------------------------------------------------------ symptoms, where no cause was found


def _oscillation(run: _Run, found: set[str]) -> Iterator[Finding]:
    """The training loss climbs again and again by half and more, to where it is a good part of that of guessing."""
    climbs, trough, peak, rising = [], math.inf, -math.inf, False
    for e, loss in enumerate(run.loss):
        if rising and loss < peak / SWING:
            climbs[-1] = (climbs[-1][0], peak / trough)
            trough, rising = loss, False
        elif not rising and loss > trough * SWING and loss > SWING_LEVEL * run.guessing:
            climbs.append((e, loss / trough))
            peak, rising = loss, True
        trough, peak = (trough, max(peak, loss)) if rising else (min(trough, loss), peak)
    if len(climbs) >= SWINGS:
        largest = max(climb for _, climb in climbs)
        yield Finding(
            "oscillation",
            "",
            int(run.steps[climbs[0][0]]),
            f"the training loss climbed {len(climbs)} times by half and more, once by a factor of {largest:.2g}",
            {"climbs": len(climbs), "largest": float(largest)},
        )


def _one_class(run: _Run, found: set[str]) -> Iterator[Finding]:
    top = run.column("eval/top_class")
    if len(top) and top[-1] >= ONE_CLASS and run.start["target_top_class"] < 0.8:
        e = int(np.argmin(top[::-1] >= ONE_CLASS)) if (top < ONE_CLASS).any() else len(top)
        yield Finding(
            "one_class",
            "predictions",
            int(run.steps[len(top) - e]) if e else int(run.steps[-1]),
            f"{top[-1]:.0%} of the predictions are one class",
            {"share": float(top[-1])},
        )


def _still(run: _Run, found: set[str]) -> Iterator[Finding]:
    if run.learned < STILL:
        yield Finding(
            "loss_does_not_move",
            "",
            int(run.steps[-1]),
            f"after {run.steps[-1]} steps the training loss is {np.nanmin(run.loss):.3g}, "
            f"that of guessing {run.guessing:.3g}",
            {"learned": run.learned},
        )


_CAUSES: list[Rule] = [
    _not_finite,
    _inputs,
    _flat("dead_units"),
    _flat("saturated_units"),
    _no_gradient,
    _depth,
    _loss_at_start,
    _rate_high,
    _decay,
    _labels,
    _rate_low,
]
_SYMPTOMS: list[Rule] = [_oscillation, _one_class, _still]


# ------------------------------------------------------------------ words


def name(finding: Mapping[str, Any]) -> str:
    """What it is called: vanishing gradients."""
    return str(finding.get("finding", "finding")).replace("_", " ")


def line(finding: Mapping[str, Any]) -> str:
    """A finding of summary.json in plain words: what, where, since when, why it matters, what to try."""
    where = f"{finding['where']}, " if finding["where"] else ""
    since = f"step {finding['step']}" if finding["step"] else "the start"
    said, why = finding["sentence"], finding["why"]
    return f"{name(finding)} ({where}from {since}): {said}; {why}. Try {finding['try']}."


def markdown(findings: Sequence[Mapping[str, Any]]) -> str:
    """All findings for TensorBoard's text page."""
    if not findings:
        return ALL_WELL
    return "\n".join(f"- **{name(finding)}**{line(finding).removeprefix(name(finding))}" for finding in findings)


ALL_WELL = "gradients, activations and updates: all is well"
