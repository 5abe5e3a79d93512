"""Makes folders like those that runs leave behind, ours and other tools', from simple laws with noise."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import yaml

from trainer.read.configs import recorded_config
from trainer.record.tensorboard import EventWriter

TAGS = ["train/loss", "grad_norm/layers.0.weight", "ü" * 70]  # the last is longer than one varint byte can say
LAYERS = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "layers.2.weight", "layers.2.bias"]


def curves(epochs: int, overfit: float, seed: int, speed: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation loss (epochs,): `overfit` is the rise of the validation loss by the end, 0 for none."""
    rng = np.random.default_rng(seed)
    t = np.arange(1, epochs + 1)
    train = 2.3 * np.exp(-t / speed) + 0.05
    rise = overfit * np.clip((t - 2 * speed) / max(epochs - 2 * speed, 1), 0, None)
    val = 2.2 * np.exp(-t / speed) + 0.15 + rise + rng.normal(0, 0.008, epochs)
    return train * np.exp(rng.normal(0, 0.01, epochs)), val


def our_run(folder: Path, config: dict, train: np.ndarray, val: np.ndarray, *, events: bool = True) -> Path:
    """A run folder as docs/files.md describes it; `config` is nested."""
    epochs, seed = len(train), config["seed"]
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    overrides = [f"{group}.{key}={value}" for group in config if isinstance(config[group], dict)
                 for key, value in config[group].items()]  # fmt: skip
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides, f"seed={seed}"]))
    columns = {
        "epoch": np.arange(1, epochs + 1),
        "step": 23 * np.arange(1, epochs + 1),
        "eval/train_loss": train,
        "eval/train_accuracy": np.exp(-train),
        "val/loss": val,
        "val/accuracy": np.exp(-val),
        "lr": np.full(epochs, 0.1),
        **{f"update_ratio/{layer}": 1e-3 / columns_of(epochs) for layer in LAYERS},
        **{f"weight_norm/{layer}": 5 + 0.1 * columns_of(epochs) for layer in LAYERS},
    }
    rows = [",".join(columns), *(",".join(map(repr, map(float, row))) for row in zip(*columns.values(), strict=True))]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    best = int(np.nanargmin(val)) if not np.isnan(val).all() else 0
    final = {"eval/train_loss": finite(train[-1]), "val/loss": finite(val[-1])}
    tested = {"loss": finite(val[best] + 0.01), "accuracy": finite(math.exp(-val[best]) - 0.01)}
    ended = {"loss": finite(val[-1] + 0.01), "accuracy": finite(math.exp(-val[-1]) - 0.01)}
    recall = [finite(math.exp(-val[best])), 0.5, None]
    per_class = {"recall": recall, "precision": recall[::-1], "f1": recall}
    summary = {
        "status": "completed",
        "stopped_by": "budget",
        "error": None,
        "epochs": epochs,
        "steps": 23 * epochs,
        "parameters": 9610,
        "final": final,
        "best": {"epoch": best + 1, "step": 23 * (best + 1), "val/loss": finite(val[best])},
        "test": {"best": tested | {"per_class": per_class}, "last": ended},
        "health": [],
        "config": recorded_config({}, folder),
        "provenance": {
            "versions": {"torch": "2.15.0"},
            "git_commit": "0" * 40,
            "device": "cpu",
            "data_hash": "d",
            "split_hash": f"s{seed}",
            "init_hash": f"i{seed}",
            "order_hash": f"o{seed}",
        },
        "cost": {"seconds": 1.5, "steps_per_second": 460.0, "recording_share": 0.1, "training_s": 1.0},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    if events:
        steps = np.arange(1, 23 * epochs + 1)
        rng = np.random.default_rng(seed)
        norms = np.exp(-np.arange(len(LAYERS)) / 3 - steps[:, None] / len(steps) + rng.normal(0, 0.2, (len(steps), 6)))
        total = np.sqrt((norms**2).sum(axis=1))
        writer = EventWriter(folder, wall_time=1.7e9)
        tags = ["train/loss", "grad_norm/total", *(f"grad_norm/{layer}" for layer in LAYERS)]
        values = np.column_stack([np.interp(steps, columns["step"], train), total, norms])
        writer.scalars(tags, steps, values, 1.7e9 + steps / 100)
        writer.flush()
    return folder


def columns_of(epochs: int) -> np.ndarray:
    return np.sqrt(np.arange(1, epochs + 1))


def finite(number: float) -> float | str:
    return float(number) if math.isfinite(number) else str(float(number))


def sweep(root: Path, *, seeds: int = 5, epochs: int = 30, events: bool = True) -> Path:
    """optimizer x dropout x batch norm x seeds, numbered as Hydra does; dropout removes the overfitting."""
    grid = itertools.product(["sgd", "adam", "adamw"], [0.0, 0.25, 0.5], [False, True], range(seeds))
    for number, (optimizer, dropout, batchnorm, seed) in enumerate(grid):
        overfit = 1.2 * (0.5 - dropout) + 0.05 * (optimizer == "adam") - 0.05 * batchnorm
        effect = np.random.default_rng(number).normal(0, 0.05)
        speed = 6.0 if optimizer == "sgd" else 4.0
        train, val = curves(epochs, max(overfit + effect, 0), 1000 * number + seed, speed)
        config = {
            "seed": seed,
            "epochs": epochs,
            "device": "cpu",
            "data": {"name": "digits", "batch_size": 64, "train_size": 500, "label_noise": 0.0, "val_fraction": 0.2},
            "model": {"depth": 2, "width": 64, "activation": "relu", "dropout": dropout, "batchnorm": batchnorm},
            "optimizer": {"name": optimizer, "lr": 0.001, "weight_decay": 0.0},
        }
        our_run(root / str(number), config, train, val, events=events)
    return root


def other_run(folder: Path, tags: tuple[str, str], train: np.ndarray, val: np.ndarray, chunk: int = 1) -> Path:
    """An event file with one event a scalar, the tags in turn (`chunk` steps each), as add_scalar writes them."""
    folder.mkdir(parents=True)
    writer = EventWriter(folder, wall_time=1.7e9)
    steps, walls = np.arange(len(train)), 1.7e9 + np.arange(len(train))
    for begin in range(0, len(train), chunk):
        part = slice(begin, begin + chunk)
        writer.scalars(tags[:1], steps[part], train[part, None], walls[part])
        writer.scalars(tags[1:], steps[part], val[part, None], walls[part])
    writer.flush()
    return folder


def write_scalars(directory: Path, steps, values, tags=TAGS) -> Path:
    """An event file of these steps (S,) and values (S, T)."""
    writer = EventWriter(directory, wall_time=1_700_000_000.5)
    writer.scalars(tags, np.array(steps), np.array(values), 1_700_000_001.0 + 0.25 * np.arange(len(steps)))
    writer.flush()
    return writer.path


def two_sweeps(evaluation: dict) -> dict:
    """The evaluation of `sweep` as if two were in it: the groups without batch norm, and those with it."""
    parts = []
    for name, value in (("first", "false"), ("second", "true")):
        groups = [group for group in evaluation["groups"] if group["knobs"]["model.batchnorm"] == value]
        part = {key: evaluation[key] for key in ("effects", "interactions", "warnings", "recommendation")}
        runs = [path for group in groups for path in group["runs"]]
        answer = {"text": f"The {name} says this.", "next": f"python -m trainer -m {name}"}
        parts.append({"name": name, "runs": runs, "groups": groups, "answer": answer, **part})
    return {**evaluation, "sweeps": parts, "answer": {"text": "Two sweeps.", "next": None}}
