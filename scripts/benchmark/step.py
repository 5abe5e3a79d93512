"""The step on one thread, every norm measured, in CPU time: against torch's, JAX's and the machine's product."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

from scripts.benchmark import digits, installed, pairs, say
from trainer.cli import app
from trainer.config import Mlp
from trainer.core import data, loop
from trainer.core.stack import Stack
from trainer.engine import runtime


def measure(n: int) -> None:
    """Print ratios and shares: digits 64-64-64-10, batch 64."""
    dataset = data.load(app.configure([]).data)
    runtime.set_up(app.configure([]))
    torch.set_num_threads(1)
    for K, limit in ((1, "at least 8"), (8, "at least 2.5"), (45, "at least 1.7")):
        torchs, native = (_cpu_us(by, K, dataset) for by in ("torch", "native"))
        say(f"torch's step / the native one, CPU time, Adam, K = {K}", pairs(torchs, native, n), limit)
        print(f"  us per member and step: torch {torchs():.1f}, native {native():.1f}")
    if installed("jax"):
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        from scripts.peers import jax_runs

        with tempfile.TemporaryDirectory() as folder:
            file = digits(folder)
            for K in (1, 8, 45):
                jax, compiling_s = jax_runs.cpu_us(file, K, epochs=max(1, 60 // K))
                native = _cpu_us("native", K, dataset)
                say(f"JAX, steady / the native step, CPU time, Adam, K = {K}", pairs(jax, native, n), "at least 1.7")
                print(f"  us per member and step: JAX {jax():.1f}, after {compiling_s:.0f} s of compiling")
    shares(dataset)


def _cpu_us(step: str, K: int, dataset: data.Dataset) -> Callable[[], float]:
    """What measures the CPU time of a member's step, in us, by that step in a stack of K."""
    made = Stack([app.configure([f"seed={k}", f"step={step}"]) for k in range(K)], dataset)
    take = _steps(made, max(20, 1000 // K))
    return lambda: 1e6 * take() / K


def _steps(made: Stack, least: int) -> Callable[[], float]:
    """What takes at least so many steps, as many a call as in training; the CPU time of one, in seconds."""
    rows, target = made.next_order()
    batches = [step.batches for step in max(made.bursts(), key=len)]
    measure, calls = [True] * len(batches), math.ceil(least / len(batches))

    def take() -> float:
        spent = _cpu_s(lambda: [loop.train_steps(made, rows, target, batches, measure) for _ in range(calls)])
        return spent / calls / len(batches)

    return take


def shares(dataset: data.Dataset) -> None:
    """Print a step's time over the stack's size, all recorded, and the share of torch's own matrix product."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    peak = max(2 * 1024**3 / _cpu_s(lambda: a @ b) for _ in range(20))
    print(f"one thread, matrix product {peak / 1e9:.0f} GFLOP/s of CPU time; AdamW, 64-64-64-10, batch 64:")
    adamw = app.configure(["optimizer=adamw"])
    assert isinstance(adamw.model, Mlp)
    sizes = [dataset.in_features, *adamw.model.widths, dataset.out_features]
    weights = sum(p * q for p, q in itertools.pairwise(sizes))
    flops = 64 * (6 * weights - 2 * sizes[0] * sizes[1])  # forward 2, backward 4 a weight, none for the inputs
    for K, limit in ((1, "at least 60 %"), (8, ""), (64, "at least 65 %"), (512, "")):
        made = Stack([dataclasses.replace(adamw, seed=k) for k in range(K)], dataset)
        torch.set_num_threads(1)
        take = _steps(made, max(5, 1024 // K))
        take()
        times = [take() / K for _ in range(5)]
        middle = statistics.median(times)
        spread = f"[{min(times) * 1e6:.1f}, {max(times) * 1e6:.1f}]"
        share = f"{flops / middle / peak:5.1%} of it"
        print(f"  K={K:<4} {middle * 1e6:7.1f} us per member and step {spread}  {share}  {limit}", flush=True)


def _cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
