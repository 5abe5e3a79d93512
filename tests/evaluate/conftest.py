"""Fixtures of the tests of evaluate."""

from pathlib import Path

import pytest

from tests import fake_runs


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_runs.sweep(tmp_path_factory.mktemp("sweeps") / "s", seeds=3, events=False)
