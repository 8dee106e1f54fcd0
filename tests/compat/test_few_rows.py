"""Few rows, searched as they lie: the answers of the index, bit for bit, and of float64 sums where the index has none."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmrec_fast.compat.faiss as faiss
from llmrec_fast.compat.exact_search import FewRowsIndex, RowsIndex, best_rows, unit_rows
from llmrec_fast.compat.few_rows import FewRows, are_few
from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.result import Metric

METRICS: list[Metric] = ["dot", "cosine", "euclidean"]


def vectors(count: int, columns: int, seed: int, *, coarse: bool) -> np.ndarray:
    """Normal vectors; coarse ones have few values and a wide range of lengths, so that scores tie and rows are zero."""
    rng = np.random.default_rng(seed)
    if coarse:
        rows = rng.integers(-1, 2, (count, columns)) * 10.0 ** rng.integers(-3, 4, (count, 1))
    else:
        rows = rng.standard_normal((count, columns))
    return rows.astype(np.float32)


@settings(deadline=None)
@given(
    count=st.integers(1, 70),
    columns=st.integers(1, 19),
    queries=st.integers(0, 9),
    k=st.integers(1, 80),
    seed=st.integers(0, 2**16),
    coarse=st.booleans(),
    metric=st.sampled_from(METRICS),
)
def test_answers_are_those_of_the_index(
    count: int, columns: int, queries: int, k: int, seed: int, coarse: bool, metric: Metric
) -> None:
    rows, asked = vectors(count, columns, seed, coarse=coarse), vectors(queries, columns, seed + 1, coarse=coarse)
    wanted = Index.build(rows, metric=metric).search(asked, k)
    for found in (FewRowsIndex(rows, metric).search(asked, k), best_rows(asked, rows, k, metric)):
        assert np.array_equal(found.ids, wanted.ids)
        assert np.array_equal(found.scores, wanted.scores)


@pytest.mark.parametrize("metric", METRICS)
def test_filters_are_those_of_the_index(metric: Metric) -> None:
    rows, asked = vectors(300, 24, 0, coarse=False), vectors(7, 24, 1, coarse=False)
    rng = np.random.default_rng(2)
    exclude = np.arange(8) * 40, np.concatenate([rng.choice(300, 40, replace=False) for _ in range(7)])
    few, many = RowsIndex(rows, metric), Index.build(rows, metric=metric)
    for allow in (None, rng.choice(300, 45, replace=False), rng.random(300) < 0.2):
        for left_out in (None, exclude):
            found, wanted = (index.search(asked, 60, exclude=left_out, allow=allow) for index in (few, many))
            assert np.array_equal(found.ids, wanted.ids)
            assert np.array_equal(found.scores, wanted.scores)


def test_one_query_does_not_bring_every_row_to_length_one() -> None:
    rows = vectors(1000, 33, 3, coarse=False) * np.float32(100)
    found = best_rows(rows[5:6], rows, 12, "cosine")
    wanted = Index.build(rows, metric="cosine").search(rows[5:6], 12)
    assert np.array_equal(found.ids, wanted.ids)
    assert np.array_equal(found.scores, wanted.scores)


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e15, 1e18])
@pytest.mark.parametrize("metric", METRICS)
def test_products_beyond_float32_are_not_believed(metric: Metric, size: float) -> None:
    rows = vectors(500, 40, 4, coarse=False) * np.float32(size)
    wanted = Index.build(rows, metric=metric).search(rows[:6], 9)
    found = best_rows(rows[:6], rows, 9, metric)
    assert np.array_equal(found.ids, wanted.ids)
    assert np.array_equal(found.scores, wanted.scores)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    rows, asked = vectors(900, 96, 5, coarse=False), vectors(101, 96, 6, coarse=False)
    few = FewRows(rows)
    found = few.search(asked, 5, euclidean=True, threads=threads)
    wanted = few.search(asked, 5, euclidean=True, threads=1)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("euclidean", [False, True])
def test_within_finds_all_that_reach_the_bound(euclidean: bool) -> None:
    rows, asked = vectors(700, 20, 7, coarse=False), vectors(6, 20, 8, coarse=False)
    wide, wide_asked = rows.astype(np.float64), asked.astype(np.float64)
    scores = wide_asked @ wide.T
    if euclidean:
        scores = -np.square(wide_asked[:, None] - wide).sum(axis=-1)
    least = float(np.quantile(scores, 0.6))  # more than the kernel has room for at first
    query, position, found = FewRows(rows).within(asked, least, euclidean=euclidean)
    assert np.array_equal(np.argwhere(scores >= least), np.stack([query, position], axis=1)[found >= least])
    np.testing.assert_allclose(found, scores[query, position], rtol=1e-12)
    allowed = np.arange(700) % 3 == 0
    some = FewRows(rows).within(asked, least, euclidean=euclidean, allowed=allowed[None])
    assert np.array_equal(some[1], position[allowed[position]])


def test_unit_rows_are_those_of_the_index() -> None:
    rows = vectors(3000, 150, 9, coarse=True)
    index = Index.build(rows, metric="cosine")
    assert np.array_equal(unit_rows(rows), index.vectors(index.ids))


@pytest.mark.parametrize(
    ("count", "by_few", "by_index"), [(300, True, False), (5000, True, True), (100_000, False, True)]
)
def test_rows_are_kept_for_what_is_faster(count: int, by_few: bool, by_index: bool) -> None:
    rows = vectors(count, 16, 10, coarse=False)
    index = RowsIndex(rows, "cosine")
    assert (index.few is not None, isinstance(index.index, Index)) == (by_few, by_index)
    wanted = Index.build(rows, metric="cosine").search(rows[:20], 4)
    for queries in (1, 20):
        found = index.search(rows[:queries], 4)
        assert np.array_equal(found.ids, wanted.ids[:queries])
        assert np.array_equal(found.scores, wanted.scores[:queries])


def test_many_rows_or_columns_are_not_few() -> None:
    assert are_few((4095, 1024))
    assert not are_few((4096, 1))
    assert are_few((4096, 256), queries=8)
    assert not are_few((4096, 256), queries=9)
    assert not are_few((4096, 257), queries=1)
    assert not are_few((4000, 2000))


def test_a_flat_index_forgets_what_it_made_of_its_rows_when_they_change() -> None:
    rows = np.eye(6, dtype=np.float32)
    index = faiss.IndexFlatIP(6)
    index.add(rows[:3])
    assert index.search(rows[3:4], 1)[0][0, 0] == 0
    index.add(rows[3:])
    assert index.search(rows[3:4], 1)[1].tolist() == [[3]]
    index.remove_ids([0])
    assert index.search(rows[3:4], 1)[1].tolist() == [[2]]
    assert index.reconstruct(2).tolist() == rows[3].tolist()
    index.reset()
    assert index.search(rows[3:4], 1)[1].tolist() == [[-1]]


def test_readers_beside_a_writer_leave_nothing_stale_behind() -> None:
    index, rows = faiss.IndexFlatIP(8), np.eye(8, dtype=np.float32)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            index.search(rows, 2)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(200):
            index.add(rows[:1])
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert index.search(rows[:1], 300)[1][0, :200].tolist() == list(range(199, -1, -1))
