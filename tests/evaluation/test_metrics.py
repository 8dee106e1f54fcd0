"""Metrics against the oracle on arbitrary small cases, and against figures that other tools gave for one fixed case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import METRICS, evaluate, evaluate_per_user
from tests.evaluation import oracle

N_ITEMS = 9

RECOMMENDED = [[4, 1, 9, 0, 7], [2, 3, 5, 8, 6], [1, 0, -1, -1, -1], [6, 7, 8, 9, 5]]
RELEVANT = [[9, 1, 3], [2, 3, 5, 8, 6, 4, 0], [5], [5, 6]]
COUNTS = [5, 3, 0, 2, 2, 1, 9, 4, 1, 3]
VECTORS = [[np.cos(item), np.sin(item)] for item in range(10)]


@st.composite
def cases(draw):
    """Recommended rows (ids may repeat), relevant ids (may repeat, may be none), counts and vectors (may be zero)."""
    items = st.integers(0, N_ITEMS - 1)
    users, width = draw(st.integers(1, 5)), draw(st.integers(0, 7))
    rows = [draw(st.lists(items, max_size=width)) for _ in range(users)]
    recommended = [row + [-1] * (width - len(row)) for row in rows]
    relevant = [draw(st.lists(items, max_size=6)) for _ in range(users)]
    relevant[draw(st.integers(0, users - 1))].append(draw(items))
    counts = draw(st.lists(st.integers(0, 4), min_size=N_ITEMS, max_size=N_ITEMS))
    coordinate = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])
    vectors = [draw(st.tuples(coordinate, coordinate, coordinate)) for _ in range(N_ITEMS)]
    return recommended, relevant, counts, vectors


def expected_per_user(metric, k, recommended, relevant, histories, counts, vectors):
    values = []
    for row, wanted, history in zip(recommended, relevant, histories, strict=True):
        if metric == "auc":
            values.append(auc_of_repeated(row, wanted, k) if wanted else np.nan)
        elif metric in oracle.ACCURACY:
            values.append(oracle.ACCURACY[metric](row, wanted, k) if wanted else np.nan)
        elif metric == "serendipity":
            values.append(oracle.serendipity(row, wanted, k, counts) if wanted else np.nan)
        elif metric == "calibration_error":
            values.append(oracle.calibration_error(row, history, k, np.abs(vectors).tolist()))
        elif metric == "diversity":
            values.append(oracle.diversity(row, k, vectors))
        else:
            values.append(
                {"novelty": oracle.novelty, "average_popularity": oracle.average_popularity}[metric](row, k, counts)
            )
    return values


def auc_of_repeated(row, wanted, k):
    """The oracle counts pairs of different items, so it is asked only about lists without repetition."""
    shown = oracle.shown(row, k)
    return oracle.auc(row, wanted, k, N_ITEMS) if len(set(shown)) == len(shown) else None


OVERALL = (*oracle.OVERALL, "popularity_lift")


@settings(max_examples=120, deadline=None)
@given(cases(), st.integers(1, 9), st.integers(1, 9))
def test_every_metric_equals_its_definition(case, first_k, second_k):
    recommended, relevant, counts, vectors = case
    histories = relevant[::-1]
    names = [f"{metric}@{k}" for metric in METRICS for k in (first_k, second_k)]
    array = np.array(recommended, dtype=np.int64).reshape(len(recommended), -1)
    known = {
        "item_counts": counts,
        "item_vectors": vectors,
        "item_categories": np.abs(vectors),
        "histories": histories,
    }
    results = evaluate(array, relevant, names, **known)
    single = [name for name in names if name.split("@")[0] not in OVERALL]
    per_user = evaluate_per_user(array, relevant, single, **known)
    assert list(results) == list(dict.fromkeys(names))
    for name in names:
        metric, k = name.split("@")
        if metric in oracle.OVERALL:
            expected = oracle.OVERALL[metric](recommended, int(k), N_ITEMS)
        elif metric == "popularity_lift":
            expected = oracle.popularity_lift(recommended, histories, int(k), counts)
        else:
            users = expected_per_user(metric, int(k), recommended, relevant, histories, counts, vectors)
            if None in users:
                assert 0 <= results[name] <= 1
                continue
            np.testing.assert_allclose(per_user[name], users, rtol=0, atol=1e-12, err_msg=name)
            expected = oracle.mean(users)
        np.testing.assert_allclose(results[name], expected, rtol=0, atol=1e-12, err_msg=name)


@settings(max_examples=120, deadline=None)
@given(cases(), st.data(), st.integers(1, 9))
def test_graded_relevance_equals_its_definition(case, data, k):
    recommended, relevant, _, _ = case
    grade = st.sampled_from([-1, 0, 1, 2, 3, 0.5])
    gains = [data.draw(st.lists(grade, min_size=len(ids), max_size=len(ids))) for ids in relevant]
    largest = []
    for ids, values in zip(relevant, gains, strict=True):
        largest.append({})
        for item, gain in zip(ids, values, strict=True):
            largest[-1][item] = max(gain, largest[-1].get(item, gain))
    positive = [[item for item, gain in judged.items() if gain > 0] for judged in largest]
    array = np.array(recommended, dtype=np.int64).reshape(len(recommended), -1)
    names = [f"{name}@{k}" for name in ("ndcg", "ndcg_exponential", "recall", "map")]
    if not any(positive):
        with pytest.raises(InvalidInput, match="needs a user with relevant ids"):
            evaluate_per_user(array, relevant, names, gains=gains)
        return
    found = evaluate_per_user(array, relevant, names, gains=gains)
    for name, expected in zip(names[:2], (oracle.graded_ndcg, oracle.ndcg_exponential), strict=True):
        users = [
            expected(row, judged, k) if wanted else np.nan
            for row, judged, wanted in zip(recommended, largest, positive, strict=True)
        ]
        np.testing.assert_allclose(found[name], users, rtol=0, atol=1e-12, err_msg=name)
    binary = evaluate_per_user(array, positive, names[2:])
    for name in names[2:]:
        np.testing.assert_array_equal(found[name], binary[name])


@settings(max_examples=100, deadline=None)
@given(cases())
def test_bounds_and_what_grows_with_k(case):
    recommended, relevant, counts, vectors = case
    array = np.array(recommended, dtype=np.int64).reshape(len(recommended), -1)
    bounded = [*oracle.ACCURACY, "auc", "serendipity", "coverage", "gini", "user_coverage"]
    growing = ("recall", "hit_rate", "map", "mrr", "coverage")
    names = [f"{metric}@{k}" for metric in bounded for k in range(1, 9)]
    found = evaluate(array, relevant, names, item_counts=counts, item_vectors=vectors)
    for name, value in found.items():
        assert np.isnan(value) or -1e-12 <= value <= 1 + 1e-12, name
    for metric in growing:
        values = [found[f"{metric}@{k}"] for k in range(1, 9)]
        assert values == sorted(values), metric
    shrinking = [found[f"user_coverage@{k}"] for k in range(1, 9)]
    assert shrinking == sorted(shrinking, reverse=True)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True), st.integers(1, 9))
def test_the_ideal_order_of_graded_items_has_an_ndcg_of_one(items, k):
    gains = [3.0 - item / 4 for item in items]
    best = sorted(items)
    found = evaluate([best], [items], [f"ndcg@{k}", f"ndcg_exponential@{k}"], gains=[gains])
    assert list(found.values()) == pytest.approx([1.0, 1.0])


def test_calibration_error_of_known_lists():
    """The same shares err by 0; a user who knew one category and is shown another errs by ln 100."""
    films = [[1, 0], [0, 1], [2, 2], [0, 0]]
    found = evaluate_per_user(
        [[0, 1], [2, -1], [1, 1], [3, -1]],
        [[0]] * 4,
        ["calibration_error@2"],
        item_categories=films,
        histories=[[2, 3], [0, 1], [0], [0]],
    )
    np.testing.assert_allclose(found["calibration_error@2"], [0, 0, np.log(100), np.nan], atol=1e-12)


def test_auc_equals_implicit():
    """Figures of implicit 0.7.3, `ranking_metrics_at_k`: six items, two of them relevant."""
    found = evaluate([[4, 1, 0, 3, 2]], [[1, 2]], ["auc@1", "auc@2", "auc@3", "auc@5"], n_items=6)
    assert found == {"auc@1": 0.375, "auc@2": 0.5625, "auc@3": 0.5, "auc@5": 0.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision@2", 0.5),
        ("recall@2", 0.279761904762),
        ("ndcg@2", 0.5),
        ("map@2", 0.238095238095),
        ("hit_rate@2", 0.75),
        ("mrr@2", 0.625),
        ("precision@5", 0.45),
        ("recall@5", 0.595238095238),
        ("ndcg@5", 0.595266544878),
        ("map@5", 0.450793650794),
        ("hit_rate@5", 0.75),
        ("mrr@5", 0.625),
    ],
)
def test_accuracy_equals_pytrec_eval(name, value):
    """Figures of pytrec_eval-terrier 0.5.11: P, recall, ndcg_cut, map_cut, success, and recip_rank of the cut run."""
    assert evaluate(RECOMMENDED, RELEVANT, [name])[name] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("f1@2", 0.336111111111),
        ("r_precision@2", 0.5),
        ("coverage@2", 0.7),
        ("average_popularity@2", 3.5),
        ("novelty@2", 1.587202739221 + np.log2(30 / 9)),
        ("serendipity@2", 0.1875),
        ("diversity@2", 0.842271394749),
        ("f1@5", 0.47619047619),
        ("r_precision@5", 0.666666666667),
        ("coverage@5", 1.0),
        ("average_popularity@5", 3.4),
        ("novelty@5", 1.710730396994 + np.log2(30 / 9)),
        ("serendipity@5", 0.11),
        ("diversity@5", 1.000442081386),
    ],
)
def test_beyond_accuracy_equals_rectools(name, value):
    """Figures of RecTools 0.19.0; its novelty divides the counts by 9 users where ours divides by 30 interactions."""
    result = evaluate(RECOMMENDED, RELEVANT, [name], item_counts=COUNTS, item_vectors=VECTORS)
    # vectors are float32, which leaves some 1e-8 of the distances
    assert result[name] == pytest.approx(value, abs=1e-7 if name.startswith("diversity") else 1e-12)


def test_gini_of_known_distributions():
    assert evaluate([[0, 1], [2, 3]], [[0], [1]], ["gini@2"], n_items=4)["gini@2"] == pytest.approx(0.0)
    assert evaluate([[0, -1], [0, -1]], [[0], [1]], ["gini@2"], n_items=4)["gini@2"] == pytest.approx(3 / 4)


def test_metrics_do_not_depend_on_the_number_of_threads():
    from llmrec_fast.kernels import threads

    generator = np.random.default_rng(5)
    recommended = np.argsort(generator.random((3000, 60)), axis=1)[:, :40]
    relevant = [generator.integers(0, 60, generator.integers(0, 9)) for _ in range(3000)]
    names = [f"{metric}@{k}" for metric in METRICS for k in (5, 40)]
    catalogue = {
        "item_counts": generator.integers(0, 99, 60),
        "item_vectors": generator.normal(size=(60, 5)),
        "item_categories": generator.random((60, 4)),
        "histories": relevant[::-1],
    }
    results = []
    try:
        for count in (1, 2, 7):
            threads.set_threads(count)
            results.append(evaluate(recommended, relevant, names, **catalogue))
    finally:
        threads.set_threads(None)
    assert results[0] == results[1] == results[2]
