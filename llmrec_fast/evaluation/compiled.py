"""The compiled loops of evaluation. Importing this file imports Numba, so others import it inside functions.

All work on a range of users, so that threads share them; none depends on how the users are cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.jit import jit

_PADDING = -1
# Fibonacci hashing: the top bits of a product with 2^64 / golden ratio spread even consecutive ids (Knuth, TAOCP 6.4)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_WORD, _BIT, _ONE = np.uint64(62), np.uint64(56), np.uint64(1)
_BIT_MASK = np.uint64(63)
_FEW = 48


@jit(inline=True)
def _sort(row: npt.NDArray[Any]) -> None:
    """Sort one array in place; most users have few ids, for which insertion takes a fraction of the general sort's time."""
    if len(row) > _FEW:
        row.sort()
        return
    for position in range(1, len(row)):
        value, place = row[position], position
        while place > 0 and row[place - 1] > value:
            row[place] = row[place - 1]
            place -= 1
        row[place] = value


@jit()
def sort_rows(indptr: Int64Array, ids: Int64Array, counts: Int64Array, start: int, stop: int) -> None:
    """Sort each user's ids in place, different ones first; `counts` receives how many those are."""
    for user in range(start, stop):
        row = ids[indptr[user] : indptr[user + 1]]
        _sort(row)
        count = 0
        for position in range(len(row)):
            if count == 0 or row[position] != row[count - 1]:
                row[count] = row[position]
                count += 1
        counts[user] = count


@jit()
def sort_rows_with_gains(
    indptr: Int64Array, ids: Int64Array, gains: Float64Array, counts: Int64Array, start: int, stop: int
) -> None:
    """As `sort_rows`, gains beside their ids: of an id that is there twice the larger counts, without a gain above 0 none."""
    for user in range(start, stop):
        first, last = indptr[user], indptr[user + 1]
        row, weights = ids[first:last], gains[first:last]
        if last - first <= _FEW:
            for position in range(1, last - first):
                item, gain, place = row[position], weights[position], position
                while place > 0 and row[place - 1] > item:
                    row[place], weights[place] = row[place - 1], weights[place - 1]
                    place -= 1
                row[place], weights[place] = item, gain
        else:
            order = np.argsort(row)
            row[:], weights[:] = row[order], weights[order]
        count = position = 0
        while position < len(row):
            item, largest = row[position], weights[position]
            position += 1
            while position < len(row) and row[position] == item:
                largest = max(largest, weights[position])
                position += 1
            if largest > 0.0:
                row[count], weights[count] = item, largest
                count += 1
        counts[user] = count


@jit()
def sort_gains(offsets: Int64Array, counts: Int64Array, gains: Float64Array, start: int, stop: int) -> None:
    """Sort each user's gains in place, the largest first."""
    for user in range(start, stop):
        row = gains[offsets[user] : offsets[user] + counts[user]]
        _sort(row)
        for place in range(len(row) >> 1):
            row[place], row[len(row) - 1 - place] = row[len(row) - 1 - place], row[place]


@jit()
def sum_discounted(
    offsets: Int64Array, counts: Int64Array, gains: Float64Array, discounts: Float64Array, out: Float64Array
) -> None:
    """For each user the sum of its first len(discounts) gains times their discounts."""
    for user in range(len(counts)):
        total = 0.0
        for place in range(min(counts[user], len(discounts))):
            total += gains[offsets[user] + place] * discounts[place]
        out[user] = total


@jit()
def find_gains(
    users: Int64Array,
    items: Int64Array,
    offsets: Int64Array,
    counts: Int64Array,
    ids: Int64Array,
    gains: Float64Array,
    out: Float64Array,
) -> None:
    """The gain of each (user, item) pair, every one of which is relevant. Cost: one binary search a pair."""
    for pair in range(len(users)):
        low, size = offsets[users[pair]], counts[users[pair]]
        while size > 1:
            half = size >> 1
            low = low + half if ids[low + half] <= items[pair] else low
            size -= half
        out[pair] = gains[low]


@jit()
def mark_hits(
    recommended: Int64Array,
    offsets: Int64Array,
    counts: Int64Array,
    ids: Int64Array,
    hits: BoolArray,
    lengths: Int64Array,
    start: int,
    stop: int,
) -> int:
    """Mark which recommendations are relevant, each relevant id once; returns the first user with an id after padding.

    `hits` (users, k) is written for the first k columns; `lengths` (users,) receives the number of ids in all columns.
    Cost: one test of a 256-bit filter a recommendation, which rejects most misses, and a binary search among the user's
    relevant ids for the others. Returns -1 if no row is broken.
    """
    k = hits.shape[1]
    present = np.zeros(4, dtype=np.uint64)
    found = np.zeros(max(1, counts[start:stop].max()), dtype=np.bool_)
    for user in range(start, stop):
        first, count = offsets[user], counts[user]
        found[:count] = False
        present[:] = 0
        for position in range(first, first + count):
            spread = np.uint64(ids[position]) * _SPREAD
            present[spread >> _WORD] |= _ONE << ((spread >> _BIT) & _BIT_MASK)
        length = 0
        for column in range(recommended.shape[1]):
            item = recommended[user, column]
            if item == _PADDING:
                continue
            if length != column:
                return user
            length += 1
            spread = np.uint64(item) * _SPREAD
            if column >= k or (present[spread >> _WORD] >> ((spread >> _BIT) & _BIT_MASK)) & _ONE == 0:
                continue
            low, size = first, count
            while size > 1:
                half = size >> 1
                low = low + half if ids[low + half] <= item else low
                size -= half
            if ids[low] == item and not found[low - first]:
                found[low - first] = True
                hits[user, column] = True
        lengths[user] = length
    return -1


@jit(fastmath={"contract", "reassoc"})
def mean_distances(
    positions: Int64Array,
    lengths: Int64Array,
    vectors: Float32Array,
    scales: Float64Array,
    cuts: Int64Array,
    out: Float64Array,
    start: int,
    stop: int,
) -> None:
    """Mean pairwise cosine distance within each user's first `cuts[c]` items, for all ascending cuts in one pass.

    `scales` (items,) are inverse norms, 0 for a zero vector. The sum over pairs needs no pairs: with unit vectors x_i,
    sum_{i != j} x_i . x_j = |sum x_i|^2 - sum |x_i|^2. Reads each recommended vector once; sums are float64.
    """
    total = np.empty(vectors.shape[1], dtype=np.float64)
    for user in range(start, stop):
        total[:] = 0.0
        squares = 0.0
        done = 0
        for cut in range(len(cuts)):
            length = min(cuts[cut], lengths[user])
            for column in range(done, length):
                item = positions[user, column]
                scale = scales[item]
                if scale > 0.0:
                    squares += 1.0
                    for dimension in range(vectors.shape[1]):
                        total[dimension] += vectors[item, dimension] * scale
            done = max(done, length)
            if length < 2:
                out[user, cut] = 0.0 if length == 1 else np.nan
                continue
            both = 0.0
            for dimension in range(vectors.shape[1]):
                both += total[dimension] * total[dimension]
            out[user, cut] = 1.0 - (both - squares) / (length * (length - 1.0))
