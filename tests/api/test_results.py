"""What runs left, as tables, figures, a comparison and networks: against the files, and against evaluate's own."""

import contextlib
import csv
import doctest
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import trainer
from tests.helpers import rows as metrics
from tests.helpers import scalars
from trainer import ConfigError, Runs, evaluate
from trainer.api import commands, results
from trainer.cli import app
from trainer.core import data as datasets
from trainer.core.data import Dataset

NET = """
from torch import nn


def net(in_features, out_features, width=8):
    layers = nn.Linear(in_features, width), nn.BatchNorm1d(width), nn.Linear(width, out_features)
    return nn.Sequential(nn.Flatten(), *layers)
"""


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def train(line: str) -> int:
    """As the command line: it leaves what trainer.run and trainer.sweep leave, and needs no process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        return app.run([*line.split(), "hydra.launcher.workers=0"] if "-m" in line else line.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of one sweep, 8 runs of which 2 are refused, and of one run."""
    folder = tmp_path_factory.mktemp("results")
    with inside(folder):
        Path("own.py").write_text(NET)
        swept = "optimizer=sgd,adam model.dropout=0,0.3 seed=0,1 epochs=6 model.depth=1 model.width=16"
        assert train(f"-m {swept} hydra.sweep.dir=outputs/swept") == 0
        assert train("-m seed=0,-1 epochs=6 hydra.sweep.dir=outputs/refused") == 1
        assert train("epochs=5 model=cnn hydra.run.dir=outputs/cnn") == 0
        assert train("epochs=5 model=custom model._target_=own.net model.width=12 hydra.run.dir=outputs/own") == 0
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path) -> Iterator[None]:
    with inside(folder):
        yield


@pytest.fixture
def runs() -> Runs:
    return trainer.load("outputs/swept")


def test_a_row_per_run(runs: Runs) -> None:
    frame = runs.frame()
    assert list(frame.columns[:5]) == ["optimizer", "model.dropout", "seed", "status", "verdict"]
    assert frame["optimizer"].tolist() == ["sgd"] * 4 + ["adam"] * 4
    assert frame["model.dropout"].tolist() == [0, 0, 0.3, 0.3] * 2
    with open("outputs/swept/sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for column, name in {
        "best_val_loss": "val loss",
        "test_accuracy": "test accuracy",
        "best_epoch": "best_epoch",
    }.items():
        assert frame[column].tolist() == [float(row[name]) for row in rows]
    for i, run in enumerate(runs):
        table = run.curves()
        assert run.folder is not None
        assert table.to_dict("records") == metrics(run.folder)  # each number is the file's, to the last bit
        assert frame["last_val_loss"][i] == table["val/loss"].iloc[-1]
        assert frame["best_train_loss"][i] == table["eval/train_loss"][frame["best_epoch"][i] - 1]
    assert frame["folder"].tolist() == [f"outputs/swept/{n}" for n in range(8)]


def test_a_row_per_epoch_and_per_step(runs: Runs) -> None:
    curves = runs.curves()
    assert len(curves) == 8 * 6
    assert list(curves.columns[:5]) == ["run", "optimizer", "model.dropout", "seed", "epoch"]
    assert set(curves[curves["run"] == 5]["seed"]) == {1}
    steps = runs.steps("grad_norm/*")
    assert steps["tag"].str.startswith("grad_norm/").all()
    (file,) = Path("outputs/swept/5").glob("events*")
    expected = scalars(file.parent)["grad_norm/total"]
    found = steps[(steps["run"] == 5) & (steps["tag"] == "grad_norm/total")]
    assert found["value"].tolist() == expected.values.tolist()
    assert found["step"].tolist() == expected.steps.tolist()
    assert found["optimizer"].unique().tolist() == ["adam"]
    assert len(runs.steps("nothing")) == 0


