"""What can be asked of an index: one unchanging state of it, with every method that reads. Writing is `index.py`'s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Int64Array, as_count, as_int64, is_on_device
from llmrec_fast.errors import InvalidInput, UnknownId
from llmrec_fast.retrieval.filters import Exclusions
from llmrec_fast.retrieval.result import Metric, SearchResult
from llmrec_fast.retrieval.searching import SharedSearches, read_queries, read_request, search, search_on_device
from llmrec_fast.retrieval.segments import Snapshot

if TYPE_CHECKING:
    from llmrec_fast.kernels.cuda.fixed_search import FixedSearch
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
        queries : (q, d) finite values. With `device="cuda"`, also a C-contiguous float32 array on the index's GPU
            (anything with DLPack or `__cuda_array_interface__`): the result is then on the GPU too, ordered on the caller's
            stream, and the host waits for nothing (but for `stats`). It cannot look at values either: a query that is
            not finite gets an answer without meaning.
        k : at least 1; answers beyond the number of allowed rows are padded with id -1 and score -inf.
        exclude : ids to leave out, per query: a tuple (indptr, ids), or a list with one array of ids a query. Ids that are
            not in the index are ignored.
        allow : the only rows to consider, for the whole call: an array of ids, or a boolean mask over positions,
            which is as long as the index and in the order of `ids`. Ids that are not in the index are ignored.
        stats : whether the result says what the search did.

        Raises
        ------
        InvalidInput : wrong shapes, values that are not finite, k below 1; on a GPU also k above 1,024, arrays on another
            device or of another dtype.
        """
        snapshot = self._snapshot
        k = as_count(k, "k")
        matrix: Any
        if self._copies is not None and is_on_device(queries):
            matrix = self._copies.read("queries", queries, self._dim, self._metric == "cosine")
        else:
            matrix = read_queries(queries, self._dim, self._metric == "cosine")
        request = read_request(snapshot, matrix, k, self._metric == "euclidean", exclude, allow, self._threads)
        if self._copies is not None:
            return search_on_device(request, self._copies, stats)
        return search(request, stats=True) if stats else self._searches.search(request)

    def fixed_search(
        self, queries: int, k: int, *, exclude: Exclusions | None = None, allow: ArrayLike | None = None
    ) -> FixedSearch:
        """A search of fixed shape on the GPU, for CUDA graphs: over the index as it is now, `queries` queries a call.

        Calls only launch kernels: all memory is found now, filters included. What is written to the index later does
        not show. While a graph is being captured, nothing may write to the index.

        Parameters
        ----------
        queries : how many there are in a call.
        k, exclude, allow : as in `search`; the filters stay the same for all calls.

        Raises
        ------
        InvalidInput : the index is on the CPU, k above 1,024, filters that do not fit.

        Examples
        --------
        With CuPy; `search` may also be part of a graph that CuPy or PyTorch captures::

            search = index.fixed_search(8, k=10)
            graph = search.record()
            with stream:
                search.queries[:] = queries
                graph.replay()
            # the answer is in search.scores and search.ids when the stream gets there
        """
        if self._copies is None:
            raise InvalidInput(
                'fixed_search is for device="cuda"; this index is on the CPU, where search allocates little'
            )
        count, k = as_count(queries, "queries"), as_count(k, "k")
        snapshot, euclidean = self._snapshot, self._metric == "euclidean"
        request = read_request(snapshot, range(count), k, euclidean, exclude, allow, self._threads)
        return self._copies.fixed_search(
            snapshot,
            request.masks,
            (count, self._dim),
            k,
            euclidean=euclidean,
            cosine=self._metric == "cosine",
            excluded=request.excluded,
        )


def known_positions(snapshot: Snapshot, ids: Int64Array) -> Int64Array:
    """Positions of `ids`; the first that is not there raises `UnknownId`."""
    positions = snapshot.find(ids)
    unknown = ids[positions < 0]
    if len(unknown):
        raise UnknownId(f"id {unknown[0]} is not in the index")
    return positions
