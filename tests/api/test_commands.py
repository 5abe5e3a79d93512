"""trainer.run and trainer.sweep: the same bits as the command line, the same isolation, one message for mistakes."""

import itertools
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import trainer
from tests.helpers import Cli, trainer_in
from trainer import ConfigError
from trainer.api import objects
from trainer.cli.config_files import CONF

MODELS = """
import os
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, out_features, width=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, width), nn.Tanh(), nn.Linear(width, out_features)
        )

    def forward(self, x):
        return self.layers(x)


class Raises(Net):
    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps > 60:
                raise ValueError("no more")
        return self.layers(x)


class Dies(Net):
    def forward(self, x):
        os.kill(os.getpid(), 9)
"""
SMALL = "epochs=3 model.depth=1 model.width=8 record.pictures=false"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_models", "outputs"):
        sys.modules.pop(name, None)


def command_line(line: str, folder: Path) -> None:
    """Run `python -m trainer`."""
    assert trainer_in(folder, *shlex.split(line)).returncode == 0


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(160, 4))
    return x, (x[:, 0] > x[:, 1]).astype(int)


def results(run: Path) -> tuple[bytes, bytes]:
    return (run / "metrics.csv").read_bytes(), (run / "checkpoints" / "last.pt").read_bytes()


def test_a_run_is_the_command_lines_own(folder: Path, cli: Cli) -> None:
    assert cli(f"{SMALL} seed=3 optimizer=sgd hydra.run.dir=typed")[0] == 0
    run = trainer.run(f"{SMALL} seed=3", {"optimizer": "sgd"})
    assert run.folder is not None
    assert run.folder.parents[2] == folder / "outputs"
    assert run.folder.parents[1].name == "runs"
    assert results(run.folder) == results(folder / "typed")
    assert (run.folder / ".hydra/config.yaml").read_bytes() == (folder / "typed/.hydra/config.yaml").read_bytes()


@pytest.mark.slow
def test_a_sweep_of_twelve_with_classes_and_data_of_ones_own_is_the_command_lines_own(folder: Path) -> None:
    (folder / "my_models.py").write_text(MODELS)
    x, y = data()
    np.savez(folder / "my.npz", x=x, y=y)
    swept = "optimizer=sgd,adam seed=0,1,2 data.batch_size=16,32"
    own = "model=custom model._target_=my_models.Net epochs=3"
    command_line(f"-m {own} data=npz data.path=my.npz hydra.sweep.dir=typed {swept}", folder)
    import my_models  # type: ignore[import-not-found]

    runs = trainer.sweep(
        {"optimizer": ["sgd", "adam"], "seed": range(3), "data.batch_size": np.array([16, 32])},
        model=my_models.Net,
        epochs=3,
        data=(x, y),
    )
    assert len(runs) == 12
    for number, run in enumerate(runs):
        assert run.folder is not None
        assert run.folder.parent.parents[1] == folder / "outputs" / "sweeps"
        typed = folder / "typed" / str(number)
        assert results(run.folder)[0] == results(typed)[0]  # the checkpoint names another file of data
        trained = [torch.load(one / "checkpoints/last.pt", weights_only=True)["model"] for one in (run.folder, typed)]
        assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[1])


OWN = """
import torch
from torch.utils.data import Dataset


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.sub_(torch.sign(torch.lerp(p.grad, momentum, group["beta"])), alpha=group["lr"])
                momentum.lerp_(p.grad, 0.01)


class Pairs(Dataset):
    def __init__(self):
        self.x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], int(self.x[i, 0] > self.x[i, 1])


def load():
    return Pairs()


def f1(output, target):
    predicted = output.argmax(1)
    hits = ((predicted == 1) & (target == 1)).sum()
    return 2 * hits / ((predicted == 1).sum() + (target == 1).sum()).clamp(min=1)
"""
EXIST = [(CONF / path).exists() for path in ("optimizer/custom.yaml", "schedule/one_cycle.yaml", "data/custom.yaml")]


