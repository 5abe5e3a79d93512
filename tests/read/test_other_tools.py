"""Runs of TensorBoard loops, Keras, Lightning and tables are found and read."""

from pathlib import Path

import numpy as np
import pytest

from tests import fake_runs
from tests.read.events import TRAIN, VAL, close, only_run, write_events
from trainer.read.curves import Series
from trainer.read.find_runs import find_runs
from trainer.read.other_tools import choose


def test_a_step_that_no_float_counts_is_left_out() -> None:
    """Its point alone: a warning of NumPy's would be an error here."""
    steps, losses = np.arange(12.0), np.exp(-np.arange(12.0))
    (found,) = choose(
        {"train_loss": Series(steps, losses), "val_loss": Series(np.append(steps, 1e119), np.append(losses, 1.0))}
    )
    np.testing.assert_array_equal(found.val_loss, losses)


def test_a_hand_written_loop(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fake_runs.other_run(tmp_path / "runs" / name, ("Loss/train", "Loss/val"), TRAIN, VAL)
    runs, problems = find_runs([tmp_path])
    assert not problems
    assert [run.name for run in runs] == ["runs/a", "runs/b"]
    close(runs[0].val_loss, VAL)
    assert runs[0].epochs.tolist() == list(range(30))


def test_keras_folders(tmp_path: Path) -> None:
    steps = np.arange(30)
    for role, losses in (("train", TRAIN), ("validation", VAL)):
        tags = {"epoch_loss": losses, "epoch_accuracy": losses / 9, "epoch_huber": losses / 4}
        write_events(tmp_path / "logs" / role, {tag: (steps, values) for tag, values in tags.items()})
    run = only_run([tmp_path / "logs"])
    assert run.name == "logs"
    close(run.train_loss, TRAIN)
    close(run.val_loss, VAL)
    close(run.val_accuracy, VAL / 9)
    given = only_run([tmp_path / "logs"], "epoch_huber", "epoch_huber")
    close(given.train_loss, TRAIN / 4)
    close(given.val_loss, VAL / 4)


def test_sibling_folders_of_several_runs(tmp_path: Path) -> None:
    for name, losses in (("adam_train", TRAIN), ("adam_val", VAL), ("sgd_train", 2 * TRAIN), ("sgd_val", 2 * VAL)):
        write_events(tmp_path / name, {"loss": (np.arange(30), losses)})
    runs, _ = find_runs([tmp_path])
    assert [run.name for run in runs] == ["adam", "sgd"]
    close(runs[1].val_loss, 2 * VAL)


def test_folders_of_tables_by_role(tmp_path: Path) -> None:
    for name, losses in (("a/train", TRAIN), ("a/val", VAL), ("sgd_train", 2 * TRAIN), ("sgd_val", 2 * VAL)):
        (tmp_path / name).mkdir(parents=True)
        rows = [f"{epoch},{loss}" for epoch, loss in enumerate(losses.tolist())]
        (tmp_path / name / "log.csv").write_text("\n".join(["epoch,loss", *rows]) + "\n")
    runs, problems = find_runs([tmp_path])
    assert not problems
    assert [run.name for run in runs] == ["a", "sgd"]
    for run, factor in zip(runs, (1, 2), strict=True):
        np.testing.assert_array_equal(run.train_loss, factor * TRAIN)
        np.testing.assert_array_equal(run.val_loss, factor * VAL)


def test_add_scalars_folders(tmp_path: Path) -> None:
    for name, losses in (("loss_train", TRAIN), ("loss_val", VAL), ("acc_train", VAL), ("acc_val", TRAIN)):
        write_events(tmp_path / "run" / name, {name.split("_")[0]: (np.arange(30), losses)})
    close(only_run([tmp_path]).val_loss, VAL)


def test_lightning(tmp_path: Path) -> None:
    """Training loss of every 10th step and of the epoch, validation loss once an epoch of 100 steps."""
    folder = tmp_path / "lightning_logs" / "version_0"
    ends = 100 * np.arange(1, 31) - 1
    every = np.arange(9, 3000, 10)
    series = {
        "train_loss_step": (every, np.interp(every, ends, TRAIN)),
        "train_loss_epoch": (ends, TRAIN),
        "val_loss": (ends, VAL),
        "epoch": (every, every // 100),
    }
    write_events(folder, series)
    (folder / "hparams.yaml").write_text("lr: 0.1\nmodel:\n  width: 64\n")
    run = only_run([tmp_path])
    close(run.train_loss, TRAIN)
    assert run.config == {"lr": 0.1, "model.width": 64}
    close(only_run([tmp_path], "train_loss_step", "val_loss").val_loss, VAL)


@pytest.mark.parametrize("unit", [1, 100])
def test_training_loss_of_every_step(tmp_path: Path, unit: int) -> None:
    """Means over each epoch, whether the validation loss counts steps (unit 100) or epochs."""
    steps = np.arange(3000)
    write_events(
        tmp_path, {"train/loss": (steps, np.repeat(TRAIN, 100)), "val/loss": (unit * np.arange(1, 31) - 1, VAL)}
    )
    run = only_run([tmp_path])
    close(run.train_loss, TRAIN)
    close(run.val_loss, VAL)


def test_resumed_run_last_value_wins(tmp_path: Path) -> None:
    """A second file repeats the last steps of the first; the first stands out of order."""
    order = np.random.default_rng(0).permutation(20)
    write_events(tmp_path, {"train_loss": (order, 9 + TRAIN[order]), "val_loss": (order, 9 + VAL[order])}, 1.7e9)
    rest = np.arange(10, 30)
    write_events(tmp_path, {"train_loss": (rest, TRAIN[10:]), "val_loss": (rest, VAL[10:])}, 1.8e9)
    run = only_run([tmp_path])
    assert run.epochs.tolist() == list(range(30))
    close(run.val_loss, np.append(9 + VAL[:10], VAL[10:]))


def test_scalars_without_steps(tmp_path: Path) -> None:
    """add_scalar without global_step writes step 0 each time."""
    write_events(tmp_path, {"train_loss": (np.zeros(30, int), TRAIN), "val_loss": (np.zeros(30, int), VAL)})
    close(only_run([tmp_path]).val_loss, VAL)


def test_event_files_with_names_of_their_own_are_a_run_each(tmp_path: Path) -> None:
    for name, factor in (("a", 1), ("b", 2)):
        series = {"train_loss": (np.arange(30), factor * TRAIN), "val_loss": (np.arange(30), factor * VAL)}
        write_events(tmp_path, series).rename(tmp_path / f"{name}.tfevents")
    runs, _ = find_runs([tmp_path])
    assert [run.name for run in runs] == ["a.tfevents", "b.tfevents"]
    close(runs[1].val_loss, 2 * VAL)


@pytest.mark.parametrize("share", [0.2, 0.77])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = next(fake_runs.other_run(tmp_path / "r", ("train_loss", "val_loss"), TRAIN, VAL).iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole)) | 1])
    runs, problems = find_runs([tmp_path])
    assert abs(len(runs[0].epochs) - 30 * share) < 2
    assert len(problems) <= 1
    path.write_bytes(whole[:1000] + b"\xff" * 20 + whole[1020:])
    runs, problems = find_runs([tmp_path])
    assert len(runs[0].epochs) >= 28
    assert "record" in problems[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_csv_in_any_encoding_of_unicode(encoding: str, tmp_path: Path) -> None:
    """As PowerShell's `>` and Excel write it."""
    rows = [f"{i},{t},{v}" for i, (t, v) in enumerate(zip(TRAIN, VAL, strict=True))]
    text = "\r\n".join(["epoch,loss,val_loss", *rows, ""])
    (tmp_path / "history.csv").write_bytes(text.encode(encoding))
    (run,), problems = find_runs([tmp_path])
    assert not problems
    np.testing.assert_allclose(run.train_loss, TRAIN)
    np.testing.assert_allclose(run.val_loss, VAL)
    assert list(run.epochs) == list(range(len(TRAIN)))


def test_csv_of_keras_and_lightning(tmp_path: Path) -> None:
    rows = [f"{i};{np.exp(-t)};{t};{np.exp(-v)};{v}" for i, (t, v) in enumerate(zip(TRAIN, VAL, strict=True))]
    damaged = ["x;0.5;9;0.5;9", "nan;0.5;9;0.5;9"]  # rows that do not say which epoch they are
    (tmp_path / "keras.csv").write_text(
        "\n".join(["epoch;accuracy;loss;val_accuracy;val_loss", *rows, *damaged, "30;0."])
    )
    folder = tmp_path / "lightning_logs" / "version_0"
    folder.mkdir(parents=True)
    lines = ["epoch,step,train_loss,val_loss"]
    for i, (t, v) in enumerate(zip(TRAIN.tolist(), VAL.tolist(), strict=True)):
        lines += [f"{i},{100 * i + 49},{t},", f"{i},{100 * i + 99},,{v}", f"{i},{100 * i + 99},{t},"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "people.csv").write_text("name,age\nAda,36\n")
    runs, problems = find_runs([tmp_path])
    assert [problem.partition(";")[0] for problem in problems] == [
        f"{tmp_path}/people.csv: found the columns name, age"
    ]
    (tmp_path / "more.csv").write_text("name,age\nAda,36\n")
    assert find_runs([tmp_path])[1] == [
        f"{tmp_path}/more.csv, {tmp_path}/people.csv: tables without known losses; "
        "python -m trainer.evaluate FILE lists the columns of one"
    ]
    assert [run.name for run in runs] == ["keras.csv", "lightning_logs/version_0/metrics.csv"]
    for run in runs:
        np.testing.assert_allclose(run.train_loss, TRAIN)
        np.testing.assert_allclose(run.val_loss, VAL)
    assert only_run([tmp_path / "keras.csv"]).name == "keras.csv"


def test_two_fits_in_one_folder_are_judged_apart(tmp_path: Path) -> None:
    """Each began at step 0; one that goes on from a checkpoint does not (above)."""
    for born, val in ((1.7e9, VAL), (1.8e9, 2 * VAL)):
        write_events(tmp_path / "r", {"train_loss": (np.arange(30), TRAIN), "val_loss": (np.arange(30), val)}, born)
    (first, second), _ = find_runs([tmp_path / "r"])
    assert first.path == f"{tmp_path / 'r'}#1"
    close(first.val_loss, VAL)
    close(second.val_loss, 2 * VAL)
    assert second.remarks == ("the steps start again: 2 fits, each judged apart",)


def test_a_step_that_counts_within_an_epoch(tmp_path: Path) -> None:
    steps, losses = np.tile(np.arange(4), 30), np.repeat(TRAIN, 4)
    write_events(tmp_path, {"train_loss": (steps, losses), "val_loss": (np.arange(30), VAL)})
    run = only_run([tmp_path])
    close(run.train_loss, TRAIN)
    close(run.val_loss, VAL)


def test_an_evaluation_in_a_folder_below(tmp_path: Path) -> None:
    """tf.estimator: the training's events lie beside `eval`; sums and averages of a loss are no pair."""
    steps = 100 * np.arange(30)
    write_events(tmp_path / "m", {"loss": (steps, 32 * TRAIN), "average_loss": (steps, TRAIN)})
    write_events(tmp_path / "m" / "eval", {"loss": (steps, 31 * VAL), "average_loss": (steps, VAL)})
    run = only_run([tmp_path])
    close(run.train_loss, TRAIN)
    close(run.val_loss, VAL)


def test_epochs_from_a_scalar(tmp_path: Path) -> None:
    steps = 50 * np.arange(1, 31)
    series = {"train_loss": (steps, TRAIN), "val_loss": (steps, VAL), "train/epoch": (steps, steps / 100)}
    write_events(tmp_path / "told", series)
    write_events(tmp_path / "untold", {tag: series[tag] for tag in ("train_loss", "val_loss")})
    told, untold = find_runs([tmp_path])[0]
    assert told.unit == "epoch"
    close(told.epochs, steps / 100)
    assert untold.unit == "step"
    close(untold.epochs, steps)
