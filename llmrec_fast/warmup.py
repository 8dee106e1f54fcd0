"""Compile every kernel now rather than inside the first request."""

from __future__ import annotations

import numpy as np


def warmup() -> None:
    """Compile all kernels of the CPU, or load them from the cache on disk. Call it once when a service starts.

    Those of `Encoder` are among them, in the precisions that have kernels here. The first call on a machine compiles for some
    tens of seconds; later processes load what it left on disk.
    """
    import ml_dtypes

    from llmrec_fast.encoding.warm import warmup as warm_encoding
    from llmrec_fast.kernels import cpu
    from llmrec_fast.retrieval import warmup as warm_retrieval

    position = np.zeros(1, np.int64)
    one = np.ones(1, np.int64)
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        row = np.ones((1, 4), dtype)
        for index in (None, position):
            for weights in (None, np.ones(1, np.float32)):
                cpu.pool(row, position, one, index=index, weights=weights)
        cpu.fuse([row], [1.0])
    warm_encoding()
    warm_retrieval()
