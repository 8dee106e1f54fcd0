"""`evaluate`: any metrics at any k from one ranking pass.

Reads names, checks that what a metric needs was given, and takes means; the formulas are in `accuracy.py`,
`beyond_accuracy.py` and `calibration.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array, as_texts
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import accuracy, beyond_accuracy, calibration
from llmrec_fast.evaluation.beyond_accuracy import RecommendedLists
from llmrec_fast.evaluation.catalogue import Catalogue
from llmrec_fast.evaluation.ranking import Ranking, rank
from llmrec_fast.evaluation.relevance import Gains, Relevant, as_relevance

_AccuracyMetric: TypeAlias = Callable[[Ranking, int], Float64Array]
_ListMetric: TypeAlias = Callable[[RecommendedLists, int], Float64Array]
_OverallMetric: TypeAlias = Callable[[RecommendedLists, int], float]

_ACCURACY: dict[str, _AccuracyMetric] = {
    "precision": accuracy.precision,
    "recall": accuracy.recall,
    "f1": accuracy.f1,
    "hit_rate": accuracy.hit_rate,
    "r_precision": accuracy.r_precision,
    "ndcg": accuracy.ndcg,
    "ndcg_exponential": accuracy.ndcg_exponential,
    "map": accuracy.average_precision,
    "mrr": accuracy.reciprocal_rank,
}
_LISTS: dict[str, _ListMetric] = {
    "auc": beyond_accuracy.auc,
    "novelty": beyond_accuracy.novelty,
    "average_popularity": beyond_accuracy.average_popularity,
    "serendipity": beyond_accuracy.serendipity,
    "diversity": beyond_accuracy.diversity,
    "calibration_error": calibration.calibration_error,
}
_OVERALL: dict[str, _OverallMetric] = {
    "coverage": beyond_accuracy.coverage,
    "user_coverage": beyond_accuracy.user_coverage,
    "gini": beyond_accuracy.gini,
    "entropy": beyond_accuracy.entropy,
    "popularity_lift": beyond_accuracy.popularity_lift,
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "auc": ("n_items",),
    "coverage": ("n_items",),
    "gini": ("n_items",),
    "entropy": ("n_items",),
    "popularity_lift": ("item_counts", "histories"),
    "calibration_error": ("item_categories", "histories"),
    "novelty": ("item_counts",),
    "average_popularity": ("item_counts",),
    "serendipity": ("item_counts",),
    "diversity": ("item_vectors",),
}
_NEED_RELEVANT = {*_ACCURACY, "auc", "serendipity"}

METRICS: tuple[str, ...] = (*_ACCURACY, *_LISTS, *_OVERALL)
"""The names that `evaluate` knows, to be followed by `@k`."""


@dataclass(frozen=True)
class _Request:
    name: str
    metric: str
    k: int


def evaluate(
    recommended: ArrayLike,
    relevant: Relevant,
    metrics: Sequence[str],
    *,
    gains: Gains | None = None,
    histories: Relevant | None = None,
    n_items: int | None = None,
    item_counts: ArrayLike | None = None,
    item_vectors: ArrayLike | None = None,
    item_categories: ArrayLike | None = None,
    item_ids: ArrayLike | None = None,
) -> dict[str, float]:
    """Measure ranked recommendations: each metric's mean over users.

    Parameters
    ----------
    recommended : (users, width) integer ids, the best first, each row padded with -1 at its end.
    relevant : what is relevant to each user: a list of id arrays, a tuple `(indptr, ids)` in CSR form, or a dict from row
        number of `recommended` (0 to users - 1) to ids. An id that is there twice counts once, with its larger gain.
    metrics : names such as "ndcg@10": one of `METRICS`, then @, then the cut-off k.
    gains : how relevant each of those ids is, for ndcg and ndcg_exponential: numbers in the form of `relevant`, for a CSR
        pair one array beside its ids. An id whose gain is 0 or less is not relevant. Default: 1 each.
    histories : what each user knew before, in the form of `relevant`, for popularity_lift and calibration_error.
    n_items : size of the catalogue, for auc, coverage, gini and entropy; known from the next
        four where one of them is given.
    item_counts : (n_items,) training interactions of each item, for novelty, average_popularity,
        popularity_lift and serendipity.
    item_vectors : (n_items, d) vectors of the items, for diversity.
    item_categories : (n_items, categories) how much each item belongs to each category, for calibration_error.
    item_ids : (n_items,) ids of the rows of the former three; without it an id is the number of its row.

    Returns
    -------
    dict from each name to a float.

    Notes
    -----
    Rules that all metrics share (accuracy metrics equal pytrec_eval's under them):

    - A list shorter than k, or a `recommended` narrower than k, counts as filled up with misses: precision@10 of 5
      recommendations divides by 10.
    - An id that a row repeats is a hit once, at its first rank.
    - An id that is not among the relevant is a miss, whether it was judged or not. Metrics that need the catalogue refuse
      an id that is not in it; the others do not know it.
    - Users without relevant ids are left out of the mean of accuracy metrics, auc and serendipity. Users without
      recommendations count there with 0 (with 1/2 in auc), and are left out of the mean of novelty, average_popularity,
      diversity and calibration_error, which is NaN if no user has any.

    Raises
    ------
    InvalidInput : an unknown name (the message lists the known ones), a k below 1, something that a metric needs is
        missing, shapes that do not fit, an id after padding, -1 among the relevant, no user with relevant ids.

    Examples
    --------
    >>> from llmrec_fast.evaluation import evaluate
    >>> evaluate([[7, 3, 9], [4, 7, -1]], [[3], [4, 5]], ["recall@2", "mrr@2"])
    {'recall@2': 0.75, 'mrr@2': 0.75}
    >>> evaluate([[7, 3, 9]], [[3, 9]], ["ndcg_exponential@3"], gains=[[1, 3]])
    {'ndcg_exponential@3': 0.5413402936435214}
    """
    requests = _parse(metrics)
    catalogue = Catalogue.check(n_items, item_counts, item_vectors, item_categories, item_ids)
    results = _compute(recommended, relevant, requests, catalogue, gains, histories)
    return {name: values if isinstance(values, float) else _mean(values) for name, values in results.items()}


def evaluate_per_user(
    recommended: ArrayLike,
    relevant: Relevant,
    metrics: Sequence[str],
    *,
    gains: Gains | None = None,
    histories: Relevant | None = None,
    n_items: int | None = None,
    item_counts: ArrayLike | None = None,
    item_vectors: ArrayLike | None = None,
    item_categories: ArrayLike | None = None,
    item_ids: ArrayLike | None = None,
) -> dict[str, Float64Array]:
    """As `evaluate`, with each user's value in place of the mean: (users,) float64, NaN where a user has none.

    For confidence intervals (`bootstrap_interval`) and paired tests. Metrics that have no value for a single user
    (coverage, user_coverage, gini, entropy, popularity_lift) are refused.
    """
    requests = _parse(metrics)
    for request in requests:
        if request.metric in _OVERALL:
            raise InvalidInput(f"{request.metric} is a property of all lists together and has no value for a user")
    catalogue = Catalogue.check(n_items, item_counts, item_vectors, item_categories, item_ids)
    results = _compute(recommended, relevant, requests, catalogue, gains, histories)
    return {name: values for name, values in results.items() if not isinstance(values, float)}


def is_overall(name: str) -> bool:
    """Whether a metric such as "coverage@10" is one of all lists together, without a value for a single user."""
    return _parse([name])[0].metric in _OVERALL


def measures_accuracy(name: str) -> bool:
    """Whether more is better without doubt; of coverage, popularity and the like that is for the reader to say."""
    return _parse([name])[0].metric in (*_ACCURACY, "auc")


def _parse(metrics: Sequence[str]) -> list[_Request]:
    requests = []
    for name in as_texts(metrics, "metrics"):
        match = re.fullmatch(r"([a-z0-9_]+)@(\d+)", name)
        if match is None or match[1] not in METRICS or int(match[2]) < 1:
            raise InvalidInput(
                f"unknown metric {name!r}; a metric is a name, @ and a cut-off of at least 1, such as 'ndcg@10'. "
                f"Known names: {', '.join(METRICS)}"
            )
        requests.append(_Request(name, match[1], int(match[2])))
    if not requests:
        raise InvalidInput(f"metrics names none; known names: {', '.join(METRICS)}")
    return requests


def _compute(
    recommended: ArrayLike,
    relevant: Relevant,
    requests: list[_Request],
    catalogue: Catalogue,
    gains: Gains | None,
    histories: Relevant | None,
) -> dict[str, Float64Array | float]:
    for request in requests:
        for need in _NEEDS.get(request.metric, ()):
            if (histories if need == "histories" else getattr(catalogue, need)) is None:
                raise InvalidInput(f"{request.name} needs {need}=")
    cuts = tuple(sorted({request.k for request in requests}))
    ranking = rank(recommended, relevant, cuts[-1], gains)
    known = None if histories is None else as_relevance(histories, ranking.users, name="histories")
    lists = RecommendedLists(ranking, catalogue, cuts, known)
    results: dict[str, Float64Array | float] = {}
    for request in requests:
        if request.metric in _NEED_RELEVANT and not ranking.relevant_counts.any():
            raise InvalidInput(f"{request.name} needs a user with relevant ids, and relevant has none")
        if request.metric in _ACCURACY:
            results[request.name] = _ACCURACY[request.metric](ranking, request.k)
        elif request.metric in _LISTS:
            results[request.name] = _LISTS[request.metric](lists, request.k)
        else:
            results[request.name] = _OVERALL[request.metric](lists, request.k)
    return results


def _mean(values: Float64Array) -> float:
    defined = ~np.isnan(values)
    return float(values[defined].mean()) if defined.any() else float("nan")
