"""The scalars in TensorBoard event files, whoever wrote them; what is damaged is left out and reported. No TensorFlow.

A file is a sequence of TFRecord records, each with a protobuf `Event`: uint64 length, masked crc32c of those 8 bytes,
the event, masked crc32c of the event, all little-endian. Source: TensorFlow's documentation of TFRecord.
"""
# pyright: reportAttributeAccessIssue=false
# protobuf makes its classes at run time

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from trainer.files import masked_crc
from trainer.read.bounded import MOST_KEYS, MOST_NUMBERS, MOST_TEXT, opened, shortened

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

_HEADER = struct.Struct("<QI")  # length of the event, masked crc32c of that length
_FOOTER = struct.Struct("<I")  # masked crc32c of the event
_BLOCK = 1 << 20  # bytes that are in memory at once
# Limits, as in read/bounded.py: a file may be large, for its pictures; what is made of it may not.
_LONGEST = 1 << 22  # bytes of an event with scalars; a summary of nothing but empty values takes 130 times as much
_MOST_SEARCHED = 1 << 26  # bytes after the first damage in which another record is looked for
_MOST_PROBLEMS = 10_000  # damaged records
_MOST_TAGS = 20_000
_MOST_TAG = 1000  # characters
_HPARAMS_TAG = "_hparams_/session_start_info"


class Scalars(NamedTuple):
    """One tag's points in file order, each array (N,): int64 steps, float64 values, float64 wall times in seconds."""

    steps: np.ndarray
    values: np.ndarray
    wall_times: np.ndarray


class EventFile(NamedTuple):
    """What one event file holds."""

    scalars: dict[str, Scalars]
    hparams: dict[str, Any]  # of the hparams plugin: numbers, texts and truth values by name
    problems: list[str]  # what was wrong with the file, one sentence each


def read_scalars(path: str | os.PathLike[str]) -> tuple[dict[str, Scalars], list[str]]:
    """Read every scalar of an event file; also what was wrong with the file, one sentence each. Raises Unreadable."""
    found = read_file(path)
    return found.scalars, found.problems


def read_file(path: str | os.PathLike[str]) -> EventFile:
    """Read every scalar of an event file, and the hyperparameters.

    Takes simple values and one-element tensors (Keras, TensorFlow 2). A file that is cut off or still growing is read
    as far as it goes. The time is linear in the file's size, however damaged it is. Raises Unreadable.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    problems: list[str] = []
    points: dict[str, tuple[array[int], array[float], array[float]]] = {}
    hparams: dict[str, Any] = {}
    left, ignored = MOST_NUMBERS, 0
    with opened(Path(path)) as file:
        for position, payload in _records(file, problems):
            try:
                event = Event.FromString(payload)
            except DecodeError:
                problems.append(f"byte {position}: the record holds no event, left out")
                if _too_many(problems):
                    break
                continue
            found = event.summary.value[:]  # a list: to iterate over the field itself takes longer
            for value in found:
                number = _number(value)
                if number is None:
                    if value.tag == _HPARAMS_TAG:
                        hparams |= _hparams(value.metadata.plugin_data.content)
                    continue
                columns = points.get(value.tag)
                if columns is None:
                    if len(points) == _MOST_TAGS or len(value.tag) > _MOST_TAG:
                        ignored += 1
                        continue
                    columns = points[value.tag] = array("q"), array("d"), array("d")
                steps, values, wall_times = columns
                steps.append(event.step)
                values.append(number)
                wall_times.append(event.wall_time)
            left -= len(found)
            if left < 0:
                problems.append(f"byte {position}: more than {MOST_NUMBERS:,} numbers, the rest is left out")
                break
    if ignored:
        limits = f"more than {_MOST_TAGS:,} tags, or tags of more than {_MOST_TAG:,} characters"
        problems.append(f"{limits}: {ignored:,} numbers left out")
    return EventFile({tag: Scalars(*map(np.array, columns)) for tag, columns in points.items()}, hparams, problems)


def _hparams(content: bytes) -> dict[str, Any]:
    """Return the hyperparameters of a session, as add_hparams, Keras and Ray write them; none of damaged ones.

    In order of their names, as a map of protobuf has none.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    try:
        found = HParamsPluginData.FromString(content).session_start_info.hparams
    except DecodeError:
        return {}
    named = [(name, value, value.WhichOneof("kind")) for name, value in sorted(found.items())[:MOST_KEYS]]
    values = {shortened(name, MOST_TEXT): getattr(value, kind) for name, value, kind in named if kind}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """Return a number that is whole as such: the plugin keeps all as float."""
    if isinstance(value, str):
        return shortened(value, MOST_TEXT)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _number(value: Summary.Value) -> float | None:
    """The number of a summary value; None where it is none, or another plugin's."""
    if value.HasField("metadata") and value.metadata.plugin_data.plugin_name not in ("", "scalars"):
        return None
    if value.HasField("simple_value"):
        return value.simple_value
    return _one_element(value.tensor) if value.HasField("tensor") else None


