"""The one pass over recommendations and relevant ids that every accuracy metric at every k is computed from.

Holds the result of the pass; the formulas are in `accuracy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float64Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.relevance import Gains, Relevance, Relevant, as_relevance, grow_gains
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

_LOOKUPS_WORTH_A_THREAD = 50_000


@dataclass(frozen=True)
class Ranking:
    """Where the relevant ids stand in the recommendations.

    Attributes
    ----------
    recommended : (users, width) int64, padded with -1 at the end of rows.
    lengths : (users,) int64, number of ids in each row.
    relevance : what is relevant to each user.
    hit_users, hit_ranks : (hits,) int64: user and rank (0 is the first) of every relevant recommendation, by user and
        then rank. An id that a row repeats is a hit where it first stands and a miss afterwards.
    """

    recommended: Int64Array
    lengths: Int64Array
    relevance: Relevance
    hit_users: Int64Array
    hit_ranks: Int64Array

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.recommended)

    @property
    def relevant_counts(self) -> Int64Array:
        """(users,) int64, number of different relevant ids of each user."""
        return self.relevance.counts

    @cached_property
    def hit_gains(self) -> Float64Array:
        """(hits,) the gain of every hit: 1 if relevance is binary."""
        from llmrec_fast.evaluation import compiled

        known, found = self.relevance, np.ones(len(self.hit_users))
        if known.gains is not None:
            items = self.recommended[self.hit_users, self.hit_ranks]
            compiled.find_gains(self.hit_users, items, known.offsets, known.counts, known.ids, known.gains, found)
        return found

    @cached_property
    def hit_ordinals(self) -> Int64Array:
        """(hits,) int64: 1 for a user's first hit, 2 for the second and so on."""
        counts = np.bincount(self.hit_users, minlength=self.users)
        starts = np.cumsum(counts) - counts
        return np.arange(1, len(self.hit_users) + 1) - starts[self.hit_users]

    @cached_property
    def hit_gains_grown(self) -> Float64Array:
        """(hits,) 2^gain - 1 of every hit."""
        return grow_gains(self.hit_gains)

    @cached_property
    def hit_discounts(self) -> Float64Array:
        """(hits,) 1 / log2(j + 1) for a hit at rank j, from 1."""
        discounts: Float64Array = 1.0 / np.log2(self.hit_ranks + 2.0)
        return discounts

    def hits_within(self, k: int) -> Float64Array:
        """(users,) number of hits among the first k."""
        if k not in self._hits_within:
            users = self.hit_users if k >= self._k else self.hit_users[self.hit_ranks < k]
            self._hits_within[k] = np.bincount(users, minlength=self.users).astype(np.float64)
        return self._hits_within[k]

    def sum_over_hits(self, values: Float64Array, k: int) -> Float64Array:
        """(users,) sum of `values` (one a hit) over the hits among the first k."""
        if k >= self._k:
            users = self.hit_users
        else:
            within: BoolArray = self.hit_ranks < k
            users, values = self.hit_users[within], values[within]
        return np.bincount(users, weights=values, minlength=self.users).astype(np.float64, copy=False)

    @cached_property
    def _k(self) -> int:
        """Beyond this rank there is no hit."""
        return int(self.hit_ranks.max(initial=-1)) + 1

    @cached_property
    def _hits_within(self) -> dict[int, Float64Array]:
        """What `hits_within` has counted: several metrics ask for it at the same k."""
        return {}


def rank(recommended: ArrayLike, relevant: Relevant, k: int, gains: Gains | None = None) -> Ranking:
    """Check both arguments and find the hits among the first k recommendations of each user.

    Cost: one binary search a recommendation, users shared between threads.

    Raises
    ------
    InvalidInput : `recommended` is no (users, width) array of integers, has no user, or an id after padding; `relevant`
        and `gains` as in `as_relevance`.
    """
    from llmrec_fast.evaluation import compiled

    ids = _as_ids(recommended)
    relevance = as_relevance(relevant, len(ids), gains)
    hits = np.zeros((len(ids), min(k, ids.shape[1])), dtype=np.bool_)
    lengths = np.zeros(len(ids), dtype=np.int64)
    pieces = split_range(len(ids), min(get_threads(), 1 + ids.size // _LOOKUPS_WORTH_A_THREAD))
    broken = run_parallel(
        compiled.mark_hits,
        [
            (ids, relevance.offsets, relevance.counts, relevance.ids, hits, lengths, start, stop)
            for start, stop in pieces
        ],
    )
    for user in broken:
        if user >= 0:
            raise InvalidInput(f"recommended has an id after the padding -1 in row {user}; padding must end a row")
    places = np.flatnonzero(hits)
    hit_users, hit_ranks = np.divmod(places, max(1, hits.shape[1]))
    return Ranking(ids, lengths, relevance, hit_users, hit_ranks)


def _as_ids(recommended: ArrayLike) -> Int64Array:
    array = np.asarray(recommended)
    if array.ndim != 2:
        raise InvalidInput(f"recommended must have two dimensions (users, k); got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise InvalidInput(f"recommended must be integers; got dtype {array.dtype}")
    if len(array) == 0:
        raise InvalidInput("recommended has no rows; at least one user is needed")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise InvalidInput(f"recommended holds {int(array.max())}, which does not fit in int64")
    return np.ascontiguousarray(array, dtype=np.int64)
