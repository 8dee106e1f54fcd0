"""Calibration of lists: whether a user who knew 70% drama and 30% comedy is shown about as much of each.

Calibration of predicted probabilities is another thing: see `predictions.py`.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.beyond_accuracy import RecommendedLists

_SMOOTHING = 0.01  # alpha of the paper


def calibration_error(lists: RecommendedLists, k: int) -> Float64Array:
    """How far the categories shown are from those known: 0 if in the same shares, at most ln 100 = 4.6 nats.

    Each item spreads a weight of 1 over its categories. With p_c the mean over the different items of a user's history
    and q_c that over the first k recommendations, sum_c p_c ln(p_c / (0.99 q_c + 0.01 p_c)): the Kullback-Leibler
    divergence of Steck, "Calibrated recommendations" (RecSys 2018), equation 6, alpha = 0.01. Items without a category are
    left out; a user for whom nothing is left on either side has no value.
    """
    known, shown = _known_shares(lists), _shown_shares(lists, k)
    ratios = np.divide(known, (1 - _SMOOTHING) * shown + _SMOOTHING * known, out=np.ones_like(known), where=known > 0)
    errors: Float64Array = (known * np.log(ratios)).sum(axis=1)
    # by rounding, equal shares may come out a little below 0
    return np.where(np.isnan(known).any(axis=1) | np.isnan(shown).any(axis=1), np.nan, np.maximum(errors, 0.0))


def _known_shares(lists: RecommendedLists) -> Float64Array:
    """(users, categories) p: NaN for a user whose history has no item with a category."""
    if lists.histories is None:
        raise InvalidInput("histories are not known")
    users, ids = lists.histories.users_and_ids()
    shares = _item_shares(lists)[lists.catalogue.positions_of(ids, "histories")]
    columns = [np.bincount(users, weights=column, minlength=lists.ranking.users) for column in shares.T]
    return _normalised(np.stack(columns, axis=1) if columns else np.zeros((lists.ranking.users, 0)))


def _shown_shares(lists: RecommendedLists, k: int) -> Float64Array:
    """(users, categories) q, NaN likewise. One column of recommendations at a time: memory does not grow with k."""
    shares = _item_shares(lists)
    shares = np.concatenate([shares, np.zeros((1, shares.shape[1]))])  # padding is position -1
    total = np.zeros((lists.ranking.users, shares.shape[1]))
    for column in lists.positions[:, :k].T:
        total += shares[column]
    return _normalised(total)


def _item_shares(lists: RecommendedLists) -> Float64Array:
    """(n_items, categories) rows that sum to 1, or to 0 for an item without a category."""
    if lists.catalogue.item_categories is None:
        raise InvalidInput("item_categories are not known")
    weights = lists.catalogue.item_categories.astype(np.float64)
    sums = weights.sum(axis=1, keepdims=True)
    shares: Float64Array = weights / np.where(sums > 0, sums, 1.0)
    return shares


def _normalised(rows: Float64Array) -> Float64Array:
    sums = rows.sum(axis=1, keepdims=True)
    shares: Float64Array = np.divide(rows, sums, out=np.full_like(rows, np.nan), where=sums > 0)
    return shares
