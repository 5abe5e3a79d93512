"""Event files as read: those of our writer, of protobuf's own classes framed by TensorBoard, and damaged ones."""

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from tests.fake_runs import TAGS, write_scalars
from tests.helpers import value_event
from trainer.read import event_files
from trainer.read.event_files import read_scalars

IO = Path("/proc/self/io")


def bytes_read() -> int:
    return int(IO.read_text().split()[1])


def write_payloads(path: Path, payloads: list[bytes]) -> Path:
    with open(path, "wb") as file:
        records = RecordWriter(file)
        for payload in payloads:
            records.write(payload)
    return path


def test_read_back_in_order_with_nan(tmp_path: Path) -> None:
    steps = [5, 0, 200, 7, 2**40, 70_000]
    values = np.arange(18.0).reshape(6, 3)
    values[2, 1] = math.nan
    scalars, problems = read_scalars(write_scalars(tmp_path, steps, values))
    assert not problems
    assert list(scalars) == TAGS
    for i, tag in enumerate(TAGS):
        np.testing.assert_array_equal(scalars[tag].steps, steps)
        np.testing.assert_array_equal(scalars[tag].values, values[:, i])
        np.testing.assert_array_equal(scalars[tag].wall_times, 1_700_000_001.0 + 0.25 * np.arange(6))


def test_events_of_many_layouts(tmp_path: Path) -> None:
    """Alternating tags, tags of equal length, and hundreds of tags with one point each."""
    payloads = []
    for step in range(300):
        payloads.append(value_event(1.0, step, tag="a/loss", simple_value=step))
        payloads.append(value_event(1.0, step, tag="b/loss", simple_value=-step))
        payloads.append(value_event(1.0, step, tag=f"once{step:03}", simple_value=0.5))
        payloads.append(value_event(1.0, step, tag="h", histo=summary_pb2.HistogramProto(bucket=[step])))
    scalars, problems = read_scalars(write_payloads(tmp_path / "tfevents", payloads))
    assert not problems
    assert len(scalars) == 302
    np.testing.assert_array_equal(scalars["a/loss"].values, np.arange(300))
    np.testing.assert_array_equal(scalars["b/loss"].steps, np.arange(300))
    assert scalars["once123"].steps.tolist() == [123]


def test_negative_steps(tmp_path: Path) -> None:
    scalars, _ = read_scalars(write_payloads(tmp_path / "f", [value_event(1.0, -3, tag="a", simple_value=1)]))
    assert scalars["a"].steps.tolist() == [-3]


def test_tensor_scalars(tmp_path: Path) -> None:
    """What Keras and TensorFlow 2 write: one number as a tensor, in any of its forms; longer tensors are no scalars."""
    metadata = summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars", content=b"\x08\x01")
    )
    shapes = {n: tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=n)]) for n in (1, 2)}
    tensors = {
        "float_val": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.5]),
        "double_val": tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=[1.5]),
        "content": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=struct.pack("<f", 1.5)),
        "half": tensor_pb2.TensorProto(dtype=types_pb2.DT_HALF, tensor_content=struct.pack("<e", 1.5)),
        "half bits": tensor_pb2.TensorProto(dtype=types_pb2.DT_HALF, half_val=[0x3E00]),
        "int": tensor_pb2.TensorProto(dtype=types_pb2.DT_INT64, int64_val=[-7]),
        "zero": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=tensor_shape_pb2.TensorShapeProto()),
        "one": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shapes[1], float_val=[1.5]),
        "two": tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shapes[2], float_val=[1.5, 2]),
        "text": tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"abcd"]),
    }
    payloads = [
        value_event(1.0, step, tag=name, tensor=tensor, metadata=metadata)
        for step in (1, 2)
        for name, tensor in tensors.items()
    ]
    scalars, problems = read_scalars(write_payloads(tmp_path / "tfevents", payloads))
    assert not problems
    expected = dict.fromkeys(("float_val", "double_val", "content", "half", "half bits", "one"), 1.5) | {
        "int": -7.0,
        "zero": 0.0,
    }
    assert {tag: points.values.tolist() for tag, points in scalars.items()} == {t: [v, v] for t, v in expected.items()}


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    path = write_scalars(tmp_path, range(4), np.arange(8.0).reshape(4, 2), ["a", "bb"])
    whole = path.read_bytes()
    ends = [0]
    while ends[-1] < len(whole):
        ends.append(ends[-1] + 16 + struct.unpack_from("<Q", whole, ends[-1])[0])
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        scalars, problems = read_scalars(path)
        complete = sum(end <= size for end in ends[2:])  # the first record holds the version
        assert len(scalars["a"].values if scalars else []) == complete
        assert bool(problems) == (size not in ends)


def test_corruption_at_every_byte(tmp_path: Path) -> None:
    """One flipped byte costs the record it stands in and no other; it is reported, and never gives a wrong number."""
    path = write_scalars(tmp_path, range(1, 7), np.arange(6.0)[:, None], ["a"])  # six records of one size
    whole = path.read_bytes()
    version = 16 + struct.unpack_from("<Q", whole)[0]
    size = (len(whole) - version) // 6
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        scalars, problems = read_scalars(path)
        lost = -1 if place < version else (place - version) // size
        assert scalars["a"].values.tolist() == [float(i) for i in range(6) if i != lost], place
        assert len(problems) == 1


