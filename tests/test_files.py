"""Whole files or none, and JSON that any reader takes."""

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from trainer import files


@pytest.mark.parametrize("content", [b"\x00\xff" * 10, "ü\n"])
def test_write_replaces_the_whole_file(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "summary.json"
    for text in ("a longer text that stood there before", content):
        files.write(path, text)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["summary.json"]


@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "summary.json"
    files.write(path, "old")

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[:2])
            raise OSError(28, "No space left on device")

    def refuse(*paths: object) -> None:
        raise OSError(13, "Permission denied")

    if step == "write":
        monkeypatch.setattr(files, "open", lambda path, mode: Full(path, "w"), raising=False)
    else:
        monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"No space left|Permission denied"):
        files.write(path, "new and longer")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "nowhere" / "file", "x")


def test_json_is_strict_and_floats_come_back() -> None:
    value = {"a": [math.nan, math.inf, -math.inf, 0.1, 1e-300], "b": {"c": (1, None, True, "nan")}}
    text = files.to_json(value)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    back = json.loads(text, parse_constant=refuse)
    assert [str(float(v)) for v in back["a"]] == ["nan", "inf", "-inf", "0.1", "1e-300"]
    assert back["b"] == {"c": [1, None, True, "nan"]}


def test_equal_values_equal_digests() -> None:
    assert files.digest({"a": 1, "b": 2.0}) == files.digest({"b": 2.0, "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})
