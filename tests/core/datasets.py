"""What tests of data share: chosen, loaded, refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import make_config
from trainer.config import ConfigError
from trainer.core import data
from trainer.core.data import Dataset


def knobs(*choices: str, **values: Any) -> Any:
    return make_config(*choices, **{f"data.{key}": value for key, value in values.items()}).data


def load(source: str, dtype: torch.dtype = torch.float64, **values: Any) -> Dataset:
    return data.load(knobs(f"data={source}", **values), dtype=dtype)


def refused(source: str, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, **values)
    return str(caught.value)


def write(text: str, path: str = "my.csv", encoding: str = "utf-8") -> str:
    Path(path).write_text(text, encoding=encoding)
    return path
