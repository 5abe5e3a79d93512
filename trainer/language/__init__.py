"""What people read, in their language: English, or Chinese by TRAINER_LANG, else by the locale.

Everything is written in English first, and stays so in files. The tables beside this module give the Chinese of each
text; where a text has places, {0} and {1}, what stands there is translated in turn, but for {0!s}: a name or value of
the user's. What no table has stays as it is.
"""

import functools
import json
import os
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import TextIO

from trainer.text import printable

TABLES = {path.stem: path for path in sorted((Path(__file__).parent / "zh").glob("*.json"))}
CONJUNCTIONS = "conjunctions"  # binds words together; where no other table has a text, it would leave a mixture
_CLAUSES = re.compile(r"; (?![^()]*\))")  # what semicolons join, outside of brackets
_PLACE = re.compile(r"\{\d\}")


def is_chinese() -> bool:
    """Whether the reader wants Chinese: by TRAINER_LANG, else by the locale."""
    named = (os.environ.get(name) for name in ("TRAINER_LANG", "LC_ALL", "LC_MESSAGES", "LANG"))
    return next((name for name in named if name), "").lower().startswith("zh")


def translated(text: str) -> str:
    """Write a text in the reader's language."""
    return in_chinese(text) if is_chinese() else text


def print_line(line: str, file: TextIO | None = None) -> None:
    """Print a line in the reader's language, at once."""
    print(printable(translated(line)), file=file, flush=True)


def localised(parser: ArgumentParser) -> ArgumentParser:
    """Write the help of a command in the reader's language."""
    parser.description, parser.epilog = translated(parser.description or ""), translated(parser.epilog or "")
    for group in parser._action_groups:
        group.title = translated(group.title or "")
        for action in group._group_actions:
            action.help = translated(action.help or "")
    return parser


@functools.cache
def table(name: str) -> dict[str, str]:
    """Return a table: English -> Chinese."""
    return json.loads(TABLES[name].read_text(encoding="utf-8"))


@functools.cache
def _all() -> tuple[dict[str, str], list[tuple[re.Pattern[str], str, bool]]]:
    """Return all texts, and as patterns those with places: what begins as they do first, then the most literal."""
    texts = {english: chinese for name in TABLES for english, chinese in table(name).items()}
    placed = [one for one in texts if _PLACE.search(one)]
    placed.sort(key=lambda one: (one.startswith("{"), -len(_PLACE.sub("", one))))
    return texts, [(_pattern(english), texts[english], english in table(CONJUNCTIONS)) for english in placed]


class _Place(str):
    """What stands in a place: written {0} in Chinese, as far as the tables have it; {0!s} as it is."""

    def __format__(self, _: str) -> str:
        return in_chinese(str(self), inside=True)


def _pattern(english: str) -> re.Pattern[str]:
    return re.compile("(.+?)".join(map(re.escape, _PLACE.split(english))), re.DOTALL)


def in_chinese(text: str, inside: bool = False) -> str:
    """Write a text in Chinese, as far as the tables have it. inside: it stands in a place of another."""
    texts, patterns = _all()
    spelled = (text, text[:1].lower() + text[1:])  # a sentence may begin with what stands inside of another one
    if found := texts.get(spelled[0]) or texts.get(spelled[1]):
        return found
    if text.endswith(".") and (found := in_chinese(text[:-1], inside)) != text[:-1]:
        return f"{found}。"
    clauses = _CLAUSES.split(text)
    if len(clauses) > 1:
        found = [in_chinese(clause, inside) for clause in clauses]
        return text if found == clauses else "；".join(found)
    for pattern, chinese, binds in patterns:
        match = pattern.fullmatch(spelled[0]) or pattern.fullmatch(spelled[1])
        if match and (inside or not binds):
            return chinese.format(*map(_Place, match.groups()))
    return text
