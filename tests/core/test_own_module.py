"""Networks of the user's own: as they are, in stacks of one."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from tests.helpers import make_config
from trainer.config import ConfigError, CustomModel
from trainer.core.optimizers import MemberOptimizers
from trainer.core.own_calls import KINDS
from trainer.core.own_module import UserModule, build
from trainer.core.schedules import lr_schedule

EXPECTED = KINDS["model"].words


CLOSE = {"rtol": 1e-11, "atol": 1e-11}


class Net(nn.Module):
    """All that is awkward: convolution, batch norm, dropout, tied weights, a scalar, a parameter nobody uses."""

    def __init__(self, out_features: int, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.3)
        self.encode = nn.Linear(channels * 16, 8)
        self.again = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.again.weight
        self.transposed = nn.Parameter(torch.randn(8, 8) / 3)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.full((8,), 0.5), requires_grad=False)
        self.decode = nn.Linear(8, out_features)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))
        h = self.tied(torch.tanh(self.again(h))) * self.frozen
        h = h @ self.transposed.t() @ self.transposed.permute(1, 0)
        return self.decode(h) * self.scale


class Wrong(nn.Module):
    def __init__(self, reduce: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.reduce = reduce

    def forward(self, x: Tensor) -> Any:
        return self.reduce(self.layer(x))


def test_a_module_of_ones_own_trains_as_it_would_without_us() -> None:
    """20 steps of Adam against plain torch, dropout masks from the same global stream. Tolerance as for optimizers."""
    torch.manual_seed(0)
    own = Net(4).double()
    torch.manual_seed(0)
    solo = UserModule(Net(4).double(), (1, 4, 4), 4)
    names = list(solo.stacked_parameters())
    assert names == [name for name, p in own.named_parameters() if p.requires_grad]
    adam = torch.optim.Adam(own.parameters(), lr=0.01)
    config = make_config(**{"optimizer.lr": 0.01}).optimizer
    stacked = MemberOptimizers(solo.stacked_parameters(), [config], [lr_schedule(make_config().schedule, 1, 20)])
    x = torch.randn(20, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step in range(20):
        torch.manual_seed(step)
        adam.zero_grad()
        expected = own(x[step].view(5, 1, 4, 4))
        expected.square().sum().backward()
        adam.step()
        torch.manual_seed(step)
        y = solo(x[step][None])
        torch.testing.assert_close(y[0], expected, rtol=1e-9, atol=1e-9)
        parameters = list(solo.stacked_parameters().values())
        stacked.step(step, torch.autograd.grad(y.square().sum(), parameters, allow_unused=True))
    state = solo.member_state(0)
    assert list(state) == list(own.state_dict())
    for name, want in own.state_dict().items():
        torch.testing.assert_close(state[name], want, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    assert not torch.equal(state["again.weight"], Net(4).double().state_dict()["again.weight"])


def test_a_module_of_ones_own_predicts_from_a_state() -> None:
    torch.manual_seed(0)
    module = Net(4).double()
    solo = UserModule(module, (1, 4, 4), 4)
    x = torch.randn(6, 16, dtype=torch.float64)
    solo(x[None])
    state = solo.member_state(0)
    plain_net = Net(4).double()
    plain_net.load_state_dict(state)
    with torch.no_grad():
        for p in solo.parameters():
            p.mul_(2)
    y = solo.predictor(state)(x)
    torch.testing.assert_close(y, plain_net.eval()(x.view(6, 1, 4, 4)), **CLOSE)


def custom(target: str, **arguments: Any) -> UserModule:
    return UserModule(build(CustomModel(_target_=target, arguments=arguments), (1, 4, 4), 4, seed=0), (1, 4, 4), 4)


def test_custom_fills_in_sizes_and_starts_from_its_seed() -> None:
    first, second = (
        custom("tests.core.test_own_module.Net", channels=2),
        custom("tests.core.test_own_module.Net", channels=2),
    )
    assert first.member_state(0)["decode.weight"].shape == (4, 8)
    torch.testing.assert_close(first.member_state(0), second.member_state(0), rtol=0, atol=0)


@pytest.mark.parametrize("colours", [1, 3])
def test_a_network_of_torchvision_is_torchvisions_own(colours: int) -> None:
    """Its in-place activations and buffers too: loss, gradients and running statistics of a step in training mode."""
    shape = (colours, 8, 8)
    config = CustomModel(_target_="torchvision.models.resnet18", arguments={"zero_init_residual": True})
    stack = UserModule(build(config, shape, 7, seed=3).double(), shape, 7)
    theirs = models.resnet18(num_classes=7, zero_init_residual=True).double()
    theirs.load_state_dict(stack.member_state(0))
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, expected = stack(x.flatten(1)[None])[0], theirs(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(y, expected, **CLOSE)
    parameters = stack.stacked_parameters()
    gradients = stack.gradients(y.square().sum(), list(parameters.values()))
    expected.square().sum().backward()
    for gradient, (name, parameter) in zip(gradients, theirs.named_parameters(), strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient[0], parameter.grad, msg=name, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(stack.member_state(0), theirs.state_dict(), **CLOSE)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        (
            "nowhere.Net",
            {},
            "model._target_: cannot import nowhere.Net: ModuleNotFoundError: No module named 'nowhere'; "
            "expected module.Class, importable from this folder",
        ),
        (
            "Net",
            {},
            "model._target_: found Net, expected module.Class, importable from this folder, e.g. my_models.Net",
        ),
        (
            "builtins.dict",
            {"a": 1},
            f"model._target_: builtins.dict is of Python's standard library; expected {EXPECTED}",
        ),
        (
            "subprocess.call",
            {},
            f"model._target_: subprocess.call is of Python's standard library; expected {EXPECTED}",
        ),
        ("numpy.pi", {}, f"model._target_: numpy.pi is a value, float; expected {EXPECTED}"),
        ("numpy.ndarray", {}, f"model._target_: numpy.ndarray is no torch.nn.Module; expected {EXPECTED}"),
        ("torch.nn.Identity", {}, "model._target_: torch.nn.Identity has no parameters to train"),
        (
            "tests.core.test_own_module.Net",
            {"width": 3},
            "model.width: Net has no such argument; choose from channels, out_features",
        ),
    ],
)
def test_custom_refusals(target: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        custom(target, **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("reduce", "found"),
    [
        (lambda y: y.sum(), "()"),
        (lambda y: y.sum(1), "(5,)"),
        (lambda y: y[:3], "(3, 2)"),
        (lambda y: y[:, :1], "(5, 1)"),
        (lambda y: y[None], "(1, 5, 2)"),
        (lambda y: (y, y), "tuple"),
    ],
)
def test_an_output_of_the_wrong_shape_is_named(reduce: Any, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        UserModule(Wrong(reduce), (2,), 2)(torch.zeros(1, 5, 2))
    line = inspect.getsourcelines(Wrong.forward)[1]
    assert str(caught.value) == (
        f"model._target_: the output of Wrong is {found}, expected a tensor (5, 2): one row per example, "
        f"one column per class or output ({__file__}, line {line})"
    )
