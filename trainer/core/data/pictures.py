"""Pictures in a folder for each class, read with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainer import config as cfg
from trainer.config import ConfigError
from trainer.core.data.dataset import Raw
from trainer.core.data.own_arrays import nowhere, raw

GREY = {"1", "L", "LA"}  # Pillow's modes that are one channel; all others are read as red, green, blue
DEEP = {"I", "F", "I;16", "I;16B", "I;16L"}
EXPECTED = "expected a folder with one of pictures for each class"
MOST_PROBLEMS = 10  # told in one message


def read(data: cfg.Folder) -> Raw:
    """Read PATH/class/picture, or PATH/train/class/picture and PATH/test/class/picture: (N, channels, height, width).

    Raises ConfigError naming files that cannot be read, or are of another size.
    """
    path = Path(data.path).expanduser()
    where = f"data.path: {data.path}"
    if not path.is_dir():
        raise ConfigError([f"{where} {'is no folder' if path.exists() else nowhere(path)}; {EXPECTED}"])
    inner = {entry.name for entry in path.iterdir() if entry.is_dir()}
    if inner <= {"train", "val", "valid", "test"} and "train" in inner:
        if inner != {"train", "test"}:
            said = f"has folders {', '.join(sorted(inner))}, expected train and test, or a folder for each class"
            raise ConfigError([f"{where} {said}; validation examples are drawn from train, see data.val_fraction"])
        folders = [path / "train", path / "test"]
    else:
        folders = [path]
    parts = [_files(where, folder) for folder in folders]
    names = parts[0][1]
    if parts[-1][1] != names:
        both = f"train has classes {', '.join(names)}, and test {', '.join(parts[-1][1])}"
        raise ConfigError([f"{where}: {both}; expected the same"])
    xs = _pixels(data, [file for files, _ in parts for file, _ in files])
    ys = np.array([label for files, _ in parts for _, label in files])
    n = len(parts[0][0])
    pairs = [(xs[:n], ys[:n])] + ([(xs[n:], ys[n:])] if len(parts) > 1 else [])
    return raw(data, where, pairs, names)


def _files(where: str, folder: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Return (file, number of its class) of every picture, and the classes. Raises ConfigError."""
    from torchvision.datasets import folder as layout

    try:
        names, numbers = layout.find_classes(str(folder))
        return layout.make_dataset(str(folder), numbers, layout.IMG_EXTENSIONS), names
    except (OSError, ValueError) as error:
        raise ConfigError([f"{where}: {' '.join(str(error).split())}; {EXPECTED}"]) from error


def _pixels(data: cfg.Folder, files: list[str]) -> np.ndarray:
    """(N, channels, height, width) uint8. Raises ConfigError."""
    from PIL import Image

    problems: list[str] = []
    modes: dict[str, str] = {}  # of the files that are pictures
    sizes: dict[tuple[int, int], str] = {}  # each with the first of its files
    for file in files:
        try:
            with Image.open(file) as image:
                modes[file] = image.mode
                sizes.setdefault(image.size, file)
                if image.mode in DEEP:
                    problems.append(f"data.path: {file} has more than 8 bits a pixel; save it with 8")
        except Exception as error:
            problems.append(_broken(file, error))
    if data.size is None and len(sizes) > 1:
        two = " and ".join(f"{w} x {h} ({file})" for (w, h), file in list(sizes.items())[:2])
        said = f"the pictures of {data.path} are of {len(sizes)} sizes, {two}"
        _raise([f"data.size: {said}; try data.size=32", *problems])
    if not modes:
        _raise(problems)
    mode = "L" if set(modes.values()) <= GREY else "RGB"
    width, height = next(iter(sizes)) if data.size is None else (data.size, data.size)
    out = np.empty((len(files), len(mode), height, width), np.uint8)
    for i, file in enumerate(files):
        if file not in modes:
            continue
        try:
            with Image.open(file) as image:
                scaled = image.convert(mode)
                if scaled.size != (width, height):
                    scaled = scaled.resize((width, height), Image.Resampling.BILINEAR)
                out[i] = as_picture(scaled)
        except Exception as error:
            problems.append(_broken(file, error))
    _raise(problems)
    return out


def as_picture(image: Any) -> np.ndarray:
    """(channels, height, width) of an image of Pillow's."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _broken(file: str, error: Exception) -> str:
    why = " ".join(str(error).replace(f" {file!r}", "").split())
    return f"data.path: {file} cannot be read ({type(error).__name__}: {why}); repair or remove it"


def _raise(problems: list[str]) -> None:
    if problems:
        more = f"data.path: {len(problems) - MOST_PROBLEMS} more such files"
        raise ConfigError(problems[:MOST_PROBLEMS] + ([more] if len(problems) > MOST_PROBLEMS else []))
