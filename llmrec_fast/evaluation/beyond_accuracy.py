"""Metrics beyond accuracy: how much of the catalogue is shown, how popular, how new and how varied what is shown is.

Metrics of a user's list give one value a user, (users,) float64, NaN for a user without recommendations, who is left out
of the mean. Metrics of all lists together (coverage, gini) give one number. Padding is not a recommendation: a shorter
list is judged by what it holds. An id that a list repeats counts at each place, unless a docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Float64Array, Int64Array, as_count, as_int64, as_matrix
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.ranking import Ranking
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_USERS_WORTH_A_THREAD = 100


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items that can be recommended; every part is optional and checked when it is given.

    Attributes
    ----------
    n_items : number of items.
    item_counts : (n_items,) int64, training interactions of each item.
    item_vectors : (n_items, d) float32.
    item_ids : (n_items,) int64, the id of each item; without them ids are positions, 0 to n_items - 1.
    """

    n_items: int | None
    item_counts: Int64Array | None
    item_vectors: Float32Array | None
    item_ids: Int64Array | None

    @staticmethod
    def check(
        n_items: int | None,
        item_counts: ArrayLike | None,
        item_vectors: ArrayLike | None,
        item_ids: ArrayLike | None,
    ) -> Catalogue:
        """A catalogue from what a caller gave. Raises `InvalidInput` where the parts do not fit together."""
        size = None if n_items is None else as_count(n_items, "n_items")
        counts = None if item_counts is None else as_int64(item_counts, "item_counts")
        vectors = None if item_vectors is None else as_matrix(item_vectors, "item_vectors")
        ids = None if item_ids is None else as_int64(item_ids, "item_ids")
        sizes = {
            "n_items": size,
            "item_counts": None if counts is None else len(counts),
            "item_vectors": None if vectors is None else len(vectors),
            "item_ids": None if ids is None else len(ids),
        }
        given = {name: length for name, length in sizes.items() if length is not None}
        if len(set(given.values())) > 1:
            raise InvalidInput(f"n_items, item_counts, item_vectors and item_ids must be of one length; got {given}")
        if 0 in given.values():
            raise InvalidInput(f"the catalogue is empty; got {given}")
        if counts is not None and counts.min() < 0:
            raise InvalidInput(f"item_counts must not be negative; got {counts.min()} at {int(np.argmin(counts))}")
        if ids is not None and len(np.unique(ids)) != len(ids):
            raise InvalidInput("item_ids must not repeat an id")
        return Catalogue(next(iter(given.values()), None), counts, vectors, ids)


@dataclass(frozen=True)
class RecommendedLists:
    """The recommendations of a ranking pass, the catalogue they are from, and the values of k in use, ascending."""

    ranking: Ranking
    catalogue: Catalogue
    cuts: tuple[int, ...]

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
        size, ids = self.n_items, self.ids
        if ids.size == 0:
            return ids
        if self.catalogue.item_ids is None:
            low, high = int(ids.min()), int(ids.max())
            if low < -1 or high >= size:
                raise InvalidInput(
                    f"recommended holds the id {high if high >= size else low}, but without item_ids an id is a "
                    f"position in the catalogue, 0 to {size - 1}"
                )
            return ids
        order = np.argsort(self.catalogue.item_ids)
        known = self.catalogue.item_ids[order]
        places = np.minimum(np.searchsorted(known, ids), size - 1)
        missing = (known[places] != ids) & (ids != -1)
        if missing.any():
            raise InvalidInput(f"recommended holds the id {ids[missing][0]}, which item_ids does not have")
        positions: Int64Array = np.where(ids == -1, -1, order[places]).astype(np.int64, copy=False)
        return positions

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


def diversity(lists: RecommendedLists, k: int) -> Float64Array:
    """Intra-list diversity: the mean of 1 - cosine(x_i, x_j) over all pairs within a user's first k.

    0 for a list of one item; a zero vector is at distance 1 from all (Smyth and McClave 2001). Equals RecTools
    `IntraListDiversity` with the same distances.
    """
    return lists.mean_distances[:, lists.cuts.index(k)]
