"""Modules of the user's own that go wrong in everyday ways: a finding each, in words; sound ones have none."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from tests.helpers import make_config, record, summary
from trainer.core import data
from trainer.core.loop import measure_start
from trainer.core.stack import Stack
from trainer.record import own_module

pytestmark = pytest.mark.slow


class Sound(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(in_features, 16), nn.BatchNorm1d(16)
        self.dropout, self.out = nn.Dropout(0.2), nn.Linear(16, out_features)
        self.register_buffer("steps", torch.zeros(()))
        self.seen = 0  # that nothing depends on

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        if self.training:
            self.steps += 1
        return self.out(self.dropout(self.norm(self.hidden(x.flatten(1))))) * (1 + self.steps / 100)


class Closed(Sound):
    """A closure that names a variable which is never assigned."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        extra = False
        if extra:
            scale = 2.0
        self.last = lambda x: x * scale if extra else x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(super().forward(x))


class Logarithms(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).log_softmax(1)  # whose softmax is itself


class InAList(Sound):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.first = [nn.Linear(in_features, in_features)]
        self.scale = {"all": (torch.ones((), requires_grad=True),)}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.first[0](x.flatten(1))) * self.scale["all"][0]


class Counts(Sound):
    """Its own counter changes what it computes, whatever the mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (1 + self.seen)


class Trained(Sound):
    """What training leaves in an attribute changes what it computes."""

    mean = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1
        return super().forward(x) * (1 + self.mean)


class WarmsUp(Sound):
    """Only in training mode."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            return super().forward(x) * min(1.0, self.calls / 4)
        return super().forward(x)


class AlwaysDropout(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5))


