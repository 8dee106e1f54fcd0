"""Compile every kernel that a search needs, once, so that no request does. Numba keeps them on disk for later processes."""

from __future__ import annotations

import numpy as np

from llmrec_fast.retrieval.building import LEAST_FITTED_ROWS
from llmrec_fast.retrieval.index import Index


def warmup() -> None:
    """Build and search small indexes so that nothing is left to compile, for this processor's instruction set."""
    rows = np.random.default_rng(0).standard_normal((LEAST_FITTED_ROWS, 16), dtype=np.float32)
    for part in (rows, rows[:64]):
        index = Index.build(part, metric="cosine")  # as the others, and normalises
        for queries in (1, 8, 32):
            index.search(part[:queries], 3)
