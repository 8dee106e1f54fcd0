"""What the FAISS shim's indexes share: metric constants, its error, reading of arguments, FAISS's order of equal distances."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from llmrec_fast.arrays import (
    ArrayLike,
    Float32Array,
    Float64Array,
    Int64Array,
    as_count,
    as_matrix,
    check_finite,
    writable_view,
)
from llmrec_fast.compat.ties import larger_position_first, squared_distances
from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.kernels.cpu.normalize import all_finite

METRIC_INNER_PRODUCT = 0
METRIC_L2 = 1
METRIC_L1 = 2
METRIC_Linf = 3
METRIC_Lp = 4


class FaissError(InvalidInput, RuntimeError, AssertionError):
    """What the shim refuses; caught also by code that catches FAISS's RuntimeError or AssertionError."""


class CorruptIndex(CorruptFile, FaissError):
    """A file that is damaged, caught also by code that catches FAISS's RuntimeError."""


def index_metric(metric: int) -> Literal["dot", "euclidean"]:
    """Our name of a FAISS metric; the two that flat indexes are used with are covered."""
    if metric == METRIC_INNER_PRODUCT:
        return "dot"
    if metric == METRIC_L2:
        return "euclidean"
    raise FaissError(f"metric must be METRIC_INNER_PRODUCT (0) or METRIC_L2 (1); got {metric!r}, which is not covered")


def read_vectors(x: ArrayLike, d: int) -> Float32Array:
    """`x` as (n, d) float32. FAISS lets NaN pass and never finds such rows; here they are refused, by row."""
    shape = np.shape(x)
    if len(shape) != 2 or shape[1] != d:
        raise FaissError(f"x must have shape (n, {d}); got {shape}")
    try:
        rows = as_matrix(x, "x", finite=False)
        if not all_finite(writable_view(rows)):
            check_finite(rows, "x")
        return rows
    except InvalidInput as error:
        raise FaissError(str(error)) from None


def read_k(k: Any) -> int:
    """`k` as an int of at least 1."""
    try:
        return as_count(k, "k")
    except InvalidInput as error:
        raise FaissError(str(error)) from None


def as_faiss_distances(scores: Float64Array, positions: Int64Array, metric: int) -> tuple[Float32Array, Int64Array]:
    """Scores of `Index.search` as FAISS's float32 distances, rows reordered as FAISS orders ties.

    For inner products equal float32 values come with the larger label first, for L2 with the smaller; which of them are
    among the k best has been decided already. Missing rows are -1 with -/+ 3.4028235e38: FAISS documents infinities there and
    returns the largest float32, so that is what callers compare with.
    """
    return (larger_position_first if metric == METRIC_INNER_PRODUCT else squared_distances)(scores, positions)


def into(buffer: Any, values: Any, name: str) -> Any:
    """`values`, written to the caller's `buffer` if there is one."""
    if buffer is None:
        return values
    if not isinstance(buffer, np.ndarray) or buffer.shape != values.shape or buffer.dtype != values.dtype:
        raise FaissError(
            f"{name} must be a {values.dtype} array of shape {values.shape}; got "
            f"{getattr(buffer, 'dtype', type(buffer).__name__)} {np.shape(buffer)}"
        )
    np.copyto(buffer, values)
    return buffer
