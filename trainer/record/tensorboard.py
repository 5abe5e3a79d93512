"""TensorBoard event files, written and read in one place: thousands of scalars at a time, without TensorFlow or torch.

A record's payload is a protobuf `Event`: wall_time = 1 (double), step = 2 (varint), summary = 5, which holds
values = 1: tag = 1, simple_value = 2 (float), tensor = 8, metadata = 9. Records and fields themselves are wire.py's.
Source: tensorboard/compat/proto/{event,summary,tensor}.proto.
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

import numpy as np

from trainer.files import Growing
from trainer.record import wire

_file_number = itertools.count()


class Scalars(NamedTuple):
    """One tag's points in the order of the file, each array (N,): int64 steps, float64 values, float64 seconds."""

    steps: np.ndarray
    values: np.ndarray
    wall_times: np.ndarray


# ------------------------------------------------------------------ writing


class EventWriter:
    """Appends events to one file in `directory`; nothing reaches the disk, and no file is open, outside `flush`.

    `wall_time` (seconds since 1970, default now) dates a new file; `file` goes on instead. Not safe for two threads at
    once.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, wall_time: float | None = None, file: Growing | None = None
    ) -> None:
        self._born = time.time() if wall_time is None else wall_time
        name = f"events.out.tfevents.{int(self._born):010d}.{socket.gethostname()}.{os.getpid()}.{next(_file_number)}"
        self.file = file or Growing(Path(directory) / name)
        version = wire.record(wire.message((1, float(self._born)), (3, "brain.Event:2")))  # 3: file_version
        self._pending = [] if file else [version]

    @property
    def path(self) -> Path:
        """The file's."""
        return self.file.path

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
        widths = wire.varint_widths(steps)
        cuts = np.flatnonzero(np.diff(widths)) + 1
        for begin, end in itertools.pairwise([0, *cuts.tolist(), len(steps)]):
            if begin < end:
                rows = slice(begin, end)
                block = _scalar_block(tuple(tags), int(widths[begin]), steps[rows], narrow[rows], walls[rows])
                self._pending.append(block)

    def image(self, tag: str, step: int, png: bytes, width: int, height: int, wall_time: float) -> None:
        """A picture, already encoded as PNG, `width` x `height` pixels."""
        rgba = 4
        picture = wire.message((1, height), (2, width), (3, rgba), (4, png))
        self._value(wire.message((1, tag), (4, picture)), step, wall_time)

    def text(self, tag: str, step: int, markdown: str, wall_time: float) -> None:
        """Markdown for TensorBoard's text page."""
        self._value(_plugin_value(f"{tag}/text_summary", "text", b"", markdown.encode()), step, wall_time)

    def custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Charts of several tags each: {category: {title of the chart: tags}}."""

        def chart(title: str, tags: Sequence[str]) -> bytes:
            exactly = [
                (1, re.escape(tag) + "$") for tag in tags
            ]  # TensorBoard takes a tag here as a regular expression
            return wire.message((1, title), (2, wire.message(*exactly)))

        categories = [
            (2, wire.message((1, title), *((2, chart(*item)) for item in charts.items())))
            for title, charts in layout.items()
        ]
        value = _plugin_value("custom_scalars__config__", "custom_scalars", b"", wire.message(*categories))
        self._value(value, 0, self._born)

    def hparams_start(self, config: Mapping[str, str | float | bool], group_name: str, wall_time: float) -> None:
        """This run's row in TensorBoard's HParams table; runs of one `group_name` are repetitions of one setting.

        Metric columns need no list: without an experiment summary TensorBoard takes every scalar tag's last value.
        """
        hparams = [(1, wire.message((1, key), (2, _struct_value(value)))) for key, value in config.items()]
        start = wire.message(*hparams, (4, group_name), (5, float(wall_time)))
        value = _plugin_value("_hparams_/session_start_info", "hparams", wire.message((3, start)), None)
        self._value(value, 0, wall_time)

    def hparams_end(self, status: str, wall_time: float) -> None:
        """How the run ended: 'SUCCESS', 'FAILURE' or 'RUNNING'."""
        end = wire.message((1, _STATUSES[status]), (2, float(wall_time)))
        value = _plugin_value("_hparams_/session_end_info", "hparams", wire.message((4, end)), None)
        self._value(value, 0, wall_time)

    def flush(self) -> None:
        """Append what was said since the last flush."""
        if self._pending:
            self.file.append(b"".join(self._pending))
            self._pending = []

    def _value(self, value: bytes, step: int, wall_time: float) -> None:
        self._pending.append(
            wire.record(wire.message((1, float(wall_time)), (2, int(step)), (5, wire.message((1, value)))))
        )


def with_hparams(content: bytes, config: Mapping[str, str | float | bool], group_name: str) -> bytes:
    """The bytes of an event file that hparams_start began, with another configuration there, dated as before."""
    place = 0
    while True:
        (length, _) = wire.HEADER.unpack_from(content, place)
        end = place + wire.HEADER.size + length + wire.FOOTER
        if b"_hparams_/session_start_info" in content[place:end]:
            break
        place = end
    (wall_time,) = struct.unpack_from("<d", content, place + wire.HEADER.size + 1)
    writer = EventWriter("")
    writer.hparams_start(config, group_name, wall_time)
    return content[:place] + writer._pending[-1] + content[end:]


_STATUSES = {"SUCCESS": 1, "FAILURE": 2, "RUNNING": 3}  # tensorboard/plugins/hparams/api.proto
_DT_FLOAT, _DT_STRING = 1, 7  # types.proto


def _plugin_value(tag: str, plugin: str, content: bytes, string: bytes | None) -> bytes:
    """A Summary.Value for a plugin: one string, or the null tensor where the plugin keeps all in its metadata."""
    plugin_data = wire.message((1, plugin), (2, content)) if content else wire.message((1, plugin))
    shape = wire.message((2, wire.message((1, 0 if string is None else 1))))  # one dimension, of size 0 or 1
    if string is None:
        tensor = wire.message((1, _DT_FLOAT), (2, shape))
    else:
        tensor = wire.message((1, _DT_STRING), (2, shape), (8, string))
    return wire.message((1, tag), (8, tensor), (9, wire.message((1, plugin_data))))


def _struct_value(value: str | float | bool) -> bytes:
    """google.protobuf.Value: a oneof, so that zero, False and '' are written too."""
    if isinstance(value, bool):  # before numbers: a bool is an int
        return b"\x20" + bytes([value])
    if isinstance(value, str):
        return wire.message((3, value))
    return b"\x11" + struct.pack("<d", value)


@lru_cache(maxsize=256)
def _scalar_template(tags: tuple[str, ...], step_width: int) -> tuple[np.ndarray, np.ndarray]:
    """A whole record (R,) with zeros where wall time, step and values go, and the columns (T * 4,) of the values."""
    assert all(tags), "protobuf leaves out an empty tag"
    summary, offsets = bytearray(), []
    for tag in tags:
        name = tag.encode()
        value = b"\x0a" + wire.varint(len(name)) + name + b"\x15" + bytes(4)
        summary += b"\x0a" + wire.varint(len(value)) + value
        offsets.append(len(summary) - 4)
    step = b"\x10" + bytes(step_width) if step_width else b""
    before = b"\x09" + bytes(8) + step + b"\x2a" + wire.varint(len(summary))
    record = np.frombuffer(wire.record(before + bytes(summary)), np.uint8)
    columns = wire.HEADER.size + len(before) + np.array(offsets, np.intp)[:, None] + np.arange(4)
    return record, columns.ravel()


def _scalar_block(
    tags: tuple[str, ...], step_width: int, steps: np.ndarray, values: np.ndarray, walls: np.ndarray
) -> bytes:
    """Records of S steps that are all `step_width` bytes long: the template S times, filled column by column."""
    template, columns = _scalar_template(tags, step_width)
    block = np.tile(template, (len(steps), 1))
    wall = wire.HEADER.size + 1
    block[:, wall : wall + 8] = walls[:, None].view(np.uint8)
    rest = steps.view(np.uint64)
    for i in range(step_width):
        more = 0x80 if i < step_width - 1 else 0
        block[:, wall + 9 + i] = (rest & np.uint64(0x7F)).astype(np.uint8) | more
        rest = rest >> np.uint64(7)
    block[:, columns] = np.ascontiguousarray(values).view(np.uint8).reshape(len(steps), -1)
    crcs = wire.crcs(block[:, wire.HEADER.size : -wire.FOOTER])
    block[:, -wire.FOOTER :] = wire.mask(crcs).astype("<u4")[:, None].view(np.uint8)
    return block.tobytes()


# ------------------------------------------------------------------ reading


def read_scalars(path: str | os.PathLike[str]) -> tuple[dict[str, Scalars], list[str]]:
    """Every scalar of an event file, and what was wrong with the file, one sentence each.

    Reads simple values and one-element tensors (Keras, TensorFlow 2). A file still growing, or cut off, is read as far
    as it goes; records whose checksum is wrong are left out. Raises OSError where the file cannot be read.
    """
    data = Path(path).read_bytes()
    starts, lengths, problems = wire.frames(data)
    pieces: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for length in np.unique(lengths).tolist():
        begins = starts[lengths == length]
        rows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), length + wire.FOOTER)[begins]
        sound = wire.mask(wire.crcs(rows[:, :length])) == rows[:, length:].copy().view("<u4")[:, 0]
        problems += [f"byte {at - wire.HEADER.size}: wrong checksum, record left out" for at in begins[~sound].tolist()]
        for tag, *arrays in _points(rows[sound, :length], begins[sound], problems):
            pieces.setdefault(tag, []).append(tuple(arrays))
    return {tag: _in_file_order(parts) for tag, parts in pieces.items()}, problems


def _in_file_order(parts: list[tuple[np.ndarray, ...]]) -> Scalars:
    places, steps, values, walls = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(places, kind="stable")
    return Scalars(steps[order], values[order], walls[order])


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
    flags = bytearray(b"\1") * len(rows)
    pending = np.frombuffer(flags, np.bool_)  # the same bytes: numpy clears them, bytearray finds the next one
    layouts, decoded, i = 0, 0, -1
    while (i := flags.find(1, i + 1)) >= 0:
        try:
            layout = _parse_event(rows[i].tobytes())
        except (ValueError, IndexError, struct.error, UnicodeDecodeError):
            problems.append(f"byte {places[i] - wire.HEADER.size}: the record holds no event, left out")
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


def _parse_event(data: bytes) -> _Layout:
    wall, step, width, points = -1, -1, 0, []
    fixed = np.ones(len(data), bool)
    for number, begin, end, _ in wire.fields(data, 0, len(data)):
        if number == 1 and end - begin == 8:
            wall = begin
            fixed[begin:end] = False
        elif number == 2:
            step, width = begin, end - begin
            fixed[begin:end] = False
        elif number == 5:
            points += [
                point
                for field, start, stop, _ in wire.fields(data, begin, end)
                if field == 1 and (point := _parse_value(data, start, stop)) is not None
            ]
    for _, offset, kind, _ in points:
        if offset >= 0:
            fixed[offset : offset + np.dtype(kind).itemsize] = False
    return _Layout(wall, step, width, points, fixed)


def _parse_value(data: bytes, begin: int, end: int) -> tuple[str, int, str, float] | None:
    """(tag, offset, numpy type, constant) of a Summary.Value that is a scalar."""
    tag, number, plugin = "", None, "scalars"
    for field, start, stop, _ in wire.fields(data, begin, end):
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
    for field, start, stop, _ in wire.fields(data, begin, end):
        if field == 1:  # plugin_data
            for inner, name, name_end, _ in wire.fields(data, start, stop):
                if inner == 1:
                    return data[name:name_end].decode()
    return "scalars"


_CONTENT_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # tensorboard/compat/proto/types.proto
_VALUE_TYPES = {5: "<f4", 6: "<f8"}  # float_val, double_val


def _parse_tensor(data: bytes, begin: int, end: int) -> tuple[int, str, float] | None:
    """(offset, numpy type, constant) of the one number of a TensorProto; None for text and for several numbers."""
    kind, count, place, constant = 0, 1, None, 0.0
    for field, start, stop, value in wire.fields(data, begin, end):
        if field == 1:
            kind = value
        elif field == 2:
            for dim, dim_start, dim_stop, _ in wire.fields(data, start, stop):
                if dim == 2:
                    count *= next((size for name, *_, size in wire.fields(data, dim_start, dim_stop) if name == 1), 0)
        elif field == 4 and kind in _CONTENT_TYPES and stop - start == np.dtype(_CONTENT_TYPES[kind]).itemsize:
            place = start, _CONTENT_TYPES[kind]
        elif field in _VALUE_TYPES and stop - start == np.dtype(_VALUE_TYPES[field]).itemsize:
            place = start, _VALUE_TYPES[field]
        elif field in (7, 10):  # int_val, int64_val: varints, packed in TensorFlow's files
            number = value or wire.read_varint(data, start, stop)[0]
            constant = float(number - (1 << 64) if number >> 63 else number)
    if count != 1 or kind not in _CONTENT_TYPES:
        return None
    return (*place, 0.0) if place is not None else (-1, "", constant)
