"""Directed item transitions: what people chose next, as one sparse matrix that histories are multiplied with.

    score of item j = sum over history h of weight_h * T[h, j]

so that, as with collaborative vectors, a new user needs no training and a score is the sum of what each history item adds.
Unlike cosines and EASE, T knows a direction: after a printer comes its ink, not the other way round.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, as_count, as_int64, as_matrix, as_vector
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features.users import check_indptr

_BLOCK_NUMBERS = 2**24


def count_transitions(
    indptr: ArrayLike,
    items: ArrayLike,
    n_items: int,
    values: ArrayLike | None = None,
    *,
    window: int = 5,
    decay: float = 2.0,
) -> Any:
    """How often item j came soon after item i, over all histories.

    An item `gap` places after another counts `exp(-(gap - 1) / decay)`, times its own value where there are values.

    Parameters
    ----------
    indptr, items : histories as CSR: user u has the items `items[indptr[u] : indptr[u + 1]]`, old to new.
    n_items : size of the catalogue.
    values : (positions,) how much each interaction counts as the one that follows, not negative; None: 1 each.
    window : the largest gap that counts.
    decay : in places; larger looks further ahead.

    Returns
    -------
    (n_items, n_items) scipy CSR matrix, float64, without a diagonal: an item bought again is no transition.

    Raises
    ------
    InvalidInput : offsets that do not fit, an item outside the catalogue, negative values, a window or decay out of range.
    """
    from scipy.sparse import coo_matrix

    codes = as_int64(items, "items")
    offsets = check_indptr(indptr, len(codes))
    count, window = as_count(n_items, "n_items"), as_count(window, "window")
    if not 0 < decay < np.inf:
        raise InvalidInput(f"decay must be a positive number of places; got {decay!r}")
    if len(codes) and (int(codes.min()) < 0 or int(codes.max()) >= count):
        bad = int(codes.min()) if int(codes.min()) < 0 else int(codes.max())
        raise InvalidInput(f"items holds {bad}, outside the catalogue of {count} items")
    worth = None if values is None else as_vector(values, "values", length=len(codes)).astype(np.float64)
    if worth is not None and len(worth) and worth.min() < 0:
        row = int(np.argmin(worth))
        raise InvalidInput(f"values must not be negative; got {worth[row]:g} in row {row}")
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    total = coo_matrix((count, count), dtype=np.float64).tocsr()
    for gap in range(1, window + 1):
        together = np.flatnonzero((user[gap:] == user[:-gap]) & (codes[gap:] != codes[:-gap]))
        weight = np.full(len(together), np.exp(-(gap - 1) / decay))
        if worth is not None:
            weight *= worth[together + gap]
        pairs = (codes[together], codes[together + gap])
        total = total + coo_matrix((weight, pairs), shape=(count, count)).tocsr()
    return total


def transition_matrix(counts: Any, *, shrinkage: float = 1.0, popularity: float = 0.0) -> Any:
    """Transition strengths `counts[i, j] / (row sum of i + shrinkage) / (column sum of j) ** popularity`.

    Parameters
    ----------
    counts : (n, n) scipy sparse matrix, not negative, as `count_transitions` or `smooth_transitions` give.
    shrinkage : added to the row sums, so that an item seen once does not speak as loudly as one seen often; not negative.
    popularity : 0 (probabilities) to 1 (lifts): how far to discount items that follow everything.

    Returns
    -------
    (n, n) scipy CSR matrix, float32. Rows of items that nothing followed are empty.
    """
    from scipy.sparse import csr_matrix, diags, issparse

    if not issparse(counts) or counts.shape[0] != counts.shape[1]:
        raise InvalidInput("counts must be a square scipy sparse matrix, as count_transitions gives")
    if not 0 <= shrinkage < np.inf or not 0 <= popularity <= 1:
        raise InvalidInput(
            f"shrinkage must not be negative and popularity lie from 0 to 1; got {shrinkage!r} and {popularity!r}"
        )
    rows, columns = np.asarray(counts.sum(axis=1)).ravel(), np.asarray(counts.sum(axis=0)).ravel()
    by_row = np.divide(1, rows + shrinkage, out=np.zeros(len(rows)), where=rows > 0)
    by_column = np.power(columns, -popularity, out=np.zeros(len(columns)), where=columns > 0)
    return csr_matrix(diags(by_row) @ counts @ diags(by_column), dtype=np.float32)


def nearest_items(vectors: ArrayLike, k: int = 10, *, temperature: float = 0.1) -> Any:
    """Each item's k nearest by cosine, itself among them, as weights `exp((cos - 1) / temperature)` that sum to 1 a row.

    Parameters
    ----------
    vectors : (n, d) float.
    k : how many; at most n count.
    temperature : smaller trusts the nearest more.

    Returns
    -------
    (n, n) scipy CSR matrix, float32.
    """
    from scipy.sparse import csr_matrix

    from llmrec_fast.kernels.cpu import fuse

    if not 0 < temperature < np.inf:
        raise InvalidInput(f"temperature must be a positive number; got {temperature!r}")
    rows = fuse([as_matrix(vectors, "vectors")], [1.0])
    count = len(rows)
    k = min(as_count(k, "k"), count)
    near = np.empty((count, k), np.int64)
    weights = np.empty((count, k), np.float32)
    step = max(1, _BLOCK_NUMBERS // max(count, 1))
    for start in range(0, count, step):
        cosines = rows[start : start + step] @ rows.T
        # an item's own cosine is 1 up to rounding, or 0 for a zero row: it is to be first whatever it is
        own = np.arange(start, start + len(cosines))
        cosines[np.arange(len(cosines)), own] = 1.0
        found = (
            np.argpartition(-cosines, k - 1, axis=1)[:, :k] if k < count else np.tile(np.arange(count), (len(own), 1))
        )
        near[start : start + step] = found
        weights[start : start + step] = np.exp((np.take_along_axis(cosines, found, axis=1) - 1) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = csr_matrix((weights.ravel(), near.ravel(), np.arange(count + 1) * k), shape=(count, count))
    matrix.sort_indices()
    return matrix


def smooth_transitions(counts: Any, neighbours: Any, *, sources: bool = True, targets: bool = True) -> Any:
    """Counts that items share with those like them: `N' C N` with the row-stochastic `neighbours` N of `nearest_items`.

    What followed an item also counts, a little, for the items near it, and towards the items near what followed. An item
    that nobody chose yet gets transitions of its neighbours. The sum of all counts stays.

    Parameters
    ----------
    counts : (n, n) from `count_transitions`.
    neighbours : (n, n) from `nearest_items`.
    sources, targets : which side to smooth.
    """
    smoothed = counts
    if sources:
        smoothed = neighbours.T @ smoothed
    if targets:
        smoothed = smoothed @ neighbours
    return smoothed.tocsr()


def transition_scores(
    transitions: Any, indptr: ArrayLike, items: ArrayLike, weights: ArrayLike | None = None
) -> Float32Array:
    """(users, n) float32 scores of all items: each history's rows of `transitions`, weighed and summed.

    Parameters
    ----------
    transitions : (n, n) from `transition_matrix`.
    indptr, items : histories as CSR.
    weights : (positions,) as `HistoryWeighting` gives; None: 1 each.
    """
    from scipy.sparse import csr_matrix

    codes = as_int64(items, "items")
    offsets = check_indptr(indptr, len(codes))
    worth = np.ones(len(codes), np.float32) if weights is None else as_vector(weights, "weights", length=len(codes))
    histories = csr_matrix((worth, codes, offsets), shape=(len(offsets) - 1, transitions.shape[0]))
    scores: Float32Array = (histories @ transitions).toarray().astype(np.float32, copy=False)
    return scores
