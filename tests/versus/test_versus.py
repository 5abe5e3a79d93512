"""python -m trainer.versus: what is chosen, by what, with which seeds; stopped and resumed; mistakes."""

import contextlib
import csv
import io
import json
import math
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.helpers import HEAD, ROOT, Cli, environment, summary
from trainer.read.configs import read_yaml
from trainer.record import recorder
from trainer.versus.__main__ import main

TINY = "epochs=6 data.train_size=100 model.width=8 record.pictures=false hydra.launcher.workers=0"
COMPARED = f"optimizer=sgd,adam model.dropout=0,0.5 rates=4 seeds=3 {TINY}"
GROUPS = [["optimizer=sgd", 0.0], ["optimizer=sgd", 0.5], ["optimizer=adam", 0.0], ["optimizer=adam", 0.5]]
Versus = Callable[..., tuple[int, str, str]]


@pytest.fixture
def versus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Versus:
    """Run a command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(shlex.split(line))
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a comparison in `it`, its page, its JSON and what was printed."""
    folder = tmp_path_factory.mktemp("versus")
    line = f"{COMPARED} hydra.sweep.dir=it --json it.json --html it.html"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert main(line.split()) == 0
    (folder / "printed").write_text(printed.getvalue(), encoding="utf-8")
    return folder


