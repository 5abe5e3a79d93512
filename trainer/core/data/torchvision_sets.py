"""Data sets that torchvision knows: found or downloaded, checked as far as can be, read.

The files of CIFAR have published checksums (MD5). Those of MNIST and its relatives have one for the archives that they
come in: it is checked where an archive lies beside its file; without one, what the format itself says. All others are
checked by torchvision alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainer import config as cfg
from trainer.config import ConfigError
from trainer.core.data.dataset import Raw
from trainer.core.data.own_arrays import raw
from trainer.core.data.pictures import as_picture

PRESETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10"}
FOLDERS = {  # below data.root; of all others that itself
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
    "KMNIST": "KMNIST/raw",
    "QMNIST": "QMNIST/raw",
    "EMNIST": "EMNIST/raw",
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "EuroSAT": "eurosat",
}
EXAMPLES = {  # of those whose files are checked here: what the name of one begins with
    "MNIST": "train-images-idx3-ubyte",
    "FashionMNIST": "train-images-idx3-ubyte",
    "KMNIST": "train-images-idx3-ubyte",
    "CIFAR10": "data_batch_1",
    "CIFAR100": "train",
}
BY_SPLIT = {"SVHN", "STL10"}  # whose classes take split="train", and not train=True
WHOLE = {"SEMEION", "EuroSAT"}  # that come without a test split
CLASSES = 10
SIDE = 28  # pixels, of an image of MNIST and its relatives
MAGIC = {"images": (0x803, 3), "labels": (0x801, 1)}  # unsigned bytes, so many dimensions: the format idx


def read_preset(data: cfg.Data) -> Raw:
    """Read one of PRESETS, which is `read` of its class. Raises ConfigError."""
    (train, test), names = _parts(PRESETS[data.name], Path(data.root).expanduser(), {})
    return Raw(*train, *test, tuple(names))


def read(data: cfg.TorchvisionData) -> Raw:
    """Read a data set by the name of its class: pictures (N, channels, height, width). Raises ConfigError."""
    kind = {} if data.split is None else {"split": data.split}
    parts, names = _parts(data.dataset, Path(data.root).expanduser(), kind)
    return raw(data, f"data.dataset: {data.dataset}", parts, names)


def _parts(class_name: str, root: Path, kind: dict[str, str]) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Return inputs and targets, then those of the test split if there is one; and the names of the classes.

    Raises ConfigError where files are missing or not sound.
    """
    import torchvision  # a second of import time: only for those who ask for its data

    dataset = getattr(torchvision.datasets, class_name)
    files = root / FOLDERS.get(class_name, "")
    example = EXAMPLES.get(class_name)
    its = f"its files ({example}, ...)" if example else "its files"
    put = f"put {its} into {files}, or say where they are: data.root=DIR or TRAINER_DATA_ROOT=DIR"
    arguments = [{"train": train, **kind} for train in (True, False)]
    if class_name in BY_SPLIT:
        arguments = [{"split": split} for split in ("train", "test")]
    elif class_name in WHOLE:
        arguments = [{}]
    found: list[Any] = []
    if example is None:  # torchvision itself finds out whether they are whole
        try:
            found = [dataset(root, download=False, **one) for one in arguments]
        except Exception:  # missing, most likely; else the same error comes again
            for one in arguments:
                _download(dataset, class_name, root, files, put, **one)
    elif not any(files.glob(f"{example}*")):
        _download(dataset, class_name, root, files, put)
    try:
        check = _cifar_faults if class_name.startswith("CIFAR") else _idx_faults
        if faults := list(check(dataset, files)) if example is not None else []:
            raise ConfigError([f"data.root: {fault}; then {put}" for fault in faults])
        found = found or [dataset(root, download=False, **one) for one in arguments]
    except ConfigError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        raise ConfigError([f"data.root: cannot read {class_name} from {files} ({why}); {put}"]) from error
    names = [str(name).split(" - ")[0] for name in getattr(found[0], "classes", ())]  # MNIST's are "0 - zero"
    return [(_pixels(part), _labels(part)) for part in found], names


def _pixels(part: Any) -> np.ndarray:
    """(N, channels, height, width)."""
    if not hasattr(part, "data"):
        return np.stack([as_picture(part[i][0]) for i in range(len(part))])
    pixels = np.asarray(part.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[3] == 3:  # channels last
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels)


def _labels(part: Any) -> np.ndarray:
    labels = np.asarray(part.targets if hasattr(part, "targets") else part.labels)
    return labels[:, 0] if labels.ndim == 2 else labels  # QMNIST's have the class first, then who wrote it


def _download(dataset: Any, class_name: str, root: Path, files: Path, put: str, **arguments: Any) -> None:
    """Raises ConfigError where it cannot be; leaves no empty folders behind then."""
    missing = [folder for folder in (files, *files.parents) if not folder.exists()]
    try:
        dataset(root, download=True, **arguments)
    except Exception as error:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()
        why = textwrap.shorten(str(error), 200, placeholder=" ...")
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
