"""The verdict on one run: examples of every label, laws, traps, bad input."""

import numpy as np
import pytest

from trainer.overfit import judge

T = np.arange(30)
TRAIN = 2.2 * np.exp(-T / 4) + 0.05
HEALTHY = 2.0 * np.exp(-T / 4) + 0.2
OVERFIT = 2.0 * np.exp(-T / 3) + 0.3 + 0.03 * T


@pytest.mark.parametrize(
    ("label", "train", "val"),
    [
        ("overfit", TRAIN, OVERFIT),
        ("healthy", TRAIN, HEALTHY),
        ("underfit", 2.3 - 0.05 * T, 2.3 - 0.05 * T),
        ("underfit", np.ones(30), np.ones(30)),
        ("diverged", np.where(T < 20, TRAIN, np.nan), np.where(T < 20, HEALTHY, np.nan)),
        ("diverged", TRAIN + 0.01 * T**2, HEALTHY + 0.01 * T**2),
        ("too_short", TRAIN[:1], HEALTHY[:1]),
        ("too_short", TRAIN, None),
    ],
)
def test_each_label(label: str, train: np.ndarray, val: np.ndarray | None) -> None:
    assert judge(train, val).verdict == label
