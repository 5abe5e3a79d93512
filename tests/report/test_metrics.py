"""Metrics of the user's choice in every report of an evaluation: beside the measures that all runs have."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import make_config, record
from trainer.compare.results import Comparison
from trainer.evaluate import evaluate
from trainer.read.curves import Curves
from trainer.report import documents, figures, html, requirements, tables, terminal, vocabulary

NAMES = ["top2", "error_rate"]
Evaluated = tuple[dict[str, Any], list[Curves]]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Two widths at three seeds, with one metric of each direction."""
    folder = tmp_path_factory.mktemp("sweep")
    for width in (2, 16):
        values = {"model.width": width, "data.train_size": 100, "record.pictures": False}
        metrics = [f"tests.own_functions.{name}" for name in NAMES]
        record([make_config(seed=s, epochs=3, metrics=metrics, **values) for s in range(3)], folder / str(width))
    return evaluate([folder])


def test_each_run_has_them_as_it_has_its_accuracy(evaluated: Evaluated) -> None:
    """The rate of errors is 1 - accuracy: so are all its measures, and its best is its lowest."""
    for run in evaluated[0]["runs"]:
        measures = run["measures"]
        for name in ("best_val", "final_val", "final_train", "test", "final_test"):
            assert measures[f"{name}_error_rate"] == pytest.approx(1 - measures[f"{name}_accuracy"])
            assert measures[f"{name}_top2"] >= measures[f"{name}_accuracy"]


def test_they_are_compared(evaluated: Evaluated) -> None:
    found = {effect["measure"]: effect for effect in evaluated[0]["effects"]}
    assert {"test_accuracy", "test_top2", "test_error_rate"} <= found.keys()
    low, high = (found["test_error_rate"]["levels"][i]["mean"] for i in (0, 1))
    assert low > high  # two units tell ten classes apart worse than sixteen
    assert Comparison.__dataclass_fields__.keys() <= evaluated[0].keys()


def test_they_stand_in_every_table(evaluated: Evaluated, tmp_path: Path) -> None:
    evaluation, runs = evaluated
    out = io.StringIO()
    terminal.print_tables(evaluation, out)
    assert out.getvalue().count("test top2") >= 3  # runs, groups, effects
    assert tables.metrics(evaluation["runs"]) == ["test_top2", "test_error_rate"]
    text = documents.markdown(evaluation)
    assert "| test error\\_rate | test top2 |" in text
    assert "test top2: test top2" not in text
    assert "test top2" in documents.latex(evaluation, "command")
    (first, *_) = csv.DictReader(io.StringIO(documents.csv_table(evaluation)))
    group = evaluation["groups"][0]
    assert float(first["test_top2_mean"]) == group["measures"]["test_top2"]["mean"]
    assert {f"{measure}_n" for measure in group["measures"]} <= first.keys()
    assert figures.figures(evaluation, runs)
    page = html.page(evaluation, runs, tmp_path, "command")
    assert '"curves":{"val_top2":"validation top2","train_top2":"training top2"' in page
    assert '"test_top2":["test top2","test top2"]' in page
    assert f'"val_top2":{[round(v, 5) for v in runs[0].metrics["val_top2"].tolist()]}'.replace(" ", "") in page


def test_they_can_be_required(evaluated: Evaluated) -> None:
    runs = evaluated[0]["runs"]
    assert requirements.within(runs, "test_error_rate", 1.0, at_least=False).passed
    found = requirements.within(runs, "best_val_top2", 1.1, at_least=True)
    assert found.sentence.startswith("best validation top2 at least 1.100: broken by 6 of 6 runs")


@pytest.mark.parametrize(
    ("measure", "called"),
    {
        "test_f1": ("test f1", "test f1"),
        "final_test_f1": ("last test f1", "test f1 after the last epoch"),
        "best_val_train_rate": ("best val train_rate", "best validation train_rate"),
        "final_train_f1": ("last train f1", "last training f1"),
        "test_loss": ("test loss", "test loss"),
        "odd_name": ("odd_name", "odd name"),
    }.items(),
)
def test_a_measure_is_called_by_its_parts(measure: str, called: tuple[str, str]) -> None:
    assert tuple(vocabulary.called(measure)) == called
