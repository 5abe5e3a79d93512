"""TensorBoard event files, written and read in one place: thousands of scalars at a time, without TensorFlow or torch.

A file is a row of records: uint64 length, masked crc32c of those 8 bytes, payload, masked crc32c of the payload
(all little-endian). A payload is a protobuf `Event`: wall_time = 1 (double), step = 2 (varint), summary = 5, which
holds values = 1: tag = 1, simple_value = 2 (float), tensor = 8, metadata = 9.
Source: tensorboard/compat/proto/{event,summary,tensor}.proto and TFRecord's documentation.
"""

import itertools
import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

_HEADER = struct.Struct("<QI")  # length of the payload, masked crc32c of that length
_FOOTER = 4  # bytes of the payload's masked crc32c
_file_number = itertools.count()
_VARINT_STARTS = np.array([1] + [1 << 7 * i for i in range(1, 10)], np.uint64)  # the first number 1, 2, ... bytes long


class Scalars(NamedTuple):
    """One tag's points in the order of the file, each array (N,): int64 steps, float64 values, float64 seconds."""

    steps: np.ndarray
    values: np.ndarray
    wall_times: np.ndarray


# ------------------------------------------------------------------ writing


class EventWriter:
    """Appends events to one new file in `directory`; nothing reaches the disk, and no file is open, outside `flush`.

    `wall_time` (seconds since 1970, default now) dates the file. Not safe for two threads at once.
    """

    def __init__(self, directory: str | os.PathLike[str], *, wall_time: float | None = None) -> None:
        self._born = time.time() if wall_time is None else wall_time
        name = f"events.out.tfevents.{int(self._born):010d}.{socket.gethostname()}.{os.getpid()}.{next(_file_number)}"
        self.path = Path(directory) / name
        self._pending = [_record(_message((1, float(self._born)), (3, "brain.Event:2")))]  # 3: file_version

    def scalars(self, tags: Sequence[str], steps: np.ndarray, values: np.ndarray, wall_times: np.ndarray) -> None:
        """One event a step, holding all T tags: steps (S,) integers, values (S, T), wall_times (S,) in seconds.

        TensorBoard keeps scalars as 32-bit floats: what is larger becomes infinite. NaN and infinity are kept.
        """
        steps = np.asarray(steps, np.int64)
        with np.errstate(over="ignore"):
            narrow = np.asarray(values, np.float64).astype("<f4")
        walls = np.asarray(wall_times, "<f8")
        assert narrow.shape == (len(steps), len(tags))
        assert walls.shape == steps.shape
        widths = _varint_widths(steps)
        cuts = np.flatnonzero(np.diff(widths)) + 1
        for begin, end in itertools.pairwise([0, *cuts.tolist(), len(steps)]):
            if begin < end:
                rows = slice(begin, end)
                block = _scalar_block(tuple(tags), int(widths[begin]), steps[rows], narrow[rows], walls[rows])
                self._pending.append(block)

    def image(self, tag: str, step: int, png: bytes, width: int, height: int, wall_time: float) -> None:
        """A picture, already encoded as PNG, `width` x `height` pixels."""
        rgba = 4
        picture = _message((1, height), (2, width), (3, rgba), (4, png))
        self._value(_message((1, tag), (4, picture)), step, wall_time)

    def text(self, tag: str, step: int, markdown: str, wall_time: float) -> None:
        """Markdown for TensorBoard's text page."""
        self._value(_plugin_value(f"{tag}/text_summary", "text", b"", markdown.encode()), step, wall_time)

    def custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Charts of several tags each: {category: {title of the chart: tags}}."""

        def chart(title: str, tags: Sequence[str]) -> bytes:
            exactly = [
                (1, re.escape(tag) + "$") for tag in tags
            ]  # TensorBoard takes a tag here as a regular expression
            return _message((1, title), (2, _message(*exactly)))

        categories = [
            (2, _message((1, title), *((2, chart(*item)) for item in charts.items())))
            for title, charts in layout.items()
        ]
        value = _plugin_value("custom_scalars__config__", "custom_scalars", b"", _message(*categories))
        self._value(value, 0, self._born)

    def hparams_start(self, config: Mapping[str, str | float | bool], group_name: str, wall_time: float) -> None:
        """This run's row in TensorBoard's HParams table; runs of one `group_name` are repetitions of one setting.

        Metric columns need no list: without an experiment summary TensorBoard takes every scalar tag's last value.
        """
        hparams = [(1, _message((1, key), (2, _struct_value(value)))) for key, value in config.items()]
        start = _message(*hparams, (4, group_name), (5, float(wall_time)))
        value = _plugin_value("_hparams_/session_start_info", "hparams", _message((3, start)), None)
        self._value(value, 0, wall_time)

    def hparams_end(self, status: str, wall_time: float) -> None:
        """How the run ended: 'SUCCESS', 'FAILURE' or 'RUNNING'."""
        end = _message((1, _STATUSES[status]), (2, float(wall_time)))
        value = _plugin_value("_hparams_/session_end_info", "hparams", _message((4, end)), None)
        self._value(value, 0, wall_time)

    def flush(self) -> None:
        """Append what was said since the last flush."""
        if self._pending:
            with open(self.path, "ab") as file:
                file.write(b"".join(self._pending))
            self._pending = []

    def _value(self, value: bytes, step: int, wall_time: float) -> None:
        self._pending.append(_record(_message((1, float(wall_time)), (2, int(step)), (5, _message((1, value))))))


_STATUSES = {"SUCCESS": 1, "FAILURE": 2, "RUNNING": 3}  # tensorboard/plugins/hparams/api.proto
_DT_FLOAT, _DT_STRING = 1, 7  # types.proto


def _message(*fields: tuple[int, bytes | str | float]) -> bytes:
    """A protobuf message of (number, value) fields; as protobuf does, a number that is 0 is left out."""
    parts = []
    for number, value in fields:
        if isinstance(value, float):
            parts += [_varint(number << 3 | 1), struct.pack("<d", value)] if value else []
        elif isinstance(value, int):
            parts += [_varint(number << 3), _varint(value & (1 << 64) - 1)] if value else []
        else:
            data = value.encode() if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2), _varint(len(data)), data]
    return b"".join(parts)


def _plugin_value(tag: str, plugin: str, content: bytes, string: bytes | None) -> bytes:
    """A Summary.Value for a plugin: one string, or the null tensor where the plugin keeps all in its metadata."""
    plugin_data = _message((1, plugin), (2, content)) if content else _message((1, plugin))
    shape = _message((2, _message((1, 0 if string is None else 1))))  # one dimension, of size 0 or 1
    if string is None:
        tensor = _message((1, _DT_FLOAT), (2, shape))
    else:
        tensor = _message((1, _DT_STRING), (2, shape), (8, string))
    return _message((1, tag), (8, tensor), (9, _message((1, plugin_data))))


def _struct_value(value: str | float | bool) -> bytes:
    """google.protobuf.Value: a oneof, so that zero, False and '' are written too."""
    if isinstance(value, bool):  # before numbers: a bool is an int
        return b"\x20" + bytes([value])
    if isinstance(value, str):
        return _message((3, value))
    return b"\x11" + struct.pack("<d", value)


def _record(payload: bytes) -> bytes:
    header = struct.pack("<Q", len(payload))
    checks = _mask(np.array([google_crc32c.value(header), google_crc32c.value(payload)], np.uint32)).tolist()
    return header + struct.pack("<I", checks[0]) + payload + struct.pack("<I", checks[1])


def _mask(crcs: np.ndarray) -> np.ndarray:
    """TFRecord's masked crc: rotated by 15 bits plus a constant, modulo 2^32."""
    return ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(0xA282EAD8)


