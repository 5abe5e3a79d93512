"""Stacked networks against plain torch.nn modules, one a member: values, gradients, init, dropout, state.

Tolerance 1e-11 in float64 unless said otherwise: both sides sum the same few hundred terms, in other orders.
"""

import itertools
import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.helpers import make_config
from trainer import config as cfg
from trainer.config import Activation
from trainer.core.dropout import DropoutNoise, StackedDropout
from trainer.core.mlp import Mlp
from trainer.core.networks import plain

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-11, "atol": 1e-11}
BATCHNORM = [{}, {"batchnorm": True}, {"batchnorm": True, "batchnorm_position": "after"}]


def mlp(**values: Any) -> cfg.Mlp:
    """Two hidden layers of 6 and 5 units, but for what is said."""
    small: dict[str, Any] = {"depth": 2, "width": [6, 5]} | values
    chosen = make_config(**{f"model.{key}": value for key, value in small.items()}).model
    assert isinstance(chosen, cfg.Mlp)
    return chosen


class Masked(nn.Module):
    """Dropout with the mask that one member's own stream gives: the oracle of StackedDropout."""

    def __init__(self, rate: float, noise: DropoutNoise) -> None:
        super().__init__()
        self.rate, self.noise = round(rate * 2**16) / 2**16, noise
        self.scale = torch.tensor(1 / (1 - self.rate), dtype=torch.float32).item()  # kept in 32 bits

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        uniform = (self.noise.take(x.numel()).view(x.shape[1], x.shape[0]).t().double() + 2**15) / 2**16
        return torch.where(uniform >= self.rate, x * self.scale, 0)


def by_hand(c: cfg.Mlp, seed: int, sizes: tuple[int, int]) -> nn.Sequential:
    """The documented network, written out: linear, batch norm, activation, dropout."""
    noise = {key: DropoutNoise([seed], CPU, key) for key in ("dropout", "input_dropout")}
    activation = getattr(nn, {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}.get(c.activation, "Tanh"))
    activation = nn.Sigmoid if c.activation == "sigmoid" else activation
    parts: list[nn.Module] = [Masked(c.input_dropout, noise["input_dropout"])] if c.input_dropout else []
    features = sizes[0]
    before, after = c.batchnorm and c.batchnorm_position == "before", c.batchnorm_position == "after"
    for width in c.widths:
        parts.append(nn.Linear(features, width, bias=not before))
        parts += [nn.BatchNorm1d(width)] if before else []
        parts.append(activation())
        parts += [nn.BatchNorm1d(width)] if c.batchnorm and after else []
        parts += [Masked(c.dropout, noise["dropout"])] if c.dropout else []
        features = width
    return nn.Sequential(*parts, nn.Linear(features, sizes[1])).double()


