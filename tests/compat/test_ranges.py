"""Range searches of more rows than are searched as they lie: by the index where matches are few, by a full pass elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

import llmrec_fast.compat.faiss as faiss
from llmrec_fast.compat.sklearn import NearestNeighbors

ROWS = np.random.default_rng(0).standard_normal((5000, 12)).astype(np.float32)
# close to many rows, to few, to none
QUERIES = np.array([[0] * 12, [1.5] * 12, [40] * 12], np.float32)


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5])
@pytest.mark.parametrize("euclidean", [False, True])
def test_every_row_in_range_is_found_among_many(euclidean: bool, share: float) -> None:
    rows, queries = ROWS.copy(), np.concatenate([QUERIES, ROWS[:3] * 2])
    rows[100:110] = rows[90]  # ties
    index = (faiss.IndexFlatL2 if euclidean else faiss.IndexFlatIP)(12)
    index.add(rows)
    index.remove_ids(np.arange(0, 400, 2))
    rows = np.delete(rows, np.arange(0, 400, 2), axis=0)
    wide, asked = rows.astype(np.float64), queries.astype(np.float64)
    scores = np.square(asked[:, None] - wide).sum(-1) if euclidean else asked @ wide.T
    scores = scores.astype(np.float32)
    bound = np.quantile(scores[1], share if euclidean else 1 - share)
    for allowed in (np.ones(len(rows), bool), np.arange(len(rows)) % 3 == 1):
        params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.flatnonzero(allowed)))
        limits, distances, labels = index.range_search(queries, float(bound), params=params)
        for query in range(len(queries)):
            passed = (scores[query] < bound if euclidean else scores[query] > bound) & allowed
            own = slice(int(limits[query]), int(limits[query + 1]))
            assert labels[own].tolist() == np.flatnonzero(passed).tolist()
            np.testing.assert_allclose(distances[own], scores[query][passed], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("metric", "radius"), [("cosine", 0.2), ("cosine", 1.1), ("euclidean", 2.0), ("euclidean", 4.5)]
)
def test_every_row_within_a_radius_is_found_among_many(metric: str, radius: float, dtype: type) -> None:
    rows, queries = ROWS.astype(dtype), np.concatenate([QUERIES[1:], ROWS[:4] * 2]).astype(dtype)
    found = NearestNeighbors(metric=metric).fit(rows).radius_neighbors(queries, radius)
    wanted = pairwise_distances(queries.astype(np.float64), rows.astype(np.float64), metric=metric)
    for own, labels, distances in zip(wanted, found[1], found[0], strict=True):
        assert sorted(labels.tolist()) == np.flatnonzero(own <= radius).tolist()
        np.testing.assert_allclose(distances, own[labels], rtol=1e-9, atol=1e-9)
