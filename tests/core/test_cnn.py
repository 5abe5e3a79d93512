"""The convolutional network: torch's own layers in the order that is said, its initial weights, what it refuses."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers import make_config, run, small_data
from trainer.config import Cnn, Config, ConfigError
from trainer.core.networks import plain, predictor
from trainer.core.stack import Stack


def config(**values: Any) -> Config:
    return make_config("model=cnn", **({"data.train_size": 100, "epochs": 2, "model.channels": [4, 6]} | values))


def by_hand(x: Tensor, state: dict[str, Tensor], batchnorm: bool, pooling: str) -> Tensor:
    """Two blocks for 8 x 8 pixels in evaluation mode: the convolution as a product with every window of pixels."""
    for i in range(2):
        weight = state[f"layers.{i}.weight"]
        windows = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (B, C, H, W, 3, 3)
        x = torch.einsum("bchwij,ocij->bohw", windows, weight)
        if batchnorm:
            mean, var, scale, shift = (
                state[f"layers.norm{i}.{name}"][:, None, None]
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / (var + 1e-5).sqrt() * scale + shift
        else:
            x = x + state[f"layers.{i}.bias"][:, None, None]
        x = x.clamp(min=0)
        if pooling != "none":
            squares = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
            x = squares.amax(4) if pooling == "max" else squares.mean(4)
    return x.flatten(1) @ state["layers.2.weight"].T + state["layers.2.bias"]


@pytest.mark.parametrize("pooling", ["max", "mean", "none"])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_it_computes_what_it_says(batchnorm: bool, pooling: str) -> None:
    values = {"model.batchnorm": batchnorm, "model.pooling": pooling, "model.dropout": 0.3}
    dataset = small_data()
    log = run([config(**values)], dataset)  # so that no weight, mean or variance is as it was built
    network = plain(config(**values).model, 64, 10, dataset.shape).double().eval()  # type: ignore[arg-type]
    network.load_state_dict(log.states[0])
    x = dataset.test_x
    expected = by_hand(x.view(-1, 1, 8, 8), log.states[0], batchnorm, pooling)
    torch.testing.assert_close(network(x), expected)
    stack = Stack([config(**values)], dataset)
    again = predictor(stack.model, log.states[0], config(**values), dataset)
    torch.testing.assert_close(again(x), expected)
    assert log.rows[0][-1]["eval/train_loss"] < log.rows[0][0]["eval/train_loss"]


def hashes(**values: Any) -> dict[str, str]:
    return Stack([config(**values)], small_data()).members[0].init_hashes


def test_weights_of_equal_shape_start_equal_whatever_stands_between() -> None:
    first = hashes()
    for change in (
        {"model.dropout": 0.5},
        {"model.pooling": "mean"},
        {"model.batchnorm": True},
        {"model.activation": "tanh"},
    ):
        other = hashes(**change)
        same = {name for name in first.keys() & other.keys() if first[name] == other[name]}
        assert same >= {f"layers.{i}.weight" for i in range(3)} | {"layers.2.bias"}
    assert not set(first.values()) & set(hashes(seed=1).values())
    wider = hashes(**{"model.channels": [4, 5]})
    assert first["layers.0.weight"] == wider["layers.0.weight"]


@pytest.mark.parametrize(
    ("init", "spread"),
    [
        ("default", 1 / math.sqrt(3 * 36)),  # U(-b, b) has the standard deviation b / sqrt(3), b = 1 / sqrt(fan_in)
        ("he_normal", math.sqrt(2 / 36)),
        ("glorot_normal", math.sqrt(2 / (36 + 900))),
        ("normal", 0.01),
    ],
)
def test_initial_weights_have_the_spread_of_their_distribution(init: str, spread: float) -> None:
    """Of the second convolution: 4 channels in, 100 out, windows of 3 x 3 pixels; 3,600 weights."""
    stack = Stack([config(**{"model.channels": [4, 100], "model.init": init})], small_data())
    weight = stack.model.member_state(0)["layers.1.weight"]
    assert weight.std().item() == pytest.approx(spread, rel=0.05)
    assert abs(weight.mean().item()) < 0.05 * spread


def test_nothing_recorded_leaves_the_same_weights() -> None:
    values = {"model.dropout": 0.3, "model.batchnorm": True}
    a, b = (run([config(**values)], small_data(), every).states[0] for every in (0, 1))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_pictures_without_a_channel_are_grey() -> None:
    model = config().model
    assert isinstance(model, Cnn)
    assert plain(model, 64, 10, (8, 8))(torch.zeros(2, 64)).shape == (2, 10)


NEEDS = "model: cnn is for pictures of shape (channels, height, width)"


@pytest.mark.parametrize(
    ("values", "shape", "said"),
    [
        ({}, (2,), f"{NEEDS}; an example here is (2,); try model=mlp"),
        ({}, (3, 4, 4, 4), f"{NEEDS}; an example here is (3, 4, 4, 4); try model=mlp"),
        (
            {"model.depth": 4, "model.channels": 4},
            (1, 8, 9),
            "model.depth: pictures of 8 x 9 are one pixel after 3 poolings; try model.depth=3, or model.pooling=none",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_refused(values: dict[str, Any], shape: tuple[int, ...], said: str) -> None:
    model = config(**values).model
    assert isinstance(model, Cnn)
    with pytest.raises(ConfigError) as caught:
        plain(model, math.prod(shape), 10, shape)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model.kernel": 4}, "model.kernel: found 4, expected an odd number; try 5"),
        ({"model.pooling": "avg"}, "model.pooling: found avg, expected one of max, mean, none"),
        (
            {"model.channels": [4]},
            "model.channels: found 1 numbers for model.depth=2 convolutions, expected one a layer; try model.depth=1, "
            "or one number for all",
        ),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert str(caught.value) == said
