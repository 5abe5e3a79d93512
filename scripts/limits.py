"""Sweeps in control groups that grant too little memory, or too few processes: `python -m scripts.faults limits`.

A sweep of wide networks is run without a limit, then with ever less memory and ever fewer processes. It may end by
itself, or with an error in a line; run again without a limit it has the bits of the one that was never limited.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts import faults

SWEEP = shlex.split(
    "-m model.width=768 model.depth=4 'seed=range(8)' epochs=2 data.train_size=600 record.pictures=false "
    "checkpoint.epochs=1"
)
MEMORY_SHARES = (1.1, 0.9, 0.75, 0.6, 0.45, 0.3)  # of what the sweep takes without a limit
PROCESSES = (64, 32, 24, 16, 12, 8, 6, 4, 3)  # threads count too
MOUNT = Path("/sys/fs/cgroup")
LONGEST_S = 900.0


class Group:
    """A control group for one controller, version 1 or 2. Raises OSError where none can be made."""

    def __init__(self, controller: str) -> None:
        self.is_first = (MOUNT / controller).is_dir()
        self.path = (MOUNT / controller if self.is_first else MOUNT) / f"trainer-faults-{os.getpid()}"
        if not self.is_first:
            (MOUNT / "cgroup.subtree_control").write_text(f"+{controller}")
        self.path.mkdir()

    def limit(self, value: int | None) -> None:
        """Grant so many bytes, or processes; None: as many as there are."""
        if self.path.parent.name == "pids" or (self.path / "pids.max").exists():
            (self.path / "pids.max").write_text("max" if value is None else str(value))
        elif self.is_first:
            (self.path / "memory.limit_in_bytes").write_text("-1" if value is None else str(value))
        else:
            (self.path / "memory.max").write_text("max" if value is None else str(value))

    def peak(self) -> int:
        """Return the bytes that its processes held at most."""
        return int((self.path / ("memory.max_usage_in_bytes" if self.is_first else "memory.peak")).read_text())

    def remove(self) -> None:
        """Remove it, once its last process is gone."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.path.rmdir()
                break
            time.sleep(0.1)


def run(directory: Path, group: Group | None) -> tuple[int | None, str]:
    """Run the sweep, in a group or not; return its exit code, None where it did not end, and what it printed."""
    line = [sys.executable, "-m", "trainer", *SWEEP, f"hydra.sweep.dir={directory.name}"]
    if group is not None:
        line = ["sh", "-c", f'echo $$ > {group.path}/cgroup.procs && exec "$@"', "sh", *line]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    child = subprocess.Popen(
        line, cwd=directory.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = child.communicate(timeout=LONGEST_S)
        return child.returncode, said
    except subprocess.TimeoutExpired:
        for process in faults.session(child.pid):
            os.kill(process, 9)
        return None, child.communicate()[0]


def results(directory: Path) -> dict[str, Any]:
    """Return what must be equal; not what only git knows, which takes a process more."""
    found = faults.results(directory)
    for name in found:
        if name.endswith("summary.json"):
            known = found[name]["provenance"].items()
            found[name]["provenance"] = {key: value for key, value in known if not key.startswith("git_")}
    return found


def wrong_within(directory: Path, group: Group, wanted: dict[str, Any]) -> tuple[str, list[str]]:
    """Return how a limited sweep ended, and what does not hold of it, and of the same command without the limit."""
    code, said = run(directory, group)
    wrong = ["it never ended"] * (code is None) + ["a traceback"] * ("Traceback" in said)
    if code != 0:
        again, said_again = run(directory, None)
        wrong += [f"without a limit: exit code {again}: {said_again[-300:]}"] if again else []
        wrong += [] if said.strip() else ["nothing was said"]
    last = said.strip().splitlines()[-1:] if code else []
    if not wrong:
        wrong = [f"{path} differs" for path in faults.differing(results(directory), wanted)]
    return f"exit code {code} {' '.join(last)[:100]}", wrong


def limits(folder: Path) -> int:
    """Run the sweep under each limit; return how many did not hold. Exits where no control group can be made."""
    try:
        memory, pids = Group("memory"), Group("pids")
    except OSError as error:
        raise SystemExit(f"no control group can be made here: nothing was tried ({error})") from error
    failures = 0
    try:
        run(folder / "free", memory)
        wanted, peak = results(folder / "free"), memory.peak()
        cases = [(memory, int(share * peak), f"{share * peak / 2**20:,.0f} MB") for share in MEMORY_SHARES]
        cases += [(pids, count, f"{count} processes") for count in PROCESSES]
        for number, (group, value, name) in enumerate(cases):
            group.limit(value)
            ended, wrong = wrong_within(folder / str(number), group, wanted)
            group.limit(None)
            failures += bool(wrong)
            print(f"  {name}: {ended}{'; ' * bool(wrong)}{'; '.join(wrong)}", flush=True)
            if not wrong:
                shutil.rmtree(folder / str(number))
    finally:
        memory.remove()
        pids.remove()
    print(f"{len(cases) - failures} of {len(cases)} limits: ended, and has the bits of a sweep without one")
    return failures
