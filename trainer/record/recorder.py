"""What a run leaves behind: step buffer on the device -> event file and metrics.csv, then pictures and summary.

One host copy a chunk: measured steps stay on the device until a flush. Shapes: K member, M measured quantity, S step.
"""

from __future__ import annotations

import csv
import functools
import io
import math
import platform
import subprocess
import time
from collections.abc import Container, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import files
from trainer.config import Config, Surface
from trainer.core.loop import Member, Stack, evaluate_test
from trainer.core.surfaces import PROBLEMS
from trainer.engine import background
from trainer.engine.progress import Reporter
from trainer.engine.resume import checkpoint
from trainer.files import Growing
from trainer.judge import health
from trainer.record import pictures, provenance, trajectories
from trainer.record.ground_truth import recovered
from trainer.record.tensorboard import EventWriter

FLUSH_STEPS = 1024
FLUSH_S = 2.0
FINISHED_BY_ONE = 8  # members that are worth a process: to fork takes as long as to finish three
TEXTS = {"metrics": "metrics.csv", "log": "trainer.log"}
WRITTEN = (*TEXTS, "events")  # the files of a run that grow
Charts = dict[str, dict[str, list[str]]]
CHARTS: Charts = {
    "train and validation": {
        "loss": ["eval/train_loss", "val/loss"],
        "accuracy": ["eval/train_accuracy", "val/accuracy"],
    }
}


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv as they were before they were written: numbers without a point are whole."""
    if not path.exists():
        return []
    table = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [{tag: int(text) if text.isdecimal() else float(text) for tag, text in row.items()} for row in table]


class RunFiles:
    """The directory of one run: buffers, so that no file stays open between two flushes."""

    def __init__(self, directory: Path, config: Config, charts: Charts, written: dict[str, Any] | None = None) -> None:
        """written: the `state` that the files of a run which goes on are cut to. Raises Damaged where they cannot."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        self.columns: list[str] = []
        self.csv: list[str] = []
        self.lines: list[str] = []
        if written is None:
            discard(directory)
            self.metrics, self.logged = (Growing(directory / name) for name in TEXTS.values())
            self.events = EventWriter(directory, wall_time=self.began)
            self.events.custom_scalars(charts)
            self.events.hparams_start(*hparams(config), self.began)
            return
        discard(directory, {state["name"] for state in written.values()})
        self.metrics, self.logged, events = (Growing.cut(directory, written[key]) for key in WRITTEN)
        self.events = EventWriter(directory, file=events)
        self.rows = read_rows(self.metrics.path)
        self.columns = list(self.rows[0]) if self.rows else []

    def row(self, row: dict[str, float], now: float) -> None:
        """One epoch: a line of metrics.csv, an event, a line of trainer.log."""
        if not self.columns:
            self.columns = list(row)
            self.csv.append(",".join(self.columns))
        self.csv.append(",".join(repr(row[column]) for column in self.columns))
        own = ("epoch", "step", "lr", "grad_norm/")  # the last two are recorded with their steps
        scalars = {tag: value for tag, value in row.items() if not tag.startswith(own)}
        self.scalars(int(row["step"]), scalars, now)
        self.log(epoch_line(row), now)

    def scalars(self, step: int, values: dict[str, float], now: float) -> None:
        """Some scalars of one step."""
        self.events.scalars(list(values), np.array([step]), np.array([list(values.values())]), np.array([now]))

    def log(self, line: str, now: float | None = None) -> None:
        """A line of trainer.log, with its time."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        self.lines.append(f"{stamp} {line}")

    @property
    def state(self) -> dict[str, Any]:
        """Where the files stand: name, size and checksum of each."""
        return dict(zip(WRITTEN, (self.metrics.state, self.logged.state, self.events.file.state), strict=True))

    def flush(self) -> None:
        """Append everything said so far to the files: the small ones first, should the disk be full."""
        for file, lines in ((self.metrics, self.csv), (self.logged, self.lines)):
            if lines:
                file.append(("\n".join(lines) + "\n").encode())
                lines.clear()
        self.events.flush()


class Recorder:
    """Observes the training of a stack and writes each member's run directory."""

    def __init__(
        self,
        stack: Stack,
        directories: Sequence[Path],
        reporter: Reporter,
        finished: Mapping[int, dict[str, Any]] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        """directories: one a member, in the order of the stack's configurations.

        finished: summaries of members that only keep their place, nothing of theirs is written. state: where the
        files go on. Raises Damaged where these are not what they were then.
        """
        finished = finished or {}
        written, spent = (state["runs"], state["spent"]) if state else ({}, {})
        self.reporter = reporter
        self.every = stack.members[0].config.record.every
        self.tags = stack.step_tags
        tags = {*self.tags, "eval/train_loss", *(["eval/train_accuracy"] if stack.classes else [])}
        tags |= {"val/loss", "val/accuracy"} if stack.val_KN.shape[1] else set()
        charts = {c: {t: [x for x in xs if x in tags] for t, xs in cs.items()} for c, cs in CHARTS.items()}
        charts = {c: {t: xs for t, xs in cs.items() if xs} for c, cs in charts.items()}
        self.runs = [
            None if index in finished else RunFiles(directory, member.config, charts, written.get(index))
            for index, (directory, member) in enumerate(zip(directories, stack.members, strict=True))
        ]
        self.summaries = [finished.get(index) for index in range(len(self.runs))]
        self.flushed = time.perf_counter()
        self.began = self.flushed - spent.get("seconds", 0.0)
        self.seconds = spent.get("writing", 0.0)
        self.checkpoint_s = spent.get("checkpoints", 0.0)
        stack.measuring_s, stack.evaluating_s = spent.get("measuring", 0.0), spent.get("evaluating", 0.0)
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
            if (run := self.runs[member.index]) is not None:
                run.row(row, now)
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
                run = self.runs[member.index]
                if run is None:
                    continue
                values = np.concatenate([host_SMK[:, :, k], rates_SK[:, k : k + 1]], axis=1)
                clips = member.config.clip_norm is not None  # a run alone has no clipped norm where it does not clip
                own = [m for m, tag in enumerate(tags) if clips or tag != "grad_norm/clipped_total"]
                run.events.scalars([tags[m] for m in own], steps, values[:, own], times)
                member.not_finite = member.not_finite or health.first_not_finite(steps, tags, values)
            self._clear()
        for member in stack.members:
            if (run := self.runs[member.index]) is not None:
                run.flush()
        self.flushed = time.perf_counter()

    def state(self, stack: Stack) -> dict[str, Any]:
        """Where the files of all members in training stand, everything said so far included."""
        self.flush(stack)
        runs = {member.index: run.state for member in stack.members if (run := self.runs[member.index]) is not None}
        spent = {"seconds": time.perf_counter() - self.began, "writing": self.seconds}
        spent |= {"checkpoints": self.checkpoint_s}
        spent |= {"measuring": stack.measuring_s, "evaluating": stack.evaluating_s}
        return {"runs": runs, "spent": spent}

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Members that end: test, pictures, checkpoints, summary; their files are complete afterwards."""
        began = time.perf_counter()
        self.flush(stack)
        self.seconds += time.perf_counter() - began
        ending = [(k, reason) for k, reason in leaving.items() if self.runs[stack.members[k].index] is not None]
        processes = min(1 + self.reporter.idle(), len(ending) // FINISHED_BY_ONE)
        summaries = background.shared(lambda end: self._finish(stack, *end), ending, processes)
        for (k, _), summary in zip(ending, summaries, strict=True):
            self.summaries[stack.members[k].index] = summary

    def _finish(self, stack: Stack, k: int, reason: str) -> dict[str, Any]:
        """Complete the files of member k; its summary."""
        member = stack.members[k]
        run = self.runs[member.index]
        assert run is not None
        checkpoint.save(stack, k, run.directory)
        trained = run.state["events"]
        test = {} if reason == "interrupt" else self._test(stack, k, run)
        summary = self._summary(stack, member, reason, test)
        run.log(f"{summary['status']} ({reason}): {summary['verdict']['sentence']}")
        said = f"**{summary['verdict']['verdict']}**: {summary['verdict']['sentence']}"
        run.events.text("verdict", stack.step, said, time.time())
        run.events.text("health", stack.step, health.markdown(summary["health"]), time.time())
        for finding in summary["health"]:
            run.log(health.line(finding))
        run.events.hparams_end("SUCCESS" if summary["status"] == "completed" else "FAILURE", time.time())
        run.flush()
        summary["config"] = provenance.result_keys(member.config)
        summary["files"] = _manifest(run)
        summary["trained"] = trained
        files.write_sealed(run.directory / "summary.json", summary)
        return summary

    def is_needed(self, stack: Stack) -> bool:
        """Whether a member is in training that was not finished before."""
        return any(self.runs[member.index] is not None for member in stack.members)

    def go_on(self, stack: Stack, stopped: Mapping[int, str]) -> None:
        """Say that a stack goes on; members (by index) that have their reason to end already leave at once."""
        for member in stack.members:
            if (run := self.runs[member.index]) is not None:
                run.log(f"goes on after epoch {stack.epoch}, step {stack.step}")
        if stopped:
            self.leave(stack, {k: stopped[member.index] for k, member in enumerate(stack.members)})
            stack.select([])

    def discard(self) -> None:
        """Remove what was written, so that the runs can start again."""
        for run in self.runs:
            if run is not None:
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

    def _recovered(self, stack: Stack, member: Member) -> dict[str, dict[str, float]]:
        """What the best weights found of a truth that is known."""
        shift, scale = stack.dataset.shift[0].item(), stack.dataset.scale[0].item()
        return recovered(member.config, member.best.state, shift, scale) if member.best else {}

    def _summary(self, stack: Stack, member: Member, reason: str, test: dict[str, Any]) -> dict[str, Any]:
        rows = member.rows
        verdict = member.judge().to_json()
        found = [
            *member.findings,
            *health.judge(rows, member.start, member.config.flat(), member.not_finite),
        ]
        seconds = time.perf_counter() - self.began
        recording = self.seconds + stack.measuring_s + self.checkpoint_s
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
            "recovered": self._recovered(stack, member),
            "verdict": verdict,
            "start": member.start,
            "health": [finding.to_json() for finding in found],
            "provenance": {
                **environment(),
                "config_hash": provenance.config_hash(member.config),
                "code": provenance.code(member.config),
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
                "checkpoint_s": self.checkpoint_s,
                "training_s": seconds - recording - stack.evaluating_s,
            },
        }


def discard(directory: Path, keep: Container[str] = ()) -> None:
    """Remove what a run has written there, but for the files of these names."""
    for name in ("events.out.tfevents.*", "metrics.csv", "trainer.log", "summary.json", "checkpoints/*.pt*"):
        for path in directory.glob(name):
            if path.name not in keep:
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
    here = Path(__file__).parents[1]
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "hydra-core", "tensorboard")}
    commit = None
    if (here.parent / ".git").exists():
        command = ["git", "-C", str(here), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return {"versions": {"python": platform.python_version(), **versions}, "git_commit": commit}


def objective(config: Config, summary: dict[str, Any]) -> float:
    """The best monitored value of a run, lower is better; NaN without a validation split."""
    tag = config.early_stopping.tag
    if tag not in summary.get("best", {}):
        return math.nan
    value = float(summary["best"][tag])
    return (-value if tag == "val/accuracy" else value) if math.isfinite(value) else math.inf


def _manifest(run: RunFiles) -> dict[str, Any]:
    """Size and checksum of every file of a run whose numbers somebody reads, by its path below the run's folder."""
    out = {state["name"]: state for state in run.state.values()}
    for name in ("checkpoints/best.pt", "checkpoints/last.pt", ".hydra/config.yaml"):
        if (run.directory / name).exists():
            out[name] = files.state(run.directory / name)
    return {name: {"size": state["size"], "crc32c": state["crc32c"]} for name, state in out.items()}


NO_HYPERPARAMETERS = provenance.NO_RESULT | {"device", "threads", "deterministic", "record.every", "record.pictures"}


def hparams(config: Config) -> tuple[Mapping[str, str | float | bool], str]:
    """What TensorBoard's HParams table shows: the configuration without what should not change a result; its group."""
    values = {
        key: value if isinstance(value, str | bool | int | float) else "null" if value is None else str(value)
        for key, value in config.flat().items()
        if key not in NO_HYPERPARAMETERS
    }
    return values, _without_seed(config)


def _without_seed(config: Config) -> str:
    """A name for the runs that differ by seed alone."""
    return files.digest({key: str(value) for key, value in config.flat().items() if key != "seed"})


def _pictures(stack: Stack, member: Member, outputs: Tensor) -> dict[str, pictures.Png]:
    """Tag -> picture, where the data set has classes, its examples are images, or there is a path to show."""
    dataset = stack.dataset
    out: dict[str, pictures.Png] = {}
    surface = member.config.model
    if isinstance(surface, Surface):
        points = trajectories.points(surface.start, member.rows)
        out["path"] = trajectories.draw(PROBLEMS[surface.function], {member.config.optimizer.name: points})
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
