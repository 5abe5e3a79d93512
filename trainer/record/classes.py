"""How well a run tells each class apart, from its predictions on the test split."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_CLASSES = 100  # of more, the matrix would be most of summary.json


def by_class(target: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, Any]:
    """Return the confusion matrix, and recall, precision and F1 of each class; nothing for more than MOST_CLASSES.

    target, predicted: (N,) integers below `classes`. confusion: (C, C) counts, rows are true classes, columns
    predictions. With TP a class's own count, recall = TP / row, precision = TP / column, and F1 = 2 TP / (row +
    column), their harmonic mean; None for 0 / 0: of a class without examples, or never predicted.
    """
    if classes > MOST_CLASSES:
        return {}
    confusion = np.bincount(target * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    hits, rows, columns = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return {
        "per_class": {
            "recall": _ratios(hits, rows),
            "precision": _ratios(hits, columns),
            "f1": _ratios(2 * hits, rows + columns),
        },
        "confusion": confusion.tolist(),
    }


def _ratios(counts: np.ndarray, totals: np.ndarray) -> list[float | None]:
    return [count / total if total else None for count, total in zip(counts.tolist(), totals.tolist(), strict=True)]
