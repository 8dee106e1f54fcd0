"""What followed what: counts by hand, normalisation, smoothing through neighbours, and scores of histories."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import (
    count_transitions,
    nearest_items,
    smooth_transitions,
    transition_matrix,
    transition_scores,
)

# two histories: 0 1 2 and 1 1 3
INDPTR, ITEMS = [0, 3, 6], [0, 1, 2, 1, 1, 3]


def test_counts_by_hand_with_the_decay_of_the_gap():
    half = np.exp(-1 / 2.0)
    expected = np.zeros((4, 4))
    expected[0, 1], expected[0, 2], expected[1, 2] = 1, half, 1
    expected[1, 3] = 1 + half  # of the repeated item both occurrences precede 3, and it does not follow itself
    np.testing.assert_allclose(count_transitions(INDPTR, ITEMS, 4).toarray(), expected)


def test_a_window_of_one_sees_the_next_item_only_and_values_weigh_what_follows():
    counts = count_transitions(INDPTR, ITEMS, 4, [9, 0.5, 2, 9, 9, 4], window=1).toarray()
    assert counts[0].tolist() == [0, 0.5, 0, 0]
    assert counts[1].tolist() == [0, 0, 2, 4]


def test_no_transition_crosses_from_one_history_to_the_next():
    assert count_transitions([0, 1, 2], [0, 1], 2).nnz == 0


def test_direction_matters():
    counts = count_transitions([0, 2], [0, 1], 2)
    assert counts[0, 1] == 1
    assert counts[1, 0] == 0


def test_shrinkage_and_popularity_normalise_as_documented():
    counts = sp.csr_matrix(np.array([[0, 3.0, 1.0], [0, 0, 2.0], [0, 0, 0]]))
    plain = transition_matrix(counts, shrinkage=1.0).toarray()
    np.testing.assert_allclose(plain, [[0, 3 / 5, 1 / 5], [0, 0, 2 / 3], [0, 0, 0]], rtol=1e-6)
    lifted = transition_matrix(counts, shrinkage=0.0, popularity=0.5).toarray()
    np.testing.assert_allclose(lifted[0], [0, 0.75 / np.sqrt(3), 0.25 / np.sqrt(3)], rtol=1e-6)


def test_nearest_items_weigh_themselves_most_and_sum_to_one():
    vectors = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0, 0]])
    near = nearest_items(vectors, 2).toarray()
    np.testing.assert_allclose(near.sum(axis=1), 1, rtol=1e-6)
    assert (near.argmax(axis=1) == np.arange(4)).all()
    assert near[0, 1] > 0
    assert near[0, 2] == 0
    assert np.count_nonzero(near[2]) == 2


def test_smoothing_keeps_the_total_and_gives_a_new_item_the_transitions_of_its_neighbour():
    vectors = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.99, 0.1, 0]])
    counts = count_transitions([0, 2], [0, 1], 4)
    smoothed = smooth_transitions(counts, nearest_items(vectors, 2))
    np.testing.assert_allclose(smoothed.sum(), counts.sum(), rtol=1e-6)
    assert counts[3].nnz == 0
    assert smoothed[3, 1] > 0
    untouched = smooth_transitions(counts, nearest_items(vectors, 2), sources=False, targets=False)
    np.testing.assert_allclose(untouched.toarray(), counts.toarray())


def test_scores_are_the_weighted_sum_over_the_history():
    transitions = transition_matrix(count_transitions(INDPTR, ITEMS, 4), shrinkage=0)
    scores = transition_scores(transitions, [0, 2, 2], [0, 1], [0.5, 2.0])
    expected = 0.5 * transitions[0].toarray()[0] + 2.0 * transitions[1].toarray()[0]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)
    assert not scores[1].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_transitions([0, 2], [0, 4], 4), "holds 4, outside the catalogue of 4"),
        (lambda: count_transitions([0, 1], [0, 1], 4), "indptr ends at 1"),
        (lambda: count_transitions(INDPTR, ITEMS, 4, window=0), "window must be at least 1"),
        (lambda: count_transitions(INDPTR, ITEMS, 4, decay=0), "decay must be a positive"),
        (lambda: count_transitions([0, 2], [0, 1], 2, [1, -1]), "got -1 in row 1"),
        (lambda: transition_matrix(np.eye(2)), "square scipy sparse matrix"),
        (lambda: transition_matrix(sp.eye(2), popularity=2), "lie from 0 to 1"),
        (lambda: nearest_items(np.eye(2), temperature=0), "temperature must be a positive"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
