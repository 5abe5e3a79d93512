"""A CSV or Parquet file as arrays: numbers as they are, texts one input for each of their values.

Statistics (means for empty cells, values of texts) are of the non-test examples alone.
"""

import codecs
import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from trainer import config as cfg
from trainer.config import ConfigError, nearest
from trainer.core.data.dataset import Raw
from trainer.core.data.own_arrays import Targets, as_targets, held_out, nowhere

MOST_VALUES = 100  # of a column of texts
FEW = 20  # different whole numbers that a target of classes has at most
SEPARATORS = ",;\t|"
SHOWN = 5  # columns in one message
NUMBER = r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*"
DECIMAL_COMMA = r"\s*[-+]?\d+,\d+\s*"


def read(data: cfg.Table) -> Raw:
    """Read a table. Raises ConfigError where it, a column or a cell is not as expected."""
    frame = _columns(data, _frame(data))
    target = frame.pop(data.target)
    frame, target = _complete(data, frame, target)
    _check_numbers(data, frame, target)
    targets = _targets(data, target)
    rest, test = held_out(data, targets.values)
    inputs = [column for name in list(frame) for column in _inputs(data, str(name), frame.pop(name), rest)]
    x, test_x = (np.empty((len(rows), len(inputs)), np.float32) for rows in (rest, test))
    for i in range(len(inputs)):
        column, inputs[i] = inputs[i], None  # what is copied is freed
        x[:, i], test_x[:, i] = column[rest], column[test]
    return Raw(x, targets.values[rest], test_x, targets.values[test], targets.class_names)


# ------------------------------------------------------------------ the file


