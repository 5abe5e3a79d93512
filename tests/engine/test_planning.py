"""Runs as work items: who trains with whom, isolation of failures, memory, interruption."""

import csv
import dataclasses
import itertools
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import jobs_of, make_config, small_data, train_jobs
from trainer.cli import sweep_table
from trainer.config import Config
from trainer.core import loop
from trainer.core.native import choice
from trainer.core.stack import Stack
from trainer.engine import planning, runtime
from trainer.engine.jobs import Job

SMALL = {"epochs": 2, "data.train_size": 200, "model.width": 8, "record.pictures": False}


def small(*choices: str, **values: object) -> Config:
    return make_config(*choices, **(SMALL | values))


def train_all(configs: Sequence[Config], folder: Path, max_members: int = 128, stop=lambda: False):
    jobs = jobs_of(configs, folder)
    return jobs, train_jobs(jobs, max_members, stop=stop)


def losses(job: Job) -> list[float]:
    with open(job.directory / "metrics.csv") as file:
        return [float(row["eval/train_loss"]) for row in csv.DictReader(file)]


MIXED = [
    small("optimizer=sgd", seed=0),
    small("optimizer=adam", seed=1, **{"model.dropout": 0.3, "clip_norm": 1.0}),
    small("optimizer=adamw", seed=2, **{"model.dropout": 0.5, "schedule.warmup": 1.0}),
    small("optimizer=adam", seed=3, **{"data.label_noise": 0.2, "model.init": "he_normal"}),
    small("optimizer=adamw", seed=4, **{"model.batchnorm": True}),
    small("optimizer=sgd", seed=5, epochs=3),
]


def keys(plan: list[list[Job]]) -> set[frozenset[int]]:
    return {frozenset(job.number for job in jobs) for jobs in plan}


def test_only_shapes_data_and_steps_keep_runs_apart(tmp_path: Path) -> None:
    assert keys(planning.plan(jobs_of(MIXED, tmp_path), 128)) == {frozenset({0, 1, 2, 3, 5}), frozenset({4})}


@pytest.mark.parametrize(
    "change",
    [
        {"model.depth": 1},
        {"model.width": 9},
        {"model.activation": "tanh"},
        {"model.batchnorm": True},
        {"data.batch_size": 32},
        {"data.train_size": 100},
        {"data.val_fraction": 0.3},
        {"data.normalisation": "unit"},
        {"steps": 7},
        {"accumulate": 2},
        {"loss.label_smoothing": 0.1},
        {"record.every": 5},
    ],
)
def test_what_keeps_two_runs_apart(change: dict[str, object], tmp_path: Path) -> None:
    assert len(planning.plan(jobs_of([small(), small(**change)], tmp_path), 128)) == 2


def test_networks_for_pictures_train_side_by_side(tmp_path: Path) -> None:
    configs = [make_config("model=cnn", seed=seed) for seed in range(5)]
    longer = make_config("model=cnn", epochs=40)
    planned = planning.plan(jobs_of([*configs, longer], tmp_path), 128, workers=2)
    assert [len(stack) for stack in planned] == [1] * 6
    assert planned[0][0].config == longer  # the costliest first


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5), st.integers(1, 4))
def test_a_plan_holds_every_job_once_in_spans_of_equal_optimizers(chance: random.Random, most: int, cores: int) -> None:
    jobs = jobs_of([config for config in MIXED for _ in range(3)], Path())
    chance.shuffle(jobs)
    plan = planning.plan(jobs, most, cores)
    assert sorted(job.number for group in plan for job in group) == list(range(18))
    for group in plan:
        assert len(group) <= most
        spans = [job.config.optimizer._target_ for job in group if job.config]
        assert len(set(spans)) == 1 + sum(a != b for a, b in itertools.pairwise(spans))


def sizes(configs: Sequence[Config], folder: Path, workers: int) -> list[int]:
    return [len(group) for group in planning.plan(jobs_of(configs, folder), 128, workers)]


