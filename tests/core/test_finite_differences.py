"""Gradients against differences: right ones pass, kinks included; a wrong one is found and named."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.core.finite_differences import TOLERANCE, check_gradients


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
    return network, lambda: F.cross_entropy(network(x), y)


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
    assert all(check.agrees for check in checks.values()), checks
    assert max(check.error for check in checks.values()) < TOLERANCE
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_kink_is_no_mistake() -> None:
    """All pre-activations of the first layer exactly 0: autograd says slope 0, the central difference 1/2."""
    network, loss = problem(nn.ReLU, bias=0.0)
    with torch.no_grad():
        network[0].weight.zero_()
        network[2].bias.fill_(0.1)
    checks = check_gradients(loss, dict(network.named_parameters()), coordinates=1000)
    assert all(check.agrees for check in checks.values()), checks


@pytest.mark.parametrize(("units", "coordinates"), [(8, 2), (1, 2)])
def test_a_wrong_backward_is_found_in_what_lies_below_it(units: int, coordinates: int) -> None:
    """1 % too much slope of one unit of eight: two random coordinates miss it, the random direction does not."""

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Wrong.apply(x, units)  # type: ignore[return-value]

    network, loss = problem(nn.Tanh)
    network[3] = Layer()
    checks = check_gradients(loss, dict(network.named_parameters()), coordinates=coordinates)
    wrong = {name for name, check in checks.items() if not check.agrees}
    assert {"2.weight", "2.bias"} <= wrong
    assert not {"4.weight", "4.bias"} & wrong
    check = checks["2.weight"]
    assert check.coordinate[0] < units
    assert check.gradient == pytest.approx(network_gradient(network, loss)["2.weight"][check.coordinate].item())
    assert check.difference == pytest.approx(check.gradient / 1.01, rel=1e-3)


def network_gradient(network: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    names = [name for name, _ in network.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss(), list(network.parameters())), strict=True))


def test_given_gradients_are_checked_and_none_means_zero() -> None:
    network, loss = problem(nn.Tanh)
    gradients: dict[str, Tensor | None] = dict(network_gradient(network, loss))
    gradients["2.bias"] = None
    gradients["4.weight"] = torch.full_like(network[4].weight, float("nan"))
    checks = check_gradients(loss, dict(network.named_parameters()), gradients)
    assert [name for name, check in checks.items() if not check.agrees] == ["2.bias", "4.weight"]


def test_what_has_no_differences_is_refused() -> None:
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="not the same twice"):
        check_gradients(lambda: (weight * torch.rand(2, dtype=torch.float64)).sum(), {"w": weight})
    with pytest.raises(ValueError, match="the loss is nan"):
        check_gradients(lambda: (weight * float("nan")).sum(), {"w": weight})
