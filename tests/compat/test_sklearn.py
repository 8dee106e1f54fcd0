"""The scikit-learn shim: its own conformance checks, its public examples, and brute force in float64."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.manifold import Isomap
from sklearn.neighbors import BallTree, KDTree
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from llmrec_fast.compat.sklearn import KNeighborsTransformer, NearestNeighbors, RadiusNeighborsTransformer
from llmrec_fast.errors import InvalidInput

SAMPLES = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [1.0, 1.0, 0.5]]


@parametrize_with_checks(
    [
        NearestNeighbors(metric="cosine"),
        NearestNeighbors(),
        KNeighborsTransformer(),
        RadiusNeighborsTransformer(),
    ]
)
def test_scikit_learns_own_checks(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


class TestPublicExamples:
    def test_one_neighbour_of_one_point_and_of_two(self) -> None:
        neighbors = NearestNeighbors(n_neighbors=1).fit(SAMPLES)
        distances, indices = neighbors.kneighbors([[1.0, 1.0, 1.0]])
        assert (distances.tolist(), indices.tolist()) == ([[0.5]], [[2]])
        assert neighbors.kneighbors([[0.0, 1, 0], [1, 0, 1]], return_distance=False).tolist() == [[1], [2]]

    def test_a_radius_and_a_number(self) -> None:
        neighbors = NearestNeighbors(n_neighbors=2, radius=0.4).fit([[0, 0, 2], [1, 0, 0], [0, 0, 1]])
        assert neighbors.kneighbors([[0, 0, 1.3]], 2, return_distance=False).tolist() == [[2, 0]]
        found = neighbors.radius_neighbors([[0, 0, 1.3]], 0.4, return_distance=False)
        assert np.asarray(found[0]).tolist() == [2]

    def test_points_within_a_radius_with_their_distances(self) -> None:
        distances, indices = NearestNeighbors(radius=1.6).fit(SAMPLES).radius_neighbors([[1.0, 1.0, 1.0]])
        assert distances[0].tolist() == [1.5, 0.5]
        assert indices[0].tolist() == [1, 2]

    def test_graphs(self) -> None:
        X = [[0], [3], [1]]
        graph = NearestNeighbors(n_neighbors=2).fit(X).kneighbors_graph(X)
        assert graph.toarray().tolist() == [[1, 0, 1], [0, 1, 1], [1, 0, 1]]
        graph = NearestNeighbors(radius=1.5).fit(X).radius_neighbors_graph(X)
        assert graph.toarray().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]

    def test_the_user_guides_graph_of_six_points(self) -> None:
        X = np.array([[-1, -1], [-2, -1], [-3, -2], [1, 1], [2, 1], [3, 2]])
        neighbors = NearestNeighbors(n_neighbors=2, algorithm="ball_tree").fit(X)
        distances, indices = neighbors.kneighbors(X)
        assert indices.tolist() == [[0, 1], [1, 0], [2, 1], [3, 4], [4, 3], [5, 4]]
        np.testing.assert_allclose(distances[:, 1], [1, 1, 1.41421356, 1, 1, 1.41421356])
        assert neighbors.kneighbors_graph(X).toarray()[1].tolist() == [1, 1, 0, 0, 0, 0]

    def test_a_graph_replaces_the_search_of_another_estimator(self) -> None:
        X = np.random.default_rng(0).standard_normal((40, 3))
        pipeline = make_pipeline(
            KNeighborsTransformer(n_neighbors=12, mode="distance"), Isomap(n_neighbors=10, metric="precomputed")
        )
        wanted = Isomap(n_neighbors=10).fit_transform(X)
        np.testing.assert_allclose(np.abs(pipeline.fit_transform(X)), np.abs(wanted), atol=1e-6)


class TestSearching:
    def test_a_row_is_not_its_own_neighbour_but_a_copy_is(self) -> None:
        neighbors = NearestNeighbors(n_neighbors=2, radius=0.1).fit([[0.0], [1.0], [0.0], [5.0]])
        distances, indices = neighbors.kneighbors()
        assert indices.tolist() == [[2, 1], [0, 2], [0, 1], [1, 0]]
        assert distances.tolist() == [[0, 1], [1, 1], [0, 1], [4, 5]]
        assert [row.tolist() for row in neighbors.radius_neighbors(return_distance=False)] == [[2], [], [0], []]
        assert neighbors.kneighbors_graph().toarray().diagonal().tolist() == [0, 0, 0, 0]

    def test_of_more_copies_than_neighbours_the_first_is_left_out(self) -> None:
        """scikit-learn's rule where a row is not among its own nearest: what its brute force gives for three equal rows."""
        for metric in ("euclidean", "cosine"):
            for dtype in (np.float32, np.float64):
                fitted = NearestNeighbors(n_neighbors=1, metric=metric).fit(np.ones((3, 2), dtype))
                assert fitted.kneighbors(return_distance=False).tolist() == [[1], [0], [1]]

    def test_equally_near_rows_come_by_index(self) -> None:
        neighbors = NearestNeighbors(n_neighbors=3).fit([[1.0], [-1.0], [1.0], [-1.0]])
        assert neighbors.kneighbors([[0.0]])[1].tolist() == [[0, 1, 2]]
        assert neighbors.radius_neighbors([[0.0]], sort_results=True)[1][0].tolist() == [0, 1, 2, 3]

    def test_a_radius_includes_its_boundary(self) -> None:
        neighbors = NearestNeighbors(radius=5.0).fit([[3.0, 4.0], [3.0, 4.0000001]])
        assert neighbors.radius_neighbors([[0.0, 0.0]])[1][0].tolist() == [0]

    def test_the_cosine_of_a_zero_row_is_zero(self) -> None:
        neighbors = NearestNeighbors(n_neighbors=3, metric="cosine").fit([[0.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
        distances, indices = neighbors.kneighbors([[1.0, 0.0]])
        assert indices.tolist() == [[1, 0, 2]]
        assert distances.tolist() == [[0, 1, 2]]

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from([("cosine", 0.0), ("euclidean", 0.0), ("euclidean", 1e4)]),
        st.sampled_from([np.float32, np.float64]),
        st.integers(0, 2**32 - 1),
    )
    def test_both_searches_against_brute_force(self, case: tuple[str, float], dtype: type, seed: int) -> None:
        metric, offset = case
        generator = np.random.default_rng(seed)
        X = (generator.standard_normal((60, 5)) + offset).astype(dtype)
        Q = (generator.standard_normal((7, 5)) + offset).astype(dtype)
        a, b = Q.astype(np.float64), X.astype(np.float64)
        if metric == "cosine":
            unit_a, unit_b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (a, b))
            exact = np.square(unit_a[:, None] - unit_b).sum(2) / 2
        else:
            exact = np.linalg.norm(a[:, None] - b, axis=2)
        tolerance = 1e-12 if dtype is np.float64 else 1e-6
        neighbors = NearestNeighbors(n_neighbors=4, metric=metric).fit(X)
        distances, indices = neighbors.kneighbors(Q)
        np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :4], atol=tolerance)
        np.testing.assert_allclose(np.take_along_axis(exact, indices, 1), distances, atol=tolerance)
        radius = float(np.median(exact))
        for row, found in zip(exact, neighbors.radius_neighbors(Q, radius, return_distance=False), strict=True):
            assert set(np.flatnonzero(row < radius - tolerance)) <= set(found)
            assert set(found) <= set(np.flatnonzero(row <= radius + tolerance))

    def test_huge_and_tiny_values_keep_their_directions(self) -> None:
        neighbors = NearestNeighbors(n_neighbors=1, metric="cosine").fit([[1e200, 0.0], [0.0, 1e-200]])
        assert neighbors.kneighbors([[1e-100, 0.0], [0.0, 1e100]], return_distance=False).tolist() == [[0], [1]]


