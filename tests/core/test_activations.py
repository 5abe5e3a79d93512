"""What a look records, against the plain model and slow obvious loops."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers import make_config, run, small_data
from trainer.config import Activation
from trainer.core import losses, mlp, networks
from trainer.core.activations import PROBE_EXAMPLES, ActivationStatistics, input_statistics
from trainer.core.loop import measure_start
from trainer.core.own_module import UserModule
from trainer.core.stack import Stack

STEEPEST = {"relu": 1.0, "tanh": 1.0, "sigmoid": 0.25, "gelu": 1.0, "silu": 1.0}


def obvious(z_BF: Tensor, activation: str) -> dict[str, float]:
    """A unit at a time."""
    z_BF = z_BF.clone().requires_grad_()
    a_BF = mlp.ACTIVATIONS[activation]()(z_BF)
    (slope_BF,) = torch.autograd.grad(a_BF.sum(), z_BF)
    flat_BF = slope_BF.abs() < 0.05 * STEEPEST[activation]
    if activation in {"gelu", "silu"}:
        flat_BF &= z_BF < -2  # their slope also passes through zero at the minimum, on its way to the flat part
    spreads = [a_BF[:, unit].std(correction=0).item() for unit in range(a_BF.shape[1])]
    if activation in {"tanh", "sigmoid"}:
        flat = [column.double().mean().item() >= 0.9 for column in flat_BF.T]
    else:
        flat = [bool(column.all()) for column in flat_BF.T]
    return {
        "activation_mean": a_BF.mean().item(),
        "activation_spread": math.sqrt(sum(s**2 for s in spreads) / len(spreads)),
        "flat": sum(flat) / len(flat),
    }


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("size", [50, 300])  # fewer examples than a look takes, and more
def test_every_member_and_layer_against_a_loop(activation: str, size: int) -> None:
    values: dict[str, Any] = {"model.activation": activation, "model.width": 20, "model.init_scale": 12.0}
    values |= {"data.train_size": size, "model.bias_init": -1.0}
    configs = [make_config(seed=seed, **values) for seed in (1, 2, 3)]
    stack = Stack(configs, small_data())
    measure_start(stack)
    kind = "saturated_units" if activation in {"tanh", "sigmoid"} else "dead_units"
    shares = set()
    for k, (member, config) in enumerate(zip(stack.members, configs, strict=True)):
        plain = networks.predictor(stack.model, stack.model.member_state(k), config, stack.dataset)
        x = stack.dataset.x[member.split.train[:PROBE_EXAMPLES]]
        for i in range(2):
            z = plain.layers[2 * i](x)  # type: ignore[index]
            want = obvious(z.detach(), activation)
            assert member.start[f"activation_mean/layers.act{i}"] == pytest.approx(want["activation_mean"], rel=1e-9)
            found = member.start[f"activation_spread/layers.act{i}"]
            assert found == pytest.approx(want["activation_spread"], rel=1e-9)
            assert member.start[f"{kind}/layers.act{i}"] == want["flat"]
            shares.add(want["flat"])
            x = plain.layers[2 * i + 1](z)  # type: ignore[index]
    assert len(shares) > 1 or activation in {"gelu", "silu"}


class Twice(nn.Module):
    """A convolution, a module used twice, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 3, 3), nn.Linear(3 * 36, 10)
        self.act, self.idle = nn.ReLU(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.out(self.act(self.conv(x)).flatten(1)))


def test_a_module_of_the_users_own_by_channel_and_call() -> None:
    torch.manual_seed(0)
    network = Twice().double()
    with torch.no_grad():
        network.conv.bias.copy_(torch.tensor([-100.0, 0.0, 0.0]))  # type: ignore[union-attr]
    x = small_data().x[:40]
    hidden = network.conv(x.view(-1, 1, 8, 8)).relu()
    solo = UserModule(network, (1, 8, 8), 10)
    look = ActivationStatistics(solo)
    with torch.no_grad(), look.attached():
        solo(x[None])
    found = {tag: value.item() for tag, value in look.taken(torch.zeros(1)).items()}
    assert set(found) == {
        f"{k}/act{n}" for k in ("activation_mean", "activation_spread", "dead_units") for n in ("", " 2")
    }
    assert found["dead_units/act"] == pytest.approx(1 / 3)
    assert found["activation_mean/act"] == pytest.approx(hidden.mean().item())
    with torch.no_grad(), look.attached():
        pass
    assert math.isnan(look.taken(torch.zeros(1))["dead_units/act"].item())  # the columns stay, whatever is called


