"""Maximal marginal relevance by LangChain's rule: plain cosines, where `ranking.mmr` scales relevance to 0..1 first."""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, as_count
from llmrec_fast.compat.exact_search import unit_rows
from llmrec_fast.errors import InvalidInput


def choose_diverse(query: Float32Array, vectors: Float32Array, k: int, lambda_mult: float) -> list[int]:
    """Places of k of the vectors, chosen greedily, ties by smaller place.

    The next one has the largest `lambda_mult * cos(it, query) - (1 - lambda_mult) * (largest cosine to a chosen one)`
    (Carbonell and Goldstein, SIGIR 1998); the first one the largest cosine to the query.

    Parameters
    ----------
    query : (1, d).
    vectors : (n, d).
    k : at least 1; fewer vectors give fewer.
    lambda_mult : 0 (only differences count after the first) to 1 (only relevance).
    """
    as_count(k, "k")
    if not 0 <= lambda_mult <= 1:
        raise InvalidInput(f"lambda_mult must lie between 0 and 1; got {lambda_mult}")
    units = unit_rows(vectors).astype(np.float64)
    relevance = _cosines(units, unit_rows(query)[0].astype(np.float64))
    gain = relevance.copy()
    largest = np.full(len(units), -np.inf)
    chosen: list[int] = []
    for _ in range(min(k, len(units))):
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        chosen.append(best)
        largest = np.maximum(largest, _cosines(units, units[best]))
        gain = lambda_mult * relevance - (1 - lambda_mult) * largest
    return chosen


def _cosines(units: Float64Array, unit: Float64Array) -> Float64Array:
    """One way of adding for queries and documents: where a query is a document, ties stay ties, which BLAS would break."""
    result: Float64Array = np.einsum("ij,j->i", units, unit)
    return result