class TestTransformers:
    X = np.array([[0.0], [1.0], [3.0]])

    def test_distances_have_one_neighbour_more_and_an_explicit_diagonal(self) -> None:
        graph = KNeighborsTransformer(n_neighbors=1).fit_transform(self.X)
        assert graph.nnz == 6
        assert graph.toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 2, 0]]
        graph = KNeighborsTransformer(n_neighbors=1, mode="connectivity").fit_transform(self.X)
        assert graph.toarray().tolist() == np.eye(3).tolist()

    def test_radii_keep_what_is_near_enough(self) -> None:
        graph = RadiusNeighborsTransformer(radius=1.0).fit_transform(self.X)
        assert graph.nnz == 5
        assert graph.toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
        names = RadiusNeighborsTransformer().fit(self.X).get_feature_names_out()
        assert names.tolist() == [f"radiusneighborstransformer{i}" for i in range(3)]

    def test_modes_are_checked(self) -> None:
        for transformer in (KNeighborsTransformer(mode="weights"), RadiusNeighborsTransformer(mode="weights")):
            with pytest.raises(InvalidInput, match="mode must be"):
                transformer.fit(self.X)
        with pytest.raises(InvalidInput, match="mode must be"):
            NearestNeighbors().fit(self.X).kneighbors_graph(mode="weights")