def record(folder: Path) -> dict[str, Any]:
    """versus.json, as any program reads it."""
    return json.loads((folder / "versus.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    """What the same command must write with the same bits."""
    names = ("metrics.csv", "best.pt", "last.pt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in names}


def runs(folder: Path) -> list[tuple[str, float, str, int, float]]:
    """(optimizer, dropout, rate, seed, best validation loss) of all runs below a folder, from their own files."""
    out = []
    for metrics in folder.glob("*/metrics.csv"):
        overrides = dict(text.split("=", 1) for text in read_yaml(metrics.parent / ".hydra/overrides.yaml"))
        with open(metrics, newline="") as file:
            losses = [float(row["val/loss"]) for row in csv.DictReader(file)]
        loss = math.inf if summary(metrics.parent)["verdict"]["verdict"] == "diverged" else min(losses)
        key = (f"optimizer={overrides['optimizer']}", float(overrides["model.dropout"]))
        out.append((*key, overrides["optimizer.lr"], int(overrides["seed"]), loss))
    return out


@pytest.mark.slow
def test_each_group_has_the_rate_that_its_recorded_curves_choose(done: Path) -> None:
    searches = sorted((done / "it").glob("search-*"))
    assert len(searches) >= 2
    found = [run for folder in searches for run in runs(folder)]
    for entry, (optimizer, dropout) in zip(record(done / "it")["groups"], GROUPS, strict=True):
        losses: dict[str, list[float]] = {}
        for *group, rate, _, loss in found:
            if group == [optimizer, dropout]:
                losses.setdefault(rate, []).append(loss)
        most = max(map(len, losses.values()))  # the seeds of those that were raced to the end
        finalists = {rate: np.mean(of) for rate, of in losses.items() if len(of) == most}
        assert entry["chosen"] == {"optimizer.lr": min(finalists, key=lambda rate: finalists[rate])}
        assert entry["why"].startswith(f"best validation loss, {min(finalists.values()):.4g} (mean over {most} seeds)")


def test_the_final_runs_are_of_fresh_seeds_at_what_was_chosen(done: Path) -> None:
    told = record(done / "it")
    tuning = {run[3] for folder in (done / "it").glob("search-*") for run in runs(folder)}
    final = runs(done / "it/final")
    assert tuning == set(told["seeds"]["tuning"])
    assert {run[3] for run in final} == {0, 1, 2} == set(told["seeds"]["final"])
    assert not tuning & {0, 1, 2}
    chosen = {(*group, entry["chosen"]["optimizer.lr"]) for group, entry in zip(GROUPS, told["groups"], strict=True)}
    assert sorted(run[:4] for run in final) == sorted((*one, seed) for one in chosen for seed in range(3))


def test_every_group_has_the_same_budget_where_no_grid_is_widened(done: Path) -> None:
    for entry in record(done / "it")["groups"]:
        taken = sum(len(one["runs"]) for one in entry["tried"])
        if not entry["widened"]:
            assert taken == 4 + 2
        assert len(entry["tried"]) == 4 + 3 * len(entry["widened"])


def test_the_answer_has_the_numbers_of_the_final_runs(done: Path) -> None:
    told, text = record(done / "it"), (done / "printed").read_text(encoding="utf-8")
    table = text.rpartition("tuned by")[2]
    for entry, name in zip(told["groups"], ("sgd +0 ", "sgd +0.5", "adam +0 ", "adam +0.5"), strict=True):
        accuracies = [summary(done / "it" / path)["test"]["best"]["accuracy"] for path in entry["final"]]
        half = stats.t.ppf(0.975, len(accuracies) - 1) * stats.sem(accuracies)
        (line,) = [line for line in table.splitlines() if re.match(name, line)]
        assert f"{np.mean(accuracies):.2%} ± {half:.2%}" in line
        assert f" {entry['chosen']['optimizer.lr']}" in line
        assert f" {sum(len(one['runs']) for one in entry['tried'])} runs " in line
    assert f"search    {4 * (4 + 2)} runs, for each group 4 + 2 with seeds 10000 to 10001" in text
    assert f"final     {4 * 3} runs" in text


def test_the_files_that_were_asked_for(done: Path) -> None:
    evaluation = json.loads((done / "it.json").read_text())
    assert len(evaluation["runs"]) == 12
    checksum = {"checksum": record(done / "it")["checksum"]}
    assert evaluation["versus"] | checksum == record(done / "it")
    assert "<title>Evaluation" in (done / "it.html").read_text(encoding="utf-8")


def test_the_same_command_again_trains_nothing_and_says_the_same(
    done: Path, versus: Versus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done)
    before, told = files(done / "it"), record(done / "it")
    code, out, _ = versus(f"{COMPARED} hydra.sweep.dir=it")
    assert code == 0
    assert "final     12 runs, 12 of them before" in out
    printed = (done / "printed").read_text(encoding="utf-8")
    assert out.rpartition("tuned by")[2].split("why ")[0] == printed.rpartition("tuned by")[2].split("why ")[0]
    assert (files(done / "it"), record(done / "it")) == (before, told)


def test_numbers_of_the_test_split_choose_nothing(
    done: Path, versus: Versus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest, rng = recorder.summarise, random.Random(0)

    def lying(*arguments: Any) -> dict[str, Any]:
        return honest(*arguments) | {"test": {"best": {"loss": rng.random(), "accuracy": rng.random()}}}

    monkeypatch.setattr(recorder, "summarise", lying)
    assert versus(f"{COMPARED} hydra.sweep.dir=it")[0] == 0
    assert summary(tmp_path / "it/final/0")["test"] != summary(done / "it/final/0")["test"]
    assert record(tmp_path / "it")["groups"] == record(done / "it")["groups"]


@pytest.mark.slow
def test_killed_and_resumed_it_chooses_the_same_and_ends_with_the_same_bits(done: Path, versus: Versus) -> None:
    call = [sys.executable, "-m", "trainer.versus", *f"{COMPARED} hydra.sweep.dir=it".split()]
    process = subprocess.Popen(call, env=environment(), stdout=subprocess.DEVNULL)
    patience = time.monotonic() + 60
    while not Path("it/search-2/0/metrics.csv").exists() and time.monotonic() < patience:
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert Path("it/search-2").exists()
    assert not Path("it/final").exists()
    code, out, _ = versus("resume=it")
    assert code == 0
    assert "search-1  16 runs, 16 of them before" in out
    assert files(Path("it")) == files(done / "it")
    assert record(Path("it")) == record(done / "it")


def test_more_seeds_are_added_to_what_was_chosen(versus: Versus) -> None:
    line = f"optimizer=sgd,adam rates=3 {TINY}"
    assert versus(f"{line} seeds=2 hydra.sweep.dir=it")[0] == 0
    before = record(Path("it"))
    code, out, _ = versus("resume=it seeds=3")
    assert code == 0
    assert "final     6 runs, 4 of them before" in out
    after = record(Path("it"))
    assert [one["chosen"] for one in after["groups"]] == [one["chosen"] for one in before["groups"]]
    assert after["seeds"]["final"] == [0, 1, 2]


def test_a_grid_whose_edge_wins_is_widened_and_said(versus: Versus) -> None:
    code, out, _ = versus(f"model.dropout=0,0.5 optimizer.lr=1e-5,2e-5 seeds=2 {TINY} hydra.sweep.dir=it")
    assert code == 0
    assert "model.dropout=0: best at the edge, optimizer.lr=2e-05; adds 4e-05, 8e-05, 0.00016\n" in out
    for entry in record(Path("it"))["groups"]:
        assert [one["beyond"] for one in entry["widened"]] == ["2e-05", "0.00016"]
        assert entry["chosen"] == {"optimizer.lr": "0.00128"}
        assert entry["at_edge"] == [{"key": "optimizer.lr", "edge": "upper"}]
    assert "warning: model.dropout=0.5: its best optimizer.lr=0.00128 is the largest that was tried, also after" in out


def test_losses_that_do_not_compare_are_chosen_between_by_accuracy(versus: Versus) -> None:
    code, out, _ = versus(f"loss.name=mse,cross_entropy optimizer.lr=0.003,0.03,0.3 seeds=2 {TINY} hydra.sweep.dir=it")
    assert code == 0
    assert "by validation accuracy: the losses of the groups do not compare\n" in out
    for entry in record(Path("it"))["groups"]:
        means = {
            one["values"]["optimizer.lr"]: np.mean([run["val_accuracy"] for run in one["runs"].values()])
            for one in entry["tried"]
            if len(one["runs"]) == 2
        }
        assert means[entry["chosen"]["optimizer.lr"]] == max(means.values())


BROKEN = """# my_models.py
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, out_features, size):
        super().__init__()
        self.size, self.layer = size, nn.Linear(in_features, out_features)

    def forward(self, x):
        if self.size == 4:
            raise RuntimeError("no room")
        return self.layer(x.flatten(1))
"""


def test_a_run_that_fails_is_the_worst_and_the_others_are_compared(versus: Versus) -> None:
    Path("my_models.py").write_text(BROKEN)
    own = "model=custom model._target_=my_models.Net tune=model.size +model.size=3,4"
    common = "epochs=2 data.train_size=64 record.pictures=false hydra.launcher.workers=0 seeds=2"
    code, out, err = versus(f"optimizer=sgd,adam {own} {common} hydra.sweep.dir=it")
    sys.modules.pop("my_models")
    assert (code, err) == (1, "")
    assert (
        "run search-1/1 failed: model._target_: Net fails on inputs of shape (64, 1, 8, 8): RuntimeError: no room"
        in out
    )
    for entry in record(Path("it"))["groups"]:
        assert entry["chosen"] == {"+model.size": "3"}
        assert [run["status"] for one in entry["tried"] for run in one["runs"].values()] == ["completed", "failed"]


def test_a_group_that_cannot_train_ends_the_comparison_and_what_was_trained_stays(versus: Versus) -> None:
    Path("my_models.py").write_text(BROKEN)
    own = "model=custom model._target_=my_models.Net +model.size=3,4"
    common = "epochs=2 data.train_size=64 record.pictures=false hydra.launcher.workers=0 seeds=2 rates=2"
    code, _, err = versus(f"{own} {common} hydra.sweep.dir=it")
    sys.modules.pop("my_models")
    assert code == 2
    assert err.startswith("trainer: 1 problem; the run stopped; what it had recorded is in it (")
    assert "Net fails on inputs" in err
    assert summary(Path("it/search-1/0"))["status"] == "completed"
    assert record(Path("it"))["groups"][0]["chosen"] is None


def test_a_dry_run_tells_the_budget_and_leaves_nothing(versus: Versus, tmp_path: Path) -> None:
    code, out, err = versus("optimizer=sgd,adam,adamw model.dropout=0,0.5 seeds=10 --dry-run")
    assert (code, err) == (0, "")
    assert out == (
        "groups    6: optimizer=sgd,adam,adamw x model.dropout=0,0.5\n"
        "tuned     optimizer.lr (15 values from 0.0001 to 10); by validation loss\n"
        "search    174 runs, for each group 15 + 8 + 4 + 2 with seeds 10000 to 10003: the better half goes on\n"
        "final     60 runs, for each group its best setting with seeds 0 to 9\n"
        "in all    234 runs; at most 474: where the edge of a grid wins, 3 values are added beyond it, "
        "2 times at most\n"
        "nothing was run; how long it takes is measured in the first sweep of the search\n"
    )
    assert list(tmp_path.iterdir()) == []
    manual = (ROOT / "docs/versus.md").read_text(encoding="utf-8")
    assert out.partition("nothing was run")[0] in manual


def test_what_is_left_out_of_the_groups_is_said(versus: Versus) -> None:
    code, out, err = versus("optimizer=sgd,adam optimizer.momentum=0,0.9 --dry-run")
    assert (code, err) == (0, "")
    notes = (
        "note: optimizer.momentum concerns optimizer=sgd alone\nnote: 1 of 4 runs are the same as others, and left out"
    )
    assert out.startswith(f"{notes}\ngroups    3: ")


def test_a_dry_run_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; from trainer.versus.__main__ import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    call = [sys.executable, "-c", code, "optimizer=sgd,adam", "--dry-run"]
    subprocess.run(call, cwd=tmp_path, env=environment(), check=True, capture_output=True)


MISTAKES = {
    "optimizer=sgd,adamm": "optimizer=adamm: no such option; did you mean adam? (optimizer=adamm)",
    "optimizer=sgd,adam model.drop_out=0.1": "model.drop_out: no such key; did you mean dropout?",
    "optimizer=sgd,adam seeds=1": "seeds: found 1, expected a whole number from 2 to 10000",
    "optimizer=sgd,adam seeds=abc": "seeds: found abc, expected a whole number from 2 to 10000",
    "optimizer=sgd,adam rates=1": "rates: found 1, expected a whole number from 2 to 100",
    "optimizer=sgd,adam tune=": "tune: found nothing, expected keys, e.g. tune=optimizer.lr,optimizer.weight_decay",
    "optimizer=adam": "nothing to compare; give a key several values, e.g. optimizer=sgd,adam",
    "optimizer=adam,adam": "nothing to compare; give a key several values, e.g. optimizer=sgd,adam",
    "optimizer.lr=0.1,1": "nothing to compare (optimizer.lr=0.1,1: the grid of a tuned key); "
    "give a key several values, e.g. optimizer=sgd,adam",
    "model.dropout=0,0.0": "model.dropout=0 and model.dropout=0.0: two groups of the same runs; leave one out",
    "optimizer=sgd,adam tune=optimizer.momentum optimizer.momentum=0,0.9": "optimizer.momentum: no such key here; "
    "optimizer=rmsprop, optimizer=sgd have it (optimizer=adam)",
    "optimizer=sgd,adam tune=optimizer.momentum": "tune=optimizer.momentum: has no grid of its own; "
    "type its values too, optimizer.momentum=A,B,C",
    "optimizer=sgd,adam tune=optimizer.lrr": "tune=optimizer.lrr: no such key; did you mean optimizer.lr?",
    "optimizer=sgd,adam optimizer.lr=0.1": "optimizer.lr=0.1: is tuned, so it takes its grid, optimizer.lr=A,B,C, or "
    "nothing; with fixed values it is a sweep: python -m trainer -m ... 'seed=range(10)'",
    "optimizer=sgd,adam optimizer.lr=0.1,-1": "optimizer.lr: found -1, expected a number >= 0",
    "optimizer=sgd,adam 'optimizer.lr=interval(0,1)'": "optimizer.lr=interval(0,1): found an interval, "
    "expected values, A,B,C",
    "optimizer=sgd,adam 'optimizer.lr=[0.1'": "optimizer.lr=[0.1: cannot be read as KEY=VALUE "
    "(a [ without its ], or the other way round; quote the whole word, 'KEY=[1,2]')",
    "optimizer=sgd,adam seed=1,2": "seed=1,2: the seeds are 0 to N - 1, and others for tuning; "
    "say how many with seeds=N",
    "optimizer=sgd,adam data.val_fraction=0": "optimizer=sgd, optimizer=adam: data.val_fraction is 0, but what is "
    "tuned is chosen on the validation split; try data.val_fraction=0.1",
    "problem=rosenbrock,beale": "problem=rosenbrock, problem=beale: data.val_fraction is 0, but what is tuned "
    "is chosen on the validation split; try data.val_fraction=0.1",
    "optimizer=sgd,adam hydra.sweep.dir=a,b": "hydra.sweep.dir=a,b: found several values, expected one; "
    "quote a comma: hydra.sweep.dir='A,B'",
    "optimizer=sgd,adam -m": "-m: leave it out; every list of values is compared, or is the grid of a tuned key",
    "optimizer=sgd,adam --jsn x": "--jsn: no such flag; did you mean --json?",
    "optimizer=sgd,adam --json -": "--json: found -, expected the name of a file",
    "optimizer=sgd,adam --html no/x.html": "no/x.html: there is no folder no; make it first: mkdir -p no",
    "optimizer=sgd,adam hydra/launcher=basic": "hydra/launcher=basic: a comparison trains with its own sweeps; "
    "leave it out",
    "resume=no": "resume=no: holds no versus.json; expected the directory of a comparison",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_told_before_anything_trains(line: str, versus: Versus, tmp_path: Path) -> None:
    code, out, err = versus(line)
    assert (code, out) == (2, "")
    assert err == f"trainer: 1 problem; {HEAD}\n  {MISTAKES[line]}\n"
    assert list(tmp_path.iterdir()) == []


def test_what_only_the_data_can_refuse_leaves_nothing_either(versus: Versus, tmp_path: Path) -> None:
    code, _, err = versus(f"optimizer=sgd,adam {TINY} data.train_size=9999 hydra.sweep.dir=it")
    assert code == 2
    assert err.startswith(f"trainer: 1 problem; {HEAD}\n  data.train_size: found 9999, expected at most the 1437 ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(versus: Versus) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("...")
    code, out, err = versus("optimizer=sgd,adam hydra.sweep.dir=mine")
    assert (code, out) == (2, "")
    said = "mine: holds thesis.tex, but no comparison; nothing was touched, choose another directory"
    assert err == f"trainer: 1 problem; {HEAD}\n  {said}\n"
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]


def test_a_command_that_names_code_is_not_repeated_from_a_folder(versus: Versus) -> None:
    from trainer import files as written

    Path("theirs").mkdir()
    command = ["optimizer=sgd,adam", "+hydra.callbacks.x._target_=os.abort"]
    written.write_sealed(Path("theirs/versus.json"), {"command": command})
    code, _, err = versus("resume=theirs")
    assert code == 2
    assert "its command has +hydra.callbacks.x._target_=os.abort, which may name code to run" in err


def test_a_sweep_of_a_comparison_is_resumed_as_a_whole(cli: Cli, done: Path) -> None:
    code, _, err = cli(f"resume={done}/it/search-1")
    assert code == 2
    whole = f"python -m trainer.versus resume={done}/it"
    assert err.endswith(f"search-1: is part of a comparison; resume all of it, {whole}\n")


def test_help_names_every_key(versus: Versus, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        versus("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    for word in ("tune=", "rates=", "seeds=", "resume=", "--dry-run", "--html", "--json", "hydra.sweep.dir="):
        assert word in text
