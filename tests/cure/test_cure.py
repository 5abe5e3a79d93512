"""python -m trainer.cure: a sick run is cured by what it types; mistakes are one line."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import Cli
from trainer.cure.__main__ import main

SICK = "optimizer=sgd optimizer.lr=1e4 epochs=20 seed=3 data.train_size=200 model.width=16 record.pictures=false"
MODULE = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, in_features, out_features):
        super().__init__(nn.Flatten(), nn.Linear(in_features, out_features))
"""
Cure = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def cure(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cure:
    """Run a command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*shlex.split(line), *([] if "--help" in line else ["hydra.launcher.workers=0"])])
        return code, *capsys.readouterr()

    return run


def test_a_sick_run_is_cured_by_the_printed_commands_alone(cli: Cli, cure: Cure) -> None:
    code, out, _ = cli(f"{SICK} 'hydra.run.dir=a run'")
    assert code == 0
    offered = re.search(r"^cures +python -m trainer\.cure (.*)$", out, re.MULTILINE)
    assert offered is not None
    assert offered[1] == "'a run'"
    code, out, err = cure(f"{offered[1]} --json tried.json --config-name=config hydra.sweep.dir=cures")
    assert (code, err) == (0, "")
    tried = json.loads(Path("tried.json").read_text())
    assert tried["seeds"] == [3, 4, 5]
    assert {"helps"} <= {one["shown"] for one in tried["cures"]}
    assert tried["named"] in [one["overrides"] for one in tried["cures"]]
    assert min(one["mean"] for one in tried["cures"]) < 0.6 * sum(tried["losses"]) / 3
    typed = re.search(r"^type +python -m trainer (.*)$", out, re.MULTILINE)
    assert typed is not None
    assert {"seed=3", "--config-name=config"} <= set(shlex.split(typed[1]))
    code, out, _ = cli(f"{typed[1]} hydra.run.dir=cured")
    assert code == 0
    summary = json.loads(Path("cured/summary.json").read_text())
    named = next(one for one in tried["cures"] if one["overrides"] == tried["named"])
    assert summary["best"]["val/loss"] == pytest.approx(named["losses"][0], rel=1e-4)  # the budget was the run's own
    before = float(json.loads(Path("a run/summary.json").read_text())["best"]["val/loss"])
    assert not before <= 1.3 * summary["best"]["val/loss"]  # it may be NaN


def test_mistakes_are_one_line(cli: Cli, cure: Cure) -> None:
    cli("epochs=6 data.train_size=200 record.pictures=false hydra.run.dir=well")
    cli("problem=beale optimizer.lr=1e9 epochs=5 hydra.run.dir=function")
    cli("-m optimizer.lr=1e-8,1e-7 epochs=1 data.train_size=64 record.pictures=false hydra.sweep.dir=both")
    Path("empty").mkdir()
    shutil.copytree("well", "none/well")
    shutil.copytree("function", "none/function")
    for line, said in {
        "nowhere": "nowhere: no such file or folder",
        "empty": "empty: ",
        "": "found none, expected the directory of one run",
        "well well": "expected the directory of one run",
        "well": "well: nothing was found wrong with it",
        "function": "function: minimises a function",
        "both": "both: holds 2 runs, 2 of them sick; choose one, e.g. python -m trainer.cure both/1",
        "none": "none: holds 2 runs, none of which has a finding that a cure is known for",
        "well --jsn x": "--jsn: no such flag; did you mean --json?",
        "well seed=4": "seed=4: the seeds are",
        "well --json -": "--json: found -",
        "well optimizer.lr=0.1,0.2": "optimizer.lr=0.1,0.2: found several values, expected one",
    }.items():
        code, out, err = cure(line)
        assert (code, out) == (2, ""), line
        assert said in err, (line, err)
        assert len(err.splitlines()) == 2, (line, err)
    assert not Path("outputs/cures").exists()


def test_help(cure: Cure) -> None:
    with pytest.raises(SystemExit) as end:
        cure("--help")
    assert end.value.code == 0


def test_code_in_a_directory_is_not_trusted(cli: Cli, cure: Cure, tmp_path: Path) -> None:
    """As with resume=: what the run's own directory holds must be typed again."""
    Path("theirs.py").write_text(MODULE)
    line = "model=custom model._target_=theirs.Net optimizer.lr=0 epochs=1 data.train_size=64 record.pictures=false"
    assert cli(f"{line} hydra.run.dir=run")[0] == 0
    overrides = Path("run/.hydra/overrides.yaml")
    overrides.write_text(overrides.read_text().replace("theirs.Net", "os.system"))
    code, out, err = cure("run")
    assert (code, out) == (2, "")
    assert "run: " in err
    assert "os.system" in err
