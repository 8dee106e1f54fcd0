"""The FAISS shim: the library's public examples, written anew, with what FAISS 1.15 returned for them."""

from __future__ import annotations

import numpy as np
import pytest

import llmrec_fast.compat.faiss as faiss
from llmrec_fast.errors import InvalidInput

FARTHEST = np.finfo(np.float32).max
ROWS = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
QUERY = np.array([[1, 0]], np.float32)


def filled(kind: type[faiss.IndexFlatIP] | type[faiss.IndexFlatL2]) -> faiss.IndexFlat:
    index = kind(2)
    index.add(ROWS)
    return index


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """The first rows of the tutorial's data: uniform, with a first column that grows."""
    vectors = np.random.RandomState(1234).random_sample((3000, 64)).astype(np.float32)
    vectors[:, 0] += np.arange(len(vectors)) / 1000.0
    return vectors


class TestGettingStarted:
    """The first example of FAISS's tutorial, on the first rows of its data."""

    def test_neighbours_and_distances_are_those_of_the_tutorial(self, vectors: np.ndarray) -> None:
        index = faiss.IndexFlatL2(64)
        assert index.is_trained
        index.add(vectors)
        assert index.ntotal == 3000
        distances, labels = index.search(vectors[:5], 4)
        assert labels.tolist() == [
            [0, 393, 363, 78],
            [1, 555, 277, 364],
            [2, 304, 101, 13],
            [3, 173, 18, 182],
            [4, 288, 370, 531],
        ]
        assert distances.dtype == np.float32
        np.testing.assert_allclose(distances[0], [0, 7.17517328, 7.2076292, 7.25116253], rtol=1e-5)

    def test_knn_gives_the_same_without_an_index(self, vectors: np.ndarray) -> None:
        distances, labels = faiss.knn(vectors[:5], vectors, 4)
        assert labels[0].tolist() == [0, 393, 363, 78]
        np.testing.assert_allclose(distances[1, 1:], [6.32356453, 6.684581, 6.79994535], rtol=1e-5)

    def test_knn_of_many_queries_gives_what_it_gives_for_each(self, vectors: np.ndarray) -> None:
        for metric in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
            for batch in (16, 1100):
                labels = faiss.knn(vectors[:batch], vectors, 3, metric=metric)[1]
                one = faiss.knn(vectors[batch - 1 : batch], vectors, 3, metric=metric)[1]
                assert labels[-1].tolist() == one[0].tolist()


class TestTiesAndMissingRows:
    def test_equal_inner_products_come_with_the_larger_label_first(self) -> None:
        distances, labels = filled(faiss.IndexFlatIP).search(QUERY, 5)
        assert labels.tolist() == [[4, 3, 1, 0, 2]]
        assert distances.tolist() == [[1, 1, 1, 1, 0]]

    def test_equal_distances_come_with_the_smaller_label_first(self) -> None:
        assert filled(faiss.IndexFlatL2).search(QUERY, 5)[1].tolist() == [[0, 1, 3, 4, 2]]

    @pytest.mark.parametrize(("k", "labels"), [(1, [0]), (2, [1, 0]), (3, [3, 1, 0])])
    def test_of_rows_that_tie_for_the_last_place_the_smaller_labels_stay(self, k: int, labels: list[int]) -> None:
        assert filled(faiss.IndexFlatIP).search(QUERY, k)[1].tolist() == [labels]

    def test_missing_rows_have_label_minus_one_and_the_farthest_float32(self) -> None:
        distances, labels = filled(faiss.IndexFlatIP).search(QUERY, 7)
        assert labels[0, 5:].tolist() == [-1, -1]
        assert distances[0, 5:].tolist() == [-FARTHEST, -FARTHEST]
        assert filled(faiss.IndexFlatL2).search(QUERY, 7)[0][0, 5:].tolist() == [FARTHEST, FARTHEST]
        assert faiss.IndexFlatIP(2).search(QUERY, 1)[1].tolist() == [[-1]]

    def test_squared_distances_are_those_of_float64_rounded_once(self) -> None:
        index = faiss.IndexFlatL2(3)
        index.add(np.array([[0, 3, 4]]))
        assert index.search(np.zeros((1, 3)), 1)[0].tolist() == [[25.0]]


