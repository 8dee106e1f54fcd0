"""The parts of the sequential suite that carry its figures: ranks with ties, and sequences with their targets."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sequential import Rows, figures


def test_of_equal_scores_the_smaller_id_comes_first_and_the_tenth_place_is_the_last_that_counts():
    scores = np.zeros((3, 12), np.float32)
    measured = figures(scores, np.array([0, 9, 10]))
    assert measured["hit_rate@10"] == pytest.approx(2 / 3)
    assert measured["ndcg@10"] == pytest.approx((1 + 1 / np.log2(11)) / 3)


def test_sequences_put_every_target_behind_its_history():
    rows = Rows(np.array([0, 2, 2, 3]), np.array([5, 6, 7]), np.array([1, 2, 3]), np.array([0, 0, 1]))
    indptr, items = rows.sequences()
    assert indptr.tolist() == [0, 3, 4, 6]
    assert items.tolist() == [5, 6, 1, 2, 7, 3]
    part = rows.take(np.array([2, 0]))
    assert part.items.tolist() == [7, 5, 6]
    assert part.targets.tolist() == [3, 1]
