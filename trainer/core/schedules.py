"""The learning rate over time, as a pure function of the step."""

from __future__ import annotations

import bisect
import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainer.config import ConfigError, CustomSchedule, NamedSchedule, Schedule
from trainer.core import global_streams
from trainer.core.own_calls import check_arguments, find_target, in_words


@dataclass(frozen=True)
class LrSchedule:
    """The learning-rate factor of every step t, from 0. Equal ones give equal factors."""

    schedule: Schedule
    warmup_steps: int
    steps: tuple[int, ...]  # what it counts in epochs, as steps: step_size, milestones, a period, or one epoch
    total_steps: int  # 0 where the budget does not matter
    table: tuple[float, ...] = ()  # of a function of the user's own: the factors after the warm-up

    def __call__(self, t: int) -> float:
        if t < self.warmup_steps:
            return (t + 1) / self.warmup_steps
        if isinstance(self.schedule, CustomSchedule):
            return self.table[min(t - self.warmup_steps, len(self.table) - 1)]
        factor = FACTORS.get(self.schedule.name)
        return 1.0 if factor is None else factor(self, self.schedule, t)

    @functools.cached_property
    def is_constant(self) -> bool:
        """Whether the factor is 1, and the momentum as configured, at every step."""
        return not (self.warmup_steps or isinstance(self.schedule, CustomSchedule) or self.schedule.name in FACTORS)

    def momentum(self, t: int) -> float | None:
        """The momentum (the first of the betas) of step t; None where it stays as configured."""
        named = self.schedule
        if not isinstance(named, NamedSchedule) or not named.cycle_momentum:
            return None
        low, high = _set(named.base_momentum), _set(named.max_momentum)
        return self.cycle(named, t, [high, low, high, high])

    def cycle(self, named: NamedSchedule, t: int, values: Sequence[float]) -> float:
        """Where step t of a one-cycle schedule is between the values at the ends of its two or three phases."""
        rise, last = _set(named.pct_start) * self.total_steps - 1, self.total_steps - 1
        ends = [rise, 2 * rise, last] if named.three_phase else [rise, last]
        phase = next((i for i, end in enumerate(ends) if t <= end), len(ends) - 1)
        start = ends[phase - 1] if phase else 0.0
        share = (t - start) / (ends[phase] - start) if ends[phase] != start else 1.0
        a, b = values[phase : phase + 2]
        if named.anneal == "linear":
            return a + (b - a) * share
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    def progress(self, t: int) -> float:
        """The share of the budget, without the warm-up, that is done before step t."""
        return (t - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)


def _half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def _restarts(schedule: LrSchedule, named: NamedSchedule, t: int) -> float:
    assert named.period_factor is not None
    (period,), t = schedule.steps, t - schedule.warmup_steps
    if named.period_factor == 1:
        t %= period
    while t >= period:
        t, period = t - period, period * named.period_factor
    return _half_cosine(t / period)


def _one_cycle(schedule: LrSchedule, named: NamedSchedule, t: int) -> float:
    first = 1 / _set(named.div_factor)
    last = first / _set(named.final_div_factor)
    return schedule.cycle(named, t, [first, 1.0, first, last] if named.three_phase else [first, 1.0, last])


FACTORS: dict[str, Callable[[LrSchedule, NamedSchedule, int], float]] = {  # after the warm-up; others are constant
    "step": lambda s, c, t: _set(c.gamma) ** (t // s.steps[0]),
    "multistep": lambda s, c, t: _set(c.gamma) ** bisect.bisect_right(s.steps, t),
    "exponential": lambda s, c, t: _set(c.gamma) ** ((t - s.warmup_steps) / s.steps[0]),
    "linear": lambda s, c, t: 1 + (_set(c.end_factor) - 1) * s.progress(t),
    "polynomial": lambda s, c, t: (1 - s.progress(t)) ** _set(c.power),
    "cosine": lambda s, c, t: _half_cosine(s.progress(t)),
    "cosine_restarts": _restarts,
    "one_cycle": _one_cycle,
    "inverse_sqrt": lambda s, c, t: math.sqrt(max(1, s.warmup_steps) / (t + 1)),
}


def lr_schedule(schedule: Schedule, steps_per_epoch: int, total_steps: int) -> LrSchedule:
    """The learning-rate factor of every step, from 0 to T - 1 = total_steps - 1, with a warm-up of W steps.

    warm-up: (t + 1) / W. What follows, with p = (t - W) / (T - W), gives the values of torch.optim.lr_scheduler:
    step: gamma^floor(t / step_size) and multistep: gamma^(milestones up to t), counted from the start of training;
    exponential: gamma^((t - W) / epoch); linear: 1 + (end_factor - 1) p; polynomial: (1 - p)^power;
    cosine: (1 + cos(pi p)) / 2 (Loshchilov and Hutter 2017, eq. 5); cosine_restarts: the same over each period, the
    next one period_factor times as long; one_cycle: up and down again over T (Smith and Topin 2017);
    inverse_sqrt: sqrt(W / (t + 1)) (Vaswani et al. 2017, eq. 3, 1 at its peak); plateau: 1, times what the validation
    loss makes of it (`MemberOptimizers`); custom: f(p). Epochs become whole steps, at least one.

    Raises ConfigError where a function of the user's own fails.
    """
    warmup = round(schedule.warmup * steps_per_epoch)
    total = total_steps if schedule.spans_budget else 0
    if isinstance(schedule, CustomSchedule):
        arguments = json.dumps(schedule.arguments)
        return LrSchedule(schedule, warmup, (), total, _table(schedule._target_, arguments, max(1, total - warmup)))
    epochs = {
        "step": [schedule.step_size],
        "multistep": sorted(schedule.milestones or []),
        "exponential": [1.0],
        "cosine_restarts": [schedule.period],
    }.get(schedule.name, [])
    steps = tuple(max(1, round(_set(number) * steps_per_epoch)) for number in epochs)
    return LrSchedule(schedule, warmup, steps, total)


@functools.lru_cache(maxsize=64)
def _table(path: str, arguments: str, steps: int) -> tuple[float, ...]:
    """The factors that the user's own function gives for every step: known, and the same ones, before anything trains.

    arguments: as JSON. Raises ConfigError.
    """
    key = "schedule._target_"
    keywords = json.loads(arguments)
    with global_streams.kept(torch.device("cpu")):
        function = find_target(key, path)
        check_arguments("schedule", function, keywords)
        out: list[float] = []
        for again in (False, True):
            for t in range(steps):
                progress = t / steps
                with in_words(f"{key}: {path}({progress:g}) fails"):
                    value = function(progress, **keywords)
                    factor = math.nan if value is None or isinstance(value, bool | str) else float(value)
                if not (math.isfinite(factor) and factor >= 0):
                    raise ConfigError([f"{key}: {path}({progress:g}) is {value!r}, expected a number >= 0"])
                if not again:
                    out.append(factor)
                elif factor != out[t]:
                    raise ConfigError(
                        [f"{key}: {path}({progress:g}) is {out[t]:g}, then {factor:g}; expected the same"]
                    )
    return tuple(out)


def _set(value: float | None) -> float:
    """A key that the configuration has checked to be there."""
    assert value is not None
    return value
