"""Modules of the user's own through the command line, each command in a process of its own: bits, kills, harm."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.helpers import HEAD, Cli, bits, check_kill, summary, trainer_in

MODELS = """
import ctypes, os, random, signal, sys, time
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SCALE = 1 + random.random() * np.random.rand() * torch.rand(()).item()  # drawn by the import


class Noisy(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.factor = SCALE + random.random() + np.random.rand()

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            x = x + random.gauss(0, 0.1) + np.random.randn(1, x.shape[1]).astype(np.float32) * 0.1
            x = F.dropout(x, 0.2)
            time.sleep(float(os.environ.get("SLOW", 0)))
        return self.layer(x) * self.factor


class Harmful(nn.Module):
    def __init__(self, in_features, out_features, harm):
        super().__init__()
        self.layer, self.harm, self.calls = nn.Linear(in_features, out_features), harm, 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 2:
            if self.harm == "exit":
                sys.exit()
            if self.harm == "interrupt":
                raise KeyboardInterrupt
            if self.harm == "base":
                raise BaseException("odd")
            if self.harm == "end":
                os._exit(0)
            if self.harm == "fork":
                if (child := os.fork()) == 0:
                    os._exit(5)  # ends the child alone
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            if self.harm == "vanish":
                ctypes.CDLL(None)._exit(0)
            if self.harm == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.harm == "grad":
                torch.set_grad_enabled(False)
            if self.harm == "leave":
                os.chdir("/"); torch.set_default_dtype(torch.float64)
        return self.layer(x.flatten(1))


class Lazy(nn.Module):
    def __init__(self, out_features):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(out_features))

    def forward(self, x):
        return self.net(x)


class NeverUsed(Lazy):
    def __init__(self, out_features):
        super().__init__(out_features)
        self.other = nn.LazyLinear(3)


