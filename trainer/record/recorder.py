"""Records the training of a stack: step buffer on the device -> event files and metrics.csv, then pictures and summary.

One copy to the host per chunk: measured steps stay on the device until a flush. Shapes: K member, M measured quantity,
S step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import files
from trainer.config import Surface
from trainer.core.loop import evaluate_test
from trainer.core.stack import Member, Stack, Step
from trainer.judge import health
from trainer.judge.health import Finding, NotFinite
from trainer.record import own_module, pictures, trajectories, weights
from trainer.record.classes import MOST_CLASSES, by_class
from trainer.record.destination import Destination
from trainer.record.run_files import CURVES, Charts, RunFiles, manifest
from trainer.record.summary import summary as summarise

FLUSH_STEPS = 1024
FLUSH_S = 2.0


class Recorder:
    """Observes the training of a stack and writes each member's run directory."""

    def __init__(
        self,
        stack: Stack,
        destinations: Sequence[Destination],
        finished: Mapping[int, dict[str, Any]] | None = None,
        state: dict[str, Any] | None = None,
        findings: Sequence[Sequence[Finding]] | None = None,
    ) -> None:
        """destinations: one for each member, in the order of the stack's configurations.

        finished: summaries of members that only keep their place, nothing of theirs is written. state: where the
        files go on. findings: of checks before training, for each member. Raises Damaged where files are not what they
        were then.
        """
        finished = finished or {}
        written, spent = (state["runs"], state["spent"]) if state else ({}, {})
        self.every = stack.members[0].config.record.every
        self.tags = stack.step_tags
        names = ["loss", *(["accuracy"] if stack.classes else []), *(metric.name for metric in stack.metrics)]
        sides = ["eval/train_", *(["val/"] if stack.val_KN.shape[1] else [])]
        charts: Charts = {CURVES: {name: [side + name for side in sides] for name in names}}
        self.runs = [
            None if index in finished else RunFiles(destination, member.config, charts, written.get(index))
            for index, (destination, member) in enumerate(zip(destinations, stack.members, strict=True))
        ]
        for index, (step, tensor) in (state or {}).get("not_finite", {}).items():
            if (run := self.runs[index]) is not None:
                run.not_finite = NotFinite(step, tensor)
        self.findings = findings or [()] * len(self.runs)
        self.summaries = [finished.get(index) for index in range(len(self.runs))]
        self.flushed = time.perf_counter()
        self.spent = dict.fromkeys(("seconds", "writing", "checkpoints", "measuring", "evaluating"), 0.0) | spent
        self.began = self.flushed
        self.writing_s = self.checkpoint_s = 0.0
        self._clear()

    def _clear(self) -> None:
        self.steps: list[int] = []
        self.times: list[float] = []
        self.rates: list[list[float]] = []
        self.measured: list[Tensor] = []

    def wants(self, step: Step) -> bool:
        """Every n-th step, the first of the run and the last of each epoch; none where record.every is 0."""
        return self.every > 0 and (step.first or step.last or step.number % self.every == 0)

    def burst(self, numbers: list[int], measured_SMK: Tensor, rates_SK: list[list[float]]) -> None:
        """Keep what was measured of steps on the device."""
        self.steps += numbers
        self.times += [time.time()] * len(numbers)
        self.rates += rates_SK
        self.measured.append(measured_SMK)

    def epoch(self, stack: Stack, rows: list[dict[str, float]]) -> None:
        """Write an epoch's row of every member; flush now and then."""
        began = time.perf_counter()
        now = time.time()
        for k, _, run in self._recorded(stack):
            run.row(rows[k], now)
        if len(self.steps) >= FLUSH_STEPS or began - self.flushed > FLUSH_S:
            self.flush(stack)
        self.writing_s += time.perf_counter() - began

    def flush(self, stack: Stack) -> None:
        """One copy of all measured steps to the host, then to every member's files."""
        if self.steps:
            host_SMK = torch.cat(self.measured).cpu().numpy()
            steps, times = np.array(self.steps), np.array(self.times)
            rates_SK = np.array(self.rates)
            tags = [*self.tags, "lr"]
            for k, member, run in self._recorded(stack):
                values = np.concatenate([host_SMK[:, :, k], rates_SK[:, k : k + 1]], axis=1)
                clips = member.config.clip_norm is not None  # a run alone has no clipped norm where it does not clip
                own = [m for m, tag in enumerate(tags) if clips or tag != "grad_norm/clipped_total"]
                run.epoch_events()  # which came before
                run.events.scalars([tags[m] for m in own], steps, values[:, own], times)
                run.not_finite = run.not_finite or health.first_not_finite(steps, tags, values)
            self._clear()
        for *_, run in self._recorded(stack):
            run.flush()
        self.flushed = time.perf_counter()

    def state(self, stack: Stack) -> dict[str, Any]:
        """Where the files of all members in training stand, everything said so far included."""
        self.flush(stack)
        recorded = [(member.index, run) for _, member, run in self._recorded(stack)]
        return {
            "runs": {index: run.state for index, run in recorded},
            "not_finite": {index: [*run.not_finite] for index, run in recorded if run.not_finite is not None},
            "spent": self._spent(stack),
        }

    def _spent(self, stack: Stack) -> dict[str, float]:
        """Return where the time went, in seconds, before a kill included."""
        now = {
            "seconds": time.perf_counter() - self.began,
            "writing": self.writing_s,
            "checkpoints": self.checkpoint_s,
            "measuring": stack.measuring_s,
            "evaluating": stack.evaluating_s,
        }
        return {key: self.spent[key] + value for key, value in now.items()}

    def _cost(self, stack: Stack) -> dict[str, Any]:
        """Return summary.json's `cost`."""
        spent = self._spent(stack)
        recording = spent["writing"] + spent["measuring"] + spent["checkpoints"]
        return {
            "seconds": spent["seconds"],
            "stack_members": len(self.runs),
            "steps_per_second": stack.step / spent["seconds"],
            "evaluation_s": spent["evaluating"],
            "recording_s": recording,
            "recording_share": recording / spent["seconds"],
            "checkpoint_s": spent["checkpoints"],
            "training_s": spent["seconds"] - recording - spent["evaluating"],
        }

    def leave(self, stack: Stack, leaving: dict[int, str]) -> None:
        """Members that end: test, pictures, checkpoints, summary; their files are complete afterwards."""
        began = time.perf_counter()
        self.flush(stack)
        self.writing_s += time.perf_counter() - began
        for k, reason in leaving.items():
            if (run := self.runs[stack.members[k].index]) is not None:
                self.summaries[stack.members[k].index] = self._finish(stack, k, run, reason)

    def _finish(self, stack: Stack, k: int, run: RunFiles, reason: str) -> dict[str, Any]:
        """Complete the files of member k; its summary."""
        member = stack.members[k]
        if member.config.record.keep == "all":
            weights.save(stack, k, run.directory)
        trained = run.state["events"]
        test = {} if reason == "interrupt" else self._test(stack, k, run)
        rows, config = member.rows, member.config.flat()
        findings = [*self.findings[member.index], *health.judge(rows, member.start, config, run.not_finite)]
        findings = health.settled([*findings, *own_module.findings(stack)], rows, member.start, config)
        summary = summarise(stack, member, reason, test, findings, run.not_finite, self._cost(stack))
        run.log(f"{summary['status']} ({reason}): {summary['verdict']['sentence']}")
        said = f"**{summary['verdict']['verdict']}**: {summary['verdict']['sentence']}"
        run.events.text("verdict", stack.step, said, time.time())
        run.events.text("health", stack.step, health.markdown(summary["health"]), time.time())
        for finding in summary["health"]:
            run.log(health.line(finding))
        run.events.hparams_end("SUCCESS" if summary["status"] == "completed" else "FAILURE", time.time())
        run.flush()
        summary["files"] = manifest(run)
        summary["trained"] = trained
        files.write_sealed(run.directory / "summary.json", summary)
        if summary["status"] == "completed":
            run.destination.publish()
        return summary

    def is_needed(self, stack: Stack) -> bool:
        """Whether a member is in training that was not finished before."""
        return any(True for _ in self._recorded(stack))

    def log_resumed(self, stack: Stack) -> None:
        """Log in every run where it continues."""
        for *_, run in self._recorded(stack):
            run.log(f"goes on after epoch {stack.epoch}, step {stack.step}")

    def _recorded(self, stack: Stack) -> Iterator[tuple[int, Member, RunFiles]]:
        """Yield the members in training whose files are written, each with its place in the stack."""
        for k, member in enumerate(stack.members):
            if (run := self.runs[member.index]) is not None:
                yield k, member, run

    def discard(self) -> None:
        """Remove what was written, so that the runs can start again."""
        for run in self.runs:
            if run is not None:
                run.destination.discard()

    def _test(self, stack: Stack, k: int, run: RunFiles) -> dict[str, dict[str, Any]]:
        """Read the test split, once: best and last weights; draw what the best weights do. Nothing without one."""
        member = stack.members[k]
        assert member.best is not None
        if len(stack.dataset.test_x) == 0:
            run.log("no test numbers: the data have no test split")
            return {}
        last, last_outputs = evaluate_test(stack, k, stack.model.member_state(k))
        best, outputs = last, last_outputs
        if member.best.epoch != stack.epoch:  # else its weights are the last
            best, outputs = evaluate_test(stack, k, member.best.state)
        now = time.time()
        scalars = {f"test/{name}": value for name, value in best.items()}
        scalars |= {f"test/last_{name}": value for name, value in last.items()}
        run.scalars(stack.step, scalars, now)
        if member.config.record.pictures:
            for tag, png in _pictures(stack, member, outputs).items():
                run.events.image(tag, stack.step, png.data, png.width, png.height, now)
        return {"best": best | _by_class(stack, outputs), "last": last | _by_class(stack, last_outputs)}


