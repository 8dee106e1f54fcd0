"""After `warmup`, no search compiles anything: whatever the plan, the metric, and the arrays that callers bring."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from llmrec_fast.retrieval import Index, warmup


def compiled() -> dict[str, int]:
    """How many signatures each kernel of the package has been compiled for."""
    modules = [module for name, module in sys.modules.items() if name.startswith("llmrec_fast.kernels.cpu.")]
    return {
        f"{module.__name__}.{name}": len(kernel.signatures)
        for module in modules
        for name, kernel in vars(module).items()
        if hasattr(kernel, "signatures")
    }


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def test_nothing_is_left_to_compile(tmp_path: Path) -> None:
    warmup()
    before = compiled()
    rows = read_only(np.random.default_rng(0).standard_normal((6000, 40)).astype(np.float32))
    np.save(tmp_path / "rows.npy", rows)
    bias, ids = read_only(np.ones(6000, np.float32)), read_only(np.arange(6000))
    memory = Index.build(rows, metric="dot", bias=bias, ids=ids)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    disk = Index.build(mapped, metric="euclidean", path=tmp_path / "index")
    cosine = Index.build(mapped, metric="cosine", path=tmp_path / "cosine")
    loaded = Index.load(tmp_path / "index", mmap=True)
    queries = read_only(rows[:20].copy())
    excluded = read_only(np.arange(21)), read_only(np.arange(20))
    for index in (memory, disk, loaded, cosine, Index.build(rows, metric="cosine")):
        for batch, k in ((queries, 5), (queries[:1], 5), (queries, 3000), (queries[:1], 3000)):
            index.search(batch, k)
        index.search(queries, 5, exclude=excluded, allow=read_only(np.arange(100)))
        index.search(queries[:2], 5, exclude=[[1], []], allow=np.arange(6000) % 2 == 0)
    assert compiled() == before
