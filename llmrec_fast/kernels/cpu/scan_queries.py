"""Turn queries into what the stages of the bounded scan multiply: rotated integer codes, weights of the bounds, thresholds.

Everything is computed in float64 for a query of unit length; BOUNDS.md names the quantities. Cost of a query: d^2 operations.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.codes import ScanPlan
from llmrec_fast.kernels.cpu.finer_bounds import SCORE_ALL, SEARCHABLE
from llmrec_fast.kernels.jit import jit

# Columns of `QueryCodes.numbers`
UNIT, FIRST_ERROR, SECOND_ERROR, THIRD_ERROR, TO_BOUND, OFFSET, SLACK, SQUARE = range(8)
NUMBERS = 8
_MARGIN = np.float64(1 + 2.0**-20)


@dataclass(frozen=True)
class QueryCodes:
    """A group of queries, padded with zeros to a multiple of the tile.

    Attributes
    ----------
    wide : (q, d) float64, the queries themselves, for the exact scores.
    first, second : int8 codes; third : int16 codes.
    offsets : (2, q) int32, taken from the products of the two 4-bit stages because their row codes are unsigned.
    first_weights (q, 5), second_weights (q, 6), third_weights (q, 3) : float32 factors of the bounds.
    numbers : (q, 8) float64: unit of the first stage's bounds, the three stages' own rounding, and the terms that turn an exact
        score into a threshold.
    status : (q,) int64, SEARCHABLE where the bounds can be evaluated in float32, else SCORE_ALL: every row must be scored.
    """

    wide: Float64Array
    first: Any
    second: Any
    third: Any
    offsets: Any
    first_weights: Float32Array
    second_weights: Float32Array
    third_weights: Float32Array
    numbers: Float64Array
    status: Int64Array


def prepare_queries(queries: Float32Array, plan: ScanPlan, padded: int) -> QueryCodes:
    """Codes of `queries` (q, d), padded to `padded` queries with zeros."""
    dim = queries.shape[1]
    codes = QueryCodes(
        wide=np.zeros((padded, dim)),
        first=np.zeros((padded, plan.first), np.int8),
        second=np.zeros((padded, max(plan.second, 64)), np.int8),
        third=np.zeros((padded, plan.third), np.int16),
        offsets=np.zeros((2, padded), np.int32),
        first_weights=np.zeros((padded, 5), np.float32),
        second_weights=np.zeros((padded, 6), np.float32),
        third_weights=np.zeros((padded, 3), np.float32),
        numbers=np.zeros((padded, NUMBERS)),
        status=np.full(padded, SCORE_ALL),
    )
    rotation = _IDENTITY if plan.rotation is None else plan.rotation
    _prepare(
        queries,
        rotation,
        plan.mean,
        plan.euclidean,
        plan.scale,
        plan.bias_centre,
        plan.bias_radius,
        plan.first,
        plan.second,
        # int16 products with int8 codes of up to 16,384 columns must fit in int32
        min(4095, (2**31 - 1) // (128 * plan.third)),
        codes.wide,
        codes.first,
        codes.second,
        codes.third,
        codes.offsets,
        codes.first_weights,
        codes.second_weights,
        codes.third_weights,
        codes.numbers,
        codes.status,
    )
    return codes


_IDENTITY = np.zeros((0, 0), np.float32)


@jit(fastmath={"reassoc", "contract", "nsz", "nnan"})
def _quantise(z: Float64Array, start: int, stop: int, levels: int, codes: np.ndarray) -> tuple[np.float32, int, float]:
    """Codes of z[start:stop] with |code| <= levels; the step, the sum of the codes, the norm of what is lost."""
    largest = 0.0
    for c in range(start, stop):
        largest = max(largest, abs(z[c]))
    step = np.float32(max(largest / levels, 1e-30))
    inverse = 1 / np.float64(step)
    total, lost = np.int32(0), 0.0
    for c in range(start, stop):
        code = min(max(np.rint(z[c] * inverse), -np.float64(levels)), np.float64(levels))
        codes[c - start] = np.int16(code)
        total += np.int32(code)
        lost += (z[c] - code * step) ** 2
    return step, total, np.sqrt(lost) * _MARGIN + 1e-12


@jit(fastmath={"reassoc", "contract", "nsz"})
def _norm(z: Float64Array, start: int, stop: int) -> float:
    total = 0.0
    for c in range(start, stop):
        total += z[c] * z[c]
    return np.sqrt(total) * _MARGIN + 1e-12


@jit(fastmath={"reassoc", "contract", "nsz"})
def _rotate(unit: Float64Array, rotation: Float32Array, z: Float64Array) -> None:
    dim = len(unit)
    for c in range(dim):
        z[c] = 0.0
    for i in range(0, dim - 3, 4):
        u0, u1, u2, u3 = unit[i], unit[i + 1], unit[i + 2], unit[i + 3]
        v0, v1, v2, v3 = rotation[i], rotation[i + 1], rotation[i + 2], rotation[i + 3]
        for c in range(dim):
            z[c] += (u0 * np.float64(v0[c]) + u1 * np.float64(v1[c])) + (
                u2 * np.float64(v2[c]) + u3 * np.float64(v3[c])
            )
    for i in range(dim - dim % 4, dim):
        for c in range(dim):
            z[c] += unit[i] * np.float64(rotation[i, c])


@jit(fastmath={"reassoc", "contract", "nsz"})
def _rotate_two(unit: Float64Array, rotation: Float32Array, z0: Float64Array, z1: Float64Array) -> None:
    """`_rotate` for the two rows of `unit`, which share the loads of the rotation: .6 of the time a query."""
    dim = unit.shape[1]
    for c in range(dim):
        z0[c], z1[c] = 0.0, 0.0
    for i in range(0, dim - 3, 4):
        a0, a1, a2, a3 = unit[0, i], unit[0, i + 1], unit[0, i + 2], unit[0, i + 3]
        b0, b1, b2, b3 = unit[1, i], unit[1, i + 1], unit[1, i + 2], unit[1, i + 3]
        v0, v1, v2, v3 = rotation[i], rotation[i + 1], rotation[i + 2], rotation[i + 3]
        for c in range(dim):
            w0, w1, w2, w3 = np.float64(v0[c]), np.float64(v1[c]), np.float64(v2[c]), np.float64(v3[c])
            z0[c] += (a0 * w0 + a1 * w1) + (a2 * w2 + a3 * w3)
            z1[c] += (b0 * w0 + b1 * w1) + (b2 * w2 + b3 * w3)
    for i in range(dim - dim % 4, dim):
        for c in range(dim):
            w = np.float64(rotation[i, c])
            z0[c] += unit[0, i] * w
            z1[c] += unit[1, i] * w


@jit()
def _rotate_all(unit: Float64Array, rotation: Float32Array, z: Float64Array) -> None:
    for j in range(0, len(unit) - 1, 2):
        _rotate_two(unit[j : j + 2], rotation, z[j], z[j + 1])
    if len(unit) % 2:
        _rotate(unit[-1], rotation, z[-1])


@jit()
def _prepare(
    queries: Float32Array,
    rotation: Float32Array,
    mean: Float32Array,
    euclidean: bool,
    scale: float,
    bias_centre: float,
    bias_radius: float,
    first: int,
    second: int,
    levels: int,
    wide: Float64Array,
    first_codes: np.ndarray,
    second_codes: np.ndarray,
    third_codes: np.ndarray,
    offsets: np.ndarray,
    first_weights: Float32Array,
    second_weights: Float32Array,
    third_weights: Float32Array,
    numbers: Float64Array,
    status: Int64Array,
) -> None:
    count, dim = queries.shape
    stop0 = min(first, dim)
    stop1 = min(first + second, dim)
    directions, rotated, moments = np.zeros((count, dim)), np.empty((count, dim)), np.empty((count, 3))
    for j in range(count):
        square, along_mean, own_square, mean_square = 0.0, 0.0, 0.0, 0.0
        for c in range(dim):
            q, m = np.float64(queries[j, c]), np.float64(mean[c])
            wide[j, c] = q
            u = q - m if euclidean else q
            directions[j, c] = u
            square += u * u
            own_square += q * q
            mean_square += m * m
            along_mean += q * m
        moments[j, 0], moments[j, 1], moments[j, 2] = square, along_mean, own_square * mean_square
        if square > 0:
            norm = np.sqrt(square)
            for c in range(dim):
                directions[j, c] /= norm
    if len(rotation) > 0:
        _rotate_all(directions, rotation, rotated)
    else:
        rotated[:] = directions
    for j in range(count):
        square, along_mean, squares = moments[j, 0], moments[j, 1], moments[j, 2]
        norm, z = np.sqrt(square), rotated[j]
        if norm == 0.0:
            continue

        # how an exact score becomes a threshold for bounds of the unit query and the scaled row
        if euclidean:
            to_bound = 0.5 * scale / norm
            bias_weight = 1.0 / (scale * norm)
            offset = square * to_bound - bias_centre * bias_weight
            slack = square * to_bound + abs(bias_centre) * bias_weight
        else:
            to_bound = scale / norm
            bias_weight = scale / norm if bias_radius > 0 else 0.0
            offset = -(along_mean + bias_centre) * to_bound
            slack = (np.sqrt(squares) + abs(bias_centre)) * to_bound
        spread = bias_weight * bias_radius
        if not (
            spread < 1e25
            and bias_weight < 1e25
            and (bias_weight > 1e-30 or bias_weight == 0.0)
            and 0 < to_bound < 1e300
        ):
            continue
        status[j] = SEARCHABLE
        unit = (1.5 + 1.5 * spread) / 32000
        inverse = 1 / unit

        step0, sum0, error0 = _quantise(z, 0, stop0, 127, first_codes[j])
        step1, sum1, error1 = _quantise(z, stop0, stop1, 127, second_codes[j])
        step2, _, error2 = _quantise(z, 0, dim, levels, third_codes[j])
        # sum of (code - 7.5) * q = product - floor(7.5 * sum) - half, in integers
        offsets[0, j] = -((15 * sum0) >> 1)
        offsets[1, j] = -((15 * sum1) >> 1)
        half0, half1 = 0.5 * ((15 * sum0) & 1), 0.5 * ((15 * sum1) & 1)
        first_weights[j, 0] = step0 * inverse
        first_weights[j, 1] = -half0 * step0 * inverse
        first_weights[j, 2] = _norm(z, 0, stop0) * inverse * _MARGIN
        first_weights[j, 3] = _norm(z, stop0, dim) * inverse * _MARGIN if stop0 < dim else 0.0
        first_weights[j, 4] = bias_weight * inverse
        second_weights[j, 0] = unit
        second_weights[j, 1] = step1
        second_weights[j, 2] = -half1 * step1
        # the first stage's tail is taken back, a little less than was given so that its own rounding stays covered
        second_weights[j, 3] = np.float64(first_weights[j, 3]) * unit * (1 - 2.0**-17)
        second_weights[j, 4] = _norm(z, stop0, stop1) * _MARGIN
        second_weights[j, 5] = _norm(z, stop1, dim) * _MARGIN
        third_weights[j, 0] = step2
        third_weights[j, 1] = _norm(z, 0, dim) * _MARGIN
        third_weights[j, 2] = bias_weight
        numbers[j, 0] = unit
        numbers[j, 1] = error0
        numbers[j, 2] = error1
        numbers[j, 3] = error2
        numbers[j, 4] = to_bound
        numbers[j, 5] = offset
        numbers[j, 6] = slack * (dim + 16) * 2.0**-51
        numbers[j, 7] = square
