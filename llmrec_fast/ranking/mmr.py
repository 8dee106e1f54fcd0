"""Maximal marginal relevance: reorder candidates so that each next one adds something to those before it.

It changes the order of candidates that retrieval found and never brings in others.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array, as_count
from llmrec_fast.errors import InvalidInput

_SIMILARITY_BYTES = 64 * 2**20


def rerank_mmr(
    scores: Float64Array, candidates: Int64Array, item_vectors: Float32Array, k: int, diversity: float
) -> Int64Array:
    """Choose k of each row's candidates greedily by maximal marginal relevance.

    The next candidate is the one with the largest `(1 - diversity) * relevance - diversity * (largest cosine to a chosen
    one)`, where relevance is the score scaled to 0..1 over the row's candidates (Carbonell and Goldstein, SIGIR 1998, with
    lambda = 1 - diversity). Ties go to the better-ranked candidate.

    Parameters
    ----------
    scores : (rows, c) retrieval scores, best first, -inf where there is no candidate.
    candidates : (rows, c) rows of `item_vectors`, -1 where there is no candidate.
    item_vectors : (n, d) float32, rows of norm 1 or 0.
    k : how many to choose.
    diversity : 0 (the order of the scores) to 1 (relevance counts for the first only).

    Returns
    -------
    (rows, min(k, c)) columns of `candidates` in the new order; columns without a candidate come last.

    Raises
    ------
    InvalidInput : k below 1 or diversity outside 0..1.
    """
    k = min(as_count(k, "k"), scores.shape[1])
    if not 0 <= diversity <= 1:
        raise InvalidInput(f"diversity must lie between 0 and 1; got {diversity}")
    order = np.empty((len(scores), k), np.int64)
    step = max(1, _SIMILARITY_BYTES // (4 * max(1, scores.shape[1]) ** 2))
    for start in range(0, len(scores), step):
        piece = slice(start, start + step)
        order[piece] = _choose(scores[piece], candidates[piece], item_vectors, k, diversity)
    return order


def _choose(
    scores: Float64Array, candidates: Int64Array, item_vectors: Float32Array, k: int, diversity: float
) -> Int64Array:
    vectors = item_vectors[candidates] if len(item_vectors) else np.zeros((*candidates.shape, 1), np.float32)
    similarity = vectors @ vectors.transpose(0, 2, 1)
    present = candidates >= 0
    relevance = _scaled(scores, present)
    largest = np.full(scores.shape, -np.inf)
    free = np.ones(scores.shape, bool)
    rows = np.arange(len(scores))
    order = np.empty((len(scores), k), np.int64)
    for place in range(k):
        # before the first choice there is nothing to differ from
        penalty = diversity * largest if place else 0.0
        gain = np.where(present, (1 - diversity) * relevance - penalty, np.finfo(np.float64).min)
        order[:, place] = chosen = np.where(free, gain, -np.inf).argmax(axis=1)
        free[rows, chosen] = False
        largest = np.maximum(largest, similarity[rows, chosen])
    return order


def _scaled(scores: Float64Array, present: BoolArray) -> Float64Array:
    """Scores moved to 0..1 within each row; a row whose scores are all equal gets zeros."""
    low = np.where(present, scores, np.inf).min(axis=1, keepdims=True)
    high = np.where(present, scores, -np.inf).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        width = np.where(high > low, high - low, 1.0)
        result: Float64Array = np.where(present, (scores - low) / width, 0.0)
    return result
