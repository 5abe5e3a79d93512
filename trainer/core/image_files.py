"""Data sets that torchvision knows: found or downloaded, checked as far as can be, read.

CIFAR-10's files have published checksums (MD5). Those of MNIST and its relatives have one for the archives that they
come in: it is checked where an archive lies beside its file; without one, what the format itself says.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import ConfigError, DataName

TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw", "train-images-idx3-ubyte"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw", "train-images-idx3-ubyte"),
    "kmnist": ("KMNIST", "KMNIST/raw", "train-images-idx3-ubyte"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py", "data_batch_1"),
}
CLASSES = 10
SIDE = 28  # pixels, of an image of MNIST and its relatives
MAGIC = {"images": (0x803, 3), "labels": (0x801, 1)}  # unsigned bytes, so many dimensions: the format idx


def read(name: DataName, root: Path) -> tuple[np.ndarray, ...]:
    """Inputs and targets, then those of the test split. Raises ConfigError where files are missing or not sound."""
    import torchvision  # a second of import time: only for those who ask for its data

    class_name, folder, example = TORCHVISION[name]
    dataset = getattr(torchvision.datasets, class_name)
    files = root / folder
    put = f"put its files ({example}, ...) into {files}, or say where they are: data.root=DIR or TRAINER_DATA_ROOT=DIR"
    if not any(files.glob(f"{example}*")):
        _download(dataset, class_name, root, files, put)
    try:
        faults = list(_cifar_faults(dataset, files) if name == "cifar10" else _idx_faults(dataset, files))
        if faults:
            raise ConfigError([f"data.root: {fault}; then {put}" for fault in faults])
        parts: list[Any] = [dataset(root, train=train, download=False) for train in (True, False)]
    except ConfigError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        raise ConfigError([f"data.root: cannot read {class_name} from {files} ({why}); {put}"]) from error
    out = []
    for part in parts:
        pixels = np.asarray(part.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        out += [np.ascontiguousarray(pixels), np.asarray(part.targets)]
    return tuple(out)


def _download(dataset: Any, class_name: str, root: Path, files: Path, put: str) -> None:
    """Raises ConfigError where it cannot be; leaves no empty folders behind then."""
    missing = [folder for folder in (files, *files.parents) if not folder.exists()]
    try:
        dataset(root, download=True)
    except Exception as error:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()
        why = " ".join(str(error).split())
        raise ConfigError(
            [f"data.root: no {class_name} in {root}, and it cannot be downloaded ({why}); {put}"]
        ) from error


def _cifar_faults(dataset: Any, files: Path) -> Iterator[str]:
    """Say which files are not those that were published, before any of them is unpickled, and what to do."""
    for name, md5 in [*dataset.train_list, *dataset.test_list]:
        path = files / name
        if not path.exists():
            yield f"{path} is missing: get it"
        elif _md5(path) != md5:
            yield f"{path} is damaged, or another file: its MD5 is not {md5}, which was published; delete it"


def _idx_faults(dataset: Any, files: Path) -> Iterator[str]:
    """Say which files are not sound, and what to do."""
    sizes: dict[str, int] = {}
    for archive_name, md5 in dataset.resources:
        archive = files / archive_name
        path = archive.with_suffix("")
        if not path.exists():
            yield f"{path} is missing: get it"
            continue
        if fault := _idx_fault(path, sizes):
            yield f"{path} {fault}; delete it"
        elif archive.exists() and (fault := _archive_fault(path, archive, md5)):
            yield f"{path} {fault}; delete both"
    for split in ("train", "t10k"):
        images, labels = (sizes.get(f"{split}-{kind}") for kind in ("images", "labels"))
        if images != labels and None not in (images, labels):
            yield f"{files}: {images} images, but {labels} labels in {split}-*: delete both"


def _idx_fault(path: Path, sizes: dict[str, int]) -> str | None:
    """What is wrong inside a file; note how many examples it has."""
    split, kind = path.name.split("-")[:2]
    magic, dimensions = MAGIC[kind]
    with open(path, "rb") as file:
        head = file.read(4 + 4 * dimensions)
        if len(head) < 4 + 4 * dimensions:
            return f"is damaged: it has {len(head)} bytes"
        found, *shape = struct.unpack(f">{1 + dimensions}I", head)
        if found != magic or shape[1:] not in ([], [SIDE, SIDE]):
            return f"is damaged, or another file: it does not begin as {kind} do"
        size, wanted = path.stat().st_size, len(head) + math.prod(shape)
        if size != wanted:
            return f"is damaged: it has {size} bytes, and {wanted} by its header"
        if kind == "labels" and max(file.read(), default=0) >= CLASSES:
            return f"is damaged: a label is above {CLASSES - 1}"
    sizes[f"{split}-{kind}"] = shape[0]
    return None


def _archive_fault(path: Path, archive: Path, md5: str) -> str | None:
    """Compare a file with the archive beside it, and that with what was published."""
    if _md5(archive) != md5:
        return f"comes from {archive}, whose MD5 is not {md5}, which was published"
    crc, size = struct.unpack("<2I", archive.read_bytes()[-8:])  # gzip's last bytes, of what is inside
    content = path.read_bytes()
    return None if (zlib.crc32(content), len(content)) == (crc, size) else f"is not what {archive} holds"


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
