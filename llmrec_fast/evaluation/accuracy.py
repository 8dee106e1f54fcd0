"""Accuracy metrics: how well the first k recommendations cover the relevant items, and how early.

Each function gives one value a user, (users,) float64, from the hits of one ranking pass. For all of them

- R is the set of a user's different relevant ids, h_j is 1 if the recommendation at rank j (from 1) is a hit;
- graded relevance matters to the two NDCGs alone: the others take every id with a gain above 0 as relevant, as trec_eval
  does by default; an id that was not judged is not relevant;
- the order of the recommendations is taken as given, so ties do not arise here: whoever made the list has broken them
  (`adapters.py` does it as trec_eval);
- a list shorter than k counts as filled up with misses, and an id that repeats counts once, at its first rank;
- a user without relevant ids has no value (NaN) and is left out of the mean, as pytrec_eval leaves out a query that the
  judgements do not name. A user with relevant ids and no recommendations counts with 0.

Equal to pytrec_eval, ranx or RecTools where a docstring says so: to float64 rounding, on lists without repetition.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float64Array, Int64Array
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
    """Normalised discounted cumulative gain with the gains as they are (linear), 1 each if relevance is binary.

    sum_{j <= k} g_j / log2(j + 1), g_j being 0 for a miss, divided by the same sum over the user's min(k, |R|) largest
    gains in falling order (Jaervelin and Kekaelaeinen 2002). Equals pytrec_eval `ndcg_cut_k`, ranx `ndcg@k`, RecTools
    `NDCG(divide_by_achievable=True)`.
    """
    if ranking.relevance.gains is not None:
        return _graded_ndcg(ranking, k, ranking.hit_gains, ranking.relevance.best_first)
    reached = ranking.sum_over_hits(ranking.hit_discounts, k)
    deepest = max(1, min(k, int(ranking.relevant_counts.max())))
    ideal = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(deepest) + 2.0)))
    return _of_judged(ranking, reached / ideal[np.minimum(_relevant(ranking), deepest)])


def ndcg_exponential(ranking: Ranking, k: int) -> Float64Array:
    """`ndcg` with the gain 2^g - 1 in place of g, so that high grades weigh more (Burges et al. 2005).

    The same as `ndcg` if relevance is binary. Equals ranx `ndcg_burges@k`.
    """
    if ranking.relevance.gains is None:
        return ndcg(ranking, k)
    return _graded_ndcg(ranking, k, ranking.hit_gains_grown, ranking.relevance.best_first_grown)


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


def _graded_ndcg(ranking: Ranking, k: int, hit_gains: Float64Array, best_gains: Float64Array) -> Float64Array:
    """`best_gains` stand beside the ids of `ranking.relevance`, each user's largest first."""
    from llmrec_fast.evaluation import compiled

    known = ranking.relevance
    reached = ranking.sum_over_hits(hit_gains * ranking.hit_discounts, k)
    ideal = np.empty(ranking.users)
    deepest = min(k, int(known.counts.max()))
    compiled.sum_discounted(known.offsets, known.counts, best_gains, 1.0 / np.log2(np.arange(deepest) + 2.0), ideal)
    return _of_judged(ranking, reached / np.where(ideal > 0, ideal, 1.0))


def _relevant(ranking: Ranking) -> Int64Array:
    """|R|, with 1 in place of 0: those users' values are replaced by NaN in the end."""
    return np.maximum(ranking.relevant_counts, 1)


def _of_judged(ranking: Ranking, values: Float64Array) -> Float64Array:
    return np.where(ranking.relevant_counts > 0, values, np.nan)
