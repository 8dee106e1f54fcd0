"""The rules that all metrics share, the forms that arguments take, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import METRICS, evaluate, evaluate_per_user

RECOMMENDED = np.array([[7, 3, 9], [4, 7, -1], [3, 5, 4]])
RELEVANT = [[3], [4, 5], [5, 8, 4]]


def test_one_call_gives_each_metric_under_its_name():
    result = evaluate(RECOMMENDED, RELEVANT, ["recall@2", "precision@3", "recall@3"])
    assert result == {
        "recall@2": pytest.approx(11 / 18),
        "precision@3": pytest.approx(4 / 9),
        "recall@3": pytest.approx(13 / 18),
    }


@pytest.mark.parametrize(
    "relevant",
    [
        RELEVANT,
        [np.array(ids, dtype=np.int32) for ids in RELEVANT],
        (np.array([0, 1, 3, 6]), np.array([3, 4, 5, 5, 8, 4])),
        ([0, 1, 3, 6], [3, 4, 5, 5, 8, 4]),
        {0: [3], 1: np.array([4, 5]), 2: (5, 8, 4)},
        {np.int64(2): [5, 8, 4], 1: [4, 5], 0: [3]},
        [[3, 3], [5, 4, 5, 4], [8, 5, 4, 4, 8]],
        [np.array([3], dtype=np.uint64), np.array([4, 5]), [5, 8, 4]],
    ],
    ids=["lists", "arrays", "csr", "csr lists", "dict", "dict unordered", "repeated", "mixed dtypes"],
)
def test_relevant_may_come_in_several_forms(relevant):
    names = ["ndcg@3", "map@3", "recall@2"]
    assert evaluate(RECOMMENDED, relevant, names) == evaluate(RECOMMENDED, RELEVANT, names)


def test_a_csr_pair_is_left_as_it_was():
    indptr, ids = np.array([0, 2, 2, 4]), np.array([9, 7, 4, 3])
    evaluate(RECOMMENDED, (indptr, ids), ["recall@3"])
    np.testing.assert_array_equal(ids, [9, 7, 4, 3])
    single = [np.array([9, 7, 3])]
    evaluate(RECOMMENDED[:1], single, ["recall@3"])
    np.testing.assert_array_equal(single[0], [9, 7, 3])


def test_read_only_and_strided_arrays_are_accepted():
    wide = np.repeat(RECOMMENDED, 2, axis=1)[:, ::2]
    ids = np.array([3, 4, 5, 5, 8, 4])
    ids.flags.writeable = False
    assert evaluate(wide, ([0, 1, 3, 6], ids), ["map@3"]) == evaluate(RECOMMENDED, RELEVANT, ["map@3"])


def test_a_list_that_is_shorter_than_k_counts_as_filled_up_with_misses():
    narrow = evaluate([[7, 3]], [[3, 7, 9]], ["precision@10", "ndcg@10", "coverage@10"], n_items=4)
    padded = evaluate([[7, 3] + [-1] * 8], [[3, 7, 9]], ["precision@10", "ndcg@10", "coverage@10"], n_items=4)
    assert narrow == padded
    assert narrow["precision@10"] == pytest.approx(0.2)
    assert narrow["coverage@10"] == pytest.approx(0.5)


def test_an_id_that_a_row_repeats_hits_once_at_its_first_rank():
    result = evaluate([[3, 3, 3, 9]], [[3, 9]], ["precision@3", "precision@4", "map@4", "recall@4"])
    assert result == {
        "precision@3": pytest.approx(1 / 3),
        "precision@4": pytest.approx(2 / 4),
        "map@4": pytest.approx((1 + 2 / 4) / 2),
        "recall@4": pytest.approx(1.0),
    }


def test_users_without_relevant_ids_are_left_out_and_users_without_recommendations_count_zero():
    recommended = [[1, 2], [1, 2], [-1, -1]]
    relevant = [[1], [], [1]]
    result = evaluate(recommended, relevant, ["recall@2", "coverage@2", "average_popularity@2"], item_counts=[9, 3, 5])
    assert result == {"recall@2": 0.5, "coverage@2": pytest.approx(2 / 3), "average_popularity@2": 4.0}
    per_user = evaluate_per_user(recommended, relevant, ["recall@2", "average_popularity@2"], item_counts=[9, 3, 5])
    np.testing.assert_array_equal(per_user["recall@2"], [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(per_user["average_popularity@2"], [4.0, 4.0, np.nan])


def test_nothing_recommended_at_all():
    names = ["recall@2", "coverage@2", "gini@2", "novelty@2", "diversity@2"]
    result = evaluate([[-1, -1]], [[1]], names, item_counts=[1, 2], item_vectors=[[1.0], [2.0]])
    assert (result["recall@2"], result["coverage@2"]) == (0.0, 0.0)
    assert all(math.isnan(result[name]) for name in names[2:])


def test_metrics_of_lists_alone_need_no_relevant_ids():
    assert evaluate([[1, 2]], [[]], ["coverage@2"], n_items=4) == {"coverage@2": 0.5}
    with pytest.raises(InvalidInput, match="recall@2 needs a user with relevant ids"):
        evaluate([[1, 2]], [[]], ["coverage@2", "recall@2"], n_items=4)


@given(st.permutations(range(3)), st.integers(-(2**62), 2**62), st.sampled_from([1, 3, -7, 2**40]))
def test_the_mean_depends_neither_on_the_order_of_users_nor_on_what_ids_are(order, shift, factor):
    def renamed(ids):
        return [((int(i) * factor + shift) % (2**63)) if i != -1 else -1 for i in ids]

    names = ["ndcg@3", "map@2", "mrr@3", "coverage@3"]
    before = evaluate(RECOMMENDED, RELEVANT, names, n_items=10)
    after = evaluate([renamed(RECOMMENDED[u]) for u in order], [renamed(RELEVANT[u]) for u in order], names, n_items=10)
    assert after == pytest.approx(before)


def test_negative_ids_other_than_the_padding_are_ids():
    assert evaluate([[-5, 2]], [[-5]], ["mrr@2", "coverage@1"], n_items=2) == {"mrr@2": 1.0, "coverage@1": 0.5}


def test_item_ids_say_which_row_of_the_catalogue_an_id_is():
    names = ["novelty@3", "average_popularity@2", "serendipity@3", "diversity@3", "coverage@3"]
    counts, vectors = np.array([4, 0, 2, 7, 1]), np.random.default_rng(1).normal(size=(5, 3))
    by_position = evaluate([[0, 3, 4], [2, 1, -1]], [[3], [2]], names, item_counts=counts, item_vectors=vectors)
    ids = np.array([50, 10, 90, -3, 2])
    by_id = evaluate(
        [[50, -3, 2], [90, 10, -1]], [[-3], [90]], names, item_counts=counts, item_vectors=vectors, item_ids=ids
    )
    assert by_id == pytest.approx(by_position)


def test_a_large_spread_of_ids_needs_no_large_memory():
    recommended = np.array([[0, 2**62], [-(2**62), 0]])
    assert evaluate(recommended, [[0], [0]], ["coverage@2"], n_items=6) == {"coverage@2": 0.5}


GAINS = [[2.0], [1.0, 3.0], [1.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("relevant", "gains"),
    [
        (RELEVANT, [np.array(values) for values in GAINS]),
        (([0, 1, 3, 6], [3, 4, 5, 5, 8, 4]), [2, 1, 3, 1, 1, 2]),
        ({0: [3], 1: [4, 5], 2: [5, 8, 4]}, {2: [1, 1, 2], 0: [2], 1: [1, 3]}),
        ([[3, 3], [5, 4], [8, 5, 4, 7]], [[1, 2], [3, 1], [1, 1, 2, 0]]),
    ],
    ids=["lists", "csr", "dicts", "the larger of two, and a zero"],
)
def test_gains_take_the_form_of_relevant(relevant, gains):
    names = ["ndcg@3", "ndcg_exponential@2", "recall@3"]
    wanted = evaluate(RECOMMENDED, RELEVANT, names, gains=GAINS)
    assert evaluate(RECOMMENDED, relevant, names, gains=gains) == wanted
    assert wanted["ndcg@3"] != evaluate(RECOMMENDED, RELEVANT, names)["ndcg@3"]


def test_gains_are_left_as_they_were():
    gains = np.array([1.0, 0.0, 3.0, 2.0])
    evaluate([[1, 2]], ([0, 4], np.array([9, 2, 2, 1])), ["ndcg@2"], gains=gains)
    assert gains.tolist() == [1.0, 0.0, 3.0, 2.0]


def test_a_user_whose_gains_are_all_zero_has_nothing_relevant():
    found = evaluate_per_user([[1, 2], [1, 2]], [[1], [2]], ["recall@2", "ndcg@2"], gains=[[0.0], [1.0]])
    np.testing.assert_array_equal(found["recall@2"], [np.nan, 1.0])
    assert np.isnan(found["ndcg@2"][0])


@pytest.mark.parametrize(
    ("relevant", "gains", "message"),
    [
        (RELEVANT, [[1], [2], [3, 4, 5]], r"gains\[1\] must have 2 values; got 1"),
        (RELEVANT, [[1], [2, 3]], "one array of numbers for each of 3 users"),
        (RELEVANT, {0: [1]}, "only there"),
        ({0: [3]}, [[1]], "where relevant is a dict"),
        ({0: [3]}, {1: [1]}, "with the keys of relevant"),
        (([0, 1, 3, 6], [3, 4, 5, 5, 8, 4]), [1, 2], "gains must have 6 values; got 2"),
        (RELEVANT, [[1], [2, np.nan], [3, 4, 5]], r"gains\[1\] holds NaN in row 1"),
        (RELEVANT, [[1], ["a", "b"], [3, 4, 5]], "real numbers"),
        (RELEVANT, [[1], [2, 501], [3, 4, 5]], "gains up to 501 are too large"),
    ],
)
def test_gains_are_checked(relevant, gains, message):
    with pytest.raises(InvalidInput, match=message):
        evaluate(RECOMMENDED, relevant, ["ndcg_exponential@2"], gains=gains)


def test_popularity_lift_compares_with_what_users_knew():
    counts = [8, 4, 2, 1]
    found = evaluate([[0, 1], [0, -1]], [[0], [0]], ["popularity_lift@2"], item_counts=counts, histories=[[2, 2], [1]])
    assert found["popularity_lift@2"] == pytest.approx((6 + 8) / (2 + 4) - 1)
    with pytest.raises(InvalidInput, match="histories must have one array of ids for each of 2 users; got 1"):
        evaluate([[0], [1]], [[0], [0]], ["popularity_lift@1"], item_counts=counts, histories=[[1]])
    with pytest.raises(InvalidInput, match="popularity_lift@1 needs histories="):
        evaluate([[0]], [[0]], ["popularity_lift@1"], item_counts=counts)
    with pytest.raises(InvalidInput, match="histories holds the id 9"):
        evaluate([[0]], [[0]], ["popularity_lift@1"], item_counts=counts, histories=[[9]])


def test_auc_refuses_more_relevant_ids_than_items():
    with pytest.raises(InvalidInput, match="relevant holds 3 different ids for user 0, but n_items is 2"):
        evaluate([[0, 1]], [[0, 1, 2]], ["auc@2"], n_items=2)


@pytest.mark.parametrize(
    "name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@ten", "NDCG@10", "dcg@10", "ndcg@10 ", ""]
)
def test_an_unknown_metric_lists_the_known_ones(name):
    with pytest.raises(InvalidInput, match=f"(?s)unknown metric {name!r}.*{', '.join(METRICS)}"):
        evaluate(RECOMMENDED, RELEVANT, ["recall@2", name])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [([], "names none"), ("ndcg@10", "not a single string"), ([10], r"metrics\[0\] must be a string")],
)
def test_metrics_are_a_list_of_names(metrics, message):
    with pytest.raises(InvalidInput, match=message):
        evaluate(RECOMMENDED, RELEVANT, metrics)


@pytest.mark.parametrize(
    ("metric", "need"),
    [
        ("auc", "n_items"),
        ("coverage", "n_items"),
        ("gini", "n_items"),
        ("entropy", "n_items"),
        ("popularity_lift", "item_counts"),
        ("calibration_error", "item_categories"),
        ("novelty", "item_counts"),
        ("average_popularity", "item_counts"),
        ("serendipity", "item_counts"),
        ("diversity", "item_vectors"),
    ],
)
def test_what_a_metric_needs_is_asked_for(metric, need):
    with pytest.raises(InvalidInput, match=f"{metric}@5 needs {need}="):
        evaluate(RECOMMENDED, RELEVANT, [f"{metric}@5"])


@pytest.mark.parametrize("metric", ["coverage", "gini", "entropy", "user_coverage", "popularity_lift"])
def test_metrics_of_all_lists_have_no_value_for_a_user(metric):
    with pytest.raises(InvalidInput, match=f"{metric} is a property of all lists together"):
        evaluate_per_user(RECOMMENDED, RELEVANT, [f"{metric}@5"], n_items=10)


@pytest.mark.parametrize(
    ("recommended", "message"),
    [
        ([1, 2, 3], r"two dimensions \(users, k\); got shape \(3,\)"),
        ([[1.0, 2.0]] * 3, "integers; got dtype float64"),
        (np.empty((0, 3), dtype=int), "no rows"),
        ([[1, 2], [3, -1], [-1, 4]], "id after the padding -1 in row 2"),
        (np.full((3, 2), 2**63, dtype=np.uint64), "does not fit in int64"),
    ],
)
def test_recommended_is_checked(recommended, message):
    with pytest.raises(InvalidInput, match=message):
        evaluate(recommended, RELEVANT, ["recall@1"])


@pytest.mark.parametrize(
    ("relevant", "message"),
    [
        ([[1], [2]], "one array of ids for each of 3 users; got 2"),
        ([[1], [2], [3.5]], r"relevant\[2\] must be integers; got dtype float64"),
        ([[1], [2], [[3]]], r"relevant\[2\] must be one array of ids; got shape \(1, 1\)"),
        ([[1], [2], ["a"]], r"relevant\[2\] must be integers"),
        ([[1], [2, -1], [3]], "the id -1 for user 1"),
        ([[1], [2], np.array([2**63], dtype=np.uint64)], "does not fit in int64"),
        ({0: [1], 3: [2]}, "row numbers of recommended, 0 to 2; got 3"),
        ({"a": [1]}, "row numbers of recommended, 0 to 2; got 'a'"),
        ({True: [1]}, "row numbers of recommended, 0 to 2; got True"),
        (([0, 1], [1]), "indptr must have 4 entries, one more than users; got 2"),
        (([0, 1, 2, 4], [1, 2, 3]), "rise from 0 to the number of ids, 3"),
        (([1, 1, 2, 3], [1, 2, 3]), "rise from 0 to the number of ids, 3"),
        (([0, 2, 1, 3], [1, 2, 3]), "never fall"),
        (([0, 1, 2, 3], [1.0, 2.0, 3.0]), "relevant's ids must be integers"),
        (([1], [2], [3]), "as a tuple must be"),
        ("abc", r"relevant\[0\] must be one array of ids"),
        (7, "must be a list of id arrays, a tuple"),
        (None, "must be a list of id arrays, a tuple"),
    ],
)
def test_relevant_is_checked(relevant, message):
    with pytest.raises(InvalidInput, match=message):
        evaluate(RECOMMENDED, relevant, ["recall@1"])


@pytest.mark.parametrize(
    ("catalogue", "message"),
    [
        ({"n_items": 0}, "n_items must be at least 1"),
        ({"n_items": 2.5}, "n_items must be an integer"),
        ({"n_items": 4}, "holds 5 different ids, but n_items is 4"),
        ({"item_counts": []}, "the catalogue is empty"),
        ({"item_counts": [1.5] * 10}, "item_counts must be integers"),
        ({"item_counts": [1, -2] * 5}, "must not be negative; got -2 at 1"),
        ({"n_items": 9, "item_counts": [1] * 10}, "must be of one length"),
        ({"item_counts": [1] * 9}, "the id 9, but without item_ids an id is a position in the catalogue, 0 to 8"),
        ({"item_counts": [1] * 6, "item_ids": [7, 3, 9, 4, 5, 5]}, "must not repeat"),
        ({"item_counts": [1] * 5, "item_ids": [7, 3, 9, 4, 8]}, "the id 5, which item_ids does not have"),
        ({"item_categories": [[1.0, 0.0], [1.0, -2.0]] * 5}, "item_categories must not be negative; got -2 in row 1"),
        ({"item_vectors": [[1.0], [np.nan]] * 5}, "item_vectors holds NaN in row 1"),
        ({"item_vectors": [1.0] * 10}, "item_vectors must have two dimensions"),
    ],
)
def test_the_catalogue_is_checked(catalogue, message):
    names = ["coverage@3", *(["novelty@3"] if "item_counts" in catalogue else [])]
    with pytest.raises(InvalidInput, match=message):
        evaluate(RECOMMENDED, RELEVANT, names, **catalogue)
