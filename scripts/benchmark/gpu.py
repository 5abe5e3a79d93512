"""The step on a GPU: one kernel after the other against CUDA graphs, and the CPU's against those."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from scripts.benchmark import pairs, say, seconds
from trainer.cli import app
from trainer.config import ConfigError
from trainer.core import data, loop
from trainer.core.stack import Stack
from trainer.engine import runtime

MNIST = ["data=mnist", "model.width=512", "model.depth=2"]
STEPS = 3200  # of a member, in all; 10 to 100 of a stack


def measure(n: int) -> None:
    """Print ratios of wall time and us per step: Adam, batch 64, every norm measured."""
    if not runtime.has_cuda():
        print("not measured: PyTorch sees no GPU here")
        return
    runtime.set_up(app.configure(["device=cuda"]))
    print(torch.cuda.get_device_name())
    for name, line, sizes in (("64-64-64-10", [], (1, 45, 512, 2048)), ("784-512-512-10", MNIST, (1, 16, 128, 512))):
        try:
            cpu, cuda = (data.load(app.configure(line).data, device) for device in ("cpu", "cuda"))
        except ConfigError:
            print(f"not measured: {name}, MNIST is not in TRAINER_DATA_ROOT")
            continue
        for K in sizes:
            plain, graphed = (_step_us([*line, f"step={step}"], K, cuda) for step in ("torch", "auto"))
            say(f"one kernel after the other / CUDA graph, {name}, K = {K}", pairs(plain, graphed, n), "")
            peak = torch.cuda.max_memory_allocated() / 1e9
            print(f"  us per step: {plain():.0f}, {graphed():.0f}; both stacks {peak:.1f} GB", flush=True)
            if K <= 45:
                native = _step_us(line, K, cpu)
                say(f"the CPU's step, all cores / CUDA graph, {name}, K = {K}", pairs(native, graphed, n), "")
                print(f"  us per step: {native():.0f}, {graphed():.0f}", flush=True)
            del plain, graphed  # and the stacks they hold


def _step_us(line: list[str], K: int, dataset: data.Dataset) -> Callable[[], float]:
    """What measures a step of a stack of K, in us."""
    torch.cuda.reset_peak_memory_stats()
    repeats = min(100, max(10, STEPS // K))
    config = app.configure(line)
    made = Stack([dataclasses.replace(config, seed=k) for k in range(K)], dataset)
    torch.set_num_threads(runtime.cores())
    rows, target = made.next_order()

    def steps() -> None:
        for _ in range(repeats):
            loop.train_step(made, rows, target, [slice(0, 64)], True)
        if dataset.x.is_cuda:
            torch.cuda.synchronize()

    return lambda: 1e6 * seconds(steps) / repeats
