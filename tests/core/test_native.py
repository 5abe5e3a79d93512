"""The native step against torch's: the same numbers for every combination it serves, and bits that know no company.

Float64. Tolerance 1e-10 of the largest number of each tensor after 200 steps: the sums of products run in another
order, and training amplifies the 1e-16 of each. A gradient that is 0 but for rounding (as of a constant input before
batch norm) is divided by eps, which is 0.01 there: the default of 1e-8 makes another run of rounding alone.
The same stacks are drawn every time: of others one reached 4e-10, three layers with batch norm on `line`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.helpers import Log, make_config, record, run, small_data, summary
from trainer.config import Config, ConfigError
from trainer.core import state
from trainer.core.activations import PROBE_EXAMPLES
from trainer.core.loop import evaluate, train_steps, watched_step
from trainer.core.native import choice, library
from trainer.core.native.step import NativeStep
from trainer.core.stack import Stack

built = pytest.mark.skipif(isinstance(library.load(), str), reason="the native step is not built: pip install -e .")

PRECISIONS = ("native", torch.float32), ("torch", torch.float64)
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # a smaller failure would take minutes to find
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"optimizer.momentum": 0.9, "optimizer.dampening": 0.2}),
    ("sgd", {"optimizer.momentum": 0.8, "optimizer.nesterov": True}),
    ("adam", {}),
    ("adam", {"optimizer.amsgrad": True}),
    ("adamw", {"optimizer.betas": [0.8, 0.95]}),
    ("adamw", {"optimizer.amsgrad": True, "optimizer.eps": 1e-4}),
    ("rmsprop", {}),
    ("rmsprop", {"optimizer.centered": True, "optimizer.momentum": 0.5, "optimizer.alpha": 0.9}),
    ("nadam", {}),
    ("nadam", {"optimizer.decoupled_weight_decay": True, "optimizer.momentum_decay": 0.01}),
]
DECAY: list[dict[str, Any]] = [
    {},
    {"optimizer.weight_decay": 0.05},
    {"optimizer.weight_decay": 0.05, "optimizer.decay": "weights"},
]
NORMS: list[dict[str, Any]] = [
    {"model.batchnorm": False},
    {"model.batchnorm": True},
    {"model.batchnorm": True, "model.batchnorm_position": "after"},
]
TASKS: list[tuple[str, dict[str, Any]]] = [
    ("digits", {}),
    ("digits", {"loss.label_smoothing": 0.1}),
    ("spirals", {"loss.name": "mse"}),
    ("line", {"data.train_size": 60}),
]


@st.composite
def stacks(draw: Callable[..., Any]) -> list[Config]:
    """One to three members of one shape, each with its own optimizer, schedule, rates, clipping and seed."""
    task, shared = draw(st.sampled_from(TASKS))
    widths = draw(st.lists(st.integers(1, 40), max_size=3))
    shared = shared | draw(st.sampled_from(NORMS)) | {"model.depth": len(widths), "model.width": widths}
    shared |= {"model.activation": draw(st.sampled_from(["relu", "tanh", "sigmoid", "gelu", "silu"]))}
    shared |= {"data.batch_size": draw(st.sampled_from([20, 32, 50])), "accumulate": draw(st.sampled_from([1, 1, 3]))}
    members = []
    for _ in range(draw(st.integers(1, 3))):
        optimizer, own = draw(st.sampled_from(OPTIMIZERS))
        schedule = draw(st.sampled_from(["constant", "cosine", "one_cycle"]))
        own = own | draw(st.sampled_from(DECAY)) | {"seed": draw(st.integers(0, 3))}
        own |= {"clip_norm": draw(st.sampled_from([None, 0.3])), "optimizer.lr": 0.002, "epochs": 50}
        own |= {"model.dropout": draw(st.sampled_from([0.0, 0.3]))}
        own |= {"model.input_dropout": draw(st.sampled_from([0.0, 0.2]))}
        if optimizer != "sgd":
            own["optimizer.eps"] = 0.01  # see above
        choices = f"data={task}", f"optimizer={optimizer}", f"schedule={schedule}"
        members.append(make_config(*choices, **({"data.train_size": 160, "data.drop_last": True} | shared | own)))
    return members


def by(step: str, configs: list[Config]) -> list[Config]:
    """The same runs, trained by another step."""
    return [dataclasses.replace(config, step=step) for config in configs]


def steps(stack: Stack, until: int, measure: bool = True) -> Iterator[torch.Tensor]:
    """What is measured of every step until then, of as many epochs as it takes; of some also how far it moved."""
    while stack.step < until:
        rows_KN, target_KN = stack.next_order()
        for burst in stack.bursts():
            batches = [step.batches for step in burst[: until - stack.step]]
            if measure and batches and (burst[0].first or burst[0].last):
                measured_MK, moved_3PK = watched_step(stack, rows_KN, target_KN, *batches)
                yield torch.cat([measured_MK, *moved_3PK])
            elif batches:
                yield from train_steps(stack, rows_KN, target_KN, batches, [measure] * len(batches))
        if stack.step < until:
            stack.finish_epoch()


def assert_near(found: Any, wanted: Any, share: float, where: str = "") -> None:
    """Equal trees; tensors to a share of their largest number."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_near(found[key], wanted[key], share, f"{where} {key}")
    elif isinstance(wanted, torch.Tensor) and wanted.is_floating_point():
        assert found.dtype == wanted.dtype
        assert float((found - wanted).abs().max()) <= share * max(1e-3, float(wanted.abs().max())), where
    elif isinstance(wanted, torch.Tensor):
        assert torch.equal(found, wanted), where
    else:
        assert found == wanted, where


