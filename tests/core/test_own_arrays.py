"""Data from functions and Datasets of the user's own, in every form, and each mistake in words."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.core.datasets import load, refused, write
from trainer.core.data import Dataset

MODULE = """
import random
import numpy as np, pandas as pd, torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, TensorDataset, random_split

x = np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)
y = np.arange(40) % 2

def arrays(): return x, y
def tensors(): return torch.from_numpy(x), torch.from_numpy(y)
def series(): return x, pd.Series(y, index=range(5, 45))
def lists(): return x.tolist(), y.tolist()
def column(): return [x, y[:, None]]
def tensor_dataset(): return TensorDataset(*tensors())
def pairs(): return (x[:30], y[:30]), (x[30:], y[30:])
def datasets(): return TensorDataset(*(t[:30] for t in tensors())), TensorDataset(*(t[30:] for t in tensors()))

class Faces(Dataset):
    classes = ["sad", "happy"]
    def __init__(self, n=40): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return x[i], int(y[i])

class Augmented(Faces):
    def __getitem__(self, i): return x[i] + np.random.rand(), y[i]

class Broken(Faces):
    def __getitem__(self, i): return x[i], 1 // (i - 17)

class Uneven(Faces):
    def __getitem__(self, i): return x[i][:, : 4 - (i == 3)], y[i]

class Single(Faces):
    def __getitem__(self, i): return x[i]

class Stream(IterableDataset):
    def __iter__(self): return iter(zip(x, y))

def drawn():
    noise = random.random() + np.random.rand() + torch.rand(()).item()
    return x + np.float32(noise), y

def raises(): raise KeyError("no such file")
def leaves(): raise SystemExit(3)
def text(): return "hello"
def nothing(): return None
def three(): return x, y, y
def short(): return x[:39], y
def scalar(): return x, 3
def empty(): return x[:0], y[:0]
def one(): return x, y * 0
def texts(): return x.astype(str), y
def objects(): return np.array([None] * 40), y
def halves(): return x.astype(np.float16), y > 0
def dates(): return np.zeros((40, 2), "datetime64[s]"), y
def complexes(): return x.astype(complex), y
def not_a_number():
    bad = x.copy(); bad[3, 0, 1, 2] = np.nan; return bad, y
def infinite(): return x, np.where(y == 1, np.inf, 0.0)
def missing(): return x, np.array(["a", None] * 20, object)
def one_hot(): return x, np.eye(2, dtype=int)[y]
def other_shapes(): return (x, y), (x[:, :, :2], y)
def rooted(root, n=3): return x, y + (root == "") + n
value = 3
"""


@pytest.fixture
def module(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own, of a name that no other test imported."""
    name = f"my_data_{random.SystemRandom().randrange(10**9)}"
    write(MODULE, f"{name}.py")
    return name


def custom(module: str, function: str, **knobs: Any) -> Dataset:
    return load("custom", **{"_target_": f"{module}.{function}"} | knobs)


@pytest.mark.parametrize("form", ["tensors", "series", "column", "tensor_dataset", "Faces"])
def test_one_set_of_examples_in_every_form(form: str, module: str) -> None:
    expected = custom(module, "arrays")
    ours = custom(module, form)
    assert (ours.shape, ours.hash) == ((1, 4, 4), expected.hash)
    assert ours.class_names == (("sad", "happy") if form == "Faces" else ("0", "1"))
    assert custom(module, "lists").x.allclose(expected.x)  # in 64 bits


def test_train_and_test_in_every_form(module: str) -> None:
    pairs, datasets = custom(module, "pairs"), custom(module, "datasets")
    assert (len(pairs.x), len(pairs.test_x), pairs.hash) == (30, 10, datasets.hash)


def test_arguments_reach_the_function_and_root_is_filled_in(module: str) -> None:
    assert len(custom(module, "Faces", n=20).x) == 16
    assert custom(module, "rooted", n=5).class_names == ("5", "6")
    assert refused("custom", _target_=f"{module}.Faces", m=3) == "data.m: Faces has no such argument; choose from n"


