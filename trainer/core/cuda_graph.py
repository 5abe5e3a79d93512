"""The step of a stack as CUDA graphs: the GPU replays at once what the CPU would launch kernel by kernel.

A step of a small network is a hundred kernels of a few microseconds each, and the CPU takes longer to launch one than
the GPU to run it. A graph is captured once and launched as one. At each replay it reads and writes the same memory:

- The examples of the step, and dropout's numbers, are copied into tensors of its own before.
- Weights, buffers of batch norm, and the optimizers' state change in place, as they do without.
- A learning rate is a number in a tensor (`MemberOptimizers.prepare`); whatever else kernels are given never changes.

What a replay is to read is allocated before the capture: during one, memory is shared out as the step needs it, and a
kernel before may write what a later one reads.

The first step of a kind (batch sizes, measured or not) runs kernel by kernel: it is a real step, and sets up all that a
capture may not (libraries' handles, optimizer state). The second is captured, which computes nothing, and replayed. All
kernels are those of the step without a graph, and so are the bits.
Shapes: K member, N of an epoch's order, E example of a step, M measured quantity.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.core.dropout import DropoutNoise
from trainer.core.optimizers import MemberOptimizers

Gradients = Sequence[Tensor | None]
Compute = Callable[[Tensor, Tensor, Sequence[slice], bool], tuple[Gradients, Tensor]]


@dataclass
class _Graph:
    """A captured step: what it reads, and where its results are after a replay."""

    graph: torch.cuda.CUDAGraph
    rows_KE: Tensor
    target_KE: Tensor
    noise: list[tuple[DropoutNoise, Tensor]]  # (K, n) numbers each, in the order they are used
    gradients: Gradients
    measured_MK: Tensor
    updates: bool  # whether it holds the optimizers' update


class GraphedStep:
    """The step of a stack as it is: another one is made where its members, or the tensors it holds, change."""

    def __init__(self, noises: Sequence[DropoutNoise], optimizers: MemberOptimizers) -> None:
        """noises: all that the network draws from, but for the global generator, which torch takes care of."""
        self.noises = noises
        self.optimizers = optimizers
        self.graphs: dict[tuple[object, ...], _Graph | list[tuple[DropoutNoise, int]]] = {}  # or what its noise will be
        self.pool = torch.cuda.graph_pool_handle()  # replays follow each other, so they share their memory

    def __call__(
        self, compute: Compute, step: int, rows_KN: Tensor, target_KN: Tensor, batches: Sequence[slice], measure: bool
    ) -> Tensor:
        """Take a step; return what was measured. compute: gradients and measurements of batches of an order."""
        kind = tuple(batch.stop - batch.start for batch in batches), measure
        if kind not in self.graphs:
            taken: list[tuple[DropoutNoise, int]] = []
            with self._reading(functools.partial(_note, taken)):
                gradients, measured_MK = compute(rows_KN, target_KN, batches, measure)
            self.optimizers.step(step, gradients)
            self.graphs[kind] = taken
            return measured_MK
        first, last = batches[0].start, batches[-1].stop  # they follow each other
        rows_KE, target_KE = rows_KN[:, first:last], target_KN[:, first:last]
        graph = self.graphs[kind]
        if not isinstance(graph, _Graph):
            own = [slice(batch.start - first, batch.stop - first) for batch in batches]
            graph = self.graphs[kind] = self._capture(compute, step, rows_KE, target_KE, own, measure, graph)
        graph.rows_KE.copy_(rows_KE)
        graph.target_KE.copy_(target_KE)
        for noise, numbers_Kn in graph.noise:
            numbers_Kn.copy_(noise.take(numbers_Kn.shape[1]))
        self.optimizers.prepare(step)
        graph.graph.replay()
        if not graph.updates:
            self.optimizers.update(step, graph.gradients)
        return graph.measured_MK.clone()

    def _capture(
        self,
        compute: Compute,
        step: int,
        rows_KE: Tensor,
        target_KE: Tensor,
        batches: Sequence[slice],
        measure: bool,
        taken: Sequence[tuple[DropoutNoise, int]],
    ) -> _Graph:
        graph, updates = torch.cuda.CUDAGraph(), self.optimizers.capturable
        rows_KE, target_KE = rows_KE.clone(), target_KE.clone()
        K, like = len(rows_KE), {"dtype": torch.int16, "device": rows_KE.device}
        noise = [(source, torch.empty(K, n, **like)) for source, n in taken]
        left = iter(noise)
        with self._reading(lambda source, n: next(left)[1]), torch.cuda.graph(graph, pool=self.pool):
            gradients, measured_MK = compute(rows_KE, target_KE, batches, measure)
            if updates:
                with self.optimizers.capture():
                    self.optimizers.update(step, gradients)
        return _Graph(graph, rows_KE, target_KE, noise, gradients, measured_MK, updates)

    @contextlib.contextmanager
    def _reading(self, take: Callable[[DropoutNoise, int], Tensor]) -> Iterator[None]:
        """Let the network take its noise so."""
        for noise in self.noises:
            noise.source = functools.partial(take, noise)
        try:
            yield
        finally:
            for noise in self.noises:
                noise.source = None


def _note(taken: list[tuple[DropoutNoise, int]], noise: DropoutNoise, n: int) -> Tensor:
    """Draw, and keep in mind how much of which noise."""
    taken.append((noise, n))
    return noise.draw(n)
