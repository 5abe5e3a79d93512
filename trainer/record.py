"""What a run leaves behind: step buffer on the device -> event file and metrics.csv, then pictures and summary.

One host copy a chunk: measured steps stay on the device until a flush. Shapes: K member, M measured quantity, S step.
"""

from __future__ import annotations

import functools
import math
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import checkpoint, files, pictures
from trainer.config import Config
from trainer.events import EventWriter
from trainer.progress import Reporter
from trainer.train import Member, Stack, evaluate_test, judge

FLUSH_STEPS = 1024
FLUSH_S = 2.0
CHARTS = {
    "train and validation": {
        "loss": ["eval/train_loss", "val/loss"],
        "accuracy": ["eval/train_accuracy", "val/accuracy"],
    }
}


class RunFiles:
    """The directory of one run: buffers, so that no file stays open between two flushes."""

    def __init__(self, directory: Path, config: Config, charts: dict[str, dict[str, list[str]]]) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        self.events = EventWriter(directory, wall_time=self.began)
        self.events.custom_scalars(charts)
        self.events.hparams_start(_hparams(config), f"{_without_seed(config)}", self.began)
        self.columns: list[str] = []
        self.csv: list[str] = []
        self.lines: list[str] = []

    def row(self, row: dict[str, float], now: float) -> None:
        """One epoch: a line of metrics.csv, an event, a line of trainer.log."""
        if not self.columns:
            self.columns = list(row)
            self.csv.append(",".join(self.columns))
        self.csv.append(",".join(repr(row[column]) for column in self.columns))
        scalars = {tag: value for tag, value in row.items() if tag not in {"epoch", "step", "lr"}}
        self.scalars(int(row["step"]), scalars, now)
        self.log(epoch_line(row), now)

    def scalars(self, step: int, values: dict[str, float], now: float) -> None:
        """Some scalars of one step."""
        self.events.scalars(list(values), np.array([step]), np.array([list(values.values())]), np.array([now]))

    def log(self, line: str, now: float | None = None) -> None:
        """A line of trainer.log, with its time."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        self.lines.append(f"{stamp} {line}")

    def flush(self) -> None:
        """Append everything said so far to the files: the small ones first, should the disk be full."""
        for name, lines in (("metrics.csv", self.csv), ("trainer.log", self.lines)):
            if lines:
                with open(self.directory / name, "a", encoding="utf-8") as file:
                    file.write("\n".join(lines) + "\n")
                lines.clear()
        self.events.flush()


class Recorder:
    """Observes the training of a stack and writes each member's run directory."""

    def __init__(self, stack: Stack, directories: Sequence[Path], reporter: Reporter) -> None:
        """directories: one a member, in the order of the stack's configurations."""
        self.reporter = reporter
        self.every = stack.members[0].config.record.every
        self.tags = stack.step_tags
        tags = {*self.tags, "eval/train_loss", *(["eval/train_accuracy"] if stack.classes else [])}
        tags |= {"val/loss", "val/accuracy"} if stack.val_KN.shape[1] else set()
        charts = {c: {t: [x for x in xs if x in tags] for t, xs in cs.items()} for c, cs in CHARTS.items()}
        charts = {c: {t: xs for t, xs in cs.items() if xs} for c, cs in charts.items()}
        self.runs = [
            RunFiles(directory, member.config, charts)
            for directory, member in zip(directories, stack.members, strict=True)
        ]
        self.summaries: list[dict[str, Any] | None] = [None] * len(self.runs)
        self.objectives = [math.nan] * len(self.runs)  # best monitored value of each, lower is better
        self.began = self.flushed = time.perf_counter()
        self.seconds = 0.0  # spent on writing
        self._clear()

    def _clear(self) -> None:
        self.steps: list[int] = []
        self.times: list[float] = []
        self.rates: list[list[float]] = []
        self.measured: list[Tensor] = []

    def wants(self, step: int, *, first: bool, last: bool) -> bool:
        """Every n-th step, the first of the run and the last of each epoch; none where record.every is 0."""
        return self.every > 0 and (first or last or step % self.every == 0)

    def step(self, step: int, measured_MK: Tensor, learning_rates: list[float]) -> None:
        """Keep one step's measurements on the device."""
        self.steps.append(step)
        self.times.append(time.time())
        self.rates.append(learning_rates)
        self.measured.append(measured_MK)

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Write an epoch's row of every member; flush now and then."""
        began = time.perf_counter()
        now = time.time()
        for member, row in zip(stack.members, rows, strict=True):
            self.runs[member.index].row(row, now)
        if len(self.steps) >= FLUSH_STEPS or began - self.flushed > FLUSH_S:
            self.flush(stack)
        self.seconds += time.perf_counter() - began
        self.reporter.epoch(stack, rows)

    def flush(self, stack: Stack) -> None:
        """One copy of all measured steps to the host, then to every member's files."""
        if self.steps:
            host_SMK = torch.stack(self.measured).cpu().numpy()
            steps, times = np.array(self.steps), np.array(self.times)
            rates_SK = np.array(self.rates)
            tags = [*self.tags, "lr"]
            for k, member in enumerate(stack.members):
                values = np.concatenate([host_SMK[:, :, k], rates_SK[:, k : k + 1]], axis=1)
                clips = member.config.clip_norm is not None  # a run alone has no clipped norm where it does not clip
                own = [m for m, tag in enumerate(tags) if clips or tag != "grad_norm/clipped_total"]
                self.runs[member.index].events.scalars([tags[m] for m in own], steps, values[:, own], times)
            self._clear()
        for member in stack.members:
            self.runs[member.index].flush()
        self.flushed = time.perf_counter()

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Members that end: test, pictures, checkpoints, summary; their files are complete afterwards."""
        began = time.perf_counter()
        self.flush(stack)
        self.seconds += time.perf_counter() - began
        for k, reason in leaving.items():
            member = stack.members[k]
            run = self.runs[member.index]
            checkpoint.save(stack, k, run.directory)
            test = {} if reason == "interrupt" else self._test(stack, k, run)
            summary = self._summary(stack, member, reason, test)
            run.log(f"{summary['status']} ({reason}): {summary['verdict']['sentence']}")
            said = f"**{summary['verdict']['verdict']}**: {summary['verdict']['sentence']}"
            run.events.text("verdict", stack.step, said, time.time())
            run.events.hparams_end("SUCCESS" if summary["status"] == "completed" else "FAILURE", time.time())
            run.flush()
            files.write(run.directory / "summary.json", files.to_json(summary))
            self.summaries[member.index] = summary
            self.objectives[member.index] = member.best.value if member.best else math.nan

    def discard(self) -> None:
        """Remove what was written, so that the runs can start again."""
        for run in self.runs:
            discard(run.directory)

    def _test(self, stack: Stack, k: int, run: RunFiles) -> dict[str, dict[str, float]]:
        """Read the test split, once: best and last weights; draw what the best weights do."""
        member = stack.members[k]
        assert member.best is not None
        last_state = stack.model.member_state(k)
        last, _ = evaluate_test(stack, k, last_state)
        best, outputs = evaluate_test(stack, k, member.best.state)
        now = time.time()
        scalars = {f"test/{name}": value for name, value in best.items()}
        scalars |= {f"test/last_{name}": value for name, value in last.items()}
        run.scalars(stack.step, scalars, now)
        if member.config.record.pictures:
            for tag, png in _pictures(stack, member, outputs).items():
                run.events.image(tag, stack.step, png.data, png.width, png.height, now)
        return {"best": best, "last": last}

    def _summary(self, stack: Stack, member: Member, reason: str, test: dict[str, Any]) -> dict[str, Any]:
        rows = member.rows
        verdict = judge(rows).to_json()
        seconds = time.perf_counter() - self.began
        recording = self.seconds + stack.measuring_s
        return {
            "status": "interrupted" if reason == "interrupt" else "completed",
            "stopped_by": reason,
            "error": None,
            "epochs": stack.epoch,
            "steps": stack.step,
            "parameters": sum(p[0].numel() for p in stack.parameters.values()),
            "final": rows[-1] if rows else {},
            "best": member.best.row if member.best else {},
            "test": test,
            "verdict": verdict,
            "health": [],
            "provenance": {
                **environment(),
                "device": str(stack.device),
                "threads": torch.get_num_threads(),
                "data_hash": stack.dataset.hash,
                "split_hash": member.split.hash,
                "order_hash": member.order_hash,
                "init_hash": files.digest(member.init_hashes),
                "init_hashes": member.init_hashes,
            },
            "cost": {
                "seconds": seconds,
                "stack_members": len(self.runs),
                "steps_per_second": stack.step / seconds,
                "evaluation_s": stack.evaluating_s,
                "recording_s": recording,
                "recording_share": recording / seconds,
                "training_s": seconds - recording - stack.evaluating_s,
            },
        }


def discard(directory: Path) -> None:
    """Remove what a run has written there."""
    for name in ("events.out.tfevents.*", "metrics.csv", "trainer.log", "summary.json", "checkpoints/*.pt*"):
        for path in directory.glob(name):
            path.unlink()


def epoch_line(row: dict[str, float]) -> str:
    """An epoch in one plain line."""
    parts = [f"epoch {int(row['epoch'])}", f"train loss {row['eval/train_loss']:.4f}"]
    if "val/loss" in row:
        parts.append(f"val loss {row['val/loss']:.4f}")
    accuracy = row.get("val/accuracy", row.get("eval/train_accuracy"))
    if accuracy is not None:
        parts.append(f"{'val' if 'val/accuracy' in row else 'train'} accuracy {accuracy:.2%}")
    return "  ".join(parts)


@functools.cache
def environment() -> dict[str, Any]:
    """Versions of what computes, and the commit of this code where it stands in a git checkout."""
    here = Path(__file__).parent
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "hydra-core", "tensorboard")}
    commit = None
    if (here.parent / ".git").exists():
        command = ["git", "-C", str(here), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return {"versions": {"python": platform.python_version(), **versions}, "git_commit": commit}


NO_HYPERPARAMETERS = {"data.root", "device", "threads", "deterministic", "record.every", "record.pictures"}


def _hparams(config: Config) -> dict[str, str | float | bool]:
    """What TensorBoard's HParams table shows: the configuration without what should not change a result."""
    return {
        key: value if isinstance(value, str | bool | int | float) else "null" if value is None else str(value)
        for key, value in config.flat().items()
        if key not in NO_HYPERPARAMETERS
    }


