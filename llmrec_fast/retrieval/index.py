"""The index: add, remove and search item vectors, exactly."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from llmrec_fast.arrays import (
    ArrayLike,
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    as_count,
    as_int64,
    as_matrix,
    as_vector,
)
from llmrec_fast.errors import DeviceUnavailable, InvalidInput, UnknownId
from llmrec_fast.retrieval.filters import Exclusions, read_allowed, read_exclusions
from llmrec_fast.retrieval.ids import IdMap
from llmrec_fast.retrieval.result import SearchResult, SearchStatistics
from llmrec_fast.retrieval.store import read_folder, write_folder

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]


@dataclass(frozen=True)
class _Snapshot:
    rows: Float32Array
    bias: Float32Array
    ids: Int64Array
    live: BoolArray
    id_map: IdMap


class Index:
    """Exact top-k over vectors of one dimension.

    Scores are "higher is better": dot = q.x + bias, cosine = cos(q, x) + bias, euclidean = minus the distance.
    Order: the float64 score of the stored float32 rows, ties by smaller position (the order in which rows were added; an
    upserted row counts as added last).
    """

    def __init__(self, dim: int, metric: Metric = "cosine", *, device: str = "cpu", threads: int | None = None) -> None:
        if metric not in ("cosine", "dot", "euclidean"):
            raise InvalidInput(f"metric must be 'cosine', 'dot' or 'euclidean'; got {metric!r}")
        if device not in ("cpu", "auto"):
            raise DeviceUnavailable(f"device {device!r} is not available for retrieval; use 'cpu'")
        self._dim = as_count(dim, "dim")
        self._metric: Metric = metric
        self._threads = None if threads is None else as_count(threads, "threads")
        self._writer = threading.Lock()
        self._next_id = 0
        self._snapshot = _Snapshot(
            np.zeros((0, dim), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, bool), IdMap()
        )

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
    ) -> Index:
        """An index of `vectors` (n, d); the other arguments are those of `Index` and `add`."""
        if np.ndim(vectors) != 2:
            raise InvalidInput(f"vectors must have two dimensions (rows, columns); got shape {np.shape(vectors)}")
        index = cls(np.shape(vectors)[1], metric, device=device, threads=threads)
        index.add(vectors, ids, bias)
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
        snapshot = self._snapshot
        return snapshot.ids[snapshot.live]

    def __len__(self) -> int:
        return int(self._snapshot.live.sum())

    def __contains__(self, item_id: int) -> bool:
        snapshot = self._snapshot
        row = int(snapshot.id_map.find(np.array([item_id], np.int64))[0])
        return row >= 0 and bool(snapshot.live[row])

    def vectors(self, ids: ArrayLike) -> Float32Array:
        """The stored float32 rows of `ids` (for cosine: normalised); raises `UnknownId`."""
        snapshot = self._snapshot
        return np.asarray(snapshot.rows[self._rows_of(snapshot, as_int64(ids, "ids"))])

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None, bias: ArrayLike | None = None) -> None:
        """Add rows. `ids`: int64, new and distinct; by default the integers that follow the largest id so far."""
        self._write(vectors, ids, bias, replace=False)

    def upsert(self, vectors: ArrayLike, ids: ArrayLike, bias: ArrayLike | None = None) -> None:
        """Add rows, replacing those whose id is known, in one step."""
        self._write(vectors, ids, bias, replace=True)

    def remove(self, ids: ArrayLike) -> None:
        """Remove rows; raises `UnknownId` and removes nothing if any id is unknown."""
        wanted = as_int64(ids, "ids")
        with self._writer:
            old = self._snapshot
            live = old.live.copy()
            live[self._rows_of(old, wanted)] = False
            self._snapshot = _Snapshot(old.rows, old.bias, old.ids, live, old.id_map)

    def optimize(self) -> None:
        """Reclaim removed rows and fit the index to the rows it now holds."""
        with self._writer:
            old = self._snapshot
            keep = old.live
            ids = old.ids[keep]
            self._snapshot = _Snapshot(
                old.rows[keep], old.bias[keep], ids, np.ones(len(ids), bool), IdMap().added(ids, 0)
            )

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
        queries : (q, d) array.
        k : at least 1; answers beyond the number of allowed rows are padded with id -1 and score -inf.
        exclude : ids to leave out, per query: a tuple (indptr, ids) or a list with one array a query. Unknown ids are ignored.
        allow : the only rows to consider, for the whole call: ids, or a boolean mask over positions.
        stats : whether to report what the search did.
        """
        snapshot = self._snapshot
        matrix = as_matrix(queries, "queries", dimension=self._dim)
        k = as_count(k, "k")
        if self._metric == "cosine":
            matrix = _normalised(matrix)
        indptr, excluded = read_exclusions(exclude, len(matrix)) if exclude is not None else (None, None)
        live = snapshot.live
        if allow is not None:
            allowed = read_allowed(allow, int(live.sum()))
            mask = np.zeros(len(live), bool)
            if allowed.dtype == np.bool_:
                mask[np.flatnonzero(live)[allowed]] = True
            else:
                found = snapshot.id_map.find(allowed.astype(np.int64))
                mask[found[found >= 0]] = True
            live = live & mask
        scores = np.full((len(matrix), k), -np.inf)
        ids = np.full((len(matrix), k), -1, np.int64)
        for query in range(len(matrix)):
            allowed_rows = live
            if indptr is not None and excluded is not None:
                found = snapshot.id_map.find(excluded[indptr[query] : indptr[query + 1]])
                allowed_rows = live.copy()
                allowed_rows[found[found >= 0]] = False
            candidates = np.flatnonzero(allowed_rows)
            exact = self._scores(snapshot, matrix[query])[candidates]
            if len(exact) > k:
                bar = np.partition(exact, len(exact) - k)[len(exact) - k]
                keep = exact >= bar
                candidates, exact = candidates[keep], exact[keep]
            order = np.argsort(-exact, kind="stable")[:k]
            scores[query, : len(order)] = exact[order]
            ids[query, : len(order)] = snapshot.ids[candidates[order]]
        statistics = None
        if stats:
            n = len(matrix) * int(live.sum())
            statistics = SearchStatistics("direct", n, n, n, n, n, n * 4 * self._dim)
        return SearchResult(scores, ids, statistics)

    def save(self, path: str | Path) -> None:
        """Write the index to the folder `path`, atomically."""
        snapshot = self._snapshot
        header = {"dim": self._dim, "metric": self._metric, "next_id": self._next_id}
        arrays: dict[str, np.ndarray] = {
            "rows": snapshot.rows,
            "bias": snapshot.bias,
            "ids": snapshot.ids,
            "live": snapshot.live,
        }
        write_folder(Path(path), header, arrays)

    @classmethod
    def load(
        cls, path: str | Path, *, mmap: bool = False, verify: bool | None = None, threads: int | None = None
    ) -> Index:
        """Read what `save` wrote; raises `CorruptFile`."""
        header, arrays = read_folder(Path(path), mapped=("rows",) if mmap else (), verify=verify)
        index = cls(header["dim"], header["metric"], threads=threads)
        index._next_id = header["next_id"]
        ids = arrays["ids"]
        index._snapshot = _Snapshot(arrays["rows"], arrays["bias"], ids, arrays["live"], IdMap().added(ids, 0))
        return index

    def _write(self, vectors: ArrayLike, ids: ArrayLike | None, bias: ArrayLike | None, *, replace: bool) -> None:
        rows = as_matrix(vectors, "vectors", dimension=self._dim)
        if self._metric == "cosine":
            rows = _normalised(rows)
        if bias is not None and self._metric == "euclidean":
            raise InvalidInput("bias has no meaning for metric 'euclidean'; use 'dot' or 'cosine'")
        biases = np.zeros(len(rows), np.float32) if bias is None else as_vector(bias, "bias", length=len(rows))
        with self._writer:
            old = self._snapshot
            if ids is None:
                new_ids = np.arange(self._next_id, self._next_id + len(rows), dtype=np.int64)
            else:
                new_ids = as_int64(ids, "ids", length=len(rows))
            if len(np.unique(new_ids)) != len(new_ids):
                raise InvalidInput("ids must be distinct")
            if (new_ids == -1).any():
                raise InvalidInput("id -1 is reserved: it marks padding in search results")
            live = old.live.copy()
            found = old.id_map.find(new_ids)
            known = found >= 0
            known[known] = live[found[known]]
            if known.any():
                if not replace:
                    raise InvalidInput(f"id {new_ids[known][0]} is already in the index; use upsert to replace it")
                live[found[known]] = False
            self._next_id = max(self._next_id, int(new_ids.max()) + 1) if len(new_ids) else self._next_id
            self._snapshot = _Snapshot(
                np.concatenate([old.rows, rows]),
                np.concatenate([old.bias, biases]),
                np.concatenate([old.ids, new_ids]),
                np.concatenate([live, np.ones(len(rows), bool)]),
                old.id_map.added(new_ids, len(old.ids)),
            )

    @staticmethod
    def _rows_of(snapshot: _Snapshot, ids: Int64Array) -> Int64Array:
        rows = snapshot.id_map.find(ids)
        known = rows >= 0
        known[known] = snapshot.live[rows[known]]
        if not known.all():
            raise UnknownId(f"id {ids[~known][0]} is not in the index")
        return rows

    def _scores(self, snapshot: _Snapshot, query: Float32Array) -> Float64Array:
        wide = query.astype(np.float64)
        if self._metric == "euclidean":
            difference = snapshot.rows.astype(np.float64) - wide
            return np.asarray(-np.sqrt(np.einsum("ij,ij->i", difference, difference)))
        return np.asarray(snapshot.rows.astype(np.float64) @ wide + snapshot.bias)


def _normalised(rows: Float32Array) -> Float32Array:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    norms[norms == 0] = 1
    return np.asarray((rows / norms[:, None]).astype(np.float32))
