"""Compare this runner with published results, by configuration alone: published, measured (mean, std, n), in the band?

docs/published.md shows what it printed. A measured mean outside the band around the published value says NO, also where
we know why.

    python -m scripts.reproduce --list
    python -m scripts.reproduce --only glorot --seeds 3

Runs land in outputs/reproduce/<row>/<seed>; a run that is complete there is read, not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.read.event_files import read_scalars

Measure = Callable[[Path], float]  # a run's directory -> the number to compare


@dataclass(frozen=True)
class Row:
    """One published number and the command that should reproduce it; low and high: the band for the measured mean.

    published: what the source says, and nothing else; note: what else is known, of whatever origin.
    """

    name: str
    overrides: tuple[str, ...]
    measure: Measure
    published: str
    low: float
    high: float
    note: str = ""


def test_accuracy(directory: Path) -> float:
    """On the last weights."""
    return float(json.loads((directory / "summary.json").read_text())["test"]["last"]["accuracy"])


def bias_gradient_norms(directory: Path) -> np.ndarray:
    """Root mean square over the steps of each layer's bias gradient, input side first: (layers,)."""
    (path,) = directory.glob("events.out.tfevents.*")
    scalars, _ = read_scalars(path)
    layers = sorted(int(tag.split(".")[1]) for tag in scalars if tag.startswith("grad_norm/") and tag.endswith(".bias"))
    return np.array([np.sqrt(np.square(scalars[f"grad_norm/layers.{i}.bias"].values).mean()) for i in layers])


def ratio_between_layers(directory: Path) -> float:
    """Geometric mean ratio of neighbouring hidden layers, away from the first one and from the output."""
    hidden = bias_gradient_norms(directory)[1:-1]
    return float((hidden[0] / hidden[-1]) ** (1 / (len(hidden) - 1)))


def bottom_to_top_log2(directory: Path) -> float:
    """log2 of the lowest hidden layer's gradient over the highest's."""
    hidden = bias_gradient_norms(directory)[:-1]
    return float(np.log2(hidden[0] / hidden[-1]))


def first_step_at(accuracy: float) -> Measure:
    """The step after which the validation accuracy first is at least this."""

    def measure(directory: Path) -> float:
        with open(directory / "metrics.csv", newline="") as file:
            steps = [float(row["step"]) for row in csv.DictReader(file) if float(row["val/accuracy"]) >= accuracy]
        return steps[0] if steps else math.inf

    return measure


GARBIN = {  # (lr, momentum): test accuracies after 5 epochs, standard, dropout, batch norm
    ("0.01", "0"): ((0.9283, 0.9271, 0.9254), (0.9283, 0.9292), (0.9671,)),
    ("0.01", "0.95"): ((0.9789, 0.9765, 0.9779), (0.9772, 0.9762), (0.9811,)),
    ("0.1", "0"): ((0.9686, 0.9729, 0.9706), (0.9713, 0.9702), (0.9802,)),
    ("0.1", "0.95"): ((0.9791, 0.9794, 0.9720), (0.9314, 0.9387), (0.9794,)),
}
GARBIN_BAND = 0.005
GLOROT = [  # activation, init, the variance of a weight times its fan-in, and what the derivative at 0 gives
    ("tanh", "default", 1 / 3, 1 / math.sqrt(3)),
    ("relu", "default", 1 / 3, 1 / math.sqrt(6)),
    ("relu", "he_normal", 2.0, 1.0),
    ("sigmoid", "default", 1 / 3, 0.25 / math.sqrt(3)),
    ("sigmoid", "glorot_uniform", 1.0, 0.25),
]
GLOROT_BAND = 0.05  # of the published value