def test_predictions_and_inputs() -> None:
    log = run([make_config(epochs=2, **{"data.train_size": 100, "optimizer.lr": 0.01})], small_data())
    stack = Stack([make_config(**{"data.train_size": 100})], small_data())
    plain = networks.predictor(stack.model, log.states[0], stack.members[0].config, stack.dataset)
    predicted = plain(stack.dataset.x[stack.members[0].split.train]).argmax(1).tolist()
    assert log.rows[0][-1]["eval/top_class"] == max(predicted.count(c) for c in range(10)) / 100
    x = torch.tensor([[[1.0, 0.0, 5.0], [3.0, 0.0, 5.5], [5.0, 0.0, 6.0]]], dtype=torch.float64)
    found = {tag: value.item() for tag, value in input_statistics(x).items()}
    assert found["input_mean"] == pytest.approx(25.5 / 9)
    assert found["input_rms"] == pytest.approx(math.sqrt((1 + 9 + 25 + 25 + 5.5**2 + 36) / 9))
    assert found["input_feature_ratio"] == pytest.approx(4)  # of the two that vary: the lower one is the median


@pytest.mark.parametrize(("name", "smoothing"), [("auto", 0.0), ("auto", 0.2), ("mse", 0.0)])
def test_the_cost_of_guessing_is_that_of_the_best_constant(name: str, smoothing: float) -> None:
    """Against gradient descent on a constant output, and a network of zeros."""
    loss = make_config(**{"loss.name": name, "loss.label_smoothing": smoothing}).loss
    target = torch.tensor([[0, 0, 0, 1, 1, 2], [2, 2, 2, 2, 2, 2]])
    found = losses.chance_level(loss, target, 4)
    for k in range(2):
        constant = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([constant], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def cost(constant: Tensor = constant, k: int = k) -> Tensor:
            return losses.losses_KB(loss, constant.expand(1, 6, 4), target[k : k + 1]).mean()

        def closure(optimizer=optimizer, constant=constant, cost=cost):
            optimizer.zero_grad()
            value = cost()
            value.backward()
            return value

        assert found["expected_loss"][k].item() == pytest.approx(cost().item(), rel=1e-9)
        optimizer.step(closure)
        assert found["guessing_loss"][k].item() == pytest.approx(cost().item(), abs=1e-5)
    assert found["target_top_class"].tolist() == [0.5, 1]
    values = torch.tensor([[[1.0], [2.0], [6.0]]])
    found = losses.chance_level(loss, values, None)
    assert found["guessing_loss"].item() == pytest.approx(F.mse_loss(values, torch.full_like(values, 3)).item())
    assert found["expected_loss"].item() == pytest.approx(41 / 3)


def test_the_first_step_is_part_of_the_start() -> None:
    log = run([make_config("optimizer=sgd", epochs=1, **{"data.train_size": 100})], small_data())
    stack = Stack([make_config("optimizer=sgd", epochs=1, **{"data.train_size": 100})], small_data())
    measure_start(stack)
    start = stack.members[0].start
    assert start["weight_norm/layers.0.weight"] == stack.model.member_state(0)["layers.0.weight"].norm().item()
    first = log.starts[0]
    for name in stack.parameters:
        assert first[f"grad_norm/{name}"] == log.steps[0][0][f"grad_norm/{name}"]
        want = 0.1 * first[f"grad_norm/{name}"] / first[f"weight_norm/{name}"]
        assert first[f"update_ratio/{name}"] == pytest.approx(want, rel=1e-9)