def assert_like_torch(configs: list[Config]) -> None:
    """200 steps of both: all that is measured, all that a checkpoint holds."""
    data = small_data(configs[0].data.name)
    stack, reference = (Stack(by(step, configs), data) for step in ("native", "torch"))
    for found, wanted in zip(steps(stack, 200), steps(reference, 200), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    for k in range(len(configs)):
        assert_near(state.member_state(stack, k), state.member_state(reference, k), 1e-10)


@built
@settings(max_examples=4, deadline=None, derandomize=True, phases=UNSHRUNK)
@given(configs=stacks())
def test_it_is_torchs_step(configs: list[Config]) -> None:
    assert_like_torch(configs)


@built
@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, phases=UNSHRUNK)
@given(configs=stacks())
def test_it_is_torchs_step_over_many_combinations(configs: list[Config]) -> None:
    assert_like_torch(configs)


def assert_evaluates_like_torch(configs: list[Config]) -> None:
    """Both splits whole and cut, after 20 steps: scores, outputs, and what a look finds. Equal weights: 1e-12 each."""
    data = small_data(configs[0].data.name)
    stack, reference = (Stack(by(step, configs), data) for step in ("native", "torch"))
    list(steps(stack, 20))
    reference.model.load_state_dict(stack.model.state_dict())
    for rows_KN, target_KN in ((stack.train_KN, stack.train_y_KN), (stack.val_KN, data.y[stack.val_KN])):
        for n in {1, 13, PROBE_EXAMPLES, PROBE_EXAMPLES + 1, rows_KN.shape[1]}:
            part = rows_KN[:, :n], target_KN[:, :n]
            for probe in (True, False):
                found, wanted = (evaluate(s, *part, probe=probe) for s in (stack, reference))
                assert [[*one] for one in found] == [[*one] for one in wanted]  # the columns of metrics.csv, in order
                torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12, check_dtype=False)
            assert stack.native is not None
            output_KNC = data.x.new_empty(*part[0].shape, data.out_features)
            stack.native.evaluate(*part, None, output_KNC)
            torch.testing.assert_close(
                output_KNC, reference.model.eval()(reference.gather(part[0])).detach(), rtol=1e-11, atol=1e-12
            )


@built
@settings(max_examples=8, deadline=None, derandomize=True, phases=UNSHRUNK)
@given(configs=stacks())
def test_it_evaluates_as_torch_does(configs: list[Config]) -> None:
    assert_evaluates_like_torch(configs)


@built
@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, phases=UNSHRUNK)
@given(configs=stacks())
def test_it_evaluates_as_torch_does_over_many_combinations(configs: list[Config]) -> None:
    assert_evaluates_like_torch(configs)


@built
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "silu"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e4])
def test_what_is_not_finite_it_evaluates_as_torch_does(activation: str, value: float) -> None:
    """A weight that is none, infinite or far too large: units are flat, losses not finite, in the same places."""
    configs = [make_config(**{"model.activation": activation, "model.width": 9, "seed": seed}) for seed in (0, 1)]
    stack, reference = (Stack(by(step, configs), small_data("digits", torch.float32)) for step in ("native", "torch"))
    for s in (stack, reference):
        with torch.no_grad():
            s.parameters["layers.0.weight"][1, 3] = value
    found, wanted = (evaluate(s, s.train_KN, s.train_y_KN, probe=True) for s in (stack, reference))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True, check_dtype=False)