class Softmaxed(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class SoftmaxedTwofold(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x).softmax(1)


class Drowned(nn.Sequential):
    def __init__(self, in_features: int, out_features: int) -> None:
        hidden = [part for _ in range(4) for part in (nn.Linear(in_features, in_features), nn.ReLU(), nn.Dropout(0.9))]
        super().__init__(nn.Flatten(), *hidden, nn.Linear(in_features, out_features))


class InAClosure(Sound):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        first = nn.Linear(in_features, in_features)
        self.first = lambda x: first(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.first(x))


class Squashed(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Rectified(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Bounded(Sound):
    """Tanh within the network, not at its end."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.hidden(x.flatten(1))).tanh())


class NormInEvaluation(Sound):
    def forward(self, x: Tensor) -> Tensor:
        self.norm.eval()
        return super().forward(x)


class LinearsFirst(nn.Module):
    """Registered in another order than they are used in: what comes first in the list is not what is lowest."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(16 if i else in_features, 16) for i in range(7))
        self.norms = nn.ModuleList(nn.BatchNorm1d(16) for _ in range(7))
        self.out = nn.Linear(16, out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = norm(linear(x)).relu()
        return self.out(x)


class RootOfNegative(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sqrt()


class Twice(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.norm(self.hidden(x.flatten(1)))))


NO_INPUT = "no input looked at brings them"
UNSAVED = "loaded into a new instance, its last weights give other outputs in"
FOUND = {
    "Sound": {},
    "Logarithms": {},
    "Closed": {},
    "InAList": {
        "unregistered_layers": "what stands there is in a list, tuple, dictionary or function of Python's, so PyTorch "
        "does not see it",
    },
    "InAClosure": {
        "unregistered_layers": "what stands there is in a list, tuple, dictionary or function of Python's, so PyTorch "
        "does not see it",
    },
    "Squashed": {"squashed_outputs": f"the outputs seem to end in sigmoid: {NO_INPUT} below 0 or above 1"},
    "Rectified": {"squashed_outputs": f"the outputs seem to end in ReLU: {NO_INPUT} below 0"},
    "Bounded": {},
    "LinearsFirst": {},
    "RootOfNegative": {
        "not_finite_at_start": "the very first numbers are wrong, before any training: train/loss is NaN or infinite"
    },
    "NormInEvaluation": {
        "norm_without_statistics": "batch norm that saw no batch in training mode hands its input on as it is"
    },
    "Counts": {
        "unsaved_state": "two evaluations of the same weights on the same examples, with the same random numbers, "
        "disagree: forward changes something"
    },
    "Trained": {"unsaved_state": f"{UNSAVED} evaluation mode: forward uses what no state_dict holds"},
    "WarmsUp": {"unsaved_state": f"{UNSAVED} training mode: forward uses what no state_dict holds"},
    "AlwaysDropout": {
        "random_evaluation": "with other random numbers, the same weights give other outputs in evaluation mode"
    },
    "Softmaxed": {"softmax_twice": "the outputs are probabilities, whose cross-entropy cannot fall below 1.461"},
    "SoftmaxedTwofold": {
        "softmax_twice": "the outputs are 2 times probabilities, whose cross-entropy cannot fall below 0.7966"
    },
}
ALL = {name for found in FOUND.values() for name in found} | {"vanishing_gradients", "learning_rate_too_high"}


@pytest.mark.parametrize("name", FOUND)
def test_each_has_its_finding(name: str, tmp_path: Path) -> None:
    own = {"model._target_": f"tests.record.test_own_module.{name}", "data.train_size": 200, "record.pictures": False}
    config = make_config("model=custom", epochs=3, **own)
    (run,) = record([config], tmp_path)
    found = {one["finding"]: one for one in summary(run)["health"] if one["finding"] in ALL}
    assert {key: one["sentence"] for key, one in found.items()} == FOUND[name]
    assert {one["where"] for one in found.values()} == WHERE.get(name, set())


def test_dropout_layers_that_drown_the_signal_are_what_is_wrong(tmp_path: Path) -> None:
    own = {"model._target_": "tests.record.test_own_module.Drowned", "data.train_size": 400, "data.batch_size": 32}
    (run,) = record([make_config("model=custom", epochs=10, **own, **{"record.pictures": False})], tmp_path)
    (found,) = summary(run)["health"]
    assert found["finding"] == "dropout_too_high"
    assert found["evidence"] == {"noise": pytest.approx(0.1**-4 - 1, rel=1e-5)}


@pytest.mark.parametrize(("name", "names"), [("Sound", []), ("Twice", ["norm"])])
def test_a_layer_that_is_used_twice_is_noted(name: str, names: list[str]) -> None:
    config = make_config("model=custom", **{"model._target_": f"tests.record.test_own_module.{name}"})
    stack = Stack([config], data.load(config.data))
    measure_start(stack)
    why = "used more than once in a forward pass, with the same weights each time (a slip, unless it is meant so)"
    assert own_module.shared(stack) == [f"{name}: {one}: {why}" for one in names]


@pytest.mark.parametrize("shape", [(5,), (2, 7), (1, 4, 4), (5, 4, 4), (3, 4, 4), (2, 3, 4, 4)])
def test_examples_of_any_shape_reach_the_module_as_they_are(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Sequences, pictures of any number of channels, volumes: recorded to the end, pictures drawn where they can be."""
    rng = np.random.default_rng(0)
    x, test_x = (rng.normal(3, 2, (n, *shape)).astype(np.float32) for n in (60, 20))
    y, test_y = np.arange(60) % 3, np.arange(20) % 3
    config = make_config("model=custom", epochs=2, **{"model._target_": "tests.record.test_own_module.Shown"})
    dataset = data.assemble(config.data, x, y, test_x, test_y)
    Shown.shapes.clear()
    (run,) = record([config], tmp_path, dataset)
    assert {one[1:] for one in Shown.shapes} == {shape}
    assert summary(run)["status"] == "completed"
    board = EventAccumulator(str(run))
    board.Reload()
    assert ("test/most_confidently_wrong" in board.Tags()["images"]) == (len(shape) == 3 and shape[0] in (1, 3))
    torch.testing.assert_close(dataset.x.mean(0), torch.zeros(x[0].size), rtol=0, atol=0.5)
    together = dataset.x.view(60, -1).double() if len(shape) != 3 else dataset.x.view(60, shape[0], -1).double()
    mean = together.mean((0, *range(2, together.ndim)))
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-6)


class Shown(Sound):
    shapes: ClassVar[set[torch.Size]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.add(x.shape)
        return super().forward(x)


WHERE = {
    "InAList": {"first[0], scale[all][0]"},
    "InAClosure": {"first[first]"},
    "Squashed": {"outputs"},
    "Rectified": {"outputs"},
    "NormInEvaluation": {"norm"},
    "RootOfNegative": {"train/loss"},
    "Counts": {"seen"},
    "Trained": {"seen, mean"},
    "WarmsUp": {"seen, calls"},
    "AlwaysDropout": {""},
    "Softmaxed": {"outputs"},
    "SoftmaxedTwofold": {"outputs"},
}
