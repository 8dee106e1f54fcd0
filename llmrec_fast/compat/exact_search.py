"""The k best rows of a matrix that is searched once. Encoding it for the bounded scan pays only for many queries."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.kernels.codes import ScanSegment, allowed_bits, panels_of
from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.result import Metric, SearchResult

# Fewer queries take less time row by row than BLAS needs to wake its threads.
_PRODUCT_QUERIES = 16
# Encoding a row costs about as much as multiplying it with this many queries.
_WORTH_ENCODING = 1024


def unit_rows(rows: Float32Array) -> Float32Array:
    """`rows` divided by their float64 norms, rounded to float32; zero rows stay zero."""
    from llmrec_fast.kernels.cpu.fuse import fuse

    return fuse([rows], [1.0]) if rows.size else rows.copy()


def best_rows(queries: Float32Array, rows: Float32Array, k: int, metric: Metric) -> SearchResult:
    """As `Index.build(rows, metric=metric).search(queries, k)`; ids are row numbers."""
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
