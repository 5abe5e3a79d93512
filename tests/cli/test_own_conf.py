"""A conf/ in the current folder: found by itself, said once, kept in the plan; another program's changes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import HEAD, Cli, environment
from trainer.cli.config_files import CONF

MODULE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, out_features, width=3):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.Linear(width, out_features))

    def forward(self, x):
        return self.net(x)
"""
TINY = "epochs=1 data.train_size=60 record.pictures=false hydra.launcher.workers=0"
ADDS = "conf/ in this folder: adds model=narrow,wide\n"


def write(path: str, text: str = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


@pytest.fixture
def presets(cli: Cli) -> Cli:
    """A command line in a folder with two models as presets."""
    write("my_models.py", MODULE)
    for name, width in (("narrow", 4), ("wide", 9)):
        write(f"conf/model/{name}.yaml", f"# A {name} one\n_target_: my_models.Net\nwidth: {width}\n")
    return cli


def test_presets_in_a_run_which_is_resumed(presets: Cli) -> None:
    code, out, err = presets(f"model=wide {TINY} hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert out.startswith(ADDS)
    assert out.count("conf/") == 1
    command = json.loads(Path("run/.resume/plan.json").read_text())["command"]
    assert f"--config-dir={Path('conf').absolute()}" in command
    code, out, err = presets("resume=run")
    assert (code, err) == (0, "")
    assert "done before" in out


def test_presets_in_a_sweep_with_an_argument(presets: Cli) -> None:
    code, out, err = presets(f"-m model=mlp,narrow,wide model.width=5,6 {TINY} hydra.sweep.dir=sweep")
    assert (code, err) == (0, "")
    assert out.startswith(ADDS)
    assert "6 of 6 runs completed" in out
    code, out, err = presets("resume=sweep")
    assert (code, err) == (0, "")
    assert "6 of 6 runs completed, 6 of them before" in out


def test_only_what_is_used_must_be_there_to_resume(presets: Cli) -> None:
    assert presets(f"{TINY} hydra.run.dir=run")[0] == 0
    Path("conf").rename("away")
    code, out, err = presets("resume=run")
    assert (code, err) == (0, "")
    assert "done before" in out


def test_a_folder_by_its_flag_is_used_instead(presets: Cli) -> None:
    Path("conf").rename("other")
    write("conf/model/mine.yaml", "_target_: my_models.Net\n")
    code, out, err = presets(f"--config-dir=other model=wide {TINY} hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert "conf/" not in out
    assert "model=mine: no such option" in presets("--config-dir=other model=mine --dry-run")[2]


def test_help_hints_and_completion_know_it(presets: Cli) -> None:
    out = presets("--help model=wide")[1]
    assert "cnn, custom, mlp, narrow, surface, wide" in out
    assert "A wide one" in out
    assert presets("model=wode")[2] == f"trainer: 1 problem; {HEAD}\n  model=wode: no such option; did you mean wide?\n"
    line = {"COMP_LINE": "trainer model=w", "COMP_POINT": "15"}
    command = [sys.executable, "-m", "trainer", "-sc", "query=bash"]
    done = subprocess.run(command, env=environment() | line, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["model=wide"]
    assert not presets("--cfg job model=wide")[1].startswith("conf/")  # which is YAML


def test_trace_and_versus_find_it(presets: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer.trace.__main__ import main as trace
    from trainer.versus.__main__ import main as versus

    assert trace(["model=wide", "--part", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(ADDS)
    assert "(9, 4)" in out
    Path("conf").rename("other")
    assert trace(["model=wide", "--part", "1", "--config-dir", "other"]) == 0
    assert "(9, 4)" in capsys.readouterr().out
    Path("other").rename("conf")
    assert versus(["model=mlp,wide", "rates=2", "seeds=2", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith(f"{ADDS}groups    2: model=mlp,wide\n")


def test_a_mistake_in_a_preset_is_told_with_its_place(presets: Cli) -> None:
    write("conf/model/wide.yaml", "_target_: my_models.Net\nwidht: 3\n")
    err = presets(f"model=wide {TINY}")[2]
    where = f"{Path('conf/model/wide.yaml').absolute()}, line 2"
    assert err == (
        f"trainer: 1 problem; {HEAD}\n  model.widht: Net has no such argument; did you mean width? ({where})\n"
    )


def test_a_file_of_our_name_is_not_read_and_said_so(cli: Cli) -> None:
    write("conf/optimizer/adam.yaml", "lr: 100\n")
    write("conf/optimizer/sgd.yaml", (CONF / "optimizer/sgd.yaml").read_text())  # the same
    out = cli("--dry-run")[1]
    assert out.startswith(
        "conf/ in this folder: conf/optimizer/adam.yaml not read, ours has that name; choose another\n"
    )
    assert "lr: 0.001" in cli("--cfg job")[1]


def test_another_applications_conf_changes_nothing(cli: Cli) -> None:
    configuration, text = cli("--cfg job")[1], cli("--help")[1]
    write("conf/config.yaml", "defaults:\n  - db: mysql\nlr: 7\n")
    write("conf/db/mysql.yaml", "port: 1\n")
    write("conf/hydra/launcher/stack.yaml", "broken: [\n")
    assert (cli("--cfg job")[1], cli("--help")[1]) == (configuration, text)
    code, out, err = cli(f"seed=2 {TINY}")
    assert (code, err) == (0, "")
    assert "conf/" not in out
    write("conf/model/resnet.yaml", "layers: [\n")  # not ours to read, unless it is chosen
    code, out, err = cli(f"seed=3 {TINY}")
    assert (code, err) == (0, "")
    assert out.startswith("conf/ in this folder: adds model=resnet\n")
    assert cli("--cfg job")[1] == configuration
    assert cli("--help")[1].replace("mlp, resnet, surface", "mlp, surface") == text
    assert "  db: no such key; " in cli("db=mysql")[2]
    code, _, err = cli("model=resnet")
    assert code == 2
    assert str(Path("conf/model/resnet.yaml").absolute()) in err


@pytest.mark.parametrize("folder", ["seed", "optimizer_model"])
def test_a_folder_that_would_change_ours_keeps_it_from_being_read(folder: str, cli: Cli) -> None:
    write("conf/model/mine.yaml", "_target_: a.B\n")
    write(f"conf/{folder}/adam_mlp.yaml", "# @package _global_\nepochs: 99\n")
    code, out, err = cli(f"seed=3 {TINY}")
    assert (code, err) == (0, "")
    assert out.startswith(f"conf/ is not read: its folder {folder} would change what {folder} means; ")
    assert "epoch 1/1" in out
    assert "model=mine: no such option" in cli("model=mine")[2]


def test_a_file_to_begin_with_is_read_where_it_is_named(cli: Cli) -> None:
    write("conf/mine.yaml", "defaults:\n  - config\n  - _self_\nepochs: 1\n")
    assert not cli("--dry-run")[1].startswith("conf/")
    code, out, err = cli(f"--config-name=mine {TINY.removeprefix('epochs=1')} hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert out.startswith("conf/ in this folder: adds --config-name=mine\n")
    assert "epoch 1/1" in out
    assert cli("resume=run")[0] == 0


def test_ours_is_nothing_to_tell(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONF.parent)
    assert not cli("--dry-run")[1].startswith("conf/")