class TestRefusing:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"metric": "manhattan"}, "metric must be"),
            ({"p": 1}, "with p=1"),
            ({"metric": "cosine", "metric_params": {"w": 1}}, "metric_params"),
            ({"algorithm": "hnsw"}, "algorithm must be"),
            ({"n_neighbors": 0}, "n_neighbors must be at least 1"),
            ({"radius": -1}, "radius must be"),
            ({"n_jobs": 0}, "n_jobs must be"),
        ],
    )
    def test_parameters_that_are_not_covered(self, parameters: dict[str, object], message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            NearestNeighbors(**parameters).fit(SAMPLES)

    def test_more_neighbours_than_rows(self) -> None:
        neighbors = NearestNeighbors().fit(SAMPLES)
        with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit"):
            neighbors.kneighbors(SAMPLES, 4)
        with pytest.raises(ValueError, match="Expected n_neighbors < n_samples_fit"):
            neighbors.kneighbors(n_neighbors=3)

    def test_searching_before_fitting_and_sorting_without_distances(self) -> None:
        with pytest.raises(NotFittedError):
            NearestNeighbors().kneighbors(SAMPLES)
        with pytest.raises(InvalidInput, match="return_distance"):
            NearestNeighbors().fit(SAMPLES).radius_neighbors(return_distance=False, sort_results=True)

    def test_unknown_keywords(self) -> None:
        with pytest.raises(TypeError):
            NearestNeighbors(ef_search=3)


def test_an_estimator_survives_pickling_and_its_data_being_overwritten() -> None:
    X = np.array(SAMPLES)
    neighbors = NearestNeighbors(n_neighbors=1, n_jobs=-1).fit(X)
    X[:] = 9
    for copy in (neighbors, pickle.loads(pickle.dumps(neighbors))):
        assert copy.kneighbors([[1.0, 1.0, 1.0]])[1].tolist() == [[2]]


@pytest.mark.parametrize("tree", [BallTree, KDTree, lambda rows: NearestNeighbors().fit(rows)])
def test_rows_may_come_in_a_tree_or_a_fitted_estimator(tree: Callable[[np.ndarray], object]) -> None:
    rows = np.random.default_rng(0).standard_normal((30, 4))
    wanted = NearestNeighbors(n_neighbors=3).fit(rows).kneighbors(rows)
    found = NearestNeighbors(n_neighbors=3).fit(tree(rows)).kneighbors(rows)
    assert np.array_equal(found[1], wanted[1])
