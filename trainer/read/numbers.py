"""Numbers in cells and in JSON, as programs, people and spreadsheets write them. Pure."""

import re
from typing import Any

import numpy as np


def number(value: Any) -> float | None:
    """Return the number in a cell or in JSON, where "nan" and "inf" are text; None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


_ODD = {"1.#inf": np.inf, "-1.#inf": -np.inf, "1.#qnan": np.nan, "-1.#ind": np.nan, "1.#ind": np.nan, "∞": np.inf}


def cell_number(cell: str) -> float | None:
    """Return the number in a cell as people and spreadsheets write it: `0,25`, `1,234.5`, ` 95 % `, `1.#INF`."""
    try:
        return float(cell)
    except ValueError:
        text = cell.strip(" '\"\u00a0[]()").lower()
    if "," in text:
        text = text.replace(",", "") if "." in text else text.replace(",", ".")
    if text.endswith("%"):
        value = number(text[:-1])
        return None if value is None else value / 100
    return _ODD.get(text, number(text))


def setting(text: str) -> Any:
    """Return what a word says as a setting: a number, true, false, or the word."""
    value = number(text)
    if value is None:
        return {"true": True, "false": False}.get(text.lower(), text)
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else value
