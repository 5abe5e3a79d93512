"""README.md, CONTRIBUTING.md and docs/*.md: commands run, code works, options are current, links lead somewhere.

On every page, a `bash` block holds commands; a `python` block that begins with `# name.py` is that file, there before
the commands run, and any other `python` block is run after them.
"""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import get_args

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from scripts import docs, options, questions, reproduce
from tests.helpers import Cli
from trainer import evaluate
from trainer.cli import app
from trainer.judge import health
from trainer.judge.overfit import Label
from trainer.trace.__main__ import main as trace
from trainer.versus.__main__ import main as versus

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CHINESE = ROOT / "docs/zh/README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ZSH_EXPANDS = re.compile(r"[][()*?{}<>]")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The command lines of a page that call this package."""
    lines = re.split(r"(?<!\\)\n| && ", "\n".join(blocks(page, "bash")))
    return [line.replace("\\\n", " ").strip() for line in lines if line.startswith("python -m trainer")]


def files(page: Path) -> dict[str, str]:
    found = {re.match(r"# (\w+\.py)\n", text): text for text in blocks(page, "python")}
    return {name.group(1): text for name, text in found.items() if name}


def with_commands(pages: list[Path]) -> list[Path]:
    """Those whose commands can be run here: a cluster's are run by tests/engine/test_clusters.py."""
    return [page for page in pages if commands(page) and page.stem != "cluster"]


def call(line: str) -> int:
    """A command line in this process."""
    module, *arguments = shlex.split(line, comments=True)[2:]
    if module == "trainer.evaluate":
        return evaluate.main(arguments)
    if module == "trainer.trace":
        return trace(arguments)
    if module == "trainer.versus":
        return versus(arguments)
    return app.run(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_commands(PAGES), ids=lambda page: page.stem)
def test_every_command_and_every_block_of_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in files(page).items():
        Path(name).write_text(text, encoding="utf-8")
    for line in commands(page):
        assert call(line) == 0, line
    for text in blocks(page, "python"):
        if text not in files(page).values():
            Path("block.py").write_text(text, encoding="utf-8")
            runpy.run_path("block.py")
    for name in files(page):
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_pages_that_have_commands() -> None:
    names = [page.stem for page in with_commands(PAGES)]
    assert {"README", "files", "health", "resume", "sweeps"} <= set(names)
    assert len(commands(README)) > 8


def test_readme_stays_short_and_its_two_commands_as_they_are() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") < 200
    assert "pip install -e . && python -m trainer optimizer=adam\npip install -e '.[dev]' && pytest\n" in text


@pytest.mark.parametrize(
    "page", [*PAGES, *docs.pages(), *questions.pages("en")], ids=lambda page: f"{page.parent.name}/{page.stem}"
)
def test_commands_can_be_pasted_into_zsh(page: Path) -> None:
    """It expands brackets, parentheses and braces outside quotes."""
    text = page.read_text(encoding="utf-8")
    shown = [line.removeprefix("$ ").strip() for line in text.splitlines() if re.match(r"(\$ | {4})?python -m ", line)]
    shown += re.findall(r"`(python -m [^`]+)`", text)
    for line in shown:
        placeholders_apart = re.sub(r"<(date|time|number)>|\[\.\.\.\]", "", line.partition(" #")[0])
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", placeholders_apart)
        assert not ZSH_EXPANDS.search(unquoted), line


def test_the_message_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (shown,) = [block for block in blocks(README, "text") if block.startswith("$ ") and "nothing was run" in block]
    command, _, message = shown.partition("\n")
    assert call(command.removeprefix("$ ")) == 2
    assert capsys.readouterr().err == message


def without_numbers(text: str) -> str:
    return re.sub(r"-?\d[\d.]*(e-\d+)?", "#", " ".join(text.split()))


