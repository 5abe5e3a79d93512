"""Read the history of a run from a file of another tool: CSV of any dialect, JSON of any layout. Nothing is guessed.

What a file says becomes tables (tables.py); which of its columns are the losses is decided elsewhere.
"""

import csv
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.read.bounded import (
    DEEPEST,
    MOST_LINE,
    MOST_NUMBERS,
    MOST_ROWS,
    MOST_TABLE,
    Unreadable,
    at_most,
    in_utf8,
    opened,
    parsed,
    rest,
)
from trainer.read.columns import MOST_RUNS
from trainer.read.numbers import cell_number
from trainer.read.tables import MOST_TAGS, Builder, Table, is_run, unit_of
from trainer.read.tag_names import guess

_MOST_JSON = 1 << 24  # bytes: a Trainer's state of a million steps, logged at every tenth
_SNIFFED = 1 << 16  # bytes at the start of a JSON file that have to speak of a loss
_SPEAKS = re.compile(rb"(?i)loss|error|nll|entropy|perplexity|mse|mae")
_HEADER_WITHIN = 50  # lines
_COMMENTS = ("#", "%", "//")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # of a terminal
_WRAPPED = re.compile(  # tensor(0.25, device='cuda:0'), np.float64(0.25), array([0.25])
    r"\b(?:np\.|numpy\.|torch\.|jnp\.)?(?:tensor|array|float16|float32|float64|int64)\(\[?([-+0-9.einfaEINFA]+)\]?[^()\n]*\)"
)


# ------------------------------------------------------------------ CSV


def read_csv(path: Path, train_tag: str | None = None, val_tag: str | None = None) -> Table:
    """Read a table; one without a row where no column can be a run's. Raises Unreadable.

    The header may stand below a title or in a comment; the separator is the one it has most of, or blanks. A last
    line without its end counts if it is whole.
    """
    with opened(path) as file:
        first = file.read(MOST_LINE)
        if json.detect_encoding(first).startswith(("utf-16", "utf-32")):
            first = in_utf8(first + rest(file, path, MOST_TABLE))
        top = _lines(first)
        at, names, delimiter = _header(top, path, train_tag, val_tag)
        if not is_run(names, train_tag, val_tag) or len(names) < 2:
            return Table(names)
        if len(top) == 1 and len(first) >= MOST_LINE:
            raise Unreadable(f"{path}: cannot be read: its first line has more than {MOST_LINE:,} bytes")
        at_most(MOST_ROWS, first.count(b"\n") + first.count(b"\r"), "rows", path)
        del top
        body = first + rest(file, path, MOST_TABLE)
    whole = body.endswith((b"\n", b"\r"))
    lines = _lines(body)
    at_most(MOST_ROWS, len(lines), "rows", path)
    return _table(lines[at + 1 :], whole, path, names, delimiter, train_tag, val_tag)


def _lines(found: bytes) -> list[str]:
    """Return the lines, whatever ends them, the last one too if it has no end."""
    return decoded(found).replace("\r", "\n").removesuffix("\n").split("\n")


def decoded(found: bytes) -> str:
    """Return text in UTF-8, or else in the Western European encoding of spreadsheets; tensor(0.25) is its number."""
    found = found.replace(b"\r\n", b"\n").replace(b"\0", b"?")
    try:
        text = found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_cut = error.start > len(found) - 4  # within the last character
        text = found.decode("utf-8-sig" if is_cut else "cp1252", errors="replace")
    text = _COLOUR.sub("", text)
    return _WRAPPED.sub(r"\1", text) if "(" in text else text


def _header(lines: Sequence[str], path: Path, train_tag: str | None, val_tag: str | None) -> tuple[int, list[str], str]:
    """Return which line names the columns, the names, and what separates them; else the first that is no comment."""
    likely: list[tuple[int, list[str], str]] = []
    for at, line in enumerate(lines[:_HEADER_WITHIN]):
        is_comment = line.lstrip().startswith(_COMMENTS)
        text = line.strip(" ").lstrip("#%/ ") if is_comment else line.strip(" ")
        if not text:
            continue
        delimiter = max(",;\t|", key=text.count)
        delimiter = delimiter if delimiter in text else " "
        names = _split(text, delimiter, path)
        if is_comment:
            following = lines[at + 1] if at + 1 < len(lines) else ""
            cells = _split(following.strip(" "), delimiter, path)
            if len(cells) != len(names) or cell_number(cells[0]) is None:
                continue
        likely.append((at, names, delimiter))
        if guess(dict.fromkeys(names, 2), train_tag, val_tag) is not None:
            return likely[-1]
    with_axis = [one for one in likely if is_run(one[1], train_tag, val_tag) and any(map(unit_of, one[1]))]
    return next(iter([*with_axis, *likely]), (0, [], ","))


