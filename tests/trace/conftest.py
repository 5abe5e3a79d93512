"""Fixtures of the tests of the trace."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.trace.examples import CLUSTERS, DEFAULT
from trainer.trace import collect, facts
from trainer.trace.__main__ import compose, rivals


@pytest.fixture(scope="session")
def default() -> facts.Trace:
    torch.set_num_threads(1)
    return collect.trace(DEFAULT, None, 5, rivals(compose(CLUSTERS), []))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).with_name("traced_models.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
