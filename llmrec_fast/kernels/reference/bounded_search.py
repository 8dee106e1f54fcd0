"""Exact top k by scoring every row, and the bounds of BOUNDS.md evaluated in float64: what the compiled scans are held against.

`bounded_search` skips nothing: as an oracle it must not rest on the bounds that it judges. `stage_bounds` decodes the
codes and evaluates the three bounds as they stand in BOUNDS.md, with the rounding of nothing but the codes themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.codes import Codes, ScanCounts, ScanPlan, ScanSegment, no_exclusions

_ROWS_AT_A_TIME = 16_384


def bounded_search(
    segments: Sequence[ScanSegment],
    queries: Float32Array,
    k: int,
    *,
    euclidean: bool,
    excluded: tuple[Int64Array, Int64Array] | None = None,
    threads: int | None = None,
    counts: ScanCounts | None = None,
) -> tuple[Float64Array, Int64Array]:
    """Exact top k; see `kernels.cpu.bounded_search`. `threads` is accepted and not used."""
    indptr, excluded_rows = excluded or no_exclusions(len(queries))
    scores = np.full((len(queries), k), -np.inf)
    positions = np.full((len(queries), k), -1, np.int64)
    for j, query in enumerate(queries):
        own_scores, own_positions = [], []
        for segment in segments:
            count = len(segment.rows)
            allowed = np.unpackbits(segment.allowed, count=count, bitorder="little").view(np.bool_)
            local = excluded_rows[indptr[j] : indptr[j + 1]] - segment.base
            allowed[local[(local >= 0) & (local < count)]] = False
            chosen = np.flatnonzero(allowed)
            own_scores.append(exact_scores(segment.rows[chosen], segment.bias[chosen], query, euclidean))
            own_positions.append(chosen + segment.base)
        if not own_scores:
            continue
        all_scores, all_positions = np.concatenate(own_scores), np.concatenate(own_positions)
        order = np.lexsort((all_positions, -all_scores))[:k]
        scores[j, : len(order)], positions[j, : len(order)] = all_scores[order], all_positions[order]
        if counts is not None:
            counts.scanned += len(all_scores)
            counts.reranked += len(all_scores)
    return scores, positions


def exact_scores(rows: Float32Array, bias: Float32Array, query: Float32Array, euclidean: bool) -> Float64Array:
    """Float64 scores of rows (n, d), summed in the order that every device keeps: columns by eight lanes, lanes by halves."""
    scores = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        piece = rows[start : start + _ROWS_AT_A_TIME].astype(np.float64)
        wide = query.astype(np.float64)
        terms = np.square(wide - piece) if euclidean else piece * wide
        full = terms.shape[1] & ~7
        lanes = np.zeros((len(terms), 8))
        for c in range(0, full, 8):
            lanes += terms[:, c : c + 8]
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        total = lanes[:, 0]
        for c in range(full, terms.shape[1]):
            total = total + terms[:, c]
        scores[start : start + len(piece)] = -np.sqrt(total) if euclidean else total + bias[start : start + len(piece)]
    return scores


def decoded_stages(codes: Codes) -> tuple[Float64Array, Float64Array, Float64Array]:
    """The rows as the first stage, the first two, and the int8 stage know them: three (n, d) arrays, zero where not stored."""
    plan, rows = codes.plan, codes.rows
    dim, stop0, stop1 = plan.dim, min(plan.first, plan.dim), min(plan.first + plan.second, plan.dim)
    first = np.zeros((rows, dim))
    blocks = codes.first.reshape(-1, plan.first_stride)
    packed = blocks[:, : plan.first * 4].reshape(len(blocks), -1, 8, 4).transpose(0, 2, 1, 3)
    levels = np.stack([packed & 15, packed >> 4], axis=3).reshape(len(blocks) * 8, plan.first)[:rows, :stop0] - 7.5
    first[:, :stop0] = levels * first_terms(codes)[:, :1]
    second = first.copy()
    if plan.second:
        records = codes.second.reshape(-1, plan.second_stride)[:rows]
        pairs = records[:, : plan.second // 2].reshape(rows, -1, 32)
        levels = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(rows, plan.second)[:, : stop1 - stop0] - 7.5
        second[:, stop0:stop1] = levels * second_terms(codes)[:, :1]
    steps = codes.third_terms.reshape(-1, 4)[:rows, :1].astype(np.float64)
    third: Float64Array = codes.third.reshape(-1, plan.third)[:rows, :dim] * steps
    return first, second, third


def first_terms(codes: Codes) -> Float64Array:
    """(n, 4): step, rounding norm, tail norm, bias of the first stage."""
    stride = codes.plan.first_stride
    blocks = codes.first.reshape(-1, stride)
    bits = blocks[:, stride - 64 :].copy().view(np.uint16).reshape(len(blocks), 4, 8).transpose(0, 2, 1).reshape(-1, 4)
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)[: codes.rows].astype(np.float64)


def second_terms(codes: Codes) -> Float64Array:
    """(n, 4): step, rounding norm, norm after the second stage, tail norm of the first."""
    plan = codes.plan
    records = codes.second.reshape(-1, plan.second_stride)[: codes.rows]
    return records[:, plan.second // 2 :].copy().view(np.float32).astype(np.float64)


def rotated_query(plan: ScanPlan, query: Float32Array) -> tuple[Float64Array, float]:
    """The rotated query of unit length, and the length that was divided out."""
    wide = query.astype(np.float64)
    moved = wide - plan.mean if plan.euclidean else wide
    norm = float(np.linalg.norm(moved))
    unit = moved / norm
    return unit if plan.rotation is None else unit @ plan.rotation.astype(np.float64), norm


def stage_bounds(codes: Codes, query: Float32Array) -> Float64Array:
    """(n, 3) upper bounds of every row's score, in the score's own unit (for Euclidean distance: of minus half its square)."""
    plan = codes.plan
    z, norm = rotated_query(plan, query)
    stop0, stop1 = min(plan.first, plan.dim), min(plan.first + plan.second, plan.dim)
    n0, n1, n2 = (float(np.linalg.norm(part)) for part in np.split(z, [stop0, stop1]))
    tail = float(np.hypot(n1, n2))
    first, second, third = decoded_stages(codes)
    terms = first_terms(codes)
    bias_weight = 1 / (plan.scale * norm) if plan.euclidean else plan.scale / norm
    bounds = np.empty((codes.rows, 3))
    bounds[:, 0] = first @ z + n0 * terms[:, 1] + tail * terms[:, 2] + bias_weight * terms[:, 3]
    bounds[:, 1] = bounds[:, 0]
    if plan.second:
        finer = second_terms(codes)
        left = n0 * terms[:, 1] + n1 * finer[:, 1] + n2 * finer[:, 2]
        bounds[:, 1] = second @ z + left + bias_weight * terms[:, 3]
    last = codes.third_terms.reshape(-1, 4)[: codes.rows].astype(np.float64)
    bounds[:, 2] = third @ z + np.linalg.norm(z) * last[:, 1] + bias_weight * last[:, 2]
    back = norm / plan.scale
    if plan.euclidean:
        return bounds * back + plan.bias_centre / plan.scale**2 - 0.5 * norm * norm
    along_mean = float(query.astype(np.float64) @ plan.mean)
    return bounds * back + along_mean + plan.bias_centre
