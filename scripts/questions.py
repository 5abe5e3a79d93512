"""Write the answers and pictures of docs/questions/, and README's answer, by running their commands: some minutes.

    python -m scripts.questions
    python -m scripts.questions --only README

A `bash` block ends with `python -m trainer.evaluate`, and the `text` block after it holds what that prints, without the
tables of runs and of effects. `![...](../NAME.FIGURE.png)` is FIGURE of `--figures outputs/NAME/figures`. What is below
outputs/questions/ is read, not trained again.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "questions"
LANGUAGES = ("en", "zh")
BLOCKS = re.compile(r"^```bash\n(.*?)^```$(.*?)^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = ROOT / "README.md"
SWEEP = re.compile(r"^python -m trainer -m (?:.*\\\n)*.* hydra\.sweep\.dir=outputs/dropout$", re.MULTILINE)
ANSWER = re.compile(
    r"^```bash\n(python -m trainer\.evaluate outputs/dropout .*\n)```\n\n```text\n(.*?)^```$", re.M | re.S
)
PICTURE = re.compile(r"!\[[^]]*\]\(\.\./(([\w-]+)\.([\w.=-]+)\.png)\)")
COLOURS = 128  # of a picture: lines keep theirs, and a file is below 60 KB
LONGEST = 1400  # pixels of its longer side
WIDTH = 118  # of a line of text
HIDDEN = re.compile("run |measure ")  # how the tables begin that stay out
ADVICE = r"next[: ]|warning: "  # how a paragraph begins that follows the answer
MORE = "what |gap |test loss |test accuracy |best validation loss |recorded |- "  # and one that follows the tables


def pages(language: str) -> list[Path]:
    """The pages of a language, sorted by name."""
    return sorted((PAGES / language).glob("*.md"))


def commands(page: str) -> list[list[str]]:
    """The command lines of each `bash` block that has an answer."""
    return [_lines(block) for block, _, _ in BLOCKS.findall(page)]


def _lines(block: str) -> list[str]:
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def pictures(page: str) -> list[tuple[str, Path]]:
    """Each picture's file name, and the figure of a sweep, below the folder where commands run, that it is."""
    return [(file, Path("outputs", name, "figures", f"{figure}.png")) for file, name, figure in PICTURE.findall(page)]


def run(lines: list[str], folder: Path) -> str:
    """What the last of these command lines prints, all called in this folder. Raises CalledProcessError."""
    printed, environment = "", {**os.environ, "PYTHONPATH": str(ROOT)}
    for line in lines:
        python, *arguments = shlex.split(line)
        if python != "python":
            raise ValueError(f"{line}: a line begins with python -m")
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        printed = done.stdout
    return printed


def answer(printed: str) -> str:
    """What `evaluate` printed, without the tables of runs and of effects, in lines of at most WIDTH characters."""
    first, *blocks = printed.strip("\n").split("\n\n")
    kept = [block.strip("\n") for block in blocks]
    return "\n\n".join([_wrapped(first, ADVICE), *(_shown(block) for block in kept if not HIDDEN.match(block))]) + "\n"


def _shown(block: str) -> str:
    """A table as it is; sentences wrapped again."""
    if "  " in block.partition("\n")[0]:
        return "\n".join(line.rstrip() for line in block.splitlines())
    return _wrapped(block, MORE)


def _wrapped(text: str, begins: str) -> str:
    """The paragraphs of a text in lines of at most WIDTH characters; a command stays whole, to be copied."""
    paragraphs = re.sub(rf"\s*\n(?!{begins})", " ", text.strip("\n")).splitlines()
    fill = textwrap.TextWrapper(WIDTH, break_on_hyphens=False).fill
    return "\n".join(line.rstrip() if re.match("next[: ]", line) else fill(line) for line in paragraphs)


def written(page: str, answers: dict[tuple[str, ...], str]) -> str:
    """The page's text with the answers to its commands."""

    def block(found: re.Match[str]) -> str:
        lines, between, _ = found.groups()
        return f"```bash\n{lines}```{between}```text\n{answers[tuple(_lines(lines))]}```"

    return BLOCKS.sub(block, page)


def readme(text: str, folder: Path) -> str:
    """README's text with the answer to its sweep, without any table."""
    (sweep,), (found,) = SWEEP.findall(text), ANSWER.finditer(text)
    first = answer(run(_lines(f"{sweep}\n{found[1]}"), folder)).partition("\n\n")[0]
    return text[: found.start(2)] + first + "\n" + text[found.end(2) :]


def small(picture: Path) -> bytes:
    """A figure in few colours."""
    out = io.BytesIO()
    with Image.open(picture) as image:
        image.thumbnail((LONGEST, LONGEST))
        few = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m scripts.questions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="NAME", help="README, or the pages whose names contain it")
    only = parser.parse_args().only
    folder = ROOT / "outputs" / "questions"
    folder.mkdir(parents=True, exist_ok=True)
    if only in "README":
        README.write_text(readme(README.read_text(encoding="utf-8"), folder), encoding="utf-8")
    for page in pages("en"):
        if only not in page.stem:
            continue
        text = page.read_text(encoding="utf-8")
        answers = {tuple(lines): answer(run(lines, folder)) for lines in commands(text)}
        for language in LANGUAGES:
            path = PAGES / language / page.name
            path.write_text(written(path.read_text(encoding="utf-8"), answers), encoding="utf-8")
        for file, figure in pictures(text):
            (PAGES / file).write_bytes(small(folder / figure))
        print(page.stem, flush=True)


if __name__ == "__main__":
    main()
