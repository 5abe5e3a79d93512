"""The page for eyes, keyboards and paper of all kinds: in headless Chromium, where there is one, and with axe-core.

axe-core is looked for in $AXE_CORE (its axe.min.js), then in node_modules/axe-core of the working directory:
npm install axe-core.
"""

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests import fake_runs
from tests.pages import body_rows, browse, browser, page_data
from trainer.evaluate import main

AXE = Path(os.environ.get("AXE_CORE") or "node_modules/axe-core/axe.min.js")
axe_core = pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm install axe-core, or set AXE_CORE")
OPEN = "document.querySelector('tr.run button').click();"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("access")
    fake_runs.sweep(root / "s", seeds=2)
    assert main([str(root / "s"), "--html", str(root / "r.html")]) == 0
    return root / "r.html"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of runs that are all judged alike, and differ in one knob alone."""
    root = tmp_path_factory.mktemp("healthy")
    for depth in (2, 3):
        for seed in range(3):
            train, val = fake_runs.curves(30, 0.0, seed)
            config = {"seed": seed, "model": {"depth": depth}}
            fake_runs.our_run(root / "s" / f"{depth}{seed}", config, train, val + 0.01 * depth)
    assert main([str(root / "s"), "--html", str(root / "r.html")]) == 0
    return root / "r.html"


def inside(path: Path, widths: list[int], script: str) -> list[Any]:
    """Show the page in frames of some widths in pixels, run a script in each; what it puts into `done`."""
    run = f"<script>addEventListener('load', async () => {{ {script} parent.told(done); }})</script>"
    framed = path.with_name("framed.html")
    framed.write_text(path.read_text(encoding="utf-8") + run, encoding="utf-8")
    told = "const all=[]; function told(one) { all.push(one); document.title = JSON.stringify(all); }"
    frames = [f'<iframe style="width:{width}px;height:900px;border:0" src="framed.html"></iframe>' for width in widths]
    shell = path.with_name("frames.html")
    shell.write_text(f"<!doctype html><title>[]</title><script>{told}</script>{''.join(frames)}", encoding="utf-8")
    document, _ = browse(shell, budget_ms=8000)
    found = re.search("<title>(.*?)</title>", document, re.DOTALL)
    assert found is not None
    answers = json.loads(html.unescape(found[1]))
    assert len(answers) == len(widths)
    return answers


@browser
@pytest.mark.slow
def test_no_sideways_scroll_on_a_phone(sweep: Path, healthy: Path) -> None:
    script = OPEN + "const root = document.documentElement;"
    script += "const done = [root.clientWidth, root.scrollWidth, state.open.size];"
    for path in (sweep, healthy):
        for shown, needed, opened in inside(path, [320, 400], script):
            assert opened == 1
            assert 300 <= shown <= 400
            assert needed <= shown


@browser
@pytest.mark.slow
def test_effects_are_named_whole_on_a_phone(sweep: Path) -> None:
    script = "const done = [...document.querySelectorAll('#effects-chart .ink')].map((one) => one.firstChild.data);"
    (names,) = inside(sweep, [320], script)
    assert "batchnorm: false − true" in names


@browser
@axe_core
@pytest.mark.slow
def test_axe_core_finds_nothing_serious(sweep: Path, healthy: Path) -> None:
    script = AXE.read_text(encoding="utf-8").replace("</script", "<\\/script") + ";" + OPEN
    script += """state.theme = innerWidth < 500 ? "dark" : "light"; drawAll();
    const found = await axe.run();
    const done = [found.passes.length, found.violations.filter((one) => ["serious", "critical"].includes(one.impact))
      .map((one) => one.id + ": " + one.nodes.map((node) => node.target).join(", "))];"""
    for path in (sweep, healthy):
        for passed, serious in inside(path, [320, 1200], script):
            assert passed > 10
            assert serious == []


@browser
@pytest.mark.slow
def test_a_runs_button_opens_its_evidence_and_keeps_the_focus(sweep: Path) -> None:
    script = """const before = document.querySelectorAll("tr.details").length;
    const first = document.querySelector("tr.run button");
    first.focus(); first.click();
    const opened = document.querySelector("tr.details"), now = document.activeElement;
    const done = [before, now.getAttribute("aria-expanded"), now.textContent === first.textContent,
      now.getAttribute("aria-controls") === opened.id, opened.querySelector("a").textContent,
      opened.querySelectorAll("svg path.line").length];"""
    (found,) = inside(sweep, [1000], script)
    assert found == [0, "true", True, True, "folder", 4]


@browser
@pytest.mark.slow
def test_where_all_verdicts_agree_the_curves_are_coloured_by_the_knob(sweep: Path, healthy: Path) -> None:
    assert {run["verdict"] for run in page_data(healthy)["runs"]} == {"healthy"}
    chosen = re.compile(r'colour by<select>.*?<option value="([^"]*)" selected', re.DOTALL)
    for path, state, want in (
        (healthy, "", "model.depth"),
        (healthy, "#colour=verdict", "verdict"),
        (sweep, "", "verdict"),
    ):
        document, log = browse(path, state)
        assert "CONSOLE" not in log
        assert [*chosen.findall(document)] == [want]


@browser
def test_a_run_alone_shows_both_curves_with_the_reason(tmp_path: Path) -> None:
    train, val = fake_runs.curves(30, 0.9, 0)
    fake_runs.our_run(tmp_path / "run", {"seed": 0, "data": {"name": "digits"}}, train, val)
    assert main([str(tmp_path / "run"), "--html", str(tmp_path / "r.html")]) == 0
    document, log = browse(tmp_path / "r.html")
    assert "CONSOLE" not in log
    curves = document[document.index('id="curves"') : document.index('id="groups"')]
    (run,) = page_data(tmp_path / "r.html")["runs"]
    assert html.escape(run["sentence"], quote=False) in curves
    assert "training and validation loss of" in curves
    assert '<section id="groups" hidden' in document
    assert body_rows(document) == ["run"]
    assert "<title>Evaluation of " in document
    facts = dict(page_data(tmp_path / "r.html")["facts"])
    assert facts["data"] == "digits"
    assert facts["command"].startswith("python -m trainer.evaluate")


def test_what_holds_up_and_what_to_copy(sweep: Path) -> None:
    (part,) = page_data(sweep)["parts"]
    claimed = [effect for effect in part["effects"] if effect["claimed"]]
    assert claimed
    for effect in claimed:  # on average, or where it depends on another knob at that one's levels
        levels = {simple["sentence"] for simple in effect["simple"] if simple["claimed"]}
        assert {effect["sentence"], *levels} & {*part["claims"]}
    rows = part["copies"]["Markdown"].splitlines()
    assert rows[1].count("---") == rows[0].count("|") - 1
    assert sum(row.startswith("| ") for row in rows) == 2 + len(part["groups"])
    assert part["copies"]["LaTeX"].count(r" \\") == 1 + len(part["groups"])


def test_signs_and_dashes_tell_verdicts_apart_without_colour(sweep: Path) -> None:
    data, text = page_data(sweep), sweep.read_text(encoding="utf-8")
    assert len({data["signs"][verdict] for verdict in data["verdicts"]}) == len(data["verdicts"])
    found = re.search(r"VERDICT_DASH = \{(.*?)\};", text)
    assert found is not None
    dashes = dict(re.findall(r'(\w+): "([^"]*)"', found[1]))
    assert set(dashes) == set(data["verdicts"])
    assert len(set(dashes.values())) == len(dashes)
