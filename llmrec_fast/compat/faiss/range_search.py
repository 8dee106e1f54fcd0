"""`range_search` of a flat index: few rows in one compiled pass, many through their index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from llmrec_fast.compat.faiss.metrics import METRIC_L2, FaissError
from llmrec_fast.compat.ranges import few_within, indexed_within

if TYPE_CHECKING:
    from llmrec_fast.compat.faiss.flat import IndexFlat


def find_in_range(
    flat: IndexFlat, queries: Float32Array, thresh: float, allowed: BoolArray | None
) -> tuple[Any, Float32Array, Int64Array]:
    """`IndexFlat.range_search` of queries (n, d) that are read, with the allowed labels as a boolean mask over all of them."""
    bound = np.float32(thresh)
    if np.isnan(bound):
        raise FaissError("thresh must be a number; got NaN")
    euclidean = flat.metric_type == METRIC_L2

    def judge(scores: Float64Array) -> BoolArray:
        rounded = scores.astype(np.float32)
        return rounded < bound if euclidean else rounded > bound

    # a score within half a float32 step of the bound may round to either side of it
    loose = float(np.nextafter(bound, np.float32(np.inf if euclidean else -np.inf)))
    few = flat._few_rows()
    if few is not None:
        found = few_within(queries, few.few, loose, judge, euclidean=euclidean, allowed=allowed)
        labels = found.positions
    else:
        found = indexed_within(
            flat._index,
            queries,
            lambda: flat._blocks(allowed),
            loose,
            judge,
            euclidean=euclidean,
            allowed=allowed,
        )
        labels = flat._labels_of(found.positions)
    return found.indptr.astype(np.uint64), found.scores.astype(np.float32), labels
