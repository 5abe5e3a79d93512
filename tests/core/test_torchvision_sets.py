"""torchvision's data sets, read from the files that it leaves."""

import dataclasses
import functools
import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.core.datasets import knobs, load, refused
from tests.helpers import make_config
from trainer.config import ConfigError
from trainer.core import data


def write_mnist(root: Path, train: int = 30, test: int = 10) -> Path:
    """Files in MNIST's own format (big-endian idx: magic, sizes, bytes), with random pixels."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", train), ("t10k", test)):
        pixels = rng.integers(0, 256, (n, 28, 28), np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + pixels.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
    return folder


def test_mnist_files_are_read(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    ours = data.load(knobs("data=mnist", root=str(tmp_path), normalisation="none"))
    assert (tuple(ours.x.shape), tuple(ours.test_x.shape), ours.shape) == ((30, 784), (10, 784), (1, 28, 28))
    pixels = np.frombuffer((folder / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(10, 784)
    np.testing.assert_array_equal(ours.test_x.numpy(), pixels)
    assert ours.test_y.tolist() == list(range(10))
    standard = data.load(knobs("data=mnist", root=str(tmp_path)))  # one mean and deviation for all pixels
    assert standard.shift.unique().numel() == 1
    assert standard.x.mean().item() == pytest.approx(0, abs=1e-5)
    assert standard.x.std().item() == pytest.approx(1, abs=1e-4)


def test_each_fault_of_a_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    images, labels = (folder / f"train-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    sound = {path: path.read_bytes() for path in folder.iterdir()}
    many = struct.pack(">2i", 2049, 31) + bytes(31)
    faults: list[tuple[Path, bytes | None, str]] = [
        (images, sound[images][:5000], f"{images} is damaged: it has 5000 bytes, and 23536 by its header; delete it"),
        (images, sound[images] + b"x", f"{images} is damaged: it has 23537 bytes, and 23536 by its header; delete it"),
        (images, b"", f"{images} is damaged: it has 0 bytes; delete it"),
        (images, sound[labels], f"{images} is damaged, or another file: it does not begin as images do; delete it"),
        (labels, sound[labels][:-1] + b"\x0b", f"{labels} is damaged: a label is above 9; delete it"),
        (labels, many, f"{folder}: 30 images, but 31 labels in train-*: delete both"),
        (labels, None, f"{labels} is missing: get it"),
    ]
    put = f"put its files (train-images-idx3-ubyte, ...) into {folder}, or say where they are: data.root=DIR or "
    for path, content, fault in faults:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            data.load(knobs("data=mnist", root=str(tmp_path)))
        assert str(caught.value) == f"data.root: {fault}; then {put}TRAINER_DATA_ROOT=DIR"
        path.write_bytes(sound[path])


def test_files_are_compared_with_the_archives_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an archive is there, it must be the one that was published, and the file what is in it."""
    import torchvision

    folder = write_mnist(tmp_path)
    resources = []
    for path in sorted(folder.iterdir()):
        archive = path.with_name(f"{path.name}.gz")
        archive.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    read = functools.partial(data.load, knobs("data=mnist", root=str(tmp_path)))
    assert len(read().x) == 30
    images = folder / "train-images-idx3-ubyte"
    content = bytearray(images.read_bytes())
    content[5000] ^= 1
    images.write_bytes(content)
    with pytest.raises(ConfigError, match=r"idx3-ubyte is not what .*-ubyte\.gz holds; delete both; then "):
        read()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(
        ConfigError, match=r"comes from .*.gz, whose MD5 is not \w{32}, which was published; delete both"
    ):
        read()


def test_other_files_than_cifars_are_never_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch called'\ntR.")
    with pytest.raises(ConfigError) as caught:
        data.load(knobs("data=cifar10", root=str(tmp_path)))
    first, *others = caught.value.problems
    assert first.startswith(
        f"data.root: {folder / 'data_batch_1'} is damaged, or another file: its MD5 is not c99cafc1"
    )
    assert len(others) == 5
    assert all("is missing: get it; then put its files" in other for other in others)


def test_what_cannot_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    folder = write_mnist(tmp_path)

    def fail(*arguments: object, **keywords: object) -> None:
        raise PermissionError(13, "Permission denied", "file")

    monkeypatch.setattr(torchvision.datasets.MNIST, "__init__", fail)
    with pytest.raises(ConfigError) as caught:
        data.load(knobs("data=mnist", root=str(tmp_path)))
    said = str(caught.value)
    assert said.startswith(f"data.root: cannot read MNIST from {folder} ([Errno 13] Permission denied: 'file'); put ")
    assert "delete" not in said


