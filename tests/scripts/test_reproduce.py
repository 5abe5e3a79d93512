"""Published results: the column holds what the sources say, and docs/published.md what the script printed."""

import math
import re
import statistics

import pytest

from scripts import reproduce
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
ROWS = {row.name: row for row in reproduce.rows()}
LINE = re.compile(
    r"^(?P<name>\S+) {2,}(?P<published>[\d^.-]+)? +(?P<measured>-?[\d.]+|inf|nan) +(?P<std>[\d.]+|nan)? +(?P<n>\d+) +"
    r"(?P<inside>yes|NO \(\S+ to \S+\)) *(?P<note>.*)$",
    re.MULTILINE,
)


def test_garbin_is_as_published() -> None:
    """conf/experiment/ quotes the paper's values, those of repeats one by one."""
    for network in ("standard", "dropout", "batchnorm"):
        quoted = (ROOT / "conf" / "experiment" / f"garbin_{network}.yaml").read_text(encoding="utf-8")
        settings = re.findall(r"lr ([\d.]+), momentum ([\d.]+) +((?:\.\d{4} ?)+)", quoted)
        assert len(settings) == 4
        for lr, momentum, values in settings:
            mean = statistics.fmean(map(float, values.split()))
            assert ROWS[f"garbin/{network}-lr{lr}-momentum{momentum}"].published == f"{mean:.4f}"


def test_gradient_flow_is_as_published_and_a_theory_of_ours_is_a_note() -> None:
    """Glorot and Bengio 2010, He et al. 2015: slope at 0 times the root of fan-in times variance; 5 % around it."""
    published = {
        "tanh-default": 1 / math.sqrt(3),
        "relu-default": 1 / math.sqrt(6),
        "relu-he_normal": 1.0,
        "sigmoid-default": 0.25 / math.sqrt(3),
        "sigmoid-glorot_uniform": 0.25,
    }
    for name, value in published.items():
        row = ROWS[f"glorot_2010/{name}"]
        assert row.published == f"{value:.3f}"
        assert (row.low, row.high) == pytest.approx((0.95 * value, 1.05 * value))
        assert row.note.startswith("a wide network has ")


def test_the_page_shows_every_row_and_says_which_is_outside_its_band() -> None:
    shown = [line.groupdict() for line in LINE.finditer(PAGE)]
    run = {line["name"] for line in shown}
    assert [line["name"] for line in shown] == [name for name in ROWS if name in run]
    assert all(f"`{name}`" in PAGE for name in ROWS if name not in run)  # said not to have been run
    for line in shown:
        row = ROWS[line["name"]]
        assert (line["published"] or "", line["note"]) == (row.published, row.note)
        inside = row.low <= float(line["measured"]) <= row.high
        assert (line["inside"] == "yes") == inside, row.name
        assert (line["std"] is None) == (line["n"] == "1")
