"""Measure every performance figure of this project: ratios to a peer measured in turn, n pairs, median and spread.

python -m scripts.benchmark single [--n 3]   one run (MNIST from TRAINER_DATA_ROOT; skipped where it is absent)
python -m scripts.benchmark sweep [--n 3]    the 90-run sweep against hand-written loops and other runners
python -m scripts.benchmark step [--n 5]     the native step against torch's, JAX's and a matrix product, CPU time
python -m scripts.benchmark gpu [--n 5]      the step on a GPU, as CUDA graphs and without, and against the CPU
python -m scripts.benchmark profile          where the CPU time of a run goes, by part
python -m scripts.benchmark engines [--n 3]  it as two jobs of each engine that is here, against two workers
python -m scripts.benchmark health [--n 3]   activation statistics against the training of their epoch
python -m scripts.benchmark evaluate [--n 3] what evaluating many runs takes, against TensorBoard's reader
"""

import argparse
import os
import platform

import torch

from scripts import engines
from scripts.benchmark import evaluate, gpu, health, profile, single, step, sweep

VERBS = {
    "single": single.measure,
    "sweep": sweep.measure,
    "step": step.measure,
    "gpu": gpu.measure,
    "profile": profile.measure,
    "engines": engines.measure,
    "health": health.measure,
    "evaluate": evaluate.measure,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m scripts.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=VERBS)
    parser.add_argument("--n", type=int, default=3, help="pairs of measurements per ratio (default %(default)s)")
    parser.add_argument(
        "--only",
        default=sweep.PARTS,
        help="parts of sweep: peers abcdj, w widths and rates, t 1,000 runs, s two at once, m MNIST, o own optimizer",
    )
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.machine()}, {cores} cores, python {platform.python_version()}, torch {torch.__version__}")
    if chosen.what != "profile":
        print(f"{'ratio':<78} {'median':>8}  [min, max]")
    given = {"profile": (), "sweep": (chosen.n, chosen.only)}.get(chosen.what, (chosen.n,))
    VERBS[chosen.what](*given)