@pytest.mark.slow
def test_the_answer_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README shows what its sweep says: the same claims and advice; numbers may differ on another machine."""
    monkeypatch.chdir(tmp_path)
    (sweep,) = [line for line in commands(README) if "hydra.sweep.dir=outputs/dropout" in line]
    (ask,) = [line for line in commands(README) if line.startswith("python -m trainer.evaluate outputs/dropout ")]
    (shown,) = [without_numbers(block) for block in blocks(README, "text") if block.startswith("Best validation loss")]
    assert call(sweep) == call(ask) == 0
    found = json.loads(Path("outputs/evaluation.json").read_text(encoding="utf-8"))
    claimed = {(one["knob"], one["measure"]): one for one in found["effects"] if one["claimed"]}
    for claim in (claimed[of]["sentence"] for of in (("model.dropout", "best_val_loss"), ("model.batchnorm", "gap"))):
        assert without_numbers(claim).partition(" (")[0].lower() in shown.lower()
    overfit = [run["config"]["model.dropout"] for run in found["runs"] if run["verdict"] == "overfit"]
    assert (overfit.count(0.0) >= 8, overfit.count(0.5)) == (True, 0)
    use = " ".join(f"{knob}={value}" for knob, value in found["recommendation"]["knobs"].items())
    assert f"Lowest mean best validation loss: {without_numbers(use)}, " in shown
    assert found["recommendation"]["knobs"] == {"model.batchnorm": "false", "model.dropout": 0.5}


def test_the_options_page_is_current() -> None:
    """If not: python -m scripts.options"""
    assert options.PAGE.read_text(encoding="utf-8") == options.page()


@pytest.mark.parametrize(
    "page", [*PAGES[:2], *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: f"{page.parent.name}/{page.stem}"
)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, section = target.partition("#")
        if path.startswith("http"):
            continue
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if section:
            assert section in sections(linked), target


def test_the_readme_in_chinese_has_the_same_commands_code_and_sections() -> None:
    for language in ("bash", "python"):
        assert blocks(CHINESE, language) == blocks(README, language)
    marks = re.compile(r"^#+|^- \*\*", re.MULTILINE)  # headings and promises
    assert marks.findall(CHINESE.read_text(encoding="utf-8")) == marks.findall(README.read_text(encoding="utf-8"))
    text = CHINESE.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(get_args(Label))


def sections(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_finding_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/health.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == set(health.ADVICE)


def test_every_file_key_and_tag_of_a_run_is_described(cli: Cli) -> None:
    assert cli("epochs=5 data.train_size=64 clip_norm=1 model.batchnorm=true hydra.run.dir=run")[0] == 0
    described = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    (events,) = Path("run").glob("events.out.tfevents.*")
    loaded = EventFileLoader(str(events)).Load()
    values = [value for event in loaded for value in event.summary.value]
    scalars = {value.tag for value in values if value.metadata.plugin_data.plugin_name == "scalars"}
    metrics, summary = Path("run/metrics.csv"), json.loads(Path("run/summary.json").read_text(encoding="utf-8"))
    tags = {*metrics.read_text(encoding="utf-8").splitlines()[0].split(","), *scalars}
    assert {"train/loss", "eval/train_loss", "grad_norm/clipped_total", "test/last_accuracy"} <= tags
    for tag in tags:
        tag = tag.removeprefix("watch/")
        kind = tag.partition("/")[0]
        assert f"`{tag}`" in described or re.search(rf"`{kind}/<(parameter|module)>`", described), tag
    for key in (*summary, *summary["provenance"], *summary["cost"]):
        assert f'"{key}": ' in described, key
    for path in (*Path("run").iterdir(), *Path("run/checkpoints").iterdir(), *Path("run/.hydra").iterdir()):
        assert path == events or path.name in described, path
    evidence = (ROOT / "docs/overfitting.md").read_text(encoding="utf-8")
    for key in summary["verdict"]["evidence"]:
        assert f"`{key}`" in evidence, key


def recipe_steps() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes")[2]
    return re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("step", recipe_steps(), ids=lambda step: step[:40])
def test_a_recipe_names_files_and_things_that_exist(step: str) -> None:
    """Paths, and the constants, functions and tests to be found in them."""
    quoted = re.findall(r"`([^`]+)`", step)
    paths = [ROOT / name for name in quoted if re.fullmatch(r"\w+/[\w/]+\.(py|yaml)", name) and "NAME" not in name]
    paths = paths or [ROOT / "trainer/judge/health.py"]  # "in the same file"
    content = "".join(path.read_text(encoding="utf-8") for path in paths)
    for name in quoted:
        if re.fullmatch(r"[A-Z]\w{4,}|[A-Z_]{5,}|test_\w+|by_hand|architecture|_generated|_fault|load", name):
            assert name in content, name


def test_the_house_names_files_that_exist() -> None:
    house = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The house")[2].partition("## ")[0]
    for line in re.findall(r"^- (`\w+/`: .*(?:\n  .*)*)", house, re.MULTILINE):
        folder, *names = re.findall(r"`([\w/]+(?:\.py)?)`", line)
        assert names
        for name in names:
            assert (ROOT / "trainer" / folder / name).exists(), f"{folder}{name}"


def test_every_page_of_the_manual_is_linked_from_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"({page.relative_to(ROOT).as_posix()}" in text, page


def test_every_published_result_has_its_file() -> None:
    stems = {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")}
    used = {
        override.partition("=")[2]
        for row in reproduce.rows()
        for override in row.overrides
        if "experiment=" in override
    }
    assert used == stems - {"linear_regression"}  # which nobody published
    assert len({row.name for row in reproduce.rows()}) == len(reproduce.rows())
