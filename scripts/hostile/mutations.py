"""Evaluate runs of which one file is changed at random, many times, in this process."""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import signal
import struct
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from scripts.hostile.contents import LOSSES, MLFLOW, WRONG
from scripts.hostile.kinds import paths_of, replace_at
from scripts.hostile.sound import CURVES, EVENTS, LOOP, loop_events, put, record, run_files, seal, table
from scripts.hostile.trials import HANGS_S, MOST_MEMORY, longest_s, verdict_alone, verdict_of_sound
from trainer import evaluate

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
    if (spent := time.process_time() - began) > longest_s():
        return f"{spent:.1f} s of work"
    if "Warning" in said.getvalue() or "\x1b" in said.getvalue():
        return f"said {said.getvalue()[-300:]!r}"
    return (
        ""
        if verdict_of_sound(json.loads(target.read_bytes())) == verdict_alone()
        else "the sound run is judged otherwise"
    )
