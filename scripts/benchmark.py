"""Measure every performance figure of this project: ratios to a peer measured in turn, n pairs, median and spread.

python -m scripts.benchmark single [--n 3]   one run (MNIST from TRAINER_DATA_ROOT; skipped where it is absent)
python -m scripts.benchmark sweep [--n 3]    the 90-run sweep against hand-written loops and other runners
python -m scripts.benchmark step [--n 5]     the native step against torch's, CPU time
python -m scripts.benchmark profile          where the CPU time of a run goes, by part
python -m scripts.benchmark engines [--n 3]  scripts/engines.py: it as two jobs of each engine, against two workers
python -m scripts.benchmark health [--n 3]   activation statistics against the training of their epoch
python -m scripts.benchmark evaluate [--n 3] what evaluating many runs takes, against TensorBoard's reader
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from scripts import parts
from scripts.peers import loops
from tests import fake_runs
from trainer.cli import app
from trainer.config import Config, ConfigError
from trainer.core import data, loop
from trainer.core.stack import Stack
from trainer.engine import planning, pool, runtime
from trainer.engine.jobs import Job, StackJob
from trainer.engine.progress import News
from trainer.record.destination import Destination
from trainer.record.recorder import Recorder
from trainer.record.tensorboard import EventWriter

PYTHON = sys.executable
MNIST = ["data=mnist", "data.batch_size=64", "model.depth=1", "model.width=256", "model.dropout=0", "epochs=1"]
SWEEP = ["optimizer=sgd,adam,adamw", "model.dropout=0,0.25,0.5", "model.batchnorm=false,true", "seed=range(5)"]

ACCUMULATE = """
import sys, pathlib
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for path in pathlib.Path(sys.argv[1]).rglob("events.out.*"):
    EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
"""


class Silent:
    """A display that shows nothing."""

    def tell(self, news: News) -> None:
        """Nothing."""

    def done(self, jobs: Sequence[Job]) -> None:
        """Nothing."""


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pairs(a: Callable[[], float], b: Callable[[], float], n: int, warm_up: bool = True) -> list[float]:
    """n ratios a / b, the two measured in turn, after one of each that does not count."""
    if warm_up:
        a()
        b()
    return [a() / b() for _ in range(n)]


def say(what: str, ratios: Sequence[float], limit: str) -> None:
    """One line of the table."""
    median = statistics.median(ratios)
    print(f"{what:<78} {median:8.3f}  [{min(ratios):.3f}, {max(ratios):.3f}]  n={len(ratios)}  {limit}", flush=True)


def command(*arguments: str, folder: str) -> float:
    """Wall time of a command run in `folder`, which must succeed."""
    call = [PYTHON, *arguments]
    return seconds(lambda: subprocess.run(call, cwd=folder, env=_environment(), check=True, capture_output=True))


def _environment() -> dict[str, str]:
    """That of a user: this tree, and modules compiled once, not at each start."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


