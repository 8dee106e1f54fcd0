"""The scan: an upper bound of every row's score from its first 4-bit codes, for a group of queries in one pass.

Cost: reads first / 2 + 8 bytes a row (88 at 160 columns) once per tile of queries; for 8 rows and one query `first` /
4 byte products of 32 lanes and some 15 instructions to turn them into bounds. Writes 2 bytes a row and query.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.kernels.cpu.intrinsics import (
    add_ints8,
    add_shorts16,
    high_nibbles,
    ints8_to_floats8,
    load_bfloats8,
    load_bytes32,
    load_floats8,
    load_splat_floats8,
    low_nibbles,
    maximum_floats8,
    multiply_add_floats8,
    multiply_pairs_s16,
    multiply_pairs_u8_s8,
    penalty_floats8,
    prefetch,
    splat_floats8,
    splat_ints8,
    splat_shorts16,
    store_bounds8,
    store_floats8,
    zero_shorts16,
)
from llmrec_fast.kernels.jit import jit

TILE = 4  # queries that share a load of codes; more would spill registers
_AHEAD = 12  # blocks to prefetch: 1.21 -> 0.77 ms on 480,000 rows


def tile_of(queries: int) -> int:
    """Queries that one pass over the codes serves: 1 or `TILE`."""
    return 1 if queries == 1 else TILE


@jit()
def spread_queries(codes: np.ndarray, tile: int, spread: np.ndarray) -> None:
    """Query codes (q, first) in the order in which the scan reads them.

    A block holds 4 bytes of each of 8 rows, so 4 columns of a query are repeated 8 times; low nibbles of a tile's
    queries, then high.
    """
    queries, first = codes.shape
    at = 0
    for top in range(0, queries, tile):
        for group in range(first >> 3):
            for nibble in range(2):
                for j in range(top, top + tile):
                    for _lane in range(8):
                        for c in range(4):
                            spread[at] = codes[j, 8 * group + 4 * nibble + c]
                            at += 1


@jit(inline=True)
def _pairs(isa: Any, total: Any, packed: Any, spread: np.ndarray, at: int, tile_bytes: int) -> Any:
    """total + products of 8 rows' 8 columns with one query's. 8 of these stay within int16: 8 * 2 * 15 * 127 = 30,480."""
    total = add_shorts16(total, multiply_pairs_u8_s8(isa, low_nibbles(packed), load_bytes32(spread, at)))
    return add_shorts16(total, multiply_pairs_u8_s8(isa, high_nibbles(packed), load_bytes32(spread, at + tile_bytes)))


@jit(inline=True)
def _bounds_of_block(
    isa: Any,
    product: Any,
    step: Any,
    rounding: Any,
    tail: Any,
    bias: Any,
    penalty: Any,
    weights: Float32Array,
    query: int,
    bounds: np.ndarray,
    bounds_at: int,
    best: Float32Array,
    best_at: int,
) -> None:
    """Estimate = step * (w0 * product + w1) + w4 * bias; bound = estimate + w2 * rounding + w3 * tail."""
    at = query * 20
    own = multiply_add_floats8(isa, load_splat_floats8(weights, at + 16), bias, penalty)
    inner = multiply_add_floats8(
        isa, load_splat_floats8(weights, at), ints8_to_floats8(product), load_splat_floats8(weights, at + 4)
    )
    estimate = multiply_add_floats8(isa, step, inner, own)
    store_floats8(best, best_at, maximum_floats8(isa, estimate, load_floats8(best, best_at)))
    bound = multiply_add_floats8(isa, load_splat_floats8(weights, at + 12), tail, estimate)
    bound = multiply_add_floats8(isa, load_splat_floats8(weights, at + 8), rounding, bound)
    store_bounds8(isa, bounds, bounds_at, bound)


@jit()
def scan_one(
    isa: Any,
    codes: np.ndarray,
    stride: int,
    allowed: np.ndarray,
    spread: np.ndarray,
    offsets: np.ndarray,
    weights: Float32Array,
    first_panel: int,
    stop_panel: int,
    origin: int,
    bounds: np.ndarray,
    best: Float32Array,
) -> None:
    """`scan_tiles` for a single query, whose codes stay in the nearest cache."""
    groups = (stride - 64) >> 5
    ones = splat_shorts16(np.int16(1))
    least = splat_floats8(np.float32(-np.inf))
    start = splat_ints8(offsets[0, 0])
    for panel in range(first_panel, stop_panel):
        place = panel - origin
        store_floats8(best, place * 32, least)
        for block in range(panel * 64, panel * 64 + 64):
            base = block * stride
            for line in range(0, stride, 64):
                prefetch(codes, base + _AHEAD * stride + line)
            total = start
            at = 0
            for group in range(base, base + groups * 32, 128):
                # four groups of 8 columns: as many products as int16 holds
                part = zero_shorts16()
                part = _pairs(isa, part, load_bytes32(codes, group), spread, at, 32)
                part = _pairs(isa, part, load_bytes32(codes, group + 32), spread, at + 64, 32)
                part = _pairs(isa, part, load_bytes32(codes, group + 64), spread, at + 128, 32)
                part = _pairs(isa, part, load_bytes32(codes, group + 96), spread, at + 192, 32)
                total = add_ints8(total, multiply_pairs_s16(isa, part, ones))
                at += 256
            terms = base + groups * 32
            _bounds_of_block(
                isa,
                total,
                load_bfloats8(codes, terms),
                load_bfloats8(codes, terms + 16),
                load_bfloats8(codes, terms + 32),
                load_bfloats8(codes, terms + 48),
                penalty_floats8(allowed[block]),
                weights,
                0,
                bounds,
                place * 1024 + (block & 63) * 16,
                best,
                place * 32,
            )


@jit()
def scan_tiles(
    isa: Any,
    codes: np.ndarray,
    stride: int,
    allowed: np.ndarray,
    spread: np.ndarray,
    offsets: np.ndarray,
    weights: Float32Array,
    first_panel: int,
    stop_panel: int,
    origin: int,
    bounds: np.ndarray,
    best: Float32Array,
) -> None:
    """Bounds of the rows of some panels, for queries in tiles of four.

    Parameters
    ----------
    codes, stride : the first stage of a segment and its bytes a block.
    allowed : a bit a row; other rows get the least bound and no estimate.
    spread, offsets, weights : of the queries, see `spread_queries` and `QueryCodes`.
    first_panel, stop_panel : the panels to scan; `origin` is the panel that `bounds` and `best` begin with.
    bounds : int16, 512 a panel and query; unit as in `QueryCodes.numbers`. 32767 stands for any larger bound.
    best : (panels, queries, 8) float32, the best estimate of each lane of a panel: of rows r with equal r % 8.
    """
    groups = (stride - 64) >> 5
    queries = len(weights)
    ones = splat_shorts16(np.int16(1))
    least = splat_floats8(np.float32(-np.inf))
    for panel in range(first_panel, stop_panel):
        place = (panel - origin) * queries
        for j in range(queries):
            store_floats8(best, (place + j) * 32, least)
        for block in range(panel * 64, panel * 64 + 64):
            base = block * stride
            for line in range(0, stride, 64):
                prefetch(codes, base + _AHEAD * stride + line)
            terms = base + groups * 32
            step, rounding = load_bfloats8(codes, terms), load_bfloats8(codes, terms + 16)
            tail, bias = load_bfloats8(codes, terms + 32), load_bfloats8(codes, terms + 48)
            penalty = penalty_floats8(allowed[block])
            at = 0
            for j in range(0, queries, 4):
                total0, total1 = splat_ints8(offsets[0, j]), splat_ints8(offsets[0, j + 1])
                total2, total3 = splat_ints8(offsets[0, j + 2]), splat_ints8(offsets[0, j + 3])
                for group in range(base, base + groups * 32, 128):
                    part0, part1, part2, part3 = zero_shorts16(), zero_shorts16(), zero_shorts16(), zero_shorts16()
                    packed = load_bytes32(codes, group)
                    part0 = _pairs(isa, part0, packed, spread, at, 128)
                    part1 = _pairs(isa, part1, packed, spread, at + 32, 128)
                    part2 = _pairs(isa, part2, packed, spread, at + 64, 128)
                    part3 = _pairs(isa, part3, packed, spread, at + 96, 128)
                    packed = load_bytes32(codes, group + 32)
                    part0 = _pairs(isa, part0, packed, spread, at + 256, 128)
                    part1 = _pairs(isa, part1, packed, spread, at + 288, 128)
                    part2 = _pairs(isa, part2, packed, spread, at + 320, 128)
                    part3 = _pairs(isa, part3, packed, spread, at + 352, 128)
                    packed = load_bytes32(codes, group + 64)
                    part0 = _pairs(isa, part0, packed, spread, at + 512, 128)
                    part1 = _pairs(isa, part1, packed, spread, at + 544, 128)
                    part2 = _pairs(isa, part2, packed, spread, at + 576, 128)
                    part3 = _pairs(isa, part3, packed, spread, at + 608, 128)
                    packed = load_bytes32(codes, group + 96)
                    part0 = _pairs(isa, part0, packed, spread, at + 768, 128)
                    part1 = _pairs(isa, part1, packed, spread, at + 800, 128)
                    part2 = _pairs(isa, part2, packed, spread, at + 832, 128)
                    part3 = _pairs(isa, part3, packed, spread, at + 864, 128)
                    total0 = add_ints8(total0, multiply_pairs_s16(isa, part0, ones))
                    total1 = add_ints8(total1, multiply_pairs_s16(isa, part1, ones))
                    total2 = add_ints8(total2, multiply_pairs_s16(isa, part2, ones))
                    total3 = add_ints8(total3, multiply_pairs_s16(isa, part3, ones))
                    at += 1024
                target, lead = (place + j) * 1024 + (block & 63) * 16, (place + j) * 32
                _bounds_of_block(
                    isa, total0, step, rounding, tail, bias, penalty, weights, j, bounds, target, best, lead
                )
                _bounds_of_block(
                    isa,
                    total1,
                    step,
                    rounding,
                    tail,
                    bias,
                    penalty,
                    weights,
                    j + 1,
                    bounds,
                    target + 1024,
                    best,
                    lead + 32,
                )
                _bounds_of_block(
                    isa,
                    total2,
                    step,
                    rounding,
                    tail,
                    bias,
                    penalty,
                    weights,
                    j + 2,
                    bounds,
                    target + 2048,
                    best,
                    lead + 64,
                )
                _bounds_of_block(
                    isa,
                    total3,
                    step,
                    rounding,
                    tail,
                    bias,
                    penalty,
                    weights,
                    j + 3,
                    bounds,
                    target + 3072,
                    best,
                    lead + 96,
                )
