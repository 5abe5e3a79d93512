"""Writes TensorBoard event files: thousands of scalars at a time, without TensorFlow or torch.

A file is a sequence of TFRecord records, each with a protobuf `Event`: uint64 length, masked crc32c of those 8 bytes,
the event, masked crc32c of the event, all little-endian. Source: TensorFlow's documentation of TFRecord.
"""
# pyright: reportAttributeAccessIssue=false
# protobuf makes its classes at run time

from __future__ import annotations

import itertools
import os
import re
import struct
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from trainer.files import Growing, masked_crc
from trainer.record.destination import event_file_name
from trainer.record.hparams import Cell, Row

_HEADER, _FOOTER = 12, 4  # bytes of a record before and after its event
_DATA_TYPES = {str: api_pb2.DATA_TYPE_STRING, float: api_pb2.DATA_TYPE_FLOAT64, bool: api_pb2.DATA_TYPE_BOOL}
_SESSION_START = "_hparams_/session_start_info"
_VARINT_STARTS = [1, *(1 << 7 * i for i in range(1, 9))]  # the first number that protobuf writes in 1, 2, ... bytes


class EventWriter:
    """Appends events to one file in `directory`; nothing reaches the disk, and no file is open, outside `flush`.

    `name` and `wall_time` (seconds since 1970, default now) are a new file's; `file` continues an existing one. Not
    thread-safe.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        name: str | None = None,
        wall_time: float | None = None,
        file: Growing | None = None,
    ) -> None:
        self._created = time.time() if wall_time is None else wall_time
        self.file = file or Growing(Path(directory) / (name or event_file_name(self._created)))
        version = _record(Event(wall_time=self._created, file_version="brain.Event:2"))
        self._pending = [] if file else [version]

    @property
    def path(self) -> Path:
        return self.file.path

    def scalars(self, tags: Sequence[str], steps: np.ndarray, values: np.ndarray, wall_times: np.ndarray) -> None:
        """Add one event per step, holding all T tags: steps (S,) from 0 on, values (S, T), wall_times (S,) in seconds.

        TensorBoard keeps scalars as 32-bit floats: what is larger becomes infinite. NaN and infinity are kept.
        """
        steps_S = np.asarray(steps, np.int64)
        walls_S = np.asarray(wall_times, "<f8")
        with np.errstate(over="ignore"):
            values_ST = np.asarray(values, np.float64).astype("<f4")
        assert values_ST.shape == (len(steps_S), len(tags))
        assert walls_S.shape == steps_S.shape
        assert (steps_S >= 0).all()
        widths_S = np.searchsorted(_VARINT_STARTS, steps_S, side="right")  # in bytes; protobuf leaves a zero out
        cuts = np.flatnonzero(np.diff(widths_S)) + 1
        for begin, end in itertools.pairwise([0, *cuts.tolist(), len(steps_S)]):
            if begin < end:
                rows, width = slice(begin, end), int(widths_S[begin])
                self._pending.append(_scalar_records(tuple(tags), width, steps_S[rows], values_ST[rows], walls_S[rows]))

    def image(self, tag: str, step: int, png: bytes, width: int, height: int, wall_time: float) -> None:
        """Add a picture, already encoded as PNG, `width` x `height` pixels."""
        rgba = 4
        image = Summary.Image(height=height, width=width, colorspace=rgba, encoded_image_string=png)
        self._add(Summary.Value(tag=tag, image=image), step, wall_time)

    def text(self, tag: str, step: int, markdown: str, wall_time: float) -> None:
        """Add Markdown for TensorBoard's text page."""
        self._add(_string_value(f"{tag}/text_summary", "text", markdown.encode()), step, wall_time)

    def custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Add charts of several tags each: {category: {title of the chart: tags}}."""

        def chart(title: str, tags: Sequence[str]) -> Chart:
            exactly = [re.escape(tag) + "$" for tag in tags]  # TensorBoard takes regular expressions here
            return Chart(title=title, multiline=MultilineChartContent(tag=exactly))

        categories = [
            Category(title=title, chart=[chart(*item) for item in charts.items()]) for title, charts in layout.items()
        ]
        packed = Layout(category=categories).SerializeToString()
        self._add(_string_value("custom_scalars__config__", "custom_scalars", packed), 0, self._created)

    def hparams_start(self, row: Row, wall_time: float) -> None:
        """Add this run's row in TensorBoard's HParams table."""
        self._pending.append(_session_start(row, wall_time))

    def hparams_columns(self, row: Row, metrics: Sequence[str], wall_time: float) -> None:
        """Add the table's columns, where TensorBoard would show every tag; of all runs' it takes the first it finds."""
        infos = [
            api_pb2.HParamInfo(name=key, type=_DATA_TYPES[kind], differs=key in row.first)
            for key, kind in row.columns.items()
        ]
        shown = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics]
        content = HParamsPluginData(experiment=api_pb2.Experiment(hparam_infos=infos, metric_infos=shown))
        self._add(_hparams_value("_hparams_/experiment", content), 0, wall_time)

    def hparams_end(self, status: str, wall_time: float) -> None:
        """Add how the run ended: 'SUCCESS', 'FAILURE' or 'RUNNING'."""
        end = SessionEndInfo(status=api_pb2.Status.Value(f"STATUS_{status}"), end_time_secs=wall_time)
        self._add(_hparams_value("_hparams_/session_end_info", HParamsPluginData(session_end_info=end)), 0, wall_time)

    def flush(self) -> None:
        """Append what was added since the last flush."""
        if self._pending:
            self.file.append(b"".join(self._pending))
            self._pending = []

    def drop(self) -> None:
        """Forget what was added since the last flush."""
        self._pending = []

    def _add(self, value: Summary.Value, step: int, wall_time: float) -> None:
        self._pending.append(_record(Event(wall_time=wall_time, step=step, summary=Summary(value=[value]))))


def with_hparams(content: bytes, row: Row) -> bytes:
    """The bytes of an event file that hparams_start began, with another row there, dated as before."""
    begin = 0
    while True:
        (length,) = struct.unpack_from("<Q", content, begin)
        end = begin + _HEADER + length + _FOOTER
        event = Event.FromString(content[begin + _HEADER : end - _FOOTER])
        if any(value.tag == _SESSION_START for value in event.summary.value):
            return content[:begin] + _session_start(row, event.wall_time) + content[end:]
        begin = end


def _session_start(row: Row, wall_time: float) -> bytes:
    start = SessionStartInfo(group_name=row.name, start_time_secs=wall_time)
    for key, value in row.cells.items():
        start.hparams[key].CopyFrom(_struct_value(value))
    summary = Summary(value=[_hparams_value(_SESSION_START, HParamsPluginData(session_start_info=start))])
    return _record(Event(wall_time=wall_time, summary=summary))


def _struct_value(value: Cell) -> Value:
    if isinstance(value, bool):  # before numbers: a bool is an int
        return Value(bool_value=value)
    return Value(string_value=value) if isinstance(value, str) else Value(number_value=value)


def _hparams_value(tag: str, data: HParamsPluginData) -> Summary.Value:
    """A value whose content stands in its metadata; the tensor is TensorBoard's null tensor."""
    content = data.SerializeToString(deterministic=True)
    return Summary.Value(tag=tag, metadata=_metadata("hparams", content), tensor=_tensor(DT_FLOAT))


