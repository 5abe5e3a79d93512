"""Arguments of one's own classes as keys, and sweeps over several options of a group: which key goes to which run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers import HEAD, Cli
from trainer.cli.choices import settle
from trainer.cli.config_files import Sources
from trainer.core import own_code
from trainer.read.configs import read_yaml

MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, out_features, width=3, depth=1):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.Linear(width, out_features))

    def forward(self, x):
        return self.net(x)


def net(out_features, *, width, **others):
    return Net(64, out_features, width)


class Derived(Net):
    pass


class Any(Net):
    def __init__(self, **arguments):
        super().__init__(**arguments)


imported = nn.Linear
"""
OWN = "model=custom model._target_=my_models.Net"
TINY = "epochs=1 data.train_size=60 record.pictures=false hydra.launcher.workers=0 hydra.sweep.dir=sweep"


@pytest.fixture(autouse=True)
def _module(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "my_models.py").write_text(MODULE)
    yield
    sys.modules.pop("my_models", None)


def overrides(number: int) -> list[str]:
    return yaml.safe_load(Path(f"sweep/{number}/.hydra/overrides.yaml").read_text())


def widths() -> list[int]:
    runs = sorted(Path("sweep").glob("[0-9]*"))
    states = [torch.load(run / "checkpoints/last.pt", weights_only=True)["model"] for run in runs]
    return [next(iter(state.values())).shape[0] for state in states]


# ------------------------------------------------------------------ arguments without a plus


@pytest.mark.parametrize("plus", ["", "+"])
def test_an_argument_is_a_key_like_any_other(plus: str, cli: Cli) -> None:
    line = f"{OWN} {plus}model.width=5 epochs=1 data.train_size=60 hydra.run.dir=run"
    assert cli(line)[0] == 0
    assert read_yaml(Path("run/.hydra/config.yaml"))["model"] == {"_target_": "my_models.Net", "width": 5}
    code, out, err = cli("resume=run")
    assert (code, err) == (0, "")
    assert "done before" in out
    assert "1 of 1 runs would train" in cli(line.replace("=run", "=other") + " --dry-run")[1]


@pytest.mark.parametrize("plus", ["", "+"])
def test_in_a_sweep_too(plus: str, cli: Cli) -> None:
    assert cli(f"-m {OWN} {plus}model.width=4,5 model.depth=2 {TINY}")[0] == 0
    assert widths() == [4, 5]
    assert cli("resume=sweep")[0] == 0
    assert cli(f"-m {OWN} {plus}model.width=4,5,6 model.depth=2 {TINY}")[0] == 0
    assert widths() == [4, 5, 6]


def test_the_knob_has_no_plus(cli: Cli) -> None:
    from trainer import evaluate

    assert cli(f"-m {OWN} +model.width=4,5 'seed=range(2)' {TINY}")[0] == 0
    found, _ = evaluate.evaluate([Path("sweep")])
    assert {effect["knob"] for effect in found["effects"]} == {"model.width"}


@pytest.mark.parametrize("line", ["", "-m seed=0,1"])
def test_a_wrong_one_is_refused_by_the_class(line: str, cli: Cli) -> None:
    code, _, err = cli(f"{line} {OWN} model.widht=5 {TINY}")
    assert (code, err) == (
        2,
        f"trainer: 1 problem; {HEAD}\n  model.widht: Net has no such argument; did you mean width?\n",
    )
    assert not Path("sweep").exists()


def test_a_class_of_torch_optim_takes_what_is_listed(cli: Cli) -> None:
    code, _, err = cli("optimizer.lrr=1")
    assert (code, err) == (2, f"trainer: 1 problem; {HEAD}\n  optimizer.lrr: no such key; did you mean lr?\n")


