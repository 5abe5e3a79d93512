"""Data of the user's own through the command line: sweeps, resume, no test split, names of classes, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import HEAD, Cli, check_kill, rows, summary

LOAD = """
from pathlib import Path
import numpy as np

def load(n=200):
    rng = np.random.default_rng(int(Path("number").read_text()))
    x = rng.normal(size=(n, 3))
    return x, np.where(x[:, 0] > 0, "above", "below")

def changing():
    x = np.random.default_rng().normal(size=(200, 3))
    return x, x[:, 0] > 0
"""
TABLE = "data=csv data.path=my.csv data.target=y"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table and a module of the user's own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    lines = [f"{a:.4f},{b:.4f},{'yes' if a > b else 'no'},{a - b:.3f}" for a, b in x.tolist()]
    (tmp_path / "my.csv").write_text("\n".join(["a,b,y,z", *lines]))
    (tmp_path / "own_data_module.py").write_text(LOAD)
    (tmp_path / "number").write_text("0")
    return tmp_path


def test_a_run_of_a_sweep_is_the_same_alone(cli: Cli, here: Path) -> None:
    code, _, err = cli(f"-m {TABLE} epochs=2 seed=1,2 model.width=8,9 hydra.sweep.dir=sweep")
    assert code == 0, err
    code, _, err = cli(f"{TABLE} epochs=2 seed=2 model.width=9 hydra.run.dir=run")
    assert code == 0, err
    alone = summary(here / "run")
    together = summary(here / "sweep/3")
    for key in ("data_hash", "split_hash", "order_hash", "init_hash"):
        assert alone["provenance"][key] == together["provenance"][key]
    for one, other in zip(rows(here / "run"), rows(here / "sweep/3"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_classes_are_called_what_the_data_call_them(cli: Cli, here: Path) -> None:
    assert cli(f"-m {TABLE} epochs=5 seed=1,2 'data.ignore=[z]' hydra.sweep.dir=sweep")[0] == 0
    assert summary(here / "sweep/0")["class_names"] == ["no", "yes"]
    from trainer import evaluate

    assert evaluate.main(["sweep", "--json", "out.json", "--html", "out.html"]) == 0
    assert json.loads(Path("out.json").read_text())["runs"][0]["class_names"] == ["no", "yes"]
    assert '"n","no","yes"' in Path("out.html").read_text().replace(", ", ",")


def test_training_on_everything(cli: Cli, here: Path) -> None:
    code, out, err = cli(f"{TABLE} epochs=5 data.test_fraction=0 data.val_fraction=0 hydra.run.dir=run")
    assert code == 0, err
    assert "\nno test numbers: data.test_fraction=0 leaves no test split\n" in out
    assert "\ntest  " not in out
    assert summary(here / "run")["test"] == {}
    from trainer import evaluate

    assert evaluate.main(["run", "--json", "out.json", "--html", "out.html", "--csv", "out.csv"]) == 0
    measures = json.loads(Path("out.json").read_text())["runs"][0]["measures"]
    assert measures.get("test_loss") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "loss.name=cross_entropy data.label_noise=0.1 loss.label_smoothing=0.1 early_stopping.monitor=val/accuracy",
            "trainer: 4 problems; HEAD\n"
            "  data.label_noise: a regression has no labels to redraw; set it to 0\n"
            "  loss.name: cross_entropy wants classes, and data=csv (my.csv) is a regression; try loss.name=mse\n"
            "  early_stopping.monitor: a regression has no accuracy; try early_stopping.monitor=val/loss\n"
            "  loss.label_smoothing: only cross-entropy can be smoothed; set it to 0\n",
        ),
        (
            "data.task=classification",
            "trainer: 1 problem; HEAD\n  data.target: column z of my.csv: 197 different targets in 200 examples, "
            "expected at most 1000 classes, each several times; for values, say data.task=regression\n",
        ),
    ],
)
@pytest.mark.parametrize("sweep", ["", "-m seed=1,2 hydra.sweep.dir=new "])
def test_what_only_the_data_tell_is_refused_before_training(
    sweep: str, line: str, message: str, cli: Cli, here: Path
) -> None:
    before = sorted(here.iterdir())
    code, _, err = cli(f"{sweep}data=csv data.path=my.csv data.target=z 'data.ignore=[y]' {line}")
    assert (code, err) == (2, message.replace("HEAD", HEAD))
    assert sorted(here.iterdir()) == before


def test_other_data_are_not_gone_on_with(cli: Cli, here: Path) -> None:
    command = "data=custom data._target_=own_data_module.load epochs=2 hydra.run.dir=run"
    assert cli(command)[0] == 0
    (here / "number").write_text("1")
    code, _, err = cli(command.replace("epochs=2", "epochs=3"))
    assert code == 2
    assert "was finished with other code or data: data was " in err


def test_workers_agree_on_the_data(cli: Cli, here: Path) -> None:
    code, out, _ = cli(
        "-m data=custom data._target_=own_data_module.changing epochs=1 model.width=8,9 hydra.sweep.dir=s"
    )
    assert code == 1
    assert "own_data_module.changing gives other data each time it is called (hashes " in out
    assert cli("-m data=custom data._target_=own_data_module.load epochs=1 model.width=8,9 hydra.sweep.dir=t")[0] == 0
    hashes = {summary(here / "t" / name)["provenance"]["data_hash"] for name in "01"}
    assert len(hashes) == 1


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_bits(here: Path) -> None:
    """The checkpoint knows the data by their hash: the run goes on from it."""
    keys = "data=custom data._target_=own_data_module.load epochs=300 model.dropout=0.3 checkpoint.epochs=20"
    check_kill(here, *keys.split())