@pytest.mark.slow
@pytest.mark.skipif(not all(EXIST), reason="no optimizer, schedule or data of one's own yet")
def test_optimizer_schedule_data_and_metric_of_ones_own_in_twelve_runs(folder: Path) -> None:
    (folder / "my_models.py").write_text(OWN)
    own = "optimizer=custom optimizer._target_=my_models.Lion metrics=[my_models.f1]"
    own += " schedule=one_cycle schedule.cycle_momentum=false"
    swept = "optimizer.lr=0.001,0.003 model.depth=1,2 seed=0,1,2"
    command_line(f"-m {own} data=custom data._target_=my_models.load epochs=3 {swept} hydra.sweep.dir=typed", folder)
    import my_models  # type: ignore[import-not-found]

    runs = trainer.sweep(
        {"optimizer.lr": [0.001, 0.003], "model.depth": [1, 2], "seed": range(3), "metrics": [[my_models.f1]]},
        "schedule=one_cycle schedule.cycle_momentum=false",
        optimizer=my_models.Lion,
        data=my_models.Pairs(),
        epochs=3,
    )
    assert [run.status for run in runs] == ["completed"] * 12
    assert runs.frame()["test_f1"].between(0, 1).all()
    for number, run in enumerate(runs):
        assert run.folder is not None
        assert results(run.folder)[0] == results(folder / "typed" / str(number))[0]


@pytest.mark.slow
def test_stacks_are_the_same(folder: Path) -> None:
    command_line(f"-m {SMALL} model.dropout=0,0.5 seed=0,1,2 hydra.sweep.dir=typed", folder)
    runs = trainer.sweep(SMALL, {"model.dropout": [0, 0.5], "seed": [0, 1, 2]}, folder="called")
    for number, run in enumerate(runs):
        assert run.folder == folder / "called" / str(number)
        assert results(run.folder) == results(folder / "typed" / str(number))


@pytest.mark.slow
def test_resuming_is_a_string_as_it_is_typed(folder: Path) -> None:
    runs = trainer.sweep(SMALL, seed=[0, 1], folder="here")
    grown = trainer.sweep("resume=here", seed=range(3))
    assert [run.config["seed"] for run in grown] == [0, 1, 2]
    assert results(folder / "here" / "0") == results(runs[0].folder or folder)
    with pytest.raises(ConfigError, match=r"resume=here: is a sweep; call trainer\.sweep, not trainer\.run"):
        trainer.run("resume=here")


@pytest.mark.slow
def test_data_in_any_form_is_the_same_data(folder: Path) -> None:
    x, y = data()
    x = x.astype(np.float32)
    given: list[Any] = [
        (x, y),
        (torch.tensor(x), torch.tensor(y)),
        {"y": y, "x": x},
        TensorDataset(torch.tensor(x), torch.tensor(y)),
    ]
    hashes = {trainer.run("epochs=1", data=one).summary["provenance"]["data_hash"] for one in given}
    assert len(hashes) == 1
    assert len(list(Path("outputs/from_python").glob("*.npz"))) == 1
    with_test = trainer.run("epochs=1 data.normalisation=none", data=(x[:100], y[:100], x[100:], y[100:]))
    network = with_test.model()
    hits = (network(x[100:]).argmax(1).numpy() == y[100:]).mean()
    assert with_test.summary["test"]["best"]["accuracy"] == pytest.approx(hits)


def test_pictures_and_texts_become_arrays(folder: Path) -> None:
    from PIL import Image

    class Pictures(Dataset[tuple[Image.Image, int]]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (5, 3), (i, 10, 20)), i % 2

    (_, (_, pictures)) = objects.data(Pictures(), None)
    with np.load(pictures, allow_pickle=False) as found:
        assert found["x"].shape == (4, 3, 3, 5)
        assert found["x"][:, :, 0, 0].tolist() == [[i, 10, 20] for i in range(4)]
        assert found["y"].tolist() == [0, 1, 0, 1]
    (_, (_, texts)) = objects.data(([[1.0], [2.0]], np.array(["a", "bc"], dtype=object)), None)
    with np.load(texts, allow_pickle=False) as found:
        assert found["y"].tolist() == ["a", "bc"]


@pytest.mark.slow
def test_a_data_frame_is_its_csv(folder: Path) -> None:
    import pandas as pd

    x, y = data()
    frame = pd.DataFrame(x, columns=list("abcd")).assign(label=y)
    frame.to_csv("my.csv", index=False)
    command_line(f"{SMALL} data=csv data.path=my.csv data.target=label hydra.run.dir=typed", folder)
    run = trainer.run(SMALL, data=frame, target="label")
    assert results(run.folder or folder)[0] == results(folder / "typed")[0]


