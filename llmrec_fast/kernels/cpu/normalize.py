"""L2 normalisation in compiled code: of one row, shared by the kernels that end with it, and of rows that come to an index."""

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


@jit()
def divide_by_norms(rows: np.ndarray, out: np.ndarray) -> None:
    """out[i] = rows[i] / |rows[i]|, norm and quotient in float64, rounded to float32; zero rows stay zero. (n, d) float32."""
    for i in range(rows.shape[0]):
        norm = np.sqrt(squared_norm(rows[i]))
        if norm == 0.0:
            norm = 1.0
        for column in range(rows.shape[1]):
            out[i, column] = np.float32(np.float64(rows[i, column]) / norm)


@jit()
def all_finite(rows: np.ndarray) -> bool:
    """Whether (n, d) float32 `rows` hold neither NaN nor infinities: their squares are finite in float64."""
    total = 0.0
    for i in range(rows.shape[0]):
        total += 0.0 * squared_norm(rows[i])
    return total == 0.0
