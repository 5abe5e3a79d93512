"""Commands on directories that hold somebody's files: `python -m scripts.faults foreign-files`."""

from __future__ import annotations

from pathlib import Path

from scripts import faults

SOMEBODYS = (
    *(".hydra/config.yaml", ".hydra/hydra.yaml", "summary.json", "sweep.json", "trainer.log", "metrics.csv"),
    *("events.out.tfevents.1700000000.host.1.0", "checkpoints/last.pt", "multirun.yaml", "sweep.csv", ".lock/owner"),
    *("notes.txt", "0/summary.json", "1/.hydra/config.yaml", ".resume/stack-0.pt", ".git/config"),
)


def foreign_files(folder: Path) -> int:
    """Run, sweep and resume in directories that hold somebody's files; return how many cases changed a byte."""
    lines = {
        "a run": lambda where: [*faults.SMALL[2:3], f"hydra.run.dir={where}"],
        "a sweep": lambda where: [*faults.SMALL, f"hydra.sweep.dir={where}"],
        "resume": lambda where: [f"resume={where}"],
        "another launcher": lambda where: [*faults.SMALL, "hydra/launcher=basic", f"hydra.sweep.dir={where}"],
    }
    failures = cases = 0
    for name in SOMEBODYS:
        for what, line in lines.items():
            if what == "another launcher" and not name.startswith(("0/", "1/")):
                continue  # Hydra's own: a sweep's folder is not a run's
            where = folder / f"{cases}"
            (where / name).parent.mkdir(parents=True)
            (where / name).write_text("mine")
            before = snapshot(where)
            code, said = faults.command_line(line(where))
            wrong = ["a traceback"] * ("Traceback" in said) + [f"exit code {code}"] * (code == 0)
            wrong += [f"{path} changed" for path, content in before.items() if snapshot(where).get(path) != content]
            wrong += ["left something behind"] * (
                what != "another launcher" and snapshot(where).keys() != before.keys()
            )
            cases += 1
            failures += bool(wrong)
            if wrong:
                print(f"{what} where {name} lies: {'; '.join(wrong)}", flush=True)
    print(f"{cases - failures} of {cases} commands on somebody's directories were refused and changed nothing")
    return failures


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
