"""Whether `trainer.evaluate` stands whatever lies in a folder: files made to break it, and files changed at random.

    python -m scripts.hostile                      every kind of hostile input, each beside a sound run
    python -m scripts.hostile --only yaml          those whose name has a word in it
    python -m scripts.hostile --mutations 20000    every file that is read, changed at random

An input holds where the command ends with exit code 0, after at most 5 s of work and with at most 1 GB of memory,
without a traceback or a warning of Python's, has judged the sound run as ever, and has named what it could not use.
Prints a line for each that does not, and a count at the end; exit code 1 where one does not. The same --seed makes the
same inputs.
"""
# pyright: reportAttributeAccessIssue=false
# protobuf makes its classes at run time

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from trainer import evaluate

LONGEST_S = 5.0  # of processor time: a busy machine makes nothing a hang
HANGS_S = 30.0  # by the clock
MOST_MEMORY = 1 << 30  # bytes
ROOT = Path(__file__).parents[1]
EVENTS = "events.out.tfevents.1700000000.host"

# ------------------------------------------------------------------ sound runs

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


# ------------------------------------------------------------------ things that are no sound file


def fifo(path: Path) -> None:
    """Make a pipe that nobody writes to."""
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    """Make a socket; its address has to be short."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def sparse(path: Path) -> None:
    """Make a file of 8 GB that takes no room."""
    with open(path, "wb") as file:
        file.truncate(8 << 30)


def forbidden(path: Path) -> None:
    """Make a file that nobody may read."""
    path.write_bytes(b"secret\n")
    path.chmod(0)


THINGS: dict[str, Callable[[Path], object]] = {
    "a pipe": fifo,
    "a socket": unix_socket,
    "a folder": lambda path: path.mkdir(),
    "endless zeros": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "eight gigabytes": sparse,
    "forbidden": forbidden,
    "nothing": lambda path: path.write_bytes(b""),
    "a megabyte of NUL": lambda path: path.write_bytes(b"\0" * (1 << 20)),
    "noise": lambda path: path.write_bytes(random.Random(path.name).randbytes(200_000)),
}
PLACES: dict[str, Callable[[], dict[str, bytes]]] = {  # where one stands in for a file -> the other files there
    "metrics.csv": run_files,
    "summary.json": run_files,
    ".hydra/config.yaml": lambda: run_files({k: v for k, v in SUMMARY.items() if k != "config"}, sealed=False),
    ".hydra/overrides.yaml": run_files,
    "hparams.yaml": lambda: {EVENTS: LOOP},
    EVENTS: lambda: {},
    "history.csv": lambda: {},
    "trainer_state.json": lambda: {},
    "mlruns/0/r/metrics/val_loss": lambda: {"mlruns/0/r/meta.yaml": b"", **MLFLOW},
}
NO_TABLE = {"a folder", "nothing", "noise"}  # that there is a folder, or a table of something else, need not be said
NO_HISTORY = NO_TABLE | {"a megabyte of NUL", "eight gigabytes"}  # a JSON file that does not speak of a loss

# ------------------------------------------------------------------ contents

Q = '"'
DEEP = 100_000
YAMLS: dict[str, str | bytes] = {
    "deep lists": "[" * DEEP,
    "deep lists, closed": "a: " + "[" * 900 + "]" * 900,
    "deep indentation": "".join(" " * i + "a:\n" for i in range(900)),
    "deep on one line": "- " * DEEP,
    "deep keys": "? " * DEEP,
    "400 digits": f"a: {'9' * 400}",
    "100,000 digits": f"a: {'9' * 100_000}",
    "hexadecimal digits": f"a: 0x{'f' * 100_000}",
    "sexagesimal": "a: 1" + ":1" * 100_000,
    "sexagesimal by tag": "a: !!int " + Q + "1" + ":1" * 100_000 + Q,
    "sexagesimal float": "a: !!float " + Q + "1" + ":1" * 100_000 + ".5" + Q,
    "a call": "a: !!python/object/apply:os.system ['touch /tmp/hostile-was-here']",
    "a class": "a: !!python/object/new:type {args: [x, !!python/tuple [], {}]}",
    "tags": "a: !!set {b, c}\nd: !!omap [e: 1]\nf: !!binary aGk=\ng: !!timestamp 2026-01-02\nh: !mine {i: 1}",
    "dates": "a: 2026-01-02\n2026-01-03: b\nc: 2026-13-45",
    "alias bomb": "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(12)),
    "alias bomb of keys": "".join(
        f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' if i else f'k{j}: 1' for j in range(9))}}}\n" for i in range(12)
    ),
    "merge bomb": "a0: &a0 {k: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 12)),
    "itself": "a: &a [*a, {b: *a}]",
    "lists as keys": "? [a, b]\n: c\n? {d: e}\n: f\n",
    "odd keys": "null: 1\ntrue: 2\n1.5: 3\n'': 4\n'.': 5\n.nan: 6\n",
    "odd values": "seed: [1, {a: null}]\nepochs: {a: b}\noptimizer: {name: null, lr: [.nan]}\nmodel: true\n",
    "infinities": "seed: .inf\nepochs: -.inf\nmodel: {depth: .nan, dropout: 1e400}\n",
    "long keys": "".join(f"{'k' * 900}{i}: {{b{i}: 1}}\n" for i in range(200)),
    "nested long keys": "".join(" " * i + "k" * 100 + ":\n" for i in range(30)),
    "50,000 keys": "".join(f"k{i}: {i}\n" for i in range(40_000)),
    "900 keys": "".join(f"k{i}: {i * 7 % 11}\n" for i in range(900)),
    "a long text": f"a: '{'x' * 400_000}'",
    "half a megabyte of ones": "a: [" + "1," * 250_000 + "]",
    "not UTF-8": b"a: \xff\xfe\xfd\nb: 1\n",
    "UTF-16": "a: 1\n".encode("utf-16"),
    "NUL": "a: \0\nb: 1\n",
    "many documents": "--- {a: 1}\n" * 1000,
    "escapes": 'a: "\\e[2J\\e]0;owned\\a"\n"\\e[31mb": [red]\n',
    "half characters": 'a: "\\ud800"\n',
    "tabs": "a:\n\tb: 1\n",
}
WRONG: dict[str, Any] = {
    "null": None,
    "true": True,
    "text": "?\x1b[2J[red]",
    "a list": [1, [None]],
    "a dictionary": {"loss": {"a": []}, "best": [], "size": "x"},
    "a huge number": int("9" * 400),
    "NaN": float("nan"),
    "half a character": "\ud800",
    "minus one": -1,
    "a long text": "x" * 100_000,
}
JSONS: dict[str, str] = {
    "deep lists": '{"a": ' + "[" * DEEP,
    "deep lists, closed": '{"a": ' + "[" * 500 + "]" * 500 + "}",
    "deep dictionaries": '{"a": ' * DEEP,
    "5,000 digits": f'{{"epochs": {"9" * 5000}}}',
    "a list": "[1, 2]",
    "a number": "7",
    "constants": '{"epochs": NaN, "status": Infinity, "test": {"best": {"loss": -Infinity, "accuracy": 1e999}}}',
    "half a megabyte of lists": '{"a": [' + "[]," * 170_000 + "[]]}",
    "50,000 keys": json.dumps({"config": {f"k{i}": i for i in range(40_000)}}),
    "the same key again": "{" + '"status": "completed", ' * 10_000 + '"epochs": 3}',
    "escaped controls": '{"status": "\\u001b[2J\\u202e\\u0000", "health": ["\\u001b]0;x\\u0007"]}',
}
TABLES: dict[str, str | bytes] = {
    "a field too long": table(["epoch", "loss", "val_loss"]) + "31," + "9" * 200_000 + ",1\n",
    "a quote that never ends": table(["epoch", "loss", "val_loss"]) + '31,"' + "x\n" * 100_000,
    "a row of a million": table(["epoch", "loss", "val_loss"]) + "," * 1_000_000 + "\n",
    "20,000 columns": ",".join(["epoch", "loss", "val_loss", *(f"c{i}" for i in range(20_000))])
    + "\n"
    + "".join(f"{e},{a},{b}{',1' * 20_000}\n" for e, a, b in CURVES),
    "20,000 losses": ",".join([f"{side}_loss_{i}" for i in range(10_000) for side in ("train", "val")])
    + "\n"
    + ("1," * 19_999 + "1\n") * 20,
    "losses of one name": ",".join([f"{side}{'.' * i}loss" for i in range(700) for side in ("train", "val")])
    + "\n"
    + ("1," * 1399 + "1\n") * 20,
    "five million rows": "epoch,loss,val_loss\n" + "1,\n" * 5_000_000,
    "forty million commas": "epoch,loss,val_loss\n" + ("," * 99 + "\n") * 400_000,
    "eight million numbers": "epoch,loss,val_loss\n" + "1,1,1\n" * 1_900_000,
    "a first line without end": "epoch,loss,val_loss" + ",x" * 3_000_000,
    "carriage returns": table(["epoch", "loss", "val_loss"]).replace("\n", "\r"),
    "mixed ends": table(["epoch", "loss", "val_loss"]).replace("\n", "\r\r\n\n"),
    "NUL": table(["epoch", "loss", "val_loss"]).replace("5", "\0"),
    "a byte order mark": "\ufeff" + table(["epoch", "loss", "val_loss"]),
    "UTF-16": table(["epoch", "loss", "val_loss"]).encode("utf-16"),
    "half of UTF-16": table(["epoch", "loss", "val_loss"]).encode("utf-16-le")[:-1],
    "sixty megabytes of UTF-16": "epoch,loss,val_loss\n".encode("utf-16") + "1,1,1\n".encode("utf-16-le") * 5_000_000,
    "other digits": table(["epoch", "loss", "val_loss"]).translate({48 + i: 0x660 + i for i in range(10)}),
    "infinite": "epoch,loss,val_loss\n" + "".join(f"{i},inf,-inf\n" for i in range(9)),
    "steps beyond floats": "epoch,loss,val_loss\n" + "".join(f"{i}e307,{i},1e308\n" for i in range(-9, 30)),
    "losses beyond floats": "epoch,loss,val_loss\n" + "".join(f"{i},{i % 2}e308,-{i}e307\n" for i in range(30)),
    "one step": "epoch,loss,val_loss\n" + "1,1,1\n" * 30,
    "names twice": table(["loss", "loss", "val_loss", "val_loss", "loss"]),
    "names that are escapes": table(["epoch", "train_loss\x1b[2J", "val_loss\x1b[2J"]),
    "no rows": "epoch,loss,val_loss\n",
    "tensors without end": table(["epoch", "loss", "val_loss"]) + "31," + "tensor(" * 400_000,
    "a million tags": "epoch,metric,value\n" + "".join(f"{i % 9},loss{i},1\n" for i in range(1_000_000)),
    "a million runs": "run,epoch,loss,val_loss\n" + "".join(f"r{i},1,1,1\n" for i in range(1_000_000)),
    "a million fits": "epoch,loss,val_loss\n" + "1,1,1\n2,1,1\n" * 500_000,
    "a thousand fits": "epoch,loss,val_loss\n" + "1,1,1\n2,1,1\n3,1,1\n" * 900,
    "words of a megabyte": "run,epoch,loss,val_loss\n"
    + "".join(f"{'x' * 100_000}{i // 9},{i},1,1\n" for i in range(300)),
    "a comment of a megabyte": "#" * 900_000 + "\n" + table(["epoch", "loss", "val_loss"]),
    "prefixes": ",".join(f"a{i}_{side}_loss" for i in range(5000) for side in ("train", "val"))
    + "\n"
    + "1," * 9999
    + "1\n",
    "dashes": ",".join(f"r{i} - {side}_loss" for i in range(3000) for side in ("train", "val"))
    + ("\n" + "1," * 5999 + "1") * 9,
}
LOSSES = [[row[i] for row in CURVES] for i in (1, 2)]
NO_RUN = {
    "deep lists, closed",
    "deep dictionaries, closed",
    "rows with keys of their own",
    "rows in rows",
    "empty lines",
}
MLFLOW = {
    f"mlruns/0/r/metrics/{name}": "".join(f"1700000000 {loss} {i}\n" for i, loss in enumerate(losses)).encode()
    for name, losses in zip(("train_loss", "val_loss"), LOSSES, strict=True)
}
HISTORIES: dict[str, str | bytes] = {
    "deep lists": '{"loss": ' + "[" * DEEP,
    "deep lists, closed": '{"loss": ' + "[" * 500 + "]" * 500 + "}",
    "deep dictionaries": '{"loss": ' * DEEP,
    "deep dictionaries, closed": '{"loss": ' * 900 + "1" + "}" * 900,
    "a deep row": json.dumps([{"epoch": 1, "loss": 1}] * 5)[:-1] + ", " + '{"loss": ' * 900 + "1" + "}" * 901 + "]",
    "5,000 digits": f'{{"loss": [1, {"9" * 5000}], "val_loss": [1, {"9" * 5000}]}}',
    "five million digits": f'{{"loss": [1, {"9" * 5_000_000}], "val_loss": [1, 2]}}',
    "constants": '{"loss": [NaN, Infinity, -Infinity, 1e999, 1, 2], "val_loss": [1, NaN, "x", null, {}, []]}',
    "lists of lists": '{"loss": [' + "[1]," * 1_000_000 + '[1]], "val_loss": [1, 2]}',
    "two million numbers": '{"loss": [' + "1," * 2_000_000 + '1], "val_loss": [' + "1," * 2_000_000 + "1]}",
    "a row with 100,000 keys": "[" + json.dumps({"epoch": 1, **{f"loss_{i}": i for i in range(100_000)}}) + ",{}]",
    "rows with keys of their own": json.dumps([{"epoch": i, f"train_loss{i}": 1, f"k{i}": "w"} for i in range(30_000)]),
    "rows in rows": json.dumps({"log_history": [{"epoch": i, "loss": {"loss": {"loss": [i]}}} for i in range(20_000)]}),
    "many runs": json.dumps({f"r{i}": {"loss": [3, 2, 1], "val_loss": [3, 2, 1]} for i in range(3000)}),
    "lines": '{"epoch": 1, "loss": 1, "val_loss": 2}\n' * 200_000,
    "lines, one broken": '{"epoch": 1, "loss": 1}\n{"epo\n' + '{"epoch": 2, "loss": 1}\n' * 9,
    "empty lines": '{"epoch": 1, "loss": 1}' + "\n" * 3_000_000,
    "twenty megabytes": '{"loss": ["' + "x" * 20_000_000 + '"]}',
    "half characters": '{"loss\\ud800": [3, 2, 1], "val_loss\\ud800": [3, 2, 1]}',
    "escaped controls": '{"\\u001b[2Jloss": [3, 2, 1], "\\u001b[2Jval_loss": [3, 2, 1]}',
    "UTF-16": json.dumps({"loss": LOSSES[0], "val_loss": LOSSES[1]}).encode("utf-16"),
    "not UTF-8": b'{"loss": [3, 2, 1], "val_loss": [3, 2, 1], "\xff": 1}',
}
OURS: dict[str, str | bytes] = {
    "no rows": METRICS.splitlines(keepends=True)[0],
    "four million rows": METRICS.splitlines(keepends=True)[0] + b"1,1,1\n" * 4_000_000,
    "seventy megabytes": METRICS + b"x" * (70 << 20),
    "a field too long": METRICS + b"31," + b"9" * 200_000 + b",1,1,1\n",
    "a quote that never ends": METRICS.replace(b"\n2,", b'\n2,"', 1),
    "epochs beyond floats": b"epoch,eval/train_loss,val/loss\n" + b"".join(b"%de307,1,1e308\n" % i for i in range(30)),
    "epochs of 400 digits": b"epoch,eval/train_loss,val/loss\n" + b"".join(b"9" * 400 + b",1,1\n" for _ in range(9)),
    "two columns called epoch": METRICS.replace(b"val/accuracy", b"epoch"),
    "bytes": METRICS.replace(b"0", b"\xff"),
}


def of_one_length(count: int, length: int = 12) -> bytes:
    """Write an event file of many tags of equal length, each a loss."""
    sides = [f"{side}/loss{i:0{length - 9}d}" for i in range(count // 2) for side in ("val/", "train")]
    return b"".join(record(event(tag, step, 1.0)) for step in (1, 2) for tag in sides)


def tagged(payloads: Sequence[bytes]) -> bytes:
    """Write a sound run's events, and then these."""
    return LOOP + b"".join(map(record, payloads))


