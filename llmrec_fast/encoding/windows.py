"""Long texts: the vectors of a text's overlapping windows become one, weighted by their token counts."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array


def pool_windows(vectors: Float32Array, lengths: Int64Array, counts: Int64Array, threads: int) -> Float32Array:
    """(texts, d) from (windows, d): text t is the next `counts[t]` windows, each weighted by its `lengths` tokens.

    With mean pooling this is the mean over all tokens of all windows.
    """
    from llmrec_fast.kernels.cpu import pool

    starts = np.cumsum(counts) - counts
    return pool(vectors, starts, counts, weights=lengths.astype(np.float32), mode="mean", threads=threads)
