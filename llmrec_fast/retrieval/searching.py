"""One search over one snapshot: read the filters, choose a plan, call the kernel, turn positions into ids.

Plans: "bounded" and "bounded-flat" scan codes (two 4-bit stages, or one where the spectrum is flat), "product"
multiplies in float32 block by block, "direct" scores every allowed row in float64. All are exact; the choice is by
shape alone and only affects time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Int64Array
from llmrec_fast.kernels.codes import BLOCK_ROWS, PANEL_ROWS, ScanCounts, ScanPlan
from llmrec_fast.kernels.cpu.bounded_search import bounded_search
from llmrec_fast.kernels.cpu.product_search import product_search
from llmrec_fast.retrieval.filters import Exclusions, read_allowed, read_exclusions
from llmrec_fast.retrieval.result import SearchResult, SearchStatistics
from llmrec_fast.retrieval.segments import Snapshot

if TYPE_CHECKING:
    from llmrec_fast.retrieval.on_device import DeviceCopies

_NORMALISE_ROWS = 4096
# A row scored in float64 costs about as much as this many bytes of the scan, and so many more a column.
_DIRECT_ROW, _DIRECT_COLUMN = 300, 2
# Fewer queries take less time row by row than BLAS needs to wake its threads.
_PRODUCT_QUERIES = 16
_LANE_ROWS = PANEL_ROWS // BLOCK_ROWS


def normalised(vectors: Float32Array) -> Float32Array:
    """`vectors` divided by their float64 norms, rounded to float32; zero rows stay zero."""
    result = np.empty_like(vectors)
    normalise_into(vectors, result)
    return result


def normalise_into(vectors: Float32Array, out: Float32Array) -> None:
    """Write `normalised(vectors)` to `out`, piece by piece."""
    for start in range(0, len(vectors), _NORMALISE_ROWS):
        piece = vectors[start : start + _NORMALISE_ROWS].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", piece, piece))
        norms[norms == 0] = 1
        piece /= norms[:, None]
        out[start : start + _NORMALISE_ROWS] = piece


def search(
    snapshot: Snapshot,
    queries: Float32Array,
    k: int,
    euclidean: bool,
    exclude: Exclusions | None,
    allow: ArrayLike | None,
    stats: bool,
    threads: int | None,
    copies: DeviceCopies | None = None,
) -> SearchResult:
    """`Index.search` on a snapshot; queries are checked and, for cosine, normalised. With `copies` on a GPU."""
    excluded = None
    if exclude is not None:
        indptr, ids = read_exclusions(exclude, len(queries))
        excluded = indptr, snapshot.id_map.find(ids)
    masks = None if allow is None else _allowed_masks(snapshot, allow)
    if copies is not None:
        counts = ScanCounts() if stats else None
        scores, positions = copies.search(
            snapshot, masks, queries, k, euclidean=euclidean, excluded=excluded, counts=counts
        )
        return SearchResult(scores, snapshot.ids_at(positions), _statistics(_plan_name(snapshot.plan), counts))
    if masks is None:
        segments = [segment.searchable(None) for segment in snapshot.segments]
    else:
        segments = [segment.searchable(mask) for segment, mask in zip(snapshot.segments, masks, strict=True)]
    allowed = snapshot.live_count if masks is None else sum(int(mask.sum()) for mask in masks)
    plan = _choose_plan(snapshot.plan, snapshot.rows, allowed, len(queries), k)
    if not queries.flags.writeable:  # Numba would compile every kernel again for read-only arrays
        queries = queries.copy()
    counts = ScanCounts() if stats else None
    if plan == "product":
        scores, positions = product_search(
            segments, queries, k, euclidean=euclidean, excluded=excluded, threads=threads, counts=counts
        )
    else:
        if plan == "direct":
            segments = [replace(segment, codes=None) for segment in segments]
        scores, positions = bounded_search(
            segments, queries, k, euclidean=euclidean, excluded=excluded, threads=threads, counts=counts
        )
    return SearchResult(scores, snapshot.ids_at(positions), _statistics(plan, counts))


def _statistics(plan: str, counts: ScanCounts | None) -> SearchStatistics | None:
    if counts is None:
        return None
    return SearchStatistics(
        plan,
        counts.scanned,
        counts.after_first,
        counts.after_second,
        counts.after_third,
        counts.reranked,
        counts.bytes_read,
    )


def _plan_name(plan: ScanPlan | None) -> str:
    if plan is None:
        return "direct"
    return "bounded" if plan.second else "bounded-flat"


def _allowed_masks(snapshot: Snapshot, allow: ArrayLike) -> list[BoolArray]:
    """For each segment, which of its live rows are allowed."""
    allowed = read_allowed(allow, snapshot.live_count)
    masks = []
    if allowed.dtype == np.bool_:
        start = 0
        for segment in snapshot.segments:
            mask = segment.live_mask()
            mask[mask] = allowed[start : start + segment.live_count]
            start += segment.live_count
            masks.append(mask)
        return masks
    positions = snapshot.find(_as_ids(allowed))
    for segment in snapshot.segments:
        mask = np.zeros(segment.count, bool)
        inside = (positions >= segment.base) & (positions < segment.base + segment.count)
        mask[positions[inside] - segment.base] = True
        masks.append(mask)
    return masks


def _as_ids(allowed: BoolArray | Int64Array) -> Int64Array:
    return allowed.astype(np.int64, copy=False)


def _choose_plan(plan: ScanPlan | None, rows: int, allowed: int, queries: int, k: int) -> str:
    """The plan that touches least, by shape."""
    dense = queries >= _PRODUCT_QUERIES and allowed * 2 >= rows
    # seeds are the best rows of different lanes, 64 rows each: with few lanes a k, there is no good threshold
    if plan is None or rows < 2 * _LANE_ROWS * k:
        return "product" if dense else "direct"
    if allowed * (_DIRECT_ROW + _DIRECT_COLUMN * plan.dim) < rows * plan.first_stride // BLOCK_ROWS:
        return "direct"
    return _plan_name(plan)
