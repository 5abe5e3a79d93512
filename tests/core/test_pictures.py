"""Folders of pictures; the oracle is torchvision."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.core.datasets import load, refused


def write_pictures(folder: Path, n: int = 12, side: int = 6, mode: str = "RGB") -> None:
    rng = np.random.default_rng(n)
    for i in range(n):
        place = folder / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        shape = (side, side, 3) if mode == "RGB" else (side, side)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(place / f"{i:02}.png")


@pytest.mark.parametrize("size", [None, 4])
def test_pictures_are_torchvisions(size: int | None, here: Path) -> None:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    write_pictures(here / "pets")
    steps = [transforms.Resize((size, size))] if size else []
    theirs = ImageFolder("pets", transforms.Compose([*steps, transforms.PILToTensor()]))
    ours = load("folder", path="pets", size=size, normalisation="none", test_fraction=0)
    assert ours.shape == (3, size or 6, size or 6)
    for i, (x, y) in enumerate(theirs):  # type: ignore[misc, arg-type]
        np.testing.assert_array_equal(ours.x[i].numpy(), x.double().flatten().numpy())
        assert ours.y[i] == y
    assert ours.class_names == ("cat", "dog")


def test_grey_pictures_have_one_channel_and_folders_train_and_test_are_splits(here: Path) -> None:
    write_pictures(here / "pets/train", 10, mode="L")
    write_pictures(here / "pets/test", 4, mode="L")
    ours = load("folder", path="pets")
    assert (ours.shape, len(ours.x), len(ours.test_x)) == ((1, 6, 6), 10, 4)
    write_pictures(here / "pets/val", 4, mode="L")
    assert refused("folder", path="pets") == (
        "data.path: pets has folders test, train, val, expected train and test, or a folder for each class; validation "
        "examples are drawn from train, see data.val_fraction"
    )


def test_broken_pictures_are_named_all_at_once(here: Path) -> None:
    write_pictures(here / "pets")
    Path("pets/cat/01.png").write_bytes(b"no picture")
    whole = Path("pets/dog/02.png").read_bytes()
    Path("pets/dog/02.png").write_bytes(whole[: len(whole) // 2])
    first, second = refused("folder", path="pets").splitlines()
    assert first == (
        "data.path: pets/cat/01.png cannot be read (UnidentifiedImageError: cannot identify image file); repair or "
        "remove it"
    )
    assert second.startswith("data.path: pets/dog/02.png cannot be read (")
    Path("pets/cat/01.png").unlink()
    write_pictures(here / "others", 2, side=9)
    Path("others/cat/01.png").rename("pets/cat/big.png")
    Path("pets/dog/02.png").unlink()
    assert refused("folder", path="pets") == (
        "data.size: the pictures of pets are of 2 sizes, 6 x 6 (pets/cat/03.png) and 9 x 9 (pets/cat/big.png); try "
        "data.size=32"
    )


def test_folders_without_pictures(here: Path) -> None:
    hint = "expected a folder with one of pictures for each class"
    assert refused("folder", path="pets") == f"data.path: pets is nowhere in {here}; {hint}"
    Path("pets/cat").mkdir(parents=True)
    said = refused("folder", path="pets")
    assert said.startswith("data.path: pets: Found no valid file for the classes cat.")
    assert said.endswith(hint)
