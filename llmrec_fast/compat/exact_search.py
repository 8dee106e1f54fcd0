"""The k best rows of a matrix: of one that is searched once, and of few rows or many that are searched again and again."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Int64Array, writable_view
from llmrec_fast.compat.few_rows import FewRows, are_few
from llmrec_fast.kernels.codes import ScanSegment, allowed_bits, panels_of
from llmrec_fast.kernels.cpu.normalize import divide_by_norms, squared_norm
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range
from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.result import Metric, SearchResult

# Fewer queries take less time row by row than BLAS needs to wake its threads.
_PRODUCT_QUERIES = 16
# Encoding a row costs about as much as multiplying it with this many queries.
_WORTH_ENCODING = 1024
# Of few rows so many are scored a query; if that makes more than there are, all may as well be normalised first.
_SCORED_A_QUERY = 60
_VALUES_WORTH_A_THREAD = 200_000
_SCALINGS_WORTH_A_THREAD = 1 << 19
_LARGEST_FACTOR = 1e38


def unit_rows(rows: Float32Array) -> Float32Array:
    """`rows` divided by their float64 norms, rounded to float32, as the index does it; zero rows stay zero."""
    result = np.empty_like(rows)
    source = writable_view(rows)
    if rows.size < 2 * _VALUES_WORTH_A_THREAD:
        divide_by_norms(source, result)
        return result
    pieces = split_range(len(rows), rows.size // _VALUES_WORTH_A_THREAD)
    run_parallel(divide_by_norms, [(source[start:stop], result[start:stop]) for start, stop in pieces], get_threads())
    return result


def scale_to_one(rows: Float32Array) -> None:
    """Scale rows to length 1 in place, by factors rounded to float32: faster than `unit_rows`, and a rounding less exact."""
    pieces = split_range(len(rows), max(1, rows.size // _SCALINGS_WORTH_A_THREAD))
    run_parallel(_scale, [(rows[start:stop],) for start, stop in pieces], get_threads())


@jit()
def _scale(rows):  # type: ignore[no-untyped-def]
    for row in range(len(rows)):
        square = squared_norm(rows[row])  # type: ignore[no-untyped-call]
        if square > 0.0:
            # the reciprocal of the smallest norms would overflow float32
            scale = 1.0 / np.sqrt(square)
            if scale < _LARGEST_FACTOR:
                factor = np.float32(scale)
                for column in range(rows.shape[1]):
                    rows[row, column] *= factor
            else:
                for column in range(rows.shape[1]):
                    rows[row, column] = np.float32(np.float64(rows[row, column]) * scale)


class FewRowsIndex:
    """`Index.search` over few rows: the same answers, without the work that many rows are worth. Ids are row numbers."""

    def __init__(self, rows: Float32Array, metric: Metric, threads: int | None = None) -> None:
        self._threads = threads
        self._cosine, self._euclidean = metric == "cosine", metric == "euclidean"
        self.few = FewRows(unit_rows(rows) if self._cosine else rows)
        self._count = len(rows)

    def search(
        self,
        queries: Float32Array,
        k: int,
        *,
        exclude: tuple[Int64Array, Int64Array] | None = None,
        allow: Int64Array | BoolArray | None = None,
    ) -> SearchResult:
        """As `Index.search`; queries (q, d) are float32, finite and C-contiguous."""
        queries = unit_rows(queries) if self._cosine else writable_view(queries)
        allowed = self._allowed(len(queries), exclude, allow)
        found = self.few.search(queries, k, euclidean=self._euclidean, allowed=allowed, threads=self._threads)
        return SearchResult(*found)

    def _allowed(
        self, queries: int, exclude: tuple[Int64Array, Int64Array] | None, allow: Int64Array | BoolArray | None
    ) -> BoolArray | None:
        if exclude is None and allow is None:
            return None
        allowed = np.full((1 if exclude is None else queries, self._count), allow is None)
        if allow is not None:
            allowed[:, allow] = True
        if exclude is not None:
            indptr, ids = exclude
            allowed[np.repeat(np.arange(queries), np.diff(indptr)), ids] = False
        return allowed


class RowsIndex:
    """`Index.search` over rows, which are copied: as they lie where they are few, for few queries or for any, else by an index.

    few : the rows to search as they lie, if they are few enough for some queries; index : what any other are answered by.
    """

    def __init__(self, rows: Float32Array, metric: Metric, threads: int | None = None) -> None:
        self.few: FewRowsIndex | None = None
        if are_few(rows.shape, queries=1):
            self.few = FewRowsIndex(rows if metric == "cosine" else rows.copy(), metric, threads)
        self.index: Index | FewRowsIndex
        if self.few is not None and are_few(rows.shape):
            self.index = self.few
        else:
            self.index = Index.build(rows, metric=metric, threads=threads)
        self._shape = rows.shape

    def search(
        self,
        queries: Float32Array,
        k: int,
        *,
        exclude: tuple[Int64Array, Int64Array] | None = None,
        allow: Int64Array | BoolArray | None = None,
    ) -> SearchResult:
        """As `Index.search`; queries (q, d) are float32, finite and C-contiguous."""
        few = self.few if are_few(self._shape, queries=len(queries)) else None
        return (few or self.index).search(queries, k, exclude=exclude, allow=allow)


def best_rows(queries: Float32Array, rows: Float32Array, k: int, metric: Metric) -> SearchResult:
    """As `Index.build(rows, metric=metric).search(queries, k)`; ids are row numbers."""
    if are_few(rows.shape, queries=len(queries)):
        if metric == "cosine" and len(queries) * _SCORED_A_QUERY < len(rows):
            return SearchResult(*FewRows(rows, cosine=True).search(unit_rows(queries), k, euclidean=False))
        return FewRowsIndex(rows, metric).search(queries, k)
    if len(queries) >= _WORTH_ENCODING:
        return Index.build(rows, metric=metric).search(queries, k)
    from llmrec_fast.kernels.cpu.bounded_search import bounded_search
    from llmrec_fast.kernels.cpu.product_search import product_search

    if metric == "cosine":
        queries, rows = unit_rows(queries), unit_rows(rows)
    count = len(rows)
    segment = ScanSegment(0, rows, np.zeros(count, np.float32), allowed_bits(count, panels_of(count)), None)
    search = product_search if len(queries) >= _PRODUCT_QUERIES else bounded_search
    scores, positions = search([segment], queries, k, euclidean=metric == "euclidean")
    return SearchResult(scores, positions)
