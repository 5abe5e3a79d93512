"""What finished runs left: whether it is whole; a plan where theirs is lost; a checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer import files
from trainer.engine.jobs import Job, StackJob
from trainer.files import Damaged
from trainer.record.destination import earlier_event_files, event_file_name


def read_summary(directory: Path, config: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """Return the summary of a run that completed with this flat configuration and is whole; what is damaged of it."""
    try:
        summary = completed(directory, config)
        if summary is None:
            return None, None
        for name, state in summary["files"].items():
            files.check(files.inside(directory, name), state)
            if (directory / name).stat().st_size > state["size"]:
                raise Damaged(f"{directory / name}: damaged; it is longer than it was")
    except Damaged as damage:
        return None, str(damage)
    except (KeyError, TypeError, AttributeError):  # entries of another shape
        return None, f"{directory / 'summary.json'}: is no summary of this trainer's"
    return summary, None


def completed(directory: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the summary of a run that completed with this flat configuration. Raises Damaged."""
    try:
        summary = files.read_sealed(directory / "summary.json")
    except FileNotFoundError:
        return None
    if summary.get("status") in ("interrupted", "failed"):
        return None
    if not {"status", "config", "files"} <= summary.keys():
        raise Damaged(f"{directory / 'summary.json'}: is no summary of this trainer's")
    return summary if summary["status"] == "completed" and summary["config"] == config else None


def recovered(directory: Path) -> dict[str, Any]:
    """Return a plan of what finished runs say of themselves, where the plan is lost."""
    runs = {}
    for path in (directory, *sorted(directory.iterdir())):
        try:
            summary = files.read_sealed(path / "summary.json")
            name = str(path.relative_to(directory))
            files.inside(directory, name)
            runs[name] = {
                "config": summary["config"],
                "code": summary["provenance"]["code"],
                "events": next(iter(earlier_event_files(path)), event_file_name()),
            }
        except (OSError, Damaged, KeyError):
            continue
    return {"command": [], "runs": runs, "stacks": {}}


def continued(jobs: Sequence[Job], summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the checkpoint from which finished runs go on, as if it had been written at their end.

    Their records go on as copies: what is there stays until the new result is complete. Event files get the new
    configuration for TensorBoard's HParams.
    """
    from trainer.core import state
    from trainer.record import hparams, run_files, tensorboard

    members, runs, stopped, not_finite = [], {}, {}, {}
    at_end: dict[str, Any] = {}
    for index, (job, summary) in enumerate(zip(jobs, summaries, strict=True)):
        assert job.config is not None
        folder = job.directory / "checkpoints"
        last, best = (state.from_bytes((folder / f"{name}.pt").read_bytes()) for name in ("last", "best"))
        members.append({"index": index, **last, "best_model": best["model"]})
        at_end = {key: last[key] for key in ("epoch", "step", "epoch_step", "looked")}  # of all the same
        at_end["served"] = last.get("served", "torch")  # older ones do not say
        destination = job.destination
        destination.folder.mkdir(parents=True, exist_ok=True)
        for name in run_files.TEXTS.values():
            files.write(destination.folder / name, (job.directory / name).read_bytes())
        content = files.check(files.inside(job.directory, summary["trained"]["name"]), summary["trained"])
        if summary.get("not_finite"):
            not_finite[index] = summary["not_finite"]
        content = tensorboard.with_hparams(content, job.row or hparams.alone(job.config))
        files.write(destination.folder / job.events, content)
        names = {**run_files.TEXTS, "events": job.events}
        runs[index] = {key: files.state(destination.folder / name) for key, name in names.items()}
        if summary["stopped_by"] != "budget":
            stopped[index] = summary["stopped_by"]
    return at_end | {
        "members": members,
        "stopped": stopped,
        "records": {"runs": runs, "not_finite": not_finite, "spent": {}},
        "data_hash": summaries[0]["provenance"]["data_hash"],
        "runs": StackJob(list(jobs)).hashes,
    }
