"""Train the same runs in PyTorch Lightning, one after another; TensorBoardLogger gets all that the textbook records.

python -m scripts.peers.lightning_runs DATA.pt FOLDER RUNS   (needs pip install lightning)
"""

from __future__ import annotations

import argparse
import itertools
import logging
import warnings

import lightning  # pyright: ignore[reportMissingImports]
import torch
from lightning.pytorch.callbacks import LearningRateMonitor  # pyright: ignore[reportMissingImports]
from lightning.pytorch.loggers import TensorBoardLogger  # pyright: ignore[reportMissingImports]
from lightning.pytorch.utilities import grad_norm  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from scripts.peers import loops


class Module(lightning.LightningModule):
    """The MLP, its loss, accuracy and gradient norms."""

    def __init__(self, name: str, dropout: float, batchnorm: bool) -> None:
        super().__init__()
        self.name, self.model = name, loops.network([64, 64, 64, 10], dropout, batchnorm)

    def training_step(self, batch, index):
        """Loss and accuracy of the batch, logged every step."""
        x, y = batch
        output = self.model(x)
        loss = F.cross_entropy(output, y)
        self.log("train/loss", loss, on_step=True)
        self.log("train/accuracy", (output.argmax(1) == y).float().mean(), on_step=True)
        return loss

    def validation_step(self, batch, index, dataloader_idx):
        """Loss and accuracy of either split."""
        x, y = batch
        output = self.model(x)
        split = ("train", "val")[dataloader_idx]
        self.log(f"eval/{split}_loss", F.cross_entropy(output, y), add_dataloader_idx=False)
        accuracy = (output.argmax(1) == y).float().mean()
        self.log(f"eval/{split}_accuracy", accuracy, add_dataloader_idx=False)

    def on_before_optimizer_step(self, optimizer):
        """The norm of each parameter's gradient, and the total."""
        self.log_dict(grad_norm(self, norm_type=2))

    def configure_optimizers(self):
        """PyTorch's defaults."""
        return loops.optimizer(self.name, self)


def main(data: str, folder: str, runs: int) -> None:
    """Train the first `runs` of the 90 configurations, evenly spread."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    splits = torch.load(data, weights_only=True)
    grid = list(itertools.product(("sgd", "adam", "adamw"), (0.0, 0.25, 0.5), (False, True), range(5)))
    for number in range(runs):
        name, dropout, batchnorm, seed = grid[number * len(grid) // runs]
        lightning.seed_everything(seed, verbose=False)
        trainer = lightning.Trainer(
            max_epochs=30, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, logger=TensorBoardLogger(folder, name=str(number)),
            callbacks=[LearningRateMonitor(logging_interval="step")],
        )  # fmt: skip
        train = DataLoader(TensorDataset(*splits["train"]), batch_size=64, shuffle=True)
        evaluated = [DataLoader(TensorDataset(*splits[split]), batch_size=2048) for split in ("train", "val")]
        trainer.fit(Module(name, dropout, batchnorm), train, evaluated)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m scripts.peers.lightning_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", help='a file of torch.save({"train": (x, y), "val": (x, y)})')
    parser.add_argument("folder", help="where the logs go")
    parser.add_argument("runs", type=int, help="how many of the 90 configurations, evenly spread")
    options = parser.parse_args()
    main(options.data, options.folder, options.runs)
