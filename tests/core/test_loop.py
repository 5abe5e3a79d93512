"""The loop's promises: alone or together the same run, controlled comparisons, budgets, stopping, divergence.

Float64. Tolerance 1e-9 where a stack is compared with its members alone: batched products sum in another order, and a
few hundred steps amplify the 1e-16 of each.
"""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers import Log, make_config, run, small_data
from trainer.config import Config, ConfigError
from trainer.core import networks
from trainer.core.data import EpochOrder, split
from trainer.core.loop import evaluate, measure_start, train_step
from trainer.core.stack import Stack
from trainer.record import provenance

Choice = tuple[tuple[str, ...], dict[str, Any]]
MIXED: list[Choice] = [  # of optimizers, dropout, schedules, clipping, noise, init, seeds, budgets, early stopping
    (("optimizer=sgd",), {"seed": 1, "optimizer.momentum": 0.9, "clip_norm": 0.5}),
    ((), {"seed": 2, "model.dropout": 0.4, "model.input_dropout": 0.1}),
    (
        ("optimizer=adamw", "schedule=cosine"),
        {"optimizer.decay": "weights", "schedule.warmup": 2},
    ),
    (("optimizer=rmsprop", "schedule=step"), {"seed": 3, "model.init": "he_normal", "schedule.step_size": 5}),
    (("optimizer=nadam",), {"seed": 4, "data.label_noise": 0.3, "model.input_dropout": 0.3}),
    (("schedule=cosine",), {"seed": 2, "clip_norm": 0.01, "early_stopping.patience": 3}),
    (("schedule=cosine",), {"seed": 2, "epochs": 7}),
    ((), {"seed": 2, "model.dropout": 0.9, "optimizer.lr": 0.3, "early_stopping.patience": 2}),
    (("optimizer=sgd",), {"optimizer.lr": 1e150, "seed": 5}),  # NaN within two steps
]
BATCHNORM: list[dict[str, Any]] = [
    {},
    {"model.batchnorm": True},
    {"model.batchnorm": True, "model.batchnorm_position": "after"},
]


def spirals(*choices: str, **values: Any) -> Config:
    """160 examples, 5 steps an epoch."""
    small = {"data.train_size": 160, "data.batch_size": 32, "model.width": 12}
    return make_config("data=spirals", *choices, **(small | values))


def assert_same_run(together: Log, place: int, alone: Log) -> None:
    """All that is recorded and all that is learned, to 1e-9."""
    near = {"rel": 1e-9, "abs": 1e-9, "nan_ok": True}
    assert together.reasons[place] == alone.reasons[0]
    assert together.best[place] == alone.best[0]
    assert together.rows[place] == [pytest.approx(row, **near) for row in alone.rows[0]]
    tags = alone.steps[0][0].keys()
    assert [{tag: step[tag] for tag in tags} for step in together.steps[place]] == [
        pytest.approx(step, **near) for step in alone.steps[0]
    ]
    assert together.starts[place] == pytest.approx(alone.starts[0], **near)
    torch.testing.assert_close(together.states[place], alone.states[0], rtol=1e-9, atol=1e-9, equal_nan=True)


def assert_like_alone(configs: list[Config]) -> Log:
    together = run(configs, small_data("spirals"))
    for place, config in enumerate(configs):
        assert_same_run(together, place, run([config], small_data("spirals")))
    return together


@pytest.mark.parametrize("batchnorm", BATCHNORM[:2])  # the third: in the property tests
def test_every_member_of_a_mixed_stack_is_the_run_alone_over_200_steps(batchnorm: dict[str, Any]) -> None:
    log = assert_like_alone([spirals(*choices, **({"epochs": 40} | values | batchnorm)) for choices, values in MIXED])
    assert len(log.steps[0]) == 200
    assert set(log.reasons) == {"budget", "early_stopping", "diverged"}  # members left at several times


@settings(max_examples=10, deadline=None)
@given(
    order=st.lists(st.sampled_from(MIXED), min_size=2, max_size=5),
    batchnorm=st.sampled_from(BATCHNORM),
    epochs=st.integers(1, 8),
)
def test_members_in_any_order_and_company(order: list[Choice], batchnorm: dict[str, Any], epochs: int) -> None:
    assert_like_alone([spirals(*choices, **({"epochs": epochs} | values | batchnorm)) for choices, values in order])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(order=st.permutations(MIXED), batchnorm=st.sampled_from(BATCHNORM))
