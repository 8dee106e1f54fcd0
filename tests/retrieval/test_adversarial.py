"""Data made to break a search that bounds, rounds or samples: every answer must still be the exact one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.retrieval import Index, building
from tests.retrieval.oracle import assert_exact

G = np.random.default_rng(0)
N, D = 3000, 48


def normal(count: int = N, dim: int = D) -> np.ndarray:
    return G.standard_normal((count, dim)).astype(np.float32)


def last_bit_apart() -> np.ndarray:
    rows = np.tile(normal(1), (N, 1))
    columns = G.integers(0, D, N)
    rows[np.arange(N), columns] = np.nextafter(rows[np.arange(N), columns], np.float32(9))
    return rows


def with_norms(low: float, high: float) -> np.ndarray:
    return (normal() * 10.0 ** G.uniform(low, high, (N, 1))).astype(np.float32)


def spiked() -> np.ndarray:
    rows = normal() * np.float32(1e-3)
    rows[np.arange(N), G.integers(0, D, N)] = 1
    return rows


CASES: dict[str, Callable[[], np.ndarray]] = {
    "identical": lambda: np.tile(normal(1), (N, 1)),
    "half identical": lambda: np.concatenate([normal(N // 2), np.tile(normal(1), (N // 2, 1))]),
    "last bit": last_bit_apart,
    "norms over thirty decades": lambda: with_norms(-15, 15),
    "tiny": lambda: with_norms(-15, -14),
    "huge": lambda: with_norms(14, 15),
    "near overflow": lambda: (normal() * np.float32(3e37)).clip(-3e38, 3e38),
    "denormal": lambda: (normal().astype(np.float64) * 1e-41).astype(np.float32),
    "some denormal": lambda: np.concatenate([normal(N // 2), (normal(N // 2) * 1e-41).astype(np.float32)]),
    "one outlier": lambda: np.concatenate([normal(N - 1), np.full((1, D), 1e12, np.float32)]),
    "constant columns": lambda: np.where(np.arange(D) < 24, np.float32(7), normal()),
    "rank one": lambda: (normal(N, 1) * normal(1)).astype(np.float32),
    "zeros": lambda: np.zeros((N, D), np.float32),
    "some zeros": lambda: np.where(G.random((N, 1)) < 0.5, normal(), 0).astype(np.float32),
    "far from the origin": lambda: normal() * np.float32(1e-3) + np.float32(100),
    "spikes": spiked,
    "signs": lambda: np.sign(normal()),
}


def check(index: Index, rows: np.ndarray, queries: np.ndarray, k: int, bias: np.ndarray | None = None) -> None:
    stored = index.vectors(index.ids)
    for batch in (queries[:1], queries):
        result = index.search(batch, k)
        for query, ids, scores in zip(batch, result.ids, result.scores, strict=True):
            own = query
            if index.metric == "cosine":
                norm = np.linalg.norm(query.astype(np.float64))
                own = (query / (norm or 1)).astype(np.float32)
            assert_exact(ids, scores, stored, own, index.metric, bias)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("metric", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_rows(name: str, metric: str) -> None:
    rows = np.ascontiguousarray(CASES[name](), np.float32)
    index = Index.build(rows, metric=metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "LEAST_FITTED_ROWS", 1)
        index.optimize()
    queries = np.concatenate([rows[[5, N - 1]], normal(3), np.zeros((1, D), np.float32), -rows[[7]]])
    check(index, rows, queries, 10)


@pytest.mark.usefixtures("processor", "coded")
@pytest.mark.parametrize("dim", [1, 7, 4096])
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_every_width(dim: int, metric: str) -> None:
    rows = normal(1400 if dim == 4096 else N, dim)
    index = Index.build(rows, metric=metric)
    check(index, rows, np.concatenate([rows[:2], normal(3, dim)]), 5)
    assert index.search(rows[:1], 5, stats=True).stats.plan == "bounded-flat"


@pytest.mark.usefixtures("coded")
def test_the_widest_vectors_do_not_overflow() -> None:
    rows = np.ones((1300, 16_384), np.float32)
    rows[G.random(rows.shape) < 0.1] = -1
    rows[::7] = rows[0]
    index = Index.build(rows, metric="dot")
    check(index, rows, np.concatenate([np.ones((1, 16_384), np.float32), rows[:1], -rows[:2]]), 4)


@pytest.mark.usefixtures("processor", "coded")
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e4, 1e30])
def test_bias_that_matters_little_or_dominates(spread: float) -> None:
    rows = normal()
    bias = (G.standard_normal(N) * spread).astype(np.float32)
    bias[:500] = bias[0]
    index = Index.build(rows, metric="dot", bias=bias)
    check(index, rows, np.concatenate([normal(4), np.zeros((1, D), np.float32)]), 10, bias)


@pytest.mark.usefixtures("coded")
def test_bias_given_to_an_index_fitted_without_one() -> None:
    rows = normal()
    index = Index.build(rows[:2000], metric="cosine")
    bias = np.concatenate([np.zeros(2000), G.standard_normal(1000)]).astype(np.float32)
    index.add(rows[2000:], bias=bias[2000:])
    check(index, rows, normal(5), 10, bias)
    assert "optimize" not in (index.advice or "")
    assert index.advice is not None
    index.optimize()
    assert index.advice is None
    check(index, rows, normal(5), 10, bias)


@pytest.mark.usefixtures("coded")
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_rows_added_far_from_the_fitted_mean(metric: str) -> None:
    rows = normal()
    index = Index.build(rows, metric=metric)
    far = np.concatenate([normal(300) + 50, normal(20) * 1e6, normal(4) * np.float32(1e30)]).astype(np.float32)
    for start in range(0, len(far), 100):
        index.add(far[start : start + 100])
    everything = np.concatenate([rows, far])
    check(index, everything, np.concatenate([normal(3), far[[0, 310, 322]]]), 10)
    assert index.advice is not None


@pytest.mark.usefixtures("coded")
def test_k_beyond_the_catalogue_and_everything_excluded() -> None:
    rows = normal(700)
    index = Index.build(rows, metric="dot")
    check(index, rows, normal(3), 1000)
    result = index.search(rows[:2], 3, exclude=[np.arange(700), np.arange(699)])
    assert result.ids[0].tolist() == [-1, -1, -1]
    assert result.ids[1].tolist() == [699, -1, -1]
    assert index.search(rows[:9], 3, allow=[]).ids.max() == -1
    assert Index(4).search(np.ones((2, 4)), 3).ids.tolist() == [[-1] * 3] * 2


@pytest.mark.usefixtures("coded")
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 70),
    metric=st.sampled_from(["dot", "cosine", "euclidean"]),
    k=st.integers(1, 30),
    decay=st.floats(0.01, 10),
    with_bias=st.booleans(),
)
def test_any_history_of_writes_gives_the_answers_of_a_fresh_index(
    seed: int, dim: int, metric: str, k: int, decay: float, with_bias: bool
) -> None:
    """Add, remove, upsert and optimize in any order; the answers are those of the rows that are left, in order of
    their last add."""
    generator = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(dim) * decay / dim)

    def make(count: int) -> tuple[np.ndarray, np.ndarray | None]:
        rows = generator.standard_normal((count, dim)) * spectrum + 0.3
        rows[generator.random(count) < 0.1] = rows[0]
        bias = generator.standard_normal(count) if with_bias and metric != "euclidean" else None
        return rows.astype(np.float32), None if bias is None else bias.astype(np.float32)

    index = Index(dim, metric)
    held: dict[int, tuple[np.ndarray, float]] = {}
    for step in generator.integers(0, 4, 6):
        rows, bias = make(int(generator.integers(1, 900)))
        biases = np.zeros(len(rows)) if bias is None else bias
        known = np.array(list(held), np.int64)
        if step <= 1:
            ids = np.arange(len(rows)) + (max(held, default=-1) + 1)
            index.add(rows, ids, bias)
        elif step == 2:
            fresh = np.arange(1000) + (max(held, default=-1) + 1)
            ids = generator.permutation(np.concatenate([known, fresh]))[: len(rows)]
            index.upsert(rows[: len(ids)], ids, None if bias is None else bias[: len(ids)])
        else:
            index.remove(known[generator.random(len(known)) < 0.3])
            held = {item: held[item] for item in index.ids.tolist()}
            if generator.random() < 0.3:
                index.optimize()
            continue
        for place, item in enumerate(ids.tolist()):
            held.pop(item, None)
            held[item] = rows[place], float(biases[place])
    assert index.ids.tolist() == list(held)
    if not held:
        return
    stored = index.vectors(index.ids)
    if metric != "cosine":
        np.testing.assert_array_equal(stored, np.array([row for row, _ in held.values()]))
    bias = np.array([value for _, value in held.values()], np.float32)
    queries = make(5)[0]
    if metric == "cosine":
        queries = (queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    excluded = [generator.choice(index.ids, min(20, len(held)), replace=False) for _ in queries]
    allowed = generator.random(len(held)) < 0.8
    result = index.search(queries, k, exclude=excluded, allow=allowed)
    place_of = {item: place for place, item in enumerate(held)} | {-1: -1}
    for query, ids, scores, gone in zip(queries, result.ids, result.scores, excluded, strict=True):
        own = allowed.copy()
        own[[place_of[item] for item in gone.tolist()]] = False
        places = np.array([place_of[item] for item in ids.tolist()])
        # the query is normalised again by the index: that may move its last bit, and the scores by as much
        np.testing.assert_allclose(
            scores[places >= 0], index.search(query[None], k, exclude=[gone], allow=allowed).scores[0][places >= 0]
        )
        if metric != "cosine":
            assert_exact(places, scores, stored, query, metric, None if metric == "euclidean" else bias, own)