_NUMBER_TYPES = {  # number of a DataType in tensorboard/compat/proto/types.proto -> numpy type, field that holds values
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    9: ("<i8", "int64_val"),
    19: ("<f2", "half_val"),  # bits, as integers
}


def _one_element(tensor: TensorProto) -> float | None:
    """The only element of a tensor of numbers, 0 where the file leaves it out; None for text and larger tensors."""
    if tensor.dtype not in _NUMBER_TYPES or any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    dtype, field = _NUMBER_TYPES[tensor.dtype]
    content = tensor.tensor_content
    if not content:
        numbers = getattr(tensor, field)
        if not numbers or dtype != "<f2":
            return float(numbers[0]) if numbers else 0.0
        content = struct.pack("<H", numbers[0] & 0xFFFF)
    return float(np.frombuffer(content, dtype)[0]) if len(content) == np.dtype(dtype).itemsize else None


def _records(file: BinaryIO, problems: list[str]) -> Iterator[tuple[int, bytes]]:
    """(first byte, payload) of each sound record; after damage, from the next record on."""
    masked_lengths: dict[int, int] = {}
    headers: Iterator[int] | None = None
    size = os.fstat(file.fileno()).st_size
    position, first, block = 0, 0, b""  # the next record's first byte, and a block of the file that begins at `first`
    while position + _HEADER.size <= size:
        at = position - first
        if at + _HEADER.size > len(block):
            first, block, at = position, _read(file, position, min(_BLOCK, size - position)), 0
            if len(block) < _HEADER.size:
                break  # somebody cuts the file
        length, check = _HEADER.unpack_from(block, at)
        if masked_lengths.get(length) != check:
            if masked_crc(block[at : at + 8]) != check:
                headers = headers or _headers(file, position, size)
                found = next((header for header in headers if header > position), None)
                where = "the rest is unreadable" if found is None else f"skipped to byte {found}"
                problems.append(f"byte {position}: not an event record, {where}")
                if found is None or _too_many(problems):
                    return
                position = found
                continue
            masked_lengths[length] = check
        end = position + _HEADER.size + length + _FOOTER.size
        if end > size:
            break
        if length > _LONGEST:
            problems.append(f"byte {position}: a record of {length:,} bytes, too long for scalars, left out")
            position = end
            continue
        if end - first > len(block):
            first, block, at = position, _read(file, position, max(min(_BLOCK, size - position), end - position)), 0
            if len(block) < end - position:
                break
        begin = at + _HEADER.size
        payload = block[begin : begin + length]
        if masked_crc(payload) == _FOOTER.unpack_from(block, begin + length)[0]:
            yield position, payload
        else:
            problems.append(f"byte {position}: wrong checksum, record left out")
            if _too_many(problems):
                return
        position = end
    if position < size:
        problems.append(f"byte {position}: the file ends inside a record (cut off, or still being written)")


def _too_many(problems: list[str]) -> bool:
    """Whether so much is damaged that nobody reads on; says so."""
    if len(problems) < _MOST_PROBLEMS:
        return False
    problems.append(f"{_MOST_PROBLEMS:,} damaged records, the rest is left out")
    return True


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _headers(file: BinaryIO, position: int, size: int) -> Iterator[int]:
    """Where whole records of at most _LONGEST can start, in ascending order; each byte is looked at once."""
    for begin in range(position, min(size, position + _MOST_SEARCHED), _BLOCK):
        block = _read(file, begin, min(_BLOCK + _HEADER.size - 1, size - begin))
        places = len(block) - _HEADER.size + 1
        if places < 1:
            return
        byte = [np.frombuffer(block, np.uint8, places, i) for i in range(8)]  # of a length, at each place
        likely = (byte[0] | byte[1] | byte[2]) > 0
        likely &= byte[2] <= _LONGEST >> 16
        likely &= (byte[3] | byte[4] | byte[5] | byte[6] | byte[7]) == 0
        for at in np.flatnonzero(likely).tolist():
            length, check = _HEADER.unpack_from(block, at)
            whole = begin + at + _HEADER.size + length + _FOOTER.size <= size
            if whole and masked_crc(block[at : at + 8]) == check:
                yield begin + at
