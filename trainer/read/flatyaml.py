"""Read a run's config.yaml as a flat dict with dotted keys: {"optimizer.lr": 0.1}.

A sweep has a thousand configs that differ in a few lines, and PyYAML takes milliseconds for each. So the plain subset
that Hydra writes (nested `key: scalar`) is read by lines, each different line once; all else is left to PyYAML.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_LINE = re.compile(r"( *)([A-Za-z_][\w.-]*):(?: (\S.*))?")


def read_flat(path: Path) -> dict[str, Any]:
    """The file's leaves; empty where there is no such file, or nothing that can be read safely."""
    try:
        text = path.read_text(encoding="utf-8")
        plain = _read_plain(text)
        flat = _flatten(yaml.load(text, yaml.CSafeLoader)) if plain is None else plain
        return {key: str(value) if _endless(value) else value for key, value in flat.items()}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _endless(value: Any) -> bool:
    """Whether it is an integer that no float can hold: no setting anyone meant, and arithmetic fails on it."""
    return isinstance(value, int) and value.bit_length() > 1000


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {k: v for key, value in node.items() for k, v in _flatten(value, f"{prefix}.{key}").items()}
    return {prefix[1:]: node} if prefix else {}


def _read_plain(text: str) -> dict[str, Any] | None:
    """The leaves of a file of the plain subset; None for any other."""
    flat: dict[str, Any] = {}
    above: list[str] = []  # keys of the levels that are open
    opened = None  # a key without a value, until the next line says whether it has children
    for line in text.splitlines():
        read = _read_line(line)
        if read is None:
            return None
        depth, key, value, opens = read
        if opened is not None:
            if depth == len(above) + 1:
                above.append(opened)
            else:
                flat[".".join([*above, opened])] = None
        if depth > len(above):
            return None
        del above[depth:]
        opened = key if opens else None
        if not opens:
            flat[".".join([*above, key])] = value
    if opened is not None:
        flat[".".join([*above, opened])] = None
    return flat


@lru_cache(maxsize=1 << 16)
def _read_line(line: str) -> tuple[int, str, Any, bool] | None:
    """(depth, key, value, whether there is no value); None where the line is not of the plain subset."""
    found = _LINE.fullmatch(line)
    if found is None or len(found[1]) % 2 or (found[3] and found[3][0] in "#&*!|>%@`"):
        return None
    if found[3] is None:
        return len(found[1]) // 2, found[2], None, True
    try:
        key, value = next(iter(yaml.load(f"{found[2]}: {found[3]}", yaml.CSafeLoader).items()))
    except (yaml.YAMLError, AttributeError):
        return None
    if (isinstance(value, dict) and value) or not isinstance(key, str):
        return None
    return len(found[1]) // 2, key, value, False
