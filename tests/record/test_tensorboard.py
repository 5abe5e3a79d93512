"""Event files against the oracles: protobuf's own bytes, and TensorBoard's own reader."""

import math
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from trainer.record import wire
from trainer.record.tensorboard import EventWriter, read_scalars

TAGS = ["train/loss", "grad_norm/layers.0.weight", "ü" * 70]  # the last is longer than one varint byte can say


def write(directory: Path, steps, values, tags=TAGS) -> Path:
    writer = EventWriter(directory, wall_time=1_700_000_000.5)
    writer.scalars(tags, np.array(steps), np.array(values), 1_700_000_001.0 + 0.25 * np.arange(len(steps)))
    writer.flush()
    return writer.path


def raw_events(path: Path) -> list[bytes]:
    """The payloads, as TensorBoard frames and checks them."""
    return list(RawEventFileLoader(str(path)).Load())


def value_event(wall_time: float, step: int, **value) -> bytes:
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(**value)])
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary).SerializeToString()


def write_payloads(path: Path, payloads: list[bytes]) -> Path:
    path.write_bytes(b"".join(wire.record(payload) for payload in payloads))
    return path


# ------------------------------------------------------------------ writing


def test_scalars_are_protobufs_bytes(tmp_path: Path) -> None:
    steps = [0, 1, 127, 128, 300, 16_383, 16_384, 5, 2**40, 2**63 - 1, -1]
    values = np.linspace(-3, 3, len(steps) * len(TAGS)).reshape(len(steps), -1)
    values[1] = [math.nan, math.inf, -math.inf]
    values[2] = [0.0, -0.0, 1e300]  # what a 32-bit float cannot hold becomes infinite, as in protobuf
    first, *rest = raw_events(write(tmp_path, steps, values))
    assert first == event_pb2.Event(wall_time=1_700_000_000.5, file_version="brain.Event:2").SerializeToString()
    for i, (step, payload) in enumerate(zip(steps, rest, strict=True)):
        with np.errstate(over="ignore"):
            narrow = values[i].astype(np.float32).tolist()
        points = [summary_pb2.Summary.Value(tag=t, simple_value=v) for t, v in zip(TAGS, narrow, strict=True)]
        expected = event_pb2.Event(
            wall_time=1_700_000_001.0 + 0.25 * i, step=step, summary=summary_pb2.Summary(value=points)
        )
        assert payload == expected.SerializeToString()


@given(st.integers(0, 2**63 - 1) | st.integers(-(2**63), -1))
def test_varints_of_steps(step: int) -> None:
    encoded = event_pb2.Event(step=step).SerializeToString()
    assert wire.message((2, step)) == encoded
    assert wire.varint_widths(np.array([step]))[0] == max(len(encoded) - 1, 0)
    if step:
        assert wire.read_varint(encoded, 1, len(encoded)) == (step % 2**64, len(encoded))


