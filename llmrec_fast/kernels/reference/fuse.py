"""`fuse` in plain NumPy and float64: the oracle for the other devices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Float64Array
from llmrec_fast.kernels.checks import check_fuse


def fuse(
    blocks: Sequence[npt.ArrayLike],
    weights: Sequence[float],
    *,
    out: Float32Array | None = None,
    threads: int | None = None,
) -> Float32Array:
    """Normalise, weight and concatenate blocks; see `llmrec_fast.kernels.cpu.fuse`. `threads` has no effect."""
    arrays, roots, out = check_fuse(blocks, weights, out)
    out[...] = np.concatenate(
        [root * normalize_rows(array.astype(np.float64)) for array, root in zip(arrays, roots, strict=True)], axis=1
    )
    return out


def normalize_rows(rows: Float64Array) -> Float64Array:
    """Each row divided by its Euclidean norm; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    result: Float64Array = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return result
