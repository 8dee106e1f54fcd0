"""Exact distances between given pairs of rows, in float64, and scikit-learn's metric names. Nothing here searches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float64Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval.result import Metric

_VALUES_AT_A_TIME = 1 << 20  # float64 values of one gather: 8 MiB


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

    The cosine of a zero row is 0. Costs a pass over each pair.
    """
    distances = np.empty(len(at_query))
    step = max(1, _VALUES_AT_A_TIME // max(rows.shape[1], 1))
    for start in range(0, len(distances), step):
        left = queries[at_query[start : start + step]].astype(np.float64)
        right = rows[at_row[start : start + step]].astype(np.float64)
        if metric == "euclidean":
            left -= right
            distances[start : start + step] = np.sqrt(np.einsum("ij,ij->i", left, left))
        else:
            left, right = scaled(left), scaled(right)
            products = np.einsum("ij,ij->i", left, right)
            norms = np.sqrt(np.einsum("ij,ij->i", left, left) * np.einsum("ij,ij->i", right, right))
            norms[norms == 0] = 1
            distances[start : start + step] = np.clip(1 - products / norms, 0, 2)
    return distances


def scaled(rows: Float64Array) -> Float64Array:
    """Rows divided by their largest magnitudes: squares of what is left neither overflow nor vanish."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    result: Float64Array = rows / np.where(largest > 0, largest, 1)
    return result