def test_a_missing_data_set_is_tried_again_after_a_download_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed download leaves empty folders behind: they must not count as data."""
    import torchvision

    def offline(root: Path, download: bool = False, train: bool = True) -> None:
        assert download
        (root / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            data.load(knobs("data=mnist", root=str(tmp_path)))
        assert str(caught.value) == (
            f"data.root: no MNIST in {tmp_path}, and it cannot be downloaded (no network); put its files "
            f"(train-images-idx3-ubyte, ...) into {tmp_path}/MNIST/raw, or say where they are: data.root=DIR or "
            "TRAINER_DATA_ROOT=DIR"
        )


@pytest.mark.skipif(not os.environ.get("TRAINER_DATA_ROOT"), reason="TRAINER_DATA_ROOT names no folder with MNIST")
def test_the_real_mnist() -> None:
    config = make_config("data=mnist").data
    ours = data.load(dataclasses.replace(config, root=os.environ["TRAINER_DATA_ROOT"]))
    assert (tuple(ours.x.shape), tuple(ours.test_x.shape)) == ((60000, 784), (10000, 784))
    assert torch.bincount(ours.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # the mean and deviation that every tutorial quotes, 0.1307 and 0.3081 of 255
    centre = 28 * 14 + 14  # a pixel that varies
    assert ours.shift[centre].item() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert ours.scale[centre].item() / 255 == pytest.approx(0.3081, abs=5e-5)


def write_idx(folder: Path, name: str, n: int) -> np.ndarray:
    pixels = np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8)
    labels = (np.arange(n) % 26 + 1).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + pixels.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
    return pixels


def test_emnists_letters(tmp_path: Path) -> None:
    """Its labels begin with 1, and its list of names with one that no example has."""
    folder = tmp_path / "EMNIST" / "raw"
    train = write_idx(folder, "emnist-letters-train", 104)
    write_idx(folder, "emnist-letters-test", 52)
    ours = load("torchvision", dataset="EMNIST", split="letters", root=str(tmp_path), normalisation="none")
    assert (ours.classes, ours.class_names[0], ours.class_names[-1], len(ours.test_x)) == (26, "a", "z", 52)
    np.testing.assert_array_equal(ours.x.numpy(), train.reshape(104, -1))
    assert ours.y[:3].tolist() == [0, 1, 2]


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    import scipy.io
    import torchvision

    rng = np.random.default_rng(0)
    listed = {}
    for split, n in (("train", 30), ("test", 10)):
        x = rng.integers(0, 256, (32, 32, 3, n), np.uint8)
        file = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(file, {"X": x, "y": (np.arange(n) % 10 + 1)[:, None]})
        listed[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    ours = load("torchvision", dataset="SVHN", root=str(tmp_path), normalisation="none")
    assert (ours.shape, len(ours.x), len(ours.test_x), ours.classes) == ((3, 32, 32), 30, 10, 10)
    np.testing.assert_array_equal(ours.test_x[9].numpy().reshape(3, 32, 32), x[..., 9].transpose(2, 0, 1))
    assert ours.test_y[8:].tolist() == [9, 0]  # a 10 in the file is a nought


def test_a_set_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def offline(self: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets.SVHN, "download", offline)
    assert refused("torchvision", dataset="SVHN", root=str(tmp_path / "away")) == (
        f"data.root: no SVHN in {tmp_path / 'away'}, and it cannot be downloaded (no network); put its files into "
        f"{tmp_path / 'away'}, or say where they are: data.root=DIR or TRAINER_DATA_ROOT=DIR"
    )
    assert not (tmp_path / "away").exists()


def test_a_preset_is_the_set_of_its_class(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    for name, n in (("train", 30), ("t10k", 10)):
        write_idx(folder, name, n)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, n) + bytes(i % 10 for i in range(n))
        )
    preset, named = load("mnist", root=str(tmp_path)), load("torchvision", dataset="MNIST", root=str(tmp_path))
    assert preset.class_names == named.class_names == tuple("0123456789")
    for one, other in ((preset.x, named.x), (preset.y, named.y), (preset.test_x, named.test_x)):
        assert torch.equal(one, other)