def _split(line: str, delimiter: str, path: Path) -> list[str]:
    with parsed(path):
        row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    return [cell.strip() for cell in row]


def _table(
    lines: Sequence[str], whole: bool, path: Path, names: list[str], delimiter: str, train: str | None, val: str | None
) -> Table:
    builder = Builder(names, len(lines), train, val)
    if not whole and lines and len(_split(lines[-1].strip(" "), delimiter, path)) < len(names):
        lines = lines[:-1]  # still being written
    place = {name: i for i, name in enumerate(names)}
    numeric = [(name, place[name]) for name in builder.table.numbers]
    worded = [(name, place[name]) for name in builder.table.words]
    told = (line.strip(" ") if delimiter == " " else line for line in lines if not line.startswith(_COMMENTS))
    with parsed(path):
        for row, cells in enumerate(csv.reader(told, delimiter=delimiter, skipinitialspace=True)):
            for name, i in numeric:
                if i < len(cells) and (cell := cells[i]) and (value := cell_number(cell)) is not None:
                    builder.number(row, name, value)
            for name, i in worded:
                if i < len(cells) and (cell := cells[i].strip()) and cell != name:
                    builder.word(row, name, cell)
            if builder.left < 0:
                raise Unreadable(f"{path}: cannot be read: more than {MOST_NUMBERS:,} numbers")
    return builder.done()


# ------------------------------------------------------------------ JSON


def read_json(path: Path, train_tag: str | None = None, val_tag: str | None = None) -> list[tuple[str, Table]]:
    """Read the tables of a JSON file, or of one with an object a line, each with what the file calls it.

    A table is a list of objects, or an object of lists; found wherever it stands; none where the file does not speak
    of a loss. Raises Unreadable.
    """
    tags = [tag.encode() for tag in (train_tag, val_tag) if tag]
    with opened(path) as file:
        first = file.read(_SNIFFED)
        plain = first.replace(b"\0", b"")  # of UTF-16
        if not (_SPEAKS.search(plain) or any(tag in plain for tag in tags)):
            return []
        found = first + rest(file, path, _MOST_JSON)
    return list(_tables(_parsed(found, path), path, "", train_tag, val_tag))


def read_points(path: Path) -> list[tuple[float, float]]:
    """Read TensorBoard's download of one tag as JSON: [[wall time, step, value], ...]. Raises Unreadable."""
    with opened(path) as file:
        points = _parsed(rest(file, path, _MOST_JSON), path)
    rows = points if isinstance(points, list) else []
    triples = [row for row in rows if isinstance(row, list) and len(row) == 3]
    numbers = [(_json_number(step), _json_number(value)) for _, step, value in triples]
    return [(step, value) for step, value in numbers if step is not None and value is not None]


def read_rows(paths: Iterable[tuple[int, Path]], train_tag: str | None, val_tag: str | None) -> Table:
    """Read files of one row each, as AllenNLP's metrics_epoch_3.json, with their numbers. Raises Unreadable."""
    rows, folder, left = [], Path(), _MOST_JSON
    for number, path in paths:
        with opened(path) as file:
            row = _parsed(rest(file, path, left), path)
            left -= file.tell()
        folder = path.parent
        rows.append({"epoch": number, **row} if isinstance(row, dict) else {})
    return of_rows(rows, folder, train_tag, val_tag)


def _parsed(found: bytes, path: Path) -> Any:
    """Return what JSON holds; of a file with an object a line, a list, without a last one still being written."""
    found = in_utf8(found).removeprefix(b"\xef\xbb\xbf").strip()
    with parsed(path):
        try:
            return json.loads(found, parse_int=float)
        except json.JSONDecodeError:
            lines = found.split(b"\n")
            if len(lines) > MOST_ROWS:
                raise
            rows = [json.loads(line, parse_int=float) for line in lines[:-1] if line.strip()]
            if not rows:
                raise
            with suppress(json.JSONDecodeError):
                rows.append(json.loads(lines[-1], parse_int=float))
            return rows


