"""A few of each hostile input, and a few hundred mutations; scripts/hostile does all of them."""

import random
from pathlib import Path

import pytest

from scripts.hostile import kinds, mutations, sound, trials


@pytest.mark.parametrize("word", ["metrics.csv: a pipe", "YAML: alias bomb of"])
def test_a_kind_of_hostile_input(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trials.try_kinds(tmp_path, word) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_all_kinds_of_hostile_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(kinds.all_kinds()) > 200
    assert trials.try_kinds(tmp_path) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_mutations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutations.try_mutations(len(mutations.PARTS) * 20, 0, tmp_path) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_many_mutations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutations.try_mutations(1500, 1, tmp_path) == 0, capsys.readouterr().out


def test_a_fault_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a command that is no evaluation, and of one that raises."""
    trials.longest_s()  # which is measured once, by a command that works
    monkeypatch.setattr(trials.sys, "executable", "false")
    assert trials.try_kinds(tmp_path, "folders: circles") == 1
    monkeypatch.setattr(mutations.evaluate, "main", lambda arguments: 1 / 0)
    assert mutations.try_mutations(3, 0, tmp_path) == 3
    printed = capsys.readouterr().out
    assert "folders: circles: exit code 1" in printed
    assert printed.count("ZeroDivisionError") == 3


@pytest.mark.slow
def test_too_much_work_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trials, "MOST_WORK", 0.1)
    monkeypatch.setattr(trials, "longest_s", lambda: 0.1)
    assert trials.try_kinds(tmp_path, "folders: circles") == 1
    assert "times the work of the sound run beside it" in capsys.readouterr().out


def test_the_same_seed_makes_the_same_mutations() -> None:
    for name, content in sound.run_files().items():
        assert len({mutations.mutated(name, content, random.Random("0 1")) for _ in range(3)}) == 1
