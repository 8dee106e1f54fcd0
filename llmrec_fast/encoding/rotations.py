"""Orthogonal matrices that spread what is in a few columns over all: a row's scale in int8 is then not that of an outlier.

Applied without forming them: a rotation of n columns is a Kronecker product of small ones.
"""

from __future__ import annotations

import math

import numpy as np

from llmrec_fast.arrays import Float32Array

_WIDEST = 64  # of a Hadamard matrix that one product takes
_LANES = 8  # neighbouring columns that `spread_blocks` leaves apart, so that registers of any processor hold whole ones


def spread(rows: Float32Array) -> Float32Array:
    """(..., n) `rows` times an orthogonal (n, n) matrix whose entries are all of the order 1 / sqrt(n).

    It is diag(random signs) (cosines of the odd part of n) (x) (Hadamard matrices of its power of two).
    """
    columns = rows.shape[-1]
    # without signs, what all columns share would gather in one of them
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), columns)
    result: Float32Array = rows * signs
    right = columns
    for factor in _factors(columns):
        size, right = len(factor), right // len(factor)
        rest = result.reshape(-1, size, right)
        # the last one is one product instead of many small ones
        result = np.matmul(factor.T, rest) if right > 1 else rest[..., 0] @ factor
    return result.reshape(rows.shape)


def spread_back(matrix: Float32Array) -> Float32Array:
    """A (n, columns) matrix that gives for spread rows what `matrix` gives for the rows themselves."""
    return np.ascontiguousarray(spread(np.ascontiguousarray(matrix.T)).T)


def block_of(columns: int) -> int:
    """How many columns `spread_blocks` spreads over: the power of two in `columns`; 0 where that is too small."""
    block = columns & -columns
    return block if block > _LANES else 0


def spread_blocks(rows: Float32Array, block: int) -> Float32Array:
    """(..., n) `rows` times a symmetric matrix whose square is block / 8: each value goes to every eighth of its block.

    What the kernel does while it runs (`gated_transformer.py`). A `block` of 0 leaves the rows as they are.
    """
    if not block:
        return rows
    steps = block // _LANES
    result: Float32Array = np.matmul(_hadamard(steps), rows.reshape(-1, steps, _LANES))
    return result.reshape(rows.shape)


def unspread_blocks(matrix: Float32Array, block: int) -> Float32Array:
    """A (n, columns) matrix that gives for rows from `spread_blocks` what `matrix` gives for the rows themselves."""
    if not block:
        return matrix
    spread_columns = spread_blocks(np.ascontiguousarray(matrix.T), block)
    return np.ascontiguousarray(spread_columns.T) * np.float32(_LANES / block)


def _factors(columns: int) -> list[Float32Array]:
    """Orthogonal matrices whose sizes multiply to `columns`."""
    power = columns & -columns
    odd = columns // power
    factors = [_cosines(odd)] if odd > 1 else []
    while power > 1:
        size = min(power, _WIDEST)
        factors.append(_hadamard(size) * np.float32(1 / math.sqrt(size)))
        power //= size
    return factors


def _hadamard(size: int) -> Float32Array:
    """Sylvester's Hadamard matrix of a power of two: ones and minus ones, symmetric, its square is `size`."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _cosines(size: int) -> Float32Array:
    """The orthonormal cosine transform (DCT-II)."""
    rows, columns = np.arange(size)[:, None], np.arange(size)[None, :]
    matrix = np.cos(np.pi / size * (rows + 0.5) * columns) * math.sqrt(2 / size)
    matrix[:, 0] /= math.sqrt(2)
    transform: Float32Array = matrix.astype(np.float32)
    return transform
