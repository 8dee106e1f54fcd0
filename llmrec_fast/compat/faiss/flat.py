"""`IndexFlat`, `IndexFlatIP` and `IndexFlatL2`: FAISS's exact indexes, answered by `llmrec_fast.Index`.

A label is a row's place among the rows that are left, so removing rows renumbers those behind them, as in FAISS. Underneath,
rows keep serial numbers that never change; the two are the same until something is removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Int64Array, as_count, as_int64
from llmrec_fast.compat.exact_search import FewRowsIndex
from llmrec_fast.compat.faiss.copying import CopiesRows
from llmrec_fast.compat.faiss.metrics import (
    METRIC_INNER_PRODUCT,
    METRIC_L2,
    FaissError,
    as_faiss_distances,
    index_metric,
    into,
    read_k,
    read_vectors,
)
from llmrec_fast.compat.faiss.range_search import find_in_range
from llmrec_fast.compat.faiss.selectors import IDSelector, SearchParameters, as_selector, selected
from llmrec_fast.compat.faiss.vectors import Vector
from llmrec_fast.compat.few_rows import are_few
from llmrec_fast.compat.ranges import BLOCK_ROWS
from llmrec_fast.retrieval import Index as ExactIndex

# removed rows are still scanned: past this share of what is left, rewriting the index pays
_HOLES_WORTH_CLOSING = 0.5


class IndexFlat(CopiesRows):
    """Exact search by inner product or squared L2 distance, float32 in and out.

    Distances are those of float64 sums, rounded once; FAISS sums in float32, so its last digits differ. Equal distances: for
    inner products the larger label comes first, for L2 the smaller, as in FAISS. Of rows that tie for the last of the k places
    the smaller labels are kept, as in FAISS for L2; for inner products FAISS's choice depends on the order in which better rows
    happened to arrive. Not covered: metrics other than these two, NaN in vectors (refused).

    Parameters
    ----------
    d : columns of every vector.
    metric : METRIC_L2 (the default, as in FAISS) or METRIC_INNER_PRODUCT.
    """

    is_trained = True
    verbose = False
    metric_arg = 0.0

    def __init__(self, d: int, metric: int = METRIC_L2) -> None:
        self._start(d, metric)

    def _start(self, d: int, metric: int) -> None:
        self._index = ExactIndex(as_count(d, "d"), index_metric(metric))
        self.metric_type = metric
        self._serials: Int64Array | None = None  # of each label, once they differ
        self._holes = 0
        # what was made of the rows while they were few, and at which version: a reader may make it while a writer changes them
        self._few: tuple[int, FewRowsIndex] | None = None
        self._version = 0

    @property
    def d(self) -> int:
        """Columns of every vector."""
        return self._index.dim

    @property
    def ntotal(self) -> int:
        """Number of rows."""
        return len(self._index)

    @property
    def code_size(self) -> int:
        """Bytes of a row."""
        return 4 * self.d

    @property
    def codes(self) -> Vector:
        """The rows' bytes, one after another."""
        return Vector(self.get_xb().view(np.uint8))

    def get_xb(self) -> Float32Array:
        """A copy of the rows, (ntotal * d,): FAISS gives a pointer, which `rev_swig_ptr` takes as it takes this."""
        return self.reconstruct_n().reshape(-1)

    def train(self, x: ArrayLike) -> None:
        """Nothing: flat indexes need no training."""
        read_vectors(x, self.d)

    def add(self, x: ArrayLike) -> None:
        """Add rows (n, d); their labels are ntotal, ntotal + 1, ..."""
        rows = read_vectors(x, self.d)
        self._index.add(rows)
        if self._serials is not None:
            self._serials = self._index.ids
        self._version += 1

    def add_with_ids(self, x: ArrayLike, ids: ArrayLike) -> None:
        """Refused, as in FAISS: wrap the index in `IndexIDMap`."""
        raise FaissError("add_with_ids is not implemented for flat indexes; wrap the index in IndexIDMap")

    def reset(self) -> None:
        """Remove all rows."""
        self._index = ExactIndex(self.d, index_metric(self.metric_type))
        self._serials, self._holes = None, 0
        self._version += 1

    def remove_ids(self, x: IDSelector | ArrayLike) -> int:
        """Remove the labels of an array or selector; those behind them move up. Returns how many were removed."""
        return self.remove_mask(as_selector(x).places(self.ntotal))

    def remove_mask(self, doomed: BoolArray) -> int:
        """Remove the rows of a boolean mask over labels; returns how many there were."""
        count = int(doomed.sum())
        if count == 0:
            return 0
        self._index.remove(self._serials_of(np.flatnonzero(doomed)))
        self._serials = self._index.ids
        self._holes += count
        if self._holes > _HOLES_WORTH_CLOSING * self.ntotal:
            self._index.optimize()
            self._holes = 0
        self._version += 1
        return count

    def search(
        self,
        x: ArrayLike,
        k: int,
        *,
        params: SearchParameters | None = None,
        D: Float32Array | None = None,
        I: Int64Array | None = None,  # noqa: E741
    ) -> tuple[Float32Array, Int64Array]:
        """The k nearest rows of each query.

        Parameters
        ----------
        x : (n, d).
        k : at least 1.
        params : `SearchParameters(sel=...)` restricts the labels.
        D, I : (n, k) float32 and int64 arrays to write to.

        Returns
        -------
        D : (n, k) float32, inner products falling or squared distances rising; -/+ 3.4028235e38 where rows are missing.
        I : (n, k) int64 labels, -1 where rows are missing.
        """
        return self.search_mask(x, k, self._allowed(params), D, I)

    def search_mask(
        self,
        x: ArrayLike,
        k: int,
        allowed: BoolArray | None,
        D: Float32Array | None = None,
        I: Int64Array | None = None,  # noqa: E741
    ) -> tuple[Float32Array, Int64Array]:
        """`search` with the allowed labels as a boolean mask over all of them."""
        queries, k = read_vectors(x, self.d), read_k(k)
        few = self._few_rows(len(queries))
        found = self._index.search(queries, k, allow=allowed) if few is None else few.search(queries, k, allow=allowed)
        labels = self._labels_of(found.ids) if few is None else found.ids
        distances, labels = as_faiss_distances(found.scores, labels, self.metric_type)
        return into(D, distances, "D"), into(I, labels, "I")

    def assign(self, x: ArrayLike, k: int, labels: Int64Array | None = None) -> Int64Array:
        """The labels of `search` alone, (n, k)."""
        found: Int64Array = into(labels, self.search(x, k)[1], "labels")
        return found

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
        distances, labels = self.search(x, k, params=params, D=D, I=I)
        vectors = np.full((*labels.shape, self.d), np.nan, np.float32)
        present = labels >= 0
        vectors[present] = self._rows(labels[present])
        return distances, labels, into(R, vectors, "R")

    def range_search(
        self, x: ArrayLike, thresh: float, *, params: SearchParameters | None = None
    ) -> tuple[Any, Float32Array, Int64Array]:
        """All rows with an inner product above, or a squared distance below, `thresh` (strictly, in float32).

        Returns
        -------
        lims : (n + 1,) uint64; query j found D[lims[j] : lims[j + 1]].
        D : float32 distances; I : int64 labels, ascending within a query.
        """
        return self.range_search_mask(x, thresh, self._allowed(params))

    def range_search_mask(
        self, x: ArrayLike, thresh: float, allowed: BoolArray | None
    ) -> tuple[Any, Float32Array, Int64Array]:
        """`range_search` with the allowed labels as a boolean mask over all of them."""
        return find_in_range(self, read_vectors(x, self.d), thresh, allowed)

    def reconstruct(self, key: int, x: Float32Array | None = None) -> Float32Array:
        """The row with a label, (d,)."""
        row: Float32Array = into(x, self._rows(as_int64([key], "key"))[0], "x")
        return row

    def reconstruct_batch(self, key: ArrayLike, x: Float32Array | None = None) -> Float32Array:
        """The rows with these labels, (n, d)."""
        rows: Float32Array = into(x, self._rows(as_int64(key, "key")), "x")
        return rows

    def reconstruct_n(self, n0: int = 0, ni: int = -1, x: Float32Array | None = None) -> Float32Array:
        """The rows n0 .. n0 + ni; ni = -1: all from n0."""
        stop = self.ntotal if ni == -1 else n0 + ni
        if not 0 <= n0 <= stop <= self.ntotal:
            raise FaissError(f"rows {n0} to {stop} are not within the {self.ntotal} of the index")
        rows: Float32Array = into(x, self._rows(np.arange(n0, stop, dtype=np.int64)), "x")
        return rows

    def _allowed(self, params: SearchParameters | None) -> BoolArray | None:
        selector = selected(params)
        return None if selector is None else selector.places(self.ntotal)

    def _few_rows(self, queries: int | None = None) -> FewRowsIndex | None:
        """The rows to search as they lie, if they are few enough for that: by any number of queries, or by so many."""
        version, made = self._version, self._few
        if not self.ntotal or not are_few((self.ntotal, self.d), queries):
            return None
        if made is not None and made[0] == version:
            return made[1]
        few = FewRowsIndex(self._index.vectors(self._serials_of(self._all_labels())), index_metric(self.metric_type))
        self._few = version, few
        return few

    def _all_labels(self) -> Int64Array:
        return np.arange(self.ntotal, dtype=np.int64)

    def _rows(self, labels: Int64Array) -> Float32Array:
        outside = labels[(labels < 0) | (labels >= self.ntotal)]
        if len(outside):
            raise FaissError(f"label {outside[0]} is not within the {self.ntotal} rows of the index")
        if not len(labels):
            return np.zeros((0, self.d), np.float32)
        few = self._few_rows()
        return self._index.vectors(self._serials_of(labels)) if few is None else few.few.rows[labels]

    def _blocks(self, allowed: BoolArray | None) -> Iterable[tuple[Int64Array, Float32Array]]:
        """(serials, rows) of the allowed labels, block by block."""
        labels = self._all_labels() if allowed is None else np.flatnonzero(allowed)
        for start in range(0, len(labels), BLOCK_ROWS):
            serials = self._serials_of(labels[start : start + BLOCK_ROWS])
            yield serials, self._index.vectors(serials)

    def _serials_of(self, labels: Int64Array) -> Int64Array:
        return labels if self._serials is None else self._serials[labels]

    def _labels_of(self, serials: Int64Array) -> Int64Array:
        if self._serials is None:
            return serials
        return np.where(serials < 0, -1, np.searchsorted(self._serials, serials))


class IndexFlatIP(IndexFlat):
    """`IndexFlat` by inner product."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT)


class IndexFlatL2(IndexFlat):
    """`IndexFlat` by squared L2 distance."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_L2)