def test_members_in_any_order_over_200_steps(order: list[Choice], batchnorm: dict[str, Any]) -> None:
    assert_like_alone([spirals(*choices, **({"epochs": 40} | values | batchnorm)) for choices, values in order])


def test_a_diverging_member_leaves_and_harms_no_other() -> None:
    healthy, bad = spirals(epochs=6), spirals("optimizer=sgd", epochs=6, **{"optimizer.lr": 1e150})
    log = assert_like_alone([healthy, bad, healthy])
    assert log.reasons == ["budget", "diverged", "budget"]
    assert len(log.rows[1]) < 6
    assert not math.isfinite(log.rows[1][-1]["eval/train_loss"])
    assert all(math.isfinite(v) for row in log.rows[0] + log.rows[2] for v in row.values())


def test_members_with_fewer_epochs_leave_the_others_at_work() -> None:
    budgets = [2, 5, 1, 5, 3]
    log = assert_like_alone([spirals("schedule=cosine", epochs=n, seed=n) for n in budgets])
    assert [len(rows) for rows in log.rows] == budgets


# ------------------------------------------------------------------ against a loop anybody can read


@pytest.mark.parametrize(
    "values", [{}, {"model.batchnorm": True}, {"data.drop_last": True, "loss.label_smoothing": 0.1}]
)
def test_the_loop_is_the_textbook_loop(values: dict[str, Any]) -> None:
    """nn.Sequential, torch.optim.AdamW, clip_grad_norm_, CosineAnnealingLR: three epochs of digits."""
    config = make_config(
        "optimizer=adamw", "schedule=cosine", epochs=3, clip_norm=0.7, **({"data.train_size": 300} | values)
    )
    dataset = small_data()
    log = run([config], dataset)

    rows = split(dataset, config.data, config.seed)
    network = networks.plain(config.model, 64, 10, ()).double()
    network.load_state_dict(Stack([config], dataset).model.member_state(0))
    criterion = nn.CrossEntropyLoss(label_smoothing=config.loss.label_smoothing)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=0.01)
    steps_per_epoch = 4 if config.data.drop_last else 5
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3 * steps_per_epoch)
    order = EpochOrder(300, config.seed, shuffle=True)
    losses, norms = [], []
    for row in log.rows[0]:
        network.train()
        for batch in order.next().split(64):
            if len(batch) < 64 and config.data.drop_last:
                continue
            chosen = rows.train[batch]
            optimizer.zero_grad()
            loss = criterion(network(dataset.x[chosen]), dataset.y[chosen])
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(network.parameters(), 0.7).item())
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        network.eval()
        with torch.no_grad():
            for part, name in ((rows.train, "eval/train_"), (rows.val, "val/")):
                output, target = network(dataset.x[part]), dataset.y[part]
                assert row[f"{name}loss"] == pytest.approx(criterion(output, target).item(), rel=1e-10)
                assert row[f"{name}accuracy"] == (output.argmax(1) == target).double().mean().item()
    assert [step["train/loss"] for step in log.steps[0]] == pytest.approx(losses, rel=1e-10)
    assert [step["grad_norm/total"] for step in log.steps[0]] == pytest.approx(norms, rel=1e-9)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(log.states[0][name], value, rtol=1e-9, atol=1e-11)
    for name, value in network.named_parameters():
        assert log.rows[0][-1][f"weight_norm/{name}"] == pytest.approx(value.norm().item(), rel=1e-10)


GOLDEN = {
    2: [  # by provenance.RESULTS: a new version for new values, and the old ones are dropped
        (1.5860483797305642, 1.6278954536423031),
        (0.9339370065625102, 1.0047491854995247),
        (0.6366878692255256, 0.7126829896683671),
    ]
}


