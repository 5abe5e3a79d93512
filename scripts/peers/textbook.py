"""Train as textbooks do: Hydra, DataLoader, SummaryWriter, the norm of each parameter's gradient at every step.

python -m scripts.peers.textbook -m optimizer=sgd,adam dropout=0,0.5 batchnorm=false,true seed=0,1 data=digits.pt
"""

from __future__ import annotations

from dataclasses import dataclass

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from scripts.peers import loops


@dataclass
class Config:
    optimizer: str = "adam"
    dropout: float = 0.0
    batchnorm: bool = False
    seed: int = 0
    epochs: int = 30
    threads: int = 1
    data: str = "???"  # a file of torch.save({"train": (x, y), "val": (x, y)})


ConfigStore.instance().store("config", Config)


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config: Config) -> None:
    """Train one run; accuracy and loss of train and val after every epoch, as most such loops have them."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    splits = torch.load(config.data, weights_only=True)
    loader = DataLoader(TensorDataset(*splits["train"]), batch_size=64, shuffle=True)
    model = loops.network([64, 64, 64, 10], config.dropout, config.batchnorm)
    optimizer = loops.optimizer(config.optimizer, model)
    writer = SummaryWriter(HydraConfig.get().runtime.output_dir)
    step = 0
    for epoch in range(config.epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            output = model(x)
            loss = F.cross_entropy(output, y)
            loss.backward()
            squares = 0.0
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                norm = parameter.grad.norm().item()
                squares += norm**2
                writer.add_scalar(f"grad_norm/{name}", norm, step)
            writer.add_scalar("grad_norm/total", squares**0.5, step)
            optimizer.step()
            writer.add_scalar("train/loss", loss.item(), step)
            writer.add_scalar("train/accuracy", (output.argmax(1) == y).float().mean().item(), step)
            writer.add_scalar("lr", optimizer.param_groups[0]["lr"], step)
            step += 1
        model.eval()
        with torch.no_grad():
            for split, (x, y) in splits.items():
                output = model(x)
                writer.add_scalar(f"eval/{split}_loss", F.cross_entropy(output, y).item(), epoch)
                writer.add_scalar(f"eval/{split}_accuracy", (output.argmax(1) == y).float().mean().item(), epoch)
    writer.close()


if __name__ == "__main__":
    main()
