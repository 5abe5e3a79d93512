"""The compiled step: `pip install` builds it for several kinds of processor, of which the best is loaded. No torch."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import sysconfig
from ctypes import c_int64, c_void_p
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = ("step.cpp", "layers.h", "product.h", "update.h", "vector.h")
VERSIONS = ("base", "avx2", "avx512")  # by level: `trainer_level` says what the processor has


def source_hash() -> str:
    """Of the C++ files: a library that was built of others is not used."""
    return hashlib.blake2b(b"".join((FOLDER / name).read_bytes() for name in SOURCES), digest_size=8).hexdigest()


@functools.cache
def load() -> ctypes.CDLL | str:
    """Return the library for this processor, or why there is none."""
    base = _open("base")
    if isinstance(base, str):
        return base
    for version in reversed(VERSIONS[1 : base.trainer_level() + 1]):
        better = _open(version)
        if not isinstance(better, str):
            return better
    return base


def _open(version: str) -> ctypes.CDLL | str:
    path = FOLDER / f"{version}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not path.exists():
        return "is not built here"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"cannot be loaded ({error})"
    library.trainer_source.restype = ctypes.c_char_p
    library.trainer_steps.restype = library.trainer_evaluate.restype = None
    library.trainer_steps.argtypes = [c_void_p, c_int64, c_void_p, c_int64, c_int64]
    return library if library.trainer_source().decode() == source_hash() else "was built of other source files"
