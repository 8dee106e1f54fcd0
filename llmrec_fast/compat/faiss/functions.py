"""FAISS's free functions: `index_factory`, `knn` without an index, `normalize_L2` in place, the number of threads."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Int64Array
from llmrec_fast.compat.exact_search import best_rows, scale_to_one
from llmrec_fast.compat.faiss.flat import IndexFlat
from llmrec_fast.compat.faiss.id_map import IndexIDMap, IndexIDMap2
from llmrec_fast.compat.faiss.metrics import (
    METRIC_L2,
    FaissError,
    as_faiss_distances,
    index_metric,
    read_k,
    read_vectors,
)
from llmrec_fast.kernels.threads import get_threads, set_threads


def index_factory(d: int, description: str, metric: int = METRIC_L2) -> IndexFlat | IndexIDMap:
    """The index of a description: "Flat", "IDMap,Flat" or "IDMap2,Flat"; another one raises `FaissError`."""
    parts = str(description).replace(" ", "").split(",")
    kind = {"IDMap": IndexIDMap, "IDMap2": IndexIDMap2}.get(parts[0])
    if parts[kind is not None :] != ["Flat"]:
        raise FaissError(f"could not parse {description!r}: Flat, 'IDMap,Flat' and 'IDMap2,Flat' are covered")
    flat = IndexFlat(d, metric)
    return flat if kind is None else kind(flat)


def knn(
    xq: ArrayLike, xb: ArrayLike, k: int, metric: int = METRIC_L2, metric_arg: float = 0.0
) -> tuple[Float32Array, Int64Array]:
    """The k nearest rows of `xb` (nb, d) to each of `xq` (nq, d): D and I, (nq, k), as of `IndexFlat.search`.

    `metric_arg` belongs to metrics that are not covered; it changes nothing.
    """
    shape = np.shape(xb)
    if len(shape) != 2:
        raise FaissError(f"xb must have shape (nb, d); got {shape}")
    rows, queries = read_vectors(xb, shape[1]), read_vectors(xq, shape[1])
    found = best_rows(queries, rows, read_k(k), index_metric(metric))
    return as_faiss_distances(found.scores, found.ids, metric)


def normalize_L2(x: Float32Array) -> None:
    """Scale the rows of `x` to length 1, in place; zero rows stay zero."""
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim != 2 or not x.flags.c_contiguous:
        raise FaissError("x must be a C-contiguous two-dimensional float32 array: it is changed in place")
    scale_to_one(x)


def omp_set_num_threads(threads: int) -> None:
    """How many threads a call uses (`llmrec_fast.set_threads`)."""
    set_threads(threads)


def omp_get_max_threads() -> int:
    """How many threads a call uses (`llmrec_fast.get_threads`)."""
    return get_threads()


def get_num_gpus() -> int:
    """Always 0: this module's indexes live on the CPU."""
    return 0
