"""Write files so that none is ever half-written and damage is recognised; strict JSON.

Checksums are CRC32C: they find every flip of a bit, and every burst of up to 32. A file's length finds what is cut off.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c

_SEAL = ',\n "checksum": "'  # the last entry of a sealed file: of all bytes before it


class Damaged(ValueError):
    """A file does not hold what was written."""


def write(path: Path, *contents: bytes | str) -> None:
    """Replace a file as a whole: write beside it, then rename. Raises OSError, and leaves the old file, on failure.

    A link is replaced as well: what it points to stays as it is.
    """
    beside = path.with_name(path.name + ".part")
    try:
        beside.unlink(missing_ok=True)  # what a killed process left, or a link that would lead elsewhere
        with open(beside, "xb") as file:
            for content in contents:
                file.write(content.encode() if isinstance(content, str) else content)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def inside(folder: Path, name: str) -> Path:
    """Return the path below a folder of a name that stands in a file.

    Raises Damaged where it leads out of the folder, by '..', from the root or by a link.
    """
    path = folder / name
    if ".." in Path(name).parts or not path.resolve().is_relative_to(folder.resolve()):
        raise Damaged(f"{folder}: the name {name!r} leads out of it")
    return path


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Replace a file by a dictionary in strict JSON, whose last entry is a checksum of the bytes before it."""
    body = to_json(value).removesuffix("\n}")
    write(path, f'{body}{_SEAL}{google_crc32c.value(body.encode()):08x}"\n}}')


def read_sealed(path: Path) -> dict[str, Any]:
    """What write_sealed wrote, without the checksum. Raises Damaged where it is not that, OSError as reading does."""
    return unseal(path.read_bytes(), path)


def is_sealed(content: bytes) -> bool:
    """Whether a file's bytes end with a checksum, right or wrong."""
    return _SEAL.encode() in content[-len(_SEAL) - 16 :]


def unseal(content: bytes, path: Path) -> dict[str, Any]:
    """read_sealed, of a file's bytes."""
    body = sealed_json(content, path)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # the checksum is right, so somebody else wrote it
        raise Damaged(f"{path}: is no file of this trainer's") from error


def sealed_json(content: bytes, path: Path) -> bytes:
    """Return a sealed file's JSON, without the checksum. Raises Damaged where that is of other bytes."""
    body, seal, rest = content.rpartition(_SEAL.encode())
    if not seal or rest != b'%08x"\n}' % google_crc32c.value(body):
        raise Damaged(f"{path}: damaged; its checksum is of other bytes")
    return body + b"\n}"


class Growing:
    """A file that only grows: its length and checksum are known without reading it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.crc = 0

    @property
    def state(self) -> dict[str, Any]:
        """What `cut` wants, to take away whatever comes later."""
        return {"name": self.path.name, "size": self.size, "crc32c": self.crc}

    def append(self, content: bytes) -> None:
        """Add to the end. Raises OSError, and takes away what was added of it, on failure."""
        try:
            with open(self.path, "ab", opener=_without_links) as file:
                file.write(content)
        except OSError:
            with suppress(OSError):
                if not self.path.is_symlink():  # of a link nothing was written
                    os.truncate(self.path, self.size) if self.size else self.path.unlink()
            raise
        self.size += len(content)
        self.crc = google_crc32c.extend(self.crc, content)

    @classmethod
    def cut(cls, folder: Path, state: dict[str, Any]) -> Growing:
        """The file in the state it once had. Raises Damaged where its beginning is another, OSError."""
        file = cls(inside(folder, state["name"]))
        if state["size"]:
            check(file.path, state)
            os.truncate(file.path, state["size"])
        else:
            file.path.unlink(missing_ok=True)
        file.size, file.crc = state["size"], state["crc32c"]
        return file


def _without_links(path: str, flags: int) -> int:
    """Open a file itself: raises OSError where it is a link to another."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def state(path: Path) -> dict[str, Any]:
    """Name, size and checksum of a file."""
    content = path.read_bytes()
    return {"name": path.name, "size": len(content), "crc32c": google_crc32c.value(content)}


def check(path: Path, state: dict[str, Any]) -> bytes:
    """The beginning of a file that had a `state`. Raises Damaged where it is cut or changed, or not there."""
    try:
        with open(path, "rb") as file:
            content = file.read(state["size"])
    except FileNotFoundError as error:
        raise Damaged(f"{path}: is missing") from error
    check_bytes(content, path, state)
    return content


def check_bytes(content: bytes, path: Path, state: dict[str, Any]) -> None:
    """Raises Damaged where a file's bytes are not those it had in a `state`."""
    if len(content) != state.get("size"):
        raise Damaged(f"{path}: damaged; it has {len(content)} bytes, of {state.get('size')} that were written")
    if google_crc32c.value(content) != state.get("crc32c"):
        raise Damaged(f"{path}: damaged; its checksum is of other bytes")


def masked_crc(content: bytes) -> int:
    """Return TFRecord's checksum: CRC32C, rotated by 15 bits, plus a constant."""
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def to_json(value: Any) -> str:
    """Write strict JSON, see `strict`."""
    return json.dumps(strict(value), indent=1, allow_nan=False)


def digest(value: Any) -> str:
    """Return a short hash of bytes, or of a plain value: equal hashes, equal values."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def strict(value: Any) -> Any:
    """Make a value fit strict JSON: numbers that are not finite become "nan", "inf" or "-inf", which float() reads."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))  # NumPy's floats say np.float64(nan)
    return value


def folder_problems(target: str | None) -> list[str]:
    """Say why files cannot be put into a folder that a user names, before any work is done; it may yet be made."""
    if target is None:
        return []
    path = Path(target)
    try:
        if not path.is_dir():
            os.stat(path)
            return [f"{path}: is no folder; name one for the files to be put into"]
    except FileNotFoundError:
        if path.is_symlink() or not path.parent.is_dir():
            return [f"{path}: there is no folder {path.parent}; make it first: mkdir -p {path.parent}"]
    except OSError as error:
        return [f"{path}: cannot be written: {error.strerror}"]
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        return [f"{place}: is a folder that may not be written; name another, or allow it: chmod u+w {place}"]
    return []


def target_problems(target: str | None, example: str) -> list[str]:
    """Say why a file that a user names cannot be written, before any work is done; - is the standard output."""
    if target in (None, "-"):
        return []
    path = Path(target)
    folder = Path(os.path.realpath(path)).parent  # of what a link leads to
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
        if not folder.is_dir():
            missing = folder if path.is_symlink() else path.parent
            return [f"{path}: there is no folder {missing}; make it first: mkdir -p {missing}"]
    except OSError as error:
        return [f"{path}: cannot be written: {error.strerror}"]
    if stat.S_ISDIR(mode):
        return [f"{path}: is a folder; give the file's name, such as {path / example}"]
    if not stat.S_ISREG(mode):
        return [f"{path}: is no ordinary file; give the name of one, such as {example}"]
    for place, how in ((path, "a file"), (folder, "a folder")):
        if place.exists() and not os.access(place, os.W_OK):
            return [f"{place}: is {how} that may not be written; name another, or allow it: chmod u+w {place}"]
    return []
