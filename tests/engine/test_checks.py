"""Checks: what fits and is right passes, what cannot fit or is wrong is named; the run stays the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers import Cli, make_config, small_data
from trainer.config import Config, ConfigError
from trainer.core.stack import Stack
from trainer.engine import checks

MODULES = """
import torch
from torch import nn

class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1
    @staticmethod
    def backward(ctx, grad):
        return 0.9 * grad

class Net(nn.Module):
    def __init__(self, out_features, wrong=False, constant=False, noisy=False):
        super().__init__()
        self.hidden, self.drop, self.out = nn.Linear(64, 12), nn.Dropout(0.3), nn.Linear(12, out_features)
        self.norm = nn.BatchNorm1d(12)
        self.wrong, self.constant, self.noisy = wrong, constant, noisy
    def forward(self, x):
        h = self.hidden(x.flatten(1))
        h = torch.relu(self.norm(Wrong.apply(h) if self.wrong else h))
        y = self.out(self.drop(h))
        if self.noisy:
            y = y + len(noise)
            noise.append(0)
            y = y * (1 + 0.001 * len(noise))
        return y * 0 + self.out.bias if self.constant else y

noise = []
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(MODULES)
    monkeypatch.syspath_prepend(tmp_path)


def own(**arguments: Any) -> Config:
    values = {f"model.{key}": value for key, value in arguments.items()}
    return make_config("model=custom", **{"model._target_": "my_models.Net", "data.train_size": 50}, **values)


@pytest.mark.parametrize(
    "values",
    [
        {"model.dropout": 0.5, "data.label_noise": 0.2},
        {"model.batchnorm": True, "loss.label_smoothing": 0.1},
        pytest.param({"model.activation": "sigmoid", "optimizer.lr": 0.01}, marks=pytest.mark.slow),
        pytest.param({"loss.name": "mse"}, marks=pytest.mark.slow),
    ],
)
def test_a_sound_network_fits_a_batch_and_has_right_gradients(values: dict[str, Any]) -> None:
    config = make_config(**{"data.train_size": 100, "model.width": 24} | values)
    data = small_data("digits", torch.float32)
    assert checks.one_batch([config], data) == [None]
    assert checks.wrong_gradients(config, data) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_a_deep_network_with_batch_norm_are_right(seed: int) -> None:
    """They are so large that differences along a step of 1e-5 bend."""
    deep = {"data.train_size": 100, "model.width": 16, "model.depth": 30, "model.batchnorm": True, "seed": seed}
    assert checks.wrong_gradients(make_config(**deep), small_data("digits", torch.float32)) == []


def test_a_regression_fits_a_batch_of_its_line() -> None:
    config = make_config("data=line", **{"model.depth": 1, "data.batch_size": 8, "data.noise": 0.01})
    assert checks.one_batch([config], small_data("line", torch.float32)) == [None]
    assert checks.wrong_gradients(config, small_data("line", torch.float32)) == []


def test_who_of_a_stack_cannot_fit_a_batch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ONE_BATCH_STEPS", 150)
    configs = [make_config(**{"data.train_size": 100, "optimizer.lr": lr}) for lr in (1e-3, 1e-7, 0.0)]
    fits, slow, still = checks.one_batch(configs, small_data("digits", torch.float32))
    assert fits is None
    for finding in (slow, still):
        assert finding is not None
        assert (finding.finding, finding.step) == ("one_batch", 0)
        assert finding.evidence["lowest_loss"] > 2
        assert " the loss was never below 2." in finding.sentence
        assert "guessing costs 2.2" in finding.sentence


@pytest.mark.usefixtures("modules")
def test_modules_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ONE_BATCH_STEPS", 60)
    data = small_data("digits", torch.float32)
    assert checks.wrong_gradients(own(), data) == []
    wrong = checks.wrong_gradients(own(wrong=True), data)
    assert {finding.where for finding in wrong} == {"hidden.weight"}  # batch norm takes the bias's gradient away
    (finding,) = wrong
    assert finding.evidence["error"] == pytest.approx(0.1, rel=0.01)
    assert "hidden.weight[" in finding.sentence
    (finding,) = checks.one_batch([own(constant=True)], data)
    assert finding is not None
    with pytest.raises(ConfigError, match=r"check\.gradients: the loss is not the same twice"):
        checks.wrong_gradients(own(noisy=True), data)


@pytest.mark.usefixtures("modules")
def test_a_check_leaves_the_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, and the global stream that a module's own dropout draws from."""
    monkeypatch.setattr(checks, "ONE_BATCH_STEPS", 20)
    for config in (own(), make_config(**{"data.train_size": 50, "model.dropout": 0.5})):
        asked = [make_checked(config, asked) for asked in (False, True)]
        states, numbers = [], []
        for one in asked:
            stack = Stack([one], small_data("digits", torch.float32))
            checks.check(stack)
            states.append(stack.model.member_state(0))
            numbers.append(torch.rand(3).tolist() if isinstance(stack.model, nn.Module) else None)
            assert stack.step == 0
            assert stack.next_order()[0].shape == (1, 50)
        torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
        assert numbers[0] == numbers[1] or not hasattr(config.model, "_target_")


def make_checked(config: Config, asked: bool) -> Config:
    import dataclasses

    return dataclasses.replace(config, check=dataclasses.replace(config.check, one_batch=asked, gradients=asked))


def test_from_the_command_line(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "my_models.py").write_text(MODULES)
    line = "model=custom model._target_=my_models.Net epochs=1 data.train_size=50 record.pictures=false"
    code, out, err = cli(f"{line} +model.wrong=true check.gradients=true check.one_batch=true hydra.run.dir=a")
    assert (code, err) == (0, "")
    assert "wrong gradient (hidden.weight, from the start): at hidden.weight[" in out
    found = json.loads((tmp_path / "a/summary.json").read_text())["health"]
    assert [one["finding"] for one in found] == ["wrong_gradient"]
    code, _, err = cli(f"{line} +model.noisy=true check.gradients=true hydra.run.dir=b")
    assert code == 2
    assert "check.gradients: the loss is not the same twice" in err


@pytest.mark.usefixtures("modules")
def test_a_small_module_of_the_users_own_is_checked_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ONE_BATCH_STEPS", 200)

    def found(config: Config) -> list[str]:
        return [one.finding for one in checks.check(Stack([config], small_data("digits", torch.float32)))[0]]

    assert found(own()) == []
    assert found(own(noisy=True)) == []  # it cannot be checked, and nobody asked
    assert found(own(wrong=True)) == ["wrong_gradient"]
    assert found(own(constant=True)) == ["one_batch"]
    assert found(make_checked(own(wrong=True), asked=False)) == []
    assert found(make_config(**{"data.train_size": 50, "optimizer.lr": 0.0})) == []
    monkeypatch.setattr(checks, "SMALL", (40, 500))
    assert found(own(wrong=True)) == []
