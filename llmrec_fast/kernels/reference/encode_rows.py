"""Encode rows in NumPy and float64: the same layout and promises as the compiled encoders, nothing of their speed.

Codes may differ from another device's where a value lies at the border of two levels; the norms beside them say what was lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Float64Array
from llmrec_fast.kernels.codes import LEAST_NORM, SUMMARY, WILD_NORM, WILD_RADII, Codes, ScanPlan, empty_codes

_STEPS = np.array([1.75, 2.1, 2.4, 2.7, 3.1, 3.6]) / 7.5
_UP = 1 + 2.0**-20


def encode_rows(
    rows: Float32Array,
    plan: ScanPlan,
    *,
    bias: Float32Array | None = None,
    out: Codes | None = None,
    threads: int | None = None,
) -> Codes:
    """Codes of `rows` (n, d), appended to `out` if given; see `kernels.cpu.encode_rows`. `threads` is accepted and not used."""
    out = out or empty_codes(plan, len(rows))
    count, dim = rows.shape
    if count == 0:
        return out
    centred = (rows.astype(np.float64) - plan.mean) * plan.scale
    rotated = centred if plan.rotation is None else centred @ plan.rotation.astype(np.float64)
    square = np.einsum("ij,ij->i", rotated, rotated)
    if plan.euclidean:
        own_bias = -0.5 * np.einsum("ij,ij->i", centred, centred) - plan.bias_centre
        wild = square > WILD_RADII**2
    else:
        own_bias = (np.zeros(count) if bias is None else bias.astype(np.float64)) - plan.bias_centre
        wild = (square > WILD_RADII**2) | (np.abs(own_bias) > WILD_RADII * plan.bias_radius)
    rotated[wild], own_bias[wild] = 0, 0
    slack = plan.row_slack * np.linalg.norm(rotated, axis=1)
    upper_bias = (own_bias + np.abs(own_bias) * 2.0**-19).astype(np.float32)

    stop0, stop1 = min(plan.first, dim), min(plan.first + plan.second, dim)
    places = out.rows + np.arange(count)
    summary = np.zeros(SUMMARY)
    tail = np.zeros(count, np.float32)
    if stop0 < dim:
        tail = _norm_up(np.linalg.norm(rotated[:, stop0:], axis=1), slack, wild)
    step, codes, lost, stored = _quantise4(rotated[:, :stop0], plan.first, short=True)
    rounding = _norm_up(lost, slack, wild)
    terms = np.stack([_bfloat_bits(step, up=False), *(_bfloat_bits(x, up=True) for x in (rounding, tail, upper_bias))])
    _store_first(out, plan, places, codes, terms)
    summary[0] = stored.max()
    summary[3], summary[4] = rounding[~wild].sum(), tail[~wild].sum()

    if plan.second:
        step, codes, lost, stored = _quantise4(rotated[:, stop0:stop1], plan.second, short=False)
        rest = _norm_up(np.linalg.norm(rotated[:, stop1:], axis=1), slack, wild)
        low = codes.reshape(count, -1, 2, 32)
        records = out.second.reshape(-1, plan.second_stride)
        records[places, : plan.second // 2] = (low[:, :, 0] | low[:, :, 1] << 4).reshape(count, -1)
        numbers = np.stack([step, _norm_up(lost, slack, wild), rest, _bfloat_up(tail)], axis=1)
        records[places, plan.second // 2 :] = numbers.astype(np.float32).view(np.uint8)
        summary[1] = stored.max()

    step8 = np.maximum(np.abs(rotated).max(axis=1) / 127, 1e-30).astype(np.float32)
    levels = np.clip(np.rint(rotated / step8[:, None].astype(np.float64)), -127, 127)
    decoded = levels * step8[:, None].astype(np.float64)
    out.third.reshape(-1, plan.third)[places, :dim] = levels
    out.third_terms.reshape(-1, 4)[places, 0] = step8
    last = _norm_up(np.linalg.norm(rotated - decoded, axis=1), slack, wild)
    out.third_terms.reshape(-1, 4)[places, 1] = np.where(wild, np.inf, last)
    out.third_terms.reshape(-1, 4)[places, 2] = upper_bias
    summary[2] = np.linalg.norm(decoded, axis=1).max()
    summary[5] = wild.sum()
    return out.grown(count, summary)


def _norm_up(norm: Float64Array, slack: Float64Array, wild: npt.NDArray[np.bool_]) -> Float32Array:
    up: Float32Array = np.where(wild, WILD_NORM, (norm + slack) * _UP + LEAST_NORM).astype(np.float32)
    return up


def _bfloat_bits(values: Any, *, up: bool) -> npt.NDArray[np.uint16]:
    """bfloat16 of float32 values: the nearest, or the least that is not below."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    bits += np.where(np.asarray(values) > 0, 0xFFFF, 0).astype(np.uint64) if up else np.uint64(0x8000)
    return (bits >> np.uint64(16)).astype(np.uint16)


def _bfloat_values(bits: npt.NDArray[np.uint16]) -> Float32Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _bfloat_up(values: Float32Array) -> Float32Array:
    return _bfloat_values(_bfloat_bits(values, up=True))


def _quantise4(
    values: Float64Array, padded: int, *, short: bool
) -> tuple[Float32Array, npt.NDArray[np.uint8], Float64Array, Float64Array]:
    """(step, codes padded with 8, norm lost, norm stored) of each row; `short` rounds the step to bfloat16."""
    root = np.sqrt(np.mean(values**2, axis=1)) + 1e-30 if values.shape[1] else np.full(len(values), 1e-30)
    best = np.full(len(values), np.inf)
    step = root.astype(np.float32)
    for multiple in _STEPS:
        candidate = (multiple * root).astype(np.float32)
        lost = np.square(values - _levels(values, candidate) * candidate[:, None].astype(np.float64)).sum(axis=1)
        step, best = np.where(lost < best, candidate, step), np.minimum(lost, best)
    if short:
        step = _bfloat_values(_bfloat_bits(step, up=False))
    levels = _levels(values, step)
    decoded = levels * step[:, None].astype(np.float64)
    codes = np.full((len(values), padded), 8, np.uint8)
    codes[:, : values.shape[1]] = levels + 7.5
    return step, codes, np.linalg.norm(values - decoded, axis=1), np.linalg.norm(decoded, axis=1)


def _levels(values: Float64Array, step: Float32Array) -> Float64Array:
    return np.clip(np.floor(values / step[:, None].astype(np.float64)), -8, 7) + 0.5


def _store_first(
    out: Codes,
    plan: ScanPlan,
    places: npt.NDArray[np.int64],
    codes: npt.NDArray[np.uint8],
    terms: npt.NDArray[np.uint16],
) -> None:
    groups = codes.reshape(len(codes), -1, 2, 4)
    packed = groups[:, :, 0] | groups[:, :, 1] << 4  # (rows, groups, 4 bytes)
    blocks = out.first.reshape(-1, plan.first_stride)
    block, lane = places >> 3, places & 7
    by_lane = blocks[:, : plan.first * 4].reshape(len(blocks), -1, 8, 4)
    by_lane[block, :, lane] = packed
    by_term = blocks[:, plan.first * 4 :].view(np.uint16).reshape(len(blocks), 4, 8)
    by_term[block, :, lane] = terms.T
