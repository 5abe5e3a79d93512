"""The names that tools give to the same two curves."""

import pytest

from trainer.read.tag_names import guess, measure, role, subject


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        ("loss/train loss/val", "loss/train", "loss/val"),
        ("Loss/train Loss/test", "Loss/train", "Loss/test"),
        ("Loss/train Loss/test Loss/valid", "Loss/train", "Loss/valid"),
        ("train_loss val_loss", "train_loss", "val_loss"),
        ("training_loss validation_loss lr epoch", "training_loss", "validation_loss"),
        ("trainLoss valLoss", "trainLoss", "valLoss"),
        ("trainloss valloss", "trainloss", "valloss"),
        ("train/loss eval/loss", "train/loss", "eval/loss"),
        ("train_loss_step train_loss_epoch val_loss epoch", "train_loss_epoch", "val_loss"),
        ("train/epoch_loss validation/epoch_loss train/epoch_accuracy", "train/epoch_loss", "validation/epoch_loss"),
        (
            "train/epoch_loss validation/epoch_loss validation/evaluation_loss_vs_iterations",
            "train/epoch_loss",
            "validation/epoch_loss",
        ),
        ("loss val_loss accuracy val_accuracy", "loss", "val_loss"),
        ("loss_train/loss loss_val/loss", "loss_train/loss", "loss_val/loss"),
        ("train/loss eval/train_loss val/loss", "eval/train_loss", "val/loss"),
        ("train/box_loss val/box_loss train/loss val/loss", "train/loss", "val/loss"),
        ("train/train_loss train/val_loss", "train/train_loss", "train/val_loss"),
        ("train/nll val/nll", "train/nll", "val/nll"),
        ("train val lr", "train", "val"),
        ("Training Validation train_acc val_acc", "Training", "Validation"),
        ("train-logloss validation_0-logloss", "train-logloss", "validation_0-logloss"),
        ("train_mse test_mse", "train_mse", "test_mse"),
        ("train_loss val_loss/dataloader_idx_0", "train_loss", "val_loss/dataloader_idx_0"),
    ],
)
def test_names_of_many_tools(names: str, train: str, val: str) -> None:
    for order in (names.split(), names.split()[::-1]):
        found = guess(dict.fromkeys(order, 10))
        assert found is not None
        assert found[:2] == (train, val)


@pytest.mark.parametrize("names", ["", "train_loss", "val_loss", "loss accuracy", "lr epoch", "train_acc val_acc"])
def test_no_pair(names: str) -> None:
    assert guess(dict.fromkeys(names.split(), 10)) is None


def test_a_single_point_is_no_curve() -> None:
    """Hugging Face logs train/train_loss once, at the end, beside train/loss."""
    found = guess({"train/loss": 50, "train/train_loss": 1, "eval/loss": 10})
    assert found is not None
    assert found[:2] == ("train/loss", "eval/loss")


def test_accuracy_likewise() -> None:
    found = guess(dict.fromkeys(["Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val", "Accuracy/top5"], 9))
    assert found is not None
    assert found[2:] == ("Accuracy/train", "Accuracy/val")


@pytest.mark.parametrize(
    ("name", "measured"),
    [("val_acc", "accuracy"), ("valAcc", "accuracy"), ("eval/top1", "accuracy"), ("准确率", "accuracy"),
     ("val_top1_error", "loss"), ("validation_0-logloss", "loss"), ("val", "loss"), ("lr", None), ("accelerate", None)],
)  # fmt: skip
def test_what_a_name_says_is_measured(name: str, measured: str | None) -> None:
    assert measure(name) == measured


def test_folders() -> None:
    assert [role(name) for name in ("train", "validation", "loss_val", "run3", "eval/train")] == [
        *("train", "val", "val"),
        None,
        "train",
    ]
    assert subject("adam_train") == subject("adam_val") == "adam"
    assert subject("loss_train") == subject("acc_val") == ""
