"""`util`'s similarity functions: every pair, or row by row. Returns torch tensors, as sentence-transformers does.

Sums are float32, but for those of paired distances, which are float64; inputs of any float type are taken as float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, writable_view
from llmrec_fast.compat.exact_search import scale_to_one
from llmrec_fast.compat.sentence_transformers.tensors import as_array, as_pair, as_tensor, is_tensor
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_DIFFERENCES_WORTH_A_THREAD = 1 << 19


def cos_sim(a: Any, b: Any) -> Any:
    """Cosine of every row of `a` (n, d) with every row of `b` (m, d): an (n, m) float32 tensor. Zero rows give 0."""
    left, right = as_pair(a, b)
    return as_tensor(_scaled(left) @ _scaled(right).T)


def pytorch_cos_sim(a: Any, b: Any) -> Any:
    """The old name of `cos_sim`."""
    return cos_sim(a, b)


def dot_score(a: Any, b: Any) -> Any:
    """Inner product of every row of `a` with every row of `b`: an (n, m) float32 tensor."""
    left, right = as_pair(a, b)
    return as_tensor(left @ right.T)


def euclidean_sim(a: Any, b: Any) -> Any:
    """Minus the Euclidean distance of every row of `a` to every row of `b`: an (n, m) float32 tensor."""
    left, right = as_pair(a, b)
    return as_tensor(_minus_distances(left, right, manhattan=False))


def manhattan_sim(a: Any, b: Any) -> Any:
    """Minus the Manhattan distance of every row of `a` to every row of `b`: an (n, m) float32 tensor."""
    left, right = as_pair(a, b)
    return as_tensor(_minus_distances(left, right, manhattan=True))


def pairwise_cos_sim(a: Any, b: Any) -> Any:
    """Cosine of row i of `a` with row i of `b`: an (n,) float32 tensor."""
    left, right = _as_rows_of_pairs(a, b)
    return as_tensor(np.einsum("ij,ij->i", _scaled(left), _scaled(right)))


def pairwise_dot_score(a: Any, b: Any) -> Any:
    """Inner product of row i of `a` with row i of `b`: an (n,) float32 tensor."""
    return as_tensor(np.einsum("ij,ij->i", *_as_rows_of_pairs(a, b)))


def pairwise_euclidean_sim(a: Any, b: Any) -> Any:
    """Minus the Euclidean distance of row i of `a` to row i of `b`: an (n,) float32 tensor."""
    left, right = _as_rows_of_pairs(a, b)
    return as_tensor(-np.linalg.norm(left.astype(np.float64) - right, axis=1).astype(np.float32))


def pairwise_manhattan_sim(a: Any, b: Any) -> Any:
    """Minus the Manhattan distance of row i of `a` to row i of `b`: an (n,) float32 tensor."""
    left, right = _as_rows_of_pairs(a, b)
    return as_tensor(-np.abs(left.astype(np.float64) - right).sum(1).astype(np.float32))


def normalize_embeddings(embeddings: Any) -> Any:
    """`embeddings` (n, d) or (d,) with rows of length 1; a tensor gives a tensor, an array an array. Zero rows stay zero."""
    array = np.ascontiguousarray(as_array(embeddings), np.float32)
    rows = _scaled(array.reshape(-1, array.shape[-1])).reshape(array.shape)
    return as_tensor(rows) if is_tensor(embeddings) else rows


def truncate_embeddings(embeddings: Any, truncate_dim: int | None) -> Any:
    """The first `truncate_dim` columns; None: all."""
    return embeddings[..., :truncate_dim]


def _scaled(rows: Float32Array) -> Float32Array:
    result = rows.copy()
    scale_to_one(result)
    return result


def _minus_distances(left: Float32Array, right: Float32Array, *, manhattan: bool) -> Float32Array:
    result = np.empty((len(left), len(right)), np.float32)
    shared = writable_view(left), writable_view(right), manhattan, result
    # the longer side is cut: one query over many rows is shared by threads too
    by_rows = len(right) > len(left)
    length = max(len(left), len(right))
    pieces = split_range(length, max(1, len(left) * right.size // _DIFFERENCES_WORTH_A_THREAD))
    whole = (0, len(left)), (0, len(right))
    cuts = [(whole[0], piece) if by_rows else (piece, whole[1]) for piece in pieces]
    run_parallel(_measure, [(*shared, *lefts, *rights) for lefts, rights in cuts], get_threads())
    return result


@jit(fastmath={"reassoc", "contract"})
def _measure(left, right, manhattan, result, start, stop, first, last):  # type: ignore[no-untyped-def]
    """Sums of float32 differences: unlike sums of products they lose nothing where rows are close."""
    for i in range(start, stop):
        for j in range(first, last):
            total = np.float32(0)
            if manhattan:
                for column in range(left.shape[1]):
                    total += abs(left[i, column] - right[j, column])
                result[i, j] = -total
            else:
                for column in range(left.shape[1]):
                    difference = left[i, column] - right[j, column]
                    total += difference * difference
                result[i, j] = -np.sqrt(total)


def _as_rows_of_pairs(a: Any, b: Any) -> tuple[Float32Array, Float32Array]:
    left, right = as_pair(a, b)
    if left.shape != right.shape:
        raise InvalidInput(
            f"a and b are compared row by row and must have one shape; got {left.shape} and {right.shape}"
        )
    return left, right