def _without_seed(config: Config) -> str:
    """A name for the runs that differ by seed alone."""
    return files.digest({key: str(value) for key, value in config.flat().items() if key != "seed"})


def _pictures(stack: Stack, member: Member, outputs: Tensor) -> dict[str, pictures.Png]:
    """Tag -> picture, where the data set has classes and its examples are images."""
    dataset = stack.dataset
    out: dict[str, pictures.Png] = {}
    is_image = len(dataset.shape) == 3
    if dataset.classes:
        target = dataset.test_y.cpu().numpy()
        probabilities = torch.softmax(outputs.float(), 1).cpu().numpy()
        out["test/confusion"] = pictures.confusion(target, probabilities.argmax(1), dataset.classes)
        if is_image and np.isfinite(probabilities).all():
            images = dataset.test_x.cpu().numpy().reshape(-1, *dataset.shape)
            mistakes = pictures.wrong(images, target, probabilities)
            if mistakes is not None:
                out["test/most_confidently_wrong"] = mistakes
    if is_image and member.best is not None:
        weight = member.best.state.get("layers.0.weight")
        if weight is not None and weight.ndim == 2 and weight.shape[1] == math.prod(dataset.shape):
            out["weights/first_layer"] = pictures.first_layer(weight.float().numpy(), dataset.shape)
    return out
