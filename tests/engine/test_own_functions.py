"""Losses and metrics of the user's own through the command line, in processes of their own: kills, harm, records."""

from pathlib import Path

import pytest

from tests.helpers import check_kill, rows, summary, trainer_in

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


@pytest.mark.slow
def test_killed_in_a_stack_they_go_on_with_the_same_bits(folder: Path) -> None:
    line = ["-m", "seed=0,1", "epochs=6", "loss._target_=own.entropy", "metrics=[f1,own.top2]", "checkpoint.epochs=1"]
    check_kill(folder, *line, *TINY)
    found = summary(folder / "whole/0")
    assert found["cost"]["stack_members"] == 2
    assert found["metrics"] == {"f1": "higher", "top2": "higher"}
    assert "own" in found["provenance"]["code"]
    assert rows(folder / "whole/0")[-1].keys() >= {"eval/train_f1", "val/f1", "eval/train_top2", "val/top2"}


@pytest.mark.slow
def test_one_that_is_wrong_harms_no_other(folder: Path) -> None:
    line = ["-m", "loss._target_=own.entropy,own.mean", "seed=0,1", "epochs=2", "hydra.sweep.dir=sweep"]
    done = trainer_in(folder, *line, *TINY)
    assert (done.returncode, done.stderr) == (1, "")
    status = [summary(folder / "sweep" / str(n))["status"] for n in range(4)]
    assert status == ["completed", "completed", "failed", "failed"]
    assert "runs 2-3 failed: loss._target_: own.mean gives a tensor ()" in done.stdout


@pytest.mark.slow
def test_one_that_fails_after_epochs_says_where(folder: Path) -> None:
    done = trainer_in(folder, "loss._target_=own.late", "epochs=40", "hydra.run.dir=run", *TINY)
    assert done.returncode == 2
    assert f"ValueError: too late ({folder / 'own.py'}, line " in done.stderr
