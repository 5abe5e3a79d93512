"""Open and parse files that anybody may have written: of what kind, how large, how deep; any failure is one sentence.

All reading of a folder that is evaluated goes through here. What cannot be used raises Unreadable, which names the file
and says why, so that whoever looks through a folder skips that file and goes on. No file is waited for, none is read
further than its limit, and nothing in one is called.
"""

import csv
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

# Limits on one file. Each is far above what a training run writes, and keeps the worst that fits below it within
# seconds and a few hundred MB: parsed, a byte of JSON takes up to 20 bytes of memory.
MOST_DOCUMENT = 1 << 19  # bytes of JSON or YAML: ours have 10 KB
MOST_TABLE = 1 << 26  # bytes of CSV: a row a step for a million steps
MOST_ROWS = 2_000_000  # of CSV: a byte each is the least
MOST_NUMBERS = 8_000_000  # of a table or an event file that are kept, 16 to 24 bytes each
MOST_LINE = 1 << 20  # bytes of a CSV file's first line
DEEPEST = 32  # lists and dictionaries within each other: ours have 4
MOST_VALUES = 50_000  # of a document, an alias of YAML counted as what it stands for: ours have 300
MOST_KEYS = 1000  # of a configuration, each compared with each other: ours have 60
MOST_TEXT = 500  # characters of a key or a value that a table still shows
_MOST_BITS = 1000  # of an integer: a float holds 1024
_MOST_DIGITS = 300  # of a number in YAML: to read digits takes the square of their number

_ENDLESS = re.compile(rb"[0-9]{300}")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Unreadable(ValueError):
    """A file that cannot be used; the message names it and says why."""


class Missing(Unreadable):
    """A file that is not there, or not any more."""


def _unreadable(path: Path, error: OSError) -> Unreadable:
    kind = Missing if isinstance(error, FileNotFoundError) else Unreadable
    return kind(f"{path}: cannot be read: {error.strerror or error}")


@contextmanager
def parsed(path: Path) -> Iterator[None]:
    """Turn whatever a parser says of a file into one sentence.

    For parsers that others wrote only: what they raise on bytes that nobody meant for them is listed nowhere.
    """
    try:
        yield
    except Unreadable:
        raise
    except RecursionError as error:
        raise Unreadable(f"{path}: cannot be read: lists within lists, too deep") from error
    except Exception as error:
        said = " ".join(str(error).split())
        raise Unreadable(f"{path}: cannot be read: {shortened(said, 300) or type(error).__name__}") from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open an ordinary file, without waiting for the other end of a pipe."""
    try:
        with _open(path) as file:
            yield file
    except OSError as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> BinaryIO:
    _ordinary(path, os.stat(path))  # before opening: to open a device can move it
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115, the caller closes it
    _ordinary(path, os.fstat(file.fileno()))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _ordinary(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(f"{path}: cannot be read: {_KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}, not a file")


def content(path: Path, most: int) -> bytes:
    """Return a file's bytes, of which there may be so many."""
    try:
        with _open(path) as file:
            return rest(file, path, most)
    except OSError as error:
        raise _unreadable(path, error) from error


def rest(file: BinaryIO, path: Path, most: int) -> bytes:
    """Return what is left of an open file, which as a whole may have so many bytes."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise Unreadable(f"{path}: cannot be read: it has {size:,} bytes; no more than {most:,} are expected here")
    return file.read(size)


def at_most(most: int, found: int, of: str, path: Path) -> None:
    """Raise Unreadable where a file holds more of something than is read."""
    if found > most:
        raise Unreadable(f"{path}: cannot be read: more than {most:,} {of}")


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _unreadable(folder, error) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; not where a link leads in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return False


# ------------------------------------------------------------------ documents


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: 0.2 ms for one of our files, not 2.6


class _Loader(_SafeLoader):
    """YAML without what can grow: nothing is merged, and long numbers stay text."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave `<<` as it is, which is then refused: merged again and again, ten lines become a billion keys."""


def _number_or_text(loader: Any, node: yaml.ScalarNode) -> Any:
    kind = node.tag.rpartition(":")[2]
    return node.value if len(node.value) > _MOST_DIGITS else getattr(loader, f"construct_yaml_{kind}")(node)


def _foreign(loader: Any, node: yaml.Node) -> Any:
    """Return what stands behind a tag of a program's own, !!python/tuple or !mine, as what it is without the tag.

    Nothing is made of it: a name without a value is text, a call its arguments. `<<` is refused.
    """
    if node.tag == "tag:yaml.org,2002:merge":
        raise yaml.constructor.ConstructorError(
            None, None, f"could not determine a constructor for the tag {node.tag!r}"
        )
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return {str(key): value for key, value in loader.construct_pairs(node, deep=True)}
    return node.value or node.tag.removeprefix("tag:yaml.org,2002:")


_Loader.add_constructor(None, _foreign)
_Loader.add_constructor("tag:yaml.org,2002:binary", _foreign)
for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number_or_text)


def yaml_document(path: Path) -> Any:
    """Return what a YAML file holds, as `plain` leaves it."""
    found = content(path, MOST_DOCUMENT)
    with parsed(path):
        value = yaml.load(found.decode(), _Loader)
    return plain(value, path)


def json_document(found: bytes, path: Path) -> Any:
    """Return what a file's bytes hold, if that is JSON, as `plain` leaves it; not walked through where it is seen."""
    with parsed(path):
        value = json.loads(found)
    flat = len(found) < MOST_VALUES and found.count(b"[") + found.count(b"{") <= DEEPEST
    return value if flat and b"\\u" not in found and not _ENDLESS.search(found) else plain(value, path)


def plain(value: Any, path: Path) -> Any:
    """Return a parsed value made of what JSON has: other types and endless integers (arithmetic fails) become text.

    Raises Unreadable where it is too deep or too large.
    """
    left = MOST_VALUES

    def walk(node: Any, depth: int) -> Any:
        nonlocal left
        if isinstance(node, str):
            return node if node.isascii() else node.encode("utf-8", "replace").decode()  # JSON can hold half characters
        if node is None or isinstance(node, float | bool):
            return node
        if isinstance(node, dict | list):
            left -= len(node)
            if left < 0 or depth == DEEPEST:
                limit = f"{MOST_VALUES:,} values" if left < 0 else f"{DEEPEST} lists within each other"
                raise Unreadable(f"{path}: cannot be read: more than {limit}")
            if isinstance(node, list):
                return [walk(item, depth + 1) for item in node]
            return {walk(str(key), depth): walk(item, depth + 1) for key, item in node.items()}
        return node if isinstance(node, int) and node.bit_length() <= _MOST_BITS else str(node)

    return walk(value, 0)


def shortened(text: str, most: int = 100) -> str:
    """Cut a name that comes from a file to what a sentence can hold."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


# ------------------------------------------------------------------ tables


def in_utf8(found: bytes) -> bytes:
    """Return text as UTF-8, whichever of Unicode's encodings it is in: a byte order mark or its zero bytes tell."""
    return found.decode(json.detect_encoding(found), errors="replace").encode("utf-8", errors="replace")


def table_rows(found: bytes, path: Path) -> Iterator[list[str]]:
    """Read rows of CSV one by one, without a last one that is still being written."""
    whole = found[: found.rfind(b"\n") + 1].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    at_most(MOST_ROWS, whole.count(b"\n"), "rows", path)
    text = whole.replace(b"\0", b"?").decode("utf-8-sig", errors="replace")  # NUL is an error to Python 3.10's csv
    with parsed(path):
        yield from csv.reader(text.split("\n")[:-1])