class TestBuffers:
    def test_results_are_written_to_the_callers_arrays(self) -> None:
        distances, labels = np.empty((1, 2), np.float32), np.empty((1, 2), np.int64)
        result = filled(faiss.IndexFlatL2).search(QUERY, 2, D=distances, I=labels)
        assert result[0] is distances
        assert result[1] is labels
        assert labels.tolist() == [[0, 1]]

    def test_a_buffer_of_another_shape_or_dtype_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="D must be a float32 array of shape"):
            filled(faiss.IndexFlatL2).search(QUERY, 2, D=np.empty((1, 3), np.float32))
        with pytest.raises(InvalidInput, match="I must be a int64 array"):
            filled(faiss.IndexFlatL2).search(QUERY, 2, I=np.empty((1, 2), np.int32))


class TestRangeSearch:
    def test_inner_products_strictly_above_and_squared_distances_strictly_below(self) -> None:
        queries = np.array([[1, 0], [0, 1]], np.float32)
        limits, distances, labels = filled(faiss.IndexFlatIP).range_search(queries, 0.5)
        assert (limits.dtype, limits.tolist()) == (np.uint64, [0, 4, 5])
        assert labels.tolist() == [0, 1, 3, 4, 2]
        assert distances.tolist() == [1, 1, 1, 1, 1]
        assert filled(faiss.IndexFlatIP).range_search(queries, 1.0)[0].tolist() == [0, 0, 0]
        assert filled(faiss.IndexFlatL2).range_search(queries, 2.0)[0].tolist() == [0, 4, 5]

    def test_every_row_near_the_bound_is_judged_by_its_exact_score(self) -> None:
        generator = np.random.default_rng(0)
        rows = generator.standard_normal((9000, 8), dtype=np.float32)
        queries = rows[:300] + np.float32(0.01)
        index = faiss.IndexFlatIP(8)
        index.add(rows)
        exact = queries.astype(np.float64) @ rows.T.astype(np.float64)
        bound = float(np.sort(exact.ravel())[-5000])
        limits, distances, labels = index.range_search(queries, bound)
        wanted = exact.astype(np.float32) > np.float32(bound)
        assert np.diff(limits.astype(np.int64)).tolist() == wanted.sum(1).tolist()
        assert np.array_equal(labels, np.nonzero(wanted)[1])
        np.testing.assert_allclose(distances, exact[wanted], rtol=1e-6)

    def test_not_a_number_is_no_bound(self) -> None:
        with pytest.raises(InvalidInput, match="thresh"):
            filled(faiss.IndexFlatIP).range_search(QUERY, float("nan"))


class TestSelectors:
    LABELS = np.arange(8)

    @pytest.mark.parametrize(
        ("selector", "members"),
        [
            (faiss.IDSelectorAll(), [0, 1, 2, 3, 4, 5, 6, 7]),
            (faiss.IDSelectorRange(2, 5), [2, 3, 4]),
            (faiss.IDSelectorRange(-3, 2), [0, 1]),
            (faiss.IDSelectorRange(5, 2), []),
            (faiss.IDSelectorArray([7, -1, 1]), [1, 7]),
            (faiss.IDSelectorBatch(np.array([6, 6, 99])), [6]),
            (faiss.IDSelectorBitmap(np.array([0b00000101], np.uint8)), [0, 2]),
            (faiss.IDSelectorBatch(2, faiss.swig_ptr(np.array([3, 4, 5]))), [3, 4]),
            (faiss.IDSelectorBitmap(1, np.array([0b00000110, 0xFF], np.uint8)), [1, 2]),
            (faiss.PyCallbackIDSelector(lambda label: label % 3 == 0), [0, 3, 6]),
            (faiss.IDSelectorNot(faiss.IDSelectorRange(1, 8)), [0]),
            (faiss.IDSelectorAnd(faiss.IDSelectorRange(0, 4), faiss.IDSelectorRange(2, 8)), [2, 3]),
            (faiss.IDSelectorOr(faiss.IDSelectorArray([0]), faiss.IDSelectorArray([5])), [0, 5]),
            (faiss.IDSelectorXOr(faiss.IDSelectorRange(0, 4), faiss.IDSelectorRange(2, 8)), [0, 1, 4, 5, 6, 7]),
        ],
    )
    def test_members(self, selector: faiss.IDSelector, members: list[int]) -> None:
        assert np.flatnonzero(selector.mask(self.LABELS)).tolist() == members
        assert np.flatnonzero(selector.places(8)).tolist() == members
        assert np.flatnonzero(selector.places(3)).tolist() == [label for label in members if label < 3]
        assert [label for label in range(8) if selector.is_member(label)] == members

    def test_a_search_considers_only_what_is_selected(self) -> None:
        params = faiss.SearchParameters(sel=faiss.IDSelectorRange(0, 2))
        distances, labels = filled(faiss.IndexFlatIP).search(QUERY, 3, params=params)
        assert labels.tolist() == [[1, 0, -1]]
        assert distances.tolist() == [[1, 1, -FARTHEST]]
        assert filled(faiss.IndexFlatIP).range_search(QUERY, 0.5, params=params)[2].tolist() == [0, 1]

    def test_what_is_no_selector_or_no_parameters_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="sel must be an IDSelector"):
            faiss.SearchParameters(sel=[1, 2])
        with pytest.raises(InvalidInput, match="params must be SearchParameters"):
            filled(faiss.IndexFlatIP).search(QUERY, 1, params=faiss.IDSelectorAll())
        with pytest.raises(TypeError):
            faiss.SearchParameters(nprobe=3)
        with pytest.raises(InvalidInput, match="subset must be an array, or a number"):
            faiss.IDSelectorBatch(3, np.arange(2))
        with pytest.raises(InvalidInput, match="is_member must be a function"):
            faiss.PyCallbackIDSelector([1])


