"""Sums over histories at chosen items, and sparse matrices as arrays: what pair features are computed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.features.users import HistoryWeighting, user_vectors

# dense rows of scores are made for so many numbers at a time
_BLOCK_NUMBERS = 2**24


def pooled(
    vectors: Float32Array,
    indptr: Int64Array,
    items: Int64Array,
    decay: float | None,
    normalize: bool,
    threads: int | None,
) -> Float32Array:
    """(users, d): the sum of the vectors of each history, or of their directions, an item `n` back weighing exp(-n / decay)."""
    weights = HistoryWeighting(decay).weights(indptr)
    return user_vectors(vectors, indptr, items, weights, mode="sum", normalize=normalize, threads=threads)


def dot_products(users: Float32Array, items: Float32Array, candidates: Int64Array) -> Float32Array:
    """(users, c): each user's vector times the vectors of their candidates."""
    result = np.empty(candidates.shape, np.float32)
    for row, chosen in enumerate(candidates):
        result[row] = items[chosen] @ users[row]
    return result


def weighted_profiles(indptr: Int64Array, items: Int64Array, decay: float | None, n_items: int) -> Any:
    """(users, items) CSR: what each item of a history weighs."""
    from scipy.sparse import csr_matrix

    weights = HistoryWeighting(decay).weights(indptr)
    return csr_matrix((weights, items, indptr), shape=(len(indptr) - 1, n_items))


def pick(profiles: Any, first: Any, second: Any | None, candidates: Int64Array) -> Float32Array:
    """(users, c): entries at the candidates of `profiles @ first (@ second)`, for a block of users at a time."""
    result = np.empty(candidates.shape, np.float32)
    step = max(1, _BLOCK_NUMBERS // max(1, profiles.shape[1]))
    for start in range(0, len(candidates), step):
        part = slice(start, start + step)
        scores = profiles[part] @ first
        if second is not None:
            scores = scores @ second
        result[part] = np.take_along_axis(scores.toarray(), candidates[part], axis=1)
    return result


def sparse(name: str, matrix: Any) -> dict[str, Any]:
    """A CSR matrix as arrays that a folder can hold."""
    return {
        f"{name}_indptr": matrix.indptr.astype(np.int64),
        f"{name}_items": matrix.indices.astype(np.int64),
        f"{name}_values": matrix.data.astype(np.float32),
        f"{name}_shape": np.array(matrix.shape, np.int64),
    }


def restored(name: str, arrays: Mapping[str, Any]) -> Any:
    """What `sparse` made arrays of."""
    from scipy.sparse import csr_matrix

    parts = (arrays[f"{name}_values"], arrays[f"{name}_items"], arrays[f"{name}_indptr"])
    return csr_matrix(parts, shape=tuple(arrays[f"{name}_shape"].tolist()))


def with_empty_row(matrix: Any, square: bool) -> Any:
    """With a last row (and column) of zeros, which position -1 then names."""
    from scipy.sparse import csr_matrix, hstack, vstack

    taller = vstack([matrix, csr_matrix((1, matrix.shape[1]))]).tocsr()
    return hstack([taller, csr_matrix((taller.shape[0], 1))]).tocsr() if square else taller
