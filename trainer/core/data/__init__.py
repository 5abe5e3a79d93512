"""A data set as tensors on the device: loading by source, splits, label noise, batch order. No DataLoader."""

from trainer.core.data.builtin import INTERCEPT, SLOPE
from trainer.core.data.dataset import Dataset, assemble
from trainer.core.data.sources import load
from trainer.core.data.splits import EpochOrder, Split, batch_slices, split, stratified_order

__all__ = [
    "INTERCEPT",
    "SLOPE",
    "Dataset",
    "EpochOrder",
    "Split",
    "assemble",
    "batch_slices",
    "load",
    "split",
    "stratified_order",
]