def _varint_widths(numbers: np.ndarray) -> np.ndarray:
    """Bytes that each int64 takes as a varint; 0 for the number 0, which protobuf leaves out. Negative ones take 10."""
    return np.searchsorted(_VARINT_STARTS, numbers.view(np.uint64), side="right")


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


@lru_cache(maxsize=256)
def _scalar_template(tags: tuple[str, ...], step_width: int) -> tuple[np.ndarray, np.ndarray]:
    """A whole record (R,) with zeros where wall time, step and values go, and the columns (T * 4,) of the values."""
    assert all(tags), "protobuf leaves out an empty tag"
    summary, offsets = bytearray(), []
    for tag in tags:
        name = tag.encode()
        value = b"\x0a" + _varint(len(name)) + name + b"\x15" + bytes(4)
        summary += b"\x0a" + _varint(len(value)) + value
        offsets.append(len(summary) - 4)
    step = b"\x10" + bytes(step_width) if step_width else b""
    before = b"\x09" + bytes(8) + step + b"\x2a" + _varint(len(summary))
    record = np.frombuffer(_record(before + bytes(summary)), np.uint8)
    columns = _HEADER.size + len(before) + np.array(offsets, np.intp)[:, None] + np.arange(4)
    return record, columns.ravel()


def _scalar_block(
    tags: tuple[str, ...], step_width: int, steps: np.ndarray, values: np.ndarray, walls: np.ndarray
) -> bytes:
    """Records of S steps that are all `step_width` bytes long: the template S times, filled column by column."""
    template, columns = _scalar_template(tags, step_width)
    block = np.tile(template, (len(steps), 1))
    wall = _HEADER.size + 1
    block[:, wall : wall + 8] = walls[:, None].view(np.uint8)
    rest = steps.view(np.uint64)
    for i in range(step_width):
        more = 0x80 if i < step_width - 1 else 0
        block[:, wall + 9 + i] = (rest & np.uint64(0x7F)).astype(np.uint8) | more
        rest = rest >> np.uint64(7)
    block[:, columns] = np.ascontiguousarray(values).view(np.uint8).reshape(len(steps), -1)
    payloads = block[:, _HEADER.size : -_FOOTER].tobytes()
    size = len(template) - _HEADER.size - _FOOTER
    crcs = [google_crc32c.value(payloads[i : i + size]) for i in range(0, len(payloads), size)]
    block[:, -_FOOTER:] = _mask(np.array(crcs, np.uint32)).astype("<u4")[:, None].view(np.uint8)
    return block.tobytes()


