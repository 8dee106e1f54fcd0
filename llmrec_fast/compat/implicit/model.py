"""`MatrixFactorization`: recommendations from factors that implicit (or anything else) learned, by the exact index."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Int64Array, as_count, as_int64, as_matrix
from llmrec_fast.compat.exact_search import RowsIndex
from llmrec_fast.compat.implicit.least_squares import solve_rows
from llmrec_fast.compat.ties import larger_position_first
from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval.result import SearchResult

Answer = tuple[npt.NDArray[np.int32], Float32Array]


class OutOfModel(InvalidInput, IndexError):
    """A user or item that the model does not have; caught also by code that catches implicit's IndexError."""


class MatrixFactorization:
    """implicit's `recommend`, `similar_items` and `similar_users` over given factors.

    Scores are float64 sums rounded to float32; ids are int32. Equal scores come with the larger id first, as in implicit; of
    items that tie for the last of the N places the smaller ids are kept. Where fewer than N items are left after filtering,
    filtered ones follow with the score -3.4028235e38, as in implicit; after all of them comes id -1 with that score, where
    implicit has id 0 with score 0. A model can be pickled.

    Parameters
    ----------
    user_factors, item_factors : (users, d) and (items, d).
    regularization, alpha : of the alternating least squares that learned them: only recalculation needs them.
    """

    def __init__(
        self,
        user_factors: ArrayLike,
        item_factors: ArrayLike,
        *,
        regularization: float | None = None,
        alpha: float = 1.0,
    ) -> None:
        self.item_factors: Float32Array = as_matrix(item_factors, "item_factors")
        self.user_factors: Float32Array = as_matrix(user_factors, "user_factors", dimension=self.item_factors.shape[1])
        self.regularization = regularization
        self.alpha = alpha
        self._items = RowsIndex(self.item_factors, "dot")

    @classmethod
    def from_factors(
        cls,
        user_factors: ArrayLike,
        item_factors: ArrayLike,
        *,
        regularization: float | None = None,
        alpha: float = 1.0,
    ) -> Self:
        """A model of these factors; parameters as of the class."""
        return cls(user_factors, item_factors, regularization=regularization, alpha=alpha)

    def recommend(
        self,
        userid: int | ArrayLike,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: ArrayLike | None = None,
        recalculate_user: bool = False,
        items: ArrayLike | None = None,
    ) -> Answer:
        """The N items with the greatest inner product with each user's factors.

        Parameters
        ----------
        userid : a user, or several.
        user_items : CSR matrix with a row for each of them: what they liked. May be None if the next and recalculate_user are
            False.
        N : at least 1.
        filter_already_liked_items : leave out every item that is stored in the user's row.
        filter_items : items to leave out for everyone.
        recalculate_user : use factors fitted to the user's row instead of the stored ones.
        items : the only items to consider; not together with filter_items.

        Returns
        -------
        ids int32 and scores float32: (N,) for a single user, else (users, N); with `items`, at most as many as there are.

        Raises
        ------
        InvalidInput : not CSR, another number of rows, both filters. OutOfModel : ids beyond the factors.
        """
        users = self._ids(userid, len(self.user_factors), "userid")
        k = as_count(N, "N")
        exclude = None
        if filter_already_liked_items or recalculate_user:
            _check_csr(user_items, len(users), len(self.item_factors), "user_items")
        if filter_already_liked_items:
            exclude = user_items.indptr.astype(np.int64), user_items.indices.astype(np.int64)
        if items is not None:
            k = min(k, max(1, len(np.atleast_1d(np.asarray(items)))))
        queries = self._recalculated(user_items) if recalculate_user else self.user_factors[users]
        allow = self._allowed(items, filter_items, len(self.item_factors), ("items", "filter_items"))
        found = self._items.search(queries, k, exclude=exclude, allow=allow)
        return _answer(found, _considered(items, len(self.item_factors)), single=np.ndim(userid) == 0)

    def similar_items(
        self,
        itemid: int | ArrayLike,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: ArrayLike | None = None,
        items: ArrayLike | None = None,
    ) -> Answer:
        """The N items whose factors have the greatest cosine with those of `itemid`, itself among them.

        Parameters and results are as of `recommend`; item_users, a CSR matrix with a row an item, is for recalculate_item.
        """
        ids = self._ids(itemid, len(self.item_factors), "itemid")
        queries = self.item_factors[ids]
        if recalculate_item:
            _check_csr(item_users, len(ids), len(self.user_factors), "item_users")
            queries = solve_rows(self.user_factors, item_users, self._regularization(), self.alpha)
        allow = self._allowed(items, filter_items, len(self.item_factors), ("items", "filter_items"))
        found = self._similar_items.search(queries, as_count(N, "N"), allow=allow)
        return _answer(found, _considered(items, len(self.item_factors)), single=np.ndim(itemid) == 0)

    def similar_users(
        self,
        userid: int | ArrayLike,
        N: int = 10,
        filter_users: ArrayLike | None = None,
        users: ArrayLike | None = None,
    ) -> Answer:
        """The N users whose factors have the greatest cosine with those of `userid`: as `similar_items`."""
        ids = self._ids(userid, len(self.user_factors), "userid")
        allow = self._allowed(users, filter_users, len(self.user_factors), ("users", "filter_users"))
        found = self._similar_users.search(self.user_factors[ids], as_count(N, "N"), allow=allow)
        return _answer(found, _considered(users, len(self.user_factors)), single=np.ndim(userid) == 0)

    def recalculate_user(self, userid: int | ArrayLike, user_items: Any) -> Float32Array:
        """Factors fitted to the rows of `user_items`, without storing them: (d,) for a single user, else (users, d)."""
        _check_csr(
            user_items, 1 if np.ndim(userid) == 0 else np.size(np.asarray(userid)), len(self.item_factors), "user_items"
        )
        factors = self._recalculated(user_items)
        return factors[0] if np.ndim(userid) == 0 else factors

    def __getstate__(self) -> dict[str, Any]:
        names = ("user_factors", "item_factors", "regularization", "alpha")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        factors = state.pop("user_factors"), state.pop("item_factors")
        MatrixFactorization.__init__(self, *factors, **state)  # the indexes are built anew

    @cached_property
    def _similar_items(self) -> RowsIndex:
        return RowsIndex(self.item_factors, "cosine")

    @cached_property
    def _similar_users(self) -> RowsIndex:
        return RowsIndex(self.user_factors, "cosine")

    def _recalculated(self, user_items: Any) -> Float32Array:
        return solve_rows(self.item_factors, user_items, self._regularization(), self.alpha)

    def _regularization(self) -> float:
        if self.regularization is None:
            raise InvalidInput(
                "recalculating needs the regularization that the factors were learned with; pass it to from_factors"
            )
        return self.regularization

    @staticmethod
    def _ids(values: int | ArrayLike, count: int, name: str) -> Int64Array:
        ids = as_int64(np.atleast_1d(np.asarray(values)), name)
        outside = ids[(ids < 0) | (ids >= count)]
        if len(outside):
            raise OutOfModel(f"{name} holds {outside[0]}, which is not in the model: it has 0 to {count - 1}")
        return ids

    def _allowed(
        self, only: ArrayLike | None, without: ArrayLike | None, count: int, names: tuple[str, str]
    ) -> Int64Array | BoolArray | None:
        if only is not None and without is not None and np.size(np.asarray(without)):
            raise InvalidInput(f"give {names[0]} or {names[1]}, not both")
        if only is not None:
            return self._ids(only, count, names[0])
        if without is None:
            return None
        mask = np.ones(count, bool)
        mask[self._ids(without, count, names[1])] = False
        return mask


