"""The command line as a person meets it: bad input, interruption, full disks, what is left behind."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import HEAD, Cli, environment, left_behind
from trainer.core.data import builtin
from trainer.core.own_calls import KINDS
from trainer.record.tensorboard import EventWriter

ROOT = Path(__file__).parents[2]


FOLLOWS = "optimizer_model follows from other choices; set its keys themselves, e.g. optimizer.lr=0.1"
BAD = {
    "optimiser=adam": "optimiser: no such key; did you mean optimizer?",
    "optimizer=adamm": "optimizer=adamm: no such option; did you mean adam?",
    "optimizer=null": "optimizer=null: no such option; choose from adadelta, adafactor, adagrad, adam, adamax, adamw, "
    "asgd, custom, nadam, radam, rmsprop, rprop, sgd",
    "data=dgits": "data=dgits: no such option; did you mean digits?",
    "~model": "~model: cannot be left out; choose another, model=NAME: cnn, custom, mlp, surface",
    "optimizer_model=adam_surface": f"optimizer_model=adam_surface: {FOLLOWS}",
    "+optimizer_model=adam_surface": f"+optimizer_model=adam_surface: {FOLLOWS}",
    "~optimizer_model": f"~optimizer_model: {FOLLOWS}",
    "-m optimizer_model@model=a,b": f"optimizer_model@model=a,b: {FOLLOWS}",
    "optimizr.lr=1": "optimizr: no such key; did you mean optimizer?",
    "optimizer.lrr=1": "optimizer.lrr: no such key; did you mean lr?",
    "data=cvs data.path=my.csv data.target=y": "data=cvs: no such option; did you mean csv?",
    "optimizer.momentum=0.9": "optimizer.momentum: no such key here; optimizer=rmsprop, optimizer=sgd have it",
    "optimizer.foooo=1": "optimizer.foooo: no such key; an argument of optimizer._target_ is added with a plus, "
    "+optimizer.foooo=VALUE",
    "schedule.step_size=3": "schedule.step_size: no such key here; schedule=step has it",
    "model._target_=a.B": "model._target_: no such key here; model=custom has it",
    "model=custom model.depth=2": "model._target_: missing; give it a value, model._target_=VALUE (dotted path of a "
    "torch.nn.Module class or function, e.g. my_models.ConvNet)",
    "data=line +data.noise=3": "data.noise: is there already; type it without the plus, data.noise=VALUE",
    "epochs.foo=1": "epochs.foo: epochs is a value, not a group of keys",
    "+record.foo.bar=1": "record.foo: no such key; choose from every, keep, pictures",
    "epochs": "epochs: has no value; type epochs=VALUE",
    "optimizer=AdamW": "optimizer=AdamW: no such option; did you mean adamw?",
    "data=Fashion-MNIST": "data=Fashion-MNIST: no such option; did you mean fashion_mnist?",
    "optimizer=torch.optim.RMSprop": "optimizer=torch.optim.RMSprop: no such option; did you mean rmsprop?",
    "model.activation=SiLU": "model.activation: found SiLU, expected one of relu, tanh, sigmoid, gelu, silu; did you "
    "mean silu?",
    "device=GPU": "device: found GPU, expected one of auto, cpu, cuda, mps; did you mean cuda?",
    "lr=0.1": "lr: no such key; did you mean optimizer.lr?",
    "learning_rate=0.1": "learning_rate: no such key; did you mean optimizer.lr?",
    "depth=3": "depth: no such key; did you mean model.depth?",
    "model.lr=3": "model.lr: no such key; did you mean optimizer.lr?",
    "--optimizer adam": "--optimizer adam: keys are typed without dashes, optimizer=adam",
    "--batch-size=8": "--batch-size=8: keys are typed without dashes, data.batch_size=8",
    "--experiment he_2015": "--experiment he_2015: keys are typed without dashes, experiment=he_2015",
    "-multirun seed=1,2": "-multirun: no such flag; did you mean --multirun?",
    "optimizer adam": "optimizer adam: a key and its value are one word, optimizer=adam",
    "model.depth = 3": "model.depth 3: a key and its value are one word, model.depth=3",
    "rmsprop": "rmsprop: no key; did you mean optimizer=rmsprop?",
    "evalute": "evalute: no such key or command; did you mean evaluate?",
    "resume": "resume: expected the directory of a run or a sweep, resume=DIR",
    "optimizer=sgd,adam": "optimizer=sgd,adam: several values make a sweep, which takes the flag -m; a list is written "
    "[1,2]",
    "-m seed=1,2,": "seed=1,2,: cannot be read as KEY=VALUE (nothing stands behind the last comma)",
    "seed=2..4": "seed: found 2..4, expected a whole number >= 0 and < 2^63; several values make a sweep: -m "
    "'seed=range(2,5)'",
    "-m seed=0:5": "seed: found 0:5, expected a whole number >= 0 and < 2^63; several values make a sweep: -m "
    "'seed=range(5)'",
    "-m hydra/sweeper=optuna seed=1": "hydra/sweeper=optuna: no such option; pip install hydra-optuna-sweeper",
    "-m hydra/launcher=submitit_slurm seed=1": "hydra/launcher=submitit_slurm: no such option; pip install "
    "hydra-submitit-launcher",
    "=3": "=3: cannot be read as KEY=VALUE (no key); --help lists every key",
    "epochs=1,2": "epochs=1,2: several values make a sweep, which takes the flag -m; a list is written [1,2]",
    "--multirn": "--multirn: no such flag; did you mean --multirun?",
    "--cfg job optimizer=adamm epochs=2": "optimizer=adamm: no such option; did you mean adam?",
    "--help optimizer=adamm": "optimizer=adamm: no such option; did you mean adam?",
}
REFUSED = {  # what only shows with the values, the data or the model at hand
    "+zz=1 ": "zz: no such key; choose from accumulate, check, checkpoint, clip_norm, data, deterministic, device, "
    "early_stopping, epochs, loss, metrics, model, optimizer, record, schedule, seed, step, steps, threads",
    "epochs=0": "epochs: found 0, expected a whole number of epochs >= 1",
    "+optimizer.typo=1": "optimizer.typo: Adam has no such argument; choose from amsgrad, betas, capturable, "
    "decoupled_weight_decay, differentiable, eps, foreach, fused, lr, maximize, weight_decay",
    "optimizer=sgd optimizer.nesterov=true": "optimizer: torch.optim.SGD refuses its arguments: Nesterov momentum "
    "requires a momentum and zero dampening",
    "optimizer._target_=torch.optim.adam": "optimizer._target_: no class torch.optim.adam; in torch.optim, did you "
    "mean Adam?",
    "data.train_size=5000": "data.train_size: found 5000, expected at most the 1437 examples of digits that are "
    "neither test nor validation; try data.train_size=null for all",
    "data.val_fraction=0.9999": "data.val_fraction: 0.9999 leaves no training examples of 1617",
    "data.batch_size=5000 data.drop_last=true": "data.batch_size: found 5000, expected at most the 1437 training "
    "examples with data.drop_last=true, which leaves out smaller batches; try data.batch_size=1437",
    "data.batch_size=4 data.train_size=9 model.batchnorm=true": "data.batch_size: 9 training examples in batches of 4 "
    "leave a batch of one example, which model.batchnorm=true cannot normalise; try data.drop_last=true, or another "
    "data.batch_size",
    "data.batch_size=1 model.batchnorm=true": "data.batch_size: 1437 training examples in batches of 1 leave a batch "
    "of one example, which model.batchnorm=true cannot normalise; try more examples a batch",
}


@pytest.mark.parametrize("line", [*BAD, *REFUSED])
def test_bad_input_is_told_in_one_message(line: str, cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(line)
    assert err == f"trainer: 1 problem; {HEAD}\n  {(BAD | REFUSED)[line]}\n"
    assert (code, out, left_behind(tmp_path)) == (2, "", [])


def test_all_problems_of_a_command_line_at_once(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("optimizer=sdg data.batch_sise=3 model.actvation=relu epochs=0 seed=x")
    assert err.splitlines() == [
        f"trainer: 5 problems; {HEAD}",
        "  optimizer=sdg: no such option; did you mean sgd?",
        "  data.batch_sise: no such key; did you mean batch_size?",
        "  model.actvation: no such key; did you mean activation?",
        "  seed: found x, expected a whole number >= 0 and < 2^63",
        "  epochs: found 0, expected a whole number of epochs >= 1",
    ]
    assert (code, out, left_behind(tmp_path)) == (2, "", [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_no_gpu(cli: Cli) -> None:
    _, _, err = cli("device=cuda")
    assert err.endswith("  device: found cuda, but PyTorch sees no such device here; try device=cpu\n")


@pytest.mark.parametrize("line", ["model.depth=0", "model.depth=50 model.width=8", "data.batch_size=5000"])
def test_extremes_that_work(line: str, cli: Cli) -> None:
    assert cli(f"{line} epochs=1 data.train_size=100 hydra.run.dir=run")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("optimizer.lr=0 epochs=6", "underfit"),
        ("optimizer=sgd optimizer.lr=1e9", "diverged"),
        ("data.label_noise=1 data.train_size=64 epochs=2", "too_short"),
        ("data.train_size=1 epochs=2", "too_short"),
    ],
)
def test_odd_runs_end_with_a_verdict(line: str, verdict: str, cli: Cli) -> None:
    code, out, err = cli(f"{line} hydra.run.dir=run")
    assert (code, err) == (0, "")
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["status"], summary["verdict"]["verdict"]) == ("completed", verdict)
    assert f"\n{verdict.replace('_', ' ')}: " in out
    code, again, _ = cli(f"{line} hydra.run.dir=run")
    assert code == 0
    assert set(again.splitlines()[1:]) <= set(out.splitlines())


MODELS = """
from pathlib import Path
from subprocess import call
number = 3
import torch
from torch import nn
class Good(nn.Module):
    def __init__(self, in_features, out_features, hidden=8):
        super().__init__()
        layers = nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features)
        self.net = nn.Sequential(nn.Flatten(), *layers)
    def forward(self, x):
        return self.net(x)
