"""The index: add and remove item vectors. What it stores is in `segments`; reading it, searches included, in `view`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec_fast.arrays import (
    ArrayLike,
    Float32Array,
    Int64Array,
    as_count,
    as_int64,
    as_matrix,
    as_vector,
    check_finite,
    is_on_device,
)
from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval import persistence
from llmrec_fast.retrieval.building import append, compact, encode_on_cpu, keep, refit
from llmrec_fast.retrieval.ids import IdMap
from llmrec_fast.retrieval.result import Metric
from llmrec_fast.retrieval.searching import SharedSearches
from llmrec_fast.retrieval.segments import EncodeRest, Snapshot
from llmrec_fast.retrieval.view import IndexView, known_positions

if TYPE_CHECKING:
    from llmrec_fast.retrieval.on_device import DeviceMatrix

_METRICS = ("cosine", "dot", "euclidean")


class Index(IndexView):
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
    device : where searches run: "cpu", "cuda" (the current GPU when the index is made), or "auto" for a GPU if there is one. On
        a GPU k is at most 1,024, rows are encoded there, and both rows and queries may be arrays on it. The host keeps
        all rows and codes as well: saving, loading and moving to another device lose nothing.
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
        copies = None
        if device != "cpu":
            from llmrec_fast.retrieval.on_device import copies_for

            copies = copies_for(device)
        threads = None if threads is None else as_count(threads, "threads")
        super().__init__(Snapshot((), IdMap(), None), int(dim), metric, threads, copies, SharedSearches())
        self._writer = threading.Lock()
        self._next_id = 0

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
        copy: bool = True,
    ) -> Index:
        """An index of `vectors`.

        Parameters
        ----------
        vectors : (n, d) array. May be a `numpy.memmap` larger than memory if `path` is given; it is read piece by piece,
            and encoded on the CPU. On the index's GPU: as in `add`, without `path`.
        ids, bias : as in `add`.
        path : a folder to build in. The stored rows go there and stay mapped from disk; only codes and norms are kept
            in memory. The index is then saved there as by `save`.
        copy : False keeps `vectors` itself as the stored rows, which saves their memory: the whole process then needs some
            1.5 times the bytes of the vectors while it builds. They must be a C-contiguous float32 `numpy.ndarray`, must
            not change as long as the index lives, and the metric must not be "cosine", which stores other rows than it
            is given (normalise them, then use "dot").

        Raises
        ------
        InvalidInput : as in `add`; `copy=False` for vectors that cannot be kept as they are, or with `path`.
        """
        on_device = is_on_device(vectors) and device != "cpu"
        shape = _shape_on_device(vectors) if on_device else np.shape(vectors)
        if len(shape) != 2:
            raise InvalidInput(f"vectors must have two dimensions (rows, columns); got shape {shape}")
        index = cls(shape[1], metric, device=device, threads=threads)
        if not copy:
            index._keep(_kept_as_they_are(vectors, metric, path), ids, bias)
        elif path is None:
            index.add(vectors, ids, bias)
        elif on_device:
            raise InvalidInput("path is for vectors on the host; build without it, then save the index there")
        else:
            count = shape[0]
            new_ids = index._new_ids(ids, count)
            biases = index._new_bias(bias, count)
            snapshot = persistence.build_on_disk(
                Path(path),
                np.asanyarray(vectors),
                new_ids,
                biases,
                metric,
                index._next_id_after(new_ids),
                index._threads,
            )
            index._show(snapshot)
            index._next_id = index._next_id_after(new_ids)
        return index

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None, bias: ArrayLike | None = None) -> None:
        """Add rows. They are searchable, exactly, when this returns.

        Parameters
        ----------
        vectors : (n, d) finite values. With `device="cuda"`, also a C-contiguous float32 array on the index's GPU: it is copied
            and encoded there, and copied to the host once. `ids` and `bias` may then be arrays of int64 and float32 there.
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
            self._show(self._snapshot.removed(known_positions(self._snapshot, wanted)))

    def optimize(self) -> None:
        """Fit the encoding to the rows that the index now holds, and reclaim removed ones. Searches go on meanwhile.

        Takes about as long as building. Never happens by itself on the request path; `advice` says when it is worth it.
        Rows mapped from disk are encoded anew but not rewritten.
        """
        with self._writer:
            self._show(compact(self._snapshot, self._metric == "euclidean", self._encoder(None)))

    def snapshot(self) -> IndexView:
        """The index as it is now, for reading: what is added or removed later does not show in it. Costs nothing."""
        return IndexView(self._snapshot, self._dim, self._metric, self._threads, self._copies, self._searches)

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
        index._show(snapshot)
        index._next_id = next_id
        return index

    def _write(self, vectors: ArrayLike, ids: ArrayLike | None, bias: ArrayLike | None, *, replace: bool) -> None:
        cosine, on_device = self._metric == "cosine", None
        if self._copies is not None and is_on_device(vectors):
            on_device = self._copies.read("vectors", vectors, self._dim, cosine)
            rows, cosine = on_device.download(), False
            check_finite(rows, "vectors")
        else:
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
            encoder = self._encoder(on_device)
            snapshot = append(snapshot, rows, biases, new_ids, cosine, encoder, self._threads)
            self._show(refit(snapshot, self._metric == "euclidean", encoder))
            self._next_id = self._next_id_after(new_ids)

    def _encoder(self, new: DeviceMatrix | None) -> EncodeRest:
        """What encodes rows; `new` are those that are about to be appended, if they are on the device."""
        if self._copies is None:
            return encode_on_cpu(self._threads)
        return self._copies.encoder(new, self._snapshot.rows)

    def _show(self, snapshot: Snapshot) -> None:
        """Let searches see `snapshot`."""
        if self._copies is not None:
            self._copies.update(snapshot, self._snapshot)
        self._snapshot = snapshot
        if self._copies is not None:
            self._copies.keep(snapshot)

    def _keep(self, rows: Float32Array, ids: ArrayLike | None, bias: ArrayLike | None) -> None:
        new_ids, biases = self._new_ids(ids, len(rows)), self._new_bias(bias, len(rows))
        self._show(keep(rows, biases, new_ids, self._metric == "euclidean", self._encoder(None)))
        self._next_id = self._next_id_after(new_ids)

    def _new_bias(self, bias: ArrayLike | None, count: int) -> Float32Array | None:
        if bias is None:
            return None
        if self._metric == "euclidean":
            raise InvalidInput(
                "bias has no meaning for metric 'euclidean': its scores are distances; use 'dot' or 'cosine'"
            )
        if self._copies is not None and is_on_device(bias):
            bias = self._copies.to_host("bias", bias, "float32")
        return as_vector(bias, "bias", length=count)

    def _new_ids(self, ids: ArrayLike | None, count: int) -> Int64Array:
        if ids is None:
            return np.arange(self._next_id, self._next_id + count, dtype=np.int64)
        if self._copies is not None and is_on_device(ids):
            ids = self._copies.to_host("ids", ids, "int64")
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


def _shape_on_device(vectors: Any) -> tuple[int, ...]:
    from llmrec_fast.retrieval.on_device import device_shape

    return device_shape("vectors", vectors)


def _kept_as_they_are(vectors: ArrayLike, metric: Metric, path: str | Path | None) -> Float32Array:
    """`vectors`, checked, if an index can hold them without a copy."""
    if path is not None:
        raise InvalidInput("copy=False has no meaning with path: the rows are written there; leave one of the two out")
    if metric == "cosine":
        raise InvalidInput(
            "copy=False needs metric 'dot' or 'euclidean', since 'cosine' stores normalised rows; normalise them and use 'dot'"
        )
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        given = f"{vectors.dtype} with strides {vectors.strides}" if isinstance(vectors, np.ndarray) else type(vectors)
        raise InvalidInput(f"copy=False needs a C-contiguous float32 numpy array; got {given}; use copy=True")
    if not vectors.flags.aligned or not vectors.dtype.isnative:
        raise InvalidInput("copy=False needs an aligned array in native byte order; use copy=True")
    return as_matrix(vectors, "vectors")
