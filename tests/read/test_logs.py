"""What training loops print holds the curves that were printed, and texts of other kinds hold none."""
# ruff: noqa: E501

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.read.find_runs import find_runs

N = 9
TRAIN = [round(2.5 * 0.75**i, 4) for i in range(N)]
VAL = [round(2.6 * 0.7**i + 0.05 * i, 4) for i in range(N)]
OTHER = [round(2.7 * 0.8**i + 0.1, 4) for i in range(N)]

LINES: dict[str, Callable[[int, float, float], str]] = {  # of an epoch, as its loop prints them
    "keras": lambda i, t, v: f"Epoch {i}/9\n"
    + "".join(f"\r{k}/94 [==>...] - ETA: 2s - loss: {t + k:.4f}" for k in (1, 30))
    + f"\r94/94 [====] - 1s 3ms/step - accuracy: 0.8 - loss: {t} - val_accuracy: 0.7 - val_loss: {v}",
    "keras 3": lambda i, t, v: f"Epoch {i}/9\n\x1b[1m94/94\x1b[0m \x1b[32m━━━\x1b[0m 1s 3ms/step - loss: {t} - val_loss: {v}",
    "words": lambda i, t, v: f"Epoch: {i:03d}, Train Loss: {t}, Val Loss: {v}, Val Acc: 81.2%",
    "logging": lambda i, t, v: f"2024-05-01 12:00:03,123 - INFO - main - epoch={i} train_loss={t} valid_loss={v} lr=1e-03",
    "two lines": lambda i, t, v: f"Epoch {i}\n----\ntrain Loss: {t} Acc: 0.9\nval Loss: {v} Acc: 0.8\n",
    "batches": lambda i, t, v: f"Train Epoch: {i} [0/600 (0%)]\tLoss: {t + 0.5}\nTrain Epoch: {i} [64/600 (11%)]\tLoss: {t - 0.5}"
    f"\n\nTest set: Average loss: {v}, Accuracy: 9500/10000 (95%)\n",
    "brackets": lambda i, t, v: f"[Epoch {i}/9] [Train] loss = {t} | [Val] loss = {v}",
    "sides": lambda i, t, v: f"train | epoch {i:03d} | loss {t} | wps 100\nvalid | epoch {i:03d} | loss {v} | best_loss 0.1",
    "dictionaries": lambda i, t, v: f"{{'loss': {t}, 'lr': 5e-05, 'epoch': {i}.0}}\n{{'eval_loss': {v}, 'epoch': {i}.0}}",
    "improved": lambda i, t, v: f"Epoch {i}: training loss {t}; validation loss {v}\nnew best val loss {v / 2}",
    "chinese": lambda i, t, v: f"第{i}轮 训练损失: {t} 验证损失: {v}",
    "short": lambda i, t, v: f"E{i} loss={t} val_loss={v}",
    "german": lambda i, t, v: f"Epoche {i}: Trainingsverlust {t}, Validierungsverlust {v}",
    "tensors": lambda i, t, v: f"epoch {i} train loss tensor({t}, grad_fn=<Mean>) val loss tensor({v}, device='cuda:0')",
    "table": lambda i, t, v: f"| {i} | {t} | {v} |" if i > 1 else f"| epoch | train_loss | val_loss |\n|---|---|---|\n| 1 | {t} | {v} |",
}  # fmt: skip


def printed(line: Callable[[int, float, float], str], val: list[float] = VAL) -> str:
    return "".join(line(i + 1, TRAIN[i], val[i]) + "\n" for i in range(N))


@pytest.mark.parametrize("name", LINES)
def test_a_run_of_epochs(name: str, tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text("lr 0.1\nTrain on 6000 samples\n" + printed(LINES[name]) + "done in 3.1 s\n")
    (run,), problems = find_runs([tmp_path])
    assert not problems
    np.testing.assert_allclose(run.train_loss, TRAIN)
    np.testing.assert_allclose(run.val_loss, VAL)
    assert (run.epochs.tolist(), run.unit) == (list(range(1, N + 1)), "epoch")


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (printed(lambda i, t, v: f"step {i * 250}: train loss {t}, val loss {v}\niter {i * 250}: loss 9, time 2ms"), "step"),
        (printed(lambda i, t, v: f"[{i * 250}]\tvalidation_0-logloss:{t}\tvalidation_1-logloss:{v}"), "iteration"),
        (printed(lambda i, t, v: f"[{i * 250}]\ttraining's binary_logloss: {t}\tvalid_1's binary_logloss: {v}"), "iteration"),
        (printed(lambda i, t, v: f"{i * 250}:\tlearn: {t}\ttest: {v}\tbest: 0.1 ({i})\ttotal: 12ms"), "iteration"),
    ],
)  # fmt: skip
def test_a_run_of_steps(text: str, unit: str, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text(text)
    (run,), _ = find_runs([tmp_path / "out.txt"])
    np.testing.assert_allclose(run.train_loss, TRAIN)
    np.testing.assert_allclose(run.val_loss, VAL)
    assert (run.epochs[0], run.unit) == (250, unit)


def test_a_second_fit_and_printed_lists(tmp_path: Path) -> None:
    (tmp_path / "fits.log").write_text(printed(LINES["words"]) + printed(LINES["words"], OTHER))
    first, second = find_runs([tmp_path])[0]
    np.testing.assert_allclose(first.val_loss, VAL)
    np.testing.assert_allclose(second.val_loss, OTHER)
    assert "start again" in second.remarks[-1]
    (tmp_path / "fits.log").write_text(f"{{'loss': {TRAIN}, 'val_loss': {VAL}}}\n")
    np.testing.assert_allclose(find_runs([tmp_path])[0][0].val_loss, VAL)


def test_a_log_counts_where_nothing_else_holds_its_run(tmp_path: Path) -> None:
    table = "epoch,train_loss,val_loss\n" + printed(lambda i, t, v: f"{i},{t},{v}")
    for place in ("below/version_0", "beside/version_0"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "metrics.csv").write_text(table.replace("\n1,", f"\n1,{len(place)}."))
    (tmp_path / "below" / "train.log").write_text(printed(LINES["words"]))
    (tmp_path / "notes.txt").write_text("loss 0.3 and val loss 0.5 after epoch 3\n")
    assert [run.source for run in find_runs([tmp_path])[0]] == ["csv", "csv"]


def test_a_text_that_is_no_log_lists_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(printed(lambda i, t, v: f"epoch {i} loss {t}"))
    with pytest.raises(ValueError, match="found the columns epoch, loss; expected a training loss"):
        find_runs([tmp_path / "a.log"])
    (tmp_path / "bare.csv").write_text("".join(f"{t},{v}\n" for t, v in zip(TRAIN, VAL, strict=True)))
    with pytest.raises(
        ValueError, match=r"its first line, 2\.5, 2\.6, names no columns; expected a line such as epoch,"
    ):
        find_runs([tmp_path / "bare.csv"])
