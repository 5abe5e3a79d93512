"""Kill sweeps, fill their disk, damage their files: do they end with the same bits, and is all of it reported?

    python -m scripts.faults kill --n 100      commands and their workers killed at random moments: the same bits?
    python -m scripts.faults jobs --n 25       scripts/job_faults.py: the same of sweeps sent to Slurm (needs slurm-wlm)
    python -m scripts.faults full              ENOSPC and EIO at every write: reported, nothing half-written, resumable?
    python -m scripts.faults flip --n 20       each file with a bit flipped, and cut, at 20 places: reported, repaired?
    python -m scripts.faults limits            scripts/limits.py: too little memory, too few processes (control groups)
    python -m scripts.faults foreign-files     scripts/foreign_files.py: somebody's files: refused, no byte changed?
    python -m scripts.faults hostile           scripts/hostile: each kind of hostile input, and 20,000 random changes

Prints a line for each failure and a count at the end; exit code 1 where there was one. What is killed: a sweep of 12
runs (three optimizers, dropout, batch norm, clipping, early stopping, two budgets), a sweep of functions to minimise,
one of modules of the user's own, and finished runs while they get more epochs. Results are compared with those of
commands that were never killed, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from scripts.bad_disk import BadDisk
from scripts.hostile import mutations, trials
from trainer import evaluate, files
from trainer.cli import app
from trainer.core import state
from trainer.read.event_files import read_scalars

SWEEP = shlex.split(
    "-m epochs=8,14 model.batchnorm=false,true optimizer=sgd,adam,nadam optimizer.lr=0.02 seed=1 model.width=12 "
    "model.dropout=0.3 data.train_size=300 data.batch_size=32 early_stopping.patience=2 early_stopping.min_delta=0.05 "
    "clip_norm=1 record.pictures=false checkpoint.minutes=0.0005"
)
SMALL = shlex.split(
    "-m epochs=3 model.depth=1,2 seed=1 model.width=8 model.dropout=0.3 data.train_size=100 record.pictures=false "
    "checkpoint.epochs=1"
)
MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, out_features, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Dropout(0.3))
        self.out = nn.Linear(width, out_features)

    def forward(self, x):
        return self.out(self.layers(x))
"""
CHECKPOINTS = "record.pictures=false checkpoint.minutes=0.0005"
KINDS: dict[str, tuple[list[str], list[str]]] = {  # what is killed; and before it, what is not
    "mixed": (SWEEP, []),
    "problem": (shlex.split(f"-m problem=rosenbrock,beale optimizer=sgd,adam epochs=150,300 {CHECKPOINTS}"), []),
    "module": (
        shlex.split(
            "-m model=custom model._target_=faults_module.Net +model.width=16,24 seed=1,2 epochs=6 data.train_size=300 "
            f"{CHECKPOINTS}"
        ),
        [],
    ),
    "extended": (
        shlex.split(f"-m model.depth=1,2 seed=1,2,3 model.width=12 model.dropout=0.2 {CHECKPOINTS} epochs=20"),
        shlex.split(f"-m model.depth=1,2 seed=1,2,3 model.width=12 model.dropout=0.2 {CHECKPOINTS} epochs=5"),
    ),
}
NOT_COMPARED = ("cost", "files", "trained", "checksum")  # of summary.json: times, and what holds times
UNREAD = {"multirun.yaml", "sweep.csv", "sweep.json", "hydra.yaml", "overrides.yaml"}  # written, never read
BEGUN_WRITES = 100  # of the small sweep, until it is within its second stack
LONGEST_S = 600.0
WORKERS_SHARE = 0.3  # of kills, that hit another process than the command's own


def command(directory: Path, sweep: Sequence[str] = SWEEP) -> tuple[int, str]:
    """Run the sweep in this process, without workers; return the exit code and what it printed."""
    return command_line([*sweep, "hydra.launcher.workers=0", f"hydra.sweep.dir={directory}"])


