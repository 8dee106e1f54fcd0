import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import collaborative, fit_als, fit_ease, fit_svd


def random_matrix(seed, users, items, density=0.3):
    rng = np.random.default_rng(seed)
    dense = rng.random((users, items)) * (rng.random((users, items)) < density)
    dense[0, 0] = 1
    return dense


def ease_oracle(dense, regularization):
    """EASE in closed form: item-to-item weights B with a diagonal of zeros (Steck 2019, equation 8)."""
    precision = np.linalg.inv(dense.T @ dense + regularization * np.eye(dense.shape[1]))
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0)
    return weights


def product(vectors):
    return vectors.history_vectors.astype(np.float64) @ vectors.item_vectors.T.astype(np.float64)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.integers(2, 25), st.floats(0.1, 100))
def test_ease_of_full_rank_is_ease(seed, users, items, regularization):
    dense = random_matrix(seed, users, items)
    weights = product(fit_ease(sp.csr_matrix(dense), None, regularization=regularization))
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(weights, ease_oracle(dense, regularization), atol=2e-6)


def test_truncated_ease_is_ease_of_the_truncated_gram_matrix():
    dense, rank = random_matrix(1, 40, 30), 7
    _, singular, right = np.linalg.svd(dense, full_matrices=False)
    truncated = singular[:rank, None] * right[:rank]
    weights = product(fit_ease(sp.csr_matrix(dense), rank, regularization=3.0))
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(weights, ease_oracle(truncated, 3.0), atol=2e-6)


def test_both_sides_of_ease_point_the_same_way():
    vectors = fit_ease(sp.csr_matrix(random_matrix(2, 40, 30)), 8, regularization=3.0)
    a, b = vectors.history_vectors, vectors.item_vectors
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(np.einsum("nd,nd->n", a, b), norms, rtol=1e-5)


@pytest.mark.parametrize(("users", "items"), [(40, 15), (15, 40)])
def test_svd_is_the_projection_on_the_leading_right_singular_vectors(users, items):
    dense, rank = random_matrix(3, users, items), 6
    right = np.linalg.svd(dense)[2][:rank]
    np.testing.assert_allclose(product(fit_svd(sp.csr_matrix(dense), rank)), right.T @ right, atol=1e-6)


@pytest.mark.parametrize("fit", [fit_svd, fit_ease])
def test_large_matrices_give_the_same_by_the_lanczos_method(fit, monkeypatch):
    matrix = sp.csr_matrix(random_matrix(4, 60, 50))
    dense = fit(matrix, 8)
    monkeypatch.setattr(collaborative, "_DENSE_SIDE", 10)
    np.testing.assert_allclose(fit(matrix, 8).item_vectors, dense.item_vectors, atol=1e-5)


@pytest.mark.parametrize("fit", [fit_svd, fit_ease])
def test_fits_repeat_to_the_bit_and_each_column_has_a_positive_peak(fit):
    matrix = sp.csr_matrix(random_matrix(5, 30, 20))
    first, second = fit(matrix, 5), fit(matrix.copy(), 5)
    np.testing.assert_array_equal(first.item_vectors, second.item_vectors)
    peaks = np.abs(first.history_vectors).argmax(axis=0)
    assert (first.history_vectors[peaks, np.arange(5)] > 0).all()


def test_an_item_that_nobody_chose_has_a_vector_of_zeros():
    dense = random_matrix(6, 12, 20)
    dense[:, 7] = 0
    vectors = fit_ease(sp.csr_matrix(dense), None, regularization=2.0)
    np.testing.assert_allclose(vectors.history_vectors[7], 0, atol=1e-7)
    np.testing.assert_allclose(vectors.item_vectors[7], 0, atol=1e-7)


def test_rank_beyond_the_matrix_and_directions_beyond_its_rank_are_harmless():
    dense = np.outer([1.0, 2.0, 0.0], [1.0, 1.0, 0.0, 3.0])
    vectors = fit_svd(sp.csr_matrix(dense), 99)
    assert vectors.item_vectors.shape == (4, 3)
    direction = np.array([1.0, 1.0, 0.0, 3.0]) / np.sqrt(11)
    np.testing.assert_allclose(product(vectors), np.outer(direction, direction), atol=1e-6)


def test_als_reconstructs_who_belongs_together():
    pytest.importorskip("implicit", exc_type=ImportError)  # its wheel needs the system's libgomp
    dense = np.kron(np.eye(2), np.ones((10, 8)))
    vectors = fit_als(sp.csr_matrix(dense), rank=4, regularization=0.1, confidence=10.0, threads=1)
    scores = product(vectors)
    assert scores[:8, :8].min() > scores[:8, 8:].max()
    repeated = fit_als(sp.csr_matrix(dense), rank=4, regularization=0.1, confidence=10.0, threads=1)
    np.testing.assert_array_equal(vectors.item_vectors, repeated.item_vectors)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_svd(np.eye(3)), "scipy sparse matrix; got ndarray"),
        (lambda: fit_svd(sp.csr_matrix((3, 4))), "empty: there is nothing to learn"),
        (lambda: fit_svd(sp.csr_matrix([[0, 1], [np.nan, 1]])), "NaN or infinite values; the first in row 1"),
        (lambda: fit_svd(sp.eye(3, format="csr"), 0), "rank must be at least 1"),
        (lambda: fit_ease(sp.eye(3, format="csr"), regularization=0), "regularization must be a positive number"),
        (lambda: fit_ease(sp.eye(20_000, format="csr"), None), "rank must be at most 5000"),
        (lambda: fit_als(sp.eye(3, format="csr"), confidence=-1), "must be positive"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
