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
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

_HEADER = struct.Struct("<QI")  # length of the event, masked crc32c of that length
_FOOTER = struct.Struct("<I")  # masked crc32c of the event
_LONGEST = 1 << 24  # bytes of an event: after damage, no longer one is looked for
_BLOCK = 1 << 20  # bytes searched for a header at once


class Scalars(NamedTuple):
    """One tag's points in file order, each array (N,): int64 steps, float64 values, float64 wall times in seconds."""

    steps: np.ndarray
    values: np.ndarray
    wall_times: np.ndarray


def read_scalars(path: str | os.PathLike[str]) -> tuple[dict[str, Scalars], list[str]]:
    """Read every scalar of an event file; also what was wrong with the file, one sentence each.

    Takes simple values and one-element tensors (Keras, TensorFlow 2). A file that is cut off or still growing is read
    as far as it goes. The time is linear in the file's size, however damaged it is. Raises OSError where the file
    cannot be read.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    problems: list[str] = []
    points: defaultdict[str, tuple[array[int], array[float], array[float]]] = defaultdict(
        lambda: (array("q"), array("d"), array("d"))
    )
    for position, payload in _records(Path(path).read_bytes(), problems):
        try:
            event = Event.FromString(payload)
        except DecodeError:
            problems.append(f"byte {position}: the record holds no event, left out")
            continue
        for value in event.summary.value[:]:  # a list: to iterate over the field itself takes longer
            number = _number(value)
            if number is not None:
                steps, values, wall_times = points[value.tag]
                steps.append(event.step)
                values.append(number)
                wall_times.append(event.wall_time)
    return {tag: Scalars(*map(np.array, columns)) for tag, columns in points.items()}, problems


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


def _records(data: bytes, problems: list[str]) -> Iterator[tuple[int, bytes]]:
    """(first byte, payload) of each sound record; after damage, from the next record on."""
    masked_lengths: dict[int, int] = {}
    headers: Iterator[int] | None = None
    position, size = 0, len(data)
    while position + _HEADER.size <= size:
        length, check = _HEADER.unpack_from(data, position)
        if masked_lengths.get(length) != check:
            if _masked_crc(data[position : position + 8]) != check:
                headers = headers or _headers(data, position)
                found = next((header for header in headers if header > position), None)
                where = "the rest is unreadable" if found is None else f"skipped to byte {found}"
                problems.append(f"byte {position}: not an event record, {where}")
                if found is None:
                    return
                position = found
                continue
            masked_lengths[length] = check
        begin = position + _HEADER.size
        end = begin + length
        if end + _FOOTER.size > size:
            break
        payload = data[begin:end]
        if _masked_crc(payload) == _FOOTER.unpack_from(data, end)[0]:
            yield position, payload
        else:
            problems.append(f"byte {position}: wrong checksum, record left out")
        position = end + _FOOTER.size
    if position < size:
        problems.append(f"byte {position}: the file ends inside a record (cut off, or still being written)")


def _headers(data: bytes, position: int) -> Iterator[int]:
    """Where whole records of less than _LONGEST can start, in ascending order; each byte is looked at once."""
    bytes_N = np.frombuffer(data, np.uint8)
    for begin in range(position, len(data) - _HEADER.size + 1, _BLOCK):
        block = bytes_N[begin : begin + _BLOCK + _HEADER.size - 1]
        window = np.lib.stride_tricks.sliding_window_view(block, _HEADER.size)
        likely = ~window[:, 3:8].any(axis=1) & window[:, :3].any(axis=1)
        for at in (np.flatnonzero(likely) + begin).tolist():
            length, check = _HEADER.unpack_from(data, at)
            if _masked_crc(data[at : at + 8]) == check and at + _HEADER.size + length + _FOOTER.size <= len(data):
                yield at


def _masked_crc(data: bytes) -> int:
    """TFRecord's checksum: crc32c, rotated by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