def test_golden_values() -> None:
    """The default run, three epochs in float64. A change of these numbers changes everybody's results: say why.

    Relative tolerance 1e-7: the order of sums differs between processors.
    """
    log = run([make_config(epochs=3, **{"model.dropout": 0.2, "model.batchnorm": True})], small_data())
    found = [(row["eval/train_loss"], row["val/loss"]) for row in log.rows[0]]
    assert found == [pytest.approx(pair, rel=1e-7) for pair in GOLDEN[provenance.RESULTS]]


# ------------------------------------------------------------------ controlled comparisons


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer.lr": 0.1},
        {"model.dropout": 0.5},
        {"model.input_dropout": 0.5},
        {"model.batchnorm": True},
        {"model.activation": "tanh"},
        {"model.depth": 3},
        {"clip_norm": 0.1},
        {"loss.label_smoothing": 0.1},
        {"schedule.warmup": 1.0},
        {"data.label_noise": 0.5},
        {"accumulate": 2},
    ],
)
def test_what_does_not_concern_data_or_init_leaves_them_alone(change: dict[str, Any]) -> None:
    base, other = (Stack([spirals(seed=3, **c)], small_data("spirals")) for c in ({}, change))
    a, b = base.members[0], other.members[0]
    assert torch.equal(a.split.train, b.split.train)
    assert torch.equal(a.split.val, b.split.val)
    if "data.label_noise" not in change:
        assert a.split.hash == b.split.hash
    for _ in range(2):
        assert torch.equal(base.next_order()[0], other.next_order()[0])
    assert a.order_hash == b.order_hash
    same = {n for n in a.init_hashes if a.init_hashes[n] == b.init_hashes.get(n)}
    assert {"layers.0.weight", "layers.1.weight"} <= same
    if "model.depth" not in change:  # which gives the name of the output layer to a hidden one
        assert {n for n in a.init_hashes if n in b.init_hashes} == same


def test_another_seed_changes_split_order_and_init() -> None:
    a, b = (Stack([spirals(seed=s)], small_data("spirals")) for s in (0, 1))
    a.next_order(), b.next_order()
    assert a.members[0].split.hash != b.members[0].split.hash
    assert a.members[0].order_hash != b.members[0].order_hash
    assert not set(a.members[0].init_hashes.values()) & set(b.members[0].init_hashes.values())


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.3}])
def test_looking_changes_nothing(clip: dict[str, Any]) -> None:
    configs = [spirals(epochs=3, seed=s, **{"model.dropout": 0.3, "model.batchnorm": True}, **clip) for s in (0, 1)]
    every_step, some, none = (run(configs, small_data("spirals", torch.float32), every=n) for n in (1, 7, 0))
    assert [s["step"] for s in some.steps[0]] == [1, 5, 7, 10, 14, 15]
    assert none.steps == [[], []]
    for log in (some, none):
        for got, want in zip(log.states, every_step.states, strict=True):
            assert all(torch.equal(got[name], want[name]) for name in want)
        assert log.rows == every_step.rows
        assert log.starts == every_step.starts


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_look_changes_no_bit_and_draws_no_number(activation: str) -> None:
    """Against a stack that is never looked at; dropout and batch norm have something to lose."""
    values = {"model.dropout": 0.3, "model.batchnorm": True, "model.activation": activation}
    configs = [spirals(seed=s, **values) for s in (0, 1)]
    stacks = [Stack(configs, small_data("spirals", torch.float32)) for _ in range(2)]
    states = []
    for stack, looks in zip(stacks, (True, False), strict=True):
        for _ in range(3):
            rows, target = stack.next_order()
            if looks:
                measure_start(stack)
            for batch in stack.batches:
                train_step(stack, rows, target, [batch], measure=looks)
            if looks:
                evaluate(stack, stack.train_KN, stack.train_y_KN, probe=True)
        states.append([stack.model.member_state(k) for k in range(2)])
        assert all(module.training for module in stack.model.modules())
        assert not any(module._forward_hooks for module in stack.model.modules())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


# ------------------------------------------------------------------ budgets


