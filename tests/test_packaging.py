"""The package as others get it: its metadata, and a wheel installed and run elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def test_every_folder_is_in_the_package() -> None:
    conf = ROOT / "conf"
    for folder in {path.parent.relative_to(conf) for path in conf.rglob("*.yaml")}:
        assert f'"{".".join(("trainer.conf", *folder.parts))}",' in PYPROJECT
    for folder in {path.parent.relative_to(ROOT) for path in (ROOT / "trainer").rglob("*.py")}:
        assert f'"{".".join(folder.parts)}",' in PYPROJECT


@pytest.mark.slow
@pytest.mark.parametrize("step", ["native", "torch"])
def test_a_wheel_runs_from_another_folder(tmp_path: Path, step: str) -> None:
    """Built with a C++ compiler, and without one: then torch trains, and a note says what to do.

    Its dependencies are those of this Python, seen through a .pth file: what is new in it is only our package.
    """
    source = tmp_path / "source"  # a copy: what an earlier build left in build/ would come along
    for name in ("trainer", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    dist = str(tmp_path / "dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, str(source)]
    compilers = {} if step == "native" else {"CC": "/bin/false", "CXX": "/bin/false"}
    subprocess.run(build, check=True, capture_output=True, env=os.environ | compilers)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    here = sysconfig.get_path("purelib")
    (site / "dependencies.pth").write_text(f"{here}\n")
    pip = [sys.executable, "-m", "pip", f"--python={home}/bin/python", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", "--no-warn-script-location", str(wheel)], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*command: str) -> str:
        done = subprocess.run([str(home / "bin" / command[0]), *command[1:]], cwd=elsewhere, env=env, text=True,
                              capture_output=True, check=True)  # fmt: skip
        return done.stdout

    assert call("python", "-c", "import trainer; print(trainer.__file__)").startswith(str(site))
    said = call("trainer", "epochs=2", "hydra.run.dir=run")
    assert ("note: torch trains; the native step is faster: it is not built here" in said) == (step == "torch")
    summary = json.loads((elsewhere / "run/summary.json").read_text())
    assert summary["epochs"] == 2
    assert summary["provenance"]["step"] == step
    assert "name: kmnist" in call("python", "-m", "trainer", "data=kmnist", "--cfg", "job")
    assert "glorot_2010" in call("trainer", "--help")