def _frame(data: cfg.Table) -> pandas.DataFrame:
    """Read the whole file. Raises ConfigError."""
    path = Path(data.path).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else nowhere(path)
        raise ConfigError([f"data.path: {data.path} {what}; expected a CSV or Parquet file"])
    try:
        if path.suffix in (".parquet", ".pq"):
            frame = pandas.read_parquet(path).reset_index(drop=True)
            _check_names(data, [str(name) for name in frame.columns])
            return frame
        encoding = _encoding(path)
        names, separator = _header(data, path, encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # rows longer than the header
            return pandas.read_csv(
                path,
                sep=separator,
                encoding=encoding,
                decimal="," if data.decimal == "comma" else ".",
                index_col=False,
                skipinitialspace=True,
                low_memory=False,  # else a column may be numbers in one part, texts in another
                names=names,
                header=0,
            )
    except UnicodeError as error:
        raise ConfigError([f"data.path: {data.path} is not text in UTF-8 ({error}); save it as UTF-8"]) from error
    except ImportError as error:
        raise ConfigError([f"data.path: pandas reads {data.path} with pyarrow; pip install pyarrow"]) from error
    except ConfigError:
        raise
    except (OSError, ValueError, pandas.errors.ParserWarning) as error:
        why = " ".join(str(error).split())
        raise ConfigError([f"data.path: cannot read {data.path} ({why}); expected a table"]) from error


def _encoding(path: Path) -> str:
    """UTF-8, with or without a mark in front; UTF-16 with its mark."""
    with open(path, "rb") as file:
        start = file.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _header(data: cfg.Table, path: Path, encoding: str) -> tuple[list[str], str]:
    """Return the columns' names, and what separates them. Raises ConfigError where the first line has none."""
    with open(path, encoding=encoding, newline="") as file:
        start = file.readline()
        while start and not start.strip():
            start = file.readline()
    if "\0" in start:
        raise ConfigError([f"data.path: {data.path} is no text; expected a CSV file in UTF-8, or .parquet"])
    if not start:
        raise ConfigError([f"data.path: {data.path} is empty; expected a line with the names of the columns"])
    found = {one: next(csv.reader([start], delimiter=one, skipinitialspace=True)) for one in SEPARATORS}
    separator = max(found, key=lambda one: len(found[one]))
    names = [name.strip() for name in found[separator]]
    if all(_is_number(name) for name in names):
        raise ConfigError(
            [f"data.path: the first line of {data.path} has numbers, expected the names of the columns; add a line"]
        )
    _check_names(data, names)
    return names, separator


def _check_names(data: cfg.Table, names: Sequence[str]) -> None:
    problems = []
    for name in dict.fromkeys(names):
        places = [str(i + 1) for i, other in enumerate(names) if other == name]
        if len(places) > 1:
            called = f"called {name}" if name else "without a name"
            problems.append(f"data.path: {data.path}: columns {', '.join(places)} are {called}; give each its own name")
    if problems:
        raise ConfigError(problems)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------ columns and rows


def _columns(data: cfg.Table, frame: pandas.DataFrame) -> pandas.DataFrame:
    """Leave out what is to be ignored, and a first column without a name that counts the rows. Raises ConfigError."""
    frame.columns = [str(name) for name in frame.columns]
    names = list(frame.columns)
    wanted = {"data.target": [data.target], "data.ignore": data.ignore}
    problems = [
        f"{key}: {data.path} has no column {name}; {nearest(name, names)}"
        for key, those in wanted.items()
        for name in those
        if name not in names
    ]
    if data.target in data.ignore:
        problems.append(f"data.ignore: {data.target} is the column to predict; leave it out here")
    if problems:
        raise ConfigError(problems)
    if names[0] == "" and _is_numeric(frame[""]) and (frame[""].diff().iloc[1:] == 1).all():
        frame = frame.drop(columns="")
    frame = frame.drop(columns=list(data.ignore))
    if len(frame) == 0 or len(frame.columns) == 1:
        what = "no rows" if len(frame) == 0 else f"no column but {data.target}"
        raise ConfigError([f"data.path: {data.path} has {what}; expected examples with inputs"])
    return frame


def _complete(
    data: cfg.Table, frame: pandas.DataFrame, target: pandas.Series
) -> tuple[pandas.DataFrame, pandas.Series]:
    """Refuse empty cells, or drop their rows; in inputs they may stay to be filled. Raises ConfigError."""
    gaps = {str(name): gap for name, column in [(target.name, target), *frame.items()] if (gap := column.isna()).any()}
    if not gaps:
        return frame, target
    if data.missing == "drop":
        whole = ~np.logical_or.reduce([gap.to_numpy() for gap in gaps.values()])
        if not whole.any():
            raise ConfigError([f"data.path: {data.path}: data.missing=drop leaves no row; try data.missing=mean"])
        frame, target = frame.loc[whole], target.loc[whole]
        if data.target in gaps and pandas.api.types.is_float_dtype(target) and (target % 1 == 0).all():
            target = target.astype("int64")  # they were floats for the sake of the gaps
        return frame, target
    tries = "data.missing=mean or data.missing=drop"
    if data.target in gaps:  # which no mean may fill
        gaps, tries = {data.target: gaps[data.target]}, "data.missing=drop"
    if data.missing == "refuse" or data.target in gaps:
        shown = [f"{int(gap.sum())} in {name}, the first in row {int(gap.argmax()) + 1}" for name, gap in gaps.items()]
        more = f"; {len(shown) - SHOWN} more columns" if len(shown) > SHOWN else ""
        said = f"(rows counted below the header): {'; '.join(shown[:SHOWN])}{more}"
        raise ConfigError([f"data.path: {data.path} has empty cells {said}; try {tries}"])
    return frame, target


def _check_numbers(data: cfg.Table, frame: pandas.DataFrame, target: pandas.Series) -> None:
    """Refuse texts that were meant to be numbers, texts of too many values, and what is neither. Raises ConfigError."""
    problems, long = [], []
    for name, column in [(target.name, target), *frame.items()]:
        if _is_numeric(column):
            continue
        where = f"data.path: {data.path}: column {name}"
        texts = column.dropna()
        kind = _kind(column)
        count = 0 if kind else int(texts.nunique())
        if kind:
            problems.append(f"{where} holds {kind}, expected numbers or texts; try 'data.ignore=[{name}]'")
        elif count and texts.head(1000).astype(str).str.fullmatch(DECIMAL_COMMA).all():
            problems.append(f"{where} holds numbers with a comma, such as {texts.iloc[0]}; try data.decimal=comma")
        elif count > MOST_VALUES:
            if odd := _odd_one_out(texts):
                problems.append(f"{where}: {odd}; repair it")
            elif name != target.name:
                long.append(name)
                problems.append(f"{where}: {count} different texts, expected at most {MOST_VALUES}")
    if long:
        problems[-1] += f"; try 'data.ignore=[{','.join([*data.ignore, *long])}]'"
    if problems:
        raise ConfigError(problems)


def _is_numeric(column: pandas.Series) -> bool:
    return pandas.api.types.is_numeric_dtype(column) and not pandas.api.types.is_complex_dtype(column)


def _kind(column: pandas.Series) -> str:
    """What a column holds that is neither numbers nor texts; nothing where it is texts, or true and false with gaps."""
    if isinstance(column.dtype, pandas.CategoricalDtype):
        return ""
    kind = pandas.api.types.infer_dtype(column, skipna=True)
    return "" if kind in ("string", "boolean", "empty") else kind


def _odd_one_out(texts: pandas.Series) -> str:
    """The first cell that is no number where nine tenths are."""
    is_odd = ~texts.astype(str).str.fullmatch(NUMBER)
    if is_odd.mean() > 0.1:
        return ""
    place = int(is_odd.argmax())
    return f"{texts.iloc[place]!r} in row {int(texts.index[place]) + 1} is no number, as nearly all others are"


def _targets(data: cfg.Table, target: pandas.Series) -> Targets:
    """The column to predict, as classes or values. Raises ConfigError."""
    where = f"data.target: column {data.target} of {data.path}"
    y = target.to_numpy() if _is_numeric(target) else target.astype(str).to_numpy(dtype=object)
    if y.dtype.kind == "O" and _is_numeric(target):  # whole numbers that know gaps
        y = target.astype("float64" if target.dtype.kind == "f" else "int64").to_numpy()
    task = data.task
    if task is None and y.dtype.kind in "iu" and len(np.unique(y)) > FEW:
        task = "regression"
    return as_targets(data, where, y, task=task)


def _inputs(data: cfg.Table, name: str, column: pandas.Series, rest: np.ndarray) -> list[Any]:
    """A column of the table as inputs (N,): itself, or one for each value that texts have in the rows `rest`.

    An empty cell is the mean of its column, or none of its values; so is a value that only test examples have.
    Raises ConfigError.
    """
    if _is_numeric(column) or pandas.api.types.infer_dtype(column, skipna=True) == "boolean":
        values = column.to_numpy(np.float32, na_value=np.nan, copy=True)
        gaps = np.isnan(values)
        if not np.isfinite(values[~gaps]).all():
            row = int(np.argmax(np.isinf(values)))
            place = f"column {name}, row {column.index[row] + 1}"
            raise ConfigError([f"data.path: {data.path}: {place} holds {column.iloc[row]}, expected a finite number"])
        if gaps.any():
            known = values[rest][~gaps[rest]]
            if not len(known):
                said = f"every cell of column {name} is empty"
                raise ConfigError([f"data.path: {data.path}: {said}; try 'data.ignore=[{name}]'"])
            values[gaps] = known.mean(dtype=np.float64)
        return [values]
    codes = pandas.Categorical(column).codes  # in the order of the texts; -1: an empty cell
    return [codes == value for value in np.unique(codes[rest]) if value >= 0]