def test_trace_and_versus_take_arguments_too(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer.trace.__main__ import main as trace
    from trainer.versus.__main__ import main as versus

    assert trace([*OWN.split(), "model.width=7", "--part", "1"]) == 0
    assert "(7, 4)" in capsys.readouterr().out
    assert versus([*f"{OWN} model.width=4,5 rates=2 seeds=2 --dry-run".split()]) == 0
    assert "groups    2: model.width=4,5\n" in capsys.readouterr().out


# ------------------------------------------------------------------ several options in one sweep


def test_each_key_goes_to_the_runs_whose_option_has_it(cli: Cli) -> None:
    keys = "model._target_=my_models.Net model.width=4,5 model.dropout=0,0.5"
    code, out, err = cli(f"-m model=mlp,custom {keys} {TINY}")
    assert (code, err) == (0, "")
    assert out.startswith(
        "note: model.dropout concerns model=mlp alone\nnote: 2 of 8 runs are the same as others, and left out\n"
    )
    assert "6 of 6 runs completed" in out
    common = ["epochs=1", "data.train_size=60", "record.pictures=False"]
    own = ["model=custom", "model._target_=my_models.Net"]
    assert [overrides(n) for n in range(6)] == [
        *(["model=mlp", f"model.width={w}", f"model.dropout={d}", *common] for w in (4, 5) for d in ("0", "0.5")),
        *([*own, f"model.width={w}", *common] for w in (4, 5)),
    ]
    assert widths() == [4, 4, 5, 5, 4, 5]
    code, out, _ = cli("resume=sweep")
    assert code == 0
    assert "6 of 6 runs completed, 6 of them before" in out


JOBS = {  # swept, and what becomes of it
    "what an option waits for is its own": (
        ["model=mlp model._target_=my_models.Net", "model=custom model._target_=my_models.Net"],
        ["model=mlp", "model=custom model._target_=my_models.Net"],
    ),
    "what all have goes to all": (
        ["optimizer=sgd optimizer.lr=1", "optimizer=adam optimizer.lr=1"],
        ["optimizer=sgd optimizer.lr=1", "optimizer=adam optimizer.lr=1"],
    ),
    "what the first file has is every option's": (
        ["data=digits data.batch_size=8", "data=spirals data.batch_size=8"],
        ["data=digits data.batch_size=8", "data=spirals data.batch_size=8"],
    ),
    "what one has goes to its runs": (
        [f"optimizer={name} optimizer.momentum={value}" for name in ("sgd", "adam") for value in (0, 1)],
        ["optimizer=sgd optimizer.momentum=0", "optimizer=sgd optimizer.momentum=1", "optimizer=adam"],
    ),
    "what none has stays, and is refused": (
        ["optimizer=sgd optimizer.beta=1", "optimizer=adam optimizer.beta=1"],
        ["optimizer=sgd optimizer.beta=1", "optimizer=adam optimizer.beta=1"],
    ),
    "an argument that no file has is the class's": (
        ["model=mlp model.size=1 model._target_=a.B", "model=custom model.size=1 model._target_=a.B"],
        ["model=mlp", "model=custom model.size=1 model._target_=a.B"],
    ),
    "one with a plus too": (
        ["model=mlp +model.size=1 model._target_=a.B", "model=custom +model.size=1 model._target_=a.B"],
        ["model=mlp", "model=custom +model.size=1 model._target_=a.B"],
    ),
    "a file's key is the class's too where it takes it": (
        [f"model={name} model.depth=1 model._target_=my_models.Net" for name in ("mlp", "custom")],
        ["model=mlp model.depth=1", "model=custom model.depth=1 model._target_=my_models.Net"],
    ),
    "runs that are equal are one": (
        ["optimizer=sgd seed=1", "optimizer=sgd seed=1", "optimizer=adam seed=1"],
        ["optimizer=sgd seed=1", "optimizer=adam seed=1"],
    ),
    "one option alone is not swept": (
        ["optimizer=adam optimizer.momentum=0"],
        ["optimizer=adam optimizer.momentum=0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_which_keys_a_run_keeps(name: str, cli: Cli) -> None:
    jobs, expected = JOBS[name]
    assert [" ".join(job) for job in settle(Sources(), [job.split() for job in jobs])[0]] == expected


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("my_models.Net", "width", True),
        ("my_models.Net", "size", False),
        ("my_models.net", "width", True),
        ("my_models.net", "size", True),  # among the others
        ("my_models.Derived", "size", True),  # its own source does not tell
        ("my_models.Any", "size", True),
        ("my_models.imported", "size", True),
        ("my_models.Nothing", "size", True),
        ("nowhere.Net", "size", True),
    ],
)
def test_what_a_source_says_of_arguments(path: str, name: str, expected: bool, cli: Cli) -> None:
    sys.path.insert(0, str(Path.cwd()))  # which the fixture of cli takes away again
    assert own_code.takes(path, name) is expected


def test_a_key_of_another_option_is_said_in_a_comparison(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer.versus.__main__ import main as versus

    assert versus(["optimizer=sgd,adam", "optimizer.momentum=0,0.9", "rates=2", "seeds=2", "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "note: optimizer.momentum concerns optimizer=sgd alone"
    assert "groups    3: optimizer=sgd,adam x optimizer.momentum=0,0.9" in said
