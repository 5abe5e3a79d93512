"""Classes of a notebook as modules: what they need comes along, and what cannot is said."""

import linecache
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.api import objects, source
from trainer.config import ConfigError

CELL = '''
import math as maths
import xml.etree.ElementTree
from collections import OrderedDict as Ordered
from torch import nn
import torch

WIDTH = 7
RATES = {"a": [0.1, None]}
device = torch.device("cpu")


def twice(function):
    return function


def depends(x):
    return helper(x) + maths.pi * WIDTH


def helper(x):
    return x if x else depends(x - 1)


class Base:
    def __init__(self, x=WIDTH):
        self.x, self.tree = x, Ordered(a=xml.etree.ElementTree)


@twice
class Net(Base):
    """Uses all of it."""

    rate = RATES

    def value(self, device=None):
        x = helper(1)
        return super().__class__, depends(x), self.x, unknown


def needs_a_value():
    return device


def outer(n):
    def inner():
        return n

    class Inside:
        def method(self):
            return WIDTH

    return inner, Inside
'''


@pytest.fixture
def notebook() -> Iterator[dict[str, Any]]:
    """The names of a cell that was run as a notebook's kernel runs it: without a file."""
    name = "<cell 1>"
    linecache.cache[name] = (len(CELL), None, CELL.splitlines(keepends=True), name)
    module = types.ModuleType("__main__")
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    exec(compile(CELL, name, "exec"), vars(module))
    yield vars(module)
    sys.modules["__main__"] = before
    del linecache.cache[name]


def test_what_it_needs_comes_along(notebook: dict[str, Any]) -> None:
    text = source.module("model", notebook["Net"])
    there: dict[str, Any] = {"__name__": "written"}
    exec(compile(text, "written.py", "exec"), there)
    assert there["Net"]().x == 7
    assert there["depends"](1) == notebook["depends"](1)
    assert there["Net"]().tree["a"].__name__ == "xml.etree.ElementTree"
    assert there["Net"].__doc__ == "Uses all of it."
    assert there["Net"].rate == {"a": [0.1, None]}
    assert "import torch" not in text  # nothing that it does not need
    assert "outer" not in text


def test_the_same_source_is_the_same_file(
    notebook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = objects.path("model", notebook["Net"])
    assert path == objects.path("model", notebook["Net"])
    notebook["WIDTH"] = 8
    other = objects.path("model", notebook["Net"])
    assert other != path
    assert path.startswith("outputs.from_python.net_")
    assert path.endswith(".Net")
    files = {f"outputs.from_python.{file.stem}.Net" for file in (tmp_path / "outputs/from_python").iterdir()}
    assert files == {path, other}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs_a_value", "model: it needs device, a device, whose value no source can hold; make it an argument, or"),
        ("inner", "model: inner uses n of the function that it is defined in; define it outside, or write it"),
        ("lost", "model: the source of lost cannot be found; write it into a .py file in this folder and import it"),
    ],
)
def test_what_cannot_be_written_is_said(name: str, message: str, notebook: dict[str, Any]) -> None:
    exec(compile("def lost(): pass", "<nowhere>", "exec"), notebook)
    notebook["inner"], _ = notebook["outer"](3)
    with pytest.raises(ConfigError) as error:
        source.module("model", notebook[name])
    assert str(error.value).startswith(message)


def test_a_class_inside_a_function_that_needs_nothing_of_it(notebook: dict[str, Any]) -> None:
    _, inside = notebook["outer"](3)
    there: dict[str, Any] = {}
    exec(source.module("model", inside), there)
    assert there["Inside"]().method() == 7


def test_importable_classes_keep_their_shortest_name() -> None:
    import torch

    assert objects.path("optimizer", torch.optim.Adagrad) == "torch.optim.Adagrad"
    assert objects.path("model", torch.nn.Linear) == "torch.nn.Linear"
    assert objects.path("model", Path) == "pathlib.Path"
