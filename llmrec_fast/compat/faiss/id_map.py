"""`IndexIDMap` and `IndexIDMap2`: a flat index whose rows carry ids of the caller's. As in FAISS an id may occur many times."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Int64Array, as_int64
from llmrec_fast.compat.faiss.copying import check_mergeable
from llmrec_fast.compat.faiss.flat import IndexFlat
from llmrec_fast.compat.faiss.metrics import FaissError, into, read_vectors
from llmrec_fast.compat.faiss.selectors import IDSelector, SearchParameters, as_selector, selected
from llmrec_fast.compat.faiss.vectors import Vector


class IndexIDMap:
    """Ids over an empty flat index. Ties follow the order in which rows were added, as in FAISS, whatever their ids."""

    is_trained = True
    verbose = False

    def __init__(self, index: IndexFlat) -> None:
        if not isinstance(index, IndexFlat):
            raise FaissError(f"index must be a flat index; got {type(index).__name__}, which is not covered")
        if index.ntotal:
            raise FaissError(f"index must be empty on input; it has {index.ntotal} rows")
        self.index = index
        self._ids: Int64Array = np.zeros(0, np.int64)

    @classmethod
    def of(cls, index: IndexFlat, ids: Int64Array) -> Self:
        """A map over an index that has rows already, with one id for each."""
        mapped = cls.__new__(cls)
        mapped.index, mapped._ids = index, ids
        return mapped

    @property
    def id_map(self) -> Vector:
        """The id of each row, in the order in which they were added: `vector_to_array` makes an array of it."""
        return Vector(self._ids)

    @property
    def d(self) -> int:
        """Columns of every vector."""
        return self.index.d

    @property
    def ntotal(self) -> int:
        """Number of rows."""
        return self.index.ntotal

    @property
    def metric_type(self) -> int:
        """The metric of the index below."""
        return self.index.metric_type

    def train(self, x: ArrayLike) -> None:
        """Nothing: flat indexes need no training."""
        self.index.train(x)

    def add(self, x: ArrayLike) -> None:
        """Refused, as in FAISS: rows need ids."""
        raise FaissError("add does not make sense with IndexIDMap; use add_with_ids")

    def add_with_ids(self, x: ArrayLike, ids: ArrayLike) -> None:
        """Add rows (n, d) with their ids (n,)."""
        rows = read_vectors(x, self.d)
        new_ids = as_int64(ids, "ids", length=len(rows))
        self.index.add(rows)
        self._ids = np.concatenate([self._ids, new_ids])

    def reset(self) -> None:
        """Remove all rows."""
        self.index.reset()
        self._ids = np.zeros(0, np.int64)

    def remove_ids(self, x: IDSelector | ArrayLike) -> int:
        """Remove every row whose id is in an array or selector; returns how many there were."""
        doomed = as_selector(x).mask(self._ids)
        count = self.index.remove_mask(doomed)
        self._ids = self._ids[~doomed]
        return count

    def merge_from(self, otherIndex: IndexIDMap, add_id: int = 0) -> None:
        """Add the rows of another map, with `add_id` added to their ids, and leave it empty."""
        check_mergeable(self, otherIndex)
        self.index.merge_from(otherIndex.index)
        self._ids = np.concatenate([self._ids, otherIndex._ids + add_id])
        otherIndex._ids = np.zeros(0, np.int64)

    def reconstruct(self, key: int, x: Float32Array | None = None) -> Float32Array:
        """Refused, as in FAISS: `IndexIDMap2` does it."""
        raise FaissError("reconstruct is not implemented for IndexIDMap; use IndexIDMap2")

    def search(
        self,
        x: ArrayLike,
        k: int,
        *,
        params: SearchParameters | None = None,
        D: Float32Array | None = None,
        I: Int64Array | None = None,  # noqa: E741
    ) -> tuple[Float32Array, Int64Array]:
        """As `IndexFlat.search`, with ids for labels, in `params` too."""
        distances, labels = self.index.search_mask(x, k, self._allowed(params), D)
        return distances, into(I, self._ids_of(labels), "I")

    def search_and_reconstruct(
        self,
        x: ArrayLike,
        k: int,
        *,
        params: SearchParameters | None = None,
        D: Float32Array | None = None,
        I: Int64Array | None = None,  # noqa: E741
        R: Float32Array | None = None,
    ) -> tuple[Float32Array, Int64Array, Float32Array]:
        """`search`, and the rows that were found: R (n, k, d), NaN where rows are missing."""
        distances, labels = self.index.search_mask(x, k, self._allowed(params), D)
        vectors = np.full((*labels.shape, self.d), np.nan, np.float32)
        present = labels >= 0
        vectors[present] = self.index.reconstruct_batch(labels[present])
        return distances, into(I, self._ids_of(labels), "I"), into(R, vectors, "R")

    def assign(self, x: ArrayLike, k: int, labels: Int64Array | None = None) -> Int64Array:
        """The ids of `search` alone, (n, k)."""
        found: Int64Array = into(labels, self.search(x, k)[1], "labels")
        return found

    def range_search(
        self, x: ArrayLike, thresh: float, *, params: SearchParameters | None = None
    ) -> tuple[Any, Float32Array, Int64Array]:
        """As `IndexFlat.range_search`, with ids for labels."""
        limits, distances, labels = self.index.range_search_mask(x, thresh, self._allowed(params))
        return limits, distances, self._ids[labels]

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self).of(self.index.__deepcopy__(memo), self._ids.copy())

    def _allowed(self, params: SearchParameters | None) -> BoolArray | None:
        selector = selected(params)
        return None if selector is None else selector.mask(self._ids)

    def _ids_of(self, labels: Int64Array) -> Int64Array:
        if not len(self._ids):
            return labels
        return np.where(labels < 0, -1, self._ids[labels])


class IndexIDMap2(IndexIDMap):
    """`IndexIDMap` that also finds the row of an id; of an id that occurs many times, the row added last."""

    def reconstruct(self, key: int, x: Float32Array | None = None) -> Float32Array:
        """The row with an id, (d,)."""
        places = np.flatnonzero(self._ids == key)
        if not len(places):
            raise FaissError(f"key {key} not found")
        return self.index.reconstruct(int(places[-1]), x)

    def reconstruct_batch(self, key: ArrayLike, x: Float32Array | None = None) -> Float32Array:
        """The rows with these ids, (n, d)."""
        keys = as_int64(key, "key")
        order = np.argsort(self._ids, kind="stable")
        places = np.searchsorted(self._ids, keys, side="right", sorter=order) - 1
        found = order[np.maximum(places, 0)] if len(order) else np.zeros(0, np.int64)
        known = places >= 0
        known[known] = self._ids[found[known]] == keys[known]
        if not known.all():
            raise FaissError(f"key {keys[~known][0]} not found")
        return self.index.reconstruct_batch(found, x)
