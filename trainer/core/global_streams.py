"""Python's, NumPy's and PyTorch's global random generators: what a module of the user's own draws from.

Our own networks have streams of their own, and touch none of these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# The user's module draws from NumPy's legacy generator, np.random.rand(), so it is that which is seeded and kept.
# ruff: noqa: NPY002


def seed(number: int) -> None:
    """Start all of them, a GPU's too, from one 64-bit seed."""
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])
    torch.manual_seed(number)


def state(device: torch.device) -> dict[str, Any]:
    """Return where they stand, as plain values and tensors: torch.load(weights_only=True) reads them."""
    version, internal, next_gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    assert numpy["bit_generator"] == "MT19937", "NumPy's global generator is another than it was at the start"
    out = {
        "python": {"version": version, "internal": torch.tensor(internal), "next_gauss": next_gauss},
        "numpy": {
            "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "position": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    return out | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore(saved: dict[str, Any], device: torch.device) -> None:
    """Put them back to a `state`."""
    python, numpy = saved["python"], saved["numpy"]
    random.setstate((python["version"], tuple(python["internal"].tolist()), python["next_gauss"]))
    key = numpy["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    torch.set_rng_state(saved["torch"])
    if "cuda" in saved:
        torch.cuda.set_rng_state(saved["cuda"], device)


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Put them back afterwards, whatever the block draws."""
    saved = state(device)
    try:
        yield
    finally:
        restore(saved, device)
