"""Seeds: exclusions are applied to what the scan left, then a few promising rows give a lower bound of the k-th best score.

Cost: for an excluded row a few cache lines, twice where it led its lane; for a seed 4 d scattered bytes.
"""

# Numba infers the types inside kernels; mypy cannot follow NumPy scalars through them
# mypy: disable-error-code="assignment, arg-type, no-any-return, return-value"

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.cpu.exact_scores import exact_score, prefetch_row, push
from llmrec_fast.kernels.cpu.finer_bounds import SEARCHABLE, SECOND_UNITS, set_thresholds
from llmrec_fast.kernels.cpu.intrinsics import load_floats8, prefetch, splat_floats8
from llmrec_fast.kernels.cpu.row_vectors import at_least_floats8
from llmrec_fast.kernels.jit import jit

_PREFETCH_ROWS, _PREFETCH_LEADERS, _PREFETCH_EXCLUDED, _PREFETCH_LANES = 2, 2, 16, 6
_PANEL_BYTES = 1024  # of a panel's bounds of one query


@jit(inline=True)
def _leader(bounds: np.ndarray, at: int) -> tuple[int, int]:
    """(step, bound) of the row with the largest bound in a lane that begins at `at`: rows at, at + 8, ... of a panel.

    Step -1 if no row of it may be returned. Of equal bounds the first counts; no branch depends on the values.
    """
    top = np.int64(-32768) << 6
    for step in range(64):
        top = max(top, (np.int64(bounds[at + step * 8]) << 6) | (63 - step))
    bound = top >> 6
    return (63 - (top & 63) if bound > -32768 else np.int64(-1)), bound


@jit(inline=True)
def _prefetch_bounds(bounds: np.ndarray, place: int) -> None:
    """Ask for a panel's bounds of one query."""
    for line in range(0, _PANEL_BYTES, 64):
        prefetch(bounds, place * _PANEL_BYTES + line)


