"""The index: add, remove and search item vectors, exactly. What it stores is in `segments`, how it searches in `searching`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Int64Array, as_count, as_int64, as_matrix, as_vector
from llmrec_fast.errors import InvalidInput, UnknownId
from llmrec_fast.retrieval import persistence
from llmrec_fast.retrieval.building import append, compact, refit
from llmrec_fast.retrieval.filters import Exclusions
from llmrec_fast.retrieval.ids import IdMap
from llmrec_fast.retrieval.result import Metric, SearchResult
from llmrec_fast.retrieval.searching import SharedSearches, normalised, read_request, search, search_on_device
from llmrec_fast.retrieval.segments import Snapshot

_METRICS = ("cosine", "dot", "euclidean")


class Index:
    """Exact top-k over vectors of one dimension.

    Scores are "higher is better": dot = q.x + bias, cosine = cos(q, x) + bias, euclidean = minus the distance.
    The answer is ordered by the float64 score of the stored float32 rows, ties by smaller position: the order in which rows
    were added (an upserted row counts as added last). For cosine, rows are divided by their float64 norm and rounded to
    float32 once, when they are added, and queries likewise; zero rows stay zero and score 0.

    Any number of threads may search while one thread at a time adds or removes; each search sees one consistent state.

    Parameters
    ----------
    dim : columns of every vector, 1 to 16,384.
    metric : "cosine", "dot" or "euclidean".
    device : where searches run: "cpu", "cuda", or "auto" for a GPU if there is one. On a GPU k is at most 1,024. Writing,
        saving and loading are the same everywhere: a GPU gets copies of what searches need.
    threads : how many threads one search or write may use (default: `kernels.threads.get_threads()` at that time).

    Examples
    --------
    >>> import numpy as np
    >>> index = Index(2, "dot")
    >>> index.add(np.array([[1, 0], [0, 1], [1, 1]]), ids=[10, 20, 30])
    >>> index.search(np.array([[2, 1]]), k=2).ids.tolist()
    [[30, 10]]
    """

    def __init__(self, dim: int, metric: Metric = "cosine", *, device: str = "cpu", threads: int | None = None) -> None:
        if metric not in _METRICS:
            raise InvalidInput(f"metric must be 'cosine', 'dot' or 'euclidean'; got {metric!r}")
        if device not in ("cpu", "cuda", "auto"):
            raise InvalidInput(f"device must be 'cpu', 'cuda' or 'auto'; got {device!r}")
        if as_count(dim, "dim") > 16_384:
            raise InvalidInput(f"dim must be at most 16384; got {dim}")
        self._dim = int(dim)
        self._metric: Metric = metric
        self._threads = None if threads is None else as_count(threads, "threads")
        self._copies = None
        if device != "cpu":
            from llmrec_fast.retrieval.on_device import copies_for

            self._copies = copies_for(device)
        self._writer = threading.Lock()
        self._searches = SharedSearches()
        self._next_id = 0
        self._snapshot = Snapshot((), IdMap(), None)

    @classmethod
    def build(
        cls,
        vectors: ArrayLike,
        ids: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        *,
        metric: Metric = "cosine",
        device: str = "cpu",
        threads: int | None = None,
        path: str | Path | None = None,
    ) -> Index:
        """An index of `vectors`.

        Parameters
        ----------
        vectors : (n, d) array. May be a `numpy.memmap` larger than memory if `path` is given; it is read piece by piece.
        ids, bias : as in `add`.
        path : a folder to build in. The stored rows go there and stay mapped from disk; only codes and norms are kept
            in memory. The index is then saved there as by `save`.
        """
        if np.ndim(vectors) != 2:
            raise InvalidInput(f"vectors must have two dimensions (rows, columns); got shape {np.shape(vectors)}")
        index = cls(np.shape(vectors)[1], metric, device=device, threads=threads)
        if path is None:
            index.add(vectors, ids, bias)
        else:
            count = np.shape(vectors)[0]
            new_ids = index._new_ids(ids, count)
            biases = index._new_bias(bias, count)
            index._snapshot = persistence.build_on_disk(
                Path(path),
                np.asanyarray(vectors),
                new_ids,
                biases,
                metric,
                index._next_id_after(new_ids),
                index._threads,
            )
            index._next_id = index._next_id_after(new_ids)
        return index

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
        return snapshot.gather(_known(snapshot, as_int64(ids, "ids")))

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None, bias: ArrayLike | None = None) -> None:
        """Add rows. They are searchable, exactly, when this returns.

        Parameters
        ----------
        vectors : (n, d) finite values.
        ids : (n,) int64, distinct and not in the index; -1 is reserved. Default: the integers after the largest id so far.
        bias : (n,) added to the scores of dot and cosine. Default: zeros. Euclidean distance has no bias.

        Raises
        ------
        InvalidInput : anything else; nothing was added.
        """
        self._write(vectors, ids, bias, replace=False)

    def upsert(self, vectors: ArrayLike, ids: ArrayLike, bias: ArrayLike | None = None) -> None:
        """Add rows, replacing those whose id is in the index. A search sees either all of it or none."""
        self._write(vectors, ids, bias, replace=True)

    def remove(self, ids: ArrayLike) -> None:
        """Remove rows. Raises `UnknownId` and removes nothing if an id is not in the index."""
        wanted = np.unique(as_int64(ids, "ids"))
        with self._writer:
            self._snapshot = self._snapshot.removed(_known(self._snapshot, wanted))

    def optimize(self) -> None:
        """Fit the encoding to the rows that the index now holds, and reclaim removed ones. Searches go on meanwhile.

        Takes about as long as building. Never happens by itself on the request path; `advice` says when it is worth it.
        Rows mapped from disk are encoded anew but not rewritten.
        """
        with self._writer:
            self._snapshot = compact(self._snapshot, self._metric == "euclidean", self._threads)

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

    def save(self, path: str | Path) -> None:
        """Write the index to the folder `path`. If the process dies meanwhile, what was there before is still there."""
        with self._writer:
            snapshot, next_id = self._snapshot, self._next_id
        persistence.save(Path(path), snapshot, self._dim, self._metric, next_id)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        mmap: bool = False,
        verify: bool | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Index:
        """Read what `save` wrote.

        Parameters
        ----------
        mmap : leave the float32 rows on disk and map them; codes and norms are read into memory.
        verify : compare checksums of all files (True), of none (False), or of those that are read anyway (None).

        Raises
        ------
        CorruptFile : a file is missing, truncated or damaged; the message names it.
        """
        snapshot, dim, metric, next_id = persistence.load(Path(path), mmap=mmap, verify=verify)
        index = cls(dim, metric, device=device, threads=threads)
        index._snapshot, index._next_id = snapshot, next_id
        return index

    def _write(self, vectors: ArrayLike, ids: ArrayLike | None, bias: ArrayLike | None, *, replace: bool) -> None:
        rows = as_matrix(vectors, "vectors", dimension=self._dim)
        biases = self._new_bias(bias, len(rows))
        with self._writer:
            snapshot = self._snapshot
            new_ids = self._new_ids(ids, len(rows))
            positions = snapshot.find(new_ids)
            known = positions >= 0
            if known.any():
                if not replace:
                    raise InvalidInput(f"id {new_ids[known][0]} is already in the index; use upsert to replace it")
                snapshot = snapshot.removed(positions[known])
            snapshot = append(snapshot, rows, biases, new_ids, self._metric == "cosine", self._threads)
            self._snapshot = refit(snapshot, self._metric == "euclidean", self._threads)
            self._next_id = self._next_id_after(new_ids)

    def _new_bias(self, bias: ArrayLike | None, count: int) -> Float32Array | None:
        if bias is None:
            return None
        if self._metric == "euclidean":
            raise InvalidInput(
                "bias has no meaning for metric 'euclidean': its scores are distances; use 'dot' or 'cosine'"
            )
        return as_vector(bias, "bias", length=count)

    def _new_ids(self, ids: ArrayLike | None, count: int) -> Int64Array:
        if ids is None:
            return np.arange(self._next_id, self._next_id + count, dtype=np.int64)
        new_ids = as_int64(ids, "ids", length=count)
        if (new_ids == -1).any():
            raise InvalidInput("id -1 is reserved: it marks padding in search results")
        ordered = np.sort(new_ids)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            raise InvalidInput(f"ids must be distinct; {twice[0]} occurs more than once")
        return new_ids

    def _next_id_after(self, ids: Int64Array) -> int:
        return max(self._next_id, int(ids.max()) + 1) if len(ids) else self._next_id


def _known(snapshot: Snapshot, ids: Int64Array) -> Int64Array:
    positions = snapshot.find(ids)
    unknown = ids[positions < 0]
    if len(unknown):
        raise UnknownId(f"id {unknown[0]} is not in the index")
    return positions
