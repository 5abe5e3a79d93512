"""The page: what is inside it, and what a browser makes of it (headless Chromium, where there is one)."""

import html
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from tests import fake_runs
from tests.pages import body_rows, browse, browser, page_data
from trainer.evaluate import evaluate, main
from trainer.read.curves import Curves
from trainer.report.html import page, run_command

EVIL = "<img src=x onerror=document.title='pwned'>\"'&</script><script>document.title='pwned'"


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    fake_runs.sweep(root / "a sweep", seeds=2)
    (root / "a sweep" / "multirun.yaml").write_text("hydra:\n  overrides:\n    task:\n    - optimizer=sgd,adam\n")
    target = root / "reports" / "r.html"
    target.parent.mkdir()
    assert main([str(root / "a sweep"), "--html", str(target)]) == 0
    return target


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of folders, tags, config keys and values, and overrides that would be markup or script."""
    root = tmp_path_factory.mktemp("evil")
    train, val = fake_runs.curves(30, 0.5, 0)
    folder = root / EVIL.replace("/", "∕")  # a folder's name cannot hold the slash
    for seed in (0, 1):
        run = fake_runs.our_run(folder / str(seed), {"seed": seed, "note": EVIL, EVIL: {"x": seed}}, train, val)
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"health": [EVIL], "status": EVIL}))
        (run / ".hydra" / "overrides.yaml").write_text(json.dumps([f"note={EVIL}"]))
    fake_runs.other_run(folder / "other", (f"train_loss{EVIL}", f"val_loss{EVIL}"), train, val)
    target = root / "r.html"
    assert main([str(root), "--html", str(target)]) == 0
    return target


# ------------------------------------------------------------------ without a browser


class Loads(HTMLParser):
    """Everything in a page that would fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]


