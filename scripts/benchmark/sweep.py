"""The 90-run sweep against hand-written loops and other runners; what a sweep costs as it grows."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from scripts.benchmark import MNIST, SWEEP, command, cpu_seconds, digits, installed, pairs, say, seconds
from scripts.benchmark.single import Silent, train_seconds
from scripts.peers import loops
from trainer.cli import app
from trainer.config import Config, ConfigError
from trainer.core import data
from trainer.engine import planning, pool
from trainer.engine.jobs import Job, StackJob

PARTS = "abcdjwtsmo"


def measure(n: int, only: str) -> None:
    """The 90-run sweep against peers, and how the cost grows with the size of a stack."""
    config = app.configure([])
    dataset = data.load(config.data)
    split = data.split(dataset, config.data, 0)
    x, y = dataset.x[split.train], dataset.y[split.train]
    grid = list(itertools.product(("sgd", "adam", "adamw"), (0.0, 0.25, 0.5), (False, True), range(5)))
    with tempfile.TemporaryDirectory() as folder:
        file = digits(folder)
        peer = ["-m", "scripts.peers.textbook", "-m", *(o.replace("model.", "") for o in SWEEP), f"data={file}"]
        joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
        lightning = ["-m", "scripts.peers.lightning_runs", file, folder, "9"]

        def sequential() -> float:
            torch.set_num_threads(1)
            return seconds(lambda: [_peer_run(*setting[:3], x, y) for setting in grid])

        def whole() -> float:
            return command("-m", "trainer", "-m", *SWEEP, folder=folder)

        if "a" in only:
            configs = [app.configure(_overrides(*setting)) for setting in grid]
            _train_jobs(configs[:1], folder)  # starts what workers are forked from, which (b) counts
            ratios = pairs(sequential, lambda: _train_jobs(configs, folder), n, warm_up=False)
            say("(a) hand-written sequential loops, nothing recorded / our training, 90 runs", ratios, "at least 12")
        if "b" in only:
            ratios = pairs(lambda: command(*peer, folder=folder), whole, n, warm_up=False)
            say("(b) textbook loop under Hydra's basic launcher / ours, whole command", ratios, "at least 25")
        if "c" in only and installed("hydra_plugins.hydra_joblib_launcher"):
            ratios = pairs(lambda: command(*peer, *joblib, folder=folder), whole, n, warm_up=False)
            say("(c) the same under the joblib launcher / ours", ratios, "")
        if "d" in only and installed("lightning"):
            ratios = pairs(lambda: 10 * command(*lightning, folder=folder), whole, n, warm_up=False)
            say("(d) Lightning, 9 of the runs, times 10 / ours, whole command", ratios, "at least 70")
        if "j" in only and installed("jax"):
            jax = ["-m", "scripts.peers.jax_runs", file, "45", "30", "measured.npz"]
            ours = lambda: command("-m", "trainer", "-m", "seed=range(45)", folder=folder)  # noqa: E731
            ratios = pairs(lambda: command(*jax, folder=folder), ours, n, warm_up=False)
            say("(j) JAX, jitted and vmapped / ours, 45 runs of 30 epochs, whole command", ratios, "at least 3")
        if "w" in only:
            _mixtures(folder, n)
        if "t" in only:
            _thousand(folder, n)
        if "s" in only:
            _side_by_side(folder, n)
        if "m" in only:
            _mnist_stack(n)
        if "o" in only:
            _own_optimizer(folder, n)


def _mixtures(folder: str, n: int) -> None:
    """A sweep over widths, a stack each, and one over learning rates against as many seeds, whole command."""
    rates = ",".join(f"{1e-3 * 1.02**k:.6f}" for k in range(45))
    for what, swept, count, limit in (
        ("50 widths, 40 to 89 / 50 seeds of 64", "model.width=range(40,90)", 50, "at most 1.3"),
        ("45 learning rates / 45 seeds", f"optimizer.lr={rates}", 45, "at most 1.1"),
    ):
        lines = [("-m", "trainer", "-m", each) for each in (swept, f"seed=range({count})")]
        for kind, measured in (("time", command), ("CPU time", cpu_seconds)):
            a, b = (lambda line=line, m=measured: m(*line, folder=folder) for line in lines)
            say(f"{what}, whole command, {kind}", pairs(a, b, n, warm_up=False), limit)


def _thousand(folder: str, n: int) -> None:
    """1,000 runs in one sweep against 100: time per run; their CPU time."""
    whole = cpu_seconds("-m", "trainer", "-m", "seed=range(1000)", folder=folder)
    print(f"1,000 runs of 30 epochs: {whole:.0f} CPU s; at most 60", flush=True)
    run = lambda count: command("-m", "trainer", "-m", f"seed=range({count})", "epochs=10", folder=folder) / count  # noqa: E731
    say(
        "1,000 runs in one sweep / 100, time per run, 10 epochs",
        pairs(lambda: run(1000), lambda: run(100), max(1, n // 3)),
        "at most 1.2",
    )


def _side_by_side(folder: str, n: int) -> None:
    """Two commands at once on one machine: each trains a stack with as many threads as there are cores."""
    call = ["-m", "trainer", "-m", "seed=range(15)"]
    with ThreadPoolExecutor(2) as pool:
        both = lambda: seconds(lambda: [*pool.map(lambda _: command(*call, folder=folder), range(2))])  # noqa: E731
        say(
            "two sweeps of 15 runs at once / one alone",
            pairs(both, lambda: command(*call, folder=folder), n),
            "about 2",
        )


def _own_optimizer(folder: str, n: int) -> None:
    """A sweep of 30 runs with an elementwise optimizer of the user's own, trial included, against torch.optim's."""
    grid = [*itertools.product((0, 0.25, 0.5), (False, True), range(5))]

    def train(*choice: str) -> float:
        return _train_jobs([app.configure([*choice, *_overrides("", *setting)[1:]]) for setting in grid], folder)

    own = ("optimizer=custom", "optimizer._target_=scripts.peers.own_adam.OwnAdam")
    for step, asked in (("torch", "at most 1.3"), ("auto", "")):
        ratios = pairs(lambda: train(*own), lambda step=step: train("optimizer=adam", f"step={step}"), n)
        say(f"an Adam of the user's own / torch.optim.Adam, 30 runs, step={step}", ratios, asked)


def _mnist_stack(n: int) -> None:
    """15 runs of MNIST 784-256-10 against the hand-written loop, one epoch each, training time."""
    configs = [app.configure([*MNIST, "data.val_fraction=0", f"seed={seed}"]) for seed in range(15)]
    try:
        dataset = data.load(configs[0].data)
    except ConfigError as error:
        print(f"MNIST figures skipped: {error}")
        return

    def sequential() -> float:
        torch.set_num_threads(2)
        model = loops.network([784, 256, 10])
        optimizer = torch.optim.Adam(model.parameters())
        return 15 * seconds(lambda: loops.epoch(model, optimizer, dataset.x, dataset.y, 64))

    say(
        "MNIST 784-256-10: hand-written loop / 15 runs of ours, training time",
        pairs(sequential, lambda: train_seconds(configs, dataset)[0], n),
        "at least 1.3",
    )


def _train_jobs(configs: Sequence[Config], folder: str) -> float:
    """Our training of all runs, evaluation and records included; pictures are not."""
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        plain = [dataclasses.replace(c, record=dataclasses.replace(c.record, pictures=False)) for c in configs]
        jobs = [Job(k, Path(runs) / str(k), config=c) for k, c in enumerate(plain)]
        stacks, side_by_side = planning.plan_side_by_side(jobs, 128)
        items = [StackJob(members, side_by_side=side_by_side, threads=1) for members in stacks]
        return seconds(lambda: pool.train_stacks(items, side_by_side, Silent(), lambda: False))


def _overrides(name: str, dropout: float, batchnorm: bool, seed: int) -> list[str]:
    return [f"optimizer={name}", f"model.dropout={dropout}", f"model.batchnorm={batchnorm}", f"seed={seed}"]


def _peer_run(name: str, dropout: float, batchnorm: bool, x: torch.Tensor, y: torch.Tensor) -> None:
    model = loops.network([64, 64, 64, 10], dropout, batchnorm)
    optimizer = loops.optimizer(name, model)
    for _ in range(30):
        loops.epoch(model, optimizer, x, y, 64)
