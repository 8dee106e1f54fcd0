"""Every engine behind one call: `search(queries, k) -> ids (q, k)`. Each peer is used as its own manual recommends.

All rank unit vectors by inner product. Engines that write out scores work on blocks of queries that keep those scores
below `SCORE_BYTES`, which is faster for them than one huge block and keeps the machine from swapping.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import available_memory_bytes

Float32Array = npt.NDArray[np.float32]
Search = Callable[[Float32Array, int], Any]  # ids (q, k), as an array of any integer dtype
OURS = "llmrec_fast"
EXACT_PEERS = ("faiss", "torch", "numpy", "usearch", "svs", "scikit-learn")
APPROXIMATE = "hnswlib"
PEERS = (*EXACT_PEERS, APPROXIMATE)
MODULES = {"scikit-learn": "sklearn.neighbors", "usearch": "usearch.index"}
SCORE_BYTES = 512 << 20
HNSW_LINKS, HNSW_BUILD_BREADTH, HNSW_SEARCH_BREADTH = 16, 100, 200


@dataclass(frozen=True)
class Engine:
    name: str
    search: Search
    build_seconds: float
    exact: bool = True


def build_ours(rows: Float32Array, threads: int) -> tuple[Any, float]:
    """Our index over `rows` (ids are positions) and the seconds it took to build, kernels compiled beforehand."""
    from llmrec_fast.retrieval import Index, warmup

    warmup()
    start = time.perf_counter()
    index = Index.build(rows, metric="dot", threads=threads)
    return index, time.perf_counter() - start


def build_peers(
    names: Sequence[str], modules: Mapping[str, ModuleType], rows: Float32Array, threads: int, approximate_rows: int
) -> tuple[list[Engine], list[str]]:
    """The engines among `names` that can be had, and a note for each that cannot."""
    builders: dict[str, Callable[[Any, Float32Array, int], Search]] = {
        "faiss": _faiss,
        "torch": _torch,
        "numpy": _numpy,
        "usearch": _usearch,
        "svs": _svs,
        "scikit-learn": _scikit_learn,
        "hnswlib": _hnswlib,
    }
    engines, notes = [], []
    for name in names:
        module = np if name == "numpy" else modules.get(MODULES.get(name, name))
        if module is None:
            continue  # the report names it as missing
        copies = rows.nbytes if name in ("faiss", "svs", "hnswlib") else 0
        if copies and copies + 2 * SCORE_BYTES > available_memory_bytes():
            notes.append(
                f"{name} is left out at {rows.shape}: its copy of the rows does not fit in memory beside the others"
            )
            continue
        if name == APPROXIMATE and len(rows) > approximate_rows:
            notes.append(
                f"{name} is left out at {rows.shape}: more than --approximate-rows (building it takes minutes)"
            )
            continue
        start = time.perf_counter()
        search = builders[name](module, rows, threads)
        engines.append(Engine(name, search, time.perf_counter() - start, name != APPROXIMATE))
    return engines, notes


def _faiss(faiss: Any, rows: Float32Array, threads: int) -> Search:
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    return lambda queries, k: flat.search(queries, k)[1]


def _torch(torch: Any, rows: Float32Array, threads: int) -> Search:
    tensor = torch.from_numpy(rows)

    def search(queries: Float32Array, k: int) -> Any:
        with torch.inference_mode():
            if len(queries) == 1:  # matrix times vector is the faster routine
                return torch.topk(tensor @ torch.from_numpy(queries[0]), k)[1].numpy()[None]
            blocks = [torch.topk(torch.from_numpy(block) @ tensor.T, k)[1] for block in _blocks(queries, len(rows))]
            return torch.cat(blocks).numpy()

    return search


def _numpy(numpy: Any, rows: Float32Array, threads: int) -> Search:
    def best(scores: Float32Array, k: int) -> Any:
        top = numpy.argpartition(scores, len(scores) - k)[-k:]
        return top[numpy.argsort(-scores[top])]

    def search(queries: Float32Array, k: int) -> Any:
        if len(queries) == 1:
            return best(rows @ queries[0], k)[None]
        return numpy.stack([best(scores, k) for block in _blocks(queries, len(rows)) for scores in block @ rows.T])

    return search


def _usearch(usearch: Any, rows: Float32Array, threads: int) -> Search:
    def search(queries: Float32Array, k: int) -> Any:
        found = usearch.search(rows, queries, k, usearch.MetricKind.IP, exact=True, threads=threads)
        return np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)

    return search


def _svs(svs: Any, rows: Float32Array, threads: int) -> Search:
    flat = svs.Flat(rows, distance=svs.DistanceType.MIP, num_threads=threads)
    return lambda queries, k: flat.search(queries, k)[0].astype(np.int64)


def _scikit_learn(neighbors: Any, rows: Float32Array, threads: int) -> Search:
    # On unit vectors cosine and Euclidean distance rank like the inner product. For few queries cosine takes half the time,
    # for many the other, which searches block by block; each is asked where it is the faster.
    few, many = (
        neighbors.NearestNeighbors(algorithm="brute", metric=metric).fit(rows) for metric in ("cosine", "euclidean")
    )

    def search(queries: Float32Array, k: int) -> Any:
        nearest = few if len(queries) < 16 else many
        return nearest.kneighbors(queries, k, return_distance=False)

    return search


def _hnswlib(hnswlib: Any, rows: Float32Array, threads: int) -> Search:
    graph = hnswlib.Index(space="ip", dim=rows.shape[1])
    graph.init_index(len(rows), M=HNSW_LINKS, ef_construction=HNSW_BUILD_BREADTH)
    graph.set_num_threads(threads)
    graph.add_items(rows)
    graph.set_ef(HNSW_SEARCH_BREADTH)
    return lambda queries, k: graph.knn_query(queries, k)[0].astype(np.int64)


def _blocks(queries: Float32Array, rows: int) -> list[Float32Array]:
    size = max(1, SCORE_BYTES // (4 * rows))
    return [queries[start : start + size] for start in range(0, len(queries), size)]
