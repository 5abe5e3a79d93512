"""Sweeps sent to Slurm whose jobs are lost in every way: `python -m scripts.faults jobs`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts import faults
from tests import slurm_cluster

SWEEP = shlex.split(
    "-m epochs=100 optimizer=sgd,adam 'seed=range(8)' model.dropout=0.2 model.width=16 record.pictures=false "
    "checkpoint.minutes=0.01"
)
SENT = shlex.split(
    "hydra/launcher=slurm hydra.launcher.jobs=2 hydra.launcher.mem_gb=1 hydra.launcher.max_num_timeout=20 "
    "hydra.launcher.signal_delay_s=5"
)
LONGEST_S = 900.0
SLOWER = 10  # at most, than two workers here
LIMIT = "time limit"
RUNS_S = 180.0  # that runs take where jobs may take a minute


def _slurm(*call: str) -> str:
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout


def _a_job(chance: random.Random) -> str:
    jobs = _slurm("squeue", "--noheader", "--array", "--format=%i", "--states=RUNNING").split()
    return chance.choice(jobs) if jobs else ""


def cancel(chance: random.Random) -> None:
    """Cancel a job, as its owner or an administrator may."""
    _slurm("scancel", _a_job(chance) or "0")


def kill_step(chance: random.Random) -> None:
    """Kill a process of a job's step: submitit's, the one that trains, or what it started."""
    job = _a_job(chance)
    victims = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = dict(v.split("=", 1) for v in (path / "environ").read_text().split("\0") if "=" in v)
            name = f"{variables.get('SLURM_ARRAY_JOB_ID')}_{variables.get('SLURM_ARRAY_TASK_ID')}"
            if job and job in (name, variables.get("SLURM_JOB_ID")) and b"python" in (path / "cmdline").read_bytes():
                victims.append(int(path.name))
    with contextlib.suppress(ProcessLookupError):
        if victims:
            os.kill(chance.choice(victims), signal.SIGKILL)


def node_down(chance: random.Random) -> None:
    """Take the node down, and up again."""
    node = _slurm("sinfo", "--noheader", "--format=%n").strip()
    _slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=fault")
    time.sleep(chance.uniform(0, 2))
    _slurm("scontrol", "update", f"nodename={node}", "state=resume")


def preempt(chance: random.Random) -> None:
    """Send what Slurm sends before a time limit or a preemption."""
    _slurm("scancel", f"--signal={chance.choice(['TERM', 'USR1', 'USR2'])}", _a_job(chance) or "0")


WAYS: dict[str, Callable[[random.Random], None]] = {
    "scancel": cancel,
    "kill -9 of a step": kill_step,
    "node down": node_down,
    "a signal": preempt,
}


def run_into_limits(directory: Path, sweep: Sequence[str], length: float) -> int:
    """Run a sweep that takes longer than its jobs may, `length` seconds here; return how often a job was queued again.

    Raises RuntimeError where the sweep does not complete.
    """
    line = [sys.executable, "-m", "trainer", *sweep, *SENT, "hydra.launcher.timeout_min=1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with open(directory.with_suffix(".log"), "ab") as log:
        arguments = [*line, f"hydra.sweep.dir={directory.name}"]
        ended = subprocess.run(
            arguments,
            cwd=directory.parent,
            env=environment,
            stdout=log,
            stderr=log,
            timeout=SLOWER * length,
            check=False,
        )
    if ended.returncode:
        raise RuntimeError(f"exit code {ended.returncode}: {faults.log_of(directory)[-800:]}")
    shown = [line for line in _slurm("scontrol", "--oneliner", "show", "jobs").splitlines() if f"{directory}/" in line]
    return sum(int(found[1]) for line in shown if (found := re.search(r"\bRestarts=(\d+)", line)))


def run(directory: Path, way: str, chance: random.Random, length: float, most_faults: int = 3) -> int:
    """Run a sweep on Slurm, with so many faults; the command is killed too, now and then. Return how many there were.

    Raises RuntimeError where the sweep does not complete.
    """
    done, patience = 0, time.monotonic() + LONGEST_S
    wanted = chance.randint(1, most_faults)
    while True:
        line = [sys.executable, "-m", "trainer", *SWEEP, *SENT, f"hydra.sweep.dir={directory.name}"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        with open(directory.with_suffix(".log"), "ab") as log:
            command = subprocess.Popen(line, cwd=directory.parent, env=environment, stdout=log, stderr=log)
        while command.poll() is None and time.monotonic() < patience:
            if done >= wanted:
                time.sleep(0.2)
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.wait(chance.uniform(0.2, 1) * length)
            began = any(directory.glob(".resume/jobs/*/*.news"))
            if command.poll() is None and began:
                done += 1
                if way == "command killed":
                    command.kill()
                    command.wait()
                else:
                    WAYS[way](chance)
        if command.poll() is None:
            command.kill()
            command.wait()
            raise RuntimeError(f"{way}: the sweep does not end")
        if command.returncode == 0 and done:
            return done
        if command.returncode == 0:  # it was faster
            shutil.rmtree(directory)
        elif command.returncode != -signal.SIGKILL and way != "a signal":
            raise RuntimeError(f"exit code {command.returncode}: {faults.log_of(directory)[-800:]}")


def _seconds(directory: Path, sweep: Sequence[str]) -> float:
    """Run a sweep by two workers here; return how long it took."""
    began = time.monotonic()
    faults.run(directory, [*sweep, "hydra.launcher.workers=2"])
    return time.monotonic() - began


def jobs(n: int, seed: int, folder: Path, ways: Sequence[str] = (*WAYS, "command killed", LIMIT)) -> int:
    """Send n sweeps to Slurm and lose their jobs, in each way in turn; return how many of them failed."""
    if slurm_cluster.WHY_NOT:
        raise SystemExit(f"a Slurm cluster of this machine {slurm_cluster.WHY_NOT}")
    chance = random.Random(seed)
    length = _seconds(folder / "never", SWEEP)
    cost = json.loads((folder / "never" / "0" / "summary.json").read_text())["cost"]["seconds"]
    long = [text.replace("epochs=100", f"epochs={math.ceil(100 * RUNS_S / cost)}") for text in SWEEP]
    wanted, longer = {way: faults.results(folder / "never") for way in ways}, 0.0
    if LIMIT in ways[:n]:
        longer = _seconds(folder / "long", long)
        wanted[LIMIT] = faults.results(folder / "long")
    failures = lost = 0
    with slurm_cluster.started(Path(tempfile.mkdtemp(prefix="slurm-"))) as variables:
        os.environ.update(variables)
        for trial in range(n):
            directory, way = folder / str(trial), ways[trial % len(ways)]
            try:
                is_limit = way == LIMIT
                count = run_into_limits(directory, long, longer) if is_limit else run(directory, way, chance, length)
                wrong = faults.differing(faults.results(directory), wanted[way])
                wrong += ["a traceback"] * ("Traceback" in faults.log_of(directory))
            except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
                count, wrong = 0, [str(error)]
            lost += count
            failures += bool(wrong)
            said = f"{', '.join(wrong)}; see {directory}" if wrong else "the same bits"
            print(f"sweep {trial}, {way} ({count}): {said}", flush=True)
            if not wrong:
                shutil.rmtree(directory)
    print(f"{n - failures} of {n} sweeps on Slurm, with {lost} faults, ended with the bits of one never killed")
    return failures