def empty_values(count: int) -> bytes:
    """Write an event whose summary has so many values, each empty: two bytes in the file, a hundred in memory."""
    return Event(summary=Summary(value=[Summary.Value()] * 1000)).SerializeToString()[:0] + _field(5, b"\x0a\0" * count)


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


BIG = b"".join(record(event(f"{side}/loss", i, 1 / i)) for i in range(1, 4000) for side in ("train", "val"))
EVENT_FILES: dict[str, bytes] = {
    "line ends changed": BIG.replace(b"\n", b"\r\n"),
    "line ends changed back": BIG.replace(b"\r\n", b"\n").replace(b"\r", b"\n"),
    "as text": BIG.decode("utf-8", "replace").encode(),
    "every record flipped": bytes(byte ^ (i % 49 == 30) for i, byte in enumerate(BIG)),
    "headers without records": (struct.pack("<Q", 40) + masked_crc(struct.pack("<Q", 40))) * 50_000,
    "headers that begin everywhere": bytes(range(1, 8)) * 100_000,
    "zeros": bytes(3 << 20),
    "a record without end": LOOP + struct.pack("<Q", 1 << 62) + masked_crc(struct.pack("<Q", 1 << 62)),
    "20,000 tags of one length": of_one_length(20_000),
    "30,000 tags": b"".join(record(event(f"t{i}", 1, 1.0)) for i in range(30_000)) + LOOP,
    "a tag of a megabyte": tagged([event("x" * (1 << 20), i, 1.0) for i in range(5)]),
    "a loss of long name": b"".join(
        record(event(f"{side}_loss_{'x' * 900}", i, 1 / i)) for i in range(1, 30) for side in ("train", "val")
    ),
    "a million empty values": tagged([empty_values(1_000_000)]),
    "six million empty values": tagged([empty_values(6_000_000)]),
    "steps beyond": tagged(
        [event(f"Loss/{side}", step, 1.0) for step in (-(2**63), 2**63 - 1) for side in ("train", "val")]
    ),
    "times that are none": tagged([event("Loss/val", i, float("nan"), float("inf")) for i in range(40)]),
    "tags not UTF-8": tagged([event(b"\xff\xfe\xfd", 1, 1.0)] * 20),
    "tags that are escapes": loop_events("\x1b[2J[red]train/loss\u202e", "\x1b[2J[red]val/loss\u202e"),
    "garbage in sound records": tagged([b"\xff" * 50, b"\x0a\xff\x01", b""] * 100),
    "cut": LOOP[:-7],
}
NAMES: dict[str, bytes] = {
    "superscript": "lr10²".encode(),
    "other digits": "lr٣٤".encode(),
    "not UTF-8": b"lr\xff\xfe",
    "newlines": b"a\nb\rc",
    "escapes": b"\x1b[2J\x1b]0;owned\x07",
    "markup": b"[red]x[/red][/] :smile: {x} %s \\[bold]",
    "backwards": "\u202eexe.txt".encode(),
    "HTML": b"<img src=x onerror=alert(1)>&\"'`",
    "long": b"n" * 250,
    "digits": b"9" * 250,
    "an option": b"--json",
    "blank": b" ",
    "wide": "日本語👩‍👩‍👧e\u0301".encode(),
}
HOSTS = {  # what a content stands in: the file, and the other files of its run
    "YAML": (".hydra/config.yaml", {"metrics.csv": METRICS}),
    "hparams": ("hparams.yaml", {EVENTS: LOOP}),
    "JSON": ("summary.json", {"metrics.csv": METRICS}),
    "table": ("history.csv", {}),
    "metrics": ("metrics.csv", {}),
    "events": (EVENTS, {}),
    "history": ("history.json", {}),
    "MLflow": ("mlruns/0/r/metrics/val_loss", {"mlruns/0/r/meta.yaml": b"", **MLFLOW}),
}
CONTENTS: list[tuple[str, Mapping[str, str | bytes]]] = [
    ("YAML", YAMLS),
    ("hparams", YAMLS),
    ("JSON", JSONS),
    ("table", TABLES),
    ("metrics", OURS),
    ("events", EVENT_FILES),
    ("history", HISTORIES),
    ("MLflow", {name: TABLES[name] for name in ("NUL", "UTF-16", "a row of a million", "five million rows")}),
]

