"""Recall by how popular the sought items are: whether a method finds only what everybody knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.catalogue import Catalogue
from llmrec_fast.evaluation.ranking import rank
from llmrec_fast.evaluation.relevance import Relevant


@dataclass(frozen=True)
class PopularityBucket:
    """Items with `low` to `high` training interactions.

    Attributes
    ----------
    items : how many items those are.
    relevant : how many (user, relevant item) pairs have such an item.
    recall : the share of those pairs that is among the first k recommendations.
    """

    low: int
    high: int
    items: int
    relevant: int
    recall: float


def recall_by_popularity(
    recommended: ArrayLike,
    relevant: Relevant,
    item_counts: ArrayLike,
    k: int,
    *,
    buckets: int = 5,
    item_ids: ArrayLike | None = None,
) -> list[PopularityBucket]:
    """Recall@k of items that are rare, usual, popular in training, over all relevant pairs (not a mean over users).

    Relevant items without a training interaction, the cold ones, make the first bucket. The others are cut in `buckets`
    by rising count so that each holds about as many relevant pairs; items of equal count are never parted, so that
    there may be fewer buckets.

    Parameters
    ----------
    recommended, relevant, item_counts, item_ids : as `evaluate` takes them.
    k : the cut-off.
    buckets : how many, without the cold one.

    Raises
    ------
    InvalidInput : as `evaluate`; no relevant id at all; a relevant id that is not in the catalogue.
    """
    k, buckets = as_count(k, "k"), as_count(buckets, "buckets")
    catalogue = Catalogue.check(None, item_counts, None, None, item_ids)
    counts = catalogue.item_counts
    ranking = rank(recommended, relevant, k)
    users, ids = ranking.relevance.users_and_ids()
    if len(users) == 0 or counts is None:
        raise InvalidInput("recall by popularity needs a user with relevant ids, and relevant has none")
    sought = counts[catalogue.positions_of(ids, "relevant")]
    within = ranking.hit_ranks < k
    hit_ids = ranking.recommended[ranking.hit_users[within], ranking.hit_ranks[within]]
    found = counts[catalogue.positions_of(hit_ids, "recommended")]

    lows = [0] if sought.min() == 0 else []
    warm = np.sort(sought[sought > 0])
    if len(warm):
        cuts = warm[len(warm) * np.arange(1, buckets) // buckets]
        lows += [1, *np.unique(cuts[cuts > warm[0]]).tolist()]
    highs = [low - 1 for low in lows[1:]] + [int(counts.max()) if len(warm) else 0]
    result = []
    for low, high in zip(lows, highs, strict=True):
        pairs = int(((sought >= low) & (sought <= high)).sum())
        hits = int(((found >= low) & (found <= high)).sum())
        items = int(((counts >= low) & (counts <= high)).sum())
        result.append(PopularityBucket(low, high, items, pairs, hits / pairs))
    return result
