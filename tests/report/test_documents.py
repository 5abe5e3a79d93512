"""Files to publish: what a parser of the format reads is what the evaluation says, whatever names are in it."""

import csv
import io
import re
from typing import Any

import pytest
from markdown_it import MarkdownIt
from matplotlib.mathtext import MathTextParser

from tests import fake_runs
from trainer.evaluate import evaluate
from trainer.report import tables
from trainer.report.documents import csv_table, latex, markdown
from trainer.text import printable

EVIL = 'a|b *c* _d_ `e` <f> [g](h) \\i $j$ &amp; #k ~l~ 1. {m} %n ^o -- "p" é \x1b\n\u202e,;'


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate([fake_runs.sweep(tmp_path_factory.mktemp("sweeps") / "s", seeds=3, events=False)])[0]


@pytest.fixture(scope="module")
def evil(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The same, with names that are markup in every format: of a knob, its levels, a sweep; in answer and warning."""
    groups = [
        group | {"name": EVIL, "knobs": {EVIL: f"{EVIL}{i}"}, "tuned": {"optimizer.lr": 0.1 * i}}
        for i, group in enumerate(evaluation["groups"])
    ]
    more = {"groups": groups, "warnings": [{"kind": "x", "text": f"- {EVIL}"}]}
    return evaluation | more | {"answer": {"text": f"1. {EVIL}", "next": f"python -m trainer '{EVIL}'"}}


def expected(evaluation: dict[str, Any]) -> list[list[str]]:
    """Titles and cells of the table of groups."""
    groups = evaluation["groups"]
    laid = tables.table(groups, tables.printed_measures(groups))
    return [[printable(cell).strip() for cell in row] for row in ([*laid.names, *laid.numbers], *laid.rows)]


# ------------------------------------------------------------------ CSV


def test_csv_has_every_statistic_of_every_group(evaluation: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(evaluation))))
    assert len(rows) == len(evaluation["groups"]) == 18
    for row, group in zip(rows, evaluation["groups"], strict=True):
        assert row["group"] == group["name"]
        assert {knob: row[knob] for knob in group["knobs"]} == {k: str(v) for k, v in group["knobs"].items()}
        assert (int(row["n"]), float(row["overfit_share"])) == (group["n"], group["overfit_share"]["mean"])
        assert row["failed"] == "0"
        for measure, found in group["measures"].items():
            for statistic, value in found.items():
                assert float(row[f"{measure}_{statistic}"]) == value
    assert len(rows[0]) == 1 + 3 + 3 + 5 * len(evaluation["groups"][0]["measures"])


def test_csv_of_several_sweeps_and_of_odd_names(evaluation: dict[str, Any], evil: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(fake_runs.two_sweeps(evaluation)))))
    assert [row["sweep"] for row in rows] == ["first"] * 9 + ["second"] * 9
    rows = list(csv.DictReader(io.StringIO(csv_table(evil))))
    assert [row[printable(EVIL)] for row in rows] == [printable(f"{EVIL}{i}") for i in range(18)]
    assert [float(row["chosen optimizer.lr"]) for row in rows] == [0.1 * i for i in range(18)]


def test_groups_that_were_tuned_are_marked_in_csv_and_alone_in_print(evaluation: dict[str, Any]) -> None:
    best = [group["name"] for group in evaluation["groups"] if group["knobs"]["model.dropout"] == 0.5]
    tuned = evaluation | {"tuned": ["model.dropout"], "chosen": {name: name for name in best}}
    rows = list(csv.DictReader(io.StringIO(csv_table(tuned))))
    assert [row["group"] for row in rows if row["chosen"] == "True"] == best
    assert len(rows) == 18
    said, printed = parsed_markdown(markdown(tuned))
    assert len(printed) == 1 + len(best)
    assert "each at its own best model.dropout, chosen by the validation split" in said[-1]


def test_failures_are_counted(evaluation: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(evaluation))))
    assert [row["failed"] for row in rows] == ["0"] * 18
    share = {"failed_share": {"mean": 1 / 3, "low": 0.0, "high": 1.0, "n": 3}}
    rows = list(
        csv.DictReader(
            io.StringIO(csv_table(evaluation | {"groups": [group | share for group in evaluation["groups"]]}))
        )
    )
    assert [row["failed"] for row in rows] == ["1"] * 18


# ------------------------------------------------------------------ Markdown


def parsed_markdown(text: str) -> tuple[list[str], list[list[str]]]:
    """What a reader of Markdown shows: paragraphs and list items; the rows of tables."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    said: list[str] = []
    rows: list[list[str]] = []
    inside = False
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        inside = inside or token.type == "table_open"
        if token.type == "table_close":
            inside = False
        if token.type == "inline":
            assert {child.type for child in token.children or []} <= {"text", "text_special"}, "something became markup"
            (rows[-1] if inside else said).append("".join(child.content for child in token.children or []))
    return said, rows


@pytest.mark.parametrize("which", ["evaluation", "evil"])
def test_markdown_says_what_the_evaluation_says(which: str, request: pytest.FixtureRequest) -> None:
    evaluation = request.getfixturevalue(which)
    said, rows = parsed_markdown(markdown(evaluation))
    answer = evaluation["answer"]
    assert said[0] == printable(answer["text"])
    assert rows == expected(evaluation)
    there = [warning["text"] for warning in evaluation["warnings"]]
    warnings = [printable(text) for text in there if text.lower() not in str(answer["text"]).lower()]
    reason = f" ({answer['reason']})" if answer.get("reason") else ""
    assert said[1:-1] == [*([f"Next{reason}:"] if answer["next"] else []), *warnings]
    assert said[-1].startswith("n runs; mean ± half of its 95 % confidence interval")
    assert re.search(r"\| \d+\.\d+% ± \d+\.\d+% \|", markdown(evaluation))
    if which == "evil":
        (code,) = [one for one in MarkdownIt("commonmark").parse(markdown(evaluation)) if one.type == "code_block"]
        assert code.content == f"{printable(answer['next'])}\n"


def test_markdown_of_several_sweeps_and_broken_requirements(evaluation: dict[str, Any]) -> None:
    broken = {"requirements": [{"passed": False, "sentence": "gap too large"}, {"passed": True, "sentence": "fine"}]}
    text = markdown(fake_runs.two_sweeps(evaluation) | broken)
    places = [text.index(part) for part in ("Two sweeps.", "- broken: gap too large", "## first", "## second")]
    assert places == sorted(places)
    assert len(parsed_markdown(text)[1]) == 2 * (1 + 9)
    assert "fine" not in text


# ------------------------------------------------------------------ LaTeX

SPECIAL = {  # what TeX prints for each command: its own documentation (texdoc encguide; source2e)
    r"\textbackslash{}": "\\",
    r"\textasciicircum{}": "^",
    r"\textasciitilde{}": "~",
    r"\textasciigrave{}": "`",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textquotedbl{}": '"',
    r"$\pm$": "±",
    r"$-$": "−",
    "{[}": "[",
    "{]}": "]",
    "{*}": "*",
    "-{}": "-",
    **{f"\\{mark}": mark for mark in "{}$&#%_"},
}
TOKEN = re.compile("|".join(map(re.escape, sorted(SPECIAL, key=len, reverse=True))) + r"|[^\\{}$&#%_^~<>|\"`\[\]*]")


def typeset(text: str) -> str:
    """What TeX prints for text: raises where a mark stands there that TeX would obey."""
    done, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        assert found, f"TeX obeys {text[at : at + 20]!r}"
        done.append(SPECIAL.get(found[0], found[0]))
        at = found.end()
    return "".join(done)


def cell_of(text: str) -> str:
    """A cell as it is read: numbers are set in math, which matplotlib's own parser of TeX must take."""
    if re.fullmatch(r"\$[^$]*\d[^$]*\$", text):
        MathTextParser("path").parse(text)
        text = re.sub(r" \\cdot 10\^{(-?\d+)}", lambda power: f"e{int(power[1]):+03d}", text[1:-1])
        return text.replace(r"\%", "%").replace(r"\pm", "±")
    return typeset(text)


@pytest.mark.parametrize("which", ["evaluation", "evil"])
def test_latex_says_what_the_evaluation_says(which: str, request: pytest.FixtureRequest) -> None:
    evaluation = request.getfixturevalue(which)
    text = latex(evaluation, f"python -m trainer.evaluate {printable(EVIL)}")
    lines = [line for line in text.splitlines() if line and not line.startswith("%")]
    answer = evaluation["answer"]
    assert typeset(lines[0]) == printable(answer["text"])
    assert [line.strip() for line in lines[1:3]] == [r"\begin{table}", r"\centering"]
    assert [line.strip() for line in lines[-3:]] == [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    caption = re.fullmatch(r"  \\caption{(.*)}", lines[3])
    assert caption
    assert "mean ± half of its 95 % confidence interval" in typeset(caption[1])
    columns = re.fullmatch(r"  \\begin{tabular}{(l+r+)}", lines[5])
    assert columns
    body = [line.strip() for line in lines[6:-2]]
    assert [body.pop(0), body.pop(1), body.pop()] == [r"\toprule", r"\midrule", r"\bottomrule"]
    rows = [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in body]
    assert all(line.endswith(r" \\") and len(row) == len(columns[1]) for line, row in zip(body, rows, strict=True))
    assert [[cell_of(cell) for cell in row] for row in rows] == expected(evaluation)


def test_latex_of_several_sweeps(evaluation: dict[str, Any]) -> None:
    text = latex(fake_runs.two_sweeps(evaluation), "c")
    assert re.findall(r"\\paragraph{(\w+)}|\\label{(.*)}", text) == [
        ("first", ""),
        ("", "tab:evaluation-1"),
        ("second", ""),
        ("", "tab:evaluation-2"),
    ]
