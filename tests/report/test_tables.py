"""Tables of groups and of classes: which measures, which cells, which runs count."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from trainer.report import tables

SHARES = [[0.9, 0.5, None], [0.8, 0.5, 0.1], [0.6, 0.5, None]]


def run(path: str, verdict: str = "healthy", status: str | None = "completed", **more: Any) -> dict[str, Any]:
    return {"path": path, "verdict": verdict, "status": status, **more}


def group(name: str, paths: str, **measures: float) -> dict[str, Any]:
    found = {key: {"mean": value, "low": None, "high": None, "n": 1, "sd": None} for key, value in measures.items()}
    verdicts = {"healthy": len(paths)}
    return {
        "name": name,
        "knobs": {"model.name": name},
        "runs": [*paths],
        "n": len(paths),
        "failed_share": {"mean": 0.0, "low": 0.0, "high": 1.0, "n": len(paths)},
        "verdicts": verdicts,
        "measures": found,
    }


def test_numbers_by_class_are_means_over_the_runs_that_count() -> None:
    groups = [group("a", "012345"), group("none", "6"), group("one", "7")]
    runs = [run(str(i), per_class={"recall": row}) for i, row in enumerate(SHARES)]
    runs += [run("3", "diverged", per_class={"recall": [0.0, 0.0, 0.0]})]
    runs += [run("4", status="interrupted", per_class={"recall": [0.0, 0.0, 0.0]}), run("5"), run("6")]
    runs += [run("7", per_class={"recall": [0.25, 1.0]})]  # another data set, of two classes
    found = tables.class_table(groups, runs, "recall")
    assert (found.names, found.numbers) == (["model"], ["n", "class 0", "class 1", "class 2"])
    first = [row[0] for row in SHARES]
    low, _ = scipy.stats.t.interval(0.95, 2, np.mean(first), scipy.stats.sem(first))
    assert found.rows == [
        ["a", "3", f"76.7 ± {100 * (np.mean(first) - low):.1f}", "50.0 ± 0.0", "10.0"],
        ["one", "1", "25.0", "100.0", ""],
    ]
    assert tables.class_table(groups, [run(str(i)) for i in range(8)], "recall").rows == []


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([["cat", "dog"]] * 2, ["cat", "dog"]),
        ([["cat", "dog"], ["cat", "pig"]], ["class 0", "class 1"]),  # not the same data
        ([["0", "1"]] * 2, ["class 0", "class 1"]),
        ([["cat"]] * 2, ["class 0", "class 1"]),  # no names of these classes
    ],
)
def test_classes_are_called_what_the_data_call_them(names: list[list[str]], shown: list[str]) -> None:
    runs = [run(str(i), per_class={"recall": [0.5, 0.5]}, class_names=own) for i, own in enumerate(names)]
    assert tables.class_table([group("a", "01")], runs, "recall").numbers == ["n", *shown]


@pytest.mark.parametrize(
    ("measures", "wanted"),
    [
        (
            {"gap": 1, "test_accuracy": 1, "test_loss": 1, "best_val_loss": 1, "final_train_accuracy": 1},
            ["final_train_accuracy", "best_val_loss", "gap", "test_accuracy"],
        ),
        ({"gap": 1, "test_loss": 1, "final_train_loss": 1}, ["final_train_loss", "gap", "test_loss"]),
        ({"gap": 1, "best_val_loss": 1, "final_val_loss": 1, "final_train_loss": 1},
         ["best_val_loss", "final_val_loss", "gap"]),
    ],
)  # fmt: skip
def test_a_table_in_print_has_the_measures_of_its_task(measures: dict[str, float], wanted: list[str]) -> None:
    groups = [group("a", "0", **measures)]
    assert tables.printed_measures(groups) == wanted
    assert set(tables.ordered(groups)) == set(measures)
    assert tables.ordered(groups)[: len(wanted)] == wanted
