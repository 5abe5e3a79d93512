"""Links by which TensorBoard calls runs by what was swept."""

import os
from pathlib import Path

import pytest

from tests import fake_runs
from trainer.evaluate import main


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


def test_without_a_folder_tensorboard_shows_them_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_runs.sweep(tmp_path / "s", seeds=2, events=False)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").touch()
    (tmp_path / "tensorboard" / "main.py").write_text(
        "import os, sys\nprint(sys.argv[2], *sorted(os.listdir(sys.argv[2])))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert main([str(tmp_path / "s"), "--tensorboard"]) == 0
    folder, _, shown = capfd.readouterr().out.splitlines()[-1].partition(" ")
    assert shown.startswith("batchnorm=false dropout=0 optimizer=adam seed=0 batchnorm=false")
    assert not Path(folder).exists()


def test_what_is_no_link_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, val = fake_runs.curves(30, 0.0, 0)
    fake_runs.our_run(tmp_path / "s" / "0", {"seed": 0}, train, val)
    (tmp_path / "d" / "0").mkdir(parents=True)
    assert main([str(tmp_path / "s"), "--tensorboard", str(tmp_path / "d")]) == 2
    assert "File exists" in capsys.readouterr().err
    assert not (tmp_path / "d" / "0").is_symlink()
