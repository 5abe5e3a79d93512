"""Data of the user's own, from every source; oracles are scikit-learn and torchvision."""

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.helpers import make_config
from trainer.config import ConfigError
from trainer.core import data
from trainer.core.data import Dataset

RNG = np.random.default_rng(0)
WINE = pd.DataFrame(
    {
        "acid": RNG.normal(3, 1, 60).round(3),
        "colour": RNG.choice(["red", "white", "rosé"], 60),
        "old": RNG.random(60) < 0.5,
        "kind": np.repeat(["dry", "sweet", "other"], 20),
    }
)


def load(source: str, dtype: torch.dtype = torch.float64, **knobs: Any) -> Dataset:
    return data.load(make_config(f"data={source}", **{f"data.{k}": v for k, v in knobs.items()}).data, dtype=dtype)


def refused(source: str, **knobs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, **knobs)
    return str(caught.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where modules are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(text: str, path: str = "my.csv", encoding: str = "utf-8") -> str:
    Path(path).write_text(text, encoding=encoding)
    return path


# ------------------------------------------------------------------ tables


def test_columns_are_scikit_learns_fitted_on_the_other_rows_than_the_test_split(here: Path) -> None:
    """Means, deviations and values of texts; a text that only test rows have is none of its values."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(1)
    n = 300
    frame = pd.DataFrame({"row": np.arange(n), "a": rng.normal(5, 2, n), "text": rng.choice(["b", "a", "c"], n)})
    frame["y"] = rng.integers(0, 3, n)
    plain = {"target": "y", "normalisation": "none", "path": "my.csv"}
    frame.to_csv("my.csv", index=False)
    test = load("csv", **plain).test_x[:, 0].long().numpy()
    frame.loc[test[:5], "text"] = "rare"
    frame.loc[[*test[5:15], *np.setdiff1d(np.arange(50), test)], "a"] = np.nan
    frame.to_csv("my.csv", index=False)
    ours = load("csv", **plain | {"normalisation": "standard", "missing": "mean"})
    rest = np.setdiff1d(np.arange(n), test)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_pipeline(OneHotEncoder(handle_unknown="ignore", sparse_output=False), StandardScaler())
    theirs = make_column_transformer((numbers, ["row", "a"]), (texts, ["text"])).fit(frame.iloc[rest])
    for got, rows in ((ours.x, rest), (ours.test_x, test)):
        np.testing.assert_allclose(got.numpy(), theirs.transform(frame.iloc[rows]), rtol=0, atol=1e-5)  # of float32
    assert ours.y.tolist() == frame["y"][rest].tolist()


@pytest.mark.parametrize("fraction", [None, 0.1, 0.34])
def test_the_test_split_is_stratified_and_everybodys(here: Path, fraction: float | None) -> None:
    WINE.to_csv("my.csv", index=False)
    ours = load("csv", path="my.csv", target="kind", test_fraction=fraction)
    n_test = round(60 * (fraction or 0.2) + 0.49)
    assert len(ours.test_x) == n_test
    assert (torch.bincount(ours.test_y, minlength=3) - n_test / 3).abs().max() <= 1
    assert ours.hash == load("csv", path="my.csv", target="kind", test_fraction=fraction, batch_size=3).hash
    assert ours.class_names == ("dry", "other", "sweet")


def test_train_on_everything(here: Path) -> None:
    WINE.to_csv("my.csv", index=False)
    ours = load("csv", path="my.csv", target="kind", test_fraction=0)
    assert (len(ours.x), ours.test_x.shape, ours.test_y.shape) == (60, (0, 5), (0,))


FORMS: dict[str, tuple[Callable[[], object], dict[str, Any]]] = {
    "utf-8 with a mark": (lambda: WINE.to_csv("my.csv", index=False, encoding="utf-8-sig"), {}),
    "utf-16": (lambda: WINE.to_csv("my.csv", index=False, encoding="utf-16"), {}),
    "tabs": (lambda: WINE.to_csv("my.csv", index=False, sep="\t"), {}),
    "an index": (lambda: WINE.to_csv("my.csv"), {}),
    "decimal commas": (lambda: WINE.to_csv("my.csv", index=False, sep=";", decimal=","), {"decimal": "comma"}),
    "parquet": (lambda: WINE.to_parquet("my.parquet"), {"path": "my.parquet"}),
    "another column": (lambda: WINE.assign(id=range(60)).to_csv("my.csv", index=False), {"ignore": ["id"]}),
    "dropped rows": (
        lambda: pd.concat([WINE, WINE.head(1).assign(acid=None)]).to_csv("my.csv", index=False),
        {"missing": "drop"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_the_same_in_every_form(form: str, here: Path) -> None:
    WINE.to_csv("plain.csv", index=False)
    make, knobs = FORMS[form]
    make()
    ours = load("csv", **{"path": "my.csv", "target": "kind"} | knobs)
    assert ours.hash == load("csv", path="plain.csv", target="kind").hash


@pytest.mark.parametrize(
    ("column", "knobs", "classes"),
    [
        (["yes", "no", "no"] * 20, {}, ("no", "yes")),
        ([True, False, False] * 20, {}, ("False", "True")),
        ([3, 7, 7] * 20, {}, ("3", "7")),
        ([*range(20)] * 3, {}, tuple(map(str, range(20)))),
        ([*range(21), *range(21)], {}, None),
        ([*range(21), *range(21)], {"task": "classification"}, tuple(map(str, range(21)))),
        ([0.5, 1.0, 1.5] * 20, {}, None),
        ([0.5, 1.0, 1.5] * 20, {"task": "classification"}, ("0.5", "1", "1.5")),
        ([3, 7, 7] * 20, {"task": "regression"}, None),
        ([3, 7, 7, None] * 20, {"missing": "drop"}, ("3", "7")),
    ],
)
def test_classes_or_values(
    column: list[Any], knobs: dict[str, Any], classes: tuple[str, ...] | None, here: Path
) -> None:
    pd.DataFrame({"a": np.arange(len(column)), "y": column}).to_csv("my.csv", index=False)
    ours = load("csv", path="my.csv", target="y", test_fraction=0, **knobs)
    known = [value for value in column if value is not None]
    if classes is None:
        assert (ours.classes, ours.y.shape) == (None, (len(known), 1))
        assert ours.y[:, 0].tolist() == known
    else:
        assert (ours.class_names, ours.classes) == (classes, len(classes))
        names = [f"{value:g}" if isinstance(value, float) else str(value) for value in known]
        assert [classes[k] for k in ours.y.tolist()] == names


ROWS = "".join(f"{i},{i % 2}\n" for i in range(40))
TABLES = {  # text of a file -> how it is refused
    "a,a,y,y\n1,2,3,4\n": "data.path: my.csv: columns 1, 2 are called a; give each its own name\n"
    "data.path: my.csv: columns 3, 4 are called y; give each its own name",
    "": "data.path: my.csv is empty; expected a line with the names of the columns",
    "a,y\n": "data.path: my.csv has no rows; expected examples with inputs",
    "y\n1\n2\n": "data.path: my.csv has no column but y; expected examples with inputs",
    "1,2\n3,4\n": "data.path: the first line of my.csv has numbers, expected the names of the columns; add a line",
    "a,b\n1,2\n": "data.target: my.csv has no column y; choose from a, b",
    "a,y\n1,u\n2,v\n": "data.target: column y of my.csv: 2 different targets in 2 examples, expected at most 1000 "
    "classes, each several times",
    "a,y\n1,0\n2,0\n": "data.target: column y of my.csv: every example is of class 0; expected two classes or more",
    "a,y\n1,0.5\n2,0.5\n": "data.target: column y of my.csv: every target is 0.5; there is nothing to learn",
    "a,y\n1,0\n2,\n": "data.path: my.csv has empty cells (rows counted below the header): 1 in y, the first in row 2; "
    "try data.missing=drop",
    "a,b,y\n1,2,0\n,,1\n": "data.path: my.csv has empty cells (rows counted below the header): 1 in a, the first in "
    "row 2; 1 in b, the first in row 2; try data.missing=mean or data.missing=drop",
    "a,y\n1,0\ninf,1\n2,0\n": "data.path: my.csv: column a, row 2 holds inf, expected a finite number",
    'a,y\n"1,5",0\n"2,5",1\n': "data.path: my.csv: column a holds numbers with a comma, such as 1,5; try "
    "data.decimal=comma",
    "a,y\n"
    + "".join(f"t{i},{i % 2}\n" for i in range(101)): "data.path: my.csv: column a: 101 different texts, expected "
    "at most 100; try 'data.ignore=[a]'",
    "a,y\n"
    + "".join(f"{i if i != 7 else '?'},{i % 2}\n" for i in range(120)): "data.path: my.csv: column a: '?' in row "
    "8 is no number, as nearly all others are; repair it",
    "a,y\n1,0\n": "data.target: column y of my.csv: every example is of class 0; expected two classes or more",
}


@pytest.mark.parametrize("text", TABLES)
def test_each_fault_of_a_table_in_words(text: str, here: Path) -> None:
    write(text)
    assert refused("csv", path="my.csv", target="y") == TABLES[text]


def test_rows_of_other_lengths_bytes_and_files_that_are_not_there(here: Path) -> None:
    write("a,y\n1,0\n2,1,5\n")
    assert refused("csv", path="my.csv", target="y").startswith("data.path: cannot read my.csv (")
    write("a,y\n1,2,0\n2,3,1\n")  # pandas would leave out the last
    assert refused("csv", path="my.csv", target="y").startswith("data.path: cannot read my.csv (")
    Path("my.csv").write_bytes(b"a,y\n\xe9,1\n\xe8,0\n")
    assert refused("csv", path="my.csv", target="y").startswith("data.path: my.csv is not text in UTF-8 (")
    Path("my.csv").write_bytes("a,y\n1,1\n".encode("utf-16-le"))  # without a mark
    assert refused("csv", path="my.csv", target="y") == (
        "data.path: my.csv is no text; expected a CSV file in UTF-8, or .parquet"
    )
    assert refused("csv", path=".", target="y") == "data.path: . is a folder; expected a CSV or Parquet file"
    assert refused("csv", path="no.csv", target="y") == (
        f"data.path: no.csv is nowhere in {here}; expected a CSV or Parquet file"
    )


def test_dates_are_no_inputs(here: Path) -> None:
    WINE.assign(day=pd.Timestamp("2020-01-01")).to_parquet("my.parquet")
    assert refused("csv", path="my.parquet", target="kind") == (
        "data.path: my.parquet: column day holds datetime64, expected numbers or texts; try 'data.ignore=[day]'"
    )


def test_a_constant_column_is_nought(here: Path) -> None:
    WINE.assign(same=7.1).to_csv("my.csv", index=False)
    ours = load("csv", path="my.csv", target="kind")
    assert (ours.x == 0).all(0).tolist() == [False] * 5 + [True]


def test_columns_that_pandas_hands_out_for_reading_only(here: Path) -> None:
    """In float32 nothing is converted; the gap is filled all the same. A column without a name stays one of texts."""
    frame = pd.DataFrame({"": ["u", "v"] * 10, "a": np.arange(20, dtype=np.float32), "y": [0, 1] * 10})
    frame.loc[3, "a"] = np.nan
    frame.to_parquet("my.parquet")
    ours = load("csv", path="my.parquet", target="y", missing="mean", test_fraction=0, normalisation="none")
    assert ours.x[3].tolist() == [0.0, 1.0, pytest.approx((190 - 3) / 19)]


def test_three_rows(here: Path) -> None:
    write("a,y\n1,0\n2,1\n3,1\n")
    ours = load("csv", path="my.csv", target="y")
    assert (len(ours.x), len(ours.test_x)) == (2, 1)


def test_a_table_of_texts_takes_memory_for_its_numbers_only(here: Path) -> None:
    """Texts of 50 values are 50 inputs of 4 bytes, read twice at most beside the table itself (16 bytes a cell)."""
    n = 50_000
    values = [f"value {k}" for k in range(50)]
    write("a,b,y\n" + "".join(f"{values[i % 50]},{i},{i % 2}\n" for i in range(n)))
    tracemalloc.start()
    ours = load("csv", path="my.csv", target="y", dtype=torch.float32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ours.in_features == 51
    assert peak < n * (51 * 8 + 10 * 16)


# ------------------------------------------------------------------ arrays


def blobs(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    y = np.arange(n) % 2
    return rng.normal(size=(n, 3)).astype(np.float32) + y[:, None], y


def test_npz(here: Path) -> None:
    x, y = blobs()
    np.savez("my.npz", x=x, y=y, other=x)
    np.savez("two.npz", x=x[:50], y=y[:50], x_test=x[50:], y_test=y[50:])
    one, two = (load("npz", path=path, normalisation="none") for path in ("my.npz", "two.npz"))
    assert (len(one.x), len(one.test_x)) == (48, 12)
    np.testing.assert_array_equal(two.test_x.numpy(), x[50:])
    np.testing.assert_array_equal(two.y.numpy(), y[:50])
    assert refused("npz", path="two.npz", test_fraction=0.5) == (
        "data.test_fraction: found 0.5, but a test split of 10 examples comes with two.npz; try data.test_fraction=null"
    )
    np.savez("texts.npz", x=x, y=np.array(["b", "a"])[y])
    assert load("npz", path="texts.npz").class_names == ("a", "b")


class Harm:
    def __reduce__(self) -> Any:
        return Path("harm").touch, ()


def test_nothing_in_a_file_is_unpickled(here: Path) -> None:
    np.savez("my.npz", x=np.array([Harm()], object), y=np.zeros(1))
    assert refused("npz", path="my.npz") == (
        "data.path: my.npz holds Python objects; reading them could run code; save arrays of numbers or texts instead"
    )
    assert not Path("harm").exists()


def test_files_that_hold_something_else(here: Path) -> None:
    hint = "numpy.savez(FILE, x=x, y=y) writes such a file"
    write("text", "my.npz")
    assert (
        refused("npz", path="my.npz")
        == f"data.path: my.npz cannot be read as an .npz file (it is of another kind); {hint}"
    )
    np.savez("my.npz", a=np.zeros(3), x_test=np.zeros(3))
    assert refused("npz", path="my.npz") == f"data.path: my.npz holds a, x_test; expected x, x_test, y, y_test; {hint}"
    assert refused("npz", path="no.npz") == f"data.path: no.npz is nowhere in {here}; {hint}"


def test_scikit_learns_sets() -> None:
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        theirs = getattr(datasets, f"load_{name}")()
        ours = load("sklearn", dataset=name, normalisation="none", test_fraction=0)
        np.testing.assert_array_equal(ours.x.numpy(), theirs.data)
        np.testing.assert_array_equal(ours.y.numpy().ravel(), theirs.target)
        assert ours.class_names == (() if name == "diabetes" else tuple(theirs.target_names))
    assert load("sklearn", dataset="digits").shape == (1, 8, 8)


# ------------------------------------------------------------------ functions and Datasets

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


# ------------------------------------------------------------------ pictures


def write_pictures(folder: Path, n: int = 12, side: int = 6, mode: str = "RGB") -> None:
    rng = np.random.default_rng(n)
    for i in range(n):
        place = folder / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        shape = (side, side, 3) if mode == "RGB" else (side, side)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(place / f"{i:02}.png")


@pytest.mark.parametrize("size", [None, 4])
def test_pictures_are_torchvisions(size: int | None, here: Path) -> None:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    write_pictures(here / "pets")
    steps = [transforms.Resize((size, size))] if size else []
    theirs = ImageFolder("pets", transforms.Compose([*steps, transforms.PILToTensor()]))
    ours = load("folder", path="pets", size=size, normalisation="none", test_fraction=0)
    assert ours.shape == (3, size or 6, size or 6)
    for i, (x, y) in enumerate(theirs):  # type: ignore[misc, arg-type]
        np.testing.assert_array_equal(ours.x[i].numpy(), x.double().flatten().numpy())
        assert ours.y[i] == y
    assert ours.class_names == ("cat", "dog")


def test_grey_pictures_have_one_channel_and_folders_train_and_test_are_splits(here: Path) -> None:
    write_pictures(here / "pets/train", 10, mode="L")
    write_pictures(here / "pets/test", 4, mode="L")
    ours = load("folder", path="pets")
    assert (ours.shape, len(ours.x), len(ours.test_x)) == ((1, 6, 6), 10, 4)
    write_pictures(here / "pets/val", 4, mode="L")
    assert refused("folder", path="pets") == (
        "data.path: pets has folders test, train, val, expected train and test, or a folder for each class; validation "
        "examples are drawn from train, see data.val_fraction"
    )


def test_broken_pictures_are_named_all_at_once(here: Path) -> None:
    write_pictures(here / "pets")
    Path("pets/cat/01.png").write_bytes(b"no picture")
    whole = Path("pets/dog/02.png").read_bytes()
    Path("pets/dog/02.png").write_bytes(whole[: len(whole) // 2])
    first, second = refused("folder", path="pets").splitlines()
    assert first == (
        "data.path: pets/cat/01.png cannot be read (UnidentifiedImageError: cannot identify image file); repair or "
        "remove it"
    )
    assert second.startswith("data.path: pets/dog/02.png cannot be read (")
    Path("pets/cat/01.png").unlink()
    write_pictures(here / "others", 2, side=9)
    Path("others/cat/01.png").rename("pets/cat/big.png")
    Path("pets/dog/02.png").unlink()
    assert refused("folder", path="pets") == (
        "data.size: the pictures of pets are of 2 sizes, 6 x 6 (pets/cat/03.png) and 9 x 9 (pets/cat/big.png); try "
        "data.size=32"
    )


def test_folders_without_pictures(here: Path) -> None:
    hint = "expected a folder with one of pictures for each class"
    assert refused("folder", path="pets") == f"data.path: pets is nowhere in {here}; {hint}"
    Path("pets/cat").mkdir(parents=True)
    said = refused("folder", path="pets")
    assert said.startswith("data.path: pets: Found no valid file for the classes cat.")
    assert said.endswith(hint)


# ------------------------------------------------------------------ torchvision's sets


def write_idx(folder: Path, name: str, n: int) -> np.ndarray:
    pixels = np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8)
    labels = (np.arange(n) % 26 + 1).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + pixels.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
    return pixels


def test_emnists_letters(tmp_path: Path) -> None:
    """Its labels begin with 1, and its list of names with one that no example has."""
    folder = tmp_path / "EMNIST" / "raw"
    train = write_idx(folder, "emnist-letters-train", 104)
    write_idx(folder, "emnist-letters-test", 52)
    ours = load("torchvision", dataset="EMNIST", split="letters", root=str(tmp_path), normalisation="none")
    assert (ours.classes, ours.class_names[0], ours.class_names[-1], len(ours.test_x)) == (26, "a", "z", 52)
    np.testing.assert_array_equal(ours.x.numpy(), train.reshape(104, -1))
    assert ours.y[:3].tolist() == [0, 1, 2]


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    import scipy.io
    import torchvision

    rng = np.random.default_rng(0)
    listed = {}
    for split, n in (("train", 30), ("test", 10)):
        x = rng.integers(0, 256, (32, 32, 3, n), np.uint8)
        file = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(file, {"X": x, "y": (np.arange(n) % 10 + 1)[:, None]})
        listed[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    ours = load("torchvision", dataset="SVHN", root=str(tmp_path), normalisation="none")
    assert (ours.shape, len(ours.x), len(ours.test_x), ours.classes) == ((3, 32, 32), 30, 10, 10)
    np.testing.assert_array_equal(ours.test_x[9].numpy().reshape(3, 32, 32), x[..., 9].transpose(2, 0, 1))
    assert ours.test_y[8:].tolist() == [9, 0]  # a 10 in the file is a nought


def test_a_set_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def offline(self: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets.SVHN, "download", offline)
    assert refused("torchvision", dataset="SVHN", root=str(tmp_path / "away")) == (
        f"data.root: no SVHN in {tmp_path / 'away'}, and it cannot be downloaded (no network); put its files into "
        f"{tmp_path / 'away'}, or say where they are: data.root=DIR or TRAINER_DATA_ROOT=DIR"
    )
    assert not (tmp_path / "away").exists()


def test_a_preset_is_the_set_of_its_class(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    for name, n in (("train", 30), ("t10k", 10)):
        write_idx(folder, name, n)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, n) + bytes(i % 10 for i in range(n))
        )
    preset, named = load("mnist", root=str(tmp_path)), load("torchvision", dataset="MNIST", root=str(tmp_path))
    assert preset.class_names == named.class_names == tuple("0123456789")
    for one, other in ((preset.x, named.x), (preset.y, named.y), (preset.test_x, named.test_x)):
        assert torch.equal(one, other)
