"""MPNet's relative position bias (arXiv 2004.09297), the bucketing of T5 (arXiv 1910.10683, section 2.1).

Half of the buckets are for keys behind the query, half for keys ahead. Small distances have a bucket each; larger ones share
buckets that widen logarithmically up to `_MAX_DISTANCE`.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array

_MAX_DISTANCE = 128


def relative_buckets(distance: Int64Array, buckets: int) -> Int64Array:
    """The bucket, in [0, buckets), of each distance (key position - query position)."""
    half = buckets // 2
    exact = half // 2
    size = np.abs(distance)
    # float32 throughout: at the borders of the buckets, the model was trained with that rounding
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
    scale = np.float32(np.log(_MAX_DISTANCE / exact))
    wide = exact + (ratio / scale * np.float32(half - exact)).astype(np.int64)
    bucket = np.where(size < exact, size, np.minimum(wide, half - 1))
    return np.asarray(np.where(distance > 0, bucket + half, bucket), dtype=np.int64)


def bias_by_distance(table: Float32Array, longest: int) -> Float32Array:
    """(heads, 2 longest - 1): the bias of each head at distance -(longest - 1) .. longest - 1, from (buckets, heads)."""
    distance = np.arange(-(longest - 1), longest, dtype=np.int64)
    return np.ascontiguousarray(table[relative_buckets(distance, len(table))].T)
