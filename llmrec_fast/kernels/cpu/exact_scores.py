"""Exact scores in float64 and the heap that keeps the k best: the only numbers that decide what a search returns.

The order of the sums is fixed (column c goes to lane c % 8, lanes are added in halves, then the columns past the last
full eight), so a row has the same score in every plan, on every processor, and in `kernels.reference`.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.cpu.intrinsics import (
    add_doubles8,
    floats8_to_doubles8,
    load_doubles8,
    load_floats8,
    multiply_doubles8,
    prefetch,
    subtract_doubles8,
    sum_doubles8,
    trailing_zeros,
    zero_doubles8,
)
from llmrec_fast.kernels.jit import jit


@jit(inline=True)
def exact_score(
    rows: Float32Array, row: int, wide: Float64Array, query: int, bias: Float32Array, euclidean: bool
) -> float:
    """q . x + b, or minus the Euclidean distance of q and x."""
    dim = rows.shape[1]
    full = dim & ~7
    row_at, query_at = row * dim * 4, query * dim * 8
    lanes = zero_doubles8()
    if euclidean:
        for c in range(0, full, 8):
            value = floats8_to_doubles8(load_floats8(rows, row_at + c * 4))
            difference = subtract_doubles8(load_doubles8(wide, query_at + c * 8), value)
            lanes = add_doubles8(lanes, multiply_doubles8(difference, difference))
        total = sum_doubles8(lanes)
        for c in range(full, dim):
            apart = wide[query, c] - np.float64(rows[row, c])
            total += apart * apart
        return -np.sqrt(total)
    for c in range(0, full, 8):
        value = floats8_to_doubles8(load_floats8(rows, row_at + c * 4))
        lanes = add_doubles8(lanes, multiply_doubles8(load_doubles8(wide, query_at + c * 8), value))
    total = sum_doubles8(lanes)
    for c in range(full, dim):
        total += wide[query, c] * np.float64(rows[row, c])
    return total + np.float64(bias[row])


@jit(inline=True)
def prefetch_row(rows: Float32Array, row: int) -> None:
    """Ask for all cache lines of a float32 row."""
    size = rows.shape[1] * 4
    for line in range(0, size, 64):
        prefetch(rows, row * size + line)


@jit(inline=True)
def worse(score: float, row: int, other_score: float, other_row: int) -> bool:
    """Whether (score, row) comes after the other in a search's order: a lower score, or the same in a later row."""
    return score < other_score or (score == other_score and row > other_row)


@jit()
def push(scores: Float64Array, rows: Int64Array, size: int, score: float, row: int) -> int:
    """Offer a row to a heap of the len(scores) best, whose root is the worst of them; the new size."""
    k = len(scores)
    if size < k:
        at = size
        while at > 0:
            parent = (at - 1) >> 1
            if not worse(score, row, scores[parent], rows[parent]):
                break
            scores[at], rows[at] = scores[parent], rows[parent]
            at = parent
        scores[at], rows[at] = score, row
        return size + 1
    if worse(score, row, scores[0], rows[0]):
        return size
    sink(scores, rows, size, score, row)
    return size


@jit()
def sink(scores: Float64Array, rows: Int64Array, size: int, score: float, row: int) -> None:
    """Replace the root of a heap of `size` entries."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and worse(scores[child + 1], rows[child + 1], scores[child], rows[child]):
            child += 1
        if not worse(scores[child], rows[child], score, row):
            break
        scores[at], rows[at] = scores[child], rows[child]
        at = child
    scores[at], rows[at] = score, row


@jit()
def merge_heaps(
    scores: Float64Array,
    rows: Int64Array,
    sizes: Int64Array,
    out_scores: Float64Array,
    out_rows: Int64Array,
    out_sizes: Int64Array,
) -> None:
    """Push the heaps of several threads, (threads, queries, k), into one heap a query, and empty them."""
    for thread in range(len(scores)):
        for j in range(len(out_sizes)):
            for i in range(sizes[thread, j]):
                out_sizes[j] = push(out_scores[j], out_rows[j], out_sizes[j], scores[thread, j, i], rows[thread, j, i])
            sizes[thread, j] = 0


@jit()
def known_scores(scores: Float64Array, sizes: Int64Array) -> Float64Array:
    """For each query the k-th best score so far: a lower bound of the final one; -inf while there are fewer than k."""
    known = np.full(len(sizes), -np.inf)
    for j in range(len(sizes)):
        if sizes[j] == scores.shape[1]:
            known[j] = scores[j, 0]
    return known


@jit()
def sort_heaps(scores: Float64Array, rows: Int64Array, sizes: Int64Array) -> None:
    """Turn each heap into its entries, best first, padded with score -inf and row -1."""
    for j in range(len(sizes)):
        own_scores, own_rows = scores[j], rows[j]
        for last in range(sizes[j] - 1, 0, -1):
            score, row = own_scores[last], own_rows[last]
            own_scores[last], own_rows[last] = own_scores[0], own_rows[0]
            sink(own_scores, own_rows, last, score, row)
        for i in range(sizes[j], scores.shape[1]):
            own_scores[i], own_rows[i] = -np.inf, -1


@jit()
def score_every_row(
    rows: Float32Array,
    bias: Float32Array,
    euclidean: bool,
    start: int,
    stop: int,
    base: int,
    bits: np.ndarray,
    wide: Float64Array,
    query: int,
    excluded: Int64Array,
    own_bits: np.ndarray,
    scores: Float64Array,
    heap_rows: Int64Array,
    size: int,
) -> tuple[int, int]:
    """Push the exact score of every allowed row of start .. stop (start a multiple of 8) of a segment that begins at
    row `base`.

    `own_bits` is scratch for the bits of these rows. Returns the heap's size and the number of rows scored. Reads 4 d
    bytes a row.
    """
    first, count = start >> 3, (stop - start + 7) >> 3
    own_bits[:count] = bits[first : first + count]
    for row in excluded:
        local = row - base - start
        if 0 <= local < stop - start:
            own_bits[local >> 3] &= ~np.uint8(1 << (local & 7))
    scored = 0
    for byte in range(count):
        left = np.int32(own_bits[byte])
        while left != 0:
            row = start + byte * 8 + trailing_zeros(left)
            left &= left - np.int32(1)
            scored += 1
            size = push(scores, heap_rows, size, exact_score(rows, row, wide, query, bias, euclidean), base + row)
    return size, scored