def load_in_order(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Hand-made networks name their layers otherwise; the order of their tensors is the same."""
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))


def stack_of(configs: list[cfg.Mlp], seeds: list[int], sizes: tuple[int, int] = (7, 3)) -> Mlp:
    network = Mlp(configs, seeds, *sizes).double()
    with torch.no_grad():  # batch norm that starts at one and zero would hide a mix-up
        generator = torch.Generator().manual_seed(5)
        for name, value in network.state_dict().items():
            if "norm" in name and value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
    return network


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("batchnorm", BATCHNORM)
@pytest.mark.parametrize("dropout", [{}, {"dropout": 0.3}, {"input_dropout": 0.2, "dropout": 0.6}])
def test_every_layer_kind_gives_values_gradients_and_statistics_of_plain_modules(
    activation: str, batchnorm: dict[str, Any], dropout: dict[str, float]
) -> None:
    c = mlp(activation=activation, **batchnorm, **dropout)
    seeds = [3, 8]
    stacked = stack_of([c, c], seeds)
    alone = [by_hand(c, seed, (7, 3)) for seed in seeds]
    for k, network in enumerate(alone):
        load_in_order(network, stacked.member_state(k))
    x = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for training in (True, True, False):
        stacked.train(training)
        y = stacked(x)
        gradients = torch.autograd.grad(y.pow(3).sum(), list(stacked.parameters()))
        for k, network in enumerate(alone):
            network.train(training)
            expected = network(x[k])
            torch.testing.assert_close(y[k], expected, **CLOSE)
            own = torch.autograd.grad(expected.pow(3).sum(), list(network.parameters()))
            for got, want in zip(gradients, own, strict=True):
                torch.testing.assert_close(got[k], want, **CLOSE)
            for got, want in zip(stacked.member_state(k).values(), network.state_dict().values(), strict=True):
                torch.testing.assert_close(got, want, **CLOSE)  # running statistics too


@pytest.mark.parametrize("c", [mlp(depth=0, width=4), mlp(depth=50, width=2), mlp(depth=1, width=[1])])
def test_every_depth(c: cfg.Mlp) -> None:
    stacked = stack_of([c], [0])
    network = by_hand(c, 0, (7, 3))
    load_in_order(network, stacked.member_state(0))
    x = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stacked(x[None])[0], network(x), **CLOSE)


@pytest.mark.parametrize("batchnorm", BATCHNORM)
def test_the_plain_model_loads_a_members_state_and_equals_it(batchnorm: dict[str, Any]) -> None:
    c = mlp(dropout=0.5, input_dropout=0.1, **batchnorm)
    stacked = stack_of([c] * 3, [0, 1, 2])
    x = torch.randn(3, 20, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stacked(x)  # moves the running statistics
    stacked.eval()
    for k in range(3):
        network = plain(c, 7, 3, ()).double()
        network.load_state_dict(stacked.member_state(k))
        torch.testing.assert_close(stacked(x)[k], network.eval()(x[k]), **CLOSE)
        assert {type(part).__module__.split(".")[0] for part in network.modules()} == {"torch"}


def test_no_bias_feeds_batch_norm() -> None:
    names = set(stack_of([mlp(batchnorm=True)], [0]).stacked_parameters())
    assert {"layers.0.bias", "layers.1.bias"}.isdisjoint(names)
    assert {"layers.2.bias", "layers.norm0.weight", "layers.norm1.bias"} <= names


# ------------------------------------------------------------------ dropout


@pytest.mark.parametrize("rate", [0.0, 1e-4, 0.1, 0.5, 0.9, 0.9999])
def test_dropout_keeps_the_rate_and_the_expectation(rate: float) -> None:
    """n = 2^20 draws; bound: 5 standard deviations of a binomial, sqrt(p (1 - p) / n), and the rounding to 2^-16."""
    n = 2**20
    dropout = StackedDropout([rate], DropoutNoise([11], CPU))
    y = dropout(torch.ones(1, 1024, n // 1024, dtype=torch.float64))
    dropped = (y == 0).double().mean().item()
    assert abs(dropped - rate) <= 5 * math.sqrt(rate * (1 - rate) / n) + 2**-17
    used = round(rate * 2**16) / 2**16
    kept = y[y != 0]
    # the scale is kept in 32 bits: relative error at most 2^-24
    assert kept.unique().tolist() == [pytest.approx(1 / (1 - used), rel=2**-23)]


def test_dropout_draws_are_uniform_and_independent() -> None:
    """Chi-squared over 256 cells (255 degrees, sd 22.6) and correlations between neighbours, members and refills."""
    noise = DropoutNoise([0, 1], CPU)
    draws = torch.cat([noise.take(2**16) for _ in range(8)], 1).double()  # 4 refills
    n = draws.shape[1]
    for member in draws:
        counts = torch.histc(member, 256, -(2**15), 2**15)
        chi2 = ((counts - n / 256).square() / (n / 256)).sum().item()
        assert abs(chi2 - 255) < 5 * math.sqrt(2 * 255)
    pairs = [(draws[0], draws[1])] + [(draws[0, lag:], draws[0, :-lag]) for lag in (1, 2, 4, 64, 2**16, 2**17)]
    for a, b in pairs:
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / math.sqrt(len(a))


@settings(max_examples=40, deadline=None)
@given(
    members=st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.7]), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 99)),
        min_size=1,
        max_size=4,
    ),
    batches=st.lists(st.integers(2, 40), min_size=1, max_size=6),
)
def test_a_member_draws_the_same_masks_alone_and_in_any_company(
    members: list[tuple[float, float, int]], batches: list[int]
) -> None:
    """Rates of input and hidden layers, zero among them, in any mixture and order; refills in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DropoutNoise, "CAPACITY", 1024)
        configs = [mlp(dropout=hidden, input_dropout=first) for first, hidden, _ in members]
        seeds = [seed for _, _, seed in members]
        together = stack_of(configs, seeds)
        alone = [stack_of([c], [seed]) for c, seed in zip(configs, seeds, strict=True)]
        generator = torch.Generator().manual_seed(0)
        for size in batches:
            x = torch.randn(len(members), size, 7, generator=generator, dtype=torch.float64)
            y = together(x)
            for k, network in enumerate(alone):
                torch.testing.assert_close(y[k : k + 1], network(x[k : k + 1]), **CLOSE)


