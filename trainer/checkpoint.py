"""Checkpoints of one run: best.pt (weights to use) and last.pt (all that training needs to go on).

Both load with torch.load(..., weights_only=True) and hold no clock times: two runs of one command write equal bytes.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import files
from trainer.config import to_dict
from trainer.train import Stack


def save(stack: Stack, k: int, directory: Path) -> None:
    """Write both checkpoints of member k below `directory`/checkpoints."""
    folder = directory / "checkpoints"
    folder.mkdir(exist_ok=True)
    member = stack.members[k]
    dataset = stack.dataset
    common = {
        "config": to_dict(member.config),
        "input": {"shift": dataset.shift, "scale": dataset.scale, "shape": list(dataset.shape)},
        "in_features": dataset.in_features,
        "out_features": dataset.out_features,
    }
    best = member.best
    if best is not None:
        files.write(folder / "best.pt", _bytes({"epoch": best.epoch, "model": best.state, **common}))
    last: dict[str, Any] = {"epoch": stack.epoch, "step": stack.step, "model": stack.model.member_state(k), **common}
    last["optimizer"] = stack.optimizers.member_state(k)
    last["streams"] = streams(stack, k)
    last["waited"] = member.waited
    files.write(folder / "last.pt", _bytes(last))


def streams(stack: Stack, k: int) -> dict[str, Any]:
    """Where member k's random streams stand; the global one serves modules of the user's own."""
    out: dict[str, Any] = {"order": stack.members[k].order.generator.get_state(), "global": torch.get_rng_state()}
    noises = getattr(stack.model, "noises", None)
    if noises is not None:
        out["dropout"] = {key: noise.member_state(k) for key, noise in noises.items()}
        del out["global"]
    return out


def _bytes(payload: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(_contiguous(payload), buffer)
    return buffer.getvalue()


def _contiguous(value: Any) -> Any:
    """Tensors that own exactly what they show: torch.save writes a view's whole storage."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _contiguous(item) for key, item in value.items()}
    return value