def of_shapes(shapes: Sequence[int], **values: object) -> list[Config]:
    """Runs of other shapes of the same cost."""
    kinds = zip(("relu", "tanh", "gelu", "silu"), shapes, strict=False)
    return [small(seed=seed, **{"model.activation": kind, **values}) for kind, n in kinds for seed in range(n)]


@pytest.mark.parametrize(
    ("shapes", "workers", "expected"),
    [
        ([40], 1, [40]),
        ([40], 2, [20, 20]),
        ([41], 4, [11, 10, 10, 10]),
        ([15], 2, [15]),  # halves would be too small
        ([30, 30, 15, 15], 2, [30, 30, 15, 15]),  # 45 each as it is
        ([30, 30, 30], 2, [15] * 6),
        ([32, 8], 4, [11, 11, 10, 8]),
        ([3, 2, 1], 4, [3, 2, 1]),
    ],
)
def test_cores_share_the_members_evenly(shapes: list[int], workers: int, expected: list[int], tmp_path: Path) -> None:
    assert sizes(of_shapes(shapes, step="torch"), tmp_path, workers) == expected


needs_native = pytest.mark.skipif(choice.not_here() is not None, reason="the native step is not built here")


@needs_native
@pytest.mark.parametrize(
    ("shapes", "workers", "expected"),
    [
        ([40], 1, [40]),
        ([15], 2, [8, 7]),
        ([16], 16, [1] * 16),
        ([32], 16, [2] * 16),
        ([160], 16, [10] * 16),
        ([3, 2, 1], 4, [2, 1, 1, 1, 1]),
        ([3], 4, [1, 1, 1]),
    ],
)
def test_members_of_the_native_step_fill_every_core(
    shapes: list[int], workers: int, expected: list[int], tmp_path: Path
) -> None:
    assert sizes(of_shapes(shapes), tmp_path, workers) == expected


@needs_native
@given(st.lists(st.integers(8, 200), min_size=1, max_size=60), st.integers(1, 16))
@settings(max_examples=20, deadline=None)
def test_any_widths_are_shared_out_by_cost(widths: list[int], workers: int) -> None:
    """No core trains longer than its share and one member more: the bound of any list schedule (Graham 1969)."""
    plan = planning.plan(jobs_of([small(**{"model.width": width}) for width in widths], Path()), 128, workers)
    products = lambda config: 64 * config.model.width * 2 + config.model.width**2 + 30 * config.model.width  # noqa: E731
    costs = [[products(job.config) for job in group] for group in plan]
    loads = [0] * workers
    for cost in costs:
        loads[loads.index(min(loads))] += sum(cost)
    total = sum(map(sum, costs))
    assert max(loads) <= max(1.2 * total / workers, total / workers + max(map(max, costs)))


@pytest.mark.parametrize(
    ("choices", "values", "expected"),
    [
        (["data=mnist"], {"model.width": [512, 512]}, [1] * 16),  # eight members at once gain only 1.2
        (["data=mnist"], {"model.width": 8}, [8, 8]),
        ([], {"model.width": [512, 512]}, [1] * 16),
        ([], {"model.width": [512, 512], "data.batch_size": 8}, [4, 3, 3, 3, 3]),
        ([], {}, [8, 8]),
    ],
)
def test_torch_s_stacks_are_as_small_as_a_large_member_pays_for(
    choices: list[str], values: dict[str, object], expected: list[int], tmp_path: Path
) -> None:
    configs = [make_config(*choices, seed=seed, step="torch", **values) for seed in range(16)]
    assert sizes(configs, tmp_path, 16) == expected


def test_what_costs_more_is_cut_and_trains_first(tmp_path: Path) -> None:
    """By members alone two stacks of 20 would be even: one core would train the wide ones, the other wait for it."""
    configs = [small(seed=s, **{"model.width": width}) for width in (16, 256) for s in range(20)]
    assert sizes(configs, tmp_path, 2) == [10, 10, 20]
    for less, more in (
        ({"data.train_size": 199}, {"epochs": 9}),
        ({}, {"steps": 90}),
        ({}, {"data.train_size": 900}),
    ):
        cheap, costly = ([small(seed=s, step="torch", **change) for s in range(7)] for change in (less, more))
        plan = planning.plan(jobs_of([*cheap, *costly], tmp_path), 128, 2)
        assert [group[0].config in costly for group in plan] == [True, False]