# ------------------------------------------------------------------ kinds

Made = Path | None  # what has to be named, by name or by what is above it; None where there is nothing to say
Kind = Callable[[Path], Made]  # makes a hostile input in a folder that has a sound run


def thing(name: str, what: str) -> Kind:
    """Put something that is no sound file in the place of a file of a run."""

    def make(root: Path) -> Made:
        bad = put(root / "bad", {other: content for other, content in PLACES[name]().items() if other != name})
        (bad / name).parent.mkdir(parents=True, exist_ok=True)
        THINGS[what](bad / name)
        unsaid = NO_HISTORY if name.endswith(".json") else NO_TABLE
        return None if what in unsaid and not PLACES[name]() else bad

    return make


def content_in(host: str, name: str, content: str | bytes) -> Kind:
    """Put a content in a file of a run."""
    file, others = HOSTS[host]

    def make(root: Path) -> Made:
        bad = put(root / "bad", {**others, file: content})
        return None if host == "history" and name in NO_RUN else bad

    return make


def shaped(wrong: Any, sealed: bool) -> Kind:
    """Make a run for each key of a summary, with something of another type there; sealed with a sound checksum."""

    def make(root: Path) -> Made:
        for path in [*paths_of(SUMMARY), ("files",), ("files", "metrics.csv"), ("files", "metrics.csv", "size")]:
            summary = json.loads(json.dumps({"files": {"metrics.csv": {}}, **SUMMARY}))
            replace_at(summary, path, wrong)
            put(root / "bad" / "-".join(path).replace("/", "∕"), run_files(summary, sealed))
        return root / "bad"

    return make