class TestRemoving:
    def test_labels_behind_removed_rows_move_up(self) -> None:
        index = filled(faiss.IndexFlatIP)
        assert index.remove_ids(np.array([1, 3, 77])) == 2
        assert index.ntotal == 3
        assert index.search(QUERY, 4)[1].tolist() == [[2, 0, 1, -1]]
        index.add(QUERY * 2)
        assert index.search(QUERY, 1)[1].tolist() == [[3]]
        assert index.reconstruct_n(1, 2).tolist() == [[0, 1], [1, 0]]

    def test_a_selector_says_what_goes(self) -> None:
        index = filled(faiss.IndexFlatL2)
        assert index.remove_ids(faiss.IDSelectorNot(faiss.IDSelectorArray([2]))) == 4
        assert index.search(QUERY, 2)[1].tolist() == [[0, -1]]
        assert index.remove_ids(faiss.IDSelectorRange(5, 9)) == 0

    def test_reset_leaves_an_empty_index(self) -> None:
        index = filled(faiss.IndexFlatIP)
        index.remove_ids(np.array([0]))
        index.reset()
        assert index.ntotal == 0
        index.add(ROWS)
        assert index.search(QUERY, 1)[1].tolist() == [[0]]


class TestReconstructing:
    def test_rows_come_back_as_they_were_given(self) -> None:
        index = filled(faiss.IndexFlatIP)
        assert index.reconstruct(2).tolist() == [0, 1]
        assert index.reconstruct_batch([2, 0]).tolist() == [[0, 1], [1, 0]]
        assert np.array_equal(index.reconstruct_n(), ROWS)

    def test_missing_rows_reconstruct_to_nan(self) -> None:
        _, labels, vectors = filled(faiss.IndexFlatIP).search_and_reconstruct(QUERY, 6)
        assert labels.tolist() == [[4, 3, 1, 0, 2, -1]]
        assert vectors[0, 4].tolist() == [0, 1]
        assert np.isnan(vectors[0, 5]).all()

    @pytest.mark.parametrize("call", [lambda i: i.reconstruct(5), lambda i: i.reconstruct_n(3, 3)])
    def test_a_label_beyond_the_rows_raises_what_faiss_raises(self, call: object) -> None:
        with pytest.raises(RuntimeError, match="not within the 5"):
            call(filled(faiss.IndexFlatIP))  # type: ignore[operator]