class Raises(nn.Module):
    def __init__(self):
        raise RuntimeError("no luck")
class RaisesLater(Good):
    def forward(self, x):
        raise RuntimeError("no luck")
class Narrow(nn.Module):
    def __init__(self, in_features):
        super().__init__()
        self.linear = nn.Linear(in_features, 7)
    def forward(self, x):
        return self.linear(x.flatten(1))
class Two(Good):
    def forward(self, x):
        return self.net(x), 1
class Bare(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]
class Norm(Good):
    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.norm = nn.BatchNorm1d(in_features)
    def forward(self, x):
        return self.net(self.norm(x.flatten(1)))
"""
NEEDS = "expected a tensor (128, 10): one row per example, one column per class or output (TMP/my_models.py, line"
EXPECTED = f"expected {KINDS['model'].words}"
BAD_MODELS = {
    "Good": "model._target_: found Good, expected module.Class, importable from this folder, e.g. my_models.Good",
    "nowhere.Net": "model._target_: cannot import nowhere.Net: ModuleNotFoundError: No module named 'nowhere'; "
    "expected module.Class, importable from this folder",
    "my_models.Godo": "model._target_: cannot import my_models.Godo: AttributeError: module 'my_models' has no "
    "attribute 'Godo'; did you mean Good?; expected module.Class, importable from this folder",
    "my_models.Raises": "model: my_models.Raises() fails: RuntimeError: no luck (TMP/my_models.py, line 16)",
    "my_models.Good model.zoom=3": "model.zoom: Good has no such argument; choose from hidden, in_features, "
    "out_features",
    "my_models.RaisesLater": "model._target_: RaisesLater fails on inputs of shape (128, 1, 8, 8): RuntimeError: no "
    "luck (TMP/my_models.py, line 19)",
    "my_models.Narrow": f"model._target_: the output of Narrow is (128, 7), {NEEDS} 24)",
    "my_models.Two": f"model._target_: the output of Two is tuple, {NEEDS} 27)",
    "my_models.Bare": "model._target_: my_models.Bare has no parameters to train",
    "my_models.Norm data.batch_size=1": "model._target_: Norm fails on inputs of shape (1, 1, 8, 8): ValueError: "
    "Expected more than 1 value per channel when training, got input size torch.Size([1, 64]) (TMP/my_models.py, line "
    "37); batch norm wants two examples a batch, try data.drop_last=true or another data.batch_size",
    "json.loads": f"model._target_: json.loads is of Python's standard library; expected {KINDS['model'].words}",
    "subprocess.call +model.args=[touch,x]": f"model._target_: subprocess.call is of Python's standard library; "
    f"expected {KINDS['model'].words}",
    "my_models.call +model.args=[touch,x]": "model._target_: my_models.call is no function of my_models, but of "
    f"subprocess; expected {KINDS['model'].words}",
    "my_models.Path": f"model._target_: my_models.Path is no torch.nn.Module; expected {KINDS['model'].words}",
    "my_models.number": f"model._target_: my_models.number is a value, int; expected {KINDS['model'].words}",
}


@pytest.mark.parametrize("target", BAD_MODELS)
def test_bad_models_of_the_users_own(target: str, cli: Cli, tmp_path: Path) -> None:
    Path("my_models.py").write_text(MODELS)
    code, out, err = cli(f"model=custom model._target_={target}")
    assert err == f"trainer: 1 problem; {HEAD}\n  {BAD_MODELS[target].replace('TMP', str(tmp_path))}\n"
    assert (code, out) == (2, "")
    assert [name for name in left_behind(tmp_path) if "pycache" not in name] == ["my_models.py"]


@pytest.mark.parametrize("plus", ["", "+"])
def test_a_good_model_of_the_users_own(plus: str, cli: Cli) -> None:
    Path("my_models.py").write_text(MODELS)
    code, _, err = cli(f"model=custom model._target_=my_models.Good {plus}model.hidden=4 epochs=2 hydra.run.dir=run")
    assert (code, err) == (0, "")
    state = torch.load("run/checkpoints/best.pt", weights_only=True)["model"]
    assert state["net.1.weight"].shape == (4, 64)


# ------------------------------------------------------------------ folders, files, disks


def test_two_runs_at_once_have_two_folders(cli: Cli) -> None:
    for _ in range(2):
        assert cli("epochs=1 data.train_size=64 record.pictures=false")[0] == 0
    runs = list(Path("outputs/runs").glob("*/*/summary.json"))
    assert len(runs) == 2


def test_a_finished_run_is_not_run_over(cli: Cli, tmp_path: Path) -> None:
    assert cli("hydra.run.dir=run epochs=1 data.train_size=64")[0] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, out, err = cli("hydra.run.dir=run epochs=1 data.train_size=65")
    run = tmp_path / "run"
    assert err == (
        f"trainer: 1 problem; {HEAD}\n  {run}: holds a run of another configuration: data.train_size was 64, is 65; "
        "repeat its command (more values of a key add runs to a sweep), or choose another directory\n"
    )
    assert (code, out) == (2, "")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_file_where_the_folder_should_be(cli: Cli, tmp_path: Path) -> None:
    Path("taken").write_text("mine")
    for folder, said in (("taken", "File exists"), ("taken/run", "Not a directory")):
        code, _, err = cli(f"hydra.run.dir={folder}")
        hint = "make room or choose another folder with hydra.run.dir=DIR"
        assert err == f"trainer: 1 problem; {HEAD}\n  {folder}: {said}; {hint}\n"
        assert code == 2
    assert left_behind(tmp_path) == ["taken"]


def test_a_disk_that_fills_up(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the folder; the rows of metrics.csv are there."""

    def flush(self: EventWriter) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(EventWriter, "flush", flush)
    code, _, err = cli("hydra.run.dir=run epochs=3")
    run = tmp_path / "run"
    assert err == (
        f"trainer: 1 problem; the run stopped; what it had recorded is in {run} (python -m trainer --help lists every "
        f"key)\n  {run}: No space left on device; make room or choose another folder with hydra.run.dir=DIR\n"
    )
    assert code == 2
    assert len((run / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "line", ["epochs=1 hydra.run.dir=outputs/run", "-m seed=1,2 epochs=1 hydra.sweep.dir=outputs/s"]
)
def test_a_disk_that_is_full(line: str, tmp_path: Path) -> None:
    """No room even for the plan: one message, and no folder stays."""
    code = "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nfrom trainer.cli import app\n"
    command = [sys.executable, "-c", f"{code}sys.exit(app.run(sys.argv[1:]))", *shlex.split(line)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"trainer: 1 problem; {HEAD}\n  ")
    assert done.stderr.endswith("make room or choose another folder with hydra.run.dir=DIR\n")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("line", ["hydra/launcher=stak", "-m hydra/launcher=stak seed=1,2"])
def test_an_unknown_launcher(line: str, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(line)
    assert err == f"trainer: 1 problem; {HEAD}\n  hydra/launcher=stak: no such option; did you mean stack?\n"
    assert (code, left_behind(tmp_path)) == (2, [])


@pytest.mark.parametrize("key", ["hydra.run.dir", "-m hydra.sweep.dir", "-m hydra.sweep.subdir", "seed"])
def test_an_interpolation_to_nothing(key: str, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(f"{key}='${{nothing.here}}'")
    assert err.splitlines()[1].startswith(f"  {key.removeprefix('-m ')}: ")
    assert "nothing.here" in err
    assert (code, err.count("\n"), left_behind(tmp_path)) == (2, 2, [])


def test_a_configuration_of_a_name_that_is_nowhere(cli: Cli) -> None:
    assert "--config-name=nope: no such configuration; expected nope.yaml in" in cli("--config-name nope")[2]


@pytest.mark.parametrize("flag", ["--config-name nope", "--config-path nope", "hydra.searchpath=3", "model=custom"])
def test_where_configuration_files_are_not(flag: str, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(flag)
    assert (code, err.count("\n"), left_behind(tmp_path)) == (2, 2, [])
    assert err.splitlines()[1].strip()


@pytest.mark.slow  # torchvision alone takes a second or more to import
def test_data_that_is_missing_or_damaged(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def download(*arguments: object, **keywords: object) -> None:
        folder = tmp_path / "away/MNIST/raw"
        folder.mkdir(parents=True)
        raise RuntimeError("no\nnetwork")

    with monkeypatch.context() as patch:
        patch.setattr(torchvision.datasets, "MNIST", download)
        code, _, err = cli("data=mnist data.root=away")
    put = "put its files (train-images-idx3-ubyte, ...) into {}, or say where they are: data.root=DIR or "
    put += "TRAINER_DATA_ROOT=DIR\n"
    assert err.endswith(
        f"  data.root: no MNIST in away, and it cannot be downloaded (no network); {put.format('away/MNIST/raw')}"
    )
    assert (code, left_behind(tmp_path)) == (2, [])
    raw = Path("here/MNIST/raw")
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\x02\0\0\0\x1c\0\0\0\x1c" + bytes(100))
    code, _, err = cli("data=mnist data.root=here")
    images = "here/MNIST/raw/train-images-idx3-ubyte is damaged: it has 116 bytes, and 1584 by its header; delete it"
    assert f"  data.root: {images}; then {put.format('here/MNIST/raw')}" in err
    assert (code, err.count("\n")) == (2, 5)


def digits(monkeypatch: pytest.MonkeyPatch, *arrays: np.ndarray) -> None:
    """Let data=digits be these arrays."""
    monkeypatch.setattr(builtin, "digits", lambda config: arrays)


def test_numbers_that_are_not_finite_in_the_data(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((20, 3))
    x[4, 1] = np.nan
    y = np.arange(20) % 2
    digits(monkeypatch, x, y, x[:5] * 0, y[:5])
    code, _, err = cli()
    assert err == (
        f"trainer: 1 problem; {HEAD}\n  data: 1 values of the inputs of digits are not finite, the first at (4, 1); "
        "expected finite numbers; repair or drop these examples\n"
    )
    assert code == 2


def test_one_class_only(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    y = np.zeros(40, int)
    digits(monkeypatch, x, y, x[:5], y[:5])
    assert cli("epochs=2 hydra.run.dir=run")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["test"]["best"]["accuracy"] == 1.0
