"""What every user did, as an immutable value of which one user's part can be replaced in no time.

Most histories lie in one block of arrays (what was fitted or loaded); those that have changed since lie in pages over it.
Replacing some histories copies the pages that hold them and the list of pages, nothing else, so that readers keep what they
have and a writer may do it a thousand times a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array

_Number = TypeVar("_Number", bound=np.number[Any])
_PAGE = 512
# the time of an interaction that came without one: before everything that has a time
NO_TIME = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class WeightedHistories:
    """For each query the items that describe it, oldest first, and how much each counts.

    Attributes
    ----------
    indptr : (queries + 1,) int64; query q owns the positions `indptr[q] .. indptr[q + 1]` of the other two.
    items : (m,) int64 positions in the catalogue.
    weights : (m,) float32.
    """

    indptr: Int64Array
    items: Int64Array
    weights: Float32Array

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def of(self, query: int) -> tuple[Int64Array, Float32Array]:
        """Items and weights of one query."""
        part = slice(int(self.indptr[query]), int(self.indptr[query + 1]))
        return self.items[part], self.weights[part]


@dataclass(frozen=True)
class History:
    """What one user did, oldest first; every item once.

    Attributes
    ----------
    items : (h,) int64 positions in the catalogue, those of removed items among them.
    strengths : (h,) float32, what each would weigh if it were the latest.
    timestamps : (h,) int64 in the unit of the source, rising; `NO_TIME` where none was given.
    """

    items: Int64Array
    strengths: Float32Array
    timestamps: Int64Array

    def recorded(self, item: int, strength: float, timestamp: int | None) -> History:
        """With one more interaction, in its place by time (after equal times); None is the time of the latest.

        Of several interactions with one item the latest counts, as when interactions are read.
        """
        count = len(self.items)
        time = timestamp if timestamp is not None else int(self.timestamps[-1]) if count else NO_TIME
        kept = self.items != item
        if kept.all():
            earlier = self
        else:
            if self.timestamps[~kept][0] > time:
                return self
            earlier = History(self.items[kept], self.strengths[kept], self.timestamps[kept])
        place = int(np.searchsorted(earlier.timestamps, time, side="right"))
        return History(
            _inserted(earlier.items, place, item),
            _inserted(earlier.strengths, place, strength),
            _inserted(earlier.timestamps, place, time),
        )


NO_HISTORY = History(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))
_Page: TypeAlias = "tuple[History | None, ...]"
_EMPTY_PAGE: _Page = (None,) * _PAGE


@dataclass(frozen=True)
class UserHistories:
    """The histories of all users; what weighs how much follows from strengths and age.

    An item weighs `strength * exp(-rank / decay)`, rank 0 being the user's most recent item that has not been removed.

    Attributes
    ----------
    count : number of users.
    indptr, items, strengths, timestamps : the block: user u has the positions `indptr[u] .. indptr[u + 1]`; users beyond it
        have what the pages say.
    decay : in items; None weighs old and new alike.
    live : (items,) which items of the catalogue still are in it; None for all.
    pages : histories that replace those of the block.
    """

    count: int
    indptr: Int64Array
    items: Int64Array
    strengths: Float32Array
    timestamps: Int64Array
    decay: float | None
    live: BoolArray | None = None
    pages: tuple[_Page, ...] = ()

    def __len__(self) -> int:
        return self.count

    def history(self, user: int) -> History:
        """Everything that is kept of one user, removed items included."""
        page = user // _PAGE
        if page < len(self.pages):
            changed = self.pages[page][user % _PAGE]
            if changed is not None:
                return changed
        if user + 1 >= len(self.indptr):
            return NO_HISTORY
        part = slice(int(self.indptr[user]), int(self.indptr[user + 1]))
        return History(self.items[part], self.strengths[part], self.timestamps[part])

    def of(self, user: int) -> tuple[Int64Array, Float32Array]:
        """Items and weights of one user, oldest first."""
        history = self.history(user)
        items, strengths = history.items, history.strengths
        if self.live is not None:
            alive = self.live[items]
            if not alive.all():
                items, strengths = items[alive], strengths[alive]
        return items, self._weigh(strengths, np.arange(len(items) - 1, -1, -1))

    def take(self, users: Int64Array) -> WeightedHistories:
        """The weighted histories of `users`, in that order."""
        if len(users) == 1:
            items, weights = self.of(int(users[0]))
            return WeightedHistories(np.array([0, len(items)]), items, weights)
        histories = [self.history(user) for user in users.tolist()]
        items = np.concatenate([NO_HISTORY.items, *(history.items for history in histories)])
        strengths = np.concatenate([NO_HISTORY.strengths, *(history.strengths for history in histories)])
        sizes = np.array([len(history.items) for history in histories], np.int64)
        if self.live is not None:
            alive = self.live[items]
            sizes = np.bincount(np.repeat(np.arange(len(sizes)), sizes)[alive], minlength=len(sizes))
            items, strengths = items[alive], strengths[alive]
        indptr = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        ranks = np.repeat(indptr[1:], sizes) - 1 - np.arange(len(items))
        return WeightedHistories(indptr, items, self._weigh(strengths, ranks))

    def replaced(self, changes: Mapping[int, History], count: int) -> UserHistories:
        """With other histories for some users, and `count` users in all."""
        pages = list(self.pages)
        pages += [_EMPTY_PAGE] * (max(changes, default=-1) // _PAGE + 1 - len(pages))
        by_page: dict[int, dict[int, History]] = {}
        for user, history in changes.items():
            by_page.setdefault(user // _PAGE, {})[user % _PAGE] = history
        for number, entries in by_page.items():
            page = list(pages[number])
            for place, history in entries.items():
                page[place] = history
            pages[number] = tuple(page)
        return replace(self, count=count, pages=tuple(pages))

    def merged(self, order: Int64Array) -> UserHistories:
        """All histories in one block, with the items at `order` in new positions 0, 1, 2, ... and all others left out."""
        histories = [self.history(user) for user in range(self.count)]
        items = np.concatenate([NO_HISTORY.items, *(history.items for history in histories)])
        strengths = np.concatenate([NO_HISTORY.strengths, *(history.strengths for history in histories)])
        timestamps = np.concatenate([NO_HISTORY.timestamps, *(history.timestamps for history in histories)])
        users = np.repeat(np.arange(self.count), [len(history.items) for history in histories])
        moved = np.full(int(max(items.max(initial=-1), order.max(initial=-1))) + 1, -1)
        moved[order] = np.arange(len(order))
        items = moved[items]
        kept = items >= 0
        indptr = np.concatenate(([0], np.cumsum(np.bincount(users[kept], minlength=self.count)))).astype(np.int64)
        return UserHistories(self.count, indptr, items[kept], strengths[kept], timestamps[kept], self.decay)

    def _weigh(self, strengths: Float32Array, ranks: Int64Array) -> Float32Array:
        """The same formula, in the same precision, as `features.HistoryWeighting`."""
        if self.decay is None:
            return strengths
        weights: Float64Array = np.exp(-ranks / self.decay) * strengths
        return weights.astype(np.float32)


def _inserted(values: npt.NDArray[_Number], place: int, value: float) -> npt.NDArray[_Number]:
    result = np.empty(len(values) + 1, values.dtype)
    result[:place], result[place], result[place + 1 :] = values[:place], value, values[place:]
    return result
