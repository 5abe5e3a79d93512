"""Metrics against scikit-learn and slow loops; of the whole split, out of the pass that is there anyway."""

import math
import re
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor

from tests.helpers import make_config, record, rows, run, scalars, small_data, summary
from trainer.config import ConfigError
from trainer.core import metrics
from trainer.core.loop import check_functions
from trainer.core.networks import plain
from trainer.core.stack import Stack

OF_CLASSES = ["f1", "balanced_accuracy", "auroc", "top5"]
OWN = "tests.own_functions"


def draw(examples: int, classes: int, among: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs of a network that knows something, and targets out of the first `among` classes."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(among, (examples,), generator=generator)
    output = torch.randn(examples, classes, generator=generator)
    return output + torch.eye(classes)[target], target


def measured(names: list[str], output: Tensor, target: Tensor) -> dict[str, float]:
    classes = None if target.is_floating_point() else output.shape[1]
    return metrics.measure(metrics.named(names, classes), output, target)


@pytest.mark.parametrize("among", [6, 4])
def test_of_classes_they_are_scikit_learns(among: int) -> None:
    """Also where two classes do not occur, and yet are predicted. torchmetrics divides in 32 bits: 1e-6."""
    output, target = draw(200, 6, among)
    got = measured(OF_CLASSES, output, target)
    y, predicted, p = target.numpy(), output.argmax(1).numpy(), output.double().softmax(1).numpy()
    recall = [np.mean(predicted[y == c] == c) for c in range(among)]
    want = {
        "f1": sklearn.metrics.f1_score(y, predicted, average="macro"),
        "balanced_accuracy": np.mean(recall),
        "auroc": np.mean([sklearn.metrics.roc_auc_score(y == c, p[:, c]) for c in range(among)]),
        "top5": sklearn.metrics.top_k_accuracy_score(y, p, k=5, labels=range(6)),
    }
    assert got == pytest.approx(want, abs=1e-6)
    if among == 6:
        whole = {
            "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(y, predicted),
            "auroc": sklearn.metrics.roc_auc_score(y, p, multi_class="ovr"),
        }
        assert {name: got[name] for name in whole} == pytest.approx(whole, abs=1e-6)


def test_of_two_classes() -> None:
    output, target = draw(50, 2, 2)
    got = measured(["f1", "auroc"], output, target)
    assert got["auroc"] == pytest.approx(
        sklearn.metrics.roc_auc_score(target.numpy(), (output[:, 1] - output[:, 0]).numpy()), abs=1e-6
    )
    assert got["f1"] == pytest.approx(
        sklearn.metrics.f1_score(target.numpy(), output.argmax(1).numpy(), average="macro"), abs=1e-6
    )


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_told_is_nan() -> None:
    output, target = draw(20, 6, 1)
    one_class = measured(OF_CLASSES, output, target)
    assert math.isnan(one_class.pop("auroc"))
    assert one_class["balanced_accuracy"] == pytest.approx((output.argmax(1) == 0).double().mean().item())
    broken = measured([*OF_CLASSES, f"{OWN}.top2"], output.index_fill(0, torch.tensor([3]), math.nan), target)
    assert all(map(math.isnan, broken.values()))
    same, one = torch.ones(5, 1), torch.ones(1, 1)
    assert measured(["r2"], torch.rand(5, 1), same)["r2"] == -math.inf
    assert math.isnan(measured(["r2"], same, same)["r2"])
    assert math.isnan(measured(["r2"], one, one)["r2"])


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_of_values_they_are_the_equations(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = (scale * torch.randn(30, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    got = measured(["mae", "rmse", "r2"], output, target)
    mae, rmse, r2 = [], [], []
    for o, y in zip(output.T.tolist(), target.T.tolist(), strict=True):
        errors, mean = [a - b for a, b in zip(o, y, strict=True)], sum(y) / 30
        mae.append(sum(map(abs, errors)) / 30)
        rmse.append(math.sqrt(sum(e * e for e in errors) / 30))
        r2.append(1 - sum(e * e for e in errors) / sum((b - mean) ** 2 for b in y))
    want = {"mae": sum(mae) / 2, "rmse": sum(rmse) / 2, "r2": sum(r2) / 2}
    assert got == pytest.approx(want, rel=1e-12)
    assert got["r2"] == pytest.approx(sklearn.metrics.r2_score(target.numpy(), output.numpy()), rel=1e-9)


MISTAKES = {
    (
        "r2",
        10,
    ): "metrics: r2 wants values, and the targets are classes; choose from auroc, balanced_accuracy, f1, top5, "
    "or a function of your own",
    ("f1", None): "metrics: f1 wants classes, and the targets are values; choose from mae, r2, rmse, or a function of "
    "your own",
    ("top5", 5): "metrics: top5 of 5 classes is always 1; leave it out",
    (
        "os.getcwd",
        10,
    ): "metrics: os.getcwd is of Python's standard library; expected a function (output, target) -> one "
    "number, e.g. my_metrics.top2",
}


@pytest.mark.parametrize(("name", "classes"), MISTAKES)
def test_those_of_another_task_are_refused(name: str, classes: int | None) -> None:
    with pytest.raises(ConfigError) as error:
        metrics.named([name], classes)
    assert error.value.problems == [MISTAKES[name, classes]]


ODD = {
    "vector": r"gives an array of shape \(64,\), expected one number",
    "text": r"fails on outputs \(64, 10\) and targets \(64,\): ValueError: could not convert string to float: 'good'",
    "varying": r"gives 0\.\d+, then 0\.\d+ for the same outputs and targets",
    "raising": r"fails on outputs \(64, 10\) and targets \(64,\): KeyError: 'nothing there' \(.*, line \d+\)",
    "ends": r"fails on outputs \(64, 10\) and targets \(64,\): SystemExit: os\._exit\(3\) \(.*, line \d+\)",
}


def config(*names: str, **values: Any) -> Any:
    return make_config(metrics=list(names), **{"model.width": 8, "data.train_size": 200, **values})


@pytest.mark.parametrize("name", ODD)
def test_a_function_of_ones_own_is_tried_first(name: str) -> None:
    stack = Stack([config(f"{OWN}.{name}")], small_data("digits", torch.float32))
    with pytest.raises(ConfigError) as error:
        check_functions(stack)
    assert re.fullmatch(rf"metrics: {OWN}\.{name} {ODD[name]}", str(error.value)), str(error.value)


# ------------------------------------------------------------------ in a run


def test_they_are_of_the_whole_split_and_stand_in_every_record(tmp_path: Any) -> None:
    """Against the plain network of the checkpoint, on all examples at once."""
    names = [*OF_CLASSES, f"{OWN}.top2", f"{OWN}.error_rate"]
    dataset = small_data("digits", torch.float32)
    configs = [config(*names, seed=s, epochs=2, **{"data.train_size": 1300}) for s in (0, 1)]
    runs = record(configs, tmp_path, dataset)
    stack = Stack(configs, dataset)
    for member, (place, made) in enumerate(zip(runs, configs, strict=True)):
        found, table = summary(place), rows(place)
        assert found["metrics"] == {
            **dict.fromkeys([*OF_CLASSES, "top2"], "higher"),
            "error_rate": "lower",
        }
        network = plain(made.model, dataset.in_features, dataset.out_features, dataset.shape).eval()
        network.load_state_dict(torch.load(place / "checkpoints/last.pt", weights_only=True)["model"])
        split = stack.members[member].split
        with torch.no_grad():
            sides = {
                "eval/train_": (network(dataset.x[split.train]), split.train_y),
                "val/": (network(dataset.x[split.val]), dataset.y[split.val]),
                "": (network(dataset.test_x), dataset.test_y),
            }
        for tag, (output, target) in sides.items():
            got = found["test"]["last"] if tag == "" else table[-1]
            for name, value in measured(names, output, target).items():
                assert got[f"{tag}{name}"] == pytest.approx(value, abs=1e-5), (tag, name)
        tags = {f"{side}{name}" for side in ("eval/train_", "val/", "test/", "test/last_") for name in found["metrics"]}
        assert tags <= scalars(place).keys()
        assert table[-1]["val/error_rate"] == pytest.approx(1 - table[-1]["val/accuracy"])
        assert found["best"].keys() >= {"val/f1", "eval/train_error_rate"}


def test_they_change_no_bit_and_take_no_pass_more() -> None:
    """Also a function that seeds torch's generator and empties what it is given."""
    data = small_data("digits", torch.float32)
    values = {"model.dropout": 0.3, "epochs": 2}
    without = run([config(seed=s, **values) for s in (0, 1)], data)
    names = ["f1", "auroc", f"{OWN}.greedy", f"{OWN}.top2"]
    before = torch.get_rng_state()
    measured = run([config(*names, seed=s, **values) for s in (0, 1)], data)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(without.states, measured.states, rtol=0, atol=0)
    for plain_rows, more in zip(without.rows, measured.rows, strict=True):
        assert [row.keys() <= other.keys() for row, other in zip(plain_rows, more, strict=True)] == [True, True]
        assert [{key: other[key] for key in row} for row, other in zip(plain_rows, more, strict=True)] == plain_rows
        assert more[-1]["val/top2"] > more[-1]["val/accuracy"]


def test_the_network_is_called_as_often_as_without() -> None:
    from trainer.core.loop import evaluate_epoch, watched_step

    def calls(*names: str) -> int:
        stack, seen = Stack([config(*names)], small_data("digits", torch.float32)), []
        stack.next_order()
        step = watched_step(stack, stack.train_KN, stack.train_y_KN, stack.batches[:1])
        stack.model.register_forward_hook(lambda *given: seen.append(given))
        evaluate_epoch(stack, *step)
        return len(seen)

    assert calls("f1", f"{OWN}.top2") == calls()


def test_alone_as_in_a_stack() -> None:
    """In 64 bits; F1 is divided in 32."""
    together = run([config("f1", "auroc", seed=s, epochs=2) for s in (0, 1)], small_data("digits"))
    for s in (0, 1):
        alone = run([config("f1", "auroc", seed=s, epochs=2)], small_data("digits"))
        for got, want in zip(alone.rows[0], together.rows[s], strict=True):
            assert got["val/f1"] == pytest.approx(want["val/f1"], abs=1e-6)
            assert got["val/auroc"] == pytest.approx(want["val/auroc"], abs=1e-9)
