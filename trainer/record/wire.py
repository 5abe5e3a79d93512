"""The bytes of event files: TFRecord's records with their checksums, and protobuf's fields. Nothing of TensorBoard.

A file is a row of records: uint64 length, masked crc32c of those 8 bytes, payload, masked crc32c of the payload, all
little-endian. Sources: TFRecord's documentation, protobuf's encoding guide.
"""

import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np

HEADER = struct.Struct("<QI")  # length of the payload, masked crc32c of that length
FOOTER = 4  # bytes of the payload's masked crc32c
_VARINT_STARTS = np.array([1] + [1 << 7 * i for i in range(1, 10)], np.uint64)  # the first number 1, 2, ... bytes long


def record(payload: bytes) -> bytes:
    header = struct.pack("<Q", len(payload))
    checks = mask(np.array([google_crc32c.value(header), google_crc32c.value(payload)], np.uint32)).tolist()
    return header + struct.pack("<I", checks[0]) + payload + struct.pack("<I", checks[1])


def mask(crcs: np.ndarray) -> np.ndarray:
    """TFRecord's masked crc: rotated by 15 bits plus a constant, modulo 2^32."""
    return ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(0xA282EAD8)


def crcs(rows: np.ndarray) -> np.ndarray:
    """crc32c of each row (N, L) uint8, as (N,) uint32; quick where rows differ in few columns.

    A crc is linear: for messages of one length, crc(a ^ b) = crc(a) ^ crc(b) ^ crc(0). So a row's crc is the first
    row's, changed by what each differing byte contributes: a matter of its value and its distance from the end.
    """
    count, length = rows.shape
    change = rows ^ rows[:1]
    columns = np.flatnonzero(change.any(axis=0)).tolist()
    if count < 10 * len(columns) or length > 4096:  # few rows: one call each is quicker than one pass a column
        data = rows.tobytes()
        found = [google_crc32c.value(data[i : i + length]) for i in range(0, count * length, length)]
        return np.array(found, np.uint32)
    found = np.full(count, google_crc32c.value(rows[0].tobytes()), np.uint32)
    for column in columns:
        found ^= _contributions(length - 1 - column)[change[:, column]]
    return found


def _contributions(distance: int) -> np.ndarray:
    """What each value of the byte `distance` before the end adds to a crc, (256,) uint32: one zero byte more a time."""
    while len(_tables) <= distance:
        last = _tables[-1]
        _tables.append((last >> np.uint32(8)) ^ _tables[0][last & np.uint32(0xFF)])
    return _tables[distance]


_nothing = google_crc32c.value(b"\0")
_tables = [np.array([google_crc32c.value(bytes([value])) ^ _nothing for value in range(256)], np.uint32)]


def varint_widths(numbers: np.ndarray) -> np.ndarray:
    """Bytes that each int64 takes as a varint; 0 for the number 0, which protobuf leaves out. Negative ones take 10."""
    return np.searchsorted(_VARINT_STARTS, numbers.view(np.uint64), side="right")


def varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def message(*fields: tuple[int, bytes | str | float]) -> bytes:
    """A protobuf message of (number, value) fields; as protobuf does, a number that is 0 is left out."""
    parts = []
    for number, value in fields:
        if isinstance(value, float):
            parts += [varint(number << 3 | 1), struct.pack("<d", value)] if value else []
        elif isinstance(value, int):
            parts += [varint(number << 3), varint(value & (1 << 64) - 1)] if value else []
        else:
            data = value.encode() if isinstance(value, str) else value
            parts += [varint(number << 3 | 2), varint(len(data)), data]
    return b"".join(parts)


def fields(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, begin, end, value) of a protobuf message's fields; the value of a varint, else 0."""
    while begin < end:
        key, begin = read_varint(data, begin, end)
        kind, value, start = key & 7, 0, begin
        if kind == 0:
            value, stop = read_varint(data, begin, end)
        elif kind == 2:
            size, start = read_varint(data, begin, end)
            stop = start + size
        elif kind in (1, 5):
            stop = begin + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if stop > end:
            raise ValueError("field longer than its message")
        yield key >> 3, start, stop, value
        begin = stop


def read_varint(data: bytes, begin: int, end: int) -> tuple[int, int]:
    value = 0
    for i in range(begin, min(end, begin + 10)):
        value |= (data[i] & 0x7F) << 7 * (i - begin)
        if data[i] < 0x80:
            return value & (1 << 64) - 1, i + 1
    raise ValueError("varint without an end")


def frames(data: bytes) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Where each record's payload starts and how long it is; the payloads are not checked yet."""
    starts, lengths, problems = [], [], []
    known: dict[int, int] = {}  # lengths seen, with their checksums
    position, size = 0, len(data)
    guess, next_guess = 256, 64  # how many cycles to jump over at once, and the record at which to try
    while position + HEADER.size <= size:
        if len(starts) >= next_guess:
            cycles = _repeated(data, position, lengths[-16:], known, guess)
            starts += cycles.ravel().tolist()
            lengths += lengths[-cycles.shape[1] :] * len(cycles)
            if len(cycles):
                position = starts[-1] + lengths[-1] + FOOTER
            guess = 2 * guess if len(cycles) == guess else 256
            next_guess = len(starts) + (0 if len(cycles) else 64)
            continue
        length, check = HEADER.unpack_from(data, position)
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
        end = position + HEADER.size + length + FOOTER
        if end > size:
            break
        starts.append(position + HEADER.size)
        lengths.append(length)
        position = end
    if position < size:
        problems.append(f"byte {position}: the file ends inside a record (cut off, or still being written)")
    return np.array(starts, np.int64), np.array(lengths, np.int64), problems


def _repeated(data: bytes, position: int, recent: list[int], checks: dict[int, int], at_most: int) -> np.ndarray:
    """Payload starts (n, p) of the next n cycles, where records' lengths repeat with period p and go on doing so.

    A training loop writes the same few tags over and over: comparing a thousand headers at once beats reading each.
    """
    period = next((p for p in range(1, 9) if recent[p:] == recent[:-p]), None)
    if period is None:
        return np.empty((0, 1), np.int64)
    sizes = np.array(recent[-period:], np.int64) + HEADER.size + FOOTER
    cycle, begins = int(sizes.sum()), np.cumsum(sizes) - sizes
    count = min(at_most, (len(data) - position) // cycle)
    block = np.frombuffer(data, np.uint8, count * cycle, position).reshape(count, cycle)
    headers = block[:, (begins[:, None] + np.arange(HEADER.size)).ravel()]
    expected = b"".join(HEADER.pack(length, checks[length]) for length in recent[-period:])
    alike = (headers == np.frombuffer(expected, np.uint8)).all(axis=1)
    count = count if alike.all() else int(alike.argmin())
    return position + HEADER.size + begins + cycle * np.arange(count)[:, None]


def _masked(data: bytes) -> int:
    return int(mask(np.array([google_crc32c.value(data)], np.uint32))[0])


def _next_header(data: bytes, position: int) -> int | None:
    """The first byte from `position` on where a record of less than 16 MiB can start."""
    if position + HEADER.size > len(data):
        return None
    window = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), HEADER.size)[position:]
    likely = ~window[:, 3:8].any(axis=1) & window[:, :3].any(axis=1)
    for at in (np.flatnonzero(likely) + position).tolist():
        length, check = HEADER.unpack_from(data, at)
        if _masked(data[at : at + 8]) == check and at + HEADER.size + length + FOOTER <= len(data):
            return at
    return None
