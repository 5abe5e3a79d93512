"""An evaluation as JUnit XML, which CI services show: a test case for each run, and for each requirement."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from trainer.report.vocabulary import spelled
from trainer.text import printable

_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def xml(evaluation: Mapping[str, Any]) -> str:
    """Return the document; a run fails where it breaks a requirement, with its verdict and what it breaks."""
    runs, requirements = evaluation["runs"], evaluation.get("requirements", [])
    cases = []
    for run in runs:
        broken = [
            f"{one['name']}: {one['broken'][run['path']]}" for one in requirements if run["path"] in one["broken"]
        ]
        verdict = f"{spelled(run['verdict'])}: {run['sentence']}"
        cases.append((run["name"], verdict, [verdict, *broken] if broken else []))
    root = Element("testsuites", name="trainer.evaluate")
    suites = [
        _suite(root, "runs", cases),
        _suite(
            root,
            "requirements",
            [(one["name"], one["sentence"], [] if one["passed"] else [one["sentence"]]) for one in requirements],
        ),
    ]
    for key in ("tests", "failures"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    if evaluation["problems"]:
        SubElement(suites[0], "system-err").text = "\n".join(map(_fit, evaluation["problems"]))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(root: Element, name: str, cases: Sequence[tuple[str, str, Sequence[str]]]) -> Element:
    """Add a suite of cases: name, what is known, and why it fails (nothing where it does not)."""
    failures = sum(bool(why) for _, _, why in cases)
    suite = SubElement(root, "testsuite", name=name, tests=str(len(cases)), failures=str(failures), errors="0")
    for title, known, why in cases:
        case = SubElement(suite, "testcase", classname=f"evaluate.{name}", name=_fit(title))
        if why:
            failure = SubElement(case, "failure", type="requirement", message=_fit(why[-1]))
            failure.text = "\n".join(map(_fit, why))
        else:
            SubElement(case, "system-out").text = _fit(known)
    return suite


def _fit(text: str) -> str:
    """Write what a terminal would obey as Python does, and leave out what XML cannot hold."""
    return _NO_XML.sub("\ufffd", printable(text))
