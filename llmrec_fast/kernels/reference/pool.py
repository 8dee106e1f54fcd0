"""`pool` in plain NumPy with float64 sums: the oracle for the other devices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Float64Array
from llmrec_fast.kernels.checks import PoolMode, check_pool
from llmrec_fast.kernels.reference.fuse import normalize_rows


def pool(
    table: npt.ArrayLike,
    starts: npt.ArrayLike,
    lengths: npt.ArrayLike,
    *,
    index: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    mode: PoolMode = "mean",
    normalize: bool = False,
    out: Float32Array | None = None,
    threads: int | None = None,
) -> Float32Array:
    """Reduce segments of rows; see `llmrec_fast.kernels.cpu.pool`. `threads` is accepted and has no effect."""
    arguments = check_pool(table, starts, lengths, index, weights, mode, out)
    result = np.zeros(arguments.out.shape, np.float64)
    for segment, (start, length) in enumerate(zip(arguments.starts, arguments.lengths, strict=True)):
        if length == 0:
            continue
        positions = np.arange(start, start + length)
        rows = arguments.table[positions if arguments.index is None else arguments.index[positions]].astype(np.float64)
        row_weights = np.ones(length) if arguments.weights is None else arguments.weights[positions].astype(np.float64)
        result[segment] = _reduce(rows, row_weights, mode)
    arguments.out[...] = normalize_rows(result) if normalize else result
    return arguments.out


def _reduce(rows: Float64Array, weights: Float64Array, mode: PoolMode) -> Float64Array:
    result: Float64Array
    if mode in ("first", "last"):
        result = rows[0 if mode == "first" else -1]
    elif mode == "max":
        result = rows.max(axis=0)
    else:
        result = weights @ rows
        if mode == "mean":
            mass = weights.sum()
            result = result / mass if mass != 0 else np.zeros_like(result)
    return result
