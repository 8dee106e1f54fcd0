"""How many of their nearest rows two sets of vectors share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def nearest_overlap(first: npt.NDArray[Any], second: npt.NDArray[Any], count: int = 10) -> float:
    """The share of each row's `count` nearest other rows by inner product that both sets of vectors give."""
    count = min(count, len(first) - 1)
    nearest = []
    for vectors in (first, second):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        nearest.append(np.argpartition(-scores, count - 1, axis=1)[:, :count].tolist())
    return float(np.mean([len(set(a) & set(b)) / count for a, b in zip(*nearest, strict=True)]))