def gradient_flow(activation: str, variance: float, layers: range = range(1, 4)) -> float:
    """Ratio of the gradient's standard deviation at a hidden layer to that at the next layer up, in a wide network.

    With q the variance of the pre-activations z ~ N(0, q), v that of a weight times its fan-in and f the activation:
    q' = v E f(z)^2 a layer up, and the ratio is sqrt(v E f'(z)^2) (Poole et al. 2016, Schoenholz et al. 2017).
    Glorot and Bengio take f'(0) for f'(z), which says .250 where sigmoid and Xavier give .236: there q stays at 0.26.
    Geometric mean over the given hidden layers, counted from 0; inputs of variance 1, no biases.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    f, slope = ACTIVATIONS[activation]
    q, logs = variance, []
    for _ in range(layers.stop):
        z = math.sqrt(q) * nodes
        logs.append(0.5 * math.log(variance * np.average(slope(z) ** 2, weights=weights)))
        q = variance * np.average(f(z) ** 2, weights=weights)
    return math.exp(statistics.fmean(logs[i] for i in layers))


ACTIVATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.heaviside(z, 0.5)),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: 0.25 / np.cosh(z / 2) ** 2),
}


def rows() -> list[Row]:
    """All published numbers, the cheapest first."""
    out = [
        Row(
            f"glorot_2010/{activation}-{init}",
            ("experiment=glorot_2010", f"model.activation={activation}", f"model.init={init}"),
            ratio_between_layers,
            f"{linear:.3f}",
            linear * (1 - GLOROT_BAND),
            linear * (1 + GLOROT_BAND),
            f"a wide network has {wide:.3f}",
        )
        for activation, init, variance, linear in GLOROT
        for wide in [gradient_flow(activation, variance)]
    ]
    for init, theory in (("glorot_uniform", -14.5), ("he_normal", 0.0)):
        overrides = ("experiment=he_2015", f"model.init={init}")
        out.append(Row(f"he_2015/{init}", overrides, bottom_to_top_log2, f"2^{theory:g}", theory - 1.5, theory + 1.5))
    for (lr, momentum), values in GARBIN.items():
        for network, published in zip(("standard", "dropout", "batchnorm"), values, strict=True):
            mean = statistics.fmean(published)
            falls_behind = network == "dropout" and (lr, momentum) == ("0.1", "0.95")
            low, high = (0.0, 0.965) if falls_behind else (mean - GARBIN_BAND, mean + GARBIN_BAND)
            name = f"garbin/{network}-lr{lr}-momentum{momentum}"
            overrides = (f"experiment=garbin_{network}", f"optimizer.lr={lr}", f"optimizer.momentum={momentum}")
            note = f"n {len(published)}" + (", clearly behind the others" if falls_behind else "")
            out.append(Row(name, overrides, test_accuracy, f"{mean:.4f}", low, high, note))
    out.append(Row("keras_mnist_mlp", ("experiment=keras_mnist_mlp",), test_accuracy, "0.9840", 0.979, 0.989))
    for batchnorm in ("true", "false"):
        overrides = ("experiment=ioffe_2015", f"model.batchnorm={batchnorm}")
        low, high = (0, 5_000) if batchnorm == "true" else (5_001, math.inf)
        note = "a figure without numbers: far earlier with batch norm; the line at 5,000 steps is ours"
        name = f"ioffe_2015/steps-to-95%-batchnorm-{batchnorm}"
        out.append(Row(name, overrides, first_step_at(0.95), "", low, high, note))
    return out


def run(row: Row, seed: int, folder: Path) -> Path:
    """Train a row with one seed, unless that is done already; its directory. Raises CalledProcessError."""
    directory = folder / row.name / str(seed)
    if not (directory / "summary.json").exists():
        command = [sys.executable, "-m", "trainer", *row.overrides, f"seed={seed}", f"hydra.run.dir={directory}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m scripts.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="NAME", help="the row of this name, or all whose names contain it"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs per row (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/reproduce"), help="where the runs go")
    parser.add_argument("--list", action="store_true", help="print the rows and their commands, run nothing")
    arguments = parser.parse_args()
    exact = [row for row in rows() if row.name == arguments.only]
    chosen = exact or [row for row in rows() if arguments.only in row.name]
    if not chosen:
        parser.error(f"--only {arguments.only}: no such row; --list shows them")
    if arguments.list:
        for row in chosen:
            print(f"{row.name:<42} python -m trainer {' '.join(row.overrides)}")
        return
    print(f"{'':<42} {'published':>10} {'measured':>10} {'std':>8} {'n':>3}  in the band")
    for row in chosen:
        values = [row.measure(run(row, seed, arguments.out)) for seed in range(arguments.seeds)]
        mean = statistics.fmean(values)
        std = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
        inside = "yes" if row.low <= mean <= row.high else f"NO ({row.low:.4g} to {row.high:.4g})"
        line = f"{row.name:<42} {row.published:>10} {mean:>10.4f} {std:>8} {len(values):>3}  {inside:<22} {row.note}"
        print(line.rstrip(), flush=True)


if __name__ == "__main__":
    main()
