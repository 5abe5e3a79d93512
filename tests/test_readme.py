"""What README.md says is so: its commands run, its code works, its table is up to date, its links lead somewhere."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from trainer import evaluate
from trainer.cli import app
from trainer.trace.__main__ import main as trace

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def call(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """A command line of README in this process."""
    module, *arguments = shlex.split(line)[2:]
    if module == "trainer.evaluate":
        return evaluate.main(arguments)
    if module == "trainer.trace":
        return trace(arguments)
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["trainer", *arguments])
    return app.run(arguments)


def test_every_command_and_every_block_of_python(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, checkpoint = blocks("python")
    (here / "my_models.py").write_text(model)
    lines = [
        line for block in blocks("bash") for line in re.split("\n| && ", block) if line.startswith("python -m trainer")
    ]
    assert len(lines) > 8
    for line in lines:
        assert call(line, monkeypatch) == 0, line
    (here / "load.py").write_text(checkpoint)
    runpy.run_path("load.py")
    sys.modules.pop("my_models", None)


def test_the_message_shown(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = [block for block in blocks("text") if block.startswith("$ ") and "nothing was run" in block]
    command, _, message = shown.partition("\n")
    assert call(command.removeprefix("$ "), monkeypatch) == 2
    assert capsys.readouterr().err == message


def test_the_table_of_knobs_is_up_to_date() -> None:
    """If not: python scripts/knobs.py"""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import knobs
    finally:
        sys.path.pop(0)
    assert knobs.with_table(README) == README


def test_links_and_pictures_are_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_published_result_has_its_file() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import reproduce
    finally:
        sys.path.pop(0)
    files = {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")}
    used = {
        override.partition("=")[2]
        for row in reproduce.rows()
        for override in row.overrides
        if "experiment=" in override
    }
    assert used == files
    assert len({row.name for row in reproduce.rows()}) == len(reproduce.rows())
