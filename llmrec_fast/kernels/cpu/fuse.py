"""`fuse` on the CPU: normalise, weight and concatenate blocks of columns, rows shared between threads.

Cost: reads each block once from memory (the second look at a row, to scale it, finds it in the first-level cache) and
writes the result once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array
from llmrec_fast.kernels.checks import check_fuse
from llmrec_fast.kernels.cpu.halves import as_bits, to_float32
from llmrec_fast.kernels.cpu.normalize import normalize_row
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_ELEMENTS_WORTH_A_THREAD = 200_000


def fuse(
    blocks: Sequence[npt.ArrayLike],
    weights: Sequence[float],
    *,
    out: Float32Array | None = None,
    threads: int | None = None,
) -> Float32Array:
    """Per row: L2-normalise each block, scale it by the root of its weight, concatenate.

    The inner product of two fused rows is then `sum_f weight_f * cosine_f`, which keeps a fused score readable. Plain
    normalisation is one block of weight 1.

    Parameters
    ----------
    blocks : matrices (n, d_f) of float32, float16 or bfloat16, one a feature.
    weights : as many numbers, finite and not negative.
    out : (n, sum of d_f) float32, C-contiguous, to write to. It must not share memory with a block.
    threads : bound on the number of threads (default: `llmrec_fast.get_threads()`).

    Returns
    -------
    (n, sum of d_f) float32. A row of a block that is zero stays zero. Norms are summed in float64.

    Raises
    ------
    InvalidInput : no block, different numbers of rows, a weight that is negative or not finite, a wrong `out`.
    """
    arrays, roots, out = check_fuse(blocks, weights, out)
    bits = [as_bits(array) for array in arrays]
    threads = get_threads() if threads is None else threads
    pieces = split_range(len(out), max(1, min(threads, out.size // _ELEMENTS_WORTH_A_THREAD)))
    run_parallel(_fuse_rows, [(bits, roots, out, start, stop) for start, stop in pieces], threads)
    return out


def _fuse_rows(blocks: list[npt.NDArray[Any]], roots: list[float], out: Float32Array, start: int, stop: int) -> None:
    column = 0
    for block, root in zip(blocks, roots, strict=True):
        _fuse_block(block[start:stop], root, out[start:stop], column)
        column += block.shape[1]


@jit()
def _fuse_block(block, root, out, column):
    width = block.shape[1]
    for row in range(block.shape[0]):
        result = out[row, column : column + width]
        for position in range(width):
            result[position] = to_float32(block[row, position])
        normalize_row(result, np.float64(root))
