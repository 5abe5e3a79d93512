"""Dropout of K members at once, each with its own rate and random stream. Shapes: K member, F feature, B example."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainer.core.seeds import stream_seed


class DropoutNoise:
    """Uniform 16-bit numbers from every member's own seed, one stream a seed, for all layers of one purpose.

    Input and hidden layers have a stream each: a member without the one then reads the same numbers for the other,
    whether its neighbours have both or not. Drawn 64 bits at a time into a buffer: a Bernoulli draw for each unit
    costs thirty times as much on a CPU. What a member reads does not depend on who else is in the stack: members of
    one seed read the same numbers, which are drawn once. A member without a seed has no dropout of this purpose: it
    reads zeros, which nobody draws. Shapes: S distinct seeds.
    """

    CAPACITY = 2**17  # numbers a seed and refill; part of the stream's definition

    def __init__(self, seeds: Sequence[int | None], device: torch.device, purpose: str = "dropout") -> None:
        self.device = device
        rows = {seed: row for row, seed in enumerate(dict.fromkeys(seeds))}
        self.row_K = torch.tensor([rows[seed] for seed in seeds], device=device)
        self.generators = [
            None if seed is None else torch.Generator(device=device).manual_seed(stream_seed(seed, purpose))
            for seed in rows
        ]
        self.buffer = torch.empty(len(rows), 0, dtype=torch.int16, device=device)  # (S, drawn)
        self.before = self._states()  # before the buffer was drawn
        self.position = 0
        self.source: Callable[[int], Tensor] | None = None  # that is read instead

    def _states(self) -> list[Tensor | None]:
        return [None if generator is None else generator.get_state() for generator in self.generators]

    def take(self, n: int) -> Tensor:
        """The next n numbers of every member's stream: (K, n) int16, uniform on [-2^15, 2^15)."""
        return self.draw(n) if self.source is None else self.source(n)

    def draw(self, n: int) -> Tensor:
        """What `take` says, of the streams themselves."""
        if self.position + n > self.buffer.shape[1]:
            self._refill(max(n + -n % 4, self.CAPACITY))
        self.position += n
        numbers_Sn = self.buffer[:, self.position - n : self.position]
        return numbers_Sn if len(numbers_Sn) == len(self.row_K) else numbers_Sn.index_select(0, self.row_K)

    def _refill(self, n: int) -> None:
        words = torch.empty(len(self.generators), n // 4, dtype=torch.int64, device=self.device)
        self.before = self._states()
        for row, generator in zip(words, self.generators, strict=True):
            row.zero_() if generator is None else row.random_(-(2**63), None, generator=generator)
        self.buffer = words.view(torch.int16)
        self.position = 0

    def select(self, members: Sequence[int]) -> None:
        """Keep only these members, in this order."""
        rows = self.row_K[list(members)].tolist()
        kept = {row: place for place, row in enumerate(dict.fromkeys(rows))}
        self.row_K = torch.tensor([kept[row] for row in rows], device=self.device)
        self.generators = [self.generators[row] for row in kept]
        self.before = [self.before[row] for row in kept]
        self.buffer = self.buffer[list(kept)]

    def member_state(self, k: int) -> dict[str, Tensor | int | None]:
        """All that member k's stream needs to go on: see load_member_states."""
        return {"generator": self.before[self.row_K[k]], "drawn": self.buffer.shape[1], "position": self.position}

    def load_member_states(self, states: Sequence[dict[str, Tensor | int | None]]) -> None:
        """Put every stream back where its state was taken (all at the same position: members march in step)."""
        for row, state in zip(self.row_K.tolist(), states, strict=True):
            generator = self.generators[row]
            if generator is not None:
                assert isinstance(state["generator"], Tensor)
                generator.set_state(state["generator"])
        drawn, position = states[0]["drawn"], states[0]["position"]
        assert isinstance(drawn, int)
        assert isinstance(position, int)
        self.buffer = self.buffer[:, :0]
        self.before = self._states()
        if drawn:
            self._refill(drawn)
        self.position = position


class StackedDropout(nn.Module):
    """K dropouts (Srivastava et al. 2014, inverted), each with its own rate: x -> x * [r >= p] / (1 - p).

    p is rounded to a multiple of 2^-16, in the mask and in the scale alike, so that the expectation is exact.
    """

    threshold: Tensor
    scale: Tensor

    def __init__(self, rates: Sequence[float], noise: DropoutNoise) -> None:
        super().__init__()
        self.noise = noise
        dropped = torch.tensor([min(round(rate * 2**16), 2**16 - 1) for rate in rates])
        self.register_buffer("threshold", (dropped - 2**15).to(torch.int16).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", (1 / (1 - dropped.double() / 2**16)).float().view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor(x) if self.training else x

    def factor(self, x: Tensor) -> Tensor:
        """The next mask times the scale, for an input like x (K, F, B): 0 where it is dropped, else 1 / (1 - p)."""
        noise = self.noise.take(x[0].numel()).view(x.shape)
        kept = torch.ge(noise, self.threshold, out=torch.empty_like(noise))  # as int16: bools cost five times as much
        return kept.to(x.dtype).mul_(self.scale)
