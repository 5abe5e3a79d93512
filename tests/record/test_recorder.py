"""A run's directory: complete, exact, the same bits every time, and the member's own in any company."""

import io
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import nn

import trainer
from tests.helpers import Cli, bits, make_config, record, rows, run, scalars, small_data, summary
from trainer import files
from trainer.config import Config, ConfigError, Mlp
from trainer.core import networks
from trainer.core.data import Dataset
from trainer.judge import overfit

FILES = ["checkpoints/best.pt", "checkpoints/last.pt", "metrics.csv", "summary.json", "trainer.log"]
NAMES = [f"layers.{i}.{part}" for i in range(3) for part in ("weight", "bias")]
PER_STEP = {"train/loss", "train/accuracy", "lr", "grad_norm/total", *(f"grad_norm/{n}" for n in NAMES)}
PER_EPOCH = {
    *("eval/train_loss", "eval/train_accuracy", "val/loss", "val/accuracy"),
    *(f"{kind}/{n}" for n in NAMES for kind in ("weight_norm", "update_ratio")),
    *(
        f"watch/{kind}/layers.act{i}"
        for i in range(2)
        for kind in ("activation_mean", "activation_spread", "dead_units")
    ),
    "watch/eval/top_class",
}
WITH_THEIR_STEP = {"lr", *(f"grad_norm/{n}" for n in NAMES)}  # columns of metrics.csv that events have step by step
AT_THE_END = {"test/loss", "test/accuracy", "test/last_loss", "test/last_accuracy"}
PICTURES = {"test/confusion", "test/most_confidently_wrong", "weights/first_layer"}


def short(*choices: str, **values: Any) -> Config:
    """3 epochs of 4 steps."""
    return make_config(*choices, **({"epochs": 3, "data.train_size": 200, "model.width": 16} | values))