def test_half_precision_and_truth_values_are_widened(module: str) -> None:
    ours = custom(module, "halves", normalisation="none")
    np.testing.assert_allclose(ours.x, custom(module, "arrays", normalisation="none").x, rtol=1e-3, atol=1e-7)
    assert ours.class_names == ("False", "True")


def test_what_is_drawn_is_the_same_every_time_and_moves_no_other_stream(module: str) -> None:
    hashes = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        hashes.append(custom(module, "drawn").hash)
        found = random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        assert found == (random.random(), np.random.rand(), torch.rand(()).item())  # noqa: NPY002
    assert hashes[0] == hashes[1]


GIVES = "expected (x, y) or ((x, y), (x_test, y_test)), or one or two torch.utils.data.Dataset"


LINES = {line.split("(")[0].split(":")[0]: i for i, line in enumerate(MODULE.splitlines(), 1)}


CUSTOM = {
    "raises": "data: M.raises() fails: KeyError: 'no such file' (FILE, line {def raises})",
    "leaves": "data: M.leaves() fails: SystemExit: 3 (FILE, line {def leaves})",
    "text": f"data._target_: M.text gives str; {GIVES}",
    "nothing": f"data._target_: M.nothing gives NoneType; {GIVES}",
    "three": f"data._target_: M.three gives tuple of 3; {GIVES}",
    "short": "data._target_: M.short: 39 examples and 40 targets, expected one target an example",
    "scalar": "data._target_: M.scalar: 40 examples and one target, 3, expected one target an example",
    "empty": "data._target_: M.empty: the inputs have shape (0, 1, 4, 4), expected (examples, ...), none of them 0",
    "one": "data._target_: M.one: every example is of class 0; expected two classes or more",
    "texts": "data._target_: M.texts: the inputs are texts, expected numbers",
    "objects": "data._target_: M.objects: the inputs are Python objects, NoneType the first, expected numbers",
    "dates": "data._target_: M.dates: the inputs are dates, expected numbers",
    "complexes": "data._target_: M.complexes: the inputs are complex, expected numbers",
    "not_a_number": "data: 1 values of the inputs of M.not_a_number are not finite, the first at (3, 0, 1, 2); "
    "expected finite numbers; repair or drop these examples",
    "infinite": "data: 20 values of the targets of M.infinite are not finite, the first at (1, 0); expected finite "
    "numbers; repair or drop these examples",
    "missing": "data._target_: M.missing: 20 targets are missing, the first is number 1",
    "one_hot": "data._target_: M.one_hot: the targets have shape (40, 2), expected one class an example, (examples,); "
    "for values, say data.task=regression",
    "other_shapes": "data._target_: M.other_shapes: examples and test examples have shapes (1, 4, 4) and (1, 2, 4), "
    "expected one",
    "Augmented": "data._target_: Augmented of M.Augmented: two readings of its first example differ; each example is "
    "read once, so augmentation has no effect; leave out what is random in it",
    "Broken": "data: example 17 of Broken of M.Broken fails: ZeroDivisionError: integer division or modulo by zero "
    "(FILE, line {class Broken})",
    "Uneven": "data._target_: example 3 of Uneven of M.Uneven is (1, 3, 4) float32 with target (), expected (1, 4, 4) "
    "float32 with target (), as the first",
    "Single": "data._target_: example 0 of Single of M.Single is ndarray, expected a pair (x, y)",
    "Stream": f"data._target_: Stream of M.Stream is an IterableDataset, whose examples have no numbers; {GIVES}",
    "value": "data._target_: M.value is a value, int; expected a function of your own that returns (x, y), or a "
    "torch.utils.data.Dataset class, e.g. my_data.load",
}


@pytest.mark.parametrize("function", CUSTOM)
def test_each_mistake_in_a_function_of_ones_own_in_words(function: str, module: str, here: Path) -> None:
    expected = CUSTOM[function].replace("M.", f"{module}.").replace("FILE", str(here / f"{module}.py"))
    for key, line in LINES.items():
        expected = expected.replace(f"{{{key}}}", str(line + key.startswith("class")))
    assert refused("custom", _target_=f"{module}.{function}") == expected
