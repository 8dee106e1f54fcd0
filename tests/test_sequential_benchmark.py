"""The columns that the suite `sequential` gives its trees, and how it reorders, against counts by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import sequential
from benchmarks.sequential import figures, reordered
from benchmarks.sequential_data import Catalogue, Rows
from benchmarks.sequential_pairs import pair_columns
from llmrec_fast.features import nearest_items
from llmrec_fast.ranking.trees import TreeSettings

COUNT = 6


@pytest.fixture
def world():
    vectors = np.random.default_rng(0).standard_normal((COUNT, 4)).astype(np.float32)
    vectors[5] = 0  # an item without a text
    catalogue = Catalogue({"title": vectors}, nearest_items(vectors, 2))
    train = Rows(np.array([0, 2, 3]), np.array([0, 1, 2]), np.array([2, 3]), np.array([0, 1]))
    asked = Rows(np.array([0, 4, 5]), np.array([1, 0, 1, 2, 5]), np.array([3, 0]), np.array([2, 3]))
    return catalogue, train, asked


def test_columns_are_what_their_names_say(world):
    catalogue, train, asked = world
    candidates = np.array([[0, 1, 2, 3], [5, 0, 3, 2]])
    score = np.arange(COUNT, dtype=np.float32)
    columns, names = pair_columns({"score": score}, train, asked, catalogue, candidates)
    found = dict(zip(names, np.moveaxis(columns, -1, 0), strict=True))
    np.testing.assert_array_equal(found["score"], candidates)
    np.testing.assert_array_equal(found["places since bought"], [[2, 1, 0, 99], [0, 99, 99, 99]])
    np.testing.assert_array_equal(found["length"], [[4] * 4, [1] * 4])
    unit = catalogue.texts["title"] / np.maximum(np.linalg.norm(catalogue.texts["title"], axis=1), 1e-9)[:, None]
    np.testing.assert_allclose(found["title of the latest"][0], unit[2] @ unit[candidates[0]].T, atol=1e-6)
    nearest = (unit[[1, 0, 1, 2]] @ unit[candidates[0]].T).max(axis=0)
    np.testing.assert_allclose(found["title of the nearest"][0], nearest, atol=1e-6)
    assert not found["title of the latest"][1].any()
    # 3 followed 2 at once in the one training sequence that holds it
    assert found["directly next"][0].argmax() == 3
    # 2 was bought twice, once as the last
    np.testing.assert_allclose(found["share of last"][0, 2], 1.5 / 4.5, rtol=1e-6)


def test_a_score_of_items_alone_counts_for_every_row():
    scores = {"title": np.array([[1, 2], [3, 4]], np.float32), "popularity": np.array([10, 0], np.float32)}
    np.testing.assert_array_equal(sequential.weighted_sum(scores, {"title": 1.0, "popularity": 0.5}), [[6, 2], [8, 4]])


def test_candidates_come_first_in_their_new_order():
    scores = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    order = np.argsort(-reordered(scores, np.array([[1, 0, 2]]), np.array([[-3.0, -4.0, -1.0]])), axis=1)
    np.testing.assert_array_equal(order, [[2, 1, 0, 3, 4, 5]])
    assert figures(scores, np.array([0])) == {"hit_rate@10": 1.0, "ndcg@10": 1.0}


def test_trees_are_grown_across_users_and_reorder_what_the_sum_found(monkeypatch):
    pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))
    monkeypatch.setattr(sequential, "CANDIDATES", 5)
    monkeypatch.setattr(sequential, "TREES", TreeSettings(rounds=5, least_in_leaf=2))
    rng = np.random.default_rng(0)
    count, rows = 9, 60
    vectors = {name: rng.standard_normal((count, 4)).astype(np.float32) for name in ("title", "text", "brand")}
    catalogue = Catalogue(vectors, nearest_items(vectors["title"], 2))
    items = rng.integers(0, count, 2 * rows)
    # what follows is the item after the latest one
    asked = Rows(2 * np.arange(rows + 1), items, (items[1::2] + 1) % count, np.arange(rows) // 2)
    weights = {"title": 1.0, "popularity": 0.1, "next": 0.1}
    arguments = SimpleNamespace(quick=True, threads=1)
    trees, crossed = sequential._reordered_across(asked, catalogue, 1.0, weights, arguments)
    assert len(trees) == 1
    assert crossed["reordered by trees"]["ndcg@10"] > crossed["all"]["ndcg@10"]
