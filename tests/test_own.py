"""docs/own.md: each of its commands runs as written, and prints what stands below it."""

import re
import shlex
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own.md"
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Title -> text of each section of the page."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def run(call: str, folder: Path) -> str:
    """What a command or a script prints; it must succeed."""
    words = shlex.split(call)
    assert words[0] == "python"
    done = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def matches(printed: str, shown: str) -> bool:
    """Whether the lines shown are those printed; `...` in a line stands for any text, alone for any lines."""
    pattern = "\n".join("*" if line == "..." else _escaped(line.rstrip()) for line in shown.strip().splitlines())
    return fnmatchcase("\n".join(line.rstrip() for line in printed.strip().splitlines()), pattern)


def _escaped(line: str) -> str:
    return "*".join(re.sub(r"([*?[])", r"[\1]", part) for part in line.split("..."))


@pytest.mark.slow
@pytest.mark.parametrize("title", sections())
def test_each_section_as_written(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "100")
    found = 0
    for kind, file, text in BLOCK.findall(sections()[title]):
        if file:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if kind == "console":
            for example in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                call, _, shown = example.partition("\n")
                printed = run(call, tmp_path)
                assert matches(printed, shown), f"{call}\n{printed}"
                found += 1
    assert found
