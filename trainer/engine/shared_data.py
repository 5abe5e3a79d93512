"""Data sets that the workers of a command share: the first to need one reads it, and all map the file it leaves."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from trainer import files
from trainer.config import CustomData, Data
from trainer.core import data as datasets
from trainer.core.data import Dataset
from trainer.engine import runtime


def load(data: Data, device: torch.device, folder: Path | None) -> Dataset:
    """Return a data set as `datasets.load` does, by way of a file in `folder` that others load too.

    Read anew are data for a GPU, and those of the user's own code, whose processes are to agree by themselves. Raises
    ConfigError.
    """
    if folder is None or device.type != "cpu" or isinstance(data, CustomData):
        return datasets.load(data, device)
    path = folder / f"{files.digest([repr(data)])}.pt"
    try:
        lock = _locked(path.with_suffix(".lock"))
    except OSError:  # no such file system
        return datasets.load(data, device)
    try:
        if not path.exists():
            loaded = datasets.load(data, device)
            try:
                _write(loaded, path)
            except (OSError, RuntimeError):  # no room; the latter is torch's word for it
                return loaded
            del loaded
            runtime.release_freed_memory()
    finally:
        os.close(lock)
    values = torch.load(path, mmap=True, weights_only=True)
    facts = values.pop("facts")
    dataset = Dataset(**values)
    vars(dataset)["facts"] = facts  # a cached property: nobody counts again
    return dataset


def _locked(path: Path) -> int:
    """Return an open file that nobody else has locked, after whoever had it."""
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _write(dataset: Dataset, path: Path) -> None:
    values = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)}
    part = path.with_suffix(".part")
    torch.save(values | {"class_names": tuple(map(str, dataset.class_names)), "facts": dataset.facts}, part)
    os.replace(part, path)