@jit(inline=True)
def _bfloat(bits: np.uint16) -> np.float32:
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@jit()
def _exclude(
    excluded: Int64Array,
    base: int,
    origin: int,
    rows: int,
    query: int,
    bounds: np.ndarray,
    best: Float32Array,
    first_terms: np.ndarray,
    first_stride: int,
    first_weights: Float32Array,
) -> None:
    """Excluded rows fall below every threshold, and a lane that one of them may have led gets a new leader's estimate.

    `first_terms` are the first stage's codes as 16-bit words: an estimate is the bound without the row's two norms.
    """
    queries = best.shape[1]
    headless, leaders = np.empty(len(excluded), np.int64), np.empty(len(excluded), np.int64)
    count = 0
    for i in range(len(excluded)):
        if i + _PREFETCH_EXCLUDED < len(excluded):
            ahead = excluded[i + _PREFETCH_EXCLUDED] - base - origin
            if 0 <= ahead < rows:
                place = (ahead >> 9) * queries + query
                prefetch(bounds, place * _PANEL_BYTES + (ahead & 511) * 2)
                prefetch(best, place * 32)
        local = excluded[i] - base - origin
        if 0 <= local < rows:
            panel, lane = local >> 9, local & 7
            at = (panel * queries + query) * 512 + (local & 511)
            estimate = best[panel, query, lane]
            # a leader's estimate is not above its own bound
            if estimate > -np.inf and np.float32(bounds[at]) + np.float32(SECOND_UNITS) >= estimate:
                headless[count] = panel * 8 + lane
                count += 1
                best[panel, query, lane] = -np.inf
            bounds[at] = -32768
    for i in range(count):
        if i + _PREFETCH_LANES < count:
            _prefetch_bounds(bounds, (headless[i + _PREFETCH_LANES] >> 3) * queries + query)
        panel, lane = headless[i] >> 3, headless[i] & 7
        step, bound = _leader(bounds, (panel * queries + query) * 512 + lane)
        leaders[i] = ((panel * 64 + step) << 16) + bound + 32768 if step >= 0 else -1
        if step >= 0:
            prefetch(first_terms, (origin // 8 + panel * 64 + step + 1) * first_stride - 64)
    for i in range(count):
        if leaders[i] >= 0:
            lane = headless[i] & 7
            bound = (leaders[i] & 0xFFFF) - 32768
            terms = ((origin // 8 + (leaders[i] >> 16) + 1) * first_stride - 64) // 2 + lane
            left = first_weights[query, 2] * _bfloat(first_terms[terms + 8]) + first_weights[query, 3] * _bfloat(
                first_terms[terms + 16]
            )
            best[headless[i] >> 3, query, lane] = np.float32(bound) - left


@jit()
def _best_lanes(best: Float32Array, query: int, panels: int, values: Float64Array, lanes: Int64Array) -> int:
    """The len(values) lanes with the best estimates, in a heap; how many there are."""
    size, queries = 0, best.shape[1]
    for panel in range(panels):
        if size == len(values):  # then most panels have no lane that reaches the least of them
            own = load_floats8(best, (panel * queries + query) * 32)
            if at_least_floats8(own, splat_floats8(np.float32(values[0]))) == 0:
                continue
        for lane in range(8):
            value = np.float64(best[panel, query, lane])
            if value > -np.inf and (size < len(values) or value > values[0]):
                size = push(values, lanes, size, value, panel * 8 + lane)
    return size


@jit()
def seed(
    first_query: int,
    stop_query: int,
    k: int,
    origin: int,
    base: int,
    panels: int,
    bounds: np.ndarray,
    best: Float32Array,
    indptr: Int64Array,
    excluded: Int64Array,
    first_terms: np.ndarray,
    first_stride: int,
    first_weights: Float32Array,
    rows: Float32Array,
    bias: Float32Array,
    euclidean: bool,
    wide: Float64Array,
    numbers: Float64Array,
    largest: Float64Array,
    known: Float64Array,
    least: np.ndarray,
    finer: Float32Array,
    status: np.ndarray,
    counts: Int64Array,
) -> None:
    """Apply exclusions, then find a lower bound of the k-th best score: the k-th best exact score of a few promising rows.

    These are the rows of the lanes with the best estimates, half as many again as k. `known` is a lower bound found so
    far (-inf if none); `least` and `finer` get the thresholds that follow from it. Rows are local to the segment, which
    begins at row `base` of the index; bounds and best begin at its row `origin`.
    """
    queries = best.shape[1]
    dim = rows.shape[1]
    wanted = k + k // 2 + 10  # estimates rank roughly: half as many again bring the threshold near the true one
    values, lanes, found = np.empty(wanted), np.empty(wanted, np.int64), np.empty(wanted, np.int64)
    scores, scored = np.empty(k), np.empty(k, np.int64)
    for j in range(first_query, stop_query):
        if status[j] != SEARCHABLE:
            continue
        if indptr[j + 1] > indptr[j]:
            _exclude(
                excluded[indptr[j] : indptr[j + 1]], base, origin, panels * 512, j, bounds, best,
                first_terms, first_stride, first_weights,
            )  # fmt: skip
        size = _best_lanes(best, j, panels, values, lanes)
        count = 0
        for i in range(size):
            if i + _PREFETCH_LEADERS < size:
                _prefetch_bounds(bounds, (lanes[i + _PREFETCH_LEADERS] >> 3) * queries + j)
            panel, lane = lanes[i] >> 3, lanes[i] & 7
            step, _ = _leader(bounds, (panel * queries + j) * 512 + lane)
            if step >= 0:
                found[count] = origin + panel * 512 + step * 8 + lane
                count += 1
        if count >= k:
            size = 0
            for i in range(count):
                if i + _PREFETCH_ROWS < count:
                    prefetch_row(rows, found[i + _PREFETCH_ROWS])
                score = exact_score(rows, found[i], wide, j, bias, euclidean)
                size = push(scores, scored, size, score, found[i])
            known[j] = max(known[j], scores[0])
            counts[j, 3] += count
        status[j] = set_thresholds(known[j], j, numbers, largest, euclidean, dim, least, finer)
