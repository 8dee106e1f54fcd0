"""The right answers, in float64, and how an engine's answer is judged by them.

Ours must return the oracle's rows in the oracle's order. Peers work in float32 and may swap rows whose scores are closer
than that can tell; each of their rows must score as well as the oracle's at the same rank, within `FLOAT32_TOLERANCE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
FLOAT32_TOLERANCE = 1e-5  # of a sum of up to 1,024 products of unit vectors
# Two float64 summation orders differ by less than this on unit vectors; rows this close may be ordered either way.
FLOAT64_TOLERANCE = 1e-14
_ROWS_AT_A_TIME = 16_384
_MARGIN = 16


@dataclass(frozen=True)
class Oracle:
    """Exact top rows of every query: `ids` and `scores`, (queries, depth), best first, ties by position."""

    rows: Float32Array
    queries: Float32Array
    ids: Int64Array
    scores: Float64Array

    def wrong_order(self, answer: npt.NDArray[Any], k: int) -> str:
        """What is wrong with ids (q, k) that claim to be exact for the first q queries; '' if nothing is."""
        right = self.ids[: len(answer), :k]
        if answer.shape != right.shape:
            return f"the answer has shape {answer.shape}, not {right.shape}"
        differs = answer != right
        if not differs.any():
            return ""
        query = int(np.argmax(differs.any(axis=1)))
        if (gap := self._gap(answer, k)) <= FLOAT64_TOLERANCE:
            return ""
        return f"query {query}: {answer[query].tolist()}, not {right[query].tolist()}; scores differ by up to {gap:.1e}"

    def too_far(self, answer: npt.NDArray[Any], k: int) -> str:
        """What is wrong with a float32 engine's ids (q, k); '' if nothing is."""
        if answer.shape != (len(answer), k):
            return f"the answer has shape {answer.shape}, not {(len(answer), k)}"
        gap = self._gap(answer, k)
        return "" if gap <= FLOAT32_TOLERANCE else f"scores are off by up to {gap:.1e}, more than {FLOAT32_TOLERANCE:g}"

    def recall(self, answer: npt.NDArray[Any], k: int) -> float:
        """The share of the true top k that the answer holds."""
        right = self.ids[: len(answer), :k]
        return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(answer.tolist(), right.tolist(), strict=True)]))

    def _gap(self, answer: npt.NDArray[Any], k: int) -> float:
        """The largest difference between the answer's exact scores, best first, and the oracle's; inf if a row repeats."""
        worst = 0.0
        for query, ids in enumerate(answer):
            if len(set(ids.tolist())) < k or ids.min() < 0 or ids.max() >= len(self.rows):
                return float("inf")
            exact = np.sort(exact_scores(self.rows[ids], self.queries[query]))[::-1]
            worst = max(worst, float(np.abs(exact - self.scores[query, :k]).max()))
        return worst


def exact_scores(rows: Float32Array, query: Float32Array) -> Float64Array:
    """Inner products in float64, summed alike for every row, so that equal rows score equal to the last bit."""
    return np.asarray((rows.astype(np.float64) * query.astype(np.float64)).sum(axis=1))


def find(rows: Float32Array, queries: Float32Array, depth: int, chunk: int = _ROWS_AT_A_TIME) -> Oracle:
    """Blocked float64 search: reads `rows` (which may be mapped from disk) once; scratch is chunk x queries float64."""
    depth = min(depth, len(rows))
    kept = depth + _MARGIN  # the matrix product may order near-ties otherwise than `exact_scores`
    wide = queries.astype(np.float64).T
    best_scores = np.full((len(queries), 0), -np.inf)
    best_ids = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(rows), chunk):
        scores = (rows[start : start + chunk].astype(np.float64) @ wide).T
        # after the first chunks few rows beat the kept ones, so looking at the winners alone is much cheaper
        bar = best_scores.min(axis=1) if best_scores.shape[1] == kept else np.full(len(queries), -np.inf)
        ids = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        width = min(kept, int((scores >= bar[:, None]).sum(axis=1).max()))
        if width == 0:
            continue
        top = np.argpartition(scores, scores.shape[1] - width, axis=1)[:, -width:]
        best_scores = np.concatenate([best_scores, np.take_along_axis(scores, top, 1)], axis=1)
        best_ids = np.concatenate([best_ids, np.take_along_axis(ids, top, 1)], axis=1)
        if best_scores.shape[1] > kept:
            keep = np.argpartition(best_scores, best_scores.shape[1] - kept, axis=1)[:, -kept:]
            best_scores, best_ids = np.take_along_axis(best_scores, keep, 1), np.take_along_axis(best_ids, keep, 1)
    ids, scores = np.empty((len(queries), depth), np.int64), np.empty((len(queries), depth))
    for query, candidates in enumerate(best_ids):
        by_position = np.sort(candidates)
        exact = exact_scores(rows[by_position], queries[query])
        order = np.argsort(-exact, kind="stable")[:depth]
        ids[query], scores[query] = by_position[order], exact[order]
    return Oracle(rows, queries, ids, scores)
