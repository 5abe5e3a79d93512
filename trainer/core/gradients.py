"""Norms of gradients and weights, and gradient clipping, as pure functions. Shapes: K member, P parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def norms_PK(tensors: Sequence[Tensor | None], K: int) -> Tensor:
    """The Euclidean norm of every tensor (K, ...) for every member; None has norm 0."""
    like = next(tensor for tensor in tensors if tensor is not None)
    return torch.stack(
        [
            like.new_zeros(K) if tensor is None else torch.linalg.vector_norm(tensor.reshape(K, -1), dim=1)
            for tensor in tensors
        ]
    )


def total_norm_K(norms: Tensor) -> Tensor:
    """The norm of all parameters' gradients as one vector, from their single norms (P, K)."""
    return torch.linalg.vector_norm(norms, dim=0)


def clip_factor_K(total_K: Tensor, max_norm_K: Tensor) -> Tensor:
    """The factor that shortens a gradient to its largest norm (Pascanu et al. 2013, algorithm 1); 1 where max is inf.

    max / (norm + 1e-6), at most 1, as torch.nn.utils.clip_grad_norm_ has it.
    """
    factor = (max_norm_K / (total_K + 1e-6)).clamp(max=1)
    return torch.where(max_norm_K.isinf(), 1, factor)
