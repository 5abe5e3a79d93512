"""What becomes of a sweep that is killed, whose disk is full, or whose files are damaged.

    python -m scripts.faults kill --n 100    SIGKILL at random moments, resumed until done: the same bits every time?

Prints a line for each that failed and a count at the end; exit code 1 where one failed. The sweep is of 12 runs:
three optimizers, dropout, batch norm (two shapes), clipping, early stopping, budgets of different lengths.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from trainer import app, resume, stack, terminal  # noqa: F401  # imported once, before the first fork

SWEEP = shlex.split(
    "-m epochs=8,14 model.batchnorm=false,true optimizer=sgd,adam,nadam optimizer.lr=0.02 seed=1 model.width=12 "
    "model.dropout=0.3 data.train_size=300 data.batch_size=32 early_stopping.patience=2 early_stopping.min_delta=0.05 "
    "clip_norm=1 record.pictures=false checkpoint.minutes=0.0005"
)
NOT_COMPARED = ("cost", "files", "trained", "checksum")  # of summary.json: times, and what holds times
MOST_KILLS = 50  # of one sweep
LONGEST_S = 600.0


def command(directory: Path, sweep: Sequence[str] = SWEEP) -> int:
    """Run the sweep in this process, silently; the exit code."""
    GlobalHydra.instance().clear()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        return app.run([*sweep, f"hydra.sweep.dir={directory}"])


def results(directory: Path) -> dict[str, Any]:
    """What must be equal, bit for bit: summaries without times and costs, metrics, checkpoints, by path."""
    out: dict[str, Any] = {}
    for run in sorted(path.parent for path in directory.glob("*/.hydra")):
        summary = json.loads((run / "summary.json").read_text())
        out[f"{run.name}/summary.json"] = {key: summary[key] for key in summary if key not in NOT_COMPARED}
        for name in ("metrics.csv", "checkpoints/best.pt", "checkpoints/last.pt"):
            out[f"{run.name}/{name}"] = (run / name).read_bytes()
    return out


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The paths at which two results differ."""
    return sorted(path for path in {**found, **wanted} if found.get(path) != wanted.get(path))


def ends_within(directory: Path, after_s: float) -> bool:
    """Run the sweep in a child process, SIGKILLed after some time; whether it ended before. Raises where it failed."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = command(directory)
        finally:
            os._exit(code)
    deadline = time.perf_counter() + after_s
    status, done = 0, 0
    while not done and time.perf_counter() < deadline:
        time.sleep(0.001)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    if code := os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{directory}: the sweep ended with exit code {code}")
    return True


def killed_and_resumed(directory: Path, moment: Callable[[], float]) -> int:
    """A sweep that is killed at a moment and resumed, until it ends; how often it was killed, at least once."""
    kills = 0
    while True:
        if not ends_within(directory, moment() if kills < MOST_KILLS else LONGEST_S):
            kills += 1
        elif kills:
            return kills
        else:  # done before the moment came
            shutil.rmtree(directory)


def kill(n: int, seed: int, folder: Path) -> int:
    """n sweeps, each killed at random moments until it is done; how many of them failed."""
    chance = random.Random(seed)
    length = LONGEST_S
    for name in ("warm", "never"):
        began = time.perf_counter()
        assert ends_within(folder / name, LONGEST_S)
        length = min(length, time.perf_counter() - began)
    wanted = results(folder / "never")
    failures = kills = 0
    for trial in range(n):
        directory, own = folder / str(trial), 0
        try:
            own = killed_and_resumed(directory, lambda: chance.uniform(0, length))
            wrong = differing(results(directory), wanted)
        except (RuntimeError, OSError, ValueError) as error:
            wrong = [str(error)]
        kills += own
        if wrong:
            failures += 1
            print(f"sweep {trial}, killed {own} times: differs in {', '.join(wrong)}; see {directory}", flush=True)
        else:
            shutil.rmtree(directory)
    print(f"{n - failures} of {n} sweeps, killed {kills} times, ended with the bits of the one that was never killed")
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["kill"])
    parser.add_argument("--n", type=int, default=100, help="sweeps to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    failures = kill(options.n, options.seed, folder)
    if not failures:
        shutil.rmtree(folder)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
