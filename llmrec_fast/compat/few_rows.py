"""Exact search of few rows, as they lie: no codes, no index, one compiled call. Answers are `Index.search`'s, bit for bit.

A float32 product passes over every row; a row whose product, with all the rounding it may have, cannot reach the k best so far
is dropped, any other is scored in float64. Cost: d multiply-adds a row and query.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value, no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array, writable_view
from llmrec_fast.kernels.cpu.exact_scores import exact_score, push, sort_heaps
from llmrec_fast.kernels.cpu.normalize import divide_by_norms, squared_norm
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range
from llmrec_fast.retrieval.building import LEAST_FITTED_ROWS

_MOST_VALUES = 1 << 22  # 16 MiB
# so many queries over so many values are faster here whether there are codes or not
_FEW_QUERIES, _FEW_VALUES = 8, 1 << 20
# handing work to another thread costs 20 to 40 microseconds, which is 0.4 to 0.8 million multiply-adds
_PRODUCTS_A_THREAD = 1 << 21
_TOGETHER = 4  # queries that share a pass over the rows
_ALL = np.zeros((0, 0), bool)
# past this, sums of products might leave float32's range; what they say then is not believed
_LARGEST_PRODUCT = 1e36


def are_few(shape: tuple[int, ...], queries: int | None = None) -> bool:
    """Whether rows (n, d) of this shape are searched faster here than by an index, by any number of queries or by so many."""
    rows, columns = shape
    if rows < LEAST_FITTED_ROWS:  # an index has no codes of so few
        return rows * columns <= _MOST_VALUES
    return queries is not None and queries <= _FEW_QUERIES and rows * columns <= _FEW_VALUES


class FewRows:
    """Rows to search, (n, d) float32, finite and C-contiguous, which must not change meanwhile.

    `cosine`: scores are cosines, of queries of length 1; rows are brought to length 1 where they are scored, which pays for few
    queries. Not for `within`.
    """

    def __init__(self, rows: Float32Array, cosine: bool = False) -> None:
        self._cosine = cosine
        self.rows = writable_view(rows)
        self._squares = np.empty(len(rows))
        self._largest = _square_rows(self.rows, self._squares)
        self._bias = np.zeros(len(rows), np.float32)

    def search(
        self,
        queries: Float32Array,
        k: int,
        *,
        euclidean: bool,
        allowed: BoolArray | None = None,
        threads: int | None = None,
    ) -> tuple[Float64Array, Int64Array]:
        """The k best rows of each query.

        Parameters
        ----------
        queries : (q, d) float32, finite, C-contiguous and writable.
        k : at least 1.
        euclidean : scores are minus distances; else inner products.
        allowed : (1, n) or (q, n) the rows to consider, for all queries or for each. Default: all.
        threads : how many may take part. Default: `get_threads()`.

        Returns
        -------
        scores (q, k) float64 and positions (q, k) int64, best first, ties by smaller position; padded with -inf and -1.
        """
        scores, positions = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
        shared = (
            self.rows, self._squares, self._largest, self._bias, _ALL if allowed is None else allowed,
            queries, euclidean, self._cosine, scores, positions,
        )  # fmt: skip
        pieces = min(len(queries) * self.rows.size // _PRODUCTS_A_THREAD, len(queries))
        if pieces < 2:
            _search(*shared, 0, len(queries))
        else:
            cuts = split_range(len(queries), min(pieces, threads or get_threads()))
            run_parallel(_search, [(*shared, start, stop) for start, stop in cuts], threads or get_threads())
        return scores, positions

    def within(
        self, queries: Float32Array, least: float, *, euclidean: bool, allowed: BoolArray | None = None
    ) -> tuple[Int64Array, Int64Array, Float64Array]:
        """All rows whose score is at least `least`, or, because of rounding, a little below.

        Parameters are as of `search`, but for `allowed`, (1, n). Scores are inner products or, if `euclidean`, minus squared
        distances.

        Returns
        -------
        (query, position, exact score) of each, (found,), by query, then by position.
        """
        mask = _ALL if allowed is None else allowed
        found: tuple[Int64Array, Int64Array, Float64Array] = _within(
            self.rows, self._squares, self._largest, mask, queries, euclidean, least
        )
        return found


@jit()
def _square_rows(rows, squares):
    largest = 0.0
    for row in range(len(rows)):
        squares[row] = squared_norm(rows[row])
        largest = max(largest, squares[row])
    return np.sqrt(largest)


@jit(inline=True, fastmath={"reassoc", "contract"})
def _multiply(rows, queries, first, count, products):
    """products[i, row] = queries[first + i] . rows[row] in float32, in whatever order of the sums is fast."""
    if count == 4:
        for row in range(rows.shape[0]):
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for column in range(rows.shape[1]):
                value = rows[row, column]
                a += value * queries[first, column]
                b += value * queries[first + 1, column]
                c += value * queries[first + 2, column]
                d += value * queries[first + 3, column]
            products[0, row], products[1, row], products[2, row], products[3, row] = a, b, c, d
        return
    for i in range(count):
        for row in range(rows.shape[0]):
            total = np.float32(0)
            for column in range(rows.shape[1]):
                total += rows[row, column] * queries[first + i, column]
            products[i, row] = total


@jit(inline=True)
def _slack(columns, norms):
    """What a float32 product of `columns` terms may be off by: gamma of any order of the sum (Higham 2002, 3.1), doubled."""
    if norms > _LARGEST_PRODUCT:
        return np.inf
    return 2.0 * (columns + 4) * 1.2e-7 * norms + 1e-35


@jit()
def _search(rows, squares, largest, bias, allowed, queries, euclidean, cosine, scores, positions, start, stop):
    k = scores.shape[1]
    masked = allowed.size > 0
    products = np.empty((_TOGETHER, len(rows)), np.float32)
    wide = queries[start:stop].astype(np.float64)
    sizes = np.zeros(stop - start, np.int64)
    unit = np.empty((1, rows.shape[1]), np.float32)
    for first in range(start, stop, _TOGETHER):
        count = min(_TOGETHER, stop - first)
        _multiply(rows, queries, first, count, products)
        for j in range(first, first + count):
            square = squared_norm(queries[j])
            slack = _slack(rows.shape[1], np.sqrt(square) * largest)
            # float64 sums of squares are off by far less than this
            loose = 1e-12 * (square + largest * largest)
            own = j if len(allowed) > 1 else 0
            size, worst = 0, -np.inf
            for row in range(len(rows)):
                best = np.float64(products[j - first, row]) + slack
                if euclidean:
                    best = 2.0 * best - squares[row] - square + loose
                elif cosine:
                    # by the row's own norm; rounding a unit row to float32 moves its product by less than the constant
                    norm = np.sqrt(squares[row])
                    best = (best - slack + _slack(rows.shape[1], norm)) / norm + 1e-6 if norm > 0.0 else 0.0
                if best < worst or (masked and not allowed[own, row]):
                    continue
                if cosine:
                    divide_by_norms(rows[row : row + 1], unit)
                    score = exact_score(unit, 0, wide, j - start, bias, False)
                else:
                    score = exact_score(rows, row, wide, j - start, bias, euclidean)
                size = push(scores[j], positions[j], size, score, row)
                if size == k:
                    worst = -scores[j, 0] * scores[j, 0] if euclidean else scores[j, 0]
            sizes[j - start] = size
    sort_heaps(scores[start:stop], positions[start:stop], sizes)


@jit()
def _within(rows, squares, largest, allowed, queries, euclidean, least):
    masked = allowed.size > 0
    products = np.empty((_TOGETHER, len(rows)), np.float32)
    found, room = 0, 1024
    at_query, at_row, scores = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    for first in range(0, len(queries), _TOGETHER):
        count = min(_TOGETHER, len(queries) - first)
        _multiply(rows, queries, first, count, products)
        for j in range(first, first + count):
            square = squared_norm(queries[j])
            slack = _slack(rows.shape[1], np.sqrt(square) * largest)
            loose = 1e-12 * (square + largest * largest)
            for row in range(len(rows)):
                best = np.float64(products[j - first, row]) + slack
                if euclidean:
                    best = 2.0 * best - squares[row] - square + loose
                if best < least or (masked and not allowed[0, row]):
                    continue
                if found == room:
                    room *= 2
                    at_query, at_row, scores = _grown(at_query, room), _grown(at_row, room), _grown(scores, room)
                at_query[found], at_row[found] = j, row
                scores[found] = _wide_score(rows[row], queries[j], euclidean)
                found += 1
    return at_query[:found], at_row[:found], scores[:found]


@jit(inline=True)
def _grown(values, room):
    grown = np.empty(room, values.dtype)
    grown[: len(values)] = values
    return grown


@jit(inline=True, fastmath={"reassoc"})
def _wide_score(row, query, euclidean):
    total = 0.0
    if euclidean:
        for column in range(len(row)):
            difference = np.float64(query[column]) - np.float64(row[column])
            total -= difference * difference
    else:
        for column in range(len(row)):
            total += np.float64(query[column]) * np.float64(row[column])
    return total
