"""`IndexFlat`, `IndexFlatIP` and `IndexFlatL2`: FAISS's exact indexes, answered by `llmrec_fast.Index`.

A label is a row's place among the rows that are left, so removing rows renumbers those behind them, as in FAISS. Underneath,
rows keep serial numbers that never change; the two are the same until something is removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Float64Array, Int64Array, as_count, as_int64
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
from llmrec_fast.compat.faiss.selectors import IDSelector, SearchParameters, as_selector, selected
from llmrec_fast.compat.faiss.vectors import Vector
from llmrec_fast.compat.ranges import BLOCK_ROWS, rows_within
from llmrec_fast.retrieval import Index as ExactIndex

# removed rows are still scanned: past this share of what is left, rewriting the index pays
_HOLES_WORTH_CLOSING = 0.5


class IndexFlat:
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
        self._index = ExactIndex(as_count(d, "d"), index_metric(metric))
        self.metric_type = metric
        self._serials: Int64Array | None = None  # of each label, once they differ
        self._holes = 0

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

    def add_with_ids(self, x: ArrayLike, ids: ArrayLike) -> None:
        """Refused, as in FAISS: wrap the index in `IndexIDMap`."""
        raise FaissError("add_with_ids is not implemented for flat indexes; wrap the index in IndexIDMap")

    def reset(self) -> None:
        """Remove all rows."""
        self._index = ExactIndex(self.d, index_metric(self.metric_type))
        self._serials, self._holes = None, 0

    def remove_ids(self, x: IDSelector | ArrayLike) -> int:
        """Remove the labels of an array or selector; those behind them move up. Returns how many were removed."""
        return self.remove_mask(as_selector(x).mask(np.arange(self.ntotal, dtype=np.int64)))

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
        return count

    def merge_from(self, otherIndex: IndexFlat, add_id: int = 0) -> None:
        """Add the rows of another index of the same kind behind those here, and leave it empty."""
        if add_id:
            raise FaissError(f"add_id must be 0 for flat indexes, whose labels are places; got {add_id}")
        check_mergeable(self, otherIndex)
        self.add(otherIndex.reconstruct_n())
        otherIndex.reset()

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
        return self.search_mask(x, k, selected(params, self._all_labels()) if params is not None else None, D, I)

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
        found = self._index.search(queries, k, allow=allowed)
        distances, labels = as_faiss_distances(found.scores, self._labels_of(found.ids), self.metric_type)
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
        allowed = selected(params, self._all_labels()) if params is not None else None
        return self.range_search_mask(x, thresh, allowed)

    def range_search_mask(
        self, x: ArrayLike, thresh: float, allowed: BoolArray | None
    ) -> tuple[Any, Float32Array, Int64Array]:
        """`range_search` with the allowed labels as a boolean mask over all of them."""
        queries = read_vectors(x, self.d)
        bound = np.float32(thresh)
        if np.isnan(bound):
            raise FaissError("thresh must be a number; got NaN")
        euclidean = self.metric_type == METRIC_L2

        def judge(scores: Float64Array) -> BoolArray:
            rounded = scores.astype(np.float32)
            return rounded < bound if euclidean else rounded > bound

        labels = self._all_labels() if allowed is None else np.flatnonzero(allowed)
        # a score within half a float32 step of the bound may round to either side of it
        loose = float(np.nextafter(bound, np.float32(np.inf if euclidean else -np.inf)))
        found = rows_within(queries, self._blocks(labels), loose, judge, euclidean=euclidean)
        return found.indptr.astype(np.uint64), found.scores.astype(np.float32), found.positions

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

    def __getstate__(self) -> dict[str, Any]:
        return {"d": self.d, "metric": self.metric_type, "rows": self.reconstruct_n()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        IndexFlat.__init__(self, state["d"], state["metric"])
        if len(state["rows"]):
            self.add(state["rows"])

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        copied.__setstate__(self.__getstate__())
        return copied

    def _all_labels(self) -> Int64Array:
        return np.arange(self.ntotal, dtype=np.int64)

    def _rows(self, labels: Int64Array) -> Float32Array:
        outside = labels[(labels < 0) | (labels >= self.ntotal)]
        if len(outside):
            raise FaissError(f"label {outside[0]} is not within the {self.ntotal} rows of the index")
        if not len(labels):
            return np.zeros((0, self.d), np.float32)
        return self._index.vectors(self._serials_of(labels))

    def _blocks(self, labels: Int64Array) -> Iterable[tuple[Int64Array, Float32Array]]:
        for start in range(0, len(labels), BLOCK_ROWS):
            piece = labels[start : start + BLOCK_ROWS]
            yield piece, self._rows(piece)

    def _serials_of(self, labels: Int64Array) -> Int64Array:
        return labels if self._serials is None else self._serials[labels]

    def _labels_of(self, serials: Int64Array) -> Int64Array:
        if self._serials is None:
            return serials
        return np.where(serials < 0, -1, np.searchsorted(self._serials, serials))


def check_mergeable(index: Any, other: Any) -> None:
    """Raise `FaissError` unless both are of one kind, dimension and metric, and two."""
    if type(other) is not type(index) or other is index or (other.d, other.metric_type) != (index.d, index.metric_type):
        raise FaissError(
            "otherIndex must be another index of the same kind, dimension and metric; got "
            f"{type(other).__name__} (d = {getattr(other, 'd', None)}) for {type(index).__name__} (d = {index.d})"
        )


class IndexFlatIP(IndexFlat):
    """`IndexFlat` by inner product."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT)


class IndexFlatL2(IndexFlat):
    """`IndexFlat` by squared L2 distance."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_L2)
