"""What an engine costs: the 90-run sweep as two of its jobs on this machine: `python -m scripts.benchmark engines`."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from pathlib import Path

from scripts.benchmark import SWEEP, command, digits, installed, pairs, say
from tests import slurm_cluster

NINE = ["optimizer=sgd,adam,adamw", "dropout=0,0.25,0.5", "batchnorm=false", "seed=0"]  # of its runs
SUBMITIT = """
import submitit, time
executor = submitit.AutoExecutor("start", "{cluster}")
executor.update_parameters(timeout_min=5, mem_gb=1)
job = executor.submit(int)
while not job.paths.result_pickle.exists():
    time.sleep(0.05)
"""
DASK = """
from distributed import Client
client = Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None)
client.submit(int).result()
client.close()
"""
RAY = """
import ray
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.get(ray.remote(lambda: 0).remote())
ray.shutdown()
"""
ENGINES = {  # name -> its package, the launcher, and what starts it, does nothing there and ends it
    "submitit, on this machine": (
        "submitit",
        ["hydra/launcher=slurm", "hydra.launcher.cluster=local"],
        SUBMITIT.format(cluster="local"),
    ),
    "Dask": ("distributed", ["hydra/launcher=dask"], DASK),
    "Ray": ("ray", ["hydra/launcher=ray"], RAY),
    "Slurm, of one node": (
        "submitit",
        ["hydra/launcher=slurm", "hydra.launcher.mem_gb=1"],
        SUBMITIT.format(cluster="slurm"),
    ),
}


def measure(n: int) -> None:
    """Print what a sweep takes by each engine that is here, without and with its start, over two local workers."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-"))
        if slurm_cluster.WHY_NOT:
            print(f"not measured: Slurm {slurm_cluster.WHY_NOT}")
        else:
            os.environ.update(stack.enter_context(slurm_cluster.started(Path(folder) / "slurm")))

        def sweep(*chosen: str) -> float:
            return command("-m", "trainer", "-m", *SWEEP, *chosen, folder=folder)

        sweep("hydra.launcher.workers=2")  # does not count
        for name, (package, chosen, start) in ENGINES.items():
            if not installed(package) or ("Slurm" in name and slurm_cluster.WHY_NOT):
                continue
            line = [*chosen, "hydra.launcher.jobs=2"]
            rounds = [
                (sweep(*line), command("-c", start, folder=folder), sweep("hydra.launcher.workers=2")) for _ in range(n)
            ]
            starts = statistics.median(start for _, start, _ in rounds)
            say(
                f"90 runs, two jobs of {name} - its start / two workers",
                [(a - b) / c for a, b, c in rounds],
                "at most 1.5",
            )
            say(f"  with its start, {starts:.1f} s", [a / c for a, _, c in rounds], "")
        if not slurm_cluster.WHY_NOT and installed("hydra_plugins.hydra_submitit_launcher"):
            asked = [f"hydra.launcher.{text}" for text in ("cpus_per_task=1", "mem_gb=1", "timeout_min=10")]
            peer = ["-m", "scripts.peers.textbook", "-m", *NINE, f"data={digits(folder)}"]
            ours = [*ENGINES["Slurm, of one node"][1], "hydra.launcher.jobs=2"]
            ratios = pairs(
                lambda: 10 * command(*peer, "hydra/launcher=submitit_slurm", *asked, folder=folder),
                lambda: sweep(*ours),
                n,
                warm_up=False,
            )
            say(
                "a textbook loop, a job a run by hydra-submitit-launcher, 9 runs times 10 / ours", ratios, "at least 15"
            )
