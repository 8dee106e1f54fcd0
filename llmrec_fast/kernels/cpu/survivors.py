"""After the seeds: rows whose bound reaches the threshold pass the finer stages, and the last are scored exactly.

Every comparison keeps a row whose bound equals the threshold, so ties are decided by exact scores alone. Cost: a pass
over 2 bytes a row; for a survivor of the scan second / 2 + 16 scattered bytes, for one of the second stage first + 16,
for one of the mixed bound (BOUNDS.md, section 3) d, for a reranked row 4 d.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.cpu.exact_scores import exact_score, prefetch_row, push
from llmrec_fast.kernels.cpu.finer_bounds import SEARCHABLE, second_bounds, third_bounds
from llmrec_fast.kernels.cpu.intrinsics import (
    at_least_shorts16,
    load_floats8,
    load_shorts16,
    prefetch,
    splat_floats8,
    splat_shorts16,
    store_floats8,
    trailing_zeros,
)
from llmrec_fast.kernels.cpu.row_vectors import (
    PLACES,
    add_floats8,
    at_least_floats8,
    count_bits,
    load_short_floats8,
    maximum_shorts16,
    store_places8,
)
from llmrec_fast.kernels.jit import jit

_PREFETCH_SECOND, _PREFETCH_ROWS = 16, 2
_LINES_A_GROUP = 16  # of the next chunk, asked for beside eight rows: more at once would hold up the loads between them
_TOGETHER = 64  # rows that a prefetch of eight ahead pays for
# Room behind the survivors of a chunk: a store of places writes 8, and the prefetching looks a group further ahead.
SPARE = _PREFETCH_SECOND + 16


@jit(inline=True)
def _append(found: np.ndarray, count: int, mask: np.int32, row: int) -> int:
    """Append `row` plus the position of each of 16 bits that is set; how many rows there are then.

    A table rather than a loop over the bits: how many are set cannot be foretold.
    """
    low, high = mask & np.int32(255), mask >> np.int32(8)
    store_places8(found, count * 4, PLACES, low, np.int32(row))
    count += count_bits(low)
    store_places8(found, count * 4, PLACES, high, np.int32(row + 8))
    return count + count_bits(high)


@jit(inline=True)
def _filter_panel(bounds: np.ndarray, at: int, threshold: Any, row: int, found: np.ndarray, count: int) -> int:
    """Append the rows of a panel that begins at `row` whose bound reaches the threshold; how many there are then."""
    for step in range(0, 512, 32):
        prefetch(bounds, (at + 512 + step) * 2)  # the next query's bounds lie behind this one's
        left, right = load_shorts16(bounds, (at + step) * 2), load_shorts16(bounds, (at + step + 16) * 2)
        if at_least_shorts16(maximum_shorts16(left, right), threshold) != 0:
            count = _append(found, count, at_least_shorts16(left, threshold), row + step)
            count = _append(found, count, at_least_shorts16(right, threshold), row + step + 16)
    return count


@jit()
def _pass_second(
    isa: Any,
    found: np.ndarray,
    found_bounds: np.ndarray,
    count: int,
    second: int,
    codes: np.ndarray,
    terms: Float32Array,
    queries: np.ndarray,
    offset: int,
    weights: Float32Array,
    query: int,
    threshold: np.float32,
    found_tails: Float32Array,
    waiting: np.ndarray,
    tails: Float32Array,
    kept: int,
    next_codes: int,
    stop_codes: int,
) -> int:
    """Append the rows among found[:count] whose second bound reaches the threshold to `waiting`, and what bounds their columns
    after the first stage to `tails`; how many there are then.

    On the way, the cache lines from byte `next_codes` of the second codes to `stop_codes` are asked for.
    """
    stride = second // 2 + 16
    before = kept
    limit, saturated = splat_floats8(threshold), splat_floats8(np.float32(32767))
    for i in range(count, count + SPARE - 8):  # the last group is filled up with a row that does not count again
        found[i], found_bounds[i] = found[count - 1], found_bounds[count - 1]
    for i in range(_PREFETCH_SECOND):
        place = np.int64(found[i]) * stride
        prefetch(codes, place)
        prefetch(codes, place + stride - 1)
    for i in range(0, count, 8):
        for line in range(next_codes, min(next_codes + _LINES_A_GROUP * 64, stop_codes), 64):
            prefetch(codes, line)
        next_codes += _LINES_A_GROUP * 64
        for ahead in range(i + _PREFETCH_SECOND, i + _PREFETCH_SECOND + 8):
            place = np.int64(found[ahead]) * stride
            prefetch(codes, place)
            prefetch(codes, place + stride - 1)
        bound, tail = second_bounds(isa, codes, terms, found, found_bounds, i, second, queries, offset, weights, query)
        store_floats8(found_tails, i * 4, tail)
        # a saturated bound says nothing of how large it is
        mask = at_least_floats8(bound, limit) | at_least_floats8(load_short_floats8(found_bounds, i * 2), saturated)
        mask &= np.int32(255) >> np.int32(max(0, i + 8 - count))
        store_places8(waiting, kept * 4, PLACES, mask, np.int32(i))
        kept += count_bits(mask)
    for i in range(before, kept):
        place = waiting[i]
        waiting[i], tails[i] = found[place], found_tails[place]
    return kept


@jit()
def _pass_int8(
    isa: Any,
    candidates: np.ndarray,
    tails: Float32Array,
    count: int,
    query: int,
    threshold: np.float32,
    third_codes: np.ndarray,
    third_terms: Float32Array,
    third: int,
    columns: int,
    query_codes: np.ndarray,
    third_weights: Float32Array,
    next_codes: int,
    stop_codes: int,
) -> int:
    """Keep the candidates whose int8 bound of the first `columns`, plus what bounds the others, `tails`, reaches the threshold;
    how many there are then.

    On the way, the cache lines from byte `next_codes` of the int8 codes to `stop_codes` are asked for.
    """
    kept, limit = 0, splat_floats8(threshold)
    for i in range(count, (count + 7) & ~7):  # the last group is filled up with a row that does not count again
        candidates[i] = candidates[count - 1]
    last = (count - 1) & ~7
    for i in range(min(count, 8)):
        for line in range(0, columns, 64):
            prefetch(third_codes, np.int64(candidates[i]) * third + line)
    for i in range(0, count, 8):
        ahead = min(i + 8, last)
        for line in range(next_codes, min(next_codes + _LINES_A_GROUP * 64, stop_codes), 64):
            prefetch(third_codes, line)
        next_codes += _LINES_A_GROUP * 64
        for lane in range(8):
            prefetch(third_terms, np.int64(candidates[ahead + lane]) * 16)
        bound = third_bounds(
            isa, third_codes, third_terms, candidates, i, ahead, third, columns, query_codes, third_weights, query
        )
        mask = at_least_floats8(add_floats8(bound, load_floats8(tails, i * 4)), limit)
        mask &= np.int32(255) >> np.int32(max(0, i + 8 - count))
        while mask != 0:
            candidates[kept] = candidates[i + trailing_zeros(mask)]
            kept += 1
            mask &= mask - np.int32(1)
    return kept


@jit()
def _rerank(
    isa: Any,
    candidates: np.ndarray,
    tails: Float32Array,
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
    next_codes: int,
    stop_codes: int,
) -> int:
    """int8 bounds of the candidates, then exact scores of those that are left; the heap's new size."""
    tails[:count] = 0.0
    kept = _pass_int8(
        isa, candidates, tails, count, query, threshold, third_codes, third_terms, third, third, query_codes, third_weights,
        next_codes, stop_codes,
    )  # fmt: skip
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
    first: int,
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
    found_tails: Float32Array,
    waiting: np.ndarray,
    tails: Float32Array,
    lengths: Int64Array,
    scores: Float64Array,
    heap_rows: Int64Array,
    sizes: Int64Array,
    counts: Int64Array,
) -> None:
    """Filter, finer stages and exact scores for the rows of some panels, `chunk` panels at a time, into one heap a query.

    `found`, `found_bounds` and `found_tails` have room for a chunk of rows and `SPARE` more, `waiting` and `tails` (queries,
    more than a chunk) for rows on their way to the int8 stage: they wait until there are enough of them for prefetching to
    pay. `lengths` (queries, 2) : of those waiting, how many have passed the mixed bound, and all.
    """
    padded = second_weights.shape[0]
    room = waiting.shape[1] - 8  # eight places are written, of which few may count
    lengths[:queries] = 0
    dense = False
    for top in range(first_panel, stop_panel, chunk):
        end = min(top + chunk, stop_panel)
        # where most rows are needed by some query, the codes of the next chunk are read in order, a part beside each query
        stride = second // 2 + 16 if second > 0 else third
        next_codes = np.int64(end) * 512 * stride
        next_bytes = np.int64(min(end + chunk, stop_panel) - end) * 512 * stride if dense else np.int64(0)
        needed = 0
        for j in range(queries):
            if status[j] != SEARCHABLE:
                continue
            threshold = splat_shorts16(least[j])
            before = kept = lengths[j, 1]
            ahead, ahead_stop = next_codes + next_bytes * j // queries, next_codes + next_bytes * (j + 1) // queries
            if second == 0:
                for panel in range(top, end):
                    at = ((panel - origin) * padded + j) * 512
                    kept = _filter_panel(bounds, at, threshold, panel * 512, waiting[j], kept)
                counts[j, 0] += kept - before
                needed += kept - before
            else:
                count = 0
                for panel in range(top, end):
                    at, start = ((panel - origin) * padded + j) * 512, count
                    count = _filter_panel(bounds, at, threshold, panel * 512, found, count)
                    for i in range(start, count):
                        found_bounds[i] = bounds[at + (found[i] & 511)]
                counts[j, 0] += count
                needed += count
                if count > 0:
                    kept = _pass_second(
                        isa, found, found_bounds, count, second, second_codes, second_terms, second_queries, offsets[1, j],
                        second_weights, j, finer[j, 0], found_tails, waiting[j], tails[j], kept,
                        ahead, ahead_stop,
                    )  # fmt: skip
            counts[j, 1] += kept - before
            passed = lengths[j, 0]
            full, last = kept + chunk * 512 > room, end == stop_panel
            if second > 0 and kept > passed and (kept - passed >= _TOGETHER or full or last):
                # the mixed bound: int8 for the first stage's columns, whose 4-bit rounding is most of what the second leaves
                kept = passed + _pass_int8(
                    isa, waiting[j, passed:], tails[j, passed:], kept - passed, j, finer[j, 1], third_codes, third_terms,
                    third, first, query_codes, third_weights, 0, 0,
                )  # fmt: skip
                counts[j, 4] += kept - passed
                passed = kept
            if kept > 0 and (full or last):
                sizes[j] = _rerank(
                    isa, waiting[j], tails[j], kept, j, finer[j, 2], base, third_codes, third_terms, third, query_codes,
                    third_weights, rows, bias, euclidean, wide, scores[j], heap_rows[j], sizes[j], counts,
                    ahead_stop if second > 0 else ahead, ahead_stop,
                )  # fmt: skip
                passed = kept = 0
            lengths[j, 0], lengths[j, 1] = passed, kept
        dense = needed >= (end - top) * 512
