"""A directory is one process's at a time, and nobody's once that has ended, however it ended."""

import errno
import fcntl
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import Cli
from trainer.config import ConfigError
from trainer.engine import lock

TINY = "epochs=1 data.train_size=64 model.width=4 record.pictures=false"


def owner_in_a_child(directory: Path) -> int:
    """A process that has the lock; its number."""
    child = os.fork()
    if child == 0:
        with lock.held(directory):
            time.sleep(60)
        os._exit(0)
    while not (directory / lock.NAME).exists() or not (directory / lock.NAME).read_bytes():
        time.sleep(0.001)
    return child


def test_a_directory_in_use_is_refused_naming_its_owner(cli: Cli, tmp_path: Path) -> None:
    child = owner_in_a_child(tmp_path / "run")
    try:
        owner = json.loads((tmp_path / "run" / lock.NAME).read_text())
        assert owner["pid"] == child
        code, out, err = cli(f"hydra.run.dir=run {TINY}")
        assert (code, out) == (2, "")
        assert f"run: in use by process {child} on {owner['host']} since {owner['since']} (python -m trainer" in err
        assert err.endswith("); wait for it, or end it\n")
        assert os.listdir("run") == [lock.NAME]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_lies_about_after_a_kill_is_nobodys(tmp_path: Path) -> None:
    child = owner_in_a_child(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / lock.NAME).exists()
    with lock.held(tmp_path):
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / lock.NAME).exists()


def test_a_dead_owners_workers_are_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "ORPHANS_S", 0.05)
    with lock.held(tmp_path):  # as a worker would hold on to it
        gone = os.fork()
        if gone == 0:
            os._exit(0)
        os.waitpid(gone, 0)
        text = (tmp_path / lock.NAME).read_text()
        (tmp_path / lock.NAME).write_text(text.replace(str(os.getpid()), str(gone)))
        with (
            pytest.raises(ConfigError, match=f"in use by workers of a process that has ended, process {gone}"),
            lock.held(tmp_path),
        ):
            raise AssertionError
        (tmp_path / lock.NAME).write_text("half a li")
        with pytest.raises(ConfigError, match="in use by another process"), lock.held(tmp_path):
            raise AssertionError


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_where_files_cannot_be_locked_a_run_trains_with_one_note(
    number: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)  # as on some network file systems
    code, out, err = cli(f"hydra.run.dir=run {TINY}")
    assert (code, err) == (0, "")
    assert out.count("run: files cannot be locked here; let no two commands train in it at once") == 1
    assert not Path("run", lock.NAME).exists()
