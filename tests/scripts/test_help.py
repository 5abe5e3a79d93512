"""Every command in scripts/ is called as a module and explains itself; asked for help, it does nothing else."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment

COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in (ROOT / "scripts").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text("utf-8")
)
EXTRAS = {
    "scripts.peers.lightning_runs": "lightning",
    "scripts.peers.jax_runs": "jax",
}  # packages that only the benchmark needs


def test_there_are_commands() -> None:
    assert "scripts.benchmark" in COMMANDS


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, tmp_path: Path) -> None:
    if name in EXTRAS and importlib.util.find_spec(EXTRAS[name]) is None:
        pytest.skip(f"{EXTRAS[name]} is not installed")
    command = [sys.executable, "-m", name, "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m {name}" in done.stdout or "Powered by Hydra" in done.stdout
    assert list(tmp_path.iterdir()) == []
