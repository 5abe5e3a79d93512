"""A run's configuration, from where it is recorded."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests import fake_runs
from tests.helpers import composed, make_config
from trainer.compare.keys import seed_of
from trainer.files import to_json
from trainer.read.bounded import Unreadable, json_document
from trainer.read.configs import of_another_tool, read_config, recorded_config
from trainer.read.find_runs import find_runs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a:\n  b: 1.0e-05\n  c:\n    d: ''\n", {"a.b": 1e-5, "a.c.d": ""}),
        ("a:\n- 1\n- 2\n", {"a": [1, 2]}),
        ("a: {b: 1, c: {}}\n", {"a.b": 1, "a.c": {}}),
        ("a: 1 # note\nb:\n", {"a": 1, "b": None}),
        ("just text\n", {}),
        (f"a: {'9' * 400}\n", {"a": "9" * 400}),
        ("a: !!python/tuple [0.9, 0.99]\nlr: 0.1\n", {"a": [0.9, 0.99], "lr": 0.1}),
        ("a: !!python/object/apply:os.system [exit 3]\nb: !mine {c: 1}\n", {"a": ["exit 3"], "b.c": 1}),
        ("!!python/object:argparse.Namespace\nf: !!python/name:torch.relu ''\n", {"f": "python/name:torch.relu"}),
        ("a: !!binary '?'\nb: !!python/object/new:x {args: [1]}\n", {"a": "?", "b.args": [1]}),
        (
            "wandb_version: 1\n_wandb: {value: {t: 1}}\nlr: {desc: null, value: 0.1}\nmodel: {value: {depth: 2}}\n",
            {"lr": 0.1, "model.depth": 2},
        ),
        ("_wandb: {t: 1}\nlr: {desc: x, value: 0.1}\nseed: 0\n", {"lr.desc": "x", "lr.value": 0.1, "seed": 0}),
        ("a: 2026-01-02\nb: [2026-01-02, {1: x}]\n", {"a": "2026-01-02", "b": ["2026-01-02", {"1": "x"}]}),
    ],
)
def test_a_yaml_file(tmp_path: Path, text: str, expected: dict) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert read_config(path) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c\n", "mapping values are not allowed in this context"),
        ("a: \x00\n", "control characters are not allowed"),
        ("a: {b: 1", "did not find expected ',' or '}'"),
        ("[" * 5000, "exceeded maximum nesting depth"),
        ("[" * 100 + "]" * 100, "more than 32 lists within each other"),
        ("- 1\n" * 60_000, "more than 50,000 values"),
        ("a: &a [1]\nb: {<<: *a}\n", "could not determine a constructor for the tag 'tag:yaml.org,2002:merge'"),
        ("".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(9)), "50,000 values"),
        ("a: &a [*a]\n", "lists within each other"),
        (f"{'k' * 600}: {{b: 1}}\n", "a key of more than 500 characters"),
        ("#" * 600_000, "it has 600,000 bytes; no more than 524,288 are expected here"),
    ],
)
def test_a_yaml_file_that_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(Unreadable) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: cannot be read: ")
    assert said in str(error.value)


def test_long_numbers_are_text_and_long_texts_are_cut_and_stay_different(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"a: {'9' * 5000}\nb: {'1:' * 190}1\nc: !!int {'1' + ':1' * 9000}\nd: [{'7, ' * 300}]\n")
    config = read_config(path)
    assert config["a"].startswith("9" * 100 + "... (5,000 characters) ")
    assert {type(value) for value in config.values()} == {str}
    path.write_text(f"a: {'9' * 4999}8\n")
    assert read_config(path)["a"] != config["a"]


@pytest.mark.parametrize(
    ("run", "more", "key", "seed"),
    [
        (3, {}, "run_idx", 3),
        ("3", {}, "run_idx", "3"),
        (3, {"data_seed": 0}, "run_id", 0),
        ("wide", {}, "run_id", None),
        (None, {}, "run_id", None),
    ],
)
def test_a_setting_called_run_numbers_or_names_runs(
    tmp_path: Path, run: object, more: dict, key: str, seed: object
) -> None:
    """By that key a comparison tells apart runs of which nothing is known."""
    fake_runs.other_run(tmp_path / "a", ("train_loss", "val_loss"), *fake_runs.curves(30, 0.5, 0))
    (tmp_path / "a" / "hparams.json").write_text(json.dumps({"lr": 0.1, "run": run, **more}))
    (found,), _ = find_runs([tmp_path])
    assert found.config == {"lr": 0.1, key: run, **more}
    assert seed_of(found.config) == seed


def test_what_differs_in_the_last_digits_of_a_float_is_one_level() -> None:
    """Of a whole number, a seed, each digit counts."""
    config = {"a": 0.1 + 0.2, "b": [0.9, 1 - 0.9, [7 * 1e-5]], "c": 1e-300 / 3, "d": 2**60 + 1, "e": float("inf")}
    expected = {"a": 0.3, "b": [0.9, 0.1, [7e-5]], "c": 3.33333333333e-301, "d": 2**60 + 1, "e": float("inf")}
    assert of_another_tool(config) == expected
    assert of_another_tool({"a": 0.300000000001}) == {"a": 0.300000000001}


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


@pytest.mark.parametrize("choices", [(), ("optimizer=sgd", "model=cnn", "schedule=cosine"), ("problem=rosenbrock",)])
def test_hydras_file_says_what_the_summary_says(tmp_path: Path, choices: tuple[str, ...]) -> None:
    """Of a sweep in which a run was killed, or is still running: no key of one is a knob beside the others."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(composed(*choices)))
    summary = {"config": json.loads(to_json(make_config(*choices).flat()))}
    assert recorded_config({}, tmp_path) == recorded_config(summary, tmp_path)


def test_a_summary_with_endless_numbers_or_without_a_configuration(tmp_path: Path) -> None:
    text = f'{{"config": {{"a": {"9" * 400}, "b": 2}}}}'
    summary = json_document(text.encode(), tmp_path)
    assert recorded_config(summary, tmp_path) == {"a": "9" * 400, "b": 2}
    assert recorded_config({"config": ["?"]}, tmp_path) == {}
