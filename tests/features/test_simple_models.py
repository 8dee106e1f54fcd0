"""The simple models of behaviour: each against its formula or its library, and all on data whose answer is known."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp

from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.features import fit_als, fit_bpr, fit_ease, fit_exact_ease, fit_item_knn, fit_nmf, fit_svd

ALL = {
    "als": lambda matrix: fit_als(matrix, 8, regularization=1.0, threads=1),
    "bpr": lambda matrix: fit_bpr(matrix, 8, learning_rate=0.05, threads=1),
    "ease": lambda matrix: fit_ease(matrix, None, regularization=5.0),
    "exact EASE": lambda matrix: fit_exact_ease(matrix, regularization=5.0),
    "item-kNN": lambda matrix: fit_item_knn(matrix, 20),
    "nmf": lambda matrix: fit_nmf(matrix, 4),
    "svd": lambda matrix: fit_svd(matrix, 4),
}


def random_matrix(seed, users=40, items=30, density=0.3):
    rng = np.random.default_rng(seed)
    return rng.random((users, items)) * (rng.random((users, items)) < density)


def two_tastes(seed, users=60, items=30):
    """Everybody chooses a third of the one half of the items or of the other."""
    rng = np.random.default_rng(seed)
    taste = np.arange(users) % 2
    return ((rng.random((users, items)) < 1 / 3) & ((np.arange(items) % 2) == taste[:, None])).astype(float)


@pytest.mark.parametrize("name", ALL)
def test_new_users_of_a_taste_are_shown_the_rest_of_it(name):
    model = ALL[name](sp.csr_matrix(two_tastes(0)))
    histories = two_tastes(1, users=10)
    scores = model.scores(sp.csr_matrix(histories))
    assert scores.shape == histories.shape
    assert scores.dtype == np.float32
    scores[histories > 0] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :5]
    assert (best % 2 == (np.arange(10) % 2)[:, None]).mean() > 0.9


def test_exact_ease_is_its_formula_and_what_full_rank_vectors_score_outside_the_history():
    dense = random_matrix(2)
    precision = np.linalg.inv(dense.T @ dense + 3 * np.eye(30))
    expected = precision / -np.diag(precision)
    np.fill_diagonal(expected, 0)
    exact = fit_exact_ease(sp.csr_matrix(dense), regularization=3.0)
    np.testing.assert_allclose(exact.matrix, expected, atol=1e-6)
    histories = sp.csr_matrix(random_matrix(3, users=5))
    by_vectors = fit_ease(sp.csr_matrix(dense), None, regularization=3.0).scores(histories)
    others = histories.toarray() == 0
    np.testing.assert_allclose(by_vectors[others], exact.scores(histories)[others], atol=2e-6)


@pytest.mark.parametrize("k", [1, 4, 99])
@pytest.mark.parametrize("block", [7, 1024])
def test_item_knn_holds_the_shrunk_cosines_of_the_nearest(k, block, monkeypatch):
    monkeypatch.setattr("llmrec_fast.features.neighbours._BLOCK_ITEMS", block)
    dense = random_matrix(4)
    dense[:, 5] = 0
    norms = np.linalg.norm(dense, axis=0)
    cosines = dense.T @ dense / (norms[:, None] * norms + 2)
    np.fill_diagonal(cosines, 0)
    expected = np.zeros_like(cosines)
    for item in range(30):
        near = np.argsort(-cosines[:, item], kind="stable")[:k]
        expected[near, item] = cosines[near, item]
    made = fit_item_knn(sp.csr_matrix(dense), k, shrinkage=2.0)
    np.testing.assert_allclose(made.matrix.toarray(), expected, atol=1e-6)
    assert made.matrix.nnz == np.count_nonzero(expected)
    histories = random_matrix(5, users=3)
    np.testing.assert_allclose(made.scores(sp.csr_matrix(histories)), histories @ expected, atol=1e-5)


def test_bpr_has_the_items_of_the_library_and_users_nearest_to_its_users():
    from implicit.bpr import BayesianPersonalizedRanking

    matrix = sp.csr_matrix(random_matrix(6))
    model = BayesianPersonalizedRanking(factors=5, iterations=10, random_state=3, num_threads=1, use_gpu=False)
    model.fit(matrix.astype(np.float32), show_progress=False)
    made = fit_bpr(matrix, 5, iterations=10, seed=3, threads=1)
    np.testing.assert_allclose(made.item_vectors, model.item_factors, atol=1e-6)
    users, wanted = matrix @ made.history_vectors, model.user_factors
    # a least-squares fit leaves nothing that its inputs could still explain
    np.testing.assert_allclose((matrix @ made.item_vectors).T @ (users - wanted), 0, atol=1e-3)


def test_nmf_projects_on_the_components_of_the_library():
    from sklearn.decomposition import NMF

    dense = random_matrix(7)
    parts = NMF(4, init="nndsvdar", random_state=1, max_iter=500).fit(sp.csr_matrix(dense)).components_
    scores = fit_nmf(sp.csr_matrix(dense), 4, iterations=500, seed=1).scores(sp.csr_matrix(dense))
    np.testing.assert_allclose(scores, dense @ np.linalg.pinv(parts) @ parts, atol=1e-5)


def test_nmf_stops_at_the_iterations_given_without_a_warning():
    assert np.isfinite(fit_nmf(sp.csr_matrix(random_matrix(8)), 4, iterations=1).item_vectors).all()


@pytest.mark.parametrize("name", ALL)
def test_a_matrix_without_interactions_or_with_nan_is_refused(name):
    with pytest.raises(InvalidInput, match="empty"):
        ALL[name](sp.csr_matrix((5, 4)))
    dense = random_matrix(9)
    dense[3, 3] = np.nan
    with pytest.raises(InvalidInput, match="NaN"):
        ALL[name](sp.csr_matrix(dense))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda matrix: fit_nmf(-matrix), "negative"),
        (lambda matrix: fit_bpr(matrix, learning_rate=0), "learning_rate"),
        (lambda matrix: fit_item_knn(matrix, shrinkage=-1), "shrinkage"),
        (lambda matrix: fit_item_knn(matrix, 0), "k"),
        (lambda matrix: fit_exact_ease(matrix, regularization=0), "regularization"),
        (lambda _: fit_exact_ease(sp.csr_matrix(([1.0], ([0], [0])), shape=(1, 20_000))), "fit_ease"),
    ],
)
def test_settings_out_of_range_are_refused(call, match):
    with pytest.raises(InvalidInput, match=match):
        call(sp.csr_matrix(random_matrix(10)))


@pytest.mark.parametrize(("fit", "module"), [(fit_bpr, "implicit.bpr"), (fit_nmf, "sklearn.decomposition")])
def test_a_missing_library_is_named(fit, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match="pip install"):
        fit(sp.csr_matrix(random_matrix(11)))
