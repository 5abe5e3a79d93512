"""What a data set shows before anything is trained on it: equal examples, contradicting targets, constant features.

Shapes: N example, I in-feature, O output (regression).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHOWN = 20  # constant features that are named
AT_ONCE = 4096  # examples that are copied


def inspect(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor) -> dict[str, Any]:
    """Count what is odd about examples x (N, I) with classes y (N,) or values (N, O), and about the test split.

    Examples are equal where their inputs are, bit by bit: they are told apart by hashes of 128 bits. `floor` is the
    lowest loss that contradicting targets allow, in nats, or as a mean squared error; `chance` the loss of the best
    prediction that ignores the input.
    """
    group, test_group = _groups(x, test_x)
    sizes = np.bincount(group, minlength=int(test_group.max(initial=-1)) + 1)
    targets, test_targets = y.cpu().numpy(), test_y.cpu().numpy()
    constant = torch.nonzero(x.amin(0) == x.amax(0)).flatten().cpu().tolist() if len(x) > 1 else []
    contradicting, floor = _contradictions(group, targets)
    leaked = sizes[test_group] > 0
    inside = np.isin(group, test_group[leaked])
    known = set(zip(group[inside].tolist(), map(tuple, np.atleast_2d(targets.T).T[inside].tolist()), strict=True))
    found = zip(test_group[leaked].tolist(), map(tuple, np.atleast_2d(test_targets.T).T[leaked].tolist()), strict=True)
    return {
        "examples": len(x),
        "test_examples": len(test_x),
        "duplicates": int(len(x) - (sizes > 0).sum()),
        "test_among_train": int(leaked.sum()),
        "with_its_target": sum(one in known for one in found),
        "constant_features": len(constant),
        "constant": constant[:SHOWN],
        "features": x.shape[1],
        "contradicting": contradicting,
        "floor": floor,
        "chance": _contradictions(np.zeros(len(x), dtype=np.int64), targets)[1],
        "test_classes": np.bincount(test_targets).tolist() if test_targets.ndim == 1 else [],
    }


def _groups(x: Tensor, test_x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Number distinct rows: (N,) int64 each, equal where rows are."""
    numbers: dict[bytes, int] = {}
    out = []
    for rows in (x, test_x):
        parts = (np.ascontiguousarray((part + 0.0).cpu().numpy()) for part in rows.split(AT_ONCE))  # -0 is 0
        digests = (hashlib.blake2b(row, digest_size=16).digest() for part in parts for row in part)
        out.append(np.fromiter((numbers.setdefault(one, len(numbers)) for one in digests), np.int64, len(rows)))
    return out[0], out[1]


def _contradictions(group: np.ndarray, targets: np.ndarray) -> tuple[int, float]:
    """Return how many examples have an equal one with another target, and the lowest mean loss that leaves.

    That is the entropy of the targets given the input, or their variance.
    """
    sizes = np.bincount(group)
    if targets.ndim == 1:  # classes
        pairs, counts = np.unique(np.stack([group, targets]), axis=1, return_counts=True)
        shares = counts / sizes[pairs[0]]
        return int(counts[shares < 1].sum()), abs(float((counts * np.log(shares)).sum() / len(group)))
    values = targets.astype(np.float64)
    means = np.stack([np.bincount(group, weights=column) for column in values.T], 1) / np.maximum(sizes, 1)[:, None]
    errors = np.where(sizes[group, None] > 1, (values - means[group]) ** 2, 0.0)
    return int((errors > 1e-12 * np.maximum(values**2, 1e-300)).any(1).sum()), float(errors.mean())
