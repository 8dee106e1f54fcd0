"""Exact search by threshold: every row close enough to a query, not only the k best. Serves range and radius searches.

A float32 product finds the candidates, with a slack that no rounding of the product can exceed; each candidate is then scored
in float64 and judged on that. Cost: 2 d operations a row and query, and one exact score a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array, writable_view
from llmrec_fast.compat.few_rows import FewRows
from llmrec_fast.retrieval import Index

Judge = Callable[[Float64Array], BoolArray]

BLOCK_ROWS = 4096
# rows that an index is asked for at first; and how many rows there are for one that is asked for at last
_FIRST_NEAREST, _LEAST_ROWS_A_MATCH = 32, 16
_BLOCK_QUERIES = 256
_EXACT_VALUES = 1 << 20  # float64 values of one gather: 8 MiB


@dataclass(frozen=True)
class Matches:
    """The rows that passed: of query j, positions[indptr[j] : indptr[j + 1]], ascending, with their float64 scores."""

    indptr: Int64Array
    positions: Int64Array
    scores: Float64Array


def blocks_of(rows: Float32Array) -> Iterable[tuple[Int64Array, Float32Array]]:
    """(positions, rows) of a matrix, block by block."""
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        yield np.arange(start, start + len(block), dtype=np.int64), block


def few_within(
    queries: Float32Array,
    rows: FewRows,
    threshold: float,
    judge: Judge,
    *,
    euclidean: bool,
    allowed: BoolArray | None = None,
) -> Matches:
    """As `rows_within`, of few rows, of which those of a mask (n,) are allowed, if one is given."""
    least = -threshold if euclidean else threshold
    mask = None if allowed is None else allowed[None]
    query, positions, scores = rows.within(writable_view(queries), least, euclidean=euclidean, allowed=mask)
    if euclidean:
        scores = -scores
    passed = judge(scores)
    if not passed.all():
        query, positions, scores = query[passed], positions[passed], scores[passed]
    return Matches(np.searchsorted(query, np.arange(len(queries) + 1)), positions, scores)


def indexed_within(
    index: Index,
    queries: Float32Array,
    blocks: Callable[[], Iterable[tuple[Int64Array, Float32Array]]],
    threshold: float,
    judge: Judge,
    *,
    euclidean: bool,
    allowed: BoolArray | None = None,
) -> Matches:
    """As `rows_within`, of rows that are in an index too: few matches are found by it, without a pass over all rows.

    The index is asked for more and more rows until the last one fails; queries with more matches than are worth that get the
    full pass over what `blocks` gives. Positions are ids of the index, which rise with the positions of `blocks`.
    """

    def passes(scores: Float64Array) -> BoolArray:
        return judge(np.square(scores) if euclidean else scores)

    found: list[tuple[Int64Array, Int64Array, Float64Array]] = []
    left, k = np.arange(len(queries)), _FIRST_NEAREST
    while len(left) and k <= len(index) // _LEAST_ROWS_A_MATCH:
        result = index.search(queries[left], k, allow=allowed)
        passed = passes(result.scores) & (result.ids >= 0)
        done = ~passed[:, -1]
        query, place = np.nonzero(passed & done[:, None])
        order = np.lexsort((result.ids[query, place], query))
        query, place = query[order], place[order]
        scores = result.scores[query, place]
        found.append((left[query], result.ids[query, place], np.square(scores) if euclidean else scores))
        left, k = left[~done], k * 8
    if len(left):
        rest = rows_within(queries[left], blocks(), threshold, judge, euclidean=euclidean)
        found.append((np.repeat(left, np.diff(rest.indptr)), rest.positions, rest.scores))
    return _collect(found, len(queries))


def rows_within(
    queries: Float32Array,
    blocks: Iterable[tuple[Int64Array, Float32Array]],
    threshold: float,
    judge: Judge,
    *,
    euclidean: bool,
) -> Matches:
    """All rows whose score passes `judge`.

    Parameters
    ----------
    queries : (q, d).
    blocks : (positions, rows) pairs, positions ascending over all of them.
    threshold : a bound that `judge` implies: no dot product below it passes or, if `euclidean`, no squared distance above.
    judge : given exact scores (dot products, or squared distances), which of them pass.
    euclidean : whether scores are squared Euclidean distances.
    """
    query_squares = _squares(queries)
    # gamma_d of a float32 sum in any order (Higham 2002, section 3.1), doubled; relative to |q| |x|
    gamma = 2 * (queries.shape[1] + 4) * float(np.finfo(np.float32).eps)
    found: list[tuple[Int64Array, Int64Array, Float64Array]] = []
    for positions, rows in blocks:
        row_squares = _squares(rows)
        for start in range(0, len(queries), _BLOCK_QUERIES):
            piece = queries[start : start + _BLOCK_QUERIES]
            squares = query_squares[start : start + _BLOCK_QUERIES]
            with np.errstate(over="ignore", invalid="ignore"):
                products = piece @ rows.T
            slack = gamma * np.sqrt(squares)[:, None] * np.sqrt(row_squares) + 1e-35
            least = ((squares[:, None] + row_squares - threshold) / 2 if euclidean else threshold) - slack
            # a product that overflowed is no evidence: its row stays a candidate
            at_query, at_row = np.nonzero((products >= least) | ~np.isfinite(products))
            scores = _exact(piece, rows, at_query, at_row, euclidean)
            passed = judge(scores)
            found.append((at_query[passed] + start, positions[at_row[passed]], scores[passed]))
    return _collect(found, len(queries))


def _squares(rows: Float32Array) -> Float64Array:
    squares: Float64Array = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return squares


def _exact(
    queries: Float32Array,
    rows: Float32Array,
    at_query: npt.NDArray[np.intp],
    at_row: npt.NDArray[np.intp],
    euclidean: bool,
) -> Float64Array:
    scores = np.empty(len(at_query))
    step = max(1, _EXACT_VALUES // max(rows.shape[1], 1))
    for start in range(0, len(scores), step):
        left = queries[at_query[start : start + step]].astype(np.float64)
        right = rows[at_row[start : start + step]].astype(np.float64)
        if euclidean:
            left -= right
            right = left
        scores[start : start + step] = np.einsum("ij,ij->i", left, right)
    return scores


def _collect(found: list[tuple[Int64Array, Int64Array, Float64Array]], queries: int) -> Matches:
    indptr = np.zeros(queries + 1, np.int64)
    if not found:
        return Matches(indptr, np.zeros(0, np.int64), np.zeros(0))
    query, positions, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    np.cumsum(np.bincount(query, minlength=queries), out=indptr[1:])
    order = np.argsort(query, kind="stable")  # blocks come with ascending positions, so each query's stay in order
    return Matches(indptr, positions[order].astype(np.int64), scores[order])
