"""Compile every kernel that a search needs, once, so that no request does. Numba keeps them on disk for later processes."""

from __future__ import annotations

import numpy as np

from llmrec_fast.retrieval.index import Index


def warmup() -> None:
    """Build and search a small index of every kind; returns when nothing is left to compile."""
    rows = np.random.default_rng(0).standard_normal((64, 8), dtype=np.float32)
    for metric in ("cosine", "dot", "euclidean"):
        index = Index.build(rows, metric=metric)
        for count in (1, 8):
            index.search(rows[:count], 3)