def _check_csr(matrix: Any, rows: int, columns: int, name: str) -> None:
    if getattr(matrix, "format", None) != "csr":
        raise InvalidInput(f"{name} must be a scipy.sparse matrix in CSR form; got {type(matrix).__name__}")
    if matrix.shape[0] != rows:
        raise InvalidInput(f"{name} must have one row for each of the {rows} asked for; got shape {matrix.shape}")
    if matrix.shape[1] > columns:
        raise InvalidInput(f"{name} must have at most {columns} columns, one for each in the model; got {matrix.shape}")


def _considered(only: ArrayLike | None, count: int) -> Int64Array:
    """The ids that a search is about before anything is filtered, ascending."""
    return np.arange(count) if only is None else np.unique(np.asarray(only))


def _answer(found: SearchResult, considered: Int64Array, *, single: bool) -> Answer:
    """What was found in implicit's order, followed by what was filtered of `considered` where less than N was found."""
    scores, places = larger_position_first(found.scores, found.ids)
    ids = places.astype(np.int32)
    for row in np.flatnonzero((ids < 0).any(axis=1)).tolist():
        _fill(ids[row], considered)
    return (ids[0], scores[0]) if single else (ids, scores)


def _fill(ids: npt.NDArray[np.int32], considered: Int64Array) -> None:
    """Put filtered ids where -1 is, the larger first: those that stay in a heap of the first ids, emptied from the smallest."""
    first = considered[: len(ids)]
    filtered = first[~np.isin(first, ids)][::-1]
    start = int(np.argmax(ids < 0))
    count = min(len(ids) - start, len(filtered))
    ids[start : start + count] = filtered[:count]
