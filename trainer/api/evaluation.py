"""What is said across runs, as an object of Python."""

from __future__ import annotations

import io
from typing import Any


class Evaluation:
    """What `python -m trainer.evaluate` says: printed it is its text, `json` holds all of it.

    >>> import trainer
    >>> runs = trainer.sweep({"optimizer": ["sgd", "adam"], "seed": range(3)}, "epochs=6 model.depth=1")
    >>> found = runs.compare()
    >>> [group["name"] for group in found.groups]
    ['optimizer=adam', 'optimizer=sgd']
    """

    def __init__(self, json: dict[str, Any]) -> None:
        """json: what --json FILE writes, as docs/evaluate.md describes it."""
        self.json = json
        self.answer: str = json["answer"]["text"]
        self.recommendation: str = json["recommendation"]["sentence"]
        self.warnings: list[str] = json["warnings"]
        self.groups: list[dict[str, Any]] = json["groups"]
        self.effects: list[dict[str, Any]] = json["effects"]
        self.differences: list[dict[str, Any]] = json["differences"]
        self.interactions: list[dict[str, Any]] = json["interactions"]
        self.runs: list[dict[str, Any]] = json["runs"]
        self.problems: list[str] = json["problems"]

    def __repr__(self) -> str:
        from trainer.report import terminal

        text = io.StringIO()
        terminal.print_tables(self.json, text)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