def test_split_by_the_bound_or_by_memory_the_runs_are_the_same(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 and another order of summation: 1e-5 after 8 steps; another seed's run differs by more than 1e-4."""
    together, whole = train_all(MIXED, tmp_path / "together")
    split, halves = train_all(MIXED, tmp_path / "split", max_members=2)
    monkeypatch.setattr(runtime, "free_memory", lambda device: 0)
    alone, ones = train_all(MIXED, tmp_path / "alone")
    assert sorted(whole.sizes) == [1, 5]
    assert max(halves.sizes) == 2
    assert ones.sizes == [1] * 6
    for a, b, c in zip(together, split, alone, strict=True):
        assert losses(a) == pytest.approx(losses(b), rel=1e-5)
        assert losses(a) == pytest.approx(losses(c), rel=1e-5)
    assert abs(losses(together[0])[-1] - losses(together[5])[1]) > 1e-4


def test_a_refused_optimizer_fails_alone(tmp_path: Path) -> None:
    bad = small("optimizer=sgd", **{"optimizer.nesterov": True})
    jobs, _ = train_all([*MIXED[:2], bad, *MIXED[2:]], tmp_path)
    assert [job.status for job in jobs] == ["completed"] * 2 + ["failed"] + ["completed"] * 4
    assert str(jobs[2].error) == (
        "optimizer: torch.optim.SGD refuses its arguments: Nesterov momentum requires a momentum and zero dampening"
    )


def test_a_stack_that_breaks_is_halved_and_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in the middle of the second epoch of every stack of more than one: nothing is written twice."""
    steps = loop.train_steps

    def break_down(stack: Stack, *arguments):
        if len(stack.members) > 1 and stack.epoch == 1:
            raise MemoryError
        return steps(stack, *arguments)

    monkeypatch.setattr(loop, "train_steps", break_down)
    jobs, display = train_all([small(seed=seed) for seed in range(4)], tmp_path)
    assert display.sizes == [4, 2, 1, 1, 2, 1, 1]
    assert [job.status for job in jobs] == ["completed"] * 4
    for job in jobs:
        assert len(losses(job)) == 2
        assert len(list(job.directory.glob("events.out.tfevents.*"))) == 1


def test_a_run_that_breaks_keeps_its_records_and_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = loop.train_steps

    def break_down(stack: Stack, *arguments):
        if any(member.config.seed == 2 for member in stack.members) and stack.epoch == 1:
            raise RuntimeError("something\nodd")
        return steps(stack, *arguments)

    monkeypatch.setattr(loop, "train_steps", break_down)
    jobs, _ = train_all([small(seed=seed) for seed in range(4)], tmp_path)
    assert [job.status for job in jobs] == ["completed", "completed", "failed", "completed"]
    assert jobs[2].summary is not None
    assert jobs[2].summary["error"] == "RuntimeError: something odd"


def test_a_diverging_member_harms_no_other(tmp_path: Path) -> None:
    configs = [small("optimizer=sgd", seed=0), small("optimizer=sgd", seed=1, **{"optimizer.lr": 1e9})]
    (beside, diverged), _ = train_all(configs, tmp_path / "beside")
    (alone,), _ = train_all(configs[:1], tmp_path / "alone")
    assert losses(beside) == pytest.approx(losses(alone), rel=1e-4)
    assert diverged.summary is not None
    assert diverged.summary["verdict"]["verdict"] == "diverged"


def test_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    asked = iter(range(10**6))
    configs = [small(step="torch", **{"model.activation": name}) for name in ("relu", "tanh", "gelu")]
    jobs, _ = train_all(configs, tmp_path, stop=lambda: next(asked) > 12)  # 8 steps a run, asked before each
    assert [job.status for job in jobs] == ["completed", "interrupted", "interrupted"]
    assert (jobs[1].directory / "checkpoints" / "last.pt").exists()
    assert len(losses(jobs[0])) == 2
    assert jobs[2].summary == {
        "status": "interrupted",
        "stopped_by": "interrupt",
        "error": None,
        "epochs": 0,
        "steps": 0,
    }


def test_of_a_summary_is_kept_what_a_table_needs(tmp_path: Path) -> None:
    configs = [small(metrics=["f1"]), make_config("problem=beale", "optimizer=sgd", epochs=3)]
    jobs = [job for config in configs for job in train_all([config], tmp_path / config.optimizer.name)[0]]
    for job in jobs:
        whole = dataclasses.replace(job, summary=job.recorded())
        assert job.status == "completed"
        assert sweep_table.row(job) == sweep_table.row(whole)
        assert len(json.dumps(job.summary)) < len(json.dumps(whole.summary)) / 5
    assert {"val f1", "distance"} <= {key for job in jobs for key in sweep_table.row(job)}


def test_modules_of_the_users_own_are_stacks_of_one(tmp_path: Path) -> None:
    own = make_config("model=custom", epochs=1, **{"model._target_": "torch.nn.LazyLinear"})
    assert len(planning.plan(jobs_of([own, own], tmp_path), 128)) == 2


BIG = {"model.width": 512, "data.batch_size": 64}


def test_auto_is_a_gpu_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known to be small trains on the CPU; nothing else does, and nothing that was asked for."""
    kinds = [
        (make_config(), "cpu"),
        (make_config("problem=rosenbrock"), "cpu"),
        (make_config("model=cnn"), "cpu"),
        (make_config("data=mnist", "model=cnn"), "cuda"),
        (make_config(**BIG), "cuda"),
        (make_config("data=mnist", **{"model.width": 256}), "cuda"),
        (make_config("data=csv", **{"data.path": "a.csv", "data.target": "y"}), "cuda"),
        (make_config("model=custom", **{"model._target_": "torch.nn.LazyLinear"}), "cuda"),
    ]
    for has_cuda in (True, False):
        monkeypatch.setattr(runtime, "has_cuda", lambda has_cuda=has_cuda: has_cuda)
        for config, device in kinds:
            assert runtime.device_of(config) == (device if has_cuda else "cpu"), config
            for asked in ("cpu", "cuda", "mps"):
                assert runtime.device_of(dataclasses.replace(config, device=asked)) == asked


def test_a_gpu_trains_one_stack_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = [make_config(), make_config(seed=1)], [make_config(**BIG), make_config(seed=1, **BIG)]
    for has_cuda in (True, False):
        monkeypatch.setattr(runtime, "has_cuda", lambda has_cuda=has_cuda: has_cuda)
        assert (runtime.workers(large) == 1) == (has_cuda or runtime.cores() == 1)
        assert runtime.workers(small) == runtime.cores()
        assert runtime.most_members(small) == 128
        assert runtime.most_members(large) == (sys.maxsize if has_cuda else 128)
        mixed = jobs_of([*large, make_config("optimizer=radam", **BIG)], Path())
        assert len(planning.plan(mixed, 128)) == (1 if has_cuda else 2)  # no native step sets Adam apart


def test_as_many_workers_as_cores_over_threads() -> None:
    assert runtime.workers([small()]) == runtime.cores()
    assert runtime.workers([small(), dataclasses.replace(small(), threads=10**6)]) == 1


def test_threads_follow_the_stack_and_not_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "pytorch_threads", lambda: 2)
    tiny = Stack([small()], small_data("digits"))
    large = Stack([small(**{"model.width": 1024})], small_data("digits"))
    chosen = Stack([small(threads=3)], small_data("digits"))
    threads = []
    for made, own in ((tiny, None), (large, None), (tiny, None), (large, 1), (chosen, 1)):
        runtime.set_threads(made, own)
        threads.append(torch.get_num_threads())
    assert threads == [1, 2, 1, 1, 3]
