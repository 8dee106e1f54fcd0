"""L2 normalisation of one row in compiled code, shared by the kernels that end with it."""

from __future__ import annotations

import numpy as np

from llmrec_fast.kernels.jit import jit


@jit(inline=True, fastmath={"reassoc"})
def squared_norm(row):
    """Sum of squares in float64 (any float32 row fits: squares reach 1e77); reassociation lets it vectorise."""
    total = 0.0
    for column in range(row.shape[0]):
        value = np.float64(row[column])
        total += value * value
    return total


@jit(inline=True)
def normalize_row(row, length):
    """Scale `row` in place to Euclidean norm `length`; a zero row stays zero."""
    norm = np.sqrt(squared_norm(row))
    scale = np.float64(length) / norm if norm > 0.0 else 0.0
    for column in range(row.shape[0]):
        row[column] = np.float32(np.float64(row[column]) * scale)
