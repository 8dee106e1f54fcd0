"""From positions in an index to ids. A kernel, because NumPy's masks take longer than a short search has to spare."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Int64Array
from llmrec_fast.kernels.jit import jit


@jit()
def take_ids(positions: np.ndarray, base: int, ids: Int64Array, out: np.ndarray) -> None:
    """out[...] = ids[position - base] where a segment that begins at `base` holds the position; (q, k) int64, C-contiguous."""
    flat, result = positions.reshape(-1), out.reshape(-1)
    for i in range(len(flat)):
        local = flat[i] - base
        if 0 <= local < len(ids):
            result[i] = ids[local]
