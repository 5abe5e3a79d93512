"""Per-class numbers: those of scikit-learn, of the predictions of the recorded weights."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tests.helpers import make_config, record, small_data, summary
from trainer.record.classes import MOST_CLASSES, by_class


def like_sklearn(found: dict, target: np.ndarray, predicted: np.ndarray, classes: int) -> None:
    """Equal to scikit-learn's numbers; nan, where it divides 0 by 0, is None here."""
    labels = range(classes)
    np.testing.assert_array_equal(found["confusion"], confusion_matrix(target, predicted, labels=labels))
    precision, recall, f1, _ = precision_recall_fscore_support(
        target, predicted, labels=labels, average=None, zero_division=np.nan
    )
    for name, wanted in (("precision", precision), ("recall", recall), ("f1", f1)):
        ours = [np.nan if value is None else value for value in found["per_class"][name]]
        np.testing.assert_allclose(ours, wanted, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("classes", [2, 3, 10, MOST_CLASSES])
@pytest.mark.parametrize("examples", [1, 7, 1000])
def test_as_scikit_learn_has_it(classes: int, examples: int) -> None:
    """Random predictions; with few examples many classes are absent, never predicted, or neither."""
    target, predicted = np.random.default_rng(classes * examples).integers(0, classes, (2, examples))
    like_sklearn(by_class(target, predicted, classes), target, predicted, classes)


def test_too_many_classes_are_left_out() -> None:
    assert by_class(np.array([0]), np.array([0]), MOST_CLASSES + 1) == {}


def test_every_member_of_a_stack_has_its_own(tmp_path) -> None:
    """Of the best and of the last weights, run through the plain network; its trace is the recorded accuracy."""
    short = {"epochs": 3, "data.train_size": 200, "model.width": 16}
    directories = record([make_config(seed=seed, **short) for seed in (0, 1)], tmp_path)
    data = small_data("digits", torch.float32)
    seen = set()
    for directory in directories:
        for name in ("best", "last"):
            found = summary(directory)["test"][name]
            state = torch.load(directory / "checkpoints" / f"{name}.pt", weights_only=True)["model"]
            hidden = data.test_x
            for i in range(3):
                hidden = hidden @ state[f"layers.{i}.weight"].T + state[f"layers.{i}.bias"]
                hidden = torch.relu(hidden) if i < 2 else hidden
            like_sklearn(found, data.test_y.numpy(), hidden.argmax(1).numpy(), 10)
            assert np.trace(found["confusion"]) / len(data.test_y) == pytest.approx(found["accuracy"], rel=1e-12)
            seen.add(str(found["confusion"]))
    assert len(seen) >= 2


def test_a_regression_has_none(tmp_path) -> None:
    (directory,) = record([make_config("data=line", epochs=2)], tmp_path, small_data("line", torch.float32))
    assert set(summary(directory)["test"]["best"]) == {"loss"}
