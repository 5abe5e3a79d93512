"""A run's configuration, from where it is recorded."""

import json
from pathlib import Path

import pytest

from tests import fake_runs
from trainer.read.configs import NO_RESULT, read_config, recorded_config
from trainer.read.find_runs import find_runs
from trainer.record import provenance


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a:\n  b: 1.0e-05\n  c:\n    d: ''\n", {"a.b": 1e-5, "a.c.d": ""}),
        ("a:\n- 1\n- 2\n", {"a": [1, 2]}),
        ("a: {b: 1, c: {}}\n", {"a.b": 1, "a.c": {}}),
        ("a: 1 # note\nb:\n", {"a": 1, "b": None}),
        ("a: b: c\n", {}),
        ("a: !!python/object/apply:os.system ['true']\n", {}),
        ("just text\n", {}),
        (f"a: {'9' * 400}\n", {"a": "9" * 400}),
        (f"a: {'9' * 5000}\n", {}),
        ("a: \x00\n", {}),
        ("a: 2026-01-02\nb: [2026-01-02, {1: x}]\n", {"a": "2026-01-02", "b": ["2026-01-02", {"1": "x"}]}),
    ],
)
def test_a_yaml_file(tmp_path: Path, text: str, expected: dict) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert read_config(path) == expected


def test_no_file(tmp_path: Path) -> None:
    assert read_config(tmp_path / "none.yaml") == {}


def test_a_finished_and_an_unfinished_run_have_the_same_keys(tmp_path: Path) -> None:
    """Keys that change no result stand in Hydra's file only; they must not become knobs of a sweep still running."""
    config = {"seed": 0, "model": {"depth": 2}, "data": {"root": "/a"}, "checkpoint": {"minutes": 1, "epochs": None}}
    losses = fake_runs.curves(30, 0.5, 0)
    for name in ("finished", "unfinished"):
        fake_runs.our_run(tmp_path / name, config, *losses, events=False)
    (tmp_path / "unfinished" / "summary.json").unlink()
    (tmp_path / "finished" / ".hydra" / "config.yaml").unlink()
    finished, unfinished = find_runs([tmp_path])[0]
    assert finished.config == unfinished.config == {"seed": 0, "model.depth": 2}


def test_what_changes_no_result_is_the_recorders_list() -> None:
    assert NO_RESULT == provenance.NO_RESULT


def test_a_summary_with_endless_numbers_or_without_a_configuration(tmp_path: Path) -> None:
    summary = json.loads(f'{{"config": {{"a": {"9" * 400}, "b": 2}}}}')
    assert recorded_config(summary, tmp_path) == {"a": "9" * 400, "b": 2}
    assert recorded_config({"config": ["?"]}, tmp_path) == {}