class Plain(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Detached(Plain):
    def forward(self, x):
        return super().forward(x).detach()


class Sparse(nn.Module):
    def __init__(self, out_features):
        super().__init__()
        self.e, self.o = nn.EmbeddingBag(17, 8, sparse=True), nn.Linear(8, out_features)

    def forward(self, x):
        return self.o(self.e(x.flatten(1).abs().clamp(0, 16).long()))


class Integers(Plain):
    def forward(self, x):
        return super().forward(x).long()


class Half(Plain):
    def forward(self, x):
        return super().forward(x).bfloat16()


class NaNs(Plain):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Breaks(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise KeyError("nothing saved")


class Backward(Plain):
    def forward(self, x):
        return Breaks.apply(super().forward(x))
"""
TINY = ["data.train_size=100", "record.pictures=false"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(MODELS)
    return tmp_path


def run(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    return trainer_in(folder, *TINY, *line)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ["problem=rosenbrock", "optimizer=sgd"],
        ["model.dropout=0.3", "model.batchnorm=true"],
        ["model=cnn", "model.dropout=0.3", "model.batchnorm=true"],
        ["model=custom", "model._target_=own.Noisy"],
    ],
    ids=lambda line: line[0],
)
def test_the_same_command_in_two_processes_leaves_the_same_bytes(line: list[str], folder: Path) -> None:
    line = line if line[0].startswith("problem") else [*line, *TINY]
    for name in "ab":
        assert trainer_in(folder, "epochs=3", *line, f"hydra.run.dir={name}").returncode == 0
    assert bits(folder / "a") == bits(folder / "b") != {}
    torch.load(folder / "a/checkpoints/last.pt", weights_only=True)


@pytest.mark.slow
def test_killed_it_goes_on_with_the_same_random_numbers(folder: Path) -> None:
    check_kill(folder, *TINY, "epochs=6", "model=custom", "model._target_=own.Noisy", "checkpoint.epochs=1")


FAILS = "model._target_: Harmful fails on inputs of shape (36, 1, 8, 8): "
HARM = {
    "exit": f"{FAILS}SystemExit (",
    "end": f"{FAILS}SystemExit: os._exit(0) (",
    "interrupt": f"{FAILS}KeyboardInterrupt (",
    "base": f"{FAILS}BaseException: odd (",
    "grad": "model._target_: no parameter takes part in the loss; is there a detach or no_grad in forward?",
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARM)
def test_a_run_whose_module_ends_the_process_ends_with_a_message(harm: str, folder: Path) -> None:
    done = run(folder, "model=custom", "model._target_=own.Harmful", f"+model.harm={harm}", "hydra.run.dir=run")
    head, *lines = done.stderr.splitlines()
    assert head.startswith("trainer: 1 problem; ")
    assert [line.strip()[: len(HARM[harm])] for line in lines] == [HARM[harm]]
    assert done.returncode == 2


@pytest.mark.slow
def test_in_a_sweep_it_harms_no_other_and_is_tried_again(folder: Path) -> None:
    harms = [*HARM, "vanish", "crash", "leave", "fork", "none"]
    line = ["-m", "epochs=2", "model=custom", "model._target_=own.Harmful", f"+model.harm={','.join(harms)}"]
    done = run(folder, *line, "hydra.sweep.dir=sweep")
    failed = [*HARM, "vanish", "crash"]
    for command in (done, run(folder, "resume=sweep")):
        assert command.returncode == 1
        assert command.stderr == ""
        status = [summary(folder / "sweep" / str(n))["status"] for n in range(len(harms))]
        assert dict(zip(harms, status, strict=True)) == {
            harm: "failed" if harm in failed else "completed" for harm in harms
        }
        assert "3 of 10 runs completed" in command.stdout
        assert "the process that trained it ended with exit code 0" in command.stdout
        assert "was killed by SIGSEGV" in command.stdout
    (folder / "own.py").write_text(MODELS.replace("if self.calls == 2", "if False"))
    mended = run(folder, "resume=sweep")
    assert mended.returncode == 2  # those that had finished would be of other code than the others
    assert "was finished with other code or data: own was " in mended.stderr


ODD = {
    "Detached": HARM["grad"],
    "Sparse": "model._target_: e of own.Sparse: gradients are sparse, and no optimizer or norm here takes those; "
    "leave out sparse=True",
    "Integers": "model._target_: the output of Integers is int64 on cpu, expected float32 on cpu, like its input",
    "NeverUsed": "model._target_: other.weight, other.bias of NeverUsed is never used in forward",
    "Backward": "model._target_: the backward pass fails: KeyError: 'nothing saved' (",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_modules_have_a_line_each(name: str, folder: Path) -> None:
    done = run(folder, "epochs=2", "model=custom", f"model._target_=own.{name}")
    head, line = done.stderr.splitlines()
    assert head.startswith("trainer: 1 problem; ")
    assert line.strip()[: len(ODD[name])] == ODD[name]
    assert done.returncode == 2


LATER = """
import torch
from torch import nn


class Later(nn.Module):
    def __init__(self, in_features, out_features, harm="none"):
        super().__init__()
        self.layer, self.harm, self.calls = nn.Linear(in_features, out_features), harm, 0

    def forward(self, x):
        self.calls += self.training
        y = self.layer(x.flatten(1))
        if self.calls < 6:  # within the third epoch
            return y
        if self.harm == "raises":
            raise ValueError("no luck")
        if self.harm == "inplace":
            z = y.exp() * 1
            return z * z + z.add_(1)
        if self.harm == "grows":
            self.other = nn.Linear(64, 10)
            return self.other(x.flatten(1))
        if self.harm == "replaced":
            return nn.Linear(64, 10)(x.flatten(1))
        return {"detached": y.detach(), "narrow": y[:, :3], "integers": y.long(), "pair": (y, y)}[self.harm]
"""
LATE = {  # what is said; and the line of what is wrong, or of forward
    "raises": ("Later fails on inputs of shape (50, 1, 8, 8): ValueError: no luck", 17),
    "inplace": ("the backward pass fails: RuntimeError: one of the variables needed for gradient computation has", 11),
    "grows": ("forward of Later adds or removes parameters, which only __init__ may do: other.weight, other.bias", 11),
    "replaced": ("no parameter takes part in the loss; is there a detach or no_grad in forward?", 11),
    "detached": ("no parameter takes part in the loss; is there a detach or no_grad in forward?", 11),
    "narrow": ("the output of Later is (50, 3), expected a tensor (50, 10)", 11),
    "integers": ("the output of Later is int64 on cpu, expected float32 on cpu, like its input", 11),
    "pair": ("the output of Later is tuple, expected a tensor (50, 10)", 11),
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", LATE)
def test_what_was_recorded_before_a_module_went_wrong_stays(harm: str, folder: Path) -> None:
    (folder / "late.py").write_text(LATER)
    line = ["epochs=9", "data.batch_size=50", "model=custom", "model._target_=late.Later", f"model.harm={harm}"]
    done = run(folder, *line, "hydra.run.dir=run")
    head, said = done.stderr.splitlines()
    where = "what it had recorded is in"
    assert (
        head
        == f"trainer: 1 problem; the run stopped; {where} {folder / 'run'} (python -m trainer --help lists every key)"
    )
    assert said.strip().startswith(f"model._target_: {LATE[harm][0]}")
    assert f"({folder / 'late.py'}, line {LATE[harm][1]})" in said
    assert done.returncode == 2
    found = summary(folder / "run")
    assert (found["status"], found["epochs"], found["steps"]) == ("failed", 2, 5)
    assert len((folder / "run/metrics.csv").read_text().splitlines()) == 3


def test_a_sweep_of_runs_that_all_fail_after_an_epoch_keeps_them(folder: Path, cli: Cli) -> None:
    (folder / "late.py").write_text(LATER)
    line = "-m epochs=9 data.batch_size=50 model=custom model._target_=late.Later model.harm=raises,narrow"
    code, out, err = cli(f"{line} {' '.join(TINY)} hydra.sweep.dir=sweep")
    assert (code, err) == (1, "")
    assert "0 of 2 runs completed" in out
    for number in "01":
        assert len((folder / "sweep" / number / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Lazy", "Half", "NaNs"])
def test_modules_that_train(name: str, folder: Path) -> None:
    done = run(folder, "epochs=2", "model=custom", f"model._target_=own.{name}", "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    assert summary(folder / "run")["status"] == "completed"


@pytest.mark.slow
def test_a_change_in_a_helper_of_a_helper_is_noticed(folder: Path) -> None:
    (folder / "package").mkdir()
    (folder / "package/__init__.py").write_text("from .layers import Net\n")
    (folder / "package/layers.py").write_text("import own\nfrom . import sizes\nclass Net(own.Plain):\n    pass\n")
    (folder / "package/sizes.py").write_text("WIDTH = 3\n")
    (folder / "unrelated.py").write_text("import own\n")
    line = ["epochs=1", "model=custom", "model._target_=package.Net", "hydra.run.dir=run"]
    assert run(folder, *line).returncode == 0
    code = summary(folder / "run")["provenance"]["code"]
    assert {"package", "package.layers", "package.sizes", "own"} == set(code) - {"results", "torch", "numpy"}
    assert "done before" in run(folder, *line).stdout
    (folder / "package/sizes.py").write_text("WIDTH = 4\n")
    again = run(folder, *line)
    assert again.returncode == 2
    assert "was finished with other code or data: package.sizes was " in again.stderr


def test_an_import_that_exits_is_told(folder: Path, cli: Cli) -> None:
    (folder / "script.py").write_text("import sys\nsys.exit('usage: script')\n")
    code, _, err = cli("model=custom model._target_=script.Net")
    assert code == 2
    where = f"({folder / 'script.py'}, line 2)"
    assert err == (
        f"trainer: 1 problem; {HEAD}\n  model._target_: cannot import script.Net: SystemExit: usage: script {where}; "
        "expected module.Class, importable from this folder\n"
    )
    assert os.listdir(folder / "outputs") == [] if (folder / "outputs").exists() else True
