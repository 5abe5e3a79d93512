"""Both languages of the page: the same texts with the same places."""

import json
import re
from pathlib import Path

import pytest

from tests import fake_runs
from tests.helpers import Cli
from tests.pages import browse, browser, page_data
from trainer import language
from trainer.evaluate import main
from trainer.report import html, tables, vocabulary

PAGE = Path(html.__file__).parent / "page"
CJK = re.compile(r"[\u4e00-\u9fff]")
# what Python puts into the page as it is: titles of tables, facts, answers of contrasts, the rest of measures
OF_PYTHON = {"date", "data", "commit", "command", "n", "failed", "group", "all runs", "seed"}
OF_PYTHON |= {"no difference seen", "not enough seeds", "differs", "gap", "loss only", "This page"}
OF_PYTHON |= {
    "best epoch",
    "best step",
    "best at",
    "epoch",
    "step or epoch, as it was logged",
    "{n} runs",
    "{n} groups",
    "loss",
    "accuracy",
    "copied",
}


def said() -> set[str]:
    """The English texts of the page: what t() is given, headings, and the words of tables and menus."""
    scripts = "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js"))
    headings = re.findall(r"<(?:h2|summary)>(.*?)</", (PAGE / "report.html").read_text(encoding="utf-8"))
    words = {*re.findall(r'\bt\("([^"]*)"', scripts), *headings, *OF_PYTHON, *vocabulary.PER_CLASS.values()}
    words |= {name for measure in vocabulary.MEASURES.values() for name in measure}
    return (
        words
        | {vocabulary.spelled(verdict) for verdict in vocabulary.VERDICTS}
        | {vocabulary.INTERVAL, vocabulary.DOUBTFUL, tables.TUNED}
    )


def test_every_text_of_the_page_has_one_in_chinese_and_none_is_left_over() -> None:
    assert set(language.table("page")) == said()


def test_both_have_the_same_places() -> None:
    for english, text in language.table("page").items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", text)), english
        assert CJK.search(text) or english in {"n", ".", ". ", "{a} of {b}"}, english


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"TRAINER_LANG": "zh"}, True),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "zh_TW", "LANG": "en_GB"}, True),
        ({"TRAINER_LANG": "en", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, False),
        ({}, False),
    ],
)
def test_the_language_is_asked_for_or_the_locale(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRAINER_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language.is_chinese() is wanted


def test_the_verdict_on_the_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "epochs=1 data.train_size=32 model.width=4 hydra.run.dir="
    monkeypatch.setenv("TRAINER_LANG", "zh")
    code, said, _ = cli(f"{command}zh")
    assert code == 0
    assert "太短: 只有 1 轮" in said
    monkeypatch.setenv("TRAINER_LANG", "en")
    assert "too short: 1 epoch with finite losses" in cli(f"{command}en")[1]
    verdicts = [json.loads(Path(name, "summary.json").read_text())["verdict"] for name in ("zh", "en")]
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize(
    "line",
    [
        "data=csv",
        "model=custom",
        "model=custom model._target_=no_such.Net",
        "optimizer.momentum=0.9",
        "data.train_size=5000",
        "resume=nothing",
    ],
)
def test_rarer_mistakes(line: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_LANG", "zh")
    code, _, said = cli(line)
    assert code == 2
    problems = said.partition("\n")[2].replace("No module named", "")  # Python's own words
    assert CJK.search(problems)
    assert not re.findall(r"[a-z]{2,} [a-z]{2,}", problems)


def test_what_a_sweep_comes_to_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_runs.sweep(tmp_path / "s", seeds=3, events=False)
    monkeypatch.setenv("TRAINER_LANG", "zh")
    assert main([str(tmp_path / "s")]) == 0
    answer, _, tables = capsys.readouterr().out.partition("\n\n")
    assert " 3 / 3 " in tables
    assert " of 3" not in tables
    said = re.sub(r"python -m .*", "", answer)
    assert "最佳验证损失随 model.dropout 下降" in said
    assert not re.findall(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", said)  # words of English; keys are in one


@browser
def test_the_page_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs.sweep(tmp_path / "s", seeds=2, events=False)
    monkeypatch.setenv("TRAINER_LANG", "zh")
    assert main([str(tmp_path / "s"), "--html", str(tmp_path / "r.html"), "--json", str(tmp_path / "e.json")]) == 0
    monkeypatch.setenv("TRAINER_LANG", "en")
    assert main([str(tmp_path / "s"), "--json", str(tmp_path / "en.json")]) == 0
    assert json.loads((tmp_path / "e.json").read_text()) == json.loads((tmp_path / "en.json").read_text())
    document, log = browse(tmp_path / "r.html", "#open=0")
    assert "CONSOLE" not in log
    assert '<html lang="zh"' in document
    headings = re.findall(r"<h2>(.*?)</h2>", document)
    assert headings
    assert all(CJK.search(heading) for heading in headings)
    assert page_data(tmp_path / "r.html")["runs"][0]["sentence"] in document
    assert "过拟合" in document
