"""What can be asked of an index: one unchanging state of it, with every method that reads. Writing is `index.py`'s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Int64Array, as_count, as_int64, as_matrix
from llmrec_fast.errors import UnknownId
from llmrec_fast.retrieval.filters import Exclusions
from llmrec_fast.retrieval.result import Metric, SearchResult
from llmrec_fast.retrieval.searching import SharedSearches, normalised, read_request, search, search_on_device
from llmrec_fast.retrieval.segments import Snapshot

if TYPE_CHECKING:
    from llmrec_fast.retrieval.on_device import DeviceCopies


class IndexView:
    """One state of an index, which later writes do not touch: what `Index.snapshot` returns. Copies nothing."""

    def __init__(
        self,
        snapshot: Snapshot,
        dim: int,
        metric: Metric,
        threads: int | None,
        copies: DeviceCopies | None,
        searches: SharedSearches,
    ) -> None:
        self._snapshot = snapshot
        self._dim = dim
        self._metric: Metric = metric
        self._threads = threads
        self._copies = copies
        self._searches = searches

    @property
    def dim(self) -> int:
        """Number of columns of every vector."""
        return self._dim

    @property
    def metric(self) -> Metric:
        """How two vectors are compared."""
        return self._metric

    @property
    def ids(self) -> Int64Array:
        """The ids, in position order."""
        return self._snapshot.ids()

    @property
    def code_bytes(self) -> int:
        """Bytes of codes and norms in use: what stays in memory when the rows are mapped from disk."""
        return self._snapshot.code_bytes

    @property
    def advice(self) -> str | None:
        """Why `optimize` would be worth its time now, or None."""
        return self._snapshot.advice

    def __len__(self) -> int:
        return self._snapshot.live_count

    def __contains__(self, item_id: object) -> bool:
        if isinstance(item_id, bool) or not isinstance(item_id, int | np.integer):
            return False
        return bool(self._snapshot.find(np.array([item_id], np.int64))[0] >= 0)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def vectors(self, ids: ArrayLike) -> Float32Array:
        """The stored float32 rows of `ids` (for cosine: normalised), (n, d); raises `UnknownId`."""
        snapshot = self._snapshot
        return snapshot.gather(known_positions(snapshot, as_int64(ids, "ids")))

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        exclude: Exclusions | None = None,
        allow: ArrayLike | None = None,
        stats: bool = False,
    ) -> SearchResult:
        """The k best rows of each query.

        Parameters
        ----------
        queries : (q, d) finite values.
        k : at least 1; answers beyond the number of allowed rows are padded with id -1 and score -inf.
        exclude : ids to leave out, per query: a tuple (indptr, ids), or a list with one array of ids a query. Ids that are
            not in the index are ignored.
        allow : the only rows to consider, for the whole call: an array of ids, or a boolean mask over positions,
            which is as long as the index and in the order of `ids`. Ids that are not in the index are ignored.
        stats : whether the result says what the search did.

        Raises
        ------
        InvalidInput : wrong shapes, values that are not finite, k below 1.
        """
        snapshot = self._snapshot
        matrix = as_matrix(queries, "queries", dimension=self._dim)
        k = as_count(k, "k")
        if self._metric == "cosine":
            matrix = normalised(matrix)
        request = read_request(snapshot, matrix, k, self._metric == "euclidean", exclude, allow, self._threads)
        if self._copies is not None:
            return search_on_device(request, self._copies, stats)
        return search(request, stats=True) if stats else self._searches.search(request)


def known_positions(snapshot: Snapshot, ids: Int64Array) -> Int64Array:
    """Positions of `ids`; the first that is not there raises `UnknownId`."""
    positions = snapshot.find(ids)
    unknown = ids[positions < 0]
    if len(unknown):
        raise UnknownId(f"id {unknown[0]} is not in the index")
    return positions
