"""Text from elsewhere: made fit to be shown, as file names, tags, error messages may hold anything; and overrides."""

from __future__ import annotations

import platform
import shlex
import unicodedata
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

# Cc: control characters, C1 and a terminal's escape among them. Cf: those that reorder text (bidi) or show nothing.
# Cs: halves of characters, which is how Python reads a file name that is no UTF-8. Zl, Zp: Unicode's line ends.
_UNFIT = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""Write what a terminal would obey, and what nobody would see, as Python writes it: \x1b, \u202e, \n.

    The result is one line, and prints in any encoding that has its visible characters.
    """
    if text.isprintable():  # all of it: nearly every text
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _UNFIT else one for one in text)


def key_of(override: str) -> str:
    """Return the key that an override sets, adds (+) or takes away (~)."""
    return override.lstrip("+~").partition("=")[0]


def plural(count: int, word: str) -> str:
    """Return '1 run', '2 runs'."""
    return f"{count} {word}{'s' * (count != 1)}"


def cut(text: str, most: int) -> str:
    """Shorten a text to so many characters, the last of which then says so."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def few(names: Iterable[object], most: int = 3, of: str = "") -> str:
    """List the first names and count the others: a, b, c and 4 more; of: what they are."""
    texts = list(map(str, names))
    left = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {left} more{of}" if left > 0 else "")


def merged(lines: Iterable[str]) -> list[str]:
    """Say once what several lines say of one thing each, a: broken, b: broken: a, b and 4 more: broken."""
    subjects: dict[str, list[str]] = {}
    for line in lines:
        subject, colon, said = line.partition(": ")
        subjects.setdefault(said if colon else line, []).extend([subject] * bool(colon))
    return [f"{few(of)}: {said}" if of else said for said, of in subjects.items()]


def shown(path: Path, here: Path | None = None) -> str:
    """Write a path as it can be copied into a shell: quoted, and relative to the current folder if it lies below it.

    here: another folder in the place of the current one.
    """
    path, here = path.absolute(), here or Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def version() -> str:
    """Say which versions run: trainer's, and those of what it stands on."""
    found = {}
    for name in ("trainer", "torch", "hydra-core"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "(not installed)"
    ours, torch, hydra = found.values()
    return f"trainer {ours} (PyTorch {torch}, Hydra {hydra}, Python {platform.python_version()})"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
