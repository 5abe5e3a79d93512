"""Which runs train together: jobs whose shapes agree form stacks, cut by cost so that all cores have work.

A member of a native step costs and computes the same in any company, so a stack of those may be as small as it takes
to keep every core busy. One of torch's steps has a cost of its own, which enough members must share. A plan is kept in
.resume/plan.json, since there a member's bits depend on its company.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from trainer.config import Cnn, Config, CustomModel
from trainer.core.native import choice
from trainer.engine import cost, runtime
from trainer.engine.jobs import Job, StackJob

MIN_MEMBERS = 8  # at most asked for: of the default network, two stacks of these beat one of 16 on one core
STACK_PRODUCTS = 7e6  # a step of torch's costs as much as these beyond its members; 8 of the default network have them
MAX_STACKS_PER_WORKER = 3  # of one size, trained one after the other
EVEN_ENOUGH = 1.2  # load of the busiest worker, relative to the mean


def plan_side_by_side(jobs: Sequence[Job], max_members: int, workers: int | None = None) -> tuple[list[list[Job]], int]:
    """Return the stacks of all jobs that have a configuration, and how many of them train at once.

    workers: that train them; None: as many as this machine has.
    """
    ready = [job for job in jobs if job.config is not None]
    workers = workers or runtime.workers([job.config for job in ready if job.config is not None])
    stacks = plan(ready, max_members, workers)
    return stacks, max(1, min(workers, len(stacks)))


def plan(jobs: Sequence[Job], max_members: int, workers: int = 1) -> list[list[Job]]:
    """Return the stacks, costliest first: jobs with equal `stack_key`, at most max_members each.

    They are cut further, while that pays, until `workers` can share them out evenly. Inside a stack members with equal
    optimizer and schedule stand together: each such span is one param group.
    """
    alike: dict[object, list[Job]] = {}
    for job in jobs:
        assert job.config is not None
        alike.setdefault(stack_key(job.config) or job.number, []).append(job)
    for members in alike.values():
        members.sort(key=lambda job: f"{job.config.optimizer} {job.config.schedule}" if job.config else "")
    share = _cost(jobs) / workers
    even = EVEN_ENOUGH * share
    best, longest = list[list[Job]](), math.inf
    for wanted in (even, share, *(even / n for n in range(2, MAX_STACKS_PER_WORKER + 1))):
        if longest <= even and wanted < share:  # smaller stacks for nothing
            break
        stacks = [stack for members in alike.values() for stack in _cut(members, wanted, max_members)]
        stacks.sort(key=_cost, reverse=True)
        if (now := _longest(stacks, workers)) < longest:
            best, longest = stacks, now
    return best


def share_out(stacks: Sequence[tuple[int, StackJob]], jobs: int) -> list[list[tuple[int, StackJob]]]:
    """Share numbered stacks out among at most so many jobs that train theirs one after the other, by cost."""
    loads = [0.0] * jobs
    groups: list[list[tuple[int, StackJob]]] = [[] for _ in range(jobs)]
    for number, item in sorted(stacks, key=lambda one: -_cost(one[1].waiting)):
        idle = loads.index(min(loads))
        loads[idle] += _cost(item.waiting)
        groups[idle].append((number, item))
    return [group for group in groups if group]


def _cut(jobs: list[Job], wanted: float, max_members: int) -> list[list[Job]]:
    """Cut jobs into equal stacks of the wanted cost, or of as many members as pay; never above max_members."""
    assert jobs[0].config is not None
    enough = min(math.ceil(_cost(jobs) / wanted), len(jobs) // _fewest(jobs[0].config))
    stacks = max(enough, math.ceil(len(jobs) / max_members))
    edges = [len(jobs) * i // stacks for i in range(stacks + 1)]
    return [jobs[start:stop] for start, stop in itertools.pairwise(edges)]


def _fewest(config: Config) -> int:
    """Return how many members like this one are worth a stack of their own."""
    if _may_be_native(config) and choice.not_here() is None:
        return 1
    return min(MIN_MEMBERS, math.ceil(STACK_PRODUCTS / cost.of_step(config)))


def _may_be_native(config: Config) -> bool:
    return choice.may_be_native(config) and runtime.device_of(config) == "cpu"


def _longest(stacks: Sequence[Sequence[Job]], workers: int) -> float:
    """Return what the busiest worker trains, in cost, where each takes the next stack when it is idle."""
    loads = [0.0] * workers
    for stack in stacks:
        loads[loads.index(min(loads))] += _cost(stack)
    return max(loads)


def _cost(jobs: Sequence[Job]) -> float:
    """Return about how long jobs train in a stack, relative to others, in products with a weight."""
    return sum(cost.of_run(job.config) for job in jobs if job.config is not None)


def stack_key(config: Config) -> tuple[object, ...] | None:
    """Return what two runs must share to train in one stack; None for a run that trains alone.

    Everything else may differ: optimizer (one of the user's own has company of its class alone), schedule, dropout
    rates, clipping, label noise, init, seed, early stopping, epochs; not which step trains it.
    """
    network = config.model
    if isinstance(network, CustomModel | Cnn):
        return None
    shared = (config.steps, config.accumulate, config.device, config.threads, config.deterministic)
    data = replace(config.data, label_noise=0.0, shuffle=True)
    step = config.step, _may_be_native(config)
    own = config.targets().get("optimizer._target_")
    return network.shape, data, repr(config.loss), tuple(config.metrics), config.record.every, own, step, shared
