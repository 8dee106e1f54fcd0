"""After the scan: seeds give a threshold, rows whose bound reaches it pass the finer stages, and the last are scored exactly.

Every comparison keeps a row whose bound equals the threshold, so ties are decided by exact scores alone. Cost: a pass
over 2 bytes a row; for a survivor of the scan second / 2 + 16 scattered bytes, for one of the second stage d + 16,
for a reranked row 4 d.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.cpu.exact_scores import exact_score, prefetch_row, push
from llmrec_fast.kernels.cpu.intrinsics import (
    add_ints8,
    add_shorts16,
    at_least_shorts16,
    high_nibbles,
    load_bytes16,
    load_bytes32,
    load_shorts16,
    low_nibbles,
    multiply_pairs_s16,
    multiply_pairs_u8_s8,
    prefetch,
    splat_shorts16,
    sum_ints8,
    trailing_zeros,
    widen_bytes16,
    zero_ints8,
)
from llmrec_fast.kernels.jit import jit

SEARCHABLE, SCORE_ALL = 0, 1
# Truncation to int16 loses less than one unit; a tenth covers the float32 operations around it.
_FIRST_UNITS, _SECOND_UNITS = 1.1, 1.2
_MARGIN = np.float64(1 + 2.0**-20)
_PREFETCH_SECOND, _PREFETCH_THIRD, _PREFETCH_ROWS = 8, 6, 2


@jit(inline=True)
def second_product(isa: Any, codes: np.ndarray, at: int, second: int, queries: np.ndarray, query_at: int) -> int:
    """Integer product of a row's second 4-bit codes with a query's int8 codes."""
    ones = splat_shorts16(np.int16(1))
    total = zero_ints8()
    for c in range(0, second, 64):
        packed = load_bytes32(codes, at + (c >> 1))
        part = add_shorts16(
            multiply_pairs_u8_s8(isa, low_nibbles(packed), load_bytes32(queries, query_at + c)),
            multiply_pairs_u8_s8(isa, high_nibbles(packed), load_bytes32(queries, query_at + c + 32)),
        )
        total = add_ints8(total, multiply_pairs_s16(isa, part, ones))
    return sum_ints8(total)


@jit(inline=True)
def third_product(isa: Any, codes: np.ndarray, at: int, third: int, queries: np.ndarray, query_at: int) -> int:
    """Integer product of a row's int8 codes with a query's int16 codes."""
    left, right = zero_ints8(), zero_ints8()
    for c in range(0, third, 32):
        values = widen_bytes16(load_bytes16(codes, at + c))
        left = add_ints8(left, multiply_pairs_s16(isa, values, load_shorts16(queries, query_at + 2 * c)))
        values = widen_bytes16(load_bytes16(codes, at + c + 16))
        right = add_ints8(right, multiply_pairs_s16(isa, values, load_shorts16(queries, query_at + 2 * c + 32)))
    return sum_ints8(add_ints8(left, right))


@jit(inline=True)
def second_bound(
    isa: Any,
    codes: np.ndarray,
    terms: Float32Array,
    row: int,
    second: int,
    queries: np.ndarray,
    offset: int,
    weights: Float32Array,
    query: int,
    bound16: int,
) -> np.float32:
    """The first bound with the tail replaced by the second stage's estimate and what it leaves."""
    at = row * (second // 2 + 16)
    product = np.float32(second_product(isa, codes, at, second, queries, query * second) + offset)
    term = (at + second // 2) // 4
    return (
        (np.float32(bound16) * weights[query, 0] - weights[query, 3] * terms[term + 3])
        + terms[term] * (weights[query, 1] * product + weights[query, 2])
        + (weights[query, 4] * terms[term + 1] + weights[query, 5] * terms[term + 2])
    )


@jit(inline=True)
def third_bound(
    isa: Any,
    codes: np.ndarray,
    terms: Float32Array,
    row: int,
    third: int,
    queries: np.ndarray,
    weights: Float32Array,
    query: int,
) -> np.float32:
    """step * product + |z| * rounding + bias."""
    product = np.float32(third_product(isa, codes, row * third, third, queries, query * third * 2))
    return (terms[row * 4] * (weights[query, 0] * product) + weights[query, 1] * terms[row * 4 + 1]) + weights[
        query, 2
    ] * terms[row * 4 + 2]


@jit(inline=True)
def threshold_of(score: float, numbers: Float64Array, query: int, euclidean: bool, dim: int) -> float:
    """The least bound, of the unit query and the scaled row, that a row scoring `score` can have."""
    if euclidean:
        moved = score * score * numbers[query, 4]
        slack = numbers[query, 6] + moved * (dim + 16) * 2.0**-51
        return numbers[query, 5] - moved - slack
    moved = score * numbers[query, 4]
    return moved + numbers[query, 5] - (numbers[query, 6] + abs(moved) * 2.0**-50)


@jit(inline=True)
def _float_down(value: float) -> np.float32:
    return np.float32(value - (abs(value) * 2.0**-22 + 1e-36))


@jit()
def set_thresholds(
    score: float,
    query: int,
    numbers: Float64Array,
    largest: Float64Array,
    euclidean: bool,
    dim: int,
    least: np.ndarray,
    finer: Float32Array,
) -> int:
    """Thresholds of the three stages for rows scoring at least `score`; whether the first one fits in int16."""
    threshold = threshold_of(score, numbers, query, euclidean, dim)
    unit = numbers[query, 0]
    first_error = numbers[query, 1] * largest[0] * _MARGIN
    units = np.floor((threshold - first_error) / unit - _FIRST_UNITS)
    if not units >= -32767:
        return SCORE_ALL
    least[query] = np.int16(min(units, 32767.0))
    second_error = numbers[query, 2] * largest[1] * _MARGIN
    finer[query, 0] = _float_down(threshold - first_error - second_error - _SECOND_UNITS * unit)
    finer[query, 1] = _float_down(threshold - numbers[query, 3] * largest[2] * _MARGIN)
    return SEARCHABLE


@jit(inline=True)
def _leader(bounds: np.ndarray, at: int) -> tuple[int, int]:
    """(step, bound) of the row with the largest bound in a lane that begins at `at`: rows at, at + 8, ... of a panel."""
    leader, top = np.int64(-1), np.int64(-32768)
    for step in range(64):
        bound = np.int64(bounds[at + step * 8])
        if bound > top:
            leader, top = step, bound
    return leader, top


@jit()
def _exclude(
    isa: Any,
    excluded: Int64Array,
    base: int,
    origin: int,
    rows: int,
    query: int,
    bounds: np.ndarray,
    best: Float32Array,
    third_codes: np.ndarray,
    third_terms: Float32Array,
    third: int,
    query_codes: np.ndarray,
    third_weights: Float32Array,
    unit: float,
) -> None:
    """Excluded rows fall below every threshold, and a lane that one of them may have led gets a new leader's estimate."""
    queries = best.shape[1]
    headless = np.empty(len(excluded), np.int64)
    count = 0
    for row in excluded:
        local = row - base - origin
        if 0 <= local < rows:
            panel, lane = local >> 9, local & 7
            at = (panel * queries + query) * 512 + (local & 511)
            # a leader's estimate is not above its own bound
            if np.float32(bounds[at]) + np.float32(_SECOND_UNITS) >= best[panel, query, lane]:
                headless[count] = panel * 8 + lane
                count += 1
            bounds[at] = -32768
    for i in range(count):
        panel, lane = headless[i] >> 3, headless[i] & 7
        step, _ = _leader(bounds, (panel * queries + query) * 512 + lane)
        estimate = np.float32(-np.inf)
        if step >= 0:
            row = origin + panel * 512 + step * 8 + lane
            bound = third_bound(isa, third_codes, third_terms, row, third, query_codes, third_weights, query)
            estimate = np.float32((bound - third_weights[query, 1] * third_terms[row * 4 + 1]) / unit)
        best[panel, query, lane] = estimate


@jit()
def _best_lanes(best: Float32Array, query: int, panels: int, values: Float64Array, lanes: Int64Array) -> int:
    """The len(values) lanes with the best estimates, in a heap; how many there are."""
    size = 0
    for panel in range(panels):
        for lane in range(8):
            value = np.float64(best[panel, query, lane])
            if value > -np.inf and (size < len(values) or value > values[0]):
                size = push(values, lanes, size, value, panel * 8 + lane)
    return size


@jit()
def seed(
    isa: Any,
    first_query: int,
    stop_query: int,
    k: int,
    origin: int,
    base: int,
    panels: int,
    bounds: np.ndarray,
    best: Float32Array,
    indptr: Int64Array,
    excluded: Int64Array,
    third_codes: np.ndarray,
    third_terms: Float32Array,
    third: int,
    query_codes: np.ndarray,
    third_weights: Float32Array,
    rows: Float32Array,
    bias: Float32Array,
    euclidean: bool,
    wide: Float64Array,
    numbers: Float64Array,
    largest: Float64Array,
    known: Float64Array,
    least: np.ndarray,
    finer: Float32Array,
    status: np.ndarray,
    counts: Int64Array,
) -> None:
    """Apply exclusions, then find a lower bound of the k-th best score: the k-th best exact score of a few promising rows.

    These are the rows of the lanes with the best estimates, half as many again as k. `known` is a lower bound found so
    far (-inf if none). Rows are local to the segment, which begins at row `base` of the index; bounds and best begin at
    its row `origin`.
    """
    queries = best.shape[1]
    dim = rows.shape[1]
    wanted = k + k // 2 + 10  # estimates rank roughly: half as many again bring the threshold near the true one
    values, lanes, found = np.empty(wanted), np.empty(wanted, np.int64), np.empty(wanted, np.int64)
    scores, scored = np.empty(k), np.empty(k, np.int64)
    for j in range(first_query, stop_query):
        if status[j] != SEARCHABLE:
            continue
        if indptr[j + 1] > indptr[j]:
            _exclude(
                isa, excluded[indptr[j] : indptr[j + 1]], base, origin, panels * 512, j, bounds, best,
                third_codes, third_terms, third, query_codes, third_weights, numbers[j, 0],
            )  # fmt: skip
        size = _best_lanes(best, j, panels, values, lanes)
        count = 0
        for i in range(size):
            panel, lane = lanes[i] >> 3, lanes[i] & 7
            step, _ = _leader(bounds, (panel * queries + j) * 512 + lane)
            if step >= 0:
                found[count] = origin + panel * 512 + step * 8 + lane
                count += 1
        if count >= k:
            size = 0
            for i in range(count):
                if i + _PREFETCH_ROWS < count:
                    prefetch_row(rows, found[i + _PREFETCH_ROWS])
                score = exact_score(rows, found[i], wide, j, bias, euclidean)
                size = push(scores, scored, size, score, found[i])
            known[j] = max(known[j], scores[0])
            counts[j, 3] += count
        status[j] = set_thresholds(known[j], j, numbers, largest, euclidean, dim, least, finer)


@jit()
def _rerank(
    isa: Any,
    candidates: np.ndarray,
    count: int,
    query: int,
    threshold: np.float32,
    base: int,
    third_codes: np.ndarray,
    third_terms: Float32Array,
    third: int,
    query_codes: np.ndarray,
    third_weights: Float32Array,
    rows: Float32Array,
    bias: Float32Array,
    euclidean: bool,
    wide: Float64Array,
    scores: Float64Array,
    heap_rows: Int64Array,
    size: int,
    counts: Int64Array,
) -> int:
    """int8 bounds of the candidates, then exact scores of those that are left; the heap's new size."""
    kept = 0
    for i in range(count):
        if i + _PREFETCH_THIRD < count:
            ahead = np.int64(candidates[i + _PREFETCH_THIRD])
            for line in range(0, third, 64):
                prefetch(third_codes, ahead * third + line)
            prefetch(third_terms, ahead * 16)
        row = np.int64(candidates[i])
        bound = third_bound(isa, third_codes, third_terms, row, third, query_codes, third_weights, query)
        candidates[kept] = row
        kept += bound >= threshold
    counts[query, 2] += kept
    for i in range(kept):
        if i + _PREFETCH_ROWS < kept:
            prefetch_row(rows, np.int64(candidates[i + _PREFETCH_ROWS]))
        row = np.int64(candidates[i])
        score = exact_score(rows, row, wide, query, bias, euclidean)
        size = push(scores, heap_rows, size, score, base + row)
    return size


@jit()
def finish(
    isa: Any,
    first_panel: int,
    stop_panel: int,
    chunk: int,
    origin: int,
    base: int,
    queries: int,
    bounds: np.ndarray,
    status: np.ndarray,
    least: np.ndarray,
    finer: Float32Array,
    second: int,
    second_codes: np.ndarray,
    second_terms: Float32Array,
    second_queries: np.ndarray,
    offsets: np.ndarray,
    second_weights: Float32Array,
    third_codes: np.ndarray,
    third_terms: Float32Array,
    third: int,
    query_codes: np.ndarray,
    third_weights: Float32Array,
    rows: Float32Array,
    bias: Float32Array,
    euclidean: bool,
    wide: Float64Array,
    found: np.ndarray,
    found_bounds: np.ndarray,
    waiting: np.ndarray,
    lengths: Int64Array,
    scores: Float64Array,
    heap_rows: Int64Array,
    sizes: Int64Array,
    counts: Int64Array,
) -> None:
    """Filter, finer stages and exact scores for the rows of some panels, `chunk` panels at a time, into one heap a query.

    `found` and `found_bounds` have room for a chunk of rows, `waiting` (queries, more than a chunk) for rows on their
    way to the int8 stage: they wait until there are enough of them for prefetching to pay.
    """
    padded = second_weights.shape[0]
    second_stride = second // 2 + 16
    room = waiting.shape[1]
    for j in range(queries):
        lengths[j] = 0
    for top in range(first_panel, stop_panel, chunk):
        end = min(top + chunk, stop_panel)
        for j in range(queries):
            if status[j] != SEARCHABLE:
                continue
            threshold = splat_shorts16(least[j])
            count = 0
            for panel in range(top, end):
                at = ((panel - origin) * padded + j) * 512
                for step in range(0, 512, 16):
                    mask = at_least_shorts16(load_shorts16(bounds, (at + step) * 2), threshold)
                    while mask != 0:
                        place = step + trailing_zeros(mask)
                        found[count] = panel * 512 + place
                        found_bounds[count] = bounds[at + place]
                        count += 1
                        mask &= mask - np.int32(1)
            counts[j, 0] += count
            kept = lengths[j]
            before = kept
            if second > 0:
                limit = finer[j, 0]
                for i in range(count):
                    if i + _PREFETCH_SECOND < count:
                        ahead = np.int64(found[i + _PREFETCH_SECOND]) * second_stride
                        prefetch(second_codes, ahead)
                        prefetch(second_codes, ahead + 64)
                    row, bound16 = np.int64(found[i]), found_bounds[i]
                    bound = second_bound(
                        isa,
                        second_codes,
                        second_terms,
                        row,
                        second,
                        second_queries,
                        offsets[1, j],
                        second_weights,
                        j,
                        bound16,
                    )
                    waiting[j, kept] = row
                    # a saturated bound says nothing of how large it is
                    kept += (bound >= limit) | (bound16 == 32767)
            else:
                for i in range(count):
                    waiting[j, kept] = found[i]
                    kept += 1
            counts[j, 1] += kept - before
            if kept > 0 and kept + chunk * 512 > room:
                sizes[j] = _rerank(
                    isa, waiting[j], kept, j, finer[j, 1], base, third_codes, third_terms, third, query_codes,
                    third_weights, rows, bias, euclidean, wide, scores[j], heap_rows[j], sizes[j], counts,
                )  # fmt: skip
                kept = 0
            lengths[j] = kept
    for j in range(queries):
        if lengths[j] > 0:
            sizes[j] = _rerank(
                isa, waiting[j], lengths[j], j, finer[j, 1], base, third_codes, third_terms, third, query_codes,
                third_weights, rows, bias, euclidean, wide, scores[j], heap_rows[j], sizes[j], counts,
            )  # fmt: skip