def paths_of(tree: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return the path of every key in a tree of dictionaries."""
    for key, value in tree.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *path) for path in paths_of(value))


def replace_at(tree: Any, path: Sequence[Any], value: Any) -> None:
    """Put a value in a tree."""
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = copy.deepcopy(value)


def named(name: bytes, contents: Mapping[str, bytes]) -> Kind:
    """Make a sound run of a hostile name."""

    def make(root: Path) -> Made:
        return put(root / os.fsdecode(name), contents)

    return make


def nested(folder: Path) -> Path:
    """Make folders within a folder, deeper than a path can be; return it."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("dd", dir_fd=here)
        below = os.open("dd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return folder


def deep_folders(root: Path) -> Made:
    """Make folders within folders, deeper than a path can be, with a run at the top."""
    return nested(put(root / "bad", run_files()))


def deep_folders_alone(root: Path) -> Made:
    """Make folders within folders, deeper than a path can be."""
    (root / "bad").mkdir()
    return nested(root / "bad")


def circles(root: Path) -> Made:
    """Link folders in circles, and to the root."""
    (root / "bad" / "inner").mkdir(parents=True)
    (root / "bad" / "inner" / "up").symlink_to(root)
    (root / "bad" / "inner" / "itself").symlink_to("itself")
    (root / "bad" / "everything").symlink_to("/")
    return None


def forbidden_folder(name: str) -> Kind:
    """Make a folder that may not be listed."""

    def make(root: Path) -> Made:
        bad = put(root / "bad" / name, run_files())
        put(root / "bad" / "validation", {EVENTS: LOOP})
        bad.chmod(0)
        return bad

    return make


def hydra_forbidden(root: Path) -> Made:
    """Make a run whose .hydra may not be entered."""
    bad = put(root / "bad", run_files({k: v for k, v in SUMMARY.items() if k != "config"}, sealed=False))
    (bad / ".hydra").chmod(0)
    return bad


def many_empty(root: Path) -> Made:
    """Make thousands of empty folders."""
    for i in range(5000):
        (root / "bad" / str(i)).mkdir(parents=True)
    return None


def many_bad(root: Path) -> Made:
    """Make hundreds of files that cannot be read."""
    for i in range(300):
        put(
            root / "bad" / str(i), {"metrics.csv": METRICS, "summary.json": "[" * 9999, ".hydra/config.yaml": "[" * 999}
        )
    return root / "bad"


def roles(root: Path) -> Made:
    """Split a run over folders by role, one of them damaged."""
    put(root / "bad", {f"train/{EVENTS}": LOOP[:-5], f"validation/{EVENTS}": b"noise" * 99})
    return root / "bad"


def all_kinds() -> dict[str, Kind]:
    """Return every kind of hostile input by name."""
    kinds: dict[str, Kind] = {f"{name}: {what}": thing(name, what) for name in PLACES for what in THINGS}
    kinds |= {
        f"{host}: {name}": content_in(host, name, content)
        for host, group in CONTENTS
        for name, content in group.items()
    }
    for sealed in (True, False):
        seal_word = "sealed" if sealed else "unsealed"
        kinds |= {f"{seal_word} summary: every key {name}": shaped(wrong, sealed) for name, wrong in WRONG.items()}
    kinds |= {f"our run called: {name}": named(text, run_files()) for name, text in NAMES.items()}
    kinds |= {f"event run called: {name}": named(text, {EVENTS: LOOP}) for name, text in NAMES.items()}
    return kinds | {
        "folders: deep, below a run": deep_folders,
        "folders: deep": deep_folders_alone,
        "folders: circles": circles,
        "folders: forbidden": forbidden_folder("run"),
        "folders: forbidden, by role": forbidden_folder("train"),
        "folders: .hydra forbidden": hydra_forbidden,
        "folders: thousands, empty": many_empty,
        "folders: hundreds of bad files": many_bad,
        "folders: damaged by role": roles,
    }


# ------------------------------------------------------------------ one kind


@functools.cache
def verdict_alone() -> Any:
    """Return what an evaluation says of the sound run where there is no other."""
    with tempfile.TemporaryDirectory() as folder:
        root = put(Path(folder), {f"sound/{name}": content for name, content in run_files().items()})
        return verdict_of_sound(evaluate.evaluate([root])[0])


def verdict_of_sound(evaluation: Mapping[str, Any]) -> Any:
    """Return what an evaluation says of the sound run."""
    return next(((run["verdict"], run["best_epoch"]) for run in evaluation["runs"] if run["name"] == "sound"), None)


def as_root_without_rights() -> list[str]:
    """Return what to begin a command with so that files may be forbidden to it, even where root runs this."""
    if os.geteuid() or not shutil.which("setpriv"):
        return []
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def peak_memory(process: int) -> int:
    """Wait for a process to end; return the bytes it held at most. (getrusage would count what started it as well.)"""
    peak = 0
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
            peak = max(peak, 1024 * int(found[1]) if found else 0)
        time.sleep(0.01)
    return peak


def faults_of(kind: Kind, folder: Path) -> list[str]:
    """Make the input, evaluate it in a process of its own, and return what does not hold."""
    root = put(folder / "root", {f"sound/{name}": content for name, content in run_files().items()})
    made = kind(root)
    target = folder / "evaluation.json"
    command = [*as_root_without_rights(), sys.executable, "-m", "trainer.evaluate", str(root)]
    command += ["--json", str(target), "--html", str(folder / "report.html")]
    with open(folder / "said", "wb") as said:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        killer = threading.Timer(HANGS_S, child.kill)
        killer.start()
        memory = peak_memory(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        killer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
    spent, text = usage.ru_utime + usage.ru_stime, (folder / "said").read_bytes()
    wrong = [f"{spent:.1f} s of work"] * (spent > LONGEST_S)
    wrong += [f"{memory / 2**20:,.0f} MB"] * (memory > MOST_MEMORY)
    wrong += [word for word in ("Traceback", "Warning") if word.encode() in text]
    wrong += ["a command for the terminal is printed"] * any(byte in text for byte in b"\x1b\x07\r\x9b"[:3])
    if child.returncode or not target.exists():
        return [*wrong, f"exit code {child.returncode}: {text[-300:]!r}"]
    evaluation = json.loads(target.read_bytes())
    wrong += [] if verdict_of_sound(evaluation) == verdict_alone() else ["the sound run is judged otherwise"]
    if made is not None:
        said_of = [*evaluation["problems"], *(run["path"] for run in evaluation["runs"])]
        wrong += [] if any(str(made) in one for one in said_of) else ["nothing is said of it"]
    return wrong


def try_kinds(folder: Path, only: str = "") -> int:
    """Try every kind, or those with a word in their name; return how many do not hold."""
    kinds = {name: kind for name, kind in all_kinds().items() if only in name}

    def tried(numbered: tuple[int, tuple[str, Kind]]) -> bool:
        number, (name, kind) = numbered
        place = folder / str(number)
        place.mkdir()
        if wrong := faults_of(kind, place):
            print(f"{name}: {'; '.join(wrong)}; see {place}", flush=True)
            return False
        remove(place)
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        held = sum(pool.map(tried, enumerate(kinds.items())))
    print(f"{held} of {len(kinds)} kinds of hostile input: the sound run judged, the other named, in time and memory")
    return len(kinds) - held


def remove(folder: Path) -> None:
    """Remove a folder, however deep, and whatever may not be read in it."""
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


# ------------------------------------------------------------------ mutations

TOKENS = [
    *(
        b"\0",
        b"\r\n",
        b"\n\n",
        b",,",
        b'"',
        b"nan",
        b"inf",
        b"-1e309",
        b"9" * 400,
        b"9" * 5000,
        b"0x" + b"f" * 500,
        b"1:1:1",
    ),
    *(
        b"{",
        b"[" * 2000,
        b"}",
        b"- " * 300,
        b"&a *a",
        b"<<: *a",
        b"!!python/name:os.system ",
        b"!!set ",
        b"? ",
        b"|\n",
        b"\t",
    ),
    *(
        b"null",
        b"true",
        b"[]",
        b'{"a": 1}',
        b"\\ud800",
        b"\\u001b",
        b"\x1b[2J",
        b"\xff\xfe",
        "²".encode(),
        b"seed",
        b"epoch",
    ),
    *(
        b"val/loss",
        b"eval/train_loss",
        b"checksum",
        b"files",
        b"config",
        b"\xff" * 9,
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    ),
]
VALUES = [*WRONG.values(), 0, 1e308, "", "nan", [], {}, [[[]]], {"a": {"b": [1]}}, "²", 2**70, False, 0.1]


def changed(content: bytes, chance: random.Random) -> bytes:
    """Change bytes: flip, cut, put in, swap, repeat, or write a word of a format over them, once or a few times."""
    for _ in range(chance.choice([1, 1, 1, 2, 5, 20])):
        a, b = sorted(chance.choices(range(len(content) + 1), k=2))
        if chance.random() < 0.5:
            b = min(b, a + chance.randint(0, 16))
        part = content[a:b]
        middles = [
            b"",
            bytes(byte ^ 1 << chance.randrange(8) for byte in part[:1]) + part[1:],
            chance.randbytes(chance.randint(1, 9)) + part,
            part[len(part) // 2 :] + part[: len(part) // 2],
            part * (chance.choice([2, 3, 50]) if len(part) < 2000 else 2),
            chance.choice(TOKENS) + part,
            chance.choice(TOKENS),
        ]
        middle = chance.choice(middles)
        content = content[:a] + middle + (content[b:] if chance.random() < 0.97 else b"")
    return content


def mutated(name: str, content: bytes, chance: random.Random) -> bytes:
    """Change a file's bytes, or what a checksum covers, with the checksum made right again."""
    if chance.random() < 0.5:
        return changed(content, chance)
    if name == "summary.json":
        tree = json.loads(content)
        tree.pop("checksum", None)
        for _ in range(chance.choice([1, 1, 3])):
            with contextlib.suppress(KeyError, TypeError):
                replace_at(tree, chance.choice(list(paths_of(tree))), chance.choice(VALUES))
        whole = json.dumps(tree, indent=1).encode()
        return seal(whole if chance.random() < 0.7 else changed(whole, chance))
    if "tfevents" in name:
        payloads, at = [], 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            payloads.append(content[at + 12 : at + 12 + length])
            at += 16 + length
        for _ in range(chance.choice([1, 5, 50])):
            i = chance.randrange(len(payloads))
            payloads[i] = changed(payloads[i], chance)
        return b"".join(map(record, payloads))
    return changed(content, chance)


PARTS: dict[str, dict[str, bytes]] = {  # a folder, or a file, that is evaluated beside the sound run
    "ours": run_files(),
    "unsealed": run_files(sealed=False),
    "unfinished": {name: content for name, content in run_files().items() if name != "summary.json"},
    "lightning": {
        "metrics.csv": table(["epoch", "train_loss", "val_loss", "train_acc", "val_acc"]).encode(),
        "hparams.yaml": b"lr: 0.1\nmodel:\n  width: 64\n  names: [a, b]\n",
    },
    "keras": {"history.csv": table(["epoch", "loss", "val_loss", "accuracy", "val_accuracy"], ";").encode()},
    "powershell": {"history.csv": table(["epoch", "loss", "val_loss"]).encode("utf-16")},
    "loop": {EVENTS: LOOP},
    "two fits": {EVENTS: LOOP + LOOP},
    "history": {"history.json": json.dumps({"loss": LOSSES[0], "val_loss": LOSSES[1]}).encode()},
    "state": {
        "trainer_state.json": json.dumps(
            {"log_history": [{"epoch": row[0], "loss": row[1], "eval_loss": row[2]} for row in CURVES]}
        ).encode()
    },
    "lines": {
        "result.json": "".join(
            json.dumps({"training_iteration": e, "loss": a, "val_loss": b}) + "\n" for e, a, b in CURVES
        ).encode(),
        "params.json": b'{"lr": 0.1, "layers": [64, 64]}',
    },
    "long": {
        "long.csv": "".join(
            [
                "run,epoch,metric,value\n",
                *(f"{r},{e},train_loss,{a}\n{r},{e},val_loss,{b}\n" for e, a, b in CURVES for r in "ab"),
            ]
        ).encode()
    },
    "export": {
        "export.csv": table(["Step", "a - train_loss", "a - val_loss", "b - train_loss", "b - val_loss"]).encode()
    },
    "MLflow": {
        **MLFLOW,
        "mlruns/0/r/meta.yaml": b"",
        "mlruns/0/r/params/lr": b"0.1",
        "mlruns/0/r/tags/mlflow.runName": b"fox",
    },
    "roles": {f"train/{EVENTS}": loop_events("epoch_loss"), f"validation/{EVENTS}": loop_events("epoch_loss")},
    "": {
        "multirun.yaml": yaml.safe_dump({"hydra": {"overrides": {"task": ["optimizer=sgd,adam", "seed=1"]}}}).encode()
    },
}


class Late(BaseException):
    """A case that takes too long; no `except Exception` may catch it."""


def try_mutations(count: int, seed: int, folder: Path) -> int:
    """Evaluate so many times, each with one file changed; return how often it did not hold. All in this process."""
    root = put(folder / "root", {f"sound/{name}": content for name, content in run_files().items()})
    for part, contents in PARTS.items():
        put(root / part, contents)
    places = [(part, name) for part, contents in PARTS.items() for name in contents]
    arguments = ["--json", str(folder / "evaluation.json"), "--html", str(folder / "report.html")]
    tried, failed, slowest = Counter[str](), Counter[str](), 0.0
    began = time.perf_counter()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before: by whoever calls this

    def late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        part, name = places[number % len(places)]
        path = root / part / name
        content = mutated(name, PARTS[part][name], chance)
        path.write_bytes(content)
        paths = [str(root / "sound"), str(root / part)] if part else [str(root)]
        this = time.perf_counter()
        wrong = mutation_faults([*paths, *arguments], folder / "evaluation.json")
        slowest = max(slowest, time.perf_counter() - this)
        tried[f"{part}/{name}"] += 1
        if wrong:
            failed[f"{part}/{name}"] += 1
            kept = folder / f"{number}-{path.name}"
            kept.write_bytes(content)
            print(f"mutation {number} of {part}/{name}: {wrong}; see {kept}", flush=True)
        path.write_bytes(PARTS[part][name])
    signal.signal(signal.SIGALRM, before)
    for place, cases in tried.items():
        print(f"  {cases - failed[place]:,} of {cases:,}  {place.lstrip('/')}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
    if memory > MOST_MEMORY:
        print(f"the whole took {memory / 2**20:,.0f} MB")
    print(
        f"{count - failed.total():,} of {count:,} mutations: the sound run judged, nothing raised; the slowest took "
        f"{slowest:.2f} s, the whole {time.perf_counter() - began:.0f} s and {memory / 2**20:,.0f} MB"
    )
    return failed.total() + (memory > MOST_MEMORY)


def mutation_faults(arguments: Sequence[str], target: Path) -> str:
    """Evaluate in this process; return what does not hold."""
    target.unlink(missing_ok=True)
    said = io.StringIO()
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    began = time.process_time()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = evaluate.main(arguments)
    except (Exception, Late) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if code:
        return f"exit code {code}: {said.getvalue()[-300:]}"
    if (spent := time.process_time() - began) > LONGEST_S:
        return f"{spent:.1f} s of work"
    if "Warning" in said.getvalue() or "\x1b" in said.getvalue():
        return f"said {said.getvalue()[-300:]!r}"
    return (
        ""
        if verdict_of_sound(json.loads(target.read_bytes())) == verdict_alone()
        else "the sound run is judged otherwise"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m scripts.hostile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mutations", type=int, metavar="N", help="change files at random, N times, instead")
    parser.add_argument("--only", default="", metavar="WORD", help="only kinds with this in their name")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes (0)")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    failures = (
        try_mutations(options.mutations, options.seed, folder) if options.mutations else try_kinds(folder, options.only)
    )
    if not failures:
        remove(folder)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
