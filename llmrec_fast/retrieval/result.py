"""What a search returns: plain arrays in frozen dataclasses. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmrec_fast.arrays import Float64Array, Int64Array

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]


@dataclass(frozen=True)
class SearchStatistics:
    """What one search did, summed over its queries. Asked for with `search(..., stats=True)`.

    Attributes
    ----------
    plan : "bounded" (4-bit codes in two stages), "bounded-flat" (4-bit codes of all columns in one stage),
        "product" (blocked float32 product) or "direct" (float64 scores of every row).
    rows_scanned : rows whose score was bounded or computed, per query summed.
    after_stage_0, after_stage_1, after_stage_2 : rows left after the first 4-bit stage, the second, and the int8 stage.
    reranked : rows scored in float64 (seeds included).
    bytes_read : bytes of codes, norms and vectors that these steps touch, by shape; what caches save is not subtracted.
    """

    plan: str
    rows_scanned: int
    after_stage_0: int
    after_stage_1: int
    after_stage_2: int
    reranked: int
    bytes_read: int


@dataclass(frozen=True)
class SearchResult:
    """The k best items of each query, best first, ties by smaller position in the index.

    Attributes
    ----------
    scores : (queries, k) float64: dot product, cosine or minus the Euclidean distance, plus the item's bias.
        float64 because that is what orders the answer: rounding to float32 would turn distinct scores into ties.
    ids : (queries, k) int64. Where fewer than k items were allowed: id -1 with score -inf.
    stats : filled on request.
    """

    scores: Float64Array
    ids: Int64Array
    stats: SearchStatistics | None = None
