"""Our own runs are found and read, bad files cost themselves alone, and what is no run is said."""

import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests import fake_runs
from tests.read.events import TRAIN, VAL, only_run, write_events
from trainer.files import write_sealed
from trainer.read.find_runs import find_runs


def test_a_sweep_of_ours(tmp_path: Path) -> None:
    runs, problems = find_runs([fake_runs.sweep(tmp_path / "s", seeds=1, events=False)])
    assert not problems
    assert [run.name for run in runs] == [str(i) for i in range(18)]  # 10 after 9
    run = runs[5]
    assert run.source == "trainer"
    assert run.config["model.dropout"] == 0.5
    assert run.config["optimizer.name"] == "sgd"
    assert run.summary["status"] == "completed"
    np.testing.assert_array_equal(run.epochs, np.arange(1, 31))
    assert run.train_accuracy is not None
    assert run.val_accuracy is not None
    np.testing.assert_array_equal(run.train_accuracy, np.exp(-run.train_loss))


def test_exact_numbers_nan_and_infinity(tmp_path: Path) -> None:
    train, val = TRAIN.copy(), VAL.copy()
    train[3], val[4], val[5] = math.nan, math.inf, -math.inf
    run = only_run([fake_runs.our_run(tmp_path / "r", {"seed": 0}, train, val, events=False)])
    np.testing.assert_array_equal(run.train_loss, train)
    np.testing.assert_array_equal(run.val_loss, val)


def test_a_row_still_being_written_and_a_broken_one(tmp_path: Path) -> None:
    folder = fake_runs.our_run(tmp_path / "r", {"seed": 0}, TRAIN, VAL, events=False)
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "1,2", *lines[6:10], lines[10][:9]]))
    runs, problems = find_runs([folder])
    assert runs[0].epochs.tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert len(problems) == 1
    assert "1 broken" in problems[0]


def test_the_same_run_given_twice_counts_once(tmp_path: Path) -> None:
    root = fake_runs.sweep(tmp_path / "s", seeds=1, events=False)
    assert len(find_runs([root, root / "3", root / ".." / "s"])[0]) == 18


def test_names_of_runs_below_two_paths_differ(tmp_path: Path) -> None:
    roots = [fake_runs.sweep(tmp_path / name, seeds=1, events=False) for name in ("a", "b")]
    runs, _ = find_runs(roots)
    assert {"a/0", "b/0"} < {run.name for run in runs}
    assert len({run.name for run in runs}) == 36


def test_a_file_that_cannot_be_opened_costs_itself_alone(tmp_path: Path) -> None:
    root = fake_runs.sweep(tmp_path / "s", seeds=1, events=False)
    (root / "odd").mkdir()
    (root / "odd" / "events.out.tfevents.1700000000.x").symlink_to(root / "gone")
    runs, problems = find_runs([root])
    assert len(runs) == 18
    assert problems == [f"{root}/odd/events.out.tfevents.1700000000.x: cannot be read: No such file or directory"]


def test_a_bad_file_costs_no_other_in_its_folder(tmp_path: Path) -> None:
    """Of a folder with tables and event files, of folders by role, and of one that cannot be listed."""
    table = "epoch,loss,val_loss\n" + "".join(f"{i},{a},{b}\n" for i, (a, b) in enumerate(zip(TRAIN, VAL, strict=True)))
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(table)
    (tmp_path / "c.csv").write_text("epoch,loss,val_loss\n1,x,\n")
    os.mkfifo(tmp_path / "metrics.csv")
    (tmp_path / "hparams.yaml").write_text("a: [")
    fake_runs.other_run(tmp_path / "train", ("loss", "x"), TRAIN, VAL)
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "events.out.tfevents.1700000000.x").write_bytes(b"noise" * 9)
    runs, problems = find_runs([tmp_path])
    assert [run.name for run in runs] == ["b.csv"]
    assert [problem.removeprefix(f"{tmp_path}/").partition(":")[0] for problem in problems] == [
        "metrics.csv",
        "validation/events.out.tfevents.1700000000.x",
        "a.csv",
        "c.csv",
        "hparams.yaml",
        "train",
    ]