# ------------------------------------------------------------------ reading


def read_scalars(path: str | os.PathLike[str]) -> tuple[dict[str, Scalars], list[str]]:
    """Every scalar of an event file, and what was wrong with the file, one sentence each.

    Reads simple values and one-element tensors (Keras, TensorFlow 2). A file still growing, or cut off, is read as far
    as it goes; records whose checksum is wrong are left out. Raises OSError where the file cannot be read.
    """
    data = Path(path).read_bytes()
    starts, lengths, problems = _frames(data)
    pieces: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for length in np.unique(lengths).tolist():
        begins = starts[lengths == length]
        rows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), length + _FOOTER)[begins]
        crcs = np.array([google_crc32c.value(data[i : i + length]) for i in begins.tolist()], np.uint32)
        sound = _mask(crcs) == rows[:, length:].copy().view("<u4")[:, 0]
        problems += [f"byte {at - _HEADER.size}: wrong checksum, record left out" for at in begins[~sound].tolist()]
        for tag, *arrays in _points(rows[sound, :length], begins[sound], problems):
            pieces.setdefault(tag, []).append(tuple(arrays))
    return {tag: _in_file_order(parts) for tag, parts in pieces.items()}, problems


def _in_file_order(parts: list[tuple[np.ndarray, ...]]) -> Scalars:
    places, steps, values, walls = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(places, kind="stable")
    return Scalars(steps[order], values[order], walls[order])


def _frames(data: bytes) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Where each record's payload starts and how long it is; the payloads are not checked yet."""
    starts, lengths, problems = [], [], []
    known: dict[int, int] = {}  # lengths seen, with their checksums
    position, size = 0, len(data)
    guess, next_guess = 256, 64  # how many cycles to jump over at once, and the record at which to try
    while position + _HEADER.size <= size:
        if len(starts) >= next_guess:
            cycles = _repeated(data, position, lengths[-16:], guess)
            starts += cycles.ravel().tolist()
            lengths += lengths[-cycles.shape[1] :] * len(cycles)
            if len(cycles):
                position = starts[-1] + lengths[-1] + _FOOTER
            guess = 2 * guess if len(cycles) == guess else 256
            next_guess = len(starts) + (0 if len(cycles) else 64)
            continue
        length, check = _HEADER.unpack_from(data, position)
        if known.get(length) != check:
            if _masked(data[position : position + 8]) != check:
                found = _next_header(data, position + 1)
                what = "the rest is unreadable" if found is None else f"skipped to byte {found}"
                problems.append(f"byte {position}: not an event record, {what}")
                if found is None:
                    position = size
                    break
                position = found
                continue
            known[length] = check
        end = position + _HEADER.size + length + _FOOTER
        if end > size:
            break
        starts.append(position + _HEADER.size)
        lengths.append(length)
        position = end
    if position < size:
        problems.append(f"byte {position}: the file ends inside a record (cut off, or still being written)")
    return np.array(starts, np.int64), np.array(lengths, np.int64), problems


