"""The columns that the suite `sequential` gives its trees, and how it reorders, against counts by hand."""

import numpy as np
import pytest

from benchmarks.sequential import figures, reordered
from benchmarks.sequential_data import Catalogue, Rows
from benchmarks.sequential_pairs import pair_columns
from llmrec_fast.features import nearest_items

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


def test_candidates_come_first_in_their_new_order():
    scores = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    order = np.argsort(-reordered(scores, np.array([[1, 0, 2]]), np.array([[-3.0, -4.0, -1.0]])), axis=1)
    np.testing.assert_array_equal(order, [[2, 1, 0, 3, 4, 5]])
    assert figures(scores, np.array([0])) == {"hit_rate@10": 1.0, "ndcg@10": 1.0}
