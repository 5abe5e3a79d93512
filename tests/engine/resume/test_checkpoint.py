"""Checkpoints: usable without this package, and all that training needs to go on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import make_config, record, run, small_data
from trainer.config import Config, from_dict
from trainer.core.data import load, split
from trainer.core.loop import train_step
from trainer.core.stack import Stack


def short(*choices: str, **values: Any) -> Config:
    return make_config(*choices, **({"epochs": 3, "data.train_size": 300, "model.width": 16} | values))


def load_both(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Best and last."""
    return tuple(torch.load(directory / "checkpoints" / f"{n}.pt", weights_only=True) for n in ("best", "last"))  # type: ignore[return-value]


def accuracy_by_plain_torch(checkpoint: dict[str, Any], raw: Tensor, target: Tensor) -> float:
    """What the README promises: a network built by hand, no line of this package, raw inputs."""
    norm = checkpoint["config"]["model"]["batchnorm"]
    layers: list[nn.Module] = []
    features = checkpoint["in_features"]
    for _ in range(checkpoint["config"]["model"]["depth"]):
        layers += [nn.Linear(features, 16, bias=not norm)] + [nn.BatchNorm1d(16)] * norm + [nn.ReLU()]
        features = 16
    network = nn.Sequential(*layers, nn.Linear(features, checkpoint["out_features"]))
    state = checkpoint["model"]
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    x = (raw - checkpoint["input"]["shift"]) / checkpoint["input"]["scale"]
    with torch.no_grad():
        return (network.eval()(x).argmax(1) == target).double().mean().item()


@pytest.mark.parametrize("values", [{}, {"model.dropout": 0.5}, {"model.batchnorm": True, "model.dropout": 0.2}])
def test_plain_torch_reproduces_the_recorded_accuracies(tmp_path: Path, values: dict[str, Any]) -> None:
    config = short(**values)
    (directory,) = record([config], tmp_path)
    raw = load(make_config(**{"data.normalisation": "none"}).data)
    rows = split(raw, config.data, config.seed)
    table = [line.split(",") for line in (directory / "metrics.csv").read_text().splitlines()]
    column = {name: [float(row[i]) for row in table[1:]] for i, name in enumerate(table[0])}
    best, last = load_both(directory)
    assert (best["epoch"], last["epoch"]) == (1 + column["val/loss"].index(min(column["val/loss"])), 3)
    for checkpoint in (best, last):
        for part, name in ((rows.val, "val/accuracy"), (rows.train, "eval/train_accuracy")):
            found = accuracy_by_plain_torch(checkpoint, raw.x[part], raw.y[part])
            assert found == column[name][checkpoint["epoch"] - 1]


def test_the_configuration_comes_back(tmp_path: Path) -> None:
    config = short("optimizer=sgd", "schedule=step", **{"clip_norm": 0.5, "model.depth": 2})
    (directory,) = record([config], tmp_path)
    for checkpoint in load_both(directory):
        assert from_dict(checkpoint["config"]) == config


def test_a_checkpoint_holds_no_more_than_its_own_member(tmp_path: Path) -> None:
    """A view of a stacked tensor would drag all members' storage into the file."""
    configs = [short(seed=s) for s in range(6)]
    together, (alone, *_) = record(configs, tmp_path / "six"), record(configs[:1], tmp_path / "one")
    for name in ("best", "last"):
        sizes = [(d / "checkpoints" / f"{name}.pt").stat().st_size for d in (together[0], alone)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        ((), {"model.dropout": 0.3, "model.input_dropout": 0.1, "model.batchnorm": True}),
        (("optimizer=sgd", "schedule=cosine"), {"optimizer.momentum": 0.9, "clip_norm": 0.3}),
    ],
)
def test_last_holds_all_that_training_needs_to_go_on(
    tmp_path: Path, choices: tuple[str, ...], values: dict[str, Any]
) -> None:
    """Put into a new stack, its next steps are those of a run that was never stopped, bit for bit."""
    config = short(*choices, step="torch", **values)  # which asks before every step whether to stop
    dataset = small_data("digits", torch.float32)
    polls = iter(range(99))
    (directory,) = record([config], tmp_path, stop=lambda: next(polls) >= 7)  # within the second epoch
    checkpoint = load_both(directory)[1]
    assert (checkpoint["step"], checkpoint["epoch"], checkpoint["epoch_step"]) == (7, 1, 2)

    stack = Stack([config], dataset)
    with torch.no_grad():
        stack.model.load_member_state(0, checkpoint["model"])
    stack.optimizers.load_member_states([checkpoint["optimizer"]])
    stack.members[0].order.resume(checkpoint["streams"]["order"])
    for key, noise in stack.model.noises.items():
        noise.load_member_states([checkpoint["streams"]["dropout"][key]])
    stack.step = checkpoint["step"]
    whole = run([config], dataset)
    reference = Stack([config], dataset)
    reference.next_order()
    reference.finish_epoch()
    second = stack.next_order()
    assert all(torch.equal(a, b) for a, b in zip(second, reference.next_order(), strict=True))
    for step, batch in enumerate(stack.batches[2:], 7):
        measured = train_step(stack, *second, [batch], measure=True)
        assert measured is not None
        got = dict(zip(stack.step_tags, measured[:, 0].tolist(), strict=True))
        assert got == {tag: whole.steps[0][step][tag] for tag in got}
    assert torch.equal(stack.next_order()[0], reference.next_order()[0])
