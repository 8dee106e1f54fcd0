"""The index's interface: what goes in, what comes out, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput, UnknownId
from llmrec_fast.retrieval import Index

ROWS = np.random.default_rng(0).standard_normal((200, 12), dtype=np.float32)


def test_ids_follow_the_largest_so_far() -> None:
    index = Index(12, "dot")
    index.add(ROWS[:3])
    index.add(ROWS[3:5], ids=[100, 50])
    index.add(ROWS[5:7])
    assert index.ids.tolist() == [0, 1, 2, 100, 50, 101, 102]
    assert len(index) == 7
    assert 50 in index
    assert 3 not in index


def test_removed_ids_are_never_returned_and_may_come_back() -> None:
    index = Index.build(ROWS, metric="dot")
    best = index.search(ROWS[:1], 2).ids[0]
    index.remove(best[:1])
    assert index.search(ROWS[:1], 1).ids[0, 0] == best[1]
    index.add(ROWS[best[:1]], ids=best[:1])
    assert index.search(ROWS[:1], 2).ids[0].tolist() == best.tolist()
    assert index.ids[-1] == best[0]


def test_a_failed_write_changes_nothing() -> None:
    index = Index.build(ROWS, metric="dot")
    bad = ROWS[:2].copy()
    bad[1, 3] = np.nan
    with pytest.raises(InvalidInput, match="row 1"):
        index.add(bad)
    with pytest.raises(InvalidInput, match="already"):
        index.add(ROWS[:2], ids=[500, 7])
    with pytest.raises(InvalidInput, match="distinct"):
        index.add(ROWS[:2], ids=[500, 500])
    with pytest.raises(InvalidInput, match="-1"):
        index.add(ROWS[:1], ids=[-1])
    with pytest.raises(UnknownId, match="999"):
        index.remove([1, 999])
    with pytest.raises(InvalidInput, match="12 columns"):
        index.add(ROWS[:, :5])
    assert index.ids.tolist() == list(range(200))


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_k_must_be_a_positive_integer(k: object) -> None:
    with pytest.raises(InvalidInput, match="k must be"):
        Index.build(ROWS).search(ROWS[:1], k)  # type: ignore[arg-type]


def test_fewer_allowed_rows_than_k_are_padded() -> None:
    index = Index.build(ROWS, metric="dot")
    result = index.search(ROWS[:2], 5, allow=[3, 8, 9], exclude=[[3, 12345], []])
    assert result.ids.shape == (2, 5)
    assert sorted(result.ids[0, :2].tolist()) == [8, 9]
    assert result.ids[0, 2:].tolist() == [-1, -1, -1]
    assert np.isneginf(result.scores[0, 2:]).all()
    assert sorted(result.ids[1, :3].tolist()) == [3, 8, 9]


def test_allow_takes_a_mask_over_positions() -> None:
    index = Index.build(ROWS, metric="dot", ids=np.arange(200) * 2)
    index.remove([0])
    mask = np.zeros(199, bool)
    mask[[4, 7]] = True
    assert sorted(index.search(ROWS[:1], 2, allow=mask).ids[0].tolist()) == [10, 16]


def test_exclude_takes_csr() -> None:
    index = Index.build(ROWS, metric="dot")
    free = index.search(ROWS[:2], 3).ids
    result = index.search(ROWS[:2], 3, exclude=(np.array([0, 1, 1]), free[0, :1]))
    assert result.ids[0, 0] == free[0, 1]
    assert result.ids[1].tolist() == free[1].tolist()
    with pytest.raises(InvalidInput, match="indptr"):
        index.search(ROWS[:2], 3, exclude=(np.array([0, 2, 1]), free[0, :1]))


def test_euclidean_refuses_a_bias() -> None:
    with pytest.raises(InvalidInput, match="bias"):
        Index.build(ROWS, bias=np.zeros(200), metric="euclidean")


def test_vectors_returns_the_stored_rows() -> None:
    index = Index.build(ROWS, metric="cosine")
    np.testing.assert_allclose(np.linalg.norm(index.vectors([3, 5]), axis=1), 1, rtol=1e-6)
    with pytest.raises(UnknownId):
        index.vectors([200])
