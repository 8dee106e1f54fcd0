"""The order of equal float32 scores, with and without any to reorder."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.compat.faiss.metrics import METRIC_L2, as_faiss_distances
from llmrec_fast.compat.ties import MISSING_SCORE, larger_position_first

LOWEST = float(MISSING_SCORE)


@pytest.mark.parametrize(
    ("scores", "positions", "wanted_scores", "wanted"),
    [
        ([3, 2, 1], [5, 9, 7], [3, 2, 1], [5, 9, 7]),
        ([3, 3, 1], [5, 9, 7], [3, 3, 1], [9, 5, 7]),
        ([1 + 1e-12, 1, 0.5], [2, 4, 6], [1, 1, 0.5], [4, 2, 6]),
        ([3, 2, -np.inf], [5, 9, -1], [3, 2, LOWEST], [5, 9, -1]),
        ([3, -np.inf, -np.inf], [5, -1, -1], [3, LOWEST, LOWEST], [5, -1, -1]),
        ([3, LOWEST, -np.inf], [5, 9, -1], [3, LOWEST, LOWEST], [5, 9, -1]),
        ([3, -1e39, -np.inf], [5, 9, -1], [3, -np.inf, LOWEST], [5, 9, -1]),
    ],
)
def test_larger_positions_first(
    scores: list[float], positions: list[int], wanted_scores: list[float], wanted: list[int]
) -> None:
    # beside a row that needs reordering, and alone
    for above in ([], [([1.0, 1.0, 1.0], [1, 2, 3])]):
        given = [*above, (scores, positions)]
        found = larger_position_first(np.array([s for s, _ in given]), np.array([p for _, p in given]))
        assert found[0].dtype == np.float32
        assert found[0][-1].tolist() == np.array(wanted_scores, np.float32).tolist()
        assert found[1][-1].tolist() == wanted


@pytest.mark.parametrize(
    ("distances", "positions", "wanted"),
    [
        ([1, 2, 3], [5, 9, 7], [5, 9, 7]),
        ([1, 1 + 1e-12, 3], [9, 5, 7], [5, 9, 7]),
        ([1, np.inf, np.inf], [5, -1, -1], [5, -1, -1]),
        ([1, 1e20, np.inf], [5, 9, -1], [5, 9, -1]),
    ],
)
def test_smaller_positions_first_for_distances(distances: list[float], positions: list[int], wanted: list[int]) -> None:
    found = as_faiss_distances(-np.array([distances]), np.array([positions]), METRIC_L2)
    assert found[1].tolist() == [wanted]
    with np.errstate(over="ignore"):
        squares = np.square(distances).astype(np.float32)
    assert found[0][0].tolist() == np.where(np.array(wanted) < 0, -MISSING_SCORE, squares).tolist()