@pytest.mark.parametrize("taken", [[], [3], [1000, 2**17 - 1000], [2**17, 5], [2**18 + 2, 7]])
def test_noise_state_round_trip(taken: list[int]) -> None:
    noise = DropoutNoise([4, 5], CPU)
    for n in taken:
        noise.take(n)
    states = [noise.member_state(k) for k in range(2)]
    other = DropoutNoise([0, 1], CPU)
    other.take(99)
    other.load_member_states(states)
    for n in (10, 2**17, 3):
        assert torch.equal(noise.take(n), other.take(n))


def test_members_of_one_seed_read_the_same_numbers_drawn_once() -> None:
    seeds = [1, 2, None, 1, 2, 1]
    noise = DropoutNoise(seeds, CPU)
    alone = {seed: DropoutNoise([seed], CPU) for seed in seeds}

    def reads_its_own(seeds: list[int | None]) -> None:
        own = {seed: stream.take(24)[0] for seed, stream in alone.items()}
        assert torch.equal(noise.take(24), torch.stack([own[seed] for seed in seeds]))

    reads_its_own(seeds)
    assert noise.buffer.shape[0] == len(noise.generators) == 3
    noise.select([4, 5, 3])
    reads_its_own([2, 1, 1])
    assert noise.buffer.shape[0] == len(noise.generators) == 2
    states = [noise.member_state(k) for k in range(3)]
    noise = DropoutNoise([8, 9, 9], CPU)
    noise.load_member_states(states)
    reads_its_own([2, 1, 1])


def test_noise_of_selected_members_goes_on_past_the_buffer_and_is_saved() -> None:
    full, chosen = DropoutNoise([1, 2, 3], CPU), DropoutNoise([1, 2, 3], CPU)
    full.take(100)
    chosen.take(100)
    chosen.select([2, 0])
    again = DropoutNoise([8, 9], CPU)
    again.load_member_states([chosen.member_state(0), chosen.member_state(1)])
    for n in (50, 2**17, 9):
        want = full.take(n)[[2, 0]]
        assert torch.equal(chosen.take(n), want)
        assert torch.equal(again.take(n), want)


# ------------------------------------------------------------------ init

FAN_IN, FAN_OUT = 300, 200
INITS = [
    ("default", {}, "uniform", 1 / math.sqrt(3 * FAN_IN)),
    ("glorot_uniform", {}, "uniform", math.sqrt(2 / (FAN_IN + FAN_OUT))),
    ("glorot_normal", {}, "normal", math.sqrt(2 / (FAN_IN + FAN_OUT))),
    ("he_uniform", {}, "uniform", math.sqrt(2 / FAN_IN)),
    ("he_normal", {}, "normal", math.sqrt(2 / FAN_IN)),
    ("normal", {"init_std": 0.3}, "normal", 0.3),
    ("default", {"init_scale": 2.5}, "uniform", 2.5 / math.sqrt(3 * FAN_IN)),
    ("he_normal", {"init_scale": 0.5}, "normal", 0.5 * math.sqrt(2 / FAN_IN)),
]


@pytest.mark.parametrize(("init", "values", "shape", "std"), INITS)
def test_moments_of_every_init(init: str, values: dict[str, float], shape: str, std: float) -> None:
    """60,000 weights: mean, standard deviation and kurtosis to 5 of their own standard deviations."""
    c = mlp(depth=1, width=FAN_OUT, init=init, **values)
    weight = Mlp([c, c], [0, 1], FAN_IN, 10).member_state(1)["layers.0.weight"].double()
    n = weight.numel()
    assert abs(weight.mean()) < 5 * std / math.sqrt(n)
    assert abs(weight.std() / std - 1) < 5 / math.sqrt(2 * n)
    kurtosis = (weight / std).pow(4).mean().item()
    assert abs(kurtosis - {"uniform": 1.8, "normal": 3.0}[shape]) < 5 * math.sqrt(96 / n)
    if shape == "uniform":
        assert 0.999 < weight.abs().max() / (math.sqrt(3) * std) <= 1.000001