class UntilTested(Recorder):
    """A recorder that stops the clock once training is over and everything measured is written: before the test."""

    def checkpoint(self, stack: Stack) -> None: ...

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Flush; no test, no checkpoints."""
        self.flush(stack)
        self.ended = time.perf_counter()


def train_seconds(configs: Sequence[Config], dataset: data.Dataset, record: bool = True) -> tuple[float, float]:
    """(seconds of training and recording, seconds of evaluation) of a stack from its first step to its last."""
    if not record:
        configs = [dataclasses.replace(c, record=dataclasses.replace(c.record, every=0)) for c in configs]
    with tempfile.TemporaryDirectory() as folder:
        runtime.set_up(configs[0])
        made = Stack(configs, dataset)
        runtime.set_threads(made, 1)
        recorder = UntilTested(made, [Destination(Path(folder) / str(k)) for k in range(len(configs))])
        began = time.perf_counter()
        loop.train(made, recorder)
        return recorder.ended - began - made.evaluating_s, made.evaluating_s


def single(n: int) -> None:
    """One run against a hand-written loop, and the cost of a command."""
    with tempfile.TemporaryDirectory() as folder:
        torch_s = lambda: command("-c", "import torch", folder=folder)  # noqa: E731
        say(
            "python -m trainer (30 epochs of digits) / import torch",
            pairs(lambda: command("-m", "trainer", folder=folder), torch_s, n),
            "at most 3",
        )
        say(
            "python -m trainer --cfg job / import torch",
            pairs(lambda: command("-m", "trainer", "--cfg", "job", folder=folder), torch_s, n),
            "at most 0.6",
        )
        say(
            "recording a scalar / SummaryWriter.add_scalar",
            pairs(lambda: _ours_scalar(folder), lambda: _add_scalar(folder), n),
            "at most 1/30 = 0.033",
        )
    accuracies = [_test_accuracy([f"seed={seed}"]) for seed in range(5)]
    spread = f"{statistics.fmean(accuracies):.4f} +- {statistics.stdev(accuracies):.4f}"
    print(f"digits, defaults: test accuracy {spread}, n=5; at least 0.97")
    config = app.configure(MNIST)
    try:
        dataset = data.load(config.data)
    except ConfigError as error:
        print(f"MNIST figures skipped: {error}")
        return
    split = data.split(dataset, config.data, 0)
    x, y = dataset.x[split.train], dataset.y[split.train]
    made = Stack([config], dataset)
    runtime.set_threads(made, 1)
    print(
        f"MNIST 784-256-10, batch 64, Adam, {len(x)} examples, {torch.get_num_threads()} threads, times of one epoch:"
    )
    model = loops.network([784, 256, 10])
    optimizer = torch.optim.Adam(model.parameters())
    peer = lambda: seconds(lambda: loops.epoch(model, optimizer, x, y, 64))  # noqa: E731
    say(
        "  all recorded / hand-written loop, nothing recorded",
        pairs(lambda: train_seconds([config], dataset)[0], peer, n),
        "at most 0.9",
    )
    say(
        "  all recorded and both splits evaluated / hand-written, no evaluation",
        pairs(lambda: sum(train_seconds([config], dataset)), peer, n),
        "",
    )
    say(
        "  recording on / off",
        pairs(
            lambda: train_seconds([config], dataset)[0], lambda: train_seconds([config], dataset, record=False)[0], n
        ),
        "at most 1.10",
    )
    if Path("/proc/self/status").exists():
        ours, theirs = (_peak_mb(which) for which in ("ours", "peer"))
        more = f"difference {ours - theirs:.0f}; at most 200"
        print(f"  peak memory: ours {ours:.0f} MB, hand-written {theirs:.0f} MB, {more}")
    mnist = ["data=mnist", "epochs=10", "model.width=256", "schedule=cosine"]
    print(f"{' '.join(mnist)}: test accuracy {_test_accuracy(mnist):.4f}, n=1; at least 0.98")


def sweep(n: int, only: str) -> None:
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
            say("(a) hand-written sequential loops, nothing recorded / our training, 90 runs", ratios, "at least 6")
        if "b" in only:
            ratios = pairs(lambda: command(*peer, folder=folder), whole, n, warm_up=False)
            say("(b) textbook loop under Hydra's basic launcher / ours, whole command", ratios, "at least 15")
        if "c" in only and installed("hydra_plugins.hydra_joblib_launcher"):
            ratios = pairs(lambda: command(*peer, *joblib, folder=folder), whole, n, warm_up=False)
            say("(c) the same under the joblib launcher / ours", ratios, "")
        if "d" in only and installed("lightning"):
            ratios = pairs(lambda: 10 * command(*lightning, folder=folder), whole, n, warm_up=False)
            say("(d) Lightning, 9 of the runs, times 10 / ours, whole command", ratios, "at least 50")
        if "k" in only:
            _growth(config, dataset)
        if "t" in only:
            _thousand(folder, n)
        if "s" in only:
            _side_by_side(folder, n)
        if "m" in only:
            _mnist_stack(n)
        if "o" in only:
            _own_optimizer(folder, n)


def step(n: int) -> None:
    """CPU time of torch's step over that of the native one: digits 64-64-64-10, batch 64, every norm measured."""
    dataset = data.load(app.configure([]).data)
    runtime.set_up(app.configure([]))
    torch.set_num_threads(1)
    for K, limit in ((1, "at least 8"), (8, "at least 2.5"), (45, "at least 1.7")):
        torchs, native = (_cpu_us(by, K, dataset) for by in ("torch", "native"))
        say(f"torch's step / the native one, CPU time, Adam, K = {K}", pairs(torchs, native, n), limit)
        print(f"  us per member and step: torch {torchs():.1f}, native {native():.1f}")