def _repeated(data: bytes, position: int, recent: list[int], at_most: int) -> np.ndarray:
    """Payload starts (n, p) of the next n cycles, where records' lengths repeat with period p and go on doing so.

    A training loop writes the same few tags over and over: comparing a thousand headers at once beats reading each.
    """
    period = next((p for p in range(1, 9) if recent[p:] == recent[:-p]), None)
    if period is None:
        return np.empty((0, 1), np.int64)
    sizes = np.array(recent[-period:], np.int64) + _HEADER.size + _FOOTER
    cycle, begins = int(sizes.sum()), np.cumsum(sizes) - sizes
    count = min(at_most, (len(data) - position) // cycle)
    block = np.frombuffer(data, np.uint8, (count + 1) * cycle, position - cycle).reshape(count + 1, cycle)
    headers = block[:, (begins[:, None] + np.arange(_HEADER.size)).ravel()]
    alike = (headers[1:] == headers[0]).all(axis=1)
    count = count if alike.all() else int(alike.argmin())
    return position + _HEADER.size + begins + cycle * np.arange(count)[:, None]


def _masked(data: bytes) -> int:
    return int(_mask(np.array([google_crc32c.value(data)], np.uint32))[0])


def _next_header(data: bytes, position: int) -> int | None:
    """The first byte from `position` on where a record of less than 16 MiB can start."""
    if position + _HEADER.size > len(data):
        return None
    window = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), _HEADER.size)[position:]
    likely = ~window[:, 3:8].any(axis=1) & window[:, :3].any(axis=1)
    for at in (np.flatnonzero(likely) + position).tolist():
        length, check = _HEADER.unpack_from(data, at)
        if _masked(data[at : at + 8]) == check and at + _HEADER.size + length + _FOOTER <= len(data):
            return at
    return None


class _Layout(NamedTuple):
    """Where the numbers stand in an event's bytes. Offsets of -1 mean 'left out', which is 0."""

    wall: int
    step: int
    step_width: int
    points: list[tuple[str, int, str, float]]  # tag, offset, numpy type; where the offset is -1, the value itself
    fixed: np.ndarray  # (L,) whether a byte is the same in all events of this layout


def _points(rows: np.ndarray, places: np.ndarray, problems: list[str]) -> Iterator[tuple[Any, ...]]:
    """(tag, places, steps, values, wall times) of events of one length, rows (N, L) uint8.

    Events that differ only in their numbers are decoded together: one is parsed, the others are compared with it.
    """
    pending = np.ones(len(rows), bool)
    layouts = decoded = 0
    for i in range(len(rows)):
        if not pending[i]:
            continue
        try:
            layout = _parse_event(rows[i].tobytes())
        except (ValueError, IndexError, struct.error, UnicodeDecodeError):
            problems.append(f"byte {places[i] - _HEADER.size}: the record holds no event, left out")
            continue
        if not layout.points:
            continue
        same = np.array([i])
        if layouts < 64 or decoded > 8 * layouts:  # else every event has a layout of its own: comparing is in vain
            rest = i + np.flatnonzero(pending[i:])
            same = rest[_alike(rows[rest], rows[i], layout)]
        layouts, decoded = layouts + 1, decoded + len(same)
        pending[same] = False
        yield from _decode(rows[same], places[same], layout)


def _alike(rows: np.ndarray, pattern: np.ndarray, layout: _Layout) -> np.ndarray:
    alike = (rows[:, layout.fixed] == pattern[layout.fixed]).all(axis=1)
    if layout.step_width:
        step = slice(layout.step, layout.step + layout.step_width)
        alike &= (rows[:, step] >> 7 == pattern[step] >> 7).all(axis=1)  # equally long varints
    return alike


def _decode(rows: np.ndarray, places: np.ndarray, layout: _Layout) -> Iterator[tuple[Any, ...]]:
    def column(offset: int, kind: str) -> np.ndarray:
        size = np.dtype(kind).itemsize
        return np.ascontiguousarray(rows[:, offset : offset + size]).view(kind)[:, 0].astype(np.float64)

    walls = column(layout.wall, "<f8") if layout.wall >= 0 else np.zeros(len(rows))
    steps = np.zeros(len(rows), np.uint64)
    for i in range(layout.step_width):
        steps |= (rows[:, layout.step + i] & 0x7F).astype(np.uint64) << np.uint64(7 * i)
    for tag, offset, kind, constant in layout.points:
        values = column(offset, kind) if offset >= 0 else np.full(len(rows), constant)
        yield tag, places, steps.view(np.int64), values, walls


