"""Exact distances between given pairs of rows, in float64, and scikit-learn's metric names. Nothing here searches."""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float64Array, Int64Array, writable_view
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range
from llmrec_fast.retrieval.result import Metric

_VALUES_WORTH_A_THREAD = 1 << 19
# squares between these lose nothing to float64's range
_LEAST, _MOST = 1e-280, 1e280


def metric_of(metric: object, p: float, metric_params: object) -> Metric:
    """Our name of scikit-learn's metric; raises `InvalidInput` for one that is not covered."""
    if metric_params:
        raise InvalidInput(f"metric_params must be None: no metric covered here has any; got {metric_params!r}")
    if metric == "cosine":
        return "cosine"
    if metric in ("euclidean", "l2") or (metric == "minkowski" and p == 2):
        return "euclidean"
    raise InvalidInput(
        f"metric must be 'cosine', 'euclidean', 'l2' or 'minkowski' with p=2; got {metric!r}"
        + (f" with p={p!r}" if metric == "minkowski" else "")
    )


def pair_distances(
    queries: npt.NDArray[Any], rows: npt.NDArray[Any], at_query: Int64Array, at_row: Int64Array, metric: Metric
) -> Float64Array:
    """The distance of queries[at_query[i]] to rows[at_row[i]]: Euclidean and not negative, or 1 - cosine in [0, 2].

    The cosine of a zero row is 0. Costs d operations a pair.
    """
    distances = np.empty(len(at_query))
    pieces = split_range(len(at_query), max(1, len(at_query) * rows.shape[1] // _VALUES_WORTH_A_THREAD))
    shared = writable_view(queries), writable_view(rows), at_query, at_row, metric == "cosine", distances
    run_parallel(_measure_pairs, [(*shared, start, stop) for start, stop in pieces], get_threads())
    return distances


@jit()
def _measure_pairs(queries, rows, at_query, at_row, cosine, distances, start, stop):
    for pair in range(start, stop):
        left, right = queries[at_query[pair]], rows[at_row[pair]]
        if cosine:
            product, left_square, right_square = _products(left, right, 1.0, 1.0)
            if not (_LEAST < left_square < _MOST and _LEAST < right_square < _MOST):
                # squares that leave float64's range, or zeros: divided by the largest magnitudes they do not
                scales = _inverse(np.abs(left).max()), _inverse(np.abs(right).max())
                product, left_square, right_square = _products(left, right, scales[0], scales[1])
            norms = np.sqrt(left_square) * np.sqrt(right_square)
            distances[pair] = min(max(1.0 - (product / norms if norms > 0.0 else 0.0), 0.0), 2.0)
        else:
            distances[pair] = np.sqrt(_square_apart(left, right))


@jit(inline=True, fastmath={"reassoc"})
def _products(left, right, left_scale, right_scale):
    product, left_square, right_square = 0.0, 0.0, 0.0
    for column in range(len(left)):
        a, b = np.float64(left[column]) * left_scale, np.float64(right[column]) * right_scale
        product += a * b
        left_square += a * a
        right_square += b * b
    return product, left_square, right_square


@jit(inline=True, fastmath={"reassoc"})
def _square_apart(left, right):
    total = 0.0
    for column in range(len(left)):
        difference = np.float64(left[column]) - np.float64(right[column])
        total += difference * difference
    return total


@jit(inline=True)
def _inverse(largest):
    return 1.0 / np.float64(largest) if largest > 0.0 else 1.0


def scaled(rows: Float64Array) -> Float64Array:
    """Rows divided by their largest magnitudes: squares of what is left neither overflow nor vanish."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    result: Float64Array = rows / np.where(largest > 0, largest, 1)
    return result
