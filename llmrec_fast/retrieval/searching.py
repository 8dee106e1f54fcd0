"""One search over one snapshot: read the filters, choose a plan, call the kernel, turn positions into ids.

Plans: "bounded" and "bounded-flat" scan codes (two 4-bit stages, or one where the spectrum is flat), "product"
multiplies in float32 block by block, "direct" scores every allowed row in float64. All are exact; the choice is by
shape alone and only affects time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Int64Array, as_matrix, check_finite, writable_view
from llmrec_fast.kernels.codes import BLOCK_ROWS, PANEL_ROWS, ScanCounts, ScanPlan, no_exclusions
from llmrec_fast.kernels.cpu.bounded_search import bounded_search
from llmrec_fast.kernels.cpu.normalize import all_finite, divide_by_norms
from llmrec_fast.kernels.cpu.product_search import product_search
from llmrec_fast.kernels.threads import available_cores, get_threads
from llmrec_fast.retrieval.combining import Combiner
from llmrec_fast.retrieval.filters import Exclusions, read_allowed, read_exclusions
from llmrec_fast.retrieval.result import SearchResult, SearchStatistics
from llmrec_fast.retrieval.segments import Snapshot

if TYPE_CHECKING:
    from llmrec_fast.retrieval.on_device import DeviceCopies

# A row scored in float64 costs about as much as this many bytes of the scan, and so many more a column.
_DIRECT_ROW, _DIRECT_COLUMN = 300, 2
# Fewer queries take less time row by row than BLAS needs to wake its threads.
_PRODUCT_QUERIES = 16
# Searches of at most so many queries are gathered, to as many as share a pass over the codes.
_MOST_JOINING, _MOST_TOGETHER = 8, 16
# Fewer rows than this make no difference to the time of a search.
_LEAST_K = 16
_LANE_ROWS = PANEL_ROWS // BLOCK_ROWS


def normalised(vectors: Float32Array) -> Float32Array:
    """`vectors` divided by their float64 norms, rounded to float32; zero rows stay zero."""
    result = np.empty_like(vectors)
    normalise_into(vectors, result)
    return result


def normalise_into(vectors: Float32Array, out: Float32Array) -> None:
    """Write `normalised(vectors)` to `out`."""
    # as plain arrays: Numba takes long to look at a subclass such as memmap
    divide_by_norms(writable_view(np.asarray(vectors)), np.asarray(out))


def read_queries(queries: ArrayLike, dim: int, cosine: bool) -> Float32Array:
    """Queries as a search takes them: (q, dim) float32, finite and writable, for cosine of unit length."""
    # checked by a kernel: where a scan has emptied the caches, NumPy's code for it takes 40 microseconds to load
    matrix = writable_view(as_matrix(queries, "queries", dimension=dim, finite=False))
    if not all_finite(matrix):
        check_finite(matrix, "queries")
    return normalised(matrix) if cosine else matrix


@dataclass(frozen=True, eq=False)
class Request:
    """A search of one snapshot for queries that are checked and, for cosine, normalised.

    queries : (q, d) float32 array, or for a GPU a `DeviceMatrix`.
    excluded : CSR pair (indptr, positions), positions -1 for ids that are not in the index.
    masks : for each segment, which rows are allowed; None if all live ones are.
    """

    snapshot: Snapshot
    queries: Any
    k: int
    euclidean: bool
    excluded: tuple[Int64Array, Int64Array] | None
    masks: list[BoolArray] | None
    threads: int | None


def read_request(
    snapshot: Snapshot,
    queries: Any,
    k: int,
    euclidean: bool,
    exclude: Exclusions | None,
    allow: ArrayLike | None,
    threads: int | None,
) -> Request:
    """The request of one `Index.search`; raises `InvalidInput` for filters that do not fit."""
    excluded = None
    if exclude is not None:
        indptr, ids = read_exclusions(exclude, len(queries))
        excluded = indptr, snapshot.id_map.find(ids)
    masks = None if allow is None else _allowed_masks(snapshot, allow)
    return Request(snapshot, queries, k, euclidean, excluded, masks, threads)


def search_on_device(request: Request, copies: DeviceCopies, stats: bool) -> SearchResult:
    """The answer to a request by a GPU; it stays there if the request's queries are a `DeviceMatrix`."""
    counts = ScanCounts() if stats else None
    snapshot = request.snapshot
    scores, ids = copies.search(
        snapshot,
        request.masks,
        request.queries,
        request.k,
        euclidean=request.euclidean,
        excluded=request.excluded,
        counts=counts,
    )
    return SearchResult(scores, ids, _statistics(_plan_name(snapshot.plan), counts))


def search(request: Request, stats: bool = False) -> SearchResult:
    """The answer to a request."""
    snapshot, queries, k, masks = request.snapshot, request.queries, request.k, request.masks
    if masks is None:
        segments = [segment.searchable(None) for segment in snapshot.segments]
    else:
        segments = [segment.searchable(mask) for segment, mask in zip(snapshot.segments, masks, strict=True)]
    allowed = snapshot.live_count if masks is None else sum(int(mask.sum()) for mask in masks)
    plan = _choose_plan(snapshot.plan, snapshot.rows, allowed, len(queries), k)
    counts = ScanCounts() if stats else None
    run = product_search if plan == "product" else bounded_search
    if plan == "direct":
        segments = [replace(segment, codes=None) for segment in segments]
    scores, positions = run(
        segments,
        queries,
        k,
        euclidean=request.euclidean,
        excluded=request.excluded,
        threads=request.threads,
        counts=counts,
    )
    return SearchResult(scores, snapshot.ids_at(positions), _statistics(plan, counts))


class SharedSearches:
    """Searches of one index by many threads: small ones that wait for one another are answered in one pass.

    The answers are those of separate searches, bit for bit: a score depends on nothing but the query and the row, and the
    k best are the first k of more.
    """

    def __init__(self) -> None:
        self._combiner: Combiner[Request, SearchResult] = Combiner(_search_together, _MOST_TOGETHER)

    def search(self, request: Request) -> SearchResult:
        """The answer to a request."""
        count = len(request.queries)
        if count > _MOST_JOINING or request.masks is not None:
            return search(request)
        # a search for many more rows would hold up the others
        key = id(request.snapshot), max(request.k - 1, _LEAST_K).bit_length()
        return self._combiner.run(
            key, count, request, slots=available_cores() // (request.threads or get_threads()) or 1
        )


def _search_together(requests: list[Request]) -> list[SearchResult]:
    """Answers to requests that differ in queries, k and exclusions only."""
    first = requests[0]
    if len(requests) == 1:
        return [search(first)]
    excluded = None
    if any(request.excluded is not None for request in requests):
        pairs = [request.excluded or no_exclusions(len(request.queries)) for request in requests]
        lengths = np.concatenate([np.diff(indptr) for indptr, _ in pairs])
        excluded = np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([positions for _, positions in pairs])
    queries = np.concatenate([request.queries for request in requests])
    together = search(replace(first, queries=queries, k=max(request.k for request in requests), excluded=excluded))
    results, start = [], 0
    for request in requests:
        own = slice(start, start + len(request.queries)), slice(0, request.k)
        results.append(SearchResult(together.scores[own].copy(), together.ids[own].copy()))
        start += len(request.queries)
    return results


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
