"""Writing files so that none is ever half-written, and JSON that is strict even where a number is not finite."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any


def write(path: Path, content: bytes | str) -> None:
    """Replace a file as a whole: write beside it, then rename. Raises OSError, and leaves the old file, on failure."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def to_json(value: Any) -> str:
    """Strict JSON; a number that is not finite becomes "nan", "inf" or "-inf" (Python's float() reads them back)."""
    return json.dumps(_strict(value), indent=1, allow_nan=False)


def digest(value: Any) -> str:
    """A short hash of a plain value: equal hashes, equal values."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
