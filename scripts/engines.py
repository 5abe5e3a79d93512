"""What an engine costs: the 90-run sweep as two of its jobs: `python -m scripts.benchmark engines`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from scripts.benchmark import SWEEP, command, digits, installed, pairs, say
from tests import slurm_cluster

NINE = ["optimizer=sgd,adam,adamw", "dropout=0,0.25,0.5", "batchnorm=false", "seed=0"]  # of its runs


def measure(n: int) -> None:
    """The 90-run sweep as two jobs of submitit, Dask, Ray and Slurm, against two workers; engines' starts count."""
    kinds = {
        "submitit, on this machine": ("submitit", ["hydra/launcher=slurm", "hydra.launcher.cluster=local"]),
        "Dask": ("distributed", ["hydra/launcher=dask"]),
        "Ray": ("ray", ["hydra/launcher=ray"]),
        "Slurm": ("submitit", ["hydra/launcher=slurm", "hydra.launcher.mem_gb=1"]),
    }
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-"))
        if slurm_cluster.WHY_NOT:
            print(f"not measured: Slurm {slurm_cluster.WHY_NOT}")
            del kinds["Slurm"]
        else:
            os.environ.update(stack.enter_context(slurm_cluster.started(Path(folder) / "slurm")))

        def here() -> float:
            return command("-m", "trainer", "-m", *SWEEP, "hydra.launcher.workers=2", folder=folder)

        for name, (package, chosen) in kinds.items():
            if installed(package):
                line = ["-m", "trainer", "-m", *SWEEP, *chosen, "hydra.launcher.jobs=2"]
                ratios = pairs(lambda line=line: command(*line, folder=folder), here, n, warm_up=False)
                say(f"90 runs as two jobs of {name} / by two workers here, whole command", ratios, "at most 1.5")
        if "Slurm" in kinds and installed("hydra_plugins.hydra_submitit_launcher"):
            peer = ["-m", "scripts.peers.textbook", "-m", *NINE, f"data={digits(folder)}"]
            asked = [f"hydra.launcher.{text}" for text in ("cpus_per_task=1", "mem_gb=1", "timeout_min=10")]
            theirs = lambda: 10 * command(*peer, "hydra/launcher=submitit_slurm", *asked, folder=folder)  # noqa: E731
            line = ["-m", "trainer", "-m", *SWEEP, *kinds["Slurm"][1], "hydra.launcher.jobs=2"]
            ratios = pairs(theirs, lambda: command(*line, folder=folder), n, warm_up=False)
            say(
                "a textbook loop, a job a run by hydra-submitit-launcher, 9 runs times 10 / ours", ratios, "at least 15"
            )