def test_accumulated_batches_are_one_big_batch() -> None:
    """Also the last step of an epoch, of fewer batches and a smaller one. Sums in another order: 1e-11."""
    shared = {"data.train_size": 150, "epochs": 4, "clip_norm": 0.5}
    big = run([spirals(**shared, **{"data.batch_size": 32})], small_data("spirals"))
    small = run([spirals(**shared, **{"data.batch_size": 8, "accumulate": 4})], small_data("spirals"))
    assert len(big.steps[0]) == len(small.steps[0]) == 20
    for a, b in zip(big.steps[0], small.steps[0], strict=True):
        assert a == pytest.approx(b, rel=1e-11, abs=1e-12)
    torch.testing.assert_close(big.states, small.states, rtol=1e-11, atol=1e-11)


def test_a_budget_in_steps_ends_within_an_epoch() -> None:
    log = run([spirals("schedule=cosine", steps=7)], small_data("spirals"), every=3)
    assert [(row["epoch"], row["step"]) for row in log.rows[0]] == [(1, 5), (2, 7)]
    assert [s["step"] for s in log.steps[0]] == [1, 3, 5, 6, 7]  # first, every third, the last of each epoch
    assert log.steps[0][-1]["lr"] == pytest.approx(0.001 * (1 + math.cos(math.pi * 6 / 7)) / 2, rel=1e-12)
    assert log.reasons == ["budget"]
    longer = run([spirals(steps=400)], small_data("spirals"), every=0)  # more than epochs says: steps is the budget
    assert longer.rows[0][-1]["step"] == 400


def test_stop_is_asked_before_every_step_of_torch_and_ends_all_members() -> None:
    """The native step is asked before every call, of some 20 ms."""
    asked = itertools.count(1)
    configs = [spirals(seed=s, step="torch") for s in (0, 1)]
    log = run(configs, small_data("spirals"), stop=lambda: next(asked) > 8)
    assert log.reasons == ["interrupt", "interrupt"]
    assert [s["step"] for s in log.steps[0]] == list(range(1, 9))
    assert len(log.rows[0]) == 1


def test_update_ratio_is_that_of_the_epochs_last_step() -> None:
    """With plain SGD: lr * |gradient| / |weight before|."""
    log = run([spirals("optimizer=sgd", epochs=2)], small_data("spirals"))
    before = run([spirals("optimizer=sgd", steps=9)], small_data("spirals"))
    last = log.steps[0][-1]
    for name, value in before.states[0].items():
        want = 0.1 * last[f"grad_norm/{name}"] / value.norm().item()
        assert log.rows[0][-1][f"update_ratio/{name}"] == pytest.approx(want, rel=1e-9)


def test_without_a_validation_split_the_last_epoch_is_the_best() -> None:
    log = run([spirals(epochs=4, **{"data.val_fraction": 0.0})], small_data("spirals"))
    assert not [tag for tag in log.rows[0][0] if tag.startswith("val/")]
    assert log.best == [4]


def test_regression_has_no_accuracy_and_recovers_the_line() -> None:
    config = make_config("experiment=linear_regression", epochs=60)
    log = run([config], small_data("line"))
    assert not [tag for tag in {**log.rows[0][0], **log.steps[0][0]} if "accuracy" in tag]
    state = log.states[0]  # noise 0.1 over 64 examples: 5 standard errors
    assert state["layers.0.weight"].item() == pytest.approx(2, abs=5 * 0.1 / math.sqrt(64 / 3))
    assert state["layers.0.bias"].item() == pytest.approx(1, abs=5 * 0.1 / 8)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("train_size", "batch", "hint"),
    [
        (33, 32, "try data.drop_last=true, or another data.batch_size"),
        (10, 1, "try more examples a batch"),
        (1, 8, "try more examples a batch"),
    ],
)
def test_batch_norm_of_a_single_example_is_refused(train_size: int, batch: int, hint: str) -> None:
    values = {"data.train_size": train_size, "data.batch_size": batch, "model.batchnorm": True, "epochs": 1}
    with pytest.raises(ConfigError) as caught:
        Stack([spirals(**values)], small_data("spirals"))
    assert str(caught.value) == (
        f"data.batch_size: {train_size} training examples in batches of {batch} leave a batch of one example, which "
        f"model.batchnorm=true cannot normalise; {hint}"
    )
    for harmless in ({"model.batchnorm": False}, {"model.depth": 0}):
        assert run([spirals(**(values | harmless))], small_data("spirals")).reasons == ["budget"]
