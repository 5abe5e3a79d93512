"""Fixtures of many tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread costs more than it brings

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.helpers import Cli
from trainer.cli import app
from trainer.engine import worker

hypothesis.settings.register_profile("busy", deadline=None)  # another's work on the machine is no failure
hypothesis.settings.load_profile("busy")


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in one order, so that values can be compared bit for bit."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_width() -> None:
    """What is printed fits what it is printed on, not the terminal that runs the tests."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(autouse=True)
def _no_module_of_a_test_before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules that a test wrote and imported: another's may have the same name."""
    yield
    written = str(tmp_path_factory.getbasetemp())
    for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", None)).startswith(written)]:
        del sys.modules[name]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command line of `trainer` in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()

    def run(line: str = "") -> tuple[int, str, str]:
        capsys.readouterr()
        code = app.run(shlex.split(line))
        out, err = capsys.readouterr()
        return code, out, err

    yield run
    torch.set_num_threads(threads)
    worker.forget_data()  # a test may have changed what a name of data stands for
