"""The fast reader of plain YAML against PyYAML."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainer.read import flatyaml
from trainer.read.flatyaml import read_flat

KEYS = st.sampled_from(["a", "b", "lr", "x_1", "yes", "null", "on", "1", "a b"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text("ab :#'\"-\n{[&*!|>%@`é.1", max_size=8)
    | st.lists(st.integers(), max_size=2)
)
TREES = st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES)))


@given(TREES)
def test_equals_pyyaml(tree: dict) -> None:
    text = yaml.safe_dump(tree)
    plain = flatyaml._read_plain(text)
    assert plain is None or plain == flatyaml._flatten(yaml.safe_load(text))


def test_hydras_config_takes_the_fast_way(tmp_path: Path) -> None:
    text = "seed: 0\nname: null\nmodel:\n  depth: 2\n  dropout: 0.5\n  act: relu\n  sub:\n    a: ''\n"
    text += "optimizer:\n  lr: 1.0e-05\n"
    path = tmp_path / "config.yaml"
    path.write_text(text)
    expected = {"seed": 0, "name": None, "model.depth": 2, "model.dropout": 0.5, "model.act": "relu", "model.sub.a": ""}
    assert flatyaml._read_plain(text) == read_flat(path) == expected | {"optimizer.lr": 1e-5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a:\n- 1\n- 2\n", {"a": [1, 2]}),
        ("a: |\n  x: 1\n", {"a": "x: 1\n"}),
        ("a: 'x\n  b: 1'\n", {"a": "x b: 1"}),
        ("a: {b: 1}\n", {"a.b": 1}),
        ("a: 1 # note\n# more\nb: 2\n", {"a": 1, "b": 2}),
        ("a: b: c\n", {}),
        ("a: !!python/object/apply:os.system ['true']\n", {}),
        ("just text\n", {}),
        ("a:\n", {"a": None}),
        (f"a: {'9' * 400}\n", {"a": "9" * 400}),
        (f"a: {'9' * 5000}\n", {}),
    ],
)
def test_other_yaml(tmp_path: Path, text: str, expected: dict) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert read_flat(path) == expected


def test_no_file(tmp_path: Path) -> None:
    assert read_flat(tmp_path / "none.yaml") == {}
