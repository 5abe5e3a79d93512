"""Gradients against differences: right ones pass, kinks included; a wrong one is found and named."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.core.finite_differences import TOLERANCE, check, check_gradients


def problem(
    activation: Callable[[], nn.Module], bias: float | None = None
) -> tuple[nn.Sequential, Callable[[], Tensor]]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3)).double()
    x, y = torch.randn(16, 5, dtype=torch.float64), torch.randint(3, (16,))
    x[:, 0] = 0
    if bias is not None:
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(parameter, bias)
    return network, lambda: F.cross_entropy(network(x), y, reduction="none") / len(x)


class Wrong(torch.autograd.Function):
    """tanh, whose backward is that of another function for the first units."""

    @staticmethod
    def forward(ctx, x, units):
        ctx.save_for_backward(x)
        ctx.units = units
        return x.tanh()

    @staticmethod
    def backward(ctx, grad):
        slope = 1 - ctx.saved_tensors[0].tanh() ** 2
        slope[:, : ctx.units] *= 1.01
        return grad * slope, None


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU, nn.LeakyReLU])
def test_right_gradients_agree_and_the_parameters_are_put_back(activation: type[nn.Module]) -> None:
    network, loss = problem(activation)
    before = [p.clone() for p in network.parameters()]
    checks = check_gradients(loss, dict(network.named_parameters()))
    assert list(checks) == [name for name, _ in network.named_parameters()]
    assert all(check.ok for check in checks.values()), checks
    assert max(check.error for check in checks.values()) < TOLERANCE
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_kink_is_no_mistake() -> None:
    """All pre-activations of the first layer exactly 0: autograd says slope 0, the central difference 1/2."""
    network, loss = problem(nn.ReLU, bias=0.0)
    with torch.no_grad():
        network[0].weight.zero_()
        network[2].bias.fill_(0.1)
    checks = check_gradients(loss, dict(network.named_parameters()), coordinates=1000)
    assert all(check.ok for check in checks.values()), checks


@pytest.mark.parametrize(("units", "coordinates"), [(8, 2), (1, 2)])
def test_a_wrong_backward_is_found_in_what_lies_below_it(units: int, coordinates: int) -> None:
    """1 % too much slope of one unit of eight: two random coordinates miss it, the random direction does not."""

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Wrong.apply(x, units)  # type: ignore[return-value]

    network, loss = problem(nn.Tanh)
    network[3] = Layer()
    checks = check_gradients(loss, dict(network.named_parameters()), coordinates=coordinates)
    wrong = {name for name, check in checks.items() if not check.ok}
    assert {"2.weight", "2.bias"} <= wrong
    assert not {"4.weight", "4.bias"} & wrong
    check = checks["2.weight"]
    assert check.worst[0] < units
    assert check.gradient == pytest.approx(network_gradient(network, loss)["2.weight"][check.worst].item())
    assert check.difference == pytest.approx(check.gradient / 1.01, rel=1e-3)


def network_gradient(network: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    names = [name for name, _ in network.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss().sum(), list(network.parameters())), strict=True))


@pytest.mark.parametrize("wrong", [0.0, float("nan")])
def test_a_gradient_that_is_zero_or_no_number_is_wrong(wrong: float) -> None:
    network, loss = problem(nn.Tanh)
    weight = network[4].weight
    assert check(loss, weight, network_gradient(network, loss)["4.weight"]).ok
    assert not check(loss, weight, torch.full_like(weight, wrong)).ok


def test_what_has_no_differences_is_refused() -> None:
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="not the same twice"):
        check_gradients(lambda: (weight * torch.rand(2, dtype=torch.float64)).sum(), {"w": weight})
    with pytest.raises(ValueError, match="the loss is nan"):
        check_gradients(lambda: (weight * float("nan")).sum(), {"w": weight})


@pytest.mark.parametrize(("gradient", "ok"), [(0.5, True), (0.0, True), (1.0, True), (-0.01, False), (1.01, False)])
def test_any_slope_between_the_two_sides_of_a_kink_is_right(gradient: float, ok: bool) -> None:
    at_the_kink = torch.zeros(1, dtype=torch.float64)
    assert check(at_the_kink.relu, at_the_kink, torch.full((1,), gradient)).ok == ok
    beside_it = torch.full((1,), 3e-6, dtype=torch.float64)
    assert check(beside_it.relu, beside_it, torch.full((1,), gradient)).ok == (gradient == 1)


def test_examples_that_a_coordinate_does_not_reach_add_no_rounding() -> None:
    """A million examples of loss 1 would hide a gradient of 1e-12 in rounding of 1e-4."""
    x = torch.zeros(1, dtype=torch.float64)
    ones = torch.ones(1_000_000, dtype=torch.float64)

    def losses() -> Tensor:
        return torch.cat([ones, 1e-6 * x])

    assert check(losses, x, torch.full((1,), 1e-6, dtype=torch.float64)).difference == pytest.approx(1e-6, rel=1e-9)


def test_slopes_of_several_units_at_their_kinks_may_leave_the_interval() -> None:
    """autograd says 0 at 0, where the sides have slopes 1 and 3: two kinks, the caller may forgive."""
    x = torch.zeros(1, dtype=torch.float64)
    found = check(lambda: x.relu() - 3 * (-x).relu(), x, torch.zeros(1, dtype=torch.float64))
    assert found.kink
    assert not found.ok


@pytest.mark.parametrize(("claimed", "blamed"), [(3.0, False), (8.0, True)])
def test_differences_that_depend_on_the_step_blame_nobody_near_to_them(claimed: float, blamed: bool) -> None:
    """x + 1e-5 sin(2e5 x) has slope 3 at 0; over 1e-5 it looks like 1.9, over 3e-5 like 0.9."""
    x = torch.zeros(1, dtype=torch.float64)
    found = check(lambda: x + 1e-5 * (2e5 * x).sin(), x, torch.full((1,), claimed, dtype=torch.float64))
    assert (not found.ok and not found.kink) == blamed


@pytest.mark.parametrize(("wrong", "ok"), [(0.0, True), (1e-3, False), (math.nan, False)])
def test_one_wrong_coordinate_of_many_is_found_where_it_is_the_largest(wrong: float, ok: bool) -> None:
    x = torch.linspace(-1, 1, 500, dtype=torch.float64)
    gradient = x.cos()
    gradient[250] += wrong
    found = check(x.sin, x, gradient, coordinates=19)
    assert 19 <= found.checked <= 21  # with the largest, and where the random direction leads
    assert found.ok == ok
    assert ok or found.worst == (250,)
    assert torch.equal(x, torch.linspace(-1, 1, 500, dtype=torch.float64))  # moved, and put back bit for bit
