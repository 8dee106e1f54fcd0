"""The implicit shim: values that implicit 0.7 returned for these factors, and brute force in float64."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix, random_array

from llmrec_fast.compat.implicit import MatrixFactorization
from llmrec_fast.errors import InvalidInput

LOWEST = np.finfo(np.float32).min
USERS = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
ITEMS = np.array([[1, 0], [1, 0], [0, 1], [2, 0], [1, 0], [0, 0]], np.float32)
LIKED = csr_matrix(np.array([[0, 1, 0, 1, 0, 0], [0] * 6, [1] * 6], np.float32))


@pytest.fixture(scope="module")
def model() -> MatrixFactorization:
    return MatrixFactorization.from_factors(USERS, ITEMS, regularization=0.1, alpha=2.0)


class TestRecommending:
    def test_liked_items_are_left_out_and_ties_come_with_the_larger_id_first(self, model: MatrixFactorization) -> None:
        ids, scores = model.recommend(0, LIKED[0], N=4)
        assert (ids.dtype, scores.dtype) == (np.int32, np.float32)
        assert ids.tolist() == [4, 0, 5, 2]
        assert scores.tolist() == [1, 1, 0, 0]

    def test_all_items_where_nothing_is_filtered(self, model: MatrixFactorization) -> None:
        ids, scores = model.recommend(0, None, N=6, filter_already_liked_items=False)
        assert ids.tolist() == [3, 4, 1, 0, 5, 2]
        assert scores.tolist() == [2, 1, 1, 1, 0, 0]
        assert model.recommend(0, None, N=3, filter_already_liked_items=False)[0].tolist() == [3, 1, 0]

    def test_several_users_at_once_and_filtered_items_come_last(self, model: MatrixFactorization) -> None:
        ids, scores = model.recommend([0, 2], LIKED[[0, 2]], N=6)
        assert ids.tolist() == [[4, 0, 5, 2, 3, 1], [5, 4, 3, 2, 1, 0]]
        assert scores.tolist() == [[1, 1, 0, 0, LOWEST, LOWEST], [LOWEST] * 6]

    def test_of_filtered_items_those_return_that_implicit_keeps(self) -> None:
        """Values of implicit 0.7 for scores 11, 10, ..., 0 of twelve items."""
        model = MatrixFactorization.from_factors([[1]], np.arange(11, -1, -1)[:, None])
        liked = csr_matrix((np.ones(4), [2, 5, 7, 11], [0, 4]), (1, 12))
        assert model.recommend(0, liked, N=10)[0].tolist() == [0, 1, 3, 4, 6, 8, 9, 10, 7, 5]
        assert model.recommend(0, liked, N=5, filter_items=range(8))[0].tolist() == [8, 9, 10, 4, 3]
        assert model.recommend(0, liked, N=3, items=[9, 7, 2, 11, 5])[0].tolist() == [9, 7, 5]

    def test_after_all_items_nothing(self, model: MatrixFactorization) -> None:
        ids, scores = model.recommend(0, LIKED[0], N=8)
        assert ids.tolist() == [4, 0, 5, 2, 3, 1, -1, -1]
        assert scores[4:].tolist() == [LOWEST] * 4

    def test_items_left_out_for_everyone(self, model: MatrixFactorization) -> None:
        assert model.recommend(0, LIKED[0], N=3, filter_items=[0, 2])[0].tolist() == [4, 5, 2]
        assert model.recommend(0, LIKED[0], N=4, filter_items=[])[0].tolist() == [4, 0, 5, 2]

    def test_only_some_items(self, model: MatrixFactorization) -> None:
        ids, scores = model.recommend(0, LIKED[0], N=10, items=[5, 0, 1])
        assert ids.tolist() == [0, 5, 1]
        assert scores.tolist() == [1, 0, LOWEST]
        ids = model.recommend(0, LIKED[0], N=3, items=[0, 1, 5], filter_already_liked_items=False)[0]
        assert ids.tolist() == [1, 0, 5]

    def test_a_user_is_fitted_to_what_they_liked(self, model: MatrixFactorization) -> None:
        # by hand: (7 + .1 + 1 + 4) x = 2 + 4
        np.testing.assert_allclose(model.recalculate_user(0, LIKED[0]), [6 / 12.1, 0], atol=1e-7)
        ids, scores = model.recommend(0, LIKED[0], N=3, recalculate_user=True)
        assert ids.tolist() == [4, 0, 2]
        np.testing.assert_allclose(scores, [0.4958678, 0.4958678, 0], rtol=1e-6)
        assert model.recalculate_user([1], LIKED[[1]]).tolist() == [[0, 0]]

    def test_a_negative_value_pulls_towards_zero(self, model: MatrixFactorization) -> None:
        disliked = csr_matrix(np.array([[1, 0, 0, -1, 0, 0]], np.float32))
        # (7.1 + (2 - 1) 1 + (2 - 1) 4) x = 2
        np.testing.assert_allclose(model.recalculate_user(0, disliked), [2 / 12.1, 0], atol=1e-7)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 12))
    def test_against_brute_force(self, seed: int, k: int) -> None:
        generator = np.random.default_rng(seed)
        users, items = (generator.standard_normal((n, 4)).astype(np.float32) for n in (8, 50))
        liked = csr_array(random_array((8, 50), density=0.5, format="csr", rng=generator))
        left_out = generator.choice(50, 10, replace=False)
        exact = users.astype(np.float64) @ items.T.astype(np.float64)
        exact[:, left_out] = -np.inf
        exact[np.repeat(np.arange(8), np.diff(liked.indptr)), liked.indices] = -np.inf
        wanted = np.argsort(-exact, axis=1)[:, :k]
        ids = MatrixFactorization.from_factors(users, items).recommend(range(8), liked, N=k, filter_items=left_out)[0]
        finite = np.take_along_axis(exact, wanted, 1) > -np.inf
        assert np.array_equal(ids[finite], wanted[finite])
        filtered = np.isneginf(exact)
        assert np.take_along_axis(filtered, ids.astype(np.int64), 1)[~finite].all()


class TestSimilarity:
    def test_items_by_cosine_with_themselves_among_them(self, model: MatrixFactorization) -> None:
        ids, scores = model.similar_items(0, N=4)
        assert ids.tolist() == [4, 3, 1, 0]
        assert scores.tolist() == [1, 1, 1, 1]
        assert model.similar_items([0, 5], N=6)[0].tolist() == [[4, 3, 1, 0, 5, 2], [5, 4, 3, 2, 1, 0]]

    def test_users_by_cosine(self, model: MatrixFactorization) -> None:
        ids, scores = model.similar_users(0, N=3)
        assert ids.tolist() == [0, 2, 1]
        np.testing.assert_allclose(scores, [1, 0.70710677, 0], rtol=1e-6)

    def test_filters(self, model: MatrixFactorization) -> None:
        assert model.similar_items(0, N=3, filter_items=[0, 1])[0].tolist() == [4, 3, 2]
        assert model.similar_items(0, N=3, items=[2, 5, 1])[0].tolist() == [1, 5, 2]
        assert model.similar_users(0, N=2, filter_users=[0])[0].tolist() == [2, 1]
        assert model.similar_users(0, N=2, users=np.array([1, 2]))[0].tolist() == [2, 1]

    def test_an_item_is_fitted_to_who_liked_it(self, model: MatrixFactorization) -> None:
        liked_by = csr_matrix(np.array([[1.0, 0, 0]]))
        # (U'U + .1 I + u0 u0') x = 2 u0 with U'U = [[2, 1], [1, 2]]
        fitted = np.linalg.solve([[3.1, 1], [1, 2.1]], [2, 0])
        wanted = ITEMS @ fitted / np.linalg.norm(fitted) / np.maximum(np.linalg.norm(ITEMS, axis=1), 1e-10)
        ids, scores = model.similar_items(0, N=6, recalculate_item=True, item_users=liked_by)
        np.testing.assert_allclose(scores, np.sort(wanted)[::-1], atol=1e-6)
        assert ids.tolist() == [4, 3, 1, 0, 5, 2]


def test_a_pickled_model_answers_alike(model: MatrixFactorization) -> None:
    again = pickle.loads(pickle.dumps(model))
    for ask in (lambda m: m.recommend(0, LIKED[0], recalculate_user=True), lambda m: m.similar_items([0, 2])):
        for ours, theirs in zip(ask(again), ask(model), strict=True):
            np.testing.assert_array_equal(ours, theirs)


class TestRefusing:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.recommend(0, LIKED), "one row for each of the 1"),
            (lambda m: m.recommend(0, LIKED[0].toarray()), "CSR"),
            (lambda m: m.recommend(0, LIKED[0].tocoo()), "CSR"),
            (lambda m: m.recommend(0, None), "CSR"),
            (lambda m: m.recommend(0, csr_matrix((1, 7))), "at most 6 columns"),
            (lambda m: m.recommend(0, LIKED[0], items=[1], filter_items=[2]), "not both"),
            (lambda m: m.recommend(0, LIKED[0], N=0), "N must be at least 1"),
            (lambda m: m.recommend(0.5, LIKED[0]), "userid must be integers"),
            (lambda m: MatrixFactorization.from_factors(USERS, ITEMS).recalculate_user(0, LIKED[0]), "regularization"),
            (lambda m: MatrixFactorization.from_factors(USERS, ITEMS[:, :1]), "1 columns"),
        ],
    )
    def test_what_does_not_fit(self, model: MatrixFactorization, call: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            call(model)  # type: ignore[operator]

    @pytest.mark.parametrize(
        "call",
        [
            lambda m: m.recommend(99, LIKED[0]),
            lambda m: m.recommend(-1, LIKED[0]),
            lambda m: m.recommend(0, LIKED[0], items=[99]),
            lambda m: m.recommend(0, LIKED[0], filter_items=[99]),
            lambda m: m.similar_items(77),
            lambda m: m.similar_users(3),
        ],
    )
    def test_ids_beyond_the_model_raise_what_implicit_raises(self, model: MatrixFactorization, call: object) -> None:
        with pytest.raises(IndexError, match="not in the model"):
            call(model)  # type: ignore[operator]

    def test_unknown_keywords(self, model: MatrixFactorization) -> None:
        with pytest.raises(TypeError):
            model.recommend(0, LIKED[0], k=5)
        with pytest.raises(InvalidInput, match="NaN"):
            MatrixFactorization.from_factors(USERS * np.nan, ITEMS)
