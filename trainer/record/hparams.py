"""A run's row in TensorBoard's HParams table. A column holds one type: TensorBoard cannot sort one that mixes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config import Config
from trainer.config.identity import NO_RESULT

_NOT_SHOWN = NO_RESULT | {"device", "threads", "step", "deterministic", "metrics"}
_NOT_SHOWN |= {"record.every", "record.pictures", "record.keep"}
_OFTEN_LISTS = {"model.width", "model.channels"}  # text in every sweep: several may lie below one --logdir
_USUAL = {"data.name", "model.depth", "model.width", "model.dropout", "model.batchnorm", "optimizer.name"}
_USUAL |= {"optimizer.lr", "seed"}
Cell = str | float | bool


@dataclass(frozen=True)
class Row:
    """One run of the table. `columns` and `first` are those of its whole sweep."""

    name: str  # where it is empty TensorBoard takes the run's folder
    cells: Mapping[str, Cell]  # without what is null: TensorBoard sorts a missing value to the end
    columns: Mapping[str, type]  # key -> str, float or bool
    first: Collection[str]  # the columns to show first: what differs, of a single run what people vary


def rows(configs: Sequence[Config], names: Sequence[str]) -> list[Row]:
    """Return the rows of a sweep's runs, which have these names."""
    flats = [{key: value for key, value in config.flat().items() if key not in _NOT_SHOWN} for config in configs]
    found = {key: [flat.get(key) for flat in flats] for key in dict.fromkeys(key for flat in flats for key in flat)}
    kinds = {key: _kind(key, values) for key, values in found.items()}
    columns = {key: kind for key, kind in kinds.items() if kind is not None}
    first = {key for key in columns if len({str(value) for value in found[key]}) > 1} if len(configs) > 1 else _USUAL
    return [
        Row(name, {k: _cell(flat[k], kind) for k, kind in columns.items() if flat.get(k) is not None}, columns, first)
        for name, flat in zip(names, flats, strict=True)
    ]


def alone(config: Config) -> Row:
    """Return the row of a run on its own, which TensorBoard names by its folder."""
    return rows([config], [""])[0]


def _kind(key: str, values: Sequence[Any]) -> type | None:
    """Return what a column holds; None where all of it is null."""
    there = [value for value in values if value is not None]
    if not there or key in _OFTEN_LISTS:
        return str if there else None
    flags = [isinstance(value, bool) for value in there]
    if all(flags):
        return bool
    return float if not any(flags) and all(isinstance(value, int | float) for value in there) else str


def _cell(value: Any, kind: type) -> Cell:
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(float(value))  # as TensorBoard itself writes a number among texts
    return value if kind is not str else str(value)
