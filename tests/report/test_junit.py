"""JUnit XML: a test case for each run and each requirement, whatever the names."""

from typing import Any
from xml.etree import ElementTree

from trainer.report import junit

EVIL = '<a b="c">&amp;]]>\x00\x1b\ud800\uffff\u202e'


def run(name: str, verdict: str = "healthy") -> dict[str, Any]:
    return {"path": f"p/{name}", "name": name, "verdict": verdict, "sentence": f"so {name}"}


def test_cases_and_failures() -> None:
    evaluation = {
        "runs": [run("0", "overfit"), run(EVIL, "too_short"), run("2")],
        "problems": [f"{EVIL}: cannot be read"],
        "requirements": [
            {"name": "no run overfit", "passed": False, "sentence": "broken by 0", "broken": {"p/0": "so 0"}},
            {"name": "gap", "passed": False, "sentence": "too large", "broken": {"p/0": "0.3", f"p/{EVIL}": "0.2"}},
            {"name": f"{EVIL} fine", "passed": True, "sentence": "holds", "broken": {}},
        ],
    }
    text = junit.xml(evaluation)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ')
    root = ElementTree.fromstring(text.encode())
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "6", "4")
    suites = root.findall("testsuite")
    assert [(s.get("name"), s.get("tests"), s.get("failures")) for s in suites] == [
        ("runs", "3", "2"),
        ("requirements", "3", "2"),
    ]
    shown = r'<a b="c">&amp;]]>\x00\x1b\ud800' + "\ufffd" + r"\u202e"
    cases = suites[0].findall("testcase")
    assert [case.get("name") for case in cases] == ["0", shown, "2"]
    failures = [case.find("failure") for case in cases]
    assert [None if one is None else one.text for one in failures] == [
        "overfit: so 0\nno run overfit: so 0\ngap: 0.3",
        f"too short: so {shown}\ngap: 0.2",
        None,
    ]
    assert cases[2].findtext("system-out") == "healthy: so 2"
    assert suites[0].findtext("system-err") == f"{shown}: cannot be read"
    assert [case.find("failure") is None for case in suites[1].findall("testcase")] == [False, False, True]


def test_without_requirements_nothing_fails() -> None:
    root = ElementTree.fromstring(junit.xml({"runs": [run("0", "overfit")], "problems": []}).encode())
    assert (root.get("tests"), root.get("failures")) == ("1", "0")
