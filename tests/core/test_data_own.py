"""Data of the user's own, from every source; oracles are scikit-learn and torchvision."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.core.datasets import load, refused, write

RNG = np.random.default_rng(0)
WINE = pd.DataFrame(
    {
        "acid": RNG.normal(3, 1, 60).round(3),
        "colour": RNG.choice(["red", "white", "rosé"], 60),
        "old": RNG.random(60) < 0.5,
        "kind": np.repeat(["dry", "sweet", "other"], 20),
    }
)


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
