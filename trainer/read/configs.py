"""Read a run's configuration as a flat dictionary with dotted keys: {"optimizer.lr": 0.1}."""

from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: 0.2 ms for one of our files, not 2.6
NO_RESULT = {"data.root", "checkpoint.minutes", "checkpoint.epochs"}  # as in record.provenance: they change no result


def recorded_config(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration of a run of ours: summary.json has it, before the run's end only Hydra's file does."""
    config = summary.get("config")
    if not isinstance(config, dict):
        config = read_config(folder / ".hydra" / "config.yaml")
    return {key: _plain(value) for key, value in config.items() if key not in NO_RESULT}


def read_config(path: Path) -> dict[str, Any]:
    """Return a YAML file's leaves; empty where there is no such file, or nothing that can be read safely."""
    return {key: _plain(value) for key, value in _flatten(read_yaml(path)).items()}


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; None where there is no such file, or nothing that can be read safely."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {k: v for key, value in node.items() for k, v in _flatten(value, f"{prefix}.{key}").items()}
    return {prefix[1:]: node} if prefix else {}


def _plain(value: Any) -> Any:
    """Turn what JSON cannot hold (YAML has dates) into text, and integers that no float can hold: arithmetic fails."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, int) and value.bit_length() > 1000:
        return str(value)
    return value if value is None or isinstance(value, str | float | int) else str(value)
