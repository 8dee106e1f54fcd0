"""How FAISS (inner products) and implicit order equal float32 scores: the larger position first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array

MISSING_SCORE = -np.float32(np.finfo(np.float32).max)
"""What both give where there is no row: the lowest float32."""


def larger_position_first(scores: Float64Array, positions: Int64Array) -> tuple[Float32Array, npt.NDArray[Any]]:
    """Scores rounded to float32 and positions, (n, k) each, reordered by falling score, then by falling position.

    Where a position is -1 the score is `MISSING_SCORE`, and it comes last.
    """
    missing = positions < 0
    with np.errstate(over="ignore"):
        rounded = np.where(missing, MISSING_SCORE, scores).astype(np.float32)
    return sorted_rows(rounded, positions, -rounded, -positions, missing)


def sorted_rows(
    values: Float32Array,
    positions: Int64Array,
    keys: Float32Array,
    ties: Int64Array,
    missing: npt.NDArray[np.bool_],
) -> tuple[Float32Array, npt.NDArray[Any]]:
    """Each row of `values` and `positions`, (n, k), by rising key, equal keys by rising `ties`; what is missing comes last."""
    if (keys[:, 1:] > keys[:, :-1]).all():  # the usual case: nothing is equal, so all is in order already
        return values, positions
    order = np.lexsort((ties, keys, missing))
    return np.take_along_axis(values, order, 1), np.take_along_axis(positions, order, 1)
