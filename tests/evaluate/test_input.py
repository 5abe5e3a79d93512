"""What evaluate says of bad, damaged, hostile and unusual input."""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import fake_runs
from tests.helpers import ROOT, strict
from trainer.evaluate import evaluate, main
from trainer.report import html


def test_unusual_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One epoch; NaN and infinity in the middle; all NaN; constant; negative: each is judged; the JSON is strict."""
    train, val = fake_runs.curves(30, 0.0, 0)
    holes = val.copy()
    holes[10:12] = math.nan, math.inf
    odd = {
        "one": (train[:1], val[:1], {"too_short"}),
        "holes": (train, holes, {"healthy"}),
        "nan": (np.full(30, math.nan), np.full(30, math.nan), {"diverged"}),
        "constant": (np.ones(30), np.ones(30), {"underfit", "healthy"}),
        "negative": (train - 9, val - 9, {"healthy"}),
    }
    for seed, (name, (a, b, _)) in enumerate(odd.items()):
        fake_runs.our_run(tmp_path / name, {"seed": seed, "lr": 0.1}, a, b, events=False)
    assert main([str(tmp_path), "--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "r.html")]) == 0
    found = strict((tmp_path / "e.json").read_text())
    for run in found["runs"]:
        assert run["verdict"] in odd[run["name"]][2], run["name"]


def test_a_damaged_summary(tmp_path: Path) -> None:
    train, val = fake_runs.curves(30, 0.5, 0)
    for i, text in enumerate(
        ["{", "[]", '{"test": "x", "provenance": [], "epochs": "y"}', '{"test": {"best": {"loss": "?"}}}']
    ):
        folder = fake_runs.our_run(tmp_path / str(i), {"seed": 0}, train, val, events=False)
        (folder / "summary.json").write_text(text)
    found, _ = evaluate([tmp_path])
    assert [run["verdict"] for run in found["runs"]] == ["overfit"] * 4


def test_without_validation_split_nothing_is_called_overfit(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,eval/train_loss\n" + "".join(f"{i},{i},{1 / i}\n" for i in range(1, 30))
    )
    found, _ = evaluate([tmp_path])
    assert found["runs"][0]["verdict"] in ("no_validation", "underfit")


EVIL = "[red]x[/red]\x1b[2J\n:smile:\u202e"
SHOWN = r"[red]x[/red]\x1b[2J\n:smile:\u202e"


def test_names_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of folders, keys, values, states, findings and tags, in tables, sentences, warnings and problems."""
    train, val = fake_runs.curves(30, 0.5, 0)
    for i, value in enumerate([EVIL, f"{EVIL}2"]):
        run = fake_runs.our_run(tmp_path / EVIL / str(i), {"seed": 0, EVIL: value}, train, val, events=False)
        finding = {"finding": EVIL, "where": EVIL, "step": 1, "sentence": EVIL, "why": EVIL, "try": EVIL}
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"health": [finding], "status": EVIL}))
    fake_runs.other_run(tmp_path / EVIL / "tags", (f"a{EVIL}", f"b{EVIL}"), train, val)
    (tmp_path / EVIL / "table.csv").mkdir()
    (tmp_path / EVIL / "bad").mkdir()
    (tmp_path / EVIL / "bad" / "metrics.csv").mkdir()
    (tmp_path / EVIL / "bad" / "metrics.csv").rmdir()
    (tmp_path / EVIL / "bad" / "metrics.csv").symlink_to("gone")
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    for where in (
        "status",
        f"{SHOWN}=",
        f"{SHOWN}/tags: found the tags a{SHOWN}",
        f"{SHOWN}/bad/metrics.csv",
        f"{SHOWN} (",
    ):
        assert where in printed.replace("\n", ""), where


