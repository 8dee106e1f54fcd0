"""One side's factors from the other's and new interactions: the exact step of alternating least squares. It does not train."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array


def solve_rows(factors: Float32Array, interactions: Any, regularization: float, alpha: float) -> Float32Array:
    """The factors that fit the rows of `interactions` best, given the other side's.

    Solves (Y'Y + regularization I + sum (c - 1) y y') x = sum c y over a row's entries, with c = alpha * value (Hu, Koren and
    Volinsky 2008, section 4); an entry with a negative value counts with |c| on the left alone, as in implicit. In float64;
    costs d^2 a stored entry and d^3 a row.

    Parameters
    ----------
    factors : (n, d) of the other side.
    interactions : (rows, n) CSR matrix.
    """
    wide = factors.astype(np.float64)
    gram = wide.T @ wide + regularization * np.eye(wide.shape[1])
    solved = np.zeros((interactions.shape[0], wide.shape[1]), np.float32)
    for row in range(len(solved)):
        entries = slice(interactions.indptr[row], interactions.indptr[row + 1])
        values = alpha * interactions.data[entries].astype(np.float64)
        if not values.size:
            continue
        liked = wide[interactions.indices[entries]]
        weights = np.abs(values)
        left = gram + (liked.T * (weights - 1)) @ liked
        solved[row] = np.linalg.solve(left, liked.T @ np.maximum(values, 0))
    return solved