@pytest.mark.slow
def test_the_comparison_is_evaluates(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    found = runs.compare()
    expected, _ = evaluate.evaluate(["outputs/swept"])
    assert {**found.json, "paths": []} == {**expected, "paths": []}
    assert found.answer == expected["answer"]["text"]
    assert evaluate.main(["outputs/swept"]) == 0
    printed = capsys.readouterr().out
    assert repr(found).split() == printed.split()
    assert runs.compare(tune=["model.dropout"]).json["tuned"] == ["model.dropout"]
    with pytest.raises(ConfigError, match=r"^tune: found rate"):
        runs.compare(tune=["rate"])


def test_the_figures_are_the_reports(runs: Runs) -> None:
    curves = runs.plot()
    assert [axes.get_title(loc="left") for axes in curves.axes] == [
        "training loss", "validation loss", "validation accuracy (%)",
    ]  # fmt: skip
    assert len(curves.axes[0].get_lines()) == 4
    effect = runs.plot("optimizer")
    assert [label.get_text() for label in effect.axes[0].get_xticklabels()] == ["adam", "sgd"]
    assert curves._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert len(runs[0].plot().axes) == 3
    with pytest.raises(ConfigError, match=r"no effect of depth to draw; there is one of optimizer, model\.dropout$"):
        runs.plot("depth")


def test_the_best(runs: Runs) -> None:
    losses = [row["val loss"] for row in json.loads(Path("outputs/swept/sweep.json").read_text())["runs"]]
    assert runs.best().folder == Path("outputs/swept").absolute() / str(np.argmin(losses))
    with pytest.raises(ConfigError, match="best: no completed run of 1 has a best_val_loss"):
        trainer.load("outputs/refused")[1:].best()


def test_the_best_of_two_losses_is_refused(runs: Runs, tmp_path: Path) -> None:
    tiny = "epochs=1 model.depth=1 model.width=4 record.pictures=false"
    assert train(f"-m loss.name=cross_entropy,mse {tiny} hydra.sweep.dir={tmp_path / 'two'}") == 0
    two = trainer.load(tmp_path / "two")
    with pytest.raises(ConfigError, match=r"best: the runs differ in loss\.name, and losses of different definitions"):
        two.best()
    assert two[1:].best().config["loss.name"] == "mse"


def raw_digits() -> Dataset:
    from tests.helpers import make_config

    return datasets.load(make_config("data=digits", **{"data.normalisation": "none"}).data)


@pytest.mark.parametrize("name", ["swept/0", "swept/7", "cnn", "own"])
def test_the_network_takes_raw_inputs(name: str) -> None:
    (run,) = trainer.load(f"outputs/{name}")
    digits = raw_digits()
    for weights in ("best", "last"):
        network = run.model(weights)
        assert not network.training
        with torch.no_grad():
            outputs = network(digits.test_x)
        recorded = run.summary["test"][weights]
        assert (outputs.argmax(1) == digits.test_y).float().mean().item() == pytest.approx(recorded["accuracy"])
        loss = torch.nn.functional.cross_entropy(outputs, digits.test_y).item()
        assert loss == pytest.approx(recorded["loss"], rel=1e-5)
        pictures = digits.test_x.view(-1, *digits.shape).numpy()
        assert torch.equal(network(pictures), network(digits.test_x))


def test_code_that_lies_beside_the_run_is_not_called() -> None:
    (run,) = trainer.load("outputs/own")
    assert run.folder is not None
    theirs = Path("outputs/theirs")
    shutil.copytree(run.folder, theirs / "0")
    (theirs / "evil.py").write_text("raise SystemExit('called')\n")
    path = theirs / "0" / "checkpoints" / "best.pt"
    saved = torch.load(path, weights_only=True)
    saved["config"]["model"]["_target_"] = "outputs.theirs.evil.Net"
    torch.save(saved, path)
    try:
        with pytest.raises(ConfigError, match=r"outputs\.theirs\.evil\.Net lies beside the run"):
            trainer.load(theirs)[0].model()
    finally:
        shutil.rmtree(theirs)


def test_a_function_from_elsewhere_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = trainer.load("outputs/own")
    assert run.folder is not None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("own.py").replace(elsewhere / "own.py")
    monkeypatch.syspath_prepend(elsewhere)
    try:
        sys.modules.pop("own", None)
        with pytest.raises(ConfigError, match=r"own\.net is a function outside the current folder"):
            run.model()
        import own  # type: ignore[import-not-found]

        assert run.model(target=own.net)(np.zeros((2, 64))).shape == (2, 10)
    finally:
        (elsewhere / "own.py").replace("own.py")


def test_refused_runs_are_rows(folder: Path) -> None:
    runs = trainer.load("outputs/refused")
    assert [run.status for run in runs] == ["completed", "failed"]
    assert runs.frame()["seed"].astype(int).tolist() == [0, -1]
    with pytest.raises(ConfigError, match="the run failed: seed: found -1"):
        runs[1].model()
    assert len(runs.curves()) == 6
    everything = trainer.load()
    assert len(everything) == 12
    assert len(everything[2:5]) == 3
    assert [run.folder for run in everything[2:5]] == [run.folder for run in list(everything)[2:5]]


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 3\n")
    (run,) = runs = trainer.load(tmp_path)
    assert (run.status, run.config, run.verdict) == ("unfinished", {"seed": 3}, None)
    assert runs.frame()["status"].tolist() == ["unfinished"]
    assert runs.curves().empty
    with pytest.raises(ConfigError, match=r"the run unfinished: .* has no metrics\.csv"):
        run.curves()


def test_a_damaged_summary_harms_no_other_run(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree("outputs/swept", tmp_path / "copy")
    (tmp_path / "copy" / "3" / "summary.json").write_text('{"status": "completed"')
    table = trainer.load(tmp_path / "copy").frame()
    assert len(table) == len(runs)
    assert [i for i, status in enumerate(table["status"]) if status != "completed"] == [3]
    assert "summary.json" in table["error"][3]


def test_what_a_notebook_shows(runs: Runs) -> None:
    text, page = repr(runs), runs._repr_html_()
    assert text.startswith("8 runs: ")
    assert page.startswith("8 runs: ")
    (table,) = pd.read_html(io.StringIO(page)) if _has_lxml() else [None]
    assert table is None or len(table) == 8
    hostile = Runs([results.Run(None, {"status": "failed", "error": "<script>", "model.depth": "<b>"})])
    assert "<script>" not in hostile._repr_html_()
    assert repr(runs[0]).startswith("outputs/swept/0: completed\n")


def _has_lxml() -> bool:
    try:
        import lxml  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("module", [commands, results], ids=lambda module: module.__name__)
def test_the_examples(module: object, tmp_path: Path) -> None:
    with inside(tmp_path):
        failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)  # type: ignore[arg-type]
    assert (failed, tried > 3) == (0, True)
