"""Runs as the real tools write them, trained here for a few epochs and read back: `pip install -e ".[interop]"`."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.read.curves import Curves
from trainer.read.find_runs import find_runs

pytestmark = pytest.mark.slow
EPOCHS = 6
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


def runs_below(folder: Path) -> list[Curves]:
    runs, problems = find_runs([folder])
    assert not problems
    return runs


def test_summary_writer(tmp_path: Path) -> None:
    """PyTorch's own: scalars, scalars in folders, and hyperparameters in a folder of their own below each run."""
    from torch.utils.tensorboard import SummaryWriter

    for lr in (0.1, 0.01):
        with SummaryWriter(str(tmp_path / f"lr{lr}")) as writer:
            for epoch in range(EPOCHS):
                writer.add_scalar("Loss/train", math.exp(-lr * epoch), epoch)
                writer.add_scalar("Loss/val", math.exp(-lr * epoch) + 0.1, epoch)
            more = dict.fromkeys("hgfedcba", 1)
            writer.add_hparams({"lr": lr, "nesterov": True, "opt": "sgd", **more}, {"hparam/loss": 0.5})
    with SummaryWriter(str(tmp_path / "scalars")) as writer:
        for epoch in range(EPOCHS):
            writer.add_scalars("loss", {"train": 1 / (epoch + 1), "val": 2 / (epoch + 1)}, epoch)
    high, low, scalars = sorted(runs_below(tmp_path), key=lambda run: -run.config.get("lr", 0))
    assert list(high.config.items()) == [
        *((key, 1) for key in "abcdefgh"),
        ("lr", 0.1),
        ("nesterov", True),
        ("opt", "sgd"),
    ]
    assert low.config["lr"] == 0.01
    np.testing.assert_allclose(low.train_loss, np.exp(-0.01 * np.arange(EPOCHS)), rtol=1e-6)
    np.testing.assert_allclose(scalars.val_loss, 2 / np.arange(1, EPOCHS + 1), rtol=1e-6)


def test_lightning(tmp_path: Path) -> None:
    """Two loggers of one run, with a tuple among the hyperparameters; steps are told as epochs."""
    lightning = pytest.importorskip("lightning", reason="needs lightning: pip install -e '.[interop]'")
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    class Model(lightning.LightningModule):
        def __init__(self, betas: tuple[float, float], lr: float) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(4, 2)

        def _loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            loss = self._loss(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: list[torch.Tensor]) -> None:
            self.log("val_loss", self._loss(batch))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8
    )
    loggers = [CSVLogger(tmp_path, name="csv"), TensorBoardLogger(str(tmp_path), name="tensorboard")]
    fit = lightning.Trainer(
        max_epochs=EPOCHS,
        logger=loggers,
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
    )
    fit.fit(Model(betas=(0.9, 0.999), lr=0.1), data, data)
    (run,) = runs_below(tmp_path)
    assert run.config == {"betas": [0.9, 0.999], "lr": 0.1}
    assert run.epochs.tolist() == list(range(EPOCHS))
    assert run.unit == "epoch"
    assert run.source == "csv"
    assert run.val_loss is not None
    assert run.val_loss[-1] == pytest.approx(float(fit.callback_metrics["val_loss"]), rel=1e-6)


def test_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CSVLogger with a separator of its own, and the history as JSON, of one run; on torch, without TensorFlow."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="needs keras: pip install -e '.[interop]'")
    import json

    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"), separator=";")
    history = model.fit(X, Y, epochs=EPOCHS, validation_split=0.25, verbose=0, callbacks=[log]).history
    (tmp_path / "history.json").write_text(json.dumps(history))
    (run,) = runs_below(tmp_path)
    np.testing.assert_allclose(run.train_loss, history["loss"], rtol=1e-6)
    np.testing.assert_allclose(run.val_loss, history["val_loss"], rtol=1e-6)
    np.testing.assert_allclose(run.val_accuracy, history["val_accuracy"], rtol=1e-6)


def test_transformers_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints each hold the history so far, and TensorBoard's files all of it: one run."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e '.[interop]'")
    pytest.importorskip("accelerate", reason="needs accelerate: pip install -e '.[interop]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.layer(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    data = [{"x": torch.from_numpy(x), "labels": int(y)} for x, y in zip(X, Y, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=16,
        logging_steps=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to=["tensorboard"],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(Model(), arguments, train_dataset=data, eval_dataset=data)
    trainer.train()
    trainer.save_state()
    (run,) = runs_below(tmp_path)
    said = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(said) == EPOCHS
    np.testing.assert_allclose(run.val_loss, said, rtol=1e-6)
    assert run.epochs.tolist() == list(range(1, EPOCHS + 1))
    os.remove(tmp_path / "trainer_state.json")  # as a run that was killed leaves it
    (killed,) = runs_below(tmp_path)
    np.testing.assert_allclose(killed.val_loss, said, rtol=1e-6)


def test_skorch(tmp_path: Path) -> None:
    skorch = pytest.importorskip("skorch", reason="needs skorch: pip install -e '.[interop]'")
    torch.manual_seed(0)
    net = skorch.NeuralNetClassifier(
        torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, max_epochs=EPOCHS, lr=0.1, verbose=0
    )
    net.fit(X, Y)
    net.history.to_file(str(tmp_path / "history.json"))
    (run,) = runs_below(tmp_path)
    np.testing.assert_allclose(run.train_loss, net.history[:, "train_loss"])
    np.testing.assert_allclose(run.val_loss, net.history[:, "valid_loss"])
    np.testing.assert_allclose(run.val_accuracy, net.history[:, "valid_acc"])
    assert run.epochs.tolist() == list(range(1, EPOCHS + 1))
