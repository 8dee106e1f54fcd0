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
    add_products,
    high_nibbles,
    ints8_to_floats8,
    load_bfloats8,
    load_floats8,
    load_scan_bytes,
    load_splat_floats8,
    low_nibbles,
    maximum_floats8,
    multiply_add_floats8,
    penalty_floats8,
    prefetch,
    prefetch_once,
    scan_width,
    splat_floats8,
    splat_ints8,
    store_bounds8,
    store_floats8,
    widen_products,
    zero_products,
)
from llmrec_fast.kernels.jit import jit

TILE = 4  # queries that share a load of codes; more would spill registers
_AHEAD = 12  # blocks to prefetch: 1.21 -> 0.77 ms on 480,000 rows


def tile_of(queries: int) -> int:
    """Queries that one pass over the codes serves: 1 or `TILE`."""
    return 1 if queries == 1 else TILE


@jit()
def spread_queries(codes: np.ndarray, tile: int, width: int, spread: np.ndarray) -> None:
    """Query codes (q, first) in the order in which the scan reads them, `width` bytes at a time.

    32 bytes of a block hold 4 bytes of each of 8 rows, so 4 columns of a query are repeated 8 times; low nibbles of a tile's
    queries, then high.
    """
    queries, first = codes.shape
    together = width >> 5
    at = 0
    for top in range(0, queries, tile):
        for group in range(0, first >> 3, together):
            for nibble in range(2):
                for j in range(top, top + tile):
                    for member in range(group, group + together):
                        for _lane in range(8):
                            for c in range(4):
                                spread[at] = codes[j, 8 * member + 4 * nibble + c]
                                at += 1


@jit(inline=True)
def _pairs(isa: Any, total: Any, low: Any, high: Any, spread: np.ndarray, at: int, tile_bytes: int) -> Any:
    """total + products of 8 rows' codes with one query's: two of the eight that `add_products` has room for."""
    total = add_products(isa, total, low, load_scan_bytes(isa, spread, at))
    return add_products(isa, total, high, load_scan_bytes(isa, spread, at + tile_bytes))


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
    once: bool,
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
    groups, width = (stride - 64) >> 5, scan_width(isa)
    least = splat_floats8(np.float32(-np.inf))
    start = splat_ints8(offsets[0, 0])
    for panel in range(first_panel, stop_panel):
        place = panel - origin
        store_floats8(best, place * 32, least)
        for block in range(panel * 64, panel * 64 + 64):
            base = block * stride
            for line in range(0, stride, 64):
                if once:
                    prefetch_once(codes, base + _AHEAD * stride + line)
                else:
                    prefetch(codes, base + _AHEAD * stride + line)
            total = start
            at = 0
            for group in range(base, base + groups * 32, 128):
                part = zero_products(isa, load_scan_bytes(isa, codes, group))
                # four groups of 8 columns: as many products as int16 holds
                for step_at in range(group, group + 128, width):
                    packed = load_scan_bytes(isa, codes, step_at)
                    part = _pairs(isa, part, low_nibbles(packed), high_nibbles(packed), spread, at, width)
                    at += 2 * width
                total = widen_products(isa, total, part)
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
    once: bool,
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
    once : whether the codes shall not stay in the caches, where they would replace what other steps use again.
    allowed : a bit a row; other rows get the least bound and no estimate.
    spread, offsets, weights : of the queries, see `spread_queries` and `QueryCodes`.
    first_panel, stop_panel : the panels to scan; `origin` is the panel that `bounds` and `best` begin with.
    bounds : int16, 512 a panel and query; unit as in `QueryCodes.numbers`. 32767 stands for any larger bound.
    best : (panels, queries, 8) float32, the best estimate of each lane of a panel: of rows r with equal r % 8.
    """
    groups, width = (stride - 64) >> 5, scan_width(isa)
    queries = len(weights)
    least = splat_floats8(np.float32(-np.inf))
    for panel in range(first_panel, stop_panel):
        place = (panel - origin) * queries
        for j in range(queries):
            store_floats8(best, (place + j) * 32, least)
        for block in range(panel * 64, panel * 64 + 64):
            base = block * stride
            for line in range(0, stride, 64):
                if once:
                    prefetch_once(codes, base + _AHEAD * stride + line)
                else:
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
                    start = zero_products(isa, load_scan_bytes(isa, codes, group))
                    part0, part1, part2, part3 = start, start, start, start
                    for step_at in range(group, group + 128, width):
                        packed = load_scan_bytes(isa, codes, step_at)
                        low, high = low_nibbles(packed), high_nibbles(packed)
                        part0 = _pairs(isa, part0, low, high, spread, at, 4 * width)
                        part1 = _pairs(isa, part1, low, high, spread, at + width, 4 * width)
                        part2 = _pairs(isa, part2, low, high, spread, at + 2 * width, 4 * width)
                        part3 = _pairs(isa, part3, low, high, spread, at + 3 * width, 4 * width)
                        at += 8 * width
                    total0, total1 = widen_products(isa, total0, part0), widen_products(isa, total1, part1)
                    total2, total3 = widen_products(isa, total2, part2), widen_products(isa, total3, part3)
                target, lead = (place + j) * 1024 + (block & 63) * 16, (place + j) * 32
                if block & 3 == 0:
                    # the lines that the next four blocks write; without this, stores of so many queries wait for memory
                    ahead = target + (64 if block & 63 < 60 else queries * 1024 - 960)
                    prefetch(bounds, ahead)
                    prefetch(bounds, ahead + 1024)
                    prefetch(bounds, ahead + 2048)
                    prefetch(bounds, ahead + 3072)
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
