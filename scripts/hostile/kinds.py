"""Every kind of hostile input by name: something that is no sound file, a content, a folder."""

from __future__ import annotations

import copy
import json
import os
import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.hostile.contents import CONTENTS, HOSTS, MLFLOW, NAMES, NO_RUN, WRONG
from scripts.hostile.sound import EVENTS, LOOP, METRICS, SUMMARY, put, run_files


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
