"""How FAISS and implicit order equal float32 scores: of inner products the larger position first, of distances the smaller."""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.jit import jit

MISSING_SCORE = -np.float32(np.finfo(np.float32).max)
"""What both give where there is no row: the lowest float32."""

Ordered = tuple[Float32Array, npt.NDArray[Any]]


def larger_position_first(scores: Float64Array, positions: Int64Array) -> Ordered:
    """Scores rounded to float32 and positions, (n, k) each, reordered by falling score, then by falling position.

    Where a position is -1 the score is `MISSING_SCORE`, and it comes last.
    """
    rounded = np.empty(scores.shape, np.float32)
    if _round(scores, positions, 1.0, False, rounded):
        return rounded, positions
    missing = positions < 0
    rounded[missing] = MISSING_SCORE
    return _sorted_rows(rounded, positions, -rounded, -positions, missing)


def squared_distances(scores: Float64Array, positions: Int64Array) -> Ordered:
    """Squares of scores (minus distances) as float32 and positions, (n, k) each, reordered by rising square, then position.

    Where a position is -1 the square is minus `MISSING_SCORE`, and it comes last.
    """
    rounded = np.empty(scores.shape, np.float32)
    if _round(scores, positions, -1.0, True, rounded):
        return rounded, positions
    missing = positions < 0
    rounded[missing] = -MISSING_SCORE
    return _sorted_rows(rounded, positions, rounded, positions, missing)


@jit()
def _round(scores, positions, sign, squared, rounded):
    """Whether nothing is missing and no two neighbours are equal once rounded: the usual case, in order already."""
    in_order = True
    for row in range(scores.shape[0]):
        last = np.inf
        for place in range(scores.shape[1]):
            score = scores[row, place]
            value = np.float32(score * score if squared else score)
            rounded[row, place] = value
            key = sign * value
            in_order &= key < last and positions[row, place] >= 0
            last = key
    return in_order


def _sorted_rows(
    values: Float32Array,
    positions: Int64Array,
    keys: Float32Array,
    ties: Int64Array,
    missing: npt.NDArray[np.bool_],
) -> Ordered:
    """Each row of `values` and `positions`, (n, k), by rising key, equal keys by rising `ties`; what is missing comes last."""
    order = np.lexsort((ties, keys, missing))
    return np.take_along_axis(values, order, 1), np.take_along_axis(positions, order, 1)