def test_names_cannot_command_the_terminal_in_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / EVIL)]) == 2
    assert main([str(tmp_path), "--json", str(tmp_path / EVIL / "e.json")]) == 2
    with pytest.raises(SystemExit):
        main([str(tmp_path), f"--{EVIL}"])
    printed = capsys.readouterr().err
    assert printed.count(SHOWN) >= 4
    assert printed.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["found no PATH, expected a run, a sweep or a folder above them"]),
        (["nowhere"], ["nowhere: no such file or folder"]),
        (["."], ["found nothing", "expected folders with metrics.csv"]),
        ([".", "--json", "no/e.json"], ["no/e.json: there is no folder no", "mkdir -p no"]),
        ([".", "--html", "."], [".: is a folder; give the file's name"]),
        ([".", "--latex", "no/e.tex"], ["no/e.tex: there is no folder no"]),
        ([".", "--figures", "no/figures"], ["no/figures: there is no folder no; make it first: mkdir -p no"]),
        ([".", "--figures", __file__], [f"{__file__}: is no folder; name one for the files to be put into"]),
        ([".", "--csv", "a", "--junit", "./a"], ["--csv and --junit both name ./a; give each a place of its own"]),
        ([".", "--json", "-", "--csv", "-"], ["--json and --csv both name the standard output"]),
        (["nowhere", "neither"], ["nowhere: no such", "neither: no such"]),
    ],
)
def test_bad_input_is_one_message_and_code_2(
    arguments: list[str], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out
    for part in said:
        assert part in printed.err


def test_requirements_that_cannot_be_tested(sweep: Path, tmp_path: Path, capsys) -> None:
    target = ["--json", str(tmp_path / "e.json")]
    for arguments, said in (
        (["--min", "sharpness=1"], "--min: sharpness: no run has this measure; expected one of best_val_accuracy, "),
        (["--baseline", str(tmp_path / "no")], f"{tmp_path / 'no'}: no such file or folder"),
        (["--baseline", str(sweep / "0" / ".hydra")], "found 2 files, none of them a run's that can be judged"),
    ):
        assert main([str(sweep), *arguments, *target]) == 2
        assert said in capsys.readouterr().err
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["x", "--fail-on", "sad"],
        ["x", "--nonsense"],
        ["x", "--max-gap", "wide"],
        ["x", "--max-gap", "nan"],
        ["x", "--min", "val_accuracy"],
        ["x", "--min", "val_accuracy=high"],
        ["x", "--max", "=1"],
    ],
)
def test_bad_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_the_command_starts_without_torch(sweep: Path) -> None:
    program = (
        "import sys; from trainer.evaluate import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'tensorflow', 'tensorboard', 'matplotlib', 'scipy.stats', 'hydra', 'omegaconf'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(sweep)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_unpickled_or_called(sweep: Path, tmp_path: Path) -> None:
    """Tags, classes and pickles that would write a file, in every file that is read, and in those that are not."""
    shutil.copytree(sweep / "0", tmp_path / "in" / "0")
    call = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path}/called']]"
    bomb = pickle.dumps(Bomb(str(tmp_path / "called")))
    for name in (".hydra/config.yaml", ".hydra/overrides.yaml", "hparams.yaml", "multirun.yaml"):
        (tmp_path / "in" / "0" / name).write_text(f"_target_: os.mkdir\npath: {tmp_path}/called\na: {call}\n")
    for name in ("checkpoints/best.pt", "events.out.tfevents.1700000000.x", "other.csv", "x.pkl"):
        (tmp_path / "in" / "0" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / "0" / name).write_bytes(bomb)
    (tmp_path / "in" / "0" / "summary.json").write_bytes(bomb)
    assert main([str(tmp_path / "in"), "--html", str(tmp_path / "r.html")]) == 0
    assert not (tmp_path / "called").exists()
    pickle.loads(bomb)  # it would have worked
    assert (tmp_path / "called").exists()


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_what_vanishes_while_it_is_evaluated(tmp_path: Path) -> None:
    """Between the reading of the runs and the page, which links their files and reads gradient norms."""
    root = fake_runs.sweep(tmp_path / "s", seeds=1)
    evaluation, runs = evaluate([root])
    shutil.rmtree(root)
    assert html.page(evaluation, runs, tmp_path, "command")


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_of_every_kind(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes changed, lost, repeated and put in: never a traceback, and what is written stays strict."""
    rng = np.random.default_rng(seed)
    train, val = fake_runs.curves(12, 0.5, seed, speed=2.0)
    for i in range(2):
        fake_runs.our_run(tmp_path / "in" / str(i), {"seed": i, "model": {"depth": i}}, train, val)
    fake_runs.other_run(tmp_path / "in" / "loop", ("train_loss", "val_loss"), train, val)
    lines = [f"{i},{a},{b}\n" for i, (a, b) in enumerate(zip(train, val, strict=True))]
    (tmp_path / "in" / "keras.csv").write_text("epoch,loss,val_loss\n" + "".join(lines))
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for _ in range(rng.integers(0, 4)):
            at, upto = sorted(rng.integers(0, len(data) + 1, 2))
            middles = [b"", bytes([rng.integers(256)]), data[at:upto] * 2, b"\0", b'"', b"nan", b"{", b"9" * 400]
            data = data[:at] + middles[rng.integers(len(middles))] + data[min(upto, at + rng.integers(60)) :]
        path.write_bytes(data)
    code = main([str(tmp_path / "in"), "--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "r.html")])
    assert code in (0, 2)
    if code == 0:
        strict((tmp_path / "e.json").read_text())
