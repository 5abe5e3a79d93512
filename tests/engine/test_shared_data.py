"""Data that workers share: what one has read is what all the others get, without reading it again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import make_config
from trainer.config import ConfigError, Data
from trainer.core import data as datasets
from trainer.core.data import Dataset
from trainer.engine import shared_data

CPU = torch.device("cpu")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "my.csv"
    lines = [f"{a!r},{b!r},{'yes' if a > b else 'no'}" for a, b in rng.normal(size=(60, 2)).tolist()]
    path.write_text("\n".join(["a,b,y", *lines, lines[0]]))
    return path


def of(path: Path, target: str = "y") -> Data:
    return make_config("data=csv", **{"data.path": str(path), "data.target": target}).data


def assert_same(a: Dataset, b: Dataset) -> None:
    for field in dataclasses.fields(Dataset):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert type(one) is type(other), field.name
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name
    assert a.facts == b.facts


@pytest.mark.parametrize("target", ["y", "b"])
def test_the_second_gets_what_the_first_has_read(target: str, table: Path, tmp_path: Path) -> None:
    data = of(table, target)
    plain = datasets.load(data)
    first = shared_data.load(data, CPU, tmp_path)
    table.unlink()  # nobody reads it again
    second = shared_data.load(data, CPU, tmp_path)
    assert_same(first, plain)
    assert_same(second, plain)
    assert second.facts["duplicates"] + second.facts["test_among_train"] >= 1
    second.x.zero_()  # its own copy: nobody else sees it
    assert_same(shared_data.load(data, CPU, tmp_path), plain)


def test_other_data_are_other_files(table: Path, tmp_path: Path) -> None:
    data = of(table)
    raw = dataclasses.replace(data, normalisation="none")
    shared_data.load(data, CPU, tmp_path)
    assert_same(shared_data.load(raw, CPU, tmp_path), datasets.load(raw))


def test_where_no_file_can_be_everybody_reads(table: Path, tmp_path: Path) -> None:
    assert_same(shared_data.load(of(table), CPU, tmp_path / "none"), datasets.load(of(table)))
    folder = tmp_path / "full"
    folder.mkdir()
    shared_data.load(of(table), CPU, folder)
    (written,) = folder.glob("*.pt")
    written.unlink()
    written.with_suffix(".part").mkdir()  # in the way of the file
    assert_same(shared_data.load(of(table), CPU, folder), datasets.load(of(table)))
    assert not written.exists()


def test_bad_data_are_refused_each_time(table: Path, tmp_path: Path) -> None:
    table.write_text("a,y\n1,2\ninf,3\n")
    for _ in range(2):
        with pytest.raises(ConfigError):
            shared_data.load(of(table), CPU, tmp_path)
