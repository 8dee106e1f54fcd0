"""Encode rows for the bounded scan: centre, rotate, quantise, measure what the rounding lost.

Cost of a row: 2 d^2 operations to rotate (d up to `fitting`'s limit, else none), and about 10 d to quantise. The
norms are measured in float64 on the codes that are stored, so their soundness does not rest on how a step was chosen.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array
from llmrec_fast.kernels.codes import (
    LEAST_NORM,
    ROTATION_DEPTH,
    SUMMARY,
    WILD_NORM,
    WILD_RADII,
    Codes,
    ScanPlan,
    empty_codes,
)
from llmrec_fast.kernels.cpu.intrinsics import (
    instruction_set,
    load_floats8,
    load_splat_floats8,
    multiply_add_floats8,
    splat_floats8,
    store_floats8,
)
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel

_TILE_BYTES = 384 << 10  # rows that stay in a core's own cache while every panel of the rotation passes
_STEPS = np.array([1.75, 2.1, 2.4, 2.7, 3.1, 3.6]) / 7.5
_LOSSLESS = np.float64(1 + 2.0**-20)  # covers the rounding of a float64 norm to float32
_DEPTH = ROTATION_DEPTH
_WILD_NORM, _WILD_RADII, _LEAST_NORM = WILD_NORM, WILD_RADII, LEAST_NORM


def encode_rows(
    rows: Float32Array,
    plan: ScanPlan,
    *,
    bias: Float32Array | None = None,
    out: Codes | None = None,
    threads: int | None = None,
) -> Codes:
    """Codes of `rows`, appended to `out` if given.

    Parameters
    ----------
    rows : (n, d) float32, finite; may be mapped from disk.
    plan : how to encode.
    bias : (n,) float32, or None for zeros. For Euclidean distance the plan makes its own.
    out : codes with room for n more rows, which are written behind those it has; readers of `out` see no change.

    Returns
    -------
    Codes : of `out`'s rows and these. Shares its arrays with `out`.
    """
    if out is None:
        out = empty_codes(plan, len(rows))
    panels = pack_rotation(plan.rotation)
    isa = instruction_set()

    def encode(start: int, stop: int) -> Float64Array:
        piece = np.ascontiguousarray(rows[start:stop])
        centred, rotated = np.empty((2, stop - start, plan.dim), np.float32)
        summary = np.zeros(SUMMARY)
        with_bias = bias is not None and not plan.euclidean
        _rotate_rows(isa, piece, plan.mean, np.float32(plan.scale), panels, centred, rotated)
        _encode_tile(
            rotated,
            centred,
            bias[start:stop] if with_bias and bias is not None else _NO_BIAS,
            plan.euclidean,
            plan.bias_centre,
            plan.bias_radius,
            plan.row_slack,
            plan.first,
            plan.second,
            plan.third,
            _STEPS,
            out.rows + start,
            out.first,
            out.first.view(np.uint16),
            out.second,
            out.second.view(np.float32),
            out.third,
            out.third_terms,
            summary,
        )
        return summary

    height = max(16, _TILE_BYTES // (4 * plan.dim))
    calls = [(start, min(start + height, len(rows))) for start in range(0, len(rows), height)]
    summaries = run_parallel(encode, calls, threads or get_threads())
    if not summaries:
        return out
    table = np.array(summaries)
    return out.grown(len(rows), np.concatenate([table[:, :3].max(axis=0), table[:, 3:].sum(axis=0)]))


_NO_BIAS = np.zeros(0, np.float32)


def pack_rotation(rotation: Float32Array | None) -> Float32Array:
    """The rotation cut in panels of 16 columns, (panels, d, 16), as `_rotate_rows` reads it; empty for the identity."""
    if rotation is None:
        return np.zeros((0, 0, 16), np.float32)
    dim = len(rotation)
    padded = np.zeros((dim, -(-dim // 16) * 16), np.float32)
    padded[:, :dim] = rotation
    return np.ascontiguousarray(padded.reshape(dim, -1, 16).transpose(1, 0, 2))


@jit()
def _rotate_rows(
    isa: Any,
    rows: Float32Array,
    mean: Float32Array,
    scale: np.float32,
    panels: Float32Array,
    centred: Float32Array,
    rotated: Float32Array,
) -> None:
    """centred = (rows - mean) * scale; rotated = centred @ rotation, summed over 128 columns at a time.

    Four rows times sixteen columns stay in registers. BLAS is faster by little, but its idle threads spin and would hold the
    cores that the quantisation needs, and the order in which it sums is not ours to bound.
    """
    n, dim = rows.shape
    for i in range(n):
        for c in range(dim):
            centred[i, c] = (rows[i, c] - mean[c]) * scale
    if len(panels) == 0:
        for i in range(n):
            for c in range(dim):
                rotated[i, c] = centred[i, c]
        return
    tile = np.empty((4, 16), np.float32)
    row_bytes = dim * 4
    for panel in range(len(panels)):
        columns = min(16, dim - panel * 16)
        for top in range(0, n, 4):
            height = min(4, n - top)
            # rows past the end repeat the last one; their results are not stored
            o0 = top * row_bytes
            o1 = (top + min(1, height - 1)) * row_bytes
            o2 = (top + min(2, height - 1)) * row_bytes
            o3 = (top + min(3, height - 1)) * row_bytes
            for start in range(0, dim, _DEPTH):
                stop = min(start + _DEPTH, dim)
                zero = splat_floats8(np.float32(0))
                a00, a01, a10, a11 = zero, zero, zero, zero
                a20, a21, a30, a31 = zero, zero, zero, zero
                at = (panel * dim + start) * 64
                for c in range(start * 4, stop * 4, 4):
                    left, right = load_floats8(panels, at), load_floats8(panels, at + 32)
                    x = load_splat_floats8(centred, o0 + c)
                    a00, a01 = multiply_add_floats8(isa, x, left, a00), multiply_add_floats8(isa, x, right, a01)
                    x = load_splat_floats8(centred, o1 + c)
                    a10, a11 = multiply_add_floats8(isa, x, left, a10), multiply_add_floats8(isa, x, right, a11)
                    x = load_splat_floats8(centred, o2 + c)
                    a20, a21 = multiply_add_floats8(isa, x, left, a20), multiply_add_floats8(isa, x, right, a21)
                    x = load_splat_floats8(centred, o3 + c)
                    a30, a31 = multiply_add_floats8(isa, x, left, a30), multiply_add_floats8(isa, x, right, a31)
                    at += 64
                store_floats8(tile, 0, a00)
                store_floats8(tile, 32, a01)
                store_floats8(tile, 64, a10)
                store_floats8(tile, 96, a11)
                store_floats8(tile, 128, a20)
                store_floats8(tile, 160, a21)
                store_floats8(tile, 192, a30)
                store_floats8(tile, 224, a31)
                for i in range(height):
                    for c in range(columns):
                        before = rotated[top + i, panel * 16 + c] if start > 0 else np.float32(0)
                        rotated[top + i, panel * 16 + c] = before + tile[i, c]


@jit(inline=True)
def _bfloat_nearest(value: np.float32) -> np.uint16:
    return np.uint16((np.uint64(np.float32(value).view(np.uint32)) + np.uint64(0x8000)) >> np.uint64(16))


@jit(inline=True)
def _bfloat_up(value: np.float32) -> np.uint16:
    """The least bfloat16 that is not below `value`."""
    bits = np.uint64(np.float32(value).view(np.uint32))
    if value > np.float32(0):
        bits += np.uint64(0xFFFF)
    return np.uint16(bits >> np.uint64(16))


@jit(inline=True)
def _bfloat_value(bits: np.uint16) -> np.float32:
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@jit(fastmath={"reassoc", "contract", "nsz"})
def _choose_step(row: Float32Array, start: int, stop: int, steps: Float64Array) -> np.float32:
    """The step, of a few multiples of the root mean square, that loses least."""
    total = np.float32(0)
    for c in range(start, stop):
        total += row[c] * row[c]
    root = np.float32(np.sqrt(total / np.float32(max(1, stop - start)))) + np.float32(1e-30)
    least, chosen = np.float32(np.inf), root
    for multiple in steps:
        step = np.float32(multiple) * root
        inverse, lost = np.float32(1) / step, np.float32(0)
        for c in range(start, stop):
            level = min(max(np.floor(row[c] * inverse), np.float32(-8)), np.float32(7)) + np.float32(0.5)
            difference = row[c] - level * step
            lost += difference * difference
        if lost < least:
            least, chosen = lost, step
    return chosen


@jit(fastmath={"reassoc", "contract", "nsz"})
def _quantise4(
    row: Float32Array, start: int, stop: int, step: np.float32, codes: np.ndarray
) -> tuple[np.float64, np.float64]:
    """Fill `codes`; the squared norms of what is lost and of what is stored, in float64."""
    inverse = np.float32(1) / step
    wide = np.float64(step)
    lost, stored = 0.0, 0.0
    for c in range(start, stop):
        level = min(max(np.floor(row[c] * inverse), np.float32(-8)), np.float32(7))
        codes[c - start] = np.uint8(np.int32(level) + 8)
        value = (np.float64(level) + 0.5) * wide
        difference = np.float64(row[c]) - value
        lost += difference * difference
        stored += value * value
    return lost, stored


@jit(fastmath={"reassoc", "contract", "nsz"})
def _quantise8(row: Float32Array, step: np.float32, codes: np.ndarray, at: int) -> tuple[np.float64, np.float64]:
    inverse = np.float32(1) / step
    wide = np.float64(step)
    lost, stored = 0.0, 0.0
    for c in range(row.shape[0]):
        level = min(max(np.rint(row[c] * inverse), np.float32(-127)), np.float32(127))
        codes[at + c] = np.int8(level)
        value = np.float64(level) * wide
        difference = np.float64(row[c]) - value
        lost += difference * difference
        stored += value * value
    return lost, stored


@jit(fastmath={"reassoc", "contract", "nsz"})
def _square_norm(row: Float32Array, start: int, stop: int) -> np.float64:
    total = 0.0
    for c in range(start, stop):
        total += np.float64(row[c]) * np.float64(row[c])
    return total


@jit(inline=True)
def _norm_up(square: float, slack: float) -> np.float32:
    """A float32 not below sqrt(square) + slack."""
    return np.float32((np.sqrt(square) + slack) * _LOSSLESS + _LEAST_NORM)


@jit()
def _encode_tile(
    rotated: Float32Array,
    centred: Float32Array,
    bias: Float32Array,
    euclidean: bool,
    bias_centre: float,
    bias_radius: float,
    row_slack: float,
    first: int,
    second: int,
    third: int,
    steps: Float64Array,
    at: int,
    first_codes: np.ndarray,
    first_terms: np.ndarray,
    second_codes: np.ndarray,
    second_terms: Float32Array,
    third_codes: np.ndarray,
    third_terms: Float32Array,
    summary: Float64Array,
) -> None:
    """Write the codes of rows at, at + 1, ... A row's bytes are its own: readers of earlier rows are not disturbed."""
    n, dim = rotated.shape
    stride = first * 4 + 64
    second_stride = second // 2 + 16
    stop0 = min(first, dim)
    stop1 = min(first + second, dim)
    codes = np.zeros(max(first, second), np.uint8)
    blank = np.zeros(dim, np.float32)
    for i in range(n):
        place = at + i
        square = _square_norm(rotated[i], 0, dim)
        own_bias = 0.0
        if euclidean:
            # rounding of the centring moves |y|^2 by 2 roundoffs at most; four are given back to stay above
            own_bias = -0.5 * _square_norm(centred[i], 0, dim) * (1 - 2.0**-22) - bias_centre
        elif len(bias) > 0:
            own_bias = np.float64(bias[i]) - bias_centre
        else:
            own_bias = -bias_centre
        wild = not square <= _WILD_RADII * _WILD_RADII or (not euclidean and abs(own_bias) > _WILD_RADII * bias_radius)
        row = blank if wild else rotated[i]
        if wild:
            square, own_bias = 0.0, 0.0
            summary[5] += 1
        slack = row_slack * np.sqrt(square)
        upper_bias = np.float32(own_bias + abs(own_bias) * 2.0**-19)

        step_bits = _bfloat_nearest(_choose_step(row, 0, stop0, steps))
        lost, stored = _quantise4(row, 0, stop0, _bfloat_value(step_bits), codes)
        summary[0] = max(summary[0], np.sqrt(stored))
        rounding = _WILD_NORM if wild else _norm_up(lost, slack)
        tail = np.float32(0)
        if stop0 < dim:
            tail = np.float32(_WILD_NORM) if wild else _norm_up(_square_norm(row, stop0, dim), slack)
        rounding_bits, tail_bits = _bfloat_up(np.float32(rounding)), _bfloat_up(tail)
        summary[3] += 0.0 if wild else rounding
        summary[4] += 0.0 if wild else tail
        block, lane = place >> 3, place & 7
        for c in range(stop0, first):
            codes[c] = 8
        for group in range(first >> 3):
            target = block * stride + group * 32 + lane * 4
            for c in range(4):
                first_codes[target + c] = codes[8 * group + c] | (codes[8 * group + 4 + c] << 4)
        target = (block * stride + first * 4) // 2 + lane
        first_terms[target] = step_bits
        first_terms[target + 8] = rounding_bits
        first_terms[target + 16] = tail_bits
        first_terms[target + 24] = _bfloat_up(upper_bias)

        if second > 0:
            step = _choose_step(row, stop0, stop1, steps)
            lost, stored = _quantise4(row, stop0, stop1, step, codes)
            summary[1] = max(summary[1], np.sqrt(stored))
            for c in range(stop1 - stop0, second):
                codes[c] = 8
            target = place * second_stride
            for group in range(second >> 6):
                for c in range(32):
                    second_codes[target + group * 32 + c] = codes[64 * group + c] | (codes[64 * group + 32 + c] << 4)
            target = (target + second // 2) // 4
            second_terms[target] = step
            second_terms[target + 1] = np.float32(_WILD_NORM) if wild else _norm_up(lost, slack)
            second_terms[target + 2] = (
                np.float32(_WILD_NORM) if wild else _norm_up(_square_norm(row, stop1, dim), slack)
            )
            second_terms[target + 3] = _bfloat_value(tail_bits)

        largest = np.float32(0)
        for c in range(dim):
            largest = max(largest, abs(row[c]))
        step = max(largest / np.float32(127), np.float32(1e-30))
        lost, stored = _quantise8(row, step, third_codes, place * third)
        summary[2] = max(summary[2], np.sqrt(stored))
        third_terms[place * 4] = step
        third_terms[place * 4 + 1] = np.float32(np.inf) if wild else _norm_up(lost, slack)
        third_terms[place * 4 + 2] = upper_bias
