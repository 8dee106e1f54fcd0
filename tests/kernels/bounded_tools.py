"""Tools of the bounded scan's tests: plans to encode with, and a count of the rows that a stage would wrongly skip."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.kernels.codes import PANEL_ROWS, Codes, ScanPlan, ScanSegment, allowed_bits, panels_of
from llmrec_fast.kernels.cpu.exact_scores import exact_score
from llmrec_fast.kernels.cpu.finer_bounds import SEARCHABLE, second_bounds, set_thresholds, third_bounds
from llmrec_fast.kernels.cpu.intrinsics import InstructionSet, scan_bytes, store_floats8
from llmrec_fast.kernels.cpu.row_vectors import add_floats8
from llmrec_fast.kernels.cpu.scan_codes import scan_one, scan_tiles, spread_queries, tile_of
from llmrec_fast.kernels.cpu.scan_queries import prepare_queries
from llmrec_fast.kernels.jit import jit
from llmrec_fast.retrieval.fitting import fit_plan


def plan_of(
    rows: np.ndarray, first: int, second: int, *, euclidean: bool = False, bias: np.ndarray | None = None
) -> ScanPlan:
    """A fitted plan, but with stages of these widths."""
    from llmrec_fast.retrieval import fitting

    chosen = fitting._choose_widths
    fitting._choose_widths = lambda *_: (first, second)  # type: ignore[assignment]
    try:
        return fit_plan(rows, bias, rows=len(rows), euclidean=euclidean)
    finally:
        fitting._choose_widths = chosen


def segment_of(rows: np.ndarray, codes: Codes | None, bias: np.ndarray | None = None, base: int = 0) -> ScanSegment:
    """All rows allowed."""
    biases = np.zeros(len(rows), np.float32) if bias is None else bias
    return ScanSegment(base, rows, biases, allowed_bits(len(rows), panels_of(len(rows))), codes)


def violations(isa: InstructionSet, segment: ScanSegment, queries: np.ndarray, change: Any = None) -> np.ndarray:
    """(4,) how many (row, query) pairs each stage, and last the mixed bound, would skip although the threshold is the row's own
    exact score.

    `change(query_codes)` may damage what the queries are turned into, to see whether that is found out.
    """
    codes = segment.codes
    assert codes is not None
    plan, panels = codes.plan, panels_of(len(segment.rows))
    found = np.zeros(4, np.int64)
    for group in (1, 4) if len(queries) > 1 else (1,):
        for start in range(0, len(queries), group):
            own = queries[start : start + group]
            padded = -(-len(own) // tile_of(len(own))) * tile_of(len(own))
            query_codes = prepare_queries(own, plan, padded)
            if change is not None:
                change(query_codes)
            spread = np.zeros(padded * plan.first * 8, np.int8)
            spread_queries(query_codes.first, tile_of(len(own)), scan_bytes(isa), spread)
            bounds = np.zeros(panels * padded * PANEL_ROWS, np.int16)
            best = np.zeros((panels, padded, 8), np.float32)
            scan = scan_one if tile_of(len(own)) == 1 else scan_tiles
            scan(isa, codes.first, plan.first_stride, group == 1, segment.allowed, spread, query_codes.offsets,
                 query_codes.first_weights, 0, panels, 0, bounds, best)  # fmt: skip
            largest = np.array([codes.largest_first, codes.largest_second, codes.largest_third])
            _count(isa, len(own), padded, bounds, query_codes.status, plan.first, plan.second, codes.second,
                   codes.second.view(np.float32), query_codes.second, query_codes.offsets, query_codes.second_weights,
                   codes.third, codes.third_terms, plan.third, query_codes.third, query_codes.third_weights, segment.rows,
                   segment.bias, plan.euclidean, query_codes.wide, query_codes.numbers, largest, found)  # fmt: skip
    return found


@jit()
def _count(
    isa, queries, padded, bounds, status, first, second, second_codes, second_terms, second_queries, offsets, second_weights,
    third_codes, third_terms, third, third_queries, third_weights, rows, bias, euclidean, wide, numbers, largest, found,
):  # fmt: skip
    least, finer = np.zeros(padded, np.int16), np.zeros((padded, 3), np.float32)
    eight, eight_bounds, out = np.zeros(8, np.int32), np.zeros(8, np.int16), np.zeros(8, np.float32)
    for j in range(queries):
        if status[j] != SEARCHABLE:
            continue
        for row in range(rows.shape[0]):
            score = exact_score(rows, row, wide, j, bias, euclidean)
            if set_thresholds(score, j, numbers, largest, euclidean, rows.shape[1], least, finer) != SEARCHABLE:
                continue
            bound16 = bounds[((row >> 9) * padded + j) * 512 + (row & 511)]
            found[0] += bound16 < least[j]
            # eight rows at a time: this one in a lane of its own, others beside it
            for lane in range(8):
                eight[lane] = row if lane == row & 7 else (row * 7 + lane) % rows.shape[0]
                eight_bounds[lane] = bounds[((eight[lane] >> 9) * padded + j) * 512 + (eight[lane] & 511)]
            if second > 0 and bound16 < 32767:
                second_bound, tail = second_bounds(
                    isa,
                    second_codes,
                    second_terms,
                    eight,
                    eight_bounds,
                    0,
                    second,
                    second_queries,
                    offsets[1, j],
                    second_weights,
                    j,
                )
                store_floats8(out, 0, second_bound)
                found[1] += out[row & 7] < finer[j, 0]
                leading = third_bounds(
                    isa, third_codes, third_terms, eight, 0, 0, third, first, third_queries, third_weights, j
                )
                store_floats8(out, 0, add_floats8(leading, tail))
                found[3] += out[row & 7] < finer[j, 1]
            third_bound = third_bounds(
                isa, third_codes, third_terms, eight, 0, 0, third, third, third_queries, third_weights, j
            )
            store_floats8(out, 0, third_bound)
            found[2] += out[row & 7] < finer[j, 2]
