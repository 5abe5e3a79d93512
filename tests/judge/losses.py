"""Losses of 30 epochs whose verdict is plain."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

T = np.arange(30.0)
TRAIN = 2.2 * np.exp(-T / 4) + 0.05
HEALTHY = 2.0 * np.exp(-T / 4) + 0.2
OVERFIT = 2.0 * np.exp(-T / 3) + 0.3 + 0.03 * T
STALLED = np.maximum(2.25 * np.exp(-T / 4), 1.1)
NOISE = np.random.default_rng(0).normal(size=(2, 30))
