"""Words that cannot be printed, or must not be obeyed: nothing is lost, and they appear as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import helpers
from tests.helpers import Cli
from trainer.cli import sweep_table

TINY = ["epochs=1", "data.train_size=64", "record.pictures=false"]
SWEEP = ["-m", "seed=1,2", *TINY, "hydra.sweep.dir=sweep"]
CLOSED = {"<&-": (0,), ">&-": (1,), "2>&-": (2,), "<&- >&- 2>&-": (0, 1, 2)}


def environment() -> dict[str, str]:
    return {key: value for key, value in helpers.environment().items() if key != "PYTHONUNBUFFERED"}


@pytest.mark.slow
@pytest.mark.parametrize("closed", CLOSED)
def test_where_a_standard_stream_is_closed_all_files_are_written(closed: str, tmp_path: Path) -> None:
    command = " ".join([f"'{sys.executable}' -m trainer", *SWEEP, closed])
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {"sweep.csv", "sweep.json", "0", "1"} <= set(os.listdir(tmp_path / "sweep"))
    assert b"completed" not in (tmp_path / "sweep/sweep.csv").read_bytes().splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("into", "why", "code"),
    [
        ("> /dev/full", "No space left on device", 2),
        ("> /dev/full 2> /dev/full", "", 2),
        ("| true; exit ${PIPESTATUS[0]}", "Broken pipe", 2),
        ("2> /dev/full", "", 0),
    ],
)
@pytest.mark.parametrize("unbuffered", [False, True])
def test_an_output_that_takes_nothing_costs_no_file(
    into: str, why: str, code: int, unbuffered: bool, tmp_path: Path
) -> None:
    """A line is printed before the end of training: its loss ends neither that nor the writing of tables."""
    python = f"'{sys.executable}' {'-u' * unbuffered} -m trainer"
    said = f"trainer: the standard output takes no more: {why}\n" if why else ""
    for arguments, files in (
        (SWEEP, {"sweep/sweep.csv", "sweep/sweep.json", "sweep/0/summary.json", "sweep/1/metrics.csv"}),
        ([*TINY, "hydra.run.dir=run"], {"run/metrics.csv", "run/summary.json", "run/checkpoints/last.pt"}),
    ):
        command = f"{python} {' '.join(arguments)} {into}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment(), check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (code, said)
        assert [name for name in files if not (tmp_path / name).exists()] == []


@pytest.mark.parametrize(
    "arguments", ["trainer --help", pytest.param("trainer.trace --part 1", marks=pytest.mark.slow)]
)
def test_a_command_that_only_prints_says_that_nobody_reads_it(arguments: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m {arguments} > /dev/full"],
        cwd=tmp_path,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    said = f"{arguments.split()[0]}: the standard output takes no more: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


TALKATIVE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, x):
        print("a word" * 2000)
        return self.layer(x.flatten(1))
"""


@pytest.mark.slow
def test_what_ones_own_module_prints_may_be_lost(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TALKATIVE)
    command = f"'{sys.executable}' -m trainer {' '.join(SWEEP)} model=custom model._target_=own.Net > /dev/full"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), check=False, capture_output=True)
    assert "failed" not in (tmp_path / "sweep/sweep.csv").read_text()
    assert (tmp_path / "sweep/1/checkpoints/last.pt").exists()


@pytest.mark.slow
def test_what_ones_own_module_prints_in_a_sweep_is_printed(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TALKATIVE.replace('"a word" * 2000', '"a word"'))
    command = [sys.executable, "-m", "trainer", *SWEEP, "model=custom", "model._target_=own.Net"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.count("a word") > 2


def test_an_encoding_without_the_characters_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", *SWEEP, "hydra.launcher.workers=0"]
    narrow = {**environment(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=tmp_path, env=narrow, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb" \xb1 " in done.stdout
    assert b"2 of 2 runs completed" in done.stdout
    assert (tmp_path / "sweep/sweep.json").exists()


def test_files_come_before_words(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep_table, "table", fail)
    code, _, err = cli(" ".join([*SWEEP, "hydra.launcher.workers=0"]))
    assert code == 2
    assert "No space left on device" in err
    assert {"sweep.csv", "sweep.json"} <= set(os.listdir("sweep"))


MODULE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, out_features, word):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        if word != "sound":
            raise RuntimeError("[red]no[/red] \\x1b[31mluck\\u202e :smile: " + word)

    def forward(self, x):
        return self.layer(x.flatten(1))
"""
SHOWN = r"[red]no[/red] \x1b[31mluck\u202e :smile: [/b]"


def test_no_word_is_markup_or_a_terminals_command(cli: Cli) -> None:
    Path("own.py").write_text(MODULE)
    line = f"{' '.join(TINY)} model=custom model._target_=own.Net"
    code, _, err = cli(f"{line} '+model.word=\"[/b]\"'")
    assert code == 2
    assert SHOWN in err
    code, out, err = cli(
        f"-m {line} '+model.word=\"[/b]\",sound' 'hydra.sweep.dir=\"[bold]é\"' hydra.launcher.workers=0"
    )
    assert (code, err) == (1, "")
    assert SHOWN in out
    assert out.count("[/b]") == 4  # in a cell of the table, twice in the error, in the overrides
    assert "python -m trainer.evaluate '[bold]é' --tensorboard" in out
    assert "\x1b" not in out
