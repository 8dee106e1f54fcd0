"""Accuracy metrics: how well the first k recommendations cover the relevant items, and how early.

Each function gives one value a user, (users,) float64, from the hits of one ranking pass. For all of them

- R is the set of a user's different relevant ids, h_j is 1 if the recommendation at rank j (from 1) is a hit;
- relevance is binary, and the order of the recommendations is taken as given, so ties do not arise here: whoever made
  the list has broken them;
- a list shorter than k counts as filled up with misses, and an id that repeats counts once, at its first rank;
- a user without relevant ids has no value (NaN) and is left out of the mean, as pytrec_eval leaves out a query that the
  judgements do not name. A user with relevant ids and no recommendations counts with 0.

Equal to pytrec_eval, ranx or RecTools where a docstring says so: to float64 rounding, on lists without repetition.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float64Array
from llmrec_fast.evaluation.ranking import Ranking


def precision(ranking: Ranking, k: int) -> Float64Array:
    """Share of the first k that are relevant: sum_{j <= k} h_j / k. Equals pytrec_eval `P_k`, RecTools `Precision`."""
    return _of_judged(ranking, ranking.hits_within(k) / k)


def recall(ranking: Ranking, k: int) -> Float64Array:
    """Share of the relevant that are in the first k: sum_{j <= k} h_j / |R|. Equals pytrec_eval `recall_k`."""
    return _of_judged(ranking, ranking.hits_within(k) / _relevant(ranking))


def f1(ranking: Ranking, k: int) -> Float64Array:
    """Harmonic mean of precision and recall, 0 where both are 0: 2 hits / (k + |R|). Equals RecTools `F1Beta`."""
    return _of_judged(ranking, 2 * ranking.hits_within(k) / (k + _relevant(ranking)))


def hit_rate(ranking: Ranking, k: int) -> Float64Array:
    """1 if any of the first k is relevant, else 0. Equals pytrec_eval `success_k`, RecTools `HitRate`."""
    return _of_judged(ranking, (ranking.hits_within(k) > 0).astype(np.float64))


def r_precision(ranking: Ranking, k: int) -> Float64Array:
    """Precision relative to the best possible one: sum_{j <= k} h_j / min(k, |R|).

    Equals RecTools `Precision(r_precision=True)`. Not pytrec_eval's `Rprec`, whose cut-off is |R| and no k.
    """
    return _of_judged(ranking, ranking.hits_within(k) / np.minimum(k, _relevant(ranking)))


def ndcg(ranking: Ranking, k: int) -> Float64Array:
    """Normalised discounted cumulative gain, binary gain, the ideal list holding min(k, |R|) hits.

    sum_{j <= k} h_j / log2(j + 1), divided by sum_{j <= min(k, |R|)} 1 / log2(j + 1) (Jaervelin and Kekaelaeinen 2002).
    Equals pytrec_eval `ndcg_cut_k`, RecTools `NDCG(divide_by_achievable=True)`.
    """
    gains = ranking.sum_over_hits(1.0 / np.log2(ranking.hit_ranks + 2.0), k)
    deepest = max(1, min(k, int(ranking.relevant_counts.max())))
    ideal = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(deepest) + 2.0)))
    return _of_judged(ranking, gains / ideal[np.minimum(_relevant(ranking), deepest)])


def average_precision(ranking: Ranking, k: int) -> Float64Array:
    """Precision at every hit within k, summed and divided by all relevant items; its mean over users is MAP.

    sum_{j <= k} h_j (sum_{i <= j} h_i / j) / |R|: dividing by |R|, not by min(k, |R|) as some tools do.
    Equals pytrec_eval `map_cut_k`, RecTools `MAP`.
    """
    precisions = ranking.hit_ordinals / (ranking.hit_ranks + 1.0)
    return _of_judged(ranking, ranking.sum_over_hits(precisions, k) / _relevant(ranking))


def reciprocal_rank(ranking: Ranking, k: int) -> Float64Array:
    """1 / rank of the first hit, 0 if none is within k; its mean over users is MRR. Equals RecTools `MRR`, ranx `mrr@k`.

    pytrec_eval's `recip_rank` is this for lists that were cut to k.
    """
    first = np.where(ranking.hit_ordinals == 1, 1.0 / (ranking.hit_ranks + 1.0), 0.0)
    return _of_judged(ranking, ranking.sum_over_hits(first, k))


def _relevant(ranking: Ranking) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """|R|, with 1 in place of 0: those users' values are replaced by NaN in the end."""
    return np.maximum(ranking.relevant_counts, 1)


def _of_judged(ranking: Ranking, values: Float64Array) -> Float64Array:
    return np.where(ranking.relevant_counts > 0, values, np.nan)
