"""Metrics against the oracle on arbitrary small cases, and against figures that other tools gave for one fixed case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def expected_per_user(metric, k, recommended, relevant, counts, vectors):
    values = []
    for row, wanted in zip(recommended, relevant, strict=True):
        if metric in oracle.ACCURACY:
            values.append(oracle.ACCURACY[metric](row, wanted, k) if wanted else np.nan)
        elif metric == "serendipity":
            values.append(oracle.serendipity(row, wanted, k, counts) if wanted else np.nan)
        elif metric == "diversity":
            values.append(oracle.diversity(row, k, vectors))
        else:
            values.append(
                {"novelty": oracle.novelty, "average_popularity": oracle.average_popularity}[metric](row, k, counts)
            )
    return values


@settings(max_examples=300)
@given(cases(), st.integers(1, 9), st.integers(1, 9))
def test_every_metric_equals_its_definition(case, first_k, second_k):
    recommended, relevant, counts, vectors = case
    names = [f"{metric}@{k}" for metric in METRICS for k in (first_k, second_k)]
    array = np.array(recommended, dtype=np.int64).reshape(len(recommended), -1)
    results = evaluate(array, relevant, names, item_counts=counts, item_vectors=vectors)
    single = [name for name in names if not name.startswith(("coverage", "gini"))]
    per_user = evaluate_per_user(array, relevant, single, item_counts=counts, item_vectors=vectors)
    assert list(results) == list(dict.fromkeys(names))
    for name in names:
        metric, k = name.split("@")
        if metric in ("coverage", "gini"):
            expected = getattr(oracle, metric)(recommended, int(k), N_ITEMS)
        else:
            users = expected_per_user(metric, int(k), recommended, relevant, counts, vectors)
            np.testing.assert_allclose(per_user[name], users, rtol=0, atol=1e-12, err_msg=name)
            expected = oracle.mean(users)
        np.testing.assert_allclose(results[name], expected, rtol=0, atol=1e-12, err_msg=name)


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
    catalogue = {"item_counts": generator.integers(0, 99, 60), "item_vectors": generator.normal(size=(60, 5))}
    results = []
    try:
        for count in (1, 2, 7):
            threads.set_threads(count)
            results.append(evaluate(recommended, relevant, names, **catalogue))
    finally:
        threads.set_threads(None)
    assert results[0] == results[1] == results[2]
