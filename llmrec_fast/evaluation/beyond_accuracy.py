"""Metrics beyond accuracy: how much of the catalogue is shown, how popular, how new and how varied what is shown is.

Metrics of a user's list give one value a user, (users,) float64, NaN for a user without recommendations, who is left out
of the mean. Metrics of all lists together (coverage, gini) give one number. Padding is not a recommendation: a shorter
list is judged by what it holds. An id that a list repeats counts at each place, unless a docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmrec_fast.arrays import Float64Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.catalogue import Catalogue
from llmrec_fast.evaluation.ranking import Ranking
from llmrec_fast.evaluation.relevance import Relevance
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_USERS_WORTH_A_THREAD = 100


@dataclass(frozen=True)
class RecommendedLists:
    """The recommendations of a ranking pass, the catalogue they are from, and the values of k in use, ascending.

    `histories`, where they are given, are the items that each user knew before.
    """

    ranking: Ranking
    catalogue: Catalogue
    cuts: tuple[int, ...]
    histories: Relevance | None = None

    @property
    def lengths(self) -> Int64Array:
        """(users,) int64, number of recommendations of each user."""
        return self.ranking.lengths

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        if self.catalogue.n_items is None:
            raise InvalidInput("the size of the catalogue is not known")
        return self.catalogue.n_items

    @cached_property
    def ids(self) -> Int64Array:
        """(users, at most the largest k) the ids that any metric looks at."""
        return self.ranking.recommended[:, : self.cuts[-1]]

    @cached_property
    def positions(self) -> Int64Array:
        """`ids` as positions in the catalogue, padding still -1. Raises `InvalidInput` on an id that is not in it."""
        return self.catalogue.positions_of(self.ids, "recommended")

    def mean_of(self, item_values: Float64Array, k: int) -> Float64Array:
        """(users,) mean of the items' values over each user's first k recommendations."""
        # padding is position -1: the value put last
        values = np.append(item_values, 0.0)[self.positions[:, :k]]
        lengths = np.minimum(self.lengths, k)
        return np.where(lengths > 0, values.sum(axis=1) / np.maximum(lengths, 1), np.nan)

    def exposure(self, k: int) -> Int64Array:
        """How often each different id stands in the first k of a list; ids that never do are left out."""
        shown: Int64Array = self.ids[:, :k]
        shown = shown[shown != -1]
        if shown.size == 0:
            return shown
        low, high = int(shown.min()), int(shown.max())
        if high - low < 4 * shown.size + 1_000:
            counts = np.bincount(shown - low)
            counts = counts[counts > 0]
        else:
            counts = np.unique(shown, return_counts=True)[1]
        if len(counts) > self.n_items:
            raise InvalidInput(f"recommended holds {len(counts)} different ids, but n_items is {self.n_items}")
        return counts.astype(np.int64, copy=False)

    @cached_property
    def counts(self) -> Int64Array:
        """(n_items,) training interactions of each item."""
        if self.catalogue.item_counts is None:
            raise InvalidInput("item_counts are not known")
        return self.catalogue.item_counts

    @cached_property
    def history_popularity(self) -> Float64Array:
        """(users,) mean training interactions of the different items in each user's history, NaN where it has none."""
        if self.histories is None:
            raise InvalidInput("histories are not known")
        users, ids = self.histories.users_and_ids()
        counts = self.counts[self.catalogue.positions_of(ids, "histories")]
        sums = np.bincount(users, weights=counts, minlength=self.ranking.users)
        sizes = self.histories.counts
        return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)

    @cached_property
    def mean_distances(self) -> Float64Array:
        """(users, cuts) mean cosine distance over the pairs within each cut, from one pass over the vectors."""
        from llmrec_fast.evaluation import compiled

        vectors = self.catalogue.item_vectors
        if vectors is None:
            raise InvalidInput("item_vectors are not known")
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        scales = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        positions = np.ascontiguousarray(self.positions)
        lengths = np.minimum(self.lengths, positions.shape[1])
        cuts = np.array(self.cuts, dtype=np.int64)
        out = np.empty((len(positions), len(cuts)), dtype=np.float64)
        pieces = split_range(len(out), min(4 * get_threads(), 1 + len(out) // _USERS_WORTH_A_THREAD))
        run_parallel(
            compiled.mean_distances,
            [(positions, lengths, vectors, scales, cuts, out, start, stop) for start, stop in pieces],
        )
        return out


def coverage(lists: RecommendedLists, k: int) -> float:
    """Share of the catalogue that stands in the first k of any list. Equals RecTools `CatalogCoverage(normalize=True)`."""
    return len(lists.exposure(k)) / lists.n_items


def gini(lists: RecommendedLists, k: int) -> float:
    """How unequally the items are shown: 0 if all equally often, (n - 1) / n if only one is.

    With c_1 <= ... <= c_n the times that each of all n items stands in the first k of a list,
    sum_i (2 i - n - 1) c_i / (n sum_i c_i) (the Gini coefficient; Castells et al., Recommender Systems Handbook 2022).
    NaN if nothing is recommended.
    """
    shown = np.sort(lists.exposure(k)).astype(np.float64)
    if len(shown) == 0:
        return float("nan")
    n = lists.n_items
    # items never shown add nothing to either sum, but take the first places of the order
    places = np.arange(n - len(shown) + 1, n + 1, dtype=np.float64)
    return float(((2 * places - n - 1) * shown).sum() / (n * shown.sum()))


def entropy(lists: RecommendedLists, k: int) -> float:
    """Shannon entropy of what is shown, in bits: 0 if always the same item, log2(n) if all n items equally often.

    With p_i the share of item i among all places in the first k of the lists, - sum_i p_i log2 p_i (the distributional
    coverage of Shani and Gunawardana, Recommender Systems Handbook 2011). NaN if nothing is recommended.
    """
    shown = lists.exposure(k).astype(np.float64)
    if len(shown) == 0:
        return float("nan")
    total = shown.sum()
    return float(np.log2(total) - (shown * np.log2(shown)).sum() / total)


def user_coverage(lists: RecommendedLists, k: int) -> float:
    """Share of all users whose list holds at least k recommendations; k = 1 asks who gets any at all.

    Users without relevant ids count too: whether there is something to show does not depend on what is liked later.
    """
    return float((lists.lengths >= k).mean())


def popularity_lift(lists: RecommendedLists, k: int) -> float:
    """How much more popular the recommendations are than what their users knew: 0 is none, 1 is twice as popular.

    With a(u) the mean count of user u's first k recommendations and h(u) that of the different items in u's history,
    mean_u a(u) / mean_u h(u) - 1 over users who have both (delta GAP, Abdollahpouri et al. 2019, all users as one
    group). NaN if nobody has both, or no history holds an item with interactions.
    """
    shown, known = average_popularity(lists, k), lists.history_popularity
    both = ~(np.isnan(shown) | np.isnan(known))
    if not both.any() or known[both].sum() == 0:
        return float("nan")
    return float(shown[both].sum() / known[both].sum() - 1)


def novelty(lists: RecommendedLists, k: int) -> Float64Array:
    """Mean self-information of the recommended items: mean of -log2(count_i / all interactions), in bits.

    An item without interactions counts as if it had one (Zhou et al. 2010; Vargas and Castells 2011).
    RecTools `MeanInvUserFreq`, which divides by users, is this minus log2(all interactions / users).
    """
    counts = lists.counts
    # a catalogue without any interaction is one in which every item is equally unknown: 0 bits
    total = max(1, int(counts.sum()))
    return lists.mean_of(np.log2(total) - np.log2(np.maximum(counts, 1)), k)


def average_popularity(lists: RecommendedLists, k: int) -> Float64Array:
    """Mean number of training interactions of the recommended items. Equals RecTools `AvgRecPopularity`."""
    return lists.mean_of(lists.counts.astype(np.float64), k)


def serendipity(lists: RecommendedLists, k: int) -> Float64Array:
    """How much the hits would not have been recommended by popularity alone.

    Mean over the first k of h_j max(0, P_j - Q_j): P_j = (n + 1 - j) / n for rank j, Q_j = (n + 1 - popularity rank) / n;
    items of equal count share a popularity rank, ranks have no gaps, and Q_j is 0 for an item without interactions.
    Equals RecTools `Serendipity` on users with relevant items; a user without has no value, as in accuracy metrics.
    """
    ranking, n, counts = lists.ranking, lists.n_items, lists.counts
    descending = np.unique(counts[counts > 0])[::-1]
    popularity_ranks = 1 + np.searchsorted(-descending, -counts)
    expected = np.where(counts > 0, (n + 1.0 - popularity_ranks) / n, 0.0)
    items = lists.positions[ranking.hit_users, ranking.hit_ranks]
    surprise = np.maximum(0.0, (n - ranking.hit_ranks) / n - expected[items])
    lengths = np.maximum(np.minimum(lists.lengths, k), 1)
    return np.where(ranking.relevant_counts > 0, ranking.sum_over_hits(surprise, k) / lengths, np.nan)


def auc(lists: RecommendedLists, k: int) -> Float64Array:
    """How probably a random relevant item stands before a random other one, all that is not shown being tied at the end.

    With m_j the misses before hit j, H hits and M misses in the first k, and N = n - |R| items that are not relevant:
    (sum_j (N - m_j) + (|R| - H) (N - M) / 2) / (|R| N). Known items count among the N, as no mask is known here; with
    complete lists this is the usual area under the ROC curve. Equals implicit `AUC_at_k`. A user without relevant ids
    has no value, nor has one to whom everything is relevant.
    """
    ranking, n = lists.ranking, lists.n_items
    relevant = ranking.relevant_counts
    if relevant.max() > n:
        user = int(np.argmax(relevant))
        raise InvalidInput(f"relevant holds {relevant[user]} different ids for user {user}, but n_items is {n}")
    others = n - relevant
    # an id that a row repeats is a miss each time, so that there may be more misses than other items
    before = np.minimum(ranking.hit_ranks - (ranking.hit_ordinals - 1), others[ranking.hit_users])
    won = ranking.sum_over_hits((others[ranking.hit_users] - before).astype(np.float64), k)
    hits = ranking.hits_within(k)
    unseen = np.maximum(others - (np.minimum(lists.lengths, k) - hits), 0.0)
    pairs = relevant * others
    values = (won + (relevant - hits) * unseen / 2) / np.maximum(pairs, 1)
    return np.where(pairs > 0, values, np.nan)


def diversity(lists: RecommendedLists, k: int) -> Float64Array:
    """Intra-list diversity: the mean of 1 - cosine(x_i, x_j) over all pairs within a user's first k.

    0 for a list of one item; a zero vector is at distance 1 from all (Smyth and McClave 2001). Equals RecTools
    `IntraListDiversity` with the same distances.
    """
    return lists.mean_distances[:, lists.cuts.index(k)]
