"""Killed, full, damaged: a few of each; scripts.faults does all of them, with a sweep of 12 mixed runs."""

from pathlib import Path

import pytest

from scripts import faults, foreign_files
from tests.helpers import Cli


@pytest.fixture(autouse=True)
def _elsewhere(cli: Cli) -> None:
    """In an empty folder, with Hydra's state put back afterwards."""


@pytest.mark.slow
def test_a_killed_sweep_ends_with_the_bits_of_one_never_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faults.kill(1, 0, tmp_path, ["extended"], most_kills=1) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_killed_sweeps_of_mixed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.kill(25, 1, tmp_path, most_kills=6) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_a_full_disk_is_reported_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.full(tmp_path, every=110) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_full_disks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.full(tmp_path, every=9) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_a_damaged_plan_is_reported_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.flip(1, 0, tmp_path, "plan.json") == 0, capsys.readouterr().out


@pytest.mark.slow
def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.flip(1, 1, tmp_path) == 0, capsys.readouterr().out


def test_hostile_input_is_one_of_the_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for all kinds, and for as many changes as were asked for."""
    asked = []
    monkeypatch.setattr(faults.trials, "try_kinds", lambda folder: asked.append("kinds") or 0)
    monkeypatch.setattr(faults.mutations, "try_mutations", lambda count, seed, folder: asked.append(count) or 1)
    assert faults.main(["hostile", "--n", "7"]) == 1
    assert asked == ["kinds", 7]


@pytest.mark.slow
def test_directories_with_somebodys_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert foreign_files.foreign_files(tmp_path) == 0, capsys.readouterr().out
