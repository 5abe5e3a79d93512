"""Evaluate each kind of hostile input beside a sound run, in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from scripts.hostile.kinds import Kind, all_kinds
from scripts.hostile.sound import put, run_files
from trainer import evaluate

MOST_WORK = 10  # times the processor time of the sound run alone: neither a busy machine nor a slow one makes a hang
HANGS_S = 30.0  # by the clock
MOST_MEMORY = 1 << 30  # bytes

ROOT = Path(__file__).parents[2]


@functools.cache
def verdict_alone() -> Any:
    """Return what an evaluation says of the sound run where there is no other."""
    with tempfile.TemporaryDirectory() as folder:
        root = put(Path(folder), {f"sound/{name}": content for name, content in run_files().items()})
        return verdict_of_sound(evaluate.evaluate([root])[0])


@functools.cache
def longest_s() -> float:
    """Return the processor time in seconds that an evaluation may take here while nothing runs beside it."""
    return MOST_WORK * _work_of_sound()


def _work_of_sound() -> float:
    """Return the processor time in seconds of an evaluation of the sound run alone, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = put(Path(folder, "root"), {f"sound/{name}": content for name, content in run_files().items()})
        return _work(_evaluation(root, Path(folder), subprocess.DEVNULL))


def _times_sound(root: Path, folder: Path) -> float:
    """Return an evaluation's work in those of the sound run, evaluated beside it again and again: under equal load."""
    child = _evaluation(root, folder, subprocess.DEVNULL)
    beside = [_work_of_sound()]
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        beside.append(_work_of_sound())
    return _work(child) / fmean(beside)


def _work(child: subprocess.Popen[bytes]) -> float:
    """Wait for a process to end; return the processor time in seconds that it took."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _evaluation(root: Path, folder: Path, said: Any) -> subprocess.Popen[bytes]:
    """Begin to evaluate `root`, with evaluation.json and report.html into `folder`."""
    command = [*as_root_without_rights(), sys.executable, "-m", "trainer.evaluate", str(root)]
    command += ["--json", str(folder / "evaluation.json"), "--html", str(folder / "report.html")]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


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
    with open(folder / "said", "wb") as said:
        child = _evaluation(root, folder, said)
        killer = threading.Timer(HANGS_S, child.kill)
        killer.start()
        memory = peak_memory(child.pid)
        spent = _work(child)
        killer.cancel()
    text = (folder / "said").read_bytes()
    wrong = []
    if spent > longest_s() and not child.returncode and (times := _times_sound(root, folder)) > MOST_WORK:
        wrong.append(f"{times:.1f} times the work of the sound run beside it")
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

    longest_s()  # measured before anything runs beside it
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        held = sum(pool.map(tried, enumerate(kinds.items())))
    print(f"{held} of {len(kinds)} kinds of hostile input: the sound run judged, the other named, in time and memory")
    return len(kinds) - held


def remove(folder: Path) -> None:
    """Remove a folder, however deep, and whatever may not be read in it."""
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", str(folder)], check=True)
