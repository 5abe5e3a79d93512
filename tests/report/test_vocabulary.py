"""One vocabulary: verdicts and their colours, numbers, means with ±, findings."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from trainer.judge.health import Finding
from trainer.report import vocabulary
from trainer.report.vocabulary import (
    STYLES,
    VERDICTS,
    counted,
    findings_by_kind,
    mean_cell,
    number,
    short_names,
)

CARDS = {"light": "#ffffff", "dark": "#1a1d22"}  # --card in page/report.css
SEEN = {  # linear RGB as full colour blindness sees it: Machado, Oliveira and Fernandes 2009
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    """Linear RGB of #rrggbb."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    xyz /= [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", CARDS)
@pytest.mark.parametrize("eyes", SEEN)
def test_verdicts_are_told_apart_by_everyone(theme: str, eyes: str) -> None:
    """20 in L*a*b* is ten times what a careful eye can tell apart."""
    seen = {name: lab(np.asarray(SEEN[eyes]) @ linear(getattr(style, theme))) for name, style in STYLES.items()}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)


@pytest.mark.parametrize("theme", CARDS)
def test_verdicts_are_readable_as_text(theme: str) -> None:
    """A contrast of 4.5, as the Web Content Accessibility Guidelines ask for (1.4.3, level AA)."""
    for name, style in STYLES.items():
        dark, light = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (getattr(style, theme), CARDS[theme]))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name


def test_every_verdict_has_a_style() -> None:
    assert tuple(STYLES) == VERDICTS
    assert len({style.terminal for style in STYLES.values()}) == len(VERDICTS)


def test_verdicts_are_counted_worst_first() -> None:
    assert counted(["healthy", "too_short", "failed", "overfit", "healthy"]) == (
        "1 overfit, 1 too short, 2 healthy, 1 failed"
    )
    assert counted([]) == ""


def test_numbers_and_means() -> None:
    assert number(0.94444, "test_accuracy") == "94.44%"
    assert number(0.25, "gap") == "0.2500"
    assert [number(value, "gap") for value in (None, "inf", math.nan)] == ["", "inf", "nan"]
    assert mean_cell(0.9444, 0.0138, "val accuracy") == "94.44% ± 1.38%"
    assert mean_cell(0.18449, 0.1799, "val loss") == "0.1845 ± 0.18"
    assert mean_cell(0.18449, 0.1, "val loss") == "0.1845 ± 0.10"
    assert mean_cell(0.5, None, "gap") == mean_cell(0.5, math.nan, "gap") == "0.5000"
    assert mean_cell(None, None, "gap") == ""


@pytest.mark.parametrize(
    ("value", "measure", "shown"),
    [
        (-0.00002, "test_accuracy", "0.00 points"),
        (0.0, "test_accuracy", "0.00 points"),
        (-0.0102, "test_accuracy", "-1.02 points"),
        (-0.0, "gap", "0"),
        (1e-17, "gap", "0"),
        (0.25, "gap", "+0.25"),
        (None, "gap", ""),
    ],
)
def test_a_difference_of_nothing_has_no_sign(value: float | None, measure: str, shown: str) -> None:
    assert vocabulary.difference(value, measure) == shown


def test_names_are_short_where_they_stay_different() -> None:
    assert short_names(["model.dropout", "optimizer.name", "a.lr", "b.lr"]) == ["dropout", "optimizer", "a.lr", "b.lr"]


def test_findings_of_many_runs_are_lines_by_kind() -> None:
    def run(number: int, *found: str) -> dict[str, Any]:
        return {"name": f"<{number}>", "health": [Finding(one, "", 1, "so").to_json({}) for one in found]}

    runs = [
        run(0),
        *(run(n, "dead_units", "dead_units") for n in range(1, 8)),
        run(8, "one_class"),
        {"name": "x", "health": ["?"]},
    ]
    assert findings_by_kind(runs) == ["dead units in 7 runs: <1>, <2>, <3>, <4>, <5>, ...", "one class in 1 run: <8>"]


@pytest.mark.parametrize(
    ("more", "called"),
    [
        ({}, "healthy"),
        ({"health": [{"finding": "dead_units"}]}, "not overfit"),
        ({"evidence": {"guessing_loss": 2.3, "train_low": 2.1}}, "not overfit"),
        ({"evidence": {"guessing_loss": 2.3, "train_low": 1.1}}, "healthy"),
    ],
)
def test_a_run_with_findings_is_not_called_healthy(more: dict[str, Any], called: str) -> None:
    run = {"verdict": "healthy", "health": [], **more}
    assert vocabulary.judged(run) == vocabulary.called_verdict(run) == called