@pytest.mark.parametrize("bias_init", [None, 0.25])
def test_biases(bias_init: float | None) -> None:
    state = Mlp([mlp(depth=1, width=4000, bias_init=bias_init)], [0], 16, 3).member_state(0)
    bias = state["layers.0.bias"]
    if bias_init is not None:
        assert (bias == bias_init).all()
        return
    torch_default = nn.Linear(16, 4000).bias.abs().max()  # both fill U(-1/4, 1/4)
    assert bias.abs().max() == pytest.approx(torch_default.item(), abs=0.002)
    assert bias.abs().max() <= 0.25
    assert abs(bias.mean()) < 5 * 0.25 / math.sqrt(3 * 4000)
    assert state["layers.1.bias"].abs().max() <= 1 / math.sqrt(4000)


CONTROLLED = [
    {"dropout": 0.5},
    {"input_dropout": 0.2},
    {"batchnorm": True},
    {"batchnorm": True, "batchnorm_position": "after"},
    {"activation": "gelu"},
    {"depth": 3, "width": [6, 5, 5]},
    {"bias_init": 0.0},
]


@pytest.mark.parametrize("change", CONTROLLED)
def test_same_seed_same_weights_wherever_name_and_shape_match(change: dict[str, Any]) -> None:
    base = Mlp([mlp()], [7], 7, 3).member_state(0)
    other = Mlp([mlp(**change)], [7], 7, 3).member_state(0)
    common = [n for n in base if n in other and base[n].shape == other[n].shape and n.endswith("weight")]
    assert {"layers.0.weight", "layers.1.weight"} <= set(common)
    for name in common:
        assert torch.equal(base[name], other[name]), name
    different_seed = Mlp([mlp(**change)], [8], 7, 3).member_state(0)
    assert not torch.equal(different_seed["layers.0.weight"], base["layers.0.weight"])


def test_no_two_parameters_start_from_the_same_numbers() -> None:
    state = Mlp([mlp(depth=3, width=8)], [7], 8, 8).member_state(0)
    starts = [tuple((value / value.abs().max()).flatten()[:8].tolist()) for value in state.values()]
    assert len(set(starts)) == len(starts) == 8


def test_init_does_not_depend_on_the_stack_or_the_global_generator() -> None:
    c = mlp()
    torch.manual_seed(1)
    alone = Mlp([c], [7], 7, 3).member_state(0)
    torch.manual_seed(2)
    position = torch.get_rng_state()
    third = Mlp([mlp(init="he_normal"), mlp(init_scale=3.0), c], [1, 7, 7], 7, 3).member_state(2)
    assert torch.equal(position, torch.get_rng_state())
    for name in alone:
        assert torch.equal(alone[name], third[name])


# ------------------------------------------------------------------ select, state


@pytest.mark.parametrize("keep", [[0], [2, 0], [1, 2], [2, 1, 0]])
def test_select_keeps_members_in_order_masks_included(keep: list[int]) -> None:
    configs = [mlp(dropout=p, batchnorm=True) for p in (0.2, 0.0, 0.6)]
    full, chosen = stack_of(configs, [1, 2, 3]), stack_of(configs, [1, 2, 3])
    x = torch.randn(3, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    full(x)
    chosen(x)
    chosen.select(keep)
    assert all(p.requires_grad and p.is_leaf for p in chosen.parameters())
    for _ in range(2):
        torch.testing.assert_close(chosen(x[keep]), full(x)[keep], **CLOSE)
    for place, k in enumerate(keep):
        torch.testing.assert_close(chosen.member_state(place), full.member_state(k), **CLOSE)


def test_member_state_round_trip() -> None:
    configs = [mlp(batchnorm=True)] * 2
    a, b = stack_of(configs, [1, 2]), stack_of(configs, [3, 4])
    state = a.member_state(1)
    untouched = b.member_state(1)
    b.load_member_state(0, state)
    torch.testing.assert_close(b.member_state(0), state, rtol=0, atol=0)
    torch.testing.assert_close(b.member_state(1), untouched, rtol=0, atol=0)
    state["layers.0.weight"].zero_()
    assert b.member_state(0)["layers.0.weight"].abs().sum() > 0  # a copy


def test_members_of_other_shapes_do_not_share_a_stack() -> None:
    for a, b in itertools.combinations([mlp(), mlp(depth=1, width=6), mlp(batchnorm=True), mlp(activation="tanh")], 2):
        with pytest.raises(AssertionError, match="one shape"):
            Mlp([a, b], [0, 1], 7, 3)