@built
def test_in_32_bits_a_loss_is_as_near_to_64_as_32_bits_go() -> None:
    stack, precise = (Stack([make_config(step=s)], small_data("digits", dtype)) for s, dtype in PRECISIONS)
    found, wanted = (evaluate(s, s.train_KN, s.train_y_KN)[0]["loss"] for s in (stack, precise))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


@built
@pytest.mark.parametrize("width", [1, 7, 8, 16, 17, 31, 100])
def test_widths_beside_those_of_vectors(width: int) -> None:
    configs = [make_config(**{"model.width": [width, 5], "data.train_size": 100, "data.batch_size": width})]
    data = small_data()
    stack, reference = (Stack(by(step, configs), data) for step in ("native", "torch"))
    for found, wanted in zip(steps(stack, 10), steps(reference, 10), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@built
@pytest.mark.parametrize(("optimizer", "values"), OPTIMIZERS)
def test_in_32_bits_it_is_as_near_to_64_as_32_bits_go(optimizer: str, values: dict[str, Any]) -> None:
    """1 - 0.999 in 32 bits is 1e-5 off: that would show in what the optimizer keeps. (torch: 4e-6.)"""
    config = make_config(f"optimizer={optimizer}", **({"optimizer.lr": 0.001} | values))
    precise = Stack(by("torch", [config]), small_data())
    stack = Stack(by("native", [config]), small_data("digits", torch.float32))
    list(steps(stack, 3)), list(steps(precise, 3))
    found, wanted = (state.member_state(s, 0) for s in (stack, precise))
    pairs = [(found["model"][name], value) for name, value in wanted["model"].items()]
    for name, kept in wanted["optimizer"].items():
        pairs += [(found["optimizer"][name][key], value) for key, value in kept.items()]
    for a, b in pairs:
        assert float((a.double() - b.double()).abs().max()) <= 5e-6 * float(b.abs().max())


MIXED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("optimizer=sgd",), {"seed": 1, "optimizer.momentum": 0.9, "clip_norm": 0.5}),
    ((), {"seed": 2, "model.dropout": 0.4, "model.input_dropout": 0.1}),
    (("optimizer=adamw", "schedule=cosine"), {"seed": 2, "optimizer.decay": "weights"}),
    (("optimizer=rmsprop", "schedule=step"), {"seed": 3, "schedule.step_size": 2}),
    (("optimizer=nadam",), {"seed": 4, "epochs": 3, "data.label_noise": 0.3}),
    (("optimizer=sgd",), {"seed": 5, "optimizer.lr": 1e150}),  # NaN within a few steps
]


