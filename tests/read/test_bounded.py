"""Files of every kind but the right one: none is waited for, none is read beyond its limit, each gets a sentence."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.read import bounded
from trainer.read.bounded import Missing, Unreadable


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "a pipe, not a file"),
        (make_socket, "a socket, not a file"),
        (os.mkdir, "a folder, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"x" * 11), "it has 11 bytes; no more than 10 are expected here"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_what_is_no_file_is_said(
    make: Callable[[Path], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address is short
    path = tmp_path / "file"
    make(path)
    with pytest.raises(Unreadable) as error:
        bounded.content(path, 10)
    assert str(error.value) == f"{path}: cannot be read: {said}"
    assert isinstance(error.value, Missing) == said.startswith("No such")


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="none: cannot be read: No such file or directory"):
        bounded.listing(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "lists within lists, too deep"),
        ("[" * 33 + "]" * 33, "more than 32 lists within each other"),
        ('{"a": ' * 33 + "1" + "}" * 33, "more than 32 lists within each other"),
        (json.dumps([0] * 60_000), "more than 50,000 values"),
        ("9" * 5000, "Exceeds the limit"),
        (b"\xff", "codec can't decode"),
    ],
)
def test_json_that_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(Unreadable) as error:
        bounded.json_document(text if isinstance(text, bytes) else text.encode(), Path("summary.json"))
    assert str(error.value).startswith("summary.json: cannot be read: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[" * 32 + "]" * 32, None),  # as deep as it may be
        ('{"a": [1, 2.5, true, null, "ü"]}', {"a": [1, 2.5, True, None, "ü"]}),
        ("9" * 400, "9" * 400),
        ('["\\ud800", "\\ud83d\\ude00"]', ["?", "\U0001f600"]),
        ('{"\\udc00": 1}', {"?": 1}),
    ],
)
def test_json_becomes_plain(text: str, value: object) -> None:
    found = bounded.json_document(text.encode(), Path("summary.json"))
    assert found == (json.loads(text) if value is None else value)


def test_a_parsed_value_of_other_types_becomes_text() -> None:
    assert bounded.plain({1: (2,), "a": {None: b"x"}}, Path()) == {"1": "(2,)", "a": {"None": "b'x'"}}


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"a,b\n1,2\n3,", [["a", "b"], ["1", "2"]]),
        (b"\xef\xbb\xbfa\r\n1\r2\n", [["a"], ["1"], ["2"]]),
        (b"a\0b,\xff\n", [["a?b", "\ufffd"]]),
        (b'"a\nb",c\n', [["ab", "c"]]),
        (b"", []),
    ],
)
def test_rows_of_a_table(content: bytes, rows: list[list[str]]) -> None:
    assert list(bounded.table_rows(content, Path("t.csv"))) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a\n" + b"9" * 200_000 + b"\n", "field larger than field limit"),
        (b"\n" * 2_000_001, "more than 2,000,000 rows"),
    ],
)
def test_tables_that_are_refused(content: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        list(bounded.table_rows(content, Path("t.csv")))
