"""Read a run's configuration as a flat dictionary with dotted keys: {"optimizer.lr": 0.1}."""

import json
import re
from pathlib import Path
from typing import Any

from trainer.config import ConfigError, from_dict
from trainer.config.identity import result_keys
from trainer.files import digest
from trainer.read.bounded import (
    MOST_DOCUMENT,
    MOST_KEYS,
    MOST_TEXT,
    Missing,
    Unreadable,
    content,
    json_document,
    shortened,
    yaml_document,
)

_OF_WANDB = {"_wandb", "wandb_version"}  # what Weights & Biases notes beside a run's settings
_PLAIN = re.compile(r"- [+~]*[A-Za-z_][\w./@]*=[\w./+-]+")
FINAL = "final"  # whose runs a comparison compares, at settings that the runs of its search chose
VERSUS = "versus.json"


def recorded_config(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration of a run of ours: summary.json has it, before the run's end only Hydra's file does.

    Raises Unreadable where neither can be used.
    """
    config = summary.get("config")
    if not isinstance(config, dict):
        path = folder / ".hydra" / "config.yaml"
        document = read_yaml(path)
        try:
            config = from_dict(document).flat()  # as summary.json has it: without the keys that say nothing
        except ConfigError:  # another version's
            config = flat_config(document, path)
    return result_keys(_short(config, folder / "summary.json"))


def recorded_overrides(folder: Path) -> tuple[str, ...] | None:
    """Return what was typed for a run of ours; None where that is not recorded. Raises Unreadable."""
    try:
        lines = content(folder / ".hydra" / "overrides.yaml", MOST_DOCUMENT).decode().splitlines()
    except Missing:
        return None
    except UnicodeDecodeError:
        lines = [""]
    found: Any = [line[2:] for line in lines]
    if not all(map(_PLAIN.fullmatch, lines)):  # a list of plain words needs no parser, which takes ten times as long
        found = read_yaml(folder / ".hydra" / "overrides.yaml")
    are_texts = isinstance(found, list) and all(isinstance(text, str) for text in found)
    return tuple(shortened(text, MOST_TEXT) for text in found) if are_texts else None


def tuned_keys(sweep: Path) -> tuple[str, ...]:
    """Return the keys that were tuned before a sweep was run, as python -m trainer.versus wrote down beside it."""
    path = sweep.parent / VERSUS
    try:
        found = json_document(content(path, MOST_DOCUMENT), path)
    except Unreadable:  # or Missing
        return ()
    tuned = found.get("tuned") if isinstance(found, dict) else None
    return tuple(key.lstrip("+") for key in tuned) if isinstance(tuned, dict) else ()


def read_config(path: Path) -> dict[str, Any]:
    """Return a YAML file's leaves; empty where there is no such file. Raises Unreadable."""
    return flat_config(read_yaml(path), path)


def flat_config(document: Any, path: Path) -> dict[str, Any]:
    """Return the leaves of what a file held. Raises Unreadable."""
    return _short(_flatten(_unwrapped(document), path), path)


def _unwrapped(document: Any) -> Any:
    """Return the settings of a file of Weights & Biases: `lr: {desc: null, value: 0.1}` is lr."""
    if not isinstance(document, dict):
        return document
    settings = {key: value for key, value in document.items() if key not in _OF_WANDB}
    if all(isinstance(one, dict) and {"value"} <= one.keys() <= {"value", "desc"} for one in settings.values()):
        return {key: one["value"] for key, one in settings.items()}
    return settings


def of_another_tool(config: dict[str, Any]) -> dict[str, Any]:
    """Return another tool's settings as they are compared: by keys that mean the same here, numbers to 12 digits.

    `run`, by which runs without settings differ here, is a repetition where it numbers runs of no seed, else a name.
    """
    has_seed = any("seed" in key.lower() for key in config)
    name = "run_idx" if str(config.get("run")).isdecimal() and not has_seed else "run_id"
    return {name if key == "run" else key: _rounded(value) for key, value in config.items()}


def _rounded(value: Any) -> Any:
    """Round floats to 12 significant digits: 0.1 + 0.2 is 0.3."""
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; None where there is no such file. Raises Unreadable."""
    try:
        return yaml_document(path)
    except Missing:
        return None


def _flatten(node: Any, path: Path, prefix: str = "") -> dict[str, Any]:
    if len(prefix) > MOST_TEXT:
        raise Unreadable(f"{path}: cannot be read: a key of more than {MOST_TEXT} characters")
    if isinstance(node, dict) and node:
        return {k: v for key, value in node.items() for k, v in _flatten(value, path, f"{prefix}.{key}").items()}
    return {prefix[1:]: node} if prefix else {}


def _short(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Keep a configuration small enough to be compared, key by key, with others. Raises Unreadable."""
    if len(config) > MOST_KEYS:
        raise Unreadable(f"{path}: cannot be read: a configuration of more than {MOST_KEYS:,} keys")
    return {shortened(key, MOST_TEXT): _brief(value) for key, value in config.items()}


def _brief(value: Any) -> Any:
    """Cut a value that no table could show; what differs stays different."""
    text = json.dumps(value) if isinstance(value, dict | list) else value
    if isinstance(text, str) and len(text) > MOST_TEXT:
        return f"{shortened(text)} {digest(text)}"
    return value
