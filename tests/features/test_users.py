import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Centring, HistoryWeighting, user_vectors

ITEMS = np.eye(4, dtype=np.float32)
# three users: items 0, 1, 2 (old to new); none; item 3
INDPTR = np.array([0, 3, 3, 4])
HISTORY = np.array([0, 1, 2, 3])


def test_all_items_of_a_history_weigh_alike_by_default():
    np.testing.assert_array_equal(HistoryWeighting().weights(INDPTR), 1)


def test_decay_counts_back_from_the_most_recent_item():
    weights = HistoryWeighting(decay=2.0).weights(INDPTR)
    np.testing.assert_allclose(weights, [np.exp(-1), np.exp(-0.5), 1, 1], rtol=1e-6)


def test_only_the_last_items_count_if_asked():
    np.testing.assert_array_equal(HistoryWeighting(last=2).weights(INDPTR), [0, 1, 1, 1])


def test_values_multiply_the_decay():
    weights = HistoryWeighting(decay=2.0, use_values=True).weights(INDPTR, [1, 0, 0.5, 3])
    np.testing.assert_allclose(weights, [np.exp(-1), 0, 0.5, 3], rtol=1e-6)


def test_values_are_ignored_unless_they_are_to_be_used():
    np.testing.assert_array_equal(HistoryWeighting().weights(INDPTR, [9, 9, 9, 9]), 1)


def test_user_vector_is_the_weighted_mean_of_the_history():
    vectors = user_vectors(ITEMS, INDPTR, HISTORY, [1, 2, 1, 5])
    np.testing.assert_allclose(vectors, [[0.25, 0.5, 0.25, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


def test_other_modes():
    np.testing.assert_array_equal(user_vectors(ITEMS, INDPTR, HISTORY, mode="last")[0], [0, 0, 1, 0])
    np.testing.assert_array_equal(user_vectors(ITEMS, INDPTR, HISTORY, mode="max")[0], [1, 1, 1, 0])
    summed = user_vectors(ITEMS, INDPTR, HISTORY, [1, -1, 1, 1], mode="sum")
    np.testing.assert_array_equal(summed[0], [1, -1, 1, 0])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.5, 100))
def test_a_score_is_exactly_the_sum_over_the_history(seed, users, decay):
    rng = np.random.default_rng(seed)
    items = rng.standard_normal((20, 8))
    indptr = np.concatenate(([0], np.cumsum(rng.integers(0, 6, users))))
    history = rng.integers(0, 20, indptr[-1])
    weights = HistoryWeighting(decay=decay).weights(indptr)
    scores = user_vectors(items, indptr, history, weights, mode="sum") @ items.T.astype(np.float32)
    for user in range(users):
        part = slice(indptr[user], indptr[user + 1])
        expected = weights[part].astype(np.float64) @ (items[history[part]] @ items.T)
        np.testing.assert_allclose(scores[user], expected, atol=1e-4)


def test_users_can_be_normalised():
    vectors = user_vectors(ITEMS, INDPTR, HISTORY, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], rtol=1e-6)


def test_centring_removes_the_mean_and_moves_new_vectors_alike():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 8)) + 3
    centring = Centring.fit(vectors)
    expected = vectors - vectors.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(centring.apply(vectors), expected, atol=1e-5)
    np.testing.assert_array_equal(centring.apply(vectors[:1]), centring.apply(vectors)[:1])


def test_a_vector_at_the_mean_says_nothing():
    centring = Centring.fit([[1.0, 1.0], [3.0, 3.0]])
    np.testing.assert_array_equal(centring.apply([[2.0, 2.0]]), 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HistoryWeighting(decay=0), "decay must be a positive number"),
        (lambda: HistoryWeighting(last=0), "last must be at least 1"),
        (lambda: HistoryWeighting(use_values=True).weights(INDPTR), "needs interactions with values"),
        (lambda: HistoryWeighting(use_values=True).weights(INDPTR, [1, -2, 1, 1]), "got -2 in row 1"),
        (lambda: HistoryWeighting(use_values=True).weights(INDPTR, [1, np.nan, 1, 1]), "NaN in row 1"),
        (lambda: HistoryWeighting().weights([1, 2]), "indptr must start at 0"),
        (lambda: user_vectors(ITEMS, INDPTR, [0, 1, 2, 9]), "items holds 9, outside the 4 rows"),
        (lambda: user_vectors(ITEMS, INDPTR, [0, 1, 2, -1]), "items holds -1"),
        (lambda: user_vectors(ITEMS, [0, 2], HISTORY), "indptr ends at 2 where there are 4 positions"),
        (lambda: user_vectors(ITEMS, [0, 3, 2, 4], HISTORY), "never fall"),
        (lambda: user_vectors(np.full((4, 2), np.nan), INDPTR, HISTORY), "item_vectors holds NaN in row 0"),
        (lambda: user_vectors(ITEMS, INDPTR, HISTORY, [1, 2]), "weights must have 4 values"),
        (lambda: Centring.fit(np.zeros((0, 3))), "no rows"),
        (lambda: Centring.fit(ITEMS).apply([[1.0, 2.0]]), "must have 4 columns"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
