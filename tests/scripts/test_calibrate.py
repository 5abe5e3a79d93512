"""scripts.calibrate in small: its histories are what they say, and the detector reaches what the docs print."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from scripts import histories
from scripts.calibrate import oracle
from tests.helpers import ROOT
from trainer.judge.overfit import judge


def calibrate(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.calibrate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=check)


def test_synthetic_histories_are_called_right() -> None:
    """False alarms at most 2 %, of runs that still creep 15 %; F1 at least 0.96, onsets within 10 % of the length."""
    rng = np.random.default_rng(7)
    cases = [history for history in (histories.history(rng) for _ in range(1200)) if len(history.train) <= 600]
    called = [judge(history.train, history.val) for history in cases]
    truth = np.array([history.label == "overfit" for history in cases])
    said = np.array([verdict.verdict == "overfit" for verdict in called])
    creeping = np.array([history.kind == "creeping" for history in cases])
    healthy = np.array([history.label == "healthy" for history in cases])
    assert np.mean(said[healthy & ~creeping]) <= 0.02
    assert np.mean(said[creeping]) <= 0.15
    assert 2 * np.sum(truth & said) / (truth.sum() + said.sum()) >= 0.96
    errors = [
        abs(verdict.onset - 1 - history.onset) / len(history.train)
        for history, verdict in zip(cases, called, strict=True)
        if history.onset is not None and verdict.onset is not None
    ]
    assert np.mean(np.array(errors) <= 0.1) >= 0.9


@pytest.mark.parametrize("kind", ["rising", "saturating", "first_best", "stall"])
def test_without_noise_every_clear_case_is_found(kind: str) -> None:
    rng = np.random.default_rng(3)
    made = [histories.history(rng, "overfit") for _ in range(300)]
    clean = [history for history in made if history.noise == 0 and history.kind == kind and len(history.train) <= 600]
    assert clean
    assert all(judge(history.train, history.val).verdict == "overfit" for history in clean)


@pytest.mark.parametrize("shape", ["white", "heavy", "correlated"])
def test_the_oracle_weighs_noise_as_it_is_drawn(shape: str) -> None:
    """Against SciPy's densities, up to a constant: so differences between rows."""
    rows = np.random.default_rng(5).normal(size=(4, 6))
    of_rows = {
        "white": stats.norm.logpdf(rows).sum(1),
        "heavy": stats.t.logpdf(rows * np.sqrt(3), 3).sum(1),  # of unit variance
        "correlated": stats.multivariate_normal.logpdf(rows, cov=0.6 ** np.abs(np.subtract.outer(range(6), range(6)))),
    }
    found = oracle.log_likelihood(rows, shape)
    assert np.diff(found) == pytest.approx(np.diff(of_rows[shape]))


@pytest.mark.slow
def test_the_script_prints_its_tables() -> None:
    done = calibrate("synthetic", "oracle", "null", "power", "--histories=400", "--sweeps=2")
    for part in (
        "| truth \\ verdict |",
        "## Judge and oracle",
        "False alarms on healthy runs",
        "| 2 names, 5 seeds |",
        "## Power, 4 groups",
    ):
        assert part in done.stdout
    wrong = calibrate("nul", check=False)
    assert wrong.returncode == 2
    assert "no such part: nul" in wrong.stderr


@pytest.mark.slow
def test_real_runs_are_called_right(tmp_path: Path) -> None:
    done = calibrate("real", "--seeds=2", f"--out={tmp_path}")
    scores = re.search(r"F1 (\d\.\d+).*?False alarms on healthy runs: (\d+\.\d)%", done.stdout, re.DOTALL)
    assert scores is not None
    assert float(scores[1]) >= 0.97
    assert float(scores[2]) <= 2


@pytest.mark.slow
def test_planted_faults_are_found_and_healthy_runs_are_left_alone() -> None:
    """Other draws than those the thresholds were chosen with, and than those of docs/health.md."""
    done = calibrate("health", "--architectures=8", "--seed=12345")
    said = re.search(r"precision ([\d.]+) of (\d+) findings, recall ([\d.]+) of (\d+) faults", done.stdout)
    alarms = re.search(r"Controls with a finding: [\d.]+% \((\d+) of (\d+);", done.stdout)
    assert said is not None
    assert alarms is not None
    assert int(said[2]) > 20
    assert int(alarms[2]) > 10
    assert float(said[1]) >= 0.93, done.stdout
    assert float(said[3]) >= 0.9, done.stdout
    assert int(alarms[1]) <= 1, done.stdout
