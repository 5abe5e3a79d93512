"""Links by which TensorBoard calls runs by what was swept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import fake_runs
from trainer.evaluate import main

BOARD = """\
import os, signal, threading
class TensorBoardServerException(Exception): ...
class TensorBoard:
    def configure(self, argv):
        print(argv[2], *sorted(os.listdir(argv[2])))
    def launch(self):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.Signals[os.environ["ENDED_BY"]])).start()
        return "http://localhost:6007/"
"""


def test_each_run_has_a_link_by_what_was_swept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_runs.sweep(tmp_path / "s", seeds=2, events=False)
    for _ in range(2):  # again: the links are replaced
        assert main([str(tmp_path / "s"), "--tensorboard", str(tmp_path / "by name")]) == 0
    assert f"tensorboard --logdir '{tmp_path}/by name'" in capsys.readouterr().out
    links = sorted((tmp_path / "by name").iterdir())
    assert len(links) == len(list((tmp_path / "s").glob("*/metrics.csv")))
    assert links[0].name == "batchnorm=false dropout=0 optimizer=adam seed=0"
    assert all(link.is_symlink() and (link / "metrics.csv").is_file() for link in links)
    assert not os.path.isabs(os.readlink(links[0]))  # both may be moved together


@pytest.mark.skipif(os.name == "nt", reason="signals are sent")
@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_without_a_folder_tensorboard_shows_them_and_nothing_is_left(signal: str, tmp_path: Path) -> None:
    fake_runs.sweep(tmp_path / "s", seeds=2, events=False)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").touch()
    (tmp_path / "tensorboard" / "program.py").write_text(BOARD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "ENDED_BY": signal}
    command = [sys.executable, "-m", "trainer.evaluate", str(tmp_path / "s"), "--tensorboard"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    shown, address = done.stdout.splitlines()[-2:]
    folder, _, names = shown.partition(" ")
    assert names.startswith("batchnorm=false dropout=0 optimizer=adam seed=0 batchnorm=false")
    assert not Path(folder).exists()
    url = urlsplit(address.partition(": ")[2])
    assert (url.netloc, url.fragment) == ("localhost:6007", "timeseries")
    pinned = [card["tag"] for card in json.loads(parse_qs(url.query)["pinnedCards"][0])]
    assert pinned == ["eval/train_loss", "val/loss", "eval/train_accuracy", "val/accuracy"]


def test_what_is_no_link_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, val = fake_runs.curves(30, 0.0, 0)
    fake_runs.our_run(tmp_path / "s" / "0", {"seed": 0}, train, val)
    (tmp_path / "d" / "0").mkdir(parents=True)
    assert main([str(tmp_path / "s"), "--tensorboard", str(tmp_path / "d")]) == 2
    assert "File exists" in capsys.readouterr().err
    assert not (tmp_path / "d" / "0").is_symlink()
