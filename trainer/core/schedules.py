"""The learning rate over time, as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.config import Schedule


@dataclass(frozen=True)
class LrSchedule:
    """The learning-rate factor of every step t, from 0. Equal ones give equal factors."""

    schedule: Schedule
    warmup_steps: int
    drop_steps: int  # between two drops; 1 where there are none
    total_steps: int  # of the cosine; 0 where the budget does not matter

    def __call__(self, t: int) -> float:
        if t < self.warmup_steps:
            return (t + 1) / self.warmup_steps
        if self.schedule.name == "cosine":
            rest = max(1, self.total_steps - self.warmup_steps)
            return (1 + math.cos(math.pi * (t - self.warmup_steps) / rest)) / 2
        if self.schedule.name == "step":
            assert self.schedule.gamma is not None
            return self.schedule.gamma ** (t // self.drop_steps)
        return 1.0


def lr_schedule(schedule: Schedule, steps_per_epoch: int, total_steps: int) -> LrSchedule:
    """The learning-rate factor of every step, from 0 to total_steps - 1.

    warm-up: (t + 1) / W for the first W steps. cosine: (1 + cos(pi (t - W) / (T - W))) / 2 (Loshchilov and Hutter
    2017, eq. 5, without restarts). step: gamma^floor(t / step_size), counted from the start of training; a step_size
    is at least one optimizer step.
    """
    return LrSchedule(
        schedule,
        warmup_steps=round(schedule.warmup * steps_per_epoch),
        drop_steps=max(1, round(schedule.step_size * steps_per_epoch)) if schedule.step_size is not None else 1,
        total_steps=total_steps if schedule.name == "cosine" else 0,
    )