def _by_class(stack: Stack, outputs: Tensor) -> dict[str, Any]:
    """Confusion matrix and what follows from it, of test outputs (N, C); nothing for a regression."""
    dataset = stack.dataset
    if not dataset.classes:
        return {}
    predicted = outputs.max(1).indices  # as the accuracy has it
    return by_class(dataset.test_y.cpu().numpy(), predicted.cpu().numpy(), dataset.classes)


def _pictures(stack: Stack, member: Member, outputs: Tensor) -> dict[str, pictures.Png]:
    """Tag -> picture, where the data set has classes, its examples are images, or there is a path to show."""
    dataset = stack.dataset
    out: dict[str, pictures.Png] = {}
    surface = member.config.model
    if isinstance(surface, Surface) and len(surface.start) == 2:
        points = trajectories.points(surface.start, member.rows)
        paths = {member.config.optimizer.name: points}
        out["path"] = trajectories.draw(trajectories.problem(surface), paths, card=True)
    is_image = len(dataset.shape) == 3 and dataset.shape[0] in (1, 3)  # grey, or red, green and blue
    if dataset.classes:
        target = dataset.test_y.cpu().numpy()
        probabilities = torch.softmax(outputs.float(), 1).cpu().numpy()
        if dataset.classes <= MOST_CLASSES:
            predicted = outputs.max(1).indices.cpu().numpy()  # as the accuracy has it
            out["test/confusion"] = pictures.confusion(target, predicted, dataset.class_names)
        if is_image and np.isfinite(probabilities).all():
            images = dataset.test_x.cpu().numpy().reshape(-1, *dataset.shape)
            mistakes = pictures.wrong(images, target, probabilities, dataset.class_names)
            if mistakes is not None:
                out["test/most_confidently_wrong"] = mistakes
    if is_image and member.best is not None:
        weight = member.best.state.get("layers.0.weight")
        if weight is not None and weight.ndim == 2 and weight.shape[1] == math.prod(dataset.shape):
            out["weights/first_layer"] = pictures.first_layer(weight.float().numpy(), dataset.shape)
    return out