def profile() -> None:
    """CPU time by part: 30 epochs of digits, 64-64-64-10, one of MNIST, 784-256-10; batch 64, Adam, pictures too."""
    columns = {}
    for name, overrides, sizes in (("K =", [], (1, 16, 45, 128)), ("MNIST K =", MNIST, (1, 15))):
        try:
            dataset = data.load(app.configure(overrides).data)
        except ConfigError as error:
            print(f"MNIST figures skipped: {error}")
            continue
        for K in sizes:
            configs = [app.configure([*overrides, f"seed={k}"]) for k in range(K)]
            parts.spent_us(configs[:1], dataset)
            columns[f"{name} {K}"] = parts.spent_us(configs, dataset)
    print("CPU us a member and step, one thread, and share of all:")
    print(*parts.table(columns), sep="\n")


def _cpu_us(step: str, K: int, dataset: data.Dataset) -> Callable[[], float]:
    """What measures the CPU time of a member's step, in us, by that step in a stack of K."""
    made = Stack([app.configure([f"seed={k}", f"step={step}"]) for k in range(K)], dataset)
    rows, target = made.next_order()
    repeats = max(20, 1000 // K)

    def measure() -> float:
        began = time.process_time()
        for _ in range(repeats):
            loop.train_step(made, rows, target, [slice(0, 64)], True)
        return 1e6 * (time.process_time() - began) / repeats / K

    return measure


def digits(folder: str) -> str:
    """Save what a textbook loop trains on; return the file."""
    config = app.configure([])
    dataset = data.load(config.data)
    split = data.split(dataset, config.data, 0)
    parts = {"train": split.train, "val": split.val}
    torch.save({name: (dataset.x[rows], dataset.y[rows]) for name, rows in parts.items()}, f"{folder}/digits.pt")
    return f"{folder}/digits.pt"


def installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        print(f"not measured: {module} is not installed; try pip install -e '.[benchmark]'")
        return False
    return True


def _growth(config: Config, dataset: data.Dataset) -> None:
    """Time per member and step over the stack's size, all recorded, and the share of the matrix-multiply peak."""
    runtime.set_up(config)
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    peak = max(2 * 1024**3 / seconds(lambda: a @ b) for _ in range(20))
    print(f"one thread, matrix product {peak / 1e9:.0f} GFLOP/s; AdamW, 64-64-64-10, batch 64, every norm measured:")
    adamw = app.configure(["optimizer=adamw"])
    sizes = [dataset.in_features, *config.model.widths, dataset.out_features]  # type: ignore[union-attr]
    weights = sum(p * q for p, q in itertools.pairwise(sizes))
    flops = 64 * (6 * weights - 2 * sizes[0] * sizes[1])  # forward 2, backward 4 a weight, none for the inputs
    for K in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        made = Stack([dataclasses.replace(adamw, seed=k) for k in range(K)], dataset)
        torch.set_num_threads(1)
        rows, target = made.next_order()
        step = lambda: loop.train_step(made, rows, target, [slice(0, 64)], True)  # noqa: B023, E731
        step()
        repeats = max(5, 256 // K)
        times = [seconds(lambda: [step() for _ in range(repeats)]) / repeats / K for _ in range(5)]  # noqa: B023
        best, middle = min(times), statistics.median(times)
        spread = f"[{best * 1e6:.1f}, {max(times) * 1e6:.1f}]"
        share = f"{flops / middle / peak:5.1%} of peak"
        print(f"  K={K:<4} {middle * 1e6:7.1f} us per member and step {spread}  {share}", flush=True)


def evaluate(n: int) -> None:
    """1,008 runs of ours, and 100 of another tool, against what reads them in a notebook."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        fake_runs.sweep(ours, seeds=56)
        for i in range(100):
            curves = fake_runs.curves(10_000, 0.4 * (i % 2), i, speed=1000.0)
            fake_runs.other_run(theirs / str(i), ("Loss/train", "Loss/val"), *curves, chunk=50)
        for runs, what in (
            (ours, "1,008 runs of 30 epochs"),
            (theirs, "100 runs of another tool, of 2 x 10,000 points"),
        ):
            say(
                f"python -m trainer.evaluate, {what} / reading",
                pairs(
                    lambda runs=runs: command("-m", "trainer.evaluate", str(runs), folder=folder),
                    lambda runs=runs: command("-c", ACCUMULATE, str(runs), folder=folder),
                    n,
                ),
                "reading, judging and comparing against reading alone",
            )


def health(n: int) -> None:
    """What activation statistics after each epoch add to the training of that epoch, on digits, all recorded."""
    dataset = data.load(app.configure([]).data)
    for K, limit in ((1, "at most 0.05"), (64, "at most 0.03")):
        made = Stack([app.configure([f"seed={k}"]) for k in range(K)], dataset)
        torch.set_num_threads(1)
        say(
            f"activation statistics / training of an epoch, K = {K}",
            [_statistics_share(made) for _ in range(5 * n)],
            limit,
        )


def _statistics_share(made: Stack) -> float:
    """Evaluation with activation statistics minus evaluation without, over the steps of an epoch, measured in turn."""
    rows, target = made.next_order()
    evaluated = [
        seconds(
            lambda probe=probe: [loop.evaluate(made, made.train_KN, made.train_y_KN, probe=probe) for _ in range(10)]
        )
        for probe in (True, False)
    ]
    trained = seconds(lambda: [loop.train_step(made, rows, target, [batch], True) for batch in made.batches])
    return (evaluated[0] - evaluated[1]) / 10 / trained


def _thousand(folder: str, n: int) -> None:
    """1,000 runs in one sweep against 100: time per run."""
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


def _test_accuracy(overrides: list[str]) -> float:
    config = app.configure(overrides)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(0, Path(folder), config=config)
        pool.train_stacks([StackJob([job])], 0, Silent(), lambda: False)
        assert job.summary is not None
        return job.summary["test"]["best"]["accuracy"]


def _ours_scalar(folder: str, tags: int = 12, steps: int = 1000) -> float:
    """Seconds per scalar through the event writer, a chunk of steps at a time, flushed to disk."""
    values = np.random.default_rng(0).normal(size=(steps, tags))
    writer = EventWriter(folder)
    names, numbers, times = [f"grad_norm/layers.{i}.weight" for i in range(tags)], np.arange(steps), np.full(steps, 1e9)

    def write() -> None:
        writer.scalars(names, numbers, values, times)
        writer.flush()

    return seconds(write) / (tags * steps)


def _add_scalar(folder: str, tags: int = 12, steps: int = 100) -> float:
    """Seconds per scalar through torch's SummaryWriter, flushed to disk."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def write() -> None:
        for step in range(steps):
            for i in range(tags):
                writer.add_scalar(f"grad_norm/layers.{i}.weight", 0.5 * step, step)
        writer.flush()

    taken = seconds(write) / (tags * steps)
    writer.close()
    return taken


def _peak_mb(which: str) -> float:
    """Peak memory of one epoch of MNIST in a fresh process: ours, command and all, or the hand-written loop."""
    with tempfile.TemporaryDirectory() as folder:
        ours = f"from trainer.cli import app; app.run({MNIST})"
        peer = (
            "import os, torch, torchvision; from scripts.peers import loops; "
            "d = torchvision.datasets.MNIST(os.environ['TRAINER_DATA_ROOT']); "
            "x = d.data.view(-1, 784).float().div_(255).sub_(0.13).div_(0.31); "
            "m = loops.network([784, 256, 10]); loops.epoch(m, torch.optim.Adam(m.parameters()), x, d.targets, 64)"
        )
        # not getrusage, which counts the memory of the process that started this one
        usage = "import re; print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
        script = f"{ours if which == 'ours' else peer}; {usage}"
        call = [PYTHON, "-c", script]
        done = subprocess.run(call, cwd=folder, env=_environment(), check=True, capture_output=True, text=True)
        return int(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m scripts.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["single", "sweep", "step", "profile", "engines", "health", "evaluate"])
    parser.add_argument("--n", type=int, default=3, help="pairs of measurements per ratio (default %(default)s)")
    parser.add_argument(
        "--only",
        default="abcdktsmo",
        help="parts of sweep: peers a b c d, k growth, t 1,000 runs, s two at once, m MNIST, o own optimizer",
    )
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.machine()}, {cores} cores, python {platform.python_version()}, torch {torch.__version__}")
    if chosen.what == "profile":
        profile()
        sys.exit()
    print(f"{'ratio':<78} {'median':>8}  [min, max]")
    if chosen.what == "single":
        single(chosen.n)
    elif chosen.what == "step":
        step(chosen.n)
    elif chosen.what == "engines":
        from scripts import engines  # which uses what is here

        engines.measure(chosen.n)
    elif chosen.what == "health":
        health(chosen.n)
    elif chosen.what == "evaluate":
        evaluate(chosen.n)
    else:
        sweep(chosen.n, chosen.only)
