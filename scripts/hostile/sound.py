"""Sound runs, ours and other tools', and how their files are written."""
# pyright: reportAttributeAccessIssue=false
# protobuf makes its classes at run time

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

EVENTS = "events.out.tfevents.1700000000.host"

EPOCHS = 30
CURVES = [
    (e, 2.3 * np.exp(-e / 5) + 0.05, 2.2 * np.exp(-e / 5) + 0.15 + 0.02 * max(e - 10, 0)) for e in range(1, EPOCHS + 1)
]
CONFIG = {
    "seed": 0,
    "epochs": EPOCHS,
    "model": {"depth": 2, "dropout": 0.5},
    "optimizer": {"name": "adam", "lr": 0.001},
}
FLAT = {
    "seed": 0,
    "epochs": EPOCHS,
    "model.depth": 2,
    "model.dropout": 0.5,
    "optimizer.name": "adam",
    "optimizer.lr": 0.001,
}
SUMMARY = {
    "status": "completed",
    "stopped_by": "budget",
    "error": None,
    "epochs": EPOCHS,
    "start": {"guessing_loss": 2.3},
    "best": {"epoch": 12, "val/loss": 0.36},
    "test": {"best": {"loss": 0.4, "accuracy": 0.9}},
    "verdict": {"verdict": "overfit"},
    "health": [{"finding": "dead_units", "where": "", "step": 3, "sentence": "s", "why": "w", "try": "t"}],
    "config": FLAT,
    "provenance": {"data_hash": "d", "split_hash": "s", "order_hash": "o", "init_hash": "i"},
    "cost": {"seconds": 1.5},
}


def table(names: Sequence[str], separator: str = ",") -> str:
    """Write the curves as CSV, of columns called so: epoch, training and validation loss, and the same once more."""
    rows = [separator.join(str(cell) for cell in (*row, *row[1:])[: len(names)]) for row in CURVES]
    return "\n".join([separator.join(names), *rows]) + "\n"


METRICS = table(["epoch", "eval/train_loss", "val/loss", "eval/train_accuracy", "val/accuracy"]).encode()


def event(tag: str | bytes, step: int, value: float, wall_time: float = 1.7e9) -> bytes:
    """Write one scalar as an event; a tag in bytes need not be UTF-8."""
    name = tag if isinstance(tag, str) else "\0" * len(tag)
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
    content = Event(wall_time=wall_time, step=step, summary=summary).SerializeToString()
    return content if isinstance(tag, str) else content.replace(b"\0" * len(tag), tag)


def record(payload: bytes) -> bytes:
    """Frame an event as a TFRecord."""
    header = struct.pack("<Q", len(payload))
    return header + masked_crc(header) + payload + masked_crc(payload)


def masked_crc(content: bytes) -> bytes:
    """Return TFRecord's checksum."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def loop_events(*tags: str) -> bytes:
    """Write the curves as an event file."""
    rows = [event(tag, row[0], value) for row in CURVES for tag, value in zip(tags, row[1:], strict=False)]
    return b"".join(map(record, rows))


LOOP = loop_events("Loss/train", "Loss/val")


def run_files(summary: Mapping[str, Any] = SUMMARY, sealed: bool = True) -> dict[str, bytes]:
    """Return the files of a run of ours by name."""
    config = yaml.safe_dump(CONFIG).encode()
    states = {
        name: {"size": len(content), "crc32c": google_crc32c.value(content)}
        for name, content in (("metrics.csv", METRICS), (".hydra/config.yaml", config))
    }
    whole = json.dumps({"files": states, **summary}, indent=1).encode()
    return {
        "metrics.csv": METRICS,
        "summary.json": seal(whole) if sealed else whole,
        ".hydra/config.yaml": config,
        ".hydra/overrides.yaml": b"- optimizer=adam\n- model.dropout=0.5\n",
        EVENTS: loop_events("train/loss", "grad_norm/layers.0.weight"),
    }


def seal(content: bytes) -> bytes:
    """End JSON with the checksum that files.write_sealed gives it."""
    body = content.rstrip().removesuffix(b"}").rstrip()
    return body + b',\n "checksum": "%08x"\n}' % google_crc32c.value(body)


def put(folder: Path, contents: Mapping[str, bytes | str]) -> Path:
    """Write files below a folder."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder
