"""Bounds of single rows by the two finer stages, and the thresholds that all three stages are compared with.

Cost: for the second stage second / 2 + 16 bytes a row, for the int8 stage d + 16.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array
from llmrec_fast.kernels.cpu.intrinsics import (
    add_ints8,
    add_products,
    high_nibbles,
    ints8_to_floats8,
    load_bytes16,
    load_bytes32,
    load_shorts16,
    low_nibbles,
    multiply_add_floats8,
    multiply_floats8,
    multiply_pairs_s16,
    prefetch,
    splat_floats8,
    splat_ints8,
    widen_bytes16,
    widen_products,
    zero_ints8,
    zero_products,
)
from llmrec_fast.kernels.cpu.row_vectors import add_floats8, load_columns4, load_short_floats8, sums_of_ints8
from llmrec_fast.kernels.jit import jit

SEARCHABLE, SCORE_ALL = 0, 1
# Truncation to int16 loses less than one unit; a tenth covers the float32 operations around it.
FIRST_UNITS, SECOND_UNITS = 1.1, 1.2
_MARGIN = np.float64(1 + 2.0**-20)


@jit(inline=True)
def _second_products(isa: Any, total: Any, codes: np.ndarray, at: int, low: Any, high: Any) -> Any:
    """total + products of 64 of a row's second codes with a query's int8 codes, in eight partial sums."""
    packed = load_bytes32(codes, at)
    part = add_products(isa, zero_products(isa, packed), low_nibbles(packed), low)
    return widen_products(isa, total, add_products(isa, part, high_nibbles(packed), high))


@jit(inline=True)
def _places8(rows: np.ndarray, at: int, stride: int) -> tuple[int, int, int, int, int, int, int, int]:
    """Where the codes of eight rows, those at rows[at] (int32) and behind it, begin: `stride` bytes are one row's."""
    return (
        np.int64(rows[at]) * stride,
        np.int64(rows[at + 1]) * stride,
        np.int64(rows[at + 2]) * stride,
        np.int64(rows[at + 3]) * stride,
        np.int64(rows[at + 4]) * stride,
        np.int64(rows[at + 5]) * stride,
        np.int64(rows[at + 6]) * stride,
        np.int64(rows[at + 7]) * stride,
    )


@jit(inline=True)
def second_bounds(
    isa: Any,
    codes: np.ndarray,
    terms: Float32Array,
    rows: np.ndarray,
    bounds: np.ndarray,
    at: int,
    second: int,
    queries: np.ndarray,
    offset: int,
    weights: Float32Array,
    query: int,
) -> tuple[Any, Any]:
    """The first bounds of eight rows, with the tail replaced by the second stage's estimate and what it leaves; that
    replacement alone, which bounds the columns after the first stage.

    `rows` (int32) and `bounds` (int16, of the first stage) are read at `at` and the seven places behind it.
    """
    stride = second // 2 + 16
    r0, r1, r2, r3, r4, r5, r6, r7 = _places8(rows, at, stride)
    zero = zero_ints8()
    t0, t1, t2, t3, t4, t5, t6, t7 = zero, zero, zero, zero, zero, zero, zero, zero
    for c in range(0, second, 64):
        low, high = load_bytes32(queries, query * second + c), load_bytes32(queries, query * second + c + 32)
        place = c >> 1
        t0 = _second_products(isa, t0, codes, r0 + place, low, high)
        t1 = _second_products(isa, t1, codes, r1 + place, low, high)
        t2 = _second_products(isa, t2, codes, r2 + place, low, high)
        t3 = _second_products(isa, t3, codes, r3 + place, low, high)
        t4 = _second_products(isa, t4, codes, r4 + place, low, high)
        t5 = _second_products(isa, t5, codes, r5 + place, low, high)
        t6 = _second_products(isa, t6, codes, r6 + place, low, high)
        t7 = _second_products(isa, t7, codes, r7 + place, low, high)
    products = add_ints8(sums_of_ints8(t0, t1, t2, t3, t4, t5, t6, t7), splat_ints8(offset))
    steps, rounding, rest, tails = load_columns4(terms, rows, at, stride, second // 2)
    inner = multiply_add_floats8(
        isa, splat_floats8(weights[query, 1]), ints8_to_floats8(products), splat_floats8(weights[query, 2])
    )
    taken_back = multiply_floats8(splat_floats8(-weights[query, 3]), tails)
    bound = multiply_add_floats8(isa, load_short_floats8(bounds, at * 2), splat_floats8(weights[query, 0]), taken_back)
    tail = multiply_floats8(steps, inner)
    tail = multiply_add_floats8(isa, splat_floats8(weights[query, 4]), rounding, tail)
    tail = multiply_add_floats8(isa, splat_floats8(weights[query, 5]), rest, tail)
    return add_floats8(bound, tail), tail


@jit(inline=True)
def _third_products(isa: Any, total: Any, codes: np.ndarray, at: int, low: Any, high: Any) -> Any:
    """total + products of 32 of a row's int8 codes with a query's int16 codes, in eight partial sums."""
    total = add_ints8(total, multiply_pairs_s16(isa, widen_bytes16(load_bytes16(codes, at)), low))
    return add_ints8(total, multiply_pairs_s16(isa, widen_bytes16(load_bytes16(codes, at + 16)), high))


@jit(inline=True)
def _third_products4(
    isa: Any,
    codes: np.ndarray,
    places: tuple[int, int, int, int],
    ahead: tuple[int, int, int, int],
    columns: int,
    queries: np.ndarray,
    query_at: int,
) -> tuple[Any, Any, Any, Any]:
    """Products of four rows, whose codes begin at `places`, each in eight partial sums.

    Eight rows at once need more registers than there are: from the cache, that took 1.5 times as long.
    """
    r0, r1, r2, r3 = places
    n0, n1, n2, n3 = ahead
    zero = zero_ints8()
    t0, t1, t2, t3 = zero, zero, zero, zero
    for c in range(0, columns, 32):
        # two of the four cache lines of 64 columns; all at once, these requests would hold up the loads between them
        prefetch(codes, n0 + c)
        prefetch(codes, n1 + c)
        n0, n1, n2, n3 = n2, n3, n0, n1
        low, high = load_shorts16(queries, query_at + 2 * c), load_shorts16(queries, query_at + 2 * c + 32)
        t0 = _third_products(isa, t0, codes, r0 + c, low, high)
        t1 = _third_products(isa, t1, codes, r1 + c, low, high)
        t2 = _third_products(isa, t2, codes, r2 + c, low, high)
        t3 = _third_products(isa, t3, codes, r3 + c, low, high)
    return t0, t1, t2, t3


@jit(inline=True)
def third_bounds(
    isa: Any,
    codes: np.ndarray,
    terms: Float32Array,
    rows: np.ndarray,
    at: int,
    ahead: int,
    third: int,
    columns: int,
    queries: np.ndarray,
    weights: Float32Array,
    query: int,
) -> Any:
    """step * product + |z| * rounding + bias of eight rows: those at rows[at] (int32) and the seven places behind it.

    The product is that of the first `columns` (a multiple of 32) of `third`. Meanwhile their cache lines of the eight
    rows at rows[ahead] are asked for.
    """
    r0, r1, r2, r3, r4, r5, r6, r7 = _places8(rows, at, third)
    n0, n1, n2, n3, n4, n5, n6, n7 = _places8(rows, ahead, third)
    query_at = query * third * 2
    t0, t1, t2, t3 = _third_products4(isa, codes, (r0, r1, r2, r3), (n0, n1, n2, n3), columns, queries, query_at)
    t4, t5, t6, t7 = _third_products4(isa, codes, (r4, r5, r6, r7), (n4, n5, n6, n7), columns, queries, query_at)
    if columns & 32:  # the last line of half of them was not asked for
        for lane in (2, 3, 6, 7):
            prefetch(codes, np.int64(rows[ahead + lane]) * third + columns - 32)
    products = ints8_to_floats8(sums_of_ints8(t0, t1, t2, t3, t4, t5, t6, t7))
    steps, rounding, bias, _ = load_columns4(terms, rows, at, 16, 0)
    estimate = multiply_floats8(steps, multiply_floats8(splat_floats8(weights[query, 0]), products))
    bound = add_floats8(estimate, multiply_floats8(splat_floats8(weights[query, 1]), rounding))
    return add_floats8(bound, multiply_floats8(splat_floats8(weights[query, 2]), bias))


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
    """Thresholds of the bounds for rows scoring at least `score`; whether the first stage's, `least`, fits in int16.

    finer[query] : of the second stage's bounds, of the mixed ones (BOUNDS.md, section 3) and of the third stage's.
    """
    threshold = threshold_of(score, numbers, query, euclidean, dim)
    unit = numbers[query, 0]
    first_error = numbers[query, 1] * largest[0] * _MARGIN
    units = np.floor((threshold - first_error) / unit - FIRST_UNITS)
    if not units >= -32767:
        return SCORE_ALL
    least[query] = np.int16(min(units, 32767.0))
    second_error = numbers[query, 2] * largest[1] * _MARGIN
    finer[query, 0] = _float_down(threshold - first_error - second_error - SECOND_UNITS * unit)
    third_error = numbers[query, 3] * largest[2] * _MARGIN
    finer[query, 1] = _float_down(threshold - second_error - third_error)
    finer[query, 2] = _float_down(threshold - third_error)
    return SEARCHABLE
