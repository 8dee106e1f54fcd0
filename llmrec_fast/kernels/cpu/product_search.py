"""Exact top k through a blocked float32 matrix product: for batches over rows that have no codes, and where bounds
skip too little.

BLAS gives every score to within a known error; rows that could be among the best in spite of it are scored in
float64. Cost: 2 d operations a row and query, and 4 d bytes a row and block of queries.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.codes import ROUNDOFF, ScanCounts, ScanSegment, no_exclusions
from llmrec_fast.kernels.cpu.exact_scores import exact_score, push, sort_heaps
from llmrec_fast.kernels.cpu.normalize import squared_norm
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_ROWS, _QUERIES = 4096, 256
_MOST_ROWS = 16384  # of a block for fewer queries: each product makes BLAS's threads wait for one another
_UNDERFLOW = 2.0**-125  # what a product may lose below the normal range, even where denormals are flushed


def product_search(
    segments: Sequence[ScanSegment],
    queries: Float32Array,
    k: int,
    *,
    euclidean: bool,
    excluded: tuple[Int64Array, Int64Array] | None = None,
    threads: int | None = None,
    counts: ScanCounts | None = None,
) -> tuple[Float64Array, Int64Array]:
    """As `bounded_search`, without using codes. Scratch memory: 4 MiB, and 8 bytes a query and column."""
    threads = threads or get_threads()
    indptr, excluded_rows = excluded or no_exclusions(len(queries))
    scores = np.empty((len(queries), k))
    heap_rows = np.empty((len(queries), k), np.int64)
    sizes = np.zeros(len(queries), np.int64)
    reranked = np.zeros(len(queries), np.int64)
    wide = queries.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    products = np.empty(_QUERIES * _ROWS, np.float32)
    scanned = 0
    at_a_time = min(_ROWS * _QUERIES // min(max(len(queries), 1), _QUERIES) & ~7, _MOST_ROWS)
    for segment in segments:
        for start in range(0, len(segment.rows), at_a_time):
            block = np.asarray(segment.rows[start : start + at_a_time])
            row_norms = np.empty(len(block))
            norm_pieces = split_range(len(block), threads)
            run_parallel(_norms, [(block, row_norms, begin, end) for begin, end in norm_pieces], threads)
            for first in range(0, len(queries), _QUERIES):
                last = min(first + _QUERIES, len(queries))
                product = products[: (last - first) * len(block)].reshape(last - first, len(block))
                with np.errstate(over="ignore", invalid="ignore"):
                    np.matmul(queries[first:last], block.T, out=product)
                run_parallel(
                    _filter,
                    [
                        (
                            product, first, first + begin, first + end, k, start, segment.base, segment.rows, segment.bias,
                            euclidean, segment.allowed, row_norms, wide, norms, indptr, excluded_rows, scores, heap_rows,
                            sizes, reranked,
                        )
                        for begin, end in split_range(last - first, threads)
                    ],
                    threads,
                )  # fmt: skip
            scanned += len(block) * len(queries)
    sort_heaps(scores, heap_rows, sizes)
    if counts is not None:
        left = int(reranked.sum())
        counts.scanned += scanned
        counts.after_first += left
        counts.after_second += left
        counts.after_third += left
        counts.reranked += left
        passes = -(-len(queries) // _QUERIES)
        counts.bytes_read += 4 * queries.shape[1] * (sum(len(segment.rows) for segment in segments) * passes + left)
    return scores, heap_rows


@jit()
def _norms(rows: Float32Array, norms: Float64Array, first: int, last: int) -> None:
    for row in range(first, last):
        norms[row] = np.sqrt(squared_norm(rows[row]))


@jit()
def _filter(
    products: Float32Array,
    origin: int,
    first: int,
    last: int,
    k: int,
    start: int,
    base: int,
    rows: Float32Array,
    bias: Float32Array,
    euclidean: bool,
    allowed: np.ndarray,
    row_norms: Float64Array,
    wide: Float64Array,
    norms: Float64Array,
    indptr: Int64Array,
    excluded: Int64Array,
    scores: Float64Array,
    heap_rows: Int64Array,
    sizes: Int64Array,
    reranked: Int64Array,
) -> None:
    """Offer the rows of one block to the heaps of queries first .. last.

    |product - q . x| <= (d + 2) * roundoff * |q| |x| for any order of the sum (Higham, Accuracy and Stability, 3.5),
    and underflow.
    """
    count, dim = products.shape[1], rows.shape[1]
    bits = np.empty((count + 7) >> 3, np.uint8)
    values = np.empty(count)
    guesses, guessed = np.empty(k), np.empty(k, np.int64)
    for j in range(first, last):
        bits[:] = allowed[start >> 3 : (start >> 3) + len(bits)]
        for row in excluded[indptr[j] : indptr[j + 1]]:
            local = row - base - start
            if 0 <= local < count:
                bits[local >> 3] &= ~np.uint8(1 << (local & 7))
        error = (dim + 4) * ROUNDOFF * norms[j]
        for i in range(count):
            value = np.float64(products[j - origin, i])
            if euclidean:
                values[i] = value - 0.5 * row_norms[i] * row_norms[i]
            else:
                values[i] = value + np.float64(bias[start + i])
        score = -np.inf
        if sizes[j] == k:
            score = scores[j, 0]
        elif count >= k:
            # any k rows give a lower bound of the k-th best score: take those that look best
            size = 0
            for i in range(count):
                if (bits[i >> 3] >> (i & 7)) & 1 and values[i] > -np.inf and (size < k or values[i] > guesses[0]):
                    size = push(guesses, guessed, size, values[i], i)
            if size == k:
                score = np.inf
                for i in range(k):
                    score = min(score, exact_score(rows, start + guessed[i], wide, j, bias, euclidean))
                reranked[j] += k
        threshold = score
        if euclidean:
            square = norms[j] * norms[j]
            threshold = 0.5 * (square - score * score) - (square + score * score) * (dim + 16) * 2.0**-51
        else:
            threshold -= abs(score) * 2.0**-50 if score > -np.inf else 0.0
        threshold -= dim * _UNDERFLOW if threshold > -np.inf else 0.0
        for i in range(count):
            reach = values[i] + error * row_norms[i]
            if euclidean:
                reach += row_norms[i] * row_norms[i] * 2.0**-36
            if (bits[i >> 3] >> (i & 7)) & 1 and not reach < threshold:  # NaN stays: float32 overflowed
                exact = exact_score(rows, start + i, wide, j, bias, euclidean)
                sizes[j] = push(scores[j], heap_rows[j], sizes[j], exact, base + start + i)
                reranked[j] += 1