def weights(directory: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(directory / "checkpoints" / f"{name}.pt", weights_only=True)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record([short()], tmp_path_factory.mktemp("default"))[0]


# ------------------------------------------------------------------ what stands in it


def test_tensorboard_reads_every_documented_tag_at_every_step(default: Path) -> None:
    board = EventAccumulator(str(default), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    assert set(board.Tags()["scalars"]) == PER_STEP | PER_EPOCH | AT_THE_END
    for tags, steps in ((PER_STEP, [*range(1, 13)]), (PER_EPOCH, [4, 8, 12]), (AT_THE_END, [12])):
        for tag in tags:
            assert [point.step for point in board.Scalars(tag)] == steps, tag
    assert set(board.Tags()["images"]) == PICTURES
    assert all(board.Images(tag)[0].encoded_image_string.startswith(b"\x89PNG") for tag in PICTURES)
    names = {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
    assert set(board.PluginTagToContent("hparams")) == names
    content = board.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert {"seed", "model.depth", "data.train_size"} <= start.hparams.keys() <= short().flat().keys()
    assert start.hparams["optimizer.lr"].number_value == 0.001
    content = board.PluginTagToContent("hparams")["_hparams_/session_end_info"]
    assert plugin_data_pb2.HParamsPluginData.FromString(content).session_end_info.status == 1  # success
    assert "custom_scalars__config__" in board.Tags()["tensors"]


def test_what_is_recorded_is_what_was_measured(default: Path) -> None:
    """Against an observer that keeps everything in memory: exactly, events in their 32 bits."""
    log = run([short()], small_data("digits", torch.float32))
    found = scalars(default)
    for tag in PER_STEP:
        want = np.array([step[tag] for step in log.steps[0]]).astype(np.float32)
        np.testing.assert_array_equal(found[tag].values, want)
    for tag in PER_EPOCH:
        want = np.array([row[tag.removeprefix("watch/")] for row in log.rows[0]]).astype(np.float32)
        np.testing.assert_array_equal(found[tag].values, want)
    assert rows(default) == log.rows[0]
    header = (default / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[:6] == ["epoch", "step", "eval/train_loss", "eval/train_accuracy", "val/loss", "val/accuracy"]
    assert set(header) == {"epoch", "step"} | {tag.removeprefix("watch/") for tag in PER_EPOCH} | WITH_THEIR_STEP
    for row in log.rows[0]:
        (step,) = (step for step in log.steps[0] if step["step"] == row["step"])
        assert {tag: row[tag] for tag in WITH_THEIR_STEP} == {tag: step[tag] for tag in WITH_THEIR_STEP}


def test_the_summary_agrees_with_the_curves(default: Path) -> None:
    found, table = summary(default), rows(default)
    assert (found["status"], found["stopped_by"], found["error"]) == ("completed", "budget", None)
    assert (found["epochs"], found["steps"]) == (3, 12)
    assert found["parameters"] == 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    assert found["final"] == table[-1]
    assert found["best"] == min(table, key=lambda row: row["val/loss"])
    losses, accuracies = (
        [[row[tag + kind] for row in table] for tag in ("eval/train_", "val/")] for kind in ("loss", "accuracy")
    )
    verdict = overfit.judge(*losses, *accuracies, chance_loss=found["start"]["guessing_loss"])
    assert found["verdict"] == json.loads(json.dumps(verdict.to_json()))
    for name, prefix in (("best", "test/"), ("last", "test/last_")):
        for key in ("loss", "accuracy"):
            recorded = scalars(default)[prefix + key].values[0]
            assert recorded == np.float32(found["test"][name][key])
    cost = found["cost"]
    parts = cost["training_s"] + cost["evaluation_s"] + cost["recording_s"]
    assert parts == pytest.approx(cost["seconds"], rel=1e-9)
    assert 0 < cost["recording_share"] < 1
    assert set(found["provenance"]) >= {"versions", "git_commit", "device", "data_hash", "split_hash", "order_hash"}


@pytest.mark.parametrize(("min_delta", "best"), [(0.0, 3), (9.0, 1)])  # the last epoch, or not
def test_the_test_numbers_are_those_of_the_saved_weights(min_delta: float, best: int, tmp_path: Path) -> None:
    """The plain model with the weights of each file, over the test split, without us."""
    config, data = short(**{"early_stopping.min_delta": min_delta}), small_data("digits", torch.float32)
    (directory,) = record([config], tmp_path)
    assert weights(directory, "best")["epoch"] == best
    assert isinstance(config.model, Mlp)
    for name in ("best", "last"):
        network = networks.plain(config.model, data.in_features, data.out_features, data.shape)
        network.load_state_dict(weights(directory, name)["model"])
        with torch.no_grad():
            output = network.eval()(data.test_x)
        found = summary(directory)["test"][name]
        assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(output, data.test_y).item(), rel=1e-5)
        assert found["accuracy"] == (output.argmax(1) == data.test_y).double().mean().item()


@pytest.mark.parametrize(("every", "steps"), [(1, [*range(1, 13)]), (5, [1, 4, 5, 8, 10, 12]), (99, [1, 4, 8, 12])])
def test_thinned_records_keep_the_first_step_and_the_last_of_every_epoch(
    tmp_path: Path, every: int, steps: list[int]
) -> None:
    (directory,) = record([short(**{"record.every": every})], tmp_path)
    assert all(scalars(directory)[tag].steps.tolist() == steps for tag in PER_STEP)


# ------------------------------------------------------------------ promises


VARIANTS = [{"record.every": 0}, {"record.every": 7}, {"record.pictures": False}]


@pytest.mark.parametrize("looking", VARIANTS)
def test_looking_changes_nothing(default: Path, tmp_path: Path, looking: dict[str, Any]) -> None:
    (other,) = record([short(**looking)], tmp_path)
    for name in ("best", "last"):
        a, b = weights(default, name)["model"], weights(other, name)["model"]
        assert all(torch.equal(a[key], b[key]) for key in a | b)
    assert (other / "metrics.csv").read_bytes() == (default / "metrics.csv").read_bytes()
    if looking == {"record.every": 0}:
        assert not PER_STEP & set(scalars(other))


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        ((), {"model.dropout": 0.5, "model.batchnorm": True, "data.label_noise": 0.2}),
        (("optimizer=sgd", "schedule=cosine"), {"clip_norm": 0.1, "optimizer.momentum": 0.9}),
    ],
)
def test_the_same_command_twice_gives_the_same_bits(
    tmp_path: Path, choices: tuple[str, ...], values: dict[str, Any]
) -> None:
    runs = []
    for name in ("first", "second"):
        torch.manual_seed(len(runs))  # what others do to the global generator matters to nobody
        runs.append(record([short(*choices, **values)], tmp_path / name)[0])
    assert bits(runs[0]) == bits(runs[1]) != {}
    first, second = (scalars(directory) for directory in runs)
    assert first.keys() == second.keys()
    for tag in first:
        assert first[tag].values.tobytes() == second[tag].values.tobytes()
        assert first[tag].steps.tobytes() == second[tag].steps.tobytes()
    a, b = (summary(directory) for directory in runs)
    timed = {"cost", "files", "trained", "checksum"}  # the checksums are of files with wall times
    assert {k: v for k, v in a.items() if k not in timed} == {k: v for k, v in b.items() if k not in timed}


COMPANY = [
    short(),
    short("optimizer=sgd", **{"clip_norm": 0.1, "epochs": 1}),
    short(seed=4, **{"model.dropout": 0.5, "epochs": 2}),
    short("optimizer=sgd", seed=5, **{"optimizer.lr": 1e30}),
]


def test_each_member_leaves_the_directory_of_a_run_alone(tmp_path: Path) -> None:
    """The same files, tags, steps, rows and reasons; values to 1e-3 (32 bits, products summed in another order)."""
    together = record(COMPANY, tmp_path / "together")
    for k, config in enumerate(COMPANY):
        (alone,) = record([config], tmp_path / f"alone{k}")
        ours, theirs = scalars(together[k]), scalars(alone)
        assert ours.keys() == theirs.keys()
        for tag in theirs:
            np.testing.assert_array_equal(ours[tag].steps, theirs[tag].steps)
            np.testing.assert_allclose(ours[tag].values, theirs[tag].values, rtol=1e-3, atol=1e-4)
        assert all((together[k] / file).is_file() for file in FILES)
        a, b = summary(together[k]), summary(alone)
        for key in ("status", "stopped_by", "epochs", "steps", "parameters", "provenance"):
            assert a[key] == b[key], key
        assert (together[k] / "metrics.csv").read_text().count("\n") == len(rows(alone)) + 1
        assert weights(together[k])["config"] == weights(alone)["config"]


class Watched(Dataset):
    """Counts who reads the test split."""

    reads: list[str]

    def __getattribute__(self, name: str) -> Any:
        if name in {"test_x", "test_y"}:
            object.__getattribute__(self, "reads").append(name)
        return object.__getattribute__(self, name)


def test_the_test_split_is_read_once_at_the_end(tmp_path: Path) -> None:
    plain = small_data("digits", torch.float32)
    dataset = Watched(**{f.name: getattr(plain, f.name) for f in fields(Dataset)})
    object.__setattr__(dataset, "reads", [])
    during: list[int] = []

    def poll() -> bool:
        during.append(len(dataset.reads))
        return False

    two = short(epochs=2, step="torch")  # which asks before every step whether to stop
    record([two], tmp_path / "a", dataset, stop=poll)
    assert len(during) == 8
    assert set(during) == {0}
    assert dataset.reads
    dataset.reads.clear()
    polls = iter(range(100))
    (directory,) = record([two], tmp_path / "b", dataset, stop=lambda: next(polls) >= 5)
    assert summary(directory)["test"] == {}
    assert not dataset.reads


def test_an_interrupted_run_is_flushed_and_says_so(tmp_path: Path) -> None:
    polls = iter(range(100))
    (directory,) = record([short(step="torch")], tmp_path, stop=lambda: next(polls) >= 6)
    found = summary(directory)
    assert (found["status"], found["stopped_by"], found["epochs"], found["steps"]) == ("interrupted", "interrupt", 1, 6)
    assert scalars(directory)["train/loss"].steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(rows(directory)) == 1
    assert weights(directory)["step"] == 6
    polls = iter([True])
    (directory,) = record([short()], tmp_path / "at once", stop=lambda: next(polls))
    assert (summary(directory)["steps"], summary(directory)["best"]) == (0, {})
    assert not (directory / "checkpoints/best.pt").exists()


def test_nan_and_infinity_are_kept_everywhere(tmp_path: Path) -> None:
    (directory,) = record([short("optimizer=sgd", **{"optimizer.lr": 1e30})], tmp_path)
    table, found, events = rows(directory), summary(directory), scalars(directory)
    assert math.isnan(table[-1]["eval/train_loss"])
    assert "nan" in (directory / "metrics.csv").read_text()
    assert found["final"]["eval/train_loss"] == "nan"
    assert (found["status"], found["stopped_by"]) == ("completed", "diverged")
    assert found["verdict"]["verdict"] == "diverged"
    assert np.isnan(events["train/loss"].values).any()
    assert np.isfinite(events["train/loss"].values[0])
    assert np.isnan(events["grad_norm/total"].values).any()
    assert np.isnan(events["val/loss"].values[-1])
    assert not np.isfinite(float(found["test"]["last"]["loss"]))
    assert (directory / "checkpoints/best.pt").exists()


def test_regression_and_no_validation_split(tmp_path: Path) -> None:
    line = small_data("line", torch.float32)
    (directory,) = record([make_config("data=line", epochs=2, **{"data.val_fraction": 0.0})], tmp_path, line)
    found = scalars(directory)
    assert not [tag for tag in found if "accuracy" in tag or tag.startswith("val/")]
    assert {"test/loss", "test/last_loss", "eval/train_loss"} <= set(found)
    assert summary(directory)["best"] == summary(directory)["final"] == rows(directory)[-1]


class Own(nn.Sequential):
    """A module of the user's own, with running statistics and a random part."""

    def __init__(self, in_features: int, out_features: int) -> None:
        parts = [nn.Flatten(), nn.Linear(in_features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.4)]
        super().__init__(*parts, nn.Linear(16, out_features))


def test_a_module_of_ones_own_leaves_the_same_complete_directory_twice(tmp_path: Path) -> None:
    config = make_config(
        "model=custom", epochs=3, **{"model._target_": "tests.record.test_recorder.Own", "data.train_size": 200}
    )
    runs = []
    for name in ("first", "second"):
        torch.manual_seed(len(runs))
        runs.append(record([config], tmp_path / name)[0])
    assert bits(runs[0]) == bits(runs[1]) != {}
    assert all((runs[0] / file).is_file() for file in FILES)
    assert {"grad_norm/1.weight", "weight_norm/2.bias", "test/accuracy"} <= set(scalars(runs[0]))
    # the recorded test accuracy is that of the best weights, loaded into the module without us
    data, network = small_data("digits", torch.float32), Own(64, 10)
    for name in ("best", "last"):
        network.load_state_dict(weights(runs[0], name)["model"])
        with torch.no_grad():
            predicted = network.eval()(data.test_x.view(-1, *data.shape)).argmax(1)
        accuracy = (predicted == data.test_y).double().mean().item()
        assert summary(runs[0])["test"][name]["accuracy"] == accuracy


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")

    real = open
    monkeypatch.setattr(
        files, "open", lambda path, mode, **more: (Full if mode == "xb" else real)(path, mode, **more), raising=False
    )


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        record([short(epochs=1)], tmp_path)
    assert not list((tmp_path / "0" / "checkpoints").iterdir())
    assert not (tmp_path / "0" / "summary.json").exists()


def test_what_is_not_kept_changes_nothing_else(cli: Cli, tmp_path: Path) -> None:
    """The same numbers; neither weights nor events where they are not wanted, and who asks for them is told."""
    line = "epochs=1 data.train_size=64 model.width=4 record.pictures=false"
    for keep in ("all", "curves", "none"):
        assert cli(f"{line} record.keep={keep} hydra.run.dir={keep}")[0] == 0
    names = {keep: {path.name[:6] for path in (tmp_path / keep).iterdir()} for keep in ("all", "curves", "none")}
    assert names["all"] - names["curves"] == {"checkp"}
    assert names["all"] - names["none"] == {"checkp", "events"}
    for keep in ("curves", "none"):
        assert (tmp_path / keep / "metrics.csv").read_bytes() == (tmp_path / "all" / "metrics.csv").read_bytes()
        assert summary(tmp_path / keep)["test"] == summary(tmp_path / "all")["test"]
        assert "done before" in cli(f"resume={keep}")[1]
        code, _, err = cli(f"resume={keep} epochs=2")
        assert code == 2
        assert f"epochs was 1, is 2, but record.keep={keep} kept no weights to go on from" in err
        with pytest.raises(ConfigError, match=f"has no checkpoints/best.pt: record.keep={keep}, train it again"):
            trainer.load(tmp_path / keep)[0].model()
