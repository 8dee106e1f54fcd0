import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.ranking import rerank_mmr


def unit_rows(rng, rows, columns):
    vectors = rng.standard_normal((rows, columns)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def naive_mmr(scores, candidates, vectors, k, diversity):
    """The definition, one candidate at a time, for a single row."""
    present = [c for c in range(len(candidates)) if candidates[c] >= 0]
    low, high = min(scores[c] for c in present), max(scores[c] for c in present)
    relevance = {c: (scores[c] - low) / (high - low) if high > low else 0.0 for c in present}
    chosen = []
    while present and len(chosen) < k:

        def gain(c):
            if not chosen:
                return (1 - diversity) * relevance[c]
            nearest = max(float(vectors[candidates[c]] @ vectors[candidates[other]]) for other in chosen)
            return (1 - diversity) * relevance[c] - diversity * nearest

        best = max(present, key=lambda c: (gain(c), -c))
        chosen.append(best)
        present.remove(best)
    return chosen


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), diversity=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), missing=st.integers(0, 4))
def test_the_order_is_the_definition_of_mmr(seed, diversity, missing):
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, 30, 5)
    candidates = np.stack([rng.permutation(30)[:8] for _ in range(3)])
    scores = -np.sort(-rng.standard_normal((3, 8)), axis=1)
    candidates[1, 8 - missing :], scores[1, 8 - missing :] = -1, -np.inf
    order = rerank_mmr(scores, candidates, vectors, 6, diversity)
    for row in range(3):
        expected = naive_mmr(scores[row], candidates[row], vectors, 6, diversity)
        assert order[row, : len(expected)].tolist() == expected


def test_without_diversity_the_order_stays():
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.random((4, 10)), axis=1)
    order = rerank_mmr(scores, np.tile(np.arange(10), (4, 1)), unit_rows(rng, 10, 3), 10, 0.0)
    assert order.tolist() == [list(range(10))] * 4


def test_a_near_copy_of_a_chosen_item_is_put_off():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    order = rerank_mmr(np.array([[1.0, 0.99, 0.5]]), np.array([[0, 1, 2]]), vectors, 3, 0.5)
    assert order.tolist() == [[0, 2, 1]]


def test_missing_candidates_come_last():
    order = rerank_mmr(np.array([[1.0, 0.5, -np.inf]]), np.array([[0, 1, -1]]), np.eye(2, dtype=np.float32), 3, 1.0)
    assert order.tolist() == [[0, 1, 2]]


def test_a_row_without_candidates_and_no_rows_at_all_are_fine():
    empty = rerank_mmr(np.full((1, 2), -np.inf), np.full((1, 2), -1), np.empty((0, 3), np.float32), 2, 0.5)
    assert empty.shape == (1, 2)
    assert rerank_mmr(np.empty((0, 4)), np.empty((0, 4), np.int64), np.eye(2, dtype=np.float32), 2, 0.5).shape == (0, 2)


@pytest.mark.parametrize(("k", "diversity"), [(0, 0.5), (-1, 0.5), (2, -0.1), (2, 1.1), (2, float("nan"))])
def test_bad_arguments_are_refused(k, diversity):
    with pytest.raises(InvalidInput):
        rerank_mmr(np.zeros((1, 2)), np.zeros((1, 2), np.int64), np.eye(2, dtype=np.float32), k, diversity)
