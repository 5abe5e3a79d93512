"""A loss of the user's own: the same run as by name, in a stack as alone; every mistake in one line before training."""

import re
from typing import Any

import pytest
import torch

from tests import own_functions
from tests.helpers import make_config, run, small_data
from trainer.config import ConfigError
from trainer.core.loop import check_functions
from trainer.core.stack import Stack

WHERE = r"\(.*tests/own_functions\.py, line \d+\)"
NUMBERS = "expected one number per example"
MISTAKES = {
    "scalar": rf"gives a tensor \(\), {NUMBERS}, \(64,\); leave out the mean or sum over the batch, reduction='none'",
    "matrix": rf"gives a tensor \(64, 10\), {NUMBERS}, \(64,\); take the mean over the outputs, \.mean\(1\)",
    "number": rf"gives float, {NUMBERS}, \(64,\)",
    "whole_numbers": rf"gives int64 on cpu, {NUMBERS}, \(64,\), float32 on cpu like the outputs",
    "raising": rf"fails on outputs \(64, 10\) and targets \(64,\): KeyError: 'nothing there' {WHERE}",
    "detached": r"gives a loss that no output takes part in; is there a detach, no_grad or argmax in it\?",
    "random": "gives another loss for the same outputs and targets",
    "in_place": "changes the outputs or targets that it is given; leave them",
}


def own(name: str, **values: Any) -> dict[str, Any]:
    return {"loss._target_": f"tests.own_functions.{name}", "model.width": 8, "data.train_size": 200, **values}


def refused(name: str) -> str:
    stack = Stack([make_config(**own(name), seed=s) for s in (0, 1)], small_data("digits", torch.float32))
    with pytest.raises(ConfigError) as error:
        check_functions(stack)
    (line,) = error.value.problems
    return line


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_told_before_training(name: str) -> None:
    found = refused(name)
    assert re.fullmatch(re.escape(f"loss._target_: tests.own_functions.{name} ") + MISTAKES[name], found), found


def test_an_example_stands_alone_and_backward_goes_through() -> None:
    mixing, no_backward = refused("mixing"), refused("no_backward")
    assert "the loss of an example depends on the others of its batch" in mixing
    assert re.search(f"the backward pass of .*no_backward fails: KeyError: 'nothing saved' {WHERE}", no_backward)


@pytest.mark.parametrize("name", ["entropy", "in_float32"])
def test_what_is_right_passes_and_moves_nothing(name: str) -> None:
    stack = Stack([make_config(**own(name), seed=s) for s in (0, 1)], small_data("digits", torch.float32))
    before = [stack.model.member_state(k) for k in range(2)]
    state = torch.get_rng_state()
    check_functions(stack)
    assert torch.equal(torch.get_rng_state(), state)
    assert stack.model.training
    torch.testing.assert_close([stack.model.member_state(k) for k in range(2)], before, rtol=0, atol=0)


def test_it_trains_as_the_same_loss_by_name_does_alone_and_in_a_stack() -> None:
    """In float64: sums of rows in another order."""
    data = small_data("digits")
    values = {"epochs": 3, "model.width": 8, "data.train_size": 200}
    ours = run([make_config(seed=s, **values) for s in (0, 1)], data)
    theirs = run([make_config(seed=s, **own("entropy"), epochs=3) for s in (0, 1)], data)
    for s in (0, 1):
        alone = run([make_config(seed=s, **own("entropy"), epochs=3)], data)
        torch.testing.assert_close(alone.states[0], theirs.states[s], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours.states[s], theirs.states[s], rtol=1e-9, atol=1e-11)
        assert theirs.rows[s][-1] == pytest.approx(ours.rows[s][-1], rel=1e-8)
        assert theirs.starts[s]["guessing_loss"] == pytest.approx(ours.starts[s]["guessing_loss"], rel=1e-6)


def test_values_as_targets_and_arguments_of_its_own() -> None:
    """The absolute error is twice the pinball loss at 0.5; the loss at the start, by a slow loop."""
    config = make_config("data=line", epochs=1, **{"loss._target_": "tests.own_functions.pinball", "loss.q": 0.5})
    log = run([config], small_data("line"))
    stack = Stack([config], small_data("line"))
    rows = stack.train_KN[0]
    output = stack.model(stack.gather(rows[None]))[0].detach()
    want = sum(abs(float(o) - float(y)) / 2 for o, y in zip(output, stack.dataset.y[rows], strict=True)) / len(rows)
    assert log.starts[0]["loss"] == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("harm", ["raise", "detach"])
def test_one_that_goes_wrong_later_says_so(harm: str) -> None:
    own_functions.CALLS[0] = 0
    config = make_config(**own("late", **{"loss.harm": harm, "data.batch_size": 36, "data.train_size": 144}))
    said = {"raise": "ValueError: too late", "detach": "gives a loss that no output takes part in"}
    with pytest.raises(ConfigError, match=said[harm]):
        run([config], small_data("digits", torch.float32))


def test_one_that_becomes_nan_ends_as_diverged() -> None:
    own_functions.CALLS[0] = 0
    config = make_config(**own("late", **{"loss.harm": "nan", "data.batch_size": 36, "data.train_size": 144}))
    log = run([config], small_data("digits", torch.float32))
    assert log.reasons == ["diverged"]
    assert len(log.rows[0]) == 8  # of four steps each
