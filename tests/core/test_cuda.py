"""Training on a GPU: against the CPU, the same bits twice, and CUDA graphs against one kernel after the other.

Against the CPU in float64: both compute the same sums, which add up in another order, about 1e-16 each; training
amplifies that over 20 steps to less than 1e-9. Where rounding alone would be amplified (see test_native.py) eps is
0.01. The fused kernels of a GPU read a learning rate of 32 bits, so both sides get one. Noise of dropout comes from a
generator of the device, so there is none in what is compared with the CPU.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers import Cli, Log, bits, make_config, run, stop_at, summary, trainer_in
from trainer.config import Config
from trainer.core import cuda_graph, data, state
from trainer.core.data import Dataset
from trainer.core.dropout import DropoutNoise, StackedDropout
from trainer.core.loop import train_step
from trainer.core.native import choice
from trainer.core.optimizers import Span
from trainer.core.stack import Stack
from trainer.engine import worker

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")

SMALL: dict[str, Any] = {
    "data.train_size": 150,
    "data.batch_size": 32,
    "model.width": [20, 9],
    "model.depth": 2,
    "epochs": 4,
}
CLOSE = {"rel": 1e-9, "abs": 1e-9, "nan_ok": True}
Choice = tuple[tuple[str, ...], dict[str, Any]]


@pytest.fixture(autouse=True)
def _as_the_command_sets_up() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def rates_of_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Span.learning_rate
    monkeypatch.setattr(Span, "learning_rate", lambda span, step: float(np.float32(exact(span, step))))


def small(*choices: str, **values: Any) -> Config:
    optimizer = next((c for c in choices if c.startswith("optimizer=")), "optimizer=adam")
    has_eps = optimizer.split("=")[1] in {"adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adamax", "adadelta"}
    return make_config(*choices, **(SMALL | ({"optimizer.eps": 0.01} if has_eps else {}) | values))


def by(step: str, configs: list[Config]) -> list[Config]:
    """The same runs by another step: torch, or auto."""
    return [dataclasses.replace(config, step=step) for config in configs]


def load(config: Config, device: str = "cuda", dtype: torch.dtype = torch.float64) -> Dataset:
    return data.load(config.data, device, dtype)


class Net(nn.Module):
    """A module of one's own: convolution, batch norm, tied weights."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.one, self.two = nn.Linear(192, 8), nn.Linear(8, 8)  # the second is used twice
        self.out = nn.Linear(8, out_features)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(torch.relu(self.norm(self.conv(x[:, None] if x.ndim == 3 else x))).flatten(1))
        return self.out(torch.tanh(self.two(self.two(h))))


# ------------------------------------------------------------------ against the CPU

OPTIMIZERS: list[Choice] = [
    (("optimizer=sgd",), {"optimizer.momentum": 0.9, "optimizer.nesterov": True}),
    (("optimizer=sgd", "schedule=cosine"), {}),
    (("optimizer=adam", "schedule=one_cycle"), {"optimizer.amsgrad": True}),
    (("optimizer=adamw", "schedule=cosine"), {"optimizer.decay": "weights"}),
    *(((f"optimizer={name}", "schedule=step"), {"schedule.step_size": 2})
      for name in ("rmsprop", "nadam", "radam", "adamax", "adagrad", "adadelta", "adafactor")),
    (("optimizer=asgd",), {"optimizer.foreach": True}),  # as on a GPU: of its 32-bit rate the two round differently
    (("optimizer=rprop",), {}),
    (("optimizer=adam", "schedule=plateau"), {"schedule.patience": 0}),
]  # fmt: skip
NETWORKS: list[tuple[str, Choice]] = [
    *(("digits", ((), {"model.activation": name})) for name in ("relu", "tanh", "sigmoid", "gelu", "silu")),
    ("digits", ((), {"model.batchnorm": True})),
    ("digits", ((), {"model.batchnorm": True, "model.batchnorm_position": "after"})),
    ("digits", ((), {"accumulate": 3, "clip_norm": 0.5, "metrics": ["f1", "auroc"]})),
    ("digits", ((), {"loss.label_smoothing": 0.1})),
    ("digits", ((), {"loss.name": "mse"})),
    ("digits", ((), {"loss.name": "bce"})),
    ("digits", ((), {"loss.name": "focal"})),
    ("line", ((), {"loss.name": "huber", "data.train_size": 60})),
    ("line", ((), {"data.train_size": 60, "metrics": ["r2", "mae"]})),
]
NO_MLP = {key: value for key, value in SMALL.items() if not key.startswith("model.")} | {"optimizer.eps": 0.01}
ALONE: dict[str, Choice] = {
    "cnn": (("model=cnn",), NO_MLP | {"model.channels": [4, 6], "model.depth": 2, "model.batchnorm": True}),
    "cnn of one": (("model=cnn",), NO_MLP | {"model.channels": [4], "model.depth": 1, "model.pooling": "mean"}),
    "own": (("model=custom",), NO_MLP | {"model._target_": "tests.core.test_cuda.Net"}),
    "surface": (("problem=rosenbrock",), {"steps": 20}),
}


