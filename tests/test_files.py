"""Whole files or none, and JSON that any reader takes."""

import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers import strict
from trainer import files


@pytest.mark.parametrize("content", [b"\x00\xff" * 10, "ü\n"])
def test_write_replaces_the_whole_file(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "summary.json"
    for text in ("a longer text that stood there before", content):
        files.write(path, text)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["summary.json"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A full disk, as far as this process is concerned."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    files.write(path, "old")
    with files_of_at_most(5), pytest.raises(OSError, match="File too large"):
        files.write(path, "new and longer")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_file_that_cannot_be_renamed_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        files.write(tmp_path / "folder", "new")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "nowhere" / "file", "x")


def test_json_is_strict_and_floats_come_back() -> None:
    value = {"a": [math.nan, math.inf, -math.inf, 0.1, 1e-300], "b": {"c": (1, None, True, "nan")}}
    text = files.to_json(value)

    back = strict(text)
    assert [str(float(v)) for v in back["a"]] == ["nan", "inf", "-inf", "0.1", "1e-300"]
    assert back["b"] == {"c": [1, None, True, "nan"]}


def test_a_target_that_cannot_be_written_is_named_before_any_work(tmp_path: Path) -> None:
    assert files.target_problems(None, "e.json") == files.target_problems("-", "e.json") == []
    assert files.target_problems(str(tmp_path / "new.json"), "e.json") == []
    (folder,) = files.target_problems(str(tmp_path), "e.json")
    assert folder == f"{tmp_path}: is a folder; give the file's name, such as {tmp_path}/e.json"
    (missing,) = files.target_problems(str(tmp_path / "no" / "e.json"), "e.json")
    assert missing.endswith(f"mkdir -p {tmp_path}/no")


def test_equal_values_equal_digests() -> None:
    assert files.digest({"a": 1, "b": 2.0}) == files.digest({"b": 2.0, "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_a_write_never_follows_a_link(tmp_path: Path) -> None:
    """Neither the file's own, nor one in the place where it is written first."""
    (tmp_path / "victim").write_text("mine")
    for name in ("a.json", "a.json.part", "metrics.csv"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    files.write(tmp_path / "a.json", "new")
    for size in (0, 2):
        growing = files.Growing(tmp_path / "metrics.csv")
        growing.size = size
        with pytest.raises(OSError, match="symbolic link"):
            growing.append(b"new")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "a.json").read_text() == "new"
    assert not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "a/../../victim", "away/victim", "away", ".."])
def test_a_name_in_a_file_never_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "victim").write_text("mine")
    (folder / "away").symlink_to(tmp_path)
    with pytest.raises(files.Damaged, match="leads out of it"):
        files.inside(folder, name)
    with pytest.raises(files.Damaged, match="leads out of it"):
        files.Growing.cut(folder, {"name": name, "size": 0, "crc32c": 0})  # which would remove it
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_name_in_a_file_below_its_folder(tmp_path: Path) -> None:
    assert files.inside(tmp_path, "checkpoints/best.pt") == tmp_path / "checkpoints/best.pt"
    assert files.inside(tmp_path, ".") == tmp_path
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)  # the folder itself may be one
    assert files.inside(tmp_path / "link", "a") == tmp_path / "link" / "a"