@pytest.mark.parametrize("name", ["lr10²", "lr٣", "9" * 200, "\udcff", "a\nb"])
def test_folders_of_any_name_are_sorted(name: str, tmp_path: Path) -> None:
    for one in (name, "lr9", "lr10"):
        fake_runs.our_run(tmp_path / one, {"seed": 0}, TRAIN, VAL, events=False)
    names = [run.name for run in find_runs([tmp_path])[0]]
    assert names.index("lr9") < names.index("lr10")
    assert set(names) == {name, "lr9", "lr10"}


def test_links_lead_in_no_circle_and_folders_may_be_deep(tmp_path: Path) -> None:
    fake_runs.our_run(tmp_path / "run", {"seed": 0}, TRAIN, VAL, events=False)
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to("itself")
    for depth in range(1, 1500):  # deeper than Python calls itself
        os.mkdir(os.path.join(tmp_path, *["d"] * depth))
    runs, problems = find_runs([tmp_path])
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # as pytest could not
    assert [run.name for run in runs] == ["run"]
    assert not problems


@pytest.mark.parametrize(
    "states", [None, 3, [], {"metrics.csv": 3}, {"metrics.csv": {}}, {"metrics.csv": {"size": []}}]
)
def test_a_sealed_summary_of_another_shape(states: object, tmp_path: Path) -> None:
    folder = fake_runs.our_run(tmp_path / "r", {"seed": 0}, TRAIN, VAL, events=False)
    write_sealed(folder / "summary.json", {"files": states, "config": ["?"], "epochs": {}, "test": []})
    fake_runs.our_run(tmp_path / "sound", {"seed": 1}, TRAIN, VAL, events=False)
    runs, problems = find_runs([tmp_path])
    damaged = isinstance(states, dict) and isinstance(states["metrics.csv"], dict)
    assert [run.name for run in runs] == ["sound"] if damaged else ["r", "sound"]
    assert len(problems) == damaged


def test_no_validation_split(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "metrics.csv").write_text("epoch,step,eval/train_loss\n1,23,2.0\n")
    assert only_run([folder]).val_loss is None


def test_a_failed_run_without_epochs_is_named(tmp_path: Path) -> None:
    root = fake_runs.sweep(tmp_path / "s", seeds=1, events=False)
    (root / "4" / "metrics.csv").unlink()
    (root / "4" / "summary.json").write_text('{"status": "failed", "error": "out of memory"}')
    runs, problems = find_runs([root])
    assert len(runs) == 17
    assert "4: nothing to judge: out of memory" in problems[0]


# ------------------------------------------------------------------ what is no run


def test_tags_in_some_runs_only(tmp_path: Path) -> None:
    fake_runs.other_run(tmp_path / "good", ("a", "b"), TRAIN, VAL)
    write_events(tmp_path / "other", {"x": (np.arange(3), np.ones(3))})
    runs, problems = find_runs([tmp_path], "a", "b")
    assert [run.name for run in runs] == ["good"]
    assert "other: found the tags x; expected --train-tag a and --val-tag b" in problems[0]


@pytest.mark.parametrize("what", ["missing", "empty", "other", "tags"])
def test_no_run_says_what_was_found_and_what_to_type(tmp_path: Path, what: str) -> None:
    (tmp_path / "sweeps").mkdir()
    path = tmp_path / ("sweep" if what == "missing" else "sweeps")
    if what == "other":
        (path / "notes.txt").write_text("hello")
        (path / "events.out.tfevents.1").write_bytes(b"junk" * 99)
        (path / "table.csv").write_bytes(b"\xff\xfe\0")
    if what == "tags":
        write_events(path, {"cost_a": (np.arange(3), np.ones(3))})
    with pytest.raises(ValueError) as error:  # noqa: PT011
        find_runs([path])
    expected = {
        "missing": ["no such file or folder", f"did you mean {tmp_path / 'sweeps'}"],
        "empty": ["found nothing", "expected folders with metrics.csv"],
        "other": ["found 3 files", "expected folders with metrics.csv"],
        "tags": ["found the tags cost_a", "--train-tag TAG --val-tag TAG"],
    }
    for part in expected[what]:
        assert part in str(error.value)
