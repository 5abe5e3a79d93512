"""checkpoints/best.pt and last.pt of one run: plain PyTorch, loadable with torch.load(..., weights_only=True).

They hold no clock times: two runs of one command write equal files.
"""

from __future__ import annotations

from pathlib import Path

from trainer import files
from trainer.config import to_dict
from trainer.core import state
from trainer.core.stack import Stack


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
        files.write(folder / "best.pt", state.to_bytes({"epoch": best.epoch, "model": best.state, **common}))
    files.write(folder / "last.pt", state.to_bytes({**state.place(stack), **state.member_state(stack, k), **common}))
