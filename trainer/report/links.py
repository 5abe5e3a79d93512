"""Links to the folders of runs, named by what was swept: TensorBoard calls a run by its folder, which has a number."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.report import vocabulary

_LONGEST = 200  # characters of a name; most file systems take 255 bytes
_PINNED = ("eval/train_loss", "val/loss", "eval/train_accuracy", "val/accuracy")  # before all else, in this order


def names(evaluation: Mapping[str, Any]) -> dict[str, Path]:
    """Return the name of each run that has a folder of its own; runs of one name have their own names behind it."""
    knobs = vocabulary.knob_names(evaluation)
    short = dict(zip(knobs, vocabulary.short_names(knobs), strict=True))
    groups = [group for part in vocabulary.parts(evaluation) for group in part["groups"]]
    levels = {path: group["knobs"] for group in groups for path in group["runs"]}
    found: dict[str, Path] = {}
    for run in evaluation["runs"]:
        if not os.path.isdir(run["path"]):
            continue
        own = {"seed": run["config"]["seed"]} if "seed" in run["config"] else {}
        own |= levels.get(run["path"], {})
        said = " ".join(vocabulary.setting(short[knob], own[knob]) for knob in knobs if knob in own)
        name = (said or str(run["name"])).replace(os.sep, "-")[:_LONGEST]
        found[name if name not in found else f"{name} ({run['name']})".replace(os.sep, "-")] = Path(run["path"])
    return found


def link(evaluation: Mapping[str, Any], folder: Path) -> None:
    """Put a link to each run into a folder, which is made; links of these names are replaced. Raises OSError."""
    folder.mkdir(exist_ok=True)
    for name, place in names(evaluation).items():
        path = folder / name
        if path.is_symlink():
            path.unlink()
        path.symlink_to(os.path.relpath(os.path.realpath(place), os.path.realpath(folder)), target_is_directory=True)


def address(board: str) -> str:
    """Return where a TensorBoard opens on loss and accuracy: its tags are sorted by the alphabet, pinned ones first.

    A pinned tag that no run has is left out.
    """
    cards = [{"plugin": "scalars", "tag": tag} for tag in _PINNED]
    return f"{board}?pinnedCards={quote(json.dumps(cards, separators=(',', ':')))}#timeseries"
