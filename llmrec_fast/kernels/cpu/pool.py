"""`pool` on the CPU: one pass over the rows of each segment, segments shared between threads.

Cost: reads `4 d` bytes (2 d for half precision) of every row of every segment once and writes `4 d` bytes a segment; the
accumulator of one segment stays in the first-level cache.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.kernels.checks import POOL_MODES, PoolMode, check_pool
from llmrec_fast.kernels.cpu.halves import as_bits, to_float32
from llmrec_fast.kernels.cpu.normalize import normalize_row
from llmrec_fast.kernels.jit import jit
from llmrec_fast.kernels.threads import get_threads, run_parallel

_MEAN, _MAX, _SUM, _FIRST, _LAST = range(len(POOL_MODES))
# Below this many elements a call is over before a second thread has started.
_ELEMENTS_WORTH_A_THREAD = 200_000
_PIECES_PER_THREAD = 4


def pool(
    table: npt.ArrayLike,
    starts: npt.ArrayLike,
    lengths: npt.ArrayLike,
    *,
    index: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    mode: PoolMode = "mean",
    normalize: bool = False,
    out: Float32Array | None = None,
    threads: int | None = None,
) -> Float32Array:
    """Reduce segments of rows to one vector each, and L2-normalise it if asked, in one pass.

    Segment s covers the positions `starts[s] .. starts[s] + lengths[s]`. A position is a row of `table` or, with `index`,
    the row `table[index[position]]`. Padded token embeddings of shape (batch, time, d) are `table.reshape(-1, d)` with
    `starts = time * arange(batch)`; packed ones differ in `starts` only.

    Parameters
    ----------
    table : (n, d) float32, float16 or bfloat16; other real dtypes are converted to float32.
    starts, lengths : (segments,) integers. Segments may overlap and come in any order.
    index : (positions,) integers below n.
    weights : (positions,) float32, for the modes mean and sum.
    mode : `mean` (sum of w x over sum of w; zeros where the weights sum to 0), `max`, `sum`, `first`, `last`.
    normalize : whether each result is divided by its Euclidean norm.
    out : (segments, d) float32, C-contiguous, to write to.
    threads : bound on the number of threads (default: `llmrec_fast.get_threads()`).

    Returns
    -------
    (segments, d) float32. Empty segments give zeros, and so do zero vectors when normalised. Sums are float32, rows in
    order, so that the relative error is at most `length * 2**-24` times `sum |w x| / |sum w x|`; norms are float64.

    Raises
    ------
    InvalidInput : a segment outside the positions, an index outside the table, a wrong shape, dtype or mode.
    """
    arguments = check_pool(table, starts, lengths, index, weights, mode, out)
    pieces = _pieces(arguments.lengths, arguments.table.shape[1], get_threads() if threads is None else threads)
    bits, mode_number = as_bits(arguments.table), POOL_MODES.index(mode)
    run_parallel(
        _pool_segments,
        [
            (
                bits,
                arguments.starts,
                arguments.lengths,
                arguments.index,
                arguments.weights,
                mode_number,
                normalize,
                arguments.out,
                start,
                stop,
            )
            for start, stop in pieces
        ],
        threads,
    )
    return arguments.out


def _pieces(lengths: Int64Array, columns: int, threads: int) -> list[tuple[int, int]]:
    """Cut the segments in runs of about equal numbers of rows, few enough that each is worth a thread."""
    segments = len(lengths)
    ends = np.cumsum(lengths + 1)  # + 1: an empty segment still writes a row
    elements = int(ends[-1]) * columns if segments else 0
    count = min(threads * _PIECES_PER_THREAD, elements // _ELEMENTS_WORTH_A_THREAD)
    if threads == 1 or count <= 1:
        return [(0, segments)] if segments else []
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, count) // count)
    edges = np.unique(np.concatenate(([0], cuts, [segments])))
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(edges)]


@jit()
def _pool_segments(table, starts, lengths, index, weights, mode, normalize, out, first, last):
    for segment in range(first, last):
        result = out[segment]
        result[:] = np.float32(0)
        start, length = starts[segment], lengths[segment]
        if length == 0:
            continue
        if mode == _FIRST or mode == _LAST:
            position = start if mode == _FIRST else start + length - 1
            _copy_row(result, table, _row(index, position))
        elif mode == _MAX:
            _copy_row(result, table, _row(index, start))
            for position in range(start + 1, start + length):
                _take_larger(result, table, _row(index, position))
        else:
            mass = _add_rows(result, table, index, weights, start, start + length)
            if mode == _MEAN:
                _divide(result, mass)
        if normalize:
            normalize_row(result, np.float32(1))


@jit(inline=True)
def _row(index, position):
    return position if index is None else index[position]


@jit(inline=True)
def _weight(weights, position):
    return np.float32(1) if weights is None else weights[position]


@jit(inline=True)
def _copy_row(result, table, row):
    for column in range(result.shape[0]):
        result[column] = to_float32(table[row, column])


@jit(inline=True)
def _take_larger(result, table, row):
    for column in range(result.shape[0]):
        value = to_float32(table[row, column])
        # written this way round a NaN in either operand stays, as in numpy.maximum
        result[column] = result[column] if result[column] >= value or result[column] != result[column] else value


@jit(inline=True)
def _add_rows(result, table, index, weights, start, stop):
    """Add the weighted rows to `result`; returns the sum of the weights.

    Four rows a turn: the accumulator is loaded and stored a quarter as often, and gathered rows miss the cache side by
    side instead of one after the other.
    """
    mass = 0.0
    whole = start + (stop - start) // 4 * 4
    for position in range(start, whole, 4):
        r0, r1 = _row(index, position), _row(index, position + 1)
        r2, r3 = _row(index, position + 2), _row(index, position + 3)
        w0, w1 = _weight(weights, position), _weight(weights, position + 1)
        w2, w3 = _weight(weights, position + 2), _weight(weights, position + 3)
        mass += np.float64(w0) + np.float64(w1) + np.float64(w2) + np.float64(w3)
        for column in range(result.shape[0]):
            x0, x1 = to_float32(table[r0, column]), to_float32(table[r1, column])
            x2, x3 = to_float32(table[r2, column]), to_float32(table[r3, column])
            result[column] += (w0 * x0 + w1 * x1) + (w2 * x2 + w3 * x3)
    for position in range(whole, stop):
        row, weight = _row(index, position), _weight(weights, position)
        mass += np.float64(weight)
        for column in range(result.shape[0]):
            result[column] += weight * to_float32(table[row, column])
    return mass


@jit(inline=True)
def _divide(result, mass):
    scale = 1.0 / mass if mass != 0.0 else 0.0
    for column in range(result.shape[0]):
        result[column] = np.float32(np.float64(result[column]) * scale)
