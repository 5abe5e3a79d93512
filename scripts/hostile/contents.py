"""Contents that are hostile to whoever reads them: YAML, JSON, tables, event files, names."""
# pyright: reportAttributeAccessIssue=false
# protobuf makes its classes at run time

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from scripts.hostile.sound import CURVES, EVENTS, LOOP, METRICS, event, loop_events, masked_crc, record, table

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
    "names too long for a folder": ",".join(f"{'r/' * 3000} - {side}_loss" for side in ("train", "val")) + "\n1,2" * 9,
    "a step of 120 digits": "epoch,train_loss,val_loss\n" + "1,3,3\n2,2,2\n3,1,1\n" * 2 + "9" * 120 + ",1,2\n",
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
