"""Write the output blocks and the picture of docs/trace/ by running the commands they show.

    python -m scripts.docs

A block holds commands, `$ python -m trainer.trace ...`, and what they print; a block of Python that begins with
`# name.py` is that file, for the commands after it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import math
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

from trainer.trace.__main__ import main

PAGES = Path(__file__).parents[1] / "docs" / "trace"
PICTURE = PAGES / "graph.svg"
PROMPT = "$ python -m trainer.trace"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROUNDING = 1e-7  # below it a number is rounding, which is another on another machine


def pages() -> list[Path]:
    """Every page, in both languages."""
    return sorted(PAGES.glob("*/*.md"))


def written(page: str) -> str:
    """The page's text with every block as its command prints it today."""
    files: tuple[tuple[str, str], ...] = ()

    def block(found: re.Match[str]) -> str:
        nonlocal files
        language, text = found.groups()
        if language == "python":
            if name := re.match(r"# (\w+\.py)\n", text):
                files = (*files, (name.group(1), text))
            return found.group()
        commands = [line for line in text.splitlines() if line.startswith("$ ")]
        return "```console\n" + "\n".join(f"{command}\n{output(command, files)}" for command in commands) + "```"

    return BLOCK.sub(block, page)


@functools.cache
def output(command: str, files: tuple[tuple[str, str], ...] = ()) -> str:
    """What a command prints, in a folder with these files and nothing else."""
    if not command.startswith(PROMPT):
        raise ValueError(f"{command}: a block begins with {PROMPT}")
    said = io.StringIO()
    here, path = Path.cwd(), list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files:
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            os.chdir(folder)
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                main(shlex.split(command.removeprefix(PROMPT)))
        finally:
            os.chdir(here)
            sys.path[:] = path
            for name, _ in files:
                sys.modules.pop(name.removesuffix(".py"), None)
    return said.getvalue()


def picture() -> str:
    """The graph of the default network, as SVG."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        target = Path(folder) / "graph.svg"
        main(["--part", "3", "--svg", str(target)])
        return target.read_text(encoding="utf-8")


def agree(one: str, other: str) -> bool:
    """Whether two texts are the same but for rounding."""
    ours, theirs = _words(one), _words(other)
    return len(ours) == len(theirs) and all(map(_same, ours, theirs))


def _words(text: str) -> list[str]:
    return re.split(r"[\s(),]+", text)


def _same(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-3, abs_tol=ROUNDING)
    except ValueError:
        return one == other


if __name__ == "__main__":
    argparse.ArgumentParser(
        "python -m scripts.docs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for path in pages():
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path.relative_to(PAGES))
    PICTURE.write_text(picture(), encoding="utf-8")