@pytest.mark.slow
def test_a_failed_run_is_a_row_and_harms_no_other(folder: Path) -> None:
    (folder / "my_models.py").write_text(MODELS)
    import my_models  # type: ignore[import-not-found]

    models = [my_models.Net, my_models.Dies, my_models.Raises]
    runs = trainer.sweep("epochs=3", {"model": models, "data.batch_size": [64, 0]})
    assert [run.status for run in runs] == ["completed", "failed"] + 2 * ["failed", "failed"]
    errors = runs.frame()["error"]
    assert "batch_size: found 0" in errors[1]
    assert "killed by SIGKILL" in errors[2]
    assert "ValueError: no more" in errors[4]
    assert f"{folder / 'my_models.py'}, line " in errors[4]
    again = trainer.load()
    assert [run.error for run in again] == [run.error for run in runs]
    with pytest.raises(ConfigError, match=r"ValueError: no more .*my_models\.py, line"):
        trainer.run("epochs=3", model=my_models.Raises)
    with pytest.raises(RuntimeError, match=r"killed by SIGKILL; out of memory\?; what was recorded is in .*outputs"):
        trainer.run("epochs=3", model=my_models.Dies)


MISTAKES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "optimizer=rmsprp: no such option; did you mean rmsprop?": (("optimizer=rmsprp",), {}),
    "sed: no such key; did you mean seed?": ((), {"sed": 3}),
    "seed: found -1, expected a whole number": (({"seed": -1},), {}),
    'a"b: cannot be read: no closing quotation': (('a"b',), {}),
    "found int, expected 'KEY=VALUE' as it is typed": ((3,), {}),
    "--help: flags are for the command line": (("--help",), {}),
    "model: found a mapping, expected a value; write the keys in it with dots, 'model.KEY'": ((), {"model": {"a": 1}}),
    "model: found an instance of Linear; every run makes its own": ((), {"model": nn.Linear(2, 2)}),
    "model: found a lambda; give it a name": ((), {"model": lambda: nn.Linear(2, 2)}),
    "optimizer.lr: found complex, expected a number": (({"optimizer.lr": 1j},), {}),
    "data: found int, expected a name": ((), {"data": 3}),
    "data: y holds objects of Python's, expected numbers": ((), {"data": ([[1.0]], [object()])}),
    "data: x is no array": ((), {"data": ([[1.0], [1.0, 2.0]], [0, 1])}),
    "data: found x, expected x and y": ((), {"data": {"x": [[1.0]]}}),
    "target: found y, but data is no DataFrame": ((), {"target": "y"}),
    "resume=nowhere: no such directory": (("resume=nowhere",), {}),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_one_exception(message: str, folder: Path) -> None:
    overrides, values = MISTAKES[message]
    with pytest.raises(ConfigError) as error:
        trainer.run(*overrides, **values)
    assert message in str(error.value)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_all_problems_at_once_and_nothing_is_left(folder: Path) -> None:
    with pytest.raises(ConfigError) as error:
        trainer.sweep({"optimizer.lr": [-1, -2], "model.depth": ["many"]})
    assert len(error.value.problems) == 3
    with pytest.raises(ConfigError, match="seed: found no value"):
        trainer.sweep(seed=[])
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "value", ["plain", "two words", "a,b", "it's", "[x]", "true", "null", "0.5", "", "ü", "a=b", "x'\\", 1e-5, [1, 2]]
)
def test_values_come_out_as_they_went_in(value: Any) -> None:
    from trainer.api.child import _text
    from trainer.cli.command_line import parse

    read = parse(f"key={_text('key', value)}")
    assert read is not None
    assert (read.is_sweep_override(), read.value()) == (False, value)


@pytest.mark.slow
def test_every_combination_in_the_order_given(folder: Path) -> None:
    runs = trainer.sweep("epochs=1", {"model.width": [[4], [8]], "seed": (n for n in (5, 3))}, **{"model.depth": 1})
    expected = list(itertools.product([[4], [8]], [5, 3]))
    assert [(run.config["model.width"], run.config["seed"]) for run in runs] == expected