def _tables(
    node: Any, path: Path, label: str, train: str | None, val: str | None, depth: int = 0
) -> Iterator[tuple[str, Table]]:
    """Find tables in a document, from its top: the first that may be a run's ends the search below it."""
    if depth > 4:
        return
    if isinstance(node, list):
        rows = [row for row in node if isinstance(row, dict)]
        names = list({key: None for row in rows for key in _flat(row)})
        at_most(MOST_TAGS, len(names), "names", path)
        if len(rows) > 1 and is_run(names, train, val) and any(map(unit_of, names)):
            yield label, of_rows(rows, path, train, val)
        return
    if not isinstance(node, dict):
        return
    if isinstance(names := node.get("columns"), list) and isinstance(rows := node.get("data"), list):
        whole = [row for row in rows if isinstance(row, list) and len(row) == len(names)]  # pandas, Weights & Biases
        node = [dict(zip(map(str, names), row, strict=True)) for row in whole]
        yield from _tables(node, path, label, train, val, depth + 1)
        return
    inner = [(str(key), child) for key, child in node.items() if isinstance(child, dict | list)]
    below = [
        (key, table)
        for key, child in inner
        for key, table in _tables(child, path, key, train, val, depth + 1)
        if _is_whole(table, train, val)
    ]
    at_most(MOST_RUNS, len(below), "runs", path)
    if below:
        yield from ((key if len(below) > 1 else label, table) for key, table in below)
        return
    columns = _columns(node, path)
    if is_run(list(columns), train, val):
        yield label, of_columns(columns, path, train, val)


def _is_whole(table: Table, train: str | None, val: str | None) -> bool:
    points = {name: len(values) for name, (_, values) in table.numbers.items()}
    return guess(points, train, val) is not None or bool(table.words)


def _columns(node: Mapping[str, Any], path: Path, prefix: str = "", depth: int = 0) -> dict[str, list[Any]]:
    """Return the lists of an object of lists by name, those of objects within with both names: train/logloss."""
    found: dict[str, list[Any]] = {}
    for key, child in node.items():
        name = f"{prefix}{key}"
        if isinstance(child, list) and len(child) > 1 and any(_json_number(one) is not None for one in child):
            found[name] = child
        elif isinstance(child, dict) and depth < DEEPEST:
            if child and all(one.isdecimal() for one in child):  # as pandas writes a column
                found[name] = list(child.values())
            else:
                found |= _columns(child, path, f"{name}/", depth + 1)
    return found


def _builder(names: Sequence[str], rows: int, path: Path, train: str | None, val: str | None) -> Builder:
    at_most(MOST_TAGS, len(names), "names", path)
    return Builder(names, rows, train, val)


def of_columns(columns: Mapping[str, list[Any]], path: Path, train: str | None, val: str | None) -> Table:
    builder = _builder(list(columns), max(map(len, columns.values()), default=0), path, train, val)
    for name, cells in columns.items():
        try:
            builder.column(name, array("d", cells))  # nothing but numbers: no look at each
        except (KeyError, TypeError):
            for row, cell in enumerate(cells):
                _take(builder, row, name, cell, path)
    return builder.done()


def of_rows(rows: Sequence[Mapping[str, Any]], path: Path, train: str | None, val: str | None) -> Table:
    flat = [_flat(row) for row in rows]
    builder = _builder(list({name: None for row in flat for name in row}), len(flat), path, train, val)
    for i, row in enumerate(flat):
        for name, cell in row.items():
            _take(builder, i, name, cell, path)
    return builder.done()


def _take(builder: Builder, row: int, name: str, cell: Any, path: Path) -> None:
    if name in builder.table.numbers:
        if (value := _json_number(cell)) is not None:
            builder.number(row, name, value)
    elif name in builder.table.words and isinstance(cell, str | float):
        builder.word(row, name, cell if isinstance(cell, str) else f"{cell:.15g}")
    if builder.left < 0:
        raise Unreadable(f"{path}: cannot be read: more than {MOST_NUMBERS:,} numbers")


def _json_number(value: Any) -> float | None:
    """Return a number of JSON, or one written as text; truth is none, and a list of one number is that."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float):
        return value
    return cell_number(value) if isinstance(value, str) else None


def _flat(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Return the leaves of nested objects, each under all its names: eval/loss; lists only of one number."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and depth < 4:
            found |= _flat(value, f"{prefix}{key}/", depth + 1)
        elif isinstance(value, float | str) or (isinstance(value, list) and len(value) == 1):
            found[f"{prefix}{key}"] = value
    return found
