"""Hand-written eager loops over tensors in memory: the fastest thing most people would write themselves."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F


def network(sizes: list[int], dropout: float = 0.0, batchnorm: bool = False) -> nn.Sequential:
    """A plain MLP: linear, batch norm, ReLU, dropout for each hidden layer, then a linear layer."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if batchnorm else []), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, batch_size: int
) -> None:
    """One epoch of training, nothing recorded. x (N, I), y (N,)."""
    model.train()
    order = torch.randperm(len(x))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's defaults, SGD at 0.1."""
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](model.parameters())