def _string_value(tag: str, plugin: str, content: bytes) -> Summary.Value:
    return Summary.Value(tag=tag, metadata=_metadata(plugin), tensor=_tensor(DT_STRING, content))


def _metadata(plugin: str, content: bytes = b"") -> SummaryMetadata:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content))


def _tensor(dtype: int, *strings: bytes) -> TensorProto:
    """A vector of strings; without any, an empty one of `dtype`."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(strings))])
    return TensorProto(dtype=dtype, tensor_shape=shape, string_val=strings)


# ------------------------------------------------------------------ records


def _record(event: Message) -> bytes:
    payload = event.SerializeToString()
    header = struct.pack("<Q", len(payload))
    return header + _masked_crc(header) + payload + _masked_crc(payload)


def _masked_crc(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc(data))


@lru_cache(maxsize=256)
def _scalar_template(tags: tuple[str, ...], step_width: int) -> tuple[np.ndarray, np.ndarray]:
    """A whole record (R,) uint8, and its columns that are numbers: of the wall time, the step, then the T values.

    Two events with no byte of a number in common show where these stand.
    """

    def event(byte: int) -> np.ndarray:
        (wall_time,), (value,) = struct.unpack("<d", bytes([byte] * 8)), struct.unpack("<f", bytes([byte] * 4))
        step = sum(byte << 7 * i for i in range(step_width))
        points = [Summary.Value(tag=tag, simple_value=value) for tag in tags]
        record = _record(Event(wall_time=wall_time, step=step, summary=Summary(value=points)))
        return np.frombuffer(record, np.uint8)

    record = event(1)
    columns = np.flatnonzero(record[:-_FOOTER] != event(2)[:-_FOOTER])
    assert len(columns) == 8 + step_width + 4 * len(tags)
    return record, columns


def _scalar_records(
    tags: tuple[str, ...], step_width: int, steps_S: np.ndarray, values_ST: np.ndarray, walls_S: np.ndarray
) -> bytes:
    """Records of S steps that are all `step_width` bytes long: the template S times, filled column by column."""
    template, columns = _scalar_template(tags, step_width)
    digits = (steps_S[:, None] >> 7 * np.arange(step_width) & 0x7F).astype(np.uint8)
    digits[:, :-1] |= 0x80  # more digits follow
    numbers = [walls_S[:, None].view(np.uint8), digits, np.ascontiguousarray(values_ST).view(np.uint8)]
    block = np.tile(template, (len(steps_S), 1))
    block[:, columns] = np.concatenate(numbers, axis=1)
    checks = b"".join(_masked_crc(row.tobytes()) for row in block[:, _HEADER:-_FOOTER])
    block[:, -_FOOTER:] = np.frombuffer(checks, np.uint8).reshape(-1, _FOOTER)
    return block.tobytes()
