"""Event files as written, against the oracles: protobuf's own bytes, and TensorBoard's own reader."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.fake_runs import TAGS, write_scalars
from tests.helpers import value_event
from trainer.record.hparams import Row
from trainer.record.tensorboard import EventWriter, with_hparams


def raw_events(path: Path) -> list[bytes]:
    """The payloads, as TensorBoard frames and checks them."""
    return list(RawEventFileLoader(str(path)).Load())


def test_scalars_are_protobufs_bytes(tmp_path: Path) -> None:
    steps = [0, 1, 127, 128, 300, 16_383, 16_384, 5, 2**40, 2**63 - 1, 0]
    values = np.linspace(-3, 3, len(steps) * len(TAGS)).reshape(len(steps), -1)
    values[1] = [math.nan, math.inf, -math.inf]
    values[2] = [0.0, -0.0, 1e300]  # what a 32-bit float cannot hold becomes infinite, as in protobuf
    first, *rest = raw_events(write_scalars(tmp_path, steps, values))
    assert first == event_pb2.Event(wall_time=1_700_000_000.5, file_version="brain.Event:2").SerializeToString()
    for i, (step, payload) in enumerate(zip(steps, rest, strict=True)):
        with np.errstate(over="ignore"):
            narrow = values[i].astype(np.float32).tolist()
        points = [summary_pb2.Summary.Value(tag=t, simple_value=v) for t, v in zip(TAGS, narrow, strict=True)]
        expected = event_pb2.Event(
            wall_time=1_700_000_001.0 + 0.25 * i, step=step, summary=summary_pb2.Summary(value=points)
        )
        assert payload == expected.SerializeToString()


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 2**15), min_size=1, max_size=20))
def test_steps_of_any_length(steps: list[int]) -> None:
    with TemporaryDirectory() as folder:
        path = write_scalars(Path(folder), steps, np.zeros((len(steps), 1)), ["a"])
        _, *found = raw_events(path)
    assert found == [
        value_event(1_700_000_001.0 + 0.25 * i, step, tag="a", simple_value=0.0) for i, step in enumerate(steps)
    ]


def test_image_text_layout_and_hparams_are_protobufs_bytes(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, wall_time=5.0)
    writer.image("weights", 3, b"png", 20, 10, 6.0)
    writer.text("note", 0, "**ü**", 7.0)
    writer.custom_scalars({"curves": {"loss": ["val/loss", "eval/train_loss"]}})
    config = {"lr": 0.1, "depth": 0, "on": False, "name": "", "norm": True, "optimizer": "adam"}
    writer.hparams_start(Row("group", config, {}, ()), 8.0)
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
    writer.hparams_start(Row("g", {"lr": 0.1}, {}, ()), 1.0)
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


def test_with_hparams_replaces_the_configuration_alone(tmp_path: Path) -> None:
    def content(name: str, config: dict[str, str | float | bool], group: str) -> bytes:
        writer = EventWriter(tmp_path / name, wall_time=5.0)
        writer.path.parent.mkdir()
        writer.custom_scalars({"c": {"t": ["val/loss"]}})
        writer.hparams_start(Row(group, config, {}, ()), 6.0)
        writer.scalars(["val/loss"], np.arange(3), np.ones((3, 1)), np.ones(3))
        writer.flush()
        return writer.path.read_bytes()

    old, new = ({"lr": 0.1}, "g"), ({"lr": 0.2, "depth": 3}, "other")
    assert with_hparams(content("old", *old), Row(new[1], new[0], {}, ())) == content("new", *new)