@pytest.mark.parametrize("which", ["sweep_page", "evil_page"])
def test_one_file_that_loads_nothing(which: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    parser = Loads()
    parser.feed(path.read_text())
    assert parser.found == ["data:,"]  # no icon is asked for
    assert parser.tags.count("script") == 2
    assert "img" not in parser.tags
    assert "url(" not in path.read_text().replace("url(#", "")


def test_what_the_page_knows(sweep_page: Path) -> None:
    data = page_data(sweep_page)
    assert len(data["runs"]) == 36
    (part,) = data["parts"]
    assert len(part["groups"]) == 18
    assert "with model.dropout" in data["answer"]
    assert part["table"]["names"] == ["batchnorm", "dropout", "optimizer"]
    assert part["table"]["numbers"][:4] == ["n", "overfit", "last train acc.", "best val"]
    assert part["classes"]["recall"]["numbers"] == ["n", "class 0", "class 1", "class 2"]
    assert part["classes"]["precision"]["rows"][0][3:6] == ["2", "", "50.0 ± 0.0"]
    assert part["table"]["rows"][0][:5] == ["false", "0", "adam", "2", "2 of 2"]
    assert data["knobs"] == ["model.batchnorm", "model.dropout", "optimizer.name", "seed"]
    assert len(data["gradients"]) == 8
    assert list(data["gradients"][0]["norms"]) == fake_runs.LAYERS  # not the total
    assert data["commands"][0][1].startswith("python -m trainer.evaluate")
    assert data["commands"][1][1] == "python -m trainer -m optimizer=sgd,adam"
    assert "optimizer.name=sgd" in data["runs"][0]["command"]
    assert data["runs"][0]["config"]["optimizer.name"] == "sgd"
    assert data["common"]["epochs"] == 30


def test_links_lead_to_files(sweep_page: Path) -> None:
    for run in page_data(sweep_page)["runs"]:
        assert (sweep_page.parent / unquote(run["link"])).is_dir()
        assert len(run["files"]) == 3
        for _, link in run["files"]:
            assert (sweep_page.parent / unquote(link)).is_file()


def test_commands_survive_the_shell(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    overrides = ["name=it's; rm -rf /", "a=[1,2]", "b=$HOME"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text("".join(f"- {json.dumps(one)}\n" for one in overrides))
    command = run_command(tmp_path)
    assert command is not None
    said = subprocess.run(["sh", "-c", command.replace("python", "printf '%s\n'", 1)], capture_output=True, text=True)
    assert said.stdout.splitlines()[-3:] == overrides
    assert run_command(tmp_path / "none") is None


def test_thinned_curves_are_points_of_the_curve() -> None:
    x = np.arange(5000.0)
    run = Curves("p", "n", "events", x, np.exp(-x / 999), np.sin(x / 500))
    entry = {"verdict": "healthy", "best_epoch": 1.0, "onset": None, "sentence": "", "evidence": {}, "measures": {}}
    entry |= {"path": "p", "name": "n", "unit": "step", "status": None, "notes": [], "config": {}, "health": []}
    none = {"effects": [], "interactions": [], "recommendation": {}, "warnings": [], "problems": [], "groups": []}
    text = page({"paths": ["p"], "runs": [entry], **none}, [run], Path(), "c")
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    grid = np.array(data["grids"][0])
    assert len(grid) == 240
    assert (grid[0], grid[-1]) == (0, 4999)
    np.testing.assert_allclose(data["runs"][0]["val_loss"], np.sin(grid / 500), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ with one
# The page forbids every request (Content-Security-Policy), so that a request would be an error on the console.


@browser
def test_sorted_page_without_errors(sweep_page: Path) -> None:
    document, log = browse(sweep_page, "#sort=-gap&theme=dark&open=35&colour=model.dropout")
    assert "CONSOLE" not in log
    runs = {run["name"]: run["measures"]["gap"] for run in page_data(sweep_page)["runs"]}
    assert body_rows(document) == sorted(runs, key=lambda name: -runs[name])
    assert 'data-theme="dark"' in document
    assert document.count("<svg") > 20
    assert "dropout=0.25" in document
    assert document.count('<tr class="details"') == 1


@browser
def test_the_answer_and_the_table_of_each_sweep(tmp_path: Path) -> None:
    evaluation, runs = evaluate([fake_runs.sweep(tmp_path / "s", seeds=2, events=False)])
    group = {"label": "model.batchnorm=true", "command": "python -m trainer -m model.batchnorm=true"}
    evaluation["groups"] = [one | group for one in evaluation["groups"]]
    (tmp_path / "r.html").write_text(page(fake_runs.two_sweeps(evaluation), runs, tmp_path, "c"))
    document, log = browse(tmp_path / "r.html", "#sweep=second")
    assert "CONSOLE" not in log
    shown = ["Two sweeps.", ">second<", "The second says this.", "python -m trainer -m second", "18 runs", "9 groups"]
    places = [document.index(text) for text in shown]
    assert places == sorted(places)
    assert "The first says this." not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)
    table = document[document.index('id="results-table"') :].split("</table>")[0]
    assert len(re.findall("<tr", table)) == 10
    assert re.search(r"\d ± \d", table)
    assert len(body_rows(document)) == 18
    table = document[document.index('id="classes-table"') :].split("</table>")[0]
    assert len(re.findall("<tr", table)) == 10
    assert table.count("50.0 ± 0.0") == 9
    assert document.count(group["command"]) >= 9


@browser
def test_what_was_recorded_beside_a_difference(tmp_path: Path) -> None:
    """Under the measure that it is told of, and as text."""
    evaluation, runs = evaluate([fake_runs.sweep(tmp_path / "s", seeds=2, events=False)])
    first, *others = evaluation["effects"]
    evaluation["effects"] = [first | {"why": [{"sentence": f"9 times as long {EVIL}"}]}, *others]
    (tmp_path / "r.html").write_text(page(evaluation, runs, tmp_path, "c"))
    document, log = browse(tmp_path / "r.html")
    assert "CONSOLE" not in log
    shown = document[document.index('id="knobs-why"') :].split("</div>")[0]
    assert "evidence, not a cause:" in shown
    assert f"9 times as long {html.escape(EVIL, quote=False)}" in shown


@browser
def test_verdicts_are_counted_as_runs_are_called_and_the_next_command_has_its_reason(tmp_path: Path) -> None:
    evaluation, runs = evaluate([fake_runs.sweep(tmp_path / "s", seeds=2, events=False)])
    healthy = [run["path"] for run in evaluation["runs"] if run["verdict"] == "healthy"]
    doubtful = {"health": [{"finding": "dead_units"}]}
    found = [run | (doubtful if run["path"] == healthy[0] else {"health": []}) for run in evaluation["runs"]]
    evaluation |= {"runs": found, "answer": {"text": "So.", "next": "python -m trainer", "reason": "more seeds"}}
    (tmp_path / "r.html").write_text(page(evaluation, runs, tmp_path, "c"))
    document, log = browse(tmp_path / "r.html")
    assert "CONSOLE" not in log
    assert f" {len(healthy) - 1} healthy, 1 not overfit</button>" in document
    assert re.search(r"<p>So\.</p><p>next \(more seeds\):</p><pre>python -m trainer</pre>", document)


@browser
def test_filter(sweep_page: Path) -> None:
    document, log = browse(sweep_page, "#filter=adamw+batchnorm%3Dtrue&verdict=overfit&sort=name")
    assert "CONSOLE" not in log
    data = page_data(sweep_page)
    wanted = [
        run["name"]
        for run in data["runs"]
        if run["levels"]["optimizer.name"] == "adamw"
        and run["levels"]["model.batchnorm"] == "true"
        and run["verdict"] == "overfit"
    ]
    assert len(wanted) >= 2
    assert body_rows(document) == sorted(wanted, key=int)


@browser
def test_names_are_shown_as_they_are(evil_page: Path) -> None:
    document, log = browse(evil_page, "#open=0,1,2")
    assert "CONSOLE" not in log
    assert "<title>Evaluation" in document
    assert "<img" not in document
    assert document.count("<script") == 2
    assert html.escape(EVIL, quote=False) in document  # health
    assert html.escape(EVIL, quote=False).replace("/", "∕") in document  # the folder


@pytest.mark.slow
@browser
def test_unusual_runs_draw(tmp_path: Path) -> None:
    """One epoch, a run gone to NaN, infinite values, a loss of 1e30, no validation: drawn without errors or NaN."""
    train, val = fake_runs.curves(30, 0.5, 0)
    gone, endless = val.copy(), val.copy()
    gone[12:], endless[12:] = np.nan, np.inf
    odd = {"one": (train[:1], val[:1]), "gone": (gone, gone), "endless": (train, endless), "huge": (train, 1e30 * val)}
    odd |= {"nothing": (train * np.nan, val * np.nan), "negative": (train - 9, val - 9)}
    for name, (a, b) in odd.items():
        fake_runs.our_run(tmp_path / name, {"seed": 0, "name": name}, a, b)
    (tmp_path / "no validation").mkdir()
    rows = "".join(f"{i},{i},{1 / i}\n" for i in range(1, 30))
    (tmp_path / "no validation" / "metrics.csv").write_text("epoch,step,eval/train_loss\n" + rows)
    assert main([str(tmp_path), "--html", str(tmp_path / "r.html")]) == 0
    document, log = browse(tmp_path / "r.html", "#curve=gap")
    assert "CONSOLE" not in log
    assert "NaN" not in re.sub(r"<script.*?</script>|<td.*?</td>|<p.*?</p>", "", document, flags=re.DOTALL)
    assert len(body_rows(document)) == 7