def test_damage_of_every_record_is_reported_and_what_is_sound_is_read(tmp_path: Path) -> None:
    """As a transfer in text mode leaves it: each record longer than it says. The file after it is read."""
    path = write_scalars(tmp_path, range(1000), np.arange(1000.0)[:, None], ["a"])
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n", b"\r\n") + whole)
    scalars, problems = read_scalars(path)
    assert scalars["a"].values.tolist() == list(range(1000))
    assert sum(problem.endswith("wrong checksum, record left out") for problem in problems) == 1000


@pytest.mark.skipif(not IO.exists(), reason="no count of the bytes that a process reads")
def test_an_endless_file_is_searched_for_records_only_so_far(tmp_path: Path) -> None:
    path = write_scalars(tmp_path, range(4), np.arange(4.0)[:, None], ["a"])
    os.truncate(path, 20 << 30)  # takes no room on the disk
    before = bytes_read()
    scalars, (problem,) = read_scalars(path)
    assert bytes_read() - before < 1 << 28
    assert scalars["a"].values.tolist() == [0, 1, 2, 3]
    assert problem.endswith("not an event record, the rest is unreadable")


def test_records_across_the_blocks_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size give the same numbers, sound or damaged."""
    path = write_scalars(tmp_path, range(40), np.arange(40.0)[:, None], ["a"])
    path.write_bytes(path.read_bytes()[:700] + b"\xff" * 50 + path.read_bytes()[700:])
    expected = read_scalars(path)
    for size in (12, 13, 50, 77, 1000):
        monkeypatch.setattr(event_files, "_BLOCK", size)
        scalars, problems = read_scalars(path)
        assert scalars["a"].values.tolist() == expected[0]["a"].values.tolist()
        assert problems == expected[1]


@pytest.mark.parametrize("damage", ["payload", "checksum", "header"])
def test_of_a_file_that_is_all_damage_the_rest_is_left_out(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "_MOST_PROBLEMS", 5)
    sound = value_event(1.0, 1, tag="a", simple_value=1.0)
    broken = b"\xff" * len(sound)
    path = write_payloads(tmp_path / "f", [sound, *[broken, sound] * 20])
    whole = path.read_bytes()
    if damage != "payload":
        at = 12 if damage == "checksum" else 0
        size = len(sound) + 16
        records = [bytearray(whole[i : i + size]) for i in range(0, len(whole), size)]
        for record in records[1::2]:
            record[at] ^= 0x55
        path.write_bytes(b"".join(records))
    scalars, problems = read_scalars(path)
    assert problems[-1] == "5 damaged records, the rest is left out"
    assert len(problems) == 6
    assert 1 <= len(scalars["a"].steps) <= 6


def test_limits_keep_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = [value_event(1.0, step, tag=f"t{step % 5}", simple_value=step) for step in range(20)]
    path = write_payloads(tmp_path / "f", sound)
    monkeypatch.setattr(event_files, "_MOST_TAGS", 3)
    scalars, problems = read_scalars(path)
    assert list(scalars) == ["t0", "t1", "t2"]
    assert problems == ["more than 3 tags, or tags of more than 1,000 characters: 8 numbers left out"]
    monkeypatch.setattr(event_files, "MOST_NUMBERS", 9)
    scalars, problems = read_scalars(path)
    assert scalars["t0"].values.tolist() == [0, 5]
    assert "more than 9 numbers, the rest is left out" in problems[0]
    monkeypatch.undo()
    long = value_event(1.0, 1, tag="x" * 5_000_000, simple_value=1.0)
    scalars, problems = read_scalars(write_payloads(path, [long, *sound]))
    assert sum(len(points.values) for points in scalars.values()) == 20
    assert "too long for scalars, left out" in problems[0]


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"hello world, this is no event file", b"\xff" * 5000])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(content)
    scalars, problems = read_scalars(path)
    assert not scalars
    assert len(problems) == (1 if content else 0)


def test_sound_record_with_garbage_inside(tmp_path: Path) -> None:
    good = value_event(1.0, 1, tag="a", simple_value=2.0)
    scalars, problems = read_scalars(write_payloads(tmp_path / "f", [b"\xff" * len(good), good, b"\x0a\xff\x01"]))
    assert scalars["a"].values.tolist() == [2.0]
    assert len(problems) == 2


def test_hundred_thousand_steps(tmp_path: Path) -> None:
    steps = np.arange(100_000)
    values = np.random.default_rng(0).normal(size=(100_000, 2)).astype(np.float32).astype(np.float64)
    scalars, problems = read_scalars(write_scalars(tmp_path, steps, values, ["train/loss", "lr"]))
    assert not problems
    np.testing.assert_array_equal(scalars["lr"].steps, steps)
    np.testing.assert_array_equal(scalars["lr"].values, values[:, 1])
