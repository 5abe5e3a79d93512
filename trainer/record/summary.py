"""summary.json: what a run came to, as one dictionary."""

from __future__ import annotations

from typing import Any

import torch

from trainer import files
from trainer.config import Surface
from trainer.core.stack import Member, Stack
from trainer.judge import overfit
from trainer.judge.health import Finding, NotFinite
from trainer.judge.overfit import Verdict
from trainer.record import provenance
from trainer.record.ground_truth import recovered


def verdict(member: Member) -> Verdict:
    """Judge a member's epochs so far."""
    rows = member.rows

    def column(tag: str) -> list[float] | None:
        return [row[tag] for row in rows] if rows and tag in rows[0] else None

    return overfit.judge(
        column("eval/train_loss") or [],
        column("val/loss"),
        column("eval/train_accuracy"),
        column("val/accuracy"),
        [row["epoch"] for row in rows],
        member.start.get("guessing_loss"),
    )


def summary(
    stack: Stack,
    member: Member,
    reason: str,
    test: dict[str, Any],
    findings: list[Finding],
    not_finite: NotFinite | None,
    cost: dict[str, Any],
) -> dict[str, Any]:
    """Return everything a run's end is known by, but for the state of its files.

    reason: why it ended. test: of the best and the last weights. cost: where the time went, in seconds. `metrics`: the
    name of each with the better direction.
    """
    rows, best = member.rows, member.best
    flat, keys = member.config.flat(), provenance.result_keys(member.config)
    shift, scale = stack.dataset.shift[0].item(), stack.dataset.scale[0].item()
    return {
        "status": "interrupted" if reason == "interrupt" else "completed",
        "stopped_by": reason,
        "error": None,
        "epochs": stack.epoch,
        "steps": stack.step,
        "parameters": sum(p[0].numel() for p in stack.parameters.values()),
        "final": rows[-1] if rows else {},
        "best": best.row if best else {},
        "test": test,
        "class_names": list(stack.dataset.class_names),
        "data": _data(stack, member),
        "metrics": {metric.name: "higher" if metric.higher_is_better else "lower" for metric in stack.metrics},
        "recovered": recovered(member.config, best.state, shift, scale) if best else {},
        "verdict": verdict(member).to_json(),
        "start": member.start,
        "not_finite": not_finite and [*not_finite],
        "health": [finding.to_json(flat) for finding in findings],
        "provenance": {
            **provenance.environment(),
            "config_hash": files.digest(keys),
            "code": provenance.code(member.config),
            "device": str(stack.device),
            "step": stack.served,
            "threads": torch.get_num_threads(),
            "data_hash": stack.dataset.hash,
            "split_hash": member.split.hash,
            "order_hash": member.order_hash,
            "init_hash": files.digest(member.init_hashes),
            "init_hashes": member.init_hashes,
        },
        "cost": cost,
        "config": keys,
    }


def _data(stack: Stack, member: Member) -> dict[str, Any]:
    """Return what the data set shows, and how many examples of each class a run's splits hold."""
    if isinstance(member.config.model, Surface):
        return {}
    classes = stack.dataset.classes
    split = member.split
    counted = {"train_classes": split.train_y, "val_classes": stack.dataset.y.cpu()[split.val]} if classes else {}
    counts = {key: torch.bincount(y, minlength=classes or 0).tolist() for key, y in counted.items()}
    return {**stack.dataset.facts, **counts}
