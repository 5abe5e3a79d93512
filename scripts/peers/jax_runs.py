"""Train seeds of an MLP as JAX does it best: all of the training jitted, vmapped over runs.

python -m scripts.peers.jax_runs DATA.pt RUNS EPOCHS OUT.npz   (needs pip install jax)

OUT.npz holds a number a run and step: loss, accuracy, the norm of each gradient; and a number a run and
epoch: loss and accuracy of both splits. Only whole batches are trained on: their shapes are compiled.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
import torch

SIZES, BATCH = (64, 64, 64, 10), 64
Arrays = dict[str, Any]


def initial(seed: Any) -> list[Any]:
    """Weights and biases as PyTorch draws them: uniform within 1 / sqrt(features in)."""
    keys = jax.random.split(jax.random.key(seed), 2 * len(SIZES))
    out = []
    for i, (a, b) in enumerate(itertools.pairwise(SIZES)):
        out.append(jax.random.uniform(keys[2 * i], (a, b), minval=-(a**-0.5), maxval=a**-0.5))
        out.append(jax.random.uniform(keys[2 * i + 1], (b,), minval=-(a**-0.5), maxval=a**-0.5))
    return out


def scores(weights: list[Any], x: Any, y: Any) -> tuple[Any, Any]:
    """Mean cross-entropy and accuracy."""
    for i in range(0, len(weights) - 2, 2):
        x = jax.nn.relu(x @ weights[i] + weights[i + 1])
    log_p = jax.nn.log_softmax(x @ weights[-2] + weights[-1])
    return -log_p[jnp.arange(len(y)), y].mean(), (log_p.argmax(1) == y).mean()


def step(state: tuple[Any, ...], batch: tuple[Any, Any]) -> tuple[tuple[Any, ...], Arrays]:
    """One step of Adam (Kingma and Ba 2015, algorithm 1), with what is measured of it."""
    weights, m, v, t = state
    (loss, accuracy), gradients = jax.value_and_grad(scores, has_aux=True)(weights, *batch)
    t = t + 1
    m = [0.9 * a + 0.1 * g for a, g in zip(m, gradients, strict=True)]
    v = [0.999 * a + 0.001 * g * g for a, g in zip(v, gradients, strict=True)]
    rate, root = 1e-3 / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
    weights = [w - rate * a / (jnp.sqrt(b) / root + 1e-8) for w, a, b in zip(weights, m, v, strict=True)]
    norms = jnp.stack([jnp.sqrt((g * g).sum()) for g in gradients])
    return (weights, m, v, t), {"loss": loss, "accuracy": accuracy, "norms": norms}


def trained(data: dict[str, tuple[Any, Any]], epochs: int, evaluated: bool = True) -> Callable[[Any], Arrays]:
    """A jitted function of seeds (K,): what is measured of their training, with K first."""
    x, y = data["train"]
    batches = len(x) // BATCH

    def epoch(state: tuple[Any, ...], key: Any) -> tuple[tuple[Any, ...], Arrays]:
        order = jax.random.permutation(key, len(x))[: batches * BATCH].reshape(batches, BATCH)
        state, measured = jax.lax.scan(lambda s, rows: step(s, (x[rows], y[rows])), state, order)
        if evaluated:
            measured |= {name: jnp.stack(scores(state[0], *split)) for name, split in data.items()}
        return state, measured

    def run(seed: Any) -> Arrays:
        weights = initial(seed)
        zeros = [jnp.zeros_like(w) for w in weights]
        keys = jax.random.split(jax.random.key(seed + 1), epochs)
        return jax.lax.scan(epoch, (weights, zeros, zeros, 0), keys)[1]

    return jax.jit(jax.vmap(run))


def load(file: str) -> dict[str, tuple[Any, Any]]:
    """The splits of a file of torch.save({"train": (x, y), "val": (x, y)})."""
    splits = torch.load(file, weights_only=True)
    return {name: (jnp.asarray(x.numpy()), jnp.asarray(y.numpy())) for name, (x, y) in splits.items()}


def cpu_us(file: str, runs: int, epochs: int) -> tuple[Callable[[], float], float]:
    """What measures the CPU time of a member's step, in us, evaluation left out; and seconds of compiling."""
    data, seeds = load(file), jnp.arange(runs)
    began = time.perf_counter()
    run = trained(data, epochs, evaluated=False).lower(seeds).compile()  # type: ignore[attr-defined]
    compiling_s = time.perf_counter() - began
    steps = runs * epochs * (len(data["train"][0]) // BATCH)

    def measure() -> float:
        began = time.process_time()
        jax.block_until_ready(run(seeds))
        return 1e6 * (time.process_time() - began) / steps

    return measure, compiling_s


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m scripts.peers.jax_runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help='a file of torch.save({"train": (x, y), "val": (x, y)})')
    parser.add_argument("runs", type=int, help="seeds")
    parser.add_argument("epochs", type=int, help="passes over the training split")
    parser.add_argument("out", help="where to put what was measured")
    options = parser.parse_args()
    found = trained(load(options.data), options.epochs)(jnp.arange(options.runs))
    np.savez(options.out, **jax.device_get(found))
