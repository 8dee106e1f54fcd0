"""An index that searches on a GPU gives the answers of one that searches on the CPU, bit for bit, whatever was written.

Without a GPU the kernels run as they are on the CPU (tests/simt), at small sizes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmrec_fast.errors import DeviceUnavailable, InvalidInput
from llmrec_fast.retrieval import Index, building
from tests.retrieval.conftest import GPU_IS_MISSING
from tests.retrieval.test_adversarial import CASES, check

N, D = 700, 48
G = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("gpu", "coded")


def pair(rows: np.ndarray, metric: str = "dot", bias: np.ndarray | None = None) -> tuple[Index, Index]:
    """The same index twice: searched on the GPU and on the CPU."""
    return Index.build(rows, bias=bias, metric=metric, device="cuda"), Index.build(rows, bias=bias, metric=metric)


def assert_same(ours: Index, theirs: Index, queries: np.ndarray, k: int, **filters: object) -> None:
    for batch in (queries[:1], queries):
        own = {name: value[: len(batch)] if name == "exclude" else value for name, value in filters.items()}  # type: ignore[index]
        one, other = ours.search(batch, k, **own), theirs.search(batch, k, **own)  # type: ignore[arg-type]
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("metric", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_rows(name: str, metric: str) -> None:
    rows = np.ascontiguousarray(CASES[name]()[-N:], np.float32)
    rows = np.ascontiguousarray(rows[: N // 2] if "identical" in name else rows)
    index = Index.build(rows, metric=metric, device="cuda")
    queries = np.concatenate([rows[[5, -1]], G.standard_normal((3, D)), np.zeros((1, D)), -rows[[7]]]).astype(
        np.float32
    )
    check(index, rows, np.concatenate([queries, queries[:3]]), 10)


@pytest.mark.parametrize("dim", [1, 7, 300])
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_every_width(dim: int, metric: str) -> None:
    rows = G.standard_normal((400, dim)).astype(np.float32)
    assert_same(*pair(rows, metric), np.concatenate([rows[:2], rows[5:8] + 1]), 5)


def test_writes_are_seen_at_once() -> None:
    rows = G.standard_normal((900, D)).astype(np.float32)
    indexes = pair(rows[:300])
    queries = np.concatenate([rows[300:303], rows[::90]])
    for index in indexes:
        assert len(index.search(queries, 5).ids) == len(queries)
    for step in range(6):
        for index in indexes:
            if step == 0:
                index.add(rows[300:313])  # a new segment with room for more
            elif step == 1:
                index.add(rows[313:350])  # into that room, from the middle of a tile
            elif step == 2:
                index.remove([0, 301, 302, 349])
            elif step == 3:
                index.upsert(rows[400:420], ids=np.arange(290, 310))
            elif step == 4:
                index.optimize()
            else:
                index.add(rows[500:900] * 100)
        assert_same(*indexes, queries, 20)
        assert_same(*indexes, queries, 20, allow=indexes[0].ids[::3], exclude=[indexes[0].ids[:40]] * len(queries))


@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e30])
def test_bias(spread: float) -> None:
    rows = G.standard_normal((N, D)).astype(np.float32)
    bias = (G.standard_normal(N) * spread).astype(np.float32)
    bias[:100] = bias[0]
    assert_same(*pair(rows, "dot", bias), np.concatenate([rows[:4], np.zeros((1, D), np.float32)]), 10)


def test_k_beyond_the_catalogue_and_everything_excluded() -> None:
    rows = G.standard_normal((300, D)).astype(np.float32)
    ours, theirs = pair(rows)
    assert_same(ours, theirs, rows[:3], 1000)
    result = ours.search(rows[:2], 3, exclude=[np.arange(300), np.arange(299)])
    assert result.ids.tolist() == [[-1, -1, -1], [299, -1, -1]]
    assert ours.search(rows[:9], 3, allow=[]).ids.max() == -1
    assert Index(4, device="cuda").search(np.ones((2, 4)), 3).ids.tolist() == [[-1] * 3] * 2
    with pytest.raises(InvalidInput, match="k must be 1 to 1024"):
        ours.search(rows[:1], 1025)


def test_an_index_moves_between_devices_without_loss(tmp_path: Path) -> None:
    rows = G.standard_normal((N, D)).astype(np.float32)
    ours, _ = pair(rows, "cosine")
    ours.search(rows[:1], 1)
    ours.save(tmp_path / "index")
    assert_same(Index.load(tmp_path / "index", mmap=True, device="cuda"), Index.load(tmp_path / "index"), rows[:12], 15)


def test_too_few_rows_to_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "LEAST_FITTED_ROWS", 4096)
    rows = G.standard_normal((200, D)).astype(np.float32)
    ours, theirs = pair(rows, "euclidean")
    assert_same(ours, theirs, rows[:10], 7)
    statistics = ours.search(rows[:3], 7, stats=True).stats
    assert statistics is not None
    assert (statistics.plan, statistics.reranked) == ("direct", 600)


def test_statistics_say_what_was_skipped() -> None:
    rows = (G.standard_normal((4000, D)) * np.exp(-np.arange(D) / 6)).astype(np.float32)
    statistics = Index.build(rows, metric="dot", device="cuda").search(rows[:4], 5, stats=True).stats
    assert statistics is not None
    assert statistics.plan.startswith("bounded")
    assert statistics.rows_scanned == 16_000
    assert 20 <= statistics.after_stage_2 <= statistics.after_stage_0 < 4000


@pytest.mark.skipif(GPU_IS_MISSING is None, reason="there is a GPU")
def test_without_a_gpu_only_auto_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmrec_fast.retrieval import on_device

    monkeypatch.setattr(on_device, "why_unavailable", lambda: "no GPU for this test")
    with pytest.raises(DeviceUnavailable, match="no GPU for this test"):
        Index(4, device="cuda")
    index = Index(4, device="auto")
    index.add(np.eye(4))
    assert index.search(np.eye(4)[:1], 1).ids[0, 0] == 0
    with pytest.raises(InvalidInput, match="device must be"):
        Index(4, device="tpu")