@given(st.integers(1, 99), st.integers(1, 60), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_checksums_of_many_rows(count: int, length: int, alike: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 256, (count, length), np.uint8)
    rows[:, :alike] = rows[0, :alike]
    assert wire.crcs(rows).tolist() == [google_crc32c.value(row.tobytes()) for row in rows]


def test_image_text_layout_and_hparams_are_protobufs_bytes(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, wall_time=5.0)
    writer.image("weights", 3, b"png", 20, 10, 6.0)
    writer.text("note", 0, "**ü**", 7.0)
    writer.custom_scalars({"curves": {"loss": ["val/loss", "eval/train_loss"]}})
    config = {"lr": 0.1, "depth": 0, "on": False, "name": "", "norm": True, "optimizer": "adam"}
    writer.hparams_start(config, "group", 8.0)
    writer.hparams_end("SUCCESS", 9.0)
    writer.flush()

    def plugin(name: str, content: bytes = b"") -> summary_pb2.SummaryMetadata:
        data = summary_pb2.SummaryMetadata.PluginData(plugin_name=name, content=content)
        return summary_pb2.SummaryMetadata(plugin_data=data)

    def tensor(kind: int, size: int, strings: list[bytes]) -> tensor_pb2.TensorProto:
        shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size)])
        return tensor_pb2.TensorProto(dtype=kind, tensor_shape=shape, string_val=strings)

    multiline = layout_pb2.MultilineChartContent(tag=["val/loss$", "eval/train_loss$"])
    chart = layout_pb2.Chart(title="loss", multiline=multiline)
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="curves", chart=[chart])])
    image = summary_pb2.Summary.Image(height=10, width=20, colorspace=4, encoded_image_string=b"png")
    end = plugin_data_pb2.SessionEndInfo(status=1, end_time_secs=9.0)
    end_data = plugin_data_pb2.HParamsPluginData(session_end_info=end).SerializeToString()
    null = tensor(types_pb2.DT_FLOAT, 0, [])
    string = types_pb2.DT_STRING
    packed = layout.SerializeToString()
    _, *found = raw_events(writer.path)
    assert found[0] == value_event(6.0, 3, tag="weights", image=image)
    text = tensor(string, 1, ["**ü**".encode()])
    assert found[1] == value_event(7.0, 0, tag="note/text_summary", metadata=plugin("text"), tensor=text)
    charts = {"tag": "custom_scalars__config__", "metadata": plugin("custom_scalars")}
    assert found[2] == value_event(5.0, 0, **charts, tensor=tensor(string, 1, [packed]))
    assert found[4] == value_event(
        9.0, 0, tag="_hparams_/session_end_info", metadata=plugin("hparams", end_data), tensor=null
    )
    # protobuf does not promise the order of a map, so here what was written is parsed
    value = event_pb2.Event.FromString(found[3]).summary.value[0]
    assert value.tensor == null
    start = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info
    assert (start.group_name, start.start_time_secs) == ("group", 8.0)
    assert dict(start.hparams) == {
        "lr": struct_pb2.Value(number_value=0.1),
        "depth": struct_pb2.Value(number_value=0),
        "on": struct_pb2.Value(bool_value=False),
        "name": struct_pb2.Value(string_value=""),
        "norm": struct_pb2.Value(bool_value=True),
        "optimizer": struct_pb2.Value(string_value="adam"),
    }


def test_tensorboard_reads_everything(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.hparams_start({"lr": 0.1}, "g", 1.0)
    writer.scalars(["val/loss"], np.arange(3), np.array([[1.0], [math.nan], [3.0]]), np.ones(3))
    writer.text("note", 0, "hello", 1.0)
    writer.custom_scalars({"c": {"t": ["val/loss"]}})
    writer.flush()
    writer.hparams_end("FAILURE", 2.0)
    writer.flush()
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [point.step for point in board.Scalars("val/loss")] == [0, 1, 2]
    assert math.isnan(board.Scalars("val/loss")[1].value)
    assert set(board.PluginTagToContent("hparams")) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    layout = layout_pb2.Layout.FromString(board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert layout.category[0].chart[0].multiline.tag == ["val/loss$"]


def test_nothing_on_disk_before_flush_and_one_file_a_writer(tmp_path: Path) -> None:
    writers = [EventWriter(tmp_path, wall_time=12.0) for _ in range(3)]
    assert not list(tmp_path.iterdir())
    for writer in writers:
        writer.flush()
        writer.flush()
    assert len(list(tmp_path.iterdir())) == 3
    assert writers[0].path.name.startswith("events.out.tfevents.0000000012.")
    assert len(raw_events(writers[0].path)) == 1


# ------------------------------------------------------------------ reading


def test_read_back_in_order_with_nan(tmp_path: Path) -> None:
    steps = [5, 0, 200, 7, -3, 70_000]
    values = np.arange(18.0).reshape(6, 3)
    values[2, 1] = math.nan
    scalars, problems = read_scalars(write(tmp_path, steps, values))
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
    expected = dict.fromkeys(("float_val", "double_val", "content", "half", "one"), 1.5) | {"int": -7.0, "zero": 0.0}
    assert {tag: points.values.tolist() for tag, points in scalars.items()} == {t: [v, v] for t, v in expected.items()}


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    path = write(tmp_path, range(4), np.arange(8.0).reshape(4, 2), ["a", "bb"])
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
    path = write(tmp_path, range(1, 7), np.arange(6.0)[:, None], ["a"])  # six records of one size
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
    scalars, problems = read_scalars(write(tmp_path, steps, values, ["train/loss", "lr"]))
    assert not problems
    np.testing.assert_array_equal(scalars["lr"].steps, steps)
    np.testing.assert_array_equal(scalars["lr"].values, values[:, 1])