def assert_like_the_cpu(configs: list[Config]) -> None:
    found = run(configs, load(configs[0]))
    wanted = run(by("torch", configs), load(configs[0], "cpu"))
    assert (found.reasons, found.best) == (wanted.reasons, wanted.best)
    for k in range(len(configs)):
        assert found.starts[k] == pytest.approx(wanted.starts[k], **CLOSE)
        assert found.rows[k] == [pytest.approx(row, **CLOSE) for row in wanted.rows[k]]
        assert found.steps[k] == [pytest.approx(step, **CLOSE) for step in wanted.steps[k]]
        torch.testing.assert_close(found.states[k], wanted.states[k], rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.usefixtures("rates_of_32_bits")
def test_every_optimizer_in_one_stack(norm: bool) -> None:
    """With batch norm Adafactor and Rprop amplify rounding: one ulp of the inputs changes them by 6e-5 and 0.5."""
    amplify = {"optimizer=adafactor", "optimizer=rprop"} if norm else set()
    kinds = [(choices, values) for choices, values in OPTIMIZERS if not amplify & set(choices)]
    assert_like_the_cpu(
        [small(*choices, seed=k, **({"model.batchnorm": norm} | values)) for k, (choices, values) in enumerate(kinds)]
    )


@pytest.mark.parametrize(("task", "member"), NETWORKS, ids=[f"{t} {c[1]}" for t, c in NETWORKS])
@pytest.mark.usefixtures("rates_of_32_bits")
def test_every_network_and_loss(task: str, member: Choice) -> None:
    choices, values = member
    assert_like_the_cpu([small(f"data={task}", *choices, seed=k, **values) for k in (0, 1, 1)])


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.usefixtures("rates_of_32_bits")
def test_networks_that_train_alone(name: str) -> None:
    choices, values = ALONE[name]
    assert_like_the_cpu([make_config(*choices, **values)])


@pytest.mark.usefixtures("rates_of_32_bits")
def test_members_leave_and_harm_no_other() -> None:
    """By their budget, by early stopping, and by NaN."""
    assert_like_the_cpu(
        [
            small(seed=1),
            small(seed=2, epochs=2),
            small("optimizer=sgd", seed=3, **{"optimizer.lr": 1e30, "epochs": 3}),
            small(seed=4, epochs=6, **{"early_stopping.patience": 1, "early_stopping.min_delta": 0.5}),
            small("schedule=cosine", seed=5, epochs=5),
        ]
    )


# ------------------------------------------------------------------ the same bits

MIXED: list[Choice] = [
    (("optimizer=sgd",), {"seed": 1, "optimizer.momentum": 0.9, "clip_norm": 0.5}),
    ((), {"seed": 2, "model.dropout": 0.4, "model.input_dropout": 0.1}),
    (("optimizer=adamw", "schedule=cosine"), {"seed": 2, "optimizer.decay": "weights", "model.dropout": 0.2}),
    (("schedule=plateau",), {"seed": 3, "schedule.patience": 0, "epochs": 8}),
    (
        ("optimizer=sgd", "schedule=one_cycle"),
        {"seed": 4, "epochs": 3, "optimizer.momentum": 0.8, "schedule.cycle_momentum": False},
    ),
]
OUTSIDE: list[Choice] = [  # optimizers that a graph does not hold
    *MIXED[:3],
    (("optimizer=rmsprop",), {"seed": 3}),
    (("schedule=one_cycle",), {"seed": 4}),
    (("optimizer=custom",), {"seed": 5, "optimizer._target_": "tests.core.own_optimizers.Lion"}),
]
NORMS: list[dict[str, Any]] = [
    {},
    {"model.batchnorm": True, "accumulate": 2},
    {"model.batchnorm": True, "model.batchnorm_position": "after"},
]


def stack_of(served: str, configs: list[Config], dtype: torch.dtype = torch.float32) -> Stack:
    """A stack on the GPU, by graphs or by torch's steps one kernel after the other: its optimizers are the same."""
    stack = Stack(configs, load(configs[0], dtype=dtype))
    assert stack.served == "graph"
    stack.served = served
    return stack


def advance(stack: Stack, until: int, every: int = 1) -> list[Tensor]:
    """What is measured, of every `every`th step until then."""
    out = []
    while stack.step < until:
        rows_KN, target_KN = stack.next_order()
        for step in itertools.chain.from_iterable(stack.bursts()):
            if stack.step < until:
                measured = train_step(stack, rows_KN, target_KN, step.batches, stack.step % every == 0)
                out.append(measured.cpu())
        if stack.step < until:
            stack.finish_epoch()
    return out


def assert_equal(a: Any, b: Any) -> None:
    """Equal trees, to the bit; NaN is NaN."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    elif isinstance(a, Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    else:
        assert repr(a) == repr(b)


def states(stack: Stack) -> list[Any]:
    return [state.member_state(stack, k) for k in range(len(stack.members))]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("members", [MIXED, OUTSIDE], ids=["inside", "outside"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_graph_is_the_step_200_times(members: list[Choice], norm: dict[str, Any], dtype: torch.dtype) -> None:
    """Measured and unmeasured steps, a smaller last batch; then two members leave."""
    configs = [make_config(*c, **(SMALL | {"epochs": 60} | norm | v)) for c, v in members]
    graphed, plain = (stack_of(served, configs, dtype) for served in ("graph", "torch"))
    for until, every in ((120, 3), (240, 1)):
        assert_equal(advance(graphed, until, every), advance(plain, until, every))
        assert graphed.graphed is not None
        assert any(graphed.graphed.graphs.values())
        assert graphed.optimizers.capturable == (members == MIXED)
        assert_equal(states(graphed), states(plain))
        for stack in (graphed, plain):
            stack.select([k for k in (len(members) - 1, 0, 2) if k < len(stack.members)])


def test_a_graph_of_a_cnn_draws_its_dropout_as_torch_does() -> None:
    config = make_config("model=cnn", **(NO_MLP | {"model.channels": [4], "model.depth": 1, "model.dropout": 0.3}))
    ends = []
    for served in ("graph", "torch"):
        stack = stack_of(served, [config])
        ends.append((advance(stack, 40, 2), states(stack), torch.rand(3, device="cuda").cpu()))
    assert_equal(*ends)


@pytest.mark.parametrize("members", [MIXED, OUTSIDE[:5]], ids=["inside", "outside"])
def test_a_checkpoint_goes_on_to_the_same_bits(members: list[Choice]) -> None:
    """Taken in the middle of an epoch, as bytes."""
    configs = [make_config(*c, **(SMALL | {"epochs": 60, "model.batchnorm": True} | v)) for c, v in members]
    whole, first = stack_of("graph", configs), stack_of("graph", configs)
    advance(whole, 47)
    advance(first, 23)
    saved = state.from_bytes(state.to_bytes(state.stack_state(first)))
    second = Stack(configs, load(configs[0], dtype=torch.float32))
    state.restore(second, saved, [[] for _ in configs])
    assert second.served == "graph"
    advance(second, 47)
    assert_equal(states(second), states(whole))


def log_of(served: str, configs: list[Config]) -> Log:
    patch = pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.setattr(choice, "served", lambda configs, device: served)
        return run(configs, load(configs[0], dtype=torch.float32))


def test_whole_runs_twice_and_by_graphs_and_without() -> None:
    configs = [make_config(*c, **(SMALL | v)) for c, v in MIXED]
    first, again, plain = (log_of(served, configs) for served in ("graph", "graph", "torch"))
    for other in (again, plain):
        assert [repr(row) for row in first.rows] == [repr(row) for row in other.rows]
        assert [repr(step) for step in first.steps] == [repr(step) for step in other.steps]
        assert_equal(first.states, other.states)


def test_graphs_are_few_and_go_with_the_members() -> None:
    stack = stack_of("graph", [make_config(**SMALL), make_config(**(SMALL | {"seed": 1}))])
    advance(stack, 20)
    assert stack.graphed is not None
    assert len(stack.graphed.graphs) == 2  # whole batches and the epoch's last, all measured
    assert all(isinstance(graph, cuda_graph._Graph) for graph in stack.graphed.graphs.values())
    stack.select([1])
    assert stack.graphed.graphs == {}


# ------------------------------------------------------------------ dropout


def test_dropout_of_a_seed_is_the_same_in_any_company() -> None:
    device = torch.device("cuda")
    together, alone = DropoutNoise([3, 1, None, 3], device), DropoutNoise([3], device)
    for n in (5, 70_000, 70_000):
        taken, single = together.take(n), alone.take(n)
        assert torch.equal(taken[0], single[0])
        assert torch.equal(taken[3], single[0])
        assert not torch.equal(taken[1], single[0])
        assert taken[2].count_nonzero() == 0


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """Of a million units: 5 standard errors of sqrt(p (1 - p) / n)."""
    rates, n = [0.0, 0.3, 0.75], 10**6
    factor = (
        StackedDropout(rates, DropoutNoise([0, 1, 2], torch.device("cuda"))).cuda().factor(torch.ones(3, n, 1).cuda())
    )
    for rate, member in zip(rates, factor, strict=True):
        error = 5 * (rate * (1 - rate) / n) ** 0.5
        assert abs(float((member == 0).double().mean()) - rate) <= error + 2**-17
        assert float(member.double().mean()) == pytest.approx(1, abs=error / (1 - rate) + 1e-9)


# ------------------------------------------------------------------ the command

LINE = "device=cuda epochs=4 data.train_size=200 model.dropout=0.3 model.batchnorm=true schedule=cosine"


def test_stopped_and_resumed_is_never_stopped(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(f"{LINE} hydra.run.dir=whole")[0] == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        assert cli(f"{LINE} hydra.run.dir=stopped")[0] == 130
    code, _, err = cli("resume=stopped")
    assert (code, err) == (0, "")
    assert bits(tmp_path / "whole") == bits(tmp_path / "stopped") != {}
    found = summary(tmp_path / "whole")
    assert (found["provenance"]["device"], found["provenance"]["step"]) == ("cuda:0", "graph")


def test_a_sweep_trains_in_a_worker_and_is_evaluated(tmp_path: Path) -> None:
    line = [*LINE.split(), "-m", "optimizer=sgd,adam", "seed=range(2)", "model.width=16,32", "hydra.sweep.dir=sweep"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        made = trainer_in(tmp_path / folder, *line)
        assert (made.returncode, made.stderr) == (0, "")
    assert bits(tmp_path / "one") == bits(tmp_path / "two")
    assert len(bits(tmp_path / "one")) == 24


def test_a_network_of_ones_own_and_a_cnn(cli: Cli) -> None:
    for model in ("model=cnn model.dropout=0.3", "model=custom model._target_=tests.core.test_cuda.Net"):
        assert cli(f"{model} device=cuda epochs=2 data.train_size=100")[0] == 0


def test_a_stack_too_large_for_the_gpu_trains_in_halves(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first allocations that fail are in the step: what is free is not asked for before."""
    monkeypatch.setattr(worker, "_members_in_memory", lambda config, dataset: 10**6)
    torch.cuda.empty_cache()
    used, whole = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((used + 450e6) / whole)
    try:
        line = "device=cuda steps=3 data.train_size=200 model.width=1024 model.depth=2 record.every=0"
        code, out, err = cli(
            f"{line} -m seed=range(32) hydra.launcher.workers=0"
        )  # 150 MB of weights, at least 750 in all
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 0
    assert "32 of 32 runs completed" in out
    assert "note: runs 0-31 do not fit into memory together; they train in halves" in err
