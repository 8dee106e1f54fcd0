"""The obvious exact search in float64, with sums that depend on nothing of ours."""

from __future__ import annotations

import numpy as np


def scores_of(rows: np.ndarray, query: np.ndarray, metric: str, bias: np.ndarray | None = None) -> np.ndarray:
    """Exact scores of all rows, summed in extended precision and rounded once."""
    wide, own = rows.astype(np.longdouble), query.astype(np.longdouble)
    if metric == "euclidean":
        return (-np.sqrt(np.square(wide - own).sum(axis=1))).astype(np.float64)
    products = (wide * own).sum(axis=1)
    return (products if bias is None else products + bias).astype(np.float64)


def assert_exact(
    ids: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    query: np.ndarray,
    metric: str,
    bias: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> None:
    """One query's answer is the exact top k of `rows`, whose ids are their positions.

    Returned scores are right to float64 rounding; they descend, equal ones in order of position; and nothing left out
    scores more than the last that was returned.
    """
    exact = scores_of(rows, query, metric, bias)
    candidates = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    found = min(len(ids), len(candidates))
    assert (ids[found:] == -1).all()
    assert np.isneginf(scores[found:]).all()
    ids, scores = ids[:found], scores[:found]
    assert len(set(ids.tolist())) == found
    assert np.isin(ids, candidates).all()
    magnitude = np.abs(rows.astype(np.float64) * query).sum(axis=1) + (0 if bias is None else np.abs(bias))
    if metric == "euclidean":
        magnitude = np.abs(exact)
    tolerance = 1e-12 * magnitude.max(initial=0)
    np.testing.assert_allclose(scores, exact[ids], rtol=1e-12, atol=tolerance)
    if found == 0:
        return
    later = scores[1:] < scores[:-1]
    assert (later | ((scores[1:] == scores[:-1]) & (ids[1:] > ids[:-1]))).all()
    left_out = np.setdiff1d(candidates, ids)
    assert (exact[left_out] <= scores[-1] + tolerance).all()
    # rows that equal the last one bit for bit must lie after it
    twins = left_out[(rows[left_out] == rows[ids[-1]]).all(axis=1)]
    if bias is not None:
        twins = twins[bias[twins] == bias[ids[-1]]]
    assert (twins > ids[-1]).all()
