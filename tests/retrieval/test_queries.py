"""What becomes of queries before a search, and of positions after it."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast import Index
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.cpu.positions import take_ids
from llmrec_fast.retrieval.searching import normalised, read_queries


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_the_first_query_that_is_not_finite_is_named(metric: str, bad: float) -> None:
    index = Index.build(np.eye(4, dtype=np.float32), metric=metric)
    queries = np.ones((5, 4), np.float32)
    queries[3, 2] = bad
    with pytest.raises(InvalidInput, match=r"queries holds .* in row 3"):
        index.search(queries, 1)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1.0, 3e38])
def test_unit_length_from_denormals_to_the_largest_floats(size: float) -> None:
    rows = (np.random.default_rng(0).uniform(-1, 1, (7, 33)) * size).astype(np.float32)
    wide = rows.astype(np.float64)
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(normalised(rows), expected, rtol=1e-6)
    assert np.all(normalised(np.zeros((2, 33), np.float32)) == 0)


def test_queries_are_read_from_float64_lists_and_read_only_memory() -> None:
    queries = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    expected = read_queries(queries, 8, True)
    frozen = queries.copy()
    frozen.flags.writeable = False
    for same in (queries.astype(np.float64), queries.tolist(), frozen, np.asfortranarray(queries)):
        assert np.array_equal(read_queries(same, 8, True), expected)
    with pytest.raises(InvalidInput, match="in row 0"):
        read_queries(np.full((1, 8), 1e300), 8, True)


def test_ids_are_taken_from_the_segment_that_holds_the_position() -> None:
    positions = np.array([[5, -1, 9], [4, 6, 7]])
    out = np.full(positions.shape, -1)
    take_ids(positions, 5, np.array([50, 60, 70]), out)
    assert out.tolist() == [[50, -1, -1], [-1, 60, 70]]
