"""Recall of items without a training interaction: what a method finds among what nobody has chosen yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.catalogue import Catalogue
from llmrec_fast.evaluation.ranking import rank
from llmrec_fast.evaluation.relevance import Relevant
from llmrec_fast.evaluation.uncertainty import Interval, bootstrap_interval


@dataclass(frozen=True)
class ColdItems:
    """How well items without a training interaction are found.

    Attributes
    ----------
    k : the cut-off.
    items : how many items of the catalogue those are.
    users : how many users such an item is relevant to.
    recall : mean over those users of the share of their cold relevant items among the first k of their list, with its
        bootstrap interval.
    """

    k: int
    items: int
    users: int
    recall: Interval


def cold_item_recall(
    recommended: ArrayLike, relevant: Relevant, item_counts: ArrayLike, k: int, *, item_ids: ArrayLike | None = None
) -> Float64Array:
    """(users,) recall@k of each user's cold relevant items, those without a training interaction; NaN without any.

    The lists are taken as they are: those that rank all items show how cold items stand beside the others, those that rank
    cold items alone show which of them a method would choose.

    Parameters
    ----------
    recommended, relevant, item_counts, item_ids : as `evaluate` takes them.
    k : the cut-off.

    Raises
    ------
    InvalidInput : as `evaluate`; a relevant id that is not in the catalogue; no `item_counts`.
    """
    k = as_count(k, "k")
    catalogue = Catalogue.check(None, item_counts, None, None, item_ids)
    counts = catalogue.item_counts
    if counts is None:
        raise InvalidInput("which items are cold follows from item_counts, and there are none")
    ranking = rank(recommended, relevant, k)
    users, ids = ranking.relevance.users_and_ids()
    count = len(ranking.recommended)
    sought = np.bincount(users[counts[catalogue.positions_of(ids, "relevant")] == 0], minlength=count)
    within = ranking.hit_ranks < k
    hit_users = ranking.hit_users[within]
    hits = catalogue.positions_of(ranking.recommended[hit_users, ranking.hit_ranks[within]], "recommended")
    found = np.bincount(hit_users[counts[hits] == 0], minlength=count)
    recall: Float64Array = np.divide(found, sought, out=np.full(count, np.nan), where=sought > 0)
    return recall


def summarize_cold_items(
    recommended: ArrayLike,
    relevant: Relevant,
    item_counts: ArrayLike,
    k: int,
    *,
    item_ids: ArrayLike | None = None,
    resamples: int = 1_000,
    seed: int = 0,
) -> ColdItems | None:
    """`cold_item_recall` over all users; None where no cold item is relevant to anybody.

    Parameters
    ----------
    recommended, relevant, item_counts, k, item_ids : as `cold_item_recall` takes them.
    resamples, seed : of the bootstrap interval.

    Raises
    ------
    InvalidInput : as `cold_item_recall`.
    """
    recall = cold_item_recall(recommended, relevant, item_counts, k, item_ids=item_ids)
    defined = ~np.isnan(recall)
    if not defined.any():
        return None
    items = int((np.asarray(item_counts) == 0).sum())
    return ColdItems(k, items, int(defined.sum()), bootstrap_interval(recall, resamples=resamples, seed=seed))