def command_line(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command line in this process; return the exit code and what it printed."""
    GlobalHydra.instance().clear()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = app.run(arguments)
    return code, said.getvalue()


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


def run(directory: Path, sweep: Sequence[str], kill_after_s: float | None = None, worker: bool = False) -> bool:
    """Run a sweep in a process of its own, killed after some time; return whether it ended by itself.

    worker: not the command is killed but another process of it, the server that forks workers or one of them; it ends
    by itself then. Raises RuntimeError where it ends with an error.
    """
    line = [sys.executable, "-m", "trainer", *sweep, f"hydra.sweep.dir={directory.name}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with open(directory.with_suffix(".log"), "ab") as log:
        child = subprocess.Popen(
            line, cwd=directory.parent, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(kill_after_s)
    if child.poll() is None:
        if worker:
            victims = [number for number in session(child.pid) if number != child.pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(victims or [child.pid]), signal.SIGKILL)
            child.wait(LONGEST_S)
        else:
            child.kill()
    child.wait()
    if child.returncode == -signal.SIGKILL:
        return False
    if child.returncode:
        raise RuntimeError(f"the sweep ended with exit code {child.returncode}: {log_of(directory)[-500:]}")
    return True


def session(leader: int) -> list[int]:
    """Return the processes of a session, which is a command's own."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[3]) == leader:
                members.append(int(path.parent.name))
    return members


def log_of(directory: Path) -> str:
    """Return what all commands of a directory printed."""
    return directory.with_suffix(".log").read_text(errors="replace")


def killed_and_resumed(directory: Path, kind: str, length: float, chance: random.Random, most_kills: int) -> int:
    """Kill a sweep of some kind, and resume it, until it ends; return how often it was killed, at least once."""
    sweep, before = KINDS[kind]
    if before:
        run(directory, before)
    kills = 0
    while True:
        moment = chance.uniform(0, length) if kills < most_kills else None
        worker = chance.random() < WORKERS_SHARE
        began = time.perf_counter()
        ended = run(directory, sweep, moment, worker)
        killed = not ended or (worker and moment is not None and time.perf_counter() - began > moment)
        kills += killed
        if ended and kills:
            return kills
        if ended:  # before the moment came
            shutil.rmtree(directory)
            if before:
                run(directory, before)


def kill(n: int, seed: int, folder: Path, kinds: Sequence[str] = tuple(KINDS), most_kills: int = 50) -> int:
    """Kill n sweeps, of each kind in turn, at random moments until they are done; return how many of them failed."""
    chance = random.Random(seed)
    (folder / "faults_module.py").write_text(MODULE)
    lengths, wanted = {}, {}
    for kind in kinds:
        sweep, before = KINDS[kind]
        if before:
            run(folder / kind, before)
        began = time.perf_counter()
        run(folder / kind, sweep)
        lengths[kind], wanted[kind] = time.perf_counter() - began, results(folder / kind)
    failures = kills = 0
    for trial in range(n):
        directory, kind, own = folder / str(trial), kinds[trial % len(kinds)], 0
        try:
            own = killed_and_resumed(directory, kind, lengths[kind], chance, most_kills)
            wrong = differing(results(directory), wanted[kind])
            wrong += ["a traceback"] * ("Traceback" in log_of(directory))
        except (RuntimeError, OSError, ValueError) as error:
            wrong = [str(error)]
        kills += own
        if wrong:
            failures += 1
            print(f"{kind} sweep {trial}, killed {own} times: {', '.join(wrong)}; see {directory}", flush=True)
        else:
            shutil.rmtree(directory)
    print(f"{n - failures} of {n} sweeps, killed {kills} times, ended with the bits of those that were never killed")
    return failures


def full(folder: Path, every: int = 1) -> int:
    """ENOSPC from the nth write on, and EIO at it, for every n (or every so many); how many cases failed."""
    command(folder / "never", SMALL)
    wanted = results(folder / "never")
    disk = BadDisk(folder / "count", 0, sys.maxsize, False)
    with disk.mounted():
        command(folder / "count", SMALL)
    failures = 0
    cases = [(nth, number) for nth in range(1, disk.count + 1, every) for number in (errno.ENOSPC, errno.EIO)]
    for nth, number in cases:
        directory = folder / f"{nth}-{errno.errorcode[number]}"
        wrong = full_at(directory, nth, number, wanted)
        if wrong:
            failures += 1
            print(f"{errno.errorcode[number]} at write {nth}: {'; '.join(wrong)}; see {directory}", flush=True)
        else:
            shutil.rmtree(directory)
    held = f"{len(cases) - failures} of {len(cases)}"
    print(f"{held} failing writes: reported, nothing half-written, resumed to the same bits")
    return failures


def full_at(directory: Path, nth: int, number: int, wanted: dict[str, Any]) -> list[str]:
    """What goes wrong when the nth write of the small sweep fails: ENOSPC from there on, anything else once."""
    with BadDisk(directory, number, nth, number == errno.ENOSPC).mounted():
        code, said = command(directory, SMALL)
    wrong = [] if code in (1, 2) and os.strerror(number) in said else [f"exit code {code}: {said[-300:]}"]
    wrong += ["a traceback"] * ("Traceback" in said) + half_written(directory)
    code, said = command(directory, SMALL)
    wrong += [] if code == 0 else [f"resumed, it ended with exit code {code}: {said[-300:]}"]
    return wrong + [f"{path} differs" for path in differing(results(directory), wanted)] if not code else wrong


def half_written(directory: Path) -> list[str]:
    """Files that are not whole."""
    wrong = [f"{path} is left over" for path in directory.rglob("*.part")]
    for path in directory.rglob("*"):
        try:
            if path.name in ("summary.json", "plan.json"):
                files.read_sealed(path)
            elif path.name == "metrics.csv" and not path.read_bytes().endswith(b"\n"):
                wrong.append(f"{path} ends within a row")
            elif path.name in ("best.pt", "last.pt"):
                state.from_bytes(path.read_bytes())
            elif "tfevents" in path.name:
                wrong += read_scalars(path)[1]
        except (files.Damaged, RuntimeError) as error:
            wrong.append(str(error))
    return wrong


def flip(n: int, seed: int, folder: Path, pattern: str = "*") -> int:
    """Damage each file of a finished and of an interrupted sweep at n places; how many damages did harm."""
    chance = random.Random(seed)
    failures = cases = 0
    command(folder / "never", SMALL)
    wanted = results(folder / "never")
    judged = judgement(folder / "never")
    begun = folder / "begun"
    with BadDisk(begun, errno.EIO, BEGUN_WRITES, True).mounted():
        command(begun, SMALL)
    for whole in (folder / "never", begun):
        for path in sorted(path for path in whole.rglob(pattern) if path.is_file() and path.name not in UNREAD):
            size = path.stat().st_size
            for place in sorted(chance.sample(range(size), min(n, size))):
                for cut in (False, True):
                    cases += 1
                    wrong = damaged_at(whole, path.relative_to(whole), place, cut, judged, wanted)
                    failures += bool(wrong)
                    if wrong:
                        how = "cut" if cut else "flipped"
                        print(f"{path.relative_to(folder)} {how} at byte {place}: {'; '.join(wrong)}", flush=True)
    print(f"{cases - failures} of {cases} damages reported, and trained again to the same bits")
    return failures


def damaged_at(
    whole: Path, name: Path, place: int, cut: bool, judged: dict[str, Any], wanted: dict[str, Any]
) -> list[str]:
    """What goes wrong when one file of a copy of a sweep has a bit flipped, or is cut, at a byte."""
    directory = whole.with_name("damaged")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(whole, directory)
    content = bytearray((directory / name).read_bytes())
    content[place] ^= 1 << place % 8
    (directory / name).write_bytes(content[:place] if cut else content)
    wrong = []
    if whole.name == "never":
        found = judgement(directory)
        wrong = [f"{run} was judged by other numbers" for run in found if contradicts(found[run], judged[run])]
    code, said = command(directory, SMALL)
    wrong += ["a traceback"] * ("Traceback" in said)
    if code == 2:
        return wrong if "damaged" in said else [*wrong, f"refused without the reason: {said[-300:]}"]
    wrong += [] if code == 0 else [f"exit code {code}: {said[-300:]}"]
    wrong += ["nothing was reported"] * ("damaged" not in said and "missing" not in said)
    return wrong + [f"{path} differs" for path in differing(results(directory), wanted)]


def judgement(directory: Path) -> dict[str, Any]:
    """What python -m trainer.evaluate says of every run it finds whole, by name."""
    try:
        runs = evaluate.evaluate([directory])[0]["runs"]
    except ValueError:  # none is left
        return {}
    return {run["name"]: {key: run[key] for key in run if key != "path"} for run in runs}


def contradicts(found: Any, wanted: Any) -> bool:
    """Whether a value differs; what is no longer known is no contradiction."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return any(contradicts(value, wanted.get(key)) for key, value in found.items())
    return found is not None and found != wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Return exit code 0, or 1 where something failed."""
    parser = argparse.ArgumentParser(
        "python -m scripts.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kill", "jobs", "full", "flip", "limits", "foreign-files", "hostile"])
    parser.add_argument("--n", type=int, help="sweeps (100; jobs: 25), places of a file (20), random changes (20,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places (default %(default)s)")
    options = parser.parse_args(arguments)
    from scripts import foreign_files, job_faults, limits  # which use what is here

    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    do: dict[str, Callable[[], int]] = {
        "kill": lambda: kill(options.n or 100, options.seed, folder),
        "jobs": lambda: job_faults.jobs(options.n or 25, options.seed, folder),
        "full": lambda: full(folder),
        "flip": lambda: flip(options.n or 20, options.seed, folder),
        "limits": lambda: limits.limits(folder),
        "foreign-files": lambda: foreign_files.foreign_files(folder),
        "hostile": lambda: (
            trials.try_kinds(folder) + mutations.try_mutations(options.n or 20_000, options.seed, folder)
        ),
    }
    failures = do[options.what]()
    if not failures:
        shutil.rmtree(folder)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