@built
@pytest.mark.parametrize("norm", NORMS[:2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alone_or_together_the_same_bits(norm: dict[str, Any], dtype: torch.dtype) -> None:
    small = {"data.train_size": 160, "data.batch_size": 32, "model.width": [20, 9], "epochs": 6}
    configs = [make_config(*choices, **(small | norm | values)) for choices, values in MIXED]
    together = run(configs, small_data("digits", dtype))
    assert together.reasons == ["budget"] * 5 + ["diverged"]
    for place, config in enumerate(configs):
        alone = run([config], small_data("digits", dtype))
        for name, value in alone.states[0].items():
            assert torch.equal(together.states[place][name].nan_to_num(), value.nan_to_num()), name
        assert [repr(row) for row in together.rows[place]] == [repr(row) for row in alone.rows[0]]
        shared = alone.steps[0][0].keys()
        for found, wanted in zip(together.steps[place], alone.steps[0], strict=True):
            assert all(found[tag] == wanted[tag] or math.isnan(wanted[tag]) for tag in shared)


@built
@pytest.mark.parametrize("every", [1, 3])
def test_steps_of_one_call_are_those_of_one_call_each(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, of moving rates, of several batches a step, and where not all are measured; in fewer calls."""
    small = {"data.train_size": 160, "data.batch_size": 16, "model.width": [20, 9], "epochs": 3, "accumulate": 2}
    configs = [make_config(*choices, **(small | values)) for choices, values in MIXED[:5]]
    data, sizes = small_data("digits", torch.float32), list[int]()
    take = NativeStep.__call__

    def counted(self: NativeStep, done: int, rows: Any, targets: Any, steps: Any, *rest: Any) -> None:
        sizes.append(len(steps))
        take(self, done, rows, targets, steps, *rest)

    monkeypatch.setattr(NativeStep, "__call__", counted)
    together = run(configs, data, every)
    assert sizes == [1, 3, 1, 4, 1, 4, 1]  # a run's first step and an epoch's last are looked at
    sizes.clear()
    monkeypatch.setattr("trainer.core.native.step.BURST_FLOPS", 1)
    single = run(configs, data, every)
    assert sizes == [1] * 15
    torch.testing.assert_close(together.states, single.states, rtol=0, atol=0)
    assert (together.steps, together.rows) == (single.steps, single.rows)


@built
def test_threads_change_no_bit() -> None:
    wide = [make_config(seed=s, **{"model.width": 128, "data.batch_size": 128}) for s in range(5)]
    data = small_data("digits", torch.float32)
    threads = torch.get_num_threads()
    try:
        logs, evaluated = list[Log](), []
        for count in (1, 3):
            torch.set_num_threads(count)
            stack = Stack(wide, data)
            list(steps(stack, 20))
            logs.append(state.stack_state(stack)["members"])  # type: ignore[arg-type]
            evaluated.append(evaluate(stack, stack.train_KN, stack.train_y_KN, probe=True))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*evaluated, rtol=0, atol=0)
    torch.testing.assert_close(*[[m["model"] for m in members] for members in logs], rtol=0, atol=0)  # type: ignore[union-attr]


@built
@pytest.mark.parametrize(("began", "goes_on"), [("native", "native"), ("native", "torch"), ("torch", "native")])
def test_a_checkpoint_of_one_step_is_one_of_the_other(began: str, goes_on: str) -> None:
    """Taken in the middle of an epoch, as bytes; with the step it began with, the same bits as never stopped."""
    small = {"data.train_size": 160, "data.batch_size": 32, "accumulate": 2, "model.batchnorm": True}
    configs = [make_config(*c, **(small | v)) for c, v in MIXED[:5]]
    whole, first = (Stack(by(began, configs), small_data()) for _ in range(2))
    list(steps(whole, 17))
    list(steps(first, 10))
    saved = state.from_bytes(state.to_bytes(state.stack_state(first)))
    assert saved["served"] == began
    second = Stack(by(goes_on, configs), small_data())
    state.restore(second, {**saved, "served": goes_on}, [[] for _ in configs])
    list(steps(second, 17))
    for k in range(5):
        found, wanted = (state.member_state(stack, k) for stack in (second, whole))
        assert_near(found, wanted, 0 if began == goes_on else 1e-10)


@built
def test_a_summary_says_which_step_it_was(tmp_path: Any) -> None:
    configs = [make_config(epochs=1, step="torch"), make_config("optimizer=radam", epochs=1), make_config(epochs=1)]
    for number, (config, wanted) in enumerate(zip(configs, ("torch", "torch", "native"), strict=True)):
        (directory,) = record([config], tmp_path / str(number))
        assert summary(directory)["provenance"]["step"] == wanted


@pytest.mark.parametrize(
    ("choices", "values", "said"),
    [
        (("optimizer=radam",), {}, "the optimizer is RAdam, not one of SGD, Adam, AdamW, RMSprop, NAdam"),
        ((), {"loss.name": "huber"}, "the loss is huber, not one of auto, cross_entropy, mse"),
        (("model=cnn",), {}, "the model is no mlp"),
        (("problem=rosenbrock",), {}, "the model is no mlp"),
        ((), {"optimizer.maximize": True}, "the optimizer has the argument maximize"),
    ],
)
def test_what_it_does_not_serve_it_refuses_in_one_line(
    choices: tuple[str, ...], values: dict[str, Any], said: str
) -> None:
    assert choice.served([make_config(*choices, **values)], "cpu") == "torch"
    with pytest.raises(ConfigError) as caught:
        choice.served([make_config(*choices, step="native", **values)], "cpu")
    assert caught.value.problems == [f"step: native cannot serve this run: {said}; or try step=auto"]
    assert choice.note([make_config(*choices, **values)]) is None


def test_another_device_is_torchs() -> None:
    """On a GPU as CUDA graphs, but for code of the user's own, and where step=torch asks for plain steps."""
    assert choice.served([make_config()], "cuda") == "graph"
    assert choice.served([make_config("model=cnn", "optimizer=radam")], "cuda") == "graph"
    assert choice.served([make_config(step="torch")], "cuda") == "torch"
    assert choice.served([make_config(), make_config(**{"loss._target_": "my.loss"})], "cuda") == "torch"
    assert choice.served([make_config("problem=rosenbrock")], "cuda") == "torch"
    assert choice.served([make_config()], "mps") == "torch"
