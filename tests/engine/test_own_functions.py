"""Losses and metrics of the user's own through the command line, in processes of their own: kills, harm, records."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import environment, rows, summary

FUNCTIONS = """
import os, time
import torch
from torch.nn import functional as F

calls = 0

def entropy(output, target):
    if output.requires_grad:
        time.sleep(float(os.environ.get("SLOW", 0)))
    return F.cross_entropy(output, target, reduction="none")

def mean(output, target):
    return F.cross_entropy(output, target)

def late(output, target):
    global calls
    calls += len(output) == 36 and output.requires_grad
    if calls == 30:
        raise ValueError("too late")
    return entropy(output, target)

def top2(output, target):
    return (output.topk(2, 1).indices == target[:, None]).any(1).float().mean()
"""
TINY = ["data.train_size=100", "data.batch_size=36", "data.drop_last=true", "record.pictures=false"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(FUNCTIONS)
    return tmp_path


def command(*line: str) -> list[str]:
    return [sys.executable, "-m", "trainer", *line]


def run(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*line), cwd=folder, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_killed_in_a_stack_they_go_on_with_the_same_bits(folder: Path) -> None:
    line = ["-m", "seed=0,1", "epochs=6", "loss._target_=own.entropy", "metrics=[f1,own.top2]", "checkpoint.epochs=1"]
    assert run(folder, *line, *TINY, "hydra.sweep.dir=whole").returncode == 0
    slow = {**environment(), "SLOW": "0.3"}
    process = subprocess.Popen(
        command(*line, *TINY, "hydra.sweep.dir=killed"), cwd=folder, env=slow, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list((folder / "killed/.resume").glob("stack-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (folder / "killed/0/summary.json").exists()
    again = run(folder, "resume=killed")
    assert (again.returncode, again.stderr) == (0, "")
    assert "goes on after epoch" in (folder / "killed/0/trainer.log").read_text()
    for name in ("metrics.csv", "checkpoints/best.pt", "checkpoints/last.pt"):
        for n in "01":
            assert (folder / "whole" / n / name).read_bytes() == (folder / "killed" / n / name).read_bytes(), name
    found = summary(folder / "whole/0")
    assert found["cost"]["stack_members"] == 2
    assert found["metrics"] == {"f1": "higher", "top2": "higher"}
    assert "own" in found["provenance"]["code"]
    assert rows(folder / "whole/0")[-1].keys() >= {"eval/train_f1", "val/f1", "eval/train_top2", "val/top2"}


@pytest.mark.slow
def test_one_that_is_wrong_harms_no_other(folder: Path) -> None:
    line = ["-m", "loss._target_=own.entropy,own.mean", "seed=0,1", "epochs=2", "hydra.sweep.dir=sweep"]
    done = run(folder, *line, *TINY)
    assert (done.returncode, done.stderr) == (1, "")
    status = [summary(folder / "sweep" / str(n))["status"] for n in range(4)]
    assert status == ["completed", "completed", "failed", "failed"]
    assert "runs 2-3 failed: loss._target_: own.mean gives a tensor ()" in done.stdout


@pytest.mark.slow
def test_one_that_fails_after_epochs_says_where(folder: Path) -> None:
    done = run(folder, "loss._target_=own.late", "epochs=40", "hydra.run.dir=run", *TINY)
    assert done.returncode == 2
    assert f"ValueError: too late ({folder / 'own.py'}, line " in done.stderr
