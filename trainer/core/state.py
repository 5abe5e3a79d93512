"""The state of a stack in training as plain values, bit for bit: everything that it needs to go on; and as bytes.

A member's bits depend on who trains beside it (the same sums, in another order), so what goes on after a kill is the
whole stack, each member in its place.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.core import global_streams
from trainer.core.stack import Best, Stack


def stack_state(stack: Stack) -> dict[str, Any]:
    """All that the members still in training need to go on; `restore` takes it."""
    members = []
    for k, member in enumerate(stack.members):
        best = {} if member.best is None else {"best_model": member.best.state}
        members.append({"index": member.index, **member_state(stack, k), **best})
    return {**place(stack), "members": members}


def place(stack: Stack) -> dict[str, Any]:
    """Return how far the stack has come, and what goes on from there: it keeps its step, native or torch.

    epoch_step: steps done of the epoch that is not finished; looked: tags of the activation statistics.
    """
    done = {"epoch": stack.epoch, "step": stack.step, "epoch_step": stack.epoch_step}
    return {**done, "looked": stack.activations.tags, "served": stack.served}


def member_state(stack: Stack, k: int) -> dict[str, Any]:
    """Member k's weights, optimizer, random streams and early stopping; not the weights of its best epoch."""
    member = stack.members[k]
    return {
        "model": stack.model.member_state(k),
        "optimizer": stack.optimizers.member_state(k),
        "streams": streams(stack, k),
        "waited": member.waited,
        "overfit_for": member.overfit_for,
        "order_hash": member.order_hash,
        "start": member.start,
        "best": None if member.best is None else {"epoch": member.best.epoch, "value": member.best.value},
    }


def streams(stack: Stack, k: int) -> dict[str, Any]:
    """Where member k's random streams stand; order: before the draw of the epoch that is not finished."""
    out: dict[str, Any] = {"order": stack.members[k].order.state}
    if stack.draws_globally:
        out["global"] = global_streams.state(stack.device)
    if noises := getattr(stack.model, "noises", None):
        out["dropout"] = {key: noise.member_state(k) for key, noise in noises.items()}
    return out


@torch.no_grad()
def restore(stack: Stack, saved: dict[str, Any], rows: Sequence[list[dict[str, float]]]) -> None:
    """Put a new stack of all its members where `stack_state` was taken. rows: of each member still in training."""
    stack.select([state["index"] for state in saved["members"]])
    if stack.device.type == "cpu":
        stack.served = saved.get("served", "torch")  # older ones do not say
    stack.epoch, stack.step, stack.epoch_step = saved["epoch"], saved["step"], saved["epoch_step"]
    stack.activations.tags = saved["looked"]
    stack.optimizers.load_member_states([state["optimizer"] for state in saved["members"]])
    for key, noise in getattr(stack.model, "noises", {}).items():
        noise.load_member_states([state["streams"]["dropout"][key] for state in saved["members"]])
    for k, (member, state) in enumerate(zip(stack.members, saved["members"], strict=True)):
        stack.model.load_member_state(k, state["model"])
        member.order.resume(state["streams"]["order"])
        member.waited, member.overfit_for = state["waited"], state["overfit_for"]
        member.order_hash, member.rows = state["order_hash"], rows[k]
        member.start = state["start"]
        if state["best"] is not None:
            best = state["best"]
            member.best = Best(best["epoch"], best["value"], rows[k][best["epoch"] - 1], state["best_model"])
    if stack.draws_globally:  # last: whatever was built before drew from them
        (state,) = saved["members"]
        global_streams.restore(state["streams"]["global"], stack.device)


def to_bytes(payload: dict[str, Any]) -> bytes:
    """What torch.load(weights_only=True) reads back."""
    buffer = io.BytesIO()
    torch.save(_plain(payload), buffer)
    return buffer.getvalue()


def from_bytes(content: bytes) -> dict[str, Any]:
    """What to_bytes was given."""
    return torch.load(io.BytesIO(content), weights_only=True)


def _plain(value: Any) -> Any:
    """What is saved as equal bytes where it is equal, wherever it came from.

    Tensors own exactly what they show (torch.save writes a view's whole storage), and equal texts are one object
    (pickle writes an object once).
    """
    if isinstance(value, Tensor):
        owns = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
        return value if owns else value.clone()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return sys.intern(value) if isinstance(value, str) else value