def _fields(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, begin, end, value) of a protobuf message's fields; the value of a varint, else 0."""
    while begin < end:
        key, begin = _read_varint(data, begin, end)
        kind, value, start = key & 7, 0, begin
        if kind == 0:
            value, stop = _read_varint(data, begin, end)
        elif kind == 2:
            size, start = _read_varint(data, begin, end)
            stop = start + size
        elif kind in (1, 5):
            stop = begin + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if stop > end:
            raise ValueError("field longer than its message")
        yield key >> 3, start, stop, value
        begin = stop


def _read_varint(data: bytes, begin: int, end: int) -> tuple[int, int]:
    value = 0
    for i in range(begin, min(end, begin + 10)):
        value |= (data[i] & 0x7F) << 7 * (i - begin)
        if data[i] < 0x80:
            return value & (1 << 64) - 1, i + 1
    raise ValueError("varint without an end")


def _parse_event(data: bytes) -> _Layout:
    wall, step, width, points = -1, -1, 0, []
    fixed = np.ones(len(data), bool)
    for number, begin, end, _ in _fields(data, 0, len(data)):
        if number == 1 and end - begin == 8:
            wall = begin
            fixed[begin:end] = False
        elif number == 2:
            step, width = begin, end - begin
            fixed[begin:end] = False
        elif number == 5:
            points += [
                point
                for field, start, stop, _ in _fields(data, begin, end)
                if field == 1 and (point := _parse_value(data, start, stop)) is not None
            ]
    for _, offset, kind, _ in points:
        if offset >= 0:
            fixed[offset : offset + np.dtype(kind).itemsize] = False
    return _Layout(wall, step, width, points, fixed)


def _parse_value(data: bytes, begin: int, end: int) -> tuple[str, int, str, float] | None:
    """(tag, offset, numpy type, constant) of a Summary.Value that is a scalar."""
    tag, number, plugin = "", None, "scalars"
    for field, start, stop, _ in _fields(data, begin, end):
        if field == 1:
            tag = data[start:stop].decode()
        elif field == 2:
            number = start, "<f4", 0.0
        elif field == 8:
            number = _parse_tensor(data, start, stop)
        elif field == 9:
            plugin = _plugin_name(data, start, stop)
    if number is None or plugin != "scalars":
        return None
    offset, kind, constant = number
    return tag, offset, kind, constant


def _plugin_name(data: bytes, begin: int, end: int) -> str:
    for field, start, stop, _ in _fields(data, begin, end):
        if field == 1:  # plugin_data
            for inner, name, name_end, _ in _fields(data, start, stop):
                if inner == 1:
                    return data[name:name_end].decode()
    return "scalars"


_CONTENT_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # tensorboard/compat/proto/types.proto
_VALUE_TYPES = {5: "<f4", 6: "<f8"}  # float_val, double_val


def _parse_tensor(data: bytes, begin: int, end: int) -> tuple[int, str, float] | None:
    """(offset, numpy type, constant) of the one number of a TensorProto; None for text and for several numbers."""
    kind, count, place, constant = 0, 1, None, 0.0
    for field, start, stop, value in _fields(data, begin, end):
        if field == 1:
            kind = value
        elif field == 2:
            for dim, dim_start, dim_stop, _ in _fields(data, start, stop):
                if dim == 2:
                    count *= next((size for name, *_, size in _fields(data, dim_start, dim_stop) if name == 1), 0)
        elif field == 4 and kind in _CONTENT_TYPES and stop - start == np.dtype(_CONTENT_TYPES[kind]).itemsize:
            place = start, _CONTENT_TYPES[kind]
        elif field in _VALUE_TYPES and stop - start == np.dtype(_VALUE_TYPES[field]).itemsize:
            place = start, _VALUE_TYPES[field]
        elif field in (7, 10):  # int_val, int64_val: varints, packed in TensorFlow's files
            number = value or _read_varint(data, start, stop)[0]
            constant = float(number - (1 << 64) if number >> 63 else number)
    if count != 1 or kind not in _CONTENT_TYPES:
        return None
    return (*place, 0.0) if place is not None else (-1, "", constant)