class TestIdMaps:
    def test_ids_replace_labels_and_may_repeat(self) -> None:
        index = faiss.IndexIDMap(faiss.IndexFlatL2(2))
        index.add_with_ids(ROWS, np.array([5, 5, 7, 8, 9]))
        distances, ids = index.search(QUERY, 6)
        assert ids.tolist() == [[5, 5, 8, 9, 7, -1]]
        assert distances.tolist() == [[0, 0, 0, 0, 2, FARTHEST]]
        assert index.remove_ids(np.array([5])) == 2
        assert index.search(QUERY, 4)[1].tolist() == [[8, 9, 7, -1]]
        assert faiss.vector_to_array(index.id_map).tolist() == [7, 8, 9]

    def test_selectors_are_about_ids(self) -> None:
        index = faiss.IndexIDMap(faiss.IndexFlatIP(2))
        index.add_with_ids(ROWS, np.array([50, 40, 30, 20, 10]))
        params = faiss.SearchParameters(sel=faiss.IDSelectorRange(25, 45))
        assert index.search(QUERY, 3, params=params)[1].tolist() == [[40, 30, -1]]
        assert index.range_search(QUERY, 0.5, params=params)[2].tolist() == [40]

    def test_the_second_kind_reconstructs_by_id(self) -> None:
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(2))
        index.add_with_ids(ROWS, np.arange(10, 15))
        assert index.reconstruct(12).tolist() == [0, 1]
        assert index.reconstruct_batch([12, 10]).tolist() == [[0, 1], [1, 0]]
        for missing in (1, 99):
            with pytest.raises(RuntimeError, match=f"key {missing} not found"):
                index.reconstruct(missing)
            with pytest.raises(RuntimeError, match=f"key {missing} not found"):
                index.reconstruct_batch([10, missing])

    def test_what_faiss_refuses_is_refused(self) -> None:
        index = faiss.IndexIDMap(faiss.IndexFlatL2(2))
        with pytest.raises(RuntimeError, match="use add_with_ids"):
            index.add(ROWS)
        with pytest.raises(RuntimeError, match="wrap the index in IndexIDMap"):
            faiss.IndexFlatL2(2).add_with_ids(ROWS, np.arange(5))
        with pytest.raises(RuntimeError, match="must be empty"):
            faiss.IndexIDMap(filled(faiss.IndexFlatL2))
        with pytest.raises(RuntimeError, match="not implemented for IndexIDMap"):
            index.reconstruct(7)

    def test_a_wrong_number_of_ids_adds_nothing(self) -> None:
        index = faiss.IndexIDMap(faiss.IndexFlatL2(2))
        with pytest.raises(InvalidInput, match="ids must have 5"):
            index.add_with_ids(ROWS, [1, 2])
        assert index.ntotal == 0


class TestArguments:
    @pytest.mark.parametrize("x", [np.zeros((1, 3)), np.zeros(2), np.zeros((1, 2, 1))])
    def test_a_wrong_shape_raises_what_faiss_raises(self, x: np.ndarray) -> None:
        with pytest.raises(AssertionError, match=r"x must have shape \(n, 2\)"):
            filled(faiss.IndexFlatIP).search(x, 1)

    @pytest.mark.parametrize("k", [0, -1, 1.5])
    def test_k_is_at_least_one(self, k: int) -> None:
        with pytest.raises(AssertionError, match="k must be"):
            filled(faiss.IndexFlatIP).search(QUERY, k)

    def test_not_a_number_is_refused_by_row(self) -> None:
        with pytest.raises(InvalidInput, match="NaN in row 1"):
            faiss.IndexFlatIP(2).add(np.array([[0, 1], [np.nan, 0]]))

    def test_other_metrics_and_unknown_keywords_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="not covered"):
            faiss.IndexFlat(2, faiss.METRIC_L1)
        with pytest.raises(TypeError):
            filled(faiss.IndexFlatIP).search(QUERY, 1, efSearch=3)

    def test_an_index_is_l2_unless_told_otherwise(self) -> None:
        assert faiss.IndexFlat(2).metric_type == faiss.METRIC_L2
        assert faiss.IndexFlat(2, faiss.METRIC_INNER_PRODUCT).metric_type == faiss.IndexFlatIP(2).metric_type


class TestNormalizing:
    def test_rows_get_length_one_in_place_and_zero_rows_stay(self) -> None:
        x = np.array([[3, 4], [0, 0]], np.float32)
        assert faiss.normalize_L2(x) is None
        np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0]], rtol=1e-7)

    @pytest.mark.parametrize("x", [np.ones((2, 2)), np.ones(2, np.float32), np.ones((2, 4), np.float32)[:, ::2]])
    def test_what_cannot_be_changed_in_place_is_refused(self, x: np.ndarray) -> None:
        with pytest.raises(InvalidInput, match="in place"):
            faiss.normalize_L2(x)


def test_the_number_of_threads_is_the_packages() -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    assert faiss.omp_get_max_threads() == 1
    faiss.omp_set_num_threads(before)
