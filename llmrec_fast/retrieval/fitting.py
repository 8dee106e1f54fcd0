"""Choose how an index encodes its rows: the mean, the rotation, the scale and the widths of the stages.

Nothing here affects what a search returns. The rotation is the principal axes of a sample of rows, followed inside
each stage by a random rotation that spreads the stage's variance evenly over its columns, so that one step a row
wastes no levels. The widths minimise the modelled time of a search over the sample.

The model's costs are constants, not calibrated on each machine. They enter as ratios only, and the optimum is flat: where the
spectrum falls (real vectors of 384 and 1,024 columns; 1 and 16 queries, k of 10 and 100), widths 32 or 64 columns away took
between 0.9 and 1.5 times as long; where it is flat, two stages took 1.25 to 2.4 times as long as one. And a plan is saved with
its index, which may be loaded on another machine.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.blas import one_blas_thread
from llmrec_fast.kernels.codes import ScanPlan

_SAMPLE_ROWS, _SAMPLE_BYTES = 32_768, 256 << 20
# Principal axes cost d^3 operations, the rotation of a query d^2: beyond this, columns are encoded as they are.
LARGEST_ROTATION = 2048
_COST_QUERIES, _COST_ROWS = 32, 6144
_TYPICAL_K = 20
# A 4-bit grid of the best step loses this part of a normal variable's norm; an int8 query this much of its own.
_ROUNDING, _QUERY_ROUNDING = 0.108, 0.0065
# Codes and norms may take this part of the float32 rows (narrow rows cannot keep to it).
_LARGEST_SHARE = 0.4
# Nanoseconds of one thread: a byte of the scan; a survivor's visit to the second stage, to the third, and per byte of it.
_SCAN_BYTE, _SECOND_VISIT, _THIRD_VISIT, _VISIT_BYTE = 0.06, 40.0, 60.0, 0.2


def sample_positions(count: int, dim: int) -> Int64Array:
    """Which of `count` rows of `dim` columns to fit a plan to, ascending.

    Chosen at random (always the same ones): rows at equal distances would all be near-duplicates of a few where a
    catalogue repeats with a period that shares a factor with the distance.
    """
    wanted = min(_SAMPLE_ROWS, _SAMPLE_BYTES // (4 * dim))
    if count <= wanted:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, wanted, replace=False))


def fit_plan(sample: Float32Array, bias: Float32Array | None, *, rows: int, euclidean: bool, seed: int = 0) -> ScanPlan:
    """A plan for `rows` rows of which `sample` (n, d) is representative.

    Parameters
    ----------
    bias : (n,) float32 of the sample's rows, or None without one.
    seed : of the random rotation.
    """
    dim = sample.shape[1]
    # in float64, and shrunk first, so that norms near float32's limits neither overflow nor vanish
    largest = max(float(sample.max(initial=0.0)), -float(sample.min(initial=0.0)))
    shrink = 2.0 ** -np.clip(np.frexp(largest)[1], -126, 126) if largest > 0 else 1.0
    mean = (sample.mean(axis=0, dtype=np.float64)).astype(np.float32)
    centred = sample - mean
    centred *= np.float32(shrink)
    norms = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64))
    radius = _quantile(norms, 0.999) if len(norms) else 0.0
    scale = shrink * (2.0 ** -np.clip(np.frexp(radius)[1], -100, 100) if radius > 0 else 1.0)
    scale = float(np.clip(scale, 2.0**-126, 2.0**126))
    centre, spread = _bias_range(norms * scale / shrink, bias, euclidean)

    if dim <= LARGEST_ROTATION and len(sample) >= 2:
        with one_blas_thread():
            axes = _principal_axes(centred, None if euclidean else mean.astype(np.float64) * shrink)
            queries = _sample_queries(sample, mean, euclidean)
            first, second = _choose_widths(centred, queries, axes.astype(np.float32), rows)
            rotation = _spread_variance(axes, first, second, np.random.default_rng(seed))
            gram = rotation.astype(np.float64) @ rotation.T.astype(np.float64)
            departure = float(np.linalg.norm(gram - np.eye(dim))) * 1.001 + 1e-9
    else:
        first, second = -(-dim // 32) * 32, 0
        rotation, departure = None, 0.0
    return ScanPlan(dim, euclidean, first, second, mean, rotation, departure, scale, centre, spread)


def _quantile(values: Float64Array, share: float) -> float:
    """`numpy.quantile` but for a rounding, without its import of `numpy.ma`: some 10 ms of the time to a first answer."""
    position = share * (len(values) - 1)
    below = int(position)
    ends = [below, min(below + 1, len(values) - 1)]
    low, high = np.partition(values, ends)[ends]
    return float(low + (high - low) * (position - below))


def _bias_range(norms: Float64Array, bias: Float32Array | None, euclidean: bool) -> tuple[float, float]:
    if euclidean:
        values = -0.5 * norms**2
    elif bias is None or len(bias) == 0:
        return 0.0, 0.0
    else:
        values = bias.astype(np.float64)
    low, high = (_quantile(values, 0.001), _quantile(values, 0.999)) if len(values) else (0.0, 0.0)
    centre = float(np.float32((low + high) / 2))
    return centre, max(float(np.abs(np.array([low, high]) - centre).max()), 1e-3 if euclidean else 0.0)


def _principal_axes(centred: Float32Array, mean: Float64Array | None) -> Float64Array:
    """Columns are the eigenvectors of a matrix of second moments, the largest first.

    What the first stages leave out costs the product of a row's norm and a query's norm along the axes left out. Rows
    count as they are encoded, without their mean. Queries of inner products keep it (`mean`): they are like the rows,
    but the mean is a part of each of them, so it has to lie along the leading axes.
    """
    covariance = (centred.T @ centred).astype(np.float64) / len(centred)
    moments = covariance
    if mean is not None and np.trace(covariance) > 0:
        queries = covariance + np.outer(mean, mean)
        moments = covariance / np.trace(covariance) + queries / np.trace(queries)
    return np.asarray(np.linalg.eigh(moments)[1][:, ::-1])


def _spread_variance(axes: Float64Array, first: int, second: int, generator: np.random.Generator) -> Float32Array:
    dim = len(axes)
    rotation = axes.copy()
    borders = sorted({0, min(first, dim), min(first + second, dim), dim})
    for start, stop in pairwise(borders):
        random = np.linalg.qr(generator.standard_normal((stop - start, stop - start)))[0]
        rotation[:, start:stop] = axes[:, start:stop] @ random
    return np.ascontiguousarray(rotation, np.float32)


def _sample_queries(sample: Float32Array, mean: Float32Array, euclidean: bool) -> Float32Array:
    """Rows serve as queries: items like those in the index are what an index is asked for."""
    rows = sample[:: max(1, len(sample) // _COST_QUERIES)][:_COST_QUERIES].astype(np.float64)
    if euclidean:
        rows = rows - mean
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return np.asarray((rows / norms).astype(np.float32))


def _choose_widths(centred: Float32Array, queries: Float32Array, axes: Float32Array, total: int) -> tuple[int, int]:
    """Columns of the two 4-bit stages, along the axes, that minimise the modelled nanoseconds of a row and query."""
    dim = centred.shape[1]
    padded = -(-dim // 32) * 32
    if padded <= 64:
        return padded, 0
    blocks = padded // 32
    threshold = _typical_thresholds(queries @ centred.T, total)
    rows = centred[:: max(1, len(centred) // _COST_ROWS)] @ axes
    queries = queries @ axes
    row_tails = np.sqrt(np.maximum(_tail_energy(rows), 0))
    query_tails = np.sqrt(np.maximum(_tail_energy(queries), 0))

    def left_after(borders: list[int]) -> float:
        """Part of the rows whose bound reaches the threshold when the stages end at these blocks."""
        stop = min(borders[-1] * 32, dim)
        bound = queries[:, :stop] @ rows[:, :stop].T
        start = 0
        for border in borders:
            row_part = np.sqrt(np.maximum(row_tails[:, start] ** 2 - row_tails[:, border] ** 2, 0))
            query_part = np.sqrt(np.maximum(query_tails[:, start] ** 2 - query_tails[:, border] ** 2, 0))
            bound += np.outer(query_part, (_ROUNDING + _QUERY_ROUNDING) * row_part)
            start = border
        bound += np.outer(query_tails[:, start], row_tails[:, start])
        return float(np.mean(bound >= threshold))

    def after_second(first: int, second: int) -> float:
        return left_after([first]) * (_SECOND_VISIT + second * 16 * _VISIT_BYTE)

    third = _THIRD_VISIT + padded * _VISIT_BYTE
    candidates = [block for block in range(2, blocks + 1) if block % max(1, blocks // 24) == 0 or block == blocks]
    best = min(candidates, key=lambda block: _SCAN_BYTE * (block * 16 + 8) + left_after([block]) * (_SECOND_VISIT + 15))
    flat_cost = _SCAN_BYTE * (blocks * 16 + 8) + left_after([blocks]) * third
    room = int(_LARGEST_SHARE * 4 * dim) - (best * 16 + 8) - (padded + 16) - 16
    seconds = range(2, min(blocks - best, max(2, room // 16)) + 1, 2)
    costs = {
        second: _SCAN_BYTE * (best * 16 + 8) + after_second(best, second) + left_after([best, best + second]) * third
        for second in seconds
    }
    if not costs or min(costs.values()) >= flat_cost:
        return padded, 0
    return best * 32, min(costs, key=lambda second: costs[second]) * 32


def _typical_thresholds(scores: Float32Array, total: int) -> Float64Array:
    """(queries, 1): what the k-th best of `total` rows will score, from the scores of a sample.

    The sample's own best stands for a higher part of the rows than k of all do; the normal distribution's quantiles say how
    far apart the two are. Scores of real vectors have heavier tails, so the true threshold is rather higher.
    """
    sample = scores.shape[1]
    part = min(0.25, _TYPICAL_K / max(total, 1))
    rank = int(np.clip(round(part * sample), 1, sample - 1))
    # a query is one of the rows: its own score does not count
    seen = -np.partition(-scores, rank, axis=1)[:, rank : rank + 1].astype(np.float64)
    mean = scores.mean(axis=1, keepdims=True, dtype=np.float64)
    normal = NormalDist()
    stretch = normal.inv_cdf(1 - part) / normal.inv_cdf(1 - min(0.25, rank / sample))
    return np.asarray(mean + (seen - mean) * stretch)


def _tail_energy(vectors: Float32Array) -> Float64Array:
    """(n, blocks + 1): squared norm of the columns from each block border on."""
    count, dim = vectors.shape
    blocks = -(-dim // 32)
    square = np.zeros((count, blocks * 32))
    square[:, :dim] = vectors.astype(np.float64) ** 2
    energy = np.zeros((count, blocks + 1))
    energy[:, :blocks] = square.reshape(count, blocks, 32).sum(axis=2)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return energy
